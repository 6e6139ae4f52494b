/* sql/jobqueue--1.0.sql */

-- complain if the script is sourced in psql rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION jobqueue" to load this file. \quit

/*
 * Sections, in this order: tables (each with its indexes and comments),
 * internal functions, public functions, triggers, views, privileges, dump.
 * Inside a section the order is that of docs/reference.md.
 */

-- ---------------------------------------------------------------------------
-- Tables
-- ---------------------------------------------------------------------------

CREATE SEQUENCE jobs_queue_id_seq;

CREATE TABLE jobs_queue (
	id bigint NOT NULL DEFAULT nextval('@extschema@.jobs_queue_id_seq'),
	job_type text COLLATE "C" NOT NULL,
	stage text COLLATE "C" NOT NULL DEFAULT '',
	priority smallint NOT NULL DEFAULT 0,
	scheduled_at timestamptz NOT NULL DEFAULT now(),
	payload jsonb NOT NULL DEFAULT '{}',
	max_attempts smallint NOT NULL,
	crashes smallint NOT NULL DEFAULT 0,
	last_error text,
	correlation_id text,
	unique_key text COLLATE "C",
	group_key text COLLATE "C",
	timeout interval,
	backoff jsonb,
	waiting_for integer NOT NULL DEFAULT 0,
	cron_task_id bigint,
	cron_instant timestamptz,
	owner regrole,
	idempotency_key uuid NOT NULL DEFAULT gen_random_uuid(),
	result jsonb,
	progress jsonb,
	tags text[],
	metadata jsonb,
	created_at timestamptz NOT NULL DEFAULT now(),
	finished_at timestamptz,
	cancel_requested_at timestamptz,
	-- What a claim changes stands together at the end: its WAL record holds
	-- little else.
	status text COLLATE "C" NOT NULL DEFAULT 'queued',
	attempts smallint NOT NULL DEFAULT 0,
	claim_no integer NOT NULL DEFAULT 0,
	locked_by uuid,
	locked_at timestamptz,
	lease_expires_at timestamptz,
	holder bigint,
	updated_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT jobs_queue_status_check CHECK (status IN
		('queued', 'running', 'blocked', 'completed', 'failed', 'error', 'cancelled')),
	CONSTRAINT jobs_queue_attempts_check CHECK (attempts BETWEEN 0 AND max_attempts),
	CONSTRAINT jobs_queue_holder_check CHECK ((status = 'running') = (locked_by IS NOT NULL))
) PARTITION BY LIST (status);
ALTER SEQUENCE jobs_queue_id_seq OWNED BY jobs_queue.id;

-- No index or predicate of the live leaf may mention a column that a claim
-- changes (status, attempts, locked_*, lease_*, updated_at): a claim is then
-- a HOT update and leaves no dead index entry behind.
CREATE TABLE jobs_queue_live PARTITION OF jobs_queue
	(CONSTRAINT jobs_queue_live_pkey PRIMARY KEY (id))
	FOR VALUES IN ('queued', 'running', 'blocked')
	WITH (fillfactor = 45, vacuum_truncate = off,
		autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
		autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_threshold = 5000);
CREATE INDEX jobs_queue_live_ready ON jobs_queue_live
	(job_type, stage, priority, scheduled_at, id);
CREATE INDEX jobs_queue_live_owner ON jobs_queue_live
	(owner, stage, priority, scheduled_at, id) WHERE job_type = 'sql';
CREATE UNIQUE INDEX jobs_queue_live_unique_key ON jobs_queue_live
	(job_type, unique_key) WHERE unique_key IS NOT NULL;
CREATE INDEX jobs_queue_live_cron ON jobs_queue_live
	(cron_task_id) WHERE cron_task_id IS NOT NULL;
CREATE INDEX jobs_queue_live_group ON jobs_queue_live
	(job_type, group_key, priority, scheduled_at, id) WHERE group_key IS NOT NULL;

CREATE TABLE jobs_queue_done PARTITION OF jobs_queue
	(CONSTRAINT jobs_queue_done_pkey PRIMARY KEY (id))
	FOR VALUES IN ('completed', 'failed', 'error', 'cancelled');
CREATE INDEX jobs_queue_done_status ON jobs_queue_done (status, updated_at);
CREATE INDEX jobs_queue_done_finished ON jobs_queue_done (job_type, status, finished_at);

COMMENT ON TABLE jobs_queue IS 'Every job, in every status: one table to its users, two leaves to the storage';
COMMENT ON TABLE jobs_queue_live IS 'Leaf of jobs_queue: queued, running and blocked jobs';
COMMENT ON TABLE jobs_queue_done IS 'Leaf of jobs_queue: completed, failed, error (dead letter) and cancelled jobs';
COMMENT ON COLUMN jobs_queue.job_type IS 'What kind of work; settings come from job_types, or from jobqueue.* settings';
COMMENT ON COLUMN jobs_queue.stage IS 'Step of a longer flow that the next attempt resumes at';
COMMENT ON COLUMN jobs_queue.status IS 'queued, running, blocked, completed, failed, error (dead letter) or cancelled';
COMMENT ON COLUMN jobs_queue.priority IS 'Smaller runs first';
COMMENT ON COLUMN jobs_queue.scheduled_at IS 'Not claimed before this instant';
COMMENT ON COLUMN jobs_queue.attempts IS 'Charged claims since the last requeue';
COMMENT ON COLUMN jobs_queue.max_attempts IS 'How many attempts in all, the first included';
COMMENT ON COLUMN jobs_queue.claim_no IS 'Grows by one on every claim and never otherwise: the fencing token';
COMMENT ON COLUMN jobs_queue.crashes IS 'How often the server crashed while it ran this job';
COMMENT ON COLUMN jobs_queue.unique_key IS 'At most one live job of a job type has this key';
COMMENT ON COLUMN jobs_queue.locked_by IS 'The worker that holds a running job';
COMMENT ON COLUMN jobs_queue.lease_expires_at IS 'When a running job is taken from a silent worker';
COMMENT ON COLUMN jobs_queue.cancel_requested_at IS 'When the cancellation of a running job was asked for';
COMMENT ON COLUMN jobs_queue.holder IS 'Incarnation of the server whose own worker holds the job';
COMMENT ON COLUMN jobs_queue.timeout IS 'Longest run of one attempt in the server';
COMMENT ON COLUMN jobs_queue.backoff IS 'Retry delays of this job; NULL: those of the job type';
COMMENT ON COLUMN jobs_queue.waiting_for IS 'How many jobs a blocked job still waits for';
COMMENT ON COLUMN jobs_queue.owner IS 'Who enqueued the job; NULL once that role is gone';
COMMENT ON COLUMN jobs_queue.idempotency_key IS 'Stable over attempts and failovers';

CREATE TABLE job_runs (
	job_id bigint NOT NULL,
	claim_no integer NOT NULL,
	attempt smallint NOT NULL,
	job_type text COLLATE "C" NOT NULL,
	stage text COLLATE "C" NOT NULL,
	correlation_id text,
	worker_id uuid,
	status text COLLATE "C" NOT NULL,
	charged boolean NOT NULL,
	started_at timestamptz,
	finished_at timestamptz NOT NULL DEFAULT now(),
	error text,
	result jsonb,
	command_tag text COLLATE "C",
	response jsonb,
	CONSTRAINT job_runs_pkey PRIMARY KEY (job_id, claim_no),
	CONSTRAINT job_runs_status_check CHECK (status IN
		('completed', 'failed', 'expired', 'released', 'cancelled', 'crashed', 'skipped'))
);
COMMENT ON TABLE job_runs IS 'One row per ended claim of a job';
COMMENT ON COLUMN job_runs.attempt IS 'attempts of the job during this claim';
COMMENT ON COLUMN job_runs.status IS 'How the claim ended: completed, failed, expired, released, cancelled, crashed or skipped';
COMMENT ON COLUMN job_runs.charged IS 'Whether the claim counts against max_attempts';
COMMENT ON COLUMN job_runs.command_tag IS 'What the last statement of an SQL job did, as in INSERT 0 5';
COMMENT ON COLUMN job_runs.response IS 'Of an HTTP job: status, headers, body or body_base64, truncated, bytes, http_version, address, reused, redirects, and timings in ms';

CREATE SEQUENCE job_logs_id_seq;

CREATE TABLE job_logs (
	id bigint NOT NULL DEFAULT nextval('@extschema@.job_logs_id_seq'),
	job_id bigint NOT NULL,
	claim_no integer NOT NULL,
	logged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	level text COLLATE "C" NOT NULL DEFAULT 'info',
	message text NOT NULL,
	data jsonb,
	CONSTRAINT job_logs_pkey PRIMARY KEY (job_id, claim_no, id),
	CONSTRAINT job_logs_level_check CHECK (level IN ('debug', 'info', 'notice', 'warning', 'error'))
);
ALTER SEQUENCE job_logs_id_seq OWNED BY job_logs.id;
COMMENT ON TABLE job_logs IS 'What jobs said while they ran: job_log(), and NOTICEs of SQL jobs, up to jobqueue.max_log_lines per attempt';

CREATE TABLE http_endpoints (
	name text COLLATE "C" NOT NULL,
	owner regrole,
	url text NOT NULL,
	method text COLLATE "C" NOT NULL DEFAULT 'POST',
	headers jsonb NOT NULL DEFAULT '{}',
	body jsonb,
	body_type text COLLATE "C" NOT NULL DEFAULT 'json',
	batch_body jsonb,
	batch_results text,
	signing_secret text COLLATE "C",
	client_certificate text COLLATE "C",
	tls_ca text,
	http_version text COLLATE "C" NOT NULL DEFAULT 'auto',
	timeout interval,
	connect_timeout interval,
	low_speed_limit integer,
	low_speed_time interval,
	max_concurrency integer,
	max_response_size integer,
	max_redirects smallint NOT NULL DEFAULT 0,
	enabled boolean NOT NULL DEFAULT true,
	description text,
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT http_endpoints_pkey PRIMARY KEY (name)
);
COMMENT ON TABLE http_endpoints IS 'Where HTTP jobs go; secrets by name, never by value';
COMMENT ON COLUMN http_endpoints.owner IS 'Whose secrets it may use, and who may send jobs to it';
COMMENT ON COLUMN http_endpoints.url IS 'With {{payload.…}}, {{job.…}} and {{secret.…}} after the host, or one {{secret.…}} for all of it';
COMMENT ON COLUMN http_endpoints.headers IS 'Object of texts, with the same placeholders';
COMMENT ON COLUMN http_endpoints.body IS 'What is sent, with {{payload.…}} and {{job.…}} in its strings; NULL: the payload of the job';
COMMENT ON COLUMN http_endpoints.body_type IS 'json, form (an object), text (a string) or binary (a string in base64)';
COMMENT ON COLUMN http_endpoints.batch_body IS 'Around the bodies of several jobs, which take the place of "{{items}}"; NULL: the bare array';
COMMENT ON COLUMN http_endpoints.batch_results IS 'Member of the response that has an outcome per item; NULL: the response itself, if it is an array';
COMMENT ON COLUMN http_endpoints.signing_secret IS 'Name of the secret that signs requests, as of Standard Webhooks';
COMMENT ON COLUMN http_endpoints.client_certificate IS 'Name of the secret with a certificate and its key, in PEM';
COMMENT ON COLUMN http_endpoints.tls_ca IS 'Certificates, in PEM, that may sign the server''s; NULL: jobqueue.http_ca_file';
COMMENT ON COLUMN http_endpoints.http_version IS 'auto (2 where TLS offers it), 1.1 or 2';
COMMENT ON COLUMN http_endpoints.timeout IS 'Of a whole request; NULL: jobqueue.http_timeout';
COMMENT ON COLUMN http_endpoints.connect_timeout IS 'To resolve, connect and shake hands; NULL: jobqueue.http_connect_timeout';
COMMENT ON COLUMN http_endpoints.low_speed_limit IS 'Bytes per second; slower for low_speed_time ends the request';
COMMENT ON COLUMN http_endpoints.max_concurrency IS 'Requests at once; NULL: jobqueue.http_host_connections';
COMMENT ON COLUMN http_endpoints.max_response_size IS 'Bytes of a response that are kept; NULL: jobqueue.http_max_response_size';
COMMENT ON COLUMN http_endpoints.max_redirects IS 'How many redirects are followed; 0: a redirect is a failure';
COMMENT ON COLUMN http_endpoints.enabled IS 'While false its jobs wait';

-- Read by their owner alone: row security without a policy shows nothing to
-- whoever has been granted everything, members of pg_read_all_data included.
-- Values are stored in line, in parts that fit into a page, because a TOAST
-- table has no row security; and ANALYZE takes no samples of them. A
-- constraint that a row could violate would print it: there is none.
CREATE TABLE http_secrets (
	name text COLLATE "C" NOT NULL,
	owner regrole,
	previous_until timestamptz,
	file text,
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT http_secrets_pkey PRIMARY KEY (name)
);
ALTER TABLE http_secrets ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE http_secrets IS 'Secrets that endpoints name; see the view secret_names';
COMMENT ON COLUMN http_secrets.previous_until IS 'Until when the value before this one is valid, too';
COMMENT ON COLUMN http_secrets.file IS 'Where the server reads the value from; NULL: it is stored';

CREATE TABLE http_secret_values (
	name text COLLATE "C" NOT NULL,
	is_previous boolean NOT NULL,
	part smallint NOT NULL,
	value text COLLATE "C" NOT NULL,
	CONSTRAINT http_secret_values_pkey PRIMARY KEY (name, is_previous, part)
);
ALTER TABLE http_secret_values ENABLE ROW LEVEL SECURITY;
ALTER TABLE http_secret_values ALTER COLUMN value SET STORAGE PLAIN;
ALTER TABLE http_secret_values ALTER COLUMN value SET STATISTICS 0;
COMMENT ON TABLE http_secret_values IS 'The values of http_secrets, in parts';

CREATE TABLE job_types (
	job_type text COLLATE "C" NOT NULL,
	owner regrole,
	runner text COLLATE "C" NOT NULL DEFAULT 'external',
	command text,
	endpoint text COLLATE "C",
	enabled boolean NOT NULL DEFAULT true,
	paused_at timestamptz,
	pause_reason text,
	max_attempts smallint,
	backoff jsonb,
	lease interval,
	timeout interval,
	batch_size integer,
	max_linger interval,
	dead_letter boolean NOT NULL DEFAULT false,
	dead_letter_limit integer,
	error_rules jsonb,
	max_concurrency integer,
	rate_max integer,
	rate_window interval,
	rate_burst integer,
	throttled_until timestamptz,
	group_concurrency integer,
	group_rate_max integer,
	group_rate_window interval,
	group_strict boolean NOT NULL DEFAULT false,
	fair_groups boolean NOT NULL DEFAULT false,
	breaker_threshold integer,
	breaker_cooldown interval,
	breaker_distinct_jobs boolean NOT NULL DEFAULT false,
	keep_completed interval,
	keep_failed interval,
	keep_cancelled interval,
	keep_completed_count integer,
	keep_failed_count integer,
	keep_runs interval,
	event_prefix text COLLATE "C",
	event_messages jsonb,
	notify boolean NOT NULL DEFAULT false,
	mode text COLLATE "C" NOT NULL DEFAULT 'batched',
	description text,
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT job_types_pkey PRIMARY KEY (job_type),
	CONSTRAINT job_types_endpoint_fkey FOREIGN KEY (endpoint) REFERENCES http_endpoints (name),
	CONSTRAINT job_types_runner_check CHECK (runner IN ('external', 'sql', 'http')),
	CONSTRAINT job_types_mode_check CHECK (mode IN ('batched', 'alone', 'autonomous'))
);
COMMENT ON TABLE job_types IS 'Settings per job type; a job type without a row uses the jobqueue.* settings';
COMMENT ON COLUMN job_types.owner IS 'The role that the command runs as';
COMMENT ON COLUMN job_types.runner IS 'external: workers claim it; sql: the server runs command; http: the server calls endpoint';
COMMENT ON COLUMN job_types.command IS 'SQL statement of a sql job type; $1 is the payload, $2 the job id';
COMMENT ON COLUMN job_types.enabled IS 'While false nothing of this type is claimed or run; jobs can be enqueued';
COMMENT ON COLUMN job_types.paused_at IS 'Since when enabled is false';
COMMENT ON COLUMN job_types.pause_reason IS 'What pause_job_type() was told';
COMMENT ON COLUMN job_types.backoff IS 'Retry delays: {"strategy": "exponential", "delay": "1 second", "multiplier": 2, "max_delay": "1 minute", "jitter": 0.1}, a list ["1s", "10s", "5m"], or one delay; NULL: jobqueue.retry_delay';
COMMENT ON COLUMN job_types.error_rules IS 'What to do after certain failures, first match wins: [{"sqlstate": "23*", "then": "fail"}, {"http_status": 429, "then": "release", "delay": "1 minute"}]';
COMMENT ON COLUMN job_types.lease IS 'How long a worker may stay silent; NULL: jobqueue.lease';
COMMENT ON COLUMN job_types.timeout IS 'Longest run of one attempt in the server; NULL: no limit';
COMMENT ON COLUMN job_types.batch_size IS 'Default of max_jobs in claim_jobs(), NULL: jobqueue.batch_size; of runner http, how many jobs share a request, NULL: 1';
COMMENT ON COLUMN job_types.max_linger IS 'Runner http: how long a job waits for others to share its request; NULL: not at all';
COMMENT ON COLUMN job_types.dead_letter IS 'Jobs that used up their attempts end in status error, not failed';
COMMENT ON COLUMN job_types.dead_letter_limit IS 'With more dead letters than this job_health() fails; NULL: jobqueue.health_dead_letters';
COMMENT ON COLUMN job_types.max_concurrency IS 'How many jobs of this type may run at once, over all workers; NULL: no limit';
COMMENT ON COLUMN job_types.rate_max IS 'How many jobs of this type may begin in any rate_window; NULL: no limit';
COMMENT ON COLUMN job_types.rate_burst IS 'NULL: any rate_window holds at most rate_max; else they begin evenly spaced, but so many at once after a pause';
COMMENT ON COLUMN job_types.throttled_until IS 'Nothing of this type is claimed before this instant; see throttle_job_type()';
COMMENT ON COLUMN job_types.group_concurrency IS 'How many jobs with the same group_key may run at once; NULL: no limit';
COMMENT ON COLUMN job_types.group_rate_max IS 'How many jobs with the same group_key may begin in any group_rate_window; NULL: no limit';
COMMENT ON COLUMN job_types.group_strict IS 'A failed job that waits for its retry keeps its place among group_concurrency';
COMMENT ON COLUMN job_types.fair_groups IS 'Groups take turns, however many jobs each has';
COMMENT ON COLUMN job_types.breaker_threshold IS 'So many failed attempts of a stage in a row open its circuit; NULL: never';
COMMENT ON COLUMN job_types.breaker_cooldown IS 'How long a circuit stays open before one job is let through; NULL: jobqueue.breaker_cooldown';
COMMENT ON COLUMN job_types.breaker_distinct_jobs IS 'Failures of the same job count once';
COMMENT ON COLUMN job_types.notify IS 'Whether the scheduler sends a NOTIFY on channel jobqueue, with the job type, when jobs begin to wait for a worker';
COMMENT ON COLUMN job_types.mode IS 'How the command runs: batched, with other jobs in one transaction; alone, in one of its own; autonomous, for commands that manage transactions';
COMMENT ON COLUMN job_types.keep_completed IS 'How long completed jobs are kept; zero: not at all; NULL: jobqueue.keep_completed';
COMMENT ON COLUMN job_types.keep_failed IS 'How long failed jobs are kept; NULL: jobqueue.keep_failed; dead letters (error) are kept until somebody deletes or redrives them';
COMMENT ON COLUMN job_types.keep_cancelled IS 'How long cancelled jobs are kept; NULL: jobqueue.keep_cancelled';
COMMENT ON COLUMN job_types.keep_completed_count IS 'Of the completed jobs only so many, the newest, are kept; NULL: no limit';
COMMENT ON COLUMN job_types.keep_failed_count IS 'The same of the failed ones';
COMMENT ON COLUMN job_types.keep_runs IS 'How long the rows of job_runs and job_logs are kept; NULL: jobqueue.keep_runs';
COMMENT ON COLUMN job_types.event_prefix IS 'What the names of its events in the server log begin with; NULL: jobqueue.event_prefix';
COMMENT ON COLUMN job_types.event_messages IS 'Texts that events have in the server log: {"start": "Starting sale discovery cycle", "completed": "Sale discovery cycle completed"}';

CREATE SEQUENCE cron_tasks_id_seq;

CREATE TABLE cron_tasks (
	id bigint NOT NULL DEFAULT nextval('@extschema@.cron_tasks_id_seq'),
	name text COLLATE "C" NOT NULL,
	owner regrole,
	schedule text NOT NULL,
	timezone text NOT NULL DEFAULT 'UTC',
	job_type text COLLATE "C" NOT NULL,
	payload jsonb NOT NULL DEFAULT '{}',
	stage text COLLATE "C" NOT NULL DEFAULT '',
	priority smallint NOT NULL DEFAULT 0,
	max_attempts smallint,
	unique_key text COLLATE "C",
	enabled boolean NOT NULL DEFAULT true,
	catch_up text COLLATE "C" NOT NULL DEFAULT 'latest',
	catch_up_limit integer NOT NULL DEFAULT 100,
	start_deadline interval,
	overlap text COLLATE "C" NOT NULL DEFAULT 'allow',
	jitter interval,
	run_on_start boolean NOT NULL DEFAULT false,
	starts_at timestamptz,
	ends_at timestamptz,
	max_runs bigint,
	description text,
	next_run_at timestamptz,
	planned_at timestamptz,
	decided_until timestamptz,
	start_seen_at timestamptz NOT NULL DEFAULT pg_postmaster_start_time(),
	last_instant timestamptz,
	last_enqueued_at timestamptz,
	last_job_id bigint,
	run_count bigint NOT NULL DEFAULT 0,
	missed_count bigint NOT NULL DEFAULT 0,
	skipped_count bigint NOT NULL DEFAULT 0,
	disabled_reason text,
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT cron_tasks_pkey PRIMARY KEY (id),
	CONSTRAINT cron_tasks_name_key UNIQUE (name)
) WITH (fillfactor = 80);
ALTER SEQUENCE cron_tasks_id_seq OWNED BY cron_tasks.id;
CREATE INDEX cron_tasks_due ON cron_tasks (next_run_at, id) WHERE enabled;
CREATE INDEX cron_tasks_on_start ON cron_tasks (start_seen_at) WHERE enabled AND run_on_start;
COMMENT ON TABLE cron_tasks IS 'Recurring jobs; plain INSERT, UPDATE and DELETE are honoured at once';
COMMENT ON COLUMN cron_tasks.schedule IS 'Cron expression or interval, as in "*/5 * * * *" or "every 30 seconds"';
COMMENT ON COLUMN cron_tasks.timezone IS 'IANA name of the zone that the schedule is read in';
COMMENT ON COLUMN cron_tasks.payload IS 'Of each job; {{cron.instant}} and the like in its strings stand for the run';
COMMENT ON COLUMN cron_tasks.unique_key IS 'Of each job, with the same placeholders; a live job of that key skips the run';
COMMENT ON COLUMN cron_tasks.catch_up IS 'Instants that passed unseen: none, latest (one job for all of them) or all';
COMMENT ON COLUMN cron_tasks.catch_up_limit IS 'With catch_up all: at most so many, the newest; 1 to 1000';
COMMENT ON COLUMN cron_tasks.start_deadline IS 'An instant that is later than this is missed; NULL: never, or after a minute with catch_up none';
COMMENT ON COLUMN cron_tasks.overlap IS 'While a job of the task is queued, running or blocked: allow another, skip the run, or replace the job';
COMMENT ON COLUMN cron_tasks.jitter IS 'Each job is scheduled up to so much after its instant; always the same for the same instant';
COMMENT ON COLUMN cron_tasks.run_on_start IS 'One more run whenever the server has started';
COMMENT ON COLUMN cron_tasks.starts_at IS 'No instants before; intervals count from it';
COMMENT ON COLUMN cron_tasks.ends_at IS 'No instants after';
COMMENT ON COLUMN cron_tasks.max_runs IS 'After so many runs the task is disabled';
COMMENT ON COLUMN cron_tasks.next_run_at IS 'The next planned instant; computed, or set by hand for once; NULL: none';
COMMENT ON COLUMN cron_tasks.planned_at IS 'When next_run_at was computed; NULL: it was set by hand';
COMMENT ON COLUMN cron_tasks.decided_until IS 'The newest instant that was enqueued, skipped or missed';
COMMENT ON COLUMN cron_tasks.start_seen_at IS 'The start of the server that run_on_start has served';
COMMENT ON COLUMN cron_tasks.last_instant IS 'The instant of the newest job';
COMMENT ON COLUMN cron_tasks.last_enqueued_at IS 'When a job of this task was last enqueued';
COMMENT ON COLUMN cron_tasks.last_job_id IS 'The job that was enqueued last';
COMMENT ON COLUMN cron_tasks.run_count IS 'Runs by schedule and by start of the server';
COMMENT ON COLUMN cron_tasks.missed_count IS 'Instants that passed without a job, by catch_up and start_deadline';
COMMENT ON COLUMN cron_tasks.skipped_count IS 'Runs that overlap or unique_key left out';
COMMENT ON COLUMN cron_tasks.disabled_reason IS 'Why the task is disabled: by the scheduler, or as pause_cron_task() was told';

-- What makes an instant happen once. No foreign key: TRUNCATE cron_tasks works.
CREATE TABLE cron_runs (
	task_id bigint NOT NULL,
	instant timestamptz NOT NULL,
	kind text COLLATE "C" NOT NULL,
	job_id bigint,
	skip_reason text,
	decided_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT cron_runs_pkey PRIMARY KEY (task_id, instant),
	CONSTRAINT cron_runs_kind_check CHECK (kind IN ('schedule', 'start', 'manual'))
);
CREATE INDEX cron_runs_instant ON cron_runs (instant);
COMMENT ON TABLE cron_runs IS 'Which instant of which cron task became which job; kept for jobqueue.keep_cron_runs';
COMMENT ON COLUMN cron_runs.instant IS 'Of the schedule; the start of the server; or when run_cron_task() was called, or was told';
COMMENT ON COLUMN cron_runs.kind IS 'schedule, start (run_on_start) or manual (run_cron_task)';
COMMENT ON COLUMN cron_runs.job_id IS 'NULL: the run was skipped';
COMMENT ON COLUMN cron_runs.skip_reason IS 'Why there is no job';

CREATE SEQUENCE event_subscriptions_id_seq;

CREATE TABLE event_subscriptions (
	id bigint NOT NULL DEFAULT nextval('@extschema@.event_subscriptions_id_seq'),
	event_type text COLLATE "C" NOT NULL,
	job_type text COLLATE "C" NOT NULL,
	owner regrole,
	enabled boolean NOT NULL DEFAULT true,
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT event_subscriptions_pkey PRIMARY KEY (id),
	CONSTRAINT event_subscriptions_key UNIQUE (event_type, job_type)
);
ALTER SEQUENCE event_subscriptions_id_seq OWNED BY event_subscriptions.id;
COMMENT ON TABLE event_subscriptions IS 'Event type, exact or "a.b.*", to the job type that its events become';
COMMENT ON COLUMN event_subscriptions.event_type IS 'As in "order.paid"; "order.*" for every type below it; "*" for all';
COMMENT ON COLUMN event_subscriptions.owner IS 'Whose jobs they will be; NULL: there will be none';

CREATE SEQUENCE published_events_id_seq;

CREATE TABLE published_events (
	id bigint NOT NULL DEFAULT nextval('@extschema@.published_events_id_seq'),
	event_type text COLLATE "C" NOT NULL,
	event_key text COLLATE "C",
	tenant_id text,
	payload jsonb,
	job_types text[] COLLATE "C" NOT NULL DEFAULT '{}',
	published_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT published_events_pkey PRIMARY KEY (id)
);
ALTER SEQUENCE published_events_id_seq OWNED BY published_events.id;
CREATE UNIQUE INDEX published_events_key ON published_events (event_key) WHERE event_key IS NOT NULL;
CREATE INDEX published_events_published_at ON published_events (published_at);
COMMENT ON TABLE published_events IS 'Events, while jobqueue.keep_events is set, for subscriptions to come';
COMMENT ON COLUMN published_events.job_types IS 'Of which job types there is, or was, a job of this event';

CREATE TABLE job_keys (
	job_type text COLLATE "C" NOT NULL,
	unique_key text COLLATE "C" NOT NULL,
	job_id bigint NOT NULL,
	expires_at timestamptz,
	CONSTRAINT job_keys_pkey PRIMARY KEY (job_type, unique_key)
);
CREATE INDEX job_keys_job_id ON job_keys (job_id);
CREATE INDEX job_keys_expires_at ON job_keys (expires_at) WHERE expires_at IS NOT NULL;
COMMENT ON TABLE job_keys IS 'Unique keys that are taken for longer than a job is live';
COMMENT ON COLUMN job_keys.job_id IS 'The job that has the key, or had it';
COMMENT ON COLUMN job_keys.expires_at IS 'Until when it is taken; NULL: as long as the job or one of its runs is kept';

CREATE TABLE job_dependencies (
	job_id bigint NOT NULL,
	depends_on bigint NOT NULL,
	on_failure text COLLATE "C" NOT NULL DEFAULT 'block',
	shares_result boolean NOT NULL DEFAULT false,
	status text COLLATE "C",
	ended_at timestamptz,
	job_type text COLLATE "C",
	result jsonb,
	CONSTRAINT job_dependencies_pkey PRIMARY KEY (job_id, depends_on),
	CONSTRAINT job_dependencies_other_check CHECK (job_id <> depends_on),
	CONSTRAINT job_dependencies_on_failure_check CHECK (on_failure IN ('block', 'cancel', 'run')),
	CONSTRAINT job_dependencies_status_check CHECK (status IN ('completed', 'failed', 'error', 'cancelled'))
) WITH (fillfactor = 60);
CREATE INDEX job_dependencies_depends_on ON job_dependencies (depends_on);
COMMENT ON TABLE job_dependencies IS 'Which jobs a job waits for, or has waited for, as long as it is there';
COMMENT ON COLUMN job_dependencies.on_failure IS 'What an end of depends_on without success does to the blocked job: block, cancel or run';
COMMENT ON COLUMN job_dependencies.shares_result IS 'Whether the owner of the job had the rights of the owner of depends_on';
COMMENT ON COLUMN job_dependencies.status IS 'How depends_on has ended; NULL: it is waited for';
COMMENT ON COLUMN job_dependencies.job_type IS 'Of depends_on, once it has ended';
COMMENT ON COLUMN job_dependencies.result IS 'Of depends_on, once it has completed';

CREATE TABLE rate_log (
	job_type text COLLATE "C" NOT NULL,
	group_key text COLLATE "C",
	claimed_at timestamptz NOT NULL,
	job_id bigint NOT NULL,
	claim_no integer NOT NULL,
	CONSTRAINT rate_log_pkey PRIMARY KEY (job_type, claimed_at, job_id, claim_no)
);
COMMENT ON TABLE rate_log IS 'When jobs of types with a rate were claimed, as long as that counts: rates of ten seconds and more outlive the server''s memory';

CREATE TABLE registered_workers (
	worker_id uuid NOT NULL,
	name text,
	info jsonb,
	registered_by regrole,
	registered_at timestamptz NOT NULL DEFAULT now(),
	last_seen_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT registered_workers_pkey PRIMARY KEY (worker_id)
);
COMMENT ON TABLE registered_workers IS 'Names that outside workers gave themselves';
COMMENT ON COLUMN registered_workers.last_seen_at IS 'When the worker last registered or called heartbeat_worker()';

CREATE TABLE worker_stops (
	worker_id uuid NOT NULL,
	reason text,
	requested_by regrole,
	requested_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT worker_stops_pkey PRIMARY KEY (worker_id)
);
COMMENT ON TABLE worker_stops IS 'Outside workers that were asked to stop: they claim nothing until they register again';

CREATE TABLE database_identity (
	is_only boolean NOT NULL DEFAULT true,
	system_identifier bigint NOT NULL,
	database oid NOT NULL,
	activated_at timestamptz NOT NULL DEFAULT now(),
	activated_by regrole,
	paused_at timestamptz,
	paused_by regrole,
	pause_reason text,
	CONSTRAINT database_identity_pkey PRIMARY KEY (is_only),
	CONSTRAINT database_identity_only_check CHECK (is_only)
);
COMMENT ON TABLE database_identity IS 'One row: which database these jobs belong to, and whether its workers are paused; a copy of it runs nothing until activate_jobs()';
COMMENT ON COLUMN database_identity.system_identifier IS 'As in pg_control_system(); 0: a restore made this database';
COMMENT ON COLUMN database_identity.database IS 'As in pg_database.oid';

-- pg_restore, and the scripts of pg_dump, switch row_security off before they
-- create extensions.  What they restore is quiet from the start: the row of
-- the original, if it had one, may come after its cron tasks.
INSERT INTO database_identity (system_identifier, database)
	SELECT 0, 0 WHERE pg_catalog.current_setting('row_security') OPERATOR(pg_catalog.=) 'off';

-- One row for each circuit that is not closed; without shared memory also
-- for closed ones that count failures.
CREATE TABLE job_circuits (
	job_type text COLLATE "C" NOT NULL,
	stage text COLLATE "C" NOT NULL DEFAULT '',
	state text COLLATE "C" NOT NULL DEFAULT 'open',
	forced boolean NOT NULL DEFAULT false,
	opened_at timestamptz,
	retry_at timestamptz,
	failures integer NOT NULL DEFAULT 0,
	failed_jobs bigint[] NOT NULL DEFAULT '{}',
	reason text,
	last_error text,
	probe_job_id bigint,
	probe_claim_no integer,
	opened_by regrole,
	CONSTRAINT job_circuits_pkey PRIMARY KEY (job_type, stage),
	CONSTRAINT job_circuits_state_check CHECK (state IN ('open', 'half_open', 'closed'))
);
COMMENT ON TABLE job_circuits IS 'Stages of job types that are left alone because their attempts fail, or because somebody wants it';
COMMENT ON COLUMN job_circuits.state IS 'open: nothing is claimed before retry_at; half_open: one job at a time is let through; closed: failures are counted, where there is no shared memory for that';
COMMENT ON COLUMN job_circuits.forced IS 'By open_circuit(), or by hand';
COMMENT ON COLUMN job_circuits.retry_at IS 'When one job is let through; NULL while open: not before close_circuit()';
COMMENT ON COLUMN job_circuits.failures IS 'Failed attempts in a row, or jobs that failed so with breaker_distinct_jobs';
COMMENT ON COLUMN job_circuits.failed_jobs IS 'The last of the jobs that failed';
COMMENT ON COLUMN job_circuits.probe_job_id IS 'The job that was let through; probe_claim_no is its claim';

CREATE SEQUENCE queue_events_id_seq;

CREATE TABLE queue_events (
	id bigint NOT NULL DEFAULT nextval('@extschema@.queue_events_id_seq'),
	happened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	event text COLLATE "C" NOT NULL,
	job_type text COLLATE "C",
	stage text COLLATE "C",
	job_id bigint,
	data jsonb,
	CONSTRAINT queue_events_pkey PRIMARY KEY (id)
);
ALTER SEQUENCE queue_events_id_seq OWNED BY queue_events.id;
CREATE INDEX queue_events_happened_at ON queue_events (happened_at);
COMMENT ON TABLE queue_events IS 'What the queue did by itself or was told to do: a row for each circuit that opens or closes';

CREATE TABLE job_history (
	resolution text COLLATE "C" NOT NULL,
	at timestamptz NOT NULL,
	job_type text COLLATE "C" NOT NULL,
	enqueued bigint NOT NULL,
	started bigint NOT NULL,
	succeeded bigint NOT NULL,
	failed bigint NOT NULL,
	dead bigint NOT NULL,
	queued bigint NOT NULL,
	ready bigint NOT NULL,
	scheduled bigint NOT NULL,
	running bigint NOT NULL,
	dead_letters bigint NOT NULL,
	wait_p50_ms real,
	wait_p95_ms real,
	run_p50_ms real,
	run_p95_ms real,
	total_p95_ms real,
	CONSTRAINT job_history_pkey PRIMARY KEY (resolution, at, job_type),
	CONSTRAINT job_history_resolution_check CHECK (resolution IN ('10s', '1m', '1h'))
);
COMMENT ON TABLE job_history IS 'What happened to jobs of a type in an interval, and how it ended; intervals in which nothing changed have no row';
COMMENT ON COLUMN job_history.resolution IS 'Length of the interval: 10s (kept two hours), 1m (two days) or 1h (jobqueue.keep_history)';
COMMENT ON COLUMN job_history.at IS 'When the interval began';
COMMENT ON COLUMN job_history.failed IS 'Attempts that failed; dead: jobs that have failed for good';
COMMENT ON COLUMN job_history.queued IS 'At the end of the interval, as the next four columns; ready and scheduled make queued';
COMMENT ON COLUMN job_history.wait_p50_ms IS 'Half of the claims came sooner after their job could be claimed; NULL: there were none';
COMMENT ON COLUMN job_history.total_p95_ms IS 'From when jobs were due first to their completion';

CREATE SEQUENCE monitor_actions_id_seq;

CREATE TABLE monitor_actions (
	id bigint NOT NULL DEFAULT nextval('@extschema@.monitor_actions_id_seq'),
	happened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	role text NOT NULL DEFAULT current_user,
	client text,
	action text COLLATE "C" NOT NULL,
	arguments jsonb NOT NULL DEFAULT '{}',
	outcome text COLLATE "C" NOT NULL,
	result jsonb,
	error text,
	CONSTRAINT monitor_actions_pkey PRIMARY KEY (id),
	CONSTRAINT monitor_actions_outcome_check CHECK (outcome IN ('done', 'failed'))
);
ALTER SEQUENCE monitor_actions_id_seq OWNED BY monitor_actions.id;
CREATE INDEX monitor_actions_happened_at ON monitor_actions (happened_at);
COMMENT ON TABLE monitor_actions IS 'What was done, or tried, on the dashboard; kept for jobqueue.keep_monitor_actions';
COMMENT ON COLUMN monitor_actions.role IS 'As whom: the role of the monitor';
COMMENT ON COLUMN monitor_actions.client IS 'From which address';
COMMENT ON COLUMN monitor_actions.arguments IS 'What it was about, without payloads; of long lists the beginning';
COMMENT ON COLUMN monitor_actions.outcome IS 'done or failed';
COMMENT ON COLUMN monitor_actions.result IS 'How many were changed, were not, and failed';

-- ---------------------------------------------------------------------------
-- Alerts: tables
-- ---------------------------------------------------------------------------

CREATE TABLE alert_sinks (
	name text COLLATE "C" NOT NULL,
	owner regrole,
	kind text COLLATE "C" NOT NULL,
	endpoint text COLLATE "C",
	channel text,
	min_severity text COLLATE "C" NOT NULL DEFAULT 'info',
	send_resolved boolean NOT NULL DEFAULT true,
	include_errors boolean NOT NULL DEFAULT false,
	enabled boolean NOT NULL DEFAULT true,
	description text,
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT alert_sinks_pkey PRIMARY KEY (name),
	CONSTRAINT alert_sinks_endpoint_fkey FOREIGN KEY (endpoint) REFERENCES http_endpoints (name),
	CONSTRAINT alert_sinks_kind_check CHECK (kind IN ('slack', 'webhook', 'notify', 'log')),
	CONSTRAINT alert_sinks_min_severity_check CHECK (min_severity IN ('info', 'warning', 'critical'))
);
COMMENT ON TABLE alert_sinks IS 'Where alerts are sent';
COMMENT ON COLUMN alert_sinks.owner IS 'Whose HTTP jobs the messages are';
COMMENT ON COLUMN alert_sinks.kind IS 'slack and webhook: a request to endpoint; notify: NOTIFY on channel; log: the log of the server';
COMMENT ON COLUMN alert_sinks.channel IS 'Of Slack, or of NOTIFY';
COMMENT ON COLUMN alert_sinks.min_severity IS 'What is less severe is not sent here';
COMMENT ON COLUMN alert_sinks.send_resolved IS 'Whether it is told when an alert is over';
COMMENT ON COLUMN alert_sinks.include_errors IS 'Whether messages quote the last error of a job; payloads are never sent';

CREATE TABLE alert_rules (
	name text COLLATE "C" NOT NULL,
	owner regrole,
	kind text COLLATE "C" NOT NULL,
	job_type text COLLATE "C",
	stage text COLLATE "C",
	subject text COLLATE "C",
	error_like text,
	sqlstate text COLLATE "C",
	threshold numeric NOT NULL DEFAULT 0,
	min_attempts integer NOT NULL DEFAULT 10,
	period interval,
	severity text COLLATE "C" NOT NULL DEFAULT 'warning',
	sinks text[] COLLATE "C" NOT NULL DEFAULT '{}',
	renotify interval DEFAULT '1 hour',
	resolve_after interval NOT NULL DEFAULT '1 minute',
	enabled boolean NOT NULL DEFAULT true,
	runbook text,
	description text,
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT alert_rules_pkey PRIMARY KEY (name),
	CONSTRAINT alert_rules_kind_check CHECK (kind IN ('consecutive_failures', 'failures', 'failure_rate', 'dead_letters', 'circuit_open',
		'failed_older_than', 'backlog_age', 'no_consumer', 'cron_late', 'endpoint_down', 'worker_error')),
	CONSTRAINT alert_rules_severity_check CHECK (severity IN ('info', 'warning', 'critical'))
);
COMMENT ON TABLE alert_rules IS 'When somebody is to be told of what';
COMMENT ON COLUMN alert_rules.kind IS 'consecutive_failures, failures, failure_rate, dead_letters, circuit_open, failed_older_than, backlog_age, no_consumer, cron_late, endpoint_down or worker_error';
COMMENT ON COLUMN alert_rules.job_type IS 'NULL: each job type for itself';
COMMENT ON COLUMN alert_rules.stage IS 'NULL: all stages of the job type together';
COMMENT ON COLUMN alert_rules.subject IS 'The cron task, endpoint or kind of worker; NULL: each for itself';
COMMENT ON COLUMN alert_rules.error_like IS 'Only failures whose error is LIKE this';
COMMENT ON COLUMN alert_rules.sqlstate IS 'Only failures with this SQLSTATE, or one that begins so, as 23*';
COMMENT ON COLUMN alert_rules.threshold IS 'consecutive_failures and endpoint_down: from so many on; otherwise more than so many';
COMMENT ON COLUMN alert_rules.min_attempts IS 'failure_rate: a job type with fewer attempts in the period is left out';
COMMENT ON COLUMN alert_rules.period IS 'Within which failures count, or for how long something may wait or be late';
COMMENT ON COLUMN alert_rules.sinks IS 'Names of alert_sinks; none: a row of alerts is all';
COMMENT ON COLUMN alert_rules.renotify IS 'How often an alert that lasts is sent again; NULL: never';
COMMENT ON COLUMN alert_rules.resolve_after IS 'How long the reason must be gone before the alert is over';
COMMENT ON COLUMN alert_rules.runbook IS 'A URL for the messages; NULL: the section of docs/operations.md';

CREATE SEQUENCE alerts_id_seq;

CREATE TABLE alerts (
	id bigint NOT NULL DEFAULT nextval('@extschema@.alerts_id_seq'),
	rule text COLLATE "C" NOT NULL,
	kind text COLLATE "C" NOT NULL,
	job_type text COLLATE "C" NOT NULL DEFAULT '',
	stage text COLLATE "C" NOT NULL DEFAULT '',
	subject text COLLATE "C" NOT NULL DEFAULT '',
	severity text COLLATE "C" NOT NULL,
	value numeric NOT NULL,
	threshold numeric NOT NULL,
	period interval,
	sinks text[] COLLATE "C" NOT NULL,
	summary text NOT NULL,
	started_at timestamptz NOT NULL,
	notified_at timestamptz NOT NULL,
	notifications integer NOT NULL DEFAULT 1,
	quiet_since timestamptz,
	muted_until timestamptz,
	resolved_at timestamptz,
	resolve_reason text,
	CONSTRAINT alerts_pkey PRIMARY KEY (id)
);
ALTER SEQUENCE alerts_id_seq OWNED BY alerts.id;
CREATE UNIQUE INDEX alerts_open ON alerts (rule, job_type, stage, subject) WHERE resolved_at IS NULL;
CREATE INDEX alerts_resolved_at ON alerts (resolved_at) WHERE resolved_at IS NOT NULL;
COMMENT ON TABLE alerts IS 'Alerts that hold, and those that are over, kept for jobqueue.keep_queue_events';
COMMENT ON COLUMN alerts.value IS 'When it was last sent';
COMMENT ON COLUMN alerts.quiet_since IS 'Since when its reason is gone; it is over when that has lasted';
COMMENT ON COLUMN alerts.muted_until IS 'Set by hand: it is not sent again before';
COMMENT ON COLUMN alerts.resolved_at IS 'NULL: it holds';
COMMENT ON COLUMN alerts.resolve_reason IS 'Where its end is not that of its reason';

-- ---------------------------------------------------------------------------
-- Internal functions
-- ---------------------------------------------------------------------------

CREATE FUNCTION _guard_job() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_guard_job';
CREATE FUNCTION _hint_job() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_hint_job';
CREATE FUNCTION _release_dependents() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_release_dependents';
CREATE FUNCTION _cancel_dependents() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_cancel_dependents';
-- Ids may start over after a TRUNCATE: what the old ones left must not stop
-- the new ones.
CREATE FUNCTION _forget_truncated() RETURNS trigger
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	is_empty boolean;
	rel text;
BEGIN
	EXECUTE format('SELECT NOT EXISTS (SELECT FROM %I.jobs_queue)', TG_TABLE_SCHEMA) INTO is_empty;
	IF NOT is_empty THEN
		RETURN NULL;
	END IF;
	FOREACH rel IN ARRAY '{job_runs,job_logs,job_dependencies,job_keys}'::text[]
	LOOP
		BEGIN
			EXECUTE format('TRUNCATE %I.%I', TG_TABLE_SCHEMA, rel);
		EXCEPTION WHEN object_in_use THEN
			-- Named in the same TRUNCATE, and empty by now; or read by a cursor.
			EXECUTE format('DELETE FROM %I.%I', TG_TABLE_SCHEMA, rel);
		END;
	END LOOP;
	RETURN NULL;
END
$$;
CREATE FUNCTION _guard_job_type() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_guard_job_type';
CREATE FUNCTION _job_types_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_job_types_changed';
CREATE FUNCTION _activity_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_activity_changed';
-- The row of a restore, or of replication, takes the place of the one there.
CREATE FUNCTION _replace_identity() RETURNS trigger
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	EXECUTE format('LOCK TABLE %I.database_identity IN SHARE ROW EXCLUSIVE MODE', TG_TABLE_SCHEMA);
	EXECUTE format('DELETE FROM %I.database_identity', TG_TABLE_SCHEMA);
	RETURN NEW;
END
$$;
CREATE FUNCTION _queue_status(
		OUT is_active boolean, OUT reason text, OUT paused_at timestamptz, OUT paused_by regrole,
		OUT pause_reason text, OUT has_scheduler boolean)
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_queue_status';
COMMENT ON FUNCTION _queue_status() IS 'Whether the server works on the jobs of this database';
CREATE FUNCTION _guard_cron_task() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_guard_cron_task';
CREATE FUNCTION _definitions_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_definitions_changed';
CREATE FUNCTION _guard_circuit() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_guard_circuit';
CREATE FUNCTION _circuits_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_circuits_changed';
CREATE FUNCTION _circuit_counts(OUT job_type text, OUT stage text, OUT failures integer, OUT tripped_at timestamptz, OUT retry_at timestamptz)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_circuit_counts';
COMMENT ON FUNCTION _circuit_counts() IS 'Failures in a row that shared memory counts, per job type and stage';
CREATE FUNCTION _limit_counts() RETURNS TABLE (
		job_type text, running integer, rate_available integer, rate_next_at timestamptz,
		groups integer, ready_groups integer)
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_limit_counts';
COMMENT ON FUNCTION _limit_counts() IS 'What shared memory counts of job types with limits';
CREATE FUNCTION _cron_tasks_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_cron_tasks_changed';
CREATE FUNCTION _forget_cron_task() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_forget_cron_task';
CREATE FUNCTION _guard_http_endpoint() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_guard_http_endpoint';
CREATE FUNCTION _http_endpoints_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_http_endpoints_changed';
CREATE FUNCTION _guard_owned() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_guard_owned';
CREATE FUNCTION _guard_event_subscription() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_guard_event_subscription';
-- A call of a function of ours that no function of that name beside it can
-- take over: each argument has the type of its parameter, those that are not
-- given are the defaults, and of all candidates an exact match comes first.
-- The n-th of the named arguments is $n of the statement.
CREATE FUNCTION _exact_call(function_name text, arguments text[]) RETURNS text
	LANGUAGE plpgsql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	statement text;
BEGIN
	SELECT format('SELECT %s.%I(%s)', p.pronamespace::regnamespace, p.proname,
		(SELECT string_agg(format('CAST(%s AS %s)',
				coalesce('$' || array_position(arguments, a.name), pg_get_function_arg_default(p.oid, a.n::integer)),
				format_type(a.type, NULL)), ', ' ORDER BY a.n)
			FROM unnest(p.proargtypes::oid[], p.proargnames) WITH ORDINALITY AS a (type, name, n)
			WHERE a.type IS NOT NULL))
		INTO STRICT statement
	FROM pg_proc p
		JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
		JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
	WHERE d.deptype = 'e' AND e.extname = 'jobqueue' AND p.proname = function_name;
	RETURN statement;
END
$$;
-- The entries of a crontab, or error 22023 with the number of the first line
-- that is wrong and the reason.
CREATE FUNCTION _crontab_entries(crontab text, job_type text, default_zone text, name_prefix text)
	RETURNS TABLE (line integer, name text, schedule text, zone text, command text, input text)
	LANGUAGE plpgsql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	describe_call text;
	zone_call text;
	raw_line text;
	given_name text;
	next_name text;
	words text[];
	variable text;
	valid boolean;
	other integer;
	names text[] := '{}';
	lines integer[] := '{}';
	reason text;
	detail text;
BEGIN
	SELECT format('SELECT %s.cron_describe($1) IS NOT NULL', e.extnamespace::regnamespace),
		format('SELECT count(*) > 0 FROM %s.cron_next_runs(''@daily''::text, $1, now(), 1)', e.extnamespace::regnamespace)
		INTO STRICT describe_call, zone_call
	FROM pg_extension e WHERE e.extname = 'jobqueue';
	EXECUTE zone_call INTO valid USING default_zone;
	zone := default_zone;
	line := 0;
	FOREACH raw_line IN ARRAY string_to_array(crontab, E'\n')
	LOOP
		line := line + 1;
		raw_line := btrim(raw_line, E' \t\r');
		given_name := next_name;
		next_name := NULL;
		IF raw_line = '' THEN
			CONTINUE;
		ELSIF starts_with(raw_line, '#') THEN
			next_name := substring(raw_line FROM '^#\s*name:\s*(.*)$');
			CONTINUE;
		END IF;
		BEGIN
			reason := NULL;
			words := regexp_match(raw_line, '^("[^"]*"|''[^'']*''|[A-Za-z_]\w*)\s*=\s*(.*)$');
			IF words IS NOT NULL THEN
				variable := btrim(words[1], '"''');
				IF variable IN ('CRON_TZ', 'TZ') THEN
					zone := regexp_replace(words[2], '^(["''])(.*)\1$', '\2');
					EXECUTE zone_call INTO valid USING zone;
				ELSE
					RAISE NOTICE 'line % of the crontab is ignored: it sets "%"', line, variable;
				END IF;
				CONTINUE;
			END IF;
			words := coalesce(
				regexp_match(raw_line, '^(@every\s+\S+|@\S+)(?:\s+(.*))?$', 'i'),
				regexp_match(raw_line, '^((?:\S+\s+){4}\S+)(?:\s+(.*))?$'));
			IF words IS NULL THEN
				reason := 'There must be five fields, or a macro such as @daily, and a command.';
			ELSE
				schedule := regexp_replace(words[1], '\s+', ' ', 'g');
				EXECUTE describe_call INTO valid USING schedule;
				IF words[2] IS NULL THEN
					reason := 'The command is missing.';
				ELSIF given_name = '' THEN
					reason := 'The name in the comment above is missing.';
				END IF;
			END IF;
		EXCEPTION WHEN invalid_parameter_value THEN
			GET STACKED DIAGNOSTICS reason = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
			reason := coalesce(nullif(detail, ''), upper(left(reason, 1)) || substr(reason, 2) || '.');
		END;
		IF reason IS NOT NULL THEN
			RAISE EXCEPTION 'line % of the crontab is invalid', line
				USING ERRCODE = 'invalid_parameter_value', DETAIL = reason;
		END IF;

		-- In a command a percent sign ends it, and the rest is what it reads.
		command := words[2];
		input := NULL;
		IF job_type <> 'sql' THEN
			words := regexp_match(command, '^((?:[^\\%]|\\.)*)%(.*)$');
			IF words IS NOT NULL THEN
				command := words[1];
				input := nullif(words[2], '');
				input := regexp_replace(replace(regexp_replace(input, '(?<!\\)%', E'\n', 'g'), '\%', '%'), E'\n?$', E'\n');
			END IF;
		END IF;
		command := replace(command, '\%', '%');

		name := coalesce(given_name, name_prefix || ':' || left(md5(zone || E'\n' || schedule || E'\n'
			|| command || coalesce(E'\n' || input, '')), 8));
		other := array_position(names, name);
		IF other IS NOT NULL THEN
			RAISE EXCEPTION 'lines % and % of the crontab %', lines[other], line,
					CASE WHEN given_name IS NULL THEN 'are the same entry' ELSE format('have the same name "%s"', name) END
				USING ERRCODE = 'invalid_parameter_value',
					HINT = 'Delete one, or give them names by a comment "# name: ..." right before each.';
		END IF;
		names := names || name;
		lines := lines || line;
		RETURN NEXT;
	END LOOP;
END
$$;
CREATE FUNCTION _server_workers() RETURNS TABLE (
		kind text, database oid, role oid, pid integer, worker_id uuid,
		job_id bigint, state text, started_at timestamptz, last_cycle_at timestamptz)
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_server_workers';
CREATE FUNCTION _lanes() RETURNS TABLE (
		job_type text, owner oid, stage text, priority smallint, candidates integer,
		read_until timestamptz, last_used_at timestamptz, last_claim_at timestamptz)
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_lanes';
COMMENT ON FUNCTION _lanes() IS 'What shared memory remembers of the lanes of this database';
CREATE FUNCTION _claim_counts(
		OUT memory_claims bigint, OUT sql_claims bigint, OUT overflows bigint, OUT refills bigint,
		OUT discoveries bigint, OUT sweeps bigint, OUT repairs bigint, OUT stale_candidates bigint)
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_claim_counts';
COMMENT ON FUNCTION _claim_counts() IS 'How claims in this database found their jobs since the server started';
CREATE FUNCTION _endpoint_health() RETURNS TABLE (
		kind text, name text, in_flight integer, requests bigint, succeeded bigint, failed bigint, aborted bigint,
		consecutive_failures bigint, status_2xx bigint, status_3xx bigint, status_4xx bigint, status_5xx bigint,
		status_429 bigint, timeouts bigint, connection_errors bigint, tls_errors bigint, refused bigint,
		other_errors bigint, last_status integer, last_error text, last_success_at timestamptz,
		last_failure_at timestamptz, bytes bigint, reused_connections bigint, avg_ms double precision,
		p50_ms double precision, p95_ms double precision, p99_ms double precision, latency_histogram jsonb)
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_endpoint_health';
COMMENT ON FUNCTION _endpoint_health() IS 'What shared memory has counted of HTTP requests of this database';
COMMENT ON FUNCTION _server_workers() IS 'The workers of this server, in every database';
CREATE FUNCTION _worker_troubles() RETURNS TABLE (
		kind text, database oid, trouble text, first_at timestamptz, last_at timestamptz, count integer, sqlstate text)
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_worker_troubles';
COMMENT ON FUNCTION _worker_troubles() IS 'What went wrong with the workers of this server: error, ended, no process, not serving';
CREATE FUNCTION _session_snapshots() RETURNS TABLE (
		pid integer, role oid, application_name text, state text, since timestamptz, xmin xid)
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_session_snapshots';
COMMENT ON FUNCTION _session_snapshots() IS 'Other sessions whose transactions keep dead rows of this database';
CREATE FUNCTION _in_words(duration interval) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE WHEN s.seconds < 120 THEN round(s.seconds) || ' s' WHEN s.seconds < 7200 THEN round(s.seconds / 60) || ' min'
		WHEN s.seconds < 172800 THEN round(s.seconds / 3600) || ' h' ELSE round(s.seconds / 86400) || ' d' END
	FROM (SELECT extract(epoch FROM duration) AS seconds) s;
END;
-- The first five, and how many others there are.
CREATE FUNCTION _some_of(items text[]) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT array_to_string(items[1:5], ', ') || CASE WHEN cardinality(items) > 5
		THEN format(' and %s more', cardinality(items) - 5) ELSE '' END;
END;

-- ---------------------------------------------------------------------------
-- Public functions: enqueue
-- ---------------------------------------------------------------------------

CREATE FUNCTION enqueue_job(
		job_type text,
		payload jsonb DEFAULT '{}',
		scheduled_at timestamptz DEFAULT NULL,
		priority integer DEFAULT 0,
		max_attempts integer DEFAULT NULL,
		unique_key text DEFAULT NULL,
		unique_mode text DEFAULT 'skip',
		group_key text DEFAULT NULL,
		stage text DEFAULT '',
		correlation_id text DEFAULT NULL,
		depends_on bigint[] DEFAULT NULL,
		timeout interval DEFAULT NULL,
		tags text[] DEFAULT NULL,
		metadata jsonb DEFAULT NULL,
		on_parent_failure text DEFAULT 'block',
		unique_scope text DEFAULT 'live',
		unique_period interval DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_enqueue_job';
COMMENT ON FUNCTION enqueue_job(text, jsonb, timestamptz, integer, integer, text, text, text, text, text, bigint[], interval, text[], jsonb, text, text, interval)
	IS 'Enqueues a job and returns its id; with a unique_key that is taken, the id of the job that has it';

CREATE FUNCTION enqueue_jobs(
		job_type text,
		payloads jsonb[],
		scheduled_at timestamptz DEFAULT NULL,
		priority integer DEFAULT 0,
		max_attempts integer DEFAULT NULL,
		unique_keys text[] DEFAULT NULL,
		group_key text DEFAULT NULL,
		stage text DEFAULT '',
		correlation_id text DEFAULT NULL,
		timeout interval DEFAULT NULL,
		tags text[] DEFAULT NULL,
		metadata jsonb DEFAULT NULL,
		unique_scope text DEFAULT 'live',
		unique_period interval DEFAULT NULL,
		unique_mode text DEFAULT 'skip')
	RETURNS SETOF bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'jobqueue_enqueue_jobs';
COMMENT ON FUNCTION enqueue_jobs(text, jsonb[], timestamptz, integer, integer, text[], text, text, text, interval, text[], jsonb, text, interval, text)
	IS 'Enqueues one job of a type for each payload and returns their ids in that order';

CREATE FUNCTION enqueue_job_batch(jobs jsonb)
	RETURNS SETOF bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'jobqueue_enqueue_job_batch';
COMMENT ON FUNCTION enqueue_job_batch(jsonb)
	IS 'Enqueues an array of objects whose keys are the arguments of enqueue_job and returns their ids in that order';

CREATE FUNCTION enqueue_sql(
		command text,
		payload jsonb DEFAULT '{}',
		scheduled_at timestamptz DEFAULT NULL,
		priority integer DEFAULT 0,
		max_attempts integer DEFAULT NULL,
		unique_key text DEFAULT NULL,
		unique_mode text DEFAULT 'skip',
		correlation_id text DEFAULT NULL,
		depends_on bigint[] DEFAULT NULL,
		timeout interval DEFAULT NULL,
		tags text[] DEFAULT NULL,
		metadata jsonb DEFAULT NULL,
		run_as regrole DEFAULT NULL,
		mode text DEFAULT NULL,
		on_parent_failure text DEFAULT 'block',
		unique_scope text DEFAULT 'live',
		unique_period interval DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_enqueue_sql';
COMMENT ON FUNCTION enqueue_sql(text, jsonb, timestamptz, integer, integer, text, text, text, bigint[], interval, text[], jsonb, regrole, text, text, text, interval)
	IS 'Enqueues an SQL statement that the server runs as run_as (NULL: the caller); $1 is the payload, $2 the job id';

CREATE FUNCTION enqueue_http(
		url text,
		body jsonb DEFAULT NULL,
		method text DEFAULT NULL,
		headers jsonb DEFAULT NULL,
		timeout interval DEFAULT NULL,
		body_type text DEFAULT NULL,
		scheduled_at timestamptz DEFAULT NULL,
		priority integer DEFAULT 0,
		max_attempts integer DEFAULT NULL,
		unique_key text DEFAULT NULL,
		unique_mode text DEFAULT 'skip',
		group_key text DEFAULT NULL,
		correlation_id text DEFAULT NULL,
		depends_on bigint[] DEFAULT NULL,
		tags text[] DEFAULT NULL,
		metadata jsonb DEFAULT NULL,
		on_parent_failure text DEFAULT 'block',
		unique_scope text DEFAULT 'live',
		unique_period interval DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_enqueue_http';
COMMENT ON FUNCTION enqueue_http(text, jsonb, text, jsonb, interval, text, timestamptz, integer, integer, text, text, text, text, bigint[], text[], jsonb, text, text, interval)
	IS 'Enqueues an HTTP request to a URL, or to the endpoint of that name; the server sends it after the transaction has committed, and retries';

-- ---------------------------------------------------------------------------
-- Public functions: events
-- ---------------------------------------------------------------------------

CREATE FUNCTION publish_event(
		event_type text,
		payload jsonb DEFAULT '{}',
		event_key text DEFAULT NULL,
		tenant_id text DEFAULT NULL)
	RETURNS bigint[]
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_publish_event';
COMMENT ON FUNCTION publish_event(text, jsonb, text, text)
	IS 'Enqueues a job for each job type that is subscribed to the event, and returns their ids';

CREATE FUNCTION subscribe_event(event_type text, job_type text DEFAULT NULL, endpoint text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_subscribe_event';
COMMENT ON FUNCTION subscribe_event(text, text, text)
	IS 'Makes events (a type, "a.b.*" or "*") jobs of a type, or calls of an endpoint; returns the id of the subscription';

CREATE FUNCTION unsubscribe_event(event_type text, job_type text DEFAULT NULL, endpoint text DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_unsubscribe_event';
COMMENT ON FUNCTION unsubscribe_event(text, text, text)
	IS 'Ends a subscription; false when there is none';

CREATE FUNCTION replay_events(
		event_type text DEFAULT '*',
		job_type text DEFAULT NULL,
		endpoint text DEFAULT NULL,
		since timestamptz DEFAULT NULL,
		until timestamptz DEFAULT NULL,
		max_events integer DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_replay_events';
COMMENT ON FUNCTION replay_events(text, text, text, timestamptz, timestamptz, integer)
	IS 'Enqueues the stored events that a job type or an endpoint is subscribed to and has not got; returns how many';

-- ---------------------------------------------------------------------------
-- Public functions: work
-- ---------------------------------------------------------------------------

CREATE FUNCTION claim_next_job(worker_id uuid, job_type text DEFAULT NULL)
	RETURNS SETOF jobs_queue
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'jobqueue_claim_next_job';
COMMENT ON FUNCTION claim_next_job(uuid, text)
	IS 'Claims the next ready job of a job type (NULL: of every type that outside workers serve); no row when nothing is ready';

CREATE FUNCTION claim_jobs(
		worker_id uuid,
		job_types text[] DEFAULT NULL,
		max_jobs integer DEFAULT NULL,
		lease interval DEFAULT NULL)
	RETURNS SETOF jobs_queue
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'jobqueue_claim_jobs';
COMMENT ON FUNCTION claim_jobs(uuid, text[], integer, interval)
	IS 'Claims up to max_jobs ready jobs of the given types, in claim order';

CREATE FUNCTION resolve_job(
		job_id bigint,
		worker_id uuid,
		success boolean,
		error text DEFAULT NULL,
		claim_no integer DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_resolve_job';
COMMENT ON FUNCTION resolve_job(bigint, uuid, boolean, text, integer)
	IS 'Ends a claim: completed, or failed with an error and retried while attempts are left; false when the caller does not hold the job';

CREATE FUNCTION resolve_jobs(
		worker_id uuid,
		job_ids bigint[],
		successes boolean[],
		errors text[] DEFAULT NULL,
		claim_nos integer[] DEFAULT NULL)
	RETURNS boolean[]
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_resolve_jobs';
COMMENT ON FUNCTION resolve_jobs(uuid, bigint[], boolean[], text[], integer[])
	IS 'resolve_job for many jobs; one boolean per job id, in that order';

CREATE FUNCTION resolve_and_claim(
		job_id bigint,
		worker_id uuid,
		success boolean,
		error text DEFAULT NULL,
		job_type text DEFAULT NULL,
		claim_no integer DEFAULT NULL)
	RETURNS SETOF jobs_queue
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'jobqueue_resolve_and_claim';
COMMENT ON FUNCTION resolve_and_claim(bigint, uuid, boolean, text, text, integer)
	IS 'resolve_job and claim_next_job in one round trip; a NOTICE tells when the job was no longer held';

CREATE FUNCTION complete_job(
		job_id bigint,
		worker_id uuid DEFAULT NULL,
		result jsonb DEFAULT NULL,
		claim_no integer DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_complete_job';
COMMENT ON FUNCTION complete_job(bigint, uuid, jsonb, integer)
	IS 'Completes a held job with a result; without worker_id, a job that nobody holds';

CREATE FUNCTION fail_job(
		job_id bigint,
		worker_id uuid,
		error text DEFAULT NULL,
		retry_at timestamptz DEFAULT NULL,
		permanent boolean DEFAULT false,
		claim_no integer DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_fail_job';
COMMENT ON FUNCTION fail_job(bigint, uuid, text, timestamptz, boolean, integer)
	IS 'Fails a held job: retried at retry_at or after the backoff while attempts are left, unless permanent';

CREATE FUNCTION skip_job(
		job_id bigint,
		worker_id uuid,
		reason text DEFAULT NULL,
		claim_no integer DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_skip_job';
COMMENT ON FUNCTION skip_job(bigint, uuid, text, integer)
	IS 'Completes a held job that there was nothing to do for: its run is called skipped, with the reason';

CREATE FUNCTION release_job(job_id bigint, worker_id uuid, claim_no integer DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_release_job';
COMMENT ON FUNCTION release_job(bigint, uuid, integer)
	IS 'Gives a held job back at once, without charge';

CREATE FUNCTION snooze_job(job_id bigint, worker_id uuid, delay interval, claim_no integer DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_snooze_job';
COMMENT ON FUNCTION snooze_job(bigint, uuid, interval, integer)
	IS 'Gives a held job back until after a delay, without charge';

CREATE FUNCTION heartbeat_job(
		job_id bigint,
		worker_id uuid,
		extend interval DEFAULT NULL,
		progress jsonb DEFAULT NULL,
		claim_no integer DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_heartbeat_job';
COMMENT ON FUNCTION heartbeat_job(bigint, uuid, interval, jsonb, integer)
	IS 'Extends the lease of a held job from now and stores its progress; false: the job is lost, or its cancellation was asked for';

CREATE FUNCTION set_job_stage(job_id bigint, worker_id uuid, stage text, claim_no integer DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_set_job_stage';
COMMENT ON FUNCTION set_job_stage(bigint, uuid, text, integer)
	IS 'Sets the stage of a held job, at which a retry resumes';

CREATE FUNCTION job_log(
		message text,
		level text DEFAULT 'info',
		data jsonb DEFAULT NULL,
		job_id bigint DEFAULT NULL,
		worker_id uuid DEFAULT NULL,
		claim_no integer DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_job_log';
COMMENT ON FUNCTION job_log(text, text, jsonb, bigint, uuid, integer)
	IS 'Adds a line to the log of the running SQL job, or of the job that an outside worker holds; kept even if the job fails';

CREATE FUNCTION skip_current_job(reason text DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_skip_current_job';
COMMENT ON FUNCTION skip_current_job(text)
	IS 'In the body of an SQL job that succeeds: its run is called skipped, with the reason';

CREATE FUNCTION current_job(
		OUT job_id bigint,
		OUT claim_no integer,
		OUT attempt integer,
		OUT max_attempts integer,
		OUT job_type text,
		OUT stage text,
		OUT correlation_id text,
		OUT worker_id uuid,
		OUT scheduled_at timestamptz,
		OUT deadline timestamptz,
		OUT cron_task_id bigint,
		OUT cron_instant timestamptz)
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_current_job';
COMMENT ON FUNCTION current_job()
	IS 'The SQL job that this session runs now; nulls when there is none';

CREATE FUNCTION parent_results(job_id bigint DEFAULT NULL, worker_id uuid DEFAULT NULL)
	RETURNS TABLE (job_id bigint, job_type text, status text, result jsonb)
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'jobqueue_parent_results';
COMMENT ON FUNCTION parent_results(bigint, uuid)
	IS 'What the jobs in depends_on have left, of the running SQL job or of a job that an outside worker holds';

CREATE PROCEDURE wait_for_jobs(
		job_types text[] DEFAULT NULL,
		timeout interval DEFAULT '30 seconds',
		INOUT ready boolean DEFAULT NULL)
	LANGUAGE c AS 'MODULE_PATHNAME', 'jobqueue_wait_for_jobs';
COMMENT ON PROCEDURE wait_for_jobs(text[], interval, boolean)
	IS 'Sleeps until a job of these types (NULL: of every type that outside workers serve) is ready, or for timeout; holds no snapshot meanwhile';

CREATE FUNCTION register_worker(worker_id uuid, name text DEFAULT NULL, info jsonb DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_register_worker';
COMMENT ON FUNCTION register_worker(uuid, text, jsonb)
	IS 'Gives a worker a name for people to read; a second call replaces the first';

CREATE FUNCTION heartbeat_worker(worker_id uuid)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_heartbeat_worker';
COMMENT ON FUNCTION heartbeat_worker(uuid)
	IS 'Says that a worker is there; false when it was asked to stop';

-- ---------------------------------------------------------------------------
-- Public functions: operate
-- ---------------------------------------------------------------------------

CREATE FUNCTION requeue_job(job_id bigint)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_requeue_job';
COMMENT ON FUNCTION requeue_job(bigint)
	IS 'Queues an ended or waiting job again, now and with all its attempts';

CREATE FUNCTION requeue_jobs(
		job_type text DEFAULT NULL,
		statuses text[] DEFAULT '{failed,error}',
		stage text DEFAULT NULL,
		error_like text DEFAULT NULL,
		finished_after timestamptz DEFAULT NULL,
		finished_before timestamptz DEFAULT NULL,
		max_jobs integer DEFAULT NULL,
		per_second integer DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_requeue_jobs';
COMMENT ON FUNCTION requeue_jobs(text, text[], text, text, timestamptz, timestamptz, integer, integer)
	IS 'Queues again every ended job that the filter matches, oldest first, at most per_second of them due in any second; returns how many';

CREATE FUNCTION retry_from_dlq(dlq_event_id bigint)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_retry_from_dlq';
COMMENT ON FUNCTION retry_from_dlq(bigint)
	IS 'Queues a job of dead_letter_jobs again, now and with all its attempts, and returns its id, which is the same';

CREATE FUNCTION purge_jobs(
		job_type text DEFAULT NULL,
		statuses text[] DEFAULT '{error}',
		stage text DEFAULT NULL,
		error_like text DEFAULT NULL,
		finished_before timestamptz DEFAULT NULL,
		max_jobs integer DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_purge_jobs';
COMMENT ON FUNCTION purge_jobs(text, text[], text, text, timestamptz, integer)
	IS 'Deletes every ended job that the filter matches, oldest first, but not its runs; returns how many';

CREATE FUNCTION cancel_job(job_id bigint, reason text DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_cancel_job';
COMMENT ON FUNCTION cancel_job(bigint, text)
	IS 'Cancels a queued or blocked job; asks the holder of a running job to stop; false when the job has ended';

CREATE FUNCTION run_job(job_id bigint)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_run_job';
COMMENT ON FUNCTION run_job(bigint)
	IS 'Runs a queued SQL job, due or not, in this session and transaction, as the role that it belongs to; false when it failed';

CREATE FUNCTION drain_jobs(
		job_types text[] DEFAULT NULL,
		max_jobs integer DEFAULT NULL,
		with_scheduled boolean DEFAULT false,
		OUT completed bigint,
		OUT failed bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_drain_jobs';
COMMENT ON FUNCTION drain_jobs(text[], integer, boolean)
	IS 'Runs every due SQL job that runs as the caller, in this session and transaction, until none is left; with_scheduled: future ones, too';

CREATE FUNCTION activate_jobs()
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_activate_jobs';
COMMENT ON FUNCTION activate_jobs()
	IS 'Lets the server run the cron tasks and SQL jobs of a database that was restored or copied from another one';

CREATE FUNCTION pause_workers(reason text DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_pause_workers';
COMMENT ON FUNCTION pause_workers(text)
	IS 'Lets nobody claim jobs of this database, in the server or from outside, until resume_workers(); false when it is paused already';

CREATE FUNCTION resume_workers()
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_resume_workers';
COMMENT ON FUNCTION resume_workers()
	IS 'Ends pause_workers(); false when nothing is paused';

CREATE FUNCTION pause_job_type(job_type text, reason text DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_pause_job_type';
COMMENT ON FUNCTION pause_job_type(text, text)
	IS 'Lets nobody claim jobs of this type until resume_job_type(); false when it is paused already';

CREATE FUNCTION resume_job_type(job_type text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_resume_job_type';
COMMENT ON FUNCTION resume_job_type(text)
	IS 'Ends pause_job_type(); false when the type is not paused';

CREATE FUNCTION throttle_job_type(job_type text, delay interval)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_throttle_job_type';
COMMENT ON FUNCTION throttle_job_type(text, interval)
	IS 'Lets nobody claim jobs of this type for a while, as after "429 Too Many Requests"; 0 ends that; false when nothing changes';

CREATE FUNCTION open_circuit(job_type text, stage text DEFAULT '', duration interval DEFAULT NULL, reason text DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_open_circuit';
COMMENT ON FUNCTION open_circuit(text, text, interval, text)
	IS 'Lets nobody claim jobs of this type and stage, for some time or until close_circuit(); false when the circuit was open already';

CREATE FUNCTION close_circuit(job_type text, stage text DEFAULT NULL)
	RETURNS integer
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_close_circuit';
COMMENT ON FUNCTION close_circuit(text, text)
	IS 'Closes the circuit of a stage, or of all stages (NULL), and forgets the failures counted; returns how many were not closed';

CREATE FUNCTION stop_worker(worker_id uuid, reason text DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_stop_worker';
COMMENT ON FUNCTION stop_worker(uuid, text)
	IS 'Asks a worker to take no more jobs and to end; false when it was asked already';

CREATE FUNCTION test_endpoint(name text, method text DEFAULT 'HEAD', payload jsonb DEFAULT NULL)
	RETURNS TABLE (phase text, duration_ms numeric, detail text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_test_endpoint';
COMMENT ON FUNCTION test_endpoint(text, text, jsonb)
	IS 'Sends one request to an HTTP endpoint at once, waits for the answer, and shows how long each phase took';

CREATE FUNCTION reset_endpoint_stats(name text DEFAULT NULL)
	RETURNS integer
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_reset_endpoint_stats';
COMMENT ON FUNCTION reset_endpoint_stats(text)
	IS 'Starts the counters of endpoint_status anew, of one endpoint or host, or of all in this database';

CREATE FUNCTION grant_job_role(role regrole, job_role text)
	RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	schema regnamespace;
	functions text[];
	fn text;
	rel record;
BEGIN
	IF role IS NULL OR job_role IS NULL THEN
		RAISE EXCEPTION '% must not be null', CASE WHEN role IS NULL THEN 'role' ELSE 'job_role' END
			USING ERRCODE = 'null_value_not_allowed';
	END IF;
	functions := CASE job_role
		WHEN 'producer' THEN '{enqueue_job,enqueue_jobs,enqueue_job_batch,enqueue_sql,enqueue_http,http_check_url,publish_event,current_job,job_log,parent_results,skip_current_job,run_job,drain_jobs,job_metric_add,job_metric_observe}'::text[]
		WHEN 'worker' THEN '{claim_next_job,claim_jobs,resolve_job,resolve_jobs,resolve_and_claim,complete_job,fail_job,skip_job,release_job,snooze_job,heartbeat_job,set_job_stage,job_log,parent_results,throttle_job_type,register_worker,heartbeat_worker,wait_for_jobs,job_metric_add,job_metric_observe}'::text[]
		WHEN 'operator' THEN '{current_job,job_log,parent_results,skip_current_job,run_job,drain_jobs,requeue_job,requeue_jobs,retry_from_dlq,purge_jobs,cancel_job,complete_job,activate_jobs,pause_workers,resume_workers,pause_job_type,resume_job_type,throttle_job_type,open_circuit,close_circuit,stop_worker,schedule_cron_task,schedule_sql,unschedule_cron_task,run_cron_task,pause_cron_task,resume_cron_task,enqueue_cron_tasks,import_crontab,import_pg_cron,http_check_url,set_secret,set_secret_file,drop_secret,test_endpoint,reset_endpoint_stats,secret_problem,subscribe_event,unsubscribe_event,replay_events,cron_is_valid,cron_describe,cron_next_runs,job_state,job_timeline,test_alert_sink,install_default_alerts,_evaluate_alerts,_failure_counts,_exact_call,_crontab_entries,job_metric_add,job_metric_observe,_job_metrics,_job_counts,_metric_bounds,_user_metrics,_server_workers,_lanes,_claim_counts,_endpoint_health,_circuit_counts,_limit_counts,_queue_status,_dashboard_get,_dashboard_check_query,_dashboard_jobs,_dashboard_act,_dashboard_shorten,job_health,job_health_json,_worker_troubles,_session_snapshots,_in_words,_some_of,monitor_get,monitor_post}'::text[]
		WHEN 'observer' THEN '{cron_is_valid,cron_describe,cron_next_runs,job_state,_failure_counts,_job_metrics,_job_counts,_metric_bounds,_user_metrics,_server_workers,_lanes,_claim_counts,_endpoint_health,_circuit_counts,_limit_counts,_queue_status,_dashboard_get,_dashboard_check_query,_dashboard_jobs,job_health,job_health_json,_worker_troubles,_session_snapshots,_in_words,_some_of,monitor_get}'::text[]
		END;
	IF job_role IN ('operator', 'observer') THEN
		functions := functions || '{job_metrics,job_metrics_prometheus,_metric_label,_metric_number,_metric_round,_metric_latency,_histogram_lines,_histogram_quantile,_histogram_sum,_metric_series,_metric_job_families,_metric_state_families,_metric_endpoint_families,_metric_user_families}'::text[];
	END IF;
	IF functions IS NULL THEN
		RAISE EXCEPTION 'unrecognized job role "%"', job_role
			USING ERRCODE = 'invalid_parameter_value',
				HINT = 'The job roles are producer, worker, operator and observer.';
	END IF;

	IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = role) THEN
		RAISE EXCEPTION 'role "%" does not exist', role
			USING ERRCODE = 'undefined_object';
	END IF;

	-- Asked for, because a schema can be renamed.
	SELECT e.extnamespace INTO STRICT schema FROM pg_extension e WHERE e.extname = 'jobqueue';
	EXECUTE format('GRANT USAGE ON SCHEMA %s TO %s', schema, role);
	FOR fn IN
		SELECT p.oid::regprocedure::text
		FROM pg_proc p
			JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
			JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
		WHERE d.deptype = 'e' AND e.extname = 'jobqueue' AND p.proname = ANY (functions)
		ORDER BY 1
	LOOP
		EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', fn, role);
	END LOOP;

	FOR rel IN
		SELECT g.kind, g.rights, g.name
		FROM (VALUES
			('producer', 'TABLE', 'INSERT, SELECT (id)', 'jobs_queue'),
			('producer', 'SEQUENCE', 'USAGE', 'jobs_queue_id_seq'),
			('operator', 'TABLE', 'SELECT, INSERT, UPDATE, DELETE', 'jobs_queue'),
			('operator', 'SEQUENCE', 'USAGE', 'jobs_queue_id_seq'),
			('operator', 'TABLE', 'SELECT, INSERT, UPDATE, DELETE', 'job_types'),
			('operator', 'TABLE', 'SELECT, INSERT, UPDATE, DELETE', 'cron_tasks'),
			('operator', 'SEQUENCE', 'USAGE', 'cron_tasks_id_seq'),
			('operator', 'TABLE', 'SELECT', 'cron_runs'),
			('operator', 'TABLE', 'SELECT, INSERT, UPDATE, DELETE', 'event_subscriptions'),
			('operator', 'SEQUENCE', 'USAGE', 'event_subscriptions_id_seq'),
			('operator', 'TABLE', 'SELECT, INSERT, UPDATE, DELETE', 'http_endpoints'),
			('operator', 'TABLE', 'SELECT', 'secret_names'),
			('operator', 'TABLE', 'SELECT', 'job_runs'),
			('operator', 'TABLE', 'SELECT', 'job_logs'),
			('operator', 'TABLE', 'SELECT', 'job_dependencies'),
			('operator', 'TABLE', 'SELECT, DELETE', 'job_keys'),
			('operator', 'TABLE', 'SELECT, DELETE', 'published_events'),
			('operator', 'TABLE', 'SELECT', 'registered_workers'),
			('operator', 'TABLE', 'SELECT, DELETE', 'worker_stops'),
			('operator', 'TABLE', 'SELECT', 'database_identity'),
			('operator', 'TABLE', 'SELECT, INSERT, UPDATE, DELETE', 'job_circuits'),
			('operator', 'TABLE', 'SELECT', 'queue_events'),
			('operator', 'TABLE', 'SELECT, INSERT, UPDATE, DELETE', 'alert_sinks'),
			('operator', 'TABLE', 'SELECT, INSERT, UPDATE, DELETE', 'alert_rules'),
			('operator', 'TABLE', 'SELECT, UPDATE (muted_until)', 'alerts'),
			('operator', 'TABLE', 'SELECT', 'job_circuit_status'),
			('operator', 'TABLE', 'SELECT', 'queue_status'),
			('operator', 'TABLE', 'SELECT', 'dead_letter_jobs'),
			('operator', 'TABLE', 'SELECT', 'job_stats'),
			('operator', 'TABLE', 'SELECT', 'job_counts'),
			('operator', 'TABLE', 'SELECT', 'job_history'),
			('operator', 'TABLE', 'SELECT', 'running_jobs'),
			('operator', 'TABLE', 'SELECT', 'stalled_jobs'),
			('operator', 'TABLE', 'SELECT', 'cron_overview'),
			('operator', 'TABLE', 'SELECT', 'job_workers'),
			('operator', 'TABLE', 'SELECT', 'job_type_status'),
			('operator', 'TABLE', 'SELECT', 'job_lanes'),
			('operator', 'TABLE', 'SELECT', 'job_claim_stats'),
			('operator', 'TABLE', 'SELECT', 'endpoint_status'),
			('operator', 'TABLE', 'SELECT', '_metric_cron'),
			('operator', 'TABLE', 'SELECT', '_metric_workers'),
			('operator', 'TABLE', 'SELECT', '_metric_due'),
			('observer', 'TABLE', 'SELECT', '_metric_cron'),
			('observer', 'TABLE', 'SELECT', '_metric_workers'),
			('observer', 'TABLE', 'SELECT', '_metric_due'),
			('observer', 'TABLE', 'SELECT', 'alerts'),
			('operator', 'TABLE', 'SELECT, INSERT (client, action, arguments, outcome, result, error)', 'monitor_actions'),
			('operator', 'SEQUENCE', 'USAGE', 'monitor_actions_id_seq'),
			('observer', 'TABLE', 'SELECT', 'queue_status'),
			('observer', 'TABLE', 'SELECT (job_type, stage, state, failures, threshold, opened_at, retry_at, forced, reason, probe_job_id)', 'job_circuit_status'),
			('observer', 'TABLE', 'SELECT', 'job_type_status'),
			('observer', 'TABLE', 'SELECT', 'job_lanes'),
			('observer', 'TABLE', 'SELECT', 'job_claim_stats'),
			('observer', 'TABLE', 'SELECT', 'endpoint_status'),
			('observer', 'TABLE', 'SELECT', 'job_stats'),
			('observer', 'TABLE', 'SELECT', 'job_counts'),
			('observer', 'TABLE', 'SELECT', 'job_history'),
			('observer', 'TABLE', 'SELECT', 'running_jobs'),
			('observer', 'TABLE', 'SELECT', 'stalled_jobs'),
			('observer', 'TABLE', 'SELECT', 'cron_overview'),
			('observer', 'TABLE', 'SELECT', 'job_workers'),
			('observer', 'TABLE', 'SELECT (id, job_type, stage, status, priority, scheduled_at, attempts, max_attempts, claim_no, crashes, correlation_id, waiting_for, created_at, finished_at, updated_at, locked_by, locked_at, lease_expires_at, holder)', 'jobs_queue'),
			('observer', 'TABLE', 'SELECT (job_id, claim_no, attempt, job_type, stage, correlation_id, worker_id, status, charged, started_at, finished_at)', 'job_runs'),
			('observer', 'TABLE', 'SELECT (worker_id, name, registered_by, registered_at, last_seen_at)', 'registered_workers'),
			('observer', 'TABLE', 'SELECT', 'worker_stops')
		) AS g(job_role, kind, rights, name)
		WHERE g.job_role = grant_job_role.job_role
		UNION ALL
		SELECT 'TABLE', 'SELECT', c.relname
		FROM pg_class c
			JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
			JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
		WHERE d.deptype = 'e' AND e.extname = 'jobqueue' AND c.relname LIKE '\_health\_%'
			AND grant_job_role.job_role IN ('operator', 'observer')
	LOOP
		EXECUTE format('GRANT %s ON %s %s.%I TO %s', rel.rights, rel.kind, schema, rel.name, role);
	END LOOP;
END
$$;
COMMENT ON FUNCTION grant_job_role(regrole, text)
	IS 'Grants a role the rights of a producer, worker, operator or observer';

-- ---------------------------------------------------------------------------
-- Alerts: functions
-- ---------------------------------------------------------------------------

CREATE FUNCTION _failure_counts() RETURNS TABLE (
		job_type text, stage text, streak integer, streak_since timestamptz, last_failure_at timestamptz,
		failed_at timestamptz[], job_ids bigint[], claim_nos integer[])
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_failure_counts';
COMMENT ON FUNCTION _failure_counts() IS 'Failures in a row, and the last ones, that shared memory knows of: per job type, and per stage (a row with stage)';

CREATE FUNCTION _evaluate_alerts(at timestamptz DEFAULT NULL) RETURNS integer
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_evaluate_alerts';
COMMENT ON FUNCTION _evaluate_alerts(timestamptz) IS 'What the scheduler does for alerts, now or as of another instant; returns how many began, were sent again or ended';

CREATE FUNCTION test_alert_sink(name text) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_test_alert_sink';
COMMENT ON FUNCTION test_alert_sink(text)
	IS 'Sends a message to an alert sink; returns the id of its job, NULL where it takes none';

-- Sensible rules, none of which is there by itself.
CREATE FUNCTION install_default_alerts(sinks text[]) RETURNS integer
	LANGUAGE sql VOLATILE
BEGIN ATOMIC
	WITH added AS (
		INSERT INTO alert_rules (name, kind, threshold, period, severity, renotify, sinks, description)
		SELECT r.name, r.name, r.threshold, r.period, r.severity, r.renotify, coalesce(install_default_alerts.sinks, '{}'), r.description
		FROM (VALUES
			('consecutive_failures', 5, NULL::interval, 'critical', interval '1 hour', 'Five attempts of a job type have failed in a row'),
			('failures', 3, interval '5 minutes', 'warning', interval '1 hour', 'More than three attempts of a job type have failed within five minutes'),
			('dead_letters', 0, NULL, 'warning', interval '1 day', 'Jobs have ended without success'),
			('circuit_open', 0, NULL, 'critical', interval '1 hour', 'The circuit of a stage has opened'),
			('failed_older_than', 0, interval '10 minutes', 'warning', interval '1 day', 'Nobody has looked after failed jobs for ten minutes'),
			('backlog_age', 0, interval '15 minutes', 'warning', interval '1 hour', 'A job has been due for fifteen minutes'),
			('no_consumer', 0, interval '5 minutes', 'critical', interval '1 hour', 'Jobs wait and nobody claims them'),
			('cron_late', 0, interval '5 minutes', 'warning', interval '1 hour', 'A recurring job has not been enqueued'),
			('endpoint_down', 5, NULL, 'critical', interval '1 hour', 'Five requests to an endpoint have failed in a row'),
			('worker_error', 0, interval '5 minutes', 'warning', interval '1 hour', 'A worker of the server has met an error')
		) AS r (name, threshold, period, severity, renotify, description)
		ON CONFLICT (name) DO NOTHING
		RETURNING 1)
	SELECT count(*)::integer FROM added;
END;
COMMENT ON FUNCTION install_default_alerts(text[])
	IS 'Adds a rule of each kind that sends to these sinks; those that are there stay as they are; returns how many it added';

CREATE FUNCTION _validate_alert_rule() RETURNS trigger
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	fault text;
	hint text;
	missing text;
	given interval;
BEGIN
	IF octet_length(NEW.name) NOT BETWEEN 1 AND 255 THEN
		fault := 'name must be 1 to 255 bytes long';
	ELSIF NEW.threshold = 'NaN' OR NEW.threshold NOT BETWEEN 0 AND 9999 THEN
		fault := 'threshold must be between 0 and 9999';
	ELSIF NEW.kind IN ('consecutive_failures', 'endpoint_down') AND NEW.threshold < 1 THEN
		fault := format('threshold of kind "%s" must be 1 or more', NEW.kind);
	ELSIF NEW.kind = 'failure_rate' AND NEW.threshold >= 1 THEN
		fault := 'threshold of kind "failure_rate" must be less than 1';
		hint := 'It is a share, as 0.2 for a fifth.';
	ELSIF NEW.min_attempts < 1 THEN
		fault := 'min_attempts must be 1 or more';
	ELSIF NEW.kind = 'failures' AND NEW.threshold > 63 AND (NEW.period > interval '2 hours' OR NEW.stage IS NOT NULL
			OR NEW.error_like IS NOT NULL OR NEW.sqlstate IS NOT NULL) THEN
		fault := 'more than 63 failures are counted for up to 2 hours, of all stages and errors';
		hint := 'Single failures are remembered up to the last 64 of a job type.';
	ELSIF NEW.kind = 'failure_rate' AND NEW.period > interval '2 hours' THEN
		fault := 'period of kind "failure_rate" must be 2 hours or less';
	ELSIF NEW.kind = 'failure_rate' AND NEW.stage IS NOT NULL THEN
		fault := 'kind "failure_rate" is of all stages';
	ELSIF NEW.period IS NULL AND NEW.kind IN ('failures', 'failure_rate', 'failed_older_than', 'backlog_age', 'no_consumer', 'cron_late', 'worker_error') THEN
		fault := format('kind "%s" needs a period', NEW.kind);
		hint := 'For example period = ''5 minutes''.';
	ELSIF NEW.kind IN ('cron_late', 'endpoint_down', 'worker_error') AND (NEW.job_type IS NOT NULL OR NEW.stage IS NOT NULL) THEN
		fault := format('kind "%s" has no job type', NEW.kind);
		hint := 'Name the cron task, the endpoint or the kind of worker in subject.';
	ELSIF NEW.kind NOT IN ('cron_late', 'endpoint_down', 'worker_error') AND NEW.subject IS NOT NULL THEN
		fault := format('kind "%s" has no subject', NEW.kind);
		hint := 'Use job_type and stage.';
	ELSIF (NEW.error_like IS NOT NULL OR NEW.sqlstate IS NOT NULL) AND NEW.kind NOT IN ('consecutive_failures', 'failures', 'dead_letters') THEN
		fault := format('kind "%s" does not look at errors', NEW.kind);
		hint := 'consecutive_failures, failures and dead_letters do.';
	ELSIF NEW.sqlstate !~ '^([0-9A-Z]{5}|[0-9A-Z]{1,4}\*)$' THEN
		fault := format('invalid SQLSTATE "%s"', NEW.sqlstate);
		hint := 'It has five characters, as 23505, or is the beginning of some, as 23*.';
	ELSIF NEW.error_like ~ '(^|[^\\])(\\\\)*\\$' THEN
		fault := 'error_like must not end in a backslash';
	ELSIF array_position(NEW.sinks, NULL) IS NOT NULL THEN
		fault := 'sinks must not have nulls';
	END IF;
	FOREACH given IN ARRAY ARRAY[NEW.period, NEW.renotify, NEW.resolve_after]
	LOOP
		IF given NOT BETWEEN interval '0' AND interval '366 days' OR extract(month FROM given) <> 0 OR extract(year FROM given) <> 0 THEN
			fault := coalesce(fault, 'period, renotify and resolve_after must be between 0 and 366 days, without months');
		END IF;
	END LOOP;
	IF NEW.period = interval '0' OR NEW.renotify < interval '1 second' THEN
		fault := coalesce(fault, CASE NEW.period WHEN interval '0' THEN 'period must be longer than 0' ELSE 'renotify must be 1 second or more' END);
	END IF;
	IF fault IS NOT NULL THEN
		RAISE EXCEPTION '%', fault USING ERRCODE = 'invalid_parameter_value', HINT = coalesce(hint, '');
	END IF;

	-- A restore brings the rules before the sinks.
	IF current_setting('row_security') = 'on' THEN
		EXECUTE format('SELECT n FROM unnest($1) n WHERE NOT EXISTS (SELECT FROM %I.alert_sinks s WHERE s.name = n) LIMIT 1', TG_TABLE_SCHEMA)
			INTO missing USING NEW.sinks;
		IF missing IS NOT NULL THEN
			RAISE EXCEPTION 'alert sink "%" does not exist', missing
				USING ERRCODE = 'foreign_key_violation', HINT = 'Insert it into alert_sinks first.';
		END IF;
	END IF;
	RETURN NEW;
END
$$;

CREATE FUNCTION _validate_alert_sink() RETURNS trigger
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	fault text;
BEGIN
	IF octet_length(NEW.name) NOT BETWEEN 1 AND 200 THEN
		fault := 'name must be 1 to 200 bytes long';
	ELSIF (NEW.kind IN ('slack', 'webhook')) <> (NEW.endpoint IS NOT NULL) THEN
		fault := 'kind and endpoint of an alert sink do not fit';
	ELSIF NEW.kind = 'notify' AND octet_length(coalesce(NEW.channel, '')) NOT BETWEEN 1 AND 63 THEN
		fault := 'kind "notify" needs a channel of 1 to 63 bytes';
	ELSIF NEW.kind IN ('webhook', 'log') AND NEW.channel IS NOT NULL THEN
		fault := format('kind "%s" has no channel', NEW.kind);
	ELSIF octet_length(NEW.channel) NOT BETWEEN 1 AND 255 THEN
		fault := 'channel must be 1 to 255 bytes long';
	END IF;
	IF fault IS NOT NULL THEN
		RAISE EXCEPTION '%', fault USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Kinds "slack" and "webhook" need an endpoint, and kind "notify" a channel.';
	END IF;
	RETURN NEW;
END
$$;

-- The messages of a sink are HTTP jobs of a type of their own. Those of an
-- alert are a group, so that they stay in order while one is tried again.
CREATE FUNCTION _settle_alert_sink() RETURNS trigger
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	rule text;
BEGIN
	IF current_setting('row_security') = 'off' THEN
		RETURN NULL;			-- a restore brings the job types itself
	END IF;
	IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND NEW.name <> OLD.name) THEN
		EXECUTE format('SELECT r.name FROM %I.alert_rules r WHERE $1 = ANY (r.sinks) LIMIT 1', TG_TABLE_SCHEMA)
			INTO rule USING OLD.name;
		IF rule IS NOT NULL THEN
			RAISE EXCEPTION 'alert rule "%" sends to alert sink "%"', rule, OLD.name
				USING ERRCODE = 'foreign_key_violation', HINT = 'Take it out of alert_rules.sinks first, or disable it.';
		END IF;
	END IF;
	IF TG_OP <> 'INSERT' AND OLD.endpoint IS NOT NULL AND (TG_OP = 'DELETE' OR NEW.name <> OLD.name OR NEW.endpoint IS NULL) THEN
		EXECUTE format('UPDATE %I.jobs_queue SET status = ''cancelled'' WHERE job_type = $1 AND status = ''queued''', TG_TABLE_SCHEMA)
			USING 'alert:' || OLD.name;
		EXECUTE format('DELETE FROM %I.job_types WHERE job_type = $1', TG_TABLE_SCHEMA) USING 'alert:' || OLD.name;
	END IF;
	IF TG_OP = 'DELETE' OR NEW.endpoint IS NULL THEN
		RETURN NULL;
	END IF;
	EXECUTE format('INSERT INTO %I.job_types (job_type, owner, runner, endpoint, max_attempts, backoff,'
			' group_concurrency, group_strict, keep_completed, description)'
			' VALUES ($1, $2, ''http'', $3, 12, $4, 1, true, ''1 hour'', ''Messages to an alert sink'')'
			' ON CONFLICT (job_type) DO UPDATE SET owner = EXCLUDED.owner, runner = ''http'','
			' endpoint = EXCLUDED.endpoint, command = NULL', TG_TABLE_SCHEMA)
		USING 'alert:' || NEW.name, NEW.owner, NEW.endpoint,
			'{"strategy": "exponential", "delay": "2 seconds", "max_delay": "10 minutes"}'::jsonb;
	RETURN NULL;
END
$$;

CREATE FUNCTION _alert_rank(severity text) RETURNS integer
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN array_position('{info,warning,critical}'::text[], severity);

CREATE FUNCTION _alert_duration(seconds numeric) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN CASE
		WHEN seconds >= 172800 THEN floor(seconds / 86400) || ' days'
		WHEN seconds >= 7200 THEN floor(seconds / 3600) || ' hours'
		WHEN seconds >= 120 THEN floor(seconds / 60) || ' minutes'
		ELSE floor(seconds) || ' seconds' END;

CREATE FUNCTION _alert_summary(kind text, job_type text, stage text, subject text, value numeric, period interval)
	RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN CASE kind
			WHEN 'cron_late' THEN 'cron task ' || subject
			WHEN 'endpoint_down' THEN 'endpoint ' || subject
			WHEN 'worker_error' THEN subject
			ELSE job_type || CASE stage WHEN '' THEN '' ELSE ', stage ' || stage END END
		|| ': ' || CASE kind
			WHEN 'consecutive_failures' THEN trim_scale(value) || CASE value WHEN 1 THEN ' attempt has failed' ELSE ' attempts in a row have failed' END
			WHEN 'failures' THEN trim_scale(value) || CASE value WHEN 1 THEN ' attempt has' ELSE ' attempts have' END
				|| ' failed within ' || _alert_duration(extract(epoch FROM period))
			WHEN 'failure_rate' THEN trim_scale(round(value * 100, 1)) || ' % of the attempts within '
				|| _alert_duration(extract(epoch FROM period)) || ' have failed'
			WHEN 'dead_letters' THEN trim_scale(value) || CASE WHEN value >= 10000 THEN ' or more' ELSE '' END
				|| CASE value WHEN 1 THEN ' job has' ELSE ' jobs have' END || ' ended without success'
				|| coalesce(' within ' || _alert_duration(extract(epoch FROM period)), '')
			WHEN 'circuit_open' THEN 'its circuit has opened'
			WHEN 'failed_older_than' THEN trim_scale(value) || CASE WHEN value >= 10000 THEN ' or more' ELSE '' END
				|| CASE value WHEN 1 THEN ' job' ELSE ' jobs' END || ' failed more than '
				|| _alert_duration(extract(epoch FROM period)) || ' ago, and nobody has looked after them'
			WHEN 'backlog_age' THEN 'a job has been due for ' || _alert_duration(value)
			WHEN 'no_consumer' THEN 'a job has been due for ' || _alert_duration(value) || ', and nobody claims any'
			WHEN 'cron_late' THEN 'it was due ' || _alert_duration(value) || ' ago, and is not enqueued'
			WHEN 'endpoint_down' THEN trim_scale(value) || ' requests in a row have failed'
			WHEN 'worker_error' THEN trim_scale(value) || CASE value WHEN 1 THEN ' error' ELSE ' errors' END
				|| ' within ' || _alert_duration(extract(epoch FROM period)) END;

CREATE FUNCTION _alert_advice(kind text, job_type text, stage text, subject text) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN CASE
		WHEN kind IN ('consecutive_failures', 'failures', 'failure_rate') THEN
			format('SELECT id, stage, attempts, last_error FROM jobs_queue WHERE job_type = %L AND last_error IS NOT NULL ORDER BY updated_at DESC LIMIT 10', job_type)
		WHEN kind IN ('dead_letters', 'failed_older_than') THEN
			format('SELECT * FROM dead_letter_jobs WHERE job_type = %L ORDER BY updated_at DESC; when the reason is gone: SELECT requeue_jobs(%1$L)', job_type)
		WHEN kind = 'circuit_open' THEN format('SELECT * FROM job_circuit_status WHERE job_type = %L', job_type)
		WHEN kind IN ('backlog_age', 'no_consumer') THEN format('SELECT * FROM job_workers; SELECT * FROM job_type_status WHERE job_type = %L', job_type)
		WHEN kind = 'cron_late' THEN format('SELECT * FROM cron_overview WHERE name = %L', subject)
		WHEN kind = 'endpoint_down' THEN format('SELECT * FROM endpoint_status WHERE name = %L; SELECT * FROM test_endpoint(%1$L)', subject)
		ELSE 'look at the log of the server' END;

-- A message as JSON, whose keys stay: that of one alert, or of several.
CREATE FUNCTION _alert_message(items jsonb) RETURNS jsonb
	LANGUAGE sql STABLE PARALLEL SAFE
	RETURN CASE jsonb_array_length(items)
		WHEN 1 THEN items->0
		ELSE jsonb_build_object('event', 'alert.digest', 'count', jsonb_array_length(items),
			'firing', jsonb_array_length(jsonb_path_query_array(items, '$[*] ? (@.state == "firing")')),
			'resolved', jsonb_array_length(jsonb_path_query_array(items, '$[*] ? (@.state == "resolved")')),
			'severity', items->0->'severity', 'database', items->0->'database', 'service', items->0->'service',
			'alerts', jsonb_path_query_array(items, '$[0 to 19]')) END;

-- In words, a line for each of the first 20.
CREATE FUNCTION _alert_text(items jsonb) RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
	RETURN (SELECT string_agg(concat(upper(a.item->>'state'), CASE a.item->>'state' WHEN 'firing' THEN ' [' || (a.item->>'severity') || ']' END,
					' ', a.item->>'rule', ': ', a.item->>'summary'), E'\n' ORDER BY a.n)
			|| CASE WHEN jsonb_array_length(items) > 20 THEN format(E'\nand %s more', jsonb_array_length(items) - 20) ELSE '' END
		FROM jsonb_array_elements(items) WITH ORDINALITY AS a (item, n) WHERE a.n <= 20);

-- In Slack's messages three characters stand for something else.
CREATE FUNCTION _slack_escape(string text) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN replace(replace(replace(string, '&', '&amp;'), '<', '&lt;'), '>', '&gt;');

CREATE FUNCTION _slack_message(items jsonb, channel text) RETURNS jsonb
	LANGUAGE sql STABLE PARALLEL SAFE
	RETURN jsonb_strip_nulls(jsonb_build_object('channel', channel,
		'text', _slack_escape(CASE jsonb_array_length(items)
			WHEN 1 THEN _alert_text(items)
			ELSE format(E'%s alerts in database %s\n%s', jsonb_array_length(items), items->0->>'database', _alert_text(items)) END),
		'attachments', CASE jsonb_array_length(items) WHEN 1 THEN jsonb_build_array(jsonb_build_object(
			'color', CASE WHEN items->0->>'state' = 'resolved' THEN '#2e7d32'
				ELSE CASE items->0->>'severity' WHEN 'critical' THEN '#c62828' WHEN 'warning' THEN '#f9a825' ELSE '#1565c0' END END,
			'text', _slack_escape(concat_ws(E'\n',
				'since ' || (items->0->>'started_at'),
				'what to do: ' || (items->0->>'advice'),
				'runbook: ' || (items->0->>'runbook'),
				'last error: ' || (items->0->>'error'))),
			'footer', _slack_escape(concat_ws(', ', items->0->>'service', items->0->>'database')))) END));

-- ---------------------------------------------------------------------------
-- Public functions: cron
-- ---------------------------------------------------------------------------

CREATE FUNCTION schedule_cron_task(
		name text,
		schedule text,
		job_type text,
		payload jsonb DEFAULT '{}',
		timezone text DEFAULT 'UTC',
		priority integer DEFAULT 0,
		max_attempts integer DEFAULT NULL,
		stage text DEFAULT '',
		enabled boolean DEFAULT true,
		description text DEFAULT NULL,
		catch_up text DEFAULT 'latest',
		catch_up_limit integer DEFAULT 100,
		start_deadline interval DEFAULT NULL,
		overlap text DEFAULT 'allow',
		jitter interval DEFAULT NULL,
		run_on_start boolean DEFAULT false,
		starts_at timestamptz DEFAULT NULL,
		ends_at timestamptz DEFAULT NULL,
		max_runs bigint DEFAULT NULL,
		unique_key text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_schedule_cron_task';
COMMENT ON FUNCTION schedule_cron_task(text, text, text, jsonb, text, integer, integer, text, boolean, text, text, integer, interval, text, interval, boolean, timestamptz, timestamptz, bigint, text)
	IS 'Creates or replaces the recurring job of that name and returns its id';

CREATE FUNCTION schedule_sql(
		name text,
		schedule text,
		command text,
		payload jsonb DEFAULT '{}',
		timezone text DEFAULT 'UTC',
		priority integer DEFAULT 0,
		max_attempts integer DEFAULT NULL,
		enabled boolean DEFAULT true,
		description text DEFAULT NULL,
		run_as regrole DEFAULT NULL,
		mode text DEFAULT NULL,
		catch_up text DEFAULT 'latest',
		catch_up_limit integer DEFAULT 100,
		start_deadline interval DEFAULT NULL,
		overlap text DEFAULT 'allow',
		jitter interval DEFAULT NULL,
		run_on_start boolean DEFAULT false,
		starts_at timestamptz DEFAULT NULL,
		ends_at timestamptz DEFAULT NULL,
		max_runs bigint DEFAULT NULL,
		unique_key text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_schedule_sql';
COMMENT ON FUNCTION schedule_sql(text, text, text, jsonb, text, integer, integer, boolean, text, regrole, text, text, integer, interval, text, interval, boolean, timestamptz, timestamptz, bigint, text)
	IS 'Creates or replaces a recurring SQL statement, which the server runs as run_as (NULL: the caller, or the owner that the task has)';

CREATE FUNCTION run_cron_task(name text, instant timestamptz DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_run_cron_task';
COMMENT ON FUNCTION run_cron_task(text, timestamptz)
	IS 'Enqueues a job of a recurring job now, for an instant (NULL: for now), and returns its id; the schedule goes on as it was';

CREATE FUNCTION pause_cron_task(name text, reason text DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_pause_cron_task';
COMMENT ON FUNCTION pause_cron_task(text, text)
	IS 'Disables a recurring job until resume_cron_task(); false when it is disabled already';

CREATE FUNCTION resume_cron_task(name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_resume_cron_task';
COMMENT ON FUNCTION resume_cron_task(text)
	IS 'Enables a recurring job again, from its next instant on; false when it is enabled already';

CREATE FUNCTION unschedule_cron_task(name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_unschedule_cron_task';
COMMENT ON FUNCTION unschedule_cron_task(text)
	IS 'Deletes a recurring job; false when there is none of that name';

CREATE FUNCTION enqueue_cron_tasks()
	RETURNS integer
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_enqueue_cron_tasks';
COMMENT ON FUNCTION enqueue_cron_tasks()
	IS 'Enqueues a job for every cron task that is due and returns how many; safe to call at any time, by anyone at once';

CREATE FUNCTION cron_is_valid(schedule text)
	RETURNS boolean
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'jobqueue_cron_is_valid';
COMMENT ON FUNCTION cron_is_valid(text) IS 'Whether a schedule is one that a cron task accepts';

CREATE FUNCTION cron_describe(schedule text)
	RETURNS text
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'jobqueue_cron_describe';
COMMENT ON FUNCTION cron_describe(text) IS 'What a schedule says, in words';

CREATE FUNCTION cron_next_runs(
		schedule text,
		timezone text DEFAULT 'UTC',
		after timestamptz DEFAULT now(),
		n integer DEFAULT 5)
	RETURNS SETOF timestamptz
	LANGUAGE c STABLE PARALLEL SAFE ROWS 5 AS 'MODULE_PATHNAME', 'jobqueue_cron_next_runs';
COMMENT ON FUNCTION cron_next_runs(text, text, timestamptz, integer)
	IS 'The next n instants of a schedule';

CREATE FUNCTION http_check_url(url text)
	RETURNS text
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'jobqueue_http_check_url';
COMMENT ON FUNCTION http_check_url(text) IS 'Why a request to a URL would be refused now; null: it would not be';

CREATE FUNCTION import_crontab(
		crontab text,
		job_type text DEFAULT 'sql',
		timezone text DEFAULT 'UTC',
		name_prefix text DEFAULT 'crontab')
	RETURNS TABLE (line integer, id bigint, name text, schedule text, command text)
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	schema regnamespace;
	entries_call text;
	schedule_call text;
	missing text;
	entry record;
	code text;
	reason text;
	detail text;
	hint text;
BEGIN
	missing := CASE WHEN crontab IS NULL THEN 'crontab' WHEN job_type IS NULL THEN 'job_type'
		WHEN timezone IS NULL THEN 'timezone' WHEN name_prefix IS NULL THEN 'name_prefix' END;
	IF missing IS NOT NULL THEN
		RAISE EXCEPTION '% must not be null', missing USING ERRCODE = 'null_value_not_allowed';
	ELSIF octet_length(job_type) NOT BETWEEN 1 AND 255 THEN
		RAISE EXCEPTION 'job_type must be 1 to 255 bytes long' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	SELECT e.extnamespace INTO STRICT schema FROM pg_extension e WHERE e.extname = 'jobqueue';
	EXECUTE format('SELECT %1$s._exact_call($1, $2), %1$s._exact_call($3, $4)', schema)
		INTO schedule_call, entries_call
		USING CASE job_type WHEN 'sql' THEN 'schedule_sql' ELSE 'schedule_cron_task' END::text,
			CASE job_type WHEN 'sql' THEN '{name,schedule,timezone,command}' ELSE '{name,schedule,timezone,payload,job_type}' END::text[],
			'_crontab_entries'::text, '{crontab,job_type,default_zone,name_prefix}'::text[];

	-- All lines are read before the first is imported.
	FOR entry IN EXECUTE replace(entries_call, 'SELECT ', 'SELECT * FROM ') USING crontab, job_type, timezone, name_prefix
	LOOP
		line := entry.line;
		name := entry.name;
		schedule := entry.schedule;
		command := entry.command;
		BEGIN
			IF job_type = 'sql' THEN
				EXECUTE schedule_call INTO id USING name, schedule, entry.zone, command;
			ELSE
				EXECUTE schedule_call INTO id USING name, schedule, entry.zone,
					jsonb_strip_nulls(jsonb_build_object('command', command, 'input', entry.input)), job_type;
			END IF;
		EXCEPTION WHEN syntax_error OR feature_not_supported OR data_exception OR program_limit_exceeded
				OR insufficient_privilege THEN
			GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, reason = MESSAGE_TEXT,
				detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
			RAISE EXCEPTION 'line % of the crontab %', line,
					CASE code WHEN '42501' THEN 'cannot be imported' ELSE 'is invalid' END
				USING ERRCODE = CASE code WHEN '42501' THEN code ELSE '22023' END,
					DETAIL = concat_ws(' ', upper(left(reason, 1)) || substr(reason, 2) || '.', nullif(detail, '')),
					HINT = hint;
		END;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION import_crontab(text, text, text, text)
	IS 'Makes every entry of a crontab a cron task: an SQL statement, or a job {"command": ...} of another type; all or none';

CREATE FUNCTION import_pg_cron(enable boolean DEFAULT false)
	RETURNS TABLE (jobid bigint, jobname text, task_id bigint, name text, problem text)
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	schema regnamespace;
	schedule_call text;
	zone text := coalesce(nullif(current_setting('cron.timezone', true), ''), 'GMT');
	owner oid;
	is_of_pg_cron boolean;
	job jsonb;
	run_as oid;
	schedule text;
	there record;
	is_on boolean;
	detail text;
	twice bigint[] := '{}';
BEGIN
	IF enable IS NULL THEN
		RAISE EXCEPTION 'enable must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	SELECT c.relowner, EXISTS (SELECT FROM pg_depend d
			JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
			WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e' AND e.extname = 'pg_cron')
		INTO owner, is_of_pg_cron
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname = 'cron' AND c.relname = 'job';
	IF owner IS NULL THEN
		RAISE EXCEPTION 'pg_cron is not in this database'
			USING ERRCODE = 'undefined_table',
				HINT = 'Its table cron.job is in the database that the setting cron.database_name names.';
	END IF;
	-- What its rows say runs as the roles that they name.
	IF NOT is_of_pg_cron
		AND owner <> (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user)
		AND NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = owner) THEN
		RAISE EXCEPTION 'table cron.job belongs to role %, which could have written anything there', owner::regrole
			USING ERRCODE = 'insufficient_privilege',
				HINT = 'It is not a table of the extension pg_cron. If you trust its rows, make it belong to the role that imports.';
	END IF;
	SELECT e.extnamespace INTO STRICT schema FROM pg_extension e WHERE e.extname = 'jobqueue';
	EXECUTE format('SELECT %s._exact_call($1, $2)', schema) INTO schedule_call
		USING 'schedule_sql'::text, '{name,schedule,command,timezone,enabled,run_as,description,overlap,max_attempts}'::text[];

	-- Which columns there are depends on the version.
	FOR job IN EXECUTE 'SELECT to_jsonb(j) FROM cron.job j ORDER BY j.jobid'
	LOOP
		jobid := job->>'jobid';
		jobname := job->>'jobname';
		name := coalesce(jobname, 'pg_cron job ' || jobid);
		task_id := NULL;
		schedule := btrim(regexp_replace(job->>'schedule', '\s+', ' ', 'g'));
		run_as := (SELECT r.oid FROM pg_roles r WHERE r.rolname = job->>'username');
		problem := CASE
			WHEN job->>'database' <> current_database() THEN
				format('the job is for the database "%s"', job->>'database')
			WHEN coalesce(current_setting('cron.use_background_workers', true), 'off') <> 'on'
				AND job->>'nodename' NOT IN ('', 'localhost', '127.0.0.1', '::1') AND job->>'nodename' NOT LIKE '/%' THEN
				format('the job runs on the host "%s"', job->>'nodename')
			WHEN coalesce(current_setting('cron.use_background_workers', true), 'off') <> 'on'
				AND job->>'nodeport' <> current_setting('port') THEN
				format('the job runs on port %s, this server has port %s', job->>'nodeport', current_setting('port'))
			WHEN run_as IS NULL THEN
				format('role "%s" does not exist', job->>'username')
			WHEN schedule ~ '^@\S+ ' THEN
				format('pg_cron ignores what follows %s; write it without', split_part(schedule, ' ', 1))
			WHEN schedule ~ '^[^@ ]+( \S+){5}' AND schedule !~* '^\d+ ?seconds?$' THEN
				format('pg_cron ignores what follows the fifth field: "%s"; write five fields',
					substring(schedule FROM '^(?:\S+ ){5}(.*)$'))
			WHEN schedule LIKE '%#%' THEN
				'pg_cron ignores "#" and what follows it in a field; write the field without, or make a task of what was meant'
			WHEN current_setting('cron.match_dom_and_dow', true) = 'on'
				AND schedule ~ '^\S+ \S+ [^* ]\S* \S+ [^* ]' THEN
				'with cron.match_dom_and_dow a day must match day of month and day of week both; here the schedule means either'
			END;
		IF problem IS NULL THEN
			schedule := regexp_replace(schedule, '^(\d+) ?seconds?$', 'every \1 seconds', 'i');
			schedule := regexp_replace(schedule, '^(\S+ \S+) \$ ', '\1 L ');
			schedule := regexp_replace(schedule, '^@restart$', '@reboot');
			there := NULL;
			BEGIN
				EXECUTE format('SELECT t.enabled, t.description FROM %s.cron_tasks t WHERE t.name = $1', schema) INTO there USING name;
				is_on := coalesce(there.enabled, false) OR (enable AND coalesce((job->>'active')::boolean, true));
				IF there.enabled IS NOT NULL AND there.description IS DISTINCT FROM 'pg_cron job ' || jobid THEN
					problem := format('there is another cron task "%s"', name);
				ELSE
					EXECUTE schedule_call INTO task_id
						USING name, schedule, job->>'command', zone, is_on, run_as::regrole, 'pg_cron job ' || jobid, 'skip'::text, 1;
					IF is_on AND coalesce((job->>'active')::boolean, true) THEN
						twice := twice || jobid;
					END IF;
				END IF;
			EXCEPTION WHEN OTHERS THEN
				-- what is no fault of the job: read-only, deadlock, resources
				IF left(SQLSTATE, 2) IN ('25', '40', '53', '57', '58', 'XX') THEN
					RAISE;
				END IF;
				GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
				problem := concat_ws(': ', problem, nullif(detail, ''));
			END;
		END IF;
		RETURN NEXT;
	END LOOP;
	IF twice <> '{}' THEN
		RAISE WARNING 'these jobs of pg_cron are cron tasks now, and both run: %', array_to_string(twice, ', ')
			USING HINT = 'Before you commit, switch them off there: SELECT cron.alter_job(jobid, active => false), or cron.unschedule(jobid).';
	END IF;
END
$$;
COMMENT ON FUNCTION import_pg_cron(boolean)
	IS 'Makes the jobs of pg_cron cron tasks, disabled unless told otherwise; problem: why one was not';

-- ---------------------------------------------------------------------------
-- Public functions: secrets
-- ---------------------------------------------------------------------------

CREATE FUNCTION set_secret(name text, value text, keep_previous interval DEFAULT '1 day')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_set_secret';
COMMENT ON FUNCTION set_secret(text, text, interval)
	IS 'Stores a secret that endpoints may name, or changes it; the value that was there stays valid for keep_previous';

CREATE FUNCTION set_secret_file(name text, path text)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_set_secret_file';
COMMENT ON FUNCTION set_secret_file(text, text)
	IS 'Makes a secret of what is in a file of the server, whenever it is needed';

CREATE FUNCTION drop_secret(name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_drop_secret';
COMMENT ON FUNCTION drop_secret(text)
	IS 'Deletes a secret; false when there is none of that name';

CREATE FUNCTION secret_problem(name text, role regrole DEFAULT NULL)
	RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'jobqueue_secret_problem';
COMMENT ON FUNCTION secret_problem(text, regrole)
	IS 'Why endpoints of a role (NULL: the caller) cannot use a secret; NULL: they can';

-- ---------------------------------------------------------------------------
-- Public functions: see
-- ---------------------------------------------------------------------------

CREATE FUNCTION job_state(job jobs_queue)
	RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE
		WHEN job.status = 'queued' AND job.attempts > 0 THEN 'retrying'
		WHEN job.status = 'queued' AND job.scheduled_at > now() THEN 'scheduled'
		WHEN job.status = 'running' AND job.holder IS NULL AND job.lease_expires_at < now() THEN 'stalled'
		ELSE job.status
	END;
END;
COMMENT ON FUNCTION job_state(jobs_queue)
	IS 'The status of a job, with queued and running told apart further: scheduled, retrying, stalled';

CREATE FUNCTION job_timeline(job_id bigint)
	RETURNS TABLE (at timestamptz, event text, detail jsonb)
	LANGUAGE sql STABLE PARALLEL SAFE ROWS 20
BEGIN ATOMIC
	SELECT e.at, e.event, e.detail
	FROM (
		SELECT r.instant AS at, 0 AS place, 0::bigint AS n, 'planned' AS event, jsonb_strip_nulls(jsonb_build_object(
				'task_id', r.task_id, 'task', t.name, 'kind', r.kind)) AS detail
		FROM jobs_queue q
			JOIN cron_runs r ON r.task_id = q.cron_task_id AND r.instant = q.cron_instant
			LEFT JOIN cron_tasks t ON t.id = r.task_id
		WHERE q.id = job_timeline.job_id AND r.job_id = q.id
		UNION ALL
		SELECT q.created_at, 1, 0, 'created', jsonb_strip_nulls(jsonb_build_object('job_type', q.job_type,
				'owner', q.owner, 'priority', q.priority, 'max_attempts', q.max_attempts, 'unique_key', q.unique_key,
				'group_key', q.group_key, 'correlation_id', q.correlation_id))
		FROM jobs_queue q WHERE q.id = job_timeline.job_id
		UNION ALL
		SELECT q.created_at, 2, 0, 'blocked', jsonb_build_object('depends_on', d.parents)
		FROM jobs_queue q
			CROSS JOIN LATERAL (
				SELECT jsonb_agg(p.depends_on ORDER BY p.depends_on) AS parents
				FROM job_dependencies p
				WHERE p.job_id = q.id AND (p.ended_at IS NULL OR p.ended_at > q.created_at)) d
		WHERE q.id = job_timeline.job_id AND d.parents IS NOT NULL
		UNION ALL
		SELECT d.ended_at, 3, d.depends_on, 'parent_ended', jsonb_strip_nulls(jsonb_build_object('job_id', d.depends_on,
				'job_type', d.job_type, 'status', d.status,
				'on_failure', CASE WHEN d.status <> 'completed' THEN d.on_failure END))
		FROM job_dependencies d WHERE d.job_id = job_timeline.job_id AND d.status IS NOT NULL
		UNION ALL
		SELECT d.at, 4, 0, 'unblocked', '{}'
		FROM jobs_queue q
			CROSS JOIN LATERAL (
				SELECT max(p.ended_at) AS at FROM job_dependencies p WHERE p.job_id = q.id
				HAVING bool_and(p.status = 'completed' OR (p.status IS NOT NULL AND p.on_failure = 'run'))) d
		WHERE q.id = job_timeline.job_id AND d.at > q.created_at
		UNION ALL
		SELECT q.scheduled_at, 5, 0, 'scheduled', jsonb_build_object('attempt',
				CASE WHEN q.status IN ('queued', 'blocked') THEN q.attempts + 1 ELSE q.attempts END)
		FROM jobs_queue q WHERE q.id = job_timeline.job_id AND q.scheduled_at > q.created_at
		UNION ALL
		SELECT c.started_at, 6, c.claim_no, 'started', jsonb_strip_nulls(jsonb_build_object('claim_no', c.claim_no,
				'attempt', c.attempt, 'stage', nullif(c.stage, ''), 'worker_id', c.worker_id, 'worker', w.name))
		FROM (
				SELECT r.started_at, r.claim_no, r.attempt, r.stage, r.worker_id
				FROM job_runs r WHERE r.job_id = job_timeline.job_id AND r.started_at IS NOT NULL
				UNION ALL
				SELECT q.locked_at, q.claim_no, q.attempts, q.stage, q.locked_by
				FROM jobs_queue q WHERE q.id = job_timeline.job_id AND q.status = 'running') c
			LEFT JOIN registered_workers w ON w.worker_id = c.worker_id
		UNION ALL
		SELECT l.logged_at, 7, l.id, 'log', jsonb_build_object('claim_no', l.claim_no, 'level', l.level, 'message', l.message)
				|| CASE WHEN l.data IS NULL THEN '{}' ELSE jsonb_build_object('data', l.data) END
		FROM job_logs l WHERE l.job_id = job_timeline.job_id
		UNION ALL
		SELECT q.cancel_requested_at, 8, 0, 'cancel_requested', '{}'
		FROM jobs_queue q WHERE q.id = job_timeline.job_id AND q.cancel_requested_at IS NOT NULL
		UNION ALL
		SELECT r.finished_at, 9, r.claim_no, r.status, jsonb_strip_nulls(jsonb_build_object('claim_no', r.claim_no,
				'attempt', r.attempt, 'charged', r.charged, 'error', r.error, 'command_tag', r.command_tag))
		FROM job_runs r WHERE r.job_id = job_timeline.job_id
		UNION ALL
		SELECT q.finished_at, 10, 0, 'finished', jsonb_strip_nulls(jsonb_build_object('status', q.status,
				'attempts', q.attempts, 'error', CASE WHEN q.status <> 'completed' THEN q.last_error END))
		FROM jobs_queue q WHERE q.id = job_timeline.job_id AND q.finished_at IS NOT NULL
	) e
	ORDER BY e.at, e.place, e.n;
END;
COMMENT ON FUNCTION job_timeline(bigint)
	IS 'What is known of a job, in order: its parents, claims, log lines and ends';

-- ---------------------------------------------------------------------------
-- Monitor
-- ---------------------------------------------------------------------------

-- What the monitor process answers. It runs these as the role of its entry in
-- jobqueue.monitor, the first one in read-only transactions.
CREATE FUNCTION monitor_get(
		path text,
		query jsonb DEFAULT '{}',
		accept text DEFAULT '',
		OUT status integer,
		OUT content_type text,
		OUT body text)
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	schema regnamespace;
	document jsonb;
	problem text;
	is_open boolean := false;
BEGIN
	SELECT e.extnamespace INTO STRICT schema FROM pg_extension e WHERE e.extname = 'jobqueue';
	status := 200;
	content_type := 'application/json; charset=utf-8';
	CASE path
		WHEN '/health' THEN
			EXECUTE format('SELECT to_jsonb(%s.job_health_json())', schema) INTO document;
			IF document ->> 'status' = 'fail' THEN
				status := 503;
			END IF;
		WHEN '/ready' THEN
			EXECUTE format($query$
				SELECT CASE WHEN NOT current_setting('jobqueue.enabled')::boolean THEN 'jobqueue.enabled is off'
					WHEN NOT EXISTS (SELECT FROM %s._server_workers() w JOIN pg_database d ON d.oid = w.database
						WHERE w.kind = 'scheduler' AND w.state = 'running' AND d.datname = current_database())
						THEN 'no scheduler is running for this database' END
				$query$, schema) INTO problem;
			document := jsonb_strip_nulls(jsonb_build_object('ready', problem IS NULL, 'reason', problem));
			IF problem IS NOT NULL THEN
				status := 503;
			END IF;
		WHEN '/metrics' THEN
			is_open := accept LIKE '%application/openmetrics-text%';
			content_type := CASE WHEN is_open THEN 'application/openmetrics-text; version=1.0.0; charset=utf-8'
				ELSE 'text/plain; version=0.0.4; charset=utf-8' END;
			EXECUTE format('SELECT %s.job_metrics_prometheus($1)', schema) INTO body USING is_open;
			RETURN;
		WHEN '/api/metrics', '/api/metrics/enhanced' THEN
			EXECUTE format('SELECT to_jsonb(%s.job_metrics())', schema) INTO document;
		ELSE
			EXECUTE format('SELECT %s._dashboard_get($1, $2)', schema) INTO document USING path, query;
			IF document IS NULL THEN
				status := 404;
				document := jsonb_build_object('error', 'there is nothing of this name');
			END IF;
	END CASE;
	body := document::text || E'\n';
END
$$;
COMMENT ON FUNCTION monitor_get(text, jsonb, text)
	IS 'What the monitor answers to GET requests';

CREATE FUNCTION monitor_post(
		path text,
		body jsonb,
		client text,
		OUT status integer,
		OUT content_type text,
		OUT body_text text)
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	schema regnamespace;
	document jsonb;
	code text;
BEGIN
	SELECT e.extnamespace INTO STRICT schema FROM pg_extension e WHERE e.extname = 'jobqueue';
	status := 200;
	content_type := 'application/json; charset=utf-8';
	EXECUTE format('SELECT %s._dashboard_act($1, $2, $3)', schema) INTO document
		USING substr(path, length('/api/actions/') + 1), body, client;
	-- As for errors that are raised: the row of monitor_actions is to stay.
	IF document ? 'error' THEN
		code := document->>'sqlstate';
		document := document || jsonb_build_object('code', code);
		status := CASE WHEN left(code, 2) IN ('22', '54') THEN 400
			WHEN code = '42501' THEN 403
			WHEN code IN ('57014', '55P03') THEN 503
			WHEN left(code, 2) = 'XX' THEN 500
			ELSE 409 END;
	END IF;
	body_text := document::text || E'\n';
END
$$;
COMMENT ON FUNCTION monitor_post(text, jsonb, text)
	IS 'What the monitor does, and answers, on POST requests with the token';

-- ---------------------------------------------------------------------------
-- Public functions: health
-- ---------------------------------------------------------------------------

-- A check that cannot be made says so, and the others are made all the same:
-- nothing but the end of the session, or a cancellation, stops this.
CREATE FUNCTION job_health()
	RETURNS TABLE ("check" text, status text, detail text, hint text, value numeric, data jsonb)
	LANGUAGE plpgsql VOLATILE ROWS 23
	SET search_path = pg_catalog, pg_temp
	SET lock_timeout = '500ms'
	SET jit = off
AS $$
DECLARE
	schema regnamespace;
	problem text;
BEGIN
	SELECT e.extnamespace INTO STRICT schema FROM pg_extension e WHERE e.extname = 'jobqueue';
	BEGIN
		-- loads the library, and its settings with it
		EXECUTE format('SELECT FROM %s._queue_status()', schema);
	EXCEPTION WHEN OTHERS THEN
		NULL; -- the checks will say it
	END;
	FOREACH "check" IN ARRAY '{library,queue,launcher,scheduler,workers,worker_slots,worker_errors,monitors,job_types,circuits,consumers,
		oldest_due_job,dead_letters,failed_jobs,cron_late,cron_disabled,endpoints,alert_sinks,snapshots,dead_rows,indexes,shared_memory,
		sequences,transaction_ids}'::text[]
	LOOP
		BEGIN
			EXECUTE format('SELECT h.status, h.detail, CASE WHEN h.status <> ''ok'' THEN h.hint END, h.value, h.data FROM %s.%I h',
				schema, '_health_' || "check") INTO STRICT status, detail, hint, value, data;
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT;
			status := 'fail';
			detail := format('could not be checked: %s (%s)', problem, SQLSTATE);
			hint := CASE SQLSTATE WHEN '42501' THEN 'Call grant_job_role() again for this role: it may be older than the check.'
				WHEN '55P03' THEN 'Somebody has locked one of the tables: see pg_locks.' ELSE 'The server log may say more.' END;
			value := NULL;
			data := NULL;
			IF SQLSTATE = '55P03' THEN
				PERFORM set_config('lock_timeout', '1ms', true); -- whoever it is, the others need not wait for him
			END IF;
		END;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION job_health()
	IS 'One row per check: ok, warn or fail, what there is to say and what to do';

CREATE FUNCTION job_health_json() RETURNS jsonb
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	checks jsonb;
	worst text;
BEGIN
	EXECUTE format('SELECT jsonb_agg(to_jsonb(h)), CASE WHEN bool_or(h.status = ''fail'') THEN ''fail'' WHEN bool_or(h.status = ''warn'') THEN ''warn'' ELSE ''ok'' END FROM %s.job_health() h',
		(SELECT e.extnamespace::regnamespace FROM pg_extension e WHERE e.extname = 'jobqueue')) INTO checks, worst;
	RETURN jsonb_build_object('status', worst,
		'timestamp', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
		'uptime_ms', floor(1000 * extract(epoch FROM clock_timestamp() - pg_postmaster_start_time()))::bigint,
		'checks', checks);
END
$$;
COMMENT ON FUNCTION job_health_json()
	IS 'job_health() as one document: status (the worst of all checks), timestamp, uptime_ms, checks';

-- ---------------------------------------------------------------------------
-- Triggers
-- ---------------------------------------------------------------------------

CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON jobs_queue
	FOR EACH ROW EXECUTE FUNCTION _guard_job();
-- Fires for replicated rows too: the lanes of claims must know of them; and for
-- those that are not queued, which are counted.
CREATE TRIGGER hint AFTER INSERT OR UPDATE ON jobs_queue_live
	FOR EACH ROW EXECUTE FUNCTION _hint_job();
ALTER TABLE jobs_queue_live ENABLE ALWAYS TRIGGER hint;
CREATE TRIGGER release_dependents AFTER INSERT OR UPDATE OF status ON jobs_queue_done
	FOR EACH ROW EXECUTE FUNCTION _release_dependents();
CREATE TRIGGER cancel_dependents AFTER DELETE ON jobs_queue
	REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION _cancel_dependents();
CREATE TRIGGER cancel_all_dependents AFTER TRUNCATE ON jobs_queue
	FOR EACH STATEMENT EXECUTE FUNCTION _cancel_dependents();
CREATE TRIGGER cancel_dependents AFTER DELETE ON jobs_queue_live
	REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION _cancel_dependents();
CREATE TRIGGER cancel_all_dependents AFTER TRUNCATE ON jobs_queue_live
	FOR EACH STATEMENT EXECUTE FUNCTION _cancel_dependents();
CREATE TRIGGER cancel_dependents AFTER DELETE ON jobs_queue_done
	REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION _cancel_dependents();
CREATE TRIGGER cancel_all_dependents AFTER TRUNCATE ON jobs_queue_done
	FOR EACH STATEMENT EXECUTE FUNCTION _cancel_dependents();
CREATE TRIGGER truncated AFTER TRUNCATE ON jobs_queue
	FOR EACH STATEMENT EXECUTE FUNCTION _forget_truncated();
CREATE TRIGGER truncated AFTER TRUNCATE ON jobs_queue_live
	FOR EACH STATEMENT EXECUTE FUNCTION _forget_truncated();
CREATE TRIGGER truncated AFTER TRUNCATE ON jobs_queue_done
	FOR EACH STATEMENT EXECUTE FUNCTION _forget_truncated();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON job_types
	FOR EACH ROW EXECUTE FUNCTION _guard_job_type('job_type', 'runner', 'command', 'endpoint');
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON job_types
	FOR EACH STATEMENT EXECUTE FUNCTION _job_types_changed();
ALTER TABLE job_types ENABLE ALWAYS TRIGGER changed;
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON worker_stops
	FOR EACH STATEMENT EXECUTE FUNCTION _activity_changed();
ALTER TABLE worker_stops ENABLE ALWAYS TRIGGER changed;
CREATE TRIGGER replace BEFORE INSERT ON database_identity
	FOR EACH ROW EXECUTE FUNCTION _replace_identity();
ALTER TABLE database_identity ENABLE ALWAYS TRIGGER replace;
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON database_identity
	FOR EACH STATEMENT EXECUTE FUNCTION _activity_changed();
ALTER TABLE database_identity ENABLE ALWAYS TRIGGER changed;
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON cron_tasks
	FOR EACH ROW EXECUTE FUNCTION _guard_cron_task('id', 'name', 'schedule', 'timezone', 'job_type', 'payload', 'stage', 'unique_key');
CREATE TRIGGER forget AFTER DELETE ON cron_tasks
	FOR EACH ROW EXECUTE FUNCTION _forget_cron_task();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON cron_tasks
	FOR EACH STATEMENT EXECUTE FUNCTION _cron_tasks_changed();
ALTER TABLE cron_tasks ENABLE ALWAYS TRIGGER changed;
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON http_endpoints
	FOR EACH ROW EXECUTE FUNCTION _guard_http_endpoint('name', 'url', 'method', 'headers', 'body', 'body_type', 'batch_body',
		'batch_results', 'signing_secret', 'client_certificate', 'tls_ca', 'max_redirects');
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON http_endpoints
	FOR EACH STATEMENT EXECUTE FUNCTION _http_endpoints_changed();
ALTER TABLE http_endpoints ENABLE ALWAYS TRIGGER changed;
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON http_secrets
	FOR EACH ROW EXECUTE FUNCTION _guard_owned('name', 'previous_until', 'file');
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON http_secrets
	FOR EACH STATEMENT EXECUTE FUNCTION _definitions_changed();
ALTER TABLE http_secrets ENABLE ALWAYS TRIGGER changed;
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON http_secret_values
	FOR EACH STATEMENT EXECUTE FUNCTION _definitions_changed();
ALTER TABLE http_secret_values ENABLE ALWAYS TRIGGER changed;
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON event_subscriptions
	FOR EACH ROW EXECUTE FUNCTION _guard_event_subscription('event_type', 'job_type');
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON event_subscriptions
	FOR EACH STATEMENT EXECUTE FUNCTION _definitions_changed();
ALTER TABLE event_subscriptions ENABLE ALWAYS TRIGGER changed;
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON job_circuits
	FOR EACH ROW EXECUTE FUNCTION _guard_circuit();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON job_circuits
	FOR EACH STATEMENT EXECUTE FUNCTION _circuits_changed();
ALTER TABLE job_circuits ENABLE ALWAYS TRIGGER changed;
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON alert_sinks
	FOR EACH ROW EXECUTE FUNCTION _guard_owned('name', 'kind', 'endpoint', 'channel', 'include_errors');
CREATE TRIGGER validate BEFORE INSERT OR UPDATE ON alert_sinks
	FOR EACH ROW EXECUTE FUNCTION _validate_alert_sink();
CREATE TRIGGER settle AFTER INSERT OR UPDATE OR DELETE ON alert_sinks
	FOR EACH ROW EXECUTE FUNCTION _settle_alert_sink();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON alert_rules
	FOR EACH ROW EXECUTE FUNCTION _guard_owned('name');
CREATE TRIGGER validate BEFORE INSERT OR UPDATE ON alert_rules
	FOR EACH ROW EXECUTE FUNCTION _validate_alert_rule();

-- ---------------------------------------------------------------------------
-- Views
-- ---------------------------------------------------------------------------

CREATE VIEW job_stats AS
	SELECT q.job_type, q.status, count(*) AS jobs,
		count(*) FILTER (WHERE q.status = 'queued' AND q.scheduled_at <= now()) AS ready,
		min(q.scheduled_at) FILTER (WHERE q.status = 'queued') AS oldest_scheduled_at,
		max(q.updated_at) AS last_change_at,
		count(*) FILTER (WHERE q.status = 'running' AND q.holder IS NULL AND q.lease_expires_at < now()) AS stalled
	FROM jobs_queue q
	GROUP BY q.job_type, q.status;
COMMENT ON VIEW job_stats IS 'Jobs counted by job type and status';

-- A barrier: a function in a query of this view sees running jobs, no others.
CREATE VIEW running_jobs WITH (security_barrier) AS
	SELECT q.id, q.job_type, q.stage, job_state(q) AS state, q.attempts, q.max_attempts,
		q.correlation_id, q.locked_by AS worker_id, w.name AS worker_name, q.locked_at,
		now() - q.locked_at AS running_for, q.lease_expires_at,
		q.holder IS NOT NULL AS in_server, q.cancel_requested_at
	FROM jobs_queue q
		LEFT JOIN registered_workers w ON w.worker_id = q.locked_by
	WHERE q.status = 'running';
COMMENT ON VIEW running_jobs IS 'Jobs that a worker holds now, without payloads';

-- updated_at of a running job is its claim, or its last heartbeat. A job in
-- the server needs no lease: its worker is there or not.
CREATE VIEW stalled_jobs WITH (security_barrier) AS
	SELECT q.id, q.job_type, q.stage,
		CASE WHEN q.holder IS NOT NULL THEN coalesce(s.state, 'lost')
			WHEN q.lease_expires_at < now() THEN 'expired' ELSE 'silent' END AS state,
		q.attempts, q.max_attempts, q.correlation_id, q.locked_by AS worker_id, w.name AS worker_name, q.locked_at,
		q.updated_at AS last_sign_at, q.lease_expires_at,
		CASE WHEN q.holder IS NULL AND q.lease_expires_at < now() THEN now() - q.lease_expires_at END AS overdue,
		(SELECT count(*) FROM job_runs r WHERE r.job_id = q.id AND r.status IN ('expired', 'crashed')) AS lost_claims
	FROM jobs_queue q
		LEFT JOIN registered_workers w ON w.worker_id = q.locked_by
		LEFT JOIN _server_workers() s ON s.worker_id = q.locked_by
	WHERE q.status = 'running' AND CASE WHEN q.holder IS NULL
		THEN now() - q.updated_at > q.lease_expires_at - now()
		ELSE s.worker_id IS NULL OR s.state = 'stuck' END;
COMMENT ON VIEW stalled_jobs IS 'Running jobs whose outside worker has said nothing for more than half of its lease, or whose worker in the server is stuck or gone';

CREATE VIEW dead_letter_jobs AS
	SELECT q.id, q.correlation_id, q.job_type, q.stage, q.attempts, q.last_error, q.payload, q.status, q.updated_at
	FROM jobs_queue q
	WHERE q.status IN ('error', 'failed');
COMMENT ON VIEW dead_letter_jobs IS 'Jobs that ended without success, for redrive';

CREATE VIEW cron_overview AS
	SELECT t.id, t.name, t.owner, t.schedule, t.timezone, t.job_type, t.enabled, t.disabled_reason,
		t.next_run_at,
		CASE WHEN t.enabled AND t.next_run_at < now() THEN now() - t.next_run_at END AS late_by,
		t.last_instant, t.last_enqueued_at, t.last_enqueued_at - t.last_instant AS last_lateness,
		t.last_job_id, coalesce(q.status, r.status) AS last_job_status,
		t.run_count, t.missed_count, t.skipped_count
	FROM cron_tasks t
		LEFT JOIN jobs_queue q ON q.id = t.last_job_id
		LEFT JOIN LATERAL (
			SELECT j.status FROM job_runs j
			WHERE j.job_id = t.last_job_id AND q.id IS NULL
			ORDER BY j.claim_no DESC LIMIT 1) r ON true;
COMMENT ON VIEW cron_overview IS 'Recurring jobs with their next and last runs, how late they were, and what was left out';

CREATE VIEW job_workers AS
	SELECT 'external' AS kind, w.worker_id, r.name, r.registered_by AS role, NULL::integer AS pid,
		CASE WHEN x.worker_id IS NULL THEN CASE WHEN h.job_id IS NULL THEN 'idle' ELSE 'active' END
			ELSE CASE WHEN h.job_id IS NULL THEN 'stopped' ELSE 'stopping' END
			END AS state,
		coalesce(h.running_jobs, 0) AS running_jobs, h.job_id, h.job_type, r.registered_at AS started_at,
		greatest(r.last_seen_at, h.last_claim_at) AS last_seen_at, x.reason AS stop_reason
	FROM (SELECT worker_id FROM registered_workers
		UNION SELECT worker_id FROM worker_stops
		UNION SELECT locked_by FROM jobs_queue_live WHERE status = 'running' AND holder IS NULL) w
		LEFT JOIN registered_workers r ON r.worker_id = w.worker_id
		LEFT JOIN worker_stops x ON x.worker_id = w.worker_id
		LEFT JOIN (
			SELECT q.locked_by, count(*) AS running_jobs, max(q.locked_at) AS last_claim_at,
				(array_agg(q.id ORDER BY q.locked_at, q.id))[1] AS job_id,
				(array_agg(q.job_type ORDER BY q.locked_at, q.id))[1] AS job_type
			FROM jobs_queue_live q
			WHERE q.status = 'running' AND q.holder IS NULL
			GROUP BY q.locked_by) h ON h.locked_by = w.worker_id
	UNION ALL
	SELECT s.kind, s.worker_id, NULL, s.role::regrole, s.pid, s.state,
		CASE WHEN s.kind = 'dispatcher' THEN (
				SELECT count(*) FROM jobs_queue_live h
				WHERE h.status = 'running' AND h.locked_by = s.worker_id)
			WHEN s.job_id IS NULL THEN 0 ELSE 1 END, s.job_id, q.job_type, s.started_at, s.last_cycle_at, NULL
	FROM _server_workers() s
		LEFT JOIN jobs_queue_live q ON q.id = s.job_id
	WHERE s.database IS NULL OR s.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
COMMENT ON VIEW job_workers IS 'Outside workers that registered, hold a job or were asked to stop, and the workers of the server that serve this database';

CREATE VIEW secret_names WITH (security_barrier) AS
	SELECT s.name, s.owner, s.file IS NOT NULL AS is_file,
		CASE WHEN s.file IS NULL THEN coalesce(s.previous_until > now(), false) END AS has_previous,
		CASE WHEN s.previous_until > now() THEN s.previous_until END AS previous_until,
		s.created_at, s.updated_at
	FROM http_secrets s;
COMMENT ON VIEW secret_names IS 'Which secrets there are; their values cannot be read';

-- Without URL, headers and bodies: an observer may read it.
CREATE VIEW endpoint_status WITH (security_barrier) AS
	SELECT e.kind, e.name, e.owner, e.enabled,
		coalesce(e.max_concurrency, current_setting('jobqueue.http_host_connections', true)::integer) AS max_concurrency,
		coalesce(h.in_flight, 0) AS in_flight, coalesce(h.requests, 0) AS requests,
		coalesce(h.succeeded, 0) AS succeeded, coalesce(h.failed, 0) AS failed, coalesce(h.aborted, 0) AS aborted,
		round(h.succeeded::numeric / nullif(h.succeeded + h.failed, 0), 4) AS success_rate,
		coalesce(h.consecutive_failures, 0) AS consecutive_failures,
		h.last_status, h.last_error, h.last_success_at, h.last_failure_at,
		round(h.avg_ms::numeric, 3) AS avg_ms, round(h.p50_ms::numeric, 3) AS p50_ms,
		round(h.p95_ms::numeric, 3) AS p95_ms, round(h.p99_ms::numeric, 3) AS p99_ms,
		coalesce(h.status_2xx, 0) AS status_2xx, coalesce(h.status_3xx, 0) AS status_3xx,
		coalesce(h.status_4xx, 0) AS status_4xx, coalesce(h.status_429, 0) AS status_429,
		coalesce(h.status_5xx, 0) AS status_5xx, coalesce(h.timeouts, 0) AS timeouts,
		coalesce(h.connection_errors, 0) AS connection_errors, coalesce(h.tls_errors, 0) AS tls_errors,
		coalesce(h.refused, 0) AS refused, coalesce(h.other_errors, 0) AS other_errors,
		coalesce(h.bytes, 0) AS bytes, coalesce(h.reused_connections, 0) AS reused_connections,
		coalesce(h.latency_histogram, '[]') AS latency_histogram
	FROM (SELECT 'endpoint' AS kind, name, owner, enabled, max_concurrency FROM http_endpoints
		UNION ALL
		SELECT kind, name COLLATE "C", NULL, NULL, NULL FROM _endpoint_health() WHERE kind = 'host') e
		LEFT JOIN _endpoint_health() h ON h.kind = e.kind AND h.name = e.name;
COMMENT ON VIEW endpoint_status IS 'How HTTP endpoints, and hosts of jobs with URLs of their own, have done since the server started';

CREATE VIEW queue_status AS
	SELECT s.is_active, s.reason, s.paused_at, s.paused_by, s.pause_reason, s.has_scheduler
	FROM _queue_status() s;
COMMENT ON VIEW queue_status IS 'Whether the server works on the jobs of this database; if not, why';

CREATE VIEW job_circuit_status AS
	SELECT coalesce(c.job_type, m.job_type COLLATE "C") AS job_type, coalesce(c.stage, m.stage COLLATE "C") AS stage,
		CASE WHEN c.state <> 'closed' THEN c.state WHEN m.tripped_at IS NOT NULL THEN 'open' ELSE 'closed' END AS state,
		CASE WHEN c.state IS NULL OR c.state = 'closed' THEN coalesce(m.failures, c.failures) ELSE c.failures END AS failures,
		t.breaker_threshold AS threshold,
		coalesce(c.opened_at, m.tripped_at) AS opened_at, coalesce(c.retry_at, m.retry_at) AS retry_at,
		coalesce(c.forced, false) AS forced, c.reason, c.last_error, c.probe_job_id
	FROM job_circuits c
		FULL JOIN _circuit_counts() m ON m.job_type = c.job_type AND m.stage = c.stage
		LEFT JOIN job_types t ON t.job_type = coalesce(c.job_type, m.job_type);
COMMENT ON VIEW job_circuit_status IS 'Circuits that are open, half-open, or closed after failures';

CREATE VIEW job_type_status AS
	SELECT coalesce(t.job_type, l.job_type COLLATE "C") AS job_type, t.runner, t.enabled, t.paused_at, t.pause_reason,
		CASE WHEN t.throttled_until > clock_timestamp() THEN t.throttled_until END AS throttled_until,
		l.running, t.max_concurrency, t.rate_max, t.rate_window, l.rate_available, l.rate_next_at,
		l.groups, l.ready_groups, c.open_circuits
	FROM job_types t
		FULL JOIN _limit_counts() l ON l.job_type = t.job_type
		LEFT JOIN LATERAL (SELECT count(*) AS open_circuits FROM job_circuits o
			WHERE o.job_type = t.job_type AND o.state <> 'closed') c ON true;
COMMENT ON VIEW job_type_status IS 'What keeps jobs of a type from being claimed: pauses, throttling, limits and open circuits';

CREATE VIEW job_lanes AS
	SELECT l.job_type, l.owner::regrole AS owner, l.stage, l.priority, l.candidates, l.read_until, l.last_used_at
	FROM _lanes() l;
COMMENT ON VIEW job_lanes IS 'Lanes (job type, stage, priority, and owner of the built-in type) whose next jobs shared memory remembers';

CREATE VIEW job_claim_stats AS
	SELECT c.memory_claims, c.sql_claims, c.overflows, c.refills, c.discoveries, c.sweeps, c.repairs, c.stale_candidates
	FROM _claim_counts() c;
COMMENT ON VIEW job_claim_stats IS 'How claims in this database found their jobs since the server started';

-- ---------------------------------------------------------------------------
-- Metrics
-- ---------------------------------------------------------------------------

-- Since the server started; times in microseconds, and how many of them were
-- in each bucket of _metric_bounds(), not cumulated.
CREATE FUNCTION _job_metrics() RETURNS TABLE (
		job_type text, stage text, enqueued bigint, started bigint, succeeded bigint, failed bigint, retried bigint,
		dead bigint, cancelled bigint, released bigint, expired bigint, crashed bigint, skipped bigint,
		wait_us bigint, wait_buckets bigint[], run_us bigint, run_buckets bigint[],
		total_us bigint, total_buckets bigint[])
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_job_metrics';
CREATE FUNCTION _job_counts() RETURNS TABLE (
		job_type text, scheduled bigint, queued bigint, running bigint, blocked bigint,
		completed bigint, failed bigint, error bigint, cancelled bigint)
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_job_counts';
CREATE FUNCTION _metric_bounds() RETURNS double precision[]
	LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'jobqueue_metric_bounds';
CREATE FUNCTION _user_metrics() RETURNS TABLE (
		kind text, name text, labels jsonb, count bigint, sum double precision)
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_user_metrics';

CREATE FUNCTION job_metric_add(name text, n double precision DEFAULT 1, labels jsonb DEFAULT '{}')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_job_metric_add';
COMMENT ON FUNCTION job_metric_add(text, double precision, jsonb)
	IS 'Adds to a counter of this name and labels, at once and whatever becomes of the transaction; counters start at 0 with the server';

CREATE FUNCTION job_metric_observe(name text, value double precision, labels jsonb DEFAULT '{}')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'jobqueue_job_metric_observe';
COMMENT ON FUNCTION job_metric_observe(text, double precision, jsonb)
	IS 'Adds a value to the sum and one to the count of a timer of this name and labels, in the manner of job_metric_add()';

CREATE VIEW job_counts AS
	SELECT c.job_type COLLATE "C" AS job_type, c.queued, c.queued - c.scheduled AS ready, c.scheduled, c.running, c.blocked,
		c.completed, c.failed, c.error AS dead_letters, c.cancelled
	FROM _job_counts() c
	WHERE c.queued + c.running + c.blocked + c.completed + c.failed + c.error + c.cancelled > 0;
COMMENT ON VIEW job_counts IS 'How many jobs of each type there are, without counting them';

-- ---------------------------------------------------------------------------
-- Health: a view for each check of job_health(), of one row: status, detail,
-- hint, value, data. They read with the rights of the tables' owner, and show
-- no payload and no error, so that observers may ask.
-- ---------------------------------------------------------------------------

-- The defaults are for sessions without the library, where there is nothing to
-- set.
CREATE VIEW _health_settings AS
	SELECT coalesce(current_setting('jobqueue.health_backlog_age', true), '5min')::interval AS backlog_age,
		coalesce(current_setting('jobqueue.health_cron_lateness', true), '1min')::interval AS cron_lateness,
		coalesce(current_setting('jobqueue.health_dead_letters', true), '100')::integer AS dead_letters,
		coalesce(current_setting('jobqueue.health_dead_rows', true), '100000')::integer AS dead_rows,
		coalesce(current_setting('jobqueue.health_endpoint_failures', true), '5')::integer AS endpoint_failures,
		coalesce(current_setting('jobqueue.health_failed_age', true), '10min')::interval AS failed_age,
		coalesce(current_setting('jobqueue.health_silence', true), '30s')::interval AS silence,
		coalesce(current_setting('jobqueue.health_snapshot_age', true), '10min')::interval AS snapshot_age,
		coalesce(current_setting('jobqueue.health_transaction_age', true), '1000000000')::integer AS transaction_age,
		coalesce(current_setting('jobqueue.poll_interval', true), '1s')::interval AS poll_interval;

-- What there is of the server, and whether jobs are there that only it runs.
CREATE VIEW _health_server AS
	SELECT current_setting('jobqueue.launcher', true) IS NOT NULL AS is_preloaded,
		coalesce(current_setting('jobqueue.launcher', true), 'off') = 'on' AS has_launcher,
		pg_is_in_recovery() AS is_standby, s.reason,
		-- while nothing is to be claimed, nothing can be late
		coalesce(s.reason IN ('paused', 'restored copy', 'subscription', 'standby', 'jobqueue.enabled is off'), false) AS is_quiet,
		EXISTS (SELECT FROM jobs_queue_live q WHERE q.job_type IN ('sql', 'http'))
			OR EXISTS (SELECT FROM job_types t WHERE t.runner <> 'external'
				AND EXISTS (SELECT FROM jobs_queue_live q WHERE q.job_type = t.job_type)) AS is_needed
	FROM _queue_status() s;

-- Without shared memory job_counts would count all jobs; the dead ones are few,
-- and in an index.
CREATE VIEW _health_counts AS
	SELECT c.job_type, c.dead_letters
	FROM job_counts c
	WHERE c.dead_letters > 0 AND current_setting('jobqueue.launcher', true) IS NOT NULL
	UNION ALL
	SELECT q.job_type, count(*) AS dead_letters
	FROM jobs_queue_done q
	WHERE q.status = 'error' AND current_setting('jobqueue.launcher', true) IS NULL
	GROUP BY q.job_type;

-- Per job type the oldest due job that nothing keeps from being claimed. Lanes
-- are found one after the other in the index, and no lane is read far: some of
-- its first jobs may be running or blocked.
CREATE VIEW _health_due AS
	WITH RECURSIVE lane AS (
		(SELECT q.job_type, q.stage, q.priority FROM jobs_queue_live q
			ORDER BY q.job_type, q.stage, q.priority LIMIT 1)
		UNION ALL
		SELECT n.job_type, n.stage, n.priority
		FROM lane l
			CROSS JOIN LATERAL (SELECT q.job_type, q.stage, q.priority FROM jobs_queue_live q
				WHERE (q.job_type, q.stage, q.priority) > (l.job_type, l.stage, l.priority)
				ORDER BY q.job_type, q.stage, q.priority LIMIT 1) n)
	SELECT l.job_type, min(d.scheduled_at) AS due_at, coalesce(bool_or(r.is_running), false) AS is_running
	FROM (SELECT job_type, stage, priority FROM lane LIMIT 1000) l
		LEFT JOIN LATERAL (
			SELECT h.scheduled_at
			FROM (SELECT q.scheduled_at, q.status FROM jobs_queue_live q
				WHERE q.job_type = l.job_type AND q.stage = l.stage AND q.priority = l.priority
					AND q.scheduled_at <= statement_timestamp()
				ORDER BY q.scheduled_at, q.id LIMIT 1000) h
			WHERE h.status = 'queued' LIMIT 1) d ON NOT EXISTS (SELECT FROM job_circuits c
				WHERE c.job_type = l.job_type AND c.stage = l.stage AND c.state <> 'closed')
		LEFT JOIN LATERAL (
			SELECT bool_or(h.status = 'running') AS is_running
			FROM (SELECT q.status FROM jobs_queue_live q
				WHERE q.job_type = l.job_type AND q.stage = l.stage AND q.priority = l.priority
				ORDER BY q.scheduled_at, q.id LIMIT 20) h) r ON true
	WHERE NOT EXISTS (SELECT FROM job_types t WHERE t.job_type = l.job_type
			AND (NOT t.enabled OR t.throttled_until > statement_timestamp()))
	GROUP BY l.job_type;

CREATE VIEW _health_library AS
	SELECT CASE WHEN s.is_preloaded THEN 'ok' WHEN s.is_needed THEN 'fail' ELSE 'warn' END AS status,
		CASE WHEN s.is_preloaded THEN 'the library is preloaded'
			WHEN s.is_needed THEN 'the library is not preloaded, and jobs wait that only the server runs'
			ELSE 'the library is not preloaded: the server runs nothing, and claims are slower' END AS detail,
		'Add jobqueue to shared_preload_libraries and restart the server.' AS hint,
		NULL::numeric AS value, jsonb_build_object('is_preloaded', s.is_preloaded) AS data
	FROM _health_server s;

CREATE VIEW _health_queue AS
	SELECT CASE WHEN s.reason = 'restored copy' THEN 'fail'
			WHEN s.reason IN ('paused', 'jobqueue.enabled is off') THEN 'warn'
			WHEN s.reason = 'not in jobqueue.databases' AND v.is_needed THEN 'warn'
			ELSE 'ok' END AS status,
		CASE s.reason
			WHEN 'paused' THEN format('the workers have been paused for %s%s', _in_words(clock_timestamp() - s.paused_at),
				coalesce(': ' || s.pause_reason, ''))
			WHEN 'restored copy' THEN 'the database was restored or copied: the server runs nothing here'
			WHEN 'subscription' THEN 'the jobs come from a subscription: the server runs nothing here'
			WHEN 'standby' THEN 'a standby runs nothing'
			WHEN 'jobqueue.enabled is off' THEN 'jobqueue.enabled is off: nothing is claimed'
			WHEN 'not in jobqueue.databases' THEN 'jobqueue.databases does not name this database'
			ELSE 'jobs may be claimed' END AS detail,
		CASE s.reason WHEN 'paused' THEN 'Call resume_workers() when the reason is gone.'
			WHEN 'restored copy' THEN 'Call activate_jobs() if its cron tasks and SQL jobs are to run.'
			WHEN 'jobqueue.enabled is off' THEN 'Turn jobqueue.enabled on and reload the configuration.'
			ELSE 'Add it to jobqueue.databases and reload the configuration.' END AS hint,
		NULL::numeric AS value, jsonb_build_object('reason', s.reason, 'paused_at', s.paused_at) AS data
	FROM _queue_status() s CROSS JOIN _health_server v;

CREATE VIEW _health_launcher AS
	SELECT CASE WHEN NOT s.is_preloaded OR s.is_standby OR NOT s.has_launcher AND NOT s.is_needed THEN 'ok'
			WHEN NOT s.has_launcher OR l.seen_at IS NULL OR l.silence > c.silence THEN 'fail' ELSE 'ok' END AS status,
		CASE WHEN NOT s.is_preloaded THEN 'none without preloading'
			WHEN s.is_standby THEN 'none on a standby'
			WHEN NOT s.has_launcher AND s.is_needed THEN 'jobqueue.launcher is off, and jobs wait that only the server runs'
			WHEN NOT s.has_launcher THEN 'jobqueue.launcher is off'
			WHEN l.seen_at IS NULL THEN 'the launcher does not run'
			WHEN l.silence > c.silence THEN format('the launcher has been silent for %s', _in_words(l.silence))
			ELSE 'the launcher goes its rounds' END AS detail,
		CASE WHEN s.has_launcher AND l.seen_at IS NULL THEN 'The postmaster starts it anew each second: the server log says why it ends.'
			WHEN s.has_launcher THEN 'Something holds it up: look at its wait event in pg_stat_activity, and into the server log.'
			ELSE 'Turn jobqueue.launcher on and restart the server.' END AS hint,
		round(extract(epoch FROM l.silence), 3) AS value,
		jsonb_build_object('pid', l.pid, 'last_cycle_at', l.seen_at) AS data
	FROM _health_server s CROSS JOIN _health_settings c
		CROSS JOIN (SELECT max(w.pid) AS pid, max(coalesce(w.last_cycle_at, w.started_at)) AS seen_at,
				clock_timestamp() - max(coalesce(w.last_cycle_at, w.started_at)) AS silence
			FROM _server_workers() w WHERE w.kind = 'launcher') l;

CREATE VIEW _health_scheduler AS
	SELECT CASE WHEN s.reason IS NOT NULL THEN 'ok'
			WHEN w.seen_at IS NULL OR w.silence > c.silence + c.poll_interval THEN 'fail' ELSE 'ok' END AS status,
		CASE WHEN s.reason IS NOT NULL THEN 'none is to be here: ' || s.reason
			WHEN w.seen_at IS NULL THEN 'this database has no scheduler'
			WHEN w.silence > c.silence + c.poll_interval THEN format('the scheduler has been silent for %s', _in_words(w.silence))
			ELSE 'the scheduler goes its rounds' END AS detail,
		CASE WHEN w.seen_at IS NULL THEN 'The launcher starts one: see the checks launcher, worker_slots and worker_errors, and the server log.'
			ELSE 'Something holds it up: look at its query and wait event in pg_stat_activity.' END AS hint,
		round(extract(epoch FROM w.silence), 3) AS value,
		jsonb_build_object('pid', w.pid, 'state', w.state, 'last_cycle_at', w.seen_at) AS data
	FROM _health_server s CROSS JOIN _health_settings c
		CROSS JOIN (SELECT max(w.pid) AS pid, max(w.state) AS state, max(coalesce(w.last_cycle_at, w.started_at)) AS seen_at,
				clock_timestamp() - max(coalesce(w.last_cycle_at, w.started_at)) AS silence
			FROM _server_workers() w
			WHERE w.kind = 'scheduler'
				AND w.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())) w;

CREATE VIEW _health_workers AS
	SELECT CASE WHEN count(*) = 0 THEN 'ok' ELSE 'warn' END AS status,
		CASE WHEN count(*) = 0 THEN 'no executor is stuck'
			ELSE format('stuck in a job that ignores its cancellation: %s',
				_some_of(array_agg(format('job %s (pid %s)', w.job_id, w.pid) ORDER BY w.pid))) END AS detail,
		'Nothing can end it from outside but the end of what it does; others take its place in jobqueue.max_executors.' AS hint,
		count(*)::numeric AS value,
		coalesce(jsonb_agg(jsonb_build_object('pid', w.pid, 'job_id', w.job_id) ORDER BY w.pid), '[]') AS data
	FROM _server_workers() w
	WHERE w.state = 'stuck' AND w.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());

CREATE VIEW _health_worker_slots AS
	SELECT CASE WHEN count(*) = 0 THEN 'ok' ELSE 'warn' END AS status,
		CASE WHEN count(*) = 0 THEN 'there was a process for each worker'
			ELSE format('no process was free for: %s', _some_of(array_agg(DISTINCT format('%s of database %s', t.kind, d.datname)))) END AS detail,
		'Raise max_worker_processes, which takes a restart, or lower jobqueue.max_executors.' AS hint,
		current_setting('max_worker_processes')::numeric AS value,
		coalesce(jsonb_agg(jsonb_build_object('kind', t.kind, 'database', d.datname, 'since', t.first_at) ORDER BY t.kind, d.datname), '[]') AS data
	FROM _worker_troubles() t LEFT JOIN pg_database d ON d.oid = t.database
	WHERE t.trouble = 'no process' AND t.last_at > clock_timestamp() - interval '10 seconds';

CREATE VIEW _health_worker_errors AS
	SELECT CASE WHEN count(*) = 0 THEN 'ok' ELSE 'warn' END AS status,
		CASE WHEN count(*) = 0 THEN 'no worker fails again and again'
			ELSE _some_of(array_agg(format('the %s %s %s times in %s%s', t.kind, CASE t.trouble WHEN 'ended' THEN 'ended' ELSE 'failed' END,
				t.count, _in_words(t.last_at - t.first_at), coalesce(' (' || t.sqlstate || ')', '')) ORDER BY t.kind, t.trouble)) END AS detail,
		'The server log says what happened, in lines of jobqueue processes.' AS hint,
		coalesce(sum(t.count), 0)::numeric AS value,
		coalesce(jsonb_agg(jsonb_build_object('kind', t.kind, 'trouble', t.trouble, 'count', t.count, 'first_at', t.first_at,
			'last_at', t.last_at, 'sqlstate', t.sqlstate) ORDER BY t.kind, t.trouble), '[]') AS data
	FROM _worker_troubles() t
	WHERE t.trouble IN ('error', 'ended') AND t.count >= 3 AND t.last_at > clock_timestamp() - interval '5 minutes'
		AND coalesce(t.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()), true);

CREATE VIEW _health_monitors AS
	SELECT CASE WHEN count(*) = 0 THEN 'ok' ELSE 'warn' END AS status,
		CASE WHEN count(*) = 0 THEN 'no monitor is kept from its work'
			ELSE format('a monitor cannot start, or cannot listen, for %s', _in_words(clock_timestamp() - min(t.first_at))) END AS detail,
		'The server log says which entry of jobqueue.monitor it is, and why: its database, its role, or its port.' AS hint,
		count(*)::numeric AS value,
		coalesce(jsonb_agg(jsonb_build_object('database', d.datname, 'since', t.first_at) ORDER BY d.datname), '[]') AS data
	FROM _worker_troubles() t LEFT JOIN pg_database d ON d.oid = t.database
	WHERE t.trouble = 'not serving' AND t.last_at > clock_timestamp() - interval '10 seconds'
		AND coalesce(d.datname = current_database(), true);

CREATE VIEW _health_job_types AS
	SELECT CASE WHEN count(*) = 0 THEN 'ok' ELSE 'warn' END AS status,
		CASE WHEN count(*) = 0 THEN 'no job type is paused'
			ELSE format('paused: %s', _some_of(array_agg(t.job_type ORDER BY t.job_type))) END AS detail,
		'Call resume_job_type() when the reason is gone; job_type_status.pause_reason may say what it was.' AS hint,
		count(*)::numeric AS value,
		coalesce(jsonb_agg(jsonb_build_object('job_type', t.job_type, 'paused_at', t.paused_at) ORDER BY t.job_type), '[]') AS data
	FROM job_types t WHERE NOT t.enabled;

CREATE VIEW _health_circuits AS
	SELECT CASE WHEN count(*) = 0 THEN 'ok' ELSE 'warn' END AS status,
		CASE WHEN count(*) = 0 THEN 'no circuit is open'
			ELSE format('not closed: %s', _some_of(array_agg(format('%s%s (%s)', c.job_type, coalesce('/' || nullif(c.stage, ''), ''),
				CASE WHEN c.forced THEN 'opened by hand' ELSE c.state END) ORDER BY c.job_type, c.stage))) END AS detail,
		'The last errors of its jobs say what is broken; after the cooldown one job tries by itself, and close_circuit() lets all go.' AS hint,
		count(*)::numeric AS value,
		coalesce(jsonb_agg(jsonb_build_object('job_type', c.job_type, 'stage', c.stage, 'state', c.state, 'forced', c.forced,
			'opened_at', c.opened_at, 'retry_at', c.retry_at) ORDER BY c.job_type, c.stage), '[]') AS data
	FROM job_circuit_status c WHERE c.state <> 'closed';

-- Somebody asks for jobs of a type if one is running, was claimed or has ended
-- lately.
CREATE VIEW _health_consumers AS
	SELECT CASE WHEN count(*) = 0 THEN 'ok' ELSE 'warn' END AS status,
		CASE WHEN count(*) = 0 THEN 'somebody asks for every type with due jobs'
			ELSE format('due, and nobody asks for them: %s', _some_of(array_agg(format('%s (%s)', d.job_type,
				_in_words(statement_timestamp() - d.due_at)) ORDER BY d.due_at, d.job_type))) END AS detail,
		CASE WHEN bool_or(d.is_ours) THEN 'The server runs them: see the checks scheduler and worker_slots, jobqueue.max_executors and jobqueue.run_job_types.'
			ELSE 'Start a worker that claims this type, or look why yours does not: job_workers, and its own log.' END AS hint,
		count(*)::numeric AS value,
		coalesce(jsonb_agg(jsonb_build_object('job_type', d.job_type, 'due_at', d.due_at, 'in_server', d.is_ours)
			ORDER BY d.due_at, d.job_type), '[]') AS data
	FROM (SELECT due.job_type, due.due_at, coalesce(t.runner <> 'external', due.job_type IN ('sql', 'http')) AS is_ours
		FROM _health_due due CROSS JOIN _health_settings c CROSS JOIN _health_server s
			LEFT JOIN job_types t ON t.job_type = due.job_type
		WHERE NOT s.is_quiet AND NOT due.is_running AND due.due_at < statement_timestamp() - c.backlog_age
			AND NOT EXISTS (SELECT FROM _lanes() l WHERE l.job_type = due.job_type
				AND l.last_claim_at > clock_timestamp() - c.backlog_age)
			AND NOT EXISTS (SELECT FROM jobs_queue_done q WHERE q.job_type = due.job_type
				AND q.status IN ('completed', 'failed', 'error') AND q.finished_at > statement_timestamp() - c.backlog_age)) d;

CREATE VIEW _health_oldest_due_job AS
	SELECT CASE WHEN bool_or(d.is_late) THEN 'warn' ELSE 'ok' END AS status,
		CASE WHEN bool_or(d.is_late) THEN format('due for longer than %s: %s', _in_words(min(d.backlog_age)),
				_some_of(array_agg(format('%s (%s)', d.job_type, _in_words(d.age)) ORDER BY d.age DESC, d.job_type) FILTER (WHERE d.is_late)))
			ELSE 'no job has been due for long' END AS detail,
		'More workers, or faster ones: see job_type_status for limits, running_jobs for what takes so long, and the check consumers.' AS hint,
		round(coalesce(extract(epoch FROM max(d.age)), 0), 3) AS value,
		coalesce(jsonb_agg(jsonb_build_object('job_type', d.job_type, 'due_at', d.due_at)
			ORDER BY d.age DESC, d.job_type) FILTER (WHERE d.is_late), '[]') AS data
	FROM (SELECT due.job_type, due.due_at, c.backlog_age, statement_timestamp() - due.due_at AS age,
			due.due_at < statement_timestamp() - c.backlog_age AS is_late
		FROM _health_due due CROSS JOIN _health_settings c CROSS JOIN _health_server s
		WHERE NOT s.is_quiet AND due.due_at IS NOT NULL) d;

CREATE VIEW _health_dead_letters AS
	SELECT CASE WHEN bool_or(n.is_over) THEN 'fail' ELSE 'ok' END AS status,
		CASE WHEN bool_or(n.is_over) THEN format('too many dead letters: %s', _some_of(array_agg(format('%s has %s, allowed are %s',
				n.job_type, n.dead_letters, n.max_allowed) ORDER BY n.dead_letters DESC, n.job_type) FILTER (WHERE n.is_over)))
			ELSE 'no job type has more dead letters than allowed' END AS detail,
		'Look at dead_letter_jobs; then requeue_jobs() or purge_jobs(). The limit is job_types.dead_letter_limit, or jobqueue.health_dead_letters.' AS hint,
		coalesce(sum(n.dead_letters), 0)::numeric AS value,
		coalesce(jsonb_agg(jsonb_build_object('job_type', n.job_type, 'dead_letters', n.dead_letters, 'limit', n.max_allowed)
			ORDER BY n.dead_letters DESC, n.job_type) FILTER (WHERE n.is_over), '[]') AS data
	FROM (SELECT h.job_type, h.dead_letters, coalesce(t.dead_letter_limit, c.dead_letters) AS max_allowed,
			h.dead_letters > coalesce(t.dead_letter_limit, c.dead_letters) AS is_over
		FROM _health_counts h CROSS JOIN _health_settings c
			LEFT JOIN job_types t ON t.job_type = h.job_type) n;

-- No more than a thousand are read.
CREATE VIEW _health_failed_jobs AS
	SELECT CASE WHEN count(*) = 0 THEN 'ok' ELSE 'warn' END AS status,
		CASE WHEN count(*) = 0 THEN 'no failed job has been left alone'
			ELSE format('failed more than %s ago, and left alone: %s%s (%s)', (SELECT _in_words(c.failed_age) FROM _health_settings c),
				CASE WHEN sum(f.jobs) = 1000 THEN 'at least ' ELSE '' END, sum(f.jobs),
				_some_of(array_agg(f.job_type ORDER BY f.jobs DESC, f.job_type))) END AS detail,
		'Look at dead_letter_jobs; then requeue_jobs(), complete_job(), cancel_job() or purge_jobs() them.' AS hint,
		coalesce(sum(f.jobs), 0)::numeric AS value,
		coalesce(jsonb_agg(jsonb_build_object('job_type', f.job_type, 'jobs', f.jobs, 'oldest_at', f.oldest_at)
			ORDER BY f.jobs DESC, f.job_type), '[]') AS data
	FROM (SELECT o.job_type, count(*) AS jobs, min(o.updated_at) AS oldest_at
		FROM (SELECT q.job_type, q.updated_at FROM jobs_queue_done q
			WHERE q.status IN ('failed', 'error')
				AND q.updated_at < statement_timestamp() - (SELECT c.failed_age FROM _health_settings c)
			LIMIT 1000) o
		GROUP BY o.job_type) f;

CREATE VIEW _health_cron_late AS
	SELECT CASE WHEN count(*) = 0 THEN 'ok' WHEN max(t.late_by) > 10 * min(t.cron_lateness) THEN 'fail' ELSE 'warn' END AS status,
		CASE WHEN count(*) = 0 THEN 'no cron task is late'
			ELSE format('late: %s', _some_of(array_agg(format('%s (%s)', t.name, _in_words(t.late_by)) ORDER BY t.late_by DESC, t.name))) END AS detail,
		'The scheduler enqueues them: see that check. A single late one may have its row locked; without a scheduler somebody must call enqueue_cron_tasks().' AS hint,
		round(coalesce(extract(epoch FROM max(t.late_by)), 0), 3) AS value,
		coalesce(jsonb_agg(jsonb_build_object('name', t.name, 'next_run_at', t.next_run_at) ORDER BY t.late_by DESC, t.name), '[]') AS data
	FROM (SELECT k.name, k.next_run_at, c.cron_lateness, statement_timestamp() - k.next_run_at AS late_by
		FROM cron_tasks k CROSS JOIN _health_settings c CROSS JOIN _health_server s
		WHERE k.enabled AND NOT s.is_quiet AND k.next_run_at < statement_timestamp() - c.cron_lateness) t;

-- Those that have come to their end are no trouble.
CREATE VIEW _health_cron_disabled AS
	SELECT CASE WHEN count(*) = 0 THEN 'ok' ELSE 'warn' END AS status,
		CASE WHEN count(*) = 0 THEN 'no cron task was disabled'
			ELSE format('disabled: %s', _some_of(array_agg(t.name ORDER BY t.name))) END AS detail,
		'Repair what cron_overview.disabled_reason says, then call resume_cron_task().' AS hint,
		count(*)::numeric AS value, coalesce(jsonb_agg(t.name ORDER BY t.name), '[]') AS data
	FROM cron_tasks t
	WHERE NOT t.enabled AND t.disabled_reason IS NOT NULL AND t.disabled_reason NOT IN ('max_runs is reached', 'ends_at has passed', 'the schedule has no further instants');

CREATE VIEW _health_endpoints AS
	SELECT CASE WHEN count(*) = 0 THEN 'ok' ELSE 'warn' END AS status,
		CASE WHEN count(*) = 0 THEN 'no endpoint fails again and again'
			ELSE _some_of(array_agg(CASE WHEN NOT e.enabled THEN format('%s is disabled', e.name)
				ELSE format('%s has failed %s times in a row%s', e.name, e.consecutive_failures, coalesce(', last with status ' || e.last_status, '')) END
				ORDER BY e.consecutive_failures DESC, e.name)) END AS detail,
		'Look at endpoint_status and try test_endpoint(); enable it again when it is well.' AS hint,
		coalesce(max(e.consecutive_failures), 0)::numeric AS value,
		coalesce(jsonb_agg(jsonb_build_object('kind', e.kind, 'name', e.name, 'enabled', e.enabled, 'consecutive_failures', e.consecutive_failures,
			'last_status', e.last_status, 'last_failure_at', e.last_failure_at) ORDER BY e.consecutive_failures DESC, e.name), '[]') AS data
	FROM (SELECT h.kind, h.name, coalesce(p.enabled, true) AS enabled, h.consecutive_failures, h.last_status, h.last_failure_at
		FROM _endpoint_health() h CROSS JOIN _health_settings c
			LEFT JOIN http_endpoints p ON h.kind = 'endpoint' AND p.name = h.name
		WHERE h.consecutive_failures >= c.endpoint_failures AND coalesce(p.enabled, true)
		UNION ALL
		SELECT 'endpoint', p.name, false, 0, NULL, NULL FROM http_endpoints p WHERE NOT p.enabled) e;

-- What a sink last got, or would have got, did not arrive.
CREATE VIEW _health_alert_sinks AS
	SELECT CASE WHEN count(*) = 0 THEN 'ok' ELSE 'warn' END AS status,
		CASE WHEN count(*) = 0 THEN 'alerts reach their sinks'
			ELSE _some_of(array_agg(format('%s %s', p.name, p.problem) ORDER BY p.name)) END AS detail,
		'job_runs.error of job type alert:NAME says why; try test_alert_sink(). Until it is repaired, look at the table alerts.' AS hint,
		count(*)::numeric AS value,
		coalesce(jsonb_agg(jsonb_build_object('sink', p.name, 'problem', p.problem) ORDER BY p.name), '[]') AS data
	FROM (SELECT s.name, CASE
			WHEN t.job_type IS NULL OR s.owner IS NULL THEN 'cannot be sent to'
			WHEN (SELECT max(f.finished_at) FROM unnest('{failed,error}'::text[]) u CROSS JOIN LATERAL (
					SELECT d.finished_at FROM jobs_queue_done d WHERE d.job_type = 'alert:' || s.name AND d.status = u COLLATE "C"
					ORDER BY d.finished_at DESC NULLS LAST LIMIT 1) f)
				> coalesce((SELECT d.finished_at FROM jobs_queue_done d WHERE d.job_type = 'alert:' || s.name AND d.status = 'completed'
					ORDER BY d.finished_at DESC NULLS LAST LIMIT 1), '-infinity') THEN 'has missed a message'
			WHEN EXISTS (SELECT FROM jobs_queue_live q WHERE q.job_type = 'alert:' || s.name AND q.created_at < now() - interval '10 minutes')
				THEN 'has not got a message for ten minutes' END AS problem
		FROM alert_sinks s LEFT JOIN job_types t ON t.job_type = 'alert:' || s.name AND t.runner = 'http'
		WHERE s.enabled AND s.endpoint IS NOT NULL) p
	WHERE p.problem IS NOT NULL;

-- Of sessions and prepared transactions the age is known, of standbys and
-- slots only how many transactions ago that was. What vacuums holds up no
-- vacuum.
CREATE VIEW _health_snapshots AS
	SELECT CASE WHEN bool_or(h.is_old) THEN 'warn' ELSE 'ok' END AS status,
		CASE WHEN bool_or(h.is_old) THEN format('dead rows are kept for: %s', _some_of(array_agg(format('%s, %s', h.holder,
				coalesce(_in_words(h.held_for), h.xids || ' transactions')) ORDER BY h.held_for DESC NULLS LAST, h.xids DESC) FILTER (WHERE h.is_old)))
			ELSE 'no old snapshot keeps dead rows' END AS detail,
		'End the transaction: pg_terminate_backend(), COMMIT PREPARED, pg_drop_replication_slot(), or hot_standby_feedback = off there.' AS hint,
		round(coalesce(extract(epoch FROM max(h.held_for)), 0), 3) AS value,
		coalesce(jsonb_agg(jsonb_build_object('kind', h.kind, 'holder', h.holder, 'pid', h.pid, 'since', h.since, 'transactions', h.xids)
			ORDER BY h.held_for DESC NULLS LAST, h.xids DESC) FILTER (WHERE h.is_old), '[]') AS data
	FROM (SELECT o.kind, o.holder, o.pid, o.since, o.xids, clock_timestamp() - o.since AS held_for,
			CASE WHEN o.since IS NULL THEN o.xids > 1000000 ELSE o.since < clock_timestamp() - c.snapshot_age END AS is_old
		FROM _health_settings c CROSS JOIN (
			SELECT 'session' AS kind, s.pid, s.since, age(s.xmin) AS xids,
				format('session %s of %s (%s)', s.pid, coalesce(pg_get_userbyid(s.role)::text, 'the server'),
					concat_ws(', ', nullif(s.application_name, ''), s.state)) AS holder
			FROM _session_snapshots() s
			WHERE NOT EXISTS (SELECT FROM pg_stat_progress_vacuum v WHERE v.pid = s.pid)
			UNION ALL
			SELECT 'prepared transaction', NULL, p.prepared, age(p.transaction), format('prepared transaction %s of %s', p.gid, p.owner)
			FROM pg_prepared_xacts p WHERE p.database = current_database()
			UNION ALL
			SELECT 'replication slot', r.active_pid, NULL, age(r.xmin), format('replication slot %s', r.slot_name)
			FROM pg_replication_slots r WHERE r.xmin IS NOT NULL) o) h;

CREATE VIEW _health_dead_rows AS
	SELECT CASE WHEN a.is_off OR bool_or(d.is_over) THEN 'warn' ELSE 'ok' END AS status,
		CASE WHEN a.is_off THEN 'autovacuum is off for jobs_queue_live'
			WHEN bool_or(d.is_over) THEN format('dead rows: %s', _some_of(array_agg(format('%s of %s', d.dead, d.relname)
				ORDER BY d.dead DESC, d.relname) FILTER (WHERE d.is_over)))
			ELSE 'dead rows are cleaned up' END AS detail,
		CASE WHEN a.is_off THEN 'Turn autovacuum and track_counts on, and reset autovacuum_enabled of the table.'
			ELSE 'See the check snapshots for who keeps them; then VACUUM, or let autovacuum work faster.' END AS hint,
		coalesce(max(d.dead), 0)::numeric AS value,
		jsonb_object_agg(d.relname, d.dead) AS data
	FROM (SELECT current_setting('autovacuum') = 'off' OR current_setting('track_counts') = 'off'
				OR EXISTS (SELECT FROM pg_class l CROSS JOIN LATERAL unnest(l.reloptions) AS o (setting)
					WHERE l.oid = 'jobs_queue_live'::regclass::oid AND o.setting ~ '^autovacuum_enabled=(false|off|no|0)$') AS is_off) a
		CROSS JOIN (SELECT r.relname::text AS relname, pg_stat_get_dead_tuples(r.oid) AS dead,
				pg_stat_get_dead_tuples(r.oid) > greatest(c.dead_rows, pg_stat_get_live_tuples(r.oid) / 5) AS is_over
			FROM _health_settings c CROSS JOIN pg_class r
			WHERE r.oid IN ('jobs_queue_live'::regclass::oid, 'jobs_queue_done'::regclass::oid, 'job_runs'::regclass::oid,
				'job_logs'::regclass::oid, 'cron_tasks'::regclass::oid, 'cron_runs'::regclass::oid, 'job_keys'::regclass::oid,
				'job_dependencies'::regclass::oid, 'rate_log'::regclass::oid, 'published_events'::regclass::oid)) d
	GROUP BY a.is_off;

CREATE VIEW _health_indexes AS
	SELECT CASE WHEN count(*) = 0 THEN 'ok' ELSE 'warn' END AS status,
		CASE WHEN count(*) = 0 THEN 'claims write no index'
			ELSE format('each claim writes: %s', _some_of(array_agg(i.relname ORDER BY i.relname))) END AS detail,
		'Drop the index, or make it one of jobs_queue_done: no index of jobs_queue_live may mention what a claim changes.' AS hint,
		count(*)::numeric AS value, coalesce(jsonb_agg(i.relname ORDER BY i.relname), '[]') AS data
	FROM (SELECT DISTINCT c.relname::text AS relname
		FROM pg_depend d
			JOIN pg_class c ON c.oid = d.objid
			JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
		WHERE d.classid = 'pg_class'::regclass::oid AND d.refclassid = 'pg_class'::regclass::oid
			AND d.refobjid = 'jobs_queue_live'::regclass::oid AND c.relkind = 'i'
			AND a.attname IN ('status', 'attempts', 'claim_no', 'locked_by', 'locked_at', 'lease_expires_at', 'holder', 'updated_at')) i;

CREATE VIEW _health_shared_memory AS
	SELECT CASE WHEN bool_or(m.used >= 0.9 * m.room) THEN 'warn' ELSE 'ok' END AS status,
		CASE WHEN bool_or(m.used >= 0.9 * m.room) THEN format('nearly full: %s', _some_of(array_agg(format('%s of %s in %s', m.used, m.room, m.setting)
				ORDER BY m.setting) FILTER (WHERE m.used >= 0.9 * m.room)))
			ELSE 'there is room' END AS detail,
		'Raise the setting, which takes a restart; or use fewer stages, priorities or groups.' AS hint,
		round(coalesce(max(100 * m.used / m.room), 0), 1) AS value,
		coalesce(jsonb_object_agg(m.setting, m.used), '{}') AS data
	FROM (SELECT u.setting, u.used::numeric AS used, current_setting(u.setting, true)::numeric AS room
		FROM (SELECT 'jobqueue.max_lanes' AS setting, count(*) AS used FROM _lanes()
			UNION ALL
			SELECT 'jobqueue.max_groups', coalesce(sum(groups), 0) FROM _limit_counts()
			UNION ALL
			SELECT 'jobqueue.max_limited_jobs', coalesce(sum(running), 0) FROM _limit_counts()
			UNION ALL
			SELECT 'jobqueue.max_stage_stats', count(*) FROM _job_metrics()
			UNION ALL
			SELECT 'jobqueue.max_user_metrics', count(*) FROM _user_metrics()) u) m
	WHERE m.room > 0;

CREATE VIEW _health_sequences AS
	SELECT CASE WHEN max(s.share) >= 0.95 THEN 'fail' WHEN max(s.share) >= 0.8 THEN 'warn' ELSE 'ok' END AS status,
		CASE WHEN max(s.share) >= 0.8 THEN format('nearly used up: %s', _some_of(array_agg(format('%s (%s %%)', s.name, round(100 * s.share))
				ORDER BY s.share DESC, s.name) FILTER (WHERE s.share >= 0.8)))
			ELSE 'there are ids enough' END AS detail,
		'See whether it has a MAXVALUE or a type of yours (\d), or was set far ahead; then ALTER SEQUENCE, or setval() to the largest id there is.' AS hint,
		round(100 * max(s.share), 1) AS value, jsonb_object_agg(s.name, s.last_value) AS data
	FROM (SELECT v.name, v.last_value, v.last_value::numeric / q.seqmax AS share
		FROM (SELECT 'jobs_queue_id_seq'::regclass::oid AS oid, 'jobs_queue_id_seq' AS name, last_value FROM jobs_queue_id_seq
			UNION ALL SELECT 'job_logs_id_seq'::regclass::oid, 'job_logs_id_seq', last_value FROM job_logs_id_seq
			UNION ALL SELECT 'cron_tasks_id_seq'::regclass::oid, 'cron_tasks_id_seq', last_value FROM cron_tasks_id_seq
			UNION ALL SELECT 'event_subscriptions_id_seq'::regclass::oid, 'event_subscriptions_id_seq', last_value FROM event_subscriptions_id_seq
			UNION ALL SELECT 'published_events_id_seq'::regclass::oid, 'published_events_id_seq', last_value FROM published_events_id_seq
			UNION ALL SELECT 'queue_events_id_seq'::regclass::oid, 'queue_events_id_seq', last_value FROM queue_events_id_seq) v
			JOIN pg_sequence q ON q.seqrelid = v.oid) s;

-- Of all databases: the oldest stops the server.
CREATE VIEW _health_transaction_ids AS
	SELECT CASE WHEN max(d.age) >= min(d.transaction_age) + (2147483647 - min(d.transaction_age)) / 2 THEN 'fail'
			WHEN max(d.age) >= min(d.transaction_age) THEN 'warn' ELSE 'ok' END AS status,
		CASE WHEN max(d.age) >= min(d.transaction_age) THEN format('not frozen for long: %s', _some_of(array_agg(format('database %s for %s transactions',
				d.datname, d.age) ORDER BY d.age DESC, d.datname) FILTER (WHERE d.age >= d.transaction_age)))
			ELSE 'vacuum keeps up with freezing' END AS detail,
		'See the check snapshots for what holds vacuum back; then VACUUM (FREEZE) the oldest tables of that database.' AS hint,
		max(d.age)::numeric AS value, NULL::jsonb AS data
	FROM (SELECT b.datname, c.transaction_age, greatest(age(b.datfrozenxid), mxid_age(b.datminmxid)) AS age
		FROM pg_database b CROSS JOIN _health_settings c) d;

-- ---------------------------------------------------------------------------
-- Metrics as text
-- ---------------------------------------------------------------------------

-- What the metrics below take from tables that observers cannot read.
CREATE VIEW _metric_cron AS
	SELECT t.name, t.job_type, t.enabled, t.next_run_at, t.last_enqueued_at,
		t.run_count, t.missed_count, t.skipped_count
	FROM cron_tasks t;

-- Outside workers count as active as long as their claims would last.
CREATE VIEW _metric_workers AS
	SELECT 'external' AS kind, CASE WHEN s.worker_id IS NOT NULL THEN 'stopped'
			WHEN r.last_seen_at > now() - coalesce(current_setting('jobqueue.lease', true), '5min')::interval THEN 'active'
			ELSE 'silent' END AS state,
		r.last_seen_at
	FROM registered_workers r
		LEFT JOIN worker_stops s ON s.worker_id = r.worker_id
	UNION ALL
	SELECT w.kind, w.state, w.last_cycle_at
	FROM _server_workers() w
	WHERE w.database IS NULL OR w.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());

-- Lanes are found one after the other in the ready index, also those that nobody
-- claims from. No more of them than a look may cost; no lane is read far.
CREATE VIEW _metric_due WITH (security_barrier) AS
	WITH RECURSIVE lane AS (
		(SELECT q.job_type, q.stage, q.priority FROM jobs_queue_live q
			ORDER BY q.job_type, q.stage, q.priority LIMIT 1)
		UNION ALL
		SELECT n.job_type, n.stage, n.priority
		FROM lane l
			CROSS JOIN LATERAL (SELECT q.job_type, q.stage, q.priority FROM jobs_queue_live q
				WHERE (q.job_type, q.stage, q.priority) > (l.job_type, l.stage, l.priority)
				ORDER BY q.job_type, q.stage, q.priority LIMIT 1) n)
	SELECT l.job_type, min(d.scheduled_at) AS oldest_due_at
	FROM (SELECT job_type, stage, priority FROM lane LIMIT 2000) l
		CROSS JOIN LATERAL (
			SELECT h.scheduled_at
			FROM (SELECT q.scheduled_at, q.status FROM jobs_queue_live q
				WHERE q.job_type = l.job_type AND q.stage = l.stage AND q.priority = l.priority
					AND q.scheduled_at <= now()
				ORDER BY q.scheduled_at, q.id LIMIT 1000) h
			WHERE h.status = 'queued' LIMIT 1) d
	GROUP BY l.job_type;

CREATE FUNCTION _metric_label(value text) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN replace(replace(replace(value, E'\\', E'\\\\'), '"', E'\\"'), E'\n', E'\\n');
COMMENT ON FUNCTION _metric_label(text) IS 'A label value as Prometheus and OpenMetrics quote it';

CREATE FUNCTION _metric_number(value double precision) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE value WHEN 'NaN' THEN 'NaN' WHEN 'Infinity' THEN '+Inf' WHEN '-Infinity' THEN '-Inf' ELSE value::text END;
COMMENT ON FUNCTION _metric_number(double precision) IS 'A number as Prometheus and OpenMetrics write it';

CREATE FUNCTION _histogram_lines(name text, labels text, counts bigint[], bounds double precision[], sum double precision)
	RETURNS text
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'jobqueue_histogram_lines';
COMMENT ON FUNCTION _histogram_lines(text, text, bigint[], double precision[], double precision)
	IS 'The lines of one series of a Prometheus histogram';
CREATE FUNCTION _histogram_quantile(counts bigint[], bounds double precision[], fraction double precision)
	RETURNS double precision
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'jobqueue_histogram_quantile';
COMMENT ON FUNCTION _histogram_quantile(bigint[], double precision[], double precision)
	IS 'An estimate of a quantile from counts per bucket';
CREATE FUNCTION _histogram_sum(histograms bigint[])
	RETURNS bigint[]
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'jobqueue_histogram_sum';
COMMENT ON FUNCTION _histogram_sum(bigint[]) IS 'The sum of histograms, the rows of an array of two dimensions';

-- One row per series of job type and stage, with its labels. Above max_series
-- of them, each job type keeps its first stages as long as there is room; the
-- rest of its stages, or all of a type without room, are one series "(other)".
CREATE FUNCTION _metric_series(max_series integer) RETURNS TABLE (labels text,
		enqueued bigint, started bigint, succeeded bigint, failed bigint, retried bigint, dead bigint,
		cancelled bigint, released bigint, expired bigint, crashed bigint, skipped bigint,
		wait_us bigint, wait_buckets bigint[], run_us bigint, run_buckets bigint[], total_us bigint, total_buckets bigint[])
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED ROWS 100
BEGIN ATOMIC
	WITH counted AS MATERIALIZED (
		SELECT m.*, row_number() OVER (PARTITION BY m.job_type ORDER BY m.stage COLLATE "C") AS nth_stage FROM _job_metrics() m
	), ranked AS (
		SELECT c.*, row_number() OVER (ORDER BY c.nth_stage, c.job_type COLLATE "C") <= max_series AS has_room FROM counted c
	), named AS (
		SELECT r.*, CASE WHEN bool_or(r.has_room) OVER (PARTITION BY r.job_type) THEN r.job_type ELSE '(other)' END AS shown_type,
			CASE WHEN r.has_room THEN r.stage ELSE '(other)' END AS shown_stage
		FROM ranked r
	)
	SELECT 'job_type="' || _metric_label(n.shown_type) || '",stage="' || _metric_label(n.shown_stage) || '"',
		sum(n.enqueued)::bigint, sum(n.started)::bigint, sum(n.succeeded)::bigint, sum(n.failed)::bigint,
		sum(n.retried)::bigint, sum(n.dead)::bigint, sum(n.cancelled)::bigint, sum(n.released)::bigint,
		sum(n.expired)::bigint, sum(n.crashed)::bigint, sum(n.skipped)::bigint,
		sum(n.wait_us)::bigint, _histogram_sum(array_agg(n.wait_buckets)),
		sum(n.run_us)::bigint, _histogram_sum(array_agg(n.run_buckets)),
		sum(n.total_us)::bigint, _histogram_sum(array_agg(n.total_buckets))
	FROM named n
	GROUP BY n.shown_type, n.shown_stage
	ORDER BY n.shown_type COLLATE "C", n.shown_stage COLLATE "C";
END;
COMMENT ON FUNCTION _metric_series(integer) IS 'Counters and histograms of job types and stages, with labels, bounded in number';

-- Families are rows (place, name, type, unit, help, samples). Types are those of
-- OpenMetrics, whose counters are named without the _total of their samples.
CREATE FUNCTION _metric_job_families(max_series integer)
	RETURNS TABLE (place integer, name text, type text, unit text, help text, samples text)
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED ROWS 20
BEGIN ATOMIC
	WITH lines AS (
		SELECT string_agg('jobqueue_jobs_enqueued_total{' || s.labels || '} ' || s.enqueued || E'\n', '') AS enqueued,
			string_agg('jobqueue_jobs_started_total{' || s.labels || '} ' || s.started || E'\n', '') AS started,
			string_agg('jobqueue_jobs_succeeded_total{' || s.labels || '} ' || s.succeeded || E'\n', '') AS succeeded,
			string_agg('jobqueue_jobs_failed_total{' || s.labels || '} ' || s.failed || E'\n', '') AS failed,
			string_agg('jobqueue_jobs_retried_total{' || s.labels || '} ' || s.retried || E'\n', '') AS retried,
			string_agg('jobqueue_jobs_dead_total{' || s.labels || '} ' || s.dead || E'\n', '') AS dead,
			string_agg('jobqueue_jobs_cancelled_total{' || s.labels || '} ' || s.cancelled || E'\n', '') AS cancelled,
			string_agg('jobqueue_jobs_released_total{' || s.labels || '} ' || s.released || E'\n', '') AS released,
			string_agg('jobqueue_jobs_expired_total{' || s.labels || '} ' || s.expired || E'\n', '') AS expired,
			string_agg('jobqueue_jobs_crashed_total{' || s.labels || '} ' || s.crashed || E'\n', '') AS crashed,
			string_agg('jobqueue_jobs_skipped_total{' || s.labels || '} ' || s.skipped || E'\n', '') AS skipped,
			string_agg(_histogram_lines('jobqueue_job_wait_seconds', s.labels, s.wait_buckets, b.bounds, s.wait_us / 1e6::double precision), '') AS wait,
			string_agg(_histogram_lines('jobqueue_job_run_seconds', s.labels, s.run_buckets, b.bounds, s.run_us / 1e6::double precision), '') AS run,
			string_agg(_histogram_lines('jobqueue_job_latency_seconds', s.labels, s.total_buckets, b.bounds, s.total_us / 1e6::double precision), '') AS total
		FROM _metric_series(max_series) s CROSS JOIN _metric_bounds() b(bounds)
	)
	SELECT f.place, 'jobqueue_' || f.name, f.type, f.unit, f.help, f.samples
	FROM lines l CROSS JOIN LATERAL (VALUES
		(20, 'jobs_enqueued', 'counter', NULL, 'Jobs that were enqueued', l.enqueued),
		(21, 'jobs_started', 'counter', NULL, 'Attempts that began: jobs claimed by a worker', l.started),
		(22, 'jobs_succeeded', 'counter', NULL, 'Jobs that completed', l.succeeded),
		(23, 'jobs_failed', 'counter', NULL, 'Attempts that failed and were charged', l.failed),
		(24, 'jobs_retried', 'counter', NULL, 'Failed attempts whose job was queued again', l.retried),
		(25, 'jobs_dead', 'counter', NULL, 'Jobs that ended in status failed or error', l.dead),
		(26, 'jobs_cancelled', 'counter', NULL, 'Jobs that were cancelled', l.cancelled),
		(27, 'jobs_released', 'counter', NULL, 'Attempts that were given back uncharged', l.released),
		(28, 'jobs_expired', 'counter', NULL, 'Attempts whose worker stayed silent for its lease', l.expired),
		(29, 'jobs_crashed', 'counter', NULL, 'Attempts that ended with a crash of the server', l.crashed),
		(30, 'jobs_skipped', 'counter', NULL, 'Attempts that ended as skipped', l.skipped),
		(31, 'job_wait_seconds', 'histogram', 'seconds', 'From when a job was due to its claim', l.wait),
		(32, 'job_run_seconds', 'histogram', 'seconds', 'From the claim of a job to the end of the attempt', l.run),
		(33, 'job_latency_seconds', 'histogram', 'seconds', 'From when a job was due to its completion', l.total)
	) AS f(place, name, type, unit, help, samples);
END;
COMMENT ON FUNCTION _metric_job_families(integer) IS 'Metric families of what happened to jobs';

CREATE FUNCTION _metric_state_families(max_series integer)
	RETURNS TABLE (place integer, name text, type text, unit text, help text, samples text)
	LANGUAGE sql VOLATILE ROWS 40
BEGIN ATOMIC
	SELECT 1, 'jobqueue_build', 'info', NULL, 'Versions, and the database that the metrics are of',
		format(E'jobqueue_build_info{version="%s",server_version="%s",database="%s"} 1\n', _metric_label(e.extversion),
			_metric_label(split_part(current_setting('server_version'), ' ', 1)), _metric_label(current_database()))
	FROM pg_extension e WHERE e.extname = 'jobqueue'
	UNION ALL
	SELECT f.place, 'jobqueue_' || f.name, 'gauge', f.unit, f.help, f.samples
	FROM (SELECT s.is_active, s.reason, s.paused_at IS NOT NULL AS is_paused, s.has_scheduler FROM queue_status s) s
		CROSS JOIN LATERAL (VALUES
			(2, 'start_timestamp_seconds', 'seconds', 'When the server started, since the epoch',
				format(E'jobqueue_start_timestamp_seconds %s\n', extract(epoch FROM pg_postmaster_start_time()))),
			(3, 'active', NULL, 'Whether the server works on the jobs of this database; the reason when it does not',
				format(E'jobqueue_active{reason="%s"} %s\n', _metric_label(coalesce(s.reason, '')), s.is_active::integer)),
			(4, 'paused', NULL, 'Whether pause_workers() holds the workers of this database',
				format(E'jobqueue_paused %s\n', s.is_paused::integer)),
			(5, 'scheduler_running', NULL, 'Whether a scheduler serves this database',
				format(E'jobqueue_scheduler_running %s\n', s.has_scheduler::integer))
		) AS f(place, name, unit, help, samples)
	UNION ALL
	SELECT 6, 'jobqueue_health_check_status', 'gauge', NULL, 'Health checks of job_health(): 0 ok, 1 warning, 2 failure',
		string_agg(format(E'jobqueue_health_check_status{check="%s"} %s\n', _metric_label(h."check"),
			CASE h.status WHEN 'ok' THEN 0 WHEN 'warn' THEN 1 ELSE 2 END), '')
	FROM job_health() h
	UNION ALL
	SELECT 10, 'jobqueue_jobs', 'gauge', NULL, 'Jobs in the table; ready, scheduled and blocked ones wait, dead ones are dead letters',
		string_agg(format(
			E'jobqueue_jobs{job_type="%1$s",state="ready"} %2$s\njobqueue_jobs{job_type="%1$s",state="scheduled"} %3$s\n'
			'jobqueue_jobs{job_type="%1$s",state="running"} %4$s\njobqueue_jobs{job_type="%1$s",state="blocked"} %5$s\n'
			'jobqueue_jobs{job_type="%1$s",state="completed"} %6$s\njobqueue_jobs{job_type="%1$s",state="failed"} %7$s\n'
			'jobqueue_jobs{job_type="%1$s",state="dead"} %8$s\njobqueue_jobs{job_type="%1$s",state="cancelled"} %9$s\n',
			_metric_label(j.job_type), j.ready, j.scheduled, j.running, j.blocked, j.completed, j.failed, j.dead, j.cancelled), '')
	FROM (SELECT CASE WHEN c.n <= max_series THEN c.job_type ELSE '(other)' END AS job_type,
				sum(c.ready) AS ready, sum(c.scheduled) AS scheduled, sum(c.running) AS running, sum(c.blocked) AS blocked,
				sum(c.completed) AS completed, sum(c.failed) AS failed, sum(c.dead_letters) AS dead, sum(c.cancelled) AS cancelled
			FROM (SELECT row_number() OVER (ORDER BY k.job_type) AS n, k.* FROM job_counts k) c
			GROUP BY 1 ORDER BY 1) j
	UNION ALL
	SELECT 11, 'jobqueue_oldest_due_seconds', 'gauge', 'seconds', 'How long the oldest job that is due has waited for a claim',
		string_agg(format(E'jobqueue_oldest_due_seconds{job_type="%s"} %s\n', _metric_label(d.job_type), d.seconds), '')
	FROM (SELECT CASE WHEN c.n <= max_series THEN c.job_type ELSE '(other)' END AS job_type,
				greatest(0, extract(epoch FROM max(clock_timestamp() - c.oldest_due_at))) AS seconds
			FROM (SELECT row_number() OVER (ORDER BY o.job_type) AS n, o.* FROM _metric_due o) c
			GROUP BY 1 ORDER BY 1) d
	UNION ALL
	SELECT f.place, 'jobqueue_' || f.name, 'gauge', f.unit, f.help, f.samples
	FROM (SELECT
				string_agg(format(E'jobqueue_job_type_paused{job_type="%s"} %s\n', t.label, (t.enabled IS FALSE)::integer), '') AS paused,
				string_agg(format(E'jobqueue_job_type_throttled{job_type="%s"} %s\n', t.label, (t.throttled_until IS NOT NULL)::integer), '') AS throttled,
				string_agg(format(E'jobqueue_concurrency_in_use{job_type="%s"} %s\n', t.label, coalesce(t.running, 0)), '')
					FILTER (WHERE t.max_concurrency IS NOT NULL) AS in_use,
				string_agg(format(E'jobqueue_concurrency_limit{job_type="%s"} %s\n', t.label, t.max_concurrency), '')
					FILTER (WHERE t.max_concurrency IS NOT NULL) AS concurrency,
				string_agg(format(E'jobqueue_rate_limit{job_type="%s"} %s\n', t.label, t.rate_max), '')
					FILTER (WHERE t.rate_max IS NOT NULL) AS rate,
				string_agg(format(E'jobqueue_rate_window_seconds{job_type="%s"} %s\n', t.label, extract(epoch FROM t.rate_window)), '')
					FILTER (WHERE t.rate_max IS NOT NULL) AS rate_window,
				string_agg(format(E'jobqueue_rate_in_use{job_type="%s"} %s\n', t.label, t.rate_max - coalesce(t.rate_available, t.rate_max)), '')
					FILTER (WHERE t.rate_max IS NOT NULL) AS rate_in_use
			FROM (SELECT _metric_label(y.job_type) AS label, y.*
				FROM job_type_status y WHERE y.runner IS NOT NULL ORDER BY y.job_type LIMIT max_series) t) t
		CROSS JOIN LATERAL (VALUES
			(12, 'job_type_paused', NULL, 'Whether nothing of a job type is claimed, because it is not enabled', t.paused),
			(13, 'job_type_throttled', NULL, 'Whether throttle_job_type() holds a job type back', t.throttled),
			(14, 'concurrency_in_use', NULL, 'Running jobs that count for the limit of their type', t.in_use),
			(15, 'concurrency_limit', NULL, 'How many jobs of a type may run at once', t.concurrency),
			(16, 'rate_in_use', NULL, 'Jobs of a type that began within its window', t.rate_in_use),
			(17, 'rate_limit', NULL, 'How many jobs of a type may begin in a window', t.rate),
			(18, 'rate_window_seconds', 'seconds', 'Length of that window', t.rate_window)
		) AS f(place, name, unit, help, samples)
	UNION ALL
	SELECT f.place, 'jobqueue_' || f.name, 'gauge', NULL, f.help, f.samples
	FROM (SELECT
				string_agg(format(E'jobqueue_circuit_state{%s} %s\n', c.labels, CASE c.state WHEN 'open' THEN 2 WHEN 'half_open' THEN 1 ELSE 0 END), '') AS states,
				string_agg(format(E'jobqueue_circuit_consecutive_failures{%s} %s\n', c.labels, coalesce(c.failures, 0)), '') AS failures
			FROM (SELECT 'job_type="' || _metric_label(i.job_type) || '",stage="' || _metric_label(i.stage) || '"' AS labels, i.state, i.failures
				FROM job_circuit_status i
				ORDER BY i.state = 'closed', i.job_type, i.stage LIMIT max_series) c) c
		CROSS JOIN LATERAL (VALUES
			(40, 'circuit_state', 'Circuits of job types and stages: 0 closed, 1 half-open, 2 open', c.states),
			(41, 'circuit_consecutive_failures', 'Failed attempts in a row of a job type and stage', c.failures)
		) AS f(place, name, help, samples)
	UNION ALL
	SELECT f.place, 'jobqueue_' || f.name, f.type, f.unit, f.help, f.samples
	FROM (SELECT
				string_agg(format(E'jobqueue_cron_task_enabled{%s} %s\n', c.labels, c.enabled), '') AS enabled,
				string_agg(format(E'jobqueue_cron_task_lateness_seconds{%s} %s\n', c.labels, c.late), '') AS late,
				string_agg(format(E'jobqueue_cron_task_next_run_timestamp_seconds{%s} %s\n', c.labels, c.next), '') FILTER (WHERE c.next IS NOT NULL) AS next,
				string_agg(format(E'jobqueue_cron_task_last_run_timestamp_seconds{%s} %s\n', c.labels, c.last), '') FILTER (WHERE c.last IS NOT NULL) AS last,
				string_agg(format(E'jobqueue_cron_task_runs_total{%s} %s\n', c.labels, c.runs), '') AS runs,
				string_agg(format(E'jobqueue_cron_task_missed_total{%s} %s\n', c.labels, c.missed), '') AS missed,
				string_agg(format(E'jobqueue_cron_task_skipped_total{%s} %s\n', c.labels, c.skipped), '') AS skipped
			FROM (SELECT 'task="' || _metric_label(n.task) || '",job_type="' || _metric_label(n.job_type) || '"' AS labels,
						bool_or(n.enabled)::integer AS enabled,
						coalesce(extract(epoch FROM max(clock_timestamp() - n.next_run_at) FILTER (WHERE n.enabled AND n.next_run_at < now())), 0) AS late,
						extract(epoch FROM min(n.next_run_at) FILTER (WHERE n.enabled AND isfinite(n.next_run_at))) AS next,
						extract(epoch FROM max(n.last_enqueued_at)) AS last,
						sum(n.run_count) AS runs, sum(n.missed_count) AS missed, sum(n.skipped_count) AS skipped
					FROM (SELECT CASE WHEN m.n <= max_series THEN m.name ELSE '(other)' END AS task,
							CASE WHEN m.n <= max_series THEN m.job_type ELSE '(other)' END AS job_type,
							m.enabled, m.next_run_at, m.last_enqueued_at, m.run_count, m.missed_count, m.skipped_count
						FROM (SELECT row_number() OVER (ORDER BY k.name) AS n, k.* FROM _metric_cron k) m) n
					GROUP BY n.task, n.job_type ORDER BY n.task, n.job_type) c) c
		CROSS JOIN LATERAL (VALUES
			(50, 'cron_task_enabled', 'gauge', NULL, 'Whether a cron task is enabled', c.enabled),
			(51, 'cron_task_lateness_seconds', 'gauge', 'seconds', 'How long the next run of a cron task has been past', c.late),
			(52, 'cron_task_next_run_timestamp_seconds', 'gauge', 'seconds', 'Next planned run of a cron task, since the epoch', c.next),
			(53, 'cron_task_last_run_timestamp_seconds', 'gauge', 'seconds', 'When a job of a cron task was last enqueued, since the epoch', c.last),
			(54, 'cron_task_runs', 'counter', NULL, 'Runs of a cron task', c.runs),
			(55, 'cron_task_missed', 'counter', NULL, 'Instants of a cron task that passed without a job', c.missed),
			(56, 'cron_task_skipped', 'counter', NULL, 'Runs of a cron task that overlap or unique_key left out', c.skipped)
		) AS f(place, name, type, unit, help, samples)
	UNION ALL
	SELECT 70, 'jobqueue_workers', 'gauge', NULL, 'Workers by kind and state: those of the server, and outside ones that registered',
		string_agg(format(E'jobqueue_workers{kind="%s",state="%s"} %s\n', _metric_label(w.kind), _metric_label(w.state), w.workers), '')
	FROM (SELECT k.kind, k.state, count(*) AS workers FROM _metric_workers k GROUP BY 1, 2 ORDER BY 1, 2) w
	UNION ALL
	SELECT 71, 'jobqueue_worker_last_cycle_timestamp_seconds', 'gauge', 'seconds', 'When a worker of a kind last came round, since the epoch',
		string_agg(format(E'jobqueue_worker_last_cycle_timestamp_seconds{kind="%s"} %s\n', _metric_label(w.kind), w.at), '')
	FROM (SELECT k.kind, extract(epoch FROM max(k.last_seen_at)) AS at FROM _metric_workers k
			WHERE k.last_seen_at IS NOT NULL GROUP BY 1 ORDER BY 1) w
	UNION ALL
	SELECT f.place, f.name, 'gauge', NULL, f.help, format(E'%s %s\n', f.name, f.value)
	FROM (VALUES
			(72, 'jobqueue_executors_in_use', 'Executors that run, over all databases',
				(SELECT count(*) FROM _server_workers() w WHERE w.kind = 'executor')),
			(73, 'jobqueue_executors_limit', 'How many may run: jobqueue.max_executors',
				current_setting('jobqueue.max_executors', true)::bigint)
		) AS f(place, name, help, value)
	WHERE f.value IS NOT NULL
	UNION ALL
	SELECT f.place, 'jobqueue_' || f.name, 'gauge', f.unit, f.help, f.samples
	FROM (SELECT
				string_agg(format(E'jobqueue_table_size_bytes{table="%s"} %s\n', r.name, pg_total_relation_size(r.oid)), '') AS bytes,
				string_agg(format(E'jobqueue_table_live_rows{table="%s"} %s\n', r.name, pg_stat_get_live_tuples(r.oid)), '') AS live,
				string_agg(format(E'jobqueue_table_dead_rows{table="%s"} %s\n', r.name, pg_stat_get_dead_tuples(r.oid)), '') AS dead
			FROM (VALUES ('jobs_queue_live', 'jobs_queue_live'::regclass), ('jobs_queue_done', 'jobs_queue_done'::regclass),
				('job_runs', 'job_runs'::regclass), ('job_logs', 'job_logs'::regclass)) AS r(name, oid)) r
		CROSS JOIN LATERAL (VALUES
			(80, 'table_size_bytes', 'bytes', 'Size of a table with its indexes', r.bytes),
			(81, 'table_live_rows', NULL, 'Rows of a table, as autovacuum knows them', r.live),
			(82, 'table_dead_rows', NULL, 'Dead rows that VACUUM has not removed yet', r.dead)
		) AS f(place, name, unit, help, samples)
	UNION ALL
	SELECT f.place, 'jobqueue_' || f.name, 'counter', NULL, f.help, f.samples
	FROM job_claim_stats c
		CROSS JOIN LATERAL (VALUES
			(90, 'claims', 'Claims by where they found their jobs',
				format(E'jobqueue_claims_total{path="memory"} %s\njobqueue_claims_total{path="sql"} %s\n', c.memory_claims, c.sql_claims)),
			(91, 'claim_overflows', 'Claims for which there were more lanes than jobqueue.max_lanes', format(E'jobqueue_claim_overflows_total %s\n', c.overflows)),
			(92, 'claim_refills', 'Reads of the ready index', format(E'jobqueue_claim_refills_total %s\n', c.refills)),
			(93, 'claim_discoveries', 'Searches for lanes that nobody told of', format(E'jobqueue_claim_discoveries_total %s\n', c.discoveries)),
			(94, 'claim_sweeps', 'Looks over a lane for jobs that were missed', format(E'jobqueue_claim_sweeps_total %s\n', c.sweeps)),
			(95, 'claim_repairs', 'Jobs that were missed', format(E'jobqueue_claim_repairs_total %s\n', c.repairs)),
			(96, 'claim_stale_candidates', 'Jobs that had gone when a claim came', format(E'jobqueue_claim_stale_candidates_total %s\n', c.stale_candidates))
		) AS f(place, name, help, samples)
	WHERE c.memory_claims IS NOT NULL;
END;
COMMENT ON FUNCTION _metric_state_families(integer) IS 'Metric families of how things are now';

-- The bounds are some of those that endpoint_status counts by.
CREATE FUNCTION _metric_endpoint_families(max_series integer)
	RETURNS TABLE (place integer, name text, type text, unit text, help text, samples text)
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED ROWS 20
BEGIN ATOMIC
	WITH bounds AS MATERIALIZED (
		SELECT '{0.001,0.005,0.01,0.02,0.05,0.1,0.2,0.5,1,2,5,10,20,50,100}'::double precision[] AS bounds
	), counted AS (
		SELECT row_number() OVER (ORDER BY s.kind, s.name) <= max_series AS has_room, s.*, t.counts,
			coalesce(round(h.avg_ms * t.timed * 1000) / 1e6, 0) AS seconds
		FROM endpoint_status s
			LEFT JOIN _endpoint_health() h ON h.kind = s.kind AND h.name COLLATE "C" = s.name
			CROSS JOIN bounds b
			CROSS JOIN LATERAL (
				SELECT array_agg(coalesce(p.requests, 0) ORDER BY i.i) AS counts, coalesce(sum(p.requests), 0) AS timed
				FROM generate_series(0, cardinality(b.bounds)) i
					LEFT JOIN (
						SELECT (SELECT count(*) FROM unnest(b.bounds) u WHERE u * 1000 < coalesce(x.up_to_ms, 'Infinity')) AS i,
							sum(x.requests)::bigint AS requests
						FROM jsonb_to_recordset(h.latency_histogram) AS x(up_to_ms double precision, requests bigint)
						GROUP BY 1) p ON p.i = i.i) t
	), shown AS (
		SELECT 'kind="' || c.kind || '",endpoint="' || _metric_label(CASE WHEN c.has_room THEN c.name ELSE '(other)' END) || '"' AS labels,
			bool_or(coalesce(c.enabled, true))::integer AS enabled, sum(c.max_concurrency) AS max_concurrency, sum(c.in_flight) AS in_flight,
			sum(c.requests) AS requests, sum(c.succeeded) AS succeeded, sum(c.failed) AS failed, sum(c.aborted) AS aborted,
			max(c.consecutive_failures) AS consecutive_failures,
			sum(c.status_2xx) AS status_2xx, sum(c.status_3xx) AS status_3xx, sum(c.status_4xx) AS status_4xx,
			sum(c.status_5xx) AS status_5xx, sum(c.timeouts) AS timeouts, sum(c.connection_errors) AS connection_errors,
			sum(c.tls_errors) AS tls_errors, sum(c.refused) AS refused, sum(c.other_errors) AS other_errors,
			sum(c.bytes) AS bytes, sum(c.reused_connections) AS reused_connections,
			_histogram_sum(array_agg(c.counts)) AS counts, sum(c.seconds) AS seconds
		FROM counted c GROUP BY 1 ORDER BY 1
	), lines AS (
		SELECT string_agg(format(E'jobqueue_endpoint_enabled{%s} %s\n', s.labels, s.enabled), '') AS enabled,
			string_agg(format(E'jobqueue_endpoint_in_flight{%s} %s\n', s.labels, s.in_flight), '') AS in_flight,
			string_agg(format(E'jobqueue_endpoint_concurrency_limit{%s} %s\n', s.labels, s.max_concurrency), '')
				FILTER (WHERE s.max_concurrency IS NOT NULL) AS concurrency,
			string_agg(format(E'jobqueue_endpoint_consecutive_failures{%s} %s\n', s.labels, s.consecutive_failures), '') AS failing,
			string_agg(format(E'jobqueue_endpoint_requests_total{%s} %s\n', s.labels, s.requests), '') AS requests,
			string_agg(format(E'jobqueue_endpoint_results_total{%1$s,result="succeeded"} %2$s\njobqueue_endpoint_results_total{%1$s,result="failed"} %3$s\n'
				'jobqueue_endpoint_results_total{%1$s,result="aborted"} %4$s\n', s.labels, s.succeeded, s.failed, s.aborted), '') AS results,
			string_agg(format(E'jobqueue_endpoint_responses_total{%1$s,class="2xx"} %2$s\njobqueue_endpoint_responses_total{%1$s,class="3xx"} %3$s\n'
				'jobqueue_endpoint_responses_total{%1$s,class="4xx"} %4$s\njobqueue_endpoint_responses_total{%1$s,class="5xx"} %5$s\n'
				'jobqueue_endpoint_responses_total{%1$s,class="timeout"} %6$s\njobqueue_endpoint_responses_total{%1$s,class="connection_error"} %7$s\n'
				'jobqueue_endpoint_responses_total{%1$s,class="tls_error"} %8$s\njobqueue_endpoint_responses_total{%1$s,class="refused"} %9$s\n'
				'jobqueue_endpoint_responses_total{%1$s,class="other_error"} %10$s\n',
				s.labels, s.status_2xx, s.status_3xx, s.status_4xx, s.status_5xx, s.timeouts, s.connection_errors, s.tls_errors,
				s.refused, s.other_errors), '') AS responses,
			string_agg(_histogram_lines('jobqueue_endpoint_request_seconds', s.labels, s.counts, b.bounds, s.seconds), '') AS seconds,
			string_agg(format(E'jobqueue_endpoint_received_bytes_total{%s} %s\n', s.labels, s.bytes), '') AS bytes,
			string_agg(format(E'jobqueue_endpoint_reused_connections_total{%s} %s\n', s.labels, s.reused_connections), '') AS reused
		FROM shown s CROSS JOIN bounds b
	)
	SELECT f.place, 'jobqueue_endpoint_' || f.name, f.type, f.unit, f.help, f.samples
	FROM lines l CROSS JOIN LATERAL (VALUES
		(60, 'enabled', 'gauge', NULL, 'Whether requests are sent to an endpoint', l.enabled),
		(61, 'in_flight', 'gauge', NULL, 'Requests that are under way', l.in_flight),
		(62, 'concurrency_limit', 'gauge', NULL, 'How many requests may be under way', l.concurrency),
		(63, 'consecutive_failures', 'gauge', NULL, 'Failed requests since the last that succeeded', l.failing),
		(64, 'requests', 'counter', NULL, 'Requests that began', l.requests),
		(65, 'results', 'counter', NULL, 'Requests that ended, by what became of them', l.results),
		(66, 'responses', 'counter', NULL, 'Requests that ended, by class of status, or by why there was no answer', l.responses),
		(67, 'request_seconds', 'histogram', 'seconds', 'How long requests took', l.seconds),
		(68, 'received_bytes', 'counter', 'bytes', 'Bytes of responses', l.bytes),
		(69, 'reused_connections', 'counter', NULL, 'Requests that needed no new connection', l.reused)
	) AS f(place, name, type, unit, help, samples);
END;
COMMENT ON FUNCTION _metric_endpoint_families(integer) IS 'Metric families of HTTP endpoints';

-- Users' metrics keep their names if those are valid, and nobody else's. Others
-- are made valid; two that would become the same, or have samples of the same
-- name, get a part of a digest of what they are called. Names that begin with
-- jobqueue_ are ours.
CREATE FUNCTION _metric_user_families()
	RETURNS TABLE (place integer, name text, type text, unit text, help text, samples text)
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED ROWS 20
BEGIN ATOMIC
	WITH metrics AS MATERIALIZED (
		SELECT m.kind, m.name COLLATE "C" AS name, coalesce(p.labels, '') AS labels, m.count, m.sum
		FROM _user_metrics() m
			CROSS JOIN LATERAL (
				SELECT string_agg(l.label || '="' || _metric_label(l.value) || '"', ',' ORDER BY l.label COLLATE "C") AS labels
				FROM (
					SELECT v.value, v.valid || CASE WHEN row_number() OVER (PARTITION BY v.valid ORDER BY v.valid <> v.key, v.key COLLATE "C") > 1
							THEN '_' || left(md5(v.key), 8) ELSE '' END AS label
					FROM (
						SELECT k.key, k.value, regexp_replace(regexp_replace(regexp_replace(k.key COLLATE "C",
							'[^a-zA-Z0-9_]', '_', 'g'), '^([0-9]|__|$)', 'x_\1'), '^(le|quantile)$', '\1_') AS valid
						FROM jsonb_each_text(CASE jsonb_typeof(m.labels) WHEN 'object' THEN m.labels ELSE '{}' END) k) v) l) p
	), names AS (
		SELECT n.kind, n.name, regexp_replace(regexp_replace(regexp_replace(n.name, '[^a-zA-Z0-9_:]', '_', 'g'), '^([0-9]|$)', '_\1'),
			'^jobqueue_', 'user_jobqueue_') AS valid
		FROM (SELECT DISTINCT m.kind, m.name FROM metrics m) n
	), taken AS (
		SELECT n.kind, n.name, n.valid || s.suffix AS sample,
			row_number() OVER (PARTITION BY n.valid || s.suffix ORDER BY n.valid <> n.name, n.kind, n.name) > 1 AS is_taken
		FROM names n
			CROSS JOIN LATERAL unnest(CASE n.kind WHEN 'timer' THEN '{"",_sum,_count,_created}' ELSE '{""}' END::text[]) AS s(suffix)
	), families AS (
		SELECT n.kind, n.name, n.valid || CASE WHEN EXISTS (
				SELECT FROM taken t WHERE t.kind = n.kind AND t.name = n.name AND t.is_taken)
			THEN '_' || left(md5(n.kind || ':' || n.name), 8) ELSE '' END AS family
		FROM names n
	), series AS (
		SELECT f.family, m.kind, m.name, CASE WHEN m.labels = '' THEN '' ELSE '{' || m.labels || '}' END AS labels,
			sum(m.count) AS count, sum(m.sum) AS sum
		FROM metrics m JOIN families f ON f.kind = m.kind AND f.name = m.name
		GROUP BY 1, 2, 3, 4
		ORDER BY 1, 4
	)
	SELECT 100, s.family, CASE s.kind WHEN 'timer' THEN 'summary' ELSE 'user counter' END, NULL,
		CASE s.kind WHEN 'timer' THEN 'User timer ' ELSE 'User counter ' END || s.name,
		string_agg(CASE s.kind WHEN 'timer' THEN format(E'%1$s_sum%2$s %3$s\n%1$s_count%2$s %4$s\n', s.family, s.labels, _metric_number(s.sum), s.count)
			ELSE format(E'%s%s %s\n', s.family, s.labels, _metric_number(s.sum)) END, '')
	FROM series s
	GROUP BY s.family, s.kind, s.name
	ORDER BY s.family COLLATE "C";
END;
COMMENT ON FUNCTION _metric_user_families() IS 'Metric families of job_metric_add() and job_metric_observe()';

CREATE FUNCTION job_metrics_prometheus(openmetrics boolean DEFAULT false, max_series integer DEFAULT 1000)
	RETURNS text
	LANGUAGE sql VOLATILE
	SET extra_float_digits = 1
	SET jit = off
	SET lock_timeout = '2s'
BEGIN ATOMIC
	SELECT coalesce(string_agg(
			format(E'# HELP %1$s %2$s\n# TYPE %1$s %3$s\n%4$s%5$s', h.name,
				replace(replace(f.help, E'\\', E'\\\\'), E'\n', E'\\n'), h.type,
				CASE WHEN openmetrics AND f.unit IS NOT NULL THEN format(E'# UNIT %s %s\n', f.name, f.unit) ELSE '' END,
				f.samples), '' ORDER BY f.place, f.name COLLATE "C"), '')
		|| CASE WHEN openmetrics THEN E'# EOF\n' ELSE '' END
	FROM (
			SELECT s.* FROM _metric_state_families(max_series) s
			UNION ALL SELECT s.* FROM _metric_job_families(max_series) s
			UNION ALL SELECT s.* FROM _metric_endpoint_families(max_series) s
			UNION ALL SELECT s.* FROM _metric_user_families() s) f
		CROSS JOIN LATERAL (
			SELECT CASE WHEN openmetrics THEN f.name WHEN f.type = 'counter' THEN f.name || '_total'
					WHEN f.type = 'info' THEN f.name || '_info' ELSE f.name END AS name,
				CASE f.type WHEN 'user counter' THEN CASE WHEN openmetrics THEN 'unknown' ELSE 'counter' END
					WHEN 'info' THEN CASE WHEN openmetrics THEN 'info' ELSE 'gauge' END
					ELSE f.type END AS type) h
	WHERE f.samples IS NOT NULL;
END;
COMMENT ON FUNCTION job_metrics_prometheus(boolean, integer)
	IS 'All metrics of this database in the text format of Prometheus, or of OpenMetrics';

-- Milliseconds, as in the metrics of users: whole ones would say too little of
-- what is fast, all digits more than is known.
CREATE FUNCTION _metric_round(value double precision) RETURNS numeric
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE WHEN value = 0 THEN 0 WHEN value::text IN ('NaN', 'Infinity', '-Infinity') THEN NULL
	ELSE trim_scale(round(value::numeric, greatest(1, 2 - floor(log(abs(value)))::integer))) END;
COMMENT ON FUNCTION _metric_round(double precision) IS 'At least three digits, at least one of them behind the point';

CREATE FUNCTION _metric_latency(sum_us numeric, counts bigint[], bounds double precision[]) RETURNS jsonb
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT jsonb_build_object('count', coalesce(n.total, 0), 'sum', trim_scale(round(coalesce(sum_us, 0) / 1000, 3)),
		'avg', _metric_round((sum_us / 1000 / nullif(n.total, 0))::double precision),
		'p50', _metric_round(1000 * _histogram_quantile(counts, bounds, 0.5)),
		'p95', _metric_round(1000 * _histogram_quantile(counts, bounds, 0.95)),
		'p99', _metric_round(1000 * _histogram_quantile(counts, bounds, 0.99)))
	FROM (SELECT sum(c) AS total FROM unnest(counts) c) n;
END;
COMMENT ON FUNCTION _metric_latency(numeric, bigint[], double precision[]) IS 'A histogram in milliseconds, summed up';

CREATE FUNCTION job_metrics()
	RETURNS jsonb
	LANGUAGE sql VOLATILE
	SET extra_float_digits = 1
	SET jit = off
	SET lock_timeout = '2s'
BEGIN ATOMIC
	WITH users AS MATERIALIZED (
		SELECT m.kind, m.name, m.labels, m.count, m.sum FROM _user_metrics() m
	), counted AS MATERIALIZED (
		SELECT m.job_type COLLATE "C" AS job_type,
			sum(m.enqueued) AS enqueued, sum(m.started) AS started, sum(m.succeeded) AS succeeded, sum(m.failed) AS failed,
			sum(m.retried) AS retried, sum(m.dead) AS dead, sum(m.cancelled) AS cancelled, sum(m.released) AS released,
			sum(m.expired) AS expired, sum(m.crashed) AS crashed, sum(m.skipped) AS skipped,
			sum(m.wait_us) AS wait_us, _histogram_sum(array_agg(m.wait_buckets)) AS wait_buckets,
			sum(m.run_us) AS run_us, _histogram_sum(array_agg(m.run_buckets)) AS run_buckets,
			sum(m.total_us) AS total_us, _histogram_sum(array_agg(m.total_buckets)) AS total_buckets
		FROM _job_metrics() m GROUP BY m.job_type
	), types AS MATERIALIZED (
		SELECT m.*, m.job_type AS metered_type, c.queued, c.ready, c.scheduled, c.running, c.blocked, c.completed,
			c.failed AS failed_jobs, c.dead_letters, c.cancelled AS cancelled_jobs, coalesce(m.job_type, c.job_type COLLATE "C") AS name
		FROM counted m FULL JOIN job_counts c ON c.job_type = m.job_type
	)
	SELECT coalesce((SELECT jsonb_object_agg(t.name, jsonb_build_object('sum', t.sum, 'count', t.count,
				'avg', _metric_round(t.sum / nullif(t.count, 0))))
			FROM (SELECT u.name, sum(u.sum) AS sum, sum(u.count)::bigint AS count FROM users u WHERE u.kind = 'timer' GROUP BY u.name) t), '{}')
		|| coalesce((SELECT jsonb_object_agg(c.name, c.sum)
			FROM (SELECT u.name, sum(u.sum) AS sum FROM users u WHERE u.kind <> 'timer' GROUP BY u.name) c), '{}')
		|| jsonb_build_object('jobqueue', jsonb_build_object(
			'timestamp', to_jsonb(clock_timestamp() AT TIME ZONE 'UTC') #>> '{}' || 'Z',
			'uptime_ms', floor(1000 * extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())),
			'database', current_database(),
			'is_active', (SELECT s.is_active FROM queue_status s),
			'reason', (SELECT s.reason FROM queue_status s),
			'totals', (SELECT jsonb_build_object('enqueued', coalesce(sum(t.enqueued), 0), 'started', coalesce(sum(t.started), 0),
					'succeeded', coalesce(sum(t.succeeded), 0), 'failed', coalesce(sum(t.failed), 0),
					'retried', coalesce(sum(t.retried), 0), 'dead', coalesce(sum(t.dead), 0),
					'cancelled', coalesce(sum(t.cancelled), 0), 'released', coalesce(sum(t.released), 0),
					'expired', coalesce(sum(t.expired), 0), 'crashed', coalesce(sum(t.crashed), 0), 'skipped', coalesce(sum(t.skipped), 0),
					'success_rate', round(sum(t.succeeded) / nullif(sum(t.succeeded) + sum(t.failed), 0), 4),
					'failure_rate', round(sum(t.failed) / nullif(sum(t.succeeded) + sum(t.failed), 0), 4),
					'jobs', jsonb_build_object('queued', coalesce(sum(t.queued), 0), 'ready', coalesce(sum(t.ready), 0),
						'scheduled', coalesce(sum(t.scheduled), 0), 'running', coalesce(sum(t.running), 0),
						'blocked', coalesce(sum(t.blocked), 0), 'completed', coalesce(sum(t.completed), 0),
						'failed', coalesce(sum(t.failed_jobs), 0), 'dead_letters', coalesce(sum(t.dead_letters), 0),
						'cancelled', coalesce(sum(t.cancelled_jobs), 0)))
				FROM types t),
			'job_types', coalesce((SELECT jsonb_object_agg(t.name, jsonb_build_object('enqueued', coalesce(t.enqueued, 0),
					'started', coalesce(t.started, 0), 'succeeded', coalesce(t.succeeded, 0), 'failed', coalesce(t.failed, 0),
					'retried', coalesce(t.retried, 0), 'dead', coalesce(t.dead, 0), 'cancelled', coalesce(t.cancelled, 0),
					'released', coalesce(t.released, 0), 'expired', coalesce(t.expired, 0), 'crashed', coalesce(t.crashed, 0),
					'skipped', coalesce(t.skipped, 0),
					'success_rate', round(t.succeeded / nullif(t.succeeded + t.failed, 0), 4),
					'failure_rate', round(t.failed / nullif(t.succeeded + t.failed, 0), 4),
					'wait_ms', _metric_latency(t.wait_us, t.wait_buckets, b.bounds),
					'run_ms', _metric_latency(t.run_us, t.run_buckets, b.bounds),
					'latency_ms', _metric_latency(t.total_us, t.total_buckets, b.bounds),
					'jobs', jsonb_build_object('queued', coalesce(t.queued, 0), 'ready', coalesce(t.ready, 0),
						'scheduled', coalesce(t.scheduled, 0), 'running', coalesce(t.running, 0), 'blocked', coalesce(t.blocked, 0),
						'completed', coalesce(t.completed, 0), 'failed', coalesce(t.failed_jobs, 0),
						'dead_letters', coalesce(t.dead_letters, 0), 'cancelled', coalesce(t.cancelled_jobs, 0))))
				FROM types t CROSS JOIN _metric_bounds() b(bounds)), '{}'),
			'health', (SELECT jsonb_object_agg(h."check", h.status) FROM job_health() h),
			'circuits', coalesce((SELECT jsonb_agg(jsonb_build_object('job_type', c.job_type, 'stage', c.stage, 'state', c.state,
					'failures', c.failures, 'retry_at', c.retry_at) ORDER BY c.job_type, c.stage)
				FROM job_circuit_status c WHERE c.state <> 'closed'), '[]'),
			'cron_tasks', coalesce((SELECT jsonb_object_agg(c.name, jsonb_build_object('job_type', c.job_type, 'enabled', c.enabled,
					'next_run_at', c.next_run_at, 'last_enqueued_at', c.last_enqueued_at, 'runs', c.run_count,
					'missed', c.missed_count, 'skipped', c.skipped_count))
				FROM _metric_cron c), '{}'),
			'endpoints', coalesce((SELECT jsonb_object_agg(e.name, jsonb_build_object('kind', e.kind, 'in_flight', e.in_flight,
					'requests', e.requests, 'succeeded', e.succeeded, 'failed', e.failed,
					'consecutive_failures', e.consecutive_failures, 'success_rate', e.success_rate,
					'latency_ms', jsonb_build_object('avg', e.avg_ms, 'p50', e.p50_ms, 'p95', e.p95_ms, 'p99', e.p99_ms)))
				FROM endpoint_status e), '{}'),
			'workers', coalesce((SELECT jsonb_agg(jsonb_build_object('kind', w.kind, 'state', w.state, 'workers', w.workers)
					ORDER BY w.kind, w.state)
				FROM (SELECT k.kind, k.state, count(*) AS workers FROM _metric_workers k GROUP BY 1, 2) w), '[]'),
			'user_metrics', coalesce((SELECT jsonb_agg(jsonb_build_object('kind', u.kind, 'name', u.name, 'labels', u.labels,
					'count', u.count, 'sum', u.sum) ORDER BY u.kind, u.name COLLATE "C", u.labels)
				FROM users u), '[]')));
END;
COMMENT ON FUNCTION job_metrics()
	IS 'Metrics of users, by name, and under the key jobqueue those of this database';

-- ---------------------------------------------------------------------------
-- Dashboard: what its page shows, and what it does
-- ---------------------------------------------------------------------------

-- Both run as the role of the monitor, and show and do what it may. Statements
-- are texts, in which "@." stands for the schema, because that can be renamed.
-- None counts or sorts all jobs: each reads a page through an index, or looks
-- at so many and says where it stopped.

-- Parameters of a request, checked: no other is known.
CREATE FUNCTION _dashboard_check_query(query jsonb) RETURNS void
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	parameter record;
	pattern text;
BEGIN
	IF query IS NULL OR jsonb_typeof(query) <> 'object' THEN
		RAISE EXCEPTION 'parameters must be an object' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	FOR parameter IN SELECT p.key, p.value FROM jsonb_each_text(query) p
	LOOP
		pattern := CASE parameter.key
			WHEN 'id' THEN '^\d{1,18}$'
			WHEN 'status' THEN '^(queued|ready|scheduled|retrying|running|blocked|completed|failed|error|dead_letters|cancelled)$'
			WHEN 'range' THEN '^(15m|3h|7d)$'
			WHEN 'before' THEN '^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d(:?\d\d)?)$'
			WHEN 'after' THEN '^(\[.*\]|\d{1,18})$'
			WHEN 'job_type' THEN ''
			WHEN 'stage' THEN ''
			WHEN 'correlation_id' THEN ''
			WHEN 'error_like' THEN ''
			WHEN 'name' THEN ''
			END;
		IF pattern IS NULL THEN
			RAISE EXCEPTION 'unrecognized parameter "%"', left(parameter.key, 100)
				USING ERRCODE = 'invalid_parameter_value';
		ELSIF octet_length(parameter.value) > 4096 OR parameter.value !~ pattern THEN
			RAISE EXCEPTION 'invalid value for parameter "%"', parameter.key
				USING ERRCODE = 'invalid_parameter_value';
		END IF;
	END LOOP;
END
$$;

-- A page of jobs, and where the next one begins: ended ones the latest first,
-- the live ones of a job type in the order of claims, others by id. What no
-- index finds is looked for in a window; then is_partial says that there may
-- be more behind it.
CREATE FUNCTION _dashboard_jobs(query jsonb) RETURNS jsonb
	LANGUAGE plpgsql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	page_size CONSTANT integer := 50;
	ended CONSTANT text[] := '{completed,failed,error,cancelled}';
	schema text := (SELECT e.extnamespace::regnamespace::text FROM pg_extension e WHERE e.extname = 'jobqueue');
	sees_all boolean := has_table_privilege(format('%s.jobs_queue', schema), 'SELECT');
	wanted text := nullif(query->>'status', '');
	job_type text := nullif(query->>'job_type', '');
	statuses text[];
	keys text[];
	directions text := 'ASC';
	after jsonb;
	bounds text[];
	conditions text := '';
	hit text := 'true';
	most integer;
	source text;
	page jsonb;
BEGIN
	statuses := CASE WHEN wanted IS NULL THEN NULL
		WHEN wanted = 'dead_letters' THEN '{error,failed}'
		WHEN wanted IN ('ready', 'scheduled', 'retrying') THEN '{queued}'
		ELSE ARRAY[wanted] END;
	IF statuses <@ ended THEN
		keys := ARRAY[CASE WHEN job_type IS NULL THEN 'updated_at' ELSE 'finished_at' END, 'id'];
		directions := 'DESC';
	ELSIF job_type IS NOT NULL AND statuses IS NOT NULL THEN
		keys := '{stage,priority,scheduled_at,id}';
	ELSE
		keys := '{id}';
		directions := CASE WHEN statuses IS NULL THEN 'DESC' ELSE 'ASC' END;
	END IF;

	IF nullif(query->>'after', '') IS NOT NULL THEN
		BEGIN
			after := (query->>'after')::jsonb;
			SELECT array_agg(format('CAST(%L AS %s)', after->>(k.n::integer - 1), CASE k.name WHEN 'id' THEN 'bigint'
					WHEN 'priority' THEN 'smallint' WHEN 'stage' THEN 'text' ELSE 'timestamptz' END) ORDER BY k.n)
				INTO bounds
			FROM unnest(keys) WITH ORDINALITY AS k (name, n);
			IF jsonb_typeof(after) <> 'array' OR jsonb_array_length(after) <> cardinality(keys) THEN
				RAISE data_exception;
			END IF;
			EXECUTE 'SELECT ' || array_to_string(bounds, ', ');
		EXCEPTION WHEN data_exception OR invalid_text_representation THEN
			RAISE EXCEPTION 'invalid value for parameter "after"' USING ERRCODE = 'invalid_parameter_value';
		END;
		conditions := format(' AND (%s) %s (%s)',
			(SELECT string_agg('q.' || k, ', ' ORDER BY n) FROM unnest(keys) WITH ORDINALITY AS u (k, n)),
			CASE directions WHEN 'ASC' THEN '>' ELSE '<' END, array_to_string(bounds, ', '));
	END IF;
	IF job_type IS NOT NULL AND cardinality(keys) > 1 THEN
		conditions := conditions || ' AND q.job_type = $1';
	ELSIF job_type IS NOT NULL THEN
		hit := hit || ' AND q.job_type = $1';
	END IF;

	-- What the index does not know.
	hit := hit || CASE wanted WHEN 'ready' THEN ' AND q.scheduled_at <= now()'
			WHEN 'scheduled' THEN ' AND q.scheduled_at > now() AND q.attempts = 0'
			WHEN 'retrying' THEN ' AND q.attempts > 0' ELSE '' END
		|| CASE WHEN statuses IS NULL OR statuses <@ ended THEN '' ELSE format(' AND q.status = ANY (%L)', statuses) END
		|| CASE WHEN query->>'correlation_id' <> '' THEN ' AND q.correlation_id = $2' ELSE '' END
		|| CASE WHEN query->>'stage' <> '' THEN ' AND q.stage = $3' ELSE '' END
		|| CASE WHEN query->>'error_like' <> '' THEN ' AND q.last_error LIKE $4' ELSE '' END;
	most := CASE hit WHEN 'true' THEN page_size + 1 ELSE 20000 END;
	SELECT string_agg(format('(SELECT %s, %s AS hit FROM @.jobs_queue q WHERE %s%s ORDER BY %s LIMIT %s)',
			(SELECT string_agg('q.' || k, ', ' ORDER BY n) FROM unnest(keys) WITH ORDINALITY AS u (k, n)), hit,
			CASE WHEN s.status IS NOT NULL THEN format('q.status = %L', s.status)
				WHEN statuses IS NOT NULL THEN 'q.status IN (''queued'', ''running'', ''blocked'')' ELSE 'true' END,
			conditions,
			(SELECT string_agg(format('q.%s %s', k, directions), ', ' ORDER BY n) FROM unnest(keys) WITH ORDINALITY AS u (k, n)), most),
			' UNION ALL ')
		INTO source
	FROM unnest(CASE WHEN statuses <@ ended THEN statuses ELSE '{NULL}' END) AS s (status);

	EXECUTE replace(format($q$
		WITH scanned AS MATERIALIZED (SELECT s.*, row_number() OVER (ORDER BY %1$s) AS n FROM (%2$s) s ORDER BY n LIMIT %3$s),
			hits AS MATERIALIZED (SELECT s.*, row_number() OVER (ORDER BY s.n) AS place FROM scanned s WHERE s.hit ORDER BY s.n LIMIT %4$s + 1),
			seen AS (SELECT (SELECT count(*) FROM scanned) AS scanned, (SELECT count(*) FROM hits) AS hits)
		SELECT jsonb_build_object(
			'jobs', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', q.id, 'job_type', q.job_type, 'stage', q.stage,
					'status', q.status, 'state', CASE WHEN q.status = 'queued' AND q.attempts > 0 THEN 'retrying'
						WHEN q.status = 'queued' AND q.scheduled_at > now() THEN 'scheduled'
						WHEN q.status = 'running' AND q.holder IS NULL AND q.lease_expires_at < now() THEN 'stalled'
						ELSE q.status END,
					'priority', q.priority, 'scheduled_at', q.scheduled_at, 'attempts', q.attempts,
					'max_attempts', q.max_attempts, 'correlation_id', q.correlation_id, 'created_at', q.created_at,
					'locked_at', q.locked_at, 'finished_at', q.finished_at, 'updated_at', q.updated_at%5$s) ORDER BY h.place), '[]')
				FROM hits h JOIN @.jobs_queue q ON q.id = h.id WHERE h.place <= %4$s),
			'next', CASE WHEN e.hits > %4$s THEN (SELECT jsonb_build_array(%6$s) FROM hits k WHERE k.place = %4$s)
				WHEN e.scanned >= %3$s THEN (SELECT jsonb_build_array(%6$s) FROM scanned k WHERE k.n = %3$s) END,
			'is_partial', e.hits <= %4$s AND e.scanned >= %3$s, 'scanned', e.scanned)
		FROM seen e$q$,
		(SELECT string_agg(format('s.%s %s', k, directions), ', ' ORDER BY n) FROM unnest(keys) WITH ORDINALITY AS u (k, n)),
		source, most, page_size,
		CASE WHEN sees_all THEN ', ''last_error'', left(q.last_error, 300)' ELSE '' END,
		(SELECT string_agg('k.' || k, ', ' ORDER BY n) FROM unnest(keys) WITH ORDINALITY AS u (k, n))), '@.', schema || '.')
		INTO page USING job_type, query->>'correlation_id', query->>'stage', query->>'error_like';
	RETURN page;
END
$$;

CREATE FUNCTION _dashboard_get(path text, query jsonb DEFAULT '{}') RETURNS jsonb
	LANGUAGE plpgsql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	schema text := (SELECT e.extnamespace::regnamespace::text FROM pg_extension e WHERE e.extname = 'jobqueue');
	sees_all boolean := has_table_privilege(format('%s.jobs_queue', schema), 'SELECT');
	statement text;
	step interval;
	span interval;
	resolution text;
	result jsonb;
BEGIN
	path := regexp_replace(path, '^/api/', '');
	EXECUTE format('SELECT %s._dashboard_check_query($1)', schema) USING query;
	SELECT r.resolution, r.step, r.span INTO resolution, step, span
	FROM (VALUES ('15m', '10s', interval '10 seconds', interval '15 minutes'),
		('3h', '1m', '1 minute', '3 hours'), ('7d', '1h', '1 hour', '7 days')) AS r (name, resolution, step, span)
	WHERE r.name = coalesce(query->>'range', '15m');

	statement := CASE path
	WHEN 'session' THEN $q$
		SELECT jsonb_build_object('database', current_database(), 'role', current_user, 'sees_payloads', $2,
			'can_act', (SELECT bool_or(has_function_privilege(p.oid, 'EXECUTE')) FROM pg_proc p
				WHERE p.proname = '_dashboard_act' AND p.pronamespace = e.extnamespace),
			'version', e.extversion, 'has_alerts', to_regclass(e.extnamespace::regnamespace || '.alerts') IS NOT NULL,
			'server_version', current_setting('server_version'), 'started_at', pg_postmaster_start_time())
		FROM pg_extension e WHERE e.extname = 'jobqueue'
		$q$
	WHEN 'overview' THEN $q$
		WITH recent AS MATERIALIZED (
			SELECT h.job_type, 30 - 1 - least(29, floor(extract(epoch FROM now() - h.at) / 30))::integer AS place,
				sum(h.succeeded) AS succeeded, sum(h.failed) AS failed
			FROM @.job_history h
			WHERE h.resolution = '10s' AND h.at > now() - interval '15 minutes'
			GROUP BY 1, 2),
		types AS (
			SELECT coalesce(c.job_type, s.job_type) AS job_type, c.queued, c.ready, c.scheduled, c.running, c.blocked,
				c.completed, c.failed, c.dead_letters, c.cancelled,
				s.enabled, s.paused_at, s.pause_reason, s.throttled_until, s.open_circuits, s.runner
			FROM @.job_counts c FULL JOIN @.job_type_status s ON s.job_type = c.job_type),
		shown AS (
			SELECT t.*, r.succeeded_lately, r.failed_lately, r.spark
			FROM types t
				LEFT JOIN (SELECT r.job_type, sum(r.succeeded) AS succeeded_lately, sum(r.failed) AS failed_lately,
						jsonb_agg(jsonb_build_array(r.place, r.succeeded, r.failed) ORDER BY r.place) AS spark
					FROM recent r GROUP BY r.job_type) r ON r.job_type = t.job_type
			ORDER BY (NOT coalesce(t.enabled, true) OR coalesce(t.open_circuits, 0) > 0) DESC,
				coalesce(t.dead_letters, 0) + coalesce(r.failed_lately, 0) > 0 DESC,
				coalesce(r.succeeded_lately, 0) + coalesce(r.failed_lately, 0) DESC, coalesce(t.queued, 0) DESC, t.job_type
			LIMIT 20)
		SELECT jsonb_build_object('queue', (SELECT to_jsonb(s) FROM @.queue_status s),
			'health', (SELECT coalesce(jsonb_agg(jsonb_build_object('check', h."check", 'status', h.status,
					'detail', h.detail, 'hint', h.hint, 'value', h.value)
					ORDER BY array_position('{fail,warn,ok}', h.status), h."check"), '[]')
				FROM @.job_health() h),
			'counts', (SELECT jsonb_build_object('queued', sum(t.queued), 'ready', sum(t.ready),
					'scheduled', sum(t.scheduled), 'running', sum(t.running), 'blocked', sum(t.blocked),
					'completed', sum(t.completed), 'failed', sum(t.failed),
					'dead_letters', sum(t.dead_letters), 'cancelled', sum(t.cancelled), 'job_types', count(*))
				FROM types t),
			'types', (SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]') FROM shown t))
		$q$
	WHEN 'history' THEN $q$
		WITH changes AS (
			SELECT h.at, h.enqueued, h.started, h.succeeded, h.failed, h.dead,
				h.wait_p50_ms, h.wait_p95_ms, h.run_p50_ms, h.run_p95_ms, h.total_p95_ms,
				h.ready - lag(h.ready, 1, h.ready) OVER w AS more_ready,
				h.running - lag(h.running, 1, h.running) OVER w AS more_running
			FROM @.job_history h
			WHERE h.resolution = $3 AND h.at > now() - $5 AND ($6 IS NULL OR h.job_type = $6)
			WINDOW w AS (PARTITION BY h.job_type ORDER BY h.at)),
		points AS (
			SELECT extract(epoch FROM c.at)::bigint AS at, sum(c.enqueued) AS enqueued, sum(c.succeeded) AS succeeded,
				sum(c.failed) AS failed, sum(c.dead) AS dead, max(c.wait_p50_ms) AS wait_p50, max(c.wait_p95_ms) AS wait_p95,
				max(c.run_p50_ms) AS run_p50, max(c.run_p95_ms) AS run_p95, max(c.total_p95_ms) AS total_p95,
				sum(c.more_ready) AS more_ready, sum(c.more_running) AS more_running
			FROM changes c GROUP BY c.at)
		SELECT jsonb_build_object('step', extract(epoch FROM $4), 'span', extract(epoch FROM $5),
			'ready', (SELECT sum(c.ready) FROM @.job_counts c WHERE $6 IS NULL OR c.job_type = $6),
			'running', (SELECT sum(c.running) FROM @.job_counts c WHERE $6 IS NULL OR c.job_type = $6),
			'columns', '["at", "enqueued", "succeeded", "failed", "dead", "wait_p50", "wait_p95", "run_p50", "run_p95", "total_p95", "more_ready", "more_running"]'::jsonb,
			'points', (SELECT coalesce(jsonb_agg(jsonb_build_array(p.at, p.enqueued, p.succeeded, p.failed, p.dead, p.wait_p50,
				p.wait_p95, p.run_p50, p.run_p95, p.total_p95, p.more_ready, p.more_running) ORDER BY p.at), '[]') FROM points p))
		$q$
	WHEN 'types' THEN $q$
		WITH page AS (
			SELECT coalesce(c.job_type, s.job_type) AS job_type, s.runner, s.enabled, s.paused_at, s.pause_reason,
				s.throttled_until, c.queued, c.ready, c.scheduled, c.running, c.blocked, c.completed, c.failed,
				c.dead_letters, c.cancelled, s.running AS limited_running, s.max_concurrency, s.rate_max,
				extract(epoch FROM s.rate_window) AS rate_window_s, s.rate_available, s.groups, s.ready_groups, s.open_circuits
			FROM @.job_counts c FULL JOIN @.job_type_status s ON s.job_type = c.job_type
			WHERE coalesce(c.job_type, s.job_type) > coalesce($1->>'name', '')
			ORDER BY 1 LIMIT 201)
		SELECT jsonb_build_object(
			'types', (SELECT coalesce(jsonb_agg(to_jsonb(p) ORDER BY p.job_type), '[]') FROM (SELECT * FROM page LIMIT 200) p),
			'next', CASE WHEN (SELECT count(*) FROM page) > 200 THEN (SELECT p.job_type FROM page p OFFSET 199 LIMIT 1) END)
		$q$
	WHEN 'type' THEN $q$
		SELECT jsonb_build_object('job_type', $6,
			'counts', (SELECT to_jsonb(c) FROM @.job_counts c WHERE c.job_type = $6),
			'status', (SELECT to_jsonb(s) FROM @.job_type_status s WHERE s.job_type = $6),
			'circuits', (SELECT coalesce(jsonb_agg(jsonb_build_object('stage', c.stage, 'state', c.state, 'failures', c.failures,
					'threshold', c.threshold, 'opened_at', c.opened_at, 'retry_at', c.retry_at, 'forced', c.forced,
					'reason', c.reason, 'probe_job_id', c.probe_job_id) ORDER BY c.stage), '[]')
				FROM @.job_circuit_status c WHERE c.job_type = $6))
		$q$ || CASE WHEN sees_all THEN $q$
			|| jsonb_build_object('settings', (SELECT to_jsonb(t) - 'command' - 'job_type' FROM @.job_types t WHERE t.job_type = $6))
		$q$ ELSE '' END
	WHEN 'jobs' THEN $q$ SELECT @._dashboard_jobs($1) $q$
	WHEN 'count' THEN $q$
		SELECT jsonb_build_object('jobs', least(count(*) FILTER (WHERE s.hit), 10000),
			'is_least', count(*) FILTER (WHERE s.hit) > 10000 OR count(*) > 50000)
		FROM (SELECT ($1->>'stage' IS NULL OR q.stage = $1->>'stage') AND $q$
			|| CASE WHEN query->>'error_like' <> '' THEN $q$ q.last_error LIKE $1->>'error_like' $q$ ELSE 'true' END || $q$ AS hit
			FROM @.jobs_queue q
			WHERE q.status = ANY (CASE $1->>'status' WHEN 'dead_letters' THEN '{error,failed}' ELSE ARRAY[$1->>'status'] END)
				AND ($6 IS NULL OR q.job_type = $6)
				AND ($1->>'before' IS NULL OR q.finished_at < ($1->>'before')::timestamptz)
			LIMIT CASE WHEN $1 ?| '{stage,error_like}' THEN 50001 ELSE 10001 END) s
		$q$
	WHEN 'job' THEN CASE WHEN sees_all THEN $q$
		SELECT jsonb_build_object('job', (SELECT to_jsonb(q) - '{payload,result,metadata,progress}'::text[] || jsonb_build_object(
					'state', @.job_state(q), 'timeout', extract(epoch FROM q.timeout),
					'worker_name', (SELECT w.name FROM @.registered_workers w WHERE w.worker_id = q.locked_by))
				FROM @.jobs_queue q WHERE q.id = $7),
			'runs', (SELECT coalesce(jsonb_agg(r.run ORDER BY r.claim_no DESC), '[]') FROM (
				SELECT r.claim_no, to_jsonb(r) - '{result,response}'::text[]
					|| jsonb_build_object('http_status', r.response->'status', 'error', left(r.error, 4000)) AS run
				FROM @.job_runs r WHERE r.job_id = $7 ORDER BY r.claim_no DESC LIMIT 100) r),
			'timeline', (SELECT coalesce(jsonb_agg(jsonb_build_object('at', e.at, 'event', e.event, 'detail', e.detail) ORDER BY e.n), '[]')
				FROM (SELECT t.at, t.event, t.detail, t.n FROM @.job_timeline($7) WITH ORDINALITY AS t (at, event, detail, n)
					ORDER BY t.n DESC LIMIT 500) e),
			'depends_on', (SELECT jsonb_agg(d.depends_on ORDER BY d.depends_on) FROM (SELECT d.depends_on FROM @.job_dependencies d WHERE d.job_id = $7 LIMIT 100) d),
			'needed_by', (SELECT jsonb_agg(d.job_id ORDER BY d.job_id) FROM (SELECT d.job_id FROM @.job_dependencies d WHERE d.depends_on = $7 LIMIT 100) d))
		$q$ ELSE $q$
		SELECT jsonb_build_object('job', (SELECT jsonb_build_object('id', q.id, 'job_type', q.job_type, 'stage', q.stage, 'status', q.status,
					'priority', q.priority, 'scheduled_at', q.scheduled_at, 'attempts', q.attempts, 'max_attempts', q.max_attempts,
					'correlation_id', q.correlation_id, 'created_at', q.created_at, 'finished_at', q.finished_at,
					'locked_at', q.locked_at, 'locked_by', q.locked_by, 'lease_expires_at', q.lease_expires_at,
					'updated_at', q.updated_at, 'claim_no', q.claim_no, 'crashes', q.crashes, 'waiting_for', q.waiting_for)
				FROM @.jobs_queue q WHERE q.id = $7),
			'runs', (SELECT coalesce(jsonb_agg(to_jsonb(r) ORDER BY r.claim_no DESC), '[]') FROM (
				SELECT r.claim_no, r.attempt, r.stage, r.worker_id, r.status, r.charged, r.started_at, r.finished_at
				FROM @.job_runs r WHERE r.job_id = $7 ORDER BY r.claim_no DESC LIMIT 100) r))
		$q$ END
	WHEN 'payload' THEN CASE WHEN sees_all THEN $q$
		SELECT jsonb_build_object('payload', q.payload, 'result', q.result, 'progress', q.progress, 'metadata', q.metadata,
			'response', (SELECT r.response FROM @.job_runs r WHERE r.job_id = q.id AND r.response IS NOT NULL ORDER BY r.claim_no DESC LIMIT 1))
		FROM @.jobs_queue q WHERE q.id = $7
		$q$ END
	WHEN 'cron' THEN $q$
		WITH page AS (
			SELECT o.id, o.name, o.schedule, @.cron_describe(o.schedule) AS words, o.timezone, o.job_type, o.enabled, o.disabled_reason,
				o.next_run_at, extract(epoch FROM o.late_by) AS late_s, o.last_instant, o.last_enqueued_at, o.last_job_id,
				o.last_job_status, o.run_count, o.missed_count, o.skipped_count
			FROM @.cron_overview o WHERE o.name > coalesce($1->>'name', '') ORDER BY o.name LIMIT 201)
		SELECT jsonb_build_object(
			'tasks', (SELECT coalesce(jsonb_agg(to_jsonb(p) ORDER BY p.name), '[]') FROM (SELECT * FROM page LIMIT 200) p),
			'next', CASE WHEN (SELECT count(*) FROM page) > 200 THEN (SELECT p.name FROM page p OFFSET 199 LIMIT 1) END)
		$q$
	WHEN 'cron-task' THEN $q$
		SELECT to_jsonb(o) || jsonb_build_object('words', @.cron_describe(o.schedule), 'late_by', extract(epoch FROM o.late_by),
			'last_lateness', extract(epoch FROM o.last_lateness),
			'next_runs', (SELECT jsonb_agg(n.at ORDER BY n.at) FROM @.cron_next_runs(o.schedule, o.timezone, now(), 5) AS n (at))
		$q$ || CASE WHEN sees_all THEN $q$
			, 'runs', (SELECT coalesce(jsonb_agg(to_jsonb(r) ORDER BY r.instant DESC), '[]') FROM (
				SELECT r.instant, r.kind, r.job_id, r.skip_reason, r.decided_at, j.status
				FROM @.cron_runs r LEFT JOIN @.jobs_queue j ON j.id = r.job_id
				WHERE r.task_id = o.id ORDER BY r.instant DESC LIMIT 25) r)
		$q$ ELSE '' END || $q$) FROM @.cron_overview o WHERE o.name = $1->>'name' $q$
	WHEN 'workers' THEN $q$
		WITH oldest AS MATERIALIZED (
			SELECT q.id, q.job_type, q.status, q.locked_by, q.locked_at, q.holder, q.lease_expires_at
			FROM @.jobs_queue q WHERE q.status IN ('queued', 'running', 'blocked') ORDER BY q.id LIMIT 20000),
		held AS (
			SELECT o.locked_by AS worker_id, count(*) AS jobs, min(o.id) AS job_id, max(o.locked_at) AS last_claim_at,
				count(*) FILTER (WHERE o.lease_expires_at < now()) AS stalled
			FROM oldest o WHERE o.status = 'running' AND o.holder IS NULL GROUP BY o.locked_by),
		outside AS (
			SELECT w.worker_id, r.name, r.registered_by AS role,
				CASE WHEN x.worker_id IS NULL THEN CASE WHEN h.jobs IS NULL THEN 'idle' ELSE 'active' END
					ELSE CASE WHEN h.jobs IS NULL THEN 'stopped' ELSE 'stopping' END END AS state,
				coalesce(h.jobs, 0) AS running_jobs, h.stalled, h.job_id, r.registered_at AS started_at,
				greatest(r.last_seen_at, h.last_claim_at) AS last_seen_at, x.reason AS stop_reason
			FROM (SELECT worker_id FROM (SELECT g.worker_id FROM @.registered_workers g ORDER BY g.last_seen_at DESC LIMIT 500) g
					UNION SELECT worker_id FROM @.worker_stops UNION SELECT worker_id FROM held) w
				LEFT JOIN @.registered_workers r ON r.worker_id = w.worker_id
				LEFT JOIN @.worker_stops x ON x.worker_id = w.worker_id
				LEFT JOIN held h ON h.worker_id = w.worker_id)
		SELECT jsonb_build_object(
			'outside', (SELECT coalesce(jsonb_agg(to_jsonb(o) ORDER BY o.last_seen_at DESC, o.worker_id), '[]') FROM outside o),
			'server', (SELECT coalesce(jsonb_agg(jsonb_build_object('kind', s.kind, 'worker_id', s.worker_id, 'role', s.role::regrole, 'pid', s.pid,
					'state', s.state, 'job_id', s.job_id, 'started_at', s.started_at, 'last_seen_at', s.last_cycle_at)
					ORDER BY array_position('{launcher,scheduler,dispatcher,executor}', s.kind), s.started_at), '[]')
				FROM @._server_workers() s
				WHERE s.database IS NULL OR s.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())),
			'is_partial', (SELECT count(*) FROM oldest) >= 20000, 'queue', (SELECT to_jsonb(s) FROM @.queue_status s))
		$q$
	WHEN 'endpoints' THEN $q$
		SELECT jsonb_build_object(
			'endpoints', (SELECT coalesce(jsonb_agg(to_jsonb(e) - 'latency_histogram' ORDER BY e.consecutive_failures = 0, e.kind, e.name), '[]')
				FROM (SELECT * FROM @.endpoint_status s ORDER BY s.consecutive_failures = 0, s.kind, s.name LIMIT 500) e))
		$q$
	WHEN 'circuits' THEN $q$
		SELECT jsonb_build_object('circuits', (SELECT coalesce(jsonb_agg(jsonb_build_object('job_type', c.job_type, 'stage', c.stage,
				'state', c.state, 'failures', c.failures, 'threshold', c.threshold, 'opened_at', c.opened_at,
				'retry_at', c.retry_at, 'forced', c.forced, 'reason', c.reason, 'probe_job_id', c.probe_job_id)
				ORDER BY c.state = 'closed', c.job_type, c.stage), '[]')
			FROM (SELECT c.job_type, c.stage, c.state, c.failures, c.threshold, c.opened_at, c.retry_at, c.forced, c.reason, c.probe_job_id
				FROM @.job_circuit_status c ORDER BY c.state = 'closed', c.job_type, c.stage LIMIT 500) c))
		$q$
	WHEN 'alerts' THEN CASE WHEN to_regclass(schema || '.alerts') IS NOT NULL THEN $q$
		SELECT jsonb_build_object(
			'open', (SELECT coalesce(jsonb_agg(to_jsonb(a) ORDER BY array_position('{critical,warning,info}', a.severity), a.started_at DESC), '[]')
				FROM (SELECT * FROM @.alerts a WHERE a.resolved_at IS NULL ORDER BY a.rule, a.job_type, a.stage, a.subject LIMIT 200) a),
			'over', (SELECT coalesce(jsonb_agg(to_jsonb(a) ORDER BY a.resolved_at DESC), '[]')
				FROM (SELECT * FROM @.alerts a WHERE a.resolved_at IS NOT NULL ORDER BY a.resolved_at DESC LIMIT 50) a))
		$q$ || CASE WHEN sees_all THEN $q$ || jsonb_build_object('rules', (SELECT coalesce(jsonb_agg(to_jsonb(r) ORDER BY r.name), '[]')
				FROM (SELECT * FROM @.alert_rules r ORDER BY r.name LIMIT 500) r))
		$q$ ELSE '' END END
	WHEN 'health' THEN $q$
		SELECT jsonb_build_object('health', (SELECT coalesce(jsonb_agg(jsonb_build_object('check', h."check", 'status', h.status,
				'detail', h.detail, 'hint', h.hint, 'value', h.value)
				ORDER BY array_position('{fail,warn,ok}', h.status), h."check"), '[]')
			FROM @.job_health() h))
		$q$
	WHEN 'actions' THEN CASE WHEN sees_all THEN $q$
		WITH page AS (SELECT a.* FROM @.monitor_actions a WHERE ($7 IS NULL OR a.id < $7) ORDER BY a.id DESC LIMIT 51)
		SELECT jsonb_build_object(
			'actions', (SELECT coalesce(jsonb_agg(to_jsonb(p) ORDER BY p.id DESC), '[]') FROM (SELECT * FROM page ORDER BY id DESC LIMIT 50) p),
			'next', CASE WHEN (SELECT count(*) FROM page) > 50 THEN (SELECT min(p.id) FROM (SELECT * FROM page ORDER BY id DESC LIMIT 50) p) END)
		$q$ END
	END;
	IF statement IS NULL THEN
		RETURN NULL;
	END IF;
	EXECUTE replace(statement, '@.', schema || '.') INTO result
		USING query, sees_all, resolution, step, span,
			nullif(CASE WHEN path = 'type' THEN query->>'name' ELSE query->>'job_type' END, ''), nullif(query->>'id', '')::bigint;
	EXECUTE format('SELECT $1 || jsonb_build_object(''now'', extract(epoch FROM now()),
			''dead_letters_in_all'', (SELECT coalesce(sum(c.dead_letters + c.failed), 0) FROM %s.job_counts c))', schema)
		INTO result USING result;
	RETURN result;
END
$$;

-- Long lists, and texts, as far as an audit needs them.
CREATE FUNCTION _dashboard_shorten(arguments jsonb) RETURNS jsonb
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	shortened jsonb;
BEGIN
	IF arguments IS NULL OR jsonb_typeof(arguments) <> 'object' THEN
		RETURN '{}';
	END IF;
	SELECT coalesce(jsonb_object_agg(a.key, CASE jsonb_typeof(a.value)
			WHEN 'array' THEN (SELECT coalesce(jsonb_agg(CASE WHEN octet_length(i.value::text) <= 600 THEN i.value ELSE '"(long)"' END ORDER BY i.n), '[]')
				FROM (SELECT e.value, e.n FROM jsonb_array_elements(a.value) WITH ORDINALITY AS e (value, n) ORDER BY e.n LIMIT 50) i)
			WHEN 'string' THEN to_jsonb(left(a.value #>> '{}', 1024))
			WHEN 'number' THEN CASE WHEN octet_length(a.value::text) <= 600 THEN a.value ELSE '"(long)"' END
			WHEN 'object' THEN '"(object)"' ELSE a.value END)
			|| coalesce((SELECT jsonb_build_object('item_count', jsonb_array_length(arguments->'items'))
				WHERE jsonb_typeof(arguments->'items') = 'array'), '{}'), '{}')
		INTO shortened
	FROM (SELECT e.key, e.value FROM jsonb_each(arguments) e
		WHERE e.key IN ('items', 'reason', 'delay', 'duration', 'job_type', 'status', 'stage', 'error_like', 'before', 'max_jobs',
			'per_second', 'max_concurrency', 'rate_max', 'rate_window', 'rate_burst', 'group_concurrency',
			'breaker_threshold', 'breaker_cooldown', 'enabled')) a;
	RETURN shortened;
END
$$;

-- One action, on each of "items" or on what a filter finds. What it has done,
-- or why not, is a row of monitor_actions, also when it failed: so an error is
-- returned, not raised. Items that fail do not keep the others.
CREATE FUNCTION _dashboard_act(action text, arguments jsonb DEFAULT '{}', client text DEFAULT NULL) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	most CONSTANT integer := 1000;
	schema text := (SELECT e.extnamespace::regnamespace::text FROM pg_extension e WHERE e.extname = 'jobqueue');
	called record;
	known text[];
	unknown text;
	items jsonb := '[null]';
	item jsonb;
	statement text;
	said text;
	done bigint := 0;
	unchanged bigint := 0;
	failed bigint := 0;
	max_jobs bigint;
	answers jsonb := '[]';
	errors jsonb := '[]';
	code text;
	message text;
	detail text;
	hint text;
	result jsonb;
	error text;
BEGIN
	BEGIN
		-- $1 is the item, $2 and so on are the parameters.
		SELECT c.function, c.arguments, c.takes_items, c.parameters INTO called
		FROM (VALUES
			('requeue_jobs', 'requeue_job', '{job_id}', true, '{}'),
			('cancel_jobs', 'cancel_job', '{job_id,reason}', true, '{reason}'),
			('purge_jobs', NULL, '{}', true, '{}'),
			('hurry_jobs', NULL, '{}', true, '{}'),
			('requeue_matching', NULL, '{}', false, '{status,job_type,stage,error_like,before,max_jobs,per_second}'),
			('purge_matching', NULL, '{}', false, '{status,job_type,stage,error_like,before,max_jobs}'),
			('cancel_matching', NULL, '{}', false, '{status,job_type,max_jobs,reason}'),
			('pause_job_types', 'pause_job_type', '{job_type,reason}', true, '{reason}'),
			('resume_job_types', 'resume_job_type', '{job_type}', true, '{}'),
			('throttle_job_types', 'throttle_job_type', '{job_type,delay}', true, '{delay}'),
			('limit_job_types', NULL, '{}', true, '{max_concurrency,rate_max,rate_window,rate_burst,group_concurrency,breaker_threshold,breaker_cooldown}'),
			('open_circuits', 'open_circuit', '{job_type,stage,duration,reason}', true, '{stage,duration,reason}'),
			('close_circuits', 'close_circuit', '{job_type,stage}', true, '{stage}'),
			('stop_workers', 'stop_worker', '{worker_id,reason}', true, '{reason}'),
			('run_cron_tasks', 'run_cron_task', '{name}', true, '{}'),
			('pause_cron_tasks', 'pause_cron_task', '{name,reason}', true, '{reason}'),
			('resume_cron_tasks', 'resume_cron_task', '{name}', true, '{}'),
			('test_endpoints', 'test_endpoint', '{name}', true, '{}'),
			('enable_endpoints', NULL, '{}', true, '{enabled}'),
			('mute_alerts', NULL, '{}', true, '{delay}'),
			('enable_alert_rules', NULL, '{}', true, '{enabled}'),
			('reset_endpoint_stats', 'reset_endpoint_stats', '{name}', true, '{}'),
			('pause_workers', 'pause_workers', '{NULL,reason}', false, '{reason}'),
			('resume_workers', 'resume_workers', '{}', false, '{}'),
			('activate_jobs', 'activate_jobs', '{}', false, '{}')
		) AS c (action, function, arguments, takes_items, parameters)
		WHERE c.action = _dashboard_act.action;
		IF NOT FOUND THEN
			RAISE EXCEPTION 'unrecognized action "%"', left(action, 100) USING ERRCODE = 'invalid_parameter_value';
		ELSIF arguments IS NULL OR jsonb_typeof(arguments) <> 'object' THEN
			RAISE EXCEPTION 'arguments must be an object' USING ERRCODE = 'invalid_parameter_value';
		END IF;
		known := called.parameters::text[] || CASE WHEN called.takes_items THEN '{items}' ELSE '{}' END::text[];
		SELECT a.key INTO unknown FROM jsonb_each(arguments) a
		WHERE a.key <> ALL (known) OR (jsonb_typeof(a.value) IN ('object', 'array')) <> (a.key = 'items') LIMIT 1;
		IF unknown IS NOT NULL THEN
			RAISE EXCEPTION 'invalid argument "%"', left(unknown, 100)
				USING ERRCODE = 'invalid_parameter_value',
					HINT = format('The arguments of %s are %s.', action, coalesce(nullif(array_to_string(known, ', '), ''), 'none'));
		END IF;
		IF called.takes_items THEN
			items := arguments->'items';
			IF jsonb_typeof(items) IS DISTINCT FROM 'array' OR jsonb_array_length(items) NOT BETWEEN 1 AND most THEN
				RAISE EXCEPTION 'items must be an array of 1 to % elements', most USING ERRCODE = 'invalid_parameter_value';
			ELSIF EXISTS (SELECT FROM jsonb_array_elements(items) i WHERE jsonb_typeof(i) NOT IN ('string', 'number')
					OR (action ~ '^((requeue|cancel|purge|hurry)_jobs|mute_alerts)$' AND i #>> '{}' !~ '^\d{1,18}$')) THEN
				RAISE EXCEPTION 'items must be names, or ids' USING ERRCODE = 'invalid_parameter_value';
			END IF;
		ELSIF action ~ '_matching$' THEN
			max_jobs := least(coalesce((arguments->>'max_jobs')::bigint, most), 10000);
			IF arguments->>'status' IS NULL OR max_jobs < 1 THEN
				RAISE EXCEPTION '%', CASE WHEN max_jobs < 1 THEN 'max_jobs must be positive' ELSE 'status must be given' END
					USING ERRCODE = 'invalid_parameter_value';
			ELSIF action = 'cancel_matching' AND arguments->>'status' NOT IN ('queued', 'blocked') THEN
				RAISE EXCEPTION 'status must be queued or blocked' USING ERRCODE = 'invalid_parameter_value';
			END IF;
		END IF;
		IF action = 'limit_job_types' AND arguments - 'items' = '{}' THEN
			RAISE EXCEPTION 'no limit is given' USING ERRCODE = 'invalid_parameter_value';
		ELSIF action = 'open_circuits' AND arguments->>'stage' IS NULL THEN
			arguments := arguments || '{"stage": ""}';
		END IF;

		IF called.function IS NOT NULL THEN
			-- All are given as texts; the call casts them to what it takes.
			EXECUTE format('SELECT %s._exact_call($1, $2)', schema) INTO statement
				USING called.function, called.arguments::text[];
			IF action = 'test_endpoints' THEN
				statement := replace(statement, 'SELECT ', 'SELECT jsonb_agg(to_jsonb(t)) FROM ') || ' t';
			END IF;
		ELSE
			statement := CASE action
			WHEN 'purge_jobs' THEN
				'WITH gone AS (DELETE FROM @.jobs_queue q WHERE q.id = $1::bigint
					AND q.status IN (''completed'', ''failed'', ''error'', ''cancelled'') RETURNING q.id) SELECT count(*) FROM gone'
			WHEN 'hurry_jobs' THEN
				'WITH changed AS (UPDATE @.jobs_queue q SET scheduled_at = now() WHERE q.id = $1::bigint
					AND q.status = ''queued'' AND q.scheduled_at > now() RETURNING q.id) SELECT count(*) FROM changed'
			WHEN 'enable_endpoints' THEN
				'WITH changed AS (UPDATE @.http_endpoints e SET enabled = $2::boolean WHERE e.name = $1
					AND e.enabled <> $2::boolean RETURNING e.name) SELECT count(*) FROM changed'
			WHEN 'mute_alerts' THEN
				'WITH changed AS (UPDATE @.alerts a SET muted_until = nullif(now() + $2::interval, now()) WHERE a.id = $1::bigint
					AND a.resolved_at IS NULL RETURNING a.id) SELECT count(*) FROM changed'
			WHEN 'enable_alert_rules' THEN
				'WITH changed AS (UPDATE @.alert_rules r SET enabled = $2::boolean WHERE r.name = $1
					AND r.enabled <> $2::boolean RETURNING r.name) SELECT count(*) FROM changed'
			WHEN 'limit_job_types' THEN
				'INSERT INTO @.job_types (job_type' || (SELECT string_agg(', ' || a.key, '' ORDER BY a.key) FROM jsonb_each(arguments) a WHERE a.key <> 'items')
				|| ') VALUES ($1' || (SELECT string_agg(format(', CAST(%L AS %s)', a.value, CASE WHEN a.key ~ '_(window|cooldown)$' THEN 'interval' ELSE 'integer' END), '' ORDER BY a.key)
					FROM jsonb_each_text(arguments) a WHERE a.key <> 'items')
				|| ') ON CONFLICT (job_type) DO UPDATE SET '
				|| (SELECT string_agg(format('%1$I = EXCLUDED.%1$I', a.key), ', ' ORDER BY a.key) FROM jsonb_each(arguments) a WHERE a.key <> 'items')
				|| ' RETURNING 1'
			ELSE ''
			END;
			statement := replace(statement, '@.', schema || '.');
		END IF;

		IF action IN ('requeue_matching', 'purge_matching') THEN
			EXECUTE format('SELECT %s._exact_call($1, $2)', schema) INTO statement
				USING replace(action, 'matching', 'jobs'), CASE action
					WHEN 'requeue_matching' THEN '{job_type,statuses,stage,error_like,finished_before,max_jobs,per_second}'
					ELSE '{job_type,statuses,stage,error_like,finished_before,max_jobs}' END::text[];
			EXECUTE statement INTO done USING arguments->>'job_type',
				CASE arguments->>'status' WHEN 'dead_letters' THEN '{error,failed}' ELSE ARRAY[arguments->>'status']::text END,
				arguments->>'stage', arguments->>'error_like', arguments->>'before', max_jobs, arguments->>'per_second';
			items := '[]';
		ELSIF action = 'cancel_matching' THEN
			EXECUTE replace(CASE WHEN arguments->>'job_type' IS NULL THEN
					'SELECT jsonb_agg(j.id) FROM (SELECT q.id FROM @.jobs_queue q WHERE q.status = $2 ORDER BY q.id LIMIT $3) j'
				ELSE 'SELECT jsonb_agg(j.id) FROM (SELECT q.id FROM @.jobs_queue q WHERE q.status = $2 AND q.job_type = $1
					ORDER BY q.stage, q.priority, q.scheduled_at, q.id LIMIT $3) j' END, '@.', schema || '.')
				INTO items USING arguments->>'job_type', arguments->>'status', max_jobs;
			items := coalesce(items, '[]');
			EXECUTE format('SELECT %s._exact_call($1, $2)', schema) INTO statement USING 'cancel_job'::text, '{job_id,reason}'::text[];
			called.parameters := '{reason}';
		END IF;
		FOR item IN SELECT i.value FROM jsonb_array_elements(items) i
		LOOP
			BEGIN
				EXECUTE statement INTO said USING item #>> '{}', arguments->>(called.parameters::text[])[1],
					arguments->>(called.parameters::text[])[2], arguments->>(called.parameters::text[])[3];
				IF said IN ('false', 'f', '0') THEN
					unchanged := unchanged + 1;
				ELSE
					done := done + 1;
				END IF;
				IF action IN ('test_endpoints', 'run_cron_tasks') THEN
					answers := answers || jsonb_build_object('item', item, 'answer', CASE action WHEN 'test_endpoints' THEN said::jsonb ELSE to_jsonb(said) END);
				END IF;
			EXCEPTION WHEN OTHERS THEN
				-- Alone, or by itself no fault of the item: all of it fails.
				IF jsonb_array_length(items) = 1 OR left(SQLSTATE, 2) IN ('25', '40', '53', '57', '58', 'XX') THEN
					RAISE;
				END IF;
				failed := failed + 1;
				IF failed <= 20 THEN
					errors := errors || jsonb_build_object('item', item, 'error', SQLERRM);
				END IF;
			END;
		END LOOP;
		result := jsonb_strip_nulls(jsonb_build_object('done', done, 'unchanged', unchanged, 'failed', failed,
			'more', CASE WHEN action ~ '_matching$' THEN done >= max_jobs END,
			'answers', nullif(answers, '[]'), 'errors', nullif(errors, '[]')));
	EXCEPTION WHEN query_canceled OR assert_failure OR OTHERS THEN
		GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		error := message;
		result := jsonb_strip_nulls(jsonb_build_object('error', message, 'sqlstate', code, 'detail', nullif(detail, ''), 'hint', nullif(hint, '')));
	END;

	EXECUTE format('INSERT INTO %s.monitor_actions (client, action, arguments, outcome, result, error) VALUES ($1, $2, %s._dashboard_shorten($3), $4, $5, $6)', schema, schema)
		USING left(client, 200), left(coalesce(action, ''), 100), arguments, CASE WHEN error IS NULL THEN 'done' ELSE 'failed' END,
			result - '{answers,errors,error}'::text[], left(error, 2000);
	RETURN result;
END
$$;

-- ---------------------------------------------------------------------------
-- Privileges: nothing for PUBLIC; grant_job_role() gives sets of rights
-- ---------------------------------------------------------------------------

-- Also what default privileges have just given to others: TRIGGER on a table
-- would be a way to the rights of its owner. The comparisons of an oid with a
-- regclass name their operator: one of those very types in the schema of the
-- extension would be taken before the server's.
DO $$
DECLARE
	statement text;
BEGIN
	FOR statement IN
		SELECT DISTINCT pg_catalog.format('REVOKE ALL ON %s %s FROM %s', o.kind, o.name,
			CASE WHEN a.grantee = 0::pg_catalog.oid THEN 'PUBLIC'
				ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
		FROM pg_catalog.pg_depend d
			JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
			JOIN (
				SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, 'ROUTINE', p.oid::pg_catalog.regprocedure::text,
					p.proowner, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
				FROM pg_catalog.pg_proc p
				UNION ALL
				SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
					c.oid::pg_catalog.regclass::text, c.relowner, c.relacl
				FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'S')
			) AS o (class, oid, kind, name, owner, acl)
				ON o.class OPERATOR(pg_catalog.=) d.classid AND o.oid = d.objid
			CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) a
		WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
			AND d.deptype = 'e' AND e.extname = 'jobqueue' AND a.grantee <> o.owner
	LOOP
		EXECUTE statement;
	END LOOP;
END
$$;

-- ---------------------------------------------------------------------------
-- Dump: what users wrote travels with pg_dump
-- ---------------------------------------------------------------------------

-- One call per statement: each changes the same row of pg_extension.
DO $$
DECLARE
	t text;
BEGIN
	FOREACH t IN ARRAY '{jobs_queue_live,jobs_queue_done,jobs_queue_id_seq,job_runs,job_logs,job_logs_id_seq,
		http_endpoints,job_types,cron_tasks,cron_tasks_id_seq,cron_runs,event_subscriptions,
		event_subscriptions_id_seq,published_events,published_events_id_seq,job_keys,job_dependencies,registered_workers,
		worker_stops,database_identity,job_circuits,queue_events,queue_events_id_seq,job_history,
		alert_sinks,alert_rules,alerts,alerts_id_seq,monitor_actions,monitor_actions_id_seq}'::text[]
	LOOP
		PERFORM pg_catalog.pg_extension_config_dump('@extschema@.' || t, '');
	END LOOP;
END
$$;
