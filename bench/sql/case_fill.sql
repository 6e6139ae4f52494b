-- The jobs of a case: :ahead that are planned for tomorrow, then :ready ones. As
-- when they come one by one, no two have the same time.
INSERT INTO jobs_queue (job_type, priority, scheduled_at, payload, max_attempts)
	SELECT :job_type, :ahead_priority, clock_timestamp() + interval '1 day', :payload, 5
	FROM generate_series(1, :ahead) AS n;
INSERT INTO jobs_queue (job_type, priority, scheduled_at, payload, max_attempts)
	SELECT :job_type, :priority, clock_timestamp(), :payload, 5
	FROM generate_series(1, :ready) AS n;
