/*-------------------------------------------------------------------------
 *
 * definition.c
 *	  The row trigger of cron_tasks: checks a definition and plans it.
 *
 * next_run_at is the plan.  The trigger computes it when a definition begins
 * to mean other instants, and writes the time into planned_at; a plan that
 * somebody sets by hand has none, and stands until it is due.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/interval.h"
#include "base/names.h"
#include "base/ownership.h"
#include "base/rows.h"
#include "base/scope.h"
#include "cron/task_row.h"
#include "cron/template.h"
#include "cron/zone.h"

PG_FUNCTION_INFO_V1(jobqueue_guard_cron_task);

#define MAX_DEADLINE_US (366 * USECS_PER_DAY)
#define MAX_JITTER_US USECS_PER_DAY
#define MAX_KEY_LENGTH 512

/* What the trigger writes. */
enum
{
	SET_ENABLED, SET_RUN_ON_START, SET_NEXT_RUN_AT, SET_PLANNED_AT,
	SET_START_SEEN_AT, SET_DECIDED_UNTIL, SET_DISABLED_REASON, SET_COUNT
};

static const char *const set_columns[SET_COUNT] = {
	"enabled", "run_on_start", "next_run_at", "planned_at", "start_seen_at",
	"decided_until", "disabled_reason"
};

/* A row on its way through the trigger. */
typedef struct Definition
{
	TriggerData *trigger;
	TupleDesc	desc;
	HeapTuple	row;
	JqCronPlan	plan;
	Datum		values[SET_COUNT];
	bool		nulls[SET_COUNT];
} Definition;

static HeapTuple settle(TriggerData *trigger, HeapTuple row);
static bool has_required(const Definition *task);
static bool is_restored(const Definition *task);
static void check_names(Definition *task);
static void check_policies(Definition *task);
static void check_bounds(Definition *task);
static void settle_start(Definition *task);
static void settle_plan(Definition *task);
static bool is_planned_by_hand(const Definition *task);
static bool means_other_instants(const Definition *task);
static void end(Definition *task, const char *reason);
static Datum value_of(const Definition *task, const char *column, bool *isnull);
static char *text_of(const Definition *task, const char *column);
static int64 number_of(const Definition *task, const char *column,
					   int64 otherwise);
static TimestampTz instant_of(const Definition *task, const char *column,
							  TimestampTz otherwise);
static int64 length_of(const Definition *task, const char *column,
					   int64 min_us, int64 max_us, int64 otherwise);
static bool changes(const Definition *task, const char *column);
static void set(Definition *task, int column, Datum value);
static void clear(Definition *task, int column);

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
		row = settle(trigger, row);
	return PointerGetDatum(row);
}

/* Checks a definition, and returns it with its plan. */
static HeapTuple
settle(TriggerData *trigger, HeapTuple row)
{
	Definition	task = {
		.trigger = trigger,
		.desc = RelationGetDescr(trigger->tg_relation),
		.row = row
	};
	int			columns[SET_COUNT];

	if (!has_required(&task) || is_restored(&task))
		return row;
	check_names(&task);
	check_policies(&task);
	check_bounds(&task);
	for (int i = 0; i < SET_COUNT; i++)
	{
		columns[i] = SPI_fnumber(task.desc, set_columns[i]);
		task.values[i] = value_of(&task, set_columns[i], &task.nulls[i]);
	}
	settle_start(&task);
	settle_plan(&task);
	return heap_modify_tuple_by_cols(row, task.desc, SET_COUNT, columns,
									 task.values, task.nulls);
}

/* If not, the NOT NULL constraint says so. */
static bool
has_required(const Definition *task)
{
	for (int i = 0; i < task->desc->natts; i++)
		if (TupleDescAttr(task->desc, i)->attnotnull &&
			heap_attisnull(task->row, i + 1, task->desc))
			return false;
	return true;
}

/*
 * A restore brings the plan along, and must not fail because rules or zones
 * are others here: what is wrong then is found when the task is due.
 */
static bool
is_restored(const Definition *task)
{
	bool		has_plan = instant_of(task, "next_run_at", DT_NOEND) != DT_NOEND;
	bool		isnull;
	bool		is_enabled = DatumGetBool(value_of(task, "enabled", &isnull));

	return TRIGGER_FIRED_BY_INSERT(task->trigger->tg_event) &&
		(has_plan || !is_enabled) &&
		jq_ownership_is_restore(jq_scope_caller(),
								instant_of(task, "updated_at", 0));
}

static void
check_names(Definition *task)
{
	char	   *key = text_of(task, "unique_key");
	bool		isnull;

	jq_name_check_required(text_of(task, "name"), "name");
	jq_name_check_required(text_of(task, "job_type"), "job_type");
	jq_cron_parse_or_error(text_of(task, "schedule"), &task->plan.expr);
	task->plan.zone = jq_zone_find_or_error(text_of(task, "timezone"));
	jq_template_check_jsonb(value_of(task, "payload", &isnull), "payload");
	if (key != NULL)
	{
		jq_name_check(key, "unique_key", 1, MAX_KEY_LENGTH);
		jq_template_check(key, "unique_key");
	}
}

static void
check_policies(Definition *task)
{
	JqOverlap	overlap;

	if (!jq_catch_up_by_name(text_of(task, "catch_up"), &task->plan.catch_up))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized catch_up \"%s\"", text_of(task, "catch_up")),
				 errhint("It is none, latest or all.")));
	if (!jq_overlap_by_name(text_of(task, "overlap"), &overlap))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized overlap \"%s\"", text_of(task, "overlap")),
				 errhint("It is allow, skip or replace.")));
	jq_range_check((int) number_of(task, "catch_up_limit", 1), "catch_up_limit",
				   1, JQ_PLAN_MAX_INSTANTS);
	(void) length_of(task, "start_deadline", USECS_PER_SEC, MAX_DEADLINE_US, 0);
	(void) length_of(task, "jitter", 0, MAX_JITTER_US, 0);
	if (number_of(task, "max_runs", 1) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_runs must be at least 1"),
				 errhint("Leave it null for no limit.")));
}

static void
check_bounds(Definition *task)
{
	task->plan.starts_at = instant_of(task, "starts_at", DT_NOBEGIN);
	task->plan.ends_at = instant_of(task, "ends_at", DT_NOEND);
	if (TIMESTAMP_IS_NOEND(task->plan.starts_at) ||
		TIMESTAMP_IS_NOBEGIN(task->plan.ends_at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("starts_at and ends_at must be finite, or null")));
	if (task->plan.ends_at < task->plan.starts_at)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("ends_at must not be before starts_at")));
}

/*
 * The start of the server that is past by now counts only for a task that
 * wanted to run on it before.
 */
static void
settle_start(Definition *task)
{
	if (task->plan.expr.kind == JQ_CRON_REBOOT)
		set(task, SET_RUN_ON_START, BoolGetDatum(true));
	if (changes(task, "enabled") || changes(task, "run_on_start") ||
		changes(task, "schedule"))
		set(task, SET_START_SEEN_AT, TimestampTzGetDatum(PgStartTime));
}

/* A disabled task has no plan, and keeps the reason that it has. */
static void
settle_plan(Definition *task)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next;
	bool		isnull;

	if (!DatumGetBool(task->values[SET_ENABLED]))
	{
		clear(task, SET_NEXT_RUN_AT);
		clear(task, SET_PLANNED_AT);
		return;
	}
	clear(task, SET_DISABLED_REASON);
	/* What was decided about other instants says nothing of these. */
	if (changes(task, "schedule") || changes(task, "timezone"))
		clear(task, SET_DECIDED_UNTIL);
	if (number_of(task, "max_runs", PG_INT64_MAX) <=
		DatumGetInt64(value_of(task, "run_count", &isnull)))
		end(task, "max_runs is reached");
	else if (is_planned_by_hand(task))
	{
		if (TRIGGER_FIRED_BY_UPDATE(task->trigger->tg_event))
			clear(task, SET_PLANNED_AT);
	}
	else if (task->plan.expr.kind == JQ_CRON_REBOOT)
	{
		clear(task, SET_NEXT_RUN_AT);
		clear(task, SET_PLANNED_AT);
		if (task->plan.ends_at < now)
			end(task, "ends_at has passed");
	}
	else if (means_other_instants(task))
	{
		next = jq_plan_first(&task->plan, now);
		set(task, SET_NEXT_RUN_AT, TimestampTzGetDatum(next));
		set(task, SET_PLANNED_AT, TimestampTzGetDatum(now));
		if (TIMESTAMP_IS_NOEND(next))
			end(task, TIMESTAMP_IS_NOEND(task->plan.ends_at) ?
				"the schedule has no further instants" : "ends_at has passed");
	}
}

static bool
is_planned_by_hand(const Definition *task)
{
	bool		has_plan = !TIMESTAMP_NOT_FINITE(instant_of(task, "next_run_at",
															DT_NOEND));

	if (TRIGGER_FIRED_BY_INSERT(task->trigger->tg_event))
		return has_plan;
	return has_plan && changes(task, "next_run_at");
}

static bool
means_other_instants(const Definition *task)
{
	return TIMESTAMP_NOT_FINITE(instant_of(task, "next_run_at", DT_NOEND)) ||
		changes(task, "schedule") || changes(task, "timezone") ||
		changes(task, "enabled") || changes(task, "starts_at") ||
		changes(task, "ends_at");
}

/* A task that is over is no error: whoever deploys it once more means no harm. */
static void
end(Definition *task, const char *reason)
{
	set(task, SET_ENABLED, BoolGetDatum(false));
	set(task, SET_DISABLED_REASON, CStringGetTextDatum(reason));
	clear(task, SET_NEXT_RUN_AT);
	clear(task, SET_PLANNED_AT);
	ereport(NOTICE,
			(errmsg("cron task \"%s\" is over: %s",
					text_of(task, "name"), reason)));
}

/* ---- values ---- */

static Datum
value_of(const Definition *task, const char *column, bool *isnull)
{
	return jq_row_value(task->row, task->desc, column, isnull);
}

static char *
text_of(const Definition *task, const char *column)
{
	bool		isnull;
	Datum		value = value_of(task, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/* Of an integer or a bigint. */
static int64
number_of(const Definition *task, const char *column, int64 otherwise)
{
	bool		isnull;
	Datum		value = value_of(task, column, &isnull);
	int			number = SPI_fnumber(task->desc, column);

	if (isnull)
		return otherwise;
	return TupleDescAttr(task->desc, number - 1)->attlen == sizeof(int32) ?
		DatumGetInt32(value) : DatumGetInt64(value);
}

static TimestampTz
instant_of(const Definition *task, const char *column, TimestampTz otherwise)
{
	bool		isnull;
	Datum		value = value_of(task, column, &isnull);

	return isnull ? otherwise : DatumGetTimestampTz(value);
}

static int64
length_of(const Definition *task, const char *column, int64 min_us,
		  int64 max_us, int64 otherwise)
{
	bool		isnull;
	Datum		value = value_of(task, column, &isnull);

	return isnull ? otherwise :
		jq_interval_us(DatumGetIntervalP(value), column, min_us, max_us);
}

static bool
changes(const Definition *task, const char *column)
{
	return jq_row_changes(task->trigger, column);
}

static void
set(Definition *task, int column, Datum value)
{
	task->values[column] = value;
	task->nulls[column] = false;
}

static void
clear(Definition *task, int column)
{
	task->nulls[column] = true;
}
