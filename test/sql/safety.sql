--
-- Nothing that users do to the tables gives them another's rights, loses a
-- job, or leaves one that cannot go on.
--
SET client_min_messages = warning;
SET TIMEZONE = 'UTC';
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_dependencies;
DELETE FROM job_types;
DELETE FROM cron_tasks;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
\set SHOW_CONTEXT never
\set w1 '''aaaaaaaa-0000-4000-8000-000000000001'''
CREATE ROLE regress_alice;
CREATE ROLE regress_operator;
CREATE ROLE regress_producer;
CREATE ROLE regress_worker;
CREATE SCHEMA regress_jobqueue;
GRANT USAGE ON SCHEMA regress_jobqueue TO PUBLIC;
SELECT grant_job_role('regress_alice', 'producer'), grant_job_role('regress_operator', 'operator'),
	grant_job_role('regress_operator', 'producer'), grant_job_role('regress_producer', 'producer'),
	grant_job_role('regress_worker', 'worker');
-- How a statement ends.
CREATE FUNCTION regress_jobqueue.try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	EXECUTE statement;
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN 'ok ' || n;
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate || ' ' || sqlerrm;
END
$$;

-- A move that failed lets no later INSERT of the same id pass.
CREATE FUNCTION regress_jobqueue.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'job % stays', OLD.id USING ERRCODE = 'P0007';
END
$$;
CREATE TRIGGER z_refuse BEFORE UPDATE OR DELETE ON jobs_queue_live FOR EACH ROW
	WHEN (OLD.correlation_id = 'update') EXECUTE FUNCTION regress_jobqueue.refuse();
CREATE TRIGGER z_refuse_delete BEFORE DELETE ON jobs_queue_live FOR EACH ROW
	WHEN (OLD.correlation_id = 'delete') EXECUTE FUNCTION regress_jobqueue.refuse();
CREATE TRIGGER z_refuse_after AFTER DELETE ON jobs_queue_live FOR EACH ROW
	WHEN (OLD.correlation_id = 'after') EXECUTE FUNCTION regress_jobqueue.refuse();
ALTER TABLE jobs_queue_done ADD CONSTRAINT refuse CHECK (correlation_id <> 'check');
CREATE VIEW regress_jobqueue.inserts AS
	SELECT q.id, n, format('INSERT INTO jobs_queue (id, job_type, payload, max_attempts, ' || c || ') VALUES (%s, ''sql'', ''{"command": "SELECT 1"}'', 5, ' || v || ')', q.id) AS statement
	FROM jobs_queue q, (VALUES
		(1, 'owner', '''regress_alice'''), (2, 'owner', '10'), (3, 'status', '''completed'''),
		(4, 'status, owner', '''failed'', 10'), (5, 'claim_no', '3'), (6, 'attempts', '2')) AS i (n, c, v);
GRANT SELECT ON regress_jobqueue.inserts TO regress_operator;
SELECT enqueue_job('mail', correlation_id => c) FROM unnest('{update,delete,after,check}'::text[]) WITH ORDINALITY AS t (c, n) ORDER BY n;
SET ROLE regress_operator;
-- in the next transaction
UPDATE jobs_queue SET status = 'completed' WHERE id = 1;
SELECT n, regexp_replace(regress_jobqueue.try(statement), '(role ")[^"]*"', '\1..."') FROM regress_jobqueue.inserts WHERE id = 1 ORDER BY n;
UPDATE jobs_queue SET status = 'completed' WHERE id = 2;
SELECT n, left(regress_jobqueue.try(statement), 5) FROM regress_jobqueue.inserts WHERE id = 2 ORDER BY n;
UPDATE jobs_queue SET status = 'completed' WHERE id = 3;
SELECT n, left(regress_jobqueue.try(statement), 5) FROM regress_jobqueue.inserts WHERE id = 3 ORDER BY n;
\set VERBOSITY terse
UPDATE jobs_queue SET status = 'completed' WHERE id = 4;
SELECT n, left(regress_jobqueue.try(statement), 5) FROM regress_jobqueue.inserts WHERE id = 4 ORDER BY n;
-- in the same one
BEGIN;
SELECT id, regress_jobqueue.try(format('UPDATE jobs_queue SET status = ''completed'' WHERE id = %s', id)) FROM generate_series(1, 4) AS id;
SELECT id, n, left(regress_jobqueue.try(statement), 5) FROM regress_jobqueue.inserts ORDER BY id, n;
SAVEPOINT s;
UPDATE jobs_queue SET status = 'cancelled' WHERE id = 3;
ROLLBACK TO s;
SELECT n, left(regress_jobqueue.try(statement), 5) FROM regress_jobqueue.inserts WHERE id = 3 ORDER BY n;
INSERT INTO jobs_queue (id, job_type, max_attempts, owner) VALUES (3, 'mail', 5, 'regress_alice');
ROLLBACK TO s;
UPDATE jobs_queue SET status = 'cancelled' WHERE id = 4;
ROLLBACK TO s;
INSERT INTO jobs_queue (id, job_type, max_attempts, status) VALUES (4, 'mail', 5, 'cancelled');
ROLLBACK;
-- nor one that a trigger has suppressed
RESET ROLE;
DROP TRIGGER z_refuse ON jobs_queue_live;
DROP TRIGGER z_refuse_delete ON jobs_queue_live;
DROP TRIGGER z_refuse_after ON jobs_queue_live;
CREATE FUNCTION regress_jobqueue.suppress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RETURN NULL;
END
$$;
CREATE TRIGGER z_suppress BEFORE UPDATE ON jobs_queue_live FOR EACH ROW EXECUTE FUNCTION regress_jobqueue.suppress();
SET ROLE regress_operator;
BEGIN;
UPDATE jobs_queue SET status = 'completed' WHERE id = 1;
SELECT n, left(regress_jobqueue.try(statement), 5) FROM regress_jobqueue.inserts WHERE id = 1 ORDER BY n;
UPDATE jobs_queue SET status = 'completed' WHERE id = 1;
DELETE FROM jobs_queue WHERE id = 1;
INSERT INTO jobs_queue (id, job_type, max_attempts, owner) VALUES (1, 'mail', 5, 'regress_alice');
ROLLBACK;
BEGIN;
WITH u AS (UPDATE jobs_queue SET status = 'completed' WHERE id = 1 RETURNING id)
INSERT INTO jobs_queue (id, job_type, max_attempts, status, owner) SELECT 1, 'mail', 5, 'failed', 'regress_alice' FROM (SELECT count(*) FROM u) AS n;
ROLLBACK;
RESET ROLE;
DROP TRIGGER z_suppress ON jobs_queue_live;
\set VERBOSITY default
ALTER TABLE jobs_queue_done DROP CONSTRAINT refuse;
SELECT id, job_type, status, owner = current_user::regrole AS is_mine FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- A job that waits for others is held to the rules like any other.
SELECT enqueue_job('parent');
SELECT n, regress_jobqueue.try(format('SELECT enqueue_job(%s, depends_on => ''{1}'')', arguments))
FROM (VALUES
	(1, $$'mail', scheduled_at => 'infinity'$$), (2, $$'mail', scheduled_at => '1999-12-31'$$),
	(3, $$'mail', jsonb_build_object('x', repeat('x', 1024 * 1024))$$), (4, $$'mail', (repeat('[', 101) || repeat(']', 101))::jsonb || to_jsonb(repeat('x', 400))$$),
	(5, $$'mail', stage => E'a\tb'$$), (6, $$'mail', unique_key => repeat('k', 2000)$$), (7, $$'mail', group_key => repeat('k', 2000)$$),
	(8, $$'mail', unique_key => ''$$), (9, $$'sql'$$), (10, $$'sql', '{"command": 1}'$$), (11, $$'sql', '{"command": "COPY t TO STDOUT"}'$$),
	(12, $$'mail', timeout => '-1 s'$$), (13, $$'mail', max_attempts => 0$$), (14, $$E'a\nb'$$),
	(15, $$'mail', priority => 40000$$)) AS c (n, arguments) ORDER BY n;
SELECT regress_jobqueue.try($$SELECT enqueue_sql('', depends_on => '{1}')$$);
SELECT regress_jobqueue.try($$SELECT enqueue_job_batch('[{"job_type": "mail", "depends_on": [1], "stage": "a\tb"}]')$$);
SELECT regress_jobqueue.try($$SELECT enqueue_job('mail', depends_on => '{99}')$$);
SELECT id, job_type, status FROM jobs_queue ORDER BY id;
SELECT count(*) FROM job_dependencies WHERE status IS NULL;
SELECT enqueue_job('mail', depends_on => '{1}', unique_key => 'k') > 0 AS ok;
SELECT status, waiting_for, max_attempts FROM jobs_queue WHERE job_type = 'mail';
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- TRUNCATE: ids start over, and nothing of the old jobs is in the way.
SELECT enqueue_jobs('mail', '{1,2}');
SELECT enqueue_job('later', depends_on => '{2}');
SELECT resolve_job(id, :w1, true) FROM claim_next_job(:w1, 'mail');
TRUNCATE jobs_queue RESTART IDENTITY;
SELECT (SELECT count(*) FROM jobs_queue) AS jobs, (SELECT count(*) FROM job_runs) AS runs, (SELECT count(*) FROM job_dependencies WHERE status IS NULL) AS dependencies;
SELECT enqueue_job('mail');
SELECT id, claim_no FROM claim_next_job(:w1, 'mail');
SELECT resolve_job(1, :w1, true);
INSERT INTO jobs_queue (job_type) VALUES ('mail') RETURNING id;
SELECT enqueue_job('later', depends_on => '{2}');
SELECT id FROM claim_next_job(:w1, 'mail');
SELECT resolve_job(2, :w1, true);
SELECT id, job_type, status FROM jobs_queue ORDER BY id;
SELECT job_id, claim_no, status FROM job_runs ORDER BY job_id;
-- of one leaf, while there are jobs in the other
TRUNCATE jobs_queue_live;
SELECT job_id, claim_no, status FROM job_runs ORDER BY job_id;
SELECT id, status FROM jobs_queue ORDER BY id;
SELECT enqueue_job('mail'), enqueue_job('mail');
SELECT resolve_job(id, :w1, true) FROM claim_next_job(:w1, 'mail');
TRUNCATE jobs_queue_done;
SELECT job_id, claim_no, status FROM job_runs ORDER BY job_id;
SELECT id, status FROM jobs_queue ORDER BY id;
TRUNCATE jobs_queue_live, jobs_queue_done;
SELECT count(*) FROM job_runs;
TRUNCATE jobs_queue RESTART IDENTITY;

-- Role "-" is nobody: the caller when a job is new, an error later.
SET ROLE regress_operator;
INSERT INTO jobs_queue (job_type, owner) VALUES ('mail', 0), ('mail', '-'), ('mail', NULL), ('mail', '-'::regrole), ('mail', DEFAULT);
SELECT id, owner FROM jobs_queue ORDER BY id;
SELECT o, regress_jobqueue.try(format('UPDATE jobs_queue SET owner = %s WHERE id = 1', o)) FROM unnest('{0,''-'',"NULL"}'::text[]) AS o;
UPDATE jobs_queue SET status = 'failed' WHERE id = 2;
SELECT o, regress_jobqueue.try(format('UPDATE jobs_queue SET owner = %s, status = ''queued'' WHERE id = 2', o)) FROM unnest('{0,''-'',"NULL"}'::text[]) AS o;
RESET ROLE;
SELECT o, regress_jobqueue.try(format('UPDATE jobs_queue SET owner = %s WHERE id = 1', o)) FROM unnest('{0,''-'',"NULL"}'::text[]) AS o;
SELECT id, owner, status FROM jobs_queue ORDER BY id;
-- one that has ended may have none
UPDATE jobs_queue SET owner = 0 WHERE id = 2;
SELECT regress_jobqueue.try(s) FROM unnest(ARRAY['SELECT requeue_job(2)', $$SELECT count(*) FROM requeue_jobs('mail') AS n WHERE n > 0 HAVING count(*) > 0$$, $$UPDATE jobs_queue SET status = 'queued' WHERE id = 2$$]) AS s;
SELECT status, owner FROM jobs_queue WHERE id = 2;
SET ROLE regress_operator;
SELECT left(regress_jobqueue.try($$UPDATE jobs_queue SET owner = 'regress_operator', status = 'queued' WHERE id = 2$$), 5);
RESET ROLE;
TRUNCATE jobs_queue RESTART IDENTITY;

-- Who waits for a job that is deleted is cancelled, and told why.
SELECT enqueue_jobs('parent', '{1,2,3,4}');
SELECT enqueue_job('child', '5', depends_on => '{1}'), enqueue_job('child', '6', depends_on => '{1,2}'), enqueue_job('child', '7', depends_on => '{3}');
SELECT enqueue_job('grandchild', depends_on => '{5}');
SET ROLE regress_operator;
DELETE FROM jobs_queue WHERE id = 1;
RESET ROLE;
SELECT id, status, waiting_for, last_error, finished_at IS NOT NULL AS has_ended FROM jobs_queue WHERE job_type <> 'parent' ORDER BY id;
SELECT job_id, depends_on FROM job_dependencies WHERE status IS NULL ORDER BY 1, 2;
-- together with those that wait for it
DELETE FROM jobs_queue WHERE id IN (3, 7);
SELECT id, status FROM jobs_queue ORDER BY id;
SELECT job_id, depends_on FROM job_dependencies WHERE status IS NULL ORDER BY 1, 2;
-- a completed one is waited for by nobody
SELECT complete_job(4), enqueue_job('child', depends_on => '{4}'), enqueue_job('child', depends_on => '{2,4}');
DELETE FROM jobs_queue WHERE id = 4;
SELECT id, status, waiting_for FROM jobs_queue WHERE id > 8 ORDER BY id;
SELECT complete_job(2);
SELECT id, status, waiting_for FROM jobs_queue WHERE id > 8 ORDER BY id;
DELETE FROM jobs_queue WHERE id = 2;
SELECT id, status, waiting_for FROM jobs_queue WHERE id > 8 ORDER BY id;
-- in a leaf, by a failed parent, and by a running one
SELECT enqueue_jobs('parent', '{11,12}');
SELECT enqueue_job('child', depends_on => '{11}'), enqueue_job('child', depends_on => '{12}');
SELECT id FROM claim_jobs(:w1, '{parent}');
SELECT fail_job(11, :w1, permanent => true);
SELECT id, status FROM jobs_queue WHERE id > 10 ORDER BY id;
DELETE FROM jobs_queue_done WHERE id = 11;
DELETE FROM jobs_queue_live WHERE id = 12;
SELECT id, status, last_error FROM jobs_queue WHERE id > 10 ORDER BY id;
SELECT job_id, status FROM job_runs ORDER BY job_id;
SELECT count(*) FROM job_dependencies WHERE status IS NULL;
TRUNCATE jobs_queue RESTART IDENTITY;
SELECT enqueue_job('parent'), enqueue_job('child', depends_on => '{1}');
DELETE FROM jobs_queue;
SELECT (SELECT count(*) FROM jobs_queue) AS jobs, (SELECT count(*) FROM job_dependencies WHERE status IS NULL) AS dependencies;
TRUNCATE jobs_queue RESTART IDENTITY;

-- A producer's INSERT brings a new job and nothing else.
SET ROLE regress_producer;
INSERT INTO jobs_queue (job_type, holder, cancel_requested_at, locked_at, lease_expires_at, waiting_for, result, finished_at)
VALUES ('mail', 1, now(), now(), now(), 3, '{"done": 1}', now());
SELECT regress_jobqueue.try(format('INSERT INTO jobs_queue (id, job_type) VALUES (%s, ''mail'')', id)) FROM unnest('{0,-1,-9223372036854775808,1,2}'::bigint[]) AS id;
SELECT regress_jobqueue.try(format('INSERT INTO jobs_queue (job_type, %s', c)) FROM unnest(ARRAY[
	'locked_by) VALUES (''mail'', gen_random_uuid())', 'status) VALUES (''mail'', ''running'')', 'status, waiting_for) VALUES (''mail'', ''blocked'', 1)',
	'crashes) VALUES (''mail'', 1)', 'status, finished_at) VALUES (''mail'', ''cancelled'', now())']) AS c;
RESET ROLE;
SELECT id, status, holder, cancel_requested_at, locked_at, lease_expires_at, waiting_for, result, finished_at, owner FROM jobs_queue ORDER BY id;
SELECT id, attempts, status FROM claim_next_job(:w1, 'mail');
SELECT resolve_job(1, :w1, true);
SELECT status, result FROM jobs_queue WHERE id = 1;
TRUNCATE jobs_queue RESTART IDENTITY;

-- Completing what one does not hold is for operators.
SELECT enqueue_jobs('mail', '{1,2,3}');
SET ROLE regress_worker;
SELECT id FROM claim_next_job(:w1, 'mail');
SELECT regress_jobqueue.try('SELECT complete_job(2)'), regress_jobqueue.try('SELECT complete_job(2, NULL, ''{}'')'),
	regress_jobqueue.try('SELECT complete_job(1)'), regress_jobqueue.try('SELECT complete_job(99)');
SELECT complete_job(2, :w1), complete_job(1, :w1, '{"done": 1}'), complete_job(1, :w1);
RESET ROLE;
SELECT id, status FROM jobs_queue ORDER BY id;
SET ROLE regress_operator;
SELECT complete_job(2), complete_job(2), complete_job(3, result => '{"by": "hand"}'), complete_job(99);
RESET ROLE;
SELECT id, status, result FROM jobs_queue ORDER BY id;
TRUNCATE jobs_queue RESTART IDENTITY;

-- Replacing a job replaces what it waits for.
SELECT enqueue_jobs('parent', '{1,2,3}');
SELECT enqueue_job('child', '"a"', unique_key => 'k', depends_on => '{1}') AS id;
SELECT enqueue_job('child', '"b"', unique_key => 'k', unique_mode => 'replace', depends_on => '{2,3}') AS id;
SELECT status, waiting_for, payload FROM jobs_queue WHERE id = 4;
SELECT job_id, depends_on FROM job_dependencies WHERE status IS NULL ORDER BY 1, 2;
SELECT complete_job(1);
SELECT status, waiting_for FROM jobs_queue WHERE id = 4;
SELECT complete_job(2);
SELECT status, waiting_for FROM jobs_queue WHERE id = 4;
SELECT enqueue_job('child', '"c"', unique_key => 'k', unique_mode => 'replace') AS id;
SELECT status, waiting_for, payload FROM jobs_queue WHERE id = 4;
SELECT count(*) FROM job_dependencies WHERE status IS NULL;
SELECT enqueue_job('child', '"d"', unique_key => 'k', unique_mode => 'replace', depends_on => '{3}') AS id;
SELECT status, waiting_for, payload FROM jobs_queue WHERE id = 4;
SELECT count(*) FROM claim_next_job(:w1, 'child');
-- skipped: nothing changes; its schedule kept: the rest does
SELECT enqueue_job('child', '"e"', unique_key => 'k') AS id;
SELECT enqueue_job('child', '"e"', unique_key => 'k', depends_on => '{1}') AS id;
SELECT status, waiting_for, payload FROM jobs_queue WHERE id = 4;
SELECT enqueue_job('child', '"f"', unique_key => 'k', unique_mode => 'keep_schedule', depends_on => '{1}') AS id;
SELECT status, waiting_for, payload FROM jobs_queue WHERE id = 4;
SELECT count(*) FROM job_dependencies WHERE status IS NULL;
-- a running one stays as it is, and another one has the key
SELECT id, payload FROM claim_next_job(:w1, 'child');
SELECT enqueue_job('child', '"g"', unique_key => 'k', unique_mode => 'replace', depends_on => '{3}', priority => 3) AS id;
SELECT enqueue_job('child', '"g"', unique_key => 'k', unique_mode => 'replace', scheduled_at => now() + interval '1 day') AS id;
SELECT status, waiting_for, payload, priority, scheduled_at <= now() AS is_due FROM jobs_queue WHERE id = 4;
SELECT count(*) FROM job_dependencies WHERE status IS NULL;
SELECT resolve_job(4, :w1, true);
SELECT id, status FROM jobs_queue ORDER BY id;
-- the values of a replacement are checked, and so is whose job it is
SELECT enqueue_job('child', unique_key => 'k') AS id \gset
SELECT regress_jobqueue.try(format('SELECT enqueue_job(''child'', unique_key => ''k'', unique_mode => ''replace'', %s)', a)) FROM unnest(ARRAY[
	'scheduled_at => ''infinity''', 'stage => E''a\tb''', 'payload => jsonb_build_object(''x'', repeat(''x'', 1024 * 1024))',
	'max_attempts => 0', 'timeout => ''-1 s''', 'group_key => repeat(''k'', 2000)', 'scheduled_at => ''1999-01-01''']) AS a;
SET ROLE regress_producer;
SELECT regexp_replace(regress_jobqueue.try($$SELECT enqueue_job('child', unique_key => 'k', unique_mode => 'replace')$$), '(role ")[^"]*"', '\1..."');
RESET ROLE;
TRUNCATE jobs_queue RESTART IDENTITY;

-- resolve_jobs: the same id twice, in no order, with shared children.
SELECT enqueue_jobs('parent', '{1,2,3,4}');
SELECT enqueue_job('child', depends_on => '{4,1,2}'), enqueue_job('child', depends_on => '{3,4}'), enqueue_job('child', depends_on => '{2,2,2}');
SELECT count(*) FROM claim_jobs(:w1, '{parent}');
SELECT resolve_jobs(:w1, '{4,99,1,4,2,1,2}', '{t,t,t,f,t,t,f}', '{NULL,x,NULL,"late",NULL,NULL,NULL}');
SELECT id, status, waiting_for, attempts, last_error FROM jobs_queue ORDER BY id;
SELECT job_id, depends_on FROM job_dependencies WHERE status IS NULL ORDER BY 1, 2;
SELECT resolve_jobs(:w1, '{3,3}', '{f,t}', '{"not yet",NULL}');
SELECT id, status, last_error FROM jobs_queue WHERE id = 3;
SELECT requeue_job(3);
SELECT id, claim_no FROM claim_next_job(:w1, 'parent');
SELECT resolve_jobs(:w1, '{3,3,3}', '{t,t,t}', claim_nos => '{1,2,2}');
SELECT id, status, waiting_for FROM jobs_queue ORDER BY id;
SELECT job_id, claim_no, status, error FROM job_runs ORDER BY job_id, claim_no;
SELECT count(*) FROM job_dependencies WHERE status IS NULL;
TRUNCATE jobs_queue RESTART IDENTITY;

-- A job cannot come to wait for itself, and one whose parent is truncated away
-- does not wait for ever.
SELECT enqueue_job('self', unique_key => 'self');
SELECT enqueue_job('self', unique_key => 'self', unique_mode => 'replace', depends_on => '{1}');
SELECT status, waiting_for FROM jobs_queue;
SELECT cancel_job(1), enqueue_job('child', depends_on => '{1}');
TRUNCATE jobs_queue_done;
SELECT job_type, status, last_error FROM jobs_queue;
TRUNCATE jobs_queue RESTART IDENTITY;

-- requeue_jobs: one of two with the same unique key, none beside a live one.
SELECT cancel_job(enqueue_job('mail', to_jsonb(i), unique_key => CASE WHEN i < 3 THEN 'twice' WHEN i = 3 THEN 'taken' WHEN i = 4 THEN 'free' END)) FROM generate_series(1, 6) AS i;
SELECT enqueue_job('mail', '7', unique_key => 'taken');
SET ROLE regress_operator;
SELECT requeue_jobs('mail', '{cancelled}');
RESET ROLE;
SELECT id, unique_key, status FROM jobs_queue ORDER BY id;
SELECT requeue_jobs('mail', '{cancelled}');
SELECT regress_jobqueue.try('SELECT requeue_job(3)');
SELECT cancel_job(7), requeue_jobs('mail', '{cancelled}', max_jobs => 2);
SELECT id, unique_key, status FROM jobs_queue ORDER BY id;
-- within a transaction that goes on
BEGIN;
SELECT cancel_job(1), cancel_job(5);
SELECT requeue_jobs('mail', '{cancelled}');
SELECT id FROM claim_jobs(:w1, '{mail}', 20) ORDER BY id;
COMMIT;
SELECT id, unique_key, status FROM jobs_queue ORDER BY id;
TRUNCATE jobs_queue RESTART IDENTITY;

-- Large payloads go through everything unchanged, and so do rows of a table
-- with a column more.
CREATE FUNCTION regress_jobqueue.big(seed text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('seed', seed, 'noise', string_agg(md5(seed || i), '')) FROM generate_series(1, 3200) AS i
$$;
CREATE VIEW regress_jobqueue.sums AS
	SELECT q.id, q.tableoid::regclass AS leaf, status, attempts, claim_no,
		payload = regress_jobqueue.big(job_type) AS is_same, pg_column_size(payload) > 100000 AS is_big,
		result = regress_jobqueue.big('result') AS has_result, progress = regress_jobqueue.big('progress') AS has_progress
	FROM jobs_queue q;
SELECT enqueue_job('big', regress_jobqueue.big('big'), stage => 'one');
INSERT INTO jobs_queue (job_type, payload) VALUES ('big', regress_jobqueue.big('big')) RETURNING id;
SELECT enqueue_job('later', regress_jobqueue.big('later'), depends_on => '{1}');
SELECT id, md5(payload::text) = md5(regress_jobqueue.big('big')::text) AS is_same FROM claim_jobs(:w1, '{big}');
SELECT heartbeat_job(1, :w1, progress => regress_jobqueue.big('progress')), set_job_stage(1, :w1, 'two');
SELECT fail_job(1, :w1, 'try again', now()), release_job(2, :w1);
SELECT * FROM regress_jobqueue.sums ORDER BY id;
SELECT id, md5(payload::text) = md5(regress_jobqueue.big('big')::text) AS is_same, attempts FROM claim_jobs(:w1, '{big}') ORDER BY id;
SELECT complete_job(1, :w1, regress_jobqueue.big('result')), fail_job(2, :w1, permanent => true);
SELECT * FROM regress_jobqueue.sums ORDER BY id;
SELECT result = regress_jobqueue.big('result') AS has_result FROM job_runs WHERE result IS NOT NULL;
VACUUM jobs_queue_live, jobs_queue_done;
SELECT requeue_job(1), requeue_jobs('big');
SELECT * FROM regress_jobqueue.sums ORDER BY id;
SELECT id, md5(payload::text) = md5(regress_jobqueue.big('big')::text) AS is_same FROM claim_jobs(:w1, '{big}') ORDER BY id;
SELECT resolve_jobs(:w1, '{1,2}', '{t,t}');
UPDATE jobs_queue SET status = 'queued' WHERE id = 2;
UPDATE jobs_queue SET status = 'completed' WHERE id = 2;
SELECT resolve_job(id, :w1, true) FROM claim_next_job(:w1, 'later');
SELECT * FROM regress_jobqueue.sums ORDER BY id;
TRUNCATE jobs_queue RESTART IDENTITY;
-- a new column, whose default is in no stored row, is kept too
SELECT enqueue_job('big', regress_jobqueue.big('big')), enqueue_job('big', regress_jobqueue.big('big'));
SELECT cancel_job(enqueue_job('big', regress_jobqueue.big('big')));
ALTER TABLE jobs_queue ADD COLUMN note text DEFAULT 'x' NOT NULL, ADD COLUMN n integer;
SELECT id, note, n, md5(payload::text) = md5(regress_jobqueue.big('big')::text) AS is_same FROM claim_next_job(:w1, 'big');
UPDATE jobs_queue SET note = 'mine', n = 7 WHERE id = 1;
INSERT INTO jobs_queue (job_type, note, n) VALUES ('small', 'inserted', 8);
SELECT enqueue_job('small'), enqueue_job('small', unique_key => 'k');
SELECT enqueue_jobs('small', '{1}');
SELECT resolve_job(1, :w1, true), complete_job(2), requeue_job(3);
SELECT id, status, note, n FROM jobs_queue ORDER BY id;
SELECT id, note, n FROM claim_jobs(:w1, '{small}') ORDER BY id;
SELECT resolve_job(4, :w1, true), release_job(5, :w1), fail_job(6, :w1), requeue_job(1);
UPDATE jobs_queue SET status = 'queued' WHERE id = 4;
UPDATE jobs_queue SET status = 'completed' WHERE id = 5;
SELECT id, status, note, n FROM jobs_queue ORDER BY id;
ALTER TABLE jobs_queue DROP COLUMN note;
SELECT id, n FROM claim_next_job(:w1, 'big');
SELECT resolve_job(id, :w1, true), requeue_job(2), enqueue_job('small', unique_key => 'k', unique_mode => 'replace') FROM jobs_queue WHERE status = 'running' AND job_type = 'big';
SELECT id, n FROM claim_jobs(:w1, '{small,big}', 20) ORDER BY id;
SELECT resolve_jobs(:w1, array_agg(id ORDER BY id), array_agg(true)) FROM jobs_queue WHERE status = 'running';
SELECT requeue_jobs(statuses => '{completed}');
SELECT id, status, n FROM jobs_queue ORDER BY id;
-- and one that comes after one that is gone
ALTER TABLE jobs_queue ADD COLUMN note integer;
UPDATE jobs_queue SET note = id;
SELECT bool_and(note = id) AS are_same, count(*) FROM claim_jobs(:w1, max_jobs => 20);
SELECT bool_and(resolve_job(id, :w1, true)) FROM jobs_queue WHERE status = 'running';
SELECT requeue_job(1);
SELECT bool_and(note = id) AS are_same, count(*), max(n) FROM jobs_queue;
ALTER TABLE jobs_queue DROP COLUMN note, DROP COLUMN n;
SELECT id FROM claim_next_job(:w1, 'big');
SELECT resolve_job(1, :w1, true);
SELECT status, count(*) FROM jobs_queue GROUP BY 1;
TRUNCATE jobs_queue RESTART IDENTITY;

-- A schema that is renamed is followed at once.
CREATE DATABASE jobqueue_safety TEMPLATE template0;
SELECT current_database() AS main \gset
\c jobqueue_safety
\set SHOW_CONTEXT never
SET client_min_messages = warning;
\set w1 '''aaaaaaaa-0000-4000-8000-000000000001'''
CREATE SCHEMA jobs;
CREATE EXTENSION jobqueue SCHEMA jobs;
SELECT jobs.enqueue_job('mail'), jobs.enqueue_job('mail', unique_key => 'k'), jobs.enqueue_job('later', depends_on => '{1}');
SELECT jobs.enqueue_jobs('mail', '{1}');
SELECT id FROM jobs.claim_next_job(:w1, 'mail');
SELECT jobs.release_job(1, :w1);
SELECT jobs.enqueue_cron_tasks(), jobs.schedule_cron_task('t', '@hourly', 'mail') > 0 AS ok;
ALTER SCHEMA jobs RENAME TO "Other jobs";
-- what has the old name now is nobody's business
CREATE SCHEMA jobs;
CREATE TABLE jobs.jobs_queue_live (LIKE "Other jobs".jobs_queue INCLUDING ALL);
SELECT "Other jobs".enqueue_job('mail'), "Other jobs".enqueue_job('mail', unique_key => 'k'), "Other jobs".enqueue_job('later', depends_on => '{2}');
SELECT "Other jobs".enqueue_jobs('mail', '{2}');
INSERT INTO "Other jobs".jobs_queue (job_type) VALUES ('mail') RETURNING id;
SELECT id FROM "Other jobs".claim_jobs(:w1, '{mail}', 3);
SELECT "Other jobs".resolve_jobs(:w1, '{1,2,4}', '{t,f,t}', '{NULL,x,NULL}'), "Other jobs".requeue_job(2), "Other jobs".cancel_job(5);
SELECT "Other jobs".enqueue_cron_tasks(), "Other jobs".schedule_cron_task('t', '@hourly', 'mail') > 0 AS ok, "Other jobs".requeue_jobs();
BEGIN;
ALTER SCHEMA "Other jobs" RENAME TO "third";
SELECT third.enqueue_job('mail') > 0 AS ok, (SELECT count(*) FROM third.claim_jobs(:w1, '{mail}', 1));
ROLLBACK;
SELECT "Other jobs".enqueue_job('mail') > 0 AS ok, (SELECT count(*) FROM "Other jobs".claim_jobs(:w1, '{mail}', 20));
SELECT id, job_type, status FROM "Other jobs".jobs_queue ORDER BY id;
SELECT count(*) FROM jobs.jobs_queue_live;
\c :main
DROP DATABASE jobqueue_safety;

SET client_min_messages = warning;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
DROP SCHEMA regress_jobqueue CASCADE;
DROP OWNED BY regress_alice, regress_operator, regress_producer, regress_worker;
DROP ROLE regress_alice, regress_operator, regress_producer, regress_worker;
