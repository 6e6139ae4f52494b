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

/* Tells the caller when this server has no workers to run SQL jobs. */
extern void jq_argument_notice_workers(void);

#endif							/* JQ_ARGUMENTS_H */
