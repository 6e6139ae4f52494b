/*-------------------------------------------------------------------------
 *
 * tasks.h
 *	  Definitions of cron tasks, and their plans.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_TASKS_H
#define JQ_TASKS_H

#include "postgres.h"

/*
 * Whether somebody may have changed a definition since the last call, or this
 * is the first.  What enqueues tasks is no such change.  In a transaction.
 */
extern bool jq_tasks_have_changed(void);

/*
 * Computes the plans anew that the clock or the rules of a time zone have left
 * behind, but not those that were set by hand or are due.  False when somebody
 * held some of the rows: to be called again.  Enters a scope of its own.
 */
extern bool jq_tasks_replan(void);

#endif							/* JQ_TASKS_H */
