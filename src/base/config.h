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

/* Settings that only a preloaded library has (context postmaster). */
extern bool jq_config_launcher;
extern bool jq_config_allow_superuser_jobs;

/* Settings that follow a reload (context sighup). */
extern bool jq_config_enabled;
extern char *jq_config_databases;	/* names, comma-separated; '' or '*': all */
extern char *jq_config_run_job_types;	/* same, of job types */
extern int	jq_config_max_executors;
extern int	jq_config_poll_interval;	/* ms */
extern int	jq_config_batch_size;	/* jobs */
extern int	jq_config_lease;	/* s */
extern int	jq_config_max_attempts;
extern int	jq_config_retry_delay;	/* s */
extern int	jq_config_shutdown_timeout; /* ms */
extern int	jq_config_executor_idle_timeout;	/* ms */
extern int	jq_config_crash_limit;
extern int	jq_config_max_payload;	/* kB */
extern int	jq_config_log_level;	/* DEBUG1, LOG, WARNING or ERROR */

/*
 * Defines the settings.  "preloading" is true only while the postmaster
 * loads the libraries of shared_preload_libraries: the settings that cannot
 * change later are defined only then.
 */
extern void jq_config_define(bool preloading);

/* Whether a comma-separated setting lists name; '' and '*' list every name. */
extern bool jq_config_lists(const char *list, const char *name);

/* Whether workers log messages of this level (jobqueue.log_level). */
#define jq_config_logs(elevel) ((elevel) >= jq_config_log_level)

#endif							/* JQ_CONFIG_H */
