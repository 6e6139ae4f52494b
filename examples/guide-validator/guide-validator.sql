-- Guide Validator: a web application with uploads to read, licences to renew and
-- comments to moderate. Its workers are elsewhere (Edge Functions, Cloud Run), reach
-- the database through a pooler, and know two functions: claim_next_job, resolve_job.
--
--   psql -d guide -v sentry_url=https://... -f guide-validator.sql
--
-- Run it as a superuser; running it again changes what has changed. The workers are
-- beside it, and so is what it needs from postgresql.conf and pgbouncer. The marks
-- (C1) are explained in ../README.md.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
\if :{?sentry_url} \else \set sentry_url 'https://sentry.example.com/hooks/jobs' \endif

-- A migration of the application names the version that it was written for; a later one
-- says ALTER EXTENSION jobqueue UPDATE TO the next (C17).
CREATE EXTENSION IF NOT EXISTS jobqueue VERSION '1.0';

-- ---------------------------------------------------------------------------
-- Roles. To "guide" belongs all that follows; "guide_app" are the server actions,
-- "guide_user" is who logs in to the site, "guide_cron" the scheduler outside,
-- "guide_pooler" the pooler. "guide_service" is the service role: nobody logs in as it,
-- a key is a role with a password that is a member of it (C16)
-- ---------------------------------------------------------------------------

SELECT format('CREATE ROLE %I %s', r, CASE WHEN r ~ '_(cron|pooler)$' THEN 'LOGIN' ELSE 'NOLOGIN' END)
FROM unnest('{guide,guide_app,guide_user,guide_service,guide_cron,guide_pooler}'::text[]) r WHERE to_regrole(r) IS NULL \gexec
SELECT grant_job_role('guide', r) FROM unnest('{producer,operator}'::text[]) r;
SELECT grant_job_role('guide_app', 'producer'), grant_job_role('guide_service', 'worker');
GRANT EXECUTE ON FUNCTION enqueue_cron_tasks() TO guide_cron;
CREATE SCHEMA IF NOT EXISTS guide AUTHORIZATION guide;
GRANT USAGE ON SCHEMA guide TO guide_app, guide_user, guide_service, guide_pooler;

-- Makes a key, which is shown this once. Two keys are valid at the same time, so that
-- workers can be changed one after the other.
CREATE OR REPLACE FUNCTION guide.create_service_key(name text) RETURNS text
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	key text := replace(gen_random_uuid() || '' || gen_random_uuid(), '-', '');
BEGIN
	EXECUTE format('CREATE ROLE %I LOGIN PASSWORD %L IN ROLE guide_service', name, key);
	RETURN key;
END
$$;

-- From now on nobody logs in with this key, and who has done so is thrown out. The jobs
-- that they have go to others when their leases run out.
CREATE OR REPLACE FUNCTION guide.revoke_service_key(name text) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL', name);
	EXECUTE format('REVOKE guide_service FROM %I', name);
	RETURN (SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a WHERE a.usename = name);
END
$$;

-- What the pooler asks: who logs in, and how a password is checked. Keys only, and the
-- scheduler.
CREATE OR REPLACE FUNCTION guide.find_key(role text) RETURNS TABLE (name text, secret text)
	LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT a.rolname, a.rolpassword
	FROM pg_authid a
	WHERE a.rolname = role AND a.rolcanlogin AND NOT a.rolsuper
		AND (a.rolname = 'guide_cron' OR pg_has_role(a.oid, 'guide_service', 'MEMBER'));
END;
REVOKE EXECUTE ON FUNCTION guide.create_service_key(text), guide.revoke_service_key(text), guide.find_key(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION guide.find_key(text) TO guide_pooler;

SET ROLE guide;
SET search_path = guide, public;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- ---------------------------------------------------------------------------
-- Job types (C1, C19): nothing has to be created for a new one. A row says how often it
-- is tried (C8), how long between attempts (C9; NULL: five minutes), and what the person
-- on call needs to know
-- ---------------------------------------------------------------------------

INSERT INTO job_types (job_type, max_attempts, lease, description) VALUES
	('ocr', 3, '2 minutes', 'Reads the text of an upload. Fails when the OCR service is down: requeue_jobs(''ocr'') when it is up again.'),
	('license-renewal', NULL, NULL, 'Once a day: begins the renewal of licences that expire soon. Safe to run again.'),
	('moderation', NULL, NULL, 'Looks for comments that must not stay.')
ON CONFLICT (job_type) DO UPDATE SET (max_attempts, lease, description) = (EXCLUDED.max_attempts, EXCLUDED.lease, EXCLUDED.description);

-- The runbook, which grows with them: of each type what it is, and how it does.
CREATE OR REPLACE VIEW runbook AS
	SELECT t.job_type, t.description, coalesce(t.max_attempts, current_setting('jobqueue.max_attempts')::int) AS max_attempts,
		count(q.id) FILTER (WHERE q.status = 'queued') AS queued,
		count(q.id) FILTER (WHERE q.status = 'failed') AS failed,
		(array_agg(q.last_error ORDER BY q.updated_at DESC) FILTER (WHERE q.status = 'failed'))[1] AS last_error
	FROM job_types t LEFT JOIN jobs_queue q USING (job_type)
	GROUP BY t.job_type;

-- ---------------------------------------------------------------------------
-- The application
-- ---------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS documents (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	user_id text NOT NULL,
	url text NOT NULL,				-- where the OCR service finds it
	content text,
	times_read integer NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS comments (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	body text NOT NULL,
	verdict text
);
CREATE TABLE IF NOT EXISTS licenses (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	holder text NOT NULL,
	expires_on date NOT NULL
);
CREATE TABLE IF NOT EXISTS renewals (
	license_id bigint REFERENCES licenses,
	expires_on date,
	PRIMARY KEY (license_id, expires_on)
);
GRANT SELECT, INSERT ON documents, comments, licenses TO guide_app;

-- Users see their own documents, and nothing of the queue.
ALTER TABLE documents ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS own ON documents;
CREATE POLICY own ON documents TO guide_user USING (user_id = current_setting('request.jwt.claim.sub', true));
GRANT SELECT ON documents TO guide_user;

-- Server actions (C2): what a job is about and the job commit together. A user may call
-- this one; it enqueues with the rights of "guide".
CREATE OR REPLACE FUNCTION upload_document(url text) RETURNS bigint
	LANGUAGE sql SECURITY DEFINER SET search_path = guide, public, pg_temp
AS $$
	WITH d AS (INSERT INTO documents (user_id, url) VALUES (current_setting('request.jwt.claim.sub'), url) RETURNING id, url)
	SELECT enqueue_job('ocr', jsonb_build_object('document', d.id, 'url', d.url)) FROM d
$$;
CREATE OR REPLACE FUNCTION post_comment(body text) RETURNS bigint
	LANGUAGE sql SET search_path = guide, public, pg_temp
AS $$
	WITH c AS (INSERT INTO comments (body) VALUES (body) RETURNING id, body)
	SELECT enqueue_job('moderation', jsonb_build_object('comment', c.id, 'body', c.body)) FROM c
$$;

-- What workers do to our tables. A job can come twice, if a worker was slow or died: all
-- of this may be repeated, and a worker that has lost its job rolls it back.
CREATE OR REPLACE FUNCTION save_content(document bigint, content text) RETURNS void
	LANGUAGE sql SECURITY DEFINER SET search_path = guide, pg_temp
AS $$
	UPDATE documents d SET content = save_content.content, times_read = times_read + 1 WHERE d.id = document
$$;
CREATE OR REPLACE FUNCTION save_verdict(comment bigint, verdict text) RETURNS void
	LANGUAGE sql SECURITY DEFINER SET search_path = guide, pg_temp
AS $$
	UPDATE comments c SET verdict = save_verdict.verdict WHERE c.id = comment
$$;
CREATE OR REPLACE FUNCTION renew_licenses(days_ahead integer) RETURNS void
	LANGUAGE sql SECURITY DEFINER SET search_path = guide, pg_temp
AS $$
	INSERT INTO renewals SELECT l.id, l.expires_on FROM licenses l WHERE l.expires_on < current_date + days_ahead
	ON CONFLICT DO NOTHING
$$;
GRANT EXECUTE ON FUNCTION upload_document(text) TO guide_user;
GRANT EXECUTE ON FUNCTION post_comment(text) TO guide_app;
GRANT EXECUTE ON FUNCTION save_content(bigint, text), save_verdict(bigint, text), renew_licenses(integer) TO guide_service;

-- ---------------------------------------------------------------------------
-- Cron (C10): rows that anybody may read and change. Due ones are enqueued by the
-- server and by "guide_cron", which calls enqueue_cron_tasks() every minute (C11)
-- ---------------------------------------------------------------------------

INSERT INTO cron_tasks (name, schedule, timezone, job_type, payload, description) VALUES
	('license-renewal', '0 6 * * *', 'Europe/Berlin', 'license-renewal', '{"days_ahead": 30}', 'Licences that expire within a month')
ON CONFLICT (name) DO UPDATE SET (schedule, timezone, job_type, payload, description) =
	(EXCLUDED.schedule, EXCLUDED.timezone, EXCLUDED.job_type, EXCLUDED.payload, EXCLUDED.description);

-- ---------------------------------------------------------------------------
-- Audit (C15): every attempt, kept longer than the job itself
-- ---------------------------------------------------------------------------

CREATE OR REPLACE VIEW audit AS
	SELECT r.job_id, r.job_type, r.attempt, r.status, r.error, r.worker_id, r.started_at, r.finished_at
	FROM job_runs r;

-- ---------------------------------------------------------------------------
-- Alerts: to Sentry, when a job has failed for good (C13), and once more each day while
-- nobody has looked after it for ten minutes (C14)
-- ---------------------------------------------------------------------------

-- The address is a secret; who may read the tables cannot see it.
SELECT set_secret('sentry_url', :'sentry_url', keep_previous => '0');
INSERT INTO http_endpoints (name, url) VALUES ('sentry', '{{secret.sentry_url}}') ON CONFLICT (name) DO NOTHING;
INSERT INTO alert_sinks (name, kind, endpoint) VALUES ('sentry', 'webhook', 'sentry') ON CONFLICT (name) DO NOTHING;
INSERT INTO alert_rules (name, kind, period, severity, renotify, sinks, description) VALUES
	('jobs fail', 'dead_letters', NULL, 'critical', '1 day', '{sentry}', 'Jobs have failed for good'),
	('jobs stay failed', 'failed_older_than', '10 minutes', 'warning', '1 day', '{sentry}', 'Nobody has looked after failed jobs')
ON CONFLICT (name) DO UPDATE SET (kind, period, severity, renotify, sinks, description) =
	(EXCLUDED.kind, EXCLUDED.period, EXCLUDED.severity, EXCLUDED.renotify, EXCLUDED.sinks, EXCLUDED.description);
