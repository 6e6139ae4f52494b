/*-------------------------------------------------------------------------
 *
 * job_types.h
 *	  Settings of job types, cached.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_JOB_TYPES_H
#define JQ_JOB_TYPES_H

#include "postgres.h"

#include "body/command.h"
#include "datatype/timestamp.h"
#include "queue/backoff.h"
#include "queue/error_rules.h"
#include "queue/event_kinds.h"
#include "queue/rate.h"

/* The built-in job type whose command is in the payload; see enqueue_sql. */
#define JQ_SQL_JOB_TYPE "sql"

/* The one whose requests are in the payload; see enqueue_http. */
#define JQ_HTTP_JOB_TYPE "http"

typedef enum JqRunner
{
	JQ_RUNNER_EXTERNAL,
	JQ_RUNNER_SQL,
	JQ_RUNNER_HTTP
} JqRunner;

/* What keeps jobs of a type from being claimed; 0 and false: nothing. */
typedef struct JqLimits
{
	int			max_concurrency;
	JqRate		rate;
	int			group_concurrency;	/* for each group_key */
	JqRate		group_rate;
	bool		group_strict;
	bool		fair_groups;
	int			breaker_threshold;	/* for each stage */
	int64		breaker_cooldown_us;
	bool		breaker_distinct_jobs;
	TimestampTz throttled_until;
} JqLimits;

/* Every field has its effective value: jobqueue.* where the row says NULL. */
typedef struct JqJobType
{
	char		name[256];
	JqRunner	runner;
	Oid			owner;			/* InvalidOid: no row, or role is gone */
	char	   *command;		/* NULL: none, or in the payload */
	char	   *endpoint;		/* the same */
	bool		is_enabled;
	int			max_attempts;
	JqBackoff	backoff;
	const JqErrorRules *error_rules;	/* NULL: none */
	int64		lease_us;
	int64		timeout_us;		/* 0: none */
	int			batch_size;
	int			request_size;	/* HTTP jobs of one request */
	int64		max_linger_us;	/* that one waits for others; 0: not at all */
	bool		dead_letter;
	JqLimits	limits;
	int64		keep_completed_us;	/* -1: for ever */
	char	   *event_prefix;	/* NULL: jobqueue.event_prefix */
	char	  **event_messages; /* by JqEventKind, or NULL; NULL: none at all */
	bool		notify;			/* announce jobs that wait for a worker */
	JqMode		mode;			/* of the command, at least */
} JqJobType;

/*
 * The settings of a job type, whether it has a row or not.  Valid
 * until the next call that may process invalidations; copy what must
 * live longer.
 */
extern const JqJobType *jq_job_type(const char *name);

/* Whether this is the built-in type of SQL, whose jobs run as their owners. */
static inline bool
jq_job_type_is_built_in(const char *name)
{
	return strcmp(name, JQ_SQL_JOB_TYPE) == 0;
}

/* Whether completed jobs of a type are not kept at all. */
extern bool jq_job_type_drops_completed(const char *name);

/* Grows whenever something of a job type may have changed. */
extern uint32 jq_job_types_generation(void);

/*
 * The names of the job types that have this runner, the built-in ones
 * included.  Inside a scope.
 */
extern List *jq_job_types_with_runner(JqRunner runner);

/* The names of those that are announced.  Inside a scope. */
extern List *jq_job_types_to_announce(void);

#endif							/* JQ_JOB_TYPES_H */
