-- Retry delays: strategies, jitter, and SQL functions that say how long.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET intervalstyle = 'postgres';
CREATE SCHEMA regress_backoff;
-- The delays after each of so many failed attempts.
CREATE FUNCTION regress_backoff.delays(type text, attempts integer) RETURNS interval[]
LANGUAGE plpgsql AS $$
DECLARE
	worker constant uuid := 'aaaaaaaa-0000-4000-8000-000000000001';
	job_id bigint := public.enqueue_job(type, max_attempts => 1000::smallint);
	delays interval[];
BEGIN
	FOR i IN 1 .. attempts LOOP
		PERFORM public.claim_next_job(worker, type);
		PERFORM public.fail_job(job_id, worker, 'failure ' || i);
		delays := delays || (SELECT scheduled_at - updated_at FROM public.jobs_queue WHERE id = job_id);
		UPDATE public.jobs_queue SET scheduled_at = now() WHERE id = job_id;
	END LOOP;
	DELETE FROM public.jobs_queue WHERE id = job_id;
	RETURN delays;
END
$$;
-- How a statement ends.
CREATE FUNCTION regress_backoff.outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE || ' ' || SQLERRM, nullif(detail, ''), nullif(hint, ''));
END
$$;

-- strategies and shorthands
CREATE TABLE regress_backoff.given (id serial, backoff jsonb);
INSERT INTO regress_backoff.given (backoff) VALUES
	('{"delay": "7 s"}'),
	('{"strategy": "fixed", "delay": 0.25}'),
	('{"strategy": "linear", "delay": "10 s"}'),
	('{"strategy": "linear", "delay": "10 s", "max_delay": "25 s"}'),
	('{"strategy": "linear", "delay": 0}'),
	('{"strategy": "exponential", "delay": "1 s", "multiplier": 3}'),
	('{"strategy": "exponential", "delay": "1 s", "multiplier": 1000}'),
	('{"strategy": "list", "delays": ["1s", "10s", "5m"]}'),
	('{"strategy": "list", "delays": ["1s", "10s", "5m"], "max_delay": 20}'),
	('{"strategy": "list", "delays": [3]}'),
	('["1s", 10, "5m"]'),
	('["0"]'),
	('"5 minutes"'),
	('"0"');
INSERT INTO job_types (job_type, backoff) SELECT 'type ' || id, backoff FROM regress_backoff.given;
SELECT backoff, regress_backoff.delays('type ' || id, 5) FROM regress_backoff.given ORDER BY id;
-- those of a job come first
SELECT enqueue_job('type 1') AS id \gset
UPDATE jobs_queue SET backoff = '["2 s", "4 s"]' WHERE id = :id;
SELECT count(*) FROM claim_next_job('aaaaaaaa-0000-4000-8000-000000000001', 'type 1');
SELECT fail_job(:id, 'aaaaaaaa-0000-4000-8000-000000000001');
SELECT scheduled_at - updated_at AS delay FROM jobs_queue WHERE id = :id;
DELETE FROM jobs_queue;
-- far beyond the list
INSERT INTO job_types (job_type, backoff) VALUES ('long', '{"strategy": "exponential", "delay": "1 s", "max_delay": "1 hour"}');
SELECT (regress_backoff.delays('long', 200))[195:200];
SELECT (regress_backoff.delays('type 11', 200))[198:200];

-- jitter
CREATE FUNCTION regress_backoff.spread(backoff jsonb, OUT at_least interval, OUT at_most interval, OUT differ boolean) LANGUAGE plpgsql AS $$
DECLARE
	worker constant uuid := 'aaaaaaaa-0000-4000-8000-000000000001';
BEGIN
	INSERT INTO job_types (job_type, backoff) VALUES ('jittery', spread.backoff);
	PERFORM enqueue_jobs('jittery', array_fill('1'::jsonb, '{300}'));
	PERFORM fail_job(id, worker) FROM claim_jobs(worker, '{jittery}', 300);
	SELECT date_trunc('seconds', min(scheduled_at - updated_at) / 10) * 10,
		(date_trunc('seconds', max(scheduled_at - updated_at) / 10) + interval '1 s') * 10,
		count(DISTINCT scheduled_at - updated_at) > 250
	INTO at_least, at_most, differ FROM jobs_queue WHERE job_type = 'jittery';
	DELETE FROM jobs_queue WHERE job_type = 'jittery';
	DELETE FROM job_types WHERE job_type = 'jittery';
END
$$;
SELECT backoff, (regress_backoff.spread(backoff)).* FROM (VALUES
	('{"delay": "100 s", "jitter": 0.5}'::jsonb),
	('{"delay": "100 s", "jitter": 0.5, "jitter_kind": "proportional"}'),
	('{"delay": "100 s", "jitter_kind": "full"}'),
	('{"delay": "100 s", "jitter_kind": "equal"}'),
	('{"delay": "100 s", "jitter_kind": "proportional"}'),
	('{"strategy": "list", "delays": ["100 s"], "jitter_kind": "equal", "max_delay": "40 s"}')) v(backoff);

-- what is no backoff
CREATE TABLE regress_backoff.refused (id serial, backoff text);
INSERT INTO regress_backoff.refused (backoff) VALUES
	('1'), ('null'), ('true'), ('"soon"'), ('"-1 s"'), ('"1 month"'), ('""'), ('[]'), ('[null]'), ('["1 s", "soon"]'),
	('["1 s", -1]'), ('[["1 s"]]'), ('{"strategy": null}'), ('{"strategy": "list"}'), ('{"strategy": "list", "delays": []}'),
	('{"strategy": "list", "delays": "1 s"}'), ('{"strategy": "list", "delays": {"a": 1}}'),
	('{"strategy": "list", "delays": ["1 s", {"a": 1}]}'),
	('{"strategy": "list", "delays": ["1 s"], "delay": 1}'), ('{"strategy": "list", "delays": ["1 s"], "multiplier": 2}'),
	('{"delays": ["1 s"]}'), ('{"strategy": "linear", "multiplier": 2}'), ('{"jitter_kind": "decorrelated"}'),
	('{"jitter_kind": "full", "jitter": 0.1}'), ('{"jitter_kind": 1}'), ('{"strategy": "function"}'), ('{"function": "a.b"}'),
	('{"strategy": "function", "function": 1}'), ('{"strategy": "function", "function": "now"}'),
	('{"strategy": "function", "function": "a.b.c"}'), ('{"strategy": "function", "function": ""}'),
	('{"strategy": "function", "function": "a.b", "delay": 1}'), ('{"decay": 1}');
SELECT backoff, regress_backoff.outcome(format('INSERT INTO job_types (job_type, backoff) VALUES (''x'', %L)', backoff)) AS outcome
FROM regress_backoff.refused ORDER BY id;
SELECT regress_backoff.outcome(format('INSERT INTO job_types (job_type, backoff) VALUES (''x'', %L)', to_jsonb(array_fill(1, ARRAY[n]))))
FROM unnest('{100,101}'::int[]) n;
DELETE FROM job_types;

-- functions: who may name which
CREATE ROLE regress_owner;
CREATE ROLE regress_worker;
CREATE ROLE regress_stranger;
GRANT USAGE, CREATE ON SCHEMA regress_backoff TO regress_owner, regress_worker, regress_stranger;
SELECT grant_job_role('regress_owner', r), grant_job_role('regress_stranger', r) FROM unnest('{producer,operator}'::text[]) r;
SELECT grant_job_role('regress_owner', 'worker'), grant_job_role('regress_worker', 'worker');
SET ROLE regress_owner;
CREATE FUNCTION regress_backoff.wait(attempt integer, error text) RETURNS interval LANGUAGE sql
	AS $$ SELECT CASE error WHEN 'failure 3' THEN interval '1 hour' ELSE attempt * interval '10 s' END $$;
CREATE FUNCTION regress_backoff.waits(attempt integer, error text) RETURNS SETOF interval LANGUAGE sql AS 'SELECT interval ''1 s''';
CREATE FUNCTION regress_backoff.seconds(attempt integer, error text) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION regress_backoff.short(attempt integer) RETURNS interval LANGUAGE sql AS 'SELECT interval ''1 s''';
CREATE PROCEDURE regress_backoff.proc(attempt integer, error text) LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION regress_backoff.private(attempt integer, error text) RETURNS interval LANGUAGE sql AS 'SELECT interval ''1 s''';
REVOKE EXECUTE ON FUNCTION regress_backoff.private(integer, text) FROM PUBLIC;
CREATE FUNCTION regress_backoff."Odd.name"(attempt integer, error text) RETURNS interval LANGUAGE sql AS 'SELECT interval ''1 s''';
SELECT name, regress_backoff.outcome(format($$INSERT INTO job_types (job_type, backoff) VALUES (%L, jsonb_build_object('strategy', 'function', 'function', %1$L))$$, name))
FROM unnest('{regress_backoff.wait,Regress_Backoff.WAIT,regress_backoff.waits,regress_backoff.seconds,regress_backoff.short,regress_backoff.proc,regress_backoff.private,regress_backoff.none,nowhere.wait,pg_temp.wait,pg_catalog.now,"regress_backoff.\"Odd.name\""}'::text[]) AS n(name);
SELECT regress_backoff.delays('regress_backoff.wait', 4);
-- a cap, and jitter
UPDATE job_types SET backoff = backoff || '{"max_delay": "30 s"}' WHERE job_type = 'regress_backoff.wait';
SELECT regress_backoff.delays('regress_backoff.wait', 4);
UPDATE job_types SET backoff = backoff || '{"jitter_kind": "equal"}' WHERE job_type = 'regress_backoff.wait';
SELECT (regress_backoff.delays('regress_backoff.wait', 1))[1] BETWEEN '5 s' AND '10 s' AS in_range;
-- not for one job, not for HTTP
SELECT regress_backoff.outcome($$INSERT INTO jobs_queue (job_type, backoff) VALUES ('x', '{"strategy": "function", "function": "regress_backoff.wait"}')$$);
SELECT regress_backoff.outcome($$INSERT INTO job_types (job_type, runner, backoff) VALUES ('http', 'http', '{"strategy": "function", "function": "regress_backoff.wait"}')$$);
-- its own function is the stranger's, but whoever names it must be allowed to act as the owner
RESET ROLE;
SET ROLE regress_stranger;
CREATE FUNCTION regress_backoff.trap(attempt integer, error text) RETURNS interval LANGUAGE sql AS 'SELECT interval ''1 s''';
SELECT regress_backoff.outcome($$UPDATE job_types SET backoff = '{"strategy": "function", "function": "regress_backoff.trap"}' WHERE job_type = 'regress_backoff.wait'$$);
SELECT regress_backoff.outcome($$INSERT INTO job_types (job_type, owner, backoff) VALUES ('x', 'regress_owner', '{"strategy": "function", "function": "regress_backoff.trap"}')$$);
SELECT regress_backoff.outcome($$INSERT INTO job_types (job_type, backoff) VALUES ('x', '{"strategy": "function", "function": "regress_backoff.private"}')$$);
SELECT regress_backoff.outcome($$UPDATE job_types SET max_attempts = 7 WHERE job_type = 'regress_backoff.wait'$$);
RESET ROLE;
-- a new owner needs the right
INSERT INTO job_types (job_type, owner, backoff) VALUES ('private', 'regress_owner', '{"strategy": "function", "function": "regress_backoff.private"}');
SELECT regress_backoff.outcome($$UPDATE job_types SET owner = 'regress_stranger' WHERE job_type = 'private'$$);
DELETE FROM job_types;

-- what a function may do: it runs as the owner of the job type, and nothing of it stays
CREATE TABLE regress_backoff.witness (who text);
GRANT ALL ON regress_backoff.witness TO regress_owner;
CREATE SEQUENCE regress_backoff.numbers;
GRANT ALL ON SEQUENCE regress_backoff.numbers TO regress_owner;
CREATE TABLE regress_backoff.secrets AS SELECT 'a secret' AS secret;
GRANT SELECT ON regress_backoff.secrets TO regress_worker;
SET ROLE regress_owner;
CREATE PROCEDURE regress_backoff.committing() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;
-- What the error says, it does.
CREATE FUNCTION regress_backoff.hostile(attempt integer, error text) RETURNS interval LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE error;
	RETURN '77 s';
END
$$;
CREATE FUNCTION regress_backoff.answering(attempt integer, error text) RETURNS interval LANGUAGE plpgsql AS $$
BEGIN
	RETURN error::interval;
END
$$;
CREATE FUNCTION regress_backoff.strict_one(attempt integer, error text) RETURNS interval LANGUAGE sql STRICT AS $$
	SELECT interval '77 s' WHERE error = 'unknown error' AND current_setting('search_path') = 'pg_catalog, pg_temp'
$$;
CREATE FUNCTION regress_backoff.stubborn(attempt integer, error text) RETURNS interval LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 3 LOOP
		BEGIN
			PERFORM pg_sleep(60);
		EXCEPTION WHEN query_canceled THEN NULL;
		END;
	END LOOP;
	RETURN '88 s';
END
$$;
INSERT INTO job_types (job_type, max_attempts, backoff)
SELECT f, 9, jsonb_build_object('strategy', 'function', 'function', 'regress_backoff.' || f)
FROM unnest('{hostile,answering,strict_one,stubborn}'::text[]) f;
SELECT count(enqueue_job(f)) FROM unnest('{hostile,answering,strict_one,stubborn}'::text[]) f;
RESET ROLE;
-- A failure with this error, as a worker, and what it waits for.
CREATE FUNCTION regress_backoff.fail(type text, error text) RETURNS interval LANGUAGE plpgsql AS $$
DECLARE
	worker constant uuid := 'aaaaaaaa-0000-4000-8000-000000000001';
	job public.jobs_queue;
BEGIN
	UPDATE public.jobs_queue SET scheduled_at = now(), attempts = 0 WHERE job_type = type;
	SELECT * INTO job FROM public.claim_next_job(worker, type);
	PERFORM public.fail_job(job.id, worker, error);
	RETURN (SELECT scheduled_at - updated_at FROM public.jobs_queue WHERE id = job.id);
END
$$;
GRANT SELECT, UPDATE ON jobs_queue TO regress_worker;
CREATE TABLE regress_backoff.tricks (id serial, command text);
INSERT INTO regress_backoff.tricks (command) VALUES
	-- fine: it is who it should be
	('DO $d$ BEGIN ASSERT current_user = ''regress_owner'', current_user; ASSERT current_setting(''search_path'') = ''pg_catalog, pg_temp''; END $d$'),
	('SELECT set_config(''work_mem'', ''123kB'', false)'),
	('SET work_mem = ''124kB'''),
	('RESET ALL'),
	('SELECT pg_advisory_xact_lock(7)'),
	('SELECT pg_notify(''a'', ''b'')'),
	-- its own rights are not enough
	('SELECT secret FROM regress_backoff.secrets'),
	('SELECT public.claim_jobs(''aaaaaaaa-0000-4000-8000-000000000001'')'),
	-- becoming somebody else
	('SET ROLE regress_worker'), ('SET ROLE NONE'), ('RESET ROLE'), ('SET LOCAL ROLE regress_owner'),
	('SET SESSION AUTHORIZATION regress_worker'), ('RESET SESSION AUTHORIZATION'), ('SET SESSION AUTHORIZATION DEFAULT'),
	('SELECT set_config(''role'', ''none'', false)'), ('SELECT set_config(''session_authorization'', session_user, true)'),
	-- writing
	('INSERT INTO regress_backoff.witness VALUES (current_user)'),
	('SET transaction_read_only = off'),
	('SELECT set_config(''transaction_read_only'', ''off'', true)'),
	('SELECT nextval(''regress_backoff.numbers'')'),
	('UPDATE public.jobs_queue SET status = ''completed'''),
	('DELETE FROM public.jobs_queue'),
	('UPDATE public.job_types SET owner = NULL'),
	('SELECT public.enqueue_job(''x'')'),
	('SELECT public.run_job(1)'),
	('CREATE TABLE regress_backoff.made (a int)'),
	('CREATE FUNCTION regress_backoff.made() RETURNS int LANGUAGE sql AS ''SELECT 1'''),
	-- leaving something behind
	('CREATE TEMP TABLE made (a int)'),
	('DECLARE kept CURSOR WITH HOLD FOR SELECT 1'),
	('PREPARE kept AS SELECT 1'), ('LISTEN kept'), ('DISCARD ALL'), ('DEALLOCATE ALL'),
	('COMMIT'), ('ROLLBACK'), ('SAVEPOINT s'), ('CALL regress_backoff.committing()'),
	-- not ending
	('SELECT pg_sleep(60)'),
	('DO $d$ BEGIN LOOP NULL; END LOOP; END $d$'),
	('DO $d$ BEGIN BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(60); END; END $d$'),
	-- errors
	('DO $d$ BEGIN RAISE EXCEPTION ''mine''; END $d$'),
	('DO $d$ BEGIN RAISE EXCEPTION SQLSTATE ''57014''; END $d$'),
	('DO $d$ BEGIN RAISE EXCEPTION SQLSTATE ''40001''; END $d$'),
	('DO $d$ BEGIN RAISE EXCEPTION SQLSTATE ''XX000''; END $d$'),
	('DO $d$ BEGIN ASSERT false; END $d$'),
	('SELECT 1/0');
GRANT SELECT ON regress_backoff.tricks TO regress_worker;
SET SESSION AUTHORIZATION regress_worker;
SET intervalstyle = 'postgres';
SET work_mem = '200kB';
\set VERBOSITY terse
SET client_min_messages = warning;
DO $$
DECLARE
	t record;
BEGIN
	FOR t IN SELECT command FROM regress_backoff.tricks ORDER BY id LOOP
		RAISE WARNING '% -> %', t.command, regress_backoff.fail('hostile', t.command);
	END LOOP;
END
$$;
\set VERBOSITY default
-- the answer itself
SELECT d AS answer, regress_backoff.fail('answering', d) FROM unnest('{1 s,0,-1 s,1 mon -31 days,100 years,178000000 years,soon,NULL}'::text[]) d;
SELECT regress_backoff.fail('answering', '0.0015 ms');
SELECT regress_backoff.fail('strict_one', NULL);
SELECT regress_backoff.fail('strict_one', 'other');
SELECT regress_backoff.fail('stubborn', 'x');
SELECT current_user, current_setting('work_mem') AS work_mem, current_setting('transaction_read_only') AS read_only,
	(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks,
	(SELECT count(*) FROM pg_cursors WHERE name = 'kept') AS cursors, (SELECT count(*) FROM pg_prepared_statements) AS prepared;
RESET SESSION AUTHORIZATION;
SET intervalstyle = 'postgres';
SET client_min_messages = warning;
-- in the session of a superuser nothing more is possible
SET client_min_messages = error;
SELECT command, delay FROM regress_backoff.tricks, regress_backoff.fail('hostile', command) AS delay
WHERE command !~ 'sleep|LOOP' AND delay <> '5 min' ORDER BY id;
SET client_min_messages = warning;
SELECT count(*) FROM regress_backoff.witness;
SELECT to_regclass('regress_backoff.made'), to_regproc('regress_backoff.made');
SELECT last_value, is_called FROM regress_backoff.numbers;
SELECT job_type, status FROM jobs_queue ORDER BY id;
-- several jobs of one call, each with its own answer
SELECT count(enqueue_job('answering')) FROM generate_series(1, 3);
UPDATE jobs_queue SET scheduled_at = now() WHERE job_type = 'answering';
SELECT resolve_jobs('aaaaaaaa-0000-4000-8000-000000000001', array_agg(id ORDER BY id), '{f,f,t,f}', '{1 s,x,2 s,3 s}')
FROM claim_jobs('aaaaaaaa-0000-4000-8000-000000000001', '{answering}', 10);
SELECT status, scheduled_at - updated_at AS delay FROM jobs_queue WHERE job_type = 'answering' AND status = 'queued' ORDER BY id;
DELETE FROM jobs_queue WHERE job_type = 'answering';
-- rights that are lost, functions and owners that go
SELECT count(enqueue_job('answering'));
REVOKE EXECUTE ON FUNCTION regress_backoff.answering FROM PUBLIC, regress_owner;
SELECT regress_backoff.fail('answering', '1 s');
GRANT EXECUTE ON FUNCTION regress_backoff.answering TO PUBLIC;
REVOKE USAGE ON SCHEMA regress_backoff FROM regress_owner;
SELECT regress_backoff.fail('answering', '1 s');
GRANT USAGE ON SCHEMA regress_backoff TO regress_owner;
SELECT regress_backoff.fail('answering', '1 s');
DROP FUNCTION regress_backoff.answering;
SELECT regress_backoff.fail('answering', '1 s');
UPDATE job_types SET max_attempts = 8 WHERE job_type = 'answering';
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
DROP SCHEMA regress_backoff CASCADE;
DROP OWNED BY regress_owner, regress_worker, regress_stranger;
DROP ROLE regress_owner, regress_worker, regress_stranger;
