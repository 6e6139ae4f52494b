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

/* Forgets what a job waits for. */
extern void jq_dependencies_forget(int64 job_id);

/*
 * How many of these ended jobs, which the caller has locked, no blocked job
 * waits for; their ids are moved to the front of the array, and what is known
 * of others that have waited for them is forgotten.
 */
extern int	jq_dependencies_unawaited(int64 *ids, int nids);

/* Forgets what ended jobs have waited for. */
extern void jq_dependencies_forget_many(const int64 *ids, int nids);

/*
 * After these jobs completed: those who waited for them wait for that many
 * jobs less, and are queued when there is none left.
 */
extern void jq_dependencies_release(const int64 *ids, int nids);

/*
 * The jobs that wait for a job which is gone, in the order of their ids and
 * in the caller's context; what they waited for is forgotten.
 */
extern int64 *jq_dependencies_orphans(int *count);

#endif							/* JQ_DEPENDENCIES_H */
