/*-------------------------------------------------------------------------
 *
 * dependencies.h
 *	  Jobs that wait for other jobs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_DEPENDENCIES_H
#define JQ_DEPENDENCIES_H

#include "postgres.h"

/*
 * How many of the jobs "ids" are still to complete; their ids are moved to
 * the front of the array.  Each stays locked until the transaction ends, so
 * that none completes unseen.  Raises P0002 for a job that never existed.
 */
extern int	jq_dependencies_pending(int64 *ids, int nids);

/* Records that a job waits for others. */
extern void jq_dependencies_add(int64 job_id, const int64 *depends_on,
								int count);

/*
 * After job "id" completed: those who waited for it wait for one job less,
 * and are queued when that was the last.
 */
extern void jq_dependencies_release(int64 id);

#endif							/* JQ_DEPENDENCIES_H */
