/*-------------------------------------------------------------------------
 *
 * job_body.h
 *	  The body of an SQL job, as the rows of the job and its type have it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_JOB_BODY_H
#define JQ_JOB_BODY_H

#include "postgres.h"

#include "body/body.h"
#include "executor/tuptable.h"
#include "queue/resolve.h"

/*
 * Copies what is needed to run a claimed row into "context".  The body has a
 * command only if one may run as this role.  Inside a scope.
 */
extern void jq_job_body_read(TupleTableSlot *slot, const pg_uuid_t *worker,
							 Oid role, MemoryContext context, JqHeld *held,
							 JqBody *body);

/* What became of a job whose body has succeeded: completed or skipped. */
extern void jq_job_body_outcome(const JqBodyEnd *end, JqOutcome *outcome);

/* What is kept of an error: message, SQLSTATE, detail and hint; clipped. */
extern char *jq_job_error_text(const ErrorData *error);

#endif							/* JQ_JOB_BODY_H */
