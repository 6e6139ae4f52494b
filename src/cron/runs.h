/*-------------------------------------------------------------------------
 *
 * runs.h
 *	  Runs of cron tasks: instants that become jobs, once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_RUNS_H
#define JQ_RUNS_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* When tasks are due; DT_NOEND: none is. */
typedef struct JqCronOutlook
{
	bool		has_moved;		/* some were decided about: more may be due */
	TimestampTz next;			/* the earliest, also if it is due by now;
								 * DT_NOBEGIN: by the start of the server */
	TimestampTz later;			/* then, the earliest that is not */
} JqCronOutlook;

/*
 * Enqueues jobs for the tasks that are due and that nobody else is working on,
 * at most a thousand of them, and for those that want to run when the server
 * has started.  A task with a fault is disabled with a reason; the others go
 * on.  Returns how many jobs; 0, and nothing is done, when it is called by what
 * it does itself.  Enters a scope of its own.
 *
 * Tasks that are planned before "from" are not looked at, DT_NOBEGIN: all
 * are.  *outlook, unless it is NULL, tells of the enabled tasks from there on.
 * What is still due then waits for somebody.
 */
extern int	jq_runs_enqueue_due(TimestampTz from, JqCronOutlook *outlook);

/*
 * Enqueues a job of the task for that instant, whatever its policies, and
 * returns its id.  Raises P0002 when there is no such task, 23505 when the
 * instant has been enqueued.
 */
extern int64 jq_runs_enqueue_now(const char *name, TimestampTz instant);

#endif							/* JQ_RUNS_H */
