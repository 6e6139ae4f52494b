/*-------------------------------------------------------------------------
 *
 * control.c
 *	  SQL functions of operators: pause, resume and stop what works on jobs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "api/arguments.h"
#include "base/names.h"
#include "base/scope.h"
#include "base/shared_state.h"
#include "base/statement.h"
#include "queue/activity.h"

PG_FUNCTION_INFO_V1(jobqueue_activate_jobs);
PG_FUNCTION_INFO_V1(jobqueue_pause_workers);
PG_FUNCTION_INFO_V1(jobqueue_resume_workers);
PG_FUNCTION_INFO_V1(jobqueue_pause_job_type);
PG_FUNCTION_INFO_V1(jobqueue_resume_job_type);
PG_FUNCTION_INFO_V1(jobqueue_stop_worker);
PG_FUNCTION_INFO_V1(jobqueue_queue_status);

#define MAX_REASON 1024

static JqStatement pause_type = {
	.text = "INSERT INTO @.job_types AS t"
	" (job_type, runner, enabled, paused_at, pause_reason)"
	" VALUES ($1, CASE WHEN $1 IN ('sql', 'http') THEN $1 ELSE 'external' END,"
	" false, now(), $2)"
	" ON CONFLICT (job_type) DO UPDATE"
	" SET enabled = false, paused_at = now(), pause_reason = $2"
	" WHERE t.enabled",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID}
};

static JqStatement resume_type = {
	.text = "UPDATE @.job_types SET enabled = true"
	" WHERE job_type = $1 AND NOT enabled",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static JqStatement select_pause = {
	.text = "SELECT paused_at, paused_by, pause_reason"
	" FROM @.database_identity WHERE paused_at IS NOT NULL"
};

static char *reason_argument(FunctionCallInfo fcinfo, int n);
static char *job_type_argument(FunctionCallInfo fcinfo);
static bool retire_worker(const pg_uuid_t *worker, bool *is_new);
static bool has_scheduler(void);

Datum
jobqueue_activate_jobs(PG_FUNCTION_ARGS)
{
	(void) jq_activity_activate(GetUserId());
	CommandCounterIncrement();
	switch (jq_activity_quiet())
	{
		case JQ_QUIET_PAUSED:
			ereport(NOTICE,
					(errmsg("the workers of this database are paused"),
					 errhint("Call resume_workers() to let them go on.")));
			break;
		case JQ_QUIET_SUBSCRIBER:
			ereport(NOTICE,
					(errmsg("the jobs of this database come from a subscription"),
					 errhint("Nothing is run here before it is disabled or dropped.")));
			break;
		default:
			break;
	}
	PG_RETURN_VOID();
}

Datum
jobqueue_pause_workers(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(jq_activity_pause(GetUserId(), reason_argument(fcinfo, 0)));
}

Datum
jobqueue_resume_workers(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(jq_activity_resume());
}

Datum
jobqueue_pause_job_type(PG_FUNCTION_ARGS)
{
	Datum		values[2] = {CStringGetTextDatum(job_type_argument(fcinfo))};
	bool		has_reason = reason_argument(fcinfo, 1) != NULL;
	bool		is_new;

	values[1] = jq_argument_datum(fcinfo, 1);
	jq_scope_enter(JQ_WRITE_PLAIN);
	is_new = jq_statement_execute(&pause_type, values,
								  has_reason ? NULL : " n", 0) > 0;
	jq_scope_leave();
	PG_RETURN_BOOL(is_new);
}

Datum
jobqueue_resume_job_type(PG_FUNCTION_ARGS)
{
	Datum		values[] = {CStringGetTextDatum(job_type_argument(fcinfo))};
	bool		was_paused;

	jq_scope_enter(JQ_WRITE_PLAIN);
	was_paused = jq_statement_execute(&resume_type, values, NULL, 0) > 0;
	jq_scope_leave();
	if (was_paused)
		jq_activity_wake_at_commit();
	PG_RETURN_BOOL(was_paused);
}

static char *
job_type_argument(FunctionCallInfo fcinfo)
{
	char	   *job_type;

	jq_argument_required(fcinfo, 0, "job_type");
	job_type = jq_argument_text(fcinfo, 0);
	jq_name_check_required(job_type, "job_type");
	return job_type;
}

static char *
reason_argument(FunctionCallInfo fcinfo, int n)
{
	char	   *reason = jq_argument_text(fcinfo, n);

	if (reason != NULL)
		jq_name_check(reason, "reason", 0, MAX_REASON);
	return reason;
}

/*
 * An executor is told at once: it has no transaction of ours to wait for.
 * That is refused where an outside worker's row would be, too.
 */
Datum
jobqueue_stop_worker(PG_FUNCTION_ARGS)
{
	pg_uuid_t	worker;
	char	   *reason;
	bool		is_ours;
	bool		is_new;

	jq_argument_worker(fcinfo, 0, &worker);
	reason = reason_argument(fcinfo, 1);
	jq_scope_enter(JQ_WRITE_ENGINE);
	is_ours = retire_worker(&worker, &is_new);
	jq_scope_leave();
	if (!is_ours)
		is_new = jq_activity_stop_worker(&worker, GetUserId(), reason);
	PG_RETURN_BOOL(is_new);
}

/* False: no executor or dispatcher of this database has that id. */
static bool
retire_worker(const pg_uuid_t *worker, bool *is_new)
{
	JqWorkerInfo *workers = NULL;
	int			count = jq_shared_workers(&workers);

	for (int i = 0; i < count; i++)
		if (workers[i].has_worker_id &&
			memcmp(&workers[i].worker_id, worker, sizeof(pg_uuid_t)) == 0)
		{
			*is_new = !workers[i].retire;
			return jq_shared_retire_worker(MyDatabaseId, worker);
		}
	return false;
}

/* The one row of queue_status. */
Datum
jobqueue_queue_status(PG_FUNCTION_ARGS)
{
	const char *reason;
	Datum		values[6] = {0};
	bool		nulls[6] = {false, true, true, true, true, false};
	TupleDesc	desc;
	HeapTuple	row;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "_queue_status() must return a row");
	reason = jq_activity_obstacle();
	values[0] = BoolGetDatum(reason == NULL);
	if (reason != NULL)
	{
		values[1] = CStringGetTextDatum(reason);
		nulls[1] = false;
	}
	values[5] = BoolGetDatum(has_scheduler());

	jq_scope_enter_read_only();
	if (jq_statement_query(&select_pause, NULL, NULL, 1) > 0)
		for (int i = 0; i < 3; i++)
			values[i + 2] = jq_statement_nullable(0, i + 1, &nulls[i + 2]);
	MemoryContextSwitchTo(jq_scope_result_context());
	row = heap_form_tuple(BlessTupleDesc(desc), values, nulls);
	jq_scope_leave();
	PG_RETURN_DATUM(HeapTupleGetDatum(row));
}

/* A probe is none. */
static bool
has_scheduler(void)
{
	JqWorkerInfo info;

	return jq_shared_scheduler_is_running(MyDatabaseId) &&
		jq_shared_find_scheduler(MyDatabaseId, &info) &&
		info.pid != 0 && info.state != JQ_STATE_STARTING;
}
