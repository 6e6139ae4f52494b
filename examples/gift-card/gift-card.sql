-- Gift cards: each order is a flow in stages (create the customer, issue the card,
-- send the message), and a retry resumes at the stage that failed.
--
--   psql -d shop -v square_url=https://... -v alerts_url=https://... -f gift-card.sql
--
-- Run it as a superuser; running it again changes what has changed. The worker is
-- beside it, and so is what it needs from postgresql.conf. The marks (G1) are
-- explained in ../README.md.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
\if :{?square_url} \else \set square_url 'https://square.example.com' \endif
\if :{?alerts_url} \else \set alerts_url 'https://hooks.slack.com/services/T00/B00/XXX' \endif

CREATE EXTENSION IF NOT EXISTS jobqueue;

-- ---------------------------------------------------------------------------
-- Roles: "shop_webhook" takes orders, "giftcard_worker" works them off, and to
-- "giftcards" belongs all that follows
-- ---------------------------------------------------------------------------

SELECT format('CREATE ROLE %I LOGIN', r) FROM unnest('{giftcards,shop_webhook,giftcard_worker}'::text[]) r WHERE to_regrole(r) IS NULL \gexec
SELECT grant_job_role('giftcards', r) FROM unnest('{producer,operator}'::text[]) r;
SELECT grant_job_role('shop_webhook', 'producer'), grant_job_role('giftcard_worker', 'worker');
CREATE SCHEMA IF NOT EXISTS giftcards AUTHORIZATION giftcards;
SET ROLE giftcards;
SET search_path = giftcards, public;
GRANT USAGE ON SCHEMA giftcards TO shop_webhook, giftcard_worker;

-- ---------------------------------------------------------------------------
-- The flow
-- ---------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS stages (
	position integer PRIMARY KEY,
	stage text NOT NULL UNIQUE,
	url text NOT NULL				-- the worker POSTs what it knows of the order
);
INSERT INTO stages VALUES
	(1, 'customer', :'square_url' || '/customer'),
	(2, 'card', :'square_url' || '/card'),
	(3, 'message', :'square_url' || '/message')
ON CONFLICT (position) DO UPDATE SET (stage, url) = (EXCLUDED.stage, EXCLUDED.url);
GRANT SELECT ON stages TO giftcard_worker, shop_webhook;

-- Five attempts (G2), then the dead letters: status "error" (G15). Three failures of a
-- stage in a row and this stage, no other, is left alone for a minute (G6, G18). A
-- worker that is silent for a minute loses its job.
INSERT INTO job_types (job_type, event_prefix, max_attempts, backoff, lease, dead_letter, breaker_threshold, breaker_cooldown, keep_completed, description) VALUES
	('giftcard', 'giftcard', 5, '{"strategy": "exponential", "delay": "2 seconds", "multiplier": 2, "max_delay": "1 minute"}',
	 '1 minute', true, 3, '60 seconds', '90 days', 'A gift card that was ordered, from customer to message')
ON CONFLICT (job_type) DO UPDATE SET (event_prefix, max_attempts, backoff, lease, dead_letter, breaker_threshold, breaker_cooldown, keep_completed, description) =
	(EXCLUDED.event_prefix, EXCLUDED.max_attempts, EXCLUDED.backoff, EXCLUDED.lease, EXCLUDED.dead_letter, EXCLUDED.breaker_threshold,
	 EXCLUDED.breaker_cooldown, EXCLUDED.keep_completed, EXCLUDED.description);

-- ---------------------------------------------------------------------------
-- The table of the runbook: our part of jobs_queue, under the name that operators
-- know. Like it the view takes INSERT (G1) and UPDATE: requeue (G17), postpone (G20),
-- complete (G21)
-- ---------------------------------------------------------------------------

CREATE OR REPLACE VIEW giftcard_jobs AS
	SELECT * FROM jobs_queue WHERE job_type = 'giftcard'
	WITH CASCADED CHECK OPTION;
ALTER VIEW giftcard_jobs ALTER job_type SET DEFAULT 'giftcard';
ALTER VIEW giftcard_jobs ALTER stage SET DEFAULT 'customer';

-- Every attempt, with the stage at which it ended (G22).
CREATE OR REPLACE VIEW giftcard_runs AS
	SELECT r.job_id, r.correlation_id, r.stage, r.attempt, r.status, r.error, r.started_at, r.finished_at, w.name AS worker
	FROM job_runs r LEFT JOIN registered_workers w USING (worker_id)
	WHERE r.job_type = 'giftcard';

-- What every event has (G3).
CREATE OR REPLACE FUNCTION event(name text, correlation_id text, stage text, worker_id text) RETURNS jsonb
	LANGUAGE sql IMMUTABLE
RETURN jsonb_build_object('event', 'giftcard.' || name, 'correlationId', correlation_id, 'stage', stage, 'workerId', worker_id);

-- ---------------------------------------------------------------------------
-- The webhook: an order and its job in one transaction (G1). The number of the order is
-- the unique key, so a webhook that is delivered twice makes one card
-- ---------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS orders (
	number text PRIMARY KEY,
	amount_cents integer NOT NULL,
	email text NOT NULL
);
GRANT SELECT, INSERT ON orders TO shop_webhook;

CREATE OR REPLACE FUNCTION receive_order(number text, amount_cents integer, email text) RETURNS bigint
	LANGUAGE plpgsql SET search_path = giftcards, public, pg_temp
AS $$
DECLARE
	first_stage text := (SELECT s.stage FROM stages s ORDER BY s.position LIMIT 1);
BEGIN
	INSERT INTO orders VALUES (number, amount_cents, email) ON CONFLICT DO NOTHING;
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;
	RETURN enqueue_job('giftcard', jsonb_build_object('order', number, 'amount_cents', amount_cents, 'email', email),
		unique_key => number, stage => first_stage, correlation_id => number);
END
$$;

-- ---------------------------------------------------------------------------
-- Events (G3, G8 to G10), with the keys that the dashboards know, are lines of the server's
-- log; job_types.event_prefix makes their names, see postgresql.conf. Here they can be
-- queried, too: the worker keeps its own in job_logs, those of jobs that the server runs are
-- in job_runs, and those of circuits are the queue's
-- ---------------------------------------------------------------------------

CREATE OR REPLACE VIEW giftcard_events AS
	SELECT q.created_at AS at, event('job.enqueued', q.correlation_id,
		CASE q.job_type WHEN 'giftcard' THEN (SELECT s.stage FROM stages s ORDER BY s.position LIMIT 1) ELSE q.stage END, NULL) AS event
	FROM jobs_queue q
	WHERE q.job_type IN ('giftcard', 'giftcard-http')
	UNION ALL
	SELECT l.logged_at, l.data
	FROM job_logs l
	WHERE l.message LIKE 'giftcard.%'
	UNION ALL
	SELECT e.at, event('worker.job.' || e.name, r.correlation_id, r.stage, r.worker_id::text) || e.more
	FROM job_runs r
		CROSS JOIN LATERAL (VALUES
			(r.started_at, 'start', '{}'),
			(r.finished_at, CASE r.status WHEN 'completed' THEN 'completed' ELSE 'failed' END, jsonb_strip_nulls(jsonb_build_object('error', r.error)))
		) AS e(at, name, more)
	WHERE r.job_type = 'giftcard-http'
	UNION ALL
	SELECT e.happened_at, e.data || event('worker.' || e.event, NULL, e.stage, NULL)
	FROM queue_events e
	WHERE e.job_type IN ('giftcard', 'giftcard-http');

-- ---------------------------------------------------------------------------
-- Alerts (G12, G13, G14)
-- ---------------------------------------------------------------------------

-- The address is a secret; who may read the tables cannot see it.
SELECT set_secret('giftcard_alerts_url', :'alerts_url', keep_previous => '0');
INSERT INTO http_endpoints (name, url) VALUES ('giftcard-alerts', '{{secret.giftcard_alerts_url}}') ON CONFLICT (name) DO NOTHING;
INSERT INTO alert_sinks (name, kind, endpoint) VALUES ('giftcard-alerts', 'slack', 'giftcard-alerts') ON CONFLICT (name) DO NOTHING;
INSERT INTO alert_rules (name, kind, threshold, period, severity, renotify, sinks) VALUES
	('gift cards fail', 'failures', 3, '5 minutes', 'warning', '5 minutes', '{giftcard-alerts}'),
	('gift cards wait', 'circuit_open', 0, NULL, 'critical', '1 hour', '{giftcard-alerts}'),
	('gift cards are lost', 'dead_letters', 0, NULL, 'critical', '1 day', '{giftcard-alerts}')
ON CONFLICT (name) DO UPDATE SET (kind, threshold, period, severity, renotify, sinks) =
	(EXCLUDED.kind, EXCLUDED.threshold, EXCLUDED.period, EXCLUDED.severity, EXCLUDED.renotify, EXCLUDED.sinks);

-- ---------------------------------------------------------------------------
-- The same without a worker: where a stage is one request, the server can send it. Each
-- is a job of its own that waits for the one before, and a retry repeats just that
-- ---------------------------------------------------------------------------

INSERT INTO http_endpoints (name, url, body) VALUES ('square', :'square_url' || '/{{job.stage}}', NULL)
ON CONFLICT (name) DO UPDATE SET url = EXCLUDED.url;
INSERT INTO job_types (job_type, runner, endpoint, event_prefix, max_attempts, backoff, dead_letter, breaker_threshold, breaker_cooldown, keep_completed, description)
SELECT 'giftcard-http', 'http', 'square', event_prefix, max_attempts, backoff, dead_letter, breaker_threshold, breaker_cooldown, keep_completed, 'A stage of a gift card'
FROM job_types WHERE job_type = 'giftcard'
ON CONFLICT (job_type) DO NOTHING;

CREATE OR REPLACE FUNCTION enqueue_stages(number text, payload jsonb) RETURNS bigint[]
	LANGUAGE plpgsql SET search_path = giftcards, public, pg_temp
AS $$
DECLARE
	next_stage text;
	job_id bigint;
	job_ids bigint[] := '{}';
BEGIN
	FOR next_stage IN SELECT s.stage FROM stages s ORDER BY s.position LOOP
		job_id := enqueue_job('giftcard-http', payload, stage => next_stage, correlation_id => number,
			unique_key => number || ' ' || next_stage, depends_on => array_remove(ARRAY[job_id], NULL));
		job_ids := job_ids || job_id;
	END LOOP;
	RETURN job_ids;
END
$$;
