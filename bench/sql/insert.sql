-- One job, by INSERT into the queue's table.
INSERT INTO jobs_queue (job_type, payload, max_attempts)
	VALUES ('bench', '{"to": "someone@example.com"}', 5);
