-- Requests per second, from the first claim to the last end.
SELECT count(*) / extract(epoch FROM max(finished_at) - min(started_at))
FROM job_runs WHERE job_id > :after AND status = 'completed';
