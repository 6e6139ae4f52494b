-- One bad task never touches another.

\pset null -
SET timezone = 'UTC';
-- Both are due; the bad one comes first.
CREATE FUNCTION pg_temp.due() RETURNS void LANGUAGE sql AS $$
	DELETE FROM jobs_queue;
	DELETE FROM cron_tasks;
	INSERT INTO cron_tasks (name, schedule, job_type, next_run_at) VALUES
		('bad', '0 0 1 1 *', 'x', '2024-05-01 00:00+00'), ('good', '0 0 1 1 *', 'x', '2024-05-01 00:01+00');
$$;
CREATE VIEW pg_temp.outcome AS
	SELECT name, enabled, next_run_at > now() AS planned, run_count, disabled_reason FROM cron_tasks ORDER BY id;

-- Numbers of which no difference can be taken, and lengths that are none.
SELECT pg_temp.due() \g /dev/null
UPDATE cron_tasks SET max_runs = 9223372036854775807, run_count = -1 WHERE name = 'bad';
SELECT enqueue_cron_tasks();
TABLE pg_temp.outcome;
SELECT pg_temp.due() \g /dev/null
UPDATE cron_tasks SET run_count = 9223372036854775807 WHERE name = 'bad';
SELECT enqueue_cron_tasks();
TABLE pg_temp.outcome;
SELECT pg_temp.due() \g /dev/null
UPDATE cron_tasks SET missed_count = 9223372036854775807, skipped_count = 9223372036854775807 WHERE name = 'bad';
SELECT enqueue_cron_tasks();
TABLE pg_temp.outcome;
SELECT pg_temp.due() \g /dev/null
ALTER TABLE cron_tasks DISABLE TRIGGER guard;
UPDATE cron_tasks SET jitter = '178000000 years', start_deadline = '178000000 years' WHERE name = 'bad';
ALTER TABLE cron_tasks ENABLE TRIGGER guard;
SELECT enqueue_cron_tasks();
TABLE pg_temp.outcome;
SELECT pg_temp.due() \g /dev/null
ALTER TABLE cron_tasks DISABLE TRIGGER guard;
UPDATE cron_tasks SET jitter = '-1 month', start_deadline = '-178000000 years', max_runs = -9223372036854775807, run_count = 5 WHERE name = 'bad';
ALTER TABLE cron_tasks ENABLE TRIGGER guard;
SELECT enqueue_cron_tasks();
TABLE pg_temp.outcome;

-- Triggers and constraints of users that are in the way even of disabling it.
CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'nobody changes %', OLD.name; END $$;
CREATE FUNCTION pg_temp.leave_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION pg_temp.undo() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.next_run_at := OLD.next_run_at; RETURN NEW; END $$;
SELECT pg_temp.due() \g /dev/null
CREATE TRIGGER users BEFORE UPDATE ON cron_tasks FOR EACH ROW WHEN (OLD.name = 'bad') EXECUTE FUNCTION pg_temp.refuse();
SELECT enqueue_cron_tasks();
TABLE pg_temp.outcome;
DROP TRIGGER users ON cron_tasks;
SELECT pg_temp.due() \g /dev/null
CREATE TRIGGER users BEFORE UPDATE ON cron_tasks FOR EACH ROW WHEN (OLD.name = 'bad') EXECUTE FUNCTION pg_temp.leave_out();
SELECT enqueue_cron_tasks();
TABLE pg_temp.outcome;
SELECT t.name, q.id IS NOT NULL AS job FROM cron_tasks t LEFT JOIN jobs_queue q ON q.cron_task_id = t.id ORDER BY 1;
DROP TRIGGER users ON cron_tasks;
SELECT pg_temp.due() \g /dev/null
CREATE TRIGGER users BEFORE UPDATE ON cron_tasks FOR EACH ROW WHEN (OLD.name = 'bad') EXECUTE FUNCTION pg_temp.undo();
SELECT enqueue_cron_tasks();
SELECT enqueue_cron_tasks();
TABLE pg_temp.outcome;
DROP TRIGGER users ON cron_tasks;
SELECT pg_temp.due() \g /dev/null
ALTER TABLE cron_tasks ADD CONSTRAINT users CHECK (name <> 'bad') NOT VALID;
SELECT enqueue_cron_tasks();
TABLE pg_temp.outcome;
ALTER TABLE cron_tasks DROP CONSTRAINT users;
SELECT enqueue_cron_tasks();
TABLE pg_temp.outcome;

-- A trigger of the tables' owner that enqueues, too, does nothing inside.
DELETE FROM cron_tasks;
DELETE FROM jobs_queue;
SELECT count(schedule_cron_task('again ' || n, '0 0 1 1 *', 'x')) FROM generate_series(1, 5) n;
CREATE FUNCTION enqueue_again() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
BEGIN
	PERFORM enqueue_cron_tasks();
	RETURN NULL;
END $$;
CREATE TRIGGER users AFTER INSERT ON jobs_queue_live FOR EACH ROW EXECUTE FUNCTION enqueue_again();
UPDATE cron_tasks SET next_run_at = '2024-05-01 00:00+00';
SELECT enqueue_cron_tasks(), enqueue_cron_tasks();
SELECT count(*), count(DISTINCT cron_task_id) AS tasks FROM jobs_queue;
DROP TRIGGER users ON jobs_queue_live;
DROP FUNCTION enqueue_again();

-- Nobody else's job is in the way of a task, or a job of it.
CREATE ROLE regress_cron_producer;
CREATE ROLE regress_cron_operator;
CREATE ROLE regress_cron_owner;
SELECT grant_job_role('regress_cron_producer', 'producer'), grant_job_role('regress_cron_operator', 'operator'), grant_job_role('regress_cron_owner', 'operator') \g /dev/null
SET ROLE regress_cron_owner;
SELECT schedule_cron_task('busy', '0 0 1 1 *', 'x', overlap => 'skip') AS id \gset
RESET ROLE;
SET ROLE regress_cron_producer;
INSERT INTO jobs_queue (job_type, cron_task_id) VALUES ('other', :id);
INSERT INTO jobs_queue (job_type) VALUES ('other');
RESET ROLE;
SET ROLE regress_cron_operator;
UPDATE jobs_queue SET cron_task_id = :id;
UPDATE cron_tasks SET id = id + 1000 WHERE name = 'busy';
UPDATE cron_tasks SET next_run_at = '2024-05-01 00:00+00' WHERE name = 'busy';
SELECT enqueue_cron_tasks();
RESET ROLE;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;
DROP OWNED BY regress_cron_producer, regress_cron_operator, regress_cron_owner;
DROP ROLE regress_cron_producer, regress_cron_operator, regress_cron_owner;
