-- A fresh extension, and what a run of cron leaves behind. A job was enqueued
-- when its transaction committed, as track_commit_timestamp has it. That holds
-- as long as nobody claims it, for then its row has another xmin: so jobs of
-- type "tick", which nobody runs, tell of enqueueing, and SQL jobs of starting.
DROP VIEW IF EXISTS cron_begun, cron_enqueued, cron_started;
DROP TABLE IF EXISTS cron_bodies;
\ir jobqueue.sql
CREATE TABLE cron_bodies (instant timestamptz NOT NULL, started_at timestamptz NOT NULL);

-- Milliseconds from the instant to the start of the transaction that enqueued
-- the job, to its end, and to the first look of the job's body at the clock.
CREATE VIEW cron_begun AS
	SELECT scheduled_at AS instant,
		1000 * extract(epoch FROM created_at - scheduled_at) AS ms
	FROM jobs_queue_live WHERE job_type = 'tick';
CREATE VIEW cron_enqueued AS
	SELECT scheduled_at AS instant,
		1000 * extract(epoch FROM pg_xact_commit_timestamp(xmin) - scheduled_at) AS ms
	FROM jobs_queue_live WHERE job_type = 'tick';
CREATE VIEW cron_started AS
	SELECT instant, 1000 * extract(epoch FROM started_at - instant) AS ms
	FROM cron_bodies;

CREATE OR REPLACE FUNCTION add_cron_tasks(prefix text, tasks integer, schedule text,
		job_type text, enabled boolean DEFAULT true)
	RETURNS void LANGUAGE sql AS $$
	INSERT INTO cron_tasks (name, schedule, job_type, payload, enabled)
		SELECT prefix || n, schedule, job_type,
			CASE job_type WHEN 'sql' THEN jsonb_build_object('command',
				'INSERT INTO public.cron_bodies'
				' SELECT scheduled_at, clock_timestamp() FROM public.current_job()')
			ELSE '{}' END, enabled
		FROM generate_series(1, tasks) AS n
$$;
