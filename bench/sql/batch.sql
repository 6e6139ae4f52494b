-- A batch of jobs: claimed in one transaction, resolved in the next.
\if not :known
SELECT lpad(:client_id::text, 32, 'a') AS worker, true AS known \gset
\endif
SELECT array_agg(id) AS jobs, array_agg(true) AS successes
FROM claim_jobs(:worker, '{bench}', :batch) \gset
SELECT resolve_jobs(:worker, :jobs, :successes);
