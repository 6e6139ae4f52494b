-- Sale discovery: every minute the new sales of Cin7 get a payment link of Stripe, and
-- what customers have paid is posted to Cin7. There is no worker but the server.
--
--   psql -d shop -v cin7_api_key=... -v stripe_api_key=... -v slack_url=https://... -f sale-discovery.sql
--
-- Run it as a superuser; running it again changes what has changed. What it needs from
-- postgresql.conf is beside it; the marks (S1) are explained in ../README.md.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
\if :{?cin7_url} \else \set cin7_url 'https://api.cin7.com' \endif
\if :{?stripe_url} \else \set stripe_url 'https://api.stripe.com' \endif
\if :{?slack_url} \else \set slack_url 'https://hooks.slack.com/services/T00/B00/XXX' \endif
\if :{?slack_channel} \else \set slack_channel '#payments-alerts' \endif
\if :{?poll_interval} \else \set poll_interval '60 seconds' \endif
\if :{?batch_size} \else \set batch_size 10 \endif
\if :{?slack_enabled} \else \set slack_enabled true \endif
\if :{?critical_threshold} \else \set critical_threshold 3 \endif
\if :{?warning_threshold} \else \set warning_threshold 5 \endif

CREATE EXTENSION IF NOT EXISTS jobqueue;

-- ---------------------------------------------------------------------------
-- Roles: to "sales" belongs all that follows, "sales_app" is the site, which is told by
-- Stripe what was paid, and "sales_monitor" only looks
-- ---------------------------------------------------------------------------

SELECT format('CREATE ROLE %I LOGIN', r) FROM unnest('{sales,sales_app,sales_monitor}'::text[]) r WHERE to_regrole(r) IS NULL \gexec
SELECT grant_job_role('sales', r) FROM unnest('{producer,operator}'::text[]) r;
SELECT grant_job_role('sales_monitor', 'observer');
CREATE SCHEMA IF NOT EXISTS sales AUTHORIZATION sales;
SET ROLE sales;
SET search_path = sales, public;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
GRANT USAGE ON SCHEMA sales TO sales_app;

-- ---------------------------------------------------------------------------
-- Tables
-- ---------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS settings (
	is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
	batch_size integer NOT NULL,				-- WORKER_BATCH_SIZE: sales in a cycle (S5)
	last_sale bigint NOT NULL DEFAULT 0			-- how far they have been read
);
INSERT INTO settings (batch_size) VALUES (:batch_size)
ON CONFLICT (is_only) DO UPDATE SET batch_size = EXCLUDED.batch_size;

-- Whoever finds a sale a second time runs into this (S18).
CREATE TABLE IF NOT EXISTS sales (
	number bigint PRIMARY KEY,
	amount_cents integer NOT NULL,
	payment_url text,
	paid_at timestamptz,
	posted_at timestamptz
);

-- ---------------------------------------------------------------------------
-- Cin7 and Stripe. The keys are secrets, and may be missing (S21)
-- ---------------------------------------------------------------------------

\if :{?cin7_api_key}
	SELECT set_secret('cin7_api_key', :'cin7_api_key');
\endif
\if :{?stripe_api_key}
	SELECT set_secret('stripe_api_key', :'stripe_api_key');
\endif

INSERT INTO http_endpoints (name, url, method, headers, body, timeout) VALUES
	('cin7-sales', :'cin7_url' || '/sales?limit={{payload.limit}}&after={{payload.after}}', 'GET',
	 '{"Authorization": "Bearer {{secret.cin7_api_key}}"}', NULL, '20 seconds'),
	('cin7-payments', :'cin7_url' || '/sale-payments', 'POST',
	 '{"Authorization": "Bearer {{secret.cin7_api_key}}"}', '{"sale": "{{payload.sale}}", "amount_cents": "{{payload.amount_cents}}"}', '20 seconds'),
	('stripe-links', :'stripe_url' || '/payment-links', 'POST',
	 '{"Authorization": "Bearer {{secret.stripe_api_key}}"}', '{"sale": "{{payload.sale}}", "amount_cents": "{{payload.amount_cents}}"}', '20 seconds')
ON CONFLICT (name) DO UPDATE SET (url, method, headers, body, timeout) =
	(EXCLUDED.url, EXCLUDED.method, EXCLUDED.headers, EXCLUDED.body, EXCLUDED.timeout);

-- A cycle is not tried again, for the next one comes soon; a link and a payment are. The
-- texts are those of the log (S6, S11).
INSERT INTO job_types (job_type, runner, endpoint, command, max_attempts, event_messages, description) VALUES
	('sale-discovery', 'sql', NULL, 'SELECT sales.begin_cycle()', 1,
	 '{"start": "Starting sale discovery cycle", "failed": "Error in worker interval"}', 'A cycle: asks Cin7 for new sales'),
	('cin7-sales', 'http', 'cin7-sales', NULL, 1, '{"failed": "Failed to fetch sales from Cin7"}', 'The question'),
	('sales-found', 'sql', NULL, 'SELECT sales.end_cycle($1)', 1,
	 '{"completed": "Sale discovery cycle completed", "failed": "Error in worker interval"}', 'The answer: writes down new sales'),
	('stripe-links', 'http', 'stripe-links', NULL, 5, NULL, 'Asks Stripe for a payment link'),
	('link-created', 'sql', NULL, 'SELECT sales.record_link($1)', 5, NULL, 'Writes the link down'),
	('stripe-webhook', 'sql', NULL, 'SELECT sales.process_webhook($1)', 5,
	 '{"completed": "Webhook processing complete"}', 'Stripe says that a sale was paid'),
	('payment', 'sql', NULL, 'SELECT sales.post_payment($1)', 5, NULL, 'Posts it to Cin7, if there is a key'),
	('cin7-payments', 'http', 'cin7-payments', NULL, 5, '{"completed": "Payment posted to Cin7 SalePayments"}', 'Tells Cin7'),
	('payment-posted', 'sql', NULL, 'SELECT sales.record_payment($1)', 5, NULL, 'Writes down that Cin7 knows')
ON CONFLICT (job_type) DO UPDATE SET (runner, endpoint, command, max_attempts, event_messages, description) =
	(EXCLUDED.runner, EXCLUDED.endpoint, EXCLUDED.command, EXCLUDED.max_attempts, EXCLUDED.event_messages, EXCLUDED.description);
UPDATE job_types SET event_prefix = 'sales' WHERE job_type IN ('sale-discovery', 'cin7-sales', 'sales-found', 'stripe-links',
	'link-created', 'stripe-webhook', 'payment', 'cin7-payments', 'payment-posted');

-- ---------------------------------------------------------------------------
-- Calls and answers: a request is a job, and what came back is written down by another
-- one that waits for it, also when nothing came
-- ---------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION ask(request text, then_run text, payload jsonb, key text) RETURNS bigint
	LANGUAGE plpgsql SET search_path = sales, public, pg_temp
AS $$
DECLARE
	job_id bigint := enqueue_job(request, payload, unique_key => key, correlation_id => key);
BEGIN
	RETURN enqueue_job(then_run, payload || jsonb_build_object('call', job_id), unique_key => key, correlation_id => key,
		depends_on => ARRAY[job_id], on_parent_failure => 'run');
END
$$;

-- The answer to a call, null if there is none. Counts it, and how long it took (S9, S10).
CREATE OR REPLACE FUNCTION answer(payload jsonb, service text) RETURNS jsonb
	LANGUAGE plpgsql SET search_path = sales, public, pg_temp
AS $$
DECLARE
	run record;
	answer jsonb;
BEGIN
	FOR run IN SELECT r.status, r.result, r.response FROM job_runs r WHERE r.job_id = (payload->>'call')::bigint ORDER BY r.claim_no LOOP
		answer := CASE run.status WHEN 'completed' THEN run.result END;
		IF run.status = 'completed' THEN
			PERFORM job_metric_observe(service || '_avg_ms', (run.response->'timings'->>'total_ms')::float8);
		END IF;
		IF service = 'cin7' THEN
			PERFORM job_metric_add(CASE run.status WHEN 'completed' THEN 'cin7_api_calls' ELSE 'cin7_api_errors' END);
		END IF;
	END LOOP;
	RETURN answer;
END
$$;

-- ---------------------------------------------------------------------------
-- The cycle. All counters are there from the first one on
-- ---------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION begin_cycle() RETURNS void
	LANGUAGE plpgsql SET search_path = sales, public, pg_temp
AS $$
BEGIN
	PERFORM job_metric_add(name, 0)
	FROM unnest('{worker_errors,cin7_api_calls,cin7_api_errors,payments_created,payments_posted,payments_failed,webhooks_received,webhooks_processed,webhooks_failed,database_errors}'::text[]) name;
	PERFORM job_metric_add('worker_cycles');
	IF secret_problem('cin7_api_key') IS NOT NULL THEN
		PERFORM skip_current_job('there is no API key of Cin7');
		RETURN;
	END IF;

	PERFORM ask('cin7-sales', 'sales-found', jsonb_build_object('limit', batch_size, 'after', last_sale), 'cycle') FROM settings;
	-- What could not be posted earlier.
	PERFORM enqueue_job('payment', jsonb_build_object('sale', number, 'amount_cents', amount_cents), unique_key => number::text, correlation_id => number::text)
	FROM sales WHERE paid_at IS NOT NULL AND posted_at IS NULL;
END
$$;

CREATE OR REPLACE FUNCTION end_cycle(payload jsonb) RETURNS void
	LANGUAGE plpgsql SET search_path = sales, public, pg_temp
AS $$
DECLARE
	answered jsonb := answer(payload, 'cin7');
	sale record;
BEGIN
	IF answered IS NULL THEN
		PERFORM job_metric_add('worker_errors');
		PERFORM skip_current_job('Cin7 did not answer');
		RETURN;
	END IF;
	FOR sale IN
		SELECT * FROM jsonb_to_recordset(answered->'sales') AS s(number bigint, amount_cents integer)
		ORDER BY number LIMIT (payload->>'limit')::int
	LOOP
		INSERT INTO sales VALUES (sale.number, sale.amount_cents) ON CONFLICT DO NOTHING;
		IF FOUND THEN
			PERFORM ask('stripe-links', 'link-created', jsonb_build_object('sale', sale.number, 'amount_cents', sale.amount_cents), sale.number::text);
		END IF;
		UPDATE settings SET last_sale = sale.number WHERE last_sale < sale.number;
	END LOOP;
EXCEPTION WHEN OTHERS THEN
	PERFORM job_metric_add('worker_errors'), job_metric_add('database_errors');
	RAISE;
END
$$;

-- WORKER_POLL_INTERVAL_MS (S4). One cycle at a time, and what passed while the server was
-- down is not made up for (S17, S26).
INSERT INTO cron_tasks (name, schedule, job_type, overlap, catch_up, run_on_start, description) VALUES
	('sale-discovery', 'every ' || :'poll_interval', 'sale-discovery', 'skip', 'none', true, 'Looks for new sales')
ON CONFLICT (name) DO UPDATE SET schedule = EXCLUDED.schedule;

-- ---------------------------------------------------------------------------
-- Links and payments
-- ---------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION record_link(payload jsonb) RETURNS void
	LANGUAGE plpgsql SET search_path = sales, public, pg_temp
AS $$
DECLARE
	link jsonb := answer(payload, 'stripe');
BEGIN
	UPDATE sales SET payment_url = link->>'url' WHERE number = (payload->>'sale')::bigint AND payment_url IS NULL AND link IS NOT NULL;
	IF FOUND THEN
		PERFORM job_metric_add('payments_created');
	END IF;
END
$$;

-- For the site: what Stripe has told it. The same event twice is one (S18).
CREATE OR REPLACE FUNCTION receive_webhook(event jsonb) RETURNS bigint
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = sales, public, pg_temp
AS $$
BEGIN
	PERFORM job_metric_add('webhooks_received');
	RETURN enqueue_job('stripe-webhook', event, unique_key => event->>'id', unique_scope => 'kept', correlation_id => event->>'sale');
END
$$;
GRANT EXECUTE ON FUNCTION receive_webhook(jsonb) TO sales_app;

CREATE OR REPLACE FUNCTION process_webhook(event jsonb) RETURNS void
	LANGUAGE plpgsql SET search_path = sales, public, pg_temp
AS $$
DECLARE
	paid sales;
BEGIN
	UPDATE sales SET paid_at = now() WHERE number = (event->>'sale')::bigint RETURNING * INTO paid;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'there is no sale %', event->>'sale';
	END IF;
	PERFORM enqueue_job('payment', jsonb_build_object('sale', paid.number, 'amount_cents', paid.amount_cents), unique_key => paid.number::text, correlation_id => paid.number::text);
	PERFORM job_metric_add('webhooks_processed'),
		job_metric_observe('webhook_avg_ms', extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000);
EXCEPTION WHEN OTHERS THEN
	PERFORM job_metric_add('webhooks_failed');
	RAISE;
END
$$;

-- Without a key the run is "skipped", which is no failure; the next cycle after there is
-- one comes back to it (S21).
CREATE OR REPLACE FUNCTION post_payment(payload jsonb) RETURNS void
	LANGUAGE plpgsql SET search_path = sales, public, pg_temp
AS $$
BEGIN
	IF secret_problem('cin7_api_key') IS NOT NULL THEN
		PERFORM skip_current_job('there is no API key of Cin7');
	ELSE
		PERFORM ask('cin7-payments', 'payment-posted', payload, payload->>'sale');
	END IF;
END
$$;

CREATE OR REPLACE FUNCTION record_payment(payload jsonb) RETURNS void
	LANGUAGE plpgsql SET search_path = sales, public, pg_temp
AS $$
BEGIN
	IF answer(payload, 'cin7') IS NULL THEN
		PERFORM job_metric_add('payments_failed');
		RETURN;
	END IF;
	UPDATE sales SET posted_at = now() WHERE number = (payload->>'sale')::bigint;
	PERFORM job_metric_add('payments_posted');
END
$$;

-- ---------------------------------------------------------------------------
-- Alerts, to Slack (S12 to S16). The address is a secret: who may read the tables cannot
-- see it
-- ---------------------------------------------------------------------------

SELECT set_secret('slack_url', :'slack_url', keep_previous => '0');
INSERT INTO http_endpoints (name, url) VALUES ('slack', '{{secret.slack_url}}') ON CONFLICT (name) DO NOTHING;
INSERT INTO alert_sinks (name, kind, endpoint, channel, enabled) VALUES ('slack', 'slack', 'slack', :'slack_channel', :'slack_enabled')
ON CONFLICT (name) DO UPDATE SET (channel, enabled) = (EXCLUDED.channel, EXCLUDED.enabled);

-- The thresholds are two numbers, and neither knows of the other. What a database cannot
-- write it says with a class of errors: a constraint, no space, no memory.
INSERT INTO alert_rules (name, kind, job_type, subject, sqlstate, threshold, period, severity, sinks, description) VALUES
	('cycles fail', 'consecutive_failures', 'cin7-sales', NULL, NULL, :critical_threshold, NULL, 'critical', '{slack}', 'So many cycles in a row have failed'),
	('cycles still fail', 'consecutive_failures', 'cin7-sales', NULL, NULL, :warning_threshold, NULL, 'warning', '{slack}', 'So many cycles in a row have failed'),
	('Cin7 is away', 'endpoint_down', NULL, 'cin7-sales', NULL, 3, NULL, 'critical', '{slack}', 'The API of Cin7 does not answer'),
	('payments fail', 'failures', 'cin7-payments', NULL, NULL, 0, '10 minutes', 'critical', '{slack}', 'A payment could not be posted'),
	('writes fail', 'failures', NULL, NULL, '23*', 0, '10 minutes', 'critical', '{slack}', 'The database refuses what is to be written'),
	('no space', 'failures', NULL, NULL, '53*', 0, '10 minutes', 'critical', '{slack}', 'The database has no space, or no memory')
ON CONFLICT (name) DO UPDATE SET (kind, job_type, subject, sqlstate, threshold, period, severity, sinks, description) =
	(EXCLUDED.kind, EXCLUDED.job_type, EXCLUDED.subject, EXCLUDED.sqlstate, EXCLUDED.threshold, EXCLUDED.period, EXCLUDED.severity, EXCLUDED.sinks, EXCLUDED.description);
