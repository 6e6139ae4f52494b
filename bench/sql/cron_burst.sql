-- The end of a line of cron_burst.csv: when the first, half and all of the jobs
-- of one instant were there, in :view.
SELECT count(*), round(min(ms)::numeric, 1),
	round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 1),
	round(max(ms)::numeric, 1)
FROM :view WHERE instant = :'start';
