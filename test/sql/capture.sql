--
-- What an attacker puts where the extension will be installed is never taken
-- for a part of it: the installation fails, whatever the object.
--
\set SHOW_CONTEXT never
-- Every name that the script creates: relations, row types, functions.
SELECT coalesce(string_agg(statement, ';' ORDER BY statement COLLATE "C"), '') AS traps, count(*) > 90 AS are_many
FROM (
	SELECT format('CREATE %s cap.%I %s', kind, c.relname, definition)
	FROM pg_class c, (VALUES ('TABLE', '(id bigint, status text)'), ('VIEW', 'AS SELECT 1 AS id'), ('SEQUENCE', ''), ('TYPE', 'AS (id bigint)')) AS k (kind, definition)
	WHERE c.oid IN (SELECT objid FROM pg_depend d WHERE classid = 'pg_class'::regclass AND deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'jobqueue')
			UNION SELECT indexrelid FROM pg_index WHERE indrelid IN ('jobs_queue_live'::regclass, 'jobs_queue_done'::regclass, 'job_runs'::regclass, 'job_types'::regclass, 'cron_tasks'::regclass))
		-- an index has no row type, and one that is not there hides no type
		AND NOT (k.kind = 'TYPE' AND c.relkind IN ('i', 'S'))
	UNION ALL
	SELECT format('CREATE FUNCTION cap.%I(%s) RETURNS integer LANGUAGE sql AS ''SELECT 1''', p.proname,
		(SELECT string_agg(format_type(t, NULL), ', ' ORDER BY n) FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a (t, n)))
	FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid
	WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'jobqueue')
		-- its argument is of a type that only the script can create
		AND p.proname <> 'job_state'
	) AS t (statement)
\gset
\echo :are_many
SELECT current_database() AS here \gset

SET client_min_messages = warning;
CREATE ROLE regress_attacker;
CREATE DATABASE jobqueue_capture TEMPLATE template0;
\c jobqueue_capture
SET client_min_messages = warning;
CREATE SCHEMA cap;
GRANT USAGE, CREATE ON SCHEMA cap TO regress_attacker;
CREATE TABLE outcome (trap text, code text);
SELECT set_config('capture.traps', :'traps', false) IS NOT NULL AS ok;
DO $$
DECLARE
	trap text;
	code text;
BEGIN
	FOREACH trap IN ARRAY string_to_array(current_setting('capture.traps'), ';') LOOP
		code := 'adopted';
		BEGIN
			SET LOCAL ROLE regress_attacker;
			EXECUTE trap;
			RESET ROLE;
			BEGIN
				CREATE EXTENSION jobqueue SCHEMA cap;
			EXCEPTION WHEN duplicate_table OR duplicate_object OR duplicate_function THEN
				code := 'refused';
			END;
			RAISE EXCEPTION 'undo' USING ERRCODE = 'P0007';
		EXCEPTION WHEN SQLSTATE 'P0007' THEN
			NULL;
		END;
		INSERT INTO outcome VALUES (trap, code);
	END LOOP;
END
$$;
SELECT code, count(*) > 90 AS are_many FROM outcome GROUP BY code;
SELECT trap FROM outcome WHERE code <> 'refused' ORDER BY 1;

-- Default privileges of whoever installs open nothing to others.
ALTER DEFAULT PRIVILEGES IN SCHEMA cap GRANT EXECUTE ON FUNCTIONS TO regress_attacker;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC, regress_attacker;
ALTER DEFAULT PRIVILEGES IN SCHEMA cap GRANT ALL ON SEQUENCES TO regress_attacker;
CREATE EXTENSION jobqueue SCHEMA cap;
SELECT count(*) FILTER (WHERE has_function_privilege('public', p.oid, 'EXECUTE')) AS functions_of_public
FROM pg_proc p WHERE p.pronamespace = 'cap'::regnamespace;
SELECT count(*) AS rights_of_others
FROM (SELECT relowner, relacl FROM pg_class WHERE relnamespace = 'cap'::regnamespace UNION ALL SELECT proowner, proacl FROM pg_proc WHERE pronamespace = 'cap'::regnamespace) AS o (owner, acl),
	aclexplode(acl) a
WHERE a.grantee <> o.owner;
DROP EXTENSION jobqueue;
-- and without what stood in the way it is installed
ALTER DEFAULT PRIVILEGES IN SCHEMA cap REVOKE EXECUTE ON FUNCTIONS FROM regress_attacker;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC, regress_attacker;
ALTER DEFAULT PRIVILEGES IN SCHEMA cap REVOKE ALL ON SEQUENCES FROM regress_attacker;
CREATE EXTENSION jobqueue SCHEMA cap;
SELECT cap.enqueue_job('mail');

\c :here
DROP DATABASE jobqueue_capture WITH (FORCE);
DROP ROLE regress_attacker;
