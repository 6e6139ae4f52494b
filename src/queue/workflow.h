/*-------------------------------------------------------------------------
 *
 * workflow.h
 *	  New jobs that wait for each other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_WORKFLOW_H
#define JQ_WORKFLOW_H

#include "postgres.h"

#include "queue/enqueue.h"

/*
 * Enqueues jobs, of which some wait for others by their keys, and returns
 * their ids in the order of "jobs"; each is enqueued after those it waits for.
 * Raises 22023, before anything is written, for a key that is unknown or
 * given twice, and for jobs that wait for each other.
 */
extern int64 *jq_workflow_enqueue(JqNewJob *jobs, int count);

#endif							/* JQ_WORKFLOW_H */
