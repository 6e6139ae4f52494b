--
-- Circuit breakers: a stage that fails again and again is left alone.
--
SET TIMEZONE = 'UTC';
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
DELETE FROM job_circuits;
DELETE FROM queue_events;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
\set SHOW_CONTEXT never
\set w1 '''cccccccc-0000-4000-8000-000000000001'''
\set w2 '''cccccccc-0000-4000-8000-000000000002'''
CREATE VIEW circuits AS
	SELECT job_type, stage, state, failures, threshold, CASE WHEN retry_at = 'infinity' THEN 'infinity' ELSE round(extract(epoch FROM retry_at - opened_at))::text END AS seconds,
		forced, reason, last_error, probe_job_id AS probe FROM job_circuit_status ORDER BY job_type, stage;
CREATE VIEW news AS
	SELECT event, job_type, stage, job_id, data FROM queue_events ORDER BY id;
-- Claims one job of a stage and fails it, or completes it.
CREATE FUNCTION attempt(type text, in_stage text, ok boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	job jobs_queue;
BEGIN
	SELECT * INTO job FROM claim_next_job('cccccccc-0000-4000-8000-000000000001', type) q;
	IF job.id IS NULL THEN
		RETURN 'nothing';
	END IF;
	IF job.stage <> in_stage THEN
		RAISE 'job % is of stage %', job.id, job.stage;
	END IF;
	PERFORM resolve_job(job.id, job.locked_by, ok, CASE WHEN NOT ok THEN 'down' END);
	RETURN format('job %s, attempt %s', job.id, job.attempts);
END
$$;

INSERT INTO job_types (job_type, max_attempts, backoff, breaker_threshold, breaker_cooldown)
	VALUES ('ship', 100, '{"strategy": "fixed", "delay": "0 seconds"}', 3, '1 hour');

-- Three failures in a row open it; a success in between starts anew.
SELECT count(enqueue_job('ship', stage => 'label')) FROM generate_series(1, 20);
SELECT attempt('ship', 'label', false) FROM generate_series(1, 2);
SELECT * FROM circuits;
SELECT attempt('ship', 'label', true);
SELECT * FROM circuits;
SELECT attempt('ship', 'label', false);
SELECT attempt('ship', 'label', false);
SELECT * FROM job_circuits;
SELECT attempt('ship', 'label', false);
SELECT job_type, stage, state, failures, threshold, last_error FROM circuits;
SELECT attempt('ship', 'label', false);
SELECT * FROM circuits;
SELECT failed_jobs FROM job_circuits;
-- Nothing is claimed, by either path, and no attempt is consumed; other stages and types go on.
SELECT sum(attempts) AS attempts, count(*) FILTER (WHERE status = 'running') AS running FROM jobs_queue;
SELECT count(*) FROM claim_jobs(:w1, '{ship}');
SET jobqueue.debug_claim_path = sql;
SELECT count(*) FROM claim_jobs(:w1, '{ship}');
SELECT count(*) FROM claim_jobs(:w1);
RESET jobqueue.debug_claim_path;
SELECT sum(attempts) AS attempts FROM jobs_queue;
CALL wait_for_jobs('{ship}', '0');
SELECT enqueue_job('ship', stage => 'bill'), enqueue_job('mail', stage => 'label');
SELECT job_type, stage FROM claim_jobs(:w1, '{ship}', 1);
SELECT job_type, stage FROM claim_jobs(:w1, '{mail}', 10);
SELECT count(*) FROM claim_jobs(:w1, max_jobs => 10);
SELECT release_job(id, :w1) FROM jobs_queue WHERE status = 'running' ORDER BY id;
SELECT job_type, stage FROM claim_jobs(:w1, max_jobs => 10) ORDER BY 1;
SELECT resolve_job(id, :w1, true) FROM jobs_queue WHERE status = 'running' ORDER BY id;
SELECT * FROM news;

-- After the cooldown one job is let through, by either path; the others wait for it.
UPDATE job_circuits SET retry_at = now();
CALL wait_for_jobs('{ship}', '0');
SELECT count(*) FROM claim_jobs(:w1, '{ship}', 5);
SELECT state, probe_job_id = (SELECT id FROM jobs_queue WHERE status = 'running') AS is_probe, probe_claim_no = (SELECT claim_no FROM jobs_queue WHERE status = 'running') AS is_claim FROM job_circuits;
SELECT count(*) FROM claim_jobs(:w2, '{ship}', 5);
CALL wait_for_jobs('{ship}', '0');
SELECT resolve_job(id, :w1, false, 'still down') FROM jobs_queue WHERE status = 'running';
SELECT job_type, stage, state, failures, last_error, probe FROM circuits;
SELECT retry_at - clock_timestamp() BETWEEN '59 minutes' AND '1 hour' AS cools_down FROM job_circuits;
SELECT count(*) FROM claim_jobs(:w2, '{ship}', 5);
UPDATE job_circuits SET retry_at = now();
SET jobqueue.debug_claim_path = sql;
CALL wait_for_jobs('{ship}', '0');
SELECT count(*) FROM claim_jobs(:w1, '{ship}', 5);
SELECT count(*) FROM claim_jobs(:w1, '{ship}', 5);
CALL wait_for_jobs('{ship}', '0');
RESET jobqueue.debug_claim_path;
SELECT resolve_job(id, :w1, true) FROM jobs_queue WHERE status = 'running';
SELECT * FROM circuits;
SELECT count(*) FROM claim_jobs(:w1, '{ship}', 5);
SELECT release_job(id, :w1) FROM jobs_queue WHERE status = 'running' ORDER BY id;
SELECT event, stage, job_id > 0 AS has_job, data FROM news;

-- What says nothing about the stage lets the next one through at once: a release, a snooze, plain DML, a deletion.
SELECT open_circuit('ship', 'label', '1 hour', 'maintenance'), open_circuit('ship', 'label', '2 hours', 'longer');
SELECT * FROM circuits;
UPDATE job_circuits SET retry_at = now();
CREATE FUNCTION probe() RETURNS bigint LANGUAGE sql AS $$ SELECT id FROM claim_jobs('cccccccc-0000-4000-8000-000000000001', '{ship}', 5) $$;
SELECT release_job(probe(), :w1);
SELECT state, probe FROM circuits;
SELECT snooze_job(probe(), :w1, '1 day');
SELECT probe() AS probe \gset
UPDATE jobs_queue SET status = 'queued' WHERE id = :probe;
SELECT probe() AS probe \gset
DELETE FROM jobs_queue WHERE id = :probe;
SELECT probe() AS probe \gset
SET session_replication_role = replica;
UPDATE jobs_queue_live SET status = 'queued', locked_by = NULL, lease_expires_at = NULL, locked_at = NULL WHERE id = :probe;
RESET session_replication_role;
SELECT state, probe = :probe AS is_old FROM circuits;
-- (It is looked at once a second.)
CALL wait_for_jobs('{ship}', '1 minute');
SELECT probe() AS probe \gset
SELECT state, probe = :probe AS is_new FROM circuits;
-- A lease that runs out is a failure.
UPDATE jobs_queue SET lease_expires_at = now() - interval '1 hour' WHERE id = :probe;
DO $$
BEGIN
	FOR i IN 1 .. 300 LOOP
		EXIT WHEN EXISTS (SELECT FROM circuits WHERE state = 'open');
		PERFORM claim_next_job('cccccccc-0000-4000-8000-000000000002', 'nothing');
		PERFORM pg_sleep(0.1);
	END LOOP;
END
$$;
SELECT state, failures, last_error FROM circuits;
SELECT count(*) FROM queue_events WHERE event = 'circuit_half_open';

-- An undone claim is none; a subtransaction's either.
UPDATE job_circuits SET retry_at = now();
BEGIN;
SELECT count(*) FROM claim_jobs(:w1, '{ship}', 5);
SELECT state FROM circuits;
ROLLBACK;
SELECT state FROM circuits;
BEGIN;
SAVEPOINT s;
SELECT count(*) FROM claim_jobs(:w1, '{ship}', 5);
ROLLBACK TO s;
SELECT count(*) FROM claim_jobs(:w1, '{ship}', 5);
SELECT count(*) FROM claim_jobs(:w1, '{ship}', 5);
-- Claimed and completed in one transaction.
SELECT resolve_job(id, :w1, true) FROM jobs_queue WHERE status = 'running';
SELECT count(*) FROM claim_jobs(:w1, '{ship}', 2);
ROLLBACK;
SELECT state FROM circuits;
-- Under REPEATABLE READ, too.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM claim_jobs(:w1, '{ship}', 5);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT resolve_job(id, :w1, true) FROM jobs_queue WHERE status = 'running';
COMMIT;
SELECT * FROM circuits;
-- Failures that are undone do not count; those of a subtransaction that stays do.
BEGIN;
SELECT attempt('ship', 'label', false);
SELECT attempt('ship', 'label', false);
SAVEPOINT s;
SELECT attempt('ship', 'label', false);
ROLLBACK TO s;
SAVEPOINT s;
SELECT enqueue_job('mail') > 0 AS enqueued;
RELEASE s;
COMMIT;
SELECT state, failures FROM circuits;
BEGIN;
SELECT attempt('ship', 'label', false);
ROLLBACK;
SELECT state, failures FROM circuits;
-- A claim that moves on has left the stage with success.
SELECT count(*) FROM claim_jobs(:w1, '{ship}', 1);
SELECT set_job_stage(id, :w1, 'weigh') FROM jobs_queue WHERE status = 'running';
SELECT * FROM circuits;
SELECT resolve_job(id, :w1, false, 'no scales') FROM jobs_queue WHERE status = 'running';
SELECT stage, state, failures FROM circuits;
SELECT close_circuit('ship', 'weigh');
DELETE FROM jobs_queue WHERE stage = 'weigh';
-- A prepared transaction does not count, and its claim of a probe stands.
BEGIN;
SELECT attempt('ship', 'label', false) IS NOT NULL AS attempted;
PREPARE TRANSACTION 'failure';
COMMIT PREPARED 'failure';
SELECT stage, state, failures FROM circuits;
SELECT open_circuit('ship', 'label', '1 hour');
UPDATE job_circuits SET retry_at = now();
BEGIN;
SELECT count(*) FROM claim_jobs(:w1, '{ship}', 5);
PREPARE TRANSACTION 'probe';
SELECT stage FROM claim_jobs(:w1, '{ship}', 5);
SELECT resolve_job(id, :w1, true) FROM jobs_queue WHERE status = 'running';
COMMIT PREPARED 'probe';
SELECT stage, state, probe IS NOT NULL AS probe FROM circuits;
SELECT count(*) FROM claim_jobs(:w1, '{ship}', 5);
SELECT resolve_job(id, :w1, true) FROM jobs_queue WHERE status = 'running';
SELECT * FROM circuits;

-- Every lane of a stage shares its circuit.
DELETE FROM jobs_queue;
SELECT enqueue_job('ship', stage => 'label', priority => p) > 0 AS enqueued FROM generate_series(1, 3) p;
SELECT open_circuit('ship', 'label', '1 hour');
SELECT count(*) FROM claim_jobs(:w1);
UPDATE job_circuits SET retry_at = now();
SELECT priority FROM claim_jobs(:w1, max_jobs => 10);
SELECT release_job(id, :w1) FROM jobs_queue WHERE status = 'running';
SET jobqueue.debug_claim_path = sql;
SELECT priority FROM claim_jobs(:w1, max_jobs => 10);
RESET jobqueue.debug_claim_path;
SELECT resolve_job(id, :w1, true) FROM jobs_queue WHERE status = 'running';
SELECT priority FROM claim_jobs(:w1, max_jobs => 10) ORDER BY priority;
DELETE FROM jobs_queue;

-- Of a type with groups: other stages go on, and one job is let through.
UPDATE job_types SET group_concurrency = 1 WHERE job_type = 'ship';
SELECT count(enqueue_job('ship', stage => 'label', group_key => 'g' || n)) FROM generate_series(1, 5) n;
SELECT count(enqueue_job('ship', stage => 'bill', group_key => 'h' || n)) FROM generate_series(1, 5) n;
SELECT stage, count(*) FROM claim_jobs(:w1, '{ship}', 3) GROUP BY stage;
SELECT resolve_job(id, :w1, false, 'down') FROM jobs_queue WHERE status = 'running';
SELECT stage, count(*) FROM claim_jobs(:w1, '{ship}', 10) GROUP BY stage;
SELECT resolve_job(id, :w1, true) FROM jobs_queue WHERE status = 'running';
SELECT stage, state FROM circuits;
UPDATE job_circuits SET retry_at = now();
CALL wait_for_jobs('{ship}', '1 minute');
SELECT stage, count(*) FROM claim_jobs(:w1, '{ship}', 10) GROUP BY stage;
SELECT count(*) FROM claim_jobs(:w1, '{ship}', 10);
SELECT resolve_job(id, :w1, true) FROM jobs_queue WHERE status = 'running';
SELECT stage, state FROM circuits;
CALL wait_for_jobs('{ship}', '1 minute');
UPDATE job_types SET group_concurrency = NULL WHERE job_type = 'ship';
SELECT stage, count(*) FROM claim_jobs(:w1, '{ship}', 10) GROUP BY stage;
DELETE FROM jobs_queue;

-- Distinct jobs: a poison job does not open it.
UPDATE job_types SET breaker_distinct_jobs = true WHERE job_type = 'ship';
SELECT enqueue_job('ship', priority => 1) > 0 AS enqueued;
SELECT attempt('ship', '', false) IS NOT NULL AS attempted FROM generate_series(1, 4);
SELECT state, failures FROM circuits;
UPDATE jobs_queue SET scheduled_at = now() + interval '1 day';
SELECT enqueue_job('ship', max_attempts => 1), enqueue_job('ship', max_attempts => 1) \g /dev/null
SELECT attempt('ship', '', false) IS NOT NULL AS attempted FROM generate_series(1, 2);
CALL wait_for_jobs('{ship}', '0');
SELECT state, failures, seconds FROM circuits;
SELECT cardinality(failed_jobs) FROM job_circuits;
SELECT close_circuit('ship', 'other'), close_circuit('ship', ''), close_circuit('ship');
SELECT * FROM circuits;
UPDATE job_types SET breaker_distinct_jobs = false WHERE job_type = 'ship';

-- By hand: without end, of a type without a breaker, of all stages.
SELECT enqueue_job('mail') > 0 AS enqueued;
SELECT open_circuit('mail'), open_circuit('mail', 'send', reason => 'why not');
SELECT job_type, stage, state, forced, reason FROM circuits;
SELECT opened_by, retry_at FROM job_circuits ORDER BY stage;
SELECT count(*) FROM claim_jobs(:w1);
CALL wait_for_jobs('{mail}', '0');
SELECT open_circuit('mail', '', '1 hour');
SELECT close_circuit('mail'), close_circuit('mail');
SELECT count(*) FROM claim_jobs(:w1);
SELECT resolve_job(id, :w1, true) FROM jobs_queue WHERE status = 'running';
-- Closing forgets what was counted.
DELETE FROM jobs_queue;
SELECT count(enqueue_job('ship')) FROM generate_series(1, 5);
SELECT attempt('ship', '', false) IS NOT NULL AS attempted FROM generate_series(1, 2);
SELECT state, failures FROM circuits;
SELECT close_circuit('ship');
SELECT state, failures FROM circuits;
-- Also of one that has opened and has no row yet.
SELECT attempt('ship', '', false) IS NOT NULL AS attempted FROM generate_series(1, 3);
SELECT state, failures, (SELECT count(*) FROM job_circuits) AS rows FROM circuits;
SELECT close_circuit('ship');
SELECT * FROM circuits;
-- Plain DML.
INSERT INTO job_circuits (job_type) VALUES ('ship');
SELECT job_type, stage, state, forced, opened_by = current_user::regrole AS is_mine, retry_at FROM job_circuits;
SELECT count(*) FROM claim_jobs(:w1);
UPDATE job_circuits SET state = 'half_open';
SELECT count(*) FROM claim_jobs(:w1);
DELETE FROM job_circuits;
SELECT count(*) FROM claim_jobs(:w1, max_jobs => 1);
TRUNCATE job_circuits;
-- Running jobs go on while it is open; what becomes of them changes nothing.
SELECT open_circuit('ship');
SELECT resolve_job(id, :w1, id % 2 = 0, 'down') FROM jobs_queue WHERE status = 'running' ORDER BY id;
SELECT state, failures FROM circuits;
SELECT close_circuit('ship');
SELECT state, failures FROM circuits;

-- Rights.
CREATE ROLE regress_breaker;
CREATE ROLE regress_looker;
SELECT grant_job_role('regress_breaker', 'operator'), grant_job_role('regress_looker', 'observer');
SET ROLE regress_breaker;
SELECT open_circuit('ship', 'label'), close_circuit('ship');
INSERT INTO job_circuits (job_type, stage) VALUES ('ship', 'x');
SELECT opened_by FROM job_circuits;
SELECT count(*) > 0 AS has_events FROM queue_events;
SELECT stage, state FROM job_circuit_status;
DELETE FROM job_circuits;
DELETE FROM queue_events;
SET ROLE regress_looker;
SELECT stage, state FROM job_circuit_status;
SELECT last_error FROM job_circuit_status;
SELECT open_circuit('ship');
RESET ROLE;

-- Bad input.
\set VERBOSITY terse
SELECT open_circuit(NULL);
SELECT open_circuit('');
SELECT open_circuit('ship', NULL);
SELECT open_circuit('ship', repeat('x', 256));
SELECT open_circuit('ship', '', '-1 hour');
SELECT open_circuit('ship', '', '1 month');
SELECT open_circuit('ship', '', '0');
SELECT open_circuit('ship', '', NULL, repeat('x', 1025));
SELECT close_circuit(NULL);
SELECT close_circuit('ship', repeat('x', 256));
INSERT INTO job_circuits (job_type) VALUES (NULL);
INSERT INTO job_circuits (job_type) VALUES ('');
INSERT INTO job_circuits (job_type, state) VALUES ('ship', 'ajar');
INSERT INTO job_circuits (job_type, state) VALUES ('ship', NULL);
INSERT INTO job_circuits (job_type, probe_job_id) VALUES ('ship', 1);
INSERT INTO job_circuits (job_type, stage) VALUES ('ship', repeat('x', 256));
\set VERBOSITY default
SELECT _circuits_changed();
CREATE TEMP TABLE other (job_type text);
CREATE TRIGGER guard BEFORE INSERT ON other FOR EACH ROW EXECUTE FUNCTION _guard_circuit();
INSERT INTO other VALUES ('x');
DROP TABLE other;
BEGIN READ ONLY;
SELECT open_circuit('ship');
ROLLBACK;

DROP OWNED BY regress_breaker, regress_looker;
DROP ROLE regress_breaker, regress_looker;
DROP FUNCTION attempt, probe;
DROP VIEW circuits, news;
DELETE FROM jobs_queue;
DELETE FROM job_types;
DELETE FROM job_circuits;
DELETE FROM queue_events;
