-- Operators at cron tasks: plans by hand, runs by hand, pauses, and faults of one
-- task among others.
\set SHOW_CONTEXT never
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SET client_min_messages = warning;
ALTER SEQUENCE cron_tasks_id_seq RESTART;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
CREATE ROLE regress_alice;
CREATE ROLE regress_bob;
DO $$ BEGIN PERFORM grant_job_role('regress_alice', 'operator'), grant_job_role('regress_bob', 'operator'); END $$;
RESET client_min_messages;
CREATE VIEW pg_temp.task AS
	SELECT name, enabled AS on, next_run_at > now() AS planned, run_count AS run, missed_count AS missed,
		skipped_count AS skipped, decided_until, disabled_reason AS reason
	FROM cron_tasks ORDER BY id;


-- A plan that is set back finds what is decided already: no instant twice.
SELECT now() - interval '9 hours 30 minutes' AS base \gset
CREATE VIEW pg_temp.runs AS
	SELECT t.name, array_agg((extract(epoch FROM r.instant - t.starts_at) / 3600)::numeric(9, 1) ORDER BY r.instant) AS instants, count(r.job_id) AS jobs
	FROM cron_runs r JOIN cron_tasks t ON t.id = r.task_id GROUP BY t.id ORDER BY t.id;
INSERT INTO cron_tasks (name, schedule, job_type, starts_at, next_run_at, ends_at, catch_up)
SELECT p, 'every 1 hour', 'x', :'base', timestamptz :'base' + interval '3 hours', timestamptz :'base' + interval '5 hours', p
FROM unnest('{none,latest,all}'::text[]) WITH ORDINALITY u(p, n) ORDER BY n;
SELECT enqueue_cron_tasks();
SELECT name, t.on, run, missed FROM pg_temp.task t;
UPDATE cron_tasks SET enabled = true, next_run_at = timestamptz :'base' + interval '3 hours';
SELECT enqueue_cron_tasks();
SELECT name, run, missed FROM pg_temp.task;
-- Deleted jobs do not matter.
DELETE FROM jobs_queue;
UPDATE cron_tasks SET enabled = true, next_run_at = timestamptz :'base' + interval '3 hours';
SELECT enqueue_cron_tasks();
-- What was not decided comes to it: two before, and three after.
UPDATE cron_tasks SET enabled = true, next_run_at = timestamptz :'base' + interval '1 hour', ends_at = timestamptz :'base' + interval '8 hours';
SELECT enqueue_cron_tasks();
SELECT * FROM pg_temp.runs;
SELECT name, run, missed FROM pg_temp.task;
-- Set forward, and back once more: what was jumped over is there for the taking.
UPDATE cron_tasks SET enabled = true, ends_at = NULL, next_run_at = now() + interval '1 day';
SELECT enqueue_cron_tasks();
UPDATE cron_tasks SET next_run_at = timestamptz :'base' + interval '8 hours', ends_at = timestamptz :'base' + interval '9 hours';
SELECT enqueue_cron_tasks();
SELECT * FROM pg_temp.runs;
SELECT name, run, missed FROM pg_temp.task;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;
-- Rows of cron_runs are pruned; what is older than they reach is decided by decided_until.
SHOW jobqueue.keep_cron_runs;
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at, ends_at, catch_up)
SELECT p, '0 * * * *', 'x', '2024-05-01 03:00+00', '2024-05-01 05:00+00', p FROM unnest('{none,latest,all}'::text[]) WITH ORDINALITY u(p, n) ORDER BY n;
SELECT enqueue_cron_tasks();
DELETE FROM cron_runs;
UPDATE cron_tasks SET enabled = true, next_run_at = '2024-05-01 01:00+00', ends_at = '2024-05-01 07:00+00';
SELECT enqueue_cron_tasks();
SELECT t.name, array_agg(q.cron_instant::time ORDER BY q.id) AS instants FROM jobs_queue q JOIN cron_tasks t ON t.id = q.cron_task_id GROUP BY 1 ORDER BY 1;
SELECT name, run, missed, decided_until FROM pg_temp.task;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- A plan by hand stands, until another schedule, zone or bound makes it another.
SELECT now() + interval '400 days' AS later \gset
SELECT schedule_cron_task('plan', '0 0 * * *', 'x') > 0 AS ok;
UPDATE cron_tasks SET next_run_at = :'later';
SELECT schedule_cron_task('plan', '0 0 * * *', 'y', '{"n": 1}', priority => 3, overlap => 'skip', catch_up => 'all', jitter => '1 s', max_runs => 5, unique_key => 'k', description => 'd') > 0 AS ok;
UPDATE cron_tasks SET description = 'e', schedule = schedule, timezone = 'UTC', enabled = true, ends_at = NULL;
SELECT next_run_at = :'later' AS stands, planned_at FROM cron_tasks;
CREATE FUNCTION pg_temp.replanned(change text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	result boolean;
BEGIN
	UPDATE cron_tasks SET next_run_at = now() + interval '400 days';
	EXECUTE 'UPDATE cron_tasks SET ' || change;
	SELECT next_run_at < now() + interval '380 days' AND planned_at IS NOT NULL INTO result FROM cron_tasks;
	RETURN result;
END $$;
SELECT change, pg_temp.replanned(change) FROM unnest(ARRAY['schedule = ''0 1 * * *''', 'timezone = ''Asia/Tokyo''', 'starts_at = now()', 'ends_at = now() + interval ''1 year''',
	'next_run_at = NULL', 'catch_up = ''latest''', 'jitter = NULL', 'max_runs = NULL', 'overlap = ''allow''', 'payload = ''{}''']) change;
SELECT pg_temp.replanned('enabled = false'), pg_temp.replanned('enabled = true');
-- What was decided about another schedule says nothing of this one.
UPDATE cron_tasks SET decided_until = now(), starts_at = NULL;
UPDATE cron_tasks SET schedule = '@hourly' RETURNING decided_until;
DELETE FROM cron_tasks;

-- A run by hand: now, or for an instant of the past, once.
SET ROLE regress_alice;
SELECT schedule_cron_task('alices', '0 0 1 1 *', 'x', '{"at": "{{cron.instant}}"}', priority => 4, jitter => '1 hour') > 0 AS ok;
SET ROLE regress_bob;
SELECT run_cron_task('alices') > 0 AS now, run_cron_task('alices', '2024-02-29 12:00+00') > 0 AS past;
SELECT run_cron_task('alices', '2024-02-29 12:00+00');
SELECT run_cron_task('alices', now() + interval '1 hour');
SELECT run_cron_task('alices', 'infinity');
SELECT run_cron_task('alices', '-infinity');
SELECT run_cron_task('nobodys');
SELECT run_cron_task(NULL);
SELECT pause_cron_task('alices');
RESET ROLE;
SELECT q.owner, q.priority, q.payload->>'at' = to_char(q.cron_instant, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS filled, q.scheduled_at - q.cron_instant <= interval '1 hour' AS spread,
	r.kind, r.job_id = q.id AS noted, now() - r.instant < interval '1 minute' AS now
FROM jobs_queue q JOIN cron_runs r ON (r.task_id, r.instant) = (q.cron_task_id, q.cron_instant) ORDER BY q.cron_instant;
SELECT run_count, missed_count, skipped_count, last_instant, last_job_id IS NOT NULL AS has_last, next_run_at > now() AS planned, decided_until FROM cron_tasks;
-- The schedule passes over an instant that was run by hand.
UPDATE cron_tasks SET enabled = true, next_run_at = '2024-02-29 12:00+00', ends_at = '2024-02-29 12:00+00';
SELECT enqueue_cron_tasks();
SELECT * FROM pg_temp.task;
-- Disabled, it still runs by hand.
SELECT run_cron_task('alices') > 0 AS ok;
UPDATE cron_tasks SET unique_key = 'one';
SELECT run_cron_task('alices') > 0 AS ok, run_cron_task('alices') IS NULL AS key_taken;
SELECT schedule_sql('whoami', '0 0 1 1 *', 'SELECT current_user', run_as => 'regress_alice') > 0 AS ok;
SELECT run_cron_task('whoami') AS id \gset
SET ROLE regress_alice;
SELECT run_job(:id);
RESET ROLE;
SELECT owner, status, result FROM jobs_queue WHERE id = :id;
-- The body learns of its task and instant.
SELECT schedule_sql('body', '0 0 1 1 *', 'SELECT j.cron_instant, j.cron_task_id FROM current_job() j') AS task \gset
SELECT run_cron_task('body', '2024-02-29 12:00+00') AS id \gset
SELECT run_job(:id);
SELECT (result->>'cron_instant')::timestamptz AS instant, (result->>'cron_task_id')::bigint = :task AS mine FROM jobs_queue WHERE id = :id;
SELECT enqueue_sql('SELECT j.cron_instant, j.cron_task_id FROM current_job() j') AS id \gset
SELECT run_job(:id);
SELECT result FROM jobs_queue WHERE id = :id;
-- An owner that is gone runs nothing.
CREATE ROLE regress_gone;
SELECT schedule_cron_task('orphan', '@daily', 'x') > 0 AS ok;
UPDATE cron_tasks SET owner = 'regress_gone' WHERE name = 'orphan';
DROP ROLE regress_gone;
SELECT run_cron_task('orphan');
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- Paused: no instants, with a reason, and none of them is caught up.
SELECT schedule_cron_task('paused', 'every 1 hour', 'x', catch_up => 'all') > 0 AS ok;
UPDATE cron_tasks SET next_run_at = now() - interval '5 hours 30 minutes';
SELECT pause_cron_task('paused', 'holidays'), pause_cron_task('paused', 'again'), enqueue_cron_tasks();
SELECT * FROM pg_temp.task;
SELECT resume_cron_task('paused'), resume_cron_task('paused'), enqueue_cron_tasks();
SELECT * FROM pg_temp.task;
SELECT pause_cron_task('paused');
SELECT enabled, next_run_at, planned_at, disabled_reason FROM cron_tasks;
SELECT pause_cron_task('unknown');
SELECT resume_cron_task('unknown');
SELECT pause_cron_task(NULL);
SELECT resume_cron_task(NULL);
SELECT pause_cron_task('paused', repeat('x', 1025));
DELETE FROM cron_tasks;

-- Deleted tasks are forgotten, others are not.
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at) SELECT 't' || n, '0 0 1 1 *', 'x', now() FROM generate_series(1, 4) n;
SELECT enqueue_cron_tasks();
DELETE FROM cron_tasks WHERE name IN ('t1', 't3');
SELECT unschedule_cron_task('t2');
SELECT t.name FROM cron_runs r LEFT JOIN cron_tasks t ON t.id = r.task_id;
SELECT count(*) AS jobs FROM jobs_queue;
TRUNCATE cron_tasks;
SELECT count(*) FROM cron_runs;
DELETE FROM jobs_queue;

-- The overview.
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at, ends_at, catch_up, catch_up_limit, overlap) VALUES
	('ran', '0 0 * * *', 'x', '2024-05-01 00:00+00', '2024-05-05 00:00+00', 'all', 3, 'skip'), ('late', '0 0 1 1 *', 'y', now() - interval '2 hours', NULL, 'latest', 1, 'allow');
UPDATE cron_tasks SET enabled = false WHERE name = 'late';
SELECT enqueue_cron_tasks();
UPDATE cron_tasks SET enabled = true, next_run_at = now() - interval '2 hours' WHERE name = 'late';
SELECT name, owner = current_user::regrole AS mine, schedule, timezone, job_type, enabled, disabled_reason, next_run_at IS NOT NULL AS planned, date_trunc('hour', late_by) AS late_by,
	last_instant, last_enqueued_at = last_instant + last_lateness AS lateness, last_job_status, run_count AS run, missed_count AS missed, skipped_count AS skipped
FROM cron_overview ORDER BY id;
SELECT last_job_id AS id FROM cron_overview WHERE name = 'ran' \gset
SELECT count(*) FROM claim_next_job('aaaaaaaa-0000-4000-8000-000000000001', 'x');
SELECT last_job_status FROM cron_overview WHERE name = 'ran';
SELECT complete_job(:id, 'aaaaaaaa-0000-4000-8000-000000000001');
SELECT last_job_status FROM cron_overview WHERE name = 'ran';
DELETE FROM jobs_queue;
SELECT last_job_status FROM cron_overview WHERE name = 'ran';
DELETE FROM cron_tasks;

-- The fault of one disables it, trouble of the moment leaves it due; the many
-- others of its batch go on.
CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'no %', NEW.job_type USING ERRCODE = substr(NEW.job_type, 2);
END $$;
CREATE TRIGGER trouble BEFORE INSERT ON jobs_queue FOR EACH ROW WHEN (NEW.job_type ~ '^T') EXECUTE FUNCTION trouble();
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at, overlap)
SELECT CASE WHEN n % 50 = 7 THEN 'bad ' || n ELSE 'good ' || n END, '0 0 1 1 *',
	CASE n WHEN 7 THEN 'T55P03' WHEN 57 THEN 'T40001' WHEN 107 THEN 'TP0001' WHEN 157 THEN 'T23505' WHEN 207 THEN 'T53100' ELSE 'fine' END, now(), 'replace'
FROM generate_series(1, 240) n;
SELECT enqueue_cron_tasks(), enqueue_cron_tasks() AS again;
SELECT name, job_type, enabled AS on, next_run_at < now() AS due, run_count AS run, disabled_reason AS reason FROM cron_tasks WHERE name ~ 'bad' ORDER BY id;
SELECT count(*), count(DISTINCT t.id) AS tasks, bool_and(t.run_count = 1 AND t.next_run_at > now()) AS planned FROM jobs_queue q JOIN cron_tasks t ON t.id = q.cron_task_id;
SELECT count(*) FROM cron_runs;
DROP FUNCTION trouble CASCADE;
SELECT enqueue_cron_tasks();
SELECT name, enabled AS on, run_count AS run FROM cron_tasks WHERE name ~ 'bad' ORDER BY id;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- A disabled task is restored as it was, whatever it was disabled for.
CREATE TEMP TABLE dumped (LIKE cron_tasks);
SELECT schedule_cron_task('zone', '@daily', 'x', enabled => false) > 0 AS ok;
INSERT INTO dumped SELECT * FROM cron_tasks;
UPDATE dumped SET timezone = 'Mars/Olympus', disabled_reason = 'no such zone', updated_at = '2024-01-01', run_count = 7, start_seen_at = '2024-01-01';
DELETE FROM cron_tasks;
INSERT INTO cron_tasks SELECT * FROM dumped;
SELECT timezone, disabled_reason, run_count, start_seen_at FROM cron_tasks;
UPDATE cron_tasks SET enabled = true;
DELETE FROM cron_tasks;
DELETE FROM job_runs;
DROP OWNED BY regress_alice, regress_bob;
DROP ROLE regress_alice, regress_bob;
