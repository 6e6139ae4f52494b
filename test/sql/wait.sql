--
-- wait_for_jobs(): its arguments, who may call it and where, and its answers
-- when there is nothing to wait for. Sleeping and waking: t/020_wait_for_jobs.pl.
--
SET client_min_messages = warning;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
\set SHOW_CONTEXT never
\set w1 '''aaaaaaaa-0000-4000-8000-000000000001'''

-- nothing is ready
CALL wait_for_jobs(timeout => '0');
CALL wait_for_jobs(NULL, '0');
CALL wait_for_jobs(NULL, '0', NULL);
CALL wait_for_jobs('{a}', '0');
CALL wait_for_jobs('{a,b,a}', '0', NULL);
CALL wait_for_jobs('{a}', '1 millisecond');
-- jobs of later, of the server and of disabled types are not
SELECT enqueue_job('a', scheduled_at => now() + interval '1 hour');
INSERT INTO job_types (job_type, enabled, runner, command) VALUES ('off', false, 'external', NULL), ('nightly', true, 'sql', 'SELECT 1');
SELECT enqueue_job('off'), enqueue_job('nightly');
CALL wait_for_jobs(NULL, '0');
CALL wait_for_jobs('{a,off}', '0');

-- a ready job: the answer is there at once, and the job is still there, too
SELECT enqueue_job('a', stage => 'x', priority => 7);
CALL wait_for_jobs();
CALL wait_for_jobs('{a}');
CALL wait_for_jobs('{b,a}', '1 day');
CALL wait_for_jobs('{a}', '1 day', NULL);
CALL wait_for_jobs('{a}', '1 day', false);
CALL wait_for_jobs(NULL, interval '20 seconds', ready => NULL);
CALL wait_for_jobs(timeout => '10 s', job_types => ARRAY['a']);
CALL wait_for_jobs('{b}', '0');
CALL wait_for_jobs('{a}', '0');
SELECT id, status, attempts FROM jobs_queue WHERE job_type = 'a' ORDER BY id;
SELECT id FROM claim_next_job(:w1, 'a');
CALL wait_for_jobs('{a}', '0');
SELECT release_job(4, :w1);
CALL wait_for_jobs('{a}', '0');
-- jobs that go by another way: the next claim finds that out
UPDATE jobs_queue SET scheduled_at = now() + interval '1 hour' WHERE id = 4;
SELECT count(*) FROM claim_next_job(:w1, 'a');
CALL wait_for_jobs('{a}', '0');
UPDATE jobs_queue SET scheduled_at = now() WHERE id = 1;
CALL wait_for_jobs('{a}', '0');
DELETE FROM jobs_queue;
SELECT count(*) FROM claim_next_job(:w1);
CALL wait_for_jobs('{a}', '0');
CALL wait_for_jobs(NULL, '0');
DELETE FROM job_types;

-- arguments
CALL wait_for_jobs('{a}', NULL);
\echo :SQLSTATE
CALL wait_for_jobs(timeout => NULL);
CALL wait_for_jobs('{a}', '-1 second');
\echo :SQLSTATE
CALL wait_for_jobs('{a}', '1 day 1 second');
\echo :SQLSTATE
CALL wait_for_jobs('{a}', '1 month');
\echo :SQLSTATE
CALL wait_for_jobs('{a}', 'soon');
\echo :SQLSTATE
CALL wait_for_jobs('{}', '0');
\echo :SQLSTATE
CALL wait_for_jobs('{a,NULL}', '0');
\echo :SQLSTATE
CALL wait_for_jobs('{{a,b},{c,d}}', '0');
\echo :SQLSTATE
CALL wait_for_jobs('{""}', '0');
\echo :SQLSTATE
CALL wait_for_jobs(ARRAY[repeat('x', 256)], '0');
CALL wait_for_jobs('{sql}', '0');
\echo :SQLSTATE
INSERT INTO job_types (job_type, runner, command) VALUES ('nightly', 'sql', 'SELECT 1');
CALL wait_for_jobs('{a,nightly}', '0');
DELETE FROM job_types;
-- many types at once
SELECT enqueue_job('t17') > 0 AS ok;
SELECT format('CALL wait_for_jobs(%L, %L)', (SELECT array_agg('t' || i) FROM generate_series(1, n) i), '0')
FROM (VALUES (16), (17), (40)) v (n) ORDER BY n
\gexec
TRUNCATE jobs_queue;

-- it ends the transaction, so it must be alone in it
BEGIN;
CALL wait_for_jobs('{a}', '0');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
SAVEPOINT s;
CALL wait_for_jobs(NULL, '0');
\echo :SQLSTATE
ROLLBACK;
SELECT 1 \; CALL wait_for_jobs(NULL, '0');
CREATE FUNCTION pg_temp.f() RETURNS boolean LANGUAGE plpgsql AS $$DECLARE r boolean; BEGIN CALL wait_for_jobs(NULL, '0', r); RETURN r; END$$;
SELECT pg_temp.f();
\echo :SQLSTATE
CREATE PROCEDURE pg_temp.p() LANGUAGE plpgsql SET work_mem = '1MB' AS $$DECLARE r boolean; BEGIN CALL wait_for_jobs(NULL, '0', r); END$$;
CALL pg_temp.p();
\echo :SQLSTATE
DO $$DECLARE r boolean; BEGIN CALL wait_for_jobs(NULL, '0', r); EXCEPTION WHEN no_data_found THEN NULL; END$$;
\echo :SQLSTATE
SELECT wait_for_jobs(NULL, '0');
-- in a procedure that may end transactions it may be called
TRUNCATE jobs_queue;
DO $$
DECLARE
	ready boolean;
BEGIN
	CALL wait_for_jobs(NULL, '0', ready);
	RAISE WARNING 'ready: %', ready;
	PERFORM enqueue_job('a');
	CALL wait_for_jobs('{a}', '1 minute', ready);
	RAISE WARNING 'ready: %', ready;
END
$$;
SELECT job_type, status FROM jobs_queue;
TRUNCATE jobs_queue;
BEGIN READ ONLY;
CALL wait_for_jobs(NULL, '0');
ROLLBACK;
SET default_transaction_read_only = on;
CALL wait_for_jobs(NULL, '0');
\echo :SQLSTATE
RESET default_transaction_read_only;
SET default_transaction_isolation = 'repeatable read';
CALL wait_for_jobs(NULL, '0');
SELECT enqueue_job('a') > 0 AS ok;
CALL wait_for_jobs(NULL, '1 minute');
RESET default_transaction_isolation;
TRUNCATE jobs_queue;
SET statement_timeout = '1min';
CALL wait_for_jobs(NULL, '0');
RESET statement_timeout;

-- who may
CREATE ROLE regress_worker;
CREATE ROLE regress_producer;
SELECT grant_job_role('regress_worker', 'worker'), grant_job_role('regress_producer', 'producer');
SELECT grantee::regrole FROM pg_proc, aclexplode(proacl) WHERE proname = 'wait_for_jobs' AND grantee <> proowner;
SET ROLE regress_producer;
CALL wait_for_jobs(NULL, '0');
\echo :SQLSTATE
SELECT enqueue_job('a') > 0 AS ok;
SET ROLE regress_worker;
CALL wait_for_jobs(NULL, '0');
CALL wait_for_jobs('{b}', '1 millisecond');
SELECT * FROM job_lanes;
\echo :SQLSTATE
RESET ROLE;
DELETE FROM jobs_queue;
DROP OWNED BY regress_worker, regress_producer;
DROP ROLE regress_worker, regress_producer;
