/*-------------------------------------------------------------------------
 *
 * current.h
 *	  The job whose body this session runs now.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_CURRENT_H
#define JQ_CURRENT_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/uuid.h"

/* Strings and datums belong to whoever runs the body. */
typedef struct JqCurrentJob
{
	int64		job_id;
	int32		claim_no;
	pg_uuid_t	worker;
	const char *job_type;
	const char *stage;
	int16		attempt;
	int16		max_attempts;
	const char *correlation_id; /* or NULL */
	TimestampTz scheduled_at;
	TimestampTz deadline;		/* DT_NOEND: none */
	int64		cron_task_id;	/* 0: none */
	TimestampTz cron_instant;	/* DT_NOEND: none */
} JqCurrentJob;

/* NULL: no body runs. */
extern const JqCurrentJob *jq_current_job(void);

/* Sets it, and returns what it was: bodies nest in run_job(). */
extern const JqCurrentJob *jq_current_set(const JqCurrentJob *job);

#endif							/* JQ_CURRENT_H */
