-- The table of LIMIT: the columns of jobs_queue_live and its fillfactor, so that
-- both UPDATEs are HOT; no constraint, trigger or index but the primary key.
DROP TABLE IF EXISTS limit_jobs;
CREATE TABLE limit_jobs (LIKE jobs_queue_live INCLUDING DEFAULTS, PRIMARY KEY (id))
	WITH (fillfactor = 45);
ALTER TABLE limit_jobs ALTER id DROP DEFAULT, ALTER id ADD GENERATED ALWAYS AS IDENTITY;
