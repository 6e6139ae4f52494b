/*-------------------------------------------------------------------------
 *
 * run.c
 *	  SQL functions that run jobs in the caller's session.
 *
 * Claim, body and resolution are part of the caller's transaction; nobody else
 * ever sees the job running.  The caller must be the role that the job runs
 * as: nothing switches roles here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"

#include "api/arguments.h"
#include "base/catalog.h"
#include "base/protect.h"
#include "base/scope.h"
#include "base/shared_state.h"
#include "base/statement.h"
#include "queue/claim.h"
#include "queue/job_body.h"
#include "queue/job_types.h"
#include "queue/resolve.h"

PG_FUNCTION_INFO_V1(jobqueue_run_job);
PG_FUNCTION_INFO_V1(jobqueue_drain_jobs);

/* A job that is run here. */
typedef struct OwnRun
{
	JqHeld		held;
	JqBody		body;
	JqBodyEnd	end;
} OwnRun;

/* The next jobs that run as a role. */
static JqStatement next_jobs = {
	.text = "SELECT q.id FROM @.jobs_queue_live q"
	" LEFT JOIN @.job_types t ON t.job_type = q.job_type"
	" WHERE q.status = 'queued' AND ($2 OR q.scheduled_at <= pg_catalog.clock_timestamp())"
	" AND ($3 IS NULL OR q.job_type = ANY ($3))"
	" AND CASE WHEN t.command IS NOT NULL THEN t.runner = 'sql' AND t.owner = $1::pg_catalog.regrole"
	" ELSE q.job_type = '" JQ_SQL_JOB_TYPE "' AND q.owner = $1::pg_catalog.regrole END"
	" ORDER BY q.priority, q.scheduled_at, q.id LIMIT 100",
	.nargs = 3,
	.argtypes = {OIDOID, BOOLOID, TEXTARRAYOID}
};

static JqStatement select_job_type = {
	.text = "SELECT job_type FROM @.jobs_queue_live WHERE id = $1",
	.nargs = 1,
	.argtypes = {INT8OID}
};

static void refuse_http(int64 job_id);
static bool claim_own(int64 job_id, OwnRun *run, bool must_be_there);
static bool run_own(OwnRun *run);
pg_noreturn static void refuse_autonomous(const OwnRun *run);
static void perform_own(void *arg);
static int64 *list_next(FunctionCallInfo fcinfo, int *count);

Datum
jobqueue_run_job(PG_FUNCTION_ARGS)
{
	int64		job_id = jq_argument_job_id(fcinfo, 0);
	OwnRun		run = {0};

	refuse_http(job_id);
	(void) claim_own(job_id, &run, true);
	PG_RETURN_BOOL(run_own(&run));
}

/* A request cannot be taken back with the transaction, nor wait inside of it. */
static void
refuse_http(int64 job_id)
{
	Datum		values[1] = {Int64GetDatum(job_id)};
	bool		is_http;

	jq_scope_enter_read_only();
	is_http = jq_statement_query(&select_job_type, values, NULL, 1) > 0 &&
		jq_job_type(TextDatumGetCString(jq_statement_value(0, 1)))->runner ==
		JQ_RUNNER_HTTP;
	jq_scope_leave();
	if (is_http)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("job " INT64_FORMAT " is an HTTP job and cannot be run in a session",
						job_id),
				 errhint("The dispatcher of the server sends it once the transaction that enqueued it has committed.")));
}

Datum
jobqueue_drain_jobs(PG_FUNCTION_ARGS)
{
	int64		max_jobs = PG_ARGISNULL(1) ? PG_INT64_MAX : PG_GETARG_INT32(1);
	int64		counts[2] = {0};	/* failed, completed */
	Datum		values[2];
	bool		nulls[2] = {false};
	TupleDesc	row_type;
	int			count;

	if (get_call_result_type(fcinfo, NULL, &row_type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (max_jobs < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_jobs must be at least 1")));
	do
	{
		int64	   *ids = list_next(fcinfo, &count);
		int64		before = counts[0] + counts[1];

		for (int i = 0; i < count && counts[0] + counts[1] < max_jobs; i++)
		{
			OwnRun		run = {0};

			CHECK_FOR_INTERRUPTS();
			if (claim_own(ids[i], &run, false))
				counts[run_own(&run)]++;
		}
		pfree(ids);
		if (counts[0] + counts[1] == before)
			break;				/* nothing of it can be claimed */
	} while (counts[0] + counts[1] < max_jobs);
	values[0] = Int64GetDatum(counts[1]);
	values[1] = Int64GetDatum(counts[0]);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row_type),
													  values, nulls)));
}

/*
 * Claims a job for this session.  Unless it must be there, false says that
 * somebody was faster.
 */
static bool
claim_own(int64 job_id, OwnRun *run, bool must_be_there)
{
	JqClaim		claim = {.max_jobs = 1};
	MemoryContext context = CurrentMemoryContext;
	Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);
	JqStatus	status = JQ_STATUS_QUEUED;
	bool		is_live;
	Relation	rel;
	TupleDesc	row_type;
	TupleTableSlot *slot;
	bool		is_claimed;

	if (!pg_strong_random(&claim.worker, sizeof(claim.worker)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random worker id")));
	claim.role = GetUserId();
	claim.holder = jq_shared_incarnation();
	rel = table_open(jq_catalog()->jobs_queue, AccessShareLock);
	row_type = CreateTupleDescCopy(RelationGetDescr(rel));
	table_close(rel, NoLock);
	is_claimed = jq_claim_job(&claim, job_id, rows, row_type, &is_live,
							  &status);
	if (!is_live && must_be_there)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("no job " INT64_FORMAT " is waiting", job_id),
				 errhint("It does not exist, or it has ended: see requeue_job().")));
	if (!is_claimed && must_be_there)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job " INT64_FORMAT " cannot be run while it is %s",
						job_id, jq_job_status_name(status))));
	if (is_claimed)
	{
		slot = MakeSingleTupleTableSlot(row_type, &TTSOpsMinimalTuple);
		(void) tuplestore_gettupleslot(rows, true, false, slot);
		jq_scope_enter_read_only();
		jq_job_body_read(slot, &claim.worker, claim.role, context, &run->held,
						 &run->body);
		jq_scope_leave();
		ExecDropSingleTupleTableSlot(slot);
	}
	tuplestore_end(rows);
	return is_claimed;
}

/* Runs a claimed job and records its end; whether it has completed. */
static bool
run_own(OwnRun *run)
{
	JqOutcome	outcome = {.kind = JQ_OUTCOME_COMPLETED};
	const JqCurrentJob *outer_job;
	JqJournal  *outer_journal;
	ErrorData  *fault;

	if (run->body.command == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("job " INT64_FORMAT " has no command that may run as role \"%s\"",
						run->held.job_id, GetUserNameFromId(GetUserId(), false)),
				 errhint("Call this function as the role that the job runs as; jobs of outside workers have no command.")));
	if (jq_body_mode(&run->body) == JQ_MODE_AUTONOMOUS)
		refuse_autonomous(run);
	if (jq_current_job() == NULL)
		jq_command_forget_surplus();
	outer_job = jq_current_set(&run->body.job);
	outer_journal = jq_journal_begin(&run->end.journal, CurrentMemoryContext);
	fault = jq_attempt(perform_own, run);
	jq_journal_end(outer_journal);
	jq_current_set(outer_job);
	if (fault != NULL && jq_body_wants_autonomy(&run->body, fault))
		refuse_autonomous(run);
	if (fault != NULL)
	{
		int			category = ERRCODE_TO_CATEGORY(fault->sqlerrcode);

		/* Meant for the caller, not for the job. */
		if (category == ERRCODE_OPERATOR_INTERVENTION ||
			category == ERRCODE_TRANSACTION_ROLLBACK)
			ReThrowError(fault);
		outcome.kind = JQ_OUTCOME_FAILED;
		outcome.error = jq_job_error_text(fault);
		outcome.sqlstate = fault->sqlerrcode;
	}
	else
		jq_job_body_outcome(&run->end, &outcome);
	outcome.journal = &run->end.journal;
	if (!jq_resolve(&run->held, &outcome))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job " INT64_FORMAT " is not held any more",
						run->held.job_id)));
	return fault == NULL;
}

static void
refuse_autonomous(const OwnRun *run)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("job " INT64_FORMAT " manages transactions and cannot run inside one",
					run->held.job_id),
			 errhint("Leave it to the workers of the server.")));
}

/*
 * In a subtransaction: settings that the body changes end with it.  Whoever
 * became the role by SET ROLE or SET SESSION AUTHORIZATION may have more
 * rights, and RESET must not give them to the body.
 */
static void
perform_own(void *arg)
{
	OwnRun	   *run = (OwnRun *) arg;
	MemoryContext context = CurrentMemoryContext;
	int			level = NewGUCNestLevel();
	Oid			role;
	int			security;

	GetUserIdAndSecContext(&role, &security);
	if (role != MyProc->roleId || role != GetSessionUserId())
		SetUserIdAndSecContext(role, security | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	MemoryContextSwitchTo(context);
	jq_body_run(&run->body, &run->end);
	SPI_finish();
	MemoryContextSwitchTo(context);
	AtEOXact_GUC(false, level);
	SetUserIdAndSecContext(role, security);
}

/* In the caller's context. */
static int64 *
list_next(FunctionCallInfo fcinfo, int *count)
{
	Oid			role = GetUserId();
	Datum		values[3];
	char		nulls[] = "   ";
	int64	   *ids;

	values[0] = ObjectIdGetDatum(role);
	values[1] = BoolGetDatum(!PG_ARGISNULL(2) && PG_GETARG_BOOL(2));
	values[2] = jq_argument_datum(fcinfo, 0);
	if (PG_ARGISNULL(0))
		nulls[2] = 'n';
	jq_scope_enter_read_only();
	*count = (int) jq_statement_query(&next_jobs, values, nulls, 0);
	ids = MemoryContextAlloc(jq_scope_result_context(),
							 sizeof(int64) * Max(*count, 1));
	for (int i = 0; i < *count; i++)
		ids[i] = DatumGetInt64(jq_statement_value(i, 1));
	jq_scope_leave();
	return ids;
}
