/*-------------------------------------------------------------------------
 *
 * failure_counts.h
 *	  Failures in a row, and the last failures, in shared memory: for alerts.
 *
 *	  Counted per job type, and once more per stage that has a name.  A
 *	  transaction notes how its jobs ended; the notes count when it commits,
 *	  in the order of commits.
 *
 *	  Without preloading, with jobqueue.max_failure_counts = 0, or while
 *	  jobqueue.alerts_enabled is off, nothing is counted.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_FAILURE_COUNTS_H
#define JQ_FAILURE_COUNTS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "queue/job.h"

/* Job types of this kind carry alerts, and are not counted. */
#define JQ_ALERT_PREFIX "alert:"

#define JQ_FAILURE_NAME_SIZE 256	/* with the terminator */

/* So many failures are remembered one by one. */
#define JQ_FAILURE_PLACES 64

typedef enum JqFailureSubject
{
	JQ_FAILURES_OF_TYPE,
	JQ_FAILURES_OF_STAGE
} JqFailureSubject;

typedef struct JqFailureName
{
	JqFailureSubject subject;
	char		job_type[JQ_FAILURE_NAME_SIZE];
	char		stage[JQ_FAILURE_NAME_SIZE];
} JqFailureName;

typedef struct JqFailedRun
{
	TimestampTz at;
	int64		job_id;
	int32		claim_no;
} JqFailedRun;

typedef struct JqFailureCount
{
	JqFailureName name;
	int32		streak;			/* failures since the last success */
	TimestampTz streak_since;	/* the first of them */
	TimestampTz last_failure_at;
	bool		is_sure;		/* a success was seen, or a row of alerts told
								 * what was before */
	int			nlast;			/* of last[] in use */
	int			next;			/* where the next one goes */
	JqFailedRun last[JQ_FAILURE_PLACES];
} JqFailureCount;

/* Asks for the shared memory; once, while preloading. */
extern void jq_failure_counts_init(void);

/* Notes the end of a claim. */
extern void jq_failure_counts_note(const JqJob *job, const JqRun *run);

/* Notes that nothing of a job type shall be remembered. */
extern void jq_failure_counts_forget(const char *job_type);

/*
 * What an alert tells of a streak that began before the memory: it goes on
 * where nothing since has ended it.
 */
extern void jq_failure_counts_restore(const JqFailureName *name, int32 streak,
									  TimestampTz since);

/* Grows with each failure that counts, in whatever database. */
extern uint64 jq_failure_counts_generation(void);

/* Since when there are counts; DT_NOEND: there are none. */
extern TimestampTz jq_failure_counts_since(void);

/* Those of this database; palloc'd.  Returns how many. */
extern int	jq_failure_counts_list(JqFailureCount **counts);

#endif							/* JQ_FAILURE_COUNTS_H */
