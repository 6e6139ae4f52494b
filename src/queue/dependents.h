/*-------------------------------------------------------------------------
 *
 * dependents.h
 *	  What the ends of jobs do to those that wait for them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_DEPENDENTS_H
#define JQ_DEPENDENTS_H

#include "postgres.h"

/* Jobs that have ended in this transaction; their rows are written. */
typedef struct JqEndedJobs
{
	const int64 *completed;
	int			ncompleted;
	const int64 *failed;		/* without success */
	int			nfailed;
	bool		are_deleted;	/* the failed ones are gone */
} JqEndedJobs;

/*
 * After jobs have ended: those that waited for a completed one wait for one
 * job less, and are queued when there is none left.  Where one ended without
 * success, their on_failure decides: they stay blocked, are queued as if it
 * had completed, or are cancelled, which is an end for those that wait for
 * them.  Who waits for a deleted job is cancelled, but for on_failure "run".
 *
 * Inside a scope, with no table open.  All children are locked in the order
 * of their ids before one is changed, however far the cancellation reaches.
 */
extern void jq_dependents_settle(const JqEndedJobs *ended);

/* For one job. */
extern void jq_dependents_settle_completed(int64 job_id);
extern void jq_dependents_settle_failed(int64 job_id);

/* For all jobs that are waited for and gone, by looking through them. */
extern void jq_dependents_settle_truncated(void);

#endif							/* JQ_DEPENDENTS_H */
