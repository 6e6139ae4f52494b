-- A line of cron_start.csv: how late :view was in so many seconds.
SELECT :'what', count(*),
	round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 2),
	round(percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)::numeric, 2),
	round(max(ms)::numeric, 2)
FROM :view
WHERE instant >= :'start' AND instant < :'start'::timestamptz + :seconds * interval '1 second';
