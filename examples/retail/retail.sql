-- A retail back end that sends text messages: campaigns at their time, birthday
-- greetings, delivery reports, imports of contacts, and what keeps all of that
-- tidy. Eight queues, and no worker but the server.
--
--   psql -d shop -v ON_ERROR_STOP=1 -v gateway=https://sms.example.com -v gateway_key=... -f retail.sql
--
-- As a superuser, in a database of its own; the settings are in postgresql.conf
-- beside it. Again is fine: what was changed in job_types, http_endpoints and
-- retail.settings since then stays. Ids in brackets (B12) are the requirements
-- in ../README.md.
\if :{?gateway} \else \set gateway 'https://sms.example.com' \endif
\if :{?birthday_zone} \else \set birthday_zone 'UTC' \endif
SET client_min_messages = warning;

CREATE EXTENSION IF NOT EXISTS jobqueue;

-- The application's role owns all there is, and the server runs its jobs as that
-- role: nothing below needs a superuser at run time.
SELECT to_regrole('retail_app') IS NULL AS is_new \gset
\if :is_new
	CREATE ROLE retail_app LOGIN;
\endif
SELECT grant_job_role('retail_app', job_role) FROM unnest('{producer,worker,operator}'::text[]) AS job_role;
CREATE SCHEMA IF NOT EXISTS retail AUTHORIZATION retail_app;
SET ROLE retail_app;

-- ---------------------------------------------------------------------------
-- The application's tables
-- ---------------------------------------------------------------------------

-- One row; what used to be environment variables of the application's own. Those
-- of the queues are columns of job_types and cron_tasks, below.
CREATE TABLE IF NOT EXISTS retail.settings (
	is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
	batch_size integer NOT NULL DEFAULT 100,					-- messages in one request to the gateway
	stuck_sending interval NOT NULL DEFAULT '10 minutes',		-- STUCK_SENDING_MINUTES (B18)
	refresh_after interval NOT NULL DEFAULT '10 minutes',		-- ask for a message's status when it is so old
	pii_retention interval NOT NULL DEFAULT '2 years',			-- of contacts that nobody has heard of
	report_cursor bigint NOT NULL DEFAULT 0						-- how far delivery reports were read
);
INSERT INTO retail.settings DEFAULT VALUES ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS retail.shops (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name text NOT NULL,
	credits integer NOT NULL DEFAULT 0 CHECK (credits >= 0),	-- a message costs one
	birthday_text text											-- null: no greetings
);
CREATE TABLE IF NOT EXISTS retail.contacts (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	shop_id bigint NOT NULL REFERENCES retail.shops,
	phone text,
	name text,
	birthday date,
	seen_at timestamptz NOT NULL DEFAULT now(),
	anonymized_at timestamptz,
	UNIQUE (shop_id, phone)
);
CREATE TABLE IF NOT EXISTS retail.campaigns (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	shop_id bigint NOT NULL REFERENCES retail.shops,
	text text NOT NULL,
	status text NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'scheduled', 'sending', 'sent', 'cancelled')),
	scheduled_at timestamptz,
	sending_since timestamptz
);
-- Credits that a scheduled campaign holds, until it is sent or they expire.
CREATE TABLE IF NOT EXISTS retail.reservations (
	campaign_id bigint PRIMARY KEY REFERENCES retail.campaigns,
	credits integer NOT NULL,
	expires_at timestamptz NOT NULL,
	released_at timestamptz
);
CREATE TABLE IF NOT EXISTS retail.batches (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS retail.messages (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	batch_id bigint NOT NULL REFERENCES retail.batches,
	contact_id bigint NOT NULL REFERENCES retail.contacts,
	campaign_id bigint REFERENCES retail.campaigns,
	birthday_on date,
	phone text,
	text text NOT NULL,
	status text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'sent', 'delivered', 'failed')),
	gateway_id text UNIQUE,
	error text,
	updated_at timestamptz NOT NULL DEFAULT now(),
	-- Nobody gets a campaign, or a greeting, twice (B21).
	UNIQUE (campaign_id, contact_id),
	UNIQUE (contact_id, birthday_on)
);
CREATE INDEX IF NOT EXISTS messages_of_batch ON retail.messages (batch_id);
CREATE INDEX IF NOT EXISTS messages_open ON retail.messages (status, updated_at) WHERE status IN ('queued', 'sent');
CREATE TABLE IF NOT EXISTS retail.imports (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	shop_id bigint NOT NULL REFERENCES retail.shops,
	lines bigint NOT NULL,
	done bigint NOT NULL DEFAULT 0,
	rejected bigint NOT NULL DEFAULT 0,
	job_id bigint
);
CREATE TABLE IF NOT EXISTS retail.import_lines (
	import_id bigint REFERENCES retail.imports ON DELETE CASCADE,
	line_no bigint,
	line text NOT NULL,
	error text,
	PRIMARY KEY (import_id, line_no)
);
CREATE TABLE IF NOT EXISTS retail.retention_actions (
	contact_id bigint NOT NULL REFERENCES retail.contacts,
	action text NOT NULL,
	done_at timestamptz NOT NULL DEFAULT now()
);

-- ---------------------------------------------------------------------------
-- The gateway: where the requests go. Every request of a batch carries the same
-- key, also when the watchdog enqueues the batch once more, so that the gateway
-- can tell that it has it already (B21)
-- ---------------------------------------------------------------------------

\if :{?gateway_key}
	SELECT set_secret('sms_gateway_key', :'gateway_key');
\endif

INSERT INTO http_endpoints (name, url, method, headers, body, timeout) VALUES
	('sms_messages', :'gateway' || '/messages', 'POST',
	 '{"Authorization": "Bearer {{secret.sms_gateway_key}}", "Idempotency-Key": "batch-{{payload.batch}}"}',
	 '{"messages": "{{payload.messages}}"}', '30 seconds'),
	('sms_status', :'gateway' || '/status', 'POST',
	 '{"Authorization": "Bearer {{secret.sms_gateway_key}}"}',
	 '{"gateway_ids": "{{payload.gateway_ids}}"}', '30 seconds'),
	('sms_reports', :'gateway' || '/reports?after={{payload.after}}', 'GET',
	 '{"Authorization": "Bearer {{secret.sms_gateway_key}}"}', NULL, '30 seconds')
ON CONFLICT DO NOTHING;

-- ---------------------------------------------------------------------------
-- The queues. What one leaves open comes from the settings: 5 attempts (B10), 3 s
-- between them (B11), a lease of 5 minutes (B19)
-- ---------------------------------------------------------------------------

-- Five requests at once (B1), 20 in any second (B12); what is too much stays
-- queued. A text message is not tried twice (B10).
INSERT INTO job_types (job_type, runner, endpoint, max_concurrency, rate_max, rate_window, max_attempts, description)
VALUES ('sms', 'http', 'sms_messages', 5, 20, '1000 ms', 1,
	'Hands one batch of messages to the gateway')
ON CONFLICT DO NOTHING;

-- Two at once, not tried twice, and gone when it is done (B2, B14).
INSERT INTO job_types (job_type, runner, command, mode, max_concurrency, max_attempts, keep_completed, description)
VALUES ('scheduler', 'sql', $$SELECT retail.start_campaign(($1->>'campaign')::bigint)$$, 'alone', 2, 1, '0',
	'Starts a campaign at its time')
ON CONFLICT DO NOTHING;

-- One at once (B3), kept for a while (B13).
INSERT INTO job_types (job_type, runner, command, mode, max_concurrency, keep_completed, keep_failed, description)
VALUES ('contact_import', 'sql', $$CALL retail.import_contacts(($1->>'import')::bigint)$$, 'autonomous', 1, '1 hour', '24 hours',
	'Makes contacts of the lines of a CSV file')
ON CONFLICT DO NOTHING;

INSERT INTO job_types (job_type, runner, command, mode, max_concurrency, description)
VALUES ('birthday', 'sql', $$SELECT retail.greet_birthdays(($1->>'day')::date)$$, 'alone', 1,
	'Sends the greetings of a day')
ON CONFLICT DO NOTHING;

INSERT INTO job_types (job_type, runner, endpoint, max_concurrency, keep_completed, description)
VALUES ('status_refresh', 'http', 'sms_status', 1, '0',
	'Asks the gateway what became of messages that it has been silent about')
ON CONFLICT DO NOTHING;

-- Three attempts, 5 s and 10 s apart, and the last hundred are kept (B7).
INSERT INTO job_types (job_type, runner, endpoint, max_concurrency, max_attempts, backoff, keep_completed_count, description)
VALUES ('delivery_status_poller', 'http', 'sms_reports', 1, 3, '{"strategy": "exponential", "delay": "5000 ms"}', 100,
	'Fetches the delivery reports since the last ones')
ON CONFLICT DO NOTHING;

-- The same (B9).
INSERT INTO job_types (job_type, runner, command, mode, max_concurrency, max_attempts, backoff, keep_completed_count, description)
VALUES ('watchdog', 'sql', 'SELECT retail.mend()', 'alone', 1, 3, '{"strategy": "exponential", "delay": "5000 ms"}', 100,
	'Finds campaigns that are stuck, batches that are missing and reservations that have expired')
ON CONFLICT DO NOTHING;

-- Takes the answers to all requests, many in one transaction.
INSERT INTO job_types (job_type, runner, command, keep_completed, description)
VALUES ('gateway_response', 'sql', 'SELECT retail.record_response($1)', '0',
	'Writes down what the gateway answered')
ON CONFLICT DO NOTHING;

-- ---------------------------------------------------------------------------
-- Calls and answers. A request is a job, and what it brought is written down by
-- another one that waits for it
-- ---------------------------------------------------------------------------

-- Enqueues a request, and the job that takes its answer, also that there is none.
CREATE OR REPLACE FUNCTION retail.call_gateway(queue text, request jsonb, key text) RETURNS bigint
	LANGUAGE plpgsql SET search_path = retail, public
AS $$
DECLARE
	call bigint := enqueue_job(queue, request, unique_key => key);
BEGIN
	PERFORM enqueue_job('gateway_response',
		jsonb_build_object('call', call, 'queue', queue, 'batch', request->'batch'),
		unique_key => 'call-' || call, depends_on => ARRAY[call], on_parent_failure => 'run');
	RETURN call;
END
$$;

-- What became of each message of a batch (B1): the gateway says it one by one.
-- Those of a request that failed are not sent again; see max_attempts.
CREATE OR REPLACE FUNCTION retail.record_batch(batch bigint, answer jsonb, reason text) RETURNS void
	LANGUAGE plpgsql SET search_path = retail, public
AS $$
BEGIN
	UPDATE messages m
	SET status = CASE WHEN r.status = 'accepted' THEN 'sent' ELSE 'failed' END,
		gateway_id = r.gateway_id, error = r.error, updated_at = now()
	FROM jsonb_to_recordset(coalesce(answer->'messages', '[]')) AS r (id bigint, status text, gateway_id text, error text)
	WHERE m.id = r.id AND m.batch_id = batch AND m.status = 'queued';

	UPDATE messages
	SET status = 'failed', updated_at = now(),
		error = coalesce(reason, CASE WHEN answer IS NULL THEN 'cancelled' ELSE 'the gateway did not mention it' END)
	WHERE batch_id = batch AND status = 'queued';

	PERFORM finish_campaign(c) FROM (SELECT DISTINCT campaign_id FROM messages WHERE batch_id = batch AND campaign_id IS NOT NULL) AS s (c);
END
$$;

-- Reports come late, twice and out of order: what is final stays.
CREATE OR REPLACE FUNCTION retail.record_statuses(reports jsonb) RETURNS void
	LANGUAGE sql SET search_path = retail, public
BEGIN ATOMIC
	UPDATE retail.messages m
	SET status = CASE WHEN r.status IN ('delivered', 'failed') THEN r.status ELSE m.status END,
		error = coalesce(r.error, m.error), updated_at = now()
	FROM jsonb_to_recordset(coalesce(reports, '[]')) AS r (gateway_id text, status text, error text)
	WHERE m.gateway_id = r.gateway_id AND m.status = 'sent';
END;

-- The job type gateway_response. What came back is in job_runs, whether the
-- request's own job is kept or not.
CREATE OR REPLACE FUNCTION retail.record_response(job jsonb) RETURNS void
	LANGUAGE plpgsql SET search_path = retail, public
AS $$
DECLARE
	call bigint := job->>'call';
	answer jsonb;
	reason text;
BEGIN
	SELECT r.result, r.error INTO answer, reason
	FROM job_runs r WHERE r.job_id = call ORDER BY r.claim_no DESC LIMIT 1;

	-- Somebody deleted the request before it was sent: one for the watchdog.
	IF NOT FOUND AND NOT EXISTS (SELECT FROM jobs_queue WHERE id = call AND status = 'cancelled') THEN
		RETURN;
	END IF;

	IF job->>'queue' = 'sms' THEN
		PERFORM record_batch((job->>'batch')::bigint, answer, reason);
	ELSE
		PERFORM record_statuses(answer->'messages');
		UPDATE settings SET report_cursor = (answer->>'next')::bigint
		WHERE report_cursor < (answer->>'next')::bigint;
	END IF;
END
$$;

-- ---------------------------------------------------------------------------
-- Campaigns: scheduler, sms
-- ---------------------------------------------------------------------------

-- Holds the credits and enqueues the start (B2), in the transaction of whoever
-- pressed the button. Another time later on moves the job that is there.
CREATE OR REPLACE FUNCTION retail.schedule_campaign(campaign bigint, at timestamptz) RETURNS bigint
	LANGUAGE plpgsql SET search_path = retail, public
AS $$
DECLARE
	shop bigint;
	needed integer;
BEGIN
	UPDATE campaigns SET status = 'scheduled', scheduled_at = at
	WHERE id = campaign AND status IN ('draft', 'scheduled')
	RETURNING shop_id INTO shop;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'campaign % is neither a draft nor scheduled', campaign;
	END IF;

	PERFORM release_credits(campaign);
	SELECT count(*) INTO needed FROM contacts WHERE shop_id = shop AND phone IS NOT NULL;
	UPDATE shops SET credits = credits - needed WHERE id = shop AND credits >= needed;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'campaign % needs % credits, and shop % has fewer', campaign, needed, shop;
	END IF;
	INSERT INTO reservations VALUES (campaign, needed, at + interval '1 day')
	ON CONFLICT (campaign_id) DO UPDATE
	SET credits = excluded.credits, expires_at = excluded.expires_at, released_at = NULL;

	RETURN enqueue_job('scheduler', jsonb_build_object('campaign', campaign), scheduled_at => at,
		unique_key => 'campaign-' || campaign, unique_mode => 'replace');
END
$$;

CREATE OR REPLACE FUNCTION retail.cancel_campaign(campaign bigint) RETURNS void
	LANGUAGE plpgsql SET search_path = retail, public
AS $$
BEGIN
	UPDATE campaigns SET status = 'cancelled' WHERE id = campaign AND status IN ('draft', 'scheduled');
	IF FOUND THEN
		PERFORM cancel_job(id, 'the campaign was cancelled') FROM jobs_queue
		WHERE job_type = 'scheduler' AND unique_key = 'campaign-' || campaign AND status = 'queued';
	END IF;
END
$$;

-- What has been sent is paid for; the rest of the credits goes back.
CREATE OR REPLACE FUNCTION retail.release_credits(campaign bigint) RETURNS void
	LANGUAGE plpgsql SET search_path = retail, public
AS $$
DECLARE
	unused integer;
BEGIN
	UPDATE reservations SET released_at = now()
	WHERE campaign_id = campaign AND released_at IS NULL
	RETURNING credits INTO unused;
	IF FOUND THEN
		UPDATE shops s
		SET credits = s.credits + unused -
			(SELECT count(*) FROM messages m WHERE m.campaign_id = campaign AND m.gateway_id IS NOT NULL)
		FROM campaigns c WHERE c.id = campaign AND s.id = c.shop_id;
	END IF;
END
$$;

-- The job type scheduler. A second run finds nothing to do (B21).
CREATE OR REPLACE FUNCTION retail.start_campaign(campaign bigint) RETURNS bigint
	LANGUAGE plpgsql SET search_path = retail, public
AS $$
DECLARE
	c campaigns;
	messages_per_batch integer := (SELECT batch_size FROM settings);
	recipients bigint[];
	part bigint[];
	started bigint := 0;
BEGIN
	UPDATE campaigns SET status = 'sending', sending_since = now()
	WHERE id = campaign AND status = 'scheduled' AND scheduled_at <= now()
	RETURNING * INTO c;
	IF NOT FOUND THEN
		RETURN 0;
	END IF;

	recipients := ARRAY(SELECT id FROM contacts WHERE shop_id = c.shop_id AND phone IS NOT NULL ORDER BY id
						LIMIT (SELECT credits FROM reservations WHERE campaign_id = campaign AND released_at IS NULL));
	FOR n IN 1 .. cardinality(recipients) BY messages_per_batch LOOP
		part := recipients[n : n + messages_per_batch - 1];
		PERFORM send(part, c.text, campaign => campaign);
		started := started + cardinality(part);
	END LOOP;
	PERFORM finish_campaign(campaign);
	RETURN started;
END
$$;

-- Makes one batch of messages and enqueues it; who has got the message is left
-- out.
CREATE OR REPLACE FUNCTION retail.send(recipients bigint[], text text, campaign bigint = NULL, birthday_on date = NULL) RETURNS void
	LANGUAGE plpgsql SET search_path = retail, public
AS $$
DECLARE
	batch bigint;
BEGIN
	INSERT INTO batches DEFAULT VALUES RETURNING id INTO batch;
	INSERT INTO messages (batch_id, contact_id, campaign_id, birthday_on, phone, text)
	SELECT batch, id, campaign, send.birthday_on, phone, replace(send.text, '{name}', coalesce(name, ''))
	FROM contacts WHERE id = ANY (recipients) AND phone IS NOT NULL
	ON CONFLICT DO NOTHING;
	PERFORM enqueue_batch(batch);
END
$$;

-- The messages of a batch that nobody has sent yet are one job (B1); while that
-- is live there is no other one for the batch.
CREATE OR REPLACE FUNCTION retail.enqueue_batch(batch bigint) RETURNS void
	LANGUAGE plpgsql SET search_path = retail, public
AS $$
DECLARE
	unsent jsonb;
BEGIN
	SELECT jsonb_agg(jsonb_build_object('id', id, 'to', phone, 'text', text) ORDER BY id) INTO unsent
	FROM messages WHERE batch_id = batch AND status = 'queued';
	IF unsent IS NOT NULL THEN
		PERFORM call_gateway('sms', jsonb_build_object('batch', batch, 'messages', unsent), 'batch-' || batch);
	END IF;
END
$$;

CREATE OR REPLACE FUNCTION retail.finish_campaign(campaign bigint) RETURNS void
	LANGUAGE plpgsql SET search_path = retail, public
AS $$
BEGIN
	-- Of two batches that end at the same time the second one must see the first.
	PERFORM FROM campaigns WHERE id = campaign FOR UPDATE;
	UPDATE campaigns SET status = 'sent'
	WHERE id = campaign AND status = 'sending'
		AND NOT EXISTS (SELECT FROM messages WHERE campaign_id = campaign AND status = 'queued');
	IF FOUND THEN
		PERFORM release_credits(campaign);
	END IF;
END
$$;

-- ---------------------------------------------------------------------------
-- Imports: contact_import
-- ---------------------------------------------------------------------------

-- A file with phone, name and birthday (2000-12-31 or nothing) in each line.
CREATE OR REPLACE FUNCTION retail.upload_contacts(shop bigint, csv text) RETURNS bigint
	LANGUAGE plpgsql SET search_path = retail, public
AS $$
DECLARE
	import bigint;
BEGIN
	INSERT INTO imports (shop_id, lines) VALUES (shop, 0) RETURNING id INTO import;
	INSERT INTO import_lines (import_id, line_no, line)
	SELECT import, row_number() OVER (ORDER BY n), line
	FROM regexp_split_to_table(csv, '\r?\n') WITH ORDINALITY AS l (line, n) WHERE line <> '';
	UPDATE imports
	SET lines = (SELECT count(*) FROM import_lines WHERE import_id = import),
		job_id = enqueue_job('contact_import', jsonb_build_object('import', import))
	WHERE id = import;
	RETURN import;
END
$$;

-- The fields of one line of CSV; a field in quotes may hold commas, and quotes
-- that are doubled.
CREATE OR REPLACE FUNCTION retail.csv_fields(line text) RETURNS text[]
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT ARRAY(SELECT CASE WHEN m[1] LIKE '"%' THEN replace(substr(m[1], 2, length(m[1]) - 2), '""', '"') ELSE trim(m[1]) END
				 FROM regexp_matches(line, '(?:^|,)("(?:[^"]|"")*"|[^,]*)', 'g') AS m);
END;

-- What is wrong with a contact; null: nothing.
CREATE OR REPLACE FUNCTION retail.contact_problem(field text[]) RETURNS text
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT CASE
		WHEN field[1] !~ '^\+[1-9][0-9]{6,14}$' THEN 'phone number is not international'
		WHEN coalesce(field[3], '') = '' THEN NULL
		WHEN field[3] !~ '^(19|20)[0-9]{2}-(0[1-9]|1[0-2])-[0-9]{2}$'
			OR to_char((left(field[3], 8) || '01')::date + right(field[3], 2)::integer - 1, 'YYYY-MM-DD') <> field[3]
			THEN 'birthday is no date'
	END;
END;

-- Imports the next lines and remembers how far it came, in one transaction, so
-- that whoever goes on repeats nothing (B21). False: none are left.
CREATE OR REPLACE FUNCTION retail.import_lines(import bigint, how_many integer = 500) RETURNS boolean
	LANGUAGE plpgsql SET search_path = retail, public
AS $$
DECLARE
	i imports;
	bad bigint;
BEGIN
	SELECT * INTO i FROM imports WHERE id = import FOR UPDATE;
	UPDATE import_lines SET error = contact_problem(csv_fields(line))
	WHERE import_id = import AND line_no > i.done AND line_no <= i.done + how_many;

	INSERT INTO contacts (shop_id, phone, name, birthday)
	SELECT DISTINCT ON (f[1]) i.shop_id, f[1], f[2], nullif(f[3], '')::date
	FROM import_lines, csv_fields(line) AS f
	WHERE import_id = import AND line_no > i.done AND line_no <= i.done + how_many AND error IS NULL
	ORDER BY f[1], line_no DESC
	ON CONFLICT (shop_id, phone) DO UPDATE
	SET name = excluded.name, birthday = coalesce(excluded.birthday, contacts.birthday), seen_at = now();

	SELECT count(*) INTO bad FROM import_lines
	WHERE import_id = import AND line_no > i.done AND line_no <= i.done + how_many AND error IS NOT NULL;
	UPDATE imports SET done = least(lines, done + how_many), rejected = rejected + bad WHERE id = import;
	RETURN i.done + how_many < i.lines;
END
$$;

-- The job type contact_import: commits after every part, and says how far it is
-- (B3). A procedure that commits cannot set a search_path, so names are whole.
CREATE OR REPLACE PROCEDURE retail.import_contacts(import bigint)
	LANGUAGE plpgsql
AS $$
DECLARE
	job record := public.current_job();
	goes_on boolean := true;
BEGIN
	WHILE goes_on LOOP
		goes_on := retail.import_lines(import);
		PERFORM public.heartbeat_job(job.job_id, job.worker_id, progress => jsonb_build_object('done', i.done, 'lines', i.lines))
		FROM retail.imports i WHERE i.id = import;
		COMMIT;
	END LOOP;
END
$$;

-- ---------------------------------------------------------------------------
-- Birthdays: birthday
-- ---------------------------------------------------------------------------

-- Those of 29 February are greeted on the 28th in a year that lacks it.
CREATE OR REPLACE FUNCTION retail.has_birthday(birthday date, day date) RETURNS boolean
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT to_char(birthday, 'MM-DD') = to_char(day, 'MM-DD')
		OR to_char(birthday, 'MM-DD') = '02-29' AND to_char(day, 'MM-DD') = '02-28' AND to_char(day + 1, 'MM-DD') = '03-01';
END;

CREATE OR REPLACE FUNCTION retail.greet_birthdays(day date) RETURNS bigint
	LANGUAGE sql SET search_path = retail, public
BEGIN ATOMIC
	SELECT count(*) FROM (
		SELECT retail.send(array_agg(c.id ORDER BY c.id), s.birthday_text, birthday_on => day)
		FROM retail.contacts c JOIN retail.shops s ON s.id = c.shop_id
		WHERE s.birthday_text IS NOT NULL AND c.phone IS NOT NULL AND retail.has_birthday(c.birthday, day)
			AND NOT EXISTS (SELECT FROM retail.messages m WHERE m.contact_id = c.id AND m.birthday_on = day)
		GROUP BY s.id) AS sent;
END;

-- ---------------------------------------------------------------------------
-- What became of the messages: status_refresh, delivery_status_poller
-- ---------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION retail.refresh_statuses() RETURNS bigint
	LANGUAGE plpgsql SET search_path = retail, public
AS $$
DECLARE
	silent jsonb;
BEGIN
	SELECT jsonb_agg(gateway_id) INTO silent
	FROM (SELECT gateway_id FROM messages
		  WHERE status = 'sent' AND updated_at < now() - (SELECT refresh_after FROM settings)
		  ORDER BY updated_at LIMIT 500) AS s;
	IF silent IS NULL THEN
		RETURN NULL;
	END IF;
	RETURN call_gateway('status_refresh', jsonb_build_object('gateway_ids', silent), 'status-refresh');
END
$$;

CREATE OR REPLACE FUNCTION retail.poll_delivery_status() RETURNS bigint
	LANGUAGE sql SET search_path = retail, public
BEGIN ATOMIC
	SELECT retail.call_gateway('delivery_status_poller', jsonb_build_object('after', report_cursor), 'delivery-status-poller')
	FROM retail.settings;
END;

-- ---------------------------------------------------------------------------
-- Personal data: no queue, only a schedule (B8)
-- ---------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION retail.forget_contacts() RETURNS bigint
	LANGUAGE plpgsql SET search_path = retail, public
AS $$
DECLARE
	forgotten bigint;
BEGIN
	WITH expired AS (
		UPDATE contacts SET phone = NULL, name = NULL, birthday = NULL, anonymized_at = now()
		WHERE anonymized_at IS NULL AND seen_at < now() - (SELECT pii_retention FROM settings)
		RETURNING id
	), messages AS (
		UPDATE messages m SET phone = NULL, text = '' FROM expired e
		WHERE m.contact_id = e.id AND m.status <> 'queued'
	), actions AS (
		INSERT INTO retention_actions (contact_id, action) SELECT id, 'anonymized' FROM expired RETURNING 1
	)
	SELECT count(*) INTO forgotten FROM actions;
	RETURN forgotten;
END
$$;

-- ---------------------------------------------------------------------------
-- What got stuck: watchdog (B9). A job whose worker has gone needs nobody: that
-- is what its lease is for (B19). This looks for what the application lost
-- ---------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION retail.mend() RETURNS jsonb
	LANGUAGE plpgsql SET search_path = retail, public
AS $$
DECLARE
	stuck_before timestamptz := now() - (SELECT stuck_sending FROM settings);
	missing bigint[];
	expired bigint[];
BEGIN
	-- Batches with messages that no job is going to send, or to write down.
	missing := ARRAY(
		SELECT b.id FROM batches b
		WHERE b.created_at < stuck_before
			AND EXISTS (SELECT FROM messages m WHERE m.batch_id = b.id AND m.status = 'queued')
			AND NOT EXISTS (SELECT FROM jobs_queue q
							WHERE q.job_type = 'gateway_response' AND q.payload->>'batch' = b.id::text
								AND q.status IN ('queued', 'running', 'blocked'))
		ORDER BY b.id);
	PERFORM enqueue_batch(b) FROM unnest(missing) AS b;

	-- Campaigns whose end went unnoticed.
	PERFORM finish_campaign(id) FROM campaigns WHERE status = 'sending' AND sending_since < stuck_before;

	-- Credits that nobody is going to use. What has not begun by then is a draft
	-- again, also if its job failed, for that is not tried twice.
	UPDATE campaigns c SET status = 'draft' FROM reservations r
	WHERE c.status = 'scheduled' AND r.campaign_id = c.id AND r.released_at IS NULL AND r.expires_at < now();
	expired := ARRAY(SELECT r.campaign_id FROM reservations r JOIN campaigns c ON c.id = r.campaign_id
					 WHERE r.released_at IS NULL AND r.expires_at < now() AND c.status <> 'sending'
					 ORDER BY r.campaign_id);
	PERFORM release_credits(c) FROM unnest(expired) AS c;

	RETURN jsonb_build_object('missing_batches', missing, 'expired_reservations', expired);
END
$$;

-- ---------------------------------------------------------------------------
-- The schedules. A run that finds the last one still at work is left out
-- ---------------------------------------------------------------------------

SELECT schedule_cron_task('birthday', '0 0 * * *', 'birthday', '{"day": "{{cron.date}}"}', timezone => :'birthday_zone',
	overlap => 'skip', description => 'Greets who has a birthday (B4)');
SELECT schedule_sql('status-refresh', 'every 10 minutes', 'SELECT retail.refresh_statuses()',
	overlap => 'skip', catch_up => 'none', description => 'STATUS_REFRESH_INTERVAL; pause_cron_task() is STATUS_REFRESH_ENABLED=0 (B6)');
SELECT schedule_sql('delivery-status-poller', 'every 1 minute', 'SELECT retail.poll_delivery_status()',
	overlap => 'skip', catch_up => 'none', description => 'Fetches delivery reports (B7, B20)');
SELECT schedule_sql('pii-retention', '30 3 * * *', 'SELECT retail.forget_contacts()',
	overlap => 'skip', description => 'Forgets contacts that nobody has heard of (B8)');
SELECT schedule_cron_task('watchdog', 'every 5 minutes', 'watchdog',
	overlap => 'skip', catch_up => 'none', description => 'Mends what is stuck (B9)');

RESET ROLE;
