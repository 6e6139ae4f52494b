/*-------------------------------------------------------------------------
 *
 * body.c
 *	  Runs the body of an SQL job.
 *
 * In a transaction the command runs through SPI, with a plan that is kept if
 * it is a single statement.  An autonomous command is taken apart here and
 * its statements run through portals, each in a transaction of its own, as
 * the server does for a client that sends them one by one: so BEGIN, COMMIT,
 * VACUUM and CALL work as they do there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "body/body.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/db.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/analyze.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#define MAX_RESULT_SIZE (64 * 1024)
#define QUICK_MS 10				/* fit for a batch again, when it lasts */
#define QUICK_RUNS 8

/* Keeps the first row of the last result. */
typedef struct FirstRowReceiver
{
	DestReceiver pub;
	MemoryContext context;
	TupleDesc	row_type;
	HeapTuple	row;			/* NULL: none yet */
} FirstRowReceiver;

static void begin_receiving(FirstRowReceiver *receiver, MemoryContext parent);
static void execute_command(JqCommand *command, const JqBody *body,
							DestReceiver *receiver);
static void execute_plan(JqCommand *command, SPIExecuteOptions *options);
static void report_spi_error(int code);
static char *describe_command(CommandTag tag, uint64 rows);
static void run_statement(const JqCommand *command, RawStmt *statement,
						  ParamListInfo params, DestReceiver *receiver,
						  QueryCompletion *completion);
static void keep_result(FirstRowReceiver *receiver, JqBodyEnd *end);
static Datum row_as_jsonb(Datum row);

void
jq_body_run(const JqBody *body, JqBodyEnd *end)
{
	MemoryContext context = CurrentMemoryContext;
	FirstRowReceiver receiver = {0};
	JqCommand  *command;

	if (body->command == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("job has no command that may run as role \"%s\"",
						GetUserNameFromId(GetUserId(), false))));
	command = jq_command(body->command);
	if (command->mode == JQ_MODE_AUTONOMOUS)
		report_spi_error(SPI_ERROR_TRANSACTION);
	begin_receiving(&receiver, CurTransactionContext);
	execute_command(command, body, &receiver.pub);
	MemoryContextSwitchTo(context); /* SPI leaves its own */
	end->command_tag = describe_command(command->tag, SPI_processed);
	keep_result(&receiver, end);
}

static void
start_first_row(DestReceiver *self, int operation, TupleDesc row_type)
{
	FirstRowReceiver *receiver = (FirstRowReceiver *) self;
	MemoryContext old = MemoryContextSwitchTo(receiver->context);

	receiver->row_type = CreateTupleDescCopy(row_type);
	receiver->row = NULL;
	MemoryContextSwitchTo(old);
}

static bool
receive_first_row(TupleTableSlot *slot, DestReceiver *self)
{
	FirstRowReceiver *receiver = (FirstRowReceiver *) self;

	if (receiver->row == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(receiver->context);

		receiver->row = ExecCopySlotHeapTuple(slot);
		MemoryContextSwitchTo(old);
	}
	return true;
}

static void
end_first_row(DestReceiver *self)
{
}

/* The row may be large: keep_result() frees it, or the end of the parent. */
static void
begin_receiving(FirstRowReceiver *receiver, MemoryContext parent)
{
	receiver->pub.receiveSlot = receive_first_row;
	receiver->pub.rStartup = start_first_row;
	receiver->pub.rShutdown = end_first_row;
	receiver->pub.rDestroy = end_first_row;
	receiver->pub.mydest = DestNone;
	receiver->context = AllocSetContextCreate(parent, "jobqueue result",
											  ALLOCSET_DEFAULT_SIZES);
}

/* Runs the command with the payload as $1 and the job id as $2. */
static void
execute_command(JqCommand *command, const JqBody *body, DestReceiver *receiver)
{
	SPIExecuteOptions options = {0};
	int			code;

	options.params = jq_command_params(body->payload, body->job.job_id);
	options.dest = receiver;
	if (command->is_single)
	{
		execute_plan(command, &options);
		return;
	}
	code = SPI_execute_extended(command->text, &options);
	if (code < 0)
		report_spi_error(code);
}

static void
execute_plan(JqCommand *command, SPIExecuteOptions *options)
{
	int			code;

	if (command->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare_params(command->text,
											  jq_command_setup_params, NULL, 0);

		if (plan == NULL)
			report_spi_error(SPI_result);
		if (SPI_keepplan(plan) != 0)
			elog(ERROR, "could not keep the plan of a command");
		command->plan = plan;
	}
	code = SPI_execute_plan_extended(command->plan, options);
	if (code < 0)
		report_spi_error(code);
}

static void
report_spi_error(int code)
{
	if (code == SPI_ERROR_TRANSACTION)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("cannot begin or end transactions here"),
				 errhint("Run the job in mode autonomous.")));
	elog(ERROR, "could not execute command: %s", SPI_result_code_string(code));
}

/* As psql prints it, in the caller's context. */
static char *
describe_command(CommandTag tag, uint64 rows)
{
	if (tag == CMDTAG_INSERT)
		return psprintf("INSERT 0 " UINT64_FORMAT, rows);
	if (command_tag_display_rowcount(tag))
		return psprintf("%s " UINT64_FORMAT, GetCommandTagName(tag), rows);
	return pstrdup(GetCommandTagName(tag));
}

bool
jq_body_wants_autonomy(const JqBody *body, const ErrorData *fault)
{
	JqCommand  *command;

	if (body->command == NULL)
		return false;
	command = jq_command_if_known(body->command);
	if (command == NULL || command->sets_transaction)
		return false;
	return (fault->sqlerrcode == ERRCODE_INVALID_TRANSACTION_TERMINATION &&
			(command->calls || command->mode == JQ_MODE_AUTONOMOUS)) ||
		(fault->sqlerrcode == ERRCODE_ACTIVE_SQL_TRANSACTION &&
		 command->has_utility);
}

JqMode
jq_body_mode(const JqBody *body)
{
	JqCommand  *command = body->command == NULL ? NULL :
	jq_command_if_known(body->command);

	return command == NULL ? body->mode : Max(body->mode, command->mode);
}

JqMode
jq_body_read_mode(const JqBody *body)
{
	if (body->command != NULL)
		(void) jq_command(body->command);
	return jq_body_mode(body);
}

void
jq_body_learn_mode(const JqBody *body, JqMode mode)
{
	JqCommand  *command = jq_command_if_known(body->command);

	if (command == NULL)
		return;
	command->mode = Max(command->mode, mode);
	command->quick_runs = 0;
}

void
jq_body_learn_duration(const JqBody *body, long duration_ms)
{
	JqCommand  *command = body->command == NULL ? NULL :
	jq_command_if_known(body->command);

	if (command == NULL || command->mode != JQ_MODE_ALONE)
		return;
	command->quick_runs = duration_ms <= QUICK_MS ? command->quick_runs + 1 : 0;
	if (command->quick_runs >= QUICK_RUNS)
		command->mode = JQ_MODE_BATCHED;
}

void
jq_body_run_autonomous(const JqBody *body, JqBodyEnd *end)
{
	FirstRowReceiver receiver = {0};
	ParamListInfo params = jq_command_params(body->payload, body->job.job_id);
	QueryCompletion completion;
	JqCommand  *command;
	List	   *statements;
	ListCell   *cell;

	if (body->command == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("job has no command that may run as role \"%s\"",
						GetUserNameFromId(GetUserId(), false))));
	jq_db_begin_statement();
	command = jq_command(body->command);
	jq_db_end_statement();
	InitializeQueryCompletion(&completion);
	begin_receiving(&receiver, CurrentMemoryContext);
	statements = jq_command_parse(command);
	foreach(cell, statements)
	{
		jq_db_begin_statement();
		run_statement(command, lfirst_node(RawStmt, cell), params,
					  &receiver.pub, &completion);
		jq_db_end_statement();
		CHECK_FOR_INTERRUPTS();
	}
	if (IsTransactionBlock())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("command left a transaction open"),
				 errhint("End it with COMMIT.")));
	end->command_tag = describe_command(completion.commandTag,
										completion.nprocessed);

	/* The conversion to jsonb may look into catalogs. */
	jq_db_begin_statement();
	keep_result(&receiver, end);
	jq_db_end_statement();
}

/*
 * One statement of an autonomous command, in the transaction that
 * jq_db_begin_statement() has begun or continues.  Like the server's
 * exec_simple_query().
 */
static void
run_statement(const JqCommand *command, RawStmt *statement,
			  ParamListInfo params, DestReceiver *receiver,
			  QueryCompletion *completion)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "jobqueue statement",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	bool		needs_snapshot = analyze_requires_snapshot(statement);
	List	   *queries;
	List	   *plans;
	Portal		portal;

	if (IsAbortedTransactionBlockState() &&
		!IsA(statement->stmt, TransactionStmt))
		ereport(ERROR,
				(errcode(ERRCODE_IN_FAILED_SQL_TRANSACTION),
				 errmsg("current transaction is aborted, commands ignored until end of transaction block")));
	if (needs_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	queries = pg_analyze_and_rewrite_withcb(statement, command->text,
											jq_command_setup_params, NULL, NULL);
	plans = pg_plan_queries(queries, command->text, CURSOR_OPT_PARALLEL_OK,
							params);
	if (needs_snapshot)
		PopActiveSnapshot();

	portal = CreatePortal("", true, true);
	portal->visible = false;
	PortalDefineQuery(portal, NULL, command->text,
					  CreateCommandTag(statement->stmt), plans, NULL);
	PortalStart(portal, params, 0, InvalidSnapshot);
	PortalSetResultFormat(portal, 0, NULL);
	(void) jq_compat_portal_run(portal, receiver, completion);
	PortalDrop(portal, false);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/*
 * In the caller's context.  Nothing: no row, nothing but void in it, or too
 * large to be kept.
 */
static void
keep_result(FirstRowReceiver *receiver, JqBodyEnd *end)
{
	if (receiver->row != NULL &&
		(receiver->row_type->natts != 1 ||
		 TupleDescAttr(receiver->row_type, 0)->atttypid != VOIDOID))
	{
		MemoryContext old = MemoryContextSwitchTo(receiver->context);
		Datum		row = heap_copy_tuple_as_datum(receiver->row,
												   BlessTupleDesc(receiver->row_type));
		Datum		result = row_as_jsonb(row);

		MemoryContextSwitchTo(old);
		end->has_result =
			VARSIZE_ANY(DatumGetPointer(result)) <= MAX_RESULT_SIZE;
		if (end->has_result)
			end->result = PointerGetDatum(PG_DETOAST_DATUM_COPY(result));
	}
	MemoryContextDelete(receiver->context);
}

/* to_jsonb() takes the type of its argument from the call's expression. */
static Datum
row_as_jsonb(Datum row)
{
	static FmgrInfo function;

	if (function.fn_oid == InvalidOid)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		Const	   *argument = makeNullConst(RECORDOID, -1, InvalidOid);

		fmgr_info_cxt(F_TO_JSONB, &function, TopMemoryContext);
		fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID,
												 list_make1(argument),
												 InvalidOid, InvalidOid,
												 COERCE_EXPLICIT_CALL),
						   &function);
		MemoryContextSwitchTo(old);
	}
	return FunctionCall1(&function, row);
}
