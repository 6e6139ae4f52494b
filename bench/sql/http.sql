-- An endpoint, and a job type that goes there.
INSERT INTO http_endpoints (name, url, max_concurrency, tls_ca)
	VALUES ('hook', :'url', :concurrency, nullif(:'ca', ''));
INSERT INTO job_types (job_type, runner, endpoint, keep_completed)
	VALUES ('hook', 'http', 'hook', CASE WHEN NOT :kept THEN interval '0' END);
