--
-- Ending claims: success, failure and retries, fencing, release, heartbeats.
--
SET TIMEZONE = 'UTC';
SET DATESTYLE = 'ISO, YMD';
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_dependencies;
DELETE FROM job_types;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
\set SHOW_CONTEXT never
\set w1 '''aaaaaaaa-0000-4000-8000-000000000001'''
\set w2 '''aaaaaaaa-0000-4000-8000-000000000002'''

-- success
SELECT enqueue_job('ocr', '{"n": 1}', stage => 's', correlation_id => 'c');
SELECT id FROM claim_next_job(:w1, 'ocr');
SELECT resolve_job(1, :w1, true);
SELECT id, status, attempts, claim_no, payload, last_error, result, locked_by, locked_at,
	   lease_expires_at, finished_at = updated_at AS has_end
FROM jobs_queue ORDER BY id;
SELECT job_id, claim_no, attempt, job_type, stage, correlation_id, worker_id = :w1 AS by_me,
	   status, charged, error, result, started_at < finished_at AS took_time
FROM job_runs ORDER BY job_id, claim_no;
-- resolving twice, or what one does not hold, changes nothing
SELECT resolve_job(1, :w1, true) AS again, resolve_job(1, :w1, false, 'late') AS failed_late,
	   resolve_job(424242, :w1, true) AS unknown;
SELECT enqueue_job('ocr');
SELECT resolve_job(2, :w1, true) AS unclaimed;
SELECT id FROM claim_next_job(:w1, 'ocr');
SELECT resolve_job(2, :w2, true) AS other_worker, resolve_job(2, :w2, false, 'x') AS other_failed,
	   complete_job(2, :w2) AS other_completed, fail_job(2, :w2, 'x') AS other_fail,
	   release_job(2, :w2) AS other_released, snooze_job(2, :w2, '1 s') AS other_snoozed,
	   heartbeat_job(2, :w2) AS other_heartbeat, set_job_stage(2, :w2, 'x') AS other_stage;
SELECT id, status, stage, attempts, last_error FROM jobs_queue ORDER BY id;
SELECT job_id, status FROM job_runs ORDER BY job_id, claim_no;
DELETE FROM jobs_queue;
SELECT resolve_job(2, :w1, true) AS deleted, complete_job(2, :w1) AS completed, fail_job(2, :w1) AS failed,
	   release_job(2, :w1) AS released, snooze_job(2, :w1, '1 s') AS snoozed,
	   heartbeat_job(2, :w1) AS heartbeat, set_job_stage(2, :w1, 's') AS stage;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- refused
SELECT resolve_job(NULL, :w1, true);
SELECT resolve_job(1, NULL, true);
SELECT resolve_job(1, :w1, NULL);
SELECT resolve_job(0, :w1, true);
SELECT resolve_job(1, '00000000-0000-0000-0000-000000000000', true);
SELECT resolve_job(1, :w1, true, NULL, 0);
SELECT resolve_jobs(:w1, NULL, '{true}');
SELECT resolve_jobs(:w1, '{1}', NULL);
SELECT resolve_jobs(:w1, '{1,2}', '{true}');
SELECT resolve_jobs(:w1, '{1,NULL}', '{true,true}');
SELECT resolve_jobs(:w1, '{1,2}', '{true,NULL}');
SELECT resolve_jobs(:w1, '{1,2}', '{true,false}', '{x}');
SELECT resolve_jobs(:w1, '{1,2}', '{true,false}', NULL, '{1}');
SELECT resolve_jobs(:w1, '{1,2}', '{true,false}', NULL, '{1,0}');
SELECT resolve_jobs(:w1, '{1,0}', '{true,false}');
SELECT fail_job(1, :w1, 'x', 'infinity');
SELECT fail_job(1, :w1, 'x', permanent => NULL);
SELECT snooze_job(1, :w1, NULL);
SELECT snooze_job(1, :w1, '-1 s');
SELECT snooze_job(1, :w1, '1 month');
SELECT heartbeat_job(1, :w1, '0');
SELECT heartbeat_job(1, :w1, '2 days');
SELECT set_job_stage(1, :w1, NULL);
SELECT set_job_stage(1, :w1, E'a\tb');
SELECT complete_job(NULL);
SELECT complete_job(-1);

-- failure: queued again, 5 minutes later by default
SELECT enqueue_job('ocr', max_attempts => 3);
SELECT resolve_job(id, :w1, false, 'no such page') FROM claim_next_job(:w1, 'ocr');
SELECT status, attempts, claim_no, last_error, locked_by, scheduled_at - updated_at AS delay, finished_at, job_state(q)
FROM jobs_queue q ORDER BY id;
UPDATE jobs_queue SET scheduled_at = now();
SELECT resolve_job(id, :w1, false) FROM claim_next_job(:w1, 'ocr');
SELECT status, attempts, last_error, scheduled_at - updated_at AS delay FROM jobs_queue ORDER BY id;
UPDATE jobs_queue SET scheduled_at = now();
SELECT resolve_job(id, :w1, false, 'third') FROM claim_next_job(:w1, 'ocr');
SELECT status, attempts, last_error, locked_by, finished_at = updated_at AS has_end FROM jobs_queue ORDER BY id;
SELECT claim_no, attempt, status, charged, error FROM job_runs ORDER BY job_id, claim_no;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- a later success leaves the error of the attempt before it in the runs
SELECT enqueue_job('ocr');
SELECT resolve_job(id, :w1, false, 'first') FROM claim_next_job(:w1, 'ocr');
UPDATE jobs_queue SET scheduled_at = now();
SELECT resolve_job(id, :w1, true) FROM claim_next_job(:w1, 'ocr');
SELECT status, attempts, claim_no FROM jobs_queue ORDER BY id;
SELECT claim_no, attempt, status, charged, error FROM job_runs ORDER BY job_id, claim_no;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- a success with an error text stores the text
SELECT enqueue_job('ocr');
SELECT resolve_job(id, :w1, true, 'done, with 2 warnings') FROM claim_next_job(:w1, 'ocr');
SELECT status, last_error FROM jobs_queue ORDER BY id;
SELECT status, charged, error FROM job_runs ORDER BY job_id, claim_no;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- backoff of a job type, and of a job
INSERT INTO job_types (job_type, max_attempts, backoff) VALUES
	('fixed', 4, '{"strategy": "fixed", "delay": "3 seconds"}'),
	('doubling', 9, '{"strategy": "exponential", "delay": "1 second", "multiplier": 2, "max_delay": "1 minute"}'),
	('real', 4, '{"strategy": "exponential", "delay": 10, "multiplier": 1.5}'),
	('at once', 2, '{"delay": 0}'),
	('jittery', 3, '{"delay": "100 s", "jitter": 0.5}');
CREATE FUNCTION pg_temp.delays(type text, attempts integer) RETURNS interval[]
LANGUAGE plpgsql AS $$
DECLARE
	job jobs_queue;
	delays interval[];
BEGIN
	FOR i IN 1 .. attempts LOOP
		SELECT * INTO STRICT job FROM claim_next_job('aaaaaaaa-0000-4000-8000-000000000001', type);
		PERFORM resolve_job(job.id, job.locked_by, false, 'x');
		SELECT * INTO job FROM jobs_queue WHERE id = job.id;
		EXIT WHEN job.status <> 'queued';
		delays := delays || job.scheduled_at - job.updated_at;
		UPDATE jobs_queue SET scheduled_at = now() WHERE id = job.id;
	END LOOP;
	RETURN delays;
END
$$;
SELECT count(enqueue_job(job_type)) FROM job_types WHERE job_type <> 'jittery';
SET intervalstyle = 'postgres';
SELECT pg_temp.delays('fixed', 4);
SELECT pg_temp.delays('doubling', 9);
SELECT pg_temp.delays('real', 4);
SELECT pg_temp.delays('at once', 2);
SELECT job_type, status, attempts, max_attempts FROM jobs_queue ORDER BY id;
SELECT count(*) FROM enqueue_jobs('jittery', array_fill('1'::jsonb, '{50}'));
SELECT count(resolve_job(id, :w1, false)) FROM claim_jobs(:w1, '{jittery}', 50);
SELECT count(*) FILTER (WHERE scheduled_at - updated_at BETWEEN '50 s' AND '150 s') AS in_range,
	   count(DISTINCT scheduled_at - updated_at) > 40 AS differ
FROM jobs_queue WHERE job_type = 'jittery';
DELETE FROM jobs_queue;
INSERT INTO jobs_queue (job_type, max_attempts, backoff) VALUES
	('fixed', 5, '{"strategy": "exponential", "delay": "2 s", "multiplier": 3, "max_delay": "15 s"}');
SELECT pg_temp.delays('fixed', 5);
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
RESET intervalstyle;
-- what is no backoff is refused
INSERT INTO job_types (job_type, backoff) VALUES ('ocr', '[]');
INSERT INTO job_types (job_type, backoff) VALUES ('ocr', '{"strategy": "quadratic"}');
INSERT INTO job_types (job_type, backoff) VALUES ('ocr', '{"multiplier": 0.5}');
INSERT INTO job_types (job_type, backoff) VALUES ('ocr', '{"jitter": 2}');
INSERT INTO job_types (job_type, backoff) VALUES ('ocr', '{"delay": -1}');
INSERT INTO job_types (job_type, backoff) VALUES ('ocr', '{"delay": "1 month"}');
INSERT INTO job_types (job_type, backoff) VALUES ('ocr', '{"retries": 3}');

-- dead letters: exhausted jobs end in error
INSERT INTO job_types (job_type, dead_letter, max_attempts) VALUES ('sync', true, 1);
SELECT enqueue_job('sync'), enqueue_job('sync', max_attempts => 5), enqueue_job('ocr', max_attempts => 1);
SELECT id, resolve_job(id, :w1, false, 'broken') FROM claim_jobs(:w1, '{sync,ocr}') ORDER BY id;
SELECT id, status, attempts, max_attempts, last_error FROM jobs_queue ORDER BY id;
SELECT job_id, status FROM job_runs ORDER BY job_id, claim_no;
DELETE FROM job_types;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- fail_job: permanent, retry_at
INSERT INTO job_types (job_type, dead_letter) VALUES ('sync', true);
SELECT enqueue_jobs('ocr', '{1,2,3,4}');
SELECT enqueue_job('sync');
SELECT count(*) FROM claim_jobs(:w1, '{ocr,sync}');
SELECT fail_job(1, :w1);
SELECT fail_job(2, :w1, 'never again', permanent => true);
SELECT fail_job(3, :w1, 'tomorrow', retry_at => '2030-01-01');
SELECT fail_job(job_id => 4, worker_id => :w1, error => 'both', retry_at => '2030-01-01', permanent => true, claim_no => 1);
SELECT fail_job(5, :w1, 'never again', NULL, true);
SELECT id, status, attempts, last_error,
	   CASE WHEN scheduled_at >= '2030-01-01' THEN 'retry_at'
			WHEN scheduled_at - updated_at = '5 min' THEN 'backoff' ELSE 'unchanged' END AS schedule
FROM jobs_queue ORDER BY id;
SELECT job_id, status, charged, error FROM job_runs ORDER BY job_id, claim_no;
DELETE FROM job_types;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- complete_job: a result
SELECT enqueue_jobs('ocr', '{1,2,3}');
SELECT count(*) FROM claim_jobs(:w1, '{ocr}', 2);
SELECT complete_job(1, :w1, '{"pages": 3}'), complete_job(2, :w1), complete_job(3, :w1, '1');
SELECT id, status, result FROM jobs_queue ORDER BY id;
SELECT job_id, status, result FROM job_runs ORDER BY job_id, claim_no;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- complete_job of a job that nobody holds
SELECT enqueue_jobs('ocr', '{1,2,3}', max_attempts => 1);
SELECT enqueue_job('ocr', depends_on => '{3}');
SELECT count(*) FROM claim_jobs(:w1, '{ocr}', 2);
SELECT resolve_job(1, :w1, false, 'broken');
SELECT complete_job(1) AS failed, complete_job(2) AS running, complete_job(3, result => '"by hand"') AS queued,
	   complete_job(4) AS released, complete_job(1) AS completed, complete_job(424242) AS unknown;
SELECT id, status, attempts, last_error, result, finished_at IS NOT NULL AS has_end FROM jobs_queue ORDER BY id;
SELECT job_id, status FROM job_runs ORDER BY job_id, claim_no;
SELECT enqueue_job('ocr', scheduled_at => now() + interval '1 hour', unique_key => 'k') AS id;
SELECT enqueue_job('ocr', depends_on => '{5}');
SELECT complete_job(6) AS blocked, complete_job(5) AS future, cancel_job(5);
SELECT id, status FROM jobs_queue WHERE id > 4 ORDER BY id;
DELETE FROM job_dependencies;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- an error of more than 8 kB is cut on a character boundary and marked
SELECT enqueue_jobs('ocr', '{1,2,3}');
SELECT resolve_job(id, :w1, false, CASE id WHEN 1 THEN repeat('x', 8192) WHEN 2 THEN repeat('x', 8193)
								   ELSE 'y' || repeat('é', 5000) END)
FROM claim_jobs(:w1, '{ocr}');
SELECT q.id, octet_length(last_error), right(last_error, 18), last_error = error AS same_in_run
FROM jobs_queue q JOIN job_runs r ON r.job_id = q.id ORDER BY q.id;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- a large payload and a large result survive every move
SELECT enqueue_job('ocr', (SELECT jsonb_agg(md5(i::text)) FROM generate_series(1, 10000) AS i));
CREATE TEMP TABLE payload AS SELECT payload, pg_column_size(payload) > 100000 AS is_large FROM jobs_queue;
SELECT complete_job(id, :w1, payload) FROM claim_next_job(:w1, 'ocr');
SELECT q.status, is_large, q.payload = p.payload AS payload, q.result = p.payload AS result, r.result = p.payload AS in_run
FROM jobs_queue q, payload p, job_runs r ORDER BY q.id;
SELECT requeue_job(1);
UPDATE jobs_queue SET status = 'failed';
UPDATE jobs_queue SET status = 'queued';
SELECT q.status, q.payload = p.payload AS payload, q.result FROM jobs_queue q, payload p ORDER BY q.id;
SELECT c.payload = p.payload AS payload FROM claim_next_job(:w1, 'ocr') c, payload p;
DROP TABLE payload;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- fencing: a worker that claimed its own expired job again cannot end the old claim
SELECT enqueue_job('ocr');
SELECT id, claim_no FROM claim_next_job(:w1, 'ocr');
UPDATE jobs_queue SET status = 'queued' WHERE id = 1;
SELECT id, claim_no FROM claim_next_job(:w1, 'ocr');
SELECT resolve_job(1, :w1, true, NULL, 1) AS resolve_job, resolve_jobs(:w1, '{1}', '{true}', claim_nos => '{1}'),
	   complete_job(1, :w1, claim_no => 1), fail_job(1, :w1, claim_no => 1),
	   release_job(1, :w1, 1), snooze_job(1, :w1, '1 s', 1), heartbeat_job(1, :w1, claim_no => 1),
	   set_job_stage(1, :w1, 'x', claim_no => 1);
SELECT count(*) FROM resolve_and_claim(1, :w1, true, claim_no => 1);
SELECT heartbeat_job(1, :w1, claim_no => 2), set_job_stage(1, :w1, 'x', 2),
	   resolve_job(job_id => 1, worker_id => :w1, success => true, claim_no => 2);
SELECT status, stage, attempts, claim_no FROM jobs_queue ORDER BY id;
SELECT claim_no, attempt, status, charged, error FROM job_runs ORDER BY job_id, claim_no;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- resolve_jobs: one answer for each job, in that order
SELECT enqueue_jobs('ocr', '{1,2,3,4,5,6}', max_attempts => 2);
SELECT count(*) FROM claim_jobs(:w1, '{ocr}', 5);
SELECT resolve_job(3, :w1, true);
SELECT resolve_jobs(:w1, '{5,6,3,1,424242,2,1,4}', '{true,true,true,false,true,false,true,true}',
					'{NULL,NULL,NULL,broken,NULL,NULL,NULL,warned}', '{1,NULL,NULL,NULL,1,1,NULL,7}');
SELECT id, status, attempts, last_error FROM jobs_queue ORDER BY id;
SELECT job_id, status, error FROM job_runs ORDER BY job_id, claim_no;
SELECT resolve_jobs(:w2, '{4}', '{true}'), resolve_jobs(:w1, '{}', '{}'),
	   resolve_jobs(worker_id => :w1, job_ids => '{4}', successes => '{t}');
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- resolve_and_claim: end one, get the next
SELECT enqueue_jobs('ocr', '{1,2,3}');
SELECT enqueue_job('license');
SELECT id FROM claim_next_job(:w1, 'ocr');
SELECT id, attempts FROM resolve_and_claim(1, :w1, true, NULL, 'ocr');
SELECT id, attempts FROM resolve_and_claim(2, :w1, false, 'broken', 'license');
SELECT id FROM resolve_and_claim(2, :w1, true, NULL, 'ocr');
SELECT id FROM resolve_and_claim(3, :w1, true);
SELECT id FROM resolve_and_claim(4, :w1, true, NULL, 'sql');
SELECT id FROM resolve_and_claim(4, :w1, NULL);
SELECT id, status, attempts, last_error FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- release_job and snooze_job give the attempt back
SELECT enqueue_job('ocr', scheduled_at => '2020-01-01', max_attempts => 1);
SELECT id, attempts, claim_no, release_job(id, :w1) FROM claim_next_job(:w1, 'ocr');
SELECT status, attempts, claim_no, scheduled_at, locked_by, lease_expires_at FROM jobs_queue ORDER BY id;
SELECT id, attempts, claim_no, snooze_job(id, :w1, '10 min') FROM claim_next_job(:w1, 'ocr');
SELECT status, attempts, claim_no, round(extract(epoch FROM scheduled_at - updated_at)) AS delay, job_state(q)
FROM jobs_queue q ORDER BY id;
SELECT count(*) FROM claim_next_job(:w1, 'ocr');
UPDATE jobs_queue SET scheduled_at = now();
SELECT id, attempts, claim_no, snooze_job(id, :w1, '0') FROM claim_next_job(:w1, 'ocr');
SELECT id, attempts, claim_no, resolve_job(id, :w1, false, 'x') FROM claim_next_job(:w1, 'ocr');
SELECT status, attempts, claim_no FROM jobs_queue ORDER BY id;
SELECT claim_no, attempt, status, charged, error FROM job_runs ORDER BY job_id, claim_no;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- heartbeat_job extends the lease from now, by the lease of the job type or as told
INSERT INTO job_types (job_type, lease) VALUES ('slow', '1 hour');
SELECT enqueue_job('slow'), enqueue_job('ocr');
SELECT id, lease_expires_at - locked_at AS lease FROM claim_jobs(:w1, '{slow,ocr}', 2, '10 s') ORDER BY id;
SELECT heartbeat_job(1, :w1), heartbeat_job(2, :w1);
SELECT id, lease_expires_at - updated_at AS lease, locked_at < updated_at AS still_claimed, progress
FROM jobs_queue ORDER BY id;
SELECT heartbeat_job(1, :w1, '20 s', '{"done": 5}'), heartbeat_job(job_id => 2, worker_id => :w1, progress => '"half"');
SELECT heartbeat_job(1, :w1, extend => '30 s');
SELECT id, lease_expires_at - updated_at AS lease, progress FROM jobs_queue ORDER BY id;
-- false once its cancellation was asked for
SELECT cancel_job(1, 'not needed');
SELECT heartbeat_job(1, :w1, '40 s', '{"done": 6}');
SELECT id, status, lease_expires_at - updated_at AS lease, progress, last_error,
	   cancel_requested_at IS NOT NULL AS asked FROM jobs_queue WHERE id = 1;
SELECT resolve_job(1, :w1, false, 'stopped');
SELECT resolve_job(2, :w1, true);
SELECT id, status, attempts, progress, last_error, cancel_requested_at FROM jobs_queue ORDER BY id;
SELECT job_id, status, charged, error FROM job_runs ORDER BY job_id, claim_no;
DELETE FROM job_types;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- set_job_stage: a retry resumes at the stage, and progress survives
SELECT enqueue_job('gift', stage => 'charge', correlation_id => 'g-1');
SELECT id, stage FROM claim_next_job(:w1, 'gift');
SELECT set_job_stage(1, :w1, 'deliver'), heartbeat_job(1, :w1, progress => '{"charged": true}');
SELECT resolve_job(1, :w1, false, 'mail server is down');
UPDATE jobs_queue SET scheduled_at = now();
SELECT id, stage, progress, attempts FROM claim_next_job(:w2, 'gift');
SELECT set_job_stage(1, :w2, '');
SELECT resolve_job(1, :w2, true);
SELECT status, stage, progress FROM jobs_queue ORDER BY id;
SELECT claim_no, stage, correlation_id, status, error FROM job_runs ORDER BY job_id, claim_no;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- keep_completed = 0 leaves the run and no job
INSERT INTO job_types (job_type, keep_completed, max_attempts) VALUES ('ping', '0', 1);
SELECT enqueue_jobs('ping', '{1,2,3,4}');
SELECT count(*) FROM claim_jobs(:w1, '{ping}', 3);
SELECT resolve_job(1, :w1, true), complete_job(2, :w1, '{"ok": true}'), resolve_job(3, :w1, false, 'x'), complete_job(4);
SELECT id, status FROM jobs_queue ORDER BY id;
SELECT job_id, status, result FROM job_runs ORDER BY job_id, claim_no;
SELECT resolve_job(1, :w1, true), complete_job(2);
DELETE FROM job_types;
DELETE FROM jobs_queue;
DELETE FROM job_runs;

-- The replica identity of a leaf is the user's to choose.
CREATE UNIQUE INDEX regress_identity ON jobs_queue_live (idempotency_key);
ALTER TABLE jobs_queue_live REPLICA IDENTITY USING INDEX regress_identity;
SELECT enqueue_job('identity') > 0 AS enqueued;
SELECT resolve_job(id, :w1, true) FROM claim_next_job(:w1, 'identity');
ALTER TABLE jobs_queue_live REPLICA IDENTITY FULL;
SELECT enqueue_job('identity') > 0 AS enqueued;
SELECT resolve_job(id, :w1, true) FROM claim_next_job(:w1, 'identity');
ALTER TABLE jobs_queue_live REPLICA IDENTITY DEFAULT;
DROP INDEX regress_identity;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
