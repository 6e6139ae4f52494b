-- No-op SQL jobs for the server's own workers.
INSERT INTO job_types (job_type, runner, command, keep_completed)
	VALUES ('noop', 'sql', 'SELECT 1', CASE WHEN :'what' = 'unkept' THEN interval '0' END);
INSERT INTO jobs_queue (job_type, payload)
	SELECT 'noop', '{"to": "someone@example.com"}' FROM generate_series(1, :rows);
