/*-------------------------------------------------------------------------
 *
 * interval.h
 *	  Intervals as lengths of time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_INTERVAL_H
#define JQ_INTERVAL_H

#include "postgres.h"

#include "datatype/timestamp.h"

/*
 * Length of an interval in microseconds.  Raises 22023, naming "argument",
 * unless it lies between min_us and max_us and has no months part.
 */
extern int64 jq_interval_us(const Interval *interval, const char *argument,
							int64 min_us, int64 max_us);

/* The same, between 0 and max_us, of any interval; a month has 30 days. */
extern int64 jq_interval_clamped_us(const Interval *interval, int64 max_us);

#endif							/* JQ_INTERVAL_H */
