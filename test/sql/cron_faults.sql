-- One bad task never touches another.

\pset null -
SET timezone = 'UTC';
-- Both are due; the bad one comes first.
CREATE FUNCTION pg_temp.due() RETURNS void LANGUAGE sql AS $$
	DELETE FROM jobs_queue;
	DELETE FROM cron_tasks;
	INSERT INTO cron_tasks (name, schedule, job_type, next_run_at) VALUES
		('bad', '0 0 1 1 *', 'x', '2024-05-01 00:00+00'), ('good', '0 0 1 1 *', 'x', '2024-05-01 00:01+00');
$$;
CREATE VIEW pg_temp.outcome AS
	SELECT name, enabled, next_run_at > now() AS planned, run_count, disabled_reason FROM cron_tasks ORDER BY id;

-- Numbers of which no difference can be taken, and lengths that are none.
SELECT pg_temp.due() \g /dev/null
UPDATE cron_tasks SET max_runs = 9223372036854775807, run_count = -1 WHERE name = 'bad';
SELECT enqueue_cron_tasks();
TABLE pg_temp.outcome;
SELECT pg_temp.due() \g /dev/null
UPDATE cron_tasks SET run_count = 9223372036854775807 WHERE name = 'bad';
SELECT enqueue_cron_tasks();
TABLE pg_temp.outcome;
SELECT pg_temp.due() \g /dev/null
UPDATE cron_tasks SET missed_count = 9223372036854775807, skipped_count = 9223372036854775807 WHERE name = 'bad';
SELECT enqueue_cron_tasks();
TABLE pg_temp.outcome;
SELECT pg_temp.due() \g /dev/null
ALTER TABLE cron_tasks DISABLE TRIGGER guard;
UPDATE cron_tasks SET jitter = '178000000 years', start_deadline = '178000000 years' WHERE name = 'bad';
ALTER TABLE cron_tasks ENABLE TRIGGER guard;
SELECT enqueue_cron_tasks();
TABLE pg_temp.outcome;
SELECT pg_temp.due() \g /dev/null
ALTER TABLE cron_tasks DISABLE TRIGGER guard;
UPDATE cron_tasks SET jitter = '-1 month', start_deadline = '-178000000 years', max_runs = -9223372036854775807, run_count = 5 WHERE name = 'bad';
ALTER TABLE cron_tasks ENABLE TRIGGER guard;
SELECT enqueue_cron_tasks();
TABLE pg_temp.outcome;

DELETE FROM jobs_queue;
DELETE FROM cron_tasks;
