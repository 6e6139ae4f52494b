--
-- SQL jobs and cron tasks for another role: for whoever may become that role.
--
SET client_min_messages = warning;
SET TIMEZONE = 'UTC';
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;
\set SHOW_CONTEXT never
CREATE ROLE regress_app;
CREATE ROLE regress_reports;
CREATE ROLE regress_chief IN ROLE regress_reports;
CREATE ROLE regress_stranger;
CREATE ROLE regress_super SUPERUSER;
GRANT regress_reports TO regress_app;
SELECT grant_job_role(r::regrole, j) FROM unnest('{regress_app,regress_stranger}'::text[]) r, unnest('{producer,operator}'::text[]) j;

-- The job, or the task, belongs to that role; without one, to the caller.
SET ROLE regress_app;
SELECT enqueue_sql('SELECT 1', run_as => 'regress_reports') > 0 AS ok, enqueue_sql('SELECT 2', run_as => NULL) > 0 AS ok,
	enqueue_sql('SELECT 3') > 0 AS ok, enqueue_sql('SELECT 4', run_as => 'regress_app') > 0 AS ok;
SELECT enqueue_sql('SELECT 5', '{}', NULL, 0, NULL, NULL, 'skip', NULL, NULL, NULL, NULL, NULL, 'regress_reports') > 0 AS by_position;
SELECT payload->>'command' AS command, owner FROM jobs_queue ORDER BY 1;
SELECT schedule_sql('theirs', '@hourly', 'SELECT 1', run_as => 'regress_reports') > 0 AS ok, schedule_sql('mine', '@hourly', 'SELECT 1') > 0 AS ok;
-- A task that is replaced keeps its owner, unless the call names one.
SELECT schedule_sql('theirs', '@daily', 'SELECT 2') > 0 AS ok, schedule_sql('mine', '@daily', 'SELECT 2', run_as => 'regress_reports') > 0 AS ok;
SELECT name, owner, schedule, payload->>'command' AS command FROM cron_tasks ORDER BY name;
SELECT schedule_sql('mine', '@daily', 'SELECT 3', run_as => 'regress_app') > 0 AS ok;
UPDATE cron_tasks SET next_run_at = now() - interval '1 minute';
SELECT enqueue_cron_tasks();
SELECT payload->>'command' AS command, owner FROM jobs_queue WHERE cron_task_id IS NOT NULL ORDER BY 1;

-- A waiting job that is replaced changes hands only if the call says so.
SELECT enqueue_sql('SELECT 1', unique_key => 'k', run_as => 'regress_reports') AS id \gset
SELECT enqueue_sql('SELECT 2', unique_key => 'k', unique_mode => 'replace') = :id AS replaced;
SELECT payload->>'command' AS command, owner FROM jobs_queue WHERE id = :id;
SELECT enqueue_sql('SELECT 3', unique_key => 'k', unique_mode => 'replace', run_as => 'regress_app') = :id AS replaced;
SELECT payload->>'command' AS command, owner FROM jobs_queue WHERE id = :id;
-- and waits for others as any job does
SELECT enqueue_sql('SELECT 6', depends_on => ARRAY[:id], run_as => 'regress_reports') AS child \gset
SELECT status, owner FROM jobs_queue WHERE id = :child;

-- Refused, before anything is written: 42501 and 42704.
RESET ROLE;
DELETE FROM jobs_queue;
SET ROLE regress_app;
\set VERBOSITY default
SELECT enqueue_sql('SELECT 1', run_as => 'regress_stranger');
\echo :SQLSTATE
SELECT schedule_sql('other', '@hourly', 'SELECT 1', run_as => 'regress_stranger');
\echo :SQLSTATE
SELECT enqueue_sql('SELECT 1', run_as => 'regress_nobody');
\echo :SQLSTATE
SELECT enqueue_sql('SELECT 1', run_as => 4294967295::oid::regrole);
\echo :SQLSTATE
SELECT enqueue_sql('SELECT 1', run_as => '-');
\echo :SQLSTATE
SELECT schedule_sql('other', '@hourly', 'SELECT 1', run_as => '-');
\echo :SQLSTATE
\set VERBOSITY sqlstate
SELECT enqueue_sql('SELECT 1', run_as => 'regress_super');
-- a member the other way round, and a member of the same role
SELECT enqueue_sql('SELECT 1', run_as => 'regress_chief');
SET ROLE regress_stranger;
SELECT enqueue_sql('SELECT 1', run_as => 'regress_app');
SELECT schedule_sql('theirs', '@hourly', 'SELECT 1');
SELECT schedule_sql('theirs', '@hourly', 'SELECT 1', run_as => 'regress_stranger');
SELECT enqueue_sql('SELECT 1', unique_key => 'x', unique_mode => 'replace', run_as => 'regress_reports');
RESET ROLE;
\set VERBOSITY default
SELECT count(*) FROM jobs_queue;
SELECT name, owner, payload->>'command' AS command FROM cron_tasks ORDER BY name;

-- A superuser may name anybody; a function acts for its owner, not for its caller.
SELECT enqueue_sql('SELECT 1', run_as => 'regress_stranger') > 0 AS ok, enqueue_sql('SELECT 2', run_as => 'regress_super') > 0 AS ok;
CREATE FUNCTION regress_wrapper(who regrole) RETURNS boolean LANGUAGE sql SECURITY DEFINER
	SET search_path = public, pg_temp AS $$ SELECT enqueue_sql('SELECT 3', run_as => who) > 0 $$;
ALTER FUNCTION regress_wrapper OWNER TO regress_app;
SET ROLE regress_stranger;
SELECT regress_wrapper('regress_reports');
SELECT regress_wrapper('regress_stranger');
RESET ROLE;
SELECT payload->>'command' AS command, owner FROM jobs_queue ORDER BY 1;

-- Membership counts at the call, and no longer than it lasts.
REVOKE regress_reports FROM regress_app;
SET ROLE regress_app;
SELECT enqueue_sql('SELECT 1', run_as => 'regress_reports');
\echo :SQLSTATE
RESET ROLE;

DELETE FROM jobs_queue;
DELETE FROM cron_tasks;
DROP FUNCTION regress_wrapper;
DROP OWNED BY regress_app, regress_stranger;
DROP ROLE regress_app, regress_reports, regress_chief, regress_stranger, regress_super;
