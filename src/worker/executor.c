/*-------------------------------------------------------------------------
 *
 * executor.c
 *	  Runs the SQL jobs of one role in one database.
 *
 *	  The process is connected as the role, so that no trick of a job leads
 *	  anywhere else.  It claims jobs in one transaction, always flushed, so
 *	  that a crash finds their attempts charged, and runs them (batch.c).
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
#include "base/clock.h"
#include "base/compat.h"
#include "base/config.h"
#include "base/db.h"
#include "base/fault.h"
#include "base/scope.h"
#include "body/session.h"
#include "body/watch.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "queue/circuits.h"
#include "queue/claim.h"
#include "queue/job_types.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "worker/batch.h"

#define WAIT_EVENT "JobqueueExecutorMain"
#define CLAIM_MS 100			/* the work that a claim should bring */
#define BATCHES_PER_CLAIM 4
#define WEIGH_MS 1000			/* between two looks at the memory */

static pg_uuid_t worker_id;
static bool must_exit = false;	/* something is left to the scheduler */
static int	max_claim = 1;		/* jobs to claim next */
static int	session_timeout_ms = 0; /* transaction_timeout of the role */
static int64 jobs_run = 0;

static long limited_ms(void);
static void prepare_session(void);
static bool must_stop(void);
static bool may_go_on(void);
static bool is_worn_out(void);
static void claim_batch(void *arg);
static List *list_job_types(void);
static void run_batch(JqBatch *batch);

void
jq_executor_main(Datum arg)
{
	TimestampTz idle_since;
	JqBatch		batch;

	jq_worker_begin(JQ_WORKER_EXECUTOR, jq_watch_request_shutdown);
	jq_worker_connect(jq_worker_role(), BGWORKER_BYPASS_ROLELOGINCHECK);
	prepare_session();

	/* Started for a reason: room for others is made after the first job. */
	idle_since = GetCurrentTimestamp();
	do
	{
		long		idle_ms;

		jq_worker_begin_cycle();
		jq_command_forget_surplus();

		/* Idle first: a wake-up during the claim must not be lost. */
		jq_shared_report_state(JQ_STATE_IDLE);
		if (must_stop())
			break;
		memset(&batch, 0, sizeof(batch));
		if (jq_worker_protect(claim_batch, &batch) && batch.njobs > 0)
		{
			JQ_FAULT("after_claim_commit");
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
			jq_worker_wait(Min(jq_config_executor_idle_timeout - idle_ms,
							   limited_ms()), WAIT_EVENT);
		}
		jq_shared_report_cycle();
	} while (!must_stop() && !jq_shared_should_retire() && !is_worn_out());
	proc_exit(0);
}

/* How long limits keep what is due from being claimed; nobody tells us. */
static long
limited_ms(void)
{
	TimestampTz retry_at = jq_claim_retry_at();

	if (retry_at == DT_NOEND)
		return LONG_MAX;
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), retry_at) + 1;
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
	jq_watch_init();
	jq_session_init();

	if (!pg_strong_random(&worker_id, sizeof(worker_id)))
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random worker id")));
	worker_id.data[6] = (worker_id.data[6] & 0x0f) | 0x40;	/* version 4 */
	worker_id.data[8] = (worker_id.data[8] & 0x3f) | 0x80;
	jq_shared_report_worker_id(&worker_id);
	jq_worker_report_start(&worker_id);
}

/* Whether no further job may begin. */
static bool
must_stop(void)
{
	return must_exit || ShutdownRequestPending || !jq_config_enabled;
}

/* Between two jobs, when somebody else may want the room. */
static bool
may_go_on(void)
{
	return !must_stop() && (jobs_run == 0 || !jq_shared_should_retire());
}

/*
 * Now and then a new process takes over: what extensions and procedural
 * languages keep for the life of a session does not grow for ever.
 */
static bool
is_worn_out(void)
{
	static int64 weigh_at = 0;	/* by jq_clock_ms() */

	if (jq_config_executor_max_jobs > 0 &&
		jobs_run >= jq_config_executor_max_jobs)
		return true;
	/* Weighing costs as much as several jobs. */
	if (jq_config_executor_max_memory == 0 || jq_clock_ms() < weigh_at)
		return false;
	weigh_at = jq_clock_ms() + WEIGH_MS;
	return MemoryContextMemAllocated(TopMemoryContext, true) >
		(Size) jq_config_executor_max_memory * 1024;
}

int
jq_executor_session_timeout_ms(void)
{
	return session_timeout_ms;
}

/*
 * Claims jobs and reads what they need.  The claim is flushed whatever
 * synchronous_commit says: a crash must not forget the attempts.
 */
static void
claim_batch(void *arg)
{
	JqBatch    *batch = (JqBatch *) arg;
	Tuplestorestate *rows;
	TupleDesc	row_type;
	Relation	rel;
	JqClaim		claim = {0};

	batch->context = CurrentMemoryContext;
	batch->circuits = jq_circuits_generation();
	jq_db_begin("claiming jobs");
	if (jq_catalog_if_present() == NULL ||
		(superuser() && !jq_config_allow_superuser_jobs))
		must_exit = true;
	else
	{
		claim.worker = worker_id;
		claim.job_types = list_job_types();
		claim.max_jobs = max_claim;
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
			jq_claimed_read(batch, &worker_id, rows, row_type);
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

/*
 * Runs the claimed jobs, and gives back those that it does not begin.  How
 * many the next claim takes follows from how long these took: what waits here
 * waits in vain while another executor could run it.
 */
static void
run_batch(JqBatch *batch)
{
	int			most = jq_config_executor_batch_size * BATCHES_PER_CLAIM;
	TimestampTz started_at = GetCurrentTimestamp();
	long		spent_ms;

	jq_shared_begin_batch();
	if (!jq_batch_run(batch, may_go_on))
		must_exit = true;
	jobs_run += batch->njobs;
	if (ShutdownRequestPending)
		jq_shared_report_state(JQ_STATE_DRAINING);
	if (!jq_batch_release(batch))
		must_exit = true;
	jq_shared_end_batch();

	spent_ms = TimestampDifferenceMilliseconds(started_at,
											   GetCurrentTimestamp());
	if (spent_ms > CLAIM_MS)
		max_claim = (int) (batch->njobs * CLAIM_MS / spent_ms);
	else if (spent_ms <= CLAIM_MS / 2)
		max_claim *= 2;
	max_claim = Max(Min(max_claim, most), 1);
}
