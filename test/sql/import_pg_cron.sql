--
-- Jobs of pg_cron become cron tasks; what cannot be taken is said, row by row.
--
\set SHOW_CONTEXT never
SET TIMEZONE = 'UTC';
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;
CREATE ROLE regress_app;
CREATE ROLE regress_other;

-- Without pg_cron.
SELECT * FROM import_pg_cron();
\echo :SQLSTATE
SELECT * FROM import_pg_cron(NULL);
\echo :SQLSTATE

-- A table as that of 1.6.
CREATE SCHEMA cron;
CREATE TABLE cron.job (jobid bigint PRIMARY KEY, schedule text NOT NULL, command text NOT NULL, nodename text NOT NULL DEFAULT 'localhost',
	nodeport integer NOT NULL DEFAULT current_setting('port')::integer, database text NOT NULL DEFAULT current_database(),
	username text NOT NULL DEFAULT 'regress_app', active boolean NOT NULL DEFAULT true, jobname text, UNIQUE (jobname, username));
SELECT * FROM import_pg_cron();
INSERT INTO cron.job (jobid, schedule, command, jobname, active) VALUES
	(1, '*/5 * * * *', 'DELETE FROM sessions', NULL, true),
	(2, '0 3 * * sun', 'VACUUM', 'weekly vacuum', true),
	(3, '30 seconds', 'SELECT 1; SELECT 2', 'often', true),
	(4, ' 5  Second ', 'SELECT 1', 'more often', true),
	(5, '1seconds', 'SELECT 1', 'most often', true),
	(6, '0 12 $ * *', 'SELECT bill()', 'month end', false),
	(7, '@daily', 'SELECT 1', 'daily', true),
	(8, '@reboot', 'SELECT 1', 'start', true),
	(9, '@restart', 'SELECT 1', 'start, too', true);
SELECT jobid, jobname, task_id IS NOT NULL AS taken, name, problem FROM import_pg_cron();
-- Disabled, in their zone, of their role.
SELECT name, owner, schedule, timezone, job_type, payload->>'command' AS command, overlap, max_attempts, enabled, next_run_at, description FROM cron_tasks ORDER BY id;
-- Each schedule fires as pg_cron's does.
SELECT name, cron_describe(schedule) FROM cron_tasks ORDER BY id;

-- Again: the same tasks.  A changed job changes its task; what was enabled stays so.
UPDATE cron_tasks SET enabled = true WHERE name = 'often';
UPDATE cron.job SET active = false WHERE jobname = 'often';
UPDATE cron.job SET schedule = '0 4 * * sun', command = 'VACUUM ANALYZE' WHERE jobid = 2;
SELECT count(*), max(id) AS last_id FROM cron_tasks \gset
SELECT count(*) FILTER (WHERE problem IS NULL) AS taken, bool_and(task_id <= :last_id) AS same FROM import_pg_cron();
SELECT name, schedule, payload->>'command' AS command, enabled FROM cron_tasks WHERE name IN ('often', 'weekly vacuum') ORDER BY id;

-- Enabled: what is active there; and a warning, for now both run them.
SELECT jobid, name, problem FROM import_pg_cron(enable => true);
SELECT name, enabled, next_run_at IS NOT NULL AS planned FROM cron_tasks ORDER BY id;
-- Switched off there, they go on here.
UPDATE cron.job SET active = false;
SELECT count(*) FILTER (WHERE problem IS NULL) AS taken FROM import_pg_cron(enable => true);
SELECT count(*) AS enabled FROM cron_tasks WHERE enabled;

-- What is not taken, and why; the others are.
DELETE FROM cron_tasks;
DELETE FROM cron.job;
SELECT schedule_cron_task('mine', '@daily', 'tick') > 0 AS ok;
INSERT INTO cron.job (jobid, schedule, command) VALUES
	(10, '0 0 * * * *', 'SELECT 1'), (11, '0 0 * * 1 foo bar', 'SELECT 1'), (12, '@daily foo', 'SELECT 1'), (13, '0 22-2 * * *', 'SELECT 1'), (14, '0 0 * * fri-mon', 'SELECT 1'),
	(15, '5~10 * * * *', 'SELECT 1'), (16, '0 0 31 2 *', 'SELECT 1'), (17, '0 0 * * 5#3', 'SELECT 1'), (18, '*foo * * * *', 'SELECT 1'), (19, 'never', 'SELECT 1'),
	(20, '0 0 * * *', 'SELEC 1'), (21, '0 0 * * *', ''), (22, '0 0 * * *', 'COPY t FROM STDIN'), (23, '0 0 * * *', 'SELECT good()');
INSERT INTO cron.job (jobid, schedule, command, database) VALUES (30, '@daily', 'SELECT 1', 'elsewhere');
INSERT INTO cron.job (jobid, schedule, command, username) VALUES (31, '@daily', 'SELECT 1', 'regress_nobody');
INSERT INTO cron.job (jobid, schedule, command, nodename) VALUES (32, '@daily', 'SELECT 1', 'db2.example.org'), (33, '@daily', 'SELECT good()', '/tmp'), (34, '@daily', 'SELECT good()', '127.0.0.1');
INSERT INTO cron.job (jobid, schedule, command, nodeport) VALUES (35, '@daily', 'SELECT 1', 1);
INSERT INTO cron.job (jobid, schedule, command, jobname, username) VALUES (36, '@daily', 'SELECT 1', 'mine', 'regress_app'),
	(37, '@daily', 'SELECT good()', 'twice', 'regress_app'), (38, '@daily', 'SELECT 1', 'twice', 'regress_other'), (39, '@daily', 'SELECT 1', repeat('x', 300), 'regress_app');
SELECT jobid, task_id IS NOT NULL AS taken, replace(problem, current_setting('port'), 'N') AS problem FROM import_pg_cron() ORDER BY jobid;
SELECT DISTINCT payload->>'command' AS command, count(*) FROM cron_tasks GROUP BY 1 ORDER BY 1;
SELECT job_type FROM cron_tasks WHERE name = 'mine';

-- Settings of pg_cron.
DELETE FROM cron_tasks;
DELETE FROM cron.job;
INSERT INTO cron.job (jobid, schedule, command, nodeport, nodename) VALUES (40, '30 2 * * *', 'SELECT 1', 1, 'db2'), (41, '30 2 13 * 5', 'SELECT 1', 1, 'db2'), (42, '30 2 13 * *', 'SELECT 1', 1, 'db2'),
	(43, '*/5 * $ * 5', 'SELECT 1', 1, 'db2'), (44, '30 2 */2 * 5', 'SELECT 1', 1, 'db2');
BEGIN;
SET LOCAL cron.timezone = 'Europe/Berlin';
SET LOCAL cron.use_background_workers = 'on';
SET LOCAL cron.match_dom_and_dow = 'on';
SELECT jobid, problem FROM import_pg_cron();
SELECT name, timezone FROM cron_tasks ORDER BY name;
SET LOCAL cron.timezone = 'EST5EDT';
SELECT jobid, problem FROM import_pg_cron() LIMIT 1;
ROLLBACK;

-- Tables of older versions: without jobname (1.2), without active (1.0).
DELETE FROM cron.job;
INSERT INTO cron.job (jobid, schedule, command) VALUES (50, '@hourly', 'SELECT 1');
ALTER TABLE cron.job ALTER COLUMN jobname TYPE name;
SELECT jobid, jobname, name, problem FROM import_pg_cron();
ALTER TABLE cron.job DROP COLUMN jobname;
SELECT jobid, jobname, name, problem FROM import_pg_cron();
ALTER TABLE cron.job DROP COLUMN active;
SET client_min_messages = error;
SELECT jobid, jobname, name, problem FROM import_pg_cron(true);
RESET client_min_messages;
SELECT name, enabled FROM cron_tasks;

-- Rights: an operator's, who may become the role of each job.
DELETE FROM cron_tasks;
SET client_min_messages = warning;
CREATE ROLE regress_importer IN ROLE regress_app;
CREATE ROLE regress_bystander;
SELECT grant_job_role('regress_importer', 'operator'), grant_job_role('regress_bystander', 'observer');
CREATE ROLE regress_super SUPERUSER;
RESET client_min_messages;
INSERT INTO cron.job (jobid, schedule, command, username) VALUES (51, '@hourly', 'SELECT 1', 'regress_other'), (52, '@hourly', 'SELECT 1', 'regress_super');
SET ROLE regress_importer;
SELECT jobid, problem FROM import_pg_cron();
\echo :SQLSTATE
RESET ROLE;
GRANT USAGE ON SCHEMA cron TO PUBLIC;
GRANT SELECT ON cron.job TO PUBLIC;
SET ROLE regress_importer;
SELECT jobid, problem FROM import_pg_cron();
-- as pg_cron has it: each role sees its own jobs
RESET ROLE;
ALTER TABLE cron.job ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON cron.job USING (username = current_user);
SET ROLE regress_importer;
SELECT jobid, problem FROM import_pg_cron();
SET ROLE regress_bystander;
SELECT * FROM import_pg_cron();
RESET ROLE;
SELECT name, owner FROM cron_tasks ORDER BY name;

-- Somebody else's table could name any role.
DROP SCHEMA cron CASCADE;
DELETE FROM cron_tasks;
CREATE SCHEMA cron AUTHORIZATION regress_bystander;
SET ROLE regress_bystander;
CREATE TABLE cron.job AS SELECT 1::bigint AS jobid, '@daily'::text AS schedule, 'SELECT trap()'::text AS command, 'localhost'::text AS nodename,
	current_setting('port')::integer AS nodeport, current_database()::text AS database, 'regress_super'::text AS username;
RESET ROLE;
SELECT * FROM import_pg_cron();
\echo :SQLSTATE
SELECT count(*) FROM cron_tasks;

-- Names that stand in the way are not taken for ours.
DROP SCHEMA cron CASCADE;
CREATE SCHEMA cron;
CREATE TABLE cron.job (jobid bigint, schedule text, command text, nodename text DEFAULT 'localhost', nodeport integer, database text DEFAULT current_database(), username text DEFAULT 'regress_app');
INSERT INTO cron.job VALUES (1, '@daily', 'SELECT 1');
-- A read-only transaction is no fault of a job.
BEGIN READ ONLY;
SELECT * FROM import_pg_cron();
\echo :SQLSTATE
ROLLBACK;
CREATE SCHEMA regress_hostile;
CREATE TABLE regress_hostile.hits (what text);
CREATE FUNCTION public.schedule_sql(name text, schedule text, command text, timezone text, enabled boolean, run_as regrole, description text) RETURNS bigint LANGUAGE sql AS $$ INSERT INTO regress_hostile.hits VALUES ('schedule_sql'); SELECT 1::bigint $$;
CREATE FUNCTION regress_hostile.to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql AS $$ INSERT INTO regress_hostile.hits VALUES ('to_jsonb'); SELECT '{}'::jsonb $$;
CREATE FUNCTION regress_hostile.to_jsonb(cron.job) RETURNS jsonb LANGUAGE sql AS $$ INSERT INTO regress_hostile.hits VALUES ('to_jsonb'); SELECT '{}'::jsonb $$;
CREATE FUNCTION regress_hostile.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ INSERT INTO regress_hostile.hits VALUES ('current_setting'); SELECT '' $$;
CREATE FUNCTION regress_hostile.text_equal(text, text) RETURNS boolean LANGUAGE sql AS $$ INSERT INTO regress_hostile.hits VALUES ('='); SELECT true $$;
CREATE OPERATOR regress_hostile.= (FUNCTION = regress_hostile.text_equal, LEFTARG = text, RIGHTARG = text);
SET search_path = regress_hostile, pg_catalog, public;
SELECT jobid, name, problem FROM public.import_pg_cron();
RESET search_path;
SELECT * FROM regress_hostile.hits;

DELETE FROM cron_tasks;
SET client_min_messages = warning;
DROP FUNCTION public.schedule_sql(text, text, text, text, boolean, regrole, text);
DROP SCHEMA regress_hostile, cron CASCADE;
DROP OWNED BY regress_app, regress_other, regress_importer, regress_bystander;
DROP ROLE regress_app, regress_other, regress_importer, regress_bystander, regress_super;
