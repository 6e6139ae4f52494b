--
-- Operators: pause and resume the workers, a job type, a worker.
--
SET TIMEZONE = 'UTC';
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
DELETE FROM registered_workers;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
\set SHOW_CONTEXT never
\set w1 '''cccccccc-0000-4000-8000-000000000001'''
\set w2 '''cccccccc-0000-4000-8000-000000000002'''
CREATE VIEW status AS SELECT is_active, reason, paused_at = now() AS now, paused_by, pause_reason, has_scheduler FROM queue_status;
CREATE ROLE regress_operator;
CREATE ROLE regress_worker;
CREATE ROLE regress_observer;
SELECT grant_job_role('regress_operator', 'operator'), grant_job_role('regress_worker', 'worker'),
	grant_job_role('regress_observer', 'observer');
GRANT SELECT ON status TO regress_operator;

-- Nobody has served this database: it has no identity yet.
SELECT count(*) FROM database_identity;
SELECT * FROM status;

-- A pause: nothing is claimed, on both paths; everything else goes on.
SELECT enqueue_jobs('mail', '{1,2,3,4,5}');
SELECT id FROM claim_next_job(:w1);
SET ROLE regress_operator;
BEGIN;
SELECT pause_workers('disks are full');
SELECT * FROM status;
COMMIT;
SELECT pause_workers('again');
RESET ROLE;
SELECT system_identifier = (pg_control_system()).system_identifier AS here, database = (SELECT oid FROM pg_database WHERE datname = current_database()) AS this,
	activated_by, paused_by, pause_reason FROM database_identity;
SELECT id FROM claim_next_job(:w1);
SELECT id FROM claim_jobs(:w1);
SET jobqueue.debug_claim_path = sql;
SELECT id FROM claim_next_job(:w1);
RESET jobqueue.debug_claim_path;
CALL wait_for_jobs('{mail}', '0');
SELECT enqueue_job('mail');
SELECT heartbeat_job(1, :w1);
SELECT id FROM resolve_and_claim(1, :w1, true);
SELECT id, status FROM jobs_queue WHERE id = 1;
SELECT schedule_cron_task('tick', '* * * * *', 'mail') > 0 AS scheduled;
UPDATE cron_tasks SET next_run_at = now() - interval '1 hour';
SELECT enqueue_cron_tasks();
DELETE FROM cron_tasks;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT id FROM claim_next_job(:w1);
ROLLBACK;
-- A resume that is undone is none, and an own one counts at once.
BEGIN;
SELECT resume_workers();
SELECT id FROM claim_next_job(:w1);
ROLLBACK;
SELECT id FROM claim_next_job(:w1);
SELECT resume_workers(), resume_workers();
CALL wait_for_jobs('{mail}', '0');
SELECT id FROM claim_next_job(:w1);
BEGIN;
SELECT pause_workers(), pause_workers('x');
SAVEPOINT s;
SELECT resume_workers();
ROLLBACK TO s;
SELECT count(*) FROM claim_next_job(:w1);
ROLLBACK;
SELECT * FROM status;

-- A copy: the server is quiet, outside workers are not.
UPDATE database_identity SET system_identifier = 1;
SELECT * FROM status;
SELECT id FROM claim_next_job(:w1);
SELECT pause_workers('of the original');
SELECT reason, pause_reason FROM queue_status;
SELECT activate_jobs();
SELECT system_identifier = (pg_control_system()).system_identifier AS here, paused_at, paused_by, pause_reason FROM database_identity;
SELECT * FROM status;
SELECT pause_workers();
SELECT activate_jobs();
SELECT reason FROM queue_status;
SELECT resume_workers();
SELECT activate_jobs();
-- What a restore brings takes the place of what is there.
INSERT INTO database_identity (system_identifier, database, pause_reason) VALUES (7, 8, 'a'), (7, 9, 'b');
SELECT system_identifier, database, pause_reason FROM database_identity;
SELECT reason FROM queue_status;
COPY database_identity (system_identifier, database) FROM stdin;
7	10
\.
SELECT system_identifier, database, pause_reason FROM database_identity;
DELETE FROM database_identity;
SELECT reason FROM queue_status;
SELECT activate_jobs();
SELECT count(*) FROM database_identity;
\set VERBOSITY sqlstate
UPDATE database_identity SET is_only = false;
\set VERBOSITY default
DELETE FROM database_identity;

-- A job type: the row is made if there is none.
SELECT pause_job_type('mail', 'relay is down'), pause_job_type('mail', 'again');
SELECT job_type, owner = current_user::regrole AS mine, runner, enabled, paused_at IS NULL AS undated, pause_reason FROM job_types;
SELECT id FROM claim_next_job(:w1, 'mail');
SELECT id FROM claim_next_job(:w1);
SELECT resume_job_type('mail'), resume_job_type('mail'), resume_job_type('unheard of');
SELECT job_type, enabled, paused_at, pause_reason FROM job_types;
SELECT id FROM claim_next_job(:w1, 'mail');
SELECT pause_job_type('sql');
SELECT runner, command, enabled FROM job_types WHERE job_type = 'sql';
SELECT resume_job_type('sql');
-- Plain DML says the same.
BEGIN;
UPDATE job_types SET enabled = false WHERE job_type = 'mail';
SELECT enabled, paused_at = now() AS now, pause_reason FROM job_types WHERE job_type = 'mail';
UPDATE job_types SET description = 'x' WHERE job_type = 'mail';
SELECT enabled, paused_at = now() AS now, pause_reason FROM job_types WHERE job_type = 'mail';
UPDATE job_types SET enabled = true WHERE job_type = 'mail';
SELECT enabled, paused_at, pause_reason FROM job_types WHERE job_type = 'mail';
ROLLBACK;
-- It needs no right to the definition.
INSERT INTO job_types (job_type, runner, command) VALUES ('report', 'sql', 'SELECT 1');
SET ROLE regress_operator;
SELECT pause_job_type('report', 'not now');
SELECT resume_job_type('report');
SELECT pause_job_type('fresh');
RESET ROLE;
SELECT job_type, owner = current_user::regrole AS mine, enabled FROM job_types ORDER BY 1;

-- A worker.
SELECT register_worker(:w1, 'one');
SELECT stop_worker(:w1, 'deploy'), stop_worker(:w1, 'again');
SELECT worker_id, reason, requested_by = current_user::regrole AS mine FROM worker_stops;
\set VERBOSITY sqlstate
SELECT id FROM claim_next_job(:w1);
\set VERBOSITY default
SELECT id FROM claim_jobs(:w1, '{mail}');
SET jobqueue.debug_claim_path = sql;
SELECT id FROM claim_next_job(:w1);
RESET jobqueue.debug_claim_path;
SELECT kind, worker_id, name, state, running_jobs, job_id, job_type, stop_reason FROM job_workers WHERE kind = 'external';
SELECT count(*) > 1 AS several FROM jobs_queue WHERE locked_by = :w1;
SELECT heartbeat_job(min(id), :w1) FROM jobs_queue WHERE locked_by = :w1;
SELECT heartbeat_worker(:w1);
SELECT q.id FROM jobs_queue j, resolve_and_claim(j.id, :w1, true) q WHERE j.locked_by = :w1;
SELECT status, count(*) FROM jobs_queue GROUP BY 1 ORDER BY 1;
SELECT kind, worker_id, name, state, running_jobs, job_id, job_type, stop_reason FROM job_workers WHERE kind = 'external';
-- Others are not concerned; who registers again has been started again.
SELECT id FROM claim_next_job(:w2);
SELECT heartbeat_worker(:w2);
SELECT kind, worker_id, name, state, running_jobs, job_id, job_type, stop_reason FROM job_workers WHERE kind = 'external' ORDER BY worker_id;
SELECT register_worker(:w1, 'one');
SELECT count(*) FROM worker_stops;
SELECT enqueue_job('mail') > 0 AS enqueued;
SELECT count(*) FROM claim_next_job(:w1);
SELECT heartbeat_worker(:w1);
SELECT kind, worker_id, name, state, running_jobs, job_type, stop_reason FROM job_workers WHERE kind = 'external' ORDER BY worker_id;
-- Not registered, no reason; undone; taken back by hand.
SELECT stop_worker(:w2);
SELECT heartbeat_worker(:w2);
SELECT id FROM claim_next_job(:w2);
BEGIN;
SELECT register_worker(:w2);
SELECT heartbeat_worker(:w2);
ROLLBACK;
SELECT heartbeat_worker(:w2);
SET ROLE regress_operator;
DELETE FROM worker_stops;
RESET ROLE;
SELECT heartbeat_worker(:w2);
-- It is seen, once a second.
UPDATE registered_workers SET last_seen_at = '2001-02-03';
SELECT heartbeat_worker(:w1);
SELECT last_seen_at > now() - interval '1 hour' AS seen FROM registered_workers;
BEGIN;
UPDATE registered_workers SET last_seen_at = now() + interval '1 hour';
SELECT heartbeat_worker(:w1);
SELECT last_seen_at = now() + interval '1 hour' AS unwritten FROM registered_workers;
ROLLBACK;

-- Input
SELECT stop_worker(NULL);
SELECT stop_worker('00000000-0000-0000-0000-000000000000');
SELECT stop_worker(:w1, repeat('x', 1025));
SELECT heartbeat_worker(NULL);
SELECT heartbeat_worker('00000000-0000-0000-0000-000000000000');
SELECT pause_job_type(NULL);
SELECT pause_job_type('');
SELECT pause_job_type('mail', E'a\nb');
SELECT resume_job_type(NULL);
SELECT resume_job_type(repeat('x', 256));
SELECT pause_workers(repeat('x', 1025));
BEGIN READ ONLY;
SAVEPOINT s;
SELECT pause_workers();
ROLLBACK TO s;
SELECT resume_workers();
ROLLBACK TO s;
SELECT activate_jobs();
ROLLBACK TO s;
SELECT pause_job_type('mail');
ROLLBACK TO s;
SELECT resume_job_type('mail');
ROLLBACK TO s;
SELECT stop_worker(:w1);
ROLLBACK TO s;
SELECT heartbeat_worker(:w1);
ROLLBACK TO s;
SELECT reason FROM queue_status;
ROLLBACK;

-- Rights
SET ROLE regress_worker;
SELECT stop_worker(:w1);
SELECT pause_workers();
SELECT resume_workers();
SELECT activate_jobs();
SELECT pause_job_type('mail');
SELECT resume_job_type('mail');
SELECT heartbeat_worker(:w1);
SELECT * FROM worker_stops;
SET ROLE regress_operator;
SELECT heartbeat_worker(:w1);
SELECT stop_worker(:w1), count(*) FROM worker_stops;
DELETE FROM worker_stops;
UPDATE database_identity SET paused_at = now();
SELECT count(*) FROM queue_status;
SET ROLE regress_observer;
SELECT count(*) FROM queue_status;
SELECT pause_workers();
RESET ROLE;

SELECT _activity_changed();

DELETE FROM database_identity;
DELETE FROM worker_stops;
DELETE FROM registered_workers;
DELETE FROM jobs_queue;
DELETE FROM job_types;
DROP VIEW status;
DROP OWNED BY regress_operator, regress_worker, regress_observer;
DROP ROLE regress_operator, regress_worker, regress_observer;
