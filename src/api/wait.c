/*-------------------------------------------------------------------------
 *
 * wait.c
 *	  wait_for_jobs(): sleeping until there is something to claim.
 *
 * A procedure, so that it can end its transaction: while it sleeps it holds
 * no snapshot, no lock and no transaction id, and a pooler that hands out
 * connections by transaction sees one statement.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "api/arguments.h"
#include "base/compat.h"
#include "base/config.h"
#include "base/interval.h"
#include "queue/backoff.h"
#include "queue/claim.h"
#include "queue/lanes.h"
#include "queue/waiters.h"

PG_FUNCTION_INFO_V1(jobqueue_wait_for_jobs);

#define MAX_TIMEOUT_US USECS_PER_DAY

/* However well it is woken, it looks again after this. */
#define MAX_NAP_US (5 * USECS_PER_SEC)

static void check_can_end_transaction(FunctionCallInfo fcinfo);
static bool wait_until(const JqClaim *claim, TimestampTz deadline);
static void nap(TimestampTz until);
static Datum one_boolean(FunctionCallInfo fcinfo, bool value);

Datum
jobqueue_wait_for_jobs(PG_FUNCTION_ARGS)
{
	JqClaim		claim = {.max_jobs = 1};
	int64		timeout_us;
	bool		is_ready;

	check_can_end_transaction(fcinfo);
	claim.job_types = jq_argument_job_types(fcinfo, 0);
	jq_argument_required(fcinfo, 1, "timeout");
	timeout_us = jq_interval_us(PG_GETARG_INTERVAL_P(1), "timeout",
								0, MAX_TIMEOUT_US);
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	is_ready = wait_until(&claim, GetCurrentTimestamp() + timeout_us);
	SPI_finish();
	return one_boolean(fcinfo, is_ready);
}

static void
check_can_end_transaction(FunctionCallInfo fcinfo)
{
	CallContext *context = (CallContext *) fcinfo->context;

	if (context == NULL || !IsA(context, CallContext) || context->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("wait_for_jobs() cannot run inside a transaction block"),
				 errhint("CALL it as a statement of its own.")));
}

/*
 * Enters the list of waiters before it looks, so that no job can come between
 * the look and the sleep.
 */
static bool
wait_until(const JqClaim *claim, TimestampTz deadline)
{
	for (;;)
	{
		TimestampTz now;
		TimestampTz due_at;

		jq_claim_tend_if_alone();
		jq_waiters_enter(claim->job_types, deadline);
		due_at = jq_claim_next_due(claim);
		SPI_commit();
		now = GetCurrentTimestamp();
		if (due_at <= now || now >= deadline)
		{
			jq_waiters_leave();
			return due_at <= now;
		}
		nap(Min(Min(deadline, due_at),
				now + (jq_lanes_exist() ? MAX_NAP_US :
					   (int64) jq_config_poll_interval * 1000)));
	}
}

static void
nap(TimestampTz until)
{
	static uint32 wait_event = 0;
	long		timeout_ms;

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("JobqueueWaitForJobs");
	timeout_ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout_ms, wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* The row that the INOUT argument makes. */
static Datum
one_boolean(FunctionCallInfo fcinfo, bool value)
{
	Datum		values[1] = {BoolGetDatum(value)};
	bool		nulls[1] = {false};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "wait_for_jobs() must return a row");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
