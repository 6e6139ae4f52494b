--
-- Secrets: who may set and use them, and that nobody can read them
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE regress_sales;
CREATE ROLE regress_anna IN ROLE regress_sales;
CREATE ROLE regress_bert;
CREATE ROLE regress_reader IN ROLE pg_read_all_data, pg_write_all_data, pg_monitor;
SELECT grant_job_role('regress_sales', 'operator'), grant_job_role('regress_bert', 'operator');
GRANT CREATE ON SCHEMA public TO regress_bert;
CREATE VIEW regress_values AS
	SELECT name, is_previous, count(*) AS parts, md5(string_agg(value, '' ORDER BY part)) AS digest, max(octet_length(value)) AS longest
	FROM http_secret_values GROUP BY name, is_previous;
CREATE FUNCTION regress_error(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE, message, nullif(detail, ''), nullif(hint, ''));
END
$$;

-- A secret belongs to whoever sets it, and its value goes where nobody looks.
SET ROLE regress_sales;
SELECT set_secret('token', 'first');
SELECT name, owner, is_file, has_previous, previous_until FROM secret_names;
SELECT secret_problem('token') AS own, secret_problem('token', 'regress_anna') AS of_member,
	secret_problem('token', 'regress_bert') AS of_other, secret_problem('nothing') AS unknown;
RESET ROLE;
SELECT name, is_previous, parts, digest = md5('first') AS ok FROM regress_values;

-- After a change both are valid, for so long.
SET ROLE regress_anna;
SELECT set_secret('token', 'second');
SELECT has_previous, previous_until - now() BETWEEN '23 hours' AND '25 hours' AS ok, owner FROM secret_names;
RESET ROLE;
SELECT is_previous, digest IN (md5('first'), md5('second')) AS ok FROM regress_values ORDER BY 1;
-- The same once more changes nothing, but the shorter of two times counts.
SELECT set_secret('token', 'second', '2 days');
SELECT has_previous, previous_until - now() < '25 hours' AS ok FROM secret_names;
SELECT set_secret('token', 'second', '1 hour');
SELECT has_previous, previous_until - now() < '61 minutes' AS ok FROM secret_names;
-- Two are valid, not three.
SELECT set_secret('token', 'third', '1 hour');
SELECT is_previous, digest = md5('second') AS is_second, digest = md5('third') AS is_third FROM regress_values ORDER BY 1;
-- Zero drops the previous one at once, with a change and without.
SELECT set_secret('token', 'third', '0');
SELECT has_previous, previous_until FROM secret_names;
SELECT is_previous, digest = md5('third') AS is_third FROM regress_values;
SELECT set_secret('token', 'fourth', '0');
SELECT is_previous, digest = md5('fourth') AS is_fourth FROM regress_values;
-- The view does not show one that has expired.
SELECT set_secret('token', 'fifth');
UPDATE http_secrets SET previous_until = now() - interval '1 second';
SELECT has_previous, previous_until FROM secret_names;
SELECT set_secret('token', 'sixth', '1 hour');
SELECT is_previous, digest = md5('fifth') AS is_fifth, digest = md5('sixth') AS is_sixth FROM regress_values ORDER BY 1;

-- Long values are cut into parts that need no TOAST table, at characters.
SELECT set_secret('long', repeat('x', 8192));
SELECT parts, longest, digest = md5(repeat('x', 8192)) AS ok FROM regress_values WHERE name = 'long';
SELECT set_secret('long', repeat('€', 2730));
SELECT is_previous, parts, longest, digest IN (md5(repeat('x', 8192)), md5(repeat('€', 2730))) AS ok
FROM regress_values WHERE name = 'long' ORDER BY 1;
SELECT secret_problem('long');
SELECT pg_relation_size(reltoastrelid) AS toasted FROM pg_class
WHERE oid IN ('http_secrets'::regclass, 'http_secret_values'::regclass) AND reltoastrelid <> 0;
-- A longer name is another one.
SELECT set_secret(repeat('n', 255), 'x');
SELECT secret_problem(repeat('n', 255)) AS it, secret_problem(repeat('n', 256)) LIKE '%does not exist' AS longer, drop_secret(repeat('n', 255));
ANALYZE http_secrets, http_secret_values;
SELECT tablename, attname FROM pg_stats WHERE tablename LIKE 'http_secret%' AND attname = 'value';

-- Wrong input, whose messages show nothing of it.
SELECT regress_error(s) FROM unnest(ARRAY[
	$$SELECT set_secret(NULL, 'canary')$$, $$SELECT set_secret('a', NULL)$$, $$SELECT set_secret('a', 'canary', NULL)$$,
	$$SELECT set_secret('a', '')$$, $$SELECT set_secret('', 'canary')$$, $$SELECT set_secret('canary with blanks', 'a')$$,
	$$SELECT set_secret(repeat('a', 256), 'canary')$$, $$SELECT set_secret('a', repeat('canary', 2000))$$,
	$$SELECT set_secret('a', 'canary', '-1 second')$$, $$SELECT set_secret('a', 'canary', '1 month')$$,
	$$SELECT set_secret('a', 'canary', '367 days')$$, $$SELECT drop_secret(NULL)$$, $$SELECT drop_secret('ca nary')$$,
	$$SELECT set_secret_file(NULL, '/x')$$, $$SELECT set_secret_file('a', NULL)$$, $$SELECT set_secret_file('a', 'relative')$$,
	$$SELECT set_secret_file('a', '')$$, $$SELECT set_secret_file('a b', '/x')$$, $$SELECT set_secret_file('a', '/no/such/file')$$,
	$$SELECT set_secret_file('a', '/')$$, $$SELECT set_secret_file('a', E'/a\nb')$$, $$SELECT secret_problem(NULL)$$]) WITH ORDINALITY AS u (s, n)
ORDER BY n;
SELECT count(*) AS "left" FROM secret_names WHERE name NOT IN ('token', 'long');

-- Only a member of the owner may change one, and only some may name files.
SET ROLE regress_bert;
SELECT regress_error(s) FROM unnest(ARRAY[
	$$SELECT set_secret('token', 'canary')$$, $$SELECT drop_secret('token')$$, $$SELECT set_secret_file('token', '/x')$$]) WITH ORDINALITY AS u (s, n)
ORDER BY n;
RESET ROLE;
GRANT pg_read_server_files TO regress_bert;
SET ROLE regress_bert;
SELECT regress_error($$SELECT set_secret_file('b', '/no/such/file')$$);
-- A view that belongs to somebody else shows as little.
SELECT regress_error('SELECT value FROM http_secret_values');
CREATE VIEW regress_berts AS SELECT * FROM http_secret_values;
SELECT regress_error('SELECT * FROM regress_berts');
DROP VIEW regress_berts;
RESET ROLE;

-- Whoever may read and write everything sees and changes nothing.
SET ROLE regress_reader;
SELECT (SELECT count(*) FROM http_secrets) AS secrets, (SELECT count(*) FROM http_secret_values) AS "values";
WITH gone AS (DELETE FROM http_secret_values RETURNING 1) SELECT count(*) FROM gone;
WITH changed AS (UPDATE http_secrets SET owner = 'regress_reader' RETURNING 1) SELECT count(*) FROM changed;
SELECT regress_error(s) FROM unnest(ARRAY[
	$$INSERT INTO http_secrets (name) VALUES ('mine')$$, $$INSERT INTO http_secret_values VALUES ('token', false, 0, 'mine')$$,
	$$TRUNCATE http_secret_values$$, $$SET row_security = off$$]) WITH ORDINALITY AS u (s, n)
ORDER BY n;
SELECT regress_error('SELECT count(*) FROM http_secret_values');
RESET row_security;
RESET ROLE;
-- Nobody but the owner has a right to the tables, and no policy lets anybody in.
SELECT c.relname, c.relrowsecurity, (SELECT count(*) FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner) AS granted, (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid) AS policies
FROM pg_class c WHERE c.relname IN ('http_secrets', 'http_secret_values') ORDER BY 1;
-- They do not travel with a dump.
SELECT c.relname FROM pg_extension e JOIN pg_class c ON c.oid = ANY (e.extconfig) WHERE e.extname = 'jobqueue' AND c.relname LIKE 'http%' ORDER BY 1;
-- No constraint can fail with a row in its message.
SELECT conname FROM pg_constraint WHERE conrelid IN ('http_secrets'::regclass, 'http_secret_values'::regclass) AND contype NOT IN ('p', 'n');

-- What a dropped role leaves is nobody's.
CREATE ROLE regress_gone;
SELECT grant_job_role('regress_gone', 'operator');
SET ROLE regress_gone;
SELECT set_secret('orphan', 'canary');
RESET ROLE;
DROP OWNED BY regress_gone;
DROP ROLE regress_gone;
SELECT secret_problem('orphan', 'regress_anna');
SET ROLE regress_anna;
SELECT regress_error($$SELECT set_secret('orphan', 'mine')$$) LIKE '42501 %' AS refused;
RESET ROLE;
UPDATE http_secrets SET owner = NULL WHERE name = 'orphan';
SET ROLE regress_anna;
SELECT regress_error($$SELECT set_secret('orphan', 'mine')$$) LIKE '42501 %' AS refused;
RESET ROLE;
SELECT drop_secret('orphan'), drop_secret('orphan') AS again;

-- What is set is used in the same transaction, and no longer after a rollback.
BEGIN;
SELECT set_secret('fleeting', 'canary');
SELECT secret_problem('fleeting');
ROLLBACK;
SELECT secret_problem('fleeting');
BEGIN;
SELECT drop_secret('token');
SELECT secret_problem('token');
ROLLBACK;
SELECT secret_problem('token');
BEGIN;
SELECT set_secret('fleeting', 'canary');
SAVEPOINT s;
SELECT drop_secret('fleeting');
SELECT secret_problem('fleeting');
ROLLBACK TO s;
SELECT secret_problem('fleeting');
ROLLBACK;
-- A value without its row, or the other way round, is none.
DELETE FROM http_secret_values WHERE name = 'token';
SELECT secret_problem('token');
SELECT set_secret('token', 'again');
SELECT secret_problem('token');
TRUNCATE http_secrets, http_secret_values;
SELECT secret_problem('token');

-- Where the settings put the statement into the log, it says so.
SET client_min_messages = warning;
\set VERBOSITY default
SET log_statement = 'all';
SELECT set_secret('token', 'canary');
RESET log_statement;
SET log_min_duration_statement = 0;
SELECT set_secret('token', 'canary');
RESET log_min_duration_statement;
\set VERBOSITY terse
SET log_min_duration_sample = 0;
SELECT set_secret('token', 'canary');
SET log_statement_sample_rate = 0;
SELECT set_secret('token', 'canary');
RESET log_min_duration_sample;
RESET log_statement_sample_rate;
SET log_transaction_sample_rate = 1;
SELECT set_secret('token', 'canary');
RESET log_transaction_sample_rate;
SET debug_print_parse = on;
SELECT set_secret('token', 'canary');
RESET debug_print_parse;
SET log_min_error_statement = debug5;
SELECT set_secret('token', 'canary');
SET log_min_messages = debug5;
SELECT set_secret('token', 'canary');
RESET log_min_messages;
RESET log_min_error_statement;
LOAD 'auto_explain';
SELECT set_secret('token', 'canary');
SET auto_explain.log_min_duration = '1h';
SELECT set_secret('token', 'canary');
RESET auto_explain.log_min_duration;

-- While it runs, and afterwards, the session does not show what it was given.
DO $$
BEGIN
	PERFORM set_secret('token', 'canary');
	RAISE WARNING '%', (SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid());
END
$$;

SELECT drop_secret('token');
DROP VIEW regress_values;
DROP FUNCTION regress_error;
DROP OWNED BY regress_sales, regress_anna, regress_bert, regress_reader;
DROP ROLE regress_anna, regress_sales, regress_bert, regress_reader;
