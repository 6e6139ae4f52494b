-- One job of one of :types job types.
\if not :known
SELECT lpad(:client_id::text, 32, 'a') AS worker, true AS known \gset
\endif
\set type random(0, :types - 1)
SELECT id AS job FROM claim_next_job(:worker, 'bench_' || :type) \gset
SELECT resolve_job(:job, :worker, true);
