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

#define DISOWN_BATCH 1000
#define LONG_JOB_MS 1000

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
	"EXISTS (SELECT " OF_NOBODY("http_secrets") "), "
	"EXISTS (SELECT " OF_NOBODY("alert_sinks") "), "
	"EXISTS (SELECT " OF_NOBODY("alert_rules") ")"
};

static JqStatement disown_definitions_statements[] = {
	DISOWN("job_types"), DISOWN("cron_tasks"), DISOWN("http_endpoints"),
	DISOWN("event_subscriptions"), DISOWN("http_secrets"),
	DISOWN("alert_sinks"), DISOWN("alert_rules")
};

typedef struct Disowned
{
	int64		id;
	Oid			owner;
	bool		has_ended;
	bool		is_running;		/* left to its end */
} Disowned;

static void release_waiting(const JqWorkerInfo *executor);
static List *list_held(const pg_uuid_t *worker);
static int	list_disowned(Disowned **jobs);
static void disown(void *arg);
static void disown_definitions(void);

void
jq_maintenance_watch_running(void *arg)
{
	bool		is_thorough = *(bool *) arg;
	int64		incarnation = jq_shared_incarnation();
	bool		has_lost = false;
	JqRunningJob *jobs;
	int			njobs;
	int			reclaimed;

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
	reclaimed = jq_resolve_reclaim(incarnation, jq_shared_worker_is_alive,
								   is_thorough);
	jq_db_commit();
	if (reclaimed > 0 && jq_config_logs(LOG))
		ereport(LOG,
				(errmsg_plural("took back %d lost job",
							   "took back %d lost jobs",
							   reclaimed, reclaimed)));
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

/* Looks first: deleting nothing would cost a transaction id. */
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
