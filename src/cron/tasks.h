/*-------------------------------------------------------------------------
 *
 * tasks.h
 *	  Cron tasks: rows of cron_tasks that become jobs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_TASKS_H
#define JQ_TASKS_H

#include "postgres.h"

#include "datatype/timestamp.h"

/*
 * Enqueues a job for every due task that nobody else is working on and
 * returns how many.  A task with a fault is disabled with a reason; the
 * others go on.  Enters a scope of its own.
 */
extern int	jq_tasks_enqueue_due(void);

/* The earliest next_run_at of all enabled tasks; DT_NOEND: none. */
extern TimestampTz jq_tasks_next_due(void);

#endif							/* JQ_TASKS_H */
