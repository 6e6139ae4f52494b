/*-------------------------------------------------------------------------
 *
 * tasks.c
 *	  Cron tasks: rows of cron_tasks that become jobs.
 *
 * next_run_at is the plan: the row trigger computes it when a definition
 * changes, and whoever enqueues a due task moves it on in the same
 * transaction, holding the row's lock.  Others skip a locked task and find it
 * no longer due afterwards.  So each planned instant is enqueued once,
 * whoever calls and however many do so at once.
 *
 * Where several instants have passed, the latest of them is enqueued.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/fault.h"
#include "base/names.h"
#include "base/ownership.h"
#include "base/protect.h"
#include "base/rows.h"
#include "base/scope.h"
#include "base/statement.h"
#include "base/wake.h"
#include "cron/expression.h"
#include "cron/schedule.h"
#include "cron/tasks.h"

PG_FUNCTION_INFO_V1(jobqueue_guard_cron_task);

/* Tasks enqueued in one call; the rest is due at the next. */
#define MAX_DUE_TASKS 1000

typedef struct DueTask
{
	int64		id;
	char	   *schedule;
	char	   *timezone;
	Oid			owner;
	TimestampTz planned;
} DueTask;

/* A job to be enqueued by jq_protect(). */
typedef struct NewRun
{
	const DueTask *task;
	TimestampTz instant;
	int64		job_id;
} NewRun;

static JqStatement select_due = {
	.text = "SELECT id, schedule, timezone, owner::pg_catalog.oid, next_run_at"
	" FROM @.cron_tasks WHERE enabled AND next_run_at <= $1"
	" ORDER BY next_run_at, id LIMIT $2 FOR UPDATE SKIP LOCKED",
	.nargs = 2,
	.argtypes = {TIMESTAMPTZOID, INT8OID}
};

static JqStatement select_next_due = {
	.text = "SELECT min(next_run_at) FROM @.cron_tasks WHERE enabled",
};

static JqStatement enqueue_task = {
	.text = "INSERT INTO @.jobs_queue_live (job_type, payload, stage, priority,"
	" max_attempts, scheduled_at, cron_instant, cron_task_id, owner)"
	" SELECT job_type, payload, stage, priority, max_attempts, $2, $2, id,"
	" owner FROM @.cron_tasks WHERE id = $1 RETURNING id",
	.nargs = 2,
	.argtypes = {INT8OID, TIMESTAMPTZOID}
};

static JqStatement plan_next = {
	.text = "UPDATE @.cron_tasks SET next_run_at = $2, last_enqueued_at = $3,"
	" last_job_id = $4, updated_at = $3 WHERE id = $1",
	.nargs = 4,
	.argtypes = {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID}
};

static JqStatement disable_task = {
	.text = "UPDATE @.cron_tasks SET enabled = false, next_run_at = NULL,"
	" disabled_reason = $2, updated_at = clock_timestamp() WHERE id = $1",
	.nargs = 2,
	.argtypes = {INT8OID, TEXTOID}
};

static int	find_due(DueTask **tasks, TimestampTz now);
static bool enqueue_one(const DueTask *task, TimestampTz now);
static bool read_schedule(const DueTask *task, JqCronExpr *expr,
						  pg_tz **zone);
static TimestampTz latest_instant(const DueTask *task, const JqCronExpr *expr,
								  pg_tz *zone, TimestampTz now);
static int64 enqueue_protected(const DueTask *task, TimestampTz instant);
static void enqueue_run(void *arg);
static void disable(const DueTask *task, const char *reason);
static HeapTuple plan_row(TriggerData *trigger, HeapTuple row);

int
jq_tasks_enqueue_due(void)
{
	TimestampTz now = GetCurrentTimestamp();
	DueTask    *tasks;
	int			ntasks;
	int			enqueued = 0;

	jq_scope_enter(JQ_WRITE_ENGINE);
	ntasks = find_due(&tasks, now);
	for (int i = 0; i < ntasks; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (enqueue_one(&tasks[i], now))
			enqueued++;
	}
	jq_scope_leave();
	return enqueued;
}

TimestampTz
jq_tasks_next_due(void)
{
	TimestampTz next = DT_NOEND;
	bool		isnull;
	Datum		value;

	jq_scope_enter_read_only();
	jq_statement_query(&select_next_due, NULL, NULL, 1);
	value = jq_statement_nullable(0, 1, &isnull);
	if (!isnull)
		next = DatumGetTimestampTz(value);
	jq_scope_leave();
	return next;
}

static int
find_due(DueTask **tasks, TimestampTz now)
{
	Datum		values[2] = {TimestampTzGetDatum(now), Int64GetDatum(MAX_DUE_TASKS)};
	int			ntasks = jq_statement_execute(&select_due, values, NULL, 0);

	*tasks = palloc(sizeof(DueTask) * Max(ntasks, 1));
	for (int i = 0; i < ntasks; i++)
	{
		DueTask    *task = &(*tasks)[i];
		bool		isnull;

		task->id = DatumGetInt64(jq_statement_value(i, 1));
		task->schedule = TextDatumGetCString(jq_statement_value(i, 2));
		task->timezone = TextDatumGetCString(jq_statement_value(i, 3));
		task->owner = DatumGetObjectId(jq_statement_nullable(i, 4, &isnull));
		task->planned = DatumGetTimestampTz(jq_statement_value(i, 5));
	}
	return ntasks;
}

/* Enqueues a task and plans its next run, or disables it with a reason. */
static bool
enqueue_one(const DueTask *task, TimestampTz now)
{
	JqCronExpr	expr;
	pg_tz	   *zone;
	TimestampTz instant;
	TimestampTz next;
	int64		job_id;
	Datum		values[4];

	if (!read_schedule(task, &expr, &zone))
		return false;
	instant = latest_instant(task, &expr, zone, now);
	job_id = enqueue_protected(task, instant);
	if (job_id == 0)
		return false;

	next = jq_cron_next(&expr, instant, instant, zone);
	values[0] = Int64GetDatum(task->id);
	values[1] = TimestampTzGetDatum(next);
	values[2] = TimestampTzGetDatum(now);
	values[3] = Int64GetDatum(job_id);
	jq_statement_execute(&plan_next, values, NULL, 0);
	if (TIMESTAMP_NOT_FINITE(next))
		disable(task, "the schedule has no further instants");
	return true;
}

/* A definition can go stale: a zone or a role may be gone. */
static bool
read_schedule(const DueTask *task, JqCronExpr *expr, pg_tz **zone)
{
	JqCronError error;

	if (!jq_cron_parse(task->schedule, strlen(task->schedule), expr, &error))
	{
		disable(task, error.message);
		return false;
	}
	*zone = pg_tzset(task->timezone);
	if (*zone == NULL)
	{
		disable(task, psprintf("time zone \"%s\" not recognized",
							   task->timezone));
		return false;
	}
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(task->owner)))
	{
		disable(task, "the owner of the task no longer exists");
		return false;
	}
	return true;
}

/*
 * The last instant up to now.  Looks in growing windows before now, so that a
 * frequent schedule is not walked through a long downtime.
 */
static TimestampTz
latest_instant(const DueTask *task, const JqCronExpr *expr, pg_tz *zone,
			   TimestampTz now)
{
	static const int64 windows[] = {
		USECS_PER_MINUTE, USECS_PER_HOUR, USECS_PER_DAY,
		32 * USECS_PER_DAY, 366 * USECS_PER_DAY
	};
	TimestampTz instant = task->planned;
	TimestampTz next;

	for (int i = 0; i < (int) lengthof(windows); i++)
	{
		TimestampTz start = now - windows[i];

		if (start <= task->planned)
			break;
		next = jq_cron_next(expr, start, task->planned, zone);
		if (next <= now)
		{
			instant = next;
			break;
		}
	}
	while ((next = jq_cron_next(expr, instant, task->planned, zone)) <= now)
		instant = next;
	return instant;
}

/*
 * Inserts the job: what is wrong with one task must not stop the others.
 * Returns 0 after disabling a task with a lasting fault.
 */
static int64
enqueue_protected(const DueTask *task, TimestampTz instant)
{
	NewRun		run = {.task = task,.instant = instant};
	ErrorData  *fault = jq_protect(enqueue_run, &run);

	if (fault == NULL)
		return run.job_id;
	disable(task, fault->message);
	FreeErrorData(fault);
	return 0;
}

static void
enqueue_run(void *arg)
{
	NewRun	   *run = (NewRun *) arg;
	Datum		values[2] = {Int64GetDatum(run->task->id), TimestampTzGetDatum(run->instant)};

	jq_scope_enter(JQ_WRITE_ENQUEUE);
	jq_statement_execute(&enqueue_task, values, NULL, 0);
	run->job_id = DatumGetInt64(jq_statement_value(0, 1));
	JQ_FAULT("in_cron_enqueue");
	jq_scope_leave();
}

static void
disable(const DueTask *task, const char *reason)
{
	Datum		values[2] = {Int64GetDatum(task->id), CStringGetTextDatum(reason)};

	jq_statement_execute(&disable_task, values, NULL, 0);
}

/* BEFORE INSERT OR UPDATE OR DELETE ON cron_tasks FOR EACH ROW */
Datum
jobqueue_guard_cron_task(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	row;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != jq_catalog()->cron_tasks)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"_guard_cron_task\" must be called as the trigger of cron_tasks")));
	if (jq_scope_write_mode() == JQ_WRITE_ENGINE)
		return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
							   trigger->tg_newtuple : trigger->tg_trigtuple);
	row = jq_ownership_guard(trigger);
	if (!TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		row = plan_row(trigger, row);
	jq_wake_at_commit();
	return PointerGetDatum(row);
}

/* Validates a definition and plans its next run. */
static HeapTuple
plan_row(TriggerData *trigger, HeapTuple row)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	static const char *const required[] = {"name", "schedule", "timezone", "job_type", "enabled"};
	bool		isnull[lengthof(required)];
	Datum		values[lengthof(required)];
	JqCronExpr	expr;
	pg_tz	   *zone;
	TimestampTz now = GetCurrentTimestamp();
	bool		has_plan;
	Datum		plan;
	int			columns[2] = {SPI_fnumber(desc, "next_run_at"), SPI_fnumber(desc, "disabled_reason")};
	Datum		planned[2] = {0, 0};
	bool		nulls[2] = {true, true};

	for (int i = 0; i < (int) lengthof(required); i++)
	{
		values[i] = jq_row_value(row, desc, required[i], &isnull[i]);
		if (isnull[i])
			return row;			/* the NOT NULL constraint says so */
	}
	jq_name_check_required(TextDatumGetCString(values[0]), "name");
	jq_name_check_required(TextDatumGetCString(values[3]), "job_type");
	jq_cron_parse_or_error(TextDatumGetCString(values[1]), &expr);
	zone = jq_cron_zone(TextDatumGetCString(values[2]));

	plan = jq_row_value(row, desc, "next_run_at", &has_plan);
	has_plan = !has_plan && !TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(plan));
	if (!DatumGetBool(values[4]))
	{
		/* A disabled task keeps the reason that the scheduler gave it. */
		planned[1] = jq_row_value(row, desc, "disabled_reason", &nulls[1]);
	}
	else
	{
		if (!has_plan || jq_row_changes(trigger, "schedule") ||
			jq_row_changes(trigger, "timezone") ||
			jq_row_changes(trigger, "enabled"))
			plan = TimestampTzGetDatum(jq_cron_next(&expr, now, now, zone));
		planned[0] = plan;
		nulls[0] = false;
	}
	return heap_modify_tuple_by_cols(row, desc, 2, columns, planned, nulls);
}
