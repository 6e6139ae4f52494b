/*-------------------------------------------------------------------------
 *
 * completion.h
 *	  Completing jobs without a lock of its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_COMPLETION_H
#define JQ_COMPLETION_H

#include "postgres.h"

#include "base/table.h"
#include "queue/job.h"
#include "queue/resolve.h"

/* What completing jobs writes to, kept open while one call completes many. */
typedef struct JqCompletion
{
	bool		is_open;
	bool		is_refused;		/* a table is not plain */
	JqTable		live;
	TupleTableSlot *row;
	TupleTableSlot *next;
	JqTable		runs;
	TupleTableSlot *run_row;
	JqTable		done;
	TupleTableSlot *done_row;
} JqCompletion;

/*
 * Opens the tables inside a scope, once; is_open stays false where they are
 * not all direct.  A second call after an end opens them again.
 */
extern void jq_completion_begin(JqCompletion *completion);
extern void jq_completion_end(JqCompletion *completion);

/*
 * Completes a job that this worker holds, with its row in the done leaf, if
 * such are kept, and in job_runs; also one that it skipped.  False, and nothing has changed: he does not
 * hold it, as far as committed versions tell.
 */
extern bool jq_completion_complete(JqCompletion *completion,
								   const JqHeld *held,
								   const JqOutcome *outcome);

/* Whether the claim that a job is running under is this one. */
extern bool jq_completion_is_held(const JqJob *job, const JqHeld *held);

#endif							/* JQ_COMPLETION_H */
