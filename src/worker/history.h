/*-------------------------------------------------------------------------
 *
 * history.h
 *	  Writing down, at the end of intervals, what happened in them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HISTORY_H
#define JQ_HISTORY_H

/*
 * Looks at the jobs and writes rows of job_history where that is due.  Returns
 * after how many milliseconds it has something to do, LONG_MAX for not before
 * something happens.  For the scheduler; protects its own transactions.
 */
extern long jq_history_tend(void);

#endif							/* JQ_HISTORY_H */
