--
-- Claims: their order, what they leave alone, and what a rollback undoes.
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

-- Claims from a worker until nothing is left, one job at a time.
CREATE FUNCTION pg_temp.claim_all(worker uuid, job_type text DEFAULT NULL)
RETURNS TABLE (n integer, id bigint, type text, stage text, priority smallint)
LANGUAGE plpgsql AS $$
BEGIN
	n := 0;
	LOOP
		SELECT c.id, c.job_type, c.stage, c.priority INTO id, type, stage, priority
		FROM claim_next_job(worker, claim_all.job_type) AS c;
		EXIT WHEN NOT FOUND;
		n := n + 1;
		RETURN NEXT;
	END LOOP;
END
$$;

-- the contract to the letter: by position, by name, with untyped literals
SELECT enqueue_jobs('ocr', '{1,2,3,4,5,6}');
SELECT id, payload FROM claim_next_job('7b0f2b1e-3f5a-4a5e-9a53-111111111111', 'ocr');
SELECT id, payload FROM claim_next_job('7b0f2b1e-3f5a-4a5e-9a53-111111111111'::uuid, 'ocr'::text);
SELECT id, payload FROM claim_next_job(worker_id => '7b0f2b1e-3f5a-4a5e-9a53-111111111111', job_type => 'ocr');
SELECT id, payload FROM claim_next_job(job_type := 'ocr', worker_id := '7b0f2b1e-3f5a-4a5e-9a53-111111111111');
SELECT (claim_next_job('7b0f2b1e-3f5a-4a5e-9a53-111111111111', 'ocr')).id;
PREPARE claim (uuid, text) AS SELECT id, payload FROM claim_next_job($1, $2);
EXECUTE claim ('7b0f2b1e-3f5a-4a5e-9a53-111111111111', 'ocr');
EXECUTE claim ('7b0f2b1e-3f5a-4a5e-9a53-111111111111', 'ocr');
SELECT resolve_job(1, '7b0f2b1e-3f5a-4a5e-9a53-111111111111', true);
SELECT resolve_job(2, '7b0f2b1e-3f5a-4a5e-9a53-111111111111', true, NULL);
SELECT resolve_job(3, '7b0f2b1e-3f5a-4a5e-9a53-111111111111', false, 'no such page');
SELECT resolve_job(4::bigint, '7b0f2b1e-3f5a-4a5e-9a53-111111111111'::uuid, true::boolean, ''::text);
SELECT resolve_job(job_id => 5, worker_id => '7b0f2b1e-3f5a-4a5e-9a53-111111111111', success => true);
SELECT resolve_job(job_id => '6', worker_id => '7b0f2b1e-3f5a-4a5e-9a53-111111111111',
				   success => 'false', error => 'no such page');
select enqueue_cron_tasks();
SELECT id, status, last_error FROM jobs_queue ORDER BY id;
DEALLOCATE claim;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- the claimed row, and its version in the table
SELECT enqueue_job('ocr', '{"page": 1}', stage => 'scan', correlation_id => 'c');
SELECT id, job_type, stage, status, payload, attempts, max_attempts, claim_no, correlation_id,
	   locked_by = :w1 AS is_mine, lease_expires_at - locked_at AS lease, holder,
	   locked_at >= now() AND locked_at = updated_at AS is_now
FROM claim_next_job(:w1, 'ocr');
SELECT id, status, attempts, claim_no, locked_by = :w1 AS is_mine, lease_expires_at - locked_at AS lease
FROM jobs_queue ORDER BY id;
SELECT count(*) FROM claim_next_job(:w1, 'ocr');
SELECT count(*) FROM claim_next_job(:w2);
SELECT count(*) FROM job_runs;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- order: priority, then scheduled_at, then id, over all stages and job types
INSERT INTO jobs_queue (job_type, stage, priority, scheduled_at) VALUES
	('a', '', 0, '2020-01-03'),
	('a', 'x', 0, '2020-01-02'),
	('b', '', 0, '2020-01-02'),
	('b', 'y', -5, '2020-01-09'),
	('a', 'x', 7, '2019-01-01'),
	('c', 'z', 0, '2020-01-01'),
	('a', '', -5, '2020-01-08'),
	('a', 'x', 0, '2020-01-02'),
	('b', 'y', 7, '2018-01-01'),
	('a', '', 0, '2020-01-02');
BEGIN;
SELECT n, id, type, stage, priority FROM pg_temp.claim_all(:w1) ORDER BY n;
ROLLBACK;
BEGIN;
SELECT n, id, stage, priority FROM pg_temp.claim_all(:w1, 'a') ORDER BY n;
SELECT n, id, type, stage, priority FROM pg_temp.claim_all(:w1) ORDER BY n;
ROLLBACK;
-- and the same in batches
BEGIN;
SELECT n, id FROM claim_jobs(:w1, max_jobs => 4) WITH ORDINALITY AS c
	(id, t, s, st, p, sch, pl, att, ma, cn, cr, le, co, uk, gk, lb, la, lx, ca, ho, ti, ba, wf, ci, ow, ik, re, pr, ta, me, ct, c1, u1, f1, n)
ORDER BY n;
SELECT array_agg(id) FROM (SELECT id FROM claim_jobs(:w1, max_jobs => 100)) AS c;
ROLLBACK;
BEGIN;
SELECT array_agg(id) FROM (SELECT id FROM claim_jobs(:w1, '{b,c,b}', 3)) AS c;
SELECT array_agg(id) FROM (SELECT id FROM claim_jobs(:w1, '{b,c}')) AS c;
SELECT array_agg(id) FROM (SELECT id FROM claim_jobs(:w1, '{nothing}')) AS c;
ROLLBACK;
SELECT count(*) FILTER (WHERE status = 'queued') AS queued, count(*), sum(attempts + claim_no) AS charged
FROM jobs_queue;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- many lanes, more jobs than one page of a lane
INSERT INTO jobs_queue (job_type, stage, priority, scheduled_at)
SELECT 't' || i % 3, 's' || i % 5, i % 2, timestamptz '2020-01-01' + (i * 37 % 101) * interval '1 s'
FROM generate_series(1, 300) AS i;
CREATE TEMP TABLE wanted AS
SELECT row_number() OVER (ORDER BY priority, scheduled_at, id) AS n, id FROM jobs_queue;
CREATE TEMP TABLE got (n serial, id bigint);
INSERT INTO got (id) SELECT id FROM claim_jobs(:w1, max_jobs => 50);
INSERT INTO got (id) SELECT id FROM claim_jobs(:w1, max_jobs => 1);
INSERT INTO got (id) SELECT id FROM claim_jobs(:w1, max_jobs => 200);
INSERT INTO got (id) SELECT id FROM claim_jobs(:w1, max_jobs => 1000);
SELECT count(*) AS jobs, count(*) FILTER (WHERE w.id = g.id) AS in_order
FROM wanted w LEFT JOIN got g USING (n);
DROP TABLE wanted, got;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- an UPDATE of priority or scheduled_at is honoured by the next claim
SELECT enqueue_jobs('ocr', '{1,2,3,4}');
UPDATE jobs_queue SET priority = -1 WHERE id = 3;
UPDATE jobs_queue SET scheduled_at = scheduled_at - interval '1 min' WHERE id = 4;
UPDATE jobs_queue SET scheduled_at = now() + interval '1 hour' WHERE id = 1;
SELECT id FROM claim_next_job(:w1, 'ocr');
SELECT id FROM claim_next_job(:w1, 'ocr');
SELECT id FROM claim_next_job(:w1, 'ocr');
SELECT id FROM claim_next_job(:w1, 'ocr');
UPDATE jobs_queue SET scheduled_at = now() WHERE id = 1;
SELECT id FROM claim_next_job(:w1, 'ocr');
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- future and blocked jobs are not claimed
SELECT enqueue_job('ocr', scheduled_at => now() + interval '1 hour');
SELECT enqueue_job('ocr', depends_on => '{1}');
SELECT count(*) FROM claim_next_job(:w1, 'ocr');
SELECT count(*) FROM claim_jobs(:w1);
DELETE FROM job_dependencies;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- what the server runs itself is for no outside worker
INSERT INTO job_types (job_type, runner, command) VALUES ('nightly', 'sql', 'SELECT 1');
SELECT enqueue_job('nightly'), enqueue_sql('SELECT 1'), enqueue_job('ocr');
SELECT n, id, type FROM pg_temp.claim_all(:w1) ORDER BY n;
SELECT * FROM claim_next_job(:w1, 'nightly');
SELECT * FROM claim_next_job(:w1, 'sql');
SELECT * FROM claim_jobs(:w1, '{ocr,nightly}');
-- until its job type says otherwise
UPDATE job_types SET runner = 'external', command = NULL WHERE job_type = 'nightly';
SELECT id FROM claim_next_job(:w1, 'nightly');
DELETE FROM job_types;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- a disabled job type: jobs can be enqueued and are not claimed
INSERT INTO job_types (job_type, enabled) VALUES ('ocr', false);
SELECT enqueue_job('ocr'), enqueue_job('license');
SELECT n, id, type FROM pg_temp.claim_all(:w1) ORDER BY n;
SELECT count(*) FROM claim_next_job(:w1, 'ocr');
SELECT count(*) FROM claim_jobs(:w1, '{ocr}');
UPDATE job_types SET enabled = true WHERE job_type = 'ocr';
SELECT id FROM claim_next_job(:w1, 'ocr');
DELETE FROM job_types;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- how many, and for how long
INSERT INTO job_types (job_type, lease, batch_size) VALUES ('slow', '1 hour', 2), ('wide', NULL, 12);
SELECT count(*) FROM enqueue_jobs('slow', array_fill('1'::jsonb, '{30}'));
SELECT count(*) FROM enqueue_jobs('wide', array_fill('1'::jsonb, '{30}'));
SELECT count(*) FROM enqueue_jobs('plain', array_fill('1'::jsonb, '{30}'));
SELECT count(*), min(lease_expires_at - locked_at) AS lease FROM claim_jobs(:w1, '{slow}');
SELECT count(*), min(lease_expires_at - locked_at) AS lease FROM claim_jobs(:w1, '{wide}');
SELECT count(*), min(lease_expires_at - locked_at) AS lease FROM claim_jobs(:w1, '{plain}');
SELECT count(*), min(lease_expires_at - locked_at) AS lease FROM claim_jobs(:w1, '{plain}', 3, '90 s');
SELECT count(*), min(lease_expires_at - locked_at) AS lease FROM claim_jobs(:w1, '{slow}', 1, '1 day');
SELECT count(*), min(lease_expires_at - locked_at) AS lease FROM claim_jobs(:w1);
SELECT job_type, count(*) FROM claim_jobs(:w1, '{slow,wide}') GROUP BY job_type ORDER BY 1;
SELECT lease_expires_at - locked_at AS lease FROM claim_next_job(:w1, 'slow');
DELETE FROM job_types;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- refused
SELECT * FROM claim_next_job(NULL, 'ocr');
SELECT * FROM claim_next_job('00000000-0000-0000-0000-000000000000', 'ocr');
SELECT * FROM claim_next_job('worker-1', 'ocr');
SELECT * FROM claim_next_job(:w1, '');
SELECT * FROM claim_jobs(:w1, '{}');
SELECT * FROM claim_jobs(:w1, '{ocr,NULL}');
SELECT * FROM claim_jobs(:w1, '{ocr}', 0);
SELECT * FROM claim_jobs(:w1, '{ocr}', 1001);
SELECT * FROM claim_jobs(:w1, '{ocr}', 1, '0');
SELECT * FROM claim_jobs(:w1, '{ocr}', 1, '2 days');
SELECT * FROM claim_jobs(:w1, '{ocr}', 1, '1 month');
BEGIN READ ONLY;
SELECT * FROM claim_next_job(:w1, 'ocr');
ROLLBACK;

-- max_attempts is respected
SELECT enqueue_job('ocr', max_attempts => 2);
SELECT id, attempts, claim_no, resolve_job(id, :w1, false, 'one') FROM claim_next_job(:w1, 'ocr');
UPDATE jobs_queue SET scheduled_at = now();
SELECT id, attempts, claim_no, resolve_job(id, :w1, false, 'two') FROM claim_next_job(:w1, 'ocr');
SELECT status, attempts, max_attempts, claim_no, last_error FROM jobs_queue ORDER BY id;
SELECT count(*) FROM claim_next_job(:w1, 'ocr');
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- ROLLBACK gives the job and its attempt back, and leaves no run
SELECT enqueue_job('ocr');
BEGIN;
SELECT id, attempts, claim_no FROM claim_next_job(:w1, 'ocr');
ROLLBACK;
SELECT status, attempts, claim_no, locked_by, lease_expires_at FROM jobs_queue ORDER BY id;
BEGIN;
SELECT id, attempts, resolve_job(id, :w1, true) FROM claim_next_job(:w1, 'ocr');
ROLLBACK;
SELECT status, attempts, claim_no FROM jobs_queue ORDER BY id;
SELECT count(*) FROM job_runs;
-- so does ROLLBACK TO SAVEPOINT
BEGIN;
SAVEPOINT a;
SELECT id, attempts, claim_no FROM claim_next_job(:w1, 'ocr');
SAVEPOINT b;
SELECT resolve_job(1, :w1, false, 'x');
ROLLBACK TO b;
SELECT status, attempts, last_error FROM jobs_queue ORDER BY id;
ROLLBACK TO a;
SELECT status, attempts, claim_no FROM jobs_queue ORDER BY id;
SELECT id, attempts, claim_no FROM claim_next_job(:w2, 'ocr');
COMMIT;
SELECT status, attempts, claim_no, locked_by = :w2 AS is_second FROM jobs_queue ORDER BY id;
SELECT count(*) FROM job_runs;
SELECT release_job(1, :w2);
DELETE FROM job_runs;
-- so does an EXCEPTION block
DO $$
DECLARE
	w uuid := 'aaaaaaaa-0000-4000-8000-000000000001';
	job jobs_queue;
BEGIN
	BEGIN
		SELECT * INTO job FROM claim_next_job(w, 'ocr');
		RAISE NOTICE 'claimed job %, attempt %', job.id, job.attempts;
		PERFORM 1 / 0;
	EXCEPTION WHEN division_by_zero THEN
		RAISE NOTICE 'caught';
	END;
	SELECT * INTO job FROM claim_next_job(w, 'ocr');
	RAISE NOTICE 'claimed job %, attempt %', job.id, job.attempts;
	BEGIN
		PERFORM resolve_job(job.id, w, true);
		RAISE EXCEPTION 'after resolve';
	EXCEPTION WHEN raise_exception THEN
		RAISE NOTICE 'caught';
	END;
	RAISE NOTICE 'failed: %', resolve_job(job.id, w, false, 'second thoughts');
END
$$;
SELECT status, attempts, last_error FROM jobs_queue ORDER BY id;
SELECT attempt, status, charged, error FROM job_runs ORDER BY job_id, claim_no;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- errors inside a call leave the session as it was
SELECT enqueue_job('ocr');
BEGIN;
SAVEPOINT s;
SELECT * FROM claim_next_job(:w1, 'sql');
ROLLBACK TO s;
SELECT current_setting('search_path') AS path, current_user = session_user AS is_me;
SELECT id FROM claim_next_job(:w1, 'ocr');
COMMIT;
SELECT resolve_job(1, :w1, true);
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- without a scheduler, claims take expired leases back
SELECT enqueue_job('ocr', '{"n": 1}');
SELECT id, attempts, claim_no FROM claim_next_job(:w1, 'ocr');
UPDATE jobs_queue SET lease_expires_at = now() - interval '1 s' WHERE id = 1;
DO $$
DECLARE
	job jobs_queue;
BEGIN
	FOR i IN 1 .. 100 LOOP
		SELECT * INTO job FROM claim_next_job('aaaaaaaa-0000-4000-8000-000000000002', 'ocr');
		EXIT WHEN job.id IS NOT NULL;
		PERFORM pg_sleep(0.1);
	END LOOP;
	RAISE NOTICE 'job %, attempts %, claim_no %, payload %, last_error %',
		job.id, job.attempts, job.claim_no, job.payload, job.last_error;
END
$$;
SELECT status, attempts, claim_no, locked_by = :w2 AS is_second, last_error FROM jobs_queue ORDER BY id;
SELECT claim_no, attempt, status, charged, worker_id = :w1 AS is_first, error FROM job_runs ORDER BY job_id, claim_no;
SELECT resolve_job(1, :w1, true) AS late, resolve_job(1, :w2, true) AS in_time;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
-- and end the job when that was its last attempt
SELECT enqueue_job('ocr', max_attempts => 1);
SELECT id FROM claim_next_job(:w1, 'ocr');
UPDATE jobs_queue SET lease_expires_at = now() - interval '1 s' WHERE id = 1;
DO $$
BEGIN
	FOR i IN 1 .. 100 LOOP
		EXIT WHEN EXISTS (SELECT FROM claim_next_job('aaaaaaaa-0000-4000-8000-000000000002', 'ocr'))
			OR NOT EXISTS (SELECT FROM jobs_queue WHERE status = 'running');
		PERFORM pg_sleep(0.1);
	END LOOP;
END
$$;
SELECT status, attempts, last_error, finished_at IS NOT NULL AS has_end FROM jobs_queue ORDER BY id;
SELECT attempt, status, charged, error FROM job_runs ORDER BY job_id, claim_no;
SELECT resolve_job(1, :w1, true);
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- REPEATABLE READ and SERIALIZABLE callers
SELECT enqueue_jobs('ocr', '{1,2,3,4,5,6,7,8}');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT id, attempts FROM claim_next_job(:w1, 'ocr');
SELECT id FROM claim_jobs(:w1, '{ocr}', 2);
SELECT resolve_job(1, :w1, true);
SELECT resolve_job(2, :w1, false, 'x');
SELECT heartbeat_job(3, :w1, progress => '1'), set_job_stage(3, :w1, 's'), release_job(3, :w1);
SELECT enqueue_job('ocr', '9', unique_key => 'k'), enqueue_job('ocr', '10', unique_key => 'k'),
	   enqueue_job('ocr', '11', unique_key => 'k', unique_mode => 'replace');
SELECT enqueue_job('child', depends_on => '{4}'), complete_job(4);
SELECT cancel_job(5), requeue_job(5);
SELECT id, stage, status, attempts FROM jobs_queue ORDER BY id;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT id, attempts FROM claim_next_job(:w1, 'ocr');
SELECT id FROM claim_jobs(:w1, '{ocr}', 2);
SELECT id FROM resolve_and_claim(3, :w1, true, NULL, 'ocr');
SELECT resolve_jobs(:w1, '{6,7,3}', '{true,false,true}');
UPDATE jobs_queue SET status = 'queued' WHERE status = 'completed';
SELECT id, status, attempts FROM jobs_queue ORDER BY id;
COMMIT;
SELECT id, status, attempts, payload FROM jobs_queue ORDER BY id;
SELECT job_id, claim_no, status FROM job_runs ORDER BY job_id, claim_no;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- prepared transactions: a claim that is prepared is held, its rollback gives it back
SELECT enqueue_jobs('ocr', '{1,2}');
BEGIN;
SELECT id FROM claim_next_job(:w1, 'ocr');
SELECT enqueue_job('ocr', '3');
PREPARE TRANSACTION 'jobqueue_claim';
SELECT id FROM claim_next_job(:w2, 'ocr');
SELECT count(*) FROM claim_next_job(:w2, 'ocr');
SELECT id, status, attempts FROM jobs_queue ORDER BY id;
ROLLBACK PREPARED 'jobqueue_claim';
SELECT id, status, attempts FROM jobs_queue ORDER BY id;
BEGIN;
SELECT id, resolve_job(id, :w1, true) FROM claim_next_job(:w1, 'ocr');
SELECT enqueue_job('ocr', '4');
PREPARE TRANSACTION 'jobqueue_resolve';
SELECT count(*) FROM claim_next_job(:w2, 'ocr');
COMMIT PREPARED 'jobqueue_resolve';
SELECT id, status, attempts FROM jobs_queue ORDER BY id;
SELECT id FROM claim_next_job(:w2, 'ocr');
SELECT job_id, status FROM job_runs ORDER BY job_id, claim_no;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- claims inside cursors, functions and sub-selects
SELECT enqueue_jobs('ocr', '{1,2,3,4,5,6}');
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM claim_jobs(:w1, '{ocr}', 2) ORDER BY id;
FETCH 1 FROM c;
SELECT id FROM claim_next_job(:w1, 'ocr');
FETCH 2 FROM c;
CLOSE c;
COMMIT;
CREATE FUNCTION pg_temp.claim_in_sql() RETURNS SETOF jobs_queue LANGUAGE sql AS
	$$SELECT * FROM claim_next_job('aaaaaaaa-0000-4000-8000-000000000001', 'ocr')$$;
SELECT id, status FROM pg_temp.claim_in_sql();
WITH c AS MATERIALIZED (SELECT * FROM claim_next_job(:w1, 'ocr'))
SELECT id, payload, resolve_job(id, :w1, true) FROM c;
SELECT q.id, q.attempts FROM jobs_queue q
WHERE q.id = (SELECT id FROM claim_next_job(:w1, 'ocr'));
SELECT id, status FROM jobs_queue ORDER BY id;

DELETE FROM jobs_queue;
DELETE FROM job_runs;
