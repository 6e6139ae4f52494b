/*-------------------------------------------------------------------------
 *
 * command.h
 *	  Commands of SQL jobs, parsed once per session.
 *
 *	  What is learned of a command is remembered with it: how its jobs are
 *	  best run, and its plan if it has one that can be kept.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_COMMAND_H
#define JQ_COMMAND_H

#include "postgres.h"

#include "executor/spi.h"
#include "nodes/params.h"
#include "nodes/parsenodes.h"
#include "parser/parse_node.h"

/* How a job is run, from the cheapest to the most capable. */
typedef enum JqMode
{
	JQ_MODE_BATCHED,			/* in one transaction with other jobs */
	JQ_MODE_ALONE,				/* in one transaction of its own */
	JQ_MODE_AUTONOMOUS			/* one transaction per statement, or its own */
} JqMode;

/* $1 payload, $2 job id */
#define JQ_COMMAND_NPARAMS 2
extern const Oid jq_command_param_types[JQ_COMMAND_NPARAMS];

typedef struct JqCommand
{
	uint64		hash;			/* of the text; the key */
	char	   *text;
	bool		is_single;		/* one statement, and no utility statement */
	bool		sets_transaction;	/* contains SET TRANSACTION */
	bool		calls;			/* contains CALL or DO */
	bool		has_utility;	/* contains another utility statement */
	JqMode		mode;			/* learned: the first that may work */
	int			quick_runs;		/* in a row, while it is moved out */
	SPIPlanPtr	plan;			/* NULL: none is kept */
	CommandTag	tag;			/* of the last statement */
} JqCommand;

/* The mode with this name; false when there is none. */
extern bool jq_mode_from_name(const char *name, JqMode *mode);
extern const char *jq_mode_name(JqMode mode);

/* Raises 0A000 for statements, as parsed, that no SQL job can run. */
extern void jq_command_check(const List *statements);

/*
 * The command with this text; parses it if it is new.  Raises the parser's
 * errors, 0A000 for what a job cannot do (two-phase commit, COPY from or to
 * the client), 42601 when it has no statement.  Valid until
 * jq_command_forget_surplus().
 */
extern JqCommand *jq_command(const char *source);

/* The same without parsing: NULL when it is not known. */
extern JqCommand *jq_command_if_known(const char *source);

/* Starts over when too many are remembered.  Not while one is being run. */
extern void jq_command_forget_surplus(void);

/* The command's statements, parsed anew in the current context. */
extern List *jq_command_parse(const JqCommand *command);

/* Parser hook for commands with the two parameters. */
extern void jq_command_setup_params(ParseState *pstate, void *arg);

/* The two parameters, for the executor. */
extern ParamListInfo jq_command_params(Datum payload, int64 job_id);

#endif							/* JQ_COMMAND_H */
