-- One row, into a table with a primary key and nothing else.
INSERT INTO limit_jobs (job_type, payload, max_attempts)
	VALUES ('bench', '{"to": "someone@example.com"}', 5);
