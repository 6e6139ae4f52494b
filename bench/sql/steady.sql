-- One job comes, one goes.
\if not :known
SELECT lpad(:client_id::text, 32, 'a') AS worker, true AS known \gset
\endif
INSERT INTO jobs_queue (job_type, payload, max_attempts)
	VALUES ('bench', '{"to": "someone@example.com"}', 5);
SELECT coalesce(max(id), 0) AS job FROM claim_next_job(:worker, 'bench') \gset
\if :job > 0
SELECT resolve_job(:job, :worker, true);
\endif
