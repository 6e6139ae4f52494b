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
		read_until timestamptz, last_used_at timestamptz)
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
		WHEN 'producer' THEN '{enqueue_job,enqueue_jobs,enqueue_job_batch,enqueue_sql,enqueue_http,http_check_url,publish_event,current_job,job_log,parent_results,skip_current_job,run_job,drain_jobs}'::text[]
		WHEN 'worker' THEN '{claim_next_job,claim_jobs,resolve_job,resolve_jobs,resolve_and_claim,complete_job,fail_job,skip_job,release_job,snooze_job,heartbeat_job,set_job_stage,job_log,parent_results,throttle_job_type,register_worker,heartbeat_worker,wait_for_jobs}'::text[]
		WHEN 'operator' THEN '{current_job,job_log,parent_results,skip_current_job,run_job,drain_jobs,requeue_job,requeue_jobs,retry_from_dlq,purge_jobs,cancel_job,complete_job,activate_jobs,pause_workers,resume_workers,pause_job_type,resume_job_type,throttle_job_type,open_circuit,close_circuit,stop_worker,schedule_cron_task,schedule_sql,unschedule_cron_task,run_cron_task,pause_cron_task,resume_cron_task,enqueue_cron_tasks,import_crontab,import_pg_cron,http_check_url,set_secret,set_secret_file,drop_secret,test_endpoint,reset_endpoint_stats,secret_problem,subscribe_event,unsubscribe_event,replay_events,cron_is_valid,cron_describe,cron_next_runs,job_state,job_timeline,_exact_call,_crontab_entries,_server_workers,_lanes,_claim_counts,_endpoint_health,_circuit_counts,_limit_counts,_queue_status}'::text[]
		WHEN 'observer' THEN '{cron_is_valid,cron_describe,cron_next_runs,job_state,_server_workers,_lanes,_claim_counts,_endpoint_health,_circuit_counts,_limit_counts,_queue_status}'::text[]
		END;
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
			('operator', 'TABLE', 'SELECT', 'job_circuit_status'),
			('operator', 'TABLE', 'SELECT', 'queue_status'),
			('operator', 'TABLE', 'SELECT', 'dead_letter_jobs'),
			('operator', 'TABLE', 'SELECT', 'job_stats'),
			('operator', 'TABLE', 'SELECT', 'running_jobs'),
			('operator', 'TABLE', 'SELECT', 'stalled_jobs'),
			('operator', 'TABLE', 'SELECT', 'cron_overview'),
			('operator', 'TABLE', 'SELECT', 'job_workers'),
			('operator', 'TABLE', 'SELECT', 'job_type_status'),
			('operator', 'TABLE', 'SELECT', 'job_lanes'),
			('operator', 'TABLE', 'SELECT', 'job_claim_stats'),
			('operator', 'TABLE', 'SELECT', 'endpoint_status'),
			('observer', 'TABLE', 'SELECT', 'queue_status'),
			('observer', 'TABLE', 'SELECT (job_type, stage, state, failures, threshold, opened_at, retry_at, forced, reason, probe_job_id)', 'job_circuit_status'),
			('observer', 'TABLE', 'SELECT', 'job_type_status'),
			('observer', 'TABLE', 'SELECT', 'job_lanes'),
			('observer', 'TABLE', 'SELECT', 'job_claim_stats'),
			('observer', 'TABLE', 'SELECT', 'endpoint_status'),
			('observer', 'TABLE', 'SELECT', 'job_stats'),
			('observer', 'TABLE', 'SELECT', 'running_jobs'),
			('observer', 'TABLE', 'SELECT', 'stalled_jobs'),
			('observer', 'TABLE', 'SELECT', 'cron_overview'),
			('observer', 'TABLE', 'SELECT', 'job_workers')
		) AS g(job_role, kind, rights, name)
		WHERE g.job_role = grant_job_role.job_role
	LOOP
		EXECUTE format('GRANT %s ON %s %s.%I TO %s', rel.rights, rel.kind, schema, rel.name, role);
	END LOOP;
END
$$;
COMMENT ON FUNCTION grant_job_role(regrole, text)
	IS 'Grants a role the rights of a producer, worker, operator or observer';

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
-- Triggers
-- ---------------------------------------------------------------------------

CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON jobs_queue
	FOR EACH ROW EXECUTE FUNCTION _guard_job();
-- Fires for replicated rows too: the lanes of claims must know of them.
CREATE TRIGGER hint AFTER INSERT OR UPDATE ON jobs_queue_live
	FOR EACH ROW WHEN (NEW.status = 'queued') EXECUTE FUNCTION _hint_job();
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
		worker_stops,database_identity,job_circuits,queue_events,queue_events_id_seq}'::text[]
	LOOP
		PERFORM pg_catalog.pg_extension_config_dump('@extschema@.' || t, '');
	END LOOP;
END
$$;
