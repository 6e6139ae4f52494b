/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  Runs the jobs of a claim: together, alone, or on their own terms.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_BATCH_H
#define JQ_BATCH_H

#include "postgres.h"

#include "worker/claimed.h"

/*
 * Runs claimed jobs one after the other, until may_go_on() says no, and
 * records what became of them.  What has not begun stays in the batch.  False:
 * something could not be recorded, or the session not be cleaned; then this
 * process must end, and the scheduler takes its jobs back.
 */
extern bool jq_batch_run(JqBatch *batch, bool (*may_go_on) (void));

/* Gives back what has not begun, uncharged.  False as above. */
extern bool jq_batch_release(JqBatch *batch);

#endif							/* JQ_BATCH_H */
