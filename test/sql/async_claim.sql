--
-- jobqueue.async_claim: which claims commit without waiting for the flush of
-- their WAL. The setting that they use is looked at right after the claim.
--
SET client_min_messages = warning;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
\set w1 '''aaaaaaaa-0000-4000-8000-000000000001'''
CREATE TEMP TABLE notes (what text);
SELECT count(*) FROM enqueue_jobs('a', array_fill('1'::jsonb, '{30}'));

-- off unless it is asked for
SELECT id, current_setting('synchronous_commit') FROM claim_next_job(:w1, 'a');
SET jobqueue.async_claim = on;
SELECT id, current_setting('synchronous_commit') FROM claim_next_job(:w1, 'a');
SHOW synchronous_commit;
SELECT id, current_setting('synchronous_commit') FROM claim_jobs(:w1, '{a}', 2);
SHOW synchronous_commit;
-- a session's own value comes back, too
SET synchronous_commit = local;
SELECT id, current_setting('synchronous_commit') FROM claim_next_job(:w1);
SHOW synchronous_commit;
RESET synchronous_commit;
-- a statement that fails leaves nothing behind
SELECT id, current_setting('synchronous_commit'), 1 / (id - id) FROM claim_next_job(:w1);
SHOW synchronous_commit;

-- nothing claimed, nothing changed
SELECT count(*), current_setting('synchronous_commit') FROM claim_next_job(:w1, 'none');

-- not inside a transaction block, of either kind
BEGIN;
SELECT id, current_setting('synchronous_commit') FROM claim_next_job(:w1, 'a');
COMMIT;
SELECT 1 \; SELECT id, current_setting('synchronous_commit') FROM claim_next_job(:w1, 'a') \; SELECT 2;

-- not with an answer
SELECT id, current_setting('synchronous_commit') FROM resolve_and_claim(1, :w1, true, job_type => 'a');
SELECT status FROM jobs_queue WHERE id = 1;

-- not after another write
CREATE FUNCTION pg_temp.note_and_claim() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO notes VALUES ('before');
	PERFORM claim_next_job('aaaaaaaa-0000-4000-8000-000000000001', 'a');
	RETURN current_setting('synchronous_commit');
END
$$;
SELECT pg_temp.note_and_claim();
SELECT id, current_setting('synchronous_commit') FROM enqueue_job('b'), claim_next_job(:w1, 'b');

-- each transaction of a procedure for itself
DO $$
BEGIN
	FOR i IN 1..2 LOOP
		PERFORM claim_next_job('aaaaaaaa-0000-4000-8000-000000000001', 'a');
		RAISE WARNING 'claimed: %', current_setting('synchronous_commit');
		COMMIT;
		RAISE WARNING 'after the commit: %', current_setting('synchronous_commit');
	END LOOP;
	INSERT INTO notes VALUES ('before');
	PERFORM claim_next_job('aaaaaaaa-0000-4000-8000-000000000001', 'a');
	RAISE WARNING 'after a write: %', current_setting('synchronous_commit');
END
$$;
SHOW synchronous_commit;
SELECT count(*) FROM jobs_queue WHERE status = 'running';

-- any role may set it
CREATE ROLE regress_worker;
SET ROLE regress_worker;
SET jobqueue.async_claim = off;
SET jobqueue.async_claim = on;
RESET ROLE;
RESET jobqueue.async_claim;
DROP ROLE regress_worker;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
