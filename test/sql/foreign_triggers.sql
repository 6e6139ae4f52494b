--
-- The right to create a trigger on our tables, or to refer to them, is no way
-- to the rights of their owner: nothing is written while code of a role without
-- those rights would take part.
--
SET client_min_messages = warning;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
\set SHOW_CONTEXT never
\set w1 '''11111111-0000-4000-8000-000000000001'''
SELECT current_user AS super \gset
CREATE ROLE regress_app;
CREATE SCHEMA regress_app AUTHORIZATION regress_app;
GRANT USAGE ON SCHEMA regress_app TO PUBLIC;
SELECT grant_job_role('regress_app', 'producer'), grant_job_role('regress_app', 'worker');
-- what "GRANT ALL ON ALL TABLES IN SCHEMA" does to us
GRANT ALL ON jobs_queue, jobs_queue_live, jobs_queue_done, job_runs, job_logs, job_types, cron_tasks, cron_runs, job_dependencies,
	http_endpoints, http_secrets, http_secret_values, event_subscriptions, job_keys, published_events, registered_workers, worker_stops, database_identity, job_circuits, queue_events, rate_log, job_history, alert_sinks, alert_rules, alerts, monitor_actions TO regress_app;
GRANT EXECUTE ON FUNCTION run_cron_task, enqueue_cron_tasks, stop_worker, pause_workers TO regress_app;
SELECT schedule_cron_task('task', '0 0 1 1 *', 'mail') > 0 AS ok;
CREATE FUNCTION regress_try(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RAISE EXCEPTION 'undo' USING ERRCODE = 'P0007';
EXCEPTION
	WHEN SQLSTATE 'P0007' THEN
		RETURN 'safe';
	WHEN insufficient_privilege THEN
		RETURN 'safe';
	WHEN OTHERS THEN
		RETURN sqlstate;
END
$$;
SELECT enqueue_jobs('mail', '{1,2,3}') > 0 AS ok;
SELECT count(*) FROM claim_jobs(:w1, '{mail}', 2);

SET ROLE regress_app;
CREATE FUNCTION regress_app.catch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF current_user <> 'regress_app' THEN
		RAISE EXCEPTION 'run as %', current_user USING ERRCODE = 'P0666';
	END IF;
	RETURN coalesce(NEW, OLD);
END
$$;
CREATE FUNCTION regress_app.catch(text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'run as %', current_user USING ERRCODE = 'P0666';
END
$$;
CREATE OPERATOR regress_app.<<< (FUNCTION = regress_app.catch, RIGHTARG = text);
RESET ROLE;
CREATE FUNCTION regress_attack(attack text, undo text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	outcomes text := '';
	call text;
BEGIN
	SET LOCAL ROLE regress_app;
	EXECUTE attack;
	FOREACH call IN ARRAY ARRAY[
		$q$SELECT enqueue_job('mail')$q$, $q$SELECT enqueue_jobs('mail', '{1,2}')$q$, $q$SELECT claim_next_job('11111111-0000-4000-8000-000000000001', 'mail')$q$,
		$q$SELECT resolve_job((SELECT min(id) FROM jobs_queue WHERE status = 'running'), '11111111-0000-4000-8000-000000000001', true)$q$,
		$q$SELECT complete_job((SELECT min(id) FROM jobs_queue WHERE status = 'queued'))$q$,
		$q$SELECT run_cron_task('task')$q$, $q$DELETE FROM cron_tasks$q$, $q$SELECT register_worker('11111111-0000-4000-8000-000000000001', 'w')$q$,
		$q$SELECT job_log('x', job_id => (SELECT min(id) FROM jobs_queue WHERE status = 'running'), worker_id => '11111111-0000-4000-8000-000000000001')$q$,
		$q$SELECT stop_worker('11111111-0000-4000-8000-000000000001')$q$, $q$SELECT pause_workers()$q$]
	LOOP
		outcomes := outcomes || ' ' || regress_try(call);
	END LOOP;
	RESET ROLE;
	EXECUTE undo;
	RETURN outcomes;
END
$$;
-- P0666 would be their code. What needs no statement of ours may go on, and how
-- a claim finds its jobs is chance: refused or not, it is safe.
SELECT t AS on_table, regress_attack(format('CREATE TRIGGER a BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION regress_app.catch()', t), format('DROP TRIGGER a ON %s', t))
FROM unnest('{jobs_queue_live,jobs_queue_done,job_runs,job_logs,job_types,cron_tasks,cron_runs,job_dependencies,http_endpoints,http_secrets,http_secret_values,event_subscriptions,job_keys,published_events,registered_workers,worker_stops,database_identity,job_circuits,queue_events,rate_log,job_history,alert_sinks,alert_rules,alerts,monitor_actions}'::text[]) t;
SELECT regress_attack('CREATE CONSTRAINT TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON jobs_queue_live DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION regress_app.catch()', 'DROP TRIGGER a ON jobs_queue_live') AS deferred;
SELECT regress_attack('CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON jobs_queue FOR EACH STATEMENT EXECUTE FUNCTION regress_app.catch()', 'DROP TRIGGER a ON jobs_queue') AS statement;
-- a function of the server's, under a condition of theirs
SELECT regress_attack('CREATE TRIGGER a BEFORE UPDATE ON jobs_queue_live FOR EACH ROW WHEN (regress_app.catch(NEW.job_type)) EXECUTE FUNCTION suppress_redundant_updates_trigger()', 'DROP TRIGGER a ON jobs_queue_live') AS condition;
SELECT regress_attack('CREATE TRIGGER a BEFORE UPDATE ON jobs_queue_live FOR EACH ROW WHEN (OPERATOR(regress_app.<<<) (NEW.job_type || ''x'')) EXECUTE FUNCTION suppress_redundant_updates_trigger()', 'DROP TRIGGER a ON jobs_queue_live') AS operator;
-- a table of theirs that refers to ours, with triggers of its own
SELECT regress_attack('CREATE TABLE regress_app.child (id bigint REFERENCES jobs_queue_live ON DELETE CASCADE); CREATE TRIGGER a AFTER DELETE ON regress_app.child FOR EACH ROW EXECUTE FUNCTION regress_app.catch(); INSERT INTO regress_app.child SELECT id FROM jobs_queue_live', 'DROP TABLE regress_app.child') AS foreign_key;

-- What the owner of the tables creates is his to answer for, until he gives it away.
CREATE FUNCTION regress_own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER a BEFORE INSERT ON jobs_queue_live FOR EACH ROW EXECUTE FUNCTION regress_own();
SET ROLE regress_app;
SELECT enqueue_job('mail') > 0 AS ok;
RESET ROLE;
ALTER FUNCTION regress_own() OWNER TO regress_app;
SET ROLE regress_app;
\set VERBOSITY default
SELECT enqueue_job('mail') > 0 AS ok;
\echo :SQLSTATE
-- plain DML fires it as whoever it is
INSERT INTO jobs_queue (job_type) VALUES ('plain') RETURNING job_type;
RESET ROLE;
ALTER FUNCTION regress_own() OWNER TO :"super";
SELECT enqueue_job('mail') > 0 AS ok;
DROP TRIGGER a ON jobs_queue_live;

DELETE FROM jobs_queue;
DELETE FROM cron_tasks;
-- what lanes still remember of them is not for the next test
SELECT count(*) FROM claim_jobs(:w1, '{mail,plain}', 10);
DELETE FROM job_runs;
DROP FUNCTION regress_own, regress_attack, regress_try;
DROP SCHEMA regress_app CASCADE;
DROP OWNED BY regress_app;
DROP ROLE regress_app;

-- All tables of the extension were looked at above: a new one has to be added
-- there, and to what catalog.c lists.
SELECT c.relname FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
WHERE c.relkind IN ('r', 'p') AND c.relname <> ALL ('{jobs_queue}'::text[] || '{jobs_queue_live,jobs_queue_done,job_runs,job_logs,job_types,cron_tasks,cron_runs,job_dependencies,http_endpoints,http_secrets,http_secret_values,event_subscriptions,job_keys,published_events,registered_workers,worker_stops,database_identity,job_circuits,queue_events,rate_log,job_history,alert_sinks,alert_rules,alerts,monitor_actions}'::text[]) ORDER BY 1;
