-- One job of whatever type.
\if not :known
SELECT lpad(:client_id::text, 32, 'a') AS worker, true AS known \gset
\endif
SELECT id AS job FROM claim_next_job(:worker) \gset
SELECT resolve_job(:job, :worker, true);
