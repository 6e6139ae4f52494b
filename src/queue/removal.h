/*-------------------------------------------------------------------------
 *
 * removal.h
 *	  Deleting jobs that have ended, many at once.
 *
 *	  What refers to a job goes with it: the edges of job_dependencies.  Its
 *	  runs and logs stay; they have a retention of their own.  Rows that
 *	  somebody has locked are passed over.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_REMOVAL_H
#define JQ_REMOVAL_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* Jobs of a type and status that ended up to some point; see below. */
typedef struct JqPruning
{
	const char *job_type;
	const char *status;
	TimestampTz from;			/* finished_at */
	TimestampTz until;
	int64		until_id;		/* of those that ended at "until" */
} JqPruning;

/*
 * Deletes the oldest of these jobs, at most max_jobs, and moves "from" to the
 * last of them; returns how many.  Jobs that blocked ones wait for are left:
 * they may still be redriven.  Inside no scope.
 */
extern int64 jq_removal_prune(JqPruning *pruning, int max_jobs);

/* Which ended jobs an operator wants to be rid of; NULL matches all. */
typedef struct JqPurge
{
	Datum		values[6];		/* job_type, statuses, stage, error_like,
								 * finished_before, max_jobs (bigint) */
	char		nulls[6];
} JqPurge;

/*
 * Deletes the jobs that match, oldest first, and cancels the blocked ones
 * that wait for them; returns how many were deleted.  Inside no scope.
 */
extern int64 jq_removal_purge(JqPurge *purge);

#endif							/* JQ_REMOVAL_H */
