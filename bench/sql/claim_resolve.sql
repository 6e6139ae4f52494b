-- One job: claimed in one transaction, resolved in the next. Runs on the
-- extension and on the PL/pgSQL queue, whose functions have the same names.
\if not :known
SELECT lpad(:client_id::text, 32, 'a') AS worker, true AS known \gset
\endif
SELECT id AS job FROM claim_next_job(:worker, 'bench') \gset
SELECT resolve_job(:job, :worker, true);
