-- Where starts are noted, and who starts: the server when :runner is "server".
DROP TABLE IF EXISTS latency;
CREATE TABLE latency (ms double precision NOT NULL);
INSERT INTO job_types (job_type, keep_completed) VALUES ('latency', '0');
UPDATE job_types
	SET runner = 'sql',
		command = $$INSERT INTO public.latency
			SELECT 1000 * extract(epoch FROM clock_timestamp() - ($1->>'at')::timestamptz)$$
	WHERE :'runner' = 'server';
