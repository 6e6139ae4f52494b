/*-------------------------------------------------------------------------
 *
 * body.h
 *	  The part of a job that belongs to its role: the command, and what it
 *	  leaves in the session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_BODY_H
#define JQ_BODY_H

#include "postgres.h"

typedef struct JqBody
{
	int64		job_id;			/* $2 */
	Datum		payload;		/* $1, jsonb, not toasted */
	char	   *command;		/* NULL: none that may run as this role */
	int			timeout_ms;		/* 0: none */
} JqBody;

/* Once per process, after connecting. */
extern void jq_body_init(void);

/* Handler of SIGTERM: lets the job go on for jobqueue.shutdown_timeout. */
extern void jq_body_request_shutdown(SIGNAL_ARGS);

/*
 * Runs a body in the current transaction, with SPI connected: the command and
 * the triggers that it deferred.  True: "result" is the first row of its last
 * result as jsonb.  After an error, jq_body_stop_watching() must be called.
 */
extern bool jq_body_run(const JqBody *body, Datum *result);
extern void jq_body_stop_watching(void);

/* Whether shutdown interrupted the last body. */
extern bool jq_body_was_cut_off(void);

/*
 * Leaves nothing of a job's session to the next one.  A unit of work: runs a
 * transaction of its own.
 */
extern void jq_body_reset_session(void *arg);

#endif							/* JQ_BODY_H */
