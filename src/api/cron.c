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

#include "api/arguments.h"
#include "base/names.h"
#include "base/ownership.h"
#include "base/scope.h"
#include "base/statement.h"
#include "cron/tasks.h"
#include "queue/job_types.h"
#include "queue/validate.h"

PG_FUNCTION_INFO_V1(jobqueue_schedule_cron_task);
PG_FUNCTION_INFO_V1(jobqueue_schedule_sql);
PG_FUNCTION_INFO_V1(jobqueue_unschedule_cron_task);
PG_FUNCTION_INFO_V1(jobqueue_enqueue_cron_tasks);

enum
{
	TASK_NAME, TASK_SCHEDULE, TASK_JOB_TYPE, TASK_PAYLOAD, TASK_TIMEZONE,
	TASK_PRIORITY, TASK_MAX_ATTEMPTS, TASK_STAGE, TASK_ENABLED,
	TASK_DESCRIPTION, TASK_OWNER, TASK_COUNT
};

/* The row trigger plans the next run, in both branches. */
static JqStatement upsert_task = {
	.text = "INSERT INTO @.cron_tasks AS t (name, schedule, job_type, payload,"
	" timezone, priority, max_attempts, stage, enabled, description, owner)"
	" VALUES ($1, $2, $3, $4, $5, $6::int2, $7::int2, $8, $9, $10, $11)"
	" ON CONFLICT (name) DO UPDATE SET schedule = EXCLUDED.schedule,"
	" job_type = EXCLUDED.job_type, payload = EXCLUDED.payload,"
	" timezone = EXCLUDED.timezone, priority = EXCLUDED.priority,"
	" max_attempts = EXCLUDED.max_attempts, stage = EXCLUDED.stage,"
	" enabled = EXCLUDED.enabled, description = EXCLUDED.description,"
	" owner = coalesce($11, t.owner, EXCLUDED.owner)"
	" RETURNING id, owner::pg_catalog.oid",
	.nargs = TASK_COUNT,
	.argtypes = {
		TEXTOID, TEXTOID, TEXTOID, JSONBOID, TEXTOID, INT4OID, INT4OID,
		TEXTOID, BOOLOID, TEXTOID, REGROLEOID
	}
};

static JqStatement delete_task = {
	.text = "DELETE FROM @.cron_tasks WHERE name = $1",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static int64 save_task(Datum *values, bool has_max_attempts,
					   bool has_description);
static Datum or_default(FunctionCallInfo fcinfo, int n, Datum value);
static Datum empty_object(void);

Datum
jobqueue_schedule_cron_task(PG_FUNCTION_ARGS)
{
	Datum		values[TASK_COUNT];

	jq_argument_required(fcinfo, 0, "name");
	jq_argument_required(fcinfo, 1, "schedule");
	jq_argument_required(fcinfo, 2, "job_type");
	values[TASK_NAME] = PG_GETARG_DATUM(0);
	values[TASK_SCHEDULE] = PG_GETARG_DATUM(1);
	values[TASK_JOB_TYPE] = PG_GETARG_DATUM(2);
	values[TASK_PAYLOAD] = or_default(fcinfo, 3, empty_object());
	values[TASK_TIMEZONE] = or_default(fcinfo, 4, CStringGetTextDatum("UTC"));
	values[TASK_PRIORITY] = or_default(fcinfo, 5, Int32GetDatum(0));
	values[TASK_MAX_ATTEMPTS] = jq_argument_datum(fcinfo, 6);
	values[TASK_STAGE] = or_default(fcinfo, 7, CStringGetTextDatum(""));
	values[TASK_ENABLED] = or_default(fcinfo, 8, BoolGetDatum(true));
	values[TASK_DESCRIPTION] = jq_argument_datum(fcinfo, 9);
	values[TASK_OWNER] = ObjectIdGetDatum(InvalidOid);
	jq_validate_payload(values[TASK_PAYLOAD]);
	if (strcmp(TextDatumGetCString(values[TASK_JOB_TYPE]), JQ_SQL_JOB_TYPE) == 0)
		jq_validate_sql_payload(values[TASK_PAYLOAD]);
	PG_RETURN_INT64(save_task(values, !PG_ARGISNULL(6), !PG_ARGISNULL(9)));
}

Datum
jobqueue_schedule_sql(PG_FUNCTION_ARGS)
{
	Datum		values[TASK_COUNT];

	jq_argument_required(fcinfo, 0, "name");
	jq_argument_required(fcinfo, 1, "schedule");
	jq_argument_required(fcinfo, 2, "command");
	jq_validate_command(jq_argument_text(fcinfo, 2));
	values[TASK_OWNER] = ObjectIdGetDatum(PG_ARGISNULL(9) ? InvalidOid :
										  jq_argument_run_as(fcinfo, 9));
	jq_argument_notice_workers();
	values[TASK_NAME] = PG_GETARG_DATUM(0);
	values[TASK_SCHEDULE] = PG_GETARG_DATUM(1);
	values[TASK_JOB_TYPE] = CStringGetTextDatum(JQ_SQL_JOB_TYPE);
	values[TASK_PAYLOAD] = jq_sql_payload(PG_GETARG_DATUM(2),
										  jq_argument_datum(fcinfo, 3),
										  jq_argument_text(fcinfo, 10));
	values[TASK_TIMEZONE] = or_default(fcinfo, 4, CStringGetTextDatum("UTC"));
	values[TASK_PRIORITY] = or_default(fcinfo, 5, Int32GetDatum(0));
	values[TASK_MAX_ATTEMPTS] = jq_argument_datum(fcinfo, 6);
	values[TASK_STAGE] = CStringGetTextDatum("");
	values[TASK_ENABLED] = or_default(fcinfo, 7, BoolGetDatum(true));
	values[TASK_DESCRIPTION] = jq_argument_datum(fcinfo, 8);
	jq_validate_payload(values[TASK_PAYLOAD]);
	PG_RETURN_INT64(save_task(values, !PG_ARGISNULL(6), !PG_ARGISNULL(8)));
}

/*
 * Another role's task of that name is not replaced, and one that is replaced
 * keeps its owner unless there is a new one.
 */
static int64
save_task(Datum *values, bool has_max_attempts, bool has_description)
{
	char		nulls[TASK_COUNT];
	int64		id;
	Oid			owner;

	jq_name_check(TextDatumGetCString(values[TASK_STAGE]), "stage", 0, 255);
	jq_range_check(DatumGetInt32(values[TASK_PRIORITY]), "priority",
				   PG_INT16_MIN, PG_INT16_MAX);
	if (has_max_attempts)
		jq_range_check(DatumGetInt32(values[TASK_MAX_ATTEMPTS]), "max_attempts",
					   1, 1000);
	memset(nulls, ' ', sizeof(nulls));
	if (!has_max_attempts)
		nulls[TASK_MAX_ATTEMPTS] = 'n';
	if (!has_description)
		nulls[TASK_DESCRIPTION] = 'n';
	if (!OidIsValid(DatumGetObjectId(values[TASK_OWNER])))
		nulls[TASK_OWNER] = 'n';

	jq_scope_enter(JQ_WRITE_PLAIN);
	jq_statement_execute(&upsert_task, values, nulls, 0);
	id = DatumGetInt64(jq_statement_value(0, 1));
	owner = DatumGetObjectId(jq_statement_value(0, 2));
	jq_ownership_check(jq_scope_caller(), owner, "cron task");
	if (strcmp(TextDatumGetCString(values[TASK_JOB_TYPE]), JQ_SQL_JOB_TYPE) == 0)
		jq_ownership_check_superuser(owner);
	jq_scope_leave();
	return id;
}

static Datum
or_default(FunctionCallInfo fcinfo, int n, Datum value)
{
	return PG_ARGISNULL(n) ? value : PG_GETARG_DATUM(n);
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
	PG_RETURN_INT32(jq_tasks_enqueue_due());
}
