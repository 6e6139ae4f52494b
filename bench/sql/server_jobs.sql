-- No-op SQL jobs for the server's own workers.
INSERT INTO job_types (job_type, runner, command, keep_completed)
	VALUES ('noop', 'sql', 'SELECT 1', '0');
INSERT INTO jobs_queue (job_type, payload)
	SELECT 'noop', '{"to": "someone@example.com"}' FROM generate_series(1, :rows);
