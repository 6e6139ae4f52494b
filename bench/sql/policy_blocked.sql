-- Jobs that come before all others, and that nobody may claim: :block sees to that.
INSERT INTO job_types (job_type, keep_completed) VALUES (:'blocked_type', '0')
	ON CONFLICT DO NOTHING;
UPDATE job_types SET :limit WHERE job_type = :'blocked_type';
INSERT INTO jobs_queue (job_type, payload, max_attempts, group_key)
	SELECT :'blocked_type', '{"to": "someone@example.com"}', 5, 'full'
	FROM generate_series(1, :blocked);
:block;
