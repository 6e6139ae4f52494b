-- What job types say of their events in the server log: job_types.event_prefix
-- and event_messages. What is logged is in test/t/140_event_log.pl.
INSERT INTO job_types (job_type, event_prefix, event_messages) VALUES
	('sales', 'sale-discovery.v2', '{"start": "Starting sale discovery cycle", "completed": "Sale discovery cycle completed"}'),
	('plain', NULL, NULL),
	('empty', 'x', '{}');

-- Every event may have a text.
UPDATE job_types SET event_messages = (SELECT jsonb_object_agg(e, 'text of ' || e)
	FROM unnest('{enqueued,requeued,start,completed,skipped,released,cancelled,failed,expired,crashed,dead_letter,circuit_open,circuit_half_open,circuit_closed}'::text[]) e)
WHERE job_type = 'plain';

-- Names that could not be told apart, or would need quotes, are refused.
\set VERBOSITY terse
SELECT format('UPDATE job_types SET event_prefix = %L WHERE job_type = ''empty''', prefix)
FROM unnest(ARRAY['', ' ', 'a b', 'a.', '.a', 'a..b', 'ä', '"a"', 'a=b', E'a\n', repeat('a', 64)]) prefix
\gexec

-- So is what is no object of texts under the names of events.
SELECT format('UPDATE job_types SET event_messages = %L WHERE job_type = ''empty''', messages)
FROM unnest(ARRAY['null', '"a"', '1', '[]', '["start"]', '{"begin": "x"}', '{"": "x"}', '{"START": "x"}', '{"job.start": "x"}', '{"start": null}', '{"start": 1}',
	'{"start": {"completed": "x"}}', '{"start": ["x"]}', '{"start": ""}', '{"start": "two\nlines"}', '{"completed": "x", "nothing": "y"}']) messages
\gexec
UPDATE job_types SET event_messages = jsonb_build_object('start', repeat('x', 501)) WHERE job_type = 'empty';
UPDATE job_types SET event_messages = jsonb_build_object('start', repeat('x', 500)) WHERE job_type = 'plain';
\set VERBOSITY default
UPDATE job_types SET event_prefix = 'a b' WHERE job_type = 'empty';
UPDATE job_types SET event_messages = '{"begin": "x"}' WHERE job_type = 'empty';
SELECT job_type, event_prefix, left(event_messages::text, 60) FROM job_types ORDER BY job_type;

-- What a job does is the same with all of it; the log goes elsewhere.
\set VERBOSITY terse
SELECT enqueue_job('sales') AS id \gset
SELECT attempts, status FROM claim_next_job('00000000-0000-4000-8000-000000000001', 'sales');
SELECT resolve_job(:id, '00000000-0000-4000-8000-000000000001', false, 'lost');
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
