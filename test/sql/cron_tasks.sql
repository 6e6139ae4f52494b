-- Cron tasks: rows that become jobs.
\set SHOW_CONTEXT never
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
ALTER SEQUENCE cron_tasks_id_seq RESTART;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
CREATE ROLE regress_alice;
CREATE ROLE regress_bob;
SET client_min_messages = warning;
SELECT grant_job_role('regress_alice', 'operator'), grant_job_role('regress_bob', 'operator');
RESET client_min_messages;

-- What a task looks like; the plan is the next instant after now.
CREATE VIEW pg_temp.task AS
	SELECT id, name, schedule, timezone, job_type, payload, priority AS prio, max_attempts AS att, stage,
		enabled AS on, next_run_at > now() AND next_run_at <= now() + interval '1 day' AS planned,
		last_job_id AS job, disabled_reason AS reason
	FROM cron_tasks ORDER BY id;
SELECT schedule_cron_task('nightly', '30 2 * * *', 'report');
SELECT schedule_cron_task(name => 'often', schedule => 'every 30 seconds', job_type => 'poll',
	payload => '{"n": 1}', timezone => 'Europe/Berlin', priority => -5, max_attempts => 2,
	stage => 'first', enabled => false, description => 'often enough');
SELECT schedule_cron_task('nulls', '@daily', 'report', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
SELECT * FROM pg_temp.task;
SELECT name, owner = current_user::regrole AS mine, description, last_enqueued_at FROM cron_tasks ORDER BY id;

-- A second call replaces all but the id, the owner and the creation.
SELECT schedule_cron_task('often', '@every 10m', 'poll');
SELECT * FROM pg_temp.task WHERE name = 'often';
SELECT next_run_at - now() BETWEEN interval '9 min' AND interval '10 min' AS in_ten FROM cron_tasks WHERE name = 'often';
SELECT next_run_at::time AS at FROM cron_tasks WHERE name = 'nightly';

-- The same schedule keeps its plan; another one, or another zone, replans.
UPDATE cron_tasks SET next_run_at = next_run_at + interval '1 day' WHERE name = 'nightly';
SELECT schedule_cron_task('nightly', '30 2 * * *', 'report', priority => 3);
SELECT next_run_at > now() + interval '1 day' AS kept FROM cron_tasks WHERE name = 'nightly';
UPDATE cron_tasks SET timezone = 'Asia/Kolkata' WHERE name = 'nightly';
SELECT next_run_at::time AS at, next_run_at < now() + interval '1 day' AS replanned FROM cron_tasks WHERE name = 'nightly';
UPDATE cron_tasks SET schedule = '45 2 * * *' WHERE name = 'nightly';
SELECT next_run_at::time AS at FROM cron_tasks WHERE name = 'nightly';
UPDATE cron_tasks SET enabled = false WHERE name = 'nightly';
SELECT enabled, next_run_at FROM cron_tasks WHERE name = 'nightly';
UPDATE cron_tasks SET next_run_at = '2001-01-01' WHERE name = 'nightly';
SELECT enabled, next_run_at FROM cron_tasks WHERE name = 'nightly';
UPDATE cron_tasks SET enabled = true WHERE name = 'nightly';
SELECT next_run_at::time AS at FROM cron_tasks WHERE name = 'nightly';
UPDATE cron_tasks SET next_run_at = NULL WHERE name = 'nightly';
SELECT next_run_at::time AS at FROM cron_tasks WHERE name = 'nightly';
UPDATE cron_tasks SET next_run_at = 'infinity' WHERE name = 'nightly';
SELECT next_run_at::time AS at FROM cron_tasks WHERE name = 'nightly';
UPDATE cron_tasks SET next_run_at = '-infinity' WHERE name = 'nightly';
SELECT next_run_at::time AS at FROM cron_tasks WHERE name = 'nightly';
SELECT unschedule_cron_task('nightly'), unschedule_cron_task('nightly'), unschedule_cron_task('often'), unschedule_cron_task('nulls');
SELECT count(*) FROM cron_tasks;

-- The table by plain SQL.
ALTER SEQUENCE cron_tasks_id_seq RESTART;
INSERT INTO cron_tasks (name, schedule, job_type) VALUES ('plain', '0 0 * * *', 'report') RETURNING id, owner = current_user::regrole AS mine, enabled, next_run_at::time;
INSERT INTO cron_tasks (name, schedule, job_type, enabled) VALUES ('later', '0 0 * * *', 'report', false) RETURNING enabled, next_run_at;
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at) VALUES ('given', '0 0 * * *', 'report', '2020-01-01 00:00+00') RETURNING next_run_at;
INSERT INTO cron_tasks (name, schedule, job_type) VALUES ('plain', '0 0 * * *', 'report');
INSERT INTO cron_tasks (name, schedule, job_type) VALUES ('wrong', '0 0 * *', 'report');
INSERT INTO cron_tasks (name, schedule, job_type) VALUES ('', '0 0 * * *', 'report');
INSERT INTO cron_tasks (name, schedule, job_type) VALUES ('x', '0 0 * * *', E'a\nb');
\set VERBOSITY terse
INSERT INTO cron_tasks (name, schedule, job_type) VALUES (NULL, '0 0 * * *', 'report');
\set VERBOSITY default
INSERT INTO cron_tasks (name, schedule, job_type, timezone) VALUES ('x', '0 0 * * *', 'report', 'Mars/Olympus');
UPDATE cron_tasks SET schedule = '61 * * * *' WHERE name = 'plain';
UPDATE cron_tasks SET timezone = 'Nowhere' WHERE name = 'plain';
UPDATE cron_tasks SET schedule = '0 0 31 2 *' WHERE name = 'plain';
UPDATE cron_tasks SET job_type = '' WHERE name = 'plain';
\set VERBOSITY terse
UPDATE cron_tasks SET enabled = NULL WHERE name = 'plain';
\set VERBOSITY default
SELECT name, schedule, timezone, enabled FROM cron_tasks ORDER BY name;
WITH gone AS (DELETE FROM cron_tasks RETURNING name) SELECT * FROM gone ORDER BY name;

-- A missed instant becomes one job, the latest; the next is planned.
SELECT schedule_cron_task('hourly', '0 * * * *', 'tick', '{"a": 1}', priority => 7, max_attempts => 2, stage => 's') > 0 AS ok;
SELECT enqueue_cron_tasks() AS not_yet;
UPDATE cron_tasks SET next_run_at = date_trunc('hour', now()) - interval '90 hours';
SELECT enqueue_cron_tasks() AS one, enqueue_cron_tasks() AS none;
SELECT q.id, q.job_type, q.payload, q.priority, q.max_attempts, q.stage, q.status, q.attempts,
	q.cron_instant = date_trunc('hour', t.last_enqueued_at) AS latest,
	q.scheduled_at = q.cron_instant AS due_then, t.next_run_at = q.cron_instant + interval '1 hour' AS next,
	t.last_job_id = q.id AS last, q.cron_task_id = t.id AS of_task, q.owner = t.owner AS same_owner,
	q.unique_key, q.correlation_id
FROM jobs_queue q, cron_tasks t ORDER BY q.id;
SELECT name, last_job_status, owner = current_user::regrole AS mine FROM cron_overview;

-- An earlier instant that nobody enqueued is enqueued as it was planned.
DELETE FROM jobs_queue;
UPDATE cron_tasks SET schedule = '0 0 29 2 *';
UPDATE cron_tasks SET next_run_at = '2020-02-29 00:00+00';
SELECT enqueue_cron_tasks();
SELECT cron_instant, t.next_run_at FROM jobs_queue, cron_tasks t;
UPDATE cron_tasks SET next_run_at = '1999-01-01 00:00+00', schedule = '0 0 1 1 *';
UPDATE cron_tasks SET next_run_at = '1999-01-01 00:00+00';
SELECT enqueue_cron_tasks();
SELECT extract(day FROM cron_instant) AS day, extract(month FROM cron_instant) AS month, cron_instant > now() - interval '367 days' AS latest
FROM jobs_queue ORDER BY id DESC LIMIT 1;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- Zones: the same schedule at other instants; a missing hour, a double hour.
SELECT count(schedule_cron_task('z' || n, '30 2 * * *', 'tick', timezone => zone))
FROM (VALUES (1, 'UTC'), (2, 'Europe/Berlin'), (3, 'America/New_York'), (4, 'Asia/Kathmandu')) z(n, zone);
UPDATE cron_tasks SET next_run_at = cron_next FROM (
	SELECT t.id, (SELECT r FROM cron_next_runs(t.schedule, t.timezone, '2024-03-30 12:00+00', 1) r) AS cron_next
	FROM cron_tasks t) n WHERE n.id = cron_tasks.id;
SELECT timezone, next_run_at FROM cron_tasks ORDER BY name;
SELECT enqueue_cron_tasks() AS each_one;
SELECT t.timezone, (q.cron_instant AT TIME ZONE t.timezone)::time AS at, t.next_run_at > now() AS planned
FROM jobs_queue q JOIN cron_tasks t ON t.id = q.cron_task_id ORDER BY t.name;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- Intervals are anchored on the plan, however late they are noticed.
SELECT schedule_cron_task('steady', 'every 7 minutes', 'tick') > 0 AS ok;
UPDATE cron_tasks SET next_run_at = now() - interval '20 minutes';
CREATE TEMP TABLE plan AS SELECT next_run_at AS planned FROM cron_tasks;
SELECT enqueue_cron_tasks();
SELECT q.cron_instant - p.planned AS latest, t.next_run_at - p.planned AS next
FROM jobs_queue q, cron_tasks t, plan p;
DROP TABLE plan;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- SQL tasks: the command is checked when it is written and runs as its owner.
SELECT schedule_sql('vacuum', '@hourly', 'VACUUM') > 0 AS ok;
SELECT schedule_sql('cleanup', '*/5 * * * *', 'DELETE FROM t WHERE x < $1', payload => '{"days": 3}', timezone => 'UTC',
	priority => 1, max_attempts => 4, enabled => false, description => 'old rows') > 0 AS ok;
SELECT job_type, payload, priority, max_attempts, enabled, description FROM cron_tasks ORDER BY name;
SELECT schedule_sql('wrong', '@hourly', 'SELEC 1');
SELECT schedule_sql('wrong', '@hourly', 'COPY t TO STDOUT');
SELECT schedule_sql('wrong', '@hourly', '  -- nothing');
SELECT schedule_cron_task('wrong', '@hourly', 'sql', '{"n": 1}');
SELECT schedule_cron_task('wrong', '@hourly', 'sql', '{"command": "SELEC 1"}');
SELECT name FROM cron_tasks ORDER BY name;
UPDATE cron_tasks SET next_run_at = now() - interval '1 hour', enabled = true WHERE name = 'cleanup';
UPDATE cron_tasks SET next_run_at = now() - interval '1 hour' WHERE name = 'cleanup';
SELECT enqueue_cron_tasks();
SELECT job_type, payload, status, owner = current_user::regrole AS mine FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- What is wrong with one task disables it, with the reason; the others go on.
CREATE ROLE regress_gone;
SELECT count(schedule_cron_task(n, '@hourly', 'tick')) FROM unnest('{a good,c no zone,d no owner,e no schedule,f bad type,g bad number,z good}'::text[]) n;
SELECT schedule_sql('b no command', '@hourly', 'SELECT 1') > 0 AS ok;
UPDATE cron_tasks SET payload = '{"command": 1}' WHERE name = 'b no command';
UPDATE cron_tasks SET owner = 'regress_gone' WHERE name = 'd no owner';
UPDATE cron_tasks SET max_attempts = 0 WHERE name = 'g bad number';
UPDATE cron_tasks SET payload = jsonb_build_object('x', repeat('x', 2000000)) WHERE name = 'f bad type';
DROP ROLE regress_gone;
-- Zones and schedules go stale when the server's files change.
ALTER TABLE cron_tasks DISABLE TRIGGER guard;
UPDATE cron_tasks SET timezone = 'Mars/Olympus' WHERE name = 'c no zone';
UPDATE cron_tasks SET schedule = 'never' WHERE name = 'e no schedule';
UPDATE cron_tasks SET next_run_at = now() - interval '1 hour';
ALTER TABLE cron_tasks ENABLE TRIGGER guard;
SELECT enqueue_cron_tasks();
SELECT name, enabled AS on, next_run_at > now() AS planned, last_job_id IS NOT NULL AS ran, disabled_reason FROM cron_tasks ORDER BY name;
SELECT count(*) FROM jobs_queue;
SELECT enqueue_cron_tasks();

-- Repaired and enabled, a task forgets the reason.
UPDATE cron_tasks SET description = 'still off' WHERE name = 'c no zone';
SELECT enabled, disabled_reason FROM cron_tasks WHERE name = 'c no zone';
UPDATE cron_tasks SET enabled = true WHERE name = 'c no zone';
UPDATE cron_tasks SET enabled = true, timezone = 'UTC' WHERE name = 'c no zone';
SELECT enabled, next_run_at > now() AS planned, disabled_reason FROM cron_tasks WHERE name = 'c no zone';
UPDATE cron_tasks SET owner = current_user::regrole, enabled = true WHERE name = 'd no owner';
SELECT enabled, next_run_at > now() AS planned, disabled_reason FROM cron_tasks WHERE name = 'd no owner';
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- The job belongs to the owner of the task, whoever enqueues it.
SET ROLE regress_alice;
SELECT schedule_cron_task('alices', '@daily', 'tick') > 0 AS ok;
UPDATE cron_tasks SET next_run_at = now() - interval '1 minute' WHERE name = 'alices';
SET ROLE regress_bob;
SELECT enqueue_cron_tasks();
SELECT owner FROM jobs_queue ORDER BY id;
RESET ROLE;
DELETE FROM jobs_queue;

-- Rolled back, nothing has happened; the instant is enqueued by the next call.
UPDATE cron_tasks SET next_run_at = date_trunc('day', now()) - interval '5 days' WHERE name = 'alices';
BEGIN;
SELECT enqueue_cron_tasks();
ROLLBACK;
SELECT count(*) FROM jobs_queue;
SELECT enqueue_cron_tasks();
SELECT count(*) FROM jobs_queue;

-- It is a job like any other.
SELECT id > 0 AS claimed, job_type FROM claim_next_job('11111111-1111-1111-1111-111111111111', 'tick');

-- Fifteen hundred due tasks: a call takes a thousand, the next the rest.
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at)
SELECT 'many ' || n, '0 0 1 1 *', 'many', '2024-01-01 00:00+00' FROM generate_series(1, 1500) n;
SELECT enqueue_cron_tasks(), enqueue_cron_tasks(), enqueue_cron_tasks();
SELECT count(DISTINCT cron_task_id) FROM jobs_queue WHERE job_type = 'many';

DELETE FROM jobs_queue;
DELETE FROM cron_tasks;
DELETE FROM job_runs;
DROP OWNED BY regress_alice, regress_bob;
DROP ROLE regress_alice, regress_bob;
