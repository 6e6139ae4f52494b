-- When cron tasks begin, end, how often they run, and how their jobs spread.
\set SHOW_CONTEXT never
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
ALTER SEQUENCE cron_tasks_id_seq RESTART;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
CREATE VIEW pg_temp.task AS
	SELECT name, enabled AS on, next_run_at AS next, run_count AS run, missed_count AS missed, disabled_reason AS reason
	FROM cron_tasks ORDER BY id;

-- The first instant is at or after starts_at; intervals begin there.
SELECT date_trunc('year', now()) + interval '2 years' AS later \gset
INSERT INTO cron_tasks (name, schedule, job_type, starts_at) VALUES
	('at midnight', '0 0 * * *', 'x', :'later'), ('after it', '0 0 * * *', 'x', timestamptz :'later' + interval '1 microsecond'),
	('interval', 'every 7 minutes', 'x', :'later'), ('fraction', 'every 7 minutes', 'x', timestamptz :'later' + interval '0.25 s'),
	('minutes', '*/5 * * * *', 'x', timestamptz :'later' - interval '1 microsecond');
SELECT name, next_run_at - :'later' AS next FROM cron_tasks ORDER BY id;
SELECT enqueue_cron_tasks();
DELETE FROM cron_tasks;
-- One in the past is where an interval counts from.
INSERT INTO cron_tasks (name, schedule, job_type, starts_at) VALUES
	('past', 'every 7 hours', 'x', '2024-01-01 00:00:03+00'), ('for ever', 'every 7 hours', 'x', '-infinity'), ('none', 'every 7 hours', 'x', NULL);
SELECT name, extract(epoch FROM next_run_at - timestamptz '2024-01-01 00:00:03+00') % 25200 = 0 AS on_grid, next_run_at - now() <= interval '7 hours' AS next
FROM cron_tasks ORDER BY id;
-- Another starts_at replans, another ends_at may.
UPDATE cron_tasks SET starts_at = :'later' WHERE name = 'past';
SELECT next_run_at - :'later' AS next FROM cron_tasks WHERE name = 'past';
UPDATE cron_tasks SET starts_at = NULL WHERE name = 'past';
SELECT next_run_at - now() BETWEEN interval '6 hours 59 minutes' AND interval '7 hours' AS next FROM cron_tasks WHERE name = 'past';
DELETE FROM cron_tasks;

-- ends_at is the last instant, if it is one.
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at, ends_at, catch_up) VALUES
	('on it', '0 * * * *', 'x', '2024-05-01 00:00+00', '2024-05-01 02:00+00', 'all'),
	('just before', '0 * * * *', 'x', '2024-05-01 00:00+00', timestamptz '2024-05-01 02:00+00' - interval '1 microsecond', 'all'),
	('interval', 'every 1 hour', 'x', '2024-05-01 00:00+00', '2024-05-01 02:00+00', 'all'),
	('for ever', '0 0 1 1 *', 'x', '2024-01-01 00:00+00', 'infinity', 'all');
SELECT enqueue_cron_tasks() > 0 AS some;
SELECT name, run, missed, reason FROM pg_temp.task WHERE name <> 'for ever';
SELECT t.on, t.next > now() AS planned, run > 1 AS ran, reason FROM pg_temp.task t WHERE name = 'for ever';
SELECT enqueue_cron_tasks();
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- A task that is over before it begins: no error, but it is told and disabled.
SELECT schedule_cron_task('over', '@hourly', 'x', ends_at => '2024-01-01') > 0 AS ok;
SELECT schedule_cron_task('no instant', '0 0 1 1 *', 'x', starts_at => timestamptz :'later' + interval '1 day', ends_at => timestamptz :'later' + interval '2 days') > 0 AS ok;
SELECT schedule_cron_task('start over', '@reboot', 'x', ends_at => '2024-01-01') > 0 AS ok;
SELECT schedule_cron_task('living', '@hourly', 'x') > 0 AS ok;
SELECT schedule_cron_task('living', '@hourly', 'x', ends_at => '2024-01-01') > 0 AS ok;
SELECT schedule_cron_task('shortened', '@hourly', 'x') > 0 AS ok;
UPDATE cron_tasks SET ends_at = '2024-01-01' WHERE name = 'shortened';
SELECT * FROM pg_temp.task;
SELECT schedule_cron_task('living', '@hourly', 'x') > 0 AS ok;
UPDATE cron_tasks SET enabled = true, ends_at = NULL WHERE name = 'shortened';
UPDATE cron_tasks SET enabled = true WHERE name = 'over';
SELECT resume_cron_task('over');
SELECT name, t.on, next > now() AS planned, reason FROM pg_temp.task t;
SELECT schedule_cron_task('paused', '@hourly', 'x') > 0 AS ok, pause_cron_task('paused', 'holidays');
SELECT schedule_cron_task('paused', '@hourly', 'x', enabled => false) > 0 AS ok;
SELECT disabled_reason FROM cron_tasks WHERE name = 'paused';
DELETE FROM cron_tasks;
SELECT schedule_cron_task('wrong', '@hourly', 'x', starts_at => '2024-01-02', ends_at => '2024-01-01');
SELECT schedule_cron_task('wrong', '@hourly', 'x', starts_at => 'infinity');
SELECT schedule_cron_task('wrong', '@hourly', 'x', ends_at => '-infinity');
SELECT schedule_cron_task('right', '@hourly', 'x', starts_at => :'later', ends_at => :'later') > 0 AS ok;
SELECT next_run_at = starts_at AS once FROM cron_tasks;
DELETE FROM cron_tasks;

-- max_runs: the newest instants, and an end.
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at, catch_up, max_runs) VALUES
	('three', 'every 1 hour', 'x', now() - interval '4 hours 30 minutes', 'all', 3),
	('five', 'every 1 hour', 'x', now() - interval '4 hours 30 minutes', 'all', 5),
	('six', 'every 1 hour', 'x', now() - interval '4 hours 30 minutes', 'all', 6),
	('once', 'every 1 hour', 'x', now() - interval '30 minutes', 'latest', 1);
SELECT enqueue_cron_tasks();
SELECT name, t.on, next > now() AS planned, run, missed, reason FROM pg_temp.task t;
SELECT t.name, now() - min(q.cron_instant) < interval '3 hours' AS newest FROM jobs_queue q JOIN cron_tasks t ON t.id = q.cron_task_id GROUP BY 1 ORDER BY 1;
-- Whoever deploys it once more means no harm; more runs, or a count set back, enable it.
SELECT schedule_cron_task('once', 'every 1 hour', 'x', max_runs => 1) > 0 AS ok;
SELECT t.on, reason FROM pg_temp.task t WHERE name = 'once';
SELECT schedule_cron_task('once', 'every 1 hour', 'x', max_runs => 2) > 0 AS ok;
SELECT t.on, next > now() AS planned, reason FROM pg_temp.task t WHERE name = 'once';
UPDATE cron_tasks SET run_count = 0, enabled = true WHERE name = 'five';
SELECT t.on, run, reason FROM pg_temp.task t WHERE name = 'five';
-- Fewer than there were.
UPDATE cron_tasks SET max_runs = 1 WHERE name = 'six';
SELECT t.on, next, reason FROM pg_temp.task t WHERE name = 'six';
SELECT schedule_cron_task('wrong', '@hourly', 'x', max_runs => 0);
SELECT schedule_cron_task('wrong', '@hourly', 'x', catch_up_limit => 0);
SELECT schedule_cron_task('wrong', '@hourly', 'x', catch_up_limit => 1001);
SELECT schedule_cron_task('wrong', '@hourly', 'x', catch_up => 'some');
SELECT schedule_cron_task('wrong', '@hourly', 'x', start_deadline => '0');
SELECT schedule_cron_task('wrong', '@hourly', 'x', start_deadline => '1 month');
SELECT schedule_cron_task('wrong', '@hourly', 'x', start_deadline => '367 days');
SELECT schedule_cron_task('wrong', '@hourly', 'x', jitter => '-1 s');
SELECT schedule_cron_task('wrong', '@hourly', 'x', jitter => '25 hours');
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;
-- A run that is skipped is none of them.
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at, overlap, max_runs) VALUES ('skips', '0 0 1 1 *', 'x', now(), 'skip', 2);
SELECT enqueue_cron_tasks();
UPDATE cron_tasks SET next_run_at = clock_timestamp();
SELECT enqueue_cron_tasks();
SELECT t.on, run, skipped_count FROM pg_temp.task t JOIN cron_tasks USING (name);
-- Neither is one by hand.
SELECT run_cron_task('skips') > 0 AS ok;
SELECT t.on, run FROM pg_temp.task t;
DELETE FROM jobs_queue;
UPDATE cron_tasks SET next_run_at = clock_timestamp();
SELECT enqueue_cron_tasks();
SELECT t.on, run, reason FROM pg_temp.task t;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- Jitter: within its bound, the same for the same task and instant, and spread.
ALTER SEQUENCE cron_tasks_id_seq RESTART;
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at, ends_at, jitter)
SELECT 'j' || n, '0 0 * * *', 'x', '2024-05-01 00:00+00', '2024-05-01 00:00+00', '10 minutes' FROM generate_series(1, 500) n;
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at, ends_at, jitter, catch_up) VALUES
	('days', '0 0 * * *', 'x', '2024-05-01 00:00+00', '2024-07-01 00:00+00', '1 microsecond', 'all'),
	('no jitter', '0 0 * * *', 'x', '2024-05-01 00:00+00', '2024-05-01 00:00+00', '0', 'all');
SELECT enqueue_cron_tasks();
SELECT t.jitter, count(*), bool_and(q.scheduled_at BETWEEN q.cron_instant AND q.cron_instant + t.jitter) AS within,
	count(DISTINCT q.scheduled_at - q.cron_instant) > 400 AS differ,
	count(DISTINCT floor(extract(epoch FROM q.scheduled_at - q.cron_instant) / 60)) AS minutes,
	count(*) FILTER (WHERE q.scheduled_at > q.cron_instant) BETWEEN 20 AND 41 AS about_half
FROM jobs_queue q JOIN cron_tasks t ON t.id = q.cron_task_id GROUP BY 1 ORDER BY 1;
CREATE TEMP TABLE before AS SELECT cron_task_id, cron_instant, scheduled_at FROM jobs_queue;
DELETE FROM jobs_queue;
DELETE FROM cron_runs;
UPDATE cron_tasks SET enabled = true, decided_until = NULL, next_run_at = '2024-05-01 00:00+00';
SELECT enqueue_cron_tasks();
SELECT count(*) AS same FROM before JOIN jobs_queue USING (cron_task_id, cron_instant, scheduled_at);
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- Starts of the server. One that is past when a task is defined is none of its
-- runs; for another one, the server that it has seen is changed.
INSERT INTO cron_tasks (name, schedule, job_type, max_runs, starts_at, run_on_start) VALUES
	('reboot', '@reboot', 'x', NULL, NULL, false), ('both', '0 0 1 1 *', 'x', NULL, NULL, true),
	('not yet', '@reboot', 'x', NULL, :'later', false), ('last', '@reboot', 'x', 1, NULL, false),
	('other', '0 0 1 1 *', 'x', NULL, NULL, false);
SELECT name, run_on_start, next_run_at > now() AS planned, start_seen_at = pg_postmaster_start_time() AS seen FROM cron_tasks ORDER BY id;
SELECT enqueue_cron_tasks();
CREATE FUNCTION pg_temp.restart() RETURNS integer LANGUAGE sql AS $$
	UPDATE cron_tasks SET start_seen_at = '2024-01-01';
	SELECT enqueue_cron_tasks();
$$;
SELECT pg_temp.restart(), enqueue_cron_tasks() AS again;
SELECT t.name, r.kind, r.instant = pg_postmaster_start_time() AS at_start, r.job_id IS NOT NULL AS job, t.run_count AS run, t.missed_count AS missed,
	t.last_instant = r.instant AS last, t.next_run_at > now() AS planned, t.decided_until, t.disabled_reason
FROM cron_tasks t LEFT JOIN cron_runs r ON r.task_id = t.id ORDER BY t.id;
SELECT name, start_seen_at = pg_postmaster_start_time() AS seen FROM cron_tasks ORDER BY id;
-- The same start is not served twice, whatever start_seen_at says.
SELECT pg_temp.restart(), count(*) AS jobs FROM jobs_queue;
-- A start that came while it was disabled, or had another schedule, is past.
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;
SELECT schedule_cron_task('reboot', '@reboot', 'x', enabled => false) > 0 AS ok;
UPDATE cron_tasks SET start_seen_at = '2024-01-01';
SELECT resume_cron_task('reboot'), enqueue_cron_tasks();
SELECT schedule_cron_task('reboot', '@daily', 'x') > 0 AS ok;
UPDATE cron_tasks SET start_seen_at = '2024-01-01';
SELECT schedule_cron_task('reboot', '@reboot', 'x') > 0 AS ok, enqueue_cron_tasks();
UPDATE cron_tasks SET start_seen_at = '2024-01-01', description = 'the next start is another one';
SELECT schedule_cron_task('reboot', '@reboot', 'y') > 0 AS ok, enqueue_cron_tasks();
SELECT job_type, cron_instant = pg_postmaster_start_time() AS at_start FROM jobs_queue;
-- A plan by hand is for once, here too.
UPDATE cron_tasks SET next_run_at = '2024-05-01 00:00+00';
SELECT enqueue_cron_tasks(), enqueue_cron_tasks() AS again;
SELECT enabled, next_run_at, run_count, disabled_reason FROM cron_tasks;
-- A start after ends_at is none, and the last.
ALTER TABLE cron_tasks DISABLE TRIGGER guard;
UPDATE cron_tasks SET ends_at = '2024-01-01', start_seen_at = '2024-01-01';
ALTER TABLE cron_tasks ENABLE TRIGGER guard;
DELETE FROM cron_runs;
SELECT enqueue_cron_tasks();
SELECT enabled, run_count, disabled_reason FROM cron_tasks;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;
