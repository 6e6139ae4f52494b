-- LIMIT: the two UPDATEs that any queue with a durable claim must do, at rows
-- that nobody has to look for.
\if not :known
SELECT lpad(:client_id::text, 32, 'a') AS worker, true AS known \gset
\endif
\set id random(1, :rows)
UPDATE limit_jobs
SET status = 'running', attempts = 1, claim_no = claim_no + 1, locked_by = :worker,
	locked_at = now(), lease_expires_at = now() + interval '5 minutes', updated_at = now()
WHERE id = :id
RETURNING id AS job \gset
UPDATE limit_jobs
SET status = 'completed', locked_by = NULL, lease_expires_at = NULL,
	updated_at = now(), finished_at = now()
WHERE id = :job;
