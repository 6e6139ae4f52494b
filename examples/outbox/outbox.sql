-- A transactional outbox: events that commit with the data that they are about,
-- and handlers that get each of them, again after a failure, until it is done.
--
--   psql -d shop -v shopify_url=https://... -v alerts_url=https://... -f outbox.sql
--
-- Run it as a superuser; running it again changes what has changed. What it needs
-- from postgresql.conf is beside it; the marks (O1) are explained in ../README.md.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
\if :{?shopify_url} \else \set shopify_url 'https://shop.example.com/admin/products' \endif
\if :{?alerts_url} \else \set alerts_url 'https://hooks.slack.com/services/T00/B00/XXX' \endif

CREATE EXTENSION IF NOT EXISTS jobqueue;

-- ---------------------------------------------------------------------------
-- Roles: "shop" is the application and only publishes, "image_importer" is a
-- worker outside the server, and to "outbox" belongs all that follows
-- ---------------------------------------------------------------------------

SELECT format('CREATE ROLE %I LOGIN', r) FROM unnest('{outbox,shop,image_importer}'::text[]) r WHERE to_regrole(r) IS NULL \gexec
SELECT grant_job_role('outbox', r) FROM unnest('{producer,operator}'::text[]) r;
SELECT grant_job_role('shop', 'producer'), grant_job_role('image_importer', 'worker');
CREATE SCHEMA IF NOT EXISTS outbox AUTHORIZATION outbox;
SET ROLE outbox;
SET search_path = outbox, public;

-- ---------------------------------------------------------------------------
-- Handlers. An event handler is a job type, and it is one of three kinds
-- ---------------------------------------------------------------------------

-- A service that is called: Shopify.
INSERT INTO http_endpoints (name, url, timeout, max_concurrency) VALUES ('shopify', :'shopify_url', '10 seconds', 4)
ON CONFLICT (name) DO UPDATE SET (url, timeout, max_concurrency) = (EXCLUDED.url, EXCLUDED.timeout, EXCLUDED.max_concurrency);

-- SQL that the server runs: what it writes commits with the end of the job.
CREATE TABLE IF NOT EXISTS search_index (product_id bigint PRIMARY KEY, words tsvector NOT NULL);
CREATE OR REPLACE FUNCTION index_product(event jsonb) RETURNS void
	LANGUAGE sql
BEGIN ATOMIC
	INSERT INTO outbox.search_index
	SELECT (event->'data'->>'id')::bigint, to_tsvector('simple', event->'data'->>'title')
	ON CONFLICT (product_id) DO UPDATE SET words = EXCLUDED.words;
END;

-- And a worker outside, which claims "image-import" (O16).

-- All of them alike (O4 to O7): five attempts, one second before the second one and
-- twice as long before each further one, but at most a minute; then the dead letters.
-- A busy tenant does not keep the others waiting.
INSERT INTO job_types (job_type, runner, endpoint, command, description) VALUES
	('shopify-product', 'http', 'shopify', NULL, 'Tells Shopify of a product'),
	('search-index', 'sql', NULL, 'SELECT outbox.index_product($1)', 'Makes products searchable'),
	('image-import', 'external', NULL, NULL, 'Fetches the images of a product'),
	('event-log', 'sql', NULL, $$SELECT job_log('a synthetic event', data => $1)$$, 'Notes events that test the way')
ON CONFLICT (job_type) DO UPDATE SET (runner, endpoint, command, description) =
	(EXCLUDED.runner, EXCLUDED.endpoint, EXCLUDED.command, EXCLUDED.description);
UPDATE job_types
SET max_attempts = 5,
	backoff = '{"strategy": "exponential", "delay": "1 second", "multiplier": 2, "max_delay": "60 seconds"}',
	dead_letter = true,
	fair_groups = true,
	keep_completed = '7 days'
WHERE job_type IN ('shopify-product', 'search-index', 'image-import', 'event-log');

-- Who gets what (O2): each event becomes one job for each of its subscriptions.
SELECT subscribe_event('shopify.sync.product', 'shopify-product'),
	subscribe_event('shopify.sync.product', 'image-import'),
	subscribe_event('shopify.sync.*', 'search-index'),
	subscribe_event('test.*', 'event-log');

-- ---------------------------------------------------------------------------
-- How it does: all of it from the tables
-- ---------------------------------------------------------------------------

CREATE OR REPLACE VIEW outbox_jobs AS
	SELECT q.* FROM jobs_queue q WHERE q.job_type IN (SELECT s.job_type FROM event_subscriptions s);

-- Events in every state (O10).
CREATE OR REPLACE VIEW stats AS
	SELECT count(*) AS total,
		count(*) FILTER (WHERE status IN ('queued', 'blocked')) AS pending,
		count(*) FILTER (WHERE status = 'running') AS processing,
		count(*) FILTER (WHERE status = 'completed') AS completed,
		count(*) FILTER (WHERE status IN ('failed', 'cancelled')) AS failed,
		count(*) FILTER (WHERE status = 'error') AS dlq
	FROM outbox_jobs;

-- Of each handler, in the last hour (O11): from the commit of an event to its end, how
-- many of the attempts that ended were good, and how many were not the first one.
CREATE OR REPLACE VIEW metrics AS
	SELECT r.job_type,
		count(*) FILTER (WHERE r.status = 'completed') AS completed,
		count(*) FILTER (WHERE r.status <> 'completed') AS failed_attempts,
		round(avg((r.status = 'completed')::int), 3) AS success_rate,
		count(*) FILTER (WHERE r.attempt > 1) AS retries,
		percentile_cont('{0.5,0.95,0.99}'::float8[]) WITHIN GROUP (ORDER BY extract(epoch FROM r.finished_at - q.created_at)::float8)
			FILTER (WHERE r.status = 'completed') AS latency_s
	FROM job_runs r JOIN outbox_jobs q ON q.id = r.job_id
	WHERE r.finished_at > now() - interval '1 hour'
	GROUP BY r.job_type;

-- What is due and has not begun, and why that may be (O15).
CREATE OR REPLACE VIEW backlog AS
	SELECT t.job_type, count(*) AS waiting, now() - min(q.scheduled_at) AS oldest,
		CASE
			WHEN NOT s.is_active THEN 'no work is done: ' || s.reason
			WHEN NOT t.enabled THEN 'paused: ' || coalesce(t.pause_reason, 'no reason given')
			WHEN t.runner <> 'external' AND NOT s.has_scheduler THEN 'the workers of the server are not there'
			WHEN t.runner = 'external' AND NOT EXISTS (
				SELECT FROM registered_workers w
				WHERE w.info->'job_types' ? t.job_type AND w.last_seen_at > now() - interval '1 minute') THEN 'no worker has been seen for a minute'
			ELSE 'the handler said last: ' || (array_agg(q.last_error ORDER BY q.updated_at DESC) FILTER (WHERE q.last_error IS NOT NULL))[1]
		END AS reason
	FROM queue_status s, outbox_jobs q JOIN job_types t USING (job_type)
	WHERE q.status = 'queued' AND q.scheduled_at <= now()
	GROUP BY t.job_type, t.enabled, t.pause_reason, t.runner, s.is_active, s.reason, s.has_scheduler;

-- Whether all is well (O9). A probe of liveness is
--   psql -XAtc 'SELECT outbox.check_health()'
-- which fails when the database does not answer, and when anything here is not true.
CREATE OR REPLACE FUNCTION health(max_dead_letters integer DEFAULT 100, max_wait interval DEFAULT '5 minutes')
	RETURNS TABLE (name text, is_well boolean, detail text)
	LANGUAGE sql
BEGIN ATOMIC
	SELECT 'workers', is_active AND has_scheduler, coalesce(reason, 'at work') FROM queue_status
	UNION ALL
	SELECT 'dead letters', dlq <= max_dead_letters, dlq || ' of at most ' || max_dead_letters FROM outbox.stats
	UNION ALL
	SELECT 'backlog: ' || job_type, oldest <= max_wait, coalesce(reason, 'busy') FROM outbox.backlog;
END;

CREATE OR REPLACE FUNCTION check_health() RETURNS text
	LANGUAGE plpgsql SET search_path = outbox, public, pg_temp
AS $$
DECLARE
	problems text := (SELECT string_agg(name || ' (' || detail || ')', ', ') FROM health() WHERE NOT is_well);
BEGIN
	IF problems IS NOT NULL THEN
		RAISE EXCEPTION 'the outbox is not well: %', problems;
	END IF;
	RETURN 'ok';
END
$$;

-- ---------------------------------------------------------------------------
-- Every minute: the numbers into the server's log (O10), alerts (O17)
-- ---------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION log_stats() RETURNS void
	LANGUAGE plpgsql SET search_path = outbox, public, pg_temp
AS $$
BEGIN
	RAISE LOG 'outbox %', (SELECT to_jsonb(s) FROM stats s);
END
$$;
SELECT schedule_sql('outbox-stats', '* * * * *', 'SELECT outbox.log_stats()', catch_up => 'none', overlap => 'skip');

-- The address is a secret; who may read the tables cannot see it.
SELECT set_secret('alerts_url', :'alerts_url', keep_previous => '0');
INSERT INTO http_endpoints (name, url) VALUES ('alerts', '{{secret.alerts_url}}') ON CONFLICT (name) DO NOTHING;

CREATE TABLE IF NOT EXISTS alert_rules (
	rule text PRIMARY KEY,
	above bigint NOT NULL,			-- alert when there are more
	again_after interval NOT NULL,	-- but not more often than this
	last_value bigint NOT NULL DEFAULT 0,
	sent_at timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO alert_rules (rule, above, again_after) VALUES
	('new dead letters', 0, '0'),
	('failed attempts in 5 minutes', 10, '15 minutes')
ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION send_alerts() RETURNS SETOF text
	LANGUAGE plpgsql SET search_path = outbox, public, pg_temp
AS $$
DECLARE
	found record;
BEGIN
	FOR found IN
		SELECT r.*, v.value, v.value - CASE WHEN r.rule LIKE 'new %' THEN r.last_value ELSE 0 END AS amount
		FROM alert_rules r JOIN (VALUES
			('new dead letters', (SELECT dlq FROM stats)),
			('failed attempts in 5 minutes', (SELECT count(*) FROM job_runs j WHERE j.status = 'failed' AND j.finished_at > now() - interval '5 minutes'
				AND j.job_type IN (SELECT s.job_type FROM event_subscriptions s)))
		) AS v(rule, value) USING (rule)
		ORDER BY r.rule FOR UPDATE OF r
	LOOP
		IF found.amount > found.above AND found.sent_at + found.again_after <= now() THEN
			PERFORM enqueue_http('alerts', jsonb_build_object('text', format('outbox: %s: %s', found.rule, found.amount)));
			UPDATE alert_rules SET sent_at = now() WHERE rule = found.rule;
			RETURN NEXT found.rule;
		END IF;
		UPDATE alert_rules SET last_value = found.value WHERE rule = found.rule;
	END LOOP;
END
$$;
SELECT schedule_sql('outbox-alerts', '* * * * *', 'SELECT outbox.send_alerts()', catch_up => 'none', overlap => 'skip');
