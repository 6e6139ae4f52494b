-- The ready jobs of a case of policies, each with a group key, or without one.
INSERT INTO jobs_queue (job_type, scheduled_at, payload, max_attempts, group_key)
	SELECT 'bench', clock_timestamp(), :payload, 5, :group_key
	FROM generate_series(1, :ready) AS n;
