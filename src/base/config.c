/*-------------------------------------------------------------------------
 *
 * config.c
 *	  Every setting of the extension, jobqueue.*.
 *
 *	  The settings are in alphabetical order, those of a preloaded library
 *	  first.  Nearly all of them belong to the server, not to a session: two
 *	  sessions never disagree about when a job has failed for good.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "base/allow_list.h"
#include "base/config.h"
#include "base/monitor_list.h"

#include "nodes/pg_list.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#define SECONDS_PER_DAY (24 * 60 * 60)
#define MS_PER_HOUR (60 * 60 * 1000)
#define MS_PER_DAY (24 * MS_PER_HOUR)
#define MINUTES_PER_DAY (24 * 60)
#define MAX_SERVICE_NAME 255
#define PREFIX_CHARACTERS \
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."

bool		jq_config_launcher = true;
bool		jq_config_allow_superuser_jobs = false;
int			jq_config_max_endpoint_stats = 256;
int			jq_config_max_circuits = 256;
int			jq_config_max_stage_stats = 512;
int			jq_config_max_user_metrics = 256;
int			jq_config_max_failure_counts = 256;
int			jq_config_max_lanes = 1024;

bool		jq_config_enabled = true;
bool		jq_config_alerts_enabled = true;
int			jq_config_alert_digest_size = 5;
int			jq_config_alert_interval = 10000;
char	   *jq_config_databases = "";
char	   *jq_config_run_job_types = "";
int			jq_config_max_executors = 2;
int			jq_config_poll_interval = 1000;
int			jq_config_batch_size = 10;
int			jq_config_lease = 300;
int			jq_config_max_attempts = 5;
int			jq_config_retry_delay = 300;
int			jq_config_breaker_cooldown = 60000;
int			jq_config_max_limited_jobs = 10000;
int			jq_config_max_groups = 10000;
int			jq_config_shutdown_timeout = 4000;
int			jq_config_executor_idle_timeout = 5000;
int			jq_config_executor_batch_size = 50;
int			jq_config_executor_max_jobs = 0;
int			jq_config_executor_max_memory = 256 * 1024;
int			jq_config_cancel_grace = 3000;
int			jq_config_max_log_lines = 100;
int			jq_config_crash_limit = 2;
int			jq_config_max_payload = 1024;
int			jq_config_keep_cancelled = 7 * MINUTES_PER_DAY;
int			jq_config_keep_completed = 7 * MINUTES_PER_DAY;
int			jq_config_keep_cron_runs = 3 * MINUTES_PER_DAY;
int			jq_config_keep_events = 0;
int			jq_config_keep_failed = 30 * MINUTES_PER_DAY;
int			jq_config_keep_history = 90 * MINUTES_PER_DAY;
int			jq_config_keep_monitor_actions = 365 * MINUTES_PER_DAY;
int			jq_config_keep_queue_events = 30 * MINUTES_PER_DAY;
int			jq_config_keep_runs = 30 * MINUTES_PER_DAY;
int			jq_config_max_prune_rate = 10000;
int			jq_config_dispatcher_idle_timeout = 60000;
int			jq_config_max_dispatchers = 1;
int			jq_config_http_connect_timeout = 10000;
int			jq_config_http_host_connections = 20;
int			jq_config_http_max_connections = 100;
int			jq_config_http_max_response_size = 256;
int			jq_config_http_max_retry_after = 60 * 60;
int			jq_config_http_timeout = 30000;
char	   *jq_config_http_allow_hosts = "";
char	   *jq_config_http_allow_cidrs = "";
char	   *jq_config_http_allow_ports = "80,443";
char	   *jq_config_http_proxy = "";
char	   *jq_config_http_ca_file = "";
char	   *jq_config_monitor = "";
char	   *jq_config_monitor_token_file = "";
bool		jq_config_async_claim = false;
int			jq_config_debug_claim_path = JQ_CLAIM_PATH_AUTO;
char	   *jq_config_event_prefix = "jobqueue";
char	   *jq_config_service_name = "jobqueue";
int			jq_config_log_events = JQ_LOG_EVENTS_FAILURES;
int			jq_config_log_format = JQ_LOG_FORMAT_TEXT;
int			jq_config_statistics_interval = 60;
int			jq_config_log_level = LOG;

/* Read by the view _health_settings only. */
static int	health_backlog_age = 5 * 60;
static int	health_cron_lateness = 60;
static int	health_dead_letters = 100;
static int	health_dead_rows = 100000;
static int	health_endpoint_failures = 5;
static int	health_failed_age = 10 * 60;
static int	health_silence = 30;
static int	health_snapshot_age = 10 * 60;
static int	health_transaction_age = 1000000000;

static const struct config_enum_entry log_levels[] = {
	{"debug", DEBUG1, false},
	{"info", LOG, false},
	{"warning", WARNING, false},
	{"warn", WARNING, true},
	{"error", ERROR, false},
	{NULL, 0, false}
};

static const struct config_enum_entry log_events[] = {
	{"off", JQ_LOG_EVENTS_OFF, false},
	{"failures", JQ_LOG_EVENTS_FAILURES, false},
	{"all", JQ_LOG_EVENTS_ALL, false},
	{NULL, 0, false}
};

static const struct config_enum_entry log_formats[] = {
	{"text", JQ_LOG_FORMAT_TEXT, false},
	{"json", JQ_LOG_FORMAT_JSON, false},
	{NULL, 0, false}
};

static const struct config_enum_entry claim_paths[] = {
	{"auto", JQ_CLAIM_PATH_AUTO, false},
	{"sql", JQ_CLAIM_PATH_SQL, false},
	{"memory", JQ_CLAIM_PATH_MEMORY, false},
	{NULL, 0, false}
};

static void define_preload_settings(void);
static void define_integers(void);
static void define_others(void);
static void define_log_settings(void);
static void define_http_settings(void);
static void define_health_settings(void);
static bool check_list(char **newval, void **extra, GucSource source);
static bool check_hosts(char **newval, void **extra, GucSource source);
static bool check_addresses(char **newval, void **extra, GucSource source);
static bool check_ports(char **newval, void **extra, GucSource source);
static bool check_monitors(char **newval, void **extra, GucSource source);
static bool check_proxy(char **newval, void **extra, GucSource source);
static bool check_file(char **newval, void **extra, GucSource source);
static bool check_event_prefix(char **newval, void **extra, GucSource source);
static bool check_service_name(char **newval, void **extra, GucSource source);
static bool is_flawless(const char *flaw);

void
jq_config_define(bool preloading)
{
	if (preloading)
		define_preload_settings();
	define_integers();
	define_others();
	define_log_settings();
	define_http_settings();
	define_health_settings();
	MarkGUCPrefixReserved("jobqueue");
}

bool
jq_config_lists(const char *list, const char *name)
{
	char	   *copy = pstrdup(list);
	List	   *elements = NIL;
	ListCell   *cell;
	bool		found = false;

	if (!SplitGUCList(copy, ',', &elements))
		elements = NIL;			/* the check hook lets nothing such pass */
	else if (elements == NIL)
		found = true;
	foreach(cell, elements)
	{
		const char *element = (const char *) lfirst(cell);

		if (strcmp(element, "*") == 0 || strcmp(element, name) == 0)
			found = true;
	}
	list_free(elements);
	pfree(copy);
	return found;
}

/* Settings that decide what exists at all, fixed when the server starts. */
static void
define_preload_settings(void)
{
	DefineCustomBoolVariable("jobqueue.allow_superuser_jobs",
							 "Sets whether the server runs SQL jobs of superusers.",
							 "When off, such jobs are refused when they are enqueued, too.",
							 &jq_config_allow_superuser_jobs,
							 false,
							 PGC_POSTMASTER, 0,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable("jobqueue.launcher",
							 "Sets whether the server starts its own workers.",
							 "When off, jobs are run by outside workers only.",
							 &jq_config_launcher,
							 true,
							 PGC_POSTMASTER, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("jobqueue.max_endpoint_stats",
							"Sets of how many HTTP endpoints and hosts shared memory keeps statistics.",
							"Those of all databases together; each takes 1.2 kB.",
							&jq_config_max_endpoint_stats,
							256, 0, 65536,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("jobqueue.max_circuits",
							"Sets of how many stages of job types shared memory counts failures.",
							"Those of all databases together that have failures in a row, and job_types.breaker_threshold; each takes 1.2 kB.",
							&jq_config_max_circuits,
							256, 0, 10000,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("jobqueue.max_stage_stats",
							"Sets of how many job types, and of how many stages of them, shared memory keeps counts and times.",
							"Those of all databases together; each takes 1.5 kB; 0 counts nothing.",
							&jq_config_max_stage_stats,
							512, 0, 65536,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("jobqueue.max_user_metrics",
							"Sets how many metrics of users shared memory has room for.",
							"Those of all databases together, each set of labels for itself; each takes 0.5 kB.",
							&jq_config_max_user_metrics,
							256, 0, 65536,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("jobqueue.max_failure_counts",
							"Sets of how many job types and stages shared memory remembers failures.",
							"Those of all databases together that have failed; for alerts; each takes 2.2 kB.",
							&jq_config_max_failure_counts,
							256, 0, 10000,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("jobqueue.max_lanes",
							"Sets how many lanes of jobs shared memory has room for.",
							"A lane is a job type, stage and priority of a database, for SQL jobs also an owner, and takes 9 kB.",
							&jq_config_max_lanes,
							1024, 0, 65536,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("jobqueue.max_limited_jobs",
							"Sets how many jobs that a limit of concurrency counts may run at once.",
							"Those of all databases together; each takes 64 bytes.",
							&jq_config_max_limited_jobs,
							10000, 100, 1000000,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("jobqueue.max_groups",
							"Sets of how many groups of jobs at once shared memory keeps track.",
							"Those of all databases together; each takes 0.7 kB.",
							&jq_config_max_groups,
							10000, 100, 1000000,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
}

/* Defines one integer setting that follows a reload. */
static void
define_integer(const char *name, const char *description, int *variable,
			   int min, int max, int flags)
{
	DefineCustomIntVariable(name, description, NULL, variable,
							*variable, min, max,
							PGC_SIGHUP, flags,
							NULL, NULL, NULL);
}

/* Numbers and times; their defaults are the initial values above. */
static void
define_integers(void)
{
	define_integer("jobqueue.alert_digest_size",
				   "Sets how many alerts at once are sent one by one; more are one message.",
				   &jq_config_alert_digest_size, 1, 1000, 0);
	define_integer("jobqueue.alert_interval",
				   "Sets how often it is looked whether an alert rule holds.",
				   &jq_config_alert_interval, 100, MS_PER_HOUR, GUC_UNIT_MS);
	define_integer("jobqueue.batch_size",
				   "Sets how many jobs one claim takes at most.",
				   &jq_config_batch_size, 1, 1000, 0);
	define_integer("jobqueue.cancel_grace",
				   "Sets how long a cancelled SQL job may go on before its process is ended.",
				   &jq_config_cancel_grace, 100, MS_PER_HOUR, GUC_UNIT_MS);
	define_integer("jobqueue.crash_limit",
				   "Sets after how many server crashes a job has failed.",
				   &jq_config_crash_limit, 1, 100, 0);
	define_integer("jobqueue.dispatcher_idle_timeout",
				   "Sets how long a dispatcher waits for another HTTP job.",
				   &jq_config_dispatcher_idle_timeout,
				   100, MS_PER_HOUR, GUC_UNIT_MS);
	define_integer("jobqueue.executor_batch_size",
				   "Sets how many SQL jobs share a transaction at most.",
				   &jq_config_executor_batch_size, 1, 1000, 0);
	define_integer("jobqueue.executor_idle_timeout",
				   "Sets how long an executor waits for another job.",
				   &jq_config_executor_idle_timeout,
				   100, MS_PER_HOUR, GUC_UNIT_MS);
	define_integer("jobqueue.executor_max_jobs",
				   "Sets after how many jobs an executor gives way to a new one; 0 is never.",
				   &jq_config_executor_max_jobs, 0, INT_MAX, 0);
	define_integer("jobqueue.executor_max_memory",
				   "Sets at how much memory an executor gives way to a new one; 0 is never.",
				   &jq_config_executor_max_memory, 0, INT_MAX, GUC_UNIT_KB);
	define_integer("jobqueue.http_connect_timeout",
				   "Sets how long an HTTP request may take to resolve the name, connect and shake hands.",
				   &jq_config_http_connect_timeout,
				   1, MS_PER_HOUR, GUC_UNIT_MS);
	define_integer("jobqueue.http_host_connections",
				   "Sets how many HTTP requests go to one endpoint or host at once.",
				   &jq_config_http_host_connections, 1, 10000, 0);
	define_integer("jobqueue.http_max_connections",
				   "Sets how many HTTP requests a dispatcher sends at once.",
				   &jq_config_http_max_connections, 1, 10000, 0);
	define_integer("jobqueue.http_max_response_size",
				   "Sets how much of the body of an HTTP response is kept.",
				   &jq_config_http_max_response_size, 0, 16 * 1024, GUC_UNIT_KB);
	define_integer("jobqueue.http_max_retry_after",
				   "Sets how long an HTTP response can put off the next attempt.",
				   &jq_config_http_max_retry_after, 0, SECONDS_PER_DAY, GUC_UNIT_S);
	define_integer("jobqueue.http_timeout",
				   "Sets how long an HTTP request may take.",
				   &jq_config_http_timeout, 1, MS_PER_HOUR, GUC_UNIT_MS);
	define_integer("jobqueue.keep_cancelled",
				   "Sets how long cancelled jobs are kept; -1 is for ever.",
				   &jq_config_keep_cancelled, -1,
				   3650 * MINUTES_PER_DAY, GUC_UNIT_MIN);
	define_integer("jobqueue.keep_completed",
				   "Sets how long completed jobs are kept; 0 is not at all, -1 for ever.",
				   &jq_config_keep_completed, -1,
				   3650 * MINUTES_PER_DAY, GUC_UNIT_MIN);
	define_integer("jobqueue.keep_cron_runs",
				   "Sets how long cron_runs remembers which instants of cron tasks were enqueued.",
				   &jq_config_keep_cron_runs, MINUTES_PER_DAY,
				   3650 * MINUTES_PER_DAY, GUC_UNIT_MIN);
	define_integer("jobqueue.keep_events",
				   "Sets how long published events are kept, to be replayed; 0 is not at all.",
				   &jq_config_keep_events, 0,
				   3650 * MINUTES_PER_DAY, GUC_UNIT_MIN);
	define_integer("jobqueue.keep_failed",
				   "Sets how long failed jobs are kept that are no dead letters; -1 is for ever.",
				   &jq_config_keep_failed, -1,
				   3650 * MINUTES_PER_DAY, GUC_UNIT_MIN);
	define_integer("jobqueue.keep_history",
				   "Sets how long job_history remembers what happened in an hour; 0 writes none.",
				   &jq_config_keep_history, 0,
				   3650 * MINUTES_PER_DAY, GUC_UNIT_MIN);
	define_integer("jobqueue.keep_monitor_actions",
				   "Sets how long monitor_actions remembers what was done on the dashboard; -1 is for ever.",
				   &jq_config_keep_monitor_actions, -1,
				   3650 * MINUTES_PER_DAY, GUC_UNIT_MIN);
	define_integer("jobqueue.keep_queue_events",
				   "Sets how long queue_events remembers what the queue did; -1 is for ever.",
				   &jq_config_keep_queue_events, -1,
				   3650 * MINUTES_PER_DAY, GUC_UNIT_MIN);
	define_integer("jobqueue.keep_runs",
				   "Sets how long job_runs and job_logs remember an attempt; -1 is for ever.",
				   &jq_config_keep_runs, -1,
				   3650 * MINUTES_PER_DAY, GUC_UNIT_MIN);
	define_integer("jobqueue.lease",
				   "Sets how long a worker may stay silent before its job is taken back.",
				   &jq_config_lease, 1, SECONDS_PER_DAY, GUC_UNIT_S);
	define_integer("jobqueue.max_attempts",
				   "Sets how often a job is attempted before it has failed.",
				   &jq_config_max_attempts, 1, 1000, 0);
	define_integer("jobqueue.max_dispatchers",
				   "Sets how many processes send the HTTP jobs of a database.",
				   &jq_config_max_dispatchers, 1, JQ_MAX_DISPATCHERS, 0);
	define_integer("jobqueue.max_executors",
				   "Sets how many SQL jobs the server runs at once at most.",
				   &jq_config_max_executors, 0, 1024, 0);
	define_integer("jobqueue.max_log_lines",
				   "Sets how many log lines are kept of one attempt of a job.",
				   &jq_config_max_log_lines, 0, 100000, 0);
	define_integer("jobqueue.max_payload",
				   "Sets the largest payload of a job.",
				   &jq_config_max_payload, 1, 256 * 1024, GUC_UNIT_KB);
	define_integer("jobqueue.max_prune_rate",
				   "Sets how many old rows the scheduler of a database deletes per second.",
				   &jq_config_max_prune_rate, 100, 1000000, 0);
	define_integer("jobqueue.poll_interval",
				   "Sets how often workers look for work that nobody announced.",
				   &jq_config_poll_interval, 100, MS_PER_HOUR, GUC_UNIT_MS);
	define_integer("jobqueue.breaker_cooldown",
				   "Sets how long a circuit stays open before one job is let through.",
				   &jq_config_breaker_cooldown, 1, MS_PER_DAY, GUC_UNIT_MS);
	define_integer("jobqueue.retry_delay",
				   "Sets how long a failed job waits for its next attempt.",
				   &jq_config_retry_delay, 0, SECONDS_PER_DAY, GUC_UNIT_S);
	define_integer("jobqueue.shutdown_timeout",
				   "Sets how long a running job may go on during shutdown.",
				   &jq_config_shutdown_timeout, 0, 10 * 60 * 1000, GUC_UNIT_MS);
}

/* The rest of the settings that follow a reload. */
static void
define_others(void)
{
	DefineCustomBoolVariable("jobqueue.alerts_enabled",
							 "Sets whether failures are counted for alerts, and alerts sent.",
							 NULL,
							 &jq_config_alerts_enabled,
							 true,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable("jobqueue.async_claim",
							 "Sets whether a claim may commit without waiting for the flush of its WAL.",
							 "After a crash such a claim may be forgotten, and the job claimed again.",
							 &jq_config_async_claim,
							 false,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);
	DefineCustomStringVariable("jobqueue.databases",
							   "Sets the databases that the server's workers serve.",
							   "A list of names; empty or * means all.",
							   &jq_config_databases,
							   "",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_list, NULL, NULL);
	DefineCustomEnumVariable("jobqueue.debug_claim_path",
							 "Sets how claims find jobs, for testing.",
							 "sql forces the reference path; memory raises an error where shared memory cannot serve.",
							 &jq_config_debug_claim_path,
							 JQ_CLAIM_PATH_AUTO, claim_paths,
							 PGC_USERSET, GUC_NOT_IN_SAMPLE,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable("jobqueue.enabled",
							 "Sets whether jobs are claimed and run.",
							 "When off, jobs can still be enqueued.",
							 &jq_config_enabled,
							 true,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
	DefineCustomStringVariable("jobqueue.monitor",
							   "Sets where the server answers HTTP requests for health, metrics and the dashboard.",
							   "A list like database=app role=observer port=9187; empty means nowhere.",
							   &jq_config_monitor,
							   "",
							   PGC_SIGHUP, 0,
							   check_monitors, NULL, NULL);
	DefineCustomStringVariable("jobqueue.monitor_token_file",
							   "Sets the file of the token that actions of the dashboard need.",
							   "Empty means that there are no actions.",
							   &jq_config_monitor_token_file,
							   "",
							   PGC_SIGHUP, 0,
							   check_file, NULL, NULL);
	DefineCustomStringVariable("jobqueue.run_job_types",
							   "Sets the job types that the server runs itself.",
							   "A list of names; empty or * means all.",
							   &jq_config_run_job_types,
							   "",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_list, NULL, NULL);
}

/* What is logged, and how. */
static void
define_log_settings(void)
{
	DefineCustomStringVariable("jobqueue.event_prefix",
							   "Sets what the names of logged events begin with.",
							   "job_types.event_prefix is for one job type.",
							   &jq_config_event_prefix,
							   "jobqueue",
							   PGC_SIGHUP, 0,
							   check_event_prefix, NULL, NULL);
	DefineCustomEnumVariable("jobqueue.log_events",
							 "Sets which events of jobs, circuits and workers are logged.",
							 NULL,
							 &jq_config_log_events,
							 JQ_LOG_EVENTS_FAILURES, log_events,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
	DefineCustomEnumVariable("jobqueue.log_format",
							 "Sets how events are logged.",
							 "text is key=value, json one object for each event.",
							 &jq_config_log_format,
							 JQ_LOG_FORMAT_TEXT, log_formats,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
	DefineCustomEnumVariable("jobqueue.log_level",
							 "Sets the least severe messages and events that are logged.",
							 NULL,
							 &jq_config_log_level,
							 LOG, log_levels,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
	DefineCustomStringVariable("jobqueue.service_name",
							   "Sets the name of this service in logged events.",
							   NULL,
							   &jq_config_service_name,
							   "jobqueue",
							   PGC_SIGHUP, 0,
							   check_service_name, NULL, NULL);
	define_integer("jobqueue.statistics_interval",
				   "Sets how often the numbers of jobs are logged, if they have changed; 0 is never.",
				   &jq_config_statistics_interval, 0, SECONDS_PER_DAY,
				   GUC_UNIT_S);
}

/* Where requests may go, and how they get there. */
static void
define_http_settings(void)
{
	DefineCustomStringVariable("jobqueue.http_allow_cidrs",
							   "Sets the networks that requests may go to besides public addresses.",
							   "A list like 10.1.0.0/16, fd00::/8.",
							   &jq_config_http_allow_cidrs,
							   "",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_addresses, NULL, NULL);
	DefineCustomStringVariable("jobqueue.http_allow_hosts",
							   "Sets the hosts that requests may go to.",
							   "A list of names and *.suffix; empty or * means all.",
							   &jq_config_http_allow_hosts,
							   "",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_hosts, NULL, NULL);
	DefineCustomStringVariable("jobqueue.http_allow_ports",
							   "Sets the ports that requests may go to.",
							   "A list of numbers and ranges, like 8000-8100; * means all.",
							   &jq_config_http_allow_ports,
							   "80,443",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_ports, NULL, NULL);
	DefineCustomStringVariable("jobqueue.http_ca_file",
							   "Sets the file of the certificates that servers are checked against.",
							   "Empty means those of the system.",
							   &jq_config_http_ca_file,
							   "",
							   PGC_SIGHUP, 0,
							   check_file, NULL, NULL);
	DefineCustomStringVariable("jobqueue.http_proxy",
							   "Sets the proxy that requests go through.",
							   "A URL without user name and password; empty means none.",
							   &jq_config_http_proxy,
							   "",
							   PGC_SIGHUP, 0,
							   check_proxy, NULL, NULL);
}

/* What job_health() goes by, in SQL; see the view _health_settings. */
static void
define_health_settings(void)
{
	define_integer("jobqueue.health_backlog_age",
				   "Sets how long a job may be due before job_health() warns.",
				   &health_backlog_age, 0, SECONDS_PER_DAY, GUC_UNIT_S);
	define_integer("jobqueue.health_cron_lateness",
				   "Sets how late a cron task may be before job_health() warns.",
				   &health_cron_lateness, 1, SECONDS_PER_DAY, GUC_UNIT_S);
	define_integer("jobqueue.health_dead_letters",
				   "Sets with how many dead letters of a job type job_health() does not fail yet.",
				   &health_dead_letters, 0, INT_MAX, 0);
	define_integer("jobqueue.health_dead_rows",
				   "Sets how many dead rows a table may have before job_health() warns.",
				   &health_dead_rows, 0, INT_MAX, 0);
	define_integer("jobqueue.health_endpoint_failures",
				   "Sets after how many failures in a row of an HTTP endpoint job_health() warns.",
				   &health_endpoint_failures, 1, INT_MAX, 0);
	define_integer("jobqueue.health_failed_age",
				   "Sets how old a failed job may be before job_health() warns.",
				   &health_failed_age, 0, 30 * SECONDS_PER_DAY, GUC_UNIT_S);
	define_integer("jobqueue.health_silence",
				   "Sets how long launcher and scheduler may be silent before job_health() fails.",
				   &health_silence, 2, SECONDS_PER_DAY, GUC_UNIT_S);
	define_integer("jobqueue.health_snapshot_age",
				   "Sets how old a snapshot may be before job_health() warns.",
				   &health_snapshot_age, 1, 30 * SECONDS_PER_DAY, GUC_UNIT_S);
	define_integer("jobqueue.health_transaction_age",
				   "Sets at which age in transactions of the database job_health() warns.",
				   &health_transaction_age, 1, 2000000000, 0);
}

/* Accepts comma-separated names; the rules of quoting are those of SQL. */
static bool
check_list(char **newval, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*newval);
	List	   *elements = NIL;
	bool		valid = SplitGUCList(copy, ',', &elements);

	if (!valid)
		GUC_check_errdetail("List syntax is invalid.");
	list_free(elements);
	pfree(copy);
	return valid;
}

static bool
check_hosts(char **newval, void **extra, GucSource source)
{
	return is_flawless(jq_host_list_flaw(*newval));
}

static bool
check_addresses(char **newval, void **extra, GucSource source)
{
	return is_flawless(jq_address_list_flaw(*newval));
}

static bool
check_ports(char **newval, void **extra, GucSource source)
{
	return is_flawless(jq_port_list_flaw(*newval));
}

static bool
check_monitors(char **newval, void **extra, GucSource source)
{
	return is_flawless(jq_monitor_list_flaw(*newval));
}

static bool
check_proxy(char **newval, void **extra, GucSource source)
{
	return **newval == '\0' || is_flawless(jq_proxy_flaw(*newval));
}

/* Whether it is there shows when it is read: it may be mounted later. */
static bool
check_file(char **newval, void **extra, GucSource source)
{
	const char *path = *newval;

	if (*path == '\0')
		return true;
	if (!is_absolute_path(path))
		return is_flawless("It must be an absolute path.");
	if (strlen(path) >= MAXPGPATH)
		return is_flawless("The path is too long.");
	for (; *path != '\0'; path++)
		if ((unsigned char) *path < ' ' || *path == 0x7f)
			return is_flawless("The path must not have control characters.");
	return true;
}

/* Part of a key of somebody's queries and dashboards: so it is plain. */
const char *
jq_config_event_prefix_flaw(const char *prefix)
{
	size_t		length = strlen(prefix);

	if (length == 0 || length >= NAMEDATALEN)
		return "A prefix is 1 to 63 characters long.";
	if (prefix[strspn(prefix, PREFIX_CHARACTERS)] != '\0' ||
		prefix[0] == '.' || prefix[length - 1] == '.' ||
		strstr(prefix, "..") != NULL)
		return "A prefix is made of letters, digits, \"_\" and \"-\", with single dots between them.";
	return NULL;
}

static bool
check_event_prefix(char **newval, void **extra, GucSource source)
{
	return is_flawless(jq_config_event_prefix_flaw(*newval));
}

/* Nobody checks the encoding of a configuration file. */
static bool
check_service_name(char **newval, void **extra, GucSource source)
{
	size_t		length = strlen(*newval);

	if (length == 0 || length > MAX_SERVICE_NAME)
		return is_flawless("It must be 1 to 255 bytes long.");
	for (const char *c = *newval; *c != '\0'; c++)
		if (*c < ' ' || *c > '~')
			return is_flawless("It must be made of printable ASCII characters.");
	return true;
}

/* Says what is wrong with the value of a setting, if anything is. */
static bool
is_flawless(const char *flaw)
{
	if (flaw != NULL)
		GUC_check_errdetail("%s", flaw);
	return flaw == NULL;
}
