-- The application of the demonstration: it reviews every package that this
-- machine has installed. Run by demo/run as the superuser of a new database.

CREATE EXTENSION jobqueue;

-- Nothing below needs a superuser at run time: demo_app enqueues and owns the
-- code that the server runs, demo_worker only takes work and reports back.
CREATE ROLE demo_app LOGIN;
CREATE ROLE demo_worker LOGIN;
SELECT grant_job_role('demo_app', 'producer');
SELECT grant_job_role('demo_app', 'observer');
SELECT grant_job_role('demo_worker', 'worker');

CREATE SCHEMA demo AUTHORIZATION demo_app;
SET ROLE demo_app;
SET search_path = demo, public;

-- ---------------------------------------------------------------------------
-- What is loaded: dpkg's records, the lines of its checksum lists, and how many
-- jobs they became
-- ---------------------------------------------------------------------------

CREATE TABLE records (
	package text, architecture text, state text, version text, section text,
	installed_size text, maintainer text, pre_depends text, depends text
);
CREATE TABLE checksums (line text);
CREATE TABLE loaded (job_type text, jobs bigint);

-- ---------------------------------------------------------------------------
-- What the jobs make of it
-- ---------------------------------------------------------------------------

CREATE TABLE packages (
	name text,
	architecture text,
	version bigint[] NOT NULL,		-- 2:1.46.2-2+deb12u1 is {2,1,46,2}
	section text NOT NULL,
	kind text NOT NULL,				-- what the sections add up to
	size_kb bigint NOT NULL,
	size_class text NOT NULL,
	contact text NOT NULL,			-- e-mail address of the maintainer
	job_id bigint NOT NULL,
	PRIMARY KEY (name, architecture)
);
CREATE TABLE summaries (
	taken_at timestamptz DEFAULT clock_timestamp(),
	registered bigint,
	open_jobs bigint,
	dead_letters bigint
);

-- The packages that must be registered before this one, as dpkg unpacks them in
-- this order or not at all: its pre-dependencies, and those that it needs in
-- exactly one version. A row is one need; any of its alternatives will do.
CREATE FUNCTION needs(pre_depends text, depends text) RETURNS SETOF text[]
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT ARRAY(SELECT substring(choice FROM '[a-z0-9][a-z0-9+.-]*')
				 FROM regexp_split_to_table(clause, '\|') AS choice)
	FROM (SELECT regexp_split_to_table(pre_depends, ',')
		  UNION
		  SELECT c FROM regexp_split_to_table(depends, ',') AS c WHERE c ~ '\(= ')
		AS clauses (clause);
END;

-- Reviews one record. Whatever it raises fails the attempt; what it wrote is
-- rolled back, and the job is tried again until its attempts are used up.
CREATE FUNCTION process_package(record jsonb, job_id bigint) RETURNS void
	LANGUAGE plpgsql SET search_path = demo, public
AS $$
DECLARE
	epoch text := coalesce(substring(record->>'version' FROM '^(\d+):'), '0');
	upstream text := regexp_replace(record->>'version', '^\d+:|[-+~].*$', '', 'g');
	area text := regexp_replace(record->>'section', '^.*/', '');
	size bigint := (record->>'installed_size')::bigint;
	contact text := substring(record->>'maintainer' FROM '<([^<>@\s]+@[^<>@\s]+)>');
	choices text[];
BEGIN
	IF record->>'state' <> 'installed' THEN
		RAISE EXCEPTION 'package is not installed: dpkg calls it "%"', record->>'state';
	ELSIF contact IS NULL THEN
		RAISE EXCEPTION 'maintainer has no e-mail address: "%"', record->>'maintainer';
	END IF;

	FOR choices IN SELECT needs(record->>'pre_depends', record->>'depends') LOOP
		IF NOT EXISTS (SELECT FROM records r WHERE r.package = ANY (choices)) THEN
			RAISE EXCEPTION 'needs "%", which only exists as a virtual package', choices[1];
		ELSIF NOT EXISTS (SELECT FROM packages p WHERE p.name = ANY (choices)) THEN
			RAISE EXCEPTION 'needs "%", which is not registered yet', choices[1];
		END IF;
	END LOOP;

	INSERT INTO packages VALUES (
		record->>'package', record->>'architecture',
		string_to_array(epoch || '.' || upstream, '.')::bigint[],
		area,
		CASE
			WHEN area IN ('libs', 'oldlibs', 'libdevel') THEN 'library'
			WHEN area IN ('devel', 'interpreters', 'python', 'perl', 'java',
						  'javascript', 'ruby', 'rust', 'golang', 'debug', 'vcs') THEN 'development'
			WHEN area IN ('admin', 'kernel', 'net', 'shells', 'utils', 'database') THEN 'system'
			WHEN area IN ('doc', 'localization', 'fonts', 'translations') THEN 'text'
			ELSE 'other'
		END,
		size,
		CASE WHEN size < 1024 THEN 'small' WHEN size < 10240 THEN 'medium'
			 WHEN size < 102400 THEN 'large' ELSE 'huge' END,
		contact, job_id);

	-- An outbox: it is sent if the registration commits, and only then.
	IF size >= 10240 THEN
		PERFORM publish_event('package.registered',
							  jsonb_build_object('package', record->'package', 'size_kb', size));
	END IF;
END
$$;

-- What the cron task runs.
CREATE FUNCTION take_summary() RETURNS void
	LANGUAGE sql SET search_path = demo, public
BEGIN ATOMIC
	INSERT INTO demo.summaries (registered, open_jobs, dead_letters)
	SELECT (SELECT count(*) FROM demo.packages),
		coalesce(sum(jobs) FILTER (WHERE status IN ('queued', 'running')), 0),
		coalesce(sum(jobs) FILTER (WHERE status = 'error'), 0)
	FROM job_stats
	WHERE job_type IN ('package', 'checksum');
END;

RESET ROLE;

-- ---------------------------------------------------------------------------
-- Four job types: the server runs two of them, as demo_app; a worker outside
-- (demo/worker) claims the third
-- ---------------------------------------------------------------------------

INSERT INTO job_types (job_type, owner, runner, command, max_attempts, backoff, dead_letter, description)
VALUES
	('package', 'demo_app', 'sql', 'SELECT demo.process_package($1, $2)', 3,
	 '{"strategy": "exponential", "delay": "200 milliseconds", "multiplier": 2}', true,
	 'Reviews one record of the package database'),
	('summary', 'demo_app', 'sql', 'SELECT demo.take_summary()', 1,
	 NULL, false,
	 'Writes down how far the review has come'),
	('checksum', 'demo_app', 'external', NULL, 2,
	 '{"strategy": "fixed", "delay": "300 milliseconds"}', false,
	 'Compares an installed program with the checksum that its package lists');

-- The fourth becomes webhooks to demo/receiver, one for each event.
SELECT set_secret('webhook_key', :'signing_key');
INSERT INTO http_endpoints (name, url, body, signing_secret)
VALUES ('receiver', 'http://127.0.0.1:' || :'port' || '/packages', '"{{payload.data}}"', 'webhook_key');
INSERT INTO job_types (job_type, runner, endpoint, max_attempts, backoff, description)
VALUES ('webhook', 'http', 'receiver', 5, '{"delay": "300 milliseconds"}',
		'Tells that a package of more than 10 MB was registered');
SELECT subscribe_event('package.registered', 'webhook');

-- The schedule enqueues; the job type says what runs, and as whom.
SELECT schedule_cron_task('progress', 'every 2 seconds', 'summary');
