/*-------------------------------------------------------------------------
 *
 * clock.h
 *	  A clock that nobody sets.
 *
 *	  What the server's processes do every so often goes by this one: the
 *	  clock on the wall may jump, and must then neither stop them nor make
 *	  them hurry.  What is compared with times in tables goes by the wall.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_CLOCK_H
#define JQ_CLOCK_H

#include "portability/instr_time.h"

/* Milliseconds since some instant; means nothing to another machine's start. */
static inline int64
jq_clock_ms(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MILLISEC(now);
}

#endif							/* JQ_CLOCK_H */
