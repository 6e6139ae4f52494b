--
-- What the dashboard shows and does: _dashboard_get() and _dashboard_act()
--
SET client_min_messages = warning;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
DELETE FROM cron_tasks;
DELETE FROM monitor_actions;
\set SHOW_CONTEXT never
\set w1 '''11111111-0000-4000-8000-000000000001'''
CREATE ROLE regress_operator;
CREATE ROLE regress_observer;
SELECT grant_job_role('regress_operator', 'operator'), grant_job_role('regress_observer', 'observer');

-- 130 queued, 60 failed, 70 dead letters with errors to tell apart, 5 completed
INSERT INTO job_types (job_type, dead_letter) VALUES ('mail', true);
SELECT count(*) FROM enqueue_jobs('mail', array_fill('{"secret": 1}'::jsonb, '{75}'), max_attempts => 1);
SELECT count(*) FROM enqueue_jobs('push', array_fill('{"secret": 2}'::jsonb, '{60}'), max_attempts => 1, correlation_id => 'flow-1');
WITH held AS (SELECT id, row_number() OVER (ORDER BY id) AS n FROM claim_jobs(:w1, '{mail}', 100))
SELECT count(*) FILTER (WHERE n <= 5 AND complete_job(id, :w1, '{"secret": 3}')) AS completed,
	count(*) FILTER (WHERE n > 5 AND fail_job(id, :w1, 'error no. ' || n % 10)) AS dead FROM held;
WITH held AS (SELECT id FROM claim_jobs(:w1, '{push}', 100))
SELECT count(*) FILTER (WHERE fail_job(id, :w1, 'gone')) AS failed FROM held;
SELECT count(*) FROM enqueue_jobs('mail', array_fill('{}'::jsonb, '{130}'));
UPDATE jobs_queue SET scheduled_at = now() + interval '1 hour' WHERE status = 'queued' AND id % 2 = 0;

-- All of a filter, page by page, and none twice.
CREATE FUNCTION regress_walk(filter jsonb, OUT pages integer, OUT jobs integer, OUT ids integer, OUT states text) LANGUAGE plpgsql AS $$
DECLARE
	after jsonb;
	page jsonb;
	seen bigint[] := '{}';
	met text[] := '{}';
BEGIN
	pages := 0;
	LOOP
		page := _dashboard_get('/api/jobs', filter || CASE WHEN after IS NULL THEN '{}' ELSE jsonb_build_object('after', after::text) END);
		seen := seen || ARRAY(SELECT (j->>'id')::bigint FROM jsonb_array_elements(page->'jobs') j);
		met := met || ARRAY(SELECT DISTINCT j->>'state' FROM jsonb_array_elements(page->'jobs') j);
		pages := pages + 1;
		after := nullif(page->'next', 'null');
		EXIT WHEN after IS NULL OR pages > 20;
	END LOOP;
	jobs := cardinality(seen);
	ids := (SELECT count(DISTINCT s) FROM unnest(seen) s);
	states := (SELECT string_agg(DISTINCT m, ',' ORDER BY m) FROM unnest(met) m);
END
$$;
SELECT f AS filter, w.* FROM unnest(ARRAY['{}', '{"status": "queued"}', '{"status": "ready"}', '{"status": "scheduled"}',
	'{"status": "queued", "job_type": "mail"}', '{"status": "ready", "job_type": "mail"}', '{"status": "running"}', '{"status": "failed"}',
	'{"status": "error"}', '{"status": "dead_letters"}', '{"status": "dead_letters", "job_type": "mail"}', '{"job_type": "push"}',
	'{"status": "error", "error_like": "error no. 1%"}', '{"correlation_id": "flow-1"}', '{"correlation_id": "flow-2"}',
	'{"status": "completed"}', '{"status": "cancelled"}', '{"status": "queued", "job_type": "none"}']::jsonb[]) f, regress_walk(f) w;
-- the order of claims, and the latest end first
SELECT array_agg(j->'id' ORDER BY n) = ARRAY(SELECT to_jsonb(id) FROM jobs_queue WHERE status = 'queued' ORDER BY stage, priority, scheduled_at, id LIMIT 50) AS claims
FROM jsonb_array_elements(_dashboard_get('/api/jobs', '{"status": "queued", "job_type": "mail"}')->'jobs') WITH ORDINALITY AS x (j, n);
SELECT array_agg(j->'id' ORDER BY n) = ARRAY(SELECT to_jsonb(id) FROM jobs_queue WHERE status IN ('error', 'failed') ORDER BY updated_at DESC, id DESC LIMIT 50) AS ends
FROM jsonb_array_elements(_dashboard_get('/api/jobs', '{"status": "dead_letters"}')->'jobs') WITH ORDINALITY AS x (j, n);
SELECT _dashboard_get('/api/count', '{"status": "dead_letters"}')->'jobs' AS all_of_them,
	_dashboard_get('/api/count', '{"status": "error", "job_type": "mail", "error_like": "error no. 1%"}')->'jobs' AS some,
	_dashboard_get('/api/count', '{"status": "error", "before": "2020-01-01T00:00:00Z"}')->'jobs' AS none;

-- What is asked wrongly is an error of its own, what is not there is null.
SELECT _dashboard_get('/api/nothing') IS NULL AS unknown, _dashboard_get('/') IS NULL AS root, _dashboard_get('/api/payload', '{"id": "999999999"}') IS NULL AS no_job;
\set VERBOSITY terse
SELECT _dashboard_get('/api/jobs', '{"status": "odd"}');
SELECT _dashboard_get('/api/jobs', '{"colour": "red"}');
SELECT _dashboard_get('/api/jobs', '{"after": "[1, 2, 3]"}');
SELECT _dashboard_get('/api/jobs', '{"after": "[\"x\"]"}');
SELECT _dashboard_get('/api/jobs', '{"after": "[nonsense]"}');
SELECT _dashboard_get('/api/jobs', '{"status": "error", "after": "[\"2020-01-01 00:00:00+00''; SELECT 1; --\", 1]"}');
SELECT _dashboard_get('/api/job', '{"id": "1 OR true"}');
SELECT _dashboard_get('/api/count', '{"status": "error", "before": "2020-13-01T00:00:00Z"}');
SELECT _dashboard_get('/api/history', '{"range": "1y"}');
SELECT _dashboard_get('/api/jobs', '[]');
SELECT _dashboard_get('/api/jobs', NULL);
\set VERBOSITY default

-- Every page for both roles; an observer gets no payload, no error, no audit.
SELECT schedule_cron_task('nightly', '30 2 * * *', 'mail', '{"secret": 4}', timezone => 'Europe/Berlin') > 0 AS ok;
INSERT INTO http_endpoints (name, url) VALUES ('receiver', 'http://127.0.0.1/secret');
SELECT open_circuit('mail', 'send', reason => 'maintenance');
CREATE FUNCTION regress_pages() RETURNS TABLE (path text, keys text, tells boolean) LANGUAGE plpgsql AS $$
DECLARE
	page jsonb;
	id text := (SELECT min(q.id)::text FROM jobs_queue q WHERE q.status = 'error');
	query jsonb;
BEGIN
	FOR path, query IN VALUES ('session', '{}'::jsonb), ('overview', '{}'), ('history', '{"range": "3h", "job_type": "mail"}'), ('types', '{}'),
		('type', '{"name": "mail"}'), ('jobs', '{}'), ('jobs', '{"status": "dead_letters"}'), ('job', jsonb_build_object('id', id)),
		('payload', jsonb_build_object('id', id)), ('cron', '{}'), ('cron-task', '{"name": "nightly"}'), ('workers', '{}'),
		('endpoints', '{}'), ('circuits', '{}'), ('health', '{}'), ('actions', '{}')
	LOOP
		page := _dashboard_get('/api/' || path, query);
		keys := (SELECT string_agg(k, ' ' ORDER BY k COLLATE "C") FROM jsonb_object_keys(page) k WHERE k NOT IN ('now', 'dead_letters_in_all'));
		tells := page::text ~ 'secret|error no';
		RETURN NEXT;
	END LOOP;
END
$$;
GRANT EXECUTE ON FUNCTION regress_pages TO regress_operator, regress_observer;
SET ROLE regress_operator;
SELECT * FROM regress_pages();
SET ROLE regress_observer;
SELECT * FROM regress_pages();
SELECT _dashboard_act('pause_workers');
SELECT last_error FROM jobs_queue;
SELECT payload FROM jobs_queue;
SELECT error FROM job_runs;
SELECT count(*) FROM monitor_actions;
RESET ROLE;

-- Actions: one, many, all of a filter; each is written down.
SET ROLE regress_operator;
SELECT _dashboard_act('pause_job_types', '{"items": ["mail", "push"], "reason": "tired"}', '10.0.0.1');
SELECT _dashboard_act('pause_job_types', '{"items": ["mail"]}');
SELECT job_type, enabled, pause_reason FROM job_type_status WHERE job_type IN ('mail', 'push') ORDER BY 1;
SELECT _dashboard_act('resume_job_types', '{"items": ["mail", "push"]}');
SELECT _dashboard_act('throttle_job_types', '{"items": ["mail"], "delay": "5 minutes"}'), _dashboard_act('throttle_job_types', '{"items": ["mail"], "delay": "0"}');
SELECT _dashboard_act('limit_job_types', '{"items": ["mail", "new"], "max_concurrency": 3, "rate_max": "10", "rate_window": "1 minute", "breaker_threshold": 5}');
SELECT _dashboard_act('limit_job_types', '{"items": ["mail"], "max_concurrency": null}');
SELECT job_type, max_concurrency, rate_max, rate_window, breaker_threshold FROM job_types ORDER BY 1;
SELECT _dashboard_act('open_circuits', '{"items": ["mail", "push"], "duration": "1 hour"}'), _dashboard_act('close_circuits', '{"items": ["mail", "push"]}');
SELECT _dashboard_act('requeue_matching', '{"status": "error", "job_type": "mail", "error_like": "error no. 1%", "max_jobs": 5}');
SELECT _dashboard_act('requeue_matching', '{"status": "dead_letters", "before": "2020-01-01T00:00:00Z"}');
SELECT _dashboard_act('purge_matching', '{"status": "failed", "max_jobs": 50}'), _dashboard_act('purge_matching', '{"status": "failed"}');
SELECT _dashboard_act('cancel_matching', '{"status": "queued", "job_type": "mail", "max_jobs": 100, "reason": "not wanted"}');
SELECT status, last_error, count(*) FROM jobs_queue WHERE last_error IS NULL OR last_error = 'not wanted' GROUP BY 1, 2 ORDER BY 1, 2;
SELECT _dashboard_act('requeue_jobs', jsonb_build_object('items', jsonb_agg(id))) FROM (SELECT id FROM jobs_queue WHERE status = 'error' ORDER BY id LIMIT 3) j;
SELECT _dashboard_act('requeue_jobs', jsonb_build_object('items', jsonb_build_array(min(id), 999999999))) - 'errors' FROM jobs_queue WHERE status = 'error';
SELECT _dashboard_act('requeue_jobs', '{"items": [999999999]}');
SELECT _dashboard_act('hurry_jobs', jsonb_build_object('items', jsonb_agg(id))) FROM jobs_queue WHERE status = 'queued' AND scheduled_at > now();
SELECT _dashboard_act('cancel_jobs', jsonb_build_object('items', jsonb_build_array(min(id)))) FROM jobs_queue WHERE status = 'queued';
SELECT _dashboard_act('purge_jobs', jsonb_build_object('items', jsonb_build_array(min(id) FILTER (WHERE status = 'error'), min(id) FILTER (WHERE status = 'queued')))) FROM jobs_queue;
SELECT _dashboard_act('run_cron_tasks', '{"items": ["nightly"]}') #- '{answers,0,answer}';
SELECT _dashboard_act('pause_cron_tasks', '{"items": ["nightly"], "reason": "holidays"}'), _dashboard_act('resume_cron_tasks', '{"items": ["nightly"]}');
SELECT _dashboard_act('run_cron_tasks', '{"items": ["no such task"]}')->>'error' AS error;
SELECT _dashboard_act('stop_workers', '{"items": ["11111111-0000-4000-8000-000000000001"], "reason": "deployment"}');
SELECT _dashboard_act('enable_endpoints', '{"items": ["receiver"], "enabled": false}');
SELECT _dashboard_act('pause_workers', '{"reason": "upgrade"}'), _dashboard_act('resume_workers'), _dashboard_act('resume_workers');
RESET ROLE;
INSERT INTO alert_rules (name, kind, threshold) VALUES ('regress', 'dead_letters', 5);
INSERT INTO alerts (rule, kind, severity, value, threshold, sinks, summary, started_at, notified_at)
	VALUES ('regress', 'dead_letters', 'warning', 6, 5, '{}', 'too many', now(), now());
SET ROLE regress_operator;
SELECT _dashboard_act('mute_alerts', jsonb_build_object('items', jsonb_build_array((SELECT max(id) FROM alerts)), 'delay', '1 hour')) - 'more';
SELECT a->'rule' AS rule, (a->>'muted_until')::timestamptz > now() AS is_muted FROM jsonb_array_elements(_dashboard_get('/api/alerts')->'open') a;
SELECT _dashboard_act('mute_alerts', jsonb_build_object('items', jsonb_build_array((SELECT max(id) FROM alerts)), 'delay', '0')) - 'more';
SELECT rule, muted_until FROM alerts;
SELECT _dashboard_act('enable_alert_rules', '{"items": ["regress"], "enabled": false}');
SELECT name, enabled FROM alert_rules WHERE name = 'regress';
-- a schema of another name
RESET ROLE;
SELECT n.nspname AS schema FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'jobqueue' \gset
BEGIN;
ALTER SCHEMA :"schema" RENAME TO "odd'; schema";
SELECT "odd'; schema"._dashboard_get('/api/overview') IS NOT NULL AS overview, jsonb_array_length("odd'; schema"._dashboard_get('/api/jobs')->'jobs') AS jobs,
	"odd'; schema"._dashboard_get('/api/session')->'can_act' AS can_act, "odd'; schema"._dashboard_act('pause_job_types', '{"items": ["mail"]}')->'done' AS done;
ROLLBACK;
SET ROLE regress_operator;
-- what is wrong is returned, and written down, too
SELECT _dashboard_act('drop_everything', '{"items": [1]}');
SELECT _dashboard_act('requeue_jobs', '{"items": ["1; DROP TABLE jobs_queue"]}');
SELECT _dashboard_act('requeue_jobs', '{"items": []}')->>'error' AS error, _dashboard_act('requeue_jobs', '{}')->>'error' AS error,
	_dashboard_act('requeue_jobs', '{"items": [{"id": 1}]}')->>'error' AS error, _dashboard_act('requeue_jobs', '[]')->>'error' AS error,
	_dashboard_act(NULL)->>'error' AS error, _dashboard_act('pause_workers', NULL)->>'error' AS error;
SELECT _dashboard_act('pause_workers', '{"payload": {"secret": 5}}');
SELECT _dashboard_act('limit_job_types', '{"items": ["mail"], "rate_max": "1); DROP TABLE jobs_queue; --"}')->>'error' AS error;
SELECT _dashboard_act('limit_job_types', '{"items": ["mail"], "owner": "postgres"}')->>'error' AS error;
SELECT _dashboard_act('limit_job_types', '{"items": ["mail"], "max_concurrency": -1}')->>'error' AS error;
SELECT _dashboard_act('requeue_matching', '{"job_type": "mail"}')->>'error' AS error, _dashboard_act('cancel_matching', '{"status": "running"}')->>'error' AS error;
SELECT _dashboard_act('purge_matching', '{"status": "queued"}')->>'error' AS error;

SELECT role, client, action, CASE WHEN action ~ '_jobs$|^mute' THEN arguments - 'items' ELSE arguments END AS arguments, outcome, result, error FROM monitor_actions ORDER BY id;
SELECT _dashboard_get('/api/actions')->'actions'->0->>'error' AS latest;
-- nobody but the owner of the tables changes what is written
UPDATE monitor_actions SET outcome = 'done';
DELETE FROM monitor_actions;
INSERT INTO monitor_actions (role, action, outcome) VALUES ('somebody', 'x', 'done');
RESET ROLE;

-- its functions have subtransactions, which no parallel query may
SELECT set_config(name, 'on', false) AS parallel FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SELECT _dashboard_get('/api/health') ? 'health' AS health, _dashboard_get('/api/jobs', '{"after": "[1]"}') ? 'jobs' AS jobs;
SELECT set_config(name, 'off', false) AS parallel FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');

-- also what escapes from most handlers is on record
CREATE FUNCTION regress_assert() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ASSERT false, 'it is not so'; END $$;
CREATE TRIGGER regress_assert BEFORE UPDATE ON job_types FOR EACH ROW EXECUTE FUNCTION regress_assert();
SELECT _dashboard_act('pause_job_types', '{"items": ["mail"]}')->>'sqlstate' AS sqlstate;
SELECT action, outcome, error FROM monitor_actions ORDER BY id DESC LIMIT 1;
DROP TRIGGER regress_assert ON job_types;
DROP FUNCTION regress_assert;

-- what a client of the monitor is told of them
SET ROLE regress_operator;
SELECT a.action, p.status, p.body_text::jsonb->>'code' AS code, p.body_text::jsonb->>'error' AS error
FROM (VALUES (1, 'resume_job_types', '{"items": ["mail"]}'), (2, 'requeue_jobs', '{"items": [1, 999999999]}'),
		(3, 'requeue_jobs', '{"items": [999999999]}'), (4, 'nothing', '{}'), (5, 'resume_job_types', '{}')) AS a (n, action, arguments),
	monitor_post('/api/actions/' || a.action, a.arguments::jsonb, '127.0.0.1') p
ORDER BY a.n;
RESET ROLE;

-- a long list, as far as an audit needs it
SELECT jsonb_array_length(a->'items') AS items, a->'item_count' AS item_count, length(a->>'reason') AS reason, a ? 'payload' AS payload
FROM _dashboard_shorten(jsonb_build_object('items', (SELECT jsonb_agg(n) FROM generate_series(1, 1000) n), 'reason', repeat('x', 9000), 'payload', 1)) a;
SELECT _dashboard_shorten('{"reason": 1e9999, "max_jobs": 12}');


DROP FUNCTION regress_pages, regress_walk;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
DELETE FROM cron_tasks;
DELETE FROM http_endpoints;
DELETE FROM job_circuits;
DELETE FROM worker_stops;
DELETE FROM monitor_actions;
DELETE FROM alerts;
DELETE FROM alert_rules;
DROP OWNED BY regress_operator, regress_observer;
DROP ROLE regress_operator, regress_observer;
