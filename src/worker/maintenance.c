/*-------------------------------------------------------------------------
 *
 * maintenance.c
 *	  What a scheduler does for the jobs of its database besides running them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/maintenance.h"

#include "base/db.h"
#include "base/scope.h"
#include "base/shared_state.h"
#include "base/statement.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "queue/resolve.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define RECLAIM_BATCH 1000
#define PRUNE_BATCH 1000
#define MAX_PRUNE_BATCHES 100	/* of a job type in one go */
#define LONG_JOB_MS 1000

static JqStatement holders_statement = {
	.text = "SELECT q.locked_by, coalesce(q.holder, 0), "
	"bool_or(q.lease_expires_at <= now()), "
	"bool_or(q.cancel_requested_at IS NOT NULL) "
	"FROM @.jobs_queue_live q WHERE q.status = 'running' GROUP BY 1, 2"
};

static JqStatement cancelled_statement = {
	.text = "SELECT q.id, q.locked_by FROM @.jobs_queue_live q "
	"WHERE q.status = 'running' AND q.holder = $1 "
	"AND q.cancel_requested_at IS NOT NULL",
	.nargs = 1,
	.argtypes = {INT8OID}
};

static JqStatement held_statement = {
	.text = "SELECT q.id, q.claim_no FROM @.jobs_queue_live q "
	"WHERE q.status = 'running' AND q.locked_by = $1",
	.nargs = 1,
	.argtypes = {UUIDOID}
};

static JqStatement kept_statement = {
	.text = "SELECT t.job_type, now() - t.keep_completed FROM @.job_types t "
	"WHERE t.keep_completed IS NOT NULL"
};

static JqStatement prune_statement = {
	.text = "WITH old AS (SELECT d.id FROM @.jobs_queue_done d "
	"WHERE d.job_type = $1 AND d.status = 'completed' "
	"AND d.finished_at <= $2 ORDER BY d.finished_at LIMIT $3 "
	"FOR UPDATE SKIP LOCKED), "
	"gone AS (DELETE FROM @.jobs_queue_done d USING old "
	"WHERE d.id = old.id RETURNING d.id), "
	"runs AS (DELETE FROM @.job_runs r USING gone WHERE r.job_id = gone.id) "
	"SELECT count(*) FROM gone",
	.nargs = 3,
	.argtypes = {TEXTOID, TIMESTAMPTZOID, INT8OID}
};

/* Job types whose completed jobs are not kept for ever. */
typedef struct Retention
{
	char	   *job_type;
	TimestampTz finished_until;
} Retention;

static void watch_holders(bool *has_lost, bool *has_cancelled);
static bool is_lost(const pg_uuid_t *worker, int64 holder, bool has_expired);
static void cancel_running(void);
static void release_waiting(const JqWorkerInfo *executor);
static List *list_held(const pg_uuid_t *worker);
static List *list_retentions(void);
static int64 prune_batch(const Retention *retention);

void
jq_maintenance_watch_running(void *arg)
{
	bool		has_lost = false;
	bool		has_cancelled = false;

	watch_holders(&has_lost, &has_cancelled);
	if (has_cancelled)
		cancel_running();
	while (has_lost)
	{
		jq_db_begin("taking back lost jobs");
		has_lost = jq_resolve_reclaim(jq_shared_incarnation(),
									  jq_shared_executor_is_alive,
									  RECLAIM_BATCH) == RECLAIM_BATCH;
		jq_db_commit();
		CHECK_FOR_INTERRUPTS();
	}
}

/* Looks at everybody who holds a job, once per holder. */
static void
watch_holders(bool *has_lost, bool *has_cancelled)
{
	uint64		count;

	jq_db_begin("watching running jobs");
	jq_scope_enter_read_only();
	count = jq_statement_query(&holders_statement, NULL, NULL, 0);
	for (uint64 row = 0; row < count; row++)
	{
		pg_uuid_t  *worker = DatumGetUUIDP(jq_statement_value(row, 1));
		int64		holder = DatumGetInt64(jq_statement_value(row, 2));
		bool		isnull;
		Datum		expired = jq_statement_nullable(row, 3, &isnull);

		if (is_lost(worker, holder, !isnull && DatumGetBool(expired)))
			*has_lost = true;
		if (holder == jq_shared_incarnation() &&
			DatumGetBool(jq_statement_value(row, 4)))
			*has_cancelled = true;
	}
	jq_scope_leave();
	jq_db_commit();
}

/* A worker of the server lives or does not; others have their leases. */
static bool
is_lost(const pg_uuid_t *worker, int64 holder, bool has_expired)
{
	if (holder == 0)
		return has_expired;
	return holder != jq_shared_incarnation() ||
		!jq_shared_executor_is_alive(worker);
}

/* Tells the executors whose current job somebody wants cancelled. */
static void
cancel_running(void)
{
	Datum		values[] = {Int64GetDatum(jq_shared_incarnation())};
	uint64		count;

	jq_db_begin("cancelling running jobs");
	jq_scope_enter_read_only();
	count = jq_statement_query(&cancelled_statement, values, NULL, 0);
	for (uint64 row = 0; row < count; row++)
		jq_shared_cancel_job(DatumGetUUIDP(jq_statement_value(row, 2)),
							 DatumGetInt64(jq_statement_value(row, 1)));
	jq_scope_leave();
	jq_db_commit();
}

void
jq_maintenance_release_waiting(void *arg)
{
	TimestampTz now = GetCurrentTimestamp();
	JqWorkerInfo *workers = NULL;
	int			count = jq_shared_workers(&workers);

	for (int i = 0; i < count; i++)
	{
		JqWorkerInfo *worker = &workers[i];

		if (worker->kind == JQ_WORKER_EXECUTOR &&
			worker->database == MyDatabaseId &&
			worker->job_id != 0 && worker->waiting_jobs > 0 &&
			now >= TimestampTzPlusMilliseconds(worker->job_started_at,
											   LONG_JOB_MS))
			release_waiting(worker);
	}
}

/*
 * The jobs are listed before they are taken away: what the executor claims
 * afterwards is another batch, and then nothing is taken.
 */
static void
release_waiting(const JqWorkerInfo *executor)
{
	JqOutcome	outcome = {.kind = JQ_OUTCOME_RELEASED};
	List	   *held = list_held(&executor->worker_id);
	ListCell   *cell;
	int64		current_job;

	if (!jq_shared_take_waiting(&executor->worker_id, executor->batch_no,
								&current_job))
		return;
	jq_db_begin("releasing waiting jobs");
	foreach(cell, held)
	{
		JqHeld	   *job = (JqHeld *) lfirst(cell);

		if (job->job_id != current_job)
			(void) jq_resolve(job, &outcome);
	}
	jq_db_commit();
}

/* The jobs that a worker holds, in the caller's context. */
static List *
list_held(const pg_uuid_t *worker)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[] = {UUIDPGetDatum(worker)};
	List	   *held = NIL;
	uint64		count;

	jq_db_begin("listing held jobs");
	jq_scope_enter_read_only();
	count = jq_statement_query(&held_statement, values, NULL, 0);
	for (uint64 row = 0; row < count; row++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		JqHeld	   *job = palloc(sizeof(JqHeld));

		job->job_id = DatumGetInt64(jq_statement_value(row, 1));
		job->claim_no = DatumGetInt32(jq_statement_value(row, 2));
		job->worker = *worker;
		held = lappend(held, job);
		MemoryContextSwitchTo(old);
	}
	jq_scope_leave();
	jq_db_commit();
	return held;
}

/* Small transactions: whoever wants the same rows waits for one of them. */
void
jq_maintenance_prune(void *arg)
{
	List	   *retentions = list_retentions();
	ListCell   *cell;

	foreach(cell, retentions)
	{
		Retention  *retention = (Retention *) lfirst(cell);

		for (int i = 0; i < MAX_PRUNE_BATCHES; i++)
		{
			if (prune_batch(retention) < PRUNE_BATCH)
				break;
			CHECK_FOR_INTERRUPTS();
		}
	}
}

/* In the caller's context. */
static List *
list_retentions(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *retentions = NIL;
	uint64		count;

	jq_db_begin("looking for old jobs");
	jq_scope_enter_read_only();
	count = jq_statement_query(&kept_statement, NULL, NULL, 0);
	for (uint64 row = 0; row < count; row++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		Retention  *retention = palloc(sizeof(Retention));

		retention->job_type = TextDatumGetCString(jq_statement_value(row, 1));
		retention->finished_until =
			DatumGetTimestampTz(jq_statement_value(row, 2));
		retentions = lappend(retentions, retention);
		MemoryContextSwitchTo(old);
	}
	jq_scope_leave();
	jq_db_commit();
	return retentions;
}

/* Returns how many jobs were deleted, with their runs. */
static int64
prune_batch(const Retention *retention)
{
	Datum		values[3];
	int64		deleted;

	jq_db_begin("deleting old jobs");
	jq_scope_enter(JQ_WRITE_ENGINE);
	values[0] = CStringGetTextDatum(retention->job_type);
	values[1] = TimestampTzGetDatum(retention->finished_until);
	values[2] = Int64GetDatum(PRUNE_BATCH);
	(void) jq_statement_execute(&prune_statement, values, NULL, 0);
	deleted = DatumGetInt64(jq_statement_value(0, 1));
	jq_scope_leave();
	jq_db_commit();
	return deleted;
}
