/*-------------------------------------------------------------------------
 *
 * executor.c
 *	  Runs the SQL jobs of one role in one database.
 *
 *	  The process is connected as the role, so that no trick of a job leads
 *	  anywhere else.  It claims a few jobs in one transaction, always flushed,
 *	  so that a crash finds their attempts charged.  Then each job has its own
 *	  transaction, in which the body's effects and the completion commit
 *	  together.  An error rolls both back, and another transaction records it.
 *
 *	  A job that could not be recorded is left to the scheduler, which takes
 *	  back what a dead executor held: then this process ends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/worker.h"

#include "access/table.h"
#include "access/xact.h"
#include "base/catalog.h"
#include "base/compat.h"
#include "base/config.h"
#include "base/db.h"
#include "base/scope.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "queue/claim.h"
#include "queue/job.h"
#include "queue/job_types.h"
#include "queue/resolve.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "worker/body.h"

#define WAIT_EVENT "JobqueueExecutorMain"
#define SHORT_JOB_MS 10			/* claim more when jobs are this short */

/* What the body of a claimed job needs, copied out of the claim. */
typedef struct ClaimedJob
{
	JqHeld		held;
	char	   *job_type;
	JqBody		body;
	int			attempt;
	int			max_attempts;
	bool		is_suspect;		/* was running when the server crashed */
	ErrorData  *error;			/* of the body */
} ClaimedJob;

/* The jobs of one claim. */
typedef struct Batch
{
	ClaimedJob *jobs;
	int			njobs;
	int			next;			/* the first that has not begun */
} Batch;

static pg_uuid_t worker_id;
static bool must_exit = false;	/* something is left to the scheduler */
static int	max_claim = 1;		/* jobs to claim next */
static int	session_timeout_ms = 0; /* transaction_timeout of the role */

static void prepare_session(void);
static bool must_stop(void);
static bool should_stop(void);
static void claim_batch(void *arg);
static List *list_job_types(void);
static void read_rows(Batch *batch, Tuplestorestate *rows, TupleDesc row_type,
					  MemoryContext context);
static void read_job(ClaimedJob *job, TupleTableSlot *slot,
					 MemoryContext context);
static char *payload_command(Datum payload, Datum *inner);
static int	least_timeout_ms(TupleTableSlot *slot, int64 type_timeout_us);
static void run_batch(Batch *batch);
static void run_job(ClaimedJob *job);
static bool attempt_job(ClaimedJob *job);
static void perform_job(ClaimedJob *job);
static void record_failure(void *arg);
static char *error_text(const ErrorData *error);
static void release_rest(void *arg);

void
jq_executor_main(Datum arg)
{
	TimestampTz idle_since;
	Batch		batch;

	jq_worker_begin(JQ_WORKER_EXECUTOR, jq_body_request_shutdown);
	jq_worker_connect(jq_worker_role(), BGWORKER_BYPASS_ROLELOGINCHECK);
	prepare_session();

	/* Started for a reason: room for others is made after the first job. */
	idle_since = GetCurrentTimestamp();
	do
	{
		long		idle_ms;

		jq_worker_begin_cycle();

		/* Idle first: a wake-up during the claim must not be lost. */
		jq_shared_report_state(JQ_STATE_IDLE);
		if (must_stop())
			break;
		memset(&batch, 0, sizeof(batch));
		if (jq_worker_protect(claim_batch, &batch) && batch.njobs > 0)
		{
			run_batch(&batch);
			jq_worker_reload();
			idle_since = GetCurrentTimestamp();
		}
		else
		{
			idle_ms = TimestampDifferenceMilliseconds(idle_since,
													  GetCurrentTimestamp());
			if (idle_ms >= jq_config_executor_idle_timeout)
				break;
			jq_worker_wait(jq_config_executor_idle_timeout - idle_ms,
						   WAIT_EVENT);
		}
		jq_shared_report_cycle();
	} while (!should_stop());
	proc_exit(0);
}

/*
 * The settings of the role and the database apply to its jobs, except two: a
 * role is not switched to, and transaction_timeout, which would end this
 * process, becomes a timeout of the job.
 */
static void
prepare_session(void)
{
	const char *timeout = GetConfigOption("transaction_timeout", true, false);

	SetConfigOption("role", "none", PGC_SUSET, PGC_S_OVERRIDE);
	if (timeout != NULL)
	{
		session_timeout_ms = pg_strtoint32(timeout);
		SetConfigOption("transaction_timeout", "0",
						PGC_SUSET, PGC_S_OVERRIDE);
	}
	jq_body_init();

	if (!pg_strong_random(&worker_id, sizeof(worker_id)))
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random worker id")));
	worker_id.data[6] = (worker_id.data[6] & 0x0f) | 0x40;	/* version 4 */
	worker_id.data[8] = (worker_id.data[8] & 0x3f) | 0x80;
	jq_shared_report_worker_id(&worker_id);
}

/* Whether no further job may begin. */
static bool
must_stop(void)
{
	return must_exit || ShutdownRequestPending || !jq_config_enabled;
}

/* As above, between two jobs, when somebody else may want the room. */
static bool
should_stop(void)
{
	return must_stop() || jq_shared_should_retire();
}

/*
 * Claims jobs and reads what they need.  The claim is flushed whatever
 * synchronous_commit says: a crash must not forget the attempts.
 */
static void
claim_batch(void *arg)
{
	Batch	   *batch = (Batch *) arg;
	MemoryContext context = CurrentMemoryContext;
	Tuplestorestate *rows;
	TupleDesc	row_type;
	Relation	rel;
	JqClaim		claim = {0};

	jq_db_begin("claiming jobs");
	if (jq_catalog_if_present() == NULL ||
		(superuser() && !jq_config_allow_superuser_jobs))
		must_exit = true;
	else
	{
		claim.worker = worker_id;
		claim.job_types = list_job_types();
		claim.max_jobs = Min(max_claim, jq_config_batch_size);
		claim.holder = jq_shared_incarnation();
		claim.role = jq_worker_role();
		claim.skip_suspects = !jq_shared_begin_suspect();
	}
	if (claim.job_types != NIL)
	{
		rel = table_open(jq_catalog()->jobs_queue, AccessShareLock);
		row_type = CreateTupleDescCopy(RelationGetDescr(rel));
		table_close(rel, NoLock);
		rows = tuplestore_begin_heap(false, false, work_mem);
		if (jq_claim(&claim, rows, row_type) > 0)
		{
			ForceSyncCommit();
			read_rows(batch, rows, row_type, context);
		}
		tuplestore_end(rows);
	}
	jq_db_commit();
	if (batch->njobs == 0 || !batch->jobs[0].is_suspect)
		jq_shared_end_suspect();
}

/* The types whose jobs may run as this role; NIL would mean every type. */
static List *
list_job_types(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *mine = NIL;
	List	   *names;
	ListCell   *cell;

	jq_scope_enter_read_only();
	names = jq_job_types_with_runner(JQ_RUNNER_SQL);
	foreach(cell, names)
	{
		char	   *name = (char *) lfirst(cell);
		const JqJobType *type = jq_job_type(name);
		MemoryContext old;

		if (!type->is_enabled ||
			!jq_config_lists(jq_config_run_job_types, name) ||
			(type->command != NULL && type->owner != jq_worker_role()))
			continue;
		old = MemoryContextSwitchTo(context);
		mine = lappend(mine, pstrdup(name));
		MemoryContextSwitchTo(old);
	}
	jq_scope_leave();
	return mine;
}

/* Copies the claimed rows into "context". */
static void
read_rows(Batch *batch, Tuplestorestate *rows, TupleDesc row_type,
		  MemoryContext context)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(row_type,
													&TTSOpsMinimalTuple);
	int64		count = tuplestore_tuple_count(rows);

	batch->jobs = MemoryContextAllocZero(context, sizeof(ClaimedJob) * count);
	jq_scope_enter_read_only();
	while (tuplestore_gettupleslot(rows, true, false, slot))
		read_job(&batch->jobs[batch->njobs++], slot, context);
	jq_scope_leave();
	ExecDropSingleTupleTableSlot(slot);
}

/* The command of a job type runs as the owner of the job type only. */
static void
read_job(ClaimedJob *job, TupleTableSlot *slot, MemoryContext context)
{
	const JqJobType *type;
	MemoryContext old;
	JqJob		row;
	Datum		payload;
	bool		isnull;

	jq_job_read(slot, &row);
	type = jq_job_type(row.job_type);
	old = MemoryContextSwitchTo(context);
	job->held.job_id = row.id;
	job->held.worker = worker_id;
	job->held.claim_no = row.claim_no;
	job->job_type = pstrdup(row.job_type);
	job->attempt = row.attempts;
	job->max_attempts = row.max_attempts;
	job->is_suspect = row.crashes > 0;
	job->body.job_id = row.id;
	job->body.timeout_ms = least_timeout_ms(slot, type->timeout_us);
	payload = slot_getattr(slot, JQ_JOB_PAYLOAD, &isnull);
	job->body.payload = PointerGetDatum(PG_DETOAST_DATUM_COPY(payload));
	if (type->command != NULL && type->owner == jq_worker_role())
		job->body.command = pstrdup(type->command);
	else if (type->command == NULL && row.owner == jq_worker_role() &&
			 strcmp(row.job_type, JQ_SQL_JOB_TYPE) == 0)
		job->body.command = payload_command(job->body.payload, &job->body.payload);
	MemoryContextSwitchTo(old);
}

/*
 * Takes a payload of the built-in type apart: the command, NULL when there is
 * none, and the payload that the command gets.
 */
static char *
payload_command(Datum payload, Datum *inner)
{
	JsonbContainer *root = &DatumGetJsonbP(payload)->root;
	JsonbValue *command;
	JsonbValue *value;

	if (!JsonContainerIsObject(root))
		return NULL;
	command = getKeyJsonValueFromContainer(root, "command",
										   strlen("command"), NULL);
	if (command == NULL || command->type != jbvString)
		return NULL;
	value = getKeyJsonValueFromContainer(root, "payload",
										 strlen("payload"), NULL);
	*inner = value != NULL ? JsonbPGetDatum(JsonbValueToJsonb(value)) :
		DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
	return pnstrdup(command->val.string.val, command->val.string.len);
}

/* The least of the job's, the type's and the session's limits; 0: none. */
static int
least_timeout_ms(TupleTableSlot *slot, int64 type_timeout_us)
{
	int64		limits_ms[4];
	int64		least_ms = 0;
	bool		isnull;
	Datum		datum = slot_getattr(slot, JQ_JOB_TIMEOUT, &isnull);

	limits_ms[0] = type_timeout_us > 0 ? Max(type_timeout_us / 1000, 1) : 0;
	limits_ms[1] = StatementTimeout;
	limits_ms[2] = session_timeout_ms;
	limits_ms[3] = 0;
	if (!isnull)
	{
		Interval   *interval = DatumGetIntervalP(datum);

		limits_ms[3] = (int64) interval->month * DAYS_PER_MONTH * 86400000 +
			(int64) interval->day * 86400000 + interval->time / 1000;
		limits_ms[3] = Max(limits_ms[3], 1);
	}
	for (int i = 0; i < (int) lengthof(limits_ms); i++)
		if (limits_ms[i] > 0 && (least_ms == 0 || limits_ms[i] < least_ms))
			least_ms = limits_ms[i];
	return (int) Min(least_ms, INT_MAX);
}

/*
 * Runs the claimed jobs one after the other, and gives back those that it
 * does not begin.  Only a run of short jobs lets the next claim take more:
 * what waits behind a long job waits in vain.
 */
static void
run_batch(Batch *batch)
{
	TimestampTz started_at = GetCurrentTimestamp();
	long		spent_ms;

	jq_shared_begin_batch();
	while (batch->next < batch->njobs)
	{
		ClaimedJob *job = &batch->jobs[batch->next];

		if (batch->next == 0 ? must_stop() : should_stop())
			break;
		if (!jq_shared_begin_job(job->held.job_id,
								 batch->njobs - batch->next - 1))
			break;
		batch->next++;
		run_job(job);
		jq_shared_end_job();
		CHECK_FOR_INTERRUPTS();
	}
	if (ShutdownRequestPending)
		jq_shared_report_state(JQ_STATE_DRAINING);
	if (batch->next < batch->njobs &&
		!jq_worker_protect(release_rest, batch))
		must_exit = true;
	jq_shared_end_batch();

	spent_ms = TimestampDifferenceMilliseconds(started_at,
											   GetCurrentTimestamp());
	if (spent_ms <= SHORT_JOB_MS * batch->njobs)
		max_claim = Min(max_claim * 2, jq_config_batch_size);
	else
		max_claim = 1;
}

/* Runs a job and sees to it that its end is recorded, or this process ends. */
static void
run_job(ClaimedJob *job)
{
	if (!attempt_job(job))
	{
		if (!jq_worker_protect(record_failure, job))
			must_exit = true;
		FreeErrorData(job->error);
	}
	if (!jq_worker_protect(jq_body_reset_session, NULL))
		must_exit = true;
}

/* False: the body or its completion failed, nothing of it is left, job->error. */
static bool
attempt_job(ClaimedJob *job)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool succeeded = true;

	PG_TRY();
	{
		perform_job(job);
	}
	PG_CATCH();
	{
		succeeded = false;
		jq_body_stop_watching();
		MemoryContextSwitchTo(context);
		job->error = CopyErrorData();
		FlushErrorState();
		jq_db_abort();
		MemoryContextSwitchTo(context);
	}
	PG_END_TRY();
	return succeeded;
}

/*
 * The transaction of a job.  The completion is written even if the body, or
 * the role's settings, made the transaction read-only.
 */
static void
perform_job(ClaimedJob *job)
{
	JqOutcome	outcome = {.kind = JQ_OUTCOME_COMPLETED};
	char	   *activity = psprintf("job %lld (%s)",
									(long long) job->held.job_id,
									job->job_type);

	jq_db_begin_as_session(activity);
	outcome.has_result = jq_body_run(&job->body, &outcome.result);
	XactReadOnly = false;
	if (!jq_resolve(&job->held, &outcome))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job %lld is not held any more",
						(long long) job->held.job_id)));
	jq_db_commit();
}

/*
 * Records why a job failed.  One that shutdown cut off did nothing wrong: it
 * goes back uncharged.
 */
static void
record_failure(void *arg)
{
	ClaimedJob *job = (ClaimedJob *) arg;
	JqOutcome	outcome = {.kind = JQ_OUTCOME_FAILED};
	bool		is_held;

	outcome.error = error_text(job->error);
	if (jq_body_was_cut_off() && job->error->sqlerrcode == ERRCODE_QUERY_CANCELED)
	{
		outcome.kind = JQ_OUTCOME_RELEASED;
		outcome.error = NULL;
	}
	jq_db_begin("recording a failed job");
	is_held = jq_resolve(&job->held, &outcome);
	jq_db_commit();

	if (!is_held)
	{
		if (jq_config_logs(DEBUG1))
			ereport(DEBUG1,
					(errmsg("job %lld (%s) was lost while it ran",
							(long long) job->held.job_id, job->job_type)));
	}
	else if (outcome.kind == JQ_OUTCOME_FAILED && jq_config_logs(LOG))
		ereport(LOG,
				(errmsg("job %lld (%s) failed on attempt %d of %d: %s (%s)",
						(long long) job->held.job_id, job->job_type,
						job->attempt, job->max_attempts,
						job->error->message,
						unpack_sql_state(job->error->sqlerrcode))));
}

/* Message, SQLSTATE and detail of an error. */
static char *
error_text(const ErrorData *error)
{
	char	   *full = psprintf("%s (%s)", error->message,
								unpack_sql_state(error->sqlerrcode));

	if (error->detail != NULL)
		full = psprintf("%s\nDETAIL:  %s", full, error->detail);
	return jq_job_clip_error(full);
}

/* Gives back the jobs that were claimed and not begun. */
static void
release_rest(void *arg)
{
	Batch	   *batch = (Batch *) arg;
	JqOutcome	outcome = {.kind = JQ_OUTCOME_RELEASED};

	jq_db_begin("releasing jobs");
	for (int i = batch->next; i < batch->njobs; i++)
		(void) jq_resolve(&batch->jobs[i].held, &outcome);
	jq_db_commit();
}
