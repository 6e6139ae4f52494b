-- The jobs of one run; the same statement for every system.
INSERT INTO :queue (job_type, payload, max_attempts)
	SELECT 'bench', jsonb_build_object('n', n, 'to', 'someone@example.com'), 5
	FROM generate_series(1, :rows) AS n;
