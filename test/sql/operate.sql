--
-- Operators: requeue, cancel, worker names, and the views.
--
SET TIMEZONE = 'UTC';
SET DATESTYLE = 'ISO, YMD';
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_dependencies;
DELETE FROM job_types;
DELETE FROM registered_workers;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
\set SHOW_CONTEXT never
\set w1 '''aaaaaaaa-0000-4000-8000-000000000001'''
\set w2 '''aaaaaaaa-0000-4000-8000-000000000002'''

-- requeue_job: now, with all attempts, and without what the last run left
INSERT INTO job_types (job_type, dead_letter) VALUES ('sync', true);
SELECT enqueue_jobs('ocr', '{1,2,3}', max_attempts => 1);
SELECT enqueue_job('sync', max_attempts => 1);
SELECT enqueue_job('ocr', scheduled_at => now() + interval '1 hour');
SELECT enqueue_job('ocr', depends_on => '{5}');
SELECT count(*) FROM claim_jobs(:w1, '{ocr,sync}');
SELECT resolve_job(1, :w1, false, 'broken'), complete_job(2, :w1, '{"r": 1}'), resolve_job(4, :w1, false, 'dead'),
	   cancel_job(5, 'not needed');
SELECT id, status, attempts, last_error, result FROM jobs_queue ORDER BY id;
SELECT id, requeue_job(id) FROM jobs_queue WHERE id IN (1, 2, 4, 5) ORDER BY id;
SELECT id, status, attempts, claim_no, last_error, result, finished_at, scheduled_at = updated_at AS is_due_now
FROM jobs_queue ORDER BY id;
SELECT requeue_job(3);
SELECT requeue_job(6);
SELECT requeue_job(424242);
SELECT requeue_job(NULL);
SELECT requeue_job(0);
-- a waiting job starts over as well
UPDATE jobs_queue SET scheduled_at = now() + interval '1 hour' WHERE id = 2;
SELECT requeue_job(2);
SELECT resolve_job(id, :w2, false, 'again') FROM claim_next_job(:w2, 'sync');
SELECT requeue_job(4);
SELECT id, status, attempts, last_error, scheduled_at <= now() AS is_due FROM jobs_queue WHERE id IN (2, 4) ORDER BY id;
SELECT job_id, claim_no, attempt, status FROM job_runs ORDER BY job_id, claim_no;
DELETE FROM job_dependencies;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- a job cannot come back beside the one that has its unique key
SELECT enqueue_job('ocr', unique_key => 'k');
SELECT cancel_job(1);
SELECT enqueue_job('ocr', unique_key => 'k');
SELECT requeue_job(1);
SELECT id, status FROM jobs_queue ORDER BY id;
SELECT complete_job(2), requeue_job(1);
SELECT id, status FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- requeue_jobs: what the filter matches, oldest first
INSERT INTO jobs_queue (job_type, stage, status, attempts, max_attempts, claim_no, last_error, finished_at, owner)
VALUES
	('ocr', 'a', 'failed', 5, 5, 5, 'timeout', '2024-01-01', current_user::regrole),
	('ocr', 'b', 'failed', 5, 5, 5, 'no such page', '2024-01-03', current_user::regrole),
	('ocr', 'a', 'error', 5, 5, 5, 'timeout: 3 s', '2024-01-02', current_user::regrole),
	('sync', 'a', 'failed', 5, 5, 5, 'timeout', '2024-01-04', current_user::regrole),
	('ocr', 'a', 'cancelled', 0, 5, 0, NULL, '2024-01-05', current_user::regrole),
	('ocr', 'a', 'completed', 1, 5, 1, NULL, '2024-01-06', current_user::regrole),
	('sync', 'b', 'error', 1, 5, 1, NULL, '2024-01-07', NULL);
CREATE FUNCTION pg_temp.requeued() RETURNS TABLE (jobs bigint, ids bigint[])
LANGUAGE sql AS $$
	SELECT count(*), array_agg(id ORDER BY id) FROM jobs_queue WHERE status = 'queued'
$$;
BEGIN; SELECT requeue_jobs(); SELECT * FROM pg_temp.requeued(); ROLLBACK;
BEGIN; SELECT requeue_jobs('ocr'); SELECT * FROM pg_temp.requeued(); ROLLBACK;
BEGIN; SELECT requeue_jobs(statuses => '{error}'); SELECT * FROM pg_temp.requeued(); ROLLBACK;
BEGIN; SELECT requeue_jobs(statuses => '{completed,cancelled}'); SELECT * FROM pg_temp.requeued(); ROLLBACK;
BEGIN; SELECT requeue_jobs(stage => 'a'); SELECT * FROM pg_temp.requeued(); ROLLBACK;
BEGIN; SELECT requeue_jobs(error_like => 'timeout%'); SELECT * FROM pg_temp.requeued(); ROLLBACK;
BEGIN; SELECT requeue_jobs(finished_after => '2024-01-02'); SELECT * FROM pg_temp.requeued(); ROLLBACK;
BEGIN; SELECT requeue_jobs(finished_before => '2024-01-02'); SELECT * FROM pg_temp.requeued(); ROLLBACK;
BEGIN; SELECT requeue_jobs(max_jobs => 2); SELECT * FROM pg_temp.requeued(); ROLLBACK;
BEGIN; SELECT requeue_jobs(max_jobs => 0); SELECT * FROM pg_temp.requeued(); ROLLBACK;
BEGIN;
SELECT requeue_jobs('ocr', '{failed,error}', 'a', 'timeout%', '2024-01-01', '2024-01-03', 10);
SELECT id, status, attempts, claim_no, last_error, finished_at FROM jobs_queue ORDER BY id;
ROLLBACK;
SELECT requeue_jobs('nothing');
SELECT requeue_jobs(statuses => '{}');
SELECT requeue_jobs(statuses => NULL);
SELECT requeue_jobs(statuses => '{failed,NULL}');
SELECT requeue_jobs(statuses => '{failed,running}');
SELECT requeue_jobs(statuses => '{queued}');
SELECT requeue_jobs(statuses => '{done}');
SELECT requeue_jobs(max_jobs => -1);
SELECT * FROM pg_temp.requeued();
-- one whose owner is gone needs a new one first
SELECT requeue_job(7);
UPDATE jobs_queue SET status = 'queued' WHERE id = 7;
UPDATE jobs_queue SET owner = current_user::regrole WHERE id = 7;
SELECT requeue_job(7);
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- of jobs with the same unique key, the oldest comes back; the taken ones are skipped
SELECT enqueue_job('ocr', unique_key => 'a'), cancel_job(1), enqueue_job('ocr', unique_key => 'a'), cancel_job(2),
	   enqueue_job('ocr', unique_key => 'b'), cancel_job(3), enqueue_job('ocr', unique_key => 'b'),
	   enqueue_job('ocr', unique_key => 'c'), cancel_job(5), enqueue_job('sync', unique_key => 'b'), cancel_job(6);
SELECT requeue_jobs(statuses => '{cancelled}');
SELECT id, job_type, unique_key, status FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- cancel_job: queued and blocked jobs end at once
SELECT enqueue_job('ocr'), enqueue_job('ocr', depends_on => '{1}'),
	   enqueue_job('ocr', scheduled_at => now() + interval '1 hour');
SELECT resolve_job(id, :w1, false, 'first') FROM claim_next_job(:w1, 'ocr');
SELECT cancel_job(1), cancel_job(2, 'not needed'), cancel_job(job_id => 3, reason => 'neither');
SELECT id, status, attempts, last_error, finished_at = updated_at AS has_end FROM jobs_queue ORDER BY id;
SELECT cancel_job(1) AS again;
SELECT cancel_job(424242);
SELECT cancel_job(NULL);
SELECT cancel_job(-1);
-- a running job is asked to stop, and its worker says how it ended
SELECT enqueue_jobs('ocr', '{4,5,6,7,8}');
SELECT count(*) FROM claim_jobs(:w1, '{ocr}');
SELECT id, cancel_job(id, 'stop') FROM jobs_queue WHERE status = 'running' ORDER BY id;
SELECT id, status, last_error, cancel_requested_at IS NOT NULL AS asked, heartbeat_job(id, :w1)
FROM jobs_queue WHERE status = 'running' ORDER BY id;
SELECT resolve_job(4, :w1, true) AS completed, resolve_job(5, :w1, false, 'stopped') AS failed,
	   release_job(6, :w1) AS released, snooze_job(7, :w1, '1 s') AS snoozed;
SELECT resolve_job(8, :w1, false, 'x') AS failed;
SELECT id, status, attempts, last_error, cancel_requested_at FROM jobs_queue WHERE id > 3 ORDER BY id;
SELECT job_id, status, charged, error FROM job_runs ORDER BY job_id, claim_no;
SELECT cancel_job(4) AS completed, cancel_job(5) AS cancelled;
-- a requeued job does not remember the request
SELECT requeue_job(5);
SELECT id, heartbeat_job(id, :w1), resolve_job(id, :w1, false, 'x') FROM claim_next_job(:w1, 'ocr');
SELECT id, status FROM jobs_queue WHERE id = 5;
DELETE FROM job_dependencies;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- cancelling 8 kB and more of reason
SELECT enqueue_job('ocr');
SELECT cancel_job(1, repeat('x', 10000));
SELECT octet_length(last_error) FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- register_worker
SELECT register_worker(:w1);
SELECT register_worker(:w2, 'giftcard-worker-1', '{"host": "a"}');
SELECT worker_id = :w1 AS is_first, name, info, registered_by = current_user::regrole AS by_me
FROM registered_workers ORDER BY worker_id;
SELECT register_worker(worker_id => :w1, name => 'ocr-worker', info => '[1]');
SELECT register_worker(:w2, 'giftcard-worker-2');
SELECT worker_id = :w1 AS is_first, name, info FROM registered_workers ORDER BY worker_id;
SELECT register_worker(NULL, 'x');
SELECT register_worker('00000000-0000-0000-0000-000000000000', 'x');
SELECT register_worker(:w1, '');
SELECT register_worker(:w1, repeat('x', 256));

-- the views
SELECT enqueue_jobs('ocr', '{1,2,3}', stage => 'scan', correlation_id => 'c');
SELECT enqueue_job('ocr', scheduled_at => now() + interval '1 hour');
SELECT enqueue_job('license', max_attempts => 1);
SELECT enqueue_job('license', depends_on => '{4}');
SELECT resolve_job(id, :w1, false, 'broken') FROM claim_next_job(:w1, 'license');
SELECT id FROM claim_next_job(:w1, 'ocr');
SELECT id FROM claim_next_job('aaaaaaaa-0000-4000-8000-000000000003', 'ocr');
UPDATE jobs_queue SET lease_expires_at = now() - interval '1 s' WHERE id = 2;
SELECT cancel_job(2);

\d job_stats
SELECT job_type, status, jobs, ready, oldest_scheduled_at <= now() AS has_due, last_change_at <= now() AS has_change
FROM job_stats ORDER BY job_type, status;
\d running_jobs
SELECT id, job_type, stage, state, attempts, max_attempts, correlation_id, worker_id = :w1 AS is_first, worker_name,
	   running_for >= '0' AS runs, in_server, cancel_requested_at IS NOT NULL AS cancelled
FROM running_jobs ORDER BY id;
\d dead_letter_jobs
SELECT id, correlation_id, job_type, stage, attempts, last_error, payload, status, updated_at <= now() AS has_update
FROM dead_letter_jobs ORDER BY id;
\d job_workers
SELECT kind, worker_id = :w1 AS is_first, name, role = current_user::regrole AS by_me, pid, state, running_jobs,
	   started_at <= now() AS is_registered, last_seen_at <= now() AS was_seen
FROM job_workers WHERE kind = 'external' ORDER BY worker_id;
SELECT count(*) FROM job_workers WHERE kind <> 'external';
\d cron_overview
SELECT schedule_cron_task('nightly', '0 3 * * *', 'ocr') > 0 AS ok;
UPDATE cron_tasks SET last_job_id = 3, last_enqueued_at = '2024-01-01' WHERE name = 'nightly';
SELECT name, schedule, timezone, job_type, owner = current_user::regrole AS by_me, enabled, next_run_at > now() AS is_planned,
	   last_enqueued_at, last_job_id, last_job_status, disabled_reason
FROM cron_overview ORDER BY name;

DELETE FROM cron_tasks;
DELETE FROM registered_workers;
DELETE FROM job_dependencies;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
