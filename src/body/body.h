/*-------------------------------------------------------------------------
 *
 * body.h
 *	  Runs the body of an SQL job.
 *
 *	  In a worker, watch.h bounds the time of a body.  In somebody's own
 *	  session (run_job) a body is a statement like any other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_BODY_H
#define JQ_BODY_H

#include "postgres.h"

#include "body/command.h"
#include "body/current.h"
#include "body/journal.h"

typedef struct JqBody
{
	JqCurrentJob job;			/* what current_job() says */
	const char *command;		/* NULL: none that may run as this role */
	Datum		payload;		/* $1, jsonb, not toasted */
	JqMode		mode;			/* at least */
	int			timeout_ms;		/* 0: none */
	int			crashes;		/* of the server, while it ran */
} JqBody;

/* What a body leaves behind: in the context that was current. */
typedef struct JqBodyEnd
{
	bool		has_result;
	Datum		result;			/* jsonb: first row of the last result */
	const char *command_tag;	/* as psql would print it; NULL: none ran */
	JqJournal	journal;		/* also of a body that failed */
} JqBodyEnd;

/*
 * Runs a body in the current transaction, with SPI connected.  Triggers that
 * it deferred have not fired yet.  Raises the body's errors.
 */
extern void jq_body_run(const JqBody *body, JqBodyEnd *end);

/*
 * Runs a body outside of any transaction and in as many as it wants.  After
 * an error the caller aborts what is left of them.
 */
extern void jq_body_run_autonomous(const JqBody *body, JqBodyEnd *end);

/*
 * Whether an error of jq_body_run() says that this command only runs outside
 * a transaction block.  Functions cannot, and raise what they like: such a
 * command fails, for to run it in pieces would commit some of them.
 */
extern bool jq_body_wants_autonomy(const JqBody *body, const ErrorData *fault);

/*
 * The mode in which a body begins, and what is learned of it afterwards.  Of a
 * command that was not seen before, only jq_body_read_mode(), which raises the
 * errors of jq_command(), knows what its text says.
 */
extern JqMode jq_body_mode(const JqBody *body);
extern JqMode jq_body_read_mode(const JqBody *body);
extern void jq_body_learn_mode(const JqBody *body, JqMode mode);

/* A body that was moved out of a batch took so long. */
extern void jq_body_learn_duration(const JqBody *body, long duration_ms);

#endif							/* JQ_BODY_H */
