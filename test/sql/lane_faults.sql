--
-- What once went wrong in claims through shared memory: candidates that are
-- behind the end of the table, undone by their own transaction or too many to
-- be remembered, and rows that may not be written without the executor.
--
-- A database of its own: its lanes are not those of other tests.
CREATE DATABASE jobqueue_lane_faults TEMPLATE template0;
SELECT current_database() AS main \gset
\c jobqueue_lane_faults
\set SHOW_CONTEXT never
SET client_min_messages = error;
CREATE EXTENSION jobqueue;
\set w1 '''aaaaaaaa-0000-4000-8000-000000000001'''
CREATE FUNCTION claim(max_jobs integer DEFAULT 1, job_types text[] DEFAULT NULL) RETURNS bigint[]
LANGUAGE sql AS $$SELECT ARRAY(SELECT id FROM claim_jobs('aaaaaaaa-0000-4000-8000-000000000001', job_types, max_jobs))$$;

-- ---- a table that VACUUM has cut off ----

INSERT INTO jobs_queue (job_type, payload) SELECT 'a', to_jsonb(repeat('x', 500)) FROM generate_series(1, 100);
SELECT claim();
DELETE FROM jobs_queue;
VACUUM (TRUNCATE) jobs_queue_live;
SELECT pg_relation_size('jobs_queue_live');
SELECT claim();
SELECT claim(10, '{a}');
SELECT enqueue_job('a');
SELECT claim();
-- only its end: what is before that is still there
TRUNCATE jobs_queue RESTART IDENTITY;
INSERT INTO jobs_queue (job_type, payload) SELECT 'a', to_jsonb(repeat('x', 500)) FROM generate_series(1, 100);
SELECT claim();
DELETE FROM jobs_queue WHERE id > 3;
VACUUM (TRUNCATE) jobs_queue_live;
SELECT pg_relation_size('jobs_queue_live') <= 2 * current_setting('block_size')::integer AS is_cut_off;
SELECT claim(10);
SELECT enqueue_job('a');
SELECT claim(10);
TRUNCATE jobs_queue RESTART IDENTITY;

-- ---- what a transaction has done to its job and then undone ----

SELECT enqueue_job('a');
BEGIN;
DELETE FROM jobs_queue WHERE id = 1;
SELECT claim();
ROLLBACK;
SELECT claim();
SELECT enqueue_job('a');
BEGIN;
SAVEPOINT s;
SELECT cancel_job(2);
SELECT claim();
ROLLBACK TO s;
COMMIT;
SELECT claim();
SELECT enqueue_job('a');
BEGIN;
SAVEPOINT s;
DELETE FROM jobs_queue WHERE id = 3;
SELECT claim();
ROLLBACK TO s;
SELECT claim();
ROLLBACK;
SELECT claim();
SELECT enqueue_job('a');
BEGIN;
UPDATE jobs_queue SET scheduled_at = now() + interval '1 hour' WHERE id = 4;
SELECT claim();
ROLLBACK;
SELECT claim();
SELECT enqueue_job('a');
BEGIN;
SAVEPOINT s;
UPDATE jobs_queue SET scheduled_at = now() + interval '1 hour' WHERE id = 5;
SELECT claim();
ROLLBACK TO s;
COMMIT;
SELECT claim();
-- of many jobs, some
SELECT enqueue_jobs('a', '{1,2,3,4,5,6}');
BEGIN;
DELETE FROM jobs_queue WHERE id IN (6, 8);
SELECT cancel_job(7);
SELECT claim();
ROLLBACK;
SELECT claim(10);
TRUNCATE jobs_queue RESTART IDENTITY;

-- ---- what only the executor would refuse ----

\set VERBOSITY sqlstate
-- a null where there must be none
SELECT enqueue_job('a');
SELECT claim();
ALTER TABLE job_runs ALTER correlation_id SET NOT NULL;
SELECT resolve_job(1, :w1, true);
SELECT status, (SELECT count(*) FROM job_runs) AS runs FROM jobs_queue;
ALTER TABLE job_runs ALTER correlation_id DROP NOT NULL;
SELECT resolve_job(1, :w1, true);
SELECT q.status, r.status, r.correlation_id FROM jobs_queue q JOIN job_runs r ON r.job_id = q.id;
DELETE FROM job_runs;
TRUNCATE jobs_queue RESTART IDENTITY;
-- a row filter of a publication on what is not in the replica identity
SELECT enqueue_jobs('a', '{1,2}');
SELECT claim();
CREATE PUBLICATION p FOR TABLE jobs_queue_live WHERE (priority < 5);
UPDATE jobs_queue_live SET payload = '3' WHERE id = 2;
SELECT claim();
SELECT status, attempts FROM jobs_queue ORDER BY id;
DROP PUBLICATION p;
SELECT claim();
-- one on what is in it forbids nothing
SELECT enqueue_job('a');
CREATE PUBLICATION p FOR TABLE jobs_queue_live WHERE (id > 0);
SELECT claim();
DROP PUBLICATION p;
-- none at all, where there is none
SELECT enqueue_job('a');
ALTER TABLE jobs_queue_live REPLICA IDENTITY NOTHING;
CREATE PUBLICATION p FOR TABLE jobs_queue_live;
SELECT claim();
ALTER TABLE jobs_queue_live REPLICA IDENTITY DEFAULT;
SELECT claim();
DROP PUBLICATION p;
TRUNCATE jobs_queue RESTART IDENTITY;
-- a queued job without attempts left
SELECT enqueue_jobs('a', '{1,2}');
SET session_replication_role = replica;
UPDATE jobs_queue_live SET attempts = max_attempts WHERE id = 1;
RESET session_replication_role;
SELECT claim();
SELECT claim(10);
SELECT id, status, attempts = max_attempts AS is_used_up FROM jobs_queue ORDER BY id;
\set VERBOSITY default
TRUNCATE jobs_queue RESTART IDENTITY;

-- ---- more claims undone than a transaction remembers ----

INSERT INTO jobs_queue (job_type, priority) SELECT 'a', 0 FROM generate_series(1, 10000);
INSERT INTO jobs_queue (job_type, priority) SELECT 'a', 1 FROM generate_series(1, 100);
BEGIN;
SAVEPOINT s;
SELECT array_agg(cardinality(claim(1000, '{a}')) ORDER BY i) FROM generate_series(1, 11) i;
ROLLBACK TO s;
COMMIT;
CREATE TABLE got (n serial, jobs integer);
SELECT $$INSERT INTO got (jobs) SELECT cardinality(claim(1000, '{a}'))$$ FROM generate_series(1, 11)
\gexec
SELECT array_agg(jobs ORDER BY n), sum(jobs) FROM got;
SELECT count(*) FROM jobs_queue WHERE status = 'queued';

\c :main
DROP DATABASE jobqueue_lane_faults;
