-- The same tasks as in cron_far.sql, without a call for each.
DELETE FROM cron.job;
INSERT INTO cron.job (schedule, command, nodeport)
	SELECT format('%s %s 29 2 *', n % 60, n / 60 % 24), 'SELECT 1',
		current_setting('port')::integer
	FROM generate_series(1, :tasks) AS n;
