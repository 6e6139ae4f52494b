/*-------------------------------------------------------------------------
 *
 * limits.h
 *	  How many jobs may run at once, and begin in a window of time.
 *
 *	  A claim takes a place for each job that a limit of concurrency counts,
 *	  before it writes the row, and an instant of each rate.  Both go back when
 *	  the (sub)transaction aborts; a place is free when the transaction that
 *	  ends the claim commits.  The same transaction may fill it again: that is
 *	  how resolve_and_claim() goes on at a limit.
 *
 *	  What is counted is in shared memory and exact: never more than a limit,
 *	  also while settings change, after a crash, and with prepared
 *	  transactions.  Where there is no such memory (the library is not
 *	  preloaded, or it is full), claims count in SQL: see claim_limits.c.
 *
 *	  What needs the lock of limit_memory.h takes it: callers must not hold it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_LIMITS_H
#define JQ_LIMITS_H

#include "postgres.h"

#include "queue/job.h"
#include "queue/job_types.h"
#include "utils/rel.h"

/* What limits say to a claim. */
typedef enum JqLimitAnswer
{
	JQ_LIMIT_FREE,
	JQ_LIMIT_FULL,				/* until a job ends, which wakes sleepers */
	JQ_LIMIT_LATER,				/* until "next_at" */
	JQ_LIMIT_GROUP,				/* only the job's group is at its limit */
	JQ_LIMIT_BUSY,				/* somebody else claims the job */
	JQ_LIMIT_UNCOUNTED,			/* jq_limits_count() must come first */
	JQ_LIMIT_NO_MEMORY			/* only SQL can tell */
} JqLimitAnswer;

/* What places are taken for under these limits: JQ_COUNTS_* */
extern int	jq_limits_counts(const JqLimits *limits);

/* Whether anything at all limits the jobs of a type. */
static inline bool
jq_limits_apply(const JqLimits *limits)
{
	return limits->max_concurrency > 0 || limits->rate.max > 0 ||
		limits->group_concurrency > 0 || limits->group_rate.max > 0 ||
		limits->fair_groups || limits->throttled_until != DT_NOBEGIN;
}

/* Whether its groups take turns, or have limits of their own. */
static inline bool
jq_limits_have_groups(const JqLimits *limits)
{
	return limits->group_concurrency > 0 || limits->group_rate.max > 0 ||
		limits->fair_groups;
}

/*
 * Whether jobs of this type may be claimed now, and how many; groups aside.
 * Cheap; a claim asks before it looks at any job.
 */
extern JqLimitAnswer jq_limits_look(const JqJobType *type, TimestampTz now,
									int *available, TimestampTz *next_at);

/*
 * Takes what the job needs: a place and instants.  "now" becomes the instant
 * that its claim must have.  FREE or GROUP or why none can be taken.
 */
extern JqLimitAnswer jq_limits_reserve(const JqJobType *type, const JqJob *job,
									   TimestampTz *now);

/*
 * The settings of a type say that its jobs are not counted, or that it has no
 * groups: what is remembered means nothing.  True: its lanes must be read
 * again, for there were jobs that only their groups knew.
 */
extern bool jq_limits_forget(const JqJobType *type);

/* What people may see of a limited type. */
typedef struct JqLimitCount
{
	char		job_type[256];
	bool		is_counted;		/* by a limit of concurrency */
	int			running;
	bool		has_rate;
	int			available;		/* that may begin now */
	TimestampTz next_at;		/* when the next one may */
	int			groups;			/* that shared memory knows of */
	int			ready_groups;	/* that wait for their turn */
} JqLimitCount;

/* Those of this database; allocated here.  Returns how many. */
extern int	jq_limits_list(JqLimitCount **counts);

/* ---- what a transaction notes and settles (limit_notes.c) ---- */

/* Registers the transaction callbacks; once, from _PG_init. */
extern void jq_limits_init(void);

/*
 * From here to the end a backend may claim under the settings that it knows:
 * whoever counts waits for that.  An abort ends it, too.
 */
extern void jq_limits_begin_claim(void);
extern void jq_limits_end_claim(void);

/* The job that was reserved last, if it is this one, has not been claimed. */
extern void jq_limits_unreserve(int64 job_id);

/*
 * The claim of this job ends in this transaction; with "will_retry" it is
 * queued again after a failure.  Costs nothing where no type is limited.
 */
extern void jq_limits_note_end(const JqJob *job, bool will_retry);

/* ---- counting (limit_count.c) ---- */

/*
 * Counts the running jobs of a type, uncommitted ones included, after which
 * its limits hold.  Not inside of a claim.  False: somebody else does, or
 * claims under other settings do not end.
 */
extern bool jq_limits_count(const JqJobType *type, Relation live);

/* Frees places of jobs that do not run: what no callback could tell. */
extern void jq_limits_audit(Relation live);

#endif							/* JQ_LIMITS_H */
