-- Turns what was loaded into jobs. Run by demo/run as demo_app.
SET search_path = demo, public;
BEGIN;

-- One call for all records: their jobs appear together, when this commits.
INSERT INTO loaded
SELECT 'package', count(*)
FROM enqueue_jobs('package', (
	SELECT array_agg(to_jsonb(r) ORDER BY package, architecture) FROM records r));

-- The other way in is a plain INSERT. PostgreSQL's own programs come first, and
-- at most 100 are checked.
WITH jobs AS (
	INSERT INTO jobs_queue (job_type, payload)
	SELECT 'checksum', jsonb_build_object('package', part[1], 'md5', part[2], 'path', '/' || part[3])
	FROM checksums, regexp_match(line, '([^/]+)\.md5sums:(\w+)  (.*)') AS part
	ORDER BY part[1] ~ '^(postgresql|libpq)' DESC, part[3]
	LIMIT 100
	RETURNING id
)
INSERT INTO loaded
SELECT 'checksum', count(*) FROM jobs;

COMMIT;
