-- A line of cron_load.csv: how late the :tasks tasks were, that were due in
-- every one of so many seconds, in all of them and in the first and last sixth.
WITH sample AS (
	SELECT ms, 6 * extract(epoch FROM instant - :'start'::timestamptz) / :seconds AS sixth
	FROM cron_enqueued
	WHERE instant >= :'start' AND instant < :'start'::timestamptz + :seconds * interval '1 second'
)
SELECT :'what', count(*), :tasks * :seconds - count(*),
	round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 1),
	round(percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)::numeric, 1),
	round(max(ms)::numeric, 1),
	round(percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)
		FILTER (WHERE sixth < 1)::numeric, 1),
	round(percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)
		FILTER (WHERE sixth >= 5)::numeric, 1),
	round(:cpu_ms::numeric / 10 / :seconds, 2), :private, :growth
FROM sample;
