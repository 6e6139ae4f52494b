/*-------------------------------------------------------------------------
 *
 * removal.h
 *	  Deleting what is over, many rows at once: ended jobs, and old runs.
 *
 *	  Rows that somebody has locked are passed over, never waited for.  All of
 *	  it happens in the caller's transaction, in a scope of its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_REMOVAL_H
#define JQ_REMOVAL_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/block.h"

/* Jobs of a type and status that ended up to some point. */
typedef struct JqPruning
{
	const char *job_type;
	const char *status;
	TimestampTz from;			/* finished_at; moves on */
	TimestampTz until;
	int64		until_id;		/* of those that ended at "until" */
	bool		is_done;		/* none is left, or none that can be deleted */
} JqPruning;

/*
 * Deletes the oldest of these jobs, at most max_jobs, and what
 * job_dependencies says of them; returns how many.  Their runs stay.  So do
 * jobs that blocked ones wait for: they may still be redriven.
 */
extern int64 jq_removal_prune(JqPruning *pruning, int max_jobs);

/* Which ended jobs an operator wants to be rid of. */
typedef struct JqPurge
{
	Datum		values[6];		/* job_type, statuses, stage, error_like,
								 * finished_before, max_jobs (bigint) */
	char		nulls[6];		/* 'n': matches all */
} JqPurge;

/*
 * Deletes the jobs that match, oldest first, and cancels the blocked ones
 * that wait for them; returns how many were deleted.  Their runs stay.
 */
extern int64 jq_removal_purge(JqPurge *purge);

/*
 * Deletes the runs in some pages of job_runs, and their logs, that are older
 * than keep_us (-1: than anything), or than their job type says; returns how
 * many.  Those of live jobs and of dead letters stay.
 */
extern int64 jq_removal_prune_runs(BlockNumber from, BlockNumber until,
								   int64 keep_us);

/* How many pages there are. */
extern BlockNumber jq_removal_run_pages(void);

#endif							/* JQ_REMOVAL_H */
