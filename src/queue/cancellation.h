/*-------------------------------------------------------------------------
 *
 * cancellation.h
 *	  Tells executors of cancelled jobs as soon as the request commits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_CANCELLATION_H
#define JQ_CANCELLATION_H

#include "postgres.h"

#include "utils/uuid.h"

/*
 * Notes that this transaction asks to cancel a claim of an executor.  What is
 * not told at its commit (a prepared transaction, too many of them) the
 * scheduler finds in the rows.
 */
extern void jq_cancellation_note(const pg_uuid_t *worker, int64 job_id,
								 int32 claim_no);

#endif							/* JQ_CANCELLATION_H */
