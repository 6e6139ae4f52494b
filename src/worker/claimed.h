/*-------------------------------------------------------------------------
 *
 * claimed.h
 *	  The jobs that an executor has claimed in one go.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_CLAIMED_H
#define JQ_CLAIMED_H

#include "postgres.h"

#include "body/body.h"
#include "queue/resolve.h"
#include "utils/tuplestore.h"

/* What became of a claimed job. */
typedef enum JqFate
{
	JQ_FATE_WAITING,			/* it has not begun */
	JQ_FATE_MOVED,				/* nothing yet: it is to run on its own */
	JQ_FATE_COMPLETED,
	JQ_FATE_FAILED,
	JQ_FATE_RELEASED			/* shutdown or a cancellation came before */
} JqFate;

typedef struct JqClaimedJob
{
	JqHeld		held;
	JqBody		body;
	bool		is_suspect;		/* was running when the server crashed */
	bool		has_breaker;	/* its failures count together with others */
	JqFate		fate;
	JqBodyEnd	end;
	ErrorData  *fault;			/* of the body, or of its completion */
} JqClaimedJob;

typedef struct JqBatch
{
	MemoryContext context;		/* of all this */
	JqClaimedJob *jobs;
	int			njobs;
	int			next;			/* the first that has not begun */
	uint64		circuits;		/* generation that the claim has heeded */
} JqBatch;

/*
 * Copies claimed rows, which this worker holds, into the batch.  Inside a
 * transaction.
 */
extern void jq_claimed_read(JqBatch *batch, const pg_uuid_t *worker,
							Tuplestorestate *rows, TupleDesc row_type);

/* How the end of a job is to be recorded; in the current context. */
extern void jq_claimed_outcome(const JqClaimedJob *job, JqOutcome *outcome);

/* Says in the server log what became of a failed job. */
extern void jq_claimed_log_failure(const JqClaimedJob *job);

#endif							/* JQ_CLAIMED_H */
