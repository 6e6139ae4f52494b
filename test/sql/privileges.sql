-- Who may do what.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
ALTER SEQUENCE cron_tasks_id_seq RESTART;
ALTER SEQUENCE event_subscriptions_id_seq RESTART;
CREATE ROLE regress_nobody;
CREATE ROLE regress_producer;
CREATE ROLE regress_worker;
CREATE ROLE regress_observer;
CREATE ROLE regress_alice;
CREATE ROLE regress_bob;
CREATE ROLE "regress ""odd"" role";
CREATE SCHEMA regress_jobqueue;
GRANT USAGE ON SCHEMA regress_jobqueue TO PUBLIC;
GRANT CREATE ON SCHEMA regress_jobqueue TO regress_nobody, regress_alice;

-- The members of the extension.
CREATE VIEW regress_jobqueue.members AS
	SELECT d.classid, d.objid, c.relkind, c.relname, p.proname
	FROM pg_depend d
		JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'jobqueue'
		LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
		LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
	WHERE d.deptype = 'e';
-- What a role may do, one line per object.
CREATE FUNCTION regress_jobqueue.rights(role text) RETURNS TABLE (object text, rights text) LANGUAGE sql AS $$
	SELECT m.relname::text, string_agg(r.name, ' ' ORDER BY r.name COLLATE "C")
	FROM regress_jobqueue.members m CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS r(name)
	WHERE m.relkind IN ('r', 'p', 'v') AND has_table_privilege(role, m.objid, r.name)
	GROUP BY 1
	UNION ALL
	SELECT m.relname::text, string_agg(r.name, ' ' ORDER BY r.name COLLATE "C")
	FROM regress_jobqueue.members m CROSS JOIN unnest('{USAGE,SELECT,UPDATE}'::text[]) AS r(name)
	WHERE m.relkind = 'S' AND has_sequence_privilege(role, m.objid, r.name)
	GROUP BY 1
	UNION ALL
	SELECT m.relname || '.' || a.attname, string_agg(r.name, ' ' ORDER BY r.name COLLATE "C")
	FROM regress_jobqueue.members m JOIN pg_attribute a ON a.attrelid = m.objid AND a.attacl IS NOT NULL
		CROSS JOIN unnest('{SELECT,INSERT,UPDATE,REFERENCES}'::text[]) AS r(name)
	WHERE m.relkind IN ('r', 'p', 'v') AND has_column_privilege(role, m.objid, a.attnum, r.name)
		AND NOT has_table_privilege(role, m.objid, r.name)
	GROUP BY 1
	UNION ALL
	SELECT m.proname || '()', 'EXECUTE'
	FROM regress_jobqueue.members m
	WHERE m.proname IS NOT NULL AND has_function_privilege(role, m.objid, 'EXECUTE')
	ORDER BY 1;
$$;
-- How a statement ends.
CREATE FUNCTION regress_jobqueue.try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	EXECUTE statement;
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN 'ok ' || n;
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate || ' ' || sqlerrm;
END $$;

-- A fresh role can touch nothing: no table, view, sequence or function.
SELECT * FROM regress_jobqueue.rights('regress_nobody');
SET ROLE regress_nobody;
SELECT enqueue_job('mail');
SELECT claim_next_job('11111111-1111-1111-1111-111111111111');
SELECT resolve_job(1, '11111111-1111-1111-1111-111111111111', true);
SELECT enqueue_cron_tasks();
SELECT grant_job_role('regress_nobody', 'operator');
SELECT * FROM jobs_queue;
SELECT * FROM jobs_queue_live;
SELECT * FROM job_stats;
INSERT INTO jobs_queue (job_type) VALUES ('mail');
INSERT INTO jobs_queue_live (job_type, max_attempts) VALUES ('mail', 1);
SELECT nextval('jobs_queue_id_seq');
CREATE TRIGGER t BEFORE INSERT ON jobs_queue FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE TABLE regress_jobqueue.t (name text REFERENCES job_types);
CREATE TABLE regress_jobqueue.leaf PARTITION OF jobs_queue FOR VALUES IN ('mine');
ALTER TABLE jobs_queue ENABLE ROW LEVEL SECURITY;
DROP EXTENSION jobqueue;
SELECT _guard_job();
RESET ROLE;

-- Nobody else than a trigger calls a trigger function, on its own table.
SELECT _guard_job();
SELECT _release_dependents();
SELECT _cancel_dependents();
SELECT _guard_job_type();
SELECT _job_types_changed();
SELECT _guard_cron_task();
SELECT _guard_owned();
CREATE TABLE regress_jobqueue.other (id bigint);
CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON regress_jobqueue.other FOR EACH ROW EXECUTE FUNCTION _guard_job();
INSERT INTO regress_jobqueue.other VALUES (1);
DROP TRIGGER t ON regress_jobqueue.other;
CREATE TRIGGER t AFTER INSERT ON regress_jobqueue.other FOR EACH STATEMENT EXECUTE FUNCTION _guard_job();
INSERT INTO regress_jobqueue.other VALUES (1);
DROP TRIGGER t ON regress_jobqueue.other;
CREATE TRIGGER t AFTER INSERT ON regress_jobqueue.other FOR EACH STATEMENT EXECUTE FUNCTION _release_dependents();
INSERT INTO regress_jobqueue.other VALUES (1);
DROP TRIGGER t ON regress_jobqueue.other;
CREATE TRIGGER t AFTER DELETE ON regress_jobqueue.other REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION _cancel_dependents();
DELETE FROM regress_jobqueue.other;
DROP TRIGGER t ON regress_jobqueue.other;
CREATE TRIGGER t BEFORE INSERT ON regress_jobqueue.other FOR EACH ROW EXECUTE FUNCTION _guard_job_type();
INSERT INTO regress_jobqueue.other VALUES (1);
DROP TRIGGER t ON regress_jobqueue.other;
CREATE TRIGGER t AFTER INSERT ON regress_jobqueue.other FOR EACH STATEMENT EXECUTE FUNCTION _guard_job_type();
INSERT INTO regress_jobqueue.other VALUES (1);
DROP TRIGGER t ON regress_jobqueue.other;
CREATE TRIGGER t BEFORE INSERT ON regress_jobqueue.other FOR EACH ROW EXECUTE FUNCTION _guard_cron_task();
INSERT INTO regress_jobqueue.other VALUES (1);
DROP TRIGGER t ON regress_jobqueue.other;
CREATE TRIGGER t AFTER INSERT ON regress_jobqueue.other FOR EACH STATEMENT EXECUTE FUNCTION _guard_cron_task();
INSERT INTO regress_jobqueue.other VALUES (1);
DROP TRIGGER t ON regress_jobqueue.other;
CREATE TRIGGER t BEFORE INSERT ON regress_jobqueue.other FOR EACH ROW EXECUTE FUNCTION _guard_owned('x');
INSERT INTO regress_jobqueue.other VALUES (1);
DROP TRIGGER t ON regress_jobqueue.other;
CREATE TRIGGER t AFTER INSERT ON regress_jobqueue.other FOR EACH STATEMENT EXECUTE FUNCTION _guard_owned('x');
INSERT INTO regress_jobqueue.other VALUES (1);
DROP TABLE regress_jobqueue.other;

-- grant_job_role: wrong words.
SELECT grant_job_role('regress_producer', 'boss');
\echo :SQLSTATE
SELECT grant_job_role('regress_producer', NULL);
\echo :SQLSTATE
SELECT grant_job_role(NULL, 'worker');
\echo :SQLSTATE
SELECT grant_job_role('regress_missing', 'worker');
\echo :SQLSTATE
SELECT grant_job_role('4294967295', 'worker');
\echo :SQLSTATE
SELECT grant_job_role('-', 'worker');
\echo :SQLSTATE
SELECT grant_job_role('regress_producer', 'Producer');
\echo :SQLSTATE

-- The four sets of rights.
SELECT grant_job_role('regress_producer', 'producer');
SELECT grant_job_role('regress_worker', 'worker');
SELECT grant_job_role('regress_observer', 'observer');
SELECT grant_job_role('regress_alice', 'operator'), grant_job_role('regress_alice', 'producer');
SELECT grant_job_role('regress_bob', 'operator'), grant_job_role('regress_bob', 'producer');
SELECT grant_job_role('"regress ""odd"" role"', 'observer');
SELECT grant_job_role('regress_worker', 'worker') AS twice;
SELECT * FROM regress_jobqueue.rights('regress_producer');
SELECT * FROM regress_jobqueue.rights('regress_worker');
SELECT * FROM regress_jobqueue.rights('regress_observer');
SELECT * FROM regress_jobqueue.rights('regress_alice');
SELECT count(*) FROM regress_jobqueue.rights('regress "odd" role');
-- Nobody can put a trigger on our tables, refer to them or empty them.
SELECT r, object FROM unnest('{regress_nobody,regress_producer,regress_worker,regress_observer,regress_alice}'::text[]) r,
	regress_jobqueue.rights(r) WHERE rights ~ 'TRIGGER|REFERENCES|TRUNCATE' ORDER BY 1, 2;

-- Producers enqueue, by function and by INSERT, and see the ids.
SET ROLE regress_producer;
SELECT enqueue_job('mail', '{"secret": 1}') AS id;
INSERT INTO jobs_queue (job_type, payload) VALUES ('mail', '{}') RETURNING id;
SELECT enqueue_jobs('mail', '{"{}"}');
SELECT enqueue_job_batch('[{"job_type": "mail"}]');
COPY jobs_queue (job_type) FROM stdin;
mail
\.
SELECT count(id) FROM jobs_queue;
SELECT regress_jobqueue.try(s) FROM unnest(ARRAY[
	'SELECT payload FROM jobs_queue', 'SELECT * FROM job_runs', 'SELECT owner FROM jobs_queue',
	'UPDATE jobs_queue SET payload = ''{}''', 'DELETE FROM jobs_queue', 'TRUNCATE jobs_queue',
	$$SELECT claim_next_job('11111111-1111-1111-1111-111111111111')$$,
	$$SELECT requeue_job(1)$$, $$SELECT cancel_job(1)$$,
	$$INSERT INTO jobs_queue_live (job_type, max_attempts) VALUES ('mail', 1)$$,
	$$INSERT INTO jobs_queue (job_type) VALUES ('mail') RETURNING owner$$,
	$$INSERT INTO jobs_queue (job_type, owner) VALUES ('mail', 'regress_alice')$$,
	$$INSERT INTO jobs_queue (job_type, status) VALUES ('mail', 'completed')$$,
	$$INSERT INTO jobs_queue (job_type, claim_no) VALUES ('mail', 3)$$,
	$$INSERT INTO jobs_queue (job_type, status, locked_by, claim_no) VALUES ('mail', 'running', gen_random_uuid(), 1)$$,
	$$INSERT INTO jobs_queue (job_type, status, waiting_for) VALUES ('mail', 'blocked', 1)$$,
	$$SELECT setval('jobs_queue_id_seq', 1)$$,
	$$SELECT schedule_cron_task('x', '@hourly', 'mail')$$]) s;
SELECT left(regress_jobqueue.try($$INSERT INTO jobs_queue (job_type, owner) VALUES ('mail', 10)$$), 23) AS as_superuser;
RESET ROLE;
SELECT id, owner, payload FROM jobs_queue ORDER BY id;

-- Workers claim and resolve, and see nothing else.
SET ROLE regress_worker;
SELECT id, payload FROM claim_next_job('11111111-1111-1111-1111-111111111111', 'mail');
SELECT register_worker('11111111-1111-1111-1111-111111111111', 'w');
SELECT heartbeat_job(1, '11111111-1111-1111-1111-111111111111'),
	set_job_stage(1, '11111111-1111-1111-1111-111111111111', 's'),
	resolve_job(1, '11111111-1111-1111-1111-111111111111', false, 'secret error');
SELECT id FROM claim_jobs('11111111-1111-1111-1111-111111111111', max_jobs => 2);
SELECT resolve_jobs('11111111-1111-1111-1111-111111111111', '{2,3}', '{t,t}');
SELECT regress_jobqueue.try(s) FROM unnest(ARRAY[
	'SELECT id FROM jobs_queue', 'SELECT * FROM job_runs', 'SELECT * FROM running_jobs',
	$$SELECT enqueue_job('mail')$$, $$SELECT requeue_job(2)$$, $$SELECT cancel_job(4)$$,
	$$SELECT enqueue_cron_tasks()$$, $$INSERT INTO jobs_queue (job_type) VALUES ('mail')$$,
	$$SELECT grant_job_role('regress_worker', 'operator')$$]) s;
RESET ROLE;

-- Observers see numbers and states, no payload, no error, no definition.
SET ROLE regress_observer;
SELECT status, jobs FROM job_stats ORDER BY status;
SELECT count(*) FROM running_jobs;
SELECT name, running_jobs FROM job_workers ORDER BY name;
SELECT count(*) FROM cron_overview;
SELECT cron_is_valid('@hourly'), count(*) FROM cron_next_runs('@hourly', n => 2);
SELECT regress_jobqueue.try(s) FROM unnest(ARRAY[
	'SELECT * FROM jobs_queue', 'SELECT * FROM jobs_queue_done', 'SELECT * FROM job_runs', 'SELECT * FROM dead_letter_jobs',
	'SELECT * FROM cron_tasks', 'SELECT * FROM job_types', 'SELECT * FROM http_endpoints', 'SELECT * FROM registered_workers',
	$$SELECT enqueue_job('mail')$$, $$SELECT claim_next_job('11111111-1111-1111-1111-111111111111')$$,
	'UPDATE job_stats SET jobs = 1', 'DELETE FROM running_jobs', 'DELETE FROM cron_overview']) s;
RESET ROLE;
SELECT relname, attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE relname IN ('job_stats', 'running_jobs', 'cron_overview', 'job_workers')
	AND attname ~ 'payload|error|command|secret|result|progress' ORDER BY 1, 2;

-- Operators: everybody's jobs, but not in their name.
ALTER SEQUENCE jobs_queue_id_seq RESTART 101;
SET ROLE regress_alice;
SELECT enqueue_job('mail', '{"of": "alice"}', unique_key => 'a') AS id;
SELECT enqueue_job('bill', '{"of": "alice"}') AS id;
INSERT INTO job_types (job_type, runner, command) VALUES ('alices', 'sql', 'SELECT 1');
INSERT INTO event_subscriptions (event_type, job_type) VALUES ('a.b', 'alices');
INSERT INTO http_endpoints (name, url) VALUES ('alices', 'https://example.com');
SELECT schedule_cron_task('alices', '@hourly', 'mail', '{"of": "alice"}');
SELECT schedule_sql('alices sql', '@hourly', 'SELECT 1');
SET ROLE regress_bob;
SELECT job_type, owner FROM job_types ORDER BY 1;
SELECT regress_jobqueue.try(s) FROM unnest(ARRAY[
	-- in her name
	$$INSERT INTO jobs_queue (job_type, owner) VALUES ('mail', 'regress_alice')$$,
	$$INSERT INTO job_types (job_type, owner) VALUES ('x', 'regress_alice')$$,
	$$INSERT INTO cron_tasks (name, schedule, job_type, owner) VALUES ('x', '@hourly', 'mail', 'regress_alice')$$,
	$$INSERT INTO event_subscriptions (event_type, job_type, owner) VALUES ('x', 'mail', 'regress_alice')$$,
	$$INSERT INTO http_endpoints (name, url, owner) VALUES ('x', 'https://x', 'regress_alice')$$,
	$$UPDATE jobs_queue SET owner = 'regress_alice' WHERE owner = 'regress_producer'::regrole$$,
	-- her jobs
	$$UPDATE jobs_queue SET payload = '{"of": "bob"}' WHERE id = 101$$,
	$$UPDATE jobs_queue SET job_type = 'other' WHERE id = 101$$,
	$$UPDATE jobs_queue SET owner = 'regress_bob' WHERE id = 101$$,
	$$UPDATE jobs_queue SET owner = NULL WHERE id = 101$$,
	$$UPDATE jobs_queue SET owner = NULL, payload = '{}' WHERE id = 101$$,
	$$UPDATE jobs_queue SET idempotency_key = gen_random_uuid() WHERE id = 101$$,
	$$UPDATE jobs_queue SET claim_no = 7 WHERE id = 101$$,
	$$SELECT enqueue_job('mail', '{"of": "bob"}', unique_key => 'a', unique_mode => 'replace')$$,
	$$SELECT enqueue_job('mail', '{"of": "bob"}', unique_key => 'a', unique_mode => 'keep_schedule')$$,
	-- her types
	$$UPDATE job_types SET command = 'SELECT 2' WHERE job_type = 'alices'$$,
	$$UPDATE job_types SET runner = 'external', command = NULL WHERE job_type = 'alices'$$,
	$$UPDATE job_types SET owner = 'regress_bob' WHERE job_type = 'alices'$$,
	$$UPDATE job_types SET owner = NULL WHERE job_type = 'alices'$$,
	$$UPDATE job_types SET job_type = 'bobs' WHERE job_type = 'alices'$$,
	$$DELETE FROM job_types WHERE job_type = 'alices'$$,
	-- her tasks
	$$UPDATE cron_tasks SET payload = '{}' WHERE name = 'alices'$$,
	$$UPDATE cron_tasks SET schedule = '@daily' WHERE name = 'alices'$$,
	$$UPDATE cron_tasks SET timezone = 'Asia/Tokyo' WHERE name = 'alices'$$,
	$$UPDATE cron_tasks SET job_type = 'sql' WHERE name = 'alices'$$,
	$$UPDATE cron_tasks SET stage = 's' WHERE name = 'alices'$$,
	$$UPDATE cron_tasks SET name = 'bobs' WHERE name = 'alices'$$,
	$$UPDATE cron_tasks SET owner = 'regress_bob' WHERE name = 'alices'$$,
	$$UPDATE cron_tasks SET owner = NULL WHERE name = 'alices'$$,
	$$DELETE FROM cron_tasks WHERE name = 'alices'$$,
	$$SELECT schedule_cron_task('alices', '@hourly', 'mail', '{"of": "alice"}')$$,
	$$SELECT schedule_cron_task('alices', '@daily', 'mail')$$,
	$$SELECT schedule_cron_task('alices', '@hourly', 'mail', '{"of": "alice"}', priority => 4)$$,
	$$SELECT schedule_sql('alices sql', '@hourly', 'SELECT 2')$$,
	$$SELECT unschedule_cron_task('alices')$$,
	-- her endpoints and subscriptions
	$$UPDATE http_endpoints SET url = 'https://evil' WHERE name = 'alices'$$,
	$$UPDATE http_endpoints SET signing_secret = 'x' WHERE name = 'alices'$$,
	$$UPDATE event_subscriptions SET job_type = 'mail' WHERE event_type = 'a.b'$$,
	$$DELETE FROM event_subscriptions$$,
	$$INSERT INTO event_subscriptions (event_type, job_type) VALUES ('a.b', 'alices') ON CONFLICT (event_type, job_type) DO UPDATE SET job_type = 'mail'$$,
	$$MERGE INTO cron_tasks t USING (VALUES ('alices')) v(name) ON t.name = v.name WHEN MATCHED THEN UPDATE SET payload = '{}'$$,
	-- what belongs to no operator
	$$INSERT INTO job_runs (job_id, claim_no, attempt, job_type, stage, status, charged) VALUES (1, 9, 1, 'x', '', 'failed', true)$$,
	$$DELETE FROM job_runs$$,
	$$DELETE FROM job_dependencies$$,
	$$TRUNCATE jobs_queue$$,
	$$SELECT claim_next_job('11111111-1111-1111-1111-111111111111')$$,
	$$SELECT grant_job_role('regress_bob', 'worker')$$]) s;
-- What operating is: when, how often, whether at all.
SELECT regress_jobqueue.try(s) FROM unnest(ARRAY[
	$$UPDATE jobs_queue SET scheduled_at = now() + '1 hour', priority = 3 WHERE id = 101$$,
	$$UPDATE jobs_queue SET status = 'cancelled' WHERE id = 101$$,
	$$UPDATE jobs_queue SET status = 'queued', scheduled_at = now(), attempts = 0, last_error = NULL WHERE id = 101$$,
	$$SELECT cancel_job(101)$$, $$SELECT requeue_job(101)$$,
	$$UPDATE job_types SET enabled = false, batch_size = 3, owner = owner WHERE job_type = 'alices'$$,
	$$UPDATE cron_tasks SET enabled = false WHERE name = 'alices'$$,
	$$UPDATE cron_tasks SET enabled = true, next_run_at = now() - interval '1 minute' WHERE name = 'alices'$$,
	$$UPDATE cron_tasks SET next_run_at = now() - interval '1 minute' WHERE name = 'alices'$$,
	$$SELECT enqueue_cron_tasks()$$,
	$$DELETE FROM jobs_queue WHERE id = 102$$,
	$$SELECT * FROM dead_letter_jobs$$,
	$$SELECT enqueue_job('mail', '{"of": "bob"}', unique_key => 'a')$$,
	$$INSERT INTO jobs_queue (job_type, payload) VALUES ('alices', '{"hers": "runs her command"}')$$]) s;
RESET ROLE;
SELECT job_type, owner, payload, status FROM jobs_queue WHERE id > 100 ORDER BY id;
SELECT job_type, owner, command FROM job_types ORDER BY 1;
SELECT name, owner, payload FROM cron_tasks ORDER BY 1;

-- A requeue by UPDATE is an operator's in any session, its first statement too.
UPDATE jobs_queue SET status = 'failed', scheduled_at = now() WHERE id = 1;
SELECT status, claim_no FROM jobs_queue WHERE id = 1;
\c -
SET ROLE regress_bob;
UPDATE jobs_queue SET status = 'queued', scheduled_at = now(), attempts = 0, last_error = NULL WHERE id = 1;
SELECT status, claim_no, attempts, owner FROM jobs_queue WHERE id = 1;
RESET ROLE;

-- Members of a role act for it, while they are.
GRANT regress_alice TO regress_bob;
SET ROLE regress_bob;
UPDATE jobs_queue SET payload = '{"by": "bob"}' WHERE id = 101 RETURNING payload, owner;
INSERT INTO jobs_queue (job_type, owner) VALUES ('mail', 'regress_alice') RETURNING owner;
UPDATE job_types SET command = 'SELECT 3' WHERE job_type = 'alices' RETURNING command, owner;
SELECT schedule_cron_task('alices', '@daily', 'mail') > 0 AS ok;
SELECT enqueue_job('mail', '{"of": "bob"}', unique_key => 'a', unique_mode => 'replace') AS id;
SELECT owner, payload FROM jobs_queue WHERE id = 101;
UPDATE cron_tasks SET owner = 'regress_bob' WHERE name = 'alices' RETURNING owner;
SELECT unschedule_cron_task('alices');
RESET ROLE;
REVOKE regress_alice FROM regress_bob;
SET ROLE regress_bob;
UPDATE jobs_queue SET payload = '{"by": "bob"}' WHERE id = 101;
\echo :SQLSTATE
RESET ROLE;

-- A SECURITY DEFINER function enqueues as its owner.
CREATE FUNCTION regress_jobqueue.wrapper() RETURNS bigint LANGUAGE sql SECURITY DEFINER
	SET search_path = public, pg_temp AS $$ SELECT enqueue_job('wrapped') $$;
CREATE FUNCTION regress_jobqueue.plain_wrapper() RETURNS bigint LANGUAGE sql SECURITY DEFINER
	SET search_path = public, pg_temp AS $$ INSERT INTO jobs_queue (job_type) VALUES ('wrapped') RETURNING id $$;
ALTER FUNCTION regress_jobqueue.wrapper() OWNER TO regress_alice;
ALTER FUNCTION regress_jobqueue.plain_wrapper() OWNER TO regress_alice;
SET ROLE regress_nobody;
SELECT regress_jobqueue.wrapper() > 0 AS ok, regress_jobqueue.plain_wrapper() > 0 AS ok;
RESET ROLE;
SELECT owner FROM jobs_queue WHERE job_type = 'wrapped' ORDER BY id;
-- A session user with rights is nobody under SET ROLE.
SET ROLE regress_worker;
SELECT enqueue_job('mail');
RESET ROLE;
SET SESSION AUTHORIZATION regress_producer;
SELECT enqueue_job('session') > 0 AS ok;
RESET SESSION AUTHORIZATION;
SELECT owner FROM jobs_queue WHERE job_type = 'session';

-- The rights of the caller are his again after an error and after a call.
SET ROLE regress_producer;
BEGIN;
SAVEPOINT s;
SELECT enqueue_job('mail', scheduled_at => 'infinity');
ROLLBACK TO s;
SELECT current_user;
SELECT payload FROM jobs_queue;
ROLLBACK;
SELECT enqueue_job('mail') > 0 AS ok, current_user;
SHOW search_path;
RESET ROLE;

-- Row security on the tables is the owner's choice; the functions go on.
ALTER TABLE jobs_queue ENABLE ROW LEVEL SECURITY;
ALTER TABLE jobs_queue_live ENABLE ROW LEVEL SECURITY;
SET ROLE regress_producer;
SELECT enqueue_job('mail') > 0 AS ok;
SELECT count(id) FROM jobs_queue;
SET ROLE regress_worker;
SELECT count(*) FROM claim_jobs('11111111-1111-1111-1111-111111111111', max_jobs => 3);
RESET ROLE;
ALTER TABLE jobs_queue DISABLE ROW LEVEL SECURITY;
ALTER TABLE jobs_queue_live DISABLE ROW LEVEL SECURITY;

SET client_min_messages = warning;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
DELETE FROM cron_tasks;
DELETE FROM event_subscriptions;
DELETE FROM http_endpoints;
DELETE FROM registered_workers;
DROP SCHEMA regress_jobqueue CASCADE;
DROP OWNED BY regress_producer, regress_worker, regress_observer, regress_alice, regress_bob, "regress ""odd"" role";
DROP ROLE regress_nobody, regress_producer, regress_worker, regress_observer, regress_alice, regress_bob, "regress ""odd"" role";
