--
-- A crontab becomes cron tasks, all of it or nothing.
--
\set SHOW_CONTEXT never
SET TIMEZONE = 'UTC';
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- Comments, blank lines, names, macros, settings, zones, blanks and tabs.
SELECT line, name, schedule, command FROM import_crontab(E'# nightly things
SHELL=/bin/sh
  MAILTO = "ops@example.org"

30 2 * * *  DELETE FROM sessions
# name: digest
  0\t7  * *\tmon-fri\tSELECT send_digest()  \t 
# name: not right before it

@daily VACUUM
CRON_TZ=Europe/Berlin
@Hourly SELECT 1
@every 1h30m SELECT 2; SELECT 3
TZ="America/New_York"
0 9 1W * * SELECT ''a  b'' -- = c
CRON_TZ = ''UTC''
#0 0 * * * SELECT off()
0 0 29 2 * SELECT 4
@reboot SELECT 5');
SELECT name, schedule, timezone, job_type, payload, enabled, next_run_at IS NOT NULL AS planned, owner = current_user::regrole AS mine FROM cron_tasks ORDER BY id;

-- The same text again: the same tasks.
SELECT count(*), max(id) AS last_id FROM cron_tasks \gset
SELECT line, name, id <= :last_id AS same FROM import_crontab(E'30 2  * * * DELETE FROM sessions\r\n\r\n# name: digest\r\n0 8 * * * SELECT send_digest()\r\n');
SELECT count(*) = :count AS none_new FROM cron_tasks;
SELECT schedule FROM cron_tasks WHERE name = 'digest';
-- Another zone, another prefix: another task.
SELECT line, name FROM import_crontab('30 2 * * * DELETE FROM sessions', timezone => 'Europe/Paris');
SELECT line, name FROM import_crontab('30 2 * * * DELETE FROM sessions', name_prefix => 'old cron');
SELECT name = 'crontab:' || left(md5(E'UTC\n30 2 * * *\nDELETE FROM sessions'), 8) AS as_documented FROM import_crontab('30 2 * * * DELETE FROM sessions');
SELECT count(*) = :count + 2 AS two_new FROM cron_tasks;

-- Six fields cannot be told from a command: the sixth is its first word.
DELETE FROM cron_tasks;
SELECT schedule, command FROM import_crontab('0 0 * * * * true', 'shell');

-- Percent signs: for a worker as crontab has it; in SQL as SQL has it.
DELETE FROM cron_tasks;
SELECT line, command FROM import_crontab(E'0 0 * * * mail -s 100\\% ops%Hello%50\\% done%\n0 1 * * * date +\\%F\n0 2 * * * cat%\n0 3 * * * printf \\\\\\\\%x', 'shell');
SELECT payload->>'command' AS command, payload->>'input' AS input, payload ? 'input' AS has_input FROM cron_tasks ORDER BY id;
DELETE FROM cron_tasks;
SELECT command FROM import_crontab(E'0 0 * * * DELETE FROM t WHERE name LIKE \'a%b\\%\' AND id % 2 = 0');

-- Nothing in it.
DELETE FROM cron_tasks;
SELECT * FROM import_crontab('');
SELECT * FROM import_crontab(E'\n# nothing\r\n\r\n');

-- Wrong lines: which one and why; and nothing is imported.
CREATE FUNCTION pg_temp.refusal(crontab text, job_type text DEFAULT 'sql') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
BEGIN
	PERFORM * FROM import_crontab(crontab, job_type);
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
	RETURN concat_ws(' | ', sqlstate, message, nullif(detail, ''));
END $$;
SELECT left(replace(crontab, E'\n', '\n'), 50) AS crontab, pg_temp.refusal(E'@daily SELECT 1\n' || crontab) FROM unnest(ARRAY[
	'0 24 * * * SELECT 2', '0 0 * * fri-sun SELECT 2', '*/0 * * * * SELECT 2', '0 0 30 2 * SELECT 2', 'hello', '0 0 * *', '0 0 * * SELECT',
	'0 0 * * *', '@daily', '@every', '@every 1h', '@every SELECT 2', 'every 5 minutes SELECT 2', '0~30 * * * * SELECT 2', '-5 * * * * SELECT 2',
	'0 0 * * * SELEC 2', '0 0 * * * COPY t TO STDOUT', '0 0 * * * -- nothing', 'TZ=Mars/Olympus', 'CRON_TZ=', 'CRON_TZ=EST5EDT', E'# name:\n0 0 * * * SELECT 2',
	'# name: ' || repeat('x', 300) || E'\n0 0 * * * SELECT 2', E'0 0 * * * SELECT 2\n\n0 0 * * *   SELECT 2', E'@daily SELECT 1',
	E'# name: a\n@daily SELECT 2\n# name: a\n@daily SELECT 3', E'0 0 * * * SELECT 2\n0 0 * * SELECT 3', E'\u00e9 0 * * * SELECT 2'
]) WITH ORDINALITY AS c (crontab, n) ORDER BY n;
SELECT pg_temp.refusal('@daily true', repeat('x', 256)) AS long_type, pg_temp.refusal('@daily true', '') AS no_type;
SELECT pg_temp.refusal('@daily ' || repeat('x', 1100000), 'shell');
SELECT count(*) FROM cron_tasks;
\set VERBOSITY default
SELECT * FROM import_crontab(E'\n0 24 * * * SELECT 1');
\echo :SQLSTATE
SELECT * FROM import_crontab(E'@daily SELECT 1\n@daily SELECT 1');
SELECT * FROM import_crontab(NULL);
\echo :SQLSTATE
SELECT * FROM import_crontab('', NULL);
SELECT * FROM import_crontab('', timezone => NULL);
SELECT * FROM import_crontab('', name_prefix => NULL);
SELECT * FROM import_crontab('', timezone => 'Mars/Olympus');

-- Rights: an operator's, and no task of another role is taken over.
CREATE ROLE regress_importer;
CREATE ROLE regress_bystander;
SET client_min_messages = warning;
SELECT grant_job_role('regress_importer', 'operator'), grant_job_role('regress_bystander', 'observer');
SELECT id > 0 AS ok FROM import_crontab(E'# name: taken\n@daily SELECT 1');
SET ROLE regress_importer;
SELECT line, name FROM import_crontab(E'@daily SELECT 1\n# name: mine\n@daily SELECT 2');
SELECT * FROM import_crontab(E'@hourly SELECT 1\n# name: taken\n@daily SELECT 2');
\echo :SQLSTATE
SET ROLE regress_bystander;
SELECT * FROM import_crontab('@daily SELECT 1');
\echo :SQLSTATE
RESET ROLE;
SELECT name, owner = current_user::regrole AS mine, payload FROM cron_tasks ORDER BY id;

-- Names that stand in the way, in the path and beside our functions, are not
-- taken for ours.
DELETE FROM cron_tasks;
CREATE SCHEMA regress_hostile;
CREATE TABLE regress_hostile.hits (what text);
GRANT ALL ON SCHEMA regress_hostile, public TO regress_bystander;
GRANT ALL ON regress_hostile.hits TO PUBLIC;
SET ROLE regress_bystander;
CREATE FUNCTION public.schedule_sql(name text, schedule text, command text, timezone text) RETURNS bigint LANGUAGE sql AS $$ INSERT INTO regress_hostile.hits VALUES ('schedule_sql'); SELECT 1::bigint $$;
CREATE FUNCTION public.schedule_cron_task(name text, schedule text, job_type text, payload jsonb, timezone text) RETURNS bigint LANGUAGE sql AS $$ INSERT INTO regress_hostile.hits VALUES ('schedule_cron_task'); SELECT 1::bigint $$;
CREATE FUNCTION public.cron_describe(schedule varchar) RETURNS text LANGUAGE sql AS $$ INSERT INTO regress_hostile.hits VALUES ('cron_describe'); SELECT '' $$;
CREATE FUNCTION public.cron_next_runs(s text, z text, a timestamptz, n bigint DEFAULT 5) RETURNS SETOF timestamptz LANGUAGE sql AS $$ INSERT INTO regress_hostile.hits VALUES ('cron_next_runs'); SELECT now() $$;
CREATE FUNCTION public._exact_call(function_name varchar, arguments varchar[]) RETURNS text LANGUAGE sql AS $$ INSERT INTO regress_hostile.hits VALUES ('_exact_call'); SELECT '' $$;
RESET ROLE;
SET search_path = regress_hostile, pg_catalog, public;
CREATE FUNCTION regress_hostile.btrim(text, text) RETURNS text LANGUAGE sql AS $$ INSERT INTO regress_hostile.hits VALUES ('btrim'); SELECT '' $$;
CREATE FUNCTION regress_hostile.md5(text) RETURNS text LANGUAGE sql AS $$ INSERT INTO regress_hostile.hits VALUES ('md5'); SELECT '' $$;
CREATE FUNCTION regress_hostile.regexp_match(text, text) RETURNS text[] LANGUAGE sql AS $$ INSERT INTO regress_hostile.hits VALUES ('regexp_match'); SELECT NULL::text[] $$;
CREATE FUNCTION regress_hostile.array_position(text[], text) RETURNS integer LANGUAGE sql AS $$ INSERT INTO regress_hostile.hits VALUES ('array_position'); SELECT 1 $$;
CREATE FUNCTION regress_hostile.text_equal(text, text) RETURNS boolean LANGUAGE sql AS $$ INSERT INTO regress_hostile.hits VALUES ('='); SELECT true $$;
CREATE OPERATOR regress_hostile.= (FUNCTION = regress_hostile.text_equal, LEFTARG = text, RIGHTARG = text);
CREATE TEMP TABLE pg_proc (oid oid, proname name);
SELECT line, name FROM public.import_crontab(E'# name: a\n@daily SELECT 1\n@hourly SELECT 2');
SELECT line, name FROM public.import_crontab(E'# name: b\n@daily true', 'shell');
RESET search_path;
DROP TABLE pg_temp.pg_proc;
SELECT * FROM regress_hostile.hits;
SELECT name, job_type, payload FROM cron_tasks ORDER BY id;

DELETE FROM cron_tasks;
DROP SCHEMA regress_hostile CASCADE;
DROP OWNED BY regress_importer, regress_bystander;
DROP ROLE regress_importer, regress_bystander;
