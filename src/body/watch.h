/*-------------------------------------------------------------------------
 *
 * watch.h
 *	  Looks at the bodies of jobs while they run, and cuts them off.
 *
 *	  A periodic timeout cancels a body when somebody asked for it, when the
 *	  time that a shutdown grants is over, and when the batch that it runs in
 *	  has lasted long enough.  A body that goes on for jobqueue.cancel_grace
 *	  after that ends with its process; one that does not even notice that is
 *	  reported as stuck.  Outside a body it does nothing, so that our own work
 *	  is never cut off.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_WATCH_H
#define JQ_WATCH_H

#include "postgres.h"

typedef enum JqCut
{
	JQ_CUT_NONE,				/* it was left alone, or its timeout is over */
	JQ_CUT_BATCH,				/* its batch must end: run it alone */
	JQ_CUT_CANCELLED,			/* somebody asked for it */
	JQ_CUT_SHUTDOWN
} JqCut;

/* Once per process, after connecting. */
extern void jq_watch_init(void);

/* Handler of SIGTERM: lets the job go on for jobqueue.shutdown_timeout. */
extern void jq_watch_request_shutdown(SIGNAL_ARGS);

/* Around a transaction of bodies; the second also after an error. */
extern void jq_watch_begin(void);
extern void jq_watch_end(void);

/*
 * Around a body; the second also after an error.  "is_in_batch": others have
 * finished in this transaction, and must not wait for it.  timeout_ms 0: none.
 */
extern void jq_watch_enter_body(bool is_in_batch, int timeout_ms);
extern void jq_watch_leave_body(void);

/*
 * Why the last body was cut off, if it was.  A body can have caught that, and
 * ended as if nothing had happened or with another error.
 */
extern JqCut jq_watch_cut(void);

/* Whether no further body should begin in this transaction. */
extern bool jq_watch_batch_is_over(void);

#endif							/* JQ_WATCH_H */
