-- The extension as an installed object: what belongs to it, where it can
-- live, how it goes and comes back, who can get in its way.
\set SHOW_CONTEXT never
SELECT extrelocatable, extversion, extnamespace::regnamespace AS schema
FROM pg_extension WHERE extname = 'jobqueue';
ALTER EXTENSION jobqueue SET SCHEMA pg_catalog;

-- Every member, with what PUBLIC may do to it: nothing.
CREATE TEMP VIEW members AS
	SELECT d.classid, d.objid, i.type, i.identity
	FROM pg_depend d
		CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
		AND d.classid <> 'pg_type'::regclass -- row types, members since 17
		AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'jobqueue');
SELECT m.type, m.identity, a.privilege_type
FROM members m
	LEFT JOIN pg_class c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass
	LEFT JOIN pg_proc p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass
	CROSS JOIN LATERAL aclexplode(CASE
		WHEN c.oid IS NOT NULL THEN coalesce(c.relacl,
			acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, c.relowner))
		ELSE coalesce(p.proacl, acldefault('f', p.proowner)) END) a
WHERE a.grantee = 0
ORDER BY 1, 2, 3;
SELECT m.identity, att.attname FROM members m
	JOIN pg_attribute att ON att.attrelid = m.objid AND m.classid = 'pg_class'::regclass
WHERE att.attacl IS NOT NULL ORDER BY 1, 2;
SELECT DISTINCT type FROM members ORDER BY 1;

-- Every function, table and view says what it is.
SELECT m.type, m.identity FROM members m
WHERE m.type NOT IN ('sequence', 'trigger') AND m.identity NOT LIKE 'public.\_%'
	AND obj_description(m.objid, (SELECT relname FROM pg_class WHERE oid = m.classid)) IS NULL
ORDER BY 1, 2;

-- No function runs with its owner's rights; those of PL/pgSQL pin their path.
SELECT m.identity, p.prosecdef, p.proconfig
FROM members m JOIN pg_proc p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass
	JOIN pg_language l ON l.oid = p.prolang
WHERE p.prosecdef OR l.lanname NOT IN ('c', 'sql')
ORDER BY 1;

-- One signature per name.
SELECT p.proname, count(*) FROM members m
	JOIN pg_proc p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass
GROUP BY 1 HAVING count(*) > 1 ORDER BY 1;

-- Every table with data is dumped, whole, and every sequence; secrets are not.
SELECT m.type, m.identity FROM members m
	JOIN pg_class c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass
WHERE c.relkind IN ('r', 'S')
	AND NOT c.oid = ANY (SELECT unnest(extconfig) FROM pg_extension WHERE extname = 'jobqueue')
ORDER BY 1, 2;
SELECT DISTINCT unnest(extcondition) AS condition FROM pg_extension
WHERE extname = 'jobqueue' ORDER BY 1;

-- Every table can be published: it has a primary key, its replica identity.
SELECT m.identity, c.relreplident FROM members m
	JOIN pg_class c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass
WHERE c.relkind = 'r' AND (c.relreplident <> 'd'
	OR NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisprimary))
ORDER BY 1;

-- No index or predicate of the live leaf mentions a column that a claim changes.
SELECT x.indexrelid::regclass AS index, a.attname
FROM pg_index x
	JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = x.indexrelid
		AND d.refclassid = 'pg_class'::regclass AND d.refobjid = x.indrelid
	JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE x.indrelid = 'jobs_queue_live'::regclass
	AND a.attname IN ('status', 'attempts', 'claim_no', 'locked_by', 'locked_at',
		'lease_expires_at', 'holder', 'updated_at')
ORDER BY 1, 2;
DROP VIEW members;

-- A database of its own for what follows.
CREATE DATABASE jobqueue_install TEMPLATE template0;
\c jobqueue_install
SET client_min_messages = warning;
CREATE ROLE regress_worker;
\set worker '''11111111-1111-1111-1111-111111111111'''

-- Objects that are there already are not taken over.
CREATE TABLE public.jobs_queue (id bigint);
CREATE EXTENSION jobqueue;
DROP TABLE public.jobs_queue;
CREATE FUNCTION public.claim_next_job(worker_id uuid, job_type text DEFAULT NULL)
	RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE EXTENSION jobqueue;
DROP FUNCTION public.claim_next_job;

-- Nor are operators in the schema of the installation called by its script.
CREATE TABLE public.hits (what text);
CREATE FUNCTION public.shadow(oid, regclass) RETURNS boolean LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO public.hits VALUES ('oid = regclass'); RETURN false; END $$;
CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = regclass, FUNCTION = public.shadow);
CREATE FUNCTION public.shadow_name(name, text) RETURNS boolean LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO public.hits VALUES ('name = text'); RETURN false; END $$;
CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.shadow_name);
CREATE EXTENSION jobqueue;
SELECT what, count(*) FROM public.hits GROUP BY 1 ORDER BY 1;
SELECT count(*) AS open_to_public FROM pg_proc p
WHERE p.pronamespace = 'public'::regnamespace AND p.proname NOT LIKE 'shadow%'
	AND has_function_privilege('public', p.oid, 'EXECUTE');
DROP EXTENSION jobqueue;
DROP OPERATOR public.= (oid, regclass);
DROP OPERATOR public.= (name, text);
DROP FUNCTION public.shadow, public.shadow_name;
DROP TABLE public.hits;

-- Any schema will do, whatever its name.
CREATE SCHEMA "My Jobs";
CREATE SCHEMA "50%s";
CREATE EXTENSION jobqueue SCHEMA "My Jobs";
SELECT "My Jobs".enqueue_job('mail', '{"n": 1}');
SELECT "My Jobs".enqueue_jobs('mail', '{"{}","{}"}');
SELECT id, job_type, status, owner = current_user::regrole AS mine
FROM "My Jobs".claim_next_job(:worker, 'mail');
SELECT "My Jobs".resolve_job(1, :worker, true);
SELECT "My Jobs".cancel_job(2), "My Jobs".requeue_job(2), "My Jobs".requeue_jobs();
SELECT "My Jobs".enqueue_job('mail', depends_on => '{3}');
SELECT "My Jobs".schedule_cron_task('tick', '* * * * *', 'mail');
UPDATE "My Jobs".cron_tasks SET next_run_at = now() - interval '1 hour';
SELECT "My Jobs".enqueue_cron_tasks();
SELECT "My Jobs".unschedule_cron_task('tick');
UPDATE "My Jobs".jobs_queue SET status = 'completed' WHERE id = 3;
SELECT id, status, "My Jobs".job_state(q) AS state FROM "My Jobs".jobs_queue q ORDER BY id;
SELECT count(*) FROM "My Jobs".running_jobs;
SELECT "My Jobs".grant_job_role('regress_worker', r)
FROM unnest('{producer,worker,operator,observer}'::text[]) r;
SET ROLE regress_worker;
SELECT "My Jobs".enqueue_job('mail');
INSERT INTO "My Jobs".jobs_queue (job_type) VALUES ('mail') RETURNING id;
SELECT id FROM "My Jobs".claim_next_job(:worker);
SELECT count(*) FROM "My Jobs".job_workers;
RESET ROLE;

-- A renamed schema takes it along.
ALTER SCHEMA "My Jobs" RENAME TO "Jobs, ""mine""";
SELECT "Jobs, ""mine""".enqueue_job('mail');
INSERT INTO "Jobs, ""mine""".jobs_queue (job_type) VALUES ('mail') RETURNING id;
SELECT "Jobs, ""mine""".grant_job_role('regress_worker', 'observer');
SELECT count(*) FROM "Jobs, ""mine""".job_stats;
DROP EXTENSION jobqueue;
DROP SCHEMA "Jobs, ""mine""";

CREATE EXTENSION jobqueue SCHEMA "50%s";
SELECT "50%s".grant_job_role('regress_worker', r)
FROM unnest('{producer,worker,operator,observer}'::text[]) r;
SELECT "50%s".enqueue_job('mail');
SELECT id, status FROM "50%s".claim_next_job(:worker);
DROP EXTENSION jobqueue;
DROP SCHEMA "50%s";

-- It can go and come back in one session, under plans made before.
CREATE EXTENSION jobqueue;
PREPARE enqueue AS SELECT enqueue_job('mail');
PREPARE claim (uuid) AS SELECT id, status FROM claim_next_job($1);
PREPARE plain AS INSERT INTO jobs_queue (job_type) VALUES ('mail') RETURNING id, status;
EXECUTE enqueue;
EXECUTE claim (:worker);
EXECUTE plain;
DROP EXTENSION jobqueue CASCADE;
EXECUTE enqueue;
EXECUTE plain;
CREATE EXTENSION jobqueue;
EXECUTE enqueue;
EXECUTE claim (:worker);
EXECUTE plain;

CREATE FUNCTION round_trip() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	job record;
BEGIN
	PERFORM enqueue_job('mail');
	SELECT * INTO job FROM claim_next_job('11111111-1111-1111-1111-111111111111');
	RETURN job.id || ' ' || resolve_job(job.id, '11111111-1111-1111-1111-111111111111', true);
END $$;
SELECT round_trip();
DROP EXTENSION jobqueue;
SELECT round_trip();
CREATE EXTENSION jobqueue;
SELECT round_trip();

-- Within a transaction, and undone.
BEGIN;
SELECT enqueue_job('mail') AS before;
DROP EXTENSION jobqueue;
SAVEPOINT s;
SELECT round_trip();
ROLLBACK TO s;
CREATE EXTENSION jobqueue;
SELECT round_trip();
SELECT enqueue_job('mail', unique_key => 'k'), enqueue_job('mail', unique_key => 'k');
ROLLBACK;
SELECT round_trip();
BEGIN;
DROP EXTENSION jobqueue;
CREATE SCHEMA jobs;
CREATE EXTENSION jobqueue SCHEMA jobs;
SELECT jobs.enqueue_job('mail');
COMMIT;
SELECT id, status FROM jobs.claim_next_job(:worker);
SELECT jobs.resolve_job(1, :worker, false, 'no');
DROP EXTENSION jobqueue;
DROP SCHEMA jobs;
CREATE EXTENSION jobqueue;

-- With an open cursor on a result, it can go only afterwards.
SELECT enqueue_job('mail');
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM jobs_queue;
FETCH c;
SAVEPOINT s;
\set VERBOSITY sqlstate
DROP EXTENSION jobqueue;
\set VERBOSITY default
ROLLBACK TO s;
FETCH c;
COMMIT;

-- A publication of everything stops nobody.
SET client_min_messages = error;
CREATE PUBLICATION everything FOR ALL TABLES;
SET client_min_messages = warning;
INSERT INTO job_types (job_type, max_attempts) VALUES ('mail', 3);
UPDATE job_types SET max_attempts = 2;
SELECT round_trip();
SELECT id FROM claim_next_job(:worker);
SELECT heartbeat_job(2, :worker), resolve_job(2, :worker, false);
UPDATE jobs_queue SET status = 'cancelled' WHERE id = 2;
UPDATE jobs_queue SET status = 'queued' WHERE id = 2;
SELECT enqueue_job('mail', depends_on => '{2}');
SELECT complete_job(2);
SELECT register_worker(:worker, 'one'), register_worker(:worker, 'two');
SELECT schedule_cron_task('tick', '* * * * *', 'mail');
UPDATE cron_tasks SET next_run_at = now() - interval '1 hour';
SELECT enqueue_cron_tasks();
DELETE FROM cron_tasks;
DELETE FROM job_types;
DELETE FROM job_runs;
SELECT id, status FROM jobs_queue ORDER BY id;
DELETE FROM jobs_queue;
DROP PUBLICATION everything;

-- Shadows of everything that the statements could name, first in the path.
CREATE SCHEMA evil;
CREATE TABLE evil.hits (what text);
CREATE FUNCTION evil.hit(text) RETURNS boolean LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO evil.hits VALUES ($1); RETURN true; END $$;
DO $$
DECLARE
	pair text;
	op text;
	n integer := 0;
BEGIN
	FOREACH pair IN ARRAY '{"text,text","bigint,bigint","integer,integer","smallint,integer",
		"oid,regclass","oid,regrole","regrole,regrole","uuid,uuid","timestamptz,timestamptz",
		"boolean,boolean","smallint,smallint","name,text","text,name"}'::text[]
	LOOP
		FOREACH op IN ARRAY '{=,<>,<,<=,>,>=}'::text[]
		LOOP
			n := n + 1;
			EXECUTE format('CREATE FUNCTION evil.f%s(%s) RETURNS boolean LANGUAGE sql AS %L',
				n, pair, format('SELECT evil.hit(%L)', op || ' ' || pair));
			EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.f%s)',
				op, split_part(pair, ',', 1), split_part(pair, ',', 2), n);
		END LOOP;
	END LOOP;
END $$;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS
	$$ SELECT evil.hit('now'); SELECT '2001-01-01'::timestamptz $$;
CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
	$$ SELECT evil.hit('clock_timestamp'); SELECT '2001-01-01'::timestamptz $$;
CREATE FUNCTION evil.nextval(regclass) RETURNS bigint LANGUAGE sql AS
	$$ SELECT evil.hit('nextval'); SELECT 666::bigint $$;
CREATE FUNCTION evil.format(text, VARIADIC "any") RETURNS text LANGUAGE internal AS 'text_format';
CREATE FUNCTION evil.unnest(anyarray) RETURNS SETOF anyelement LANGUAGE plpgsql AS
	$$ BEGIN PERFORM evil.hit('unnest'); END $$;
CREATE FUNCTION evil.gen_random_uuid() RETURNS uuid LANGUAGE sql AS
	$$ SELECT evil.hit('gen_random_uuid'); SELECT NULL::uuid $$;
CREATE FUNCTION evil.enqueue_job(text) RETURNS bigint LANGUAGE sql AS
	$$ SELECT evil.hit('enqueue_job'); SELECT 666::bigint $$;
CREATE FUNCTION evil._server_workers() RETURNS integer LANGUAGE sql AS
	$$ SELECT evil.hit('_server_workers'); SELECT 1 $$;
CREATE TABLE evil.jobs_queue (id bigint, status text, payload jsonb, owner text);
CREATE TABLE evil.jobs_queue_live (LIKE evil.jobs_queue);
CREATE TABLE evil.jobs_queue_done (LIKE evil.jobs_queue);
CREATE TABLE evil.job_types (job_type text, runner text);
CREATE TABLE evil.job_runs (job_id bigint);
CREATE TABLE evil.cron_tasks (id bigint, name text);
CREATE TABLE evil.job_dependencies (job_id bigint);
CREATE TABLE evil.pg_class (oid oid, relname name);
CREATE TABLE evil.pg_proc (oid oid, proname name);
CREATE TABLE evil.pg_extension (oid oid, extname name);
CREATE TEMP TABLE jobs_queue_live (id bigint);
CREATE TEMP TABLE job_types (job_type text);
CREATE TEMP TABLE cron_tasks (id bigint);
CREATE DOMAIN evil.regrole AS text;
CREATE DOMAIN evil.jobs_queue_status AS text;
SET search_path = evil, pg_catalog, public;
SELECT public.enqueue_job('mail', unique_key => 'k');
SELECT public.enqueue_job('mail', unique_key => 'k', unique_mode => 'replace');
SELECT public.enqueue_job('mail', depends_on => '{5}');
SELECT public.enqueue_jobs('mail', '{"{}"}');
SELECT public.enqueue_job_batch('[{"job_type": "mail", "scheduled_at": "2001-02-03 04:05+00"}]');
INSERT INTO public.jobs_queue (job_type) VALUES ('mail') RETURNING id;
SELECT id, status FROM public.claim_jobs('11111111-1111-1111-1111-111111111111', '{mail}', 2);
SELECT public.resolve_jobs('11111111-1111-1111-1111-111111111111', '{5,8}', '{t,f}');
SELECT id FROM public.claim_next_job('11111111-1111-1111-1111-111111111111');
SELECT id FROM public.resolve_and_claim(6, '11111111-1111-1111-1111-111111111111', true);
SELECT public.heartbeat_job(7, '11111111-1111-1111-1111-111111111111');
SELECT public.set_job_stage(7, '11111111-1111-1111-1111-111111111111', 's');
SELECT public.snooze_job(7, '11111111-1111-1111-1111-111111111111', '1 hour');
SELECT public.requeue_job(5), public.cancel_job(7), public.requeue_jobs('mail', '{cancelled}');
SELECT public.complete_job(9);
SELECT public.register_worker('11111111-1111-1111-1111-111111111111', 'me');
SELECT public.schedule_cron_task('tick', '* * * * *', 'mail');
UPDATE public.cron_tasks SET next_run_at = pg_catalog.now() - interval '1 hour';
SELECT public.enqueue_cron_tasks();
SELECT public.unschedule_cron_task('tick');
SELECT public.schedule_sql('tock', '@hourly', 'SELECT 1');
SELECT public.set_secret('token', 'a'), public.set_secret('token', 'b'), public.secret_problem('token'), public.drop_secret('token');
SELECT public.subscribe_event('a.*', 'mail') OPERATOR(pg_catalog.>) 0 AS ok;
SELECT pg_catalog.cardinality(public.publish_event('a.b', '{}', 'key')), public.unsubscribe_event('a.*', 'mail');
SELECT public.grant_job_role('regress_worker', 'operator');
SELECT status, jobs FROM public.job_stats WHERE job_type OPERATOR(pg_catalog.=) 'mail'
ORDER BY status COLLATE "C" USING OPERATOR(pg_catalog.<);
UPDATE public.jobs_queue SET scheduled_at = pg_catalog.now() WHERE id OPERATOR(pg_catalog.=) 8;
UPDATE public.jobs_queue SET status = 'completed' WHERE id OPERATOR(pg_catalog.=) 8;
DELETE FROM public.jobs_queue WHERE id OPERATOR(pg_catalog.=) 8;
SELECT 1::bigint = 2::bigint AS armed;
RESET search_path;
SELECT what, count(*) FROM evil.hits GROUP BY 1 ORDER BY 1;
SELECT count(*) AS mine FROM public.jobs_queue;
SELECT count(*) AS evil FROM evil.jobs_queue;

\c contrib_regression
-- The extension of this database went through all that untouched.
SELECT count(*) FROM jobs_queue;
DROP DATABASE jobqueue_install;
DROP ROLE regress_worker;
