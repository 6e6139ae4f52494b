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

/* No delay is longer. */
#define JQ_BACKOFF_MAX_US (366 * USECS_PER_DAY)

typedef enum JqBackoffStrategy
{
	JQ_BACKOFF_FIXED,
	JQ_BACKOFF_EXPONENTIAL,
	JQ_BACKOFF_LINEAR,
	JQ_BACKOFF_LIST,
	JQ_BACKOFF_FUNCTION			/* see backoff_function.h */
} JqBackoffStrategy;

typedef enum JqJitterKind
{
	JQ_JITTER_PROPORTIONAL,		/* the delay varies by a part of it */
	JQ_JITTER_FULL,				/* anything up to the delay */
	JQ_JITTER_EQUAL				/* half of it, and anything up to the rest */
} JqJitterKind;

typedef struct JqBackoff
{
	JqBackoffStrategy strategy;
	int64		delay_us;		/* >= 0; of the first retry */
	double		multiplier;		/* >= 1; exponential only */
	int64	   *delays_us;		/* list only: of the first retries */
	int			ndelays;		/* > 0 */
	char	   *function_schema;	/* function only */
	char	   *function_name;
	int64		max_delay_us;	/* cap before jitter */
	JqJitterKind jitter_kind;
	double		jitter;			/* 0..1; proportional only */
} JqBackoff;

/*
 * Reads {"strategy", "delay", "delays", "function", "multiplier",
 * "max_delay", "jitter", "jitter_kind"}, an array of delays, or a delay;
 * delays are interval texts, or seconds as numbers.  What it points to is in
 * the current context.  Raises 22023 naming the key and "argument", or the
 * server's own error for a text that is no interval.  Whether there is such a
 * function is not looked at.
 */
extern void jq_backoff_parse(Jsonb *json, const char *argument,
							 JqBackoff *backoff);

/*
 * A length of time in JSON: an interval text, or seconds as a number.  "name"
 * is what errors call it.
 */
extern int64 jq_backoff_parse_delay(const JsonbValue *value, const char *name);

/* Fixed, with the delay of jobqueue.retry_delay. */
extern void jq_backoff_default(JqBackoff *backoff);

/*
 * The delay in microseconds after attempt number "attempt" (from 1) failed.
 * "random" in [0, 1) decides the jitter.  Not for functions, whose answer the
 * second one brings within the cap and spreads.
 */
extern int64 jq_backoff_delay(const JqBackoff *backoff, int attempt,
							  double random);
extern int64 jq_backoff_spread(const JqBackoff *backoff, double delay_us,
							   double random);

#endif							/* JQ_BACKOFF_H */
