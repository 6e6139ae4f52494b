/*-------------------------------------------------------------------------
 *
 * command.c
 *	  Commands of SQL jobs, parsed once per session.
 *
 * The cache belongs to a session, hence to one role: plans made in it are
 * never another role's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "body/command.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "parser/parse_param.h"
#include "parser/parser.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#define MAX_COMMANDS 256

const Oid	jq_command_param_types[JQ_COMMAND_NPARAMS] = {JSONBOID, INT8OID};

static const char *const mode_names[] = {
	[JQ_MODE_BATCHED] = "batched",
	[JQ_MODE_ALONE] = "alone",
	[JQ_MODE_AUTONOMOUS] = "autonomous"
};

static HTAB *commands = NULL;
static MemoryContext command_context = NULL;

static void prepare_cache(void);
static void read_statements(JqCommand *command);
static bool is_plannable(const Node *statement);
static bool sets_own_transaction(const Node *statement);
static void check_transaction_statement(const TransactionStmt *statement);
static void read_statement(JqCommand *command, Node *statement);

bool
jq_mode_from_name(const char *name, JqMode *mode)
{
	for (int i = 0; i < (int) lengthof(mode_names); i++)
		if (strcmp(name, mode_names[i]) == 0)
		{
			*mode = (JqMode) i;
			return true;
		}
	return false;
}

const char *
jq_mode_name(JqMode mode)
{
	return mode_names[mode];
}

JqCommand *
jq_command_if_known(const char *source)
{
	uint64		hash = DatumGetUInt64(hash_any_extended((const unsigned char *) source,
														strlen(source), 0));
	JqCommand  *command;

	if (commands == NULL)
		return NULL;
	command = hash_search(commands, &hash, HASH_FIND, NULL);
	return command != NULL && strcmp(command->text, source) == 0 ?
		command : NULL;
}

JqCommand *
jq_command(const char *source)
{
	JqCommand  *known = jq_command_if_known(source);
	JqCommand	made = {0};
	JqCommand  *command;

	if (known != NULL)
		return known;
	made.hash = DatumGetUInt64(hash_any_extended((const unsigned char *) source,
												 strlen(source), 0));
	made.text = unconstify(char *, source);
	read_statements(&made);

	prepare_cache();
	made.text = MemoryContextStrdup(command_context, source);
	command = hash_search(commands, &made.hash, HASH_ENTER, NULL);
	*command = made;
	return command;
}

static void
prepare_cache(void)
{
	HASHCTL		info;

	if (commands != NULL)
		return;
	if (command_context == NULL)
		command_context = AllocSetContextCreate(TopMemoryContext,
												"jobqueue commands",
												ALLOCSET_DEFAULT_SIZES);
	info.keysize = sizeof(uint64);
	info.entrysize = sizeof(JqCommand);
	info.hcxt = command_context;
	commands = hash_create("jobqueue commands", 64, &info,
						   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void
jq_command_forget_surplus(void)
{
	HASH_SEQ_STATUS scan;
	JqCommand  *command;

	if (commands == NULL || hash_get_num_entries(commands) <= MAX_COMMANDS)
		return;
	hash_seq_init(&scan, commands);
	while ((command = hash_seq_search(&scan)) != NULL)
		if (command->plan != NULL)
			SPI_freeplan(command->plan);
	commands = NULL;
	MemoryContextReset(command_context);
}

/* Learns what the text says by itself. */
static void
read_statements(JqCommand *command)
{
	List	   *statements = jq_command_parse(command);
	ListCell   *cell;

	if (statements == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("command of an SQL job contains no statement")));
	jq_command_check(statements);
	foreach(cell, statements)
		read_statement(command, lfirst_node(RawStmt, cell)->stmt);
	command->tag = CreateCommandTag((Node *) llast(statements));
	command->is_single = list_length(statements) == 1 &&
		!command->calls && !command->has_utility;
}

static bool
is_plannable(const Node *statement)
{
	return IsA(statement, SelectStmt) || IsA(statement, InsertStmt) ||
		IsA(statement, UpdateStmt) || IsA(statement, DeleteStmt) ||
		IsA(statement, MergeStmt);
}

static void
read_statement(JqCommand *command, Node *statement)
{
	if (IsA(statement, CallStmt) || IsA(statement, DoStmt))
		command->calls = true;
	else if (!is_plannable(statement))
		command->has_utility = true;
	if (IsA(statement, TransactionStmt))
		command->mode = JQ_MODE_AUTONOMOUS;
	else if (IsA(statement, VariableSetStmt) &&
			 ((VariableSetStmt *) statement)->kind == VAR_SET_MULTI)
		command->sets_transaction = true;
	/* What it sets or locks is for the transaction: keep others out of it. */
	if (command->mode == JQ_MODE_BATCHED &&
		(command->sets_transaction || IsA(statement, ConstraintsSetStmt) ||
		 IsA(statement, LockStmt)))
		command->mode = JQ_MODE_ALONE;
}

void
jq_command_check(const List *statements)
{
	bool		has_begun = false;
	ListCell   *cell;

	foreach(cell, statements)
	{
		const Node *statement = lfirst_node(RawStmt, cell)->stmt;

		if (IsA(statement, CopyStmt) &&
			((const CopyStmt *) statement)->filename == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("COPY FROM STDIN and COPY TO STDOUT cannot be jobs"),
					 errhint("A job has no client. Use a file, INSERT or SELECT.")));
		if (IsA(statement, TransactionStmt))
		{
			check_transaction_statement((const TransactionStmt *) statement);
			has_begun = true;
		}
		else if (sets_own_transaction(statement) && !has_begun)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a job cannot set the transaction that it is given"),
					 errhint("Use BEGIN ISOLATION LEVEL ...; ...; COMMIT, or ALTER ROLE ... SET default_transaction_isolation.")));
	}
}

static bool
sets_own_transaction(const Node *statement)
{
	const VariableSetStmt *set = (const VariableSetStmt *) statement;

	return IsA(statement, VariableSetStmt) && set->kind == VAR_SET_MULTI &&
		strncmp(set->name, "TRANSACTION", strlen("TRANSACTION")) == 0;
}

static void
check_transaction_statement(const TransactionStmt *statement)
{
	switch (statement->kind)
	{
		case TRANS_STMT_PREPARE:
		case TRANS_STMT_COMMIT_PREPARED:
		case TRANS_STMT_ROLLBACK_PREPARED:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("two-phase commit is not possible in a job"),
					 errhint("Use BEGIN and COMMIT.")));
			break;
		default:
			break;
	}
}

List *
jq_command_parse(const JqCommand *command)
{
	return raw_parser(command->text, RAW_PARSE_DEFAULT);
}

void
jq_command_setup_params(ParseState *pstate, void *arg)
{
	setup_parse_fixed_parameters(pstate, jq_command_param_types,
								 JQ_COMMAND_NPARAMS);
}

ParamListInfo
jq_command_params(Datum payload, int64 job_id)
{
	ParamListInfo params = makeParamList(JQ_COMMAND_NPARAMS);

	params->params[0].value = payload;
	params->params[1].value = Int64GetDatum(job_id);
	for (int i = 0; i < JQ_COMMAND_NPARAMS; i++)
	{
		params->params[i].isnull = false;
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = jq_command_param_types[i];
	}
	params->parserSetup = jq_command_setup_params;
	return params;
}
