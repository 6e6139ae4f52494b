--
-- Plain DML on jobs_queue: the statements of the runbooks, the table of
-- transitions, and what an operator's INSERT, UPDATE and DELETE may not do.
--
SET TIMEZONE = 'UTC';
SET DATESTYLE = 'ISO, YMD';
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_dependencies;
DELETE FROM job_types;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
\set SHOW_CONTEXT never
\set w1 '''aaaaaaaa-0000-4000-8000-000000000001'''
\set w2 '''aaaaaaaa-0000-4000-8000-000000000002'''

-- The SQLSTATE and text of the error that a statement raises, or "ok".
CREATE FUNCTION pg_temp.outcome(statement text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate || ': ' || sqlerrm;
END
$$;

-- A new job in any status, as only the owner of the tables can make one.
CREATE FUNCTION pg_temp.new_job(status text, job_type text DEFAULT 't') RETURNS bigint
LANGUAGE sql AS $$
	INSERT INTO jobs_queue (job_type, status, attempts, max_attempts, claim_no, locked_by, locked_at,
							lease_expires_at, waiting_for, finished_at, last_error, owner)
	SELECT job_type, status, s.attempts, 5, s.attempts,
		   CASE WHEN status = 'running' THEN 'aaaaaaaa-0000-4000-8000-000000000001'::uuid END,
		   CASE WHEN status = 'running' THEN now() END,
		   CASE WHEN status = 'running' THEN now() + interval '1 hour' END,
		   CASE WHEN status = 'blocked' THEN 1 ELSE 0 END,
		   CASE WHEN status IN ('completed', 'failed', 'error', 'cancelled') THEN now() END,
		   CASE WHEN status IN ('failed', 'error') THEN 'broken' END, current_user::regrole
	FROM (SELECT CASE WHEN status = 'running' THEN 1 WHEN status IN ('queued', 'blocked', 'cancelled') THEN 0 ELSE 5 END) AS s (attempts)
	RETURNING id
$$;

-- the gift-card runbook: dead letters, requeue, hold and advance, run by hand
INSERT INTO job_types (job_type, dead_letter, max_attempts) VALUES ('giftcard', true, 1);
SELECT enqueue_job('giftcard', jsonb_build_object('card', i), stage => 'charge', correlation_id => 'c' || i)
FROM generate_series(1, 3) AS i;
SELECT resolve_job(id, :w1, false, 'square is down') FROM claim_next_job(:w1, 'giftcard');
SELECT resolve_job(id, :w1, false, 'square is down') FROM claim_next_job(:w1, 'giftcard');
\set JOB_ID 1
SELECT id, correlation_id, stage, attempts, last_error, payload
FROM jobs_queue
WHERE status = 'error'
ORDER BY updated_at DESC;
SELECT id, correlation_id, stage, attempts, last_error, payload, status, updated_at IS NOT NULL AS has_update
FROM jobs_queue
WHERE status = 'error'
ORDER BY updated_at DESC;
UPDATE jobs_queue
SET status = 'queued',
    scheduled_at = NOW(),
    attempts = 0,
    last_error = NULL
WHERE id = :JOB_ID;
SELECT id, status, attempts, max_attempts, claim_no, last_error, finished_at IS NULL AS is_open, scheduled_at <= now() AS is_due
FROM jobs_queue ORDER BY id;
-- hold one, advance another
UPDATE jobs_queue SET scheduled_at = NOW() + interval '1 hour' WHERE id = 3;
SELECT id, stage, attempts FROM claim_jobs(:w1, '{giftcard}');
UPDATE jobs_queue SET scheduled_at = NOW() WHERE id = 3;
SELECT id, stage, attempts FROM claim_jobs(:w1, '{giftcard}');
SELECT resolve_job(3, :w1, false, 'square is down'), resolve_job(1, :w1, true);
-- run by hand
SELECT payload FROM jobs_queue WHERE id = 3;
UPDATE jobs_queue SET status = 'completed' WHERE id = 3;
SELECT complete_job(2);
SELECT id, status, attempts, last_error FROM jobs_queue ORDER BY id;
SELECT count(*) FROM claim_next_job(:w1, 'giftcard');
SELECT job_id, claim_no, stage, correlation_id, status, error FROM job_runs ORDER BY job_id, claim_no;
SELECT stage, error FROM job_runs WHERE correlation_id = 'c3' ORDER BY claim_no;
-- the worker runbook: failed jobs, also those older than 10 minutes
SELECT pg_temp.new_job('failed');
SELECT id, last_error FROM jobs_queue WHERE status = 'failed' ORDER BY id;
SELECT count(*) FROM jobs_queue WHERE status = 'failed' AND updated_at < now() - interval '10 minutes';
DELETE FROM job_types;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- the table of transitions, by plain UPDATE
CREATE TEMP TABLE statuses (n serial, status text);
INSERT INTO statuses (status) VALUES ('queued'), ('running'), ('blocked'), ('completed'), ('failed'), ('error'), ('cancelled');
CREATE TEMP TABLE verdicts (from_n integer, to_n integer, verdict text);
DO $$
DECLARE
	f record;
	t record;
	job bigint;
	verdict text;
	seen text;
BEGIN
	FOR f IN SELECT * FROM statuses LOOP
		FOR t IN SELECT * FROM statuses LOOP
			job := pg_temp.new_job(f.status);
			BEGIN
				UPDATE jobs_queue SET status = t.status WHERE id = job;
				verdict := 'ok';
			EXCEPTION WHEN OTHERS THEN
				verdict := sqlstate;
			END;
			SELECT string_agg(status, ',') INTO seen FROM jobs_queue WHERE id = job;
			IF seen IS DISTINCT FROM (CASE verdict WHEN 'ok' THEN t.status ELSE f.status END) THEN
				verdict := verdict || ' but ' || coalesce(seen, 'gone');
			END IF;
			INSERT INTO verdicts VALUES (f.n, t.n, verdict);
			DELETE FROM jobs_queue WHERE id = job;
		END LOOP;
	END LOOP;
END
$$;
SELECT s.status AS "from",
	   max(verdict) FILTER (WHERE to_n = 1) AS queued,
	   max(verdict) FILTER (WHERE to_n = 2) AS running,
	   max(verdict) FILTER (WHERE to_n = 3) AS blocked,
	   max(verdict) FILTER (WHERE to_n = 4) AS completed,
	   max(verdict) FILTER (WHERE to_n = 5) AS failed,
	   max(verdict) FILTER (WHERE to_n = 6) AS error,
	   max(verdict) FILTER (WHERE to_n = 7) AS cancelled
FROM verdicts JOIN statuses s ON n = from_n GROUP BY n, s.status ORDER BY n;
-- every claim that ended so left one run, and so did every DELETE of a running job
SELECT status, charged, error, count(*) FROM job_runs GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
DROP TABLE statuses, verdicts;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
-- and what the refusals say
SELECT pg_temp.new_job('queued'), pg_temp.new_job('completed'), pg_temp.new_job('failed');
UPDATE jobs_queue SET status = 'running' WHERE id = 1;
UPDATE jobs_queue SET status = 'running', locked_by = :w1 WHERE id = 1;
UPDATE jobs_queue SET status = 'blocked', waiting_for = 1 WHERE id = 1;
UPDATE jobs_queue SET status = 'failed' WHERE id = 2;
UPDATE jobs_queue SET status = 'blocked' WHERE id = 3;
UPDATE jobs_queue SET status = 'done' WHERE id = 1;
UPDATE jobs_queue SET status = NULL WHERE id = 1;
SELECT id, status, locked_by, waiting_for FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- the columns that follow from the status
SELECT pg_temp.new_job('failed'), pg_temp.new_job('error'), pg_temp.new_job('cancelled'), pg_temp.new_job('completed');
UPDATE jobs_queue SET result = '1';
UPDATE jobs_queue SET status = 'queued';
SELECT id, status, attempts, crashes, claim_no, last_error, result, finished_at FROM jobs_queue ORDER BY id;
UPDATE jobs_queue SET status = 'completed', result = '"by hand"' WHERE id = 1;
UPDATE jobs_queue SET status = 'failed', finished_at = '2024-01-01', last_error = 'by hand' WHERE id = 2;
UPDATE jobs_queue SET status = 'cancelled' WHERE id = 3;
SELECT id, status, last_error, result, CASE WHEN finished_at < '2024-01-02' THEN 'given' WHEN finished_at <= now() THEN 'now' END AS finished
FROM jobs_queue ORDER BY id;
-- claim columns are for running jobs only
UPDATE jobs_queue SET locked_by = :w1, locked_at = now(), lease_expires_at = now(), cancel_requested_at = now();
SELECT id, locked_by, locked_at, lease_expires_at, cancel_requested_at FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- attempts on requeue: all of them, unless the UPDATE says otherwise
SELECT pg_temp.new_job('failed'), pg_temp.new_job('failed'), pg_temp.new_job('failed'), pg_temp.new_job('failed'), pg_temp.new_job('queued');
UPDATE jobs_queue SET status = 'queued' WHERE id = 1;
UPDATE jobs_queue SET status = 'queued', attempts = 3 WHERE id = 2;
UPDATE jobs_queue SET status = 'queued', attempts = 4, max_attempts = 6 WHERE id = 3;
UPDATE jobs_queue SET status = 'queued', attempts = -1 WHERE id = 4;
UPDATE jobs_queue SET status = 'queued', attempts = 6 WHERE id = 4;
UPDATE jobs_queue SET status = 'queued', max_attempts = 0 WHERE id = 4;
UPDATE jobs_queue SET status = 'queued', max_attempts = 1001 WHERE id = 4;
UPDATE jobs_queue SET status = 'queued', attempts = NULL WHERE id = 4;
UPDATE jobs_queue SET attempts = 5 WHERE id = 5;
UPDATE jobs_queue SET max_attempts = 0 WHERE id = 5;
UPDATE jobs_queue SET max_attempts = 1001 WHERE id = 5;
UPDATE jobs_queue SET attempts = 4 WHERE id = 5;
SELECT id, status, attempts, max_attempts FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- columns that DML may not write
SELECT pg_temp.new_job('queued'), pg_temp.new_job('running'), pg_temp.new_job('failed');
UPDATE jobs_queue SET id = 4 WHERE id = 1;
UPDATE jobs_queue SET claim_no = 7 WHERE id = 1;
UPDATE jobs_queue SET holder = 1 WHERE id = 1;
UPDATE jobs_queue SET idempotency_key = gen_random_uuid() WHERE id = 1;
UPDATE jobs_queue SET status = 'queued', claim_no = 0 WHERE id = 3;
UPDATE jobs_queue SET id = id, claim_no = claim_no, holder = holder, idempotency_key = idempotency_key;
-- the holder of a running job
UPDATE jobs_queue SET locked_by = :w2 WHERE id = 2;
UPDATE jobs_queue SET locked_by = NULL WHERE id = 2;
UPDATE jobs_queue SET locked_at = now() - interval '1 day' WHERE id = 2;
UPDATE jobs_queue SET lease_expires_at = '2030-01-01', priority = 3, last_error = 'seen', progress = '1' WHERE id = 2;
SELECT id, status, locked_by = :w1 AS is_first, lease_expires_at, priority, last_error, progress FROM jobs_queue WHERE id = 2;
-- values are held to the same rules as those of enqueue_job
SELECT n, pg_temp.outcome('UPDATE jobs_queue SET ' || change || ' WHERE id = 1') AS outcome
FROM (VALUES
	(1, 'scheduled_at = ''infinity'''),
	(2, 'scheduled_at = now() + interval ''20 years'''),
	(3, 'job_type = '''''),
	(4, 'job_type = ''sql'''),
	(5, 'stage = repeat(''x'', 256)'),
	(6, 'unique_key = '''''),
	(7, 'group_key = '''''),
	(8, 'timeout = ''-1 s'''),
	(9, 'backoff = ''{"delay": -1}'''),
	(10, 'payload = to_jsonb(repeat(''x'', 1024 * 1024))'),
	(11, 'payload = NULL'),
	(12, 'priority = 40000'),
	(13, 'attempts = 6'),
	(14, 'payload = ''[1]'', stage = ''s'', unique_key = ''k'', group_key = ''g'', priority = -1, timeout = ''1 s'', backoff = ''{"delay": 1}''')
) AS c (n, change) ORDER BY n;
SELECT payload, stage, unique_key, group_key, priority, timeout, backoff FROM jobs_queue WHERE id = 1;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- plain DML that ends a claim: one run, and the worker has lost the job
SELECT enqueue_jobs('ocr', '{1,2,3,4,5,6,7}');
SELECT count(*) FROM claim_jobs(:w1, '{ocr}');
UPDATE jobs_queue SET status = 'completed', result = '1' WHERE id = 1;
UPDATE jobs_queue SET status = 'failed', last_error = 'by hand' WHERE id = 2;
UPDATE jobs_queue SET status = 'cancelled' WHERE id = 3;
UPDATE jobs_queue SET status = 'queued' WHERE id = 4;
UPDATE jobs_queue SET status = 'queued', scheduled_at = NOW(), attempts = 0, last_error = NULL WHERE id = 5;
DELETE FROM jobs_queue WHERE id = 6;
UPDATE jobs_queue SET status = 'error' WHERE id = 7;
SELECT id, status, attempts, claim_no, locked_by, lease_expires_at, last_error FROM jobs_queue ORDER BY id;
SELECT job_id, claim_no, attempt, worker_id = :w1 AS is_first, status, charged, error FROM job_runs ORDER BY job_id, claim_no;
SELECT i, resolve_job(i, :w1, true), heartbeat_job(i, :w1) FROM generate_series(1, 7) AS i;
SELECT id, attempts, claim_no, resolve_job(id, :w2, true) FROM claim_jobs(:w2, '{ocr}');
SELECT job_id, claim_no, attempt, status FROM job_runs WHERE job_id IN (4, 5) ORDER BY job_id, claim_no;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- DELETE of jobs that nobody holds leaves nothing
SELECT count(pg_temp.new_job(s)) FROM unnest('{queued,blocked,completed,failed,error,cancelled}'::text[]) AS s;
DELETE FROM jobs_queue;
SELECT count(*) FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- updated_at is maintained, whatever the UPDATE says
SELECT pg_temp.new_job('queued'), pg_temp.new_job('failed');
CREATE TEMP TABLE before AS SELECT id, updated_at, created_at FROM jobs_queue;
UPDATE jobs_queue SET priority = 1 WHERE id = 1;
UPDATE jobs_queue SET status = 'queued', updated_at = '2000-01-01' WHERE id = 2;
SELECT q.id, q.updated_at > b.updated_at AS is_later, q.created_at = b.created_at AS same_birth
FROM jobs_queue q JOIN before b USING (id) ORDER BY q.id;
DROP TABLE before;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- an id is taken in both leaves
SELECT pg_temp.new_job('queued'), pg_temp.new_job('failed');
INSERT INTO jobs_queue (id, job_type) VALUES (2, 't');
INSERT INTO jobs_queue (id, job_type, status, max_attempts) VALUES (1, 't', 'failed', 5);
SELECT pg_temp.outcome('INSERT INTO jobs_queue (id, job_type) VALUES (1, ''t'')') AS same_leaf,
	   pg_temp.outcome('INSERT INTO jobs_queue (id, job_type) VALUES (2, ''t'')') AS other_leaf,
	   pg_temp.outcome('INSERT INTO jobs_queue (id, job_type) VALUES (NULL, ''t'')') AS no_id;
-- also within one transaction, after a move and after a DELETE
BEGIN;
UPDATE jobs_queue SET status = 'completed' WHERE id = 1;
SELECT pg_temp.outcome('INSERT INTO jobs_queue (id, job_type) VALUES (1, ''t'')');
DELETE FROM jobs_queue WHERE id = 1;
SELECT pg_temp.outcome('INSERT INTO jobs_queue (id, job_type) VALUES (1, ''t'')');
SELECT id, status FROM jobs_queue ORDER BY id;
ROLLBACK;
SELECT id, status FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- the id of a job that has left runs cannot be used again, or the new job could not end its claims
SELECT enqueue_job('t');
SELECT resolve_job(id, :w1, true) FROM claim_next_job(:w1, 't');
DELETE FROM jobs_queue;
INSERT INTO jobs_queue (id, job_type) VALUES (1, 't');
-- its own row, brought back as it was, can
INSERT INTO jobs_queue (id, job_type, status, attempts, max_attempts, claim_no, owner)
VALUES (1, 't', 'queued', 0, 5, 1, current_user::regrole);
SELECT id, claim_no, resolve_job(id, :w1, true) FROM claim_next_job(:w1, 't');
SELECT job_id, claim_no, status FROM job_runs ORDER BY job_id, claim_no;
-- and an id ahead of the sequence stays taken when the job has ended
INSERT INTO jobs_queue (id, job_type) VALUES (2, 't');
SELECT resolve_job(id, :w1, true) FROM claim_next_job(:w1, 't');
SELECT enqueue_job('t');
SELECT enqueue_job('t');
SELECT id, status FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- a move that failed leaves nothing behind that lets the next statement pass
SELECT pg_temp.new_job('running');
\set VERBOSITY terse
UPDATE jobs_queue_live SET status = 'completed' WHERE id = 1;
DELETE FROM jobs_queue WHERE id = 1;
SELECT job_id, status FROM job_runs ORDER BY job_id;
SELECT pg_temp.new_job('failed');
UPDATE jobs_queue_done SET status = 'queued' WHERE id = 2;
\set VERBOSITY default
INSERT INTO jobs_queue (id, job_type) VALUES (2, 't');
SELECT id, status FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- jobs start queued; the owner of the tables may import rows that fit their status
CREATE ROLE regress_jobqueue_operator;
SELECT grant_job_role('regress_jobqueue_operator', 'operator');
SET ROLE regress_jobqueue_operator;
SELECT s AS status, pg_temp.outcome(format('INSERT INTO jobs_queue (job_type, status) VALUES (''t'', %L)', s)) AS outcome
FROM unnest('{queued,running,blocked,completed,failed,error,cancelled,waiting}'::text[]) AS s;
SELECT c AS column, pg_temp.outcome(format('INSERT INTO jobs_queue (job_type, %I) VALUES (''t'', 1)', c)) AS outcome
FROM unnest('{attempts,claim_no,crashes}'::text[]) AS c;
SELECT pg_temp.outcome('INSERT INTO jobs_queue (job_type, locked_by) VALUES (''t'', gen_random_uuid())');
INSERT INTO jobs_queue (job_type, status) VALUES ('t', 'completed');
INSERT INTO jobs_queue (job_type, attempts) VALUES ('t', 1);
RESET ROLE;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
SELECT count(pg_temp.new_job(s)) FROM unnest('{queued,running,blocked,completed,failed,error,cancelled}'::text[]) AS s;
SELECT id, status, attempts, claim_no, owner = current_user::regrole AS is_mine FROM jobs_queue ORDER BY id;
-- one that ended without an owner stays so, and is requeued with a new one only
INSERT INTO jobs_queue (job_type, status, max_attempts) VALUES ('t', 'failed', 5) RETURNING id, owner;
UPDATE jobs_queue SET status = 'queued' WHERE id = 8;
UPDATE jobs_queue SET status = 'queued', owner = current_user::regrole WHERE id = 8;
SELECT id, status, owner = current_user::regrole AS is_mine FROM jobs_queue WHERE id = 8;
SELECT n, pg_temp.outcome('INSERT INTO jobs_queue (job_type, status, max_attempts, attempts, claim_no, locked_by, waiting_for) VALUES (''t'', ' || row || ')') AS outcome
FROM (VALUES
	(1, '''running'', 5, 1, 1, NULL, 0'),
	(2, '''running'', 5, 1, 0, gen_random_uuid(), 0'),
	(3, '''blocked'', 5, 0, 0, NULL, 0'),
	(4, '''queued'', 5, 0, 0, gen_random_uuid(), 0'),
	(5, '''completed'', 5, 1, 1, gen_random_uuid(), 0'),
	(6, '''queued'', 5, 5, 5, NULL, 0'),
	(7, '''failed'', 5, 6, 6, NULL, 0'),
	(8, '''queued'', 5, 2, 2, NULL, 0')
) AS c (n, row) ORDER BY n;
-- imported running jobs are held, and reclaimed like others
SELECT resolve_job(2, :w1, true);
SELECT id, status FROM jobs_queue WHERE id = 2;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- many rows at once
SELECT count(pg_temp.new_job('failed', 't' || i % 7)) FROM generate_series(1, 500) AS i;
UPDATE jobs_queue SET status = 'queued' WHERE status = 'failed';
SELECT status, sum(attempts) AS attempts, count(*), count(DISTINCT id) AS ids, count(finished_at) FROM jobs_queue GROUP BY status ORDER BY 1;
SELECT count(*) FROM claim_jobs(:w1, max_jobs => 1000);
SELECT count(*) FROM jobs_queue WHERE status = 'running';
UPDATE jobs_queue SET status = CASE id % 4 WHEN 0 THEN 'completed' WHEN 1 THEN 'queued' WHEN 2 THEN 'failed' ELSE 'cancelled' END
WHERE status = 'running';
SELECT status, count(*), count(DISTINCT id) AS ids, count(locked_by) AS held FROM jobs_queue GROUP BY status ORDER BY 1;
SELECT status, charged, count(*) FROM job_runs GROUP BY status, charged ORDER BY 1;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
-- all or nothing
SELECT count(pg_temp.new_job(s)) FROM unnest('{failed,failed,completed}'::text[]) AS s;
UPDATE jobs_queue SET status = 'error';
SELECT id, status FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
-- two ended jobs cannot both come back under one unique key
SELECT enqueue_job('t', unique_key => 'k'), cancel_job(1), enqueue_job('t', unique_key => 'k'), cancel_job(2);
UPDATE jobs_queue SET status = 'queued';
UPDATE jobs_queue SET status = 'queued' WHERE id = 1;
UPDATE jobs_queue SET status = 'queued' WHERE id = 2;
SELECT id, status FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- RETURNING, UPDATE ... FROM, CTEs and MERGE
SELECT count(pg_temp.new_job(s)) FROM unnest('{failed,error,queued,running}'::text[]) AS s;
UPDATE jobs_queue SET status = 'queued' WHERE id = 1 RETURNING id, status, attempts, max_attempts, claim_no, last_error, finished_at;
UPDATE jobs_queue q SET status = s.status FROM (VALUES (2, 'queued'), (3, 'completed'), (4, 'failed')) AS s (id, status)
WHERE q.id = s.id RETURNING q.id, q.status, q.attempts, q.locked_by, q.finished_at IS NOT NULL AS has_end;
WITH moved AS (UPDATE jobs_queue SET status = 'cancelled' WHERE status = 'queued' RETURNING id, status)
SELECT id, status FROM moved ORDER BY id;
MERGE INTO jobs_queue q USING (VALUES (1::bigint, 'queued'), (2, 'gone'), (4, 'queued'), (99, 'new')) AS s (id, action) ON q.id = s.id
WHEN MATCHED AND s.action = 'gone' THEN DELETE
WHEN MATCHED THEN UPDATE SET status = s.action
WHEN NOT MATCHED THEN INSERT (id, job_type) VALUES (s.id, 'merged');
SELECT id, job_type, status, attempts, max_attempts FROM jobs_queue ORDER BY id;
SELECT job_id, status, charged FROM job_runs ORDER BY job_id;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- an operator moves jobs whose job types the session has not met yet
SELECT pg_temp.new_job('failed', 'unmet 1'), pg_temp.new_job('failed', 'unmet 2'), pg_temp.new_job('running', 'unmet 3');
\c -
\set SHOW_CONTEXT never
SET ROLE regress_jobqueue_operator;
UPDATE jobs_queue SET status = 'queued';
RESET ROLE;
SELECT id, status, attempts, claim_no FROM jobs_queue ORDER BY id;
SELECT job_id, status, charged FROM job_runs ORDER BY job_id;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- triggers of the user's own that write elsewhere do not get in the way
CREATE TABLE regress_audit (id bigint, op text, status text);
CREATE FUNCTION regress_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.regress_audit
	SELECT coalesce(NEW.id, OLD.id), tg_when || ' ' || tg_op, coalesce(NEW.status, OLD.status);
	RETURN coalesce(NEW, OLD);
END
$$;
CREATE TRIGGER regress_before BEFORE INSERT OR UPDATE OR DELETE ON jobs_queue
	FOR EACH ROW EXECUTE FUNCTION regress_audit();
CREATE TRIGGER regress_after AFTER INSERT OR UPDATE OR DELETE ON jobs_queue
	FOR EACH ROW EXECUTE FUNCTION regress_audit();
SELECT enqueue_jobs('ocr', '{1,2,3}');
SELECT count(*) FROM claim_jobs('aaaaaaaa-0000-4000-8000-000000000001', '{ocr}');
SELECT resolve_job(1, 'aaaaaaaa-0000-4000-8000-000000000001', true);
UPDATE jobs_queue SET status = 'completed' WHERE id = 2;
UPDATE jobs_queue SET status = 'queued' WHERE id = 2;
DELETE FROM jobs_queue WHERE id = 3;
SELECT id, status, attempts FROM jobs_queue ORDER BY id;
SELECT job_id, status FROM job_runs ORDER BY job_id, claim_no;
SELECT id, op, status, count(*) FROM regress_audit GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
DROP TRIGGER regress_before ON jobs_queue;
DROP TRIGGER regress_after ON jobs_queue;
DROP FUNCTION regress_audit();
DROP TABLE regress_audit;

DELETE FROM jobs_queue;
DELETE FROM job_runs;
DROP OWNED BY regress_jobqueue_operator;
DROP ROLE regress_jobqueue_operator;
