/*-------------------------------------------------------------------------
 *
 * error_rules.h
 *	  What a job type makes of certain failures: job_types.error_rules.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_ERROR_RULES_H
#define JQ_ERROR_RULES_H

#include "postgres.h"

#include "utils/jsonb.h"

/* A job that is given back waits so long at least: it must not spin. */
#define JQ_MIN_RELEASE_US ((int64) 100 * 1000)

typedef enum JqErrorAction
{
	JQ_ERROR_UNRULED,			/* no rule matches */
	JQ_ERROR_FAIL,				/* no further attempt */
	JQ_ERROR_RETRY,				/* another one, while attempts are left */
	JQ_ERROR_RELEASE,			/* another one, and this one is not charged */
	JQ_ERROR_SKIP				/* the job completes, without success */
} JqErrorAction;

/* What a rule says, by value. */
typedef struct JqErrorVerdict
{
	JqErrorAction action;
	bool		has_delay;
	int64		delay_us;		/* instead of the backoff */
	int64		throttle_us;	/* of the whole job type; 0: not at all */
} JqErrorVerdict;

/* The rules of a job type, in order. */
typedef struct JqErrorRules JqErrorRules;

/* A failure, as far as it is known. */
typedef struct JqFailure
{
	int			sqlstate;		/* 0: none */
	int			http_status;	/* 0: none */
	const char *error;
} JqFailure;

/*
 * Reads rules, in the current context.  Raises 22023 naming the rule and its
 * key, or the server's own error for a text that is no interval.
 */
extern JqErrorRules *jq_error_rules_parse(Jsonb *json);

/* What the first rule says whose conditions all hold; "rules" may be NULL. */
extern JqErrorVerdict jq_error_rules_judge(const JqErrorRules *rules,
										   const JqFailure *failure);

/*
 * What an outside worker's text tells, in the form that our own errors have:
 * a first line that ends in "(SQLSTATE)", and a beginning "HTTP status NNN".
 */
extern int	jq_error_rules_sqlstate(const char *error);
extern int	jq_error_rules_http_status(const char *error);

#endif							/* JQ_ERROR_RULES_H */
