/*-------------------------------------------------------------------------
 *
 * endings.h
 *	  HTTP jobs that have ended and are not yet recorded.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_ENDINGS_H
#define JQ_ENDINGS_H

#include "postgres.h"

#include "queue/http_job.h"
#include "queue/resolve.h"

/*
 * Adds a job, which belongs to this list from now on; what the outcome points
 * to is in the job's context, or constant.
 */
extern void jq_endings_add(JqHttpJob *job, const JqOutcome *outcome);

/* Gives a job back, uncharged, to be claimed again now or at "retry_at". */
extern void jq_endings_release(JqHttpJob *job, TimestampTz retry_at);

/* How many there are, and how many of them have not been tried alone. */
extern int	jq_endings_count(void);
extern int	jq_endings_ready(void);

/*
 * When to record some, in ms; -1: none.  An ending waits a little for others,
 * for each transaction costs more than what it records.
 */
extern long jq_endings_wait_ms(void);

/* Whether one of them may open a circuit: no job is to begin before. */
extern bool jq_endings_are_urgent(void);

/*
 * Writes some of them inside the caller's transaction; the second forgets
 * those after its commit.
 */
extern void jq_endings_write(void);
extern void jq_endings_written(void);

/*
 * One by one, each in a transaction of its own, after the transaction of many
 * has failed: what cannot be recorded is tried again later and later, and
 * alone.  Takes a short time at most; whether the culprit is among those that
 * were tried, and none is left.
 */
extern bool jq_endings_record_each(void);

/* Those of them whose time has come again, also for a short time at most. */
extern void jq_endings_retry(void);

#endif							/* JQ_ENDINGS_H */
