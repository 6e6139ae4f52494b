/*-------------------------------------------------------------------------
 *
 * config.h
 *	  Every setting of the extension, jobqueue.*.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_CONFIG_H
#define JQ_CONFIG_H

#include "postgres.h"

/* How claims find jobs and jobs are written; see jq_config_debug_claim_path. */
typedef enum JqClaimPath
{
	JQ_CLAIM_PATH_AUTO,			/* the fast way where it is possible */
	JQ_CLAIM_PATH_SQL,			/* the reference path, always */
	JQ_CLAIM_PATH_MEMORY		/* an error where it is not possible */
} JqClaimPath;

/* Which events are logged, and how. */
typedef enum JqLogEvents
{
	JQ_LOG_EVENTS_OFF,
	JQ_LOG_EVENTS_FAILURES,
	JQ_LOG_EVENTS_ALL
} JqLogEvents;

typedef enum JqLogFormat
{
	JQ_LOG_FORMAT_TEXT,
	JQ_LOG_FORMAT_JSON
} JqLogFormat;

/* Most dispatchers that a database can have. */
#define JQ_MAX_DISPATCHERS 8

/* Settings that only a preloaded library has (context postmaster). */
extern bool jq_config_launcher;
extern bool jq_config_allow_superuser_jobs;
extern int	jq_config_max_endpoint_stats;
extern int	jq_config_max_circuits;
extern int	jq_config_max_stage_stats;
extern int	jq_config_max_user_metrics;
extern int	jq_config_max_failure_counts;
extern int	jq_config_max_lanes;

/* Settings that follow a reload (context sighup). */
extern bool jq_config_alerts_enabled;
extern int	jq_config_alert_digest_size;
extern int	jq_config_alert_interval;	/* ms */
extern bool jq_config_enabled;
extern char *jq_config_databases;	/* names, comma-separated; '' or '*': all */
extern char *jq_config_run_job_types;	/* same, of job types */
extern int	jq_config_max_executors;
extern int	jq_config_poll_interval;	/* ms */
extern int	jq_config_batch_size;	/* jobs */
extern int	jq_config_lease;	/* s */
extern int	jq_config_max_attempts;
extern int	jq_config_retry_delay;	/* s */
extern int	jq_config_breaker_cooldown; /* ms */
extern int	jq_config_max_limited_jobs;
extern int	jq_config_max_groups;
extern int	jq_config_shutdown_timeout; /* ms */
extern int	jq_config_executor_idle_timeout;	/* ms */
extern int	jq_config_executor_batch_size;	/* jobs */
extern int	jq_config_executor_max_jobs;	/* 0: no limit */
extern int	jq_config_executor_max_memory;	/* kB; 0: no limit */
extern int	jq_config_cancel_grace; /* ms */
extern int	jq_config_max_log_lines;
extern int	jq_config_crash_limit;
extern int	jq_config_max_payload;	/* kB */
extern int	jq_config_keep_cancelled;	/* min; -1: for ever */
extern int	jq_config_keep_completed;	/* the same */
extern int	jq_config_keep_cron_runs;	/* min */
extern int	jq_config_keep_events;	/* min; 0: not at all */
extern int	jq_config_keep_failed;	/* min; -1: for ever */
extern int	jq_config_keep_history; /* min; 0: none is written */
extern int	jq_config_keep_monitor_actions; /* min; -1: for ever */
extern int	jq_config_keep_queue_events;	/* the same */
extern int	jq_config_keep_runs;	/* the same */
extern int	jq_config_max_prune_rate;	/* rows per second */
extern int	jq_config_dispatcher_idle_timeout;	/* ms */
extern int	jq_config_max_dispatchers;
extern int	jq_config_http_connect_timeout; /* ms */
extern int	jq_config_http_host_connections;
extern int	jq_config_http_max_connections;
extern int	jq_config_http_max_response_size;	/* kB */
extern int	jq_config_http_max_retry_after; /* s */
extern int	jq_config_http_timeout; /* ms */
extern char *jq_config_http_allow_hosts;	/* lists: see base/allow_list.h */
extern char *jq_config_http_allow_cidrs;
extern char *jq_config_http_allow_ports;
extern char *jq_config_http_proxy;	/* a URL; '': none */
extern char *jq_config_http_ca_file;	/* a path; '': the system's */
extern char *jq_config_monitor; /* see base/monitor_list.h */
extern char *jq_config_monitor_token_file;	/* a path; '': no actions */
extern bool jq_config_async_claim;	/* context user */
extern int	jq_config_debug_claim_path; /* JqClaimPath; context user */
extern char *jq_config_event_prefix;
extern char *jq_config_service_name;
extern int	jq_config_log_events;	/* JqLogEvents */
extern int	jq_config_log_format;	/* JqLogFormat */
extern int	jq_config_statistics_interval;	/* s; 0: never */
extern int	jq_config_log_level;	/* DEBUG1, LOG, WARNING or ERROR */

/*
 * Defines the settings.  "preloading" is true only while the postmaster
 * loads the libraries of shared_preload_libraries: the settings that cannot
 * change later are defined only then.
 */
extern void jq_config_define(bool preloading);

/* Whether a comma-separated setting lists name; '' and '*' list every name. */
extern bool jq_config_lists(const char *list, const char *name);

/* What is wrong with a prefix of events, as a sentence; NULL: nothing. */
extern const char *jq_config_event_prefix_flaw(const char *prefix);

/* Whether workers log messages of this level (jobqueue.log_level). */
#define jq_config_logs(elevel) ((elevel) >= jq_config_log_level)

#endif							/* JQ_CONFIG_H */
