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
-- worker outside the server, "outbox_monitor" answers probes and collectors, and to
-- "outbox" belongs all that follows
-- ---------------------------------------------------------------------------

SELECT format('CREATE ROLE %I LOGIN', r) FROM unnest('{outbox,shop,image_importer,outbox_monitor}'::text[]) r WHERE to_regrole(r) IS NULL \gexec
SELECT grant_job_role('outbox', r) FROM unnest('{producer,operator}'::text[]) r;
SELECT grant_job_role('shop', 'producer'), grant_job_role('image_importer', 'worker'), grant_job_role('outbox_monitor', 'observer');
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
-- A busy tenant does not keep the others waiting. With more than a hundred dead letters a
-- probe fails (O9).
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
	dead_letter_limit = 100,
	fair_groups = true,
	keep_completed = '7 days'
WHERE job_type IN ('shopify-product', 'search-index', 'image-import', 'event-log');

-- Who gets what (O2): each event becomes one job for each of its subscriptions.
SELECT subscribe_event('shopify.sync.product', 'shopify-product'),
	subscribe_event('shopify.sync.product', 'image-import'),
	subscribe_event('shopify.sync.*', 'search-index'),
	subscribe_event('test.*', 'event-log');

-- ---------------------------------------------------------------------------
-- How it does. Health (O9) and metrics (O11) are pages of the monitor, and the numbers of
-- each minute (O10) lines of the log: see postgresql.conf
-- ---------------------------------------------------------------------------

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
	FROM queue_status s, jobs_queue q JOIN job_types t USING (job_type)
	WHERE q.status = 'queued' AND q.scheduled_at <= now() AND q.job_type IN (SELECT e.job_type FROM event_subscriptions e)
	GROUP BY t.job_type, t.enabled, t.pause_reason, t.runner, s.is_active, s.reason, s.has_scheduler;

-- ---------------------------------------------------------------------------
-- Alerts (O17)
-- ---------------------------------------------------------------------------

-- The address is a secret; who may read the tables cannot see it.
SELECT set_secret('alerts_url', :'alerts_url', keep_previous => '0');
INSERT INTO http_endpoints (name, url) VALUES ('alerts', '{{secret.alerts_url}}') ON CONFLICT (name) DO NOTHING;

INSERT INTO alert_sinks (name, kind, endpoint) VALUES ('alerts', 'slack', 'alerts') ON CONFLICT (name) DO NOTHING;
INSERT INTO alert_rules (name, kind, threshold, period, severity, renotify, sinks) VALUES
	('new dead letters', 'dead_letters', 0, '1 hour', 'critical', '1 hour', '{alerts}'),
	('failed attempts', 'failures', 10, '5 minutes', 'warning', '15 minutes', '{alerts}')
ON CONFLICT (name) DO UPDATE SET (kind, threshold, period, severity, renotify, sinks) =
	(EXCLUDED.kind, EXCLUDED.threshold, EXCLUDED.period, EXCLUDED.severity, EXCLUDED.renotify, EXCLUDED.sinks);
