--
-- The built-in job type by owner: the lanes, the index behind them under every
-- kind of write, and running jobs behind the queue of another owner.
--
-- A database of its own: its lanes are not those of other tests.
CREATE DATABASE jobqueue_owners TEMPLATE template0;
SELECT current_database() AS main \gset
\c jobqueue_owners
\set SHOW_CONTEXT never
SET client_min_messages = error;
CREATE EXTENSION jobqueue;
CREATE ROLE regress_alice;
CREATE ROLE regress_bob;
\set w1 '''aaaaaaaa-0000-4000-8000-000000000001'''
SELECT grant_job_role('regress_alice', 'producer'), grant_job_role('regress_bob', 'producer');

-- What the table says, and what the index of owners says.
CREATE FUNCTION by_scan() RETURNS TABLE (owner regrole, stage text, priority smallint, jobs bigint)
LANGUAGE sql SET enable_indexscan = off SET enable_indexonlyscan = off SET enable_bitmapscan = off
AS $$SELECT owner, stage, priority, count(*) FROM jobs_queue_live WHERE job_type = 'sql' GROUP BY 1, 2, 3$$;
CREATE FUNCTION by_index() RETURNS TABLE (owner regrole, stage text, priority smallint, jobs bigint)
LANGUAGE sql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
AS $$SELECT owner, stage, priority, count(*) FROM (SELECT * FROM jobs_queue_live WHERE job_type = 'sql'
	ORDER BY owner, stage, priority, scheduled_at, id) q GROUP BY 1, 2, 3$$;
CREATE FUNCTION differences() RETURNS bigint LANGUAGE sql AS $$
	WITH s AS (SELECT * FROM by_scan()), i AS (SELECT * FROM by_index())
	SELECT count(*) FROM ((TABLE s EXCEPT ALL TABLE i) UNION ALL (TABLE i EXCEPT ALL TABLE s)) d$$;

-- ---- lanes ----

-- a claim, so that there are lanes
SELECT count(*) FROM claim_jobs(:w1);
SET ROLE regress_alice;
SELECT count(enqueue_sql('SELECT 1', priority => i % 2)) FROM generate_series(1, 6) i;
SELECT enqueue_job('mail');
SET ROLE regress_bob;
SELECT enqueue_sql('SELECT 1');
SELECT enqueue_job('mail');
RESET ROLE;
SELECT job_type, owner, stage, priority FROM job_lanes ORDER BY 1, 2, 3, 4;
-- jobs of several owners that are not of that type share a lane
SELECT id, job_type, owner FROM claim_jobs(:w1, NULL, 10);
-- nobody but the server claims the others
SELECT id FROM claim_jobs(:w1, '{sql}', 10);
SET jobqueue.debug_claim_path = sql;
SELECT id FROM claim_jobs(:w1, NULL, 10);
SELECT id FROM claim_jobs(:w1, '{sql}', 10);
RESET jobqueue.debug_claim_path;

-- ---- the index ----

SET enable_sort = off;
EXPLAIN (COSTS off) SELECT * FROM jobs_queue_live WHERE job_type = 'sql' ORDER BY owner, stage, priority, scheduled_at, id;
RESET enable_sort;
SELECT * FROM by_index();
SELECT differences();
-- to another owner, stage, priority or type, and back
UPDATE jobs_queue SET owner = 'regress_bob' WHERE id = 1;
UPDATE jobs_queue SET stage = 'x' WHERE id = 2;
UPDATE jobs_queue SET priority = -1 WHERE id = 3;
UPDATE jobs_queue SET job_type = 'mail' WHERE id = 4;
SELECT enqueue_job('mail');
UPDATE jobs_queue SET job_type = 'sql', payload = '{"command": "SELECT 1"}' WHERE id = 10;
SELECT * FROM by_index();
SELECT differences();
-- an end, and a way back from it, written without the executor
SELECT cancel_job(5), complete_job(6), cancel_job(8);
SELECT * FROM by_index();
SELECT differences();
SELECT requeue_job(5), requeue_job(8);
SELECT * FROM by_index();
SELECT differences();
-- and with it
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER t BEFORE INSERT OR UPDATE ON jobs_queue_live FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT cancel_job(5), requeue_job(6), cancel_job(8);
SELECT requeue_job(5);
DROP TRIGGER t ON jobs_queue_live;
SELECT * FROM by_index();
SELECT differences();
-- without it, claims go through SQL
DROP INDEX jobs_queue_live_owner;
SET jobqueue.debug_claim_path = memory;
SELECT count(*) FROM claim_jobs(:w1);
RESET jobqueue.debug_claim_path;
SELECT enqueue_job('mail') > 0 AS ok;
SELECT count(*) FROM claim_jobs(:w1);
CREATE INDEX jobs_queue_live_owner ON jobs_queue_live (owner, stage, priority, scheduled_at, id) WHERE job_type = 'sql';
SELECT count(*) FROM claim_jobs(:w1);
TRUNCATE jobs_queue RESTART IDENTITY;

-- ---- running jobs ----

-- of a life of the server that is over, behind the queue of another owner, who
-- has some too, in a worse lane
INSERT INTO jobs_queue (job_type, payload, owner)
SELECT 'sql', '{"command": "SELECT 1"}', 'regress_alice' FROM generate_series(1, 3000);
SET session_replication_role = replica;
INSERT INTO jobs_queue (id, job_type, payload, priority, owner, status, max_attempts, attempts, claim_no, locked_by, locked_at, lease_expires_at, holder)
SELECT 5000 + n, 'sql', '{"command": "SELECT 1"}', p, o::regrole, 'running', 5, 1, 1, :w1, now(), 'infinity', 7
FROM (VALUES (1, 0, 'regress_bob'), (2, 3, 'regress_bob'), (3, 1, 'regress_alice')) v (n, p, o);
RESET session_replication_role;
-- without a scheduler, claims look for lost jobs, once a second
DO $$
BEGIN
	FOR i IN 1..30 LOOP
		PERFORM claim_jobs('aaaaaaaa-0000-4000-8000-000000000001');
		COMMIT;
		EXIT WHEN NOT EXISTS (SELECT FROM jobs_queue WHERE status = 'running');
		PERFORM pg_sleep(0.1);
	END LOOP;
END
$$;
SELECT id, status, owner, crashes FROM jobs_queue WHERE id > 5000 ORDER BY id;

\c :main
DROP DATABASE jobqueue_owners;
DROP ROLE regress_alice, regress_bob;
