--
-- Dead letters: what they show, redrive at a rate, purge; and stalled jobs.
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

-- a dead letter, and a job that has failed
INSERT INTO job_types (job_type, dead_letter) VALUES ('sync', true);
SELECT enqueue_job('sync', '{"n": 1}', max_attempts => 1, stage => 'load', correlation_id => 'order-1',
	metadata => '{"source": "shop"}');
SELECT enqueue_job('ocr', '{"n": 2}', max_attempts => 1);
SELECT enqueue_job('ocr', '{"n": 3}');
CREATE TABLE before AS SELECT id, idempotency_key, correlation_id, created_at, payload, metadata FROM jobs_queue;
SELECT count(*) FROM claim_jobs(:w1, '{sync,ocr}', 2);
SELECT resolve_job(id, :w1, false, 'out of ' || job_type) FROM jobs_queue WHERE status = 'running' ORDER BY id;
SELECT id, correlation_id, job_type, stage, attempts, last_error, payload, status FROM dead_letter_jobs ORDER BY updated_at DESC, id;

-- retry_from_dlq: the same job starts over, with what it was made of
SELECT retry_from_dlq(1);
SELECT retry_from_dlq(dlq_event_id => 2);
SELECT id, status, attempts, claim_no, last_error, scheduled_at <= now() AS is_due FROM jobs_queue ORDER BY id;
SELECT count(*) AS unchanged FROM before b JOIN jobs_queue q USING (id, idempotency_key, created_at, payload)
WHERE q.correlation_id IS NOT DISTINCT FROM b.correlation_id AND q.metadata IS NOT DISTINCT FROM b.metadata;
-- its history goes on: claim_no never starts over
SELECT id, claim_no, attempts FROM claim_jobs(:w1, '{sync}');
SELECT resolve_job(1, :w1, false, 'again');
SELECT job_id, claim_no, attempt, status, error FROM job_runs WHERE job_id = 1 ORDER BY claim_no;
-- and what is none cannot be retried
SELECT retry_from_dlq(2);
SELECT retry_from_dlq(424242);
SELECT retry_from_dlq(NULL);
SELECT retry_from_dlq(0);
SELECT complete_job(3), cancel_job(2);
SELECT retry_from_dlq(3);
SELECT retry_from_dlq(2);
UPDATE jobs_queue SET owner = NULL WHERE id = 1;
SELECT retry_from_dlq(1);
DROP TABLE before;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- beside a live job with its unique key there is no place
SELECT enqueue_job('sync', unique_key => 'k', max_attempts => 1);
SELECT resolve_job(id, :w1, false, 'no') FROM claim_jobs(:w1, '{sync}');
SELECT enqueue_job('sync', unique_key => 'k');
SELECT retry_from_dlq(1);
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- the newest dead letters are found by index
SET enable_seqscan = off;
EXPLAIN (COSTS off) SELECT id FROM jobs_queue WHERE status = 'error' ORDER BY updated_at DESC LIMIT 10;
RESET enable_seqscan;

-- requeue_jobs, a few per second: any second has at most so many
INSERT INTO jobs_queue (job_type, status, attempts, max_attempts, finished_at, owner)
	SELECT 'sync', 'error', 1, 1, '2024-01-01'::timestamptz + i * interval '1 s', current_user::regrole FROM generate_series(1, 10) i;
SELECT requeue_jobs('sync', per_second => 3, max_jobs => 8);
WITH due AS (
	SELECT id, scheduled_at - min(scheduled_at) OVER () AS after,
		count(*) OVER (ORDER BY scheduled_at RANGE BETWEEN CURRENT ROW AND interval '990 ms' FOLLOWING) AS in_a_second
	FROM jobs_queue WHERE status = 'queued')
SELECT count(*), max(in_a_second), max(after) >= '2.333 s' AS evenly, array_agg(id ORDER BY after) AS ids FROM due;
SELECT requeue_jobs('sync', per_second => 0);
SELECT requeue_jobs('sync', per_second => -1);
SELECT requeue_jobs('sync', per_second => 1000001);
SELECT requeue_jobs('sync', per_second => NULL);
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- purge_jobs: ended jobs that match, and not their runs
INSERT INTO jobs_queue (job_type, stage, status, attempts, max_attempts, claim_no, last_error, finished_at, owner)
VALUES
	('ocr', 'a', 'failed', 5, 5, 5, 'timeout', '2024-01-01', current_user::regrole),
	('ocr', 'b', 'error', 5, 5, 5, 'no such page', '2024-01-03', current_user::regrole),
	('ocr', 'a', 'error', 5, 5, 5, 'timeout: 3 s', '2024-01-02', current_user::regrole),
	('sync', 'a', 'error', 5, 5, 5, 'timeout', '2024-01-04', current_user::regrole),
	('ocr', 'a', 'cancelled', 0, 5, 0, NULL, '2024-01-05', current_user::regrole),
	('ocr', 'a', 'completed', 1, 5, 1, NULL, '2024-01-06', current_user::regrole),
	('sync', 'b', 'error', 1, 5, 1, NULL, '2024-01-07', NULL),
	('sync', 'b', 'queued', 0, 5, 1, NULL, NULL, current_user::regrole);
INSERT INTO job_runs (job_id, claim_no, attempt, job_type, stage, status, charged) VALUES (2, 5, 5, 'ocr', 'b', 'failed', true);
CREATE FUNCTION pg_temp.left_over() RETURNS bigint[] LANGUAGE sql AS 'SELECT array_agg(id ORDER BY id) FROM jobs_queue';
BEGIN; SELECT purge_jobs(); SELECT pg_temp.left_over(), count(*) AS runs FROM job_runs; ROLLBACK;
BEGIN; SELECT purge_jobs('ocr'); SELECT pg_temp.left_over(); ROLLBACK;
BEGIN; SELECT purge_jobs(statuses => '{failed,cancelled,completed}'); SELECT pg_temp.left_over(); ROLLBACK;
BEGIN; SELECT purge_jobs(stage => 'a'); SELECT pg_temp.left_over(); ROLLBACK;
BEGIN; SELECT purge_jobs(error_like => 'timeout%'); SELECT pg_temp.left_over(); ROLLBACK;
BEGIN; SELECT purge_jobs(finished_before => '2024-01-04'); SELECT pg_temp.left_over(); ROLLBACK;
BEGIN; SELECT purge_jobs(max_jobs => 1); SELECT pg_temp.left_over(); ROLLBACK;
BEGIN; SELECT purge_jobs(max_jobs => 0); SELECT pg_temp.left_over(); ROLLBACK;
SELECT purge_jobs('ocr', '{failed,error}', 'a', 'timeout%', '2024-01-03', 10);
SELECT pg_temp.left_over();
SELECT purge_jobs('nothing');
SELECT purge_jobs(statuses => '{}');
SELECT purge_jobs(statuses => NULL);
SELECT purge_jobs(statuses => '{error,NULL}');
SELECT purge_jobs(statuses => '{error,running}');
SELECT purge_jobs(statuses => '{done}');
SELECT purge_jobs(max_jobs => -1);
SELECT pg_temp.left_over();
BEGIN READ ONLY; SELECT purge_jobs(); ROLLBACK;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- those that waited for one are cancelled, as by a DELETE, and no edge is left
SELECT enqueue_job('sync', max_attempts => 1), enqueue_job('ocr', depends_on => '{1}');
SELECT resolve_job(id, :w1, false, 'no') FROM claim_jobs(:w1, '{sync}');
SELECT purge_jobs();
SELECT id, status, last_error FROM jobs_queue ORDER BY id;
SELECT count(*) FROM job_dependencies WHERE status IS NULL;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- what job types may say of retention
\set VERBOSITY terse
INSERT INTO job_types (job_type, keep_failed) VALUES ('t', '-1 s');
INSERT INTO job_types (job_type, keep_cancelled) VALUES ('t', '1 month');
INSERT INTO job_types (job_type, keep_runs) VALUES ('t', '101 years');
INSERT INTO job_types (job_type, keep_completed_count) VALUES ('t', -1);
INSERT INTO job_types (job_type, keep_failed_count) VALUES ('t', 1000001);
INSERT INTO job_types (job_type, keep_failed, keep_cancelled, keep_runs, keep_completed_count, keep_failed_count)
	VALUES ('t', '0', '1 hour', '36600 days', 0, 1000000);
\set VERBOSITY default
DELETE FROM job_types;

-- stalled_jobs: silent for more than half of the lease, then without a lease
SELECT register_worker(:w1, 'one');
SELECT enqueue_jobs('ocr', '{1,2,3,4}');
SELECT count(*) FROM claim_jobs(:w1, '{ocr}', 3, '1 hour');
SELECT count(*) FROM stalled_jobs;
SET session_replication_role = replica;
UPDATE jobs_queue_live SET updated_at = updated_at - interval '40 min', lease_expires_at = lease_expires_at - interval '40 min' WHERE id = 2;
UPDATE jobs_queue_live SET updated_at = updated_at - interval '2 hours', lease_expires_at = lease_expires_at - interval '2 hours' WHERE id = 3;
RESET session_replication_role;
INSERT INTO job_runs (job_id, claim_no, attempt, job_type, stage, status, charged) VALUES (3, 0, 1, 'ocr', '', 'expired', true);
SELECT id, job_type, state, attempts, worker_name, overdue > '59 min' AS overdue, lease_expires_at - last_sign_at AS lease, lost_claims
FROM stalled_jobs ORDER BY id;
SELECT status, jobs, ready, stalled FROM job_stats ORDER BY status;
SELECT id, state FROM running_jobs ORDER BY id;
SELECT heartbeat_job(2, :w1), heartbeat_job(3, :w1);
SELECT count(*) FROM stalled_jobs;
-- a job in the server has no use for a lease, but for its worker
SET session_replication_role = replica;
UPDATE jobs_queue_live SET holder = 1, lease_expires_at = now() - interval '1 hour' WHERE id = 2;
RESET session_replication_role;
SELECT id, state, overdue FROM stalled_jobs;
SELECT id, state FROM running_jobs ORDER BY id;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM registered_workers;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
