-- One job: resolved in the transaction that claims the next one.
\if not :known
SELECT lpad(:client_id::text, 32, 'a') AS worker, true AS known \gset
SELECT id AS job FROM claim_next_job(:worker, 'bench') \gset
\endif
SELECT id AS job FROM resolve_and_claim(:job, :worker, true, NULL, 'bench') \gset
