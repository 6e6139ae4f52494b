/*-------------------------------------------------------------------------
 *
 * throttle.h
 *	  Leaving a job type alone for a while.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_THROTTLE_H
#define JQ_THROTTLE_H

#include "postgres.h"

/*
 * Lets nobody claim jobs of a type for so long from now, unless that is so
 * already; 0 ends it.  Makes a row of job_types where there is none.  False:
 * nothing has changed.  Enters a scope of its own; waits for who else changes
 * the row.
 */
extern bool jq_throttle_job_type(const char *job_type, int64 delay_us);

/*
 * The same for a type that has a row, at the end of one of its claims: if
 * somebody else changes the row, it is left alone.
 */
extern void jq_throttle_after_error(const char *job_type, int64 delay_us);

#endif							/* JQ_THROTTLE_H */
