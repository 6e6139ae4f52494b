-- Retention zero for every job type there is.
INSERT INTO job_types (job_type, keep_completed)
	SELECT DISTINCT job_type, '0'::interval FROM jobs_queue
	ON CONFLICT DO NOTHING;
