-- A client that sleeps in the server until there is a job, and notes when it had it.
\if not :known
SELECT lpad(:client_id::text, 32, 'a') AS worker, true AS known \gset
\endif
CALL wait_for_jobs('{latency}', '10 seconds', NULL);
SELECT coalesce(max(id), 0) AS job, coalesce(max(payload->>'at'), '') AS at
	FROM claim_next_job(:worker, 'latency') \gset
\if :job > 0
INSERT INTO latency
	SELECT 1000 * extract(epoch FROM clock_timestamp() - :at::timestamptz);
SELECT resolve_job(:job, :worker, true);
\endif
