-- Instants of cron tasks that passed unseen: which run, and how many are missed.
-- Tasks that ended in the past have the same instants whenever this is run.
\set SHOW_CONTEXT never
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';

-- One task for each policy; 73 instants from planned up to ends_at.
CREATE VIEW pg_temp.outcome AS
	SELECT t.name, t.run_count AS run, t.missed_count AS missed, t.skipped_count AS skipped,
		count(q.id) AS jobs, min(q.cron_instant) AS first, max(q.cron_instant) AS last, t.decided_until
	FROM cron_tasks t LEFT JOIN jobs_queue q ON q.cron_task_id = t.id
	GROUP BY t.id ORDER BY t.id;
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at, ends_at, catch_up, catch_up_limit, start_deadline)
SELECT p.name, '0 * * * *', 'tick', '2024-05-01 00:00+00', '2024-05-04 00:00+00', p.catch_up, p.cap, p.deadline::interval
FROM (VALUES (1, 'none', 'none', 100, NULL), (2, 'latest', 'latest', 100, NULL),
	(3, 'all', 'all', 100, NULL), (4, 'all, just', 'all', 73, NULL), (5, 'all, 72', 'all', 72, NULL),
	(6, 'all, 1', 'all', 1, NULL), (7, 'all, 1000', 'all', 1000, NULL),
	(8, 'all, too late', 'all', 100, '1 day'), (9, 'latest, too late', 'latest', 100, '366 days')) p(n, name, catch_up, cap, deadline)
ORDER BY p.n;
SELECT enqueue_cron_tasks();
SELECT * FROM pg_temp.outcome;
SELECT DISTINCT enabled, next_run_at, disabled_reason FROM cron_tasks;
-- Of the newest 72, none is left out and none is there twice.
SELECT count(DISTINCT cron_instant), max(cron_instant) - min(cron_instant) AS span
FROM jobs_queue q JOIN cron_tasks t ON t.id = q.cron_task_id WHERE t.name = 'all, 72';
SELECT job_type, scheduled_at = cron_instant AS at_its_instant, count(*) FROM jobs_queue GROUP BY 1, 2;
-- Each job has its row, and what was missed has none.
SELECT count(*), count(q.id), count(DISTINCT r.job_id), min(r.kind) AS kind, count(r.skip_reason) AS skipped
FROM cron_runs r FULL JOIN jobs_queue q ON (q.id, q.cron_task_id, q.cron_instant) = (r.job_id, r.task_id, r.instant);
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- A deadline counts from now: half an hour is between the instants here.
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at, catch_up, catch_up_limit, start_deadline)
SELECT p.name, 'every 1 hour', 'tick', now() - interval '5 hours 30 minutes', p.catch_up, p.cap, p.deadline::interval
FROM (VALUES (1, 'all', 'all', 100, NULL), (2, 'all, 2 hours', 'all', 100, '2 hours'),
	(3, 'all, 2 hours, 1', 'all', 1, '2 hours'), (4, 'all, 2 days, 3', 'all', 3, '2 days'),
	(5, 'all, 10 minutes', 'all', 100, '10 minutes'), (6, 'latest', 'latest', 100, NULL),
	(7, 'latest, 2 hours', 'latest', 100, '2 hours'), (8, 'latest, 10 minutes', 'latest', 100, '10 minutes'),
	(9, 'none', 'none', 100, NULL), (10, 'none, 1 hour', 'none', 100, '1 hour')) p(n, name, catch_up, cap, deadline)
ORDER BY p.n;
SELECT enqueue_cron_tasks();
SELECT o.name, o.run, o.missed, o.jobs, now() - o.first < interval '6 hours' AS in_time,
	t.next_run_at - now() BETWEEN interval '29 minutes' AND interval '30 minutes' AS planned, o.decided_until - t.next_run_at AS decided
FROM pg_temp.outcome o JOIN cron_tasks t USING (name) ORDER BY t.id;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;
-- With catch_up none, one just passed is on time.
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at, catch_up) VALUES
	('on time', 'every 10 minutes', 'tick', now(), 'none'), ('late', 'every 10 minutes', 'tick', now() - interval '61 seconds', 'none'),
	('second', 'every 10 minutes', 'tick', now() - interval '10 minutes', 'none');
SELECT enqueue_cron_tasks();
SELECT name, run, missed FROM pg_temp.outcome;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- Years of them cost no more than a day.
INSERT INTO cron_tasks (name, schedule, timezone, job_type, next_run_at, ends_at, catch_up, catch_up_limit) VALUES
	('seconds', '* * * * * *', 'Europe/Berlin', 'tick', '1990-01-01 00:00+00', '2024-01-01 00:00+00', 'all', 3),
	('every second', 'every 1 second', 'UTC', 'tick', '1990-01-01 00:00+00', '2024-01-01 00:00+00', 'all', 3),
	('minutes', '* * * * *', 'Pacific/Apia', 'tick', '1990-01-01 00:00+00', '2024-01-01 00:00+00', 'latest', 100),
	('leap days', '0 12 29 2 *', 'UTC', 'tick', '2000-02-29 12:00+00', '2024-01-01 00:00+00', 'all', 100),
	('months', '@monthly', 'America/New_York', 'tick', '1990-01-01 05:00+00', '2024-01-01 05:00+00', 'all', 100),
	('weeks', 'every 7 days', 'UTC', 'tick', '1990-01-01 00:00+00', '2024-01-01 00:00+00', 'none', 100),
	('before time', '@daily', 'UTC', 'tick', '4713-01-01 00:00+00 BC', '2024-01-01 00:00+00', 'latest', 100);
SET statement_timeout = '30s';
SELECT enqueue_cron_tasks();
RESET statement_timeout;
SELECT name, run, missed, jobs, first, last FROM pg_temp.outcome;
SELECT extract(epoch FROM timestamptz '2024-01-01 00:00+00' - '1990-01-01 00:00+00')::bigint + 1 AS seconds;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- A plan by hand that the schedule does not name is one of the instants.
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at, ends_at, catch_up) VALUES
	('off', '0 * * * *', 'tick', '2024-05-01 00:30+00', '2024-05-01 02:30+00', 'all'),
	('after its end', '0 * * * *', 'tick', '2024-05-01 00:30+00', '2024-04-30 00:00+00', 'all'),
	('grid', 'every 7 minutes', 'tick', '2024-05-01 00:30+00', '2024-05-01 00:51+00', 'all');
SELECT enqueue_cron_tasks();
SELECT t.name, array_agg(q.cron_instant::time ORDER BY q.cron_instant) AS at
FROM jobs_queue q JOIN cron_tasks t ON t.id = q.cron_task_id GROUP BY 1 ORDER BY 1;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- Clocks that are set forward and back: each local time once, or every instant.
INSERT INTO cron_tasks (name, schedule, timezone, job_type, next_run_at, ends_at, catch_up, catch_up_limit)
SELECT format('%s %s %s', s.schedule, z.zone, d.from::date), s.schedule, z.zone, 'tick',
	(SELECT r FROM cron_next_runs(s.schedule, z.zone, d.from, 1) r), d.from + interval '3 days', 'all', 1
FROM (VALUES ('30 2 * * *'), ('0,30 1-3 * * *'), ('*/20 * * * *'), ('15 * * * *')) s(schedule),
	(VALUES ('Europe/Berlin', timestamptz '2024-03-30 00:00+00'), ('Europe/Berlin', '2024-10-26 00:00+00'),
		('Australia/Lord_Howe', '2024-04-05 00:00+00')) z(zone, at),
	LATERAL (SELECT z.at AS from) d ORDER BY 1;
SELECT enqueue_cron_tasks();
SELECT name, run, missed, last FROM pg_temp.outcome ORDER BY name;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- Against counting by hand: 300 tasks, windows of days around clock changes.
SELECT setseed(0.42);
CREATE TEMP TABLE random_task AS
SELECT n, schedule, zone, at + random() * interval '2 days' AS "from", at + interval '2 days' + random() * interval '9 days' AS until,
	(ARRAY['none', 'latest', 'all'])[1 + floor(random() * 3)::int] AS catch_up, 1 + floor(random() * 50)::int AS cap
FROM generate_series(1, 300) n, LATERAL (SELECT n AS again,
	(ARRAY['30 2 * * *', '0 0 * * *', '*/20 * * * *', '3-59/7 0-6 * * *', '15 1-3 * * *', '0 * * * *', '10-50/20 0,2,3 * * *', '59 23 L * *',
		'0 3 * * 0L', '0 12 15W * *', '30 */2 * * *', '* 2 * * *', '5 4 * * 1#1,5#2', '0 0 31 3,10 *', '0 2 * * sun',
		'every 17 minutes', 'every 5 hours', '@hourly', '0 30 2 * * *', '45 59 1-3 * * *', '0,30 30 1,2 29-31 * *'])[1 + floor(random() * 21)::int] AS schedule,
	(ARRAY['Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'UTC', 'Africa/Cairo', 'America/Sao_Paulo',
		'Pacific/Apia', 'Asia/Kathmandu', 'America/St_Johns', 'Antarctica/Troll'])[1 + floor(random() * 10)::int] AS zone,
	(ARRAY['2024-03-28', '2024-10-24', '2024-03-08', '2024-11-01', '2011-12-27', '2018-11-01', '2024-04-04',
		'2023-04-25', '2024-02-26'])[1 + floor(random() * 9)::int]::timestamptz AS at) r;
INSERT INTO cron_tasks (name, schedule, timezone, job_type, next_run_at, ends_at, catch_up, catch_up_limit)
SELECT 'random ' || n, schedule, zone, 'tick', (SELECT r FROM cron_next_runs(schedule, zone, "from", 1) r), until, catch_up, cap
FROM random_task ORDER BY n;
CREATE TEMP TABLE expected AS
SELECT t.id, t.name, t.catch_up, t.catch_up_limit AS cap, i.planned, i.instants
FROM cron_tasks t, LATERAL (
	SELECT t.next_run_at AS planned, array_agg(r ORDER BY r) AS instants FROM (
		SELECT t.next_run_at AS r UNION ALL
		SELECT r FROM (SELECT t.next_run_at + n * (substring(t.schedule FROM 'every (.*)'))::interval AS r FROM generate_series(1, 1000) n
			WHERE t.schedule LIKE 'every%' UNION ALL
			SELECT r FROM cron_next_runs(t.schedule, t.timezone, t.next_run_at, 1000) r WHERE t.schedule NOT LIKE 'every%') x
		WHERE r <= t.ends_at) y) i;
SELECT count(*) AS tasks, sum(cardinality(instants)) > 20000 AS many, count(*) FILTER (WHERE cardinality(instants) > cap) > 50 AS capped FROM expected;
DO $$
BEGIN
	WHILE EXISTS (SELECT FROM cron_tasks WHERE enabled AND next_run_at < now()) LOOP
		PERFORM enqueue_cron_tasks();
	END LOOP;
END $$;
SELECT e.*, o.run, o.missed FROM expected e JOIN pg_temp.outcome o USING (name)
WHERE o.run + o.missed <> cardinality(e.instants) OR o.jobs <> o.run
	OR o.run <> CASE e.catch_up WHEN 'none' THEN 0 WHEN 'latest' THEN 1 ELSE least(e.cap, cardinality(e.instants)) END
	OR o.decided_until <> e.instants[cardinality(e.instants)];
-- The jobs are the newest of the instants.
SELECT e.name, q.instants, e.instants FROM expected e
	JOIN (SELECT cron_task_id, array_agg(cron_instant ORDER BY cron_instant) AS instants FROM jobs_queue GROUP BY 1) q ON q.cron_task_id = e.id
WHERE q.instants <> e.instants[cardinality(e.instants) - cardinality(q.instants) + 1 :];
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;
SELECT count(*) FROM cron_runs;
