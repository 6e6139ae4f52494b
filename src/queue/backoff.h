/*-------------------------------------------------------------------------
 *
 * backoff.h
 *	  How long a failed job waits for its next attempt.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_BACKOFF_H
#define JQ_BACKOFF_H

#include "postgres.h"

#include "utils/jsonb.h"
#include "utils/timestamp.h"

typedef enum JqBackoffStrategy
{
	JQ_BACKOFF_FIXED,
	JQ_BACKOFF_EXPONENTIAL
} JqBackoffStrategy;

typedef struct JqBackoff
{
	JqBackoffStrategy strategy;
	int64		delay_us;		/* >= 0; of the first retry */
	double		multiplier;		/* >= 1; exponential only */
	int64		max_delay_us;	/* cap before jitter */
	double		jitter;			/* 0..1: the delay varies by this part */
} JqBackoff;

/*
 * Reads {"strategy", "delay", "multiplier", "max_delay", "jitter"}; delays
 * are interval texts, or seconds as numbers.  Raises 22023 naming the key and
 * "argument", or the server's own error for a text that is no interval.
 */
extern void jq_backoff_parse(Jsonb *json, const char *argument,
							 JqBackoff *backoff);

/* Fixed, with the delay of jobqueue.retry_delay. */
extern void jq_backoff_default(JqBackoff *backoff);

/*
 * The delay in microseconds after attempt number "attempt" (from 1) failed.
 * "random" in [0, 1) decides the jitter.
 */
extern int64 jq_backoff_delay(const JqBackoff *backoff, int attempt,
							  double random);

#endif							/* JQ_BACKOFF_H */
