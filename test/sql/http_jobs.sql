--
-- HTTP jobs before they are sent, which no worker does here: calls and their
-- payloads, endpoints, job types, and who may do what
--
SET client_min_messages = warning;
\set SHOW_CONTEXT never
DELETE FROM jobs_queue;
DELETE FROM job_runs;
\set w1 '''11111111-0000-4000-8000-000000000001'''
CREATE ROLE regress_sales;
CREATE ROLE regress_anna IN ROLE regress_sales;
CREATE ROLE regress_bert;
CREATE ROLE regress_shop;
CREATE ROLE regress_looker;
SELECT grant_job_role('regress_sales', 'operator'), grant_job_role('regress_bert', 'operator'),
	grant_job_role('regress_shop', 'producer'), grant_job_role('regress_looker', 'observer');
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
	RETURN concat_ws(' | ', SQLSTATE, message, CASE WHEN SQLSTATE <> '23502' THEN nullif(detail, '') END, nullif(hint, ''));
END
$$;
INSERT INTO http_endpoints (name, owner, url) VALUES ('crm', 'regress_sales', 'https://crm.example/hook');
INSERT INTO http_endpoints (name, owner, url, method) VALUES ('feed', 'regress_sales', 'https://crm.example/feed', 'GET');
INSERT INTO http_endpoints (name, owner, url, body_type) VALUES ('form', 'regress_sales', 'https://crm.example/form', 'form');

-- Calls: what they put into the queue.
SELECT enqueue_http('https://a.example/x?y=z') AS id \gset
SELECT job_type, status, payload, timeout, priority, max_attempts, owner = current_user::regrole AS own FROM jobs_queue WHERE id = :id;
SELECT enqueue_http('https://a.example/', '{"a": [1, null]}', 'PUT', '{"X-A": "b"}', '5 s', 'json', now() + interval '1 day', 3, 7, 'key', 'skip', 'group', 'corr', NULL, '{t}', '{"m": 1}') AS id \gset
SELECT payload, timeout, scheduled_at > now() AS later, priority, max_attempts, unique_key, group_key, correlation_id, tags, metadata FROM jobs_queue WHERE id = :id;
SELECT enqueue_http('https://a.example/', unique_key => 'key') = :id AS same_key;
SELECT enqueue_http('crm', '{"a": 1}') AS id \gset
SELECT payload FROM jobs_queue WHERE id = :id;
SELECT enqueue_http('crm', depends_on => ARRAY[:id]) AS id \gset
SELECT status, waiting_for FROM jobs_queue WHERE id = :id;
DELETE FROM jobs_queue;
SELECT count(*) FROM unnest(ARRAY[
	enqueue_http('https://a.example/', '"text"', body_type => 'text'), enqueue_http('https://a.example/', '{"a": "b"}', body_type => 'form'),
	enqueue_http('https://a.example/', '"AAEC"', body_type => 'binary'), enqueue_http('https://a.example/', 'null'),
	enqueue_http('https://a.example/', method => 'DELETE'), enqueue_http('https://a.example/', '17', 'DELETE'),
	enqueue_http('https://a.example/', method => 'GET', headers => '{"Authorization": "Bearer {{secret.any}}"}'),
	enqueue_http('feed'), enqueue_http('feed', '{}', 'POST'), enqueue_http('form', '{"a": 1}'),
	enqueue_http('https://a.example/{{payload.a}}', '"{{payload.b}}"')]) ;
SELECT payload FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;

-- What is wrong with a call.
SELECT regress_error(s) FROM unnest(ARRAY[
	$$SELECT enqueue_http(NULL)$$, $$SELECT enqueue_http('')$$, $$SELECT enqueue_http('nowhere')$$, $$SELECT enqueue_http('a.example/x')$$,
	$$SELECT enqueue_http('ftp://a.example/')$$, $$SELECT enqueue_http('http://')$$, $$SELECT enqueue_http('http://u:p@a.example/')$$,
	$$SELECT enqueue_http('http://a.example/ b')$$, $$SELECT enqueue_http('http://a.example/' || repeat('x', 9000))$$,
	$$SELECT enqueue_http('http://127.0.0.1/')$$, $$SELECT enqueue_http('http://localhost/')$$, $$SELECT enqueue_http('http://169.254.169.254/latest')$$,
	$$SELECT enqueue_http('http://a.example:8080/')$$,
	$$SELECT enqueue_http('https://a.example/', method => 'get')$$, $$SELECT enqueue_http('https://a.example/', method => 'TRACE')$$,
	$$SELECT enqueue_http('https://a.example/', method => '')$$,
	$$SELECT enqueue_http('https://a.example/', '{}', 'GET')$$, $$SELECT enqueue_http('https://a.example/', '{}', 'HEAD')$$, $$SELECT enqueue_http('feed', '{}')$$,
	$$SELECT enqueue_http('https://a.example/', '[1]', body_type => 'form')$$, $$SELECT enqueue_http('https://a.example/', '{}', body_type => 'text')$$,
	$$SELECT enqueue_http('https://a.example/', '1', body_type => 'binary')$$, $$SELECT enqueue_http('form', '"a"')$$,
	$$SELECT enqueue_http('https://a.example/', '{}', body_type => 'xml')$$, $$SELECT enqueue_http('https://a.example/', '"%"', body_type => 'binary')$$,
	$$SELECT enqueue_http('https://a.example/', '{"a": {"b": 1}}', body_type => 'form')$$,
	$$SELECT enqueue_http('https://a.example/', timeout => '0')$$, $$SELECT enqueue_http('https://a.example/', timeout => '2 days')$$, $$SELECT enqueue_http('https://a.example/', timeout => '-1 s')$$,
	$$SELECT enqueue_http('https://a.example/', max_attempts => 0)$$, $$SELECT enqueue_http('https://a.example/', unique_mode => 'sometimes')$$]) WITH ORDINALITY AS u (s, n) ORDER BY n;

-- Headers of a call.
SELECT h, regress_error(format('SELECT enqueue_http(%L, headers => %L)', 'https://a.example/', h)) FROM unnest(ARRAY[
	'{}', '{"X-A": ""}', '[]', '"X-A: b"', '{"X-A": 1}', '{"X-A": null}', '{"X-A": ["b"]}', '{"": "b"}', '{"X A": "b"}', '{"X-A:": "b"}', '{"X-Ä": "b"}',
	'{"X-A": "b\r\nX-C: d"}', '{"X-A": "b\u0001"}', '{"X-A": "ä"}', '{"X-A": "b", "x-a": "c"}',
	'{"Host": "b"}', '{"content-length": "1"}', '{"Transfer-Encoding": "chunked"}', '{"Connection": "close"}', '{"Upgrade": "h2c"}', '{"Expect": "100-continue"}',
	'{"TE": "trailers"}', '{"Trailer": "X"}', '{"Keep-Alive": "1"}', '{"Proxy-Authorization": "Basic x"}', '{"Webhook-Signature": "v1,x"}',
	'{"Content-Type": "text/xml", "User-Agent": "x", "Idempotency-Key": "k", "Accept": "*/*", "Cookie": "a=b"}',
	'{"X-A": "{{payload.a}}"}', '{"X-A": "{{job.id}}"}', '{"X-A": "{{items}}"}', '{"X-A": "{{nothing}}"}', '{"X-A": "{{secret.}}"}', '{"X-A": "{{secret.a"}']::jsonb[]) WITH ORDINALITY AS u (h, n) ORDER BY n;
SELECT regress_error(format('SELECT enqueue_http(%L, headers => %L)', 'https://a.example/', (SELECT jsonb_object_agg('x-' || n, 'v') FROM generate_series(1, 64) n))) AS "64",
	regress_error(format('SELECT enqueue_http(%L, headers => %L)', 'https://a.example/', (SELECT jsonb_object_agg('x-' || n, 'v') FROM generate_series(1, 65) n))) AS "65",
	regress_error(format('SELECT enqueue_http(%L, headers => %L)', 'https://a.example/', jsonb_build_object('x', repeat('v', 17000)))) AS large;
SELECT count(*) FROM jobs_queue WHERE payload ? 'headers';
DELETE FROM jobs_queue;

-- The same through the table.
INSERT INTO jobs_queue (job_type, payload) VALUES ('http', '{"url": "https://a.example/"}'), ('http', '{"endpoint": "crm", "body": {"a": 1}}'), ('http', '{"url": "https://a.example/", "body": null, "method": null, "headers": null}');
SELECT payload FROM jobs_queue ORDER BY id;
SELECT p, regress_error(format('INSERT INTO jobs_queue (job_type, payload) VALUES (%L, %L)', 'http', p)) FROM unnest(ARRAY[
	'{}', '[]', '"https://a.example/"', 'null', '{"url": 1}', '{"url": "https://a.example/", "endpoint": "crm"}', '{"endpoint": ""}', '{"endpoint": ["crm"]}',
	'{"url": "https://a.example/", "timeout": "1 s"}', '{"url": "https://a.example/", "Method": "GET"}',
	'{"url": "https://a.example/", "method": 1}', '{"url": "https://a.example/", "endpoint": 1}', '{"url": "https://a.example/", "body_type": true}', '{"url": "https://a.example/", "headers": "a: b"}',
	'{"url": "https://a.example/", "method": "GET", "body": {}}', '{"url": "http://10.0.0.1/"}', '{"endpoint": "nowhere"}']::jsonb[]) WITH ORDINALITY AS u (p, n) ORDER BY n;
SELECT regress_error($$SELECT enqueue_job('http', '{"url": "nowhere"}')$$), regress_error($$SELECT enqueue_jobs('http', ARRAY['{"url": "https://a.example/"}', '{}']::jsonb[])$$),
	regress_error($$UPDATE jobs_queue SET payload = '{"url": "http://[::1]/"}'$$);
SELECT count(*) FROM jobs_queue;
DELETE FROM jobs_queue;

-- Endpoints.
SELECT name, owner, url, method, headers, body, body_type, batch_body, batch_results, signing_secret, client_certificate, http_version, timeout, connect_timeout,
	low_speed_limit, low_speed_time, max_concurrency, max_response_size, max_redirects, enabled FROM http_endpoints WHERE name = 'crm' \gx
INSERT INTO http_endpoints (name, url, method, headers, body, body_type, batch_body, batch_results, http_version, timeout, connect_timeout, low_speed_limit, low_speed_time, max_concurrency, max_response_size, max_redirects)
	VALUES ('all', 'https://a.example/{{payload.a.b.0}}/{{job.id}}?k={{secret.k}}', 'PATCH', '{"X-A": "{{payload}} {{job.attempt}} {{secret.k}}"}',
	'{"a": "{{payload.a}}", "b": ["{{job.type}}{{job.stage}}{{job.claim_no}}{{job.idempotency_key}}{{job.correlation_id}}{{job.created_at}}{{job.scheduled_at}}{{job.group_key}}", 1, null]}',
	'json', '{"all": "{{items}}"}', 'results', '2', '1 day', '1 ms', 1, '1 hour', 10000, 16777216, 10),
	('secret url', '{{secret.url}}', 'POST', '{}', NULL, 'text', NULL, NULL, '1.1', '1 ms', NULL, NULL, NULL, 1, 0, 0);
SELECT c, regress_error(format('INSERT INTO http_endpoints (name, url, %1$s) VALUES (%2$L, %3$L, %4$L)', split_part(c, '=', 1), 'x ' || n, 'https://a.example/', substr(c, strpos(c, '=') + 1))) FROM unnest(ARRAY[
	'method=get', 'method=CONNECT', 'headers=[]', 'headers={"Host": "x"}', 'headers={"X": "{{items}}"}', 'headers={"X": "{{secret}}"}', 'headers={"X": "a\nb"}',
	'body="{{secret.a}}"', 'body={"a": "{{items}}"}', 'body={"a": "{{job.nothing}}"}', 'body="{{payload..a}}"', 'body="{{payload.a"', 'body="{{ payload.a }}"', 'body={"{{not.a.placeholder}}": "{ {a} }"}',
	'body_type=xml', 'batch_body={"a": 1}', 'batch_body="{{payload.a}}"', 'batch_body="{{items}}"', 'batch_results=', 'http_version=3', 'http_version=', 'tls_ca=none',
	'timeout=0', 'timeout=25 hours', 'timeout=1 month', 'connect_timeout=-1 s', 'low_speed_time=2 hours', 'low_speed_limit=0', 'max_concurrency=0', 'max_concurrency=10001',
	'max_response_size=-1', 'max_response_size=16777217', 'max_redirects=-1', 'max_redirects=11', 'owner=regress_nobody']) WITH ORDINALITY AS u (c, n) ORDER BY n;
DELETE FROM http_endpoints WHERE name LIKE 'x %';
SELECT u, regress_error(format('INSERT INTO http_endpoints (name, url) VALUES (%L, %L)', 'x ' || n, u)) FROM unnest(ARRAY[
	NULL, '', 'crm', 'ftp://a.example/', 'https://{{payload.host}}/', 'https://a.example{{payload.path}}', 'https://{{secret.host}}/', '{{secret.url}}/x', '{{payload.url}}', 'https://a.example:{{payload.port}}/',
	'https://a.example/../x', 'https://a.example/%2e%2E/x', 'https://a.example/{{items}}', 'https://a.example/{{payload.a', 'https://a.example/{{job.secret}}', 'https://a.example?{{payload.q}}',
	'http://10.0.0.1/', 'https://a.example:9/']) WITH ORDINALITY AS t (u, n) ORDER BY n;
DELETE FROM http_endpoints WHERE name LIKE 'x %';
SELECT regress_error(s) FROM unnest(ARRAY[
	$$INSERT INTO http_endpoints (name, url) VALUES ('', 'https://a.example/')$$, $$INSERT INTO http_endpoints (name, url) VALUES (NULL, 'https://a.example/')$$,
	$$INSERT INTO http_endpoints (name, url) VALUES ('https://a', 'https://a.example/')$$, $$INSERT INTO http_endpoints (name, url) VALUES (repeat('x', 256), 'https://a.example/')$$,
	$$INSERT INTO http_endpoints (name, url) VALUES ('crm', 'https://a.example/')$$, $$INSERT INTO http_endpoints (name, url) VALUES (E'a\nb', 'https://a.example/')$$,
	$$INSERT INTO http_endpoints (name, url, method, body) VALUES ('x', 'https://a.example/', 'GET', '{}')$$,
	$$INSERT INTO http_endpoints (name, url, body_type, body) VALUES ('x', 'https://a.example/', 'form', '[]')$$,
	$$INSERT INTO http_endpoints (name, url, body_type, body) VALUES ('x', 'https://a.example/', 'text', '{}')$$,
	$$UPDATE http_endpoints SET method = 'GET' WHERE name = 'all'$$, $$UPDATE http_endpoints SET headers = NULL WHERE name = 'all'$$,
	$$UPDATE http_endpoints SET body_type = 'binary' WHERE name = 'all'$$, $$UPDATE http_endpoints SET timeout = '1 year' WHERE name = 'all'$$]) WITH ORDINALITY AS u (s, n) ORDER BY n;

-- Whose they are.
SET ROLE regress_bert;
INSERT INTO http_endpoints (name, url) VALUES ('bert', 'https://bert.example/');
SELECT s, regress_error(s) FROM unnest(ARRAY[
	$$UPDATE http_endpoints SET url = 'https://evil.example/' WHERE name = 'crm'$$, $$UPDATE http_endpoints SET headers = '{"X": "{{secret.crm}}"}' WHERE name = 'crm'$$,
	$$UPDATE http_endpoints SET body = '1' WHERE name = 'crm'$$, $$UPDATE http_endpoints SET batch_body = '"{{items}}"' WHERE name = 'crm'$$,
	$$UPDATE http_endpoints SET method = 'PUT' WHERE name = 'crm'$$, $$UPDATE http_endpoints SET body_type = 'text' WHERE name = 'crm'$$, $$UPDATE http_endpoints SET signing_secret = 'x' WHERE name = 'crm'$$,
	$$UPDATE http_endpoints SET client_certificate = 'x' WHERE name = 'crm'$$, $$UPDATE http_endpoints SET tls_ca = '-----BEGIN CERTIFICATE-----' WHERE name = 'crm'$$,
	$$UPDATE http_endpoints SET max_redirects = 3 WHERE name = 'crm'$$, $$UPDATE http_endpoints SET name = 'mine' WHERE name = 'crm'$$,
	$$UPDATE http_endpoints SET owner = 'regress_bert' WHERE name = 'crm'$$, $$UPDATE http_endpoints SET owner = 'regress_sales' WHERE name = 'bert'$$, $$DELETE FROM http_endpoints WHERE name = 'crm'$$,
	$$INSERT INTO http_endpoints (name, url, owner) VALUES ('x', 'https://a.example/', 'regress_sales')$$,
	$$INSERT INTO job_types (job_type, runner, endpoint) VALUES ('steal', 'http', 'crm')$$, $$SELECT enqueue_http('crm')$$]) WITH ORDINALITY AS u (s, n) ORDER BY n;
-- what does not change what is sent is for every operator
SELECT regress_error(s) FROM unnest(ARRAY[$$UPDATE http_endpoints SET enabled = false, timeout = '5 s', max_concurrency = 3, description = 'slow today' WHERE name = 'crm'$$]) s;
RESET ROLE;
SET ROLE regress_anna;
UPDATE http_endpoints SET url = 'https://crm.example/hook/2', enabled = true WHERE name = 'crm';
INSERT INTO http_endpoints (name, url, owner) VALUES ('annas', 'https://a.example/', 'regress_sales');
RESET ROLE;
SELECT name, owner, url, enabled, timeout FROM http_endpoints WHERE owner <> current_user::regrole ORDER BY name;

-- Job types.
SET ROLE regress_anna;
INSERT INTO job_types (job_type, runner, endpoint) VALUES ('order_paid', 'http', 'crm');
INSERT INTO job_types (job_type, runner, endpoint, batch_size, max_linger) VALUES ('bulk', 'http', 'crm', 100, '250 ms');
RESET ROLE;
SELECT job_type, owner, runner, endpoint, batch_size, max_linger FROM job_types WHERE runner = 'http' ORDER BY job_type;
SELECT regress_error(s) FROM unnest(ARRAY[
	$$INSERT INTO job_types (job_type, runner) VALUES ('x', 'http')$$, $$INSERT INTO job_types (job_type, runner, endpoint) VALUES ('x', 'http', 'nowhere')$$,
	$$INSERT INTO job_types (job_type, endpoint) VALUES ('x', 'crm')$$, $$INSERT INTO job_types (job_type, runner, command, endpoint) VALUES ('x', 'sql', 'SELECT 1', 'crm')$$,
	$$INSERT INTO job_types (job_type, runner, command, endpoint) VALUES ('x', 'http', 'SELECT 1', 'crm')$$,
	$$INSERT INTO job_types (job_type, runner, endpoint) VALUES ('http', 'http', 'crm')$$, $$INSERT INTO job_types (job_type, runner) VALUES ('http', 'external')$$, $$INSERT INTO job_types (job_type) VALUES ('http')$$,
	$$INSERT INTO job_types (job_type, max_linger) VALUES ('x', '1 s')$$, $$INSERT INTO job_types (job_type, runner, endpoint, max_linger) VALUES ('x', 'http', 'crm', '-1 s')$$,
	$$INSERT INTO job_types (job_type, runner, endpoint, max_linger) VALUES ('x', 'http', 'crm', '2 hours')$$, $$INSERT INTO job_types (job_type, runner, endpoint, batch_size) VALUES ('x', 'http', 'crm', 1001)$$,
	$$INSERT INTO job_types (job_type, runner, endpoint, batch_size) VALUES ('x', 'http', 'crm', 0)$$, $$UPDATE job_types SET runner = 'external' WHERE job_type = 'bulk'$$,
	$$UPDATE job_types SET endpoint = NULL WHERE job_type = 'bulk'$$, $$UPDATE job_types SET owner = 'regress_bert' WHERE job_type = 'bulk'$$,
	$$DELETE FROM http_endpoints WHERE name = 'crm'$$, $$UPDATE http_endpoints SET name = 'crm2' WHERE name = 'crm'$$]) WITH ORDINALITY AS u (s, n) ORDER BY n;
SET ROLE regress_bert;
SELECT regress_error(s) FROM unnest(ARRAY[
	$$UPDATE job_types SET endpoint = 'bert' WHERE job_type = 'bulk'$$, $$UPDATE job_types SET owner = 'regress_bert' WHERE job_type = 'bulk'$$,
	$$DELETE FROM job_types WHERE job_type = 'bulk'$$]) WITH ORDINALITY AS u (s, n) ORDER BY n;
INSERT INTO job_types (job_type, runner, endpoint) VALUES ('berts', 'http', 'bert');
SELECT regress_error($$UPDATE job_types SET endpoint = 'crm' WHERE job_type = 'berts'$$);
RESET ROLE;

-- The built-in type can have a row, and be paused with and without one.
SELECT pause_job_type('http', 'no network');
SELECT job_type, runner, endpoint, enabled, pause_reason FROM job_types WHERE job_type = 'http';
SELECT resume_job_type('http');
UPDATE job_types SET max_attempts = 9 WHERE job_type = 'http';
SELECT enqueue_http('https://a.example/') AS id \gset
SELECT max_attempts FROM jobs_queue WHERE id = :id;
DELETE FROM job_types WHERE job_type = 'http';
INSERT INTO job_types (job_type, runner, max_attempts) VALUES ('http', 'http', 2);
SELECT enqueue_http('https://a.example/') AS id \gset
SELECT max_attempts FROM jobs_queue WHERE id = :id;
DELETE FROM job_types WHERE job_type = 'http';
DELETE FROM jobs_queue;

-- Nobody but the dispatcher takes them.
SELECT enqueue_http('https://a.example/') AS call, enqueue_job('order_paid') AS job, enqueue_job('mail') AS other \gset
SELECT regress_error(format('SELECT claim_jobs(%L, %L)', :w1, t)) FROM unnest('{"{http}","{mail,order_paid}"}'::text[]) t;
SELECT id = :other AS other FROM claim_jobs(:w1, '{mail}', 10);
SELECT regexp_replace(regress_error(format('SELECT run_job(%s)', id)), 'job \d+', 'job N') FROM unnest(ARRAY[:call, :job]) id;
SELECT enqueue_sql('SELECT 1') AS sql \gset
SELECT * FROM drain_jobs();
SELECT * FROM drain_jobs('{http,order_paid}');
SELECT job_type, status, attempts, claim_no FROM jobs_queue ORDER BY id;
SELECT count(*) FROM job_runs WHERE job_type IN ('http', 'order_paid');
SELECT complete_job(:call), cancel_job(:job);
SELECT regexp_replace(regress_error(format('SELECT run_job(%s)', :call)), 'job \d+', 'job N');
SELECT job_type, status FROM jobs_queue ORDER BY id;
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'job_runs'::regclass AND attname = 'response';
SELECT count(*) AS responses FROM job_runs WHERE response IS NOT NULL;

-- Who may do what. A producer calls, and sees nothing of where it goes.
SET ROLE regress_shop;
SELECT enqueue_http('https://a.example/', '{}') > 0 AS ok, enqueue_job('order_paid', '{}') > 0 AS job;
SELECT s, regress_error(s) FROM unnest(ARRAY[
	$$SELECT enqueue_http('crm')$$, $$INSERT INTO jobs_queue (job_type, payload) VALUES ('http', '{"endpoint": "crm"}')$$, $$SELECT * FROM http_endpoints$$, $$SELECT * FROM http_secrets$$, $$SELECT * FROM http_secret_values$$,
	$$SELECT * FROM secret_names$$, $$SELECT set_secret('a', 'b')$$, $$SELECT test_endpoint('crm')$$, $$UPDATE http_endpoints SET enabled = false$$,
	$$INSERT INTO http_endpoints (name, url) VALUES ('x', 'https://a.example/')$$, $$SELECT * FROM endpoint_status$$]) WITH ORDINALITY AS u (s, n) ORDER BY n;
RESET ROLE;
SET ROLE regress_looker;
SELECT s, regress_error(s) FROM unnest(ARRAY[
	$$SELECT enqueue_http('https://a.example/')$$, $$SELECT * FROM http_endpoints$$, $$SELECT * FROM http_secret_values$$, $$SELECT * FROM endpoint_status$$]) WITH ORDINALITY AS u (s, n) ORDER BY n;
RESET ROLE;
SELECT grant_job_role('regress_anna', 'producer');
SET ROLE regress_anna;
SELECT enqueue_http('crm', '{}') AS id \gset
SELECT owner FROM jobs_queue WHERE id = :id;
SELECT regress_error($$SELECT * FROM http_secret_values$$), regress_error($$SELECT * FROM http_secrets$$);
RESET ROLE;
-- nobody else, not even with a call
CREATE ROLE regress_nobody;
GRANT SELECT ON jobs_queue TO regress_nobody;
SET ROLE regress_nobody;
SELECT regress_error(s) FROM unnest(ARRAY[$$SELECT enqueue_http('https://a.example/')$$, $$SELECT http_check_url('https://a.example/')$$]) s;
RESET ROLE;

-- The rights are those of the moment of sending, too; of enqueueing they are here.
REVOKE regress_sales FROM regress_anna;
SET ROLE regress_anna;
SELECT regress_error($$SELECT enqueue_http('crm')$$);
RESET ROLE;

DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
DELETE FROM http_endpoints;
DROP FUNCTION regress_error;
DROP OWNED BY regress_sales, regress_anna, regress_bert, regress_shop, regress_looker, regress_nobody;
DROP ROLE regress_sales, regress_anna, regress_bert, regress_shop, regress_looker, regress_nobody;
DELETE FROM database_identity;
