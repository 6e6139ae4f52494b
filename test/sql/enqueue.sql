--
-- Enqueueing: functions, plain INSERT and COPY, unique keys, dependencies.
--
SET TIMEZONE = 'UTC';
SET DATESTYLE = 'ISO, YMD';
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_dependencies;
DELETE FROM job_types;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
\set SHOW_CONTEXT never
\set w '''aaaaaaaa-0000-4000-8000-000000000001'''

-- The SQLSTATE and text of the error that a statement raises.
CREATE FUNCTION pg_temp.error_of(statement text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate || ': ' || sqlerrm;
END
$$;

-- a job with nothing but a type
SELECT enqueue_job('ocr');
SELECT id, job_type, stage, status, priority, scheduled_at = created_at AS is_due_now,
	   payload, attempts, max_attempts, claim_no, crashes
FROM jobs_queue ORDER BY id;
SELECT id, last_error, correlation_id, unique_key, group_key, locked_by, locked_at,
	   lease_expires_at, cancel_requested_at, holder, timeout, backoff, waiting_for
FROM jobs_queue ORDER BY id;
SELECT id, cron_instant, owner = current_user::regrole AS is_mine,
	   idempotency_key IS NOT NULL AS has_key, result, progress, tags, metadata,
	   cron_task_id, updated_at = created_at AS is_new, finished_at
FROM jobs_queue ORDER BY id;

-- NULL means the default, for every argument but the type
SELECT enqueue_job('ocr', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
				   NULL, NULL, NULL, NULL);
SELECT count(*) AS kinds, count(DISTINCT idempotency_key) AS keys
FROM (SELECT to_jsonb(q) - 'id' - 'idempotency_key' - 'created_at'
			 - 'updated_at' - 'scheduled_at' AS j, idempotency_key
	  FROM jobs_queue q) q
GROUP BY j ORDER BY 1;

-- all arguments, by position and by name
SELECT enqueue_job('ocr', '{"page": 1}', '2030-01-02 03:04:05.678901', -7, 3, 'key-1',
				   'skip', 'group-1', 'scan', 'corr-1', '{1,2,1}', '90 s', '{a,b}', '{"m": 1}');
SELECT enqueue_job(
	job_type => 'ocr', payload => '{"page": 1}', scheduled_at => '2030-01-02 03:04:05.678901',
	priority => -7, max_attempts => 3, unique_key => 'key-2', unique_mode => 'replace',
	group_key => 'group-1', stage => 'scan', correlation_id => 'corr-1',
	depends_on => ARRAY[1, 2], timeout => '90 s', tags => '{a,b}', metadata => '{"m": 1}');
SELECT id, status, payload, scheduled_at, priority, max_attempts, unique_key, group_key
FROM jobs_queue WHERE id > 2 ORDER BY id;
SELECT id, stage, correlation_id, waiting_for, timeout, tags, metadata
FROM jobs_queue WHERE id > 2 ORDER BY id;
SELECT job_id, depends_on FROM job_dependencies WHERE status IS NULL ORDER BY job_id, depends_on;
DELETE FROM job_dependencies;
DELETE FROM jobs_queue;

-- payloads of every shape are kept as they are
SELECT enqueue_job('ocr', p) > 0 AS ok
FROM unnest('{"null","1.50","\"text\"","[]","[1, null]","{\"a\": {\"b\": []}}"}'::jsonb[]) AS p;
SELECT payload FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;

-- refused before anything is written
SELECT enqueue_job(NULL);
SELECT enqueue_job('');
SELECT enqueue_job('ocr', max_attempts => 0);
SELECT enqueue_job('ocr', max_attempts => 1001);
SELECT enqueue_job('ocr', priority => 32768);
SELECT enqueue_job('ocr', priority => -32769);
SELECT enqueue_job('ocr', scheduled_at => 'infinity');
SELECT enqueue_job('ocr', unique_key => 'k', unique_mode => 'overwrite');
SELECT enqueue_job('ocr', depends_on => '{1,NULL}');
SELECT enqueue_job('ocr', depends_on => '{424242}');
SELECT enqueue_job('ocr', timeout => '1 month');
SELECT enqueue_job('ocr', timeout => '-1 s');
SELECT what, pg_temp.error_of('SELECT enqueue_job(' || args || ')') AS error
FROM (VALUES
	(1, 'job_type long', 'repeat(''x'', 256)'),
	(2, 'job_type control', 'E''a\nb'''),
	(3, 'stage long', '''ocr'', stage => repeat(''x'', 256)'),
	(4, 'unique_key empty', '''ocr'', unique_key => '''''),
	(5, 'unique_key long', '''ocr'', unique_key => repeat(''x'', 513)'),
	(6, 'group_key empty', '''ocr'', group_key => '''''),
	(7, 'scheduled_at past', '''ocr'', scheduled_at => ''1999-12-31'''),
	(8, 'scheduled_at far', '''ocr'', scheduled_at => now() + interval ''11 years'''),
	(9, 'timeout zero', '''ocr'', timeout => ''0'''),
	(10, 'payload deep', '''ocr'', (repeat(''['', 600) || repeat('']'', 600))::jsonb'),
	(11, 'payload large', '''ocr'', to_jsonb(repeat(''x'', 1024 * 1024))'),
	(12, 'longest names', 'repeat(''x'', 255), stage => repeat(''x'', 255), unique_key => repeat(''x'', 512)'),
	(13, 'extreme priority', '''ocr'', priority => -32768, max_attempts => 1000')
) AS c (n, what, args) ORDER BY n;
SELECT status, priority, max_attempts, length(job_type) FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- enqueue_jobs: one job for each payload, ids in that order
SELECT enqueue_jobs('ocr', ARRAY['{"n": 1}', '{"n": 2}', '{"n": 3}']::jsonb[]);
SELECT count(*), bool_and(id = n + 3) AS ids_in_order
FROM enqueue_jobs('ocr', (SELECT array_agg(to_jsonb(i) ORDER BY i DESC)
						  FROM generate_series(1, 1000) AS i))
	 WITH ORDINALITY AS e (id, n);
SELECT count(*), bool_and(payload = to_jsonb(1004 - id)) AS payloads_in_order
FROM jobs_queue WHERE id > 3;
SELECT enqueue_jobs(
	'license', '{1,2}', scheduled_at => '2030-01-01', priority => 4, max_attempts => 2,
	group_key => 'g', stage => 's', correlation_id => 'c', timeout => '1 min',
	tags => '{t}', metadata => '{"m": 1}') - 1003 AS n;
SELECT payload, status, scheduled_at, priority, max_attempts, group_key, stage,
	   correlation_id, timeout, tags, metadata
FROM jobs_queue WHERE job_type = 'license' ORDER BY id;
SELECT enqueue_jobs('ocr', '{}');
SELECT enqueue_jobs(NULL, '{1}');
SELECT enqueue_jobs('ocr', NULL);
SELECT enqueue_jobs('ocr', '{1,NULL}');
SELECT enqueue_jobs('ocr', '{{1},{2}}');
SELECT enqueue_jobs('ocr', '{1,2}', unique_keys => '{a}');
SELECT enqueue_jobs('ocr', '{1,2}', max_attempts => 0);
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- with unique keys, each payload gets the job that has its key
SELECT enqueue_jobs('ocr', '{1,2,3,4}', unique_keys => '{a,b,a,NULL}');
SELECT id, payload, unique_key FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- enqueue_job_batch: mixed types, keys as the arguments of enqueue_job
SELECT enqueue_job_batch('[
	{"job_type": "ocr"},
	{"job_type": "license", "payload": {"n": 2}, "priority": 5, "max_attempts": 2,
	 "scheduled_at": "2030-01-01T00:00:00Z", "unique_key": "k", "unique_mode": "skip",
	 "group_key": "g", "stage": "s", "correlation_id": "c", "depends_on": [1],
	 "timeout": "90 seconds", "tags": ["x", "y"], "metadata": {"m": [1, 2]}},
	{"job_type": "ocr", "payload": null, "stage": null, "tags": [], "depends_on": []},
	{"job_type": "license", "unique_key": "k"}]');
SELECT id, job_type, status, payload, priority, max_attempts, scheduled_at = created_at AS is_due_now,
	   unique_key, group_key
FROM jobs_queue ORDER BY id;
SELECT id, stage, correlation_id, waiting_for, timeout, tags, metadata FROM jobs_queue ORDER BY id;
SELECT enqueue_job_batch('[]');
SELECT enqueue_job_batch(NULL);
SELECT enqueue_job_batch('{"job_type": "ocr"}');
SELECT enqueue_job_batch('3');
SELECT enqueue_job_batch('[{"job_type": "ocr"}, 3]');
SELECT enqueue_job_batch('[{"job_type": "ocr"}, {"payload": {}}]');
SELECT enqueue_job_batch('[{"job_type": "ocr", "prio": 1}]');
SELECT enqueue_job_batch('[{"job_type": 1}]');
SELECT enqueue_job_batch('[{"job_type": "ocr", "priority": "1"}]');
SELECT enqueue_job_batch('[{"job_type": "ocr", "depends_on": 1}]');
SELECT enqueue_job_batch('[{"job_type": "ocr", "depends_on": ["1"]}]');
SELECT enqueue_job_batch('[{"job_type": "ocr", "tags": [1]}]');
SELECT enqueue_job_batch('[{"job_type": "ocr"}, {"job_type": "ocr", "max_attempts": 0}]');
SELECT count(*) FROM jobs_queue;
DELETE FROM job_dependencies;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- enqueue_sql: the built-in job type, the command in the payload
SELECT enqueue_sql('SELECT 1');
SELECT enqueue_sql(
	command => 'VACUUM', payload => '[1]', scheduled_at => '2030-01-01', priority => 1,
	max_attempts => 2, unique_key => 'u', unique_mode => 'replace', correlation_id => 'c',
	depends_on => '{1}', timeout => '1 h', tags => '{t}', metadata => '{"m": 1}');
SELECT enqueue_sql('SELECT 2', '"text"', mode => 'alone');
SELECT id, job_type, status, payload, priority, max_attempts, unique_key, correlation_id
FROM jobs_queue ORDER BY id;
SELECT enqueue_sql(NULL);
SELECT enqueue_sql('');
SELECT enqueue_sql(' -- nothing');
SELECT enqueue_sql('SELEC 1');
SELECT enqueue_sql('PREPARE TRANSACTION ''x''');
SELECT enqueue_sql('COPY t FROM STDIN');
INSERT INTO jobs_queue (job_type) VALUES ('sql');
INSERT INTO jobs_queue (job_type, payload) VALUES ('sql', '{"command": "ROLLBACK PREPARED ''x''"}');
INSERT INTO jobs_queue (job_type, payload) VALUES ('sql', '{"command": "SELECT 3"}') RETURNING payload;
DELETE FROM job_dependencies;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- max_attempts comes from the job type, or from the setting
INSERT INTO job_types (job_type, max_attempts) VALUES ('license', 7);
SELECT enqueue_job('license'), enqueue_job('license', max_attempts => 2);
SELECT enqueue_jobs('license', '{1}');
SELECT enqueue_job_batch('[{"job_type": "license"}]');
INSERT INTO jobs_queue (job_type) VALUES ('license'), ('ocr');
INSERT INTO jobs_queue (job_type, max_attempts) VALUES ('license', 3), ('ocr', NULL);
SELECT id, job_type, max_attempts FROM jobs_queue ORDER BY id;
UPDATE job_types SET max_attempts = 9 WHERE job_type = 'license';
SELECT enqueue_job('license') AS id;
SELECT max_attempts FROM jobs_queue WHERE id = 9;
INSERT INTO jobs_queue (job_type) VALUES ('license') RETURNING max_attempts;
DELETE FROM job_types;
INSERT INTO jobs_queue (job_type) VALUES ('license') RETURNING max_attempts;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- plain INSERT: a type is enough, the owner is whoever inserts
INSERT INTO jobs_queue (job_type) VALUES ('ocr')
RETURNING id, status, priority, attempts, max_attempts, payload, owner = current_user::regrole AS is_mine;
INSERT INTO jobs_queue (job_type, payload, stage, priority, scheduled_at, correlation_id, unique_key)
SELECT 'ocr', to_jsonb(i), 's' || i, i, '2030-01-01', 'c' || i, 'k' || i FROM generate_series(1, 3) AS i;
SELECT id, payload, stage, priority, scheduled_at, correlation_id, unique_key FROM jobs_queue WHERE id > 1 ORDER BY id;
INSERT INTO jobs_queue (job_type, unique_key) VALUES ('ocr', 'k1');
INSERT INTO jobs_queue (job_type, unique_key) VALUES ('ocr', 'k1'), ('ocr', 'k9')
ON CONFLICT DO NOTHING RETURNING unique_key;
INSERT INTO jobs_queue (payload) VALUES ('{}');
INSERT INTO jobs_queue (job_type) VALUES ('');
INSERT INTO jobs_queue (job_type, payload) VALUES ('ocr', NULL);
INSERT INTO jobs_queue (job_type, scheduled_at) VALUES ('ocr', '-infinity');
INSERT INTO jobs_queue (job_type, max_attempts) VALUES ('ocr', 0);
INSERT INTO jobs_queue (job_type, max_attempts) VALUES ('ocr', 1001);
INSERT INTO jobs_queue (job_type, timeout) VALUES ('ocr', '2 days');
INSERT INTO jobs_queue (job_type, backoff) VALUES ('ocr', '{"dely": "1 s"}');
INSERT INTO jobs_queue (job_type, status) VALUES ('ocr', 'waiting');
INSERT INTO jobs_queue (job_type, status) VALUES ('ocr', 'running');
INSERT INTO jobs_queue (job_type, status) VALUES ('ocr', 'blocked');
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- COPY is an INSERT of many
INSERT INTO job_types (job_type, max_attempts) VALUES ('license', 7);
COPY jobs_queue (job_type, payload, stage) FROM STDIN;
ocr	{"n": 1}	a
license	{"n": 2}	b
\.
COPY jobs_queue (job_type, max_attempts) FROM STDIN WITH (FORMAT csv);
license,
ocr,3
\.
COPY jobs_queue (job_type, scheduled_at) FROM STDIN;
ocr	2030-01-01
ocr	infinity
\.
SELECT id, job_type, status, payload, stage, max_attempts, owner = current_user::regrole AS is_mine
FROM jobs_queue ORDER BY id;
DELETE FROM job_types;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- unique keys, mode skip: the job that has the key stays as it is
SELECT enqueue_job('ocr', '{"n": 1}', unique_key => 'k', scheduled_at => '2030-01-01') AS id;
SELECT enqueue_job('ocr', '{"n": 2}', unique_key => 'k', priority => 3) AS id;
SELECT enqueue_job('license', '{"n": 3}', unique_key => 'k') > 1 AS other_type;
SELECT id, job_type, payload, priority, scheduled_at IS NOT DISTINCT FROM '2030-01-01' AS as_first
FROM jobs_queue WHERE unique_key = 'k' ORDER BY id;

-- replace: it becomes the new job
SELECT enqueue_job('ocr', '{"n": 4}', '2031-01-01', 4, 2, 'k', 'replace', 'g', 's', 'c',
				   NULL, '1 min', '{t}', '{"m": 1}') AS id;
SELECT id, payload, scheduled_at, priority, max_attempts, group_key, stage, correlation_id, timeout, tags, metadata
FROM jobs_queue WHERE job_type = 'ocr' ORDER BY id;

-- keep_schedule: the same, but for its schedule
SELECT enqueue_job('ocr', '{"n": 5}', unique_key => 'k', unique_mode => 'keep_schedule') AS id;
SELECT id, payload, scheduled_at, priority, max_attempts, group_key, stage, correlation_id, timeout, tags, metadata
FROM jobs_queue WHERE job_type = 'ocr' ORDER BY id;
SELECT enqueue_job('ocr', '{"n": 6}', unique_key => 'k', unique_mode => 'replace') AS id;
SELECT id, payload, scheduled_at <= now() AS is_due FROM jobs_queue WHERE job_type = 'ocr' ORDER BY id;

-- what cannot be a new job cannot replace one
SELECT enqueue_job('ocr', '{"n": 7}', unique_key => 'k', unique_mode => 'replace', scheduled_at => 'infinity');
SELECT payload FROM jobs_queue WHERE job_type = 'ocr' ORDER BY id;

-- a running job has its key; who wants to change it has the key and a new job
SELECT id, unique_key FROM claim_next_job(:w, 'ocr');
SELECT enqueue_job('ocr', '{"n": 8}', unique_key => 'k') AS id;
SELECT enqueue_job('ocr', '{"n": 9}', unique_key => 'k', unique_mode => 'replace') AS id;
SELECT enqueue_job('ocr', '{"n": 9}', unique_key => 'k', unique_mode => 'keep_schedule') AS id;
SELECT id, status, payload FROM jobs_queue WHERE job_type = 'ocr' ORDER BY id;

-- the key is free again after completion
SELECT resolve_job(1, :w, true);
SELECT resolve_job(id, :w, true) FROM claim_next_job(:w, 'ocr');
SELECT enqueue_job('ocr', '{"n": 10}', unique_key => 'k') > 10 AS is_new;
SELECT status, payload FROM jobs_queue WHERE job_type = 'ocr' ORDER BY id;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- a replaced job that has failed before keeps an attempt
SELECT enqueue_job('ocr', unique_key => 'k');
SELECT resolve_job(id, :w, false, 'first') FROM claim_next_job(:w, 'ocr');
SELECT enqueue_job('ocr', '{"n": 2}', unique_key => 'k', unique_mode => 'replace', max_attempts => 1) AS id;
SELECT id, status, payload, attempts, max_attempts FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- dependencies: blocked until the last parent has completed
SELECT enqueue_job('parent') AS p1, enqueue_job('parent') AS p2, enqueue_job('parent') AS p3;
SELECT enqueue_job('child', depends_on => '{1,2,3}');
SELECT enqueue_job('child', depends_on => '{3}');
SELECT id, job_type, status, waiting_for, job_state(q) FROM jobs_queue q ORDER BY id;
SELECT count(*) AS claimable FROM claim_next_job(:w, 'child');
-- by resolve_job
SELECT resolve_job(id, :w, true) FROM claim_next_job(:w, 'parent');
SELECT id, status, waiting_for FROM jobs_queue WHERE job_type = 'child' ORDER BY id;
-- by complete_job, of a job that nobody holds
SELECT complete_job(2);
SELECT id, status, waiting_for FROM jobs_queue WHERE job_type = 'child' ORDER BY id;
-- by plain UPDATE
UPDATE jobs_queue SET status = 'completed' WHERE id = 3;
SELECT id, status, waiting_for FROM jobs_queue WHERE job_type = 'child' ORDER BY id;
SELECT count(*) FROM job_dependencies WHERE status IS NULL;
SELECT id FROM claim_jobs(:w, '{child}');

-- parents that have completed already do not count
SELECT enqueue_job('child', depends_on => '{1,2,3}') AS id;
SELECT id, status, waiting_for FROM jobs_queue WHERE id = 6;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- a parent that was not kept has left its run
INSERT INTO job_types (job_type, keep_completed) VALUES ('fleeting', '0');
SELECT enqueue_job('fleeting');
SELECT resolve_job(id, :w, true) FROM claim_next_job(:w, 'fleeting');
SELECT enqueue_job('child', depends_on => '{1}');
SELECT enqueue_job('fleeting');
SELECT enqueue_job('child', depends_on => '{3}');
SELECT resolve_job(id, :w, true) FROM claim_next_job(:w, 'fleeting');
SELECT id, job_type, status, waiting_for FROM jobs_queue ORDER BY id;
DELETE FROM job_types;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- children of a parent that ended without success stay blocked ...
SELECT enqueue_job('parent', max_attempts => 1);
SELECT enqueue_job('child', depends_on => '{1}');
SELECT resolve_job(id, :w, false, 'broken') FROM claim_next_job(:w, 'parent');
SELECT enqueue_job('child', depends_on => '{1}');
SELECT id, status, waiting_for FROM jobs_queue ORDER BY id;
-- ... and go on when it is requeued and completes
SELECT requeue_job(1);
SELECT id, status, waiting_for FROM jobs_queue ORDER BY id;
SELECT resolve_job(id, :w, true) FROM claim_next_job(:w, 'parent');
SELECT id, status, waiting_for FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- ... or is run by hand and marked completed, by UPDATE or by complete_job
SELECT enqueue_job('parent', max_attempts => 1) AS p1, enqueue_job('parent', max_attempts => 1) AS p2;
SELECT enqueue_job('child', depends_on => '{1}') AS c1, enqueue_job('child', depends_on => '{2}') AS c2;
SELECT resolve_job(id, :w, false, 'broken') FROM claim_jobs(:w, '{parent}');
UPDATE jobs_queue SET status = 'completed' WHERE id = 1;
SELECT complete_job(2);
SELECT id, status, waiting_for FROM jobs_queue ORDER BY id;
SELECT count(*) FROM job_dependencies WHERE status IS NULL;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- several parents completed by one UPDATE
SELECT enqueue_job('parent') AS p1, enqueue_job('parent') AS p2;
SELECT enqueue_job('child', depends_on => '{1,2}');
UPDATE jobs_queue SET status = 'completed' WHERE job_type = 'parent';
SELECT id, status, waiting_for FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- a child that was queued by hand does not count below zero
SELECT enqueue_job('parent');
SELECT enqueue_job('child', depends_on => '{1}');
UPDATE jobs_queue SET status = 'queued' WHERE id = 2;
SELECT complete_job(1);
SELECT id, status, waiting_for FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- parents and children in one transaction; a chain
BEGIN;
SELECT enqueue_job('chain');
SELECT enqueue_job('chain', depends_on => ARRAY[currval('jobs_queue_id_seq')]);
SELECT enqueue_job('chain', depends_on => ARRAY[currval('jobs_queue_id_seq')]);
COMMIT;
SELECT id, resolve_job(id, :w, true) FROM claim_next_job(:w, 'chain');
SELECT id, resolve_job(id, :w, true) FROM claim_next_job(:w, 'chain');
SELECT id, resolve_job(id, :w, true) FROM claim_next_job(:w, 'chain');
SELECT count(*) FROM claim_next_job(:w, 'chain');
SELECT enqueue_job('chain', depends_on => '{0}');
SELECT enqueue_job('chain', depends_on => '{-1}');
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- a unique job that depends on others
SELECT enqueue_job('parent');
SELECT enqueue_job('child', unique_key => 'k', depends_on => '{1}');
SELECT enqueue_job('child', unique_key => 'k', depends_on => '{1}');
SELECT enqueue_job('child', '{"n": 2}', unique_key => 'k', unique_mode => 'replace', depends_on => '{1}');
SELECT id, status, waiting_for, payload FROM jobs_queue ORDER BY id;
SELECT complete_job(1);
SELECT id, status, waiting_for, payload FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- a rolled back enqueue never happened
BEGIN;
SELECT enqueue_job('ocr', unique_key => 'k') > 0 AS ok;
SELECT count(*) AS inside FROM claim_next_job(:w, 'ocr');
ROLLBACK;
SELECT count(*) FROM jobs_queue;
BEGIN;
SAVEPOINT s;
SELECT enqueue_job('ocr', '{"n": 1}', unique_key => 'k') > 0 AS ok;
ROLLBACK TO s;
SELECT enqueue_job('ocr', '{"n": 2}', unique_key => 'k') > 0 AS ok;
COMMIT;
SELECT payload FROM jobs_queue ORDER BY id;
DO $$
BEGIN
	PERFORM enqueue_job('ocr', '{"n": 3}');
	PERFORM enqueue_job('ocr', max_attempts => 0);
EXCEPTION WHEN invalid_parameter_value THEN
	RAISE NOTICE 'caught: %', sqlerrm;
	PERFORM enqueue_job('ocr', '{"n": 4}');
END
$$;
SELECT payload FROM jobs_queue ORDER BY id;
BEGIN READ ONLY;
SELECT enqueue_job('ocr');
ROLLBACK;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- job_state tells queued and running apart further
SELECT enqueue_job('now');
SELECT enqueue_job('later', scheduled_at => now() + interval '1 hour');
SELECT enqueue_job('again'), enqueue_job('busy'), enqueue_job('lost'), enqueue_job('gone'),
	   enqueue_job('bad', max_attempts => 1);
SELECT enqueue_job('waits', depends_on => '{1}');
SELECT resolve_job(id, :w, false, 'x') FROM claim_jobs(:w, '{again,bad}');
SELECT count(*) FROM claim_jobs(:w, '{busy,lost}');
UPDATE jobs_queue SET lease_expires_at = now() - interval '1 s' WHERE job_type = 'lost';
SELECT cancel_job(id) FROM jobs_queue WHERE job_type = 'gone';
SELECT id, job_type, status, job_state(q), q.job_state AS by_dot FROM jobs_queue q ORDER BY id;
DELETE FROM job_dependencies;
DELETE FROM jobs_queue;
DELETE FROM job_runs;

-- a column that somebody added does no harm
BEGIN;
ALTER TABLE jobs_queue ADD COLUMN dropped integer, ADD COLUMN note text DEFAULT 'new';
ALTER TABLE jobs_queue DROP COLUMN dropped;
SELECT enqueue_job('ocr') > 0 AS ok;
INSERT INTO jobs_queue (job_type, note) VALUES ('ocr', 'mine');
SELECT status, note FROM claim_jobs(:w, '{ocr}', 2) ORDER BY note;
SELECT resolve_job(id, :w, note = 'new', 'x') FROM jobs_queue ORDER BY note;
UPDATE jobs_queue SET status = 'queued' WHERE status = 'completed';
SELECT status, attempts, note FROM jobs_queue ORDER BY note;
ROLLBACK;
SELECT count(*) FROM jobs_queue;
