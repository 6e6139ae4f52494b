/*-------------------------------------------------------------------------
 *
 * maintenance.c
 *	  What a scheduler does for the jobs of its database besides running them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/maintenance.h"

#include "base/config.h"
#include "base/db.h"
#include "base/protect.h"
#include "base/scope.h"
#include "base/shared_state.h"
#include "base/statement.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "queue/resolve.h"
#include "queue/running.h"
#include "queue/secret_store.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define PRUNE_BATCH 1000
#define DISOWN_BATCH 1000
#define MAX_PRUNE_BATCHES 100	/* of a job type in one go */
#define LONG_JOB_MS 1000

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
	"WHERE d.id = old.id RETURNING d.id) "
	"SELECT count(*) FROM gone",
	.nargs = 3,
	.argtypes = {TEXTOID, TIMESTAMPTZOID, INT8OID}
};

/* A run just decided stays: the clock may be the one that is wrong. */
static JqStatement prune_runs_statement = {
	.text = "WITH gone AS (DELETE FROM @.cron_runs WHERE (task_id, instant) IN "
	"(SELECT r.task_id, r.instant FROM @.cron_runs r WHERE r.instant < $1 "
	"AND r.decided_at < $1 ORDER BY r.instant LIMIT $2) "
	"RETURNING 1) SELECT count(*) FROM gone",
	.nargs = 2,
	.argtypes = {TIMESTAMPTZOID, INT8OID}
};

static JqStatement old_runs_statement = {
	.text = "SELECT EXISTS (SELECT FROM @.cron_runs WHERE instant < $1 "
	"AND decided_at < $1)",
	.nargs = 1,
	.argtypes = {TIMESTAMPTZOID}
};

/* Jobs whose owner has been dropped. */
static JqStatement disowned_statement = {
	.text = "SELECT q.id, q.owner::pg_catalog.oid, q.finished_at IS NOT NULL, "
	"q.status = 'running' FROM @.jobs_queue q WHERE q.owner IS NOT NULL "
	"AND NOT EXISTS (SELECT FROM pg_catalog.pg_authid a "
	"WHERE a.oid = q.owner::pg_catalog.oid) LIMIT $1",
	.nargs = 1,
	.argtypes = {INT8OID}
};

static JqStatement disown_statement = {
	.text = "UPDATE @.jobs_queue_done SET owner = NULL WHERE id = $1",
	.nargs = 1,
	.argtypes = {INT8OID}
};

/* Definitions whose owner has been dropped: first whether there are any. */
#define OF_NOBODY(table) \
	"FROM @." table " t WHERE t.owner IS NOT NULL AND NOT EXISTS " \
	"(SELECT FROM pg_catalog.pg_authid a WHERE a.oid = t.owner::pg_catalog.oid)"
#define DISOWN(table) \
	{.text = "UPDATE @." table " SET owner = NULL WHERE ctid IN " \
	"(SELECT t.ctid " OF_NOBODY(table) ")"}

static JqStatement disowned_definitions_statement = {
	.text = "SELECT EXISTS (SELECT " OF_NOBODY("job_types") "), "
	"EXISTS (SELECT " OF_NOBODY("cron_tasks") "), "
	"EXISTS (SELECT " OF_NOBODY("http_endpoints") "), "
	"EXISTS (SELECT " OF_NOBODY("event_subscriptions") "), "
	"EXISTS (SELECT " OF_NOBODY("http_secrets") ")"
};

static JqStatement disown_definitions_statements[] = {
	DISOWN("job_types"), DISOWN("cron_tasks"), DISOWN("http_endpoints"),
	DISOWN("event_subscriptions"), DISOWN("http_secrets")
};

typedef struct Disowned
{
	int64		id;
	Oid			owner;
	bool		has_ended;
	bool		is_running;		/* left to its end */
} Disowned;

/* Job types whose completed jobs are not kept for ever. */
typedef struct Retention
{
	char	   *job_type;
	TimestampTz finished_until;
} Retention;

static void release_waiting(const JqWorkerInfo *executor);
static List *list_held(const pg_uuid_t *worker);
static int	list_disowned(Disowned **jobs);
static void disown(void *arg);
static void disown_definitions(void);
static List *list_retentions(void);
static int64 prune_batch(const Retention *retention);
static bool has_old_runs(TimestampTz until);
static int64 prune_runs(TimestampTz until);

void
jq_maintenance_watch_running(void *arg)
{
	bool		is_thorough = *(bool *) arg;
	int64		incarnation = jq_shared_incarnation();
	bool		has_lost = false;
	JqRunningJob *jobs;
	int			njobs;

	jq_db_begin("watching running jobs");
	jobs = jq_running_jobs(is_thorough, &njobs);
	for (int i = 0; i < njobs; i++)
	{
		if (jq_running_is_lost(&jobs[i], incarnation,
							   jq_shared_worker_is_alive))
			has_lost = true;
		else if (jobs[i].cancel_requested && jobs[i].holder == incarnation)
			jq_shared_cancel_job(&jobs[i].worker, jobs[i].id,
								 jobs[i].claim_no);
	}
	jq_db_commit();

	/* Looking costs no transaction id; taking back does. */
	if (!has_lost)
		return;
	jq_db_begin("taking back lost jobs");
	(void) jq_resolve_reclaim(incarnation, jq_shared_worker_is_alive,
							  is_thorough);
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
	List	   *held = NIL;
	JqRunningJob *jobs;
	int			njobs;

	jq_db_begin("listing held jobs");
	jobs = jq_running_jobs(false, &njobs);
	for (int i = 0; i < njobs; i++)
	{
		MemoryContext old;
		JqHeld	   *job;

		if (memcmp(&jobs[i].worker, worker, sizeof(pg_uuid_t)) != 0)
			continue;
		old = MemoryContextSwitchTo(context);
		job = palloc(sizeof(JqHeld));
		job->job_id = jobs[i].id;
		job->claim_no = jobs[i].claim_no;
		job->worker = *worker;
		held = lappend(held, job);
		MemoryContextSwitchTo(old);
	}
	jq_db_commit();
	return held;
}

/*
 * A job that belongs to nobody cannot be run, and its owner would be dumped
 * as a number that may be another role's elsewhere, as would that of a
 * definition.
 */
void
jq_maintenance_disown(void *arg)
{
	bool	   *is_done = (bool *) arg;
	Disowned   *jobs;
	int			count;
	int			disowned;

	*is_done = true;
	do
	{
		count = list_disowned(&jobs);
		disowned = 0;
		jq_db_begin("clearing dropped owners");
		for (int i = 0; i < count; i++)
		{
			/* One that cannot be written must not keep the others. */
			if (!jobs[i].is_running && jq_protect(disown, &jobs[i]) == NULL)
				disowned++;
			else
				*is_done = false;
		}
		jq_db_commit();
		CHECK_FOR_INTERRUPTS();
	} while (count == DISOWN_BATCH && disowned > 0);
	disown_definitions();
}

/* An UPDATE of no row would still tell every session of a change. */
static void
disown_definitions(void)
{
	bool		is_found[lengthof(disown_definitions_statements)];

	jq_db_begin("looking for definitions of dropped roles");
	jq_scope_enter_read_only();
	(void) jq_statement_query(&disowned_definitions_statement, NULL, NULL, 0);
	for (int i = 0; i < (int) lengthof(is_found); i++)
		is_found[i] = DatumGetBool(jq_statement_value(0, i + 1));
	jq_scope_leave();
	jq_db_commit();

	for (int i = 0; i < (int) lengthof(is_found); i++)
	{
		if (!is_found[i])
			continue;
		jq_db_begin("clearing dropped owners");
		jq_scope_enter(JQ_WRITE_ENGINE);
		(void) jq_statement_execute(&disown_definitions_statements[i],
									NULL, NULL, 0);
		jq_scope_leave();
		jq_db_commit();
	}
}

/* In the caller's context. */
static int
list_disowned(Disowned **jobs)
{
	Datum		values[] = {Int64GetDatum(DISOWN_BATCH)};
	int			count;

	*jobs = palloc(sizeof(Disowned) * DISOWN_BATCH);
	jq_db_begin("looking for jobs of dropped roles");
	jq_scope_enter_read_only();
	count = (int) jq_statement_query(&disowned_statement, values, NULL, 0);
	for (int i = 0; i < count; i++)
	{
		(*jobs)[i].id = DatumGetInt64(jq_statement_value(i, 1));
		(*jobs)[i].owner = DatumGetObjectId(jq_statement_value(i, 2));
		(*jobs)[i].has_ended = DatumGetBool(jq_statement_value(i, 3));
		(*jobs)[i].is_running = DatumGetBool(jq_statement_value(i, 4));
	}
	jq_scope_leave();
	jq_db_commit();
	return count;
}

static void
disown(void *arg)
{
	const Disowned *job = (const Disowned *) arg;
	Datum		values[] = {Int64GetDatum(job->id)};

	if (!job->has_ended)
	{
		(void) jq_resolve_reject(job->id,
								 psprintf("role %u, the owner of the job, does not exist (42704)",
										  job->owner));
		return;
	}
	jq_scope_enter(JQ_WRITE_ENGINE);
	(void) jq_statement_execute(&disown_statement, values, NULL, 0);
	jq_scope_leave();
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

/* Returns how many jobs were deleted; their runs stay. */
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

/* Looks first: deleting nothing would cost a transaction id. */
void
jq_maintenance_prune_cron_runs(void *arg)
{
	TimestampTz until = GetCurrentTimestamp() -
	(int64) jq_config_keep_cron_runs * USECS_PER_MINUTE;

	if (!has_old_runs(until))
		return;
	for (int i = 0; i < MAX_PRUNE_BATCHES; i++)
	{
		if (prune_runs(until) < PRUNE_BATCH)
			break;
		CHECK_FOR_INTERRUPTS();
	}
}

static bool
has_old_runs(TimestampTz until)
{
	Datum		values[] = {TimestampTzGetDatum(until)};
	bool		result;

	jq_db_begin("looking for old cron runs");
	jq_scope_enter_read_only();
	jq_scope_prefer_indexes();
	(void) jq_statement_query(&old_runs_statement, values, NULL, 0);
	result = DatumGetBool(jq_statement_value(0, 1));
	jq_scope_leave();
	jq_db_commit();
	return result;
}

/* Returns how many were deleted. */
static int64
prune_runs(TimestampTz until)
{
	Datum		values[] = {TimestampTzGetDatum(until), Int64GetDatum(PRUNE_BATCH)};
	int64		deleted;

	jq_db_begin("deleting old cron runs");
	jq_scope_enter(JQ_WRITE_ENGINE);
	jq_scope_prefer_indexes();
	(void) jq_statement_execute(&prune_runs_statement, values, NULL, 0);
	deleted = DatumGetInt64(jq_statement_value(0, 1));
	jq_scope_leave();
	jq_db_commit();
	return deleted;
}

/* Looks first, as above. */
void
jq_maintenance_forget_secrets(void *arg)
{
	bool		have_expired;

	jq_db_begin("looking for old secrets");
	jq_scope_enter_read_only();
	have_expired = jq_secrets_have_expired();
	jq_scope_leave();
	jq_db_commit();

	if (!have_expired)
		return;
	jq_db_begin("deleting old secrets");
	jq_scope_enter(JQ_WRITE_ENGINE);
	jq_secrets_delete_expired();
	jq_scope_leave();
	jq_db_commit();
}
