--
-- Triggers that users put on the tables: their statements are theirs, what
-- they refuse stops one job only, and they fire for what the functions do.
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
CREATE ROLE regress_bob;
CREATE SCHEMA regress_jobqueue;
SELECT grant_job_role(r, j) FROM unnest('{regress_alice,regress_bob}'::regrole[]) AS r, unnest('{producer,worker,operator}'::text[]) AS j;
CREATE TABLE regress_jobqueue.log (n serial, what text);
-- How a statement ends.
CREATE FUNCTION regress_jobqueue.try(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate || ' ' || sqlerrm;
END
$$;

-- A trigger on the ended jobs inserts what follows: a job like any other.
CREATE FUNCTION regress_jobqueue.follow_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.jobs_queue (job_type, payload, correlation_id)
	VALUES ('ship', NEW.payload, NEW.id::text);
	RETURN NULL;
END
$$;
CREATE TRIGGER follow_up AFTER INSERT ON jobs_queue_done FOR EACH ROW
	WHEN (NEW.job_type = 'pay') EXECUTE FUNCTION regress_jobqueue.follow_up();
INSERT INTO job_types (job_type, max_attempts) VALUES ('ship', 7);
SELECT enqueue_jobs('pay', '{1,2,3,4,5,6}');
SELECT count(*) FROM claim_jobs(:w1, '{pay}', 4);
SELECT resolve_job(1, :w1, true), complete_job(2, :w1), fail_job(3, :w1, permanent => true), resolve_jobs(:w1, '{4}', '{t}');
SELECT complete_job(5), cancel_job(6);
SELECT id, job_type, status, payload, correlation_id, attempts, max_attempts, owner = current_user::regrole AS is_mine
FROM jobs_queue ORDER BY id;
SELECT id, correlation_id FROM claim_next_job(:w1, 'ship');
SELECT resolve_job(7, :w1, true);
SELECT job_id, status FROM job_runs ORDER BY job_id;
-- and it is held to the rules: what it may not insert fails the call
CREATE OR REPLACE FUNCTION regress_jobqueue.follow_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.jobs_queue (job_type, stage) VALUES ('ship', E'a\tb');
	RETURN NULL;
END
$$;
SELECT enqueue_job('pay');
SELECT id FROM claim_next_job(:w1, 'pay');
SELECT resolve_job(13, :w1, true);
\echo :SQLSTATE
SELECT id, status FROM jobs_queue WHERE id >= 13;
SELECT resolve_job(13, :w1, true);
DROP TRIGGER follow_up ON jobs_queue_done;
SELECT resolve_job(13, :w1, true);
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- A trigger on the new jobs calls the functions themselves.
CREATE FUNCTION regress_jobqueue.children() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.enqueue_job('child', jsonb_build_object('parent', NEW.id), unique_key => 'child of ' || NEW.id);
	RETURN NULL;
END
$$;
CREATE TRIGGER children AFTER INSERT ON jobs_queue_live FOR EACH ROW
	WHEN (NEW.job_type = 'order') EXECUTE FUNCTION regress_jobqueue.children();
\c -
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT enqueue_job('order');
SELECT enqueue_job('order', unique_key => 'k');
SELECT enqueue_job('order', unique_key => 'k');
SELECT enqueue_jobs('order', '{"{}","{}"}');
INSERT INTO jobs_queue (job_type) VALUES ('order') RETURNING id;
SET ROLE regress_alice;
SELECT enqueue_job('order') AS as_alice;
RESET ROLE;
SELECT id, job_type, payload, owner = current_user::regrole AS is_mine FROM jobs_queue ORDER BY id;
-- the plans of the calls further out are replaced while they are in use
CREATE OR REPLACE FUNCTION regress_jobqueue.children() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	ANALYZE public.jobs_queue_live;
	CREATE SCHEMA regress_jobqueue_new;
	PERFORM public.enqueue_job('child', jsonb_build_object('parent', NEW.id));
	DROP SCHEMA regress_jobqueue_new;
	PERFORM public.enqueue_job('child', jsonb_build_object('parent', NEW.id));
	RETURN NULL;
END
$$;
SELECT enqueue_job('order') AS id;
SELECT enqueue_job('order', unique_key => 'l') AS id;
SELECT count(*) FROM enqueue_jobs('order', '{"{}","{}","{}"}');
CREATE OR REPLACE FUNCTION regress_jobqueue.children() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	ALTER SCHEMA public RENAME TO regress_jobqueue_public;
	PERFORM regress_jobqueue_public.enqueue_job('child', jsonb_build_object('parent', NEW.id));
	ALTER SCHEMA regress_jobqueue_public RENAME TO public;
	PERFORM public.enqueue_job('child', jsonb_build_object('parent', NEW.id));
	RETURN NULL;
END
$$;
SELECT enqueue_job('order') AS id;
SELECT enqueue_job('order') AS id;
SELECT enqueue_job('order', unique_key => 'm') AS id;
SELECT count(*) FROM enqueue_jobs('order', '{"{}","{}","{}"}');
SELECT job_type, count(*), count(DISTINCT payload) FROM jobs_queue GROUP BY 1 ORDER BY 1;
DROP TRIGGER children ON jobs_queue_live;
SELECT count(*) FROM claim_jobs('aaaaaaaa-0000-4000-8000-000000000001', max_jobs => 100);
SELECT job_type, status, count(*) FROM jobs_queue GROUP BY 1, 2 ORDER BY 1, 2;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
\set w1 '''aaaaaaaa-0000-4000-8000-000000000001'''
-- a call from a call from a call, until it is too deep; and then all is well again
CREATE OR REPLACE FUNCTION regress_jobqueue.children() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF (NEW.payload->>'n')::integer < 50 THEN
		PERFORM public.enqueue_job('nest', jsonb_build_object('n', (NEW.payload->>'n')::integer + 1));
	END IF;
	RETURN NULL;
END
$$;
CREATE TRIGGER children AFTER INSERT ON jobs_queue_live FOR EACH ROW
	WHEN (NEW.job_type = 'nest') EXECUTE FUNCTION regress_jobqueue.children();
SELECT enqueue_job('nest', '{"n": 31}') > 0 AS ok;
SELECT enqueue_job('nest', '{"n": 1}');
\echo :SQLSTATE
SELECT enqueue_job('nest', '{"n": 49}') > 0 AS ok;
SELECT count(*), current_setting('search_path') AS search_path FROM jobs_queue;
DROP TRIGGER children ON jobs_queue_live;
DROP FUNCTION regress_jobqueue.children();
DELETE FROM jobs_queue;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- What a SECURITY DEFINER function does there, its owner does.
GRANT USAGE ON SCHEMA regress_jobqueue TO regress_bob;
GRANT INSERT ON regress_jobqueue.log TO regress_bob;
GRANT USAGE ON SEQUENCE regress_jobqueue.log_n_seq TO regress_bob;
CREATE FUNCTION regress_jobqueue.of_bob() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
	SET search_path = public, pg_temp AS $body$
DECLARE
	superuser text := (SELECT rolname FROM pg_roles WHERE oid = 10);
BEGIN
	PERFORM enqueue_sql('SELECT 1', correlation_id => 'sql');
	PERFORM enqueue_job('mail', correlation_id => 'function');
	INSERT INTO jobs_queue (job_type, correlation_id) VALUES ('mail', 'insert');
	INSERT INTO jobs_queue (job_type, payload, correlation_id) VALUES ('sql', '{"command": "SELECT 2"}', 'insert');
	INSERT INTO jobs_queue (job_type, correlation_id, owner) VALUES ('mail', 'insert', 'regress_bob');
	INSERT INTO cron_tasks (name, schedule, job_type) VALUES ('bobs', '@hourly', 'mail') ON CONFLICT (name) DO NOTHING;
	PERFORM schedule_sql('bobs sql', '@hourly', 'SELECT 3');
	INSERT INTO job_types (job_type, runner, command) VALUES ('bobs', 'sql', 'SELECT 4') ON CONFLICT (job_type) DO NOTHING;
	INSERT INTO regress_jobqueue.log (what)
	SELECT replace(regress_jobqueue.try(replace(s, 'SUPER', superuser)), '"' || superuser || '"', '"superuser"')
	FROM unnest(ARRAY[
		$s$INSERT INTO jobs_queue (job_type, owner) VALUES ('mail', 'SUPER')$s$,
		$s$INSERT INTO jobs_queue (job_type, payload, owner) VALUES ('sql', '{"command": "SELECT 1"}', 'SUPER')$s$,
		$s$INSERT INTO jobs_queue (job_type, owner) VALUES ('mail', 'regress_alice')$s$,
		$s$INSERT INTO jobs_queue (job_type, status) VALUES ('mail', 'completed')$s$,
		$s$INSERT INTO jobs_queue (job_type, claim_no) VALUES ('mail', 3)$s$,
		$s$INSERT INTO cron_tasks (name, schedule, job_type, owner) VALUES ('x', '@hourly', 'mail', 'SUPER')$s$,
		$s$INSERT INTO job_types (job_type, runner, command, owner) VALUES ('x', 'sql', 'SELECT 1', 'SUPER')$s$,
		$s$UPDATE jobs_queue SET payload = '{}' WHERE correlation_id = 'alice'$s$,
		$s$UPDATE jobs_queue SET owner = 'regress_bob' WHERE correlation_id = 'alice'$s$,
		$s$UPDATE jobs_queue SET claim_no = 0 WHERE correlation_id = 'alice'$s$,
		$s$SELECT enqueue_job('mail', unique_key => 'alice', unique_mode => 'replace')$s$]) AS s;
END
$body$;
ALTER FUNCTION regress_jobqueue.of_bob() OWNER TO regress_bob;
CREATE FUNCTION regress_jobqueue.call_bob() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM regress_jobqueue.of_bob();
	RETURN NULL;
END
$$;
SET ROLE regress_alice;
SELECT enqueue_job('mail', '{"of": "alice"}', unique_key => 'alice', correlation_id => 'alice');
RESET ROLE;
SELECT enqueue_job('pay');
CREATE TRIGGER call_bob AFTER INSERT ON jobs_queue_done FOR EACH ROW
	WHEN (NEW.job_type = 'pay') EXECUTE FUNCTION regress_jobqueue.call_bob();
CREATE TRIGGER call_bob AFTER INSERT ON jobs_queue_live FOR EACH ROW
	WHEN (NEW.job_type = 'pay') EXECUTE FUNCTION regress_jobqueue.call_bob();
SELECT id FROM claim_next_job(:w1, 'pay');
SELECT resolve_job(2, :w1, true);
SELECT what, count(*), min(n) AS first FROM regress_jobqueue.log GROUP BY 1 ORDER BY 3;
SELECT job_type, correlation_id, owner, count(*) FROM jobs_queue WHERE id > 2 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
SELECT name, owner FROM cron_tasks ORDER BY 1;
SELECT job_type, owner FROM job_types ORDER BY 1;
-- the same from what enqueues and requeues, and whoever calls
TRUNCATE regress_jobqueue.log RESTART IDENTITY;
DELETE FROM jobs_queue WHERE id > 2;
SET ROLE regress_alice;
SELECT enqueue_job('pay') > 0 AS ok, requeue_job(2), current_user;
RESET ROLE;
SELECT what, count(*), min(n) AS first FROM regress_jobqueue.log GROUP BY 1 ORDER BY 3;
SELECT job_type, correlation_id, owner, count(*) FROM jobs_queue WHERE id > 2 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
SELECT id, payload, owner FROM jobs_queue WHERE id = 1;
DROP TRIGGER call_bob ON jobs_queue_done;
DROP TRIGGER call_bob ON jobs_queue_live;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM cron_tasks;
DELETE FROM job_types;
TRUNCATE regress_jobqueue.log RESTART IDENTITY;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- Triggers on UPDATE OF columns fire for the columns that a call changes.
CREATE FUNCTION regress_jobqueue.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO regress_jobqueue.log (what)
	VALUES (TG_NAME || ' of ' || NEW.id || ': ' || OLD.status || ' -> ' || NEW.status);
	RETURN NULL;
END
$$;
SELECT format('CREATE TRIGGER of_%1$s AFTER UPDATE OF %1$s ON jobs_queue FOR EACH ROW EXECUTE FUNCTION regress_jobqueue.note()', c)
FROM unnest('{payload,job_type,priority,owner,unique_key,created_at,status,stage,progress,scheduled_at,lease_expires_at}'::text[]) AS c \gexec
INSERT INTO job_types (job_type, backoff) VALUES ('mail', '{"strategy": "fixed", "delay": "1 hour"}');
SELECT enqueue_job('mail', scheduled_at => now() - interval '1 hour'),
	enqueue_job('mail', (SELECT jsonb_agg(md5(i::text)) FROM generate_series(1, 3000) i), unique_key => 'big',
		scheduled_at => now() - interval '1 minute');
SELECT count(*) FROM claim_jobs(:w1, '{mail}');
SELECT what FROM regress_jobqueue.log ORDER BY what;
TRUNCATE regress_jobqueue.log RESTART IDENTITY;
SELECT heartbeat_job(2, :w1, '1 hour'), heartbeat_job(2, :w1, '1 hour', '{"done": 1}'), set_job_stage(2, :w1, 'second');
SELECT what FROM regress_jobqueue.log ORDER BY n;
TRUNCATE regress_jobqueue.log RESTART IDENTITY;
SELECT release_job(1, :w1), fail_job(2, :w1);
SELECT what FROM regress_jobqueue.log ORDER BY what;
TRUNCATE regress_jobqueue.log RESTART IDENTITY;
SELECT count(*) FROM claim_jobs(:w1, '{mail}');
SELECT release_job(1, :w1), requeue_job(2);
SELECT what FROM regress_jobqueue.log WHERE what ~ 'payload|job_type|of_status of 1' ORDER BY n;
SELECT enqueue_job('mail', '[]', unique_key => 'big', unique_mode => 'replace', scheduled_at => now());
SELECT what FROM regress_jobqueue.log WHERE what ~ 'payload|job_type' ORDER BY n;
TRUNCATE regress_jobqueue.log RESTART IDENTITY;
-- what moves to the other leaf is no UPDATE
SELECT complete_job(1), complete_job(2), requeue_job(1);
UPDATE jobs_queue SET status = 'queued' WHERE id = 2;
SELECT what FROM regress_jobqueue.log ORDER BY n;
-- children that are released
SELECT enqueue_job('later', depends_on => '{1,2}');
SELECT complete_job(1);
SELECT complete_job(2);
SELECT what FROM regress_jobqueue.log ORDER BY n;
SELECT format('DROP TRIGGER of_%s ON jobs_queue', c)
FROM unnest('{payload,job_type,priority,owner,unique_key,created_at,status,stage,progress,scheduled_at,lease_expires_at}'::text[]) AS c \gexec
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
TRUNCATE regress_jobqueue.log RESTART IDENTITY;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- An operator moves rows while triggers around the guard write elsewhere.
CREATE FUNCTION regress_jobqueue.audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	INSERT INTO regress_jobqueue.log (what)
	VALUES (TG_NAME || ' ' || TG_OP || ' of ' || coalesce(NEW.id, OLD.id) || ' ' || coalesce(NEW.status, OLD.status));
	RETURN coalesce(NEW, OLD);
END
$$;
CREATE TRIGGER a_audit BEFORE INSERT OR UPDATE OR DELETE ON jobs_queue FOR EACH ROW EXECUTE FUNCTION regress_jobqueue.audit();
CREATE TRIGGER z_audit BEFORE INSERT OR UPDATE OR DELETE ON jobs_queue FOR EACH ROW EXECUTE FUNCTION regress_jobqueue.audit();
SELECT enqueue_jobs('mail', '{1,2,3}');
SELECT count(*) FROM claim_jobs(:w1, '{mail}', 2);
TRUNCATE regress_jobqueue.log RESTART IDENTITY;
SET ROLE regress_alice;
UPDATE jobs_queue SET status = 'completed' WHERE id = 1;
UPDATE jobs_queue SET status = 'failed' WHERE id = 2;
UPDATE jobs_queue SET status = 'cancelled' WHERE id = 3;
UPDATE jobs_queue SET status = 'queued';
RESET ROLE;
SELECT what FROM regress_jobqueue.log WHERE what LIKE '% of 1 %' ORDER BY n;
SELECT what FROM regress_jobqueue.log WHERE what LIKE '% of 3 %' ORDER BY n;
SELECT id, status, attempts, claim_no, owner = current_user::regrole AS is_mine FROM jobs_queue ORDER BY id;
SELECT job_id, claim_no, status, charged FROM job_runs ORDER BY job_id;
-- also when they enqueue, or look again at what is new
CREATE OR REPLACE FUNCTION regress_jobqueue.audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	IF TG_OP <> 'INSERT' THEN
		PERFORM public.enqueue_job('audit ' || TG_NAME, jsonb_build_object('job', OLD.id));
		INSERT INTO public.jobs_queue (job_type) VALUES ('audit ' || TG_NAME);
		CREATE SCHEMA regress_jobqueue_new;
		DROP SCHEMA regress_jobqueue_new;
	END IF;
	RETURN coalesce(NEW, OLD);
END
$$;
SELECT count(*) FROM claim_jobs(:w1, '{mail}', 2);
DELETE FROM jobs_queue WHERE job_type LIKE 'audit%';
DELETE FROM jobs_queue WHERE job_type LIKE 'audit%';
DROP TRIGGER a_audit ON jobs_queue;
DROP TRIGGER z_audit ON jobs_queue;
DELETE FROM jobs_queue WHERE job_type LIKE 'audit%';
CREATE TRIGGER a_audit BEFORE UPDATE OR DELETE ON jobs_queue FOR EACH ROW EXECUTE FUNCTION regress_jobqueue.audit();
CREATE TRIGGER z_audit BEFORE UPDATE OR DELETE ON jobs_queue FOR EACH ROW EXECUTE FUNCTION regress_jobqueue.audit();
SET ROLE regress_alice;
UPDATE jobs_queue SET status = 'completed' WHERE job_type = 'mail';
UPDATE jobs_queue SET status = 'queued' WHERE job_type = 'mail' AND id < 3;
RESET ROLE;
SELECT id, status, attempts, claim_no FROM jobs_queue WHERE job_type = 'mail' ORDER BY id;
SELECT job_id, claim_no, status, charged FROM job_runs ORDER BY job_id, claim_no;
SELECT job_type, payload, count(*), count(owner) AS owned FROM jobs_queue WHERE job_type <> 'mail' GROUP BY 1, 2 ORDER BY 1, 2;
DROP TRIGGER a_audit ON jobs_queue;
DROP TRIGGER z_audit ON jobs_queue;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- A trigger that refuses what happens to one job: the others go on.
CREATE FUNCTION regress_jobqueue.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'job % stays', OLD.id USING ERRCODE = 'P0007';
END
$$;
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON jobs_queue FOR EACH ROW
	WHEN (OLD.correlation_id = 'stuck' AND OLD.status = 'running') EXECUTE FUNCTION regress_jobqueue.refuse();
SELECT enqueue_job('mail', correlation_id => CASE i WHEN 2 THEN 'stuck' ELSE 'free' END, max_attempts => 1 + i % 2) FROM generate_series(1, 5) AS i;
SELECT id FROM claim_jobs(:w1, '{mail}', 4);
SELECT enqueue_job('other');
ALTER TABLE jobs_queue DISABLE TRIGGER refuse;
UPDATE jobs_queue SET lease_expires_at = now() - interval '1 s' WHERE status = 'running';
ALTER TABLE jobs_queue ENABLE TRIGGER refuse;
\c -
\set SHOW_CONTEXT never
\set w1 '''aaaaaaaa-0000-4000-8000-000000000001'''
-- the claim that sweeps says what it could not take back
SELECT id FROM claim_next_job(:w1, 'other');
SELECT id, status, attempts FROM jobs_queue ORDER BY id;
SELECT job_id, claim_no, status, charged FROM job_runs ORDER BY job_id, claim_no;
-- and does its work
SET client_min_messages = error;
SELECT id FROM claim_jobs(:w1, '{mail}', 10);
SELECT resolve_job(2, :w1, true);
\echo :SQLSTATE
SELECT resolve_job(5, :w1, true);
SELECT resolve_job(2, :w1, false);
SELECT id, status FROM jobs_queue ORDER BY id;
-- until nothing stands in its way
ALTER TABLE jobs_queue DISABLE TRIGGER refuse;
\c -
\set SHOW_CONTEXT never
SELECT count(*) FROM claim_next_job('aaaaaaaa-0000-4000-8000-000000000001', 'none');
SELECT id, status, attempts, last_error FROM jobs_queue WHERE id = 2;
SELECT job_id, claim_no, status, charged FROM job_runs WHERE job_id = 2;

-- One that suppresses a change: then there is none, and nobody believes so.
SET client_min_messages = warning;
\set w1 '''aaaaaaaa-0000-4000-8000-000000000001'''
DROP TRIGGER refuse ON jobs_queue;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
CREATE FUNCTION regress_jobqueue.suppress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RETURN NULL;
END
$$;
CREATE TRIGGER suppress BEFORE UPDATE ON jobs_queue FOR EACH ROW
	WHEN (OLD.correlation_id = 'stuck') EXECUTE FUNCTION regress_jobqueue.suppress();
SELECT enqueue_job('mail', correlation_id => CASE i WHEN 1 THEN 'stuck' END, unique_key => i::text) FROM generate_series(1, 3) AS i;
SELECT id FROM claim_next_job(:w1, 'mail');
SELECT id FROM claim_jobs(:w1, '{mail}');
SELECT id, status, attempts FROM jobs_queue ORDER BY id;
ALTER TABLE jobs_queue DISABLE TRIGGER suppress;
SELECT id FROM claim_jobs(:w1, '{mail}');
ALTER TABLE jobs_queue ENABLE TRIGGER suppress;
SELECT release_job(1, :w1);
\echo :SQLSTATE
SELECT heartbeat_job(1, :w1);
\echo :SQLSTATE
SELECT id, status, attempts FROM jobs_queue ORDER BY id;
SELECT count(*) FROM job_runs;
DROP TRIGGER suppress ON jobs_queue;

-- One that suppresses the DELETE of a job that ends: nothing has happened.
CREATE TRIGGER suppress BEFORE DELETE ON jobs_queue FOR EACH ROW
	WHEN (OLD.correlation_id = 'kept') EXECUTE FUNCTION regress_jobqueue.suppress();
SELECT enqueue_job('kept', correlation_id => 'kept') AS kept \gset
SELECT job_type FROM claim_next_job('aaaaaaaa-0000-4000-8000-000000000009', 'kept');
SELECT resolve_job(:kept, 'aaaaaaaa-0000-4000-8000-000000000009', true);
SELECT status, (SELECT count(*) FROM job_runs WHERE job_id = :kept) AS runs FROM jobs_queue WHERE id = :kept;
DROP TRIGGER suppress ON jobs_queue;
SELECT resolve_job(:kept, 'aaaaaaaa-0000-4000-8000-000000000009', true);
SELECT status, (SELECT count(*) FROM job_runs WHERE job_id = :kept) AS runs FROM jobs_queue WHERE id = :kept;
DELETE FROM jobs_queue WHERE id = :kept;
DELETE FROM job_runs WHERE job_id = :kept;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
DROP SCHEMA regress_jobqueue CASCADE;
DROP OWNED BY regress_alice, regress_bob;
DROP ROLE regress_alice, regress_bob;
