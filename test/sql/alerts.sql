--
-- Alerts: what rules find, when it is sent, and to whom.
--
SET TIMEZONE = 'UTC';
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
DELETE FROM job_circuits;
DELETE FROM queue_events;
ALTER SEQUENCE alerts_id_seq RESTART;
\set SHOW_CONTEXT never
\set w1 '''aaaaaaaa-0000-4000-8000-000000000001'''
-- Enqueues and fails, or completes, so many jobs of a type.
CREATE FUNCTION attempts(type text, n integer, error text DEFAULT 'down', in_stage text DEFAULT '') RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	PERFORM enqueue_job(type, max_attempts => 1, stage => in_stage) FROM generate_series(1, n);
	RETURN (SELECT count(resolve_job(q.id, q.locked_by, error IS NULL, error)) FROM claim_jobs('aaaaaaaa-0000-4000-8000-000000000001', ARRAY[type], n) q);
END
$$;
-- Evaluates now or later, and shows what that has sent, by sink.
CREATE FUNCTION evaluate(after interval DEFAULT '0') RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	last bigint := (SELECT coalesce(max(id), 0) FROM jobs_queue);
BEGIN
	PERFORM _evaluate_alerts(clock_timestamp() + after);
	RETURN QUERY SELECT format('%s: %s', q.job_type, coalesce(q.payload->>'text', (SELECT string_agg(upper(a->>'state') || ' ' || (a->>'summary'), '; ' ORDER BY n)
		FROM jsonb_array_elements(coalesce(q.payload->'alerts', jsonb_build_array(q.payload))) WITH ORDINALITY AS x (a, n))))
	FROM jobs_queue q WHERE q.id > last AND starts_with(q.job_type, 'alert:') ORDER BY q.id;
END
$$;
CREATE VIEW open_alerts AS
	SELECT rule, job_type, stage, subject, severity, trim_scale(value) AS value, notifications AS n, quiet_since IS NOT NULL AS quiet
	FROM alerts WHERE resolved_at IS NULL ORDER BY id;

-- Nothing is there by itself, and without rules nothing is said.
SELECT (SELECT count(*) FROM alert_rules) AS rules, (SELECT count(*) FROM alert_sinks) AS sinks, _evaluate_alerts() AS changes;

-- Sinks
INSERT INTO http_endpoints (name, url) VALUES ('chat', 'https://hooks.example.com/services/T0/B0/x'), ('pager', 'https://pager.example.com/alert');
INSERT INTO alert_sinks (name, kind, endpoint, channel) VALUES ('chat', 'slack', 'chat', '#payments-alerts');
INSERT INTO alert_sinks (name, kind, endpoint, min_severity, include_errors, send_resolved) VALUES ('pager', 'webhook', 'pager', 'critical', true, false);
INSERT INTO alert_sinks (name, kind, channel) VALUES ('bus', 'notify', 'alerts');
SELECT job_type, owner::text = current_user AS own, runner, endpoint, max_attempts, backoff, group_concurrency, group_strict FROM job_types ORDER BY 1;
\set VERBOSITY terse
INSERT INTO alert_sinks (name, kind) VALUES ('x', 'smoke');
\set VERBOSITY default
INSERT INTO alert_sinks (name, kind) VALUES ('x', 'slack');
INSERT INTO alert_sinks (name, kind, endpoint) VALUES ('x', 'log', 'chat');
INSERT INTO alert_sinks (name, kind) VALUES ('x', 'notify');
INSERT INTO alert_sinks (name, kind, channel) VALUES ('x', 'notify', repeat('x', 64));
INSERT INTO alert_sinks (name, kind, channel) VALUES ('x', 'log', '#x');
INSERT INTO alert_sinks (name, kind, endpoint) VALUES (repeat('x', 201), 'webhook', 'pager');
\set VERBOSITY terse
INSERT INTO alert_sinks (name, kind, min_severity) VALUES ('x', 'log', 'fatal');
\set VERBOSITY default
INSERT INTO alert_sinks (name, kind, endpoint) VALUES ('x', 'webhook', 'nowhere');

-- Rules
CREATE FUNCTION try_rule(columns text, vals text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	hint text;
BEGIN
	EXECUTE format('INSERT INTO alert_rules (name, %s) VALUES (''bad'', %s)', columns, vals);
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', sqlstate, message, nullif(hint, ''));
END
$$;
SELECT try_rule(c, v) FROM (VALUES
	(1, 'kind', $$'weather'$$), (2, 'kind, severity', $$'circuit_open', 'fatal'$$), (3, 'kind', $$'consecutive_failures'$$), (4, 'kind', $$'endpoint_down'$$),
	(5, 'kind, threshold', $$'failures', 3$$), (6, 'kind, threshold, period', $$'failures', 64, '121 min'$$), (7, 'kind, threshold', $$'dead_letters', -1$$),
	(8, 'kind, threshold', $$'dead_letters', 'NaN'$$), (9, 'kind, threshold', $$'dead_letters', 10000$$), (10, 'kind, period', $$'backlog_age', '0'$$),
	(11, 'kind, period', $$'backlog_age', '1 month'$$), (12, 'kind, period', $$'backlog_age', '-1 min'$$), (13, 'kind, renotify', $$'circuit_open', '10 ms'$$),
	(14, 'kind, resolve_after', $$'circuit_open', '1 year'$$), (15, 'kind, job_type', $$'circuit_open', NULL$$), (16, 'kind, period, job_type', $$'cron_late', '1 min', 'mail'$$),
	(17, 'kind, subject', $$'circuit_open', 'x'$$), (18, 'kind, error_like', $$'circuit_open', '%'$$), (19, 'kind, sqlstate', $$'dead_letters', '23'$$),
	(20, 'kind, error_like', $$'dead_letters', 'a\'$$), (21, 'kind, sinks', $$'circuit_open', '{nobody}'$$), (22, 'kind, sinks', $$'circuit_open', '{chat,NULL}'$$), (23, 'kind, threshold, period', $$'failure_rate', 20, '5 min'$$),
	(24, 'kind, threshold, period', $$'failure_rate', 0.2, '3 hours'$$), (25, 'kind, threshold, period, stage', $$'failure_rate', 0.2, '1 hour', 'a'$$),
	(26, 'kind, threshold, period, sqlstate', $$'failures', 64, '5 min', '23505'$$)) AS t (n, c, v) ORDER BY n;
DELETE FROM alert_rules;

-- A failure is sent once, and again after renotify; a success ends it.
INSERT INTO alert_rules (name, kind, job_type, threshold, severity, sinks, resolve_after)
	VALUES ('three in a row', 'consecutive_failures', 'al_pay', 3, 'critical', '{chat,pager}', '0');
SELECT attempts('al_pay', 2);
SELECT evaluate();
SELECT attempts('al_pay', 1, 'card declined (P0001)');
SELECT evaluate();
SELECT evaluate();
SELECT attempts('al_pay', 1, 'declined again');
SELECT evaluate('59 minutes');
SELECT evaluate('61 minutes');
SELECT * FROM open_alerts;
SELECT payload - '{started_at,service}'::text[] FROM jobs_queue WHERE job_type = 'alert:pager' ORDER BY id LIMIT 1;
SELECT regexp_replace(regexp_replace(payload::text, 'since 20[-0-9T:Z]+', 'since ...'), '"jobqueue, ', '"') FROM jobs_queue WHERE job_type = 'alert:chat' ORDER BY id LIMIT 1;
SELECT DISTINCT owner::text = current_user AS own, group_key FROM jobs_queue WHERE job_type LIKE 'alert:%';
SELECT attempts('al_pay', 1, NULL);
SELECT evaluate('62 minutes');
SELECT * FROM open_alerts;
SELECT id, rule, notifications, resolved_at - started_at > '1 hour' AS later, resolve_reason FROM alerts;

-- Two rules of one kind, each with a threshold and a severity of its own.
DELETE FROM alerts;
UPDATE alert_rules SET sinks = '{chat}';
INSERT INTO alert_rules (name, kind, job_type, threshold, severity, sinks, resolve_after)
	VALUES ('five in a row', 'consecutive_failures', 'al_pay', 5, 'warning', '{chat}', '0');
SELECT attempts('al_pay', 4);
SELECT evaluate();
SELECT attempts('al_pay', 1);
SELECT evaluate();
SELECT * FROM open_alerts;
-- What comes back before it has been quiet for long enough was not over.
UPDATE alert_rules SET resolve_after = '1 minute' WHERE name = 'three in a row';
SELECT attempts('al_pay', 1, NULL);
SELECT evaluate();
SELECT attempts('al_pay', 3);
SELECT evaluate('10 seconds');
SELECT attempts('al_pay', 1, NULL);
SELECT evaluate('20 seconds');
SELECT evaluate('70 seconds');
SELECT evaluate('81 seconds');
SELECT * FROM open_alerts;
-- What is rolled back was no failure.
BEGIN;
SELECT attempts('al_pay', 3);
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT attempts('al_pay', 3);
ROLLBACK TO s;
SELECT attempts('al_pay', 1);
COMMIT;
SELECT streak, cardinality(failed_at) > 0 AS has_failures FROM _failure_counts() WHERE job_type = 'al_pay' AND stage IS NULL;
-- The row of a type that goes takes its failures along.
INSERT INTO job_types (job_type) VALUES ('al_pay');
DELETE FROM job_types WHERE job_type = 'al_pay';
SELECT count(*) FROM _failure_counts() WHERE job_type = 'al_pay';

-- More than 3 failures within 5 minutes, of all stages and of one.
DELETE FROM alerts;
DELETE FROM alert_rules;
INSERT INTO alert_rules (name, kind, job_type, stage, threshold, period, sinks, resolve_after) VALUES
	('all stages', 'failures', 'al_sync', NULL, 3, '5 minutes', '{chat}', '0'), ('stage b', 'failures', 'al_sync', 'b', 1, '5 minutes', '{chat}', '0');
SELECT attempts('al_sync', 2, 'down', 'a'), attempts('al_sync', 1, 'down', 'b');
SELECT evaluate();
SELECT attempts('al_sync', 1, NULL, 'a'), attempts('al_sync', 1, 'down', 'b');
SELECT evaluate();
SELECT * FROM open_alerts;
SELECT evaluate('4 minutes 50 seconds');
SELECT evaluate('5 minutes 1 second');

-- By what the errors say.
DELETE FROM alerts;
DELETE FROM alert_rules;
INSERT INTO alert_rules (name, kind, job_type, threshold, period, sqlstate, error_like, sinks) VALUES
	('database', 'failures', 'al_db', 0, '5 minutes', '23*', NULL, '{chat}'), ('network', 'failures', 'al_db', 1, '5 minutes', NULL, '%timed out%', '{chat}'),
	('duplicates', 'consecutive_failures', 'al_db', 2, NULL, '23505', '%"orders_key"%', '{chat}'), ('dead', 'dead_letters', 'al_db', 0, NULL, '53*', NULL, '{chat}');
SELECT attempts('al_db', 1, 'deadlock (40P01)'), attempts('al_db', 1, 'it timed out');
SELECT evaluate();
SELECT attempts('al_db', 1, e'duplicate key in "orders_key" (23505)\nDETAIL:  Key (id)=(7) already exists.'), attempts('al_db', 1, 'it timed out, too');
SELECT evaluate();
SELECT attempts('al_db', 1, 'duplicate key in "orders_key" (23505)'), attempts('al_db', 1, 'disk full (53100)');
SELECT evaluate();

-- Many failures, and rates, from history.
DELETE FROM alerts;
DELETE FROM alert_rules;
INSERT INTO alert_rules (name, kind, job_type, threshold, period, sinks, resolve_after) VALUES
	('rate', 'failure_rate', NULL, 0.2, '5 minutes', '{chat}', '0'), ('many', 'failures', 'al_rate', 100, '1 hour', '{chat}', '0');
INSERT INTO job_history (resolution, at, job_type, enqueued, started, succeeded, failed, dead, queued, ready, scheduled, running, dead_letters)
	SELECT resolution, now() - ago, job_type, 0, 0, succeeded, failed, 0, 0, 0, 0, 0, 0 FROM (VALUES
		('10s', interval '10 seconds', 'al_rate', 70, 20), ('10s', '4 minutes', 'al_rate', 9, 1), ('10s', '6 minutes', 'al_rate', 0, 100),
		('1m', '1 minute', 'al_rate', 70, 20), ('1m', '50 minutes', 'al_rate', 0, 81), ('1m', '70 minutes', 'al_rate', 0, 100),
		('10s', '10 seconds', 'al_few', 4, 5), ('10s', '10 seconds', 'al_good', 80, 20)) AS t (resolution, ago, job_type, succeeded, failed);
SELECT evaluate();
SELECT rule, job_type, value FROM open_alerts;
UPDATE job_history SET succeeded = 100 WHERE job_type = 'al_rate' AND resolution = '10s';
SELECT evaluate();
DELETE FROM job_history;

-- Dead letters, in status error or failed: any, more than two of late, those that nobody looks after.
DELETE FROM alerts;
DELETE FROM alert_rules;
DELETE FROM jobs_queue;
INSERT INTO alert_rules (name, kind, job_type, threshold, period, sinks, resolve_after) VALUES
	('any', 'dead_letters', NULL, 0, NULL, '{chat}', '0'), ('growth', 'dead_letters', NULL, 2, '1 hour', '{chat}', '0'),
	('old', 'failed_older_than', 'al_mail', 0, '10 minutes', '{chat}', '0');
INSERT INTO job_types (job_type, dead_letter) VALUES ('al_mail', true);
SELECT attempts('al_mail', 2), attempts('al_post', 1);
SELECT evaluate();
SELECT attempts('al_mail', 1);
SELECT evaluate();
SELECT evaluate('10 minutes 1 second');
SELECT evaluate('60 minutes 1 second');
SELECT * FROM open_alerts;
SELECT requeue_jobs('al_mail'), requeue_jobs('al_post');
SELECT evaluate('60 minutes 2 seconds');
SELECT * FROM open_alerts;

-- What waits: blocked and paused jobs do not, nor does what is under way.
DELETE FROM alerts;
DELETE FROM alert_rules;
DELETE FROM jobs_queue;
INSERT INTO alert_rules (name, kind, period, sinks, resolve_after) VALUES ('late', 'backlog_age', '10 minutes', '{chat}', '0'), ('nobody', 'no_consumer', '5 minutes', '{chat}', '0');
INSERT INTO jobs_queue (job_type, stage, scheduled_at) VALUES ('al_mail', '', now() - interval '6 minutes'), ('al_mail', 'b', now() - interval '11 minutes'),
	('al_post', '', now() - interval '11 minutes'), ('al_post', '', now() - interval '11 minutes'), ('al_held', '', now() - interval '1 hour'), ('al_next', '', now() + interval '1 hour');
SELECT pause_job_type('al_held');
SELECT count(*) FROM claim_jobs(:w1, '{al_post}', 1);
SELECT evaluate();
-- Nobody has asked for more than five minutes.
SELECT evaluate('5 minutes 30 seconds');
SELECT rule, job_type, stage, n FROM open_alerts;
SELECT count(*) FROM claim_jobs(:w1, '{al_mail}', 10);
SELECT evaluate('1 minute');
SELECT rule, job_type, stage, n FROM open_alerts;

-- Circuits, cron tasks
DELETE FROM alerts;
DELETE FROM alert_rules;
DELETE FROM jobs_queue;
INSERT INTO alert_rules (name, kind, period, sinks, resolve_after) VALUES ('circuit', 'circuit_open', NULL, '{chat}', '0'), ('cron', 'cron_late', '5 minutes', '{chat}', '0');
INSERT INTO job_types (job_type, breaker_threshold) VALUES ('al_ship', 2);
SELECT schedule_cron_task('al_nightly', '0 3 * * *', 'al_mail') > 0 AS ok;
UPDATE cron_tasks SET next_run_at = now() - interval '7 minutes 30 seconds' WHERE name = 'al_nightly';
SELECT attempts('al_ship', 2, 'down', 'label');
SELECT count(*) FROM claim_jobs(:w1, '{al_ship}');
SELECT evaluate();
SELECT close_circuit('al_ship');
UPDATE cron_tasks SET enabled = false WHERE name = 'al_nightly';
SELECT evaluate();
SELECT evaluate('61 seconds');
SELECT unschedule_cron_task('al_nightly');

-- A rule that is disabled, deleted or of another kind: its alerts are over. Muted ones are not sent again.
DELETE FROM alerts;
DELETE FROM alert_rules;
SELECT attempts('al_a', 1), attempts('al_b', 1), attempts('al_c', 1), attempts('al_d', 1);
INSERT INTO alert_rules (name, kind, job_type, threshold, severity, sinks, renotify)
	SELECT 'rule ' || t, 'dead_letters', 'al_' || t, 0, 'critical', '{chat,bus}', '1 minute' FROM unnest('{a,b,c,d}'::text[]) t;
SELECT evaluate();
UPDATE alert_rules SET enabled = false WHERE name = 'rule a';
UPDATE alert_rules SET kind = 'circuit_open' WHERE name = 'rule b';
DELETE FROM alert_rules WHERE name = 'rule c';
UPDATE alerts SET muted_until = now() + interval '1 day' WHERE rule = 'rule d';
SELECT evaluate('2 minutes');
SELECT rule, resolve_reason FROM alerts ORDER BY id;
UPDATE alerts SET muted_until = NULL;
SELECT evaluate('2 minutes');

-- Many at once are one message, the worst first.
DELETE FROM alerts;
DELETE FROM alert_rules;
INSERT INTO alert_rules (name, kind, threshold, severity, sinks) VALUES ('storm', 'dead_letters', 0, 'warning', '{chat,pager,bus}'), ('a', 'dead_letters', 0, 'critical', '{pager}');
UPDATE alert_rules SET job_type = 'al_a' WHERE name = 'a';
UPDATE alert_sinks SET min_severity = 'info' WHERE name = 'pager';
SELECT sum(attempts('al_storm' || n, 1)) FROM generate_series(10, 39) n;
SELECT evaluate() ~ '^alert:(chat: 3\d alerts in database contrib_regression\nFIRING \[warning\] storm: .*\nand 1\d more|pager: FIRING al_a: 1 job .*)$' AS is_digest;
SELECT payload->>'event' AS event, (payload->'count')::integer > 30 AS many, payload->>'severity' AS severity, jsonb_array_length(payload->'alerts') AS shown, payload->'alerts'->0->>'rule' AS first, group_key
FROM jobs_queue WHERE job_type = 'alert:pager' ORDER BY id DESC LIMIT 1;

-- What Slack would take for a command is none.
DELETE FROM alerts;
DELETE FROM alert_rules;
INSERT INTO alert_rules (name, kind, job_type, threshold, sinks) VALUES ('<!channel>', 'dead_letters', 'al_<!here>&', 0, '{chat}');
SELECT attempts('al_<!here>&', 1);
SELECT evaluate();

-- A sink without its job type, or without its owner, keeps nobody else from being told.
DELETE FROM alerts;
DELETE FROM alert_rules;
INSERT INTO alert_rules (name, kind, job_type, threshold, sinks) VALUES ('dead', 'dead_letters', 'al_a', 0, '{chat,pager}');
DELETE FROM job_types WHERE job_type = 'alert:chat';
SELECT evaluate();
SELECT status, detail, hint, value, data FROM job_health() WHERE "check" = 'alert_sinks';
SELECT rule, job_type, n FROM open_alerts;
UPDATE alert_sinks SET enabled = true WHERE name = 'chat';
SELECT endpoint FROM job_types WHERE job_type = 'alert:chat';

-- Messages are no jobs that a rule looks at.
DELETE FROM alerts;
UPDATE alert_rules SET job_type = 'alert:chat';
INSERT INTO alert_rules (name, kind, period, sinks) VALUES ('late', 'backlog_age', '1 second', '{chat}');
UPDATE jobs_queue SET status = 'failed' WHERE id = (SELECT max(id) FROM jobs_queue WHERE job_type = 'alert:chat' AND status = 'queued');
SELECT string_agg(DISTINCT job_type, ', ') FROM jobs_queue WHERE status = 'failed' AND job_type LIKE 'alert%';
SELECT count(*) FROM evaluate('1 hour') e WHERE e ~ ' alert:';
UPDATE jobs_queue SET created_at = now() - interval '11 minutes' WHERE id = (SELECT max(id) FROM jobs_queue WHERE job_type = 'alert:pager' AND status = 'queued');
SELECT status, detail FROM job_health() WHERE "check" = 'alert_sinks';
UPDATE alert_sinks SET enabled = false;
SELECT status, detail FROM job_health() WHERE "check" = 'alert_sinks';
UPDATE alert_sinks SET enabled = true;

-- Tests; deleting.
SELECT test_alert_sink('bus') IS NULL AS no_job, test_alert_sink('pager') > 0 AS a_job;
SELECT payload - '{started_at,service}'::text[] FROM jobs_queue WHERE job_type = 'alert:pager' ORDER BY id DESC LIMIT 1;
SELECT test_alert_sink('nobody');
SELECT test_alert_sink(NULL);
DELETE FROM alert_sinks WHERE name = 'chat';
UPDATE alert_rules SET sinks = '{}';
DELETE FROM alert_sinks WHERE name = 'chat';
SELECT count(*) FROM job_types WHERE job_type = 'alert:chat';
SELECT DISTINCT status FROM jobs_queue WHERE job_type = 'alert:chat' ORDER BY 1;
DELETE FROM http_endpoints WHERE name = 'pager';
UPDATE alert_sinks SET name = 'phone' WHERE name = 'pager';
SELECT job_type, endpoint FROM job_types WHERE job_type LIKE 'alert:%';
SELECT _evaluate_alerts('infinity');

-- Defaults: a rule of each kind, and those that are there stay.
DELETE FROM alert_rules;
INSERT INTO alert_rules (name, kind, threshold) VALUES ('dead_letters', 'dead_letters', 100);
SELECT install_default_alerts('{phone}'), install_default_alerts('{phone}');
SELECT name, kind, trim_scale(threshold) AS threshold, period, severity, renotify, sinks FROM alert_rules ORDER BY 1;
SELECT install_default_alerts('{nobody}');
DELETE FROM alert_rules;

-- A table that somebody has locked keeps no other rules from being looked at.
INSERT INTO alert_rules (name, kind, period) VALUES ('late', 'cron_late', '1 minute');
INSERT INTO alert_rules (name, kind, job_type) VALUES ('dead', 'dead_letters', 'al_a');
BEGIN;
LOCK cron_tasks IN ACCESS EXCLUSIVE MODE;
PREPARE TRANSACTION 'regress_alerts';
SET lock_timeout = '100ms';
SELECT _evaluate_alerts() > 0 AS told;
RESET lock_timeout;
ROLLBACK PREPARED 'regress_alerts';
SELECT rule FROM alerts WHERE resolved_at IS NULL;
DELETE FROM alerts;
DELETE FROM alert_rules;

-- Rights
CREATE ROLE regress_alert_op;
CREATE ROLE regress_alert_ob;
SELECT grant_job_role('regress_alert_op', 'operator'), grant_job_role('regress_alert_ob', 'observer');
SET ROLE regress_alert_op;
INSERT INTO http_endpoints (name, url) VALUES ('mine', 'https://hooks.example.com/mine');
INSERT INTO alert_sinks (name, kind, endpoint) VALUES ('mine', 'slack', 'mine');
SELECT install_default_alerts('{mine}');
SELECT _evaluate_alerts() >= 0 AS ok, test_alert_sink('mine') > 0 AS sent;
SELECT test_alert_sink('phone');
INSERT INTO alert_sinks (name, kind, endpoint) VALUES ('theirs', 'webhook', 'pager');
UPDATE alert_sinks SET endpoint = 'mine' WHERE name = 'phone';
-- Messages are believed: nobody else may send one, or have one sent.
INSERT INTO jobs_queue (job_type, group_key) VALUES ('alert:phone', '1');
INSERT INTO jobs_queue (job_type, payload) VALUES ('al_mine', '{"text": "all is well"}');
UPDATE jobs_queue SET job_type = 'alert:phone' WHERE job_type = 'al_mine';
UPDATE jobs_queue SET job_type = 'alert:mine' WHERE job_type = 'al_mine';
UPDATE alerts SET muted_until = now() + interval '1 hour';
UPDATE alerts SET summary = '';
DELETE FROM alerts;
SET ROLE regress_alert_ob;
SELECT count(*) >= 0 AS ok FROM alerts;
SELECT count(*) FROM alert_rules;
SELECT count(*) FROM alert_sinks;
SELECT _evaluate_alerts();
RESET ROLE;
BEGIN READ ONLY;
SELECT _evaluate_alerts();
ROLLBACK;

DELETE FROM alert_rules;
DELETE FROM alert_sinks;
DELETE FROM alerts;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
DELETE FROM http_endpoints;
DELETE FROM queue_events;
DROP OWNED BY regress_alert_op, regress_alert_ob;
DROP ROLE regress_alert_op, regress_alert_ob;
DROP VIEW open_alerts;
DROP FUNCTION attempts, evaluate, try_rule;
