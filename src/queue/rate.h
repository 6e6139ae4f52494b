/*-------------------------------------------------------------------------
 *
 * rate.h
 *	  How many jobs may begin in a window of time: pure arithmetic.
 *
 *	  A sliding log: any window, wherever it starts, holds at most "max"
 *	  instants.  Where the log has fewer places than that, neighbours share a
 *	  place and leave the window together, with the last of them: so a rate is
 *	  never exceeded, and missed by the length of a place at most.  With a
 *	  burst it is a bucket of tokens instead: one comes every window / max.
 *
 *	  Instants go by the clock on the wall and never go back: see jq_rate_now().
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_RATE_H
#define JQ_RATE_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* How many jobs may begin in a window of time; max 0: as many as there are. */
typedef struct JqRate
{
	int			max;
	int64		window_us;
	int			burst;			/* 0: any window; else evenly spaced */
} JqRate;

/* Instants that stand together. */
typedef struct JqRatePlace
{
	TimestampTz from;
	TimestampTz until;			/* the last of them */
	int32		count;
} JqRatePlace;

/* Zeroes are an empty log; "nplaces" of its places follow. */
typedef struct JqRateLog
{
	TimestampTz latest;			/* no instant is later */
	TimestampTz full_at;		/* of a bucket: when it will be full again */
	int16		nplaces;
	int16		first;
	int16		used;
	JqRatePlace places[FLEXIBLE_ARRAY_MEMBER];
} JqRateLog;

#define JQ_RATE_LOG_SIZE(nplaces) \
	(offsetof(JqRateLog, places) + sizeof(JqRatePlace) * (nplaces))

/* Empties a log. */
extern void jq_rate_reset(JqRateLog *log, int nplaces);

/*
 * The instant that "now" is for this log: a clock that was set back lets what
 * has begun seem to have begun just now.
 */
extern TimestampTz jq_rate_now(JqRateLog *log, TimestampTz now);

/* How many may begin now, and if none, when the next one may. */
extern int	jq_rate_available(JqRateLog *log, const JqRate *rate,
							  TimestampTz now, TimestampTz *next_at);

/* One begins now; there must be one available. */
extern void jq_rate_take(JqRateLog *log, const JqRate *rate, TimestampTz now);

/* The one that began then did not. */
extern void jq_rate_give_back(JqRateLog *log, const JqRate *rate,
							  TimestampTz at);

#endif							/* JQ_RATE_H */
