/*-------------------------------------------------------------------------
 *
 * tasks.c
 *	  What happens when cron tasks change, or time does.
 *
 * Every change of a definition sends an invalidation, so that the scheduler
 * learns what it cannot know from its own doing: of the primary key of
 * cron_tasks, which nobody else waits for, while one of the table would make
 * every session look up our tables and plan its statements again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/columns.h"
#include "base/rows.h"
#include "base/scope.h"
#include "base/statement.h"
#include "base/wake.h"
#include "cron/task_row.h"
#include "cron/tasks.h"

PG_FUNCTION_INFO_V1(jobqueue_cron_tasks_changed);
PG_FUNCTION_INFO_V1(jobqueue_forget_cron_task);

#define REPLAN_BATCH 1000

static JqStatement select_planned = {
	.text = "SELECT " JQ_TASK_COLUMNS ", planned_at FROM @.cron_tasks"
	" WHERE enabled AND planned_at IS NOT NULL AND next_run_at > $1",
	.nargs = 1,
	.argtypes = {TIMESTAMPTZOID}
};

static JqStatement update_plans = {
	.text = "UPDATE @.cron_tasks t SET next_run_at = r.next_run_at,"
	" planned_at = $4 FROM (SELECT c.id, p.next_run_at"
	" FROM unnest($1, $2, $3) AS p (id, was, next_run_at)"
	" JOIN @.cron_tasks c ON c.id = p.id AND c.next_run_at = p.was"
	" WHERE c.enabled AND c.planned_at IS NOT NULL FOR UPDATE OF c SKIP LOCKED)"
	" AS r WHERE t.id = r.id",
	.nargs = 4,
	.argtypes = {
		INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID
	}
};

static JqStatement delete_runs = {
	.text = "DELETE FROM @.cron_runs WHERE task_id = $1",
	.nargs = 1,
	.argtypes = {INT8OID}
};

static JqStatement delete_all_runs = {
	.text = "DELETE FROM @.cron_runs",
};

static bool have_changed = true;
static Oid	known_key = InvalidOid;

static void note_change(Datum arg, Oid relid);
static bool replan_batch(TimestampTz now);
static TimestampTz new_plan(const JqTaskRow *task, TimestampTz planned_at,
							TimestampTz now);
static void check_trigger(FunctionCallInfo fcinfo, const char *name);

/* ---- changes ---- */

bool
jq_tasks_have_changed(void)
{
	static bool is_registered = false;
	bool		result;

	if (!is_registered)
	{
		CacheRegisterRelcacheCallback(note_change, (Datum) 0);
		is_registered = true;
	}
	if (known_key != jq_catalog()->cron_tasks_pkey)
	{
		known_key = jq_catalog()->cron_tasks_pkey;
		have_changed = true;
	}
	result = have_changed;
	have_changed = false;
	return result;
}

static void
note_change(Datum arg, Oid relid)
{
	if (relid == known_key || !OidIsValid(relid))
		have_changed = true;
}

/* AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON cron_tasks */
Datum
jobqueue_cron_tasks_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	check_trigger(fcinfo, "_cron_tasks_changed");
	if (jq_scope_write_mode() == JQ_WRITE_ENGINE)
		return PointerGetDatum(NULL);
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
	{
		jq_scope_enter(JQ_WRITE_ENGINE);
		(void) jq_statement_execute(&delete_all_runs, NULL, NULL, 0);
		jq_scope_leave();
	}
	CacheInvalidateRelcacheByRelid(jq_catalog()->cron_tasks_pkey);
	jq_wake_at_commit();
	return PointerGetDatum(NULL);
}

/* AFTER DELETE ON cron_tasks FOR EACH ROW */
Datum
jobqueue_forget_cron_task(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool		isnull;
	Datum		values[1];

	check_trigger(fcinfo, "_forget_cron_task");
	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		return PointerGetDatum(NULL);
	values[0] = jq_row_value(trigger->tg_trigtuple,
							 RelationGetDescr(trigger->tg_relation), "id",
							 &isnull);
	jq_scope_enter(JQ_WRITE_ENGINE);
	(void) jq_statement_execute(&delete_runs, values, NULL, 0);
	jq_scope_leave();
	return PointerGetDatum(NULL);
}

static void
check_trigger(FunctionCallInfo fcinfo, const char *name)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		RelationGetRelid(trigger->tg_relation) != jq_catalog()->cron_tasks)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be called as the trigger of cron_tasks",
						name)));
}

/* ---- planning anew ---- */

bool
jq_tasks_replan(void)
{
	TimestampTz now;
	Datum		values[1];
	Portal		portal;
	bool		is_complete = true;
	int			found;

	/* Later than the snapshot: no plan in it is from the future by chance. */
	jq_scope_enter(JQ_WRITE_ENGINE);
	now = GetCurrentTimestamp();
	values[0] = TimestampTzGetDatum(now);
	portal = jq_statement_open(&select_planned, values, NULL);
	do
	{
		SPI_cursor_fetch(portal, true, REPLAN_BATCH);
		found = (int) SPI_processed;
		if (!replan_batch(now))
			is_complete = false;
		CHECK_FOR_INTERRUPTS();
	} while (found == REPLAN_BATCH);
	jq_scope_leave();
	return is_complete;
}

/*
 * Of the rows that were fetched last.  Whoever holds one of them must not
 * hold up the others.
 */
static bool
replan_batch(TimestampTz now)
{
	static const Oid types[] = {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	JqColumn   *columns = jq_columns_new(lengthof(types), types,
										 (int) SPI_processed);
	SPITupleTable *rows = SPI_tuptable;
	Datum		values[lengthof(types) + 1];

	for (uint64 row = 0; row < rows->numvals; row++)
	{
		JqTaskRow	task;
		TimestampTz planned_at;
		TimestampTz next;

		jq_task_row_read(&task, row);
		planned_at = DatumGetTimestampTz(jq_statement_value(row, JQ_TASK_NCOLUMNS + 1));
		next = new_plan(&task, planned_at, now);
		if (next == task.planned)
			continue;
		jq_column_add(&columns[0], Int64GetDatum(task.id), false);
		jq_column_add(&columns[1], TimestampTzGetDatum(task.planned), false);
		jq_column_add(&columns[2], TimestampTzGetDatum(next), false);
	}
	SPI_freetuptable(rows);
	if (columns[0].count == 0)
		return true;
	for (int i = 0; i < (int) lengthof(types); i++)
		values[i] = jq_column_array(&columns[i]);
	values[lengthof(types)] = TimestampTzGetDatum(now);
	return jq_statement_execute(&update_plans, values, NULL, 0) ==
		(uint64) columns[0].count;
}

/*
 * An interval goes on as it is, unless the clock was set back behind the
 * moment of its plan; then by the same steps.  What is wrong with a task is
 * found when it is due.
 */
static TimestampTz
new_plan(const JqTaskRow *task, TimestampTz planned_at, TimestampTz now)
{
	JqCronPlan	plan;
	TimestampTz next;

	if (jq_task_row_plan(task, &plan) != NULL ||
		(plan.expr.kind == JQ_CRON_INTERVAL && planned_at <= now))
		return task->planned;
	next = jq_plan_next(&plan, now, task->planned);
	return TIMESTAMP_IS_NOEND(next) ? task->planned : next;
}
