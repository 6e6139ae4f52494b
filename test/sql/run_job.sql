-- run_job() and drain_jobs(): SQL jobs in the caller's session, with
-- current_job() and job_log() for their bodies.
SET client_min_messages = warning;
CREATE SCHEMA regress_run;
SET search_path = regress_run, public;
CREATE FUNCTION outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	EXECUTE statement INTO answer;
	RETURN coalesce(answer, 'null');
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
CREATE TABLE effects (id bigint GENERATED ALWAYS AS IDENTITY, job_id bigint, what text);
ALTER SEQUENCE public.jobs_queue_id_seq RESTART 1000;

-- a job, its result and its traces
SELECT enqueue_sql('INSERT INTO effects (job_id, what) VALUES ($2, $1->>''a'') RETURNING what, 1 AS one', '{"a": "b"}',
	correlation_id => 'order 7', scheduled_at => now() + interval '1 day') AS id \gset
SELECT run_job(:id);
SELECT job_id = :id AS mine, what FROM effects;
SELECT status, attempts, claim_no, result, locked_by IS NULL AS free FROM jobs_queue WHERE id = :id;
SELECT claim_no, attempt, status, charged, result, command_tag, error FROM job_runs WHERE job_id = :id;

-- current_job(), NOTICEs and job_log()
SELECT * FROM current_job();
SELECT enqueue_sql($$
	DO $do$ BEGIN RAISE NOTICE 'hello'; RAISE WARNING 'careful'; RAISE DEBUG 'not this'; END $do$;
	SELECT job_log('half way', 'info', '{"rows": 5}');
	SELECT j.attempt, j.max_attempts, j.claim_no, j.job_type, j.stage, j.correlation_id, j.deadline, j.job_id = $2 AS right
	FROM current_job() j$$, correlation_id => 'order 8') AS id \gset
SET client_min_messages = error;
SELECT run_job(:id);
SET client_min_messages = notice;
SELECT requeue_job(:id), run_job(:id);
SET client_min_messages = warning;
SELECT result FROM jobs_queue WHERE id = :id;
SELECT claim_no, level, message, data FROM job_logs WHERE job_id = :id ORDER BY id;
SELECT job_id FROM current_job();

-- a job that fails: its effects go, its log stays, the next attempt is planned
SELECT enqueue_sql($$INSERT INTO effects (what) VALUES ('never'); SELECT job_log('before', 'debug'); SELECT 1/0$$,
	max_attempts => 2) AS id \gset
SELECT run_job(:id);
SELECT status, attempts, last_error, scheduled_at > now() AS later FROM jobs_queue WHERE id = :id;
SELECT run_job(:id);
SELECT status, attempts, last_error FROM jobs_queue WHERE id = :id;
SELECT claim_no, level, message FROM job_logs WHERE job_id = :id ORDER BY id;
SELECT count(*) FROM effects WHERE what = 'never';

-- settings that a body changes end with it
SELECT enqueue_sql('SET work_mem = ''123kB''; SET LOCAL lock_timeout = 7; SELECT current_setting(''work_mem'')') AS id \gset
BEGIN;
SELECT run_job(:id);
SELECT current_setting('work_mem') <> '123kB' AS work_mem, current_setting('lock_timeout') AS lock_timeout;
COMMIT;

-- a rollback gives the job back
SELECT enqueue_sql('INSERT INTO effects (what) VALUES (''rolled back'')') AS id \gset
BEGIN;
SELECT run_job(:id);
ROLLBACK;
SELECT status, attempts, claim_no FROM jobs_queue WHERE id = :id;
SELECT count(*) FROM effects WHERE what = 'rolled back';
SELECT cancel_job(:id);

-- jobs within jobs
SELECT enqueue_sql('SELECT job_log(''inner'')') AS inner_id \gset
SELECT enqueue_sql(format('SELECT job_log(''outer 1''); SELECT run_job(%s); SELECT job_log(''outer 2'')', :inner_id)) AS id \gset
SELECT run_job(:id);
SELECT job_id = :inner_id AS inside, message FROM job_logs WHERE job_id IN (:id, :inner_id) ORDER BY message COLLATE "C";

-- what is refused
SELECT enqueue_job('external_type') AS external_id \gset
SELECT enqueue_sql('VACUUM effects') AS vacuum_id \gset
SELECT enqueue_sql('BEGIN; COMMIT') AS begin_id \gset
SELECT enqueue_sql('SELECT 1') AS parent_id \gset
SELECT enqueue_sql('SELECT 1', depends_on => ARRAY[:parent_id]) AS child_id \gset
CREATE ROLE regress_run_other;
CREATE TABLE statements (no int GENERATED ALWAYS AS IDENTITY, text text);
INSERT INTO statements (text) VALUES
	('SELECT run_job(NULL)'),
	('SELECT run_job(0)'),
	('SELECT run_job(999999)'),
	(format('SELECT run_job(%s)', :'id')),
	(format('SELECT run_job(%s)', :'external_id')),
	(format('SELECT run_job(%s)', :'vacuum_id')),
	(format('SELECT run_job(%s)', :'begin_id')),
	(format('SELECT run_job(%s)', :'child_id')),
	('SELECT drain_jobs(max_jobs => 0)'),
	('SELECT job_log(NULL)'),
	('SELECT job_log(''x'')'),
	('SELECT job_log(''x'', ''loud'')'),
	('SELECT job_log(''x'', job_id => 1)'),
	('SELECT job_log(''x'', job_id => 1, worker_id => ''00000000-0000-0000-0000-000000000001'')'),
	('SELECT job_log(''x'', data => to_jsonb(repeat(''x'', 10000)), job_id => 1, worker_id => ''00000000-0000-0000-0000-000000000001'')');
SELECT s.text, outcome(s.text) FROM statements s ORDER BY no;
SELECT status, count(*) FROM jobs_queue WHERE id IN (:external_id, :vacuum_id, :begin_id, :child_id) GROUP BY 1 ORDER BY 1;

-- another role's job is not run
GRANT USAGE ON SCHEMA regress_run TO regress_run_other;
SELECT grant_job_role('regress_run_other', 'producer');
GRANT EXECUTE ON FUNCTION outcome TO regress_run_other;
SET ROLE regress_run_other;
SELECT outcome(format('SELECT run_job(%s)', :'parent_id'));
SELECT * FROM drain_jobs();
RESET ROLE;

-- an outside worker's log, up to the cap
SELECT id AS held FROM claim_next_job('00000000-0000-0000-0000-0000000000aa', 'external_type') \gset
SELECT job_log('line ' || i, job_id => :held, worker_id => '00000000-0000-0000-0000-0000000000aa', claim_no => 1)
FROM generate_series(1, 101) i OFFSET 99;
SELECT job_log('stale', job_id => :held, worker_id => '00000000-0000-0000-0000-0000000000aa', claim_no => 2);
SELECT count(*), max(message COLLATE "C") FROM job_logs WHERE job_id = :held;

-- a body's log, up to the cap
SELECT enqueue_sql('SELECT count(job_log(''line '' || i)) FROM generate_series(1, 150) i') AS id \gset
SELECT run_job(:id);
SELECT count(*), max(message COLLATE "C") FROM job_logs WHERE job_id = :id;

-- all of it at once, and what belongs to it
BEGIN;
DECLARE reader CURSOR FOR SELECT FROM job_logs;
FETCH 1 FROM reader;
SAVEPOINT s;
TRUNCATE jobs_queue;
ROLLBACK TO s;
COMMIT;
BEGIN;
TRUNCATE jobs_queue, job_runs;
SELECT (SELECT count(*) FROM jobs_queue), (SELECT count(*) FROM job_runs), (SELECT count(*) FROM job_logs);
ROLLBACK;

-- drain_jobs(): what is due, what that enqueues, and what fails
TRUNCATE jobs_queue;
SELECT count(*) FROM job_logs;
TRUNCATE effects;
INSERT INTO job_types (job_type, runner, command) VALUES
	('chain', 'sql', $$INSERT INTO effects (what) VALUES ($1->>'n');
		SELECT enqueue_job('chain', jsonb_build_object('n', ($1->>'n')::int - 1)) WHERE ($1->>'n')::int > 1$$);
SELECT enqueue_job('chain', '{"n": 3}');
SELECT enqueue_sql('SELECT 1/0', max_attempts => 1);
SELECT enqueue_sql('INSERT INTO effects (what) VALUES (''tomorrow'')', scheduled_at => now() + interval '1 day');
SELECT enqueue_job('external_type');
SELECT * FROM drain_jobs('{chain}', 1);
SELECT * FROM drain_jobs();
SELECT what FROM effects ORDER BY id;
SELECT * FROM drain_jobs(with_scheduled => true);
SELECT * FROM drain_jobs();
SELECT job_type, status, count(*) FROM jobs_queue GROUP BY 1, 2 ORDER BY 1, 2;

-- whoever became the role gives the body no way back
TRUNCATE jobs_queue;
SET ROLE regress_run_other;
SELECT enqueue_sql('RESET ROLE', max_attempts => 1) AS id \gset
SELECT run_job(:id);
SELECT current_user;
SET SESSION AUTHORIZATION regress_run_other;
SELECT enqueue_sql('RESET SESSION AUTHORIZATION', max_attempts => 1);
SELECT * FROM drain_jobs();
RESET SESSION AUTHORIZATION;
SELECT last_error FROM jobs_queue ORDER BY id;

-- drain_jobs() ends when a trigger keeps a job
TRUNCATE jobs_queue;
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN RETURN CASE WHEN NEW.status <> ''running'' THEN NEW END; END';
CREATE TRIGGER keep BEFORE UPDATE ON jobs_queue_live FOR EACH ROW EXECUTE FUNCTION keep();
SELECT enqueue_sql('SELECT') AS id \gset
SELECT * FROM drain_jobs();
DROP TRIGGER keep ON jobs_queue_live;

DROP OWNED BY regress_run_other;
DROP ROLE regress_run_other;
DELETE FROM job_types WHERE job_type = 'chain';
TRUNCATE jobs_queue;
DROP SCHEMA regress_run CASCADE;
