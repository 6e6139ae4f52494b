-- One job, whose payload the client gets.
\if not :known
SELECT lpad(:client_id::text, 32, 'a') AS worker, true AS known \gset
\endif
SELECT id AS job, payload FROM claim_next_job(:worker, 'bench') \gset
SELECT resolve_job(:job, :worker, true);
