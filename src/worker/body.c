/*-------------------------------------------------------------------------
 *
 * body.c
 *	  The part of a job that belongs to its role: the command, and what it
 *	  leaves in the session.
 *
 *	  A periodic timeout looks at the body while it runs.  It interrupts it
 *	  when somebody asked to cancel the job, and when the time that a shutdown
 *	  grants is over; outside the body it does nothing, so that our own work
 *	  is never cut off.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/body.h"

#include "access/htup_details.h"
#include "base/config.h"
#include "base/db.h"
#include "base/shared_state.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "parser/parse_param.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/portal.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#define WATCH_MS 100			/* how often a running body is looked at */
#define MAX_RESULT_SIZE (64 * 1024)
#define NPARAMS 2				/* $1 payload, $2 job id */

/* Keeps the first row of the last result. */
typedef struct FirstRowReceiver
{
	DestReceiver pub;
	MemoryContext context;
	TupleDesc	row_type;
	HeapTuple	row;			/* NULL: none yet */
} FirstRowReceiver;

static const Oid param_types[NPARAMS] = {JSONBOID, INT8OID};

static TimeoutId watch_timeout;
static volatile sig_atomic_t body_is_running = false;
static volatile sig_atomic_t drain_is_over = false;
static volatile TimestampTz shutdown_at = 0;

static void watch_body(void);
static void start_watching(int timeout_ms);
static void execute_command(const JqBody *body, DestReceiver *receiver);
static bool first_row_as_jsonb(FirstRowReceiver *receiver, Datum *result);

void
jq_body_init(void)
{
	watch_timeout = RegisterTimeout(USER_TIMEOUT, watch_body);
}

/* As SignalHandlerForShutdownRequest, and remembers when it was. */
void
jq_body_request_shutdown(SIGNAL_ARGS)
{
	int			save_errno = errno;

	if (!ShutdownRequestPending)
		shutdown_at = GetCurrentTimestamp();
	ShutdownRequestPending = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

/* Timeout handler. */
static void
watch_body(void)
{
	if (!body_is_running)
		return;
	if (ShutdownRequestPending &&
		GetCurrentTimestamp() >=
		TimestampTzPlusMilliseconds(shutdown_at, jq_config_shutdown_timeout))
		drain_is_over = true;
	if (drain_is_over || jq_shared_job_is_cancelled())
	{
		InterruptPending = true;
		QueryCancelPending = true;
		SetLatch(MyLatch);
	}
}

bool
jq_body_was_cut_off(void)
{
	return drain_is_over;
}

bool
jq_body_run(const JqBody *body, Datum *result)
{
	FirstRowReceiver receiver = {0};
	bool		has_result;

	start_watching(body->timeout_ms);
	receiver.pub.mydest = DestNone;
	receiver.context = CurrentMemoryContext;
	execute_command(body, &receiver.pub);
	if (SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0) < 0)
		elog(ERROR, "could not fire deferred triggers");
	has_result = first_row_as_jsonb(&receiver, result);
	jq_body_stop_watching();
	return has_result;
}

/* Arms the timeouts of a body. */
static void
start_watching(int timeout_ms)
{
	TimestampTz first = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													WATCH_MS);

	QueryCancelPending = false;
	drain_is_over = false;
	body_is_running = true;
	enable_timeout_every(watch_timeout, first, WATCH_MS);
	if (timeout_ms > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, timeout_ms);
}

/* A cancellation that comes too late is forgotten. */
void
jq_body_stop_watching(void)
{
	body_is_running = false;
	disable_timeout(watch_timeout, false);
	disable_timeout(STATEMENT_TIMEOUT, false);
	QueryCancelPending = false;
}

/* Tells the parser the types of $1 and $2. */
static void
setup_parameters(ParseState *pstate, void *arg)
{
	setup_parse_fixed_parameters(pstate, param_types, NPARAMS);
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

/* Runs the command with the payload as $1 and the job id as $2. */
static void
execute_command(const JqBody *body, DestReceiver *receiver)
{
	SPIExecuteOptions options = {0};
	ParamListInfo params = makeParamList(NPARAMS);
	Datum		values[NPARAMS];
	int			code;

	receiver->rStartup = start_first_row;
	receiver->receiveSlot = receive_first_row;
	receiver->rShutdown = end_first_row;
	receiver->rDestroy = end_first_row;

	values[0] = body->payload;
	values[1] = Int64GetDatum(body->job_id);
	for (int i = 0; i < NPARAMS; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = false;
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = param_types[i];
	}
	params->parserSetup = setup_parameters;
	options.params = params;
	options.dest = receiver;

	if (body->command == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("job has no command that may run as role \"%s\"",
						GetUserNameFromId(GetSessionUserId(), false))));
	code = SPI_execute_extended(body->command, &options);
	if (code == SPI_ERROR_TRANSACTION)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot begin or end transactions in an SQL job")));
	if (code == SPI_ERROR_COPY)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot copy from or to the client in an SQL job")));
	if (code < 0)
		elog(ERROR, "could not execute command: %s",
			 SPI_result_code_string(code));
}

/* False: no row, nothing but void in it, or too large to be kept. */
static bool
first_row_as_jsonb(FirstRowReceiver *receiver, Datum *result)
{
	TupleDesc	row_type;
	Datum		row;
	Datum		json;

	if (receiver->row == NULL)
		return false;
	if (receiver->row_type->natts == 1 &&
		TupleDescAttr(receiver->row_type, 0)->atttypid == VOIDOID)
		return false;
	row_type = BlessTupleDesc(receiver->row_type);
	row = heap_copy_tuple_as_datum(receiver->row, row_type);
	json = DirectFunctionCall1(row_to_json, row);
	*result = DirectFunctionCall1(jsonb_in,
								  CStringGetDatum(TextDatumGetCString(json)));
	return VARSIZE_ANY(DatumGetPointer(*result)) <= MAX_RESULT_SIZE;
}

/*
 * Leaves nothing of a job's session to the next one: what DISCARD ALL does,
 * but for the plan cache, which holds nothing of the job's.
 */
void
jq_body_reset_session(void *arg)
{
	jq_catalog_begin();
	PortalHashTableDeleteAll();
	SetPGVariable("session_authorization", NIL, false);
	SetConfigOption("role", "none", PGC_USERSET, PGC_S_SESSION);
	ResetAllOptions();
	DropAllPreparedStatements();
	Async_UnlistenAll();
	LockReleaseAll(USER_LOCKMETHOD, true);
	ResetTempTableNamespace();
	ResetSequenceCaches();
	jq_catalog_commit();
}
