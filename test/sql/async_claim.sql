--
-- jobqueue.async_claim: which claims commit without waiting for the flush of
-- their WAL. The server says so at the commit, at debug1.
--
SET client_min_messages = warning;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
\set w1 '''aaaaaaaa-0000-4000-8000-000000000001'''
SELECT count(*) FROM enqueue_jobs('a', array_fill('1'::jsonb, '{30}'));
CREATE FUNCTION pg_temp.write_and_claim() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO jobs_queue (job_type) VALUES ('written');
	RETURN (SELECT id FROM claim_next_job('aaaaaaaa-0000-4000-8000-000000000001', 'a'));
END
$$;
CREATE FUNCTION pg_temp.claim_and_write() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	job jobs_queue;
BEGIN
	SELECT * INTO job FROM claim_next_job('aaaaaaaa-0000-4000-8000-000000000001', 'a');
	INSERT INTO jobs_queue (job_type) VALUES ('written');
	RETURN job.id;
END
$$;
CREATE FUNCTION pg_temp.claim() RETURNS bigint LANGUAGE sql AS $$
	SELECT id FROM claim_next_job('aaaaaaaa-0000-4000-8000-000000000001', 'a')
$$;
-- Warm: what a first call looks up may log something of its own.
SELECT pg_temp.write_and_claim(), pg_temp.claim_and_write(), pg_temp.claim();
SELECT status FROM jobs_queue WHERE id = 1;
SET client_min_messages = debug1;

-- off unless it is asked for
SELECT id FROM claim_next_job(:w1, 'a');
SET jobqueue.async_claim = on;
SELECT id FROM claim_next_job(:w1, 'a');
SHOW synchronous_commit;
SELECT id FROM claim_jobs(:w1, '{a}', 2);
-- a session's own value comes back, too
SET synchronous_commit = local;
SELECT id FROM claim_next_job(:w1);
SHOW synchronous_commit;
RESET synchronous_commit;
-- a statement that fails leaves nothing behind
SELECT id, 1 / (id - id) FROM claim_next_job(:w1);
SELECT count(*) FROM claim_next_job(:w1, 'none');

-- not inside a transaction block; several statements in one string are none
BEGIN;
SELECT id FROM claim_next_job(:w1, 'a');
COMMIT;
SELECT 1 \; SELECT id FROM claim_next_job(:w1, 'a') \; SELECT 2;

-- not with an answer
SELECT id FROM resolve_and_claim(1, :w1, true, job_type => 'a');
SELECT status FROM jobs_queue WHERE id = 1;

-- not together with another write, before it or after it
SELECT pg_temp.write_and_claim();
SELECT pg_temp.claim_and_write();
WITH c AS MATERIALIZED (SELECT id FROM claim_next_job(:w1, 'a')) INSERT INTO jobs_queue (job_type) SELECT 'written' FROM c;
SELECT pg_temp.claim();
DO $$
BEGIN
	PERFORM claim_next_job('aaaaaaaa-0000-4000-8000-000000000001', 'a');
	COMMIT;
	PERFORM claim_next_job('aaaaaaaa-0000-4000-8000-000000000001', 'a');
	INSERT INTO jobs_queue (job_type) VALUES ('written');
END
$$;
SHOW synchronous_commit;

-- also on the reference path
SET default_transaction_isolation = 'repeatable read';
SELECT id FROM claim_next_job(:w1, 'a');
RESET default_transaction_isolation;
RESET jobqueue.async_claim;
SET client_min_messages = warning;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
