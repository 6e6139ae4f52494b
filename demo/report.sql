-- What happened, for a person to read. Run by demo/run as a superuser; ends with
-- an error if a record or a webhook got lost.
\pset border 0
\pset footer off
\pset null -
\pset pager off
SET search_path = demo, public;

CREATE FUNCTION pg_temp.ms(duration interval) RETURNS numeric
	LANGUAGE sql RETURN round(1000 * extract(epoch FROM duration), 1);

-- The first line of an error, without its particulars and its code.
CREATE FUNCTION pg_temp.reason(error text) RETURNS text
	LANGUAGE sql RETURN regexp_replace(regexp_replace(
		split_part(error, E'\n', 1), ' \(\w{5}\)$', ''), '"[^"]*"', '…', 'g');

\echo
\echo :bold'Where the jobs ended':plain
CREATE TEMP TABLE outcome AS
SELECT l.job_type, l.jobs AS loaded, count(q.id) AS found,
	count(*) FILTER (WHERE status = 'completed') AS completed,
	count(*) FILTER (WHERE status = 'completed' AND attempts > 1) AS after_retry,
	count(*) FILTER (WHERE status = 'error') AS dead_letters,
	count(*) FILTER (WHERE status = 'failed') AS failed
FROM loaded l LEFT JOIN jobs_queue q USING (job_type)
GROUP BY l.job_type, l.jobs;

SELECT job_type, loaded, completed, after_retry AS "after a retry",
	dead_letters AS "dead letters", failed,
	CASE WHEN loaded = found AND loaded = completed + dead_letters + failed
		THEN format('%s + %s + %s = %s, nothing lost', completed, dead_letters, failed, loaded)
		ELSE format('%s LOST OR STILL OPEN', loaded - completed - dead_letters - failed)
	END AS "check"
FROM outcome ORDER BY job_type DESC;

\echo :bold'How fast':plain
SELECT job_type, count(*) AS runs, count(*) FILTER (WHERE attempt > 1) AS retries,
	count(DISTINCT worker_id) AS workers,
	round(pg_temp.ms(max(finished_at) - min(started_at)) / 1000, 2) AS seconds,
	round(count(*) / extract(epoch FROM max(finished_at) - min(started_at))) AS "runs/s",
	pg_temp.ms(percentile_cont(0.5) WITHIN GROUP (ORDER BY finished_at - started_at)) AS "median ms"
FROM job_runs WHERE job_type IN (SELECT job_type FROM loaded)
GROUP BY job_type ORDER BY job_type DESC;

\echo :bold'The slowest runs, from claim to end':plain
SELECT pg_temp.ms(r.finished_at - r.started_at) AS ms, r.job_type,
	q.payload->>'package' AS package, r.attempt, r.status
FROM job_runs r JOIN jobs_queue q ON q.id = r.job_id
WHERE r.job_type IN (SELECT job_type FROM loaded)
ORDER BY r.finished_at - r.started_at DESC LIMIT 5;

\echo :bold'Why runs failed, and what became of the jobs':plain
SELECT pg_temp.reason(r.error) AS reason, count(*) AS runs, count(DISTINCT q.id) AS jobs,
	count(DISTINCT q.id) FILTER (WHERE q.status = 'completed') AS "passed later",
	count(DISTINCT q.id) FILTER (WHERE q.status <> 'completed'
		AND pg_temp.reason(q.last_error) = pg_temp.reason(r.error)) AS "given up",
	min(concat_ws(': ', q.payload->>'package', substring(r.error FROM '"([^"]{1,24})'))) AS example
FROM job_runs r JOIN jobs_queue q ON q.id = r.job_id
WHERE r.status = 'failed'
GROUP BY 1 ORDER BY jobs DESC, reason;

\echo :bold'What the review found':plain
SELECT kind, count(*) AS packages, round(sum(size_kb) / 1024) AS "MB",
	count(*) FILTER (WHERE size_class IN ('large', 'huge')) AS "over 10 MB",
	(array_agg(name ORDER BY size_kb DESC))[1] AS largest
FROM packages GROUP BY kind ORDER BY 3 DESC;

\echo :bold'What the receiver of the webhooks got':plain
CREATE TEMP TABLE received (key text, package text, status int);
COPY received FROM :'received';
SELECT (SELECT count(*) FROM packages WHERE size_kb >= 10240) AS events,
	count(DISTINCT key) FILTER (WHERE status = 200) AS delivered,
	count(*) AS requests, count(*) FILTER (WHERE status = 503) AS "503, sent again",
	count(*) FILTER (WHERE status = 401) AS "wrong signatures",
	(SELECT pg_temp.ms(percentile_cont(0.5) WITHIN GROUP (ORDER BY (response->'timings'->>'total_ms')::float8
			* interval '1 ms'))
		FROM job_runs WHERE job_type = 'webhook') AS "median ms"
FROM received;

\echo :bold'What the cron task wrote down, every 2 seconds':plain
SELECT to_char(taken_at, 'HH24:MI:SS.MS') AS "time", registered, open_jobs AS "open jobs",
	dead_letters AS "dead letters"
FROM summaries ORDER BY taken_at LIMIT 10;

\echo :bold'Who worked':plain
SELECT coalesce(w.name, CASE WHEN bool_or(r.response IS NOT NULL) THEN 'dispatcher' ELSE 'executor' END
		|| ' in the server') AS worker, count(*) AS runs,
	string_agg(DISTINCT r.job_type, ', ') AS "job types"
FROM job_runs r LEFT JOIN registered_workers w USING (worker_id)
GROUP BY r.worker_id, w.name ORDER BY w.name NULLS FIRST, runs DESC;

\echo :bold'To look further (demo/run --keep)':plain
\echo '  SELECT * FROM job_stats;                           jobs by type and status'
\echo '  SELECT id, last_error FROM dead_letter_jobs;       what was given up, and why'
\echo '  SELECT * FROM job_runs WHERE job_id = 1;           every attempt of a job'
\echo '  SELECT * FROM job_workers;                         who is at work now'
\echo '  SELECT * FROM cron_overview;                       what is scheduled'
\echo '  SELECT * FROM endpoint_status;                     how the webhooks went'
\echo '  SELECT requeue_jobs(\'package\');                    another chance, once the causes are mended'
\echo

SELECT bool_and(loaded = found AND loaded = completed + dead_letters + failed)
	AND (SELECT count(DISTINCT key) FROM received WHERE status = 200) =
		(SELECT count(*) FROM packages WHERE size_kb >= 10240) AS adds_up
FROM outcome \gset
\if :adds_up
\else
	DO $$ BEGIN RAISE EXCEPTION 'records or webhooks were lost, or their jobs are still open'; END $$;
\endif
