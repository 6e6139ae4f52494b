--
-- Events become jobs of whoever has subscribed
--
SET client_min_messages = warning;
\set SHOW_CONTEXT never
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM event_subscriptions;
DELETE FROM published_events;
ALTER SEQUENCE event_subscriptions_id_seq RESTART;
\set w1 '''11111111-0000-4000-8000-000000000001'''
CREATE ROLE regress_sales;
CREATE ROLE regress_anna IN ROLE regress_sales;
CREATE ROLE regress_bert;
CREATE ROLE regress_shop;
SELECT grant_job_role('regress_sales', 'operator'), grant_job_role('regress_bert', 'operator'), grant_job_role('regress_shop', 'producer');
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

-- Nobody listens: no job, and no error.
SELECT publish_event('order.paid', '{"id": 1}');

-- Exact, below a prefix, all; one subscription each, whoever asks again.
SET ROLE regress_sales;
SELECT subscribe_event('order.paid', 'invoice') AS paid, subscribe_event('order.*', 'audit') AS below, subscribe_event('*', job_type => 'firehose') AS "all";
RESET ROLE;
SET ROLE regress_anna;
SELECT subscribe_event('order.paid', 'invoice') AS again;
RESET ROLE;
SELECT id, event_type, job_type, owner, enabled FROM event_subscriptions ORDER BY id;

-- One event, one job for each, in the transaction of the business.
SET ROLE regress_shop;
BEGIN;
SELECT cardinality(publish_event('order.paid', '{"id": 1}', 'evt-1', 'tenant-1'));
RESET ROLE;
SELECT job_type, status, unique_key, correlation_id, group_key, owner FROM jobs_queue ORDER BY id;
SELECT DISTINCT payload - 'timestamp' AS payload, (payload->>'timestamp')::timestamptz = now() AS now, payload->>'timestamp' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00$' AS utc FROM jobs_queue;
ROLLBACK;
RESET ROLE;
SELECT count(*) FROM jobs_queue;

-- What matches what.
SELECT subscribe_event('a.b.*', 'ab'), subscribe_event('a.*', 'a'), subscribe_event('a.b.c', 'abc'), subscribe_event('a', 'just_a');
CREATE FUNCTION regress_jobs(ids bigint[]) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(q.job_type, ' ' ORDER BY i.n) FROM unnest(ids) WITH ORDINALITY AS i (id, n) JOIN jobs_queue q USING (id) $$;
SELECT t AS event_type, regress_jobs(publish_event(t)) AS jobs
FROM unnest('{a,a.b,a.b.c,a.b.c.d,a.bc.d,ab,A.b,order,order.paid,order.paid.late,orders.paid,x-1_Y}'::text[]) WITH ORDINALITY AS u (t, n) ORDER BY n;
DELETE FROM event_subscriptions WHERE job_type IN ('ab', 'a', 'abc', 'just_a');

-- Two patterns with the same job type: one job, of the owner of the older one.
SELECT subscribe_event('order.paid', 'audit');
SELECT regress_jobs(publish_event('order.paid'));
SELECT DISTINCT owner FROM jobs_queue WHERE job_type = 'audit';
DELETE FROM event_subscriptions WHERE (event_type, job_type) = ('order.paid', 'audit');

-- An event with the same key is enqueued once, as long as there is something left of it.
DELETE FROM jobs_queue;
SELECT publish_event('order.paid', '1', 'k') = publish_event('order.paid', '2', 'k') AS same;
SELECT job_type, payload->'data' AS data FROM jobs_queue ORDER BY id;
SELECT complete_job((SELECT min(id) FROM jobs_queue));
SELECT cardinality(publish_event('order.paid', '3', 'k'));
SELECT job_type, status, payload->'data' AS data FROM jobs_queue ORDER BY id;

-- Without one, each call is an event of its own. All that is JSON is data.
DELETE FROM jobs_queue;
SELECT n, regress_jobs(publish_event('invoice.sent', p)) AS jobs
FROM unnest('{"{}",null,"null","7","\"text\"","[1, [2]]","{\"a\": {\"b\": [true]}}"}'::jsonb[]) WITH ORDINALITY AS u (p, n) ORDER BY n;
SELECT payload->'data' AS data, payload->'key' AS key, payload->'tenant_id' AS tenant_id FROM jobs_queue ORDER BY id;

-- The ids are what others can wait for.
DELETE FROM jobs_queue;
SELECT enqueue_job('report', depends_on => publish_event('order.paid')) > 0 AS ok;
SELECT job_type, status, waiting_for FROM jobs_queue ORDER BY id;
-- from a trigger, as an outbox
CREATE TABLE regress_orders (id int PRIMARY KEY, total int);
CREATE FUNCTION regress_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM publish_event('order.' || lower(TG_OP), to_jsonb(NEW), format('order-%s-%s', NEW.id, NEW.total));
	RETURN NULL;
END
$$;
CREATE TRIGGER outbox AFTER INSERT OR UPDATE ON regress_orders FOR EACH ROW EXECUTE FUNCTION regress_outbox();
DELETE FROM jobs_queue;
INSERT INTO regress_orders VALUES (1, 10), (2, 20);
UPDATE regress_orders SET total = 11 WHERE id = 1;
SELECT job_type, payload->>'type' AS type, payload->'data' AS data, unique_key FROM jobs_queue WHERE job_type = 'audit' ORDER BY id;
DROP TABLE regress_orders;
DROP FUNCTION regress_outbox;

-- The jobs are jobs like others, on both paths of claims.
SET jobqueue.debug_claim_path = 'memory';
SELECT job_type, payload->>'type' AS type FROM claim_next_job(:w1, 'audit');
SET jobqueue.debug_claim_path = 'sql';
SELECT job_type, payload->>'type' AS type FROM claim_next_job(:w1, 'audit');
SELECT cardinality(publish_event('order.refunded')) AS by_sql;
SELECT job_type, payload->>'type' AS type FROM claim_next_job(:w1, 'firehose');
RESET jobqueue.debug_claim_path;
DELETE FROM jobs_queue;

-- Subscriptions that are disabled, deleted, or not to be: at once, and not after a rollback.
UPDATE event_subscriptions SET enabled = false WHERE job_type = 'audit';
SELECT regress_jobs(publish_event('order.paid'));
BEGIN;
SELECT subscribe_event('order.*', 'audit') = (SELECT id FROM event_subscriptions WHERE job_type = 'audit') AS same;
SELECT regress_jobs(publish_event('order.paid'));
ROLLBACK;
SELECT regress_jobs(publish_event('order.paid'));
SELECT unsubscribe_event('*', 'firehose'), unsubscribe_event('*', 'firehose') AS again, unsubscribe_event('order.paid', 'audit') AS never;
SELECT regress_jobs(publish_event('order.paid'));
TRUNCATE event_subscriptions;
SELECT publish_event('order.paid');

-- Whose they are.
SET ROLE regress_sales;
SELECT subscribe_event('order.paid', 'invoice') > 0 AS ok;
SET ROLE regress_bert;
SELECT regress_error(s) FROM unnest(ARRAY[
	$$SELECT subscribe_event('order.paid', 'invoice')$$, $$SELECT unsubscribe_event('order.paid', 'invoice')$$,
	$$UPDATE event_subscriptions SET event_type = '*'$$, $$SELECT publish_event('order.paid')$$]) WITH ORDINALITY AS u (s, n) ORDER BY n;
SET ROLE regress_shop;
SELECT regress_error(s) FROM unnest(ARRAY[
	$$SELECT subscribe_event('order.paid', 'mine')$$, $$SELECT unsubscribe_event('order.paid', 'invoice')$$,
	$$SELECT count(*) FROM event_subscriptions$$]) WITH ORDINALITY AS u (s, n) ORDER BY n;
RESET ROLE;
-- Nobody's subscription makes no jobs; the owner of the tables may take it over.
UPDATE event_subscriptions SET owner = NULL;	-- is the caller's
SELECT owner = current_user::regrole AS ok FROM event_subscriptions;
SET session_replication_role = replica;
UPDATE event_subscriptions SET owner = NULL;
RESET session_replication_role;
SELECT publish_event('order.paid');
SET ROLE regress_sales;
SELECT regress_error($$SELECT subscribe_event('order.paid', 'invoice')$$);
RESET ROLE;
SELECT subscribe_event('order.paid', 'invoice') > 0 AS ok;
SELECT cardinality(publish_event('order.paid'));
-- a role that is gone, before anybody has noticed
CREATE ROLE regress_gone;
INSERT INTO event_subscriptions (event_type, job_type, owner) VALUES ('left', 'mail', 'regress_gone');
SELECT cardinality(publish_event('left'));
DELETE FROM jobs_queue;
DROP ROLE regress_gone;
SELECT cardinality(publish_event('left'));
DELETE FROM event_subscriptions;

-- Endpoints.
INSERT INTO http_endpoints (name, url, owner) VALUES ('crm', 'https://crm.example/hook', 'regress_sales');
SET ROLE regress_bert;
SELECT regress_error(s) FROM unnest(ARRAY[
	$$SELECT subscribe_event('order.paid', endpoint => 'crm')$$, $$SELECT subscribe_event('order.paid', endpoint => 'nowhere')$$,
	$$SELECT subscribe_event('order.paid', endpoint => '')$$, $$SELECT subscribe_event('order.paid', endpoint => repeat('x', 248))$$,
	$$SELECT subscribe_event('order..paid', endpoint => 'nowhere')$$]) WITH ORDINALITY AS u (s, n) ORDER BY n;
RESET ROLE;
SELECT unsubscribe_event('order.paid', endpoint => 'crm');
-- a job type of that name that is something else
INSERT INTO job_types (job_type) VALUES ('webhook:crm');
SELECT regress_error($$SELECT subscribe_event('order.paid', endpoint => 'crm')$$);
DELETE FROM job_types WHERE job_type = 'webhook:crm';
-- what a member of the owner gets: a job type for the endpoint
SET ROLE regress_anna;
SELECT subscribe_event('order.*', endpoint => 'crm') = subscribe_event('order.*', endpoint => 'crm') AS same, subscribe_event('refund', endpoint => 'crm') > 0 AS ok;
RESET ROLE;
SELECT job_type, runner, endpoint, owner FROM job_types WHERE endpoint = 'crm';
SELECT event_type, job_type, owner FROM event_subscriptions ORDER BY id;
SELECT cardinality(publish_event('order.paid', '{"id": 7}', 'evt-7'));
SELECT job_type, owner, payload - 'timestamp' AS payload FROM jobs_queue ORDER BY id;
SET ROLE regress_bert;
SELECT regress_error($$SELECT unsubscribe_event('refund', endpoint => 'crm')$$);
SET ROLE regress_anna;
SELECT unsubscribe_event('refund', endpoint => 'crm'), unsubscribe_event('order.*', 'webhook:crm'), unsubscribe_event('refund', endpoint => 'crm') AS again;
RESET ROLE;
SELECT count(*) FROM event_subscriptions;
DELETE FROM jobs_queue;
DELETE FROM job_types WHERE job_type = 'webhook:crm';
DELETE FROM http_endpoints WHERE name = 'crm';

-- Wrong input.
SELECT regress_error(s) FROM unnest(ARRAY[
	$$SELECT publish_event(NULL)$$, $$SELECT publish_event('')$$, $$SELECT publish_event('a b')$$, $$SELECT publish_event('.a')$$,
	$$SELECT publish_event('a.')$$, $$SELECT publish_event('a..b')$$, $$SELECT publish_event('a.*')$$, $$SELECT publish_event('*')$$,
	$$SELECT publish_event('ä')$$, $$SELECT publish_event(E'a\tb')$$, $$SELECT publish_event(repeat('a', 256))$$,
	$$SELECT publish_event('a', event_key => '')$$, $$SELECT publish_event('a', event_key => repeat('k', 513))$$,
	$$SELECT publish_event('a', tenant_id => E'\n')$$, $$SELECT publish_event('a', to_jsonb(repeat('x', 1048577)))$$,
	$$SELECT publish_event('a', (repeat('[', 101) || repeat(']', 101))::jsonb)$$,
	$$SELECT subscribe_event(NULL, 'x')$$, $$SELECT subscribe_event('a')$$, $$SELECT subscribe_event('a', 'x', 'y')$$,
	$$SELECT subscribe_event('a.*.b', 'x')$$, $$SELECT subscribe_event('a*', 'x')$$, $$SELECT subscribe_event('.*', 'x')$$, $$SELECT subscribe_event('**', 'x')$$,
	$$SELECT subscribe_event('*.a', 'x')$$, $$SELECT subscribe_event('a', '')$$, $$SELECT subscribe_event('a', 'sql')$$, $$SELECT subscribe_event('a', 'http')$$,
	$$SELECT unsubscribe_event('a')$$, $$SELECT unsubscribe_event('a.**', 'x')$$,
	$$INSERT INTO event_subscriptions (event_type, job_type) VALUES ('a b', 'x')$$, $$INSERT INTO event_subscriptions (event_type, job_type) VALUES ('a', 'sql')$$,
	$$INSERT INTO event_subscriptions (event_type, job_type) VALUES ('a', '')$$]) WITH ORDINALITY AS u (s, n) ORDER BY n;
SELECT count(*) FROM event_subscriptions;
SELECT cardinality(publish_event(repeat('a', 255))), cardinality(publish_event(trim('.' FROM repeat('a.', 128))));
BEGIN READ ONLY;
SELECT publish_event('a');
ROLLBACK;

-- Replay: what was published before there was a subscription, once.
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM event_subscriptions;
TRUNCATE published_events RESTART IDENTITY;
SELECT subscribe_event('order.*', 'early') > 0 AS ok;
SELECT publish_event(t, to_jsonb(n), k, 'tenant') IS NOT NULL AS ok
FROM (VALUES (1, 'order.paid', 'k1'), (2, 'order.paid', NULL), (3, 'order', 'k3'), (4, 'order.paid.late', NULL), (5, 'invoice', 'k5'), (6, 'order.paid', 'k1')) AS e (n, t, k) ORDER BY n;
SELECT id, event_type, event_key, tenant_id, payload, job_types FROM published_events ORDER BY id;
SELECT subscribe_event('order.*', 'late') > 0 AS ok;
SELECT replay_events('order.paid', 'late', max_events => 1), replay_events('order.paid', 'late', max_events => 0);
SELECT replay_events(job_type => 'late'), replay_events(job_type => 'late') AS again, replay_events(job_type => 'early') AS has_them;
SELECT l.payload->>'type' AS type, l.payload->'data' AS data, l.unique_key, l.group_key, l.correlation_id, l.payload = e.payload AS same_payload
FROM jobs_queue l LEFT JOIN jobs_queue e ON e.job_type = 'early' AND e.payload->'data' = l.payload->'data' WHERE l.job_type = 'late' ORDER BY l.id;
-- and not again, when the jobs have gone
DELETE FROM jobs_queue;
DELETE FROM job_runs;
SELECT replay_events(job_type => 'late');
-- by pattern and time; "since" is included, "until" is not
UPDATE published_events SET published_at = timestamptz '2026-01-01 00:00:00+00' + id * interval '1 day';
SELECT subscribe_event('*', 'third') > 0 AS ok;
SELECT replay_events('order.*', 'third', since => '2026-01-03 00:00:00+00', until => '2026-01-05 00:00:00+00');
SELECT replay_events('*', 'third', until => '2026-01-01 00:00:00+00') AS none, replay_events('order', 'third') AS exact, replay_events('*', 'third') AS rest;
SELECT payload->>'type' AS type, payload->>'timestamp' AS timestamp, payload->'data' AS data FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
-- an event that is published again comes to whoever has subscribed meanwhile, and is not replayed to them
SELECT subscribe_event('invoice', 'fourth') > 0 AS ok;
SELECT regress_jobs(publish_event('invoice', '7', 'k5')) AS jobs;
SELECT replay_events('*', 'fourth'), (SELECT job_types FROM published_events WHERE event_key = 'k5') AS job_types;
-- two subscriptions of a job type: one job, of the owner of the older one that matches
SELECT publish_event('a.b', '8') = '{}' AS nobody FROM (SELECT unsubscribe_event('*', 'third')) AS u;
SET ROLE regress_sales;
SELECT subscribe_event('a.*', 'fifth') > 0 AS ok;
RESET ROLE;
SELECT subscribe_event('a.b', 'fifth') > 0 AS ok;
SELECT replay_events(job_type => 'fifth');
SELECT owner FROM jobs_queue WHERE job_type = 'fifth';
-- a rollback
BEGIN;
SELECT subscribe_event('a.*', 'sixth') > 0 AS ok, replay_events(job_type => 'sixth');
ROLLBACK;
SELECT regress_error($$SELECT replay_events(job_type => 'sixth')$$);
BEGIN;
SELECT subscribe_event('a.*', 'sixth') > 0 AS ok;
SELECT replay_events(job_type => 'sixth');
COMMIT;
SELECT replay_events(job_type => 'sixth');
-- of an endpoint
INSERT INTO http_endpoints (name, url, owner) VALUES ('crm', 'https://crm.example/hook', 'regress_sales');
SELECT subscribe_event('a.b', endpoint => 'crm') > 0 AS ok;
SELECT replay_events(endpoint => 'crm');
SELECT owner, payload->'data' AS data FROM jobs_queue WHERE job_type = 'webhook:crm';
DELETE FROM event_subscriptions WHERE job_type = 'webhook:crm';
DELETE FROM jobs_queue WHERE job_type = 'webhook:crm';
DELETE FROM job_types WHERE job_type = 'webhook:crm';
DELETE FROM http_endpoints WHERE name = 'crm';
-- who may, and wrong input
SET ROLE regress_bert;
SELECT regress_error($$SELECT replay_events(job_type => 'fifth')$$);
SET ROLE regress_shop;
SELECT regress_error($$SELECT replay_events(job_type => 'fifth')$$);
RESET ROLE;
SELECT regress_error(s) FROM unnest(ARRAY[
	$$SELECT replay_events()$$, $$SELECT replay_events(NULL, 'late')$$, $$SELECT replay_events('a..b', 'late')$$, $$SELECT replay_events('*', 'late', 'crm')$$,
	$$SELECT replay_events('*', 'nobody')$$, $$SELECT replay_events('*', '')$$, $$SELECT replay_events('*', 'late', max_events => -1)$$]) WITH ORDINALITY AS u (s, n) ORDER BY n;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT replay_events(job_type => 'late');
ROLLBACK;
BEGIN READ ONLY;
SELECT replay_events(job_type => 'late');
ROLLBACK;
DELETE FROM event_subscriptions;
TRUNCATE published_events RESTART IDENTITY;

DELETE FROM jobs_queue;
-- what lanes still remember of them is not for the next test
SELECT count(*) FROM claim_jobs(:w1, '{audit,firehose,invoice,mail}', 10);
DROP FUNCTION regress_error, regress_jobs;
DROP OWNED BY regress_sales, regress_anna, regress_bert, regress_shop;
DROP ROLE regress_anna, regress_sales, regress_bert, regress_shop;
