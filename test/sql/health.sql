-- job_health(): each check that needs no other process is made to complain, and
-- to be content again. The others are in test/t/145_health.pl.
\set SHOW_CONTEXT never
CREATE DATABASE jobqueue_health TEMPLATE template0;
\c jobqueue_health
SET client_min_messages = warning;
SET intervalstyle = iso_8601;
CREATE SCHEMA jobs;
CREATE EXTENSION jobqueue SCHEMA jobs;
ALTER SCHEMA jobs RENAME TO work;
SET search_path = work;
CREATE TEMP VIEW problems AS
	SELECT "check", status, regexp_replace(detail, '\m\d+ s\M', '? s') AS detail, hint FROM job_health() WHERE status <> 'ok';
\set VERBOSITY terse

-- All is well where nothing is; the server of these tests starts no worker.
SELECT "check", status, detail, hint FROM job_health();
SELECT count(*) AS checks, count(value) AS with_value, count(data) AS with_data FROM job_health();

-- queue
SELECT pause_workers('migration');
SELECT * FROM problems;
SELECT resume_workers();
SELECT pause_workers();
SELECT * FROM problems;
SELECT resume_workers();
INSERT INTO database_identity (system_identifier, database) VALUES (0, 0);
SELECT * FROM problems;
SELECT activate_jobs();
SELECT * FROM problems;

-- launcher: off is right while nobody needs it.
SELECT enqueue_sql('SELECT 1', scheduled_at => now() + interval '1 day') > 0 AS enqueued;
SELECT * FROM problems;
DELETE FROM jobs_queue;
INSERT INTO job_types (job_type, runner, command) VALUES ('report', 'sql', 'SELECT 1');
SELECT * FROM problems;
SELECT enqueue_job('report', scheduled_at => now() + interval '1 day') > 0 AS enqueued;
SELECT * FROM problems;
DELETE FROM jobs_queue;
DELETE FROM job_types;
SELECT * FROM problems;

-- job_types
SELECT pause_job_type('mail', 'relay is down');
SELECT pause_job_type(t) FROM unnest('{a,b,c,d,e}'::text[]) t;
SELECT * FROM problems;
SELECT value, jsonb_array_length(data) AS paused, data->0->>'job_type' AS first, data->0 ? 'paused_at' AS has_time
FROM job_health() WHERE "check" = 'job_types';
SELECT count(*) FROM job_types WHERE resume_job_type(job_type);
SELECT * FROM problems;
DELETE FROM job_types;

-- circuits
SELECT open_circuit('ship', 'label', reason => 'printer');
INSERT INTO job_circuits (job_type, state, opened_at, retry_at) VALUES ('pay', 'open', now(), now() + interval '1 hour');
SELECT * FROM problems;
SELECT close_circuit('ship'), close_circuit('pay');
SELECT * FROM problems;

-- consumers, oldest_due_job: who asks is told from who does not.
INSERT INTO jobs_queue (job_type, scheduled_at) VALUES ('mail', now() - interval '90 minutes'), ('mail', now()),
	('later', now() + interval '1 hour'), ('young', now() - interval '1 minute');
SELECT * FROM problems;
SELECT "check", value > 5390 AS value, data #- '{0,due_at}' AS data FROM job_health() WHERE "check" IN ('consumers', 'oldest_due_job') ORDER BY 1;
-- nor while it is paused, throttled, or its circuit is open
SELECT pause_job_type('mail');
SELECT "check" FROM problems;
SELECT resume_job_type('mail'), throttle_job_type('mail', '1 hour');
SELECT "check" FROM problems;
SELECT throttle_job_type('mail', '0'), open_circuit('mail');
SELECT "check" FROM problems;
SELECT close_circuit('mail'), pause_workers();
SELECT "check" FROM problems;
SELECT resume_workers();
SELECT "check" FROM problems;
-- a worker comes
SELECT count(*) FROM claim_jobs('11111111-1111-1111-1111-111111111111', '{mail}', 1);
SELECT resolve_job(id, '11111111-1111-1111-1111-111111111111', true) FROM jobs_queue WHERE status = 'running';
INSERT INTO jobs_queue (job_type, scheduled_at) VALUES ('mail', now() - interval '90 minutes');
SELECT "check", status, detail FROM problems;
DELETE FROM jobs_queue;
SELECT * FROM problems;
-- running jobs at the head of a lane hide no later one, and count as a consumer
INSERT INTO jobs_queue (job_type, stage, scheduled_at) SELECT 'long', s, now() - interval '90 minutes' FROM unnest('{a,b}'::text[]) s, generate_series(1, 30);
SELECT count(*) FROM claim_jobs('11111111-1111-1111-1111-111111111111', '{long}', 40);
SELECT "check", status, detail FROM problems;
DELETE FROM jobs_queue;
DELETE FROM job_types;

-- dead_letters
INSERT INTO job_types (job_type, dead_letter_limit) VALUES ('mail', 2), ('strict', 0);
INSERT INTO jobs_queue (job_type, status, updated_at, finished_at) SELECT 'mail', 'error', now(), now() FROM generate_series(1, 2);
INSERT INTO jobs_queue (job_type, status, updated_at, finished_at) SELECT 'other', 'error', now(), now() FROM generate_series(1, 100);
SELECT * FROM problems;
INSERT INTO jobs_queue (job_type, status, updated_at, finished_at) SELECT t, 'error', now(), now() FROM unnest('{mail,other,strict}'::text[]) t;
SELECT * FROM problems;
SELECT value, data FROM job_health() WHERE "check" = 'dead_letters';
UPDATE job_types SET dead_letter_limit = 1000;
SELECT purge_jobs('other', max_jobs => 1);
SELECT * FROM problems;
INSERT INTO job_types (job_type, dead_letter_limit) VALUES ('wrong', -1);
DELETE FROM jobs_queue;
DELETE FROM job_types;

-- failed_jobs: failed and dead ones alike.
INSERT INTO jobs_queue (job_type, status, updated_at, finished_at) VALUES ('mail', 'failed', now() - interval '9 minutes', now()),
	('mail', 'cancelled', now() - interval '1 hour', now()), ('mail', 'completed', now() - interval '1 hour', now());
SELECT * FROM problems;
INSERT INTO jobs_queue (job_type, owner, status, updated_at, finished_at) VALUES
	('mail', current_user::regrole, 'failed', now() - interval '11 minutes', now()),
	('mail', current_user::regrole, 'failed', now() - interval '1 hour', now()),
	('sync', current_user::regrole, 'error', now() - interval '1 hour', now());
SELECT * FROM problems;
SELECT value, data #- '{0,oldest_at}' #- '{1,oldest_at}' AS data FROM job_health() WHERE "check" = 'failed_jobs';
INSERT INTO jobs_queue (job_type, status, updated_at, finished_at) SELECT 'bulk', 'failed', now() - interval '1 hour', now() FROM generate_series(1, 1100);
SELECT status, split_part(detail, '(', 1) AS detail, value FROM job_health() WHERE "check" = 'failed_jobs';
DELETE FROM jobs_queue WHERE job_type = 'bulk';
SELECT requeue_jobs();
UPDATE jobs_queue SET scheduled_at = now() + interval '1 hour' WHERE status = 'queued';
SELECT * FROM problems;
DELETE FROM jobs_queue;

-- cron_late: also where the server enqueues nothing by itself
SELECT schedule_cron_task('digest', '@daily', 'mail') > 0 AS scheduled;
SELECT * FROM problems;
UPDATE cron_tasks SET next_run_at = now() - interval '5 minutes';
SELECT * FROM problems;
UPDATE cron_tasks SET next_run_at = now() - interval '90 minutes';
SELECT * FROM problems;
SELECT value >= 5400 AS value, data #- '{0,next_run_at}' AS data FROM job_health() WHERE "check" = 'cron_late';
SELECT enqueue_cron_tasks();
UPDATE jobs_queue SET scheduled_at = now() + interval '1 hour';
SELECT * FROM problems;

-- cron_disabled: not those that have come to their end
UPDATE cron_tasks SET enabled = false;
SELECT * FROM problems;
SELECT resume_cron_task('digest'), pause_cron_task('digest', 'team is away');
SELECT * FROM problems;
SELECT value, data FROM job_health() WHERE "check" = 'cron_disabled';
SELECT resume_cron_task('digest');
SELECT schedule_cron_task('once', '@daily', 'mail', max_runs => 1) > 0 AS scheduled;
UPDATE cron_tasks SET next_run_at = now() - interval '1 second' WHERE name = 'once';
SELECT enqueue_cron_tasks();
SELECT enabled, disabled_reason FROM cron_tasks WHERE name = 'once';
SELECT * FROM problems;
DELETE FROM cron_tasks;
DELETE FROM jobs_queue;

-- endpoints
INSERT INTO http_endpoints (name, url, enabled) VALUES ('crm', 'https://crm.example', false), ('mail', 'https://mail.example', true);
SELECT * FROM problems;
SELECT value, data FROM job_health() WHERE "check" = 'endpoints';
UPDATE http_endpoints SET enabled = true;
SELECT * FROM problems;
DELETE FROM http_endpoints;

-- dead_rows
ALTER TABLE jobs_queue_live SET (autovacuum_enabled = false);
SELECT * FROM problems;
ALTER TABLE jobs_queue_live RESET (autovacuum_enabled);
SELECT * FROM problems;

-- indexes
CREATE INDEX mine ON jobs_queue_live (correlation_id);
SELECT * FROM problems;
CREATE INDEX my_holders ON jobs_queue_live (locked_by);
CREATE INDEX my_running ON jobs_queue_live (id) WHERE status = 'running';
CREATE INDEX my_years ON jobs_queue_live (extract(year FROM updated_at AT TIME ZONE 'UTC'));
SELECT * FROM problems;
SELECT value, data FROM job_health() WHERE "check" = 'indexes';
DROP INDEX my_holders, my_running, my_years;
SELECT * FROM problems;

-- sequences
SELECT setval('job_logs_id_seq', 9223372036854775807 / 10 * 9) > 0 AS set;
SELECT * FROM problems;
ALTER SEQUENCE queue_events_id_seq MAXVALUE 100;
SELECT setval('queue_events_id_seq', 97);
SELECT * FROM problems;
SELECT value, data->'queue_events_id_seq' AS queue_events FROM job_health() WHERE "check" = 'sequences';
ALTER SEQUENCE queue_events_id_seq NO MAXVALUE RESTART;
ALTER SEQUENCE job_logs_id_seq RESTART;
SELECT * FROM problems;

-- job_health_json(): the worst of all checks.
SELECT j->>'status' AS status, jsonb_array_length(j->'checks') AS checks, (j->>'uptime_ms')::bigint > 0 AS is_up,
	j->>'timestamp' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$' AS has_timestamp,
	abs(extract(epoch FROM (j->>'timestamp')::timestamptz - clock_timestamp())) < 60 AS is_now,
	j->'checks'->0 #- '{data}' AS first, (SELECT array_agg(k ORDER BY k) FROM jsonb_object_keys(j) k) AS keys
FROM job_health_json() j;
SELECT pause_job_type('mail');
SELECT job_health_json()->>'status' AS status;
INSERT INTO job_types (job_type, dead_letter_limit) VALUES ('strict', 0);
INSERT INTO jobs_queue (job_type, status, updated_at) VALUES ('strict', 'error', now());
SELECT job_health_json()->>'status' AS status;

-- Observers and operators may ask, and see all of it but payloads and errors.
CREATE ROLE regress_health_observer;
CREATE ROLE regress_health_producer;
SELECT grant_job_role('regress_health_observer', 'observer'), grant_job_role('regress_health_producer', 'producer');
INSERT INTO jobs_queue (job_type, status, payload, last_error, result, metadata, updated_at)
	VALUES ('strict', 'error', '{"canary": "canary"}', 'canary', '"canary"', '"canary"', now() - interval '1 hour');
INSERT INTO jobs_queue (job_type, payload, scheduled_at) VALUES ('strict', '{"canary": "canary"}', now() - interval '1 hour');
UPDATE job_types SET command = NULL, description = 'canary';
SET ROLE regress_health_observer;
SELECT "check", status, detail FROM job_health() WHERE status <> 'ok';
SELECT count(*) AS checks, count(*) FILTER (WHERE to_jsonb(h)::text LIKE '%canary%') AS leaks,
	count(*) FILTER (WHERE detail LIKE 'could not be checked%') AS refused FROM job_health() h;
SELECT job_health_json()::text LIKE '%canary%' AS leaks;
SELECT payload FROM jobs_queue;
SET ROLE regress_health_producer;
SELECT count(*) FROM job_health();
SELECT job_health_json();
SELECT count(*) FROM _health_dead_letters;
RESET ROLE;

-- A check that cannot be made says so, and stops no other.
REVOKE SELECT ON _health_dead_letters FROM regress_health_observer;
SET ROLE regress_health_observer;
SELECT "check", status, detail, hint FROM job_health() WHERE "check" IN ('circuits', 'dead_letters', 'failed_jobs');
SELECT job_health_json()->>'status' AS status;
RESET ROLE;
GRANT SELECT ON _health_dead_letters TO regress_health_observer;
ALTER VIEW _health_circuits RENAME TO gone;
SELECT "check", status, detail, hint FROM job_health() WHERE "check" IN ('circuits', 'consumers');
ALTER VIEW gone RENAME TO _health_circuits;

-- In a transaction that may not write, or that is serializable; whatever the
-- settings of the session.
DELETE FROM jobs_queue;
DELETE FROM job_types;
BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY;
SET LOCAL DateStyle = 'German';
SET LOCAL TimeZone = 'Asia/Tokyo';
SET LOCAL lock_timeout = 0;
SELECT * FROM problems;
SHOW lock_timeout;
COMMIT;

\c contrib_regression
DROP DATABASE jobqueue_health;
DROP ROLE regress_health_observer, regress_health_producer;
