-- A fresh extension. Without a row in job_types completed jobs are kept for ever.
DROP EXTENSION IF EXISTS jobqueue;
CREATE EXTENSION jobqueue;
INSERT INTO job_types (job_type, keep_completed)
	SELECT 'bench', '0' WHERE NOT :kept;
