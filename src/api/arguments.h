/*-------------------------------------------------------------------------
 *
 * arguments.h
 *	  Checking the arguments of SQL-callable functions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_ARGUMENTS_H
#define JQ_ARGUMENTS_H

#include "postgres.h"

#include "fmgr.h"
#include "nodes/pg_list.h"
#include "queue/enqueue.h"
#include "queue/resolve.h"
#include "utils/uuid.h"

/* Raises 22004 when argument number "n" (from 0) is null. */
extern void jq_argument_required(FunctionCallInfo fcinfo, int n,
								 const char *name);

/* A required worker id; raises 22023 for the nil uuid. */
extern void jq_argument_worker(FunctionCallInfo fcinfo, int n,
							   pg_uuid_t *worker);

/* A required job id; raises 22023 unless positive. */
extern int64 jq_argument_job_id(FunctionCallInfo fcinfo, int n);

/* An optional text as a string; NULL when null. */
extern char *jq_argument_text(FunctionCallInfo fcinfo, int n);

/* An optional Datum; 0 when null. */
extern Datum jq_argument_datum(FunctionCallInfo fcinfo, int n);

/*
 * The held job of a work function: job_id is argument 0, worker_id argument
 * 1, claim_no argument "claim_no".
 */
extern void jq_argument_held(FunctionCallInfo fcinfo, int claim_no,
							 JqHeld *held);

/* An optional claim_no; raises 22023 unless positive.  0 when null. */
extern int32 jq_argument_claim_no(FunctionCallInfo fcinfo, int n);

/*
 * The elements of an array argument, "expected" of them.  With a name, nulls
 * are refused.
 */
extern Datum *jq_argument_array(FunctionCallInfo fcinfo, int n, Oid type,
								const char *name, int expected, bool **nulls);

/*
 * An optional array of job types that outside workers serve, each once, as a
 * list of char *; NIL when null.  Raises 22023 when empty, 55000 for a type
 * that the server runs.  The second adds one to such a list.
 */
extern List *jq_argument_job_types(FunctionCallInfo fcinfo, int n);
extern List *jq_argument_add_job_type(List *job_types, const char *job_type);

/*
 * unique_mode, and unique_scope with unique_period right after it.  Raises
 * 22023 and 22004 for what does not go together, which takes scheduled_at.
 */
extern void jq_argument_unique(FunctionCallInfo fcinfo, int mode, int scope,
							   JqNewJob *job);

/*
 * The role that argument n, run_as, names, once it is clear that the caller's
 * SQL may run as that; InvalidOid when it is NULL, and SQL may run as the
 * caller.
 */
extern Oid	jq_argument_run_as(FunctionCallInfo fcinfo, int n);

/* Tells the caller when this server has no workers to run SQL jobs. */
extern void jq_argument_notice_workers(void);

#endif							/* JQ_ARGUMENTS_H */
