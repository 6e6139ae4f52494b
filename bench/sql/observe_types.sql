-- 100 job types of 5 stages, with jobs that have ended and jobs that wait.
INSERT INTO jobs_queue (job_type, stage, payload)
	SELECT 'type ' || t, 'stage ' || s, '{}'
	FROM generate_series(1, 100) AS t, generate_series(1, 5) AS s, generate_series(1, 20) AS n;
SELECT lpad('', 32, 'a') AS worker \gset
SELECT resolve_jobs(:'worker', array_agg(c.id), array_agg(c.id % 10 > 0))
	FROM generate_series(1, 5) AS n, claim_jobs(:'worker', NULL, 1000) AS c
	GROUP BY n;
