/*-------------------------------------------------------------------------
 *
 * session.h
 *	  What a job leaves in the session of an executor.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_SESSION_H
#define JQ_SESSION_H

#include "postgres.h"

/* Once per process that runs jobs. */
extern void jq_session_init(void);

/*
 * Between two jobs of one transaction.  Settings that the first changed are
 * undone by the caller's GUC nest level; this removes what else can be removed
 * here.  False: there is something that only the end of the transaction and
 * jq_session_reset() remove, and no further job may begin before.
 */
extern bool jq_session_tidy(void);

/*
 * Leaves nothing of a job's session to the next one.  A unit of work: runs a
 * transaction of its own.
 */
extern void jq_session_reset(void *arg);

#endif							/* JQ_SESSION_H */
