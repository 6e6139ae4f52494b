-- What cron tasks do while a job of theirs has not ended: another job, none, or
-- this one in its place.
\set SHOW_CONTEXT never
SET timezone = 'UTC';
SET client_min_messages = warning;
ALTER SEQUENCE cron_tasks_id_seq RESTART;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
CREATE ROLE regress_alice;
CREATE ROLE regress_bob;
DO $$ BEGIN PERFORM grant_job_role('regress_alice', 'operator'), grant_job_role('regress_bob', 'operator'); END $$;
RESET client_min_messages;
\set w '''aaaaaaaa-0000-4000-8000-000000000001'''

-- One more instant of every task, by hand, and what comes of it.
CREATE FUNCTION pg_temp.tick() RETURNS TABLE (enqueued integer) LANGUAGE sql AS $$
	UPDATE cron_tasks SET next_run_at = clock_timestamp() WHERE enabled;
	SELECT enqueue_cron_tasks();
$$;
CREATE VIEW pg_temp.job AS
	SELECT q.id, t.overlap, q.status, q.cancel_requested_at IS NOT NULL AS cancelling, q.last_error, t.last_job_id = q.id AS last
	FROM jobs_queue q JOIN cron_tasks t ON t.id = q.cron_task_id ORDER BY q.id;
CREATE VIEW pg_temp.run AS
	SELECT t.overlap, r.job_id, r.skip_reason FROM cron_runs r JOIN cron_tasks t ON t.id = r.task_id
	ORDER BY t.id, r.instant;
CREATE VIEW pg_temp.counted AS
	SELECT overlap, enabled AS on, run_count AS run, missed_count AS missed, skipped_count AS skipped, last_job_id AS last
	FROM cron_tasks ORDER BY id;

-- Queued: allow adds one, skip leaves it, replace cancels it.
INSERT INTO cron_tasks (name, schedule, job_type, overlap)
SELECT o, '0 0 1 1 *', o, o FROM unnest('{allow,skip,replace}'::text[]) WITH ORDINALITY u(o, n) ORDER BY n;
SELECT * FROM pg_temp.tick();
SELECT * FROM pg_temp.tick();
SELECT * FROM pg_temp.job;
SELECT * FROM pg_temp.run;
SELECT * FROM pg_temp.counted;
SELECT bool_and(next_run_at > now()) AS all_planned FROM cron_tasks;

-- Running: the same, but replace can only ask the job to end.
SELECT id, job_type FROM claim_next_job(:w, 'skip');
SELECT id, job_type FROM claim_next_job(:w, 'replace');
SELECT * FROM pg_temp.tick();
SELECT * FROM pg_temp.job WHERE overlap <> 'allow' AND status <> 'cancelled';
-- It is asked once; the queued one after it is replaced as ever.
SELECT cancel_requested_at AS asked FROM jobs_queue WHERE status = 'running' AND job_type = 'replace' \gset
SELECT * FROM pg_temp.tick();
SELECT * FROM pg_temp.job WHERE overlap = 'replace';
SELECT cancel_requested_at = :'asked' AS as_before FROM jobs_queue WHERE status = 'running' AND job_type = 'replace';
-- Once its job has ended, a task that skips goes on.
SELECT complete_job(id, :w) FROM jobs_queue WHERE status = 'running' AND job_type = 'skip';
SELECT * FROM pg_temp.tick();
SELECT * FROM pg_temp.job WHERE overlap = 'skip';
SELECT * FROM pg_temp.run WHERE overlap = 'skip';

-- A failed job stands in nobody's way, until it is requeued.
SELECT id AS failed FROM claim_next_job(:w, 'skip') \gset
SELECT fail_job(:failed, :w, 'broken', permanent => true);
SELECT requeue_job(:failed);
SELECT * FROM pg_temp.tick();
SELECT skip_reason FROM cron_runs WHERE task_id = 2 ORDER BY instant DESC LIMIT 1;
SELECT cancel_job(:failed);
SELECT * FROM pg_temp.tick();
-- One that waits for its retry does.
SELECT id AS retried FROM claim_next_job(:w, 'skip') \gset
SELECT fail_job(:retried, :w, 'not now');
SELECT status, attempts FROM jobs_queue WHERE id = :retried;
SELECT * FROM pg_temp.tick();
SELECT count(*) FROM jobs_queue_live WHERE job_type = 'skip';
SELECT * FROM pg_temp.counted;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- Of several instants at once: all, the first, or the last.
ALTER SEQUENCE cron_tasks_id_seq RESTART;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
INSERT INTO cron_tasks (name, schedule, job_type, overlap, catch_up, next_run_at, ends_at)
SELECT o, '0 * * * *', o, o, 'all', '2024-05-01 00:00+00', '2024-05-01 03:00+00'
FROM unnest('{allow,skip,replace}'::text[]) WITH ORDINALITY u(o, n) ORDER BY n;
SELECT enqueue_cron_tasks();
SELECT * FROM pg_temp.run;
SELECT * FROM pg_temp.counted;
SELECT t.overlap, t.last_instant, min(q.cron_instant) AS first, max(q.cron_instant) AS last
FROM cron_tasks t JOIN jobs_queue q ON q.cron_task_id = t.id GROUP BY 1, 2 ORDER BY 1;
-- What was skipped was decided about: it does not come back.
UPDATE cron_tasks SET enabled = true, next_run_at = '2024-05-01 00:00+00';
DELETE FROM jobs_queue;
SELECT enqueue_cron_tasks();
SELECT count(*) FROM cron_runs;
DELETE FROM cron_tasks;

-- A job by hand is a job of the task, and asks nobody.
INSERT INTO cron_tasks (name, schedule, job_type, overlap)
SELECT o, '0 0 1 1 *', o, o FROM unnest('{skip,replace}'::text[]) WITH ORDINALITY u(o, n) ORDER BY n;
SELECT count(run_cron_task(name)) FROM cron_tasks;
SELECT count(run_cron_task(name, now() - interval '1 hour')) FROM cron_tasks;
SELECT * FROM pg_temp.tick();
SELECT overlap, status, count(*) FROM pg_temp.job GROUP BY 1, 2 ORDER BY 1, 2;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- Replaced by whoever enqueues, as the job belongs to the owner of the task;
-- another task's jobs of the same type stay.
SET ROLE regress_alice;
SELECT schedule_cron_task('alices', '0 0 1 1 *', 'shared', overlap => 'replace') > 0 AS ok;
RESET ROLE;
SELECT schedule_cron_task('other', '0 0 1 1 *', 'shared') > 0 AS ok;
SELECT enqueue_job('shared') > 0 AS ok;
SELECT * FROM pg_temp.tick();
UPDATE cron_tasks SET next_run_at = clock_timestamp() WHERE name = 'alices';
SET ROLE regress_bob;
SELECT enqueue_cron_tasks();
RESET ROLE;
SELECT t.name, q.owner = coalesce(t.owner, current_user::regrole) AS owned, q.status, q.last_error FROM jobs_queue q LEFT JOIN cron_tasks t ON t.id = q.cron_task_id ORDER BY q.id;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- Rolled back, the job that would be replaced is there as before.
SELECT schedule_cron_task('one', '0 0 1 1 *', 'one', overlap => 'replace') > 0 AS ok;
SELECT * FROM pg_temp.tick();
BEGIN;
SELECT * FROM pg_temp.tick();
SELECT status FROM jobs_queue ORDER BY id;
ROLLBACK;
SELECT status FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- The values.
SELECT schedule_cron_task('wrong', '@daily', 'x', overlap => 'forbid');
SELECT schedule_cron_task('wrong', '@daily', 'x', overlap => '');
SELECT schedule_sql('null', '@daily', 'SELECT 1', overlap => NULL) > 0 AS ok;
SELECT overlap, catch_up, catch_up_limit FROM cron_tasks;
UPDATE cron_tasks SET overlap = 'Skip';
DELETE FROM cron_tasks;
DELETE FROM job_runs;
DROP OWNED BY regress_alice, regress_bob;
DROP ROLE regress_alice, regress_bob;
