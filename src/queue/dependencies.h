/*-------------------------------------------------------------------------
 *
 * dependencies.h
 *	  What jobs wait for: the rows of job_dependencies, each an edge from a
 *	  job to a parent.
 *
 *	  An edge is pending until its parent has been counted (status is null).
 *	  It stays, with what the parent left, until its job is gone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_DEPENDENCIES_H
#define JQ_DEPENDENCIES_H

#include "postgres.h"

/*
 * For the text of a statement: what a job that has completed left, as ended_at,
 * job_type, result; the result only where "is_shared".
 */
#define JQ_LEFT_BY(id, is_shared) \
	"SELECT x.ended_at, x.job_type," \
	" CASE WHEN " is_shared " THEN x.result END AS result FROM (" \
	" (SELECT q.finished_at AS ended_at, q.job_type, q.result" \
	" FROM @.jobs_queue_done q WHERE q.id = " id ")" \
	" UNION ALL (SELECT r.finished_at, r.job_type, r.result" \
	" FROM @.job_runs r WHERE r.job_id = " id " AND r.status = 'completed'" \
	" ORDER BY r.claim_no DESC LIMIT 1)) x LIMIT 1"

/* What becomes of a blocked job when a parent ends without success. */
typedef enum JqOnFailure
{
	JQ_ON_FAILURE_BLOCK,		/* it stays blocked */
	JQ_ON_FAILURE_CANCEL,		/* it is cancelled */
	JQ_ON_FAILURE_RUN			/* the parent counts as done */
} JqOnFailure;

/* The jobs in depends_on of a job to be. */
typedef struct JqParents
{
	Oid			owner;			/* of the job to be */
	int64	   *ids;			/* pending ones first */
	bool	   *shared;			/* in that order: whether the owner may see
								 * what this one leaves */
	int			count;
	int			pending;
	int64	   *failed;			/* of these, which have ended without success */
	int			nfailed;
	JqOnFailure on_failure;
} JqParents;

/* Raises 22023 unless text is block, cancel or run. */
extern JqOnFailure jq_dependencies_on_failure(const char *name);

/*
 * Looks which of parents->ids, sorted, are still to complete, and whose results
 * parents->owner has a right to see.  Each stays locked until the transaction
 * ends, so that none ends unseen.  Raises P0002
 * for a job that never existed.
 */
extern void jq_dependencies_look(JqParents *parents);

/* Records what a job waits for, or would have waited for. */
extern void jq_dependencies_add(int64 job_id, const JqParents *parents);

/*
 * Keeps others from making jobs wait that are there already, until the
 * transaction ends.  Only such jobs can come to wait for each other.
 */
extern void jq_dependencies_lock_order(void);

/* Raises 22023 if a parent waits for the job, directly or not. */
extern void jq_dependencies_refuse_cycle(int64 job_id,
										 const JqParents *parents);

/* Forgets what a job waits for; the second, also what it has waited for. */
extern void jq_dependencies_forget_pending(int64 job_id);
extern void jq_dependencies_forget(int64 job_id);

/*
 * How many of these ended jobs, which the caller has locked, nobody waits for;
 * their ids are moved to the front of the array.
 */
extern int	jq_dependencies_unawaited(int64 *ids, int nids);

/* Forgets what those of the jobs that are gone have waited for. */
extern void jq_dependencies_prune(const int64 *ids, int nids);

/* The same for all jobs, by looking through them. */
extern void jq_dependencies_prune_all(void);

/*
 * Whether there are edges at all; pending ones to one of these parents; edges
 * of one of these jobs.  By index, on the active snapshot.
 */
extern bool jq_dependencies_exist(void);
extern bool jq_dependencies_has_children(const int64 *ids, int nids);
extern bool jq_dependencies_has_parents(const int64 *ids, int nids);

/* An array of bigint for a statement. */
extern Datum jq_dependencies_array(const int64 *ids, int count);

#endif							/* JQ_DEPENDENCIES_H */
