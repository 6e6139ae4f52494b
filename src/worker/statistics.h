/*-------------------------------------------------------------------------
 *
 * statistics.h
 *	  How many jobs there are, in the server log now and then.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_STATISTICS_H
#define JQ_STATISTICS_H

#include "postgres.h"

/*
 * Logs a line when jobqueue.statistics_interval is over and the numbers are
 * others than in the last line.  Catches its errors.
 */
extern void jq_statistics_tend(void);

#endif							/* JQ_STATISTICS_H */
