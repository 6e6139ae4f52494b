/*-------------------------------------------------------------------------
 *
 * cron.c
 *	  SQL functions that define and enqueue cron tasks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "api/arguments.h"
#include "base/names.h"
#include "base/ownership.h"
#include "base/scope.h"
#include "base/statement.h"
#include "cron/runs.h"
#include "queue/job_types.h"
#include "queue/validate.h"

PG_FUNCTION_INFO_V1(jobqueue_schedule_cron_task);
PG_FUNCTION_INFO_V1(jobqueue_schedule_sql);
PG_FUNCTION_INFO_V1(jobqueue_unschedule_cron_task);
PG_FUNCTION_INFO_V1(jobqueue_enqueue_cron_tasks);
PG_FUNCTION_INFO_V1(jobqueue_run_cron_task);
PG_FUNCTION_INFO_V1(jobqueue_pause_cron_task);
PG_FUNCTION_INFO_V1(jobqueue_resume_cron_task);

#define MAX_REASON_LENGTH 1024

enum
{
	TASK_NAME, TASK_SCHEDULE, TASK_JOB_TYPE, TASK_PAYLOAD, TASK_TIMEZONE,
	TASK_PRIORITY, TASK_MAX_ATTEMPTS, TASK_STAGE, TASK_ENABLED,
	TASK_DESCRIPTION, TASK_OWNER, TASK_CATCH_UP, TASK_CATCH_UP_LIMIT,
	TASK_START_DEADLINE, TASK_OVERLAP, TASK_JITTER, TASK_RUN_ON_START,
	TASK_STARTS_AT, TASK_ENDS_AT, TASK_MAX_RUNS, TASK_UNIQUE_KEY, TASK_COUNT
};

#define TASK_POLICIES (TASK_COUNT - TASK_CATCH_UP)

/* Arguments of the INSERT; what is absent takes its default. */
typedef struct NewTask
{
	Datum		values[TASK_COUNT];
	char		nulls[TASK_COUNT];
} NewTask;

/*
 * The row trigger plans the next run, in both branches; a task that is over by
 * the first is so in the second, for the same reason.
 */
static JqStatement upsert_task = {
	.text = "INSERT INTO @.cron_tasks AS t (name, schedule, job_type, payload,"
	" timezone, priority, max_attempts, stage, enabled, description, owner,"
	" catch_up, catch_up_limit, start_deadline, overlap, jitter, run_on_start,"
	" starts_at, ends_at, max_runs, unique_key)"
	" VALUES ($1, $2, $3, $4, $5, $6::int2, $7::int2, $8, $9, $10, $11, $12,"
	" $13, $14, $15, $16, $17, $18, $19, $20, $21)"
	" ON CONFLICT (name) DO UPDATE SET schedule = EXCLUDED.schedule,"
	" job_type = EXCLUDED.job_type, payload = EXCLUDED.payload,"
	" timezone = EXCLUDED.timezone, priority = EXCLUDED.priority,"
	" max_attempts = EXCLUDED.max_attempts, stage = EXCLUDED.stage,"
	" enabled = EXCLUDED.enabled,"
	" disabled_reason = coalesce(EXCLUDED.disabled_reason, t.disabled_reason),"
	" description = EXCLUDED.description,"
	" owner = coalesce($11, t.owner, EXCLUDED.owner),"
	" catch_up = EXCLUDED.catch_up, catch_up_limit = EXCLUDED.catch_up_limit,"
	" start_deadline = EXCLUDED.start_deadline, overlap = EXCLUDED.overlap,"
	" jitter = EXCLUDED.jitter, run_on_start = EXCLUDED.run_on_start,"
	" starts_at = EXCLUDED.starts_at, ends_at = EXCLUDED.ends_at,"
	" max_runs = EXCLUDED.max_runs, unique_key = EXCLUDED.unique_key"
	" RETURNING id, owner::pg_catalog.oid",
	.nargs = TASK_COUNT,
	.argtypes = {
		TEXTOID, TEXTOID, TEXTOID, JSONBOID, TEXTOID, INT4OID, INT4OID,
		TEXTOID, BOOLOID, TEXTOID, REGROLEOID, TEXTOID, INT4OID, INTERVALOID,
		TEXTOID, INTERVALOID, BOOLOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID,
		TEXTOID
	}
};

static JqStatement delete_task = {
	.text = "DELETE FROM @.cron_tasks WHERE name = $1",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static JqStatement pause_task = {
	.text = "UPDATE @.cron_tasks SET enabled = false,"
	" disabled_reason = coalesce($2, 'paused') WHERE name = $1 AND enabled",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID}
};

static JqStatement resume_task = {
	.text = "UPDATE @.cron_tasks SET enabled = true"
	" WHERE name = $1 AND NOT enabled",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static JqStatement find_task = {
	.text = "SELECT FROM @.cron_tasks WHERE name = $1",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static void set(NewTask *task, int column, FunctionCallInfo fcinfo, int n);
static void set_value(NewTask *task, int column, Datum value);
static void set_policies(NewTask *task, FunctionCallInfo fcinfo, int first);
static int64 save(NewTask *task);
static void check_ranges(const NewTask *task);
static Datum empty_object(void);
static bool change_named(JqStatement *statement, Datum *values,
						 const char *nulls);

Datum
jobqueue_schedule_cron_task(PG_FUNCTION_ARGS)
{
	NewTask		task = {0};

	jq_argument_required(fcinfo, 0, "name");
	jq_argument_required(fcinfo, 1, "schedule");
	jq_argument_required(fcinfo, 2, "job_type");
	for (int i = TASK_NAME; i <= TASK_DESCRIPTION; i++)
		set(&task, i, fcinfo, i);
	set_policies(&task, fcinfo, TASK_DESCRIPTION + 1);
	task.nulls[TASK_OWNER] = 'n';
	if (strcmp(TextDatumGetCString(task.values[TASK_JOB_TYPE]), JQ_SQL_JOB_TYPE) == 0)
		jq_validate_sql_payload(task.values[TASK_PAYLOAD]);
	PG_RETURN_INT64(save(&task));
}

Datum
jobqueue_schedule_sql(PG_FUNCTION_ARGS)
{
	NewTask		task = {0};
	Oid			run_as = InvalidOid;

	jq_argument_required(fcinfo, 0, "name");
	jq_argument_required(fcinfo, 1, "schedule");
	jq_argument_required(fcinfo, 2, "command");
	jq_validate_command(jq_argument_text(fcinfo, 2));
	if (!PG_ARGISNULL(9))
		run_as = jq_argument_run_as(fcinfo, 9);
	jq_argument_notice_workers();
	set(&task, TASK_NAME, fcinfo, 0);
	set(&task, TASK_SCHEDULE, fcinfo, 1);
	set_value(&task, TASK_JOB_TYPE, CStringGetTextDatum(JQ_SQL_JOB_TYPE));
	set_value(&task, TASK_PAYLOAD, jq_sql_payload(PG_GETARG_DATUM(2),
												  jq_argument_datum(fcinfo, 3),
												  jq_argument_text(fcinfo, 10)));
	set(&task, TASK_TIMEZONE, fcinfo, 4);
	set(&task, TASK_PRIORITY, fcinfo, 5);
	set(&task, TASK_MAX_ATTEMPTS, fcinfo, 6);
	set_value(&task, TASK_STAGE, CStringGetTextDatum(""));
	set(&task, TASK_ENABLED, fcinfo, 7);
	set(&task, TASK_DESCRIPTION, fcinfo, 8);
	set_value(&task, TASK_OWNER, ObjectIdGetDatum(run_as));
	set_policies(&task, fcinfo, 11);
	if (!OidIsValid(run_as))
		task.nulls[TASK_OWNER] = 'n';
	PG_RETURN_INT64(save(&task));
}

/* An argument, or what stands for a null one. */
static void
set(NewTask *task, int column, FunctionCallInfo fcinfo, int n)
{
	if (!PG_ARGISNULL(n))
	{
		set_value(task, column, PG_GETARG_DATUM(n));
		return;
	}
	switch (column)
	{
		case TASK_PAYLOAD:
			set_value(task, column, empty_object());
			break;
		case TASK_TIMEZONE:
			set_value(task, column, CStringGetTextDatum("UTC"));
			break;
		case TASK_PRIORITY:
			set_value(task, column, Int32GetDatum(0));
			break;
		case TASK_STAGE:
			set_value(task, column, CStringGetTextDatum(""));
			break;
		case TASK_ENABLED:
			set_value(task, column, BoolGetDatum(true));
			break;
		case TASK_CATCH_UP:
			set_value(task, column, CStringGetTextDatum("latest"));
			break;
		case TASK_CATCH_UP_LIMIT:
			set_value(task, column, Int32GetDatum(100));
			break;
		case TASK_OVERLAP:
			set_value(task, column, CStringGetTextDatum("allow"));
			break;
		case TASK_RUN_ON_START:
			set_value(task, column, BoolGetDatum(false));
			break;
		default:
			task->nulls[column] = 'n';
	}
}

static void
set_value(NewTask *task, int column, Datum value)
{
	task->values[column] = value;
	task->nulls[column] = ' ';
}

/* The last arguments of both functions, from that number on. */
static void
set_policies(NewTask *task, FunctionCallInfo fcinfo, int first)
{
	for (int i = 0; i < TASK_POLICIES; i++)
		set(task, TASK_CATCH_UP + i, fcinfo, first + i);
}

/*
 * Another role's task of that name is not replaced, and one that is replaced
 * keeps its owner unless there is a new one.
 */
static int64
save(NewTask *task)
{
	int64		id;
	Oid			owner;

	jq_validate_payload(task->values[TASK_PAYLOAD]);
	check_ranges(task);
	jq_scope_enter(JQ_WRITE_PLAIN);
	jq_statement_execute(&upsert_task, task->values, task->nulls, 0);
	id = DatumGetInt64(jq_statement_value(0, 1));
	owner = DatumGetObjectId(jq_statement_value(0, 2));
	jq_ownership_check(jq_scope_caller(), owner, "cron task");
	if (strcmp(TextDatumGetCString(task->values[TASK_JOB_TYPE]), JQ_SQL_JOB_TYPE) == 0)
		jq_ownership_check_superuser(owner);
	jq_scope_leave();
	return id;
}

/* Of what is cast to smallint; the row trigger checks the rest. */
static void
check_ranges(const NewTask *task)
{
	jq_name_check(TextDatumGetCString(task->values[TASK_STAGE]), "stage", 0, 255);
	jq_range_check(DatumGetInt32(task->values[TASK_PRIORITY]), "priority",
				   PG_INT16_MIN, PG_INT16_MAX);
	if (task->nulls[TASK_MAX_ATTEMPTS] != 'n')
		jq_range_check(DatumGetInt32(task->values[TASK_MAX_ATTEMPTS]),
					   "max_attempts", 1, 1000);
}

static Datum
empty_object(void)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
}

Datum
jobqueue_unschedule_cron_task(PG_FUNCTION_ARGS)
{
	Datum		values[1];
	bool		is_found;

	jq_argument_required(fcinfo, 0, "name");
	values[0] = PG_GETARG_DATUM(0);
	jq_scope_enter(JQ_WRITE_PLAIN);
	is_found = jq_statement_execute(&delete_task, values, NULL, 0) > 0;
	jq_scope_leave();
	PG_RETURN_BOOL(is_found);
}

Datum
jobqueue_enqueue_cron_tasks(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(jq_runs_enqueue_due(DT_NOBEGIN, NULL));
}

Datum
jobqueue_run_cron_task(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz instant = PG_ARGISNULL(1) ? now : PG_GETARG_TIMESTAMPTZ(1);
	int64		job_id;

	jq_argument_required(fcinfo, 0, "name");
	jq_validate_instant(instant, "instant");
	if (instant > now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("instant must not lie in the future"),
				 errhint("Set next_run_at of the task, or enqueue a job with scheduled_at.")));
	job_id = jq_runs_enqueue_now(jq_argument_text(fcinfo, 0), instant);
	if (job_id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(job_id);
}

Datum
jobqueue_pause_cron_task(PG_FUNCTION_ARGS)
{
	Datum		values[2] = {0, jq_argument_datum(fcinfo, 1)};
	char		nulls[] = {' ', PG_ARGISNULL(1) ? 'n' : ' '};

	jq_argument_required(fcinfo, 0, "name");
	if (!PG_ARGISNULL(1))
		jq_name_check(jq_argument_text(fcinfo, 1), "reason", 0, MAX_REASON_LENGTH);
	values[0] = PG_GETARG_DATUM(0);
	PG_RETURN_BOOL(change_named(&pause_task, values, nulls));
}

Datum
jobqueue_resume_cron_task(PG_FUNCTION_ARGS)
{
	Datum		values[1];

	jq_argument_required(fcinfo, 0, "name");
	values[0] = PG_GETARG_DATUM(0);
	PG_RETURN_BOOL(change_named(&resume_task, values, NULL));
}

/* False when the task is already as it shall be; P0002 when there is none. */
static bool
change_named(JqStatement *statement, Datum *values, const char *nulls)
{
	bool		is_changed;

	jq_scope_enter(JQ_WRITE_PLAIN);
	is_changed = jq_statement_execute(statement, values, nulls, 0) > 0;
	if (!is_changed && jq_statement_query(&find_task, values, NULL, 1) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("cron task \"%s\" does not exist",
						TextDatumGetCString(values[0]))));
	jq_scope_leave();
	return is_changed;
}
