--
-- What is known of HTTP endpoints, and tests of them, where no worker runs: the
-- counters and tests that a dispatcher serves are in test/t/102_endpoint_status.pl.
--
\set SHOW_CONTEXT never
CREATE ROLE regress_operator;
CREATE ROLE regress_observer;
CREATE ROLE regress_owner;
SELECT grant_job_role('regress_operator', 'operator'), grant_job_role('regress_observer', 'observer');
GRANT regress_owner TO regress_operator;

-- Every endpoint has a row, one that was never used, too.
INSERT INTO http_endpoints (name, owner, url, headers, max_concurrency)
	VALUES ('crm', 'regress_owner', 'https://crm.example/{{secret.crm_path}}', '{"x-key": "{{secret.crm}}"}', 3);
INSERT INTO http_endpoints (name, url, enabled) VALUES ('postgres only', 'https://192.0.2.1/', false);
\x
SELECT * FROM endpoint_status ORDER BY name;
\x
-- Nothing of the request is among the columns.
SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'endpoint_status'::regclass AND attnum > 0;
SELECT reset_endpoint_stats(), reset_endpoint_stats('crm'), reset_endpoint_stats('nobody');

-- Who may see it, reset it, and send tests.
SET ROLE regress_observer;
SELECT kind, name, owner, enabled, max_concurrency FROM endpoint_status ORDER BY name;
SELECT url FROM http_endpoints;
SELECT reset_endpoint_stats();
SELECT * FROM test_endpoint('crm');
SET ROLE regress_operator;
SELECT count(*) FROM endpoint_status;
SELECT reset_endpoint_stats();
SELECT * FROM test_endpoint('postgres only');
RESET ROLE;
SET ROLE regress_owner;
SELECT * FROM endpoint_status;
SELECT * FROM test_endpoint('crm');
RESET ROLE;

-- What is wrong is told before anything is asked for.
SELECT * FROM test_endpoint(NULL);
SELECT * FROM test_endpoint('');
SELECT * FROM test_endpoint('nobody');
SELECT * FROM test_endpoint('crm', 'BREW');
SELECT * FROM test_endpoint('crm', 'post');
SELECT * FROM test_endpoint('crm', 'POST', to_jsonb(repeat('x', 8190)));
BEGIN;
UPDATE http_endpoints SET url = 'https://other.example/' WHERE name = 'crm';
SELECT * FROM test_endpoint('crm');
ROLLBACK;
BEGIN;
SAVEPOINT s;
INSERT INTO http_endpoints (name, url) VALUES ('new', 'https://new.example/');
RELEASE s;
SELECT * FROM test_endpoint('new');
ROLLBACK;

-- A role that was dropped leaves its endpoint to the owner of the tables.
CREATE ROLE regress_gone;
INSERT INTO http_endpoints (name, owner, url) VALUES ('left', 'regress_gone', 'https://left.example/');
SET session_replication_role = replica;
UPDATE http_endpoints SET owner = NULL WHERE name = 'left';
RESET session_replication_role;
SELECT name, owner FROM endpoint_status WHERE name = 'left';
DROP ROLE regress_gone;
SET ROLE regress_operator;
SELECT * FROM test_endpoint('left');
RESET ROLE;

-- No worker will come: it says why, at once.
SELECT * FROM test_endpoint('crm');
SELECT * FROM test_endpoint('crm', NULL, '{"a": 1}');
BEGIN READ ONLY;
SELECT * FROM test_endpoint('crm', 'POST', to_jsonb(repeat('x', 8189)));
ROLLBACK;
SELECT pause_workers('for the test');
SELECT * FROM test_endpoint('crm');
SELECT resume_workers();

DELETE FROM http_endpoints;
DROP OWNED BY regress_operator, regress_observer, regress_owner;
DROP ROLE regress_operator, regress_observer, regress_owner;
DELETE FROM database_identity;
