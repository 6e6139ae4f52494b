-- Enabled tasks whose next run is far away: no year has more than one, and
-- every minute of that day has some.
INSERT INTO cron_tasks (name, schedule, job_type)
	SELECT 'far ' || n, format('%s %s 29 2 *', n % 60, n / 60 % 24), 'tick'
	FROM generate_series(1, :tasks) AS n;
