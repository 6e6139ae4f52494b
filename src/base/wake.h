/*-------------------------------------------------------------------------
 *
 * wake.h
 *	  Waking others when a transaction commits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_WAKE_H
#define JQ_WAKE_H

/*
 * Once this transaction has committed and others can see it, also by what it
 * has invalidated, the scheduler of this database looks for work.
 */
extern void jq_wake_at_commit(void);

/* Then waker is called, once.  It must not allocate, raise or wait. */
extern void jq_call_at_commit(void (*waker) (void));

#endif							/* JQ_WAKE_H */
