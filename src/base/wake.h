/*-------------------------------------------------------------------------
 *
 * wake.h
 *	  Waking the scheduler of this database when a transaction commits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_WAKE_H
#define JQ_WAKE_H

/* Once this transaction has committed, the scheduler looks for work. */
extern void jq_wake_at_commit(void);

#endif							/* JQ_WAKE_H */
