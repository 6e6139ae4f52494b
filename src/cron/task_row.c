/*-------------------------------------------------------------------------
 *
 * task_row.c
 *	  Rows of cron_tasks as the C code reads them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/int.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/interval.h"
#include "base/statement.h"
#include "cron/task_row.h"
#include "cron/zone.h"

#define MAX_LENGTH_US (366 * USECS_PER_DAY)

/* In the order of JQ_TASK_COLUMNS. */
enum
{
	TASK_ID = 1, TASK_NAME, TASK_SCHEDULE, TASK_TIMEZONE, TASK_OWNER,
	TASK_NEXT_RUN_AT, TASK_PAYLOAD, TASK_UNIQUE_KEY, TASK_CATCH_UP,
	TASK_CATCH_UP_LIMIT, TASK_START_DEADLINE, TASK_OVERLAP, TASK_JITTER,
	TASK_STARTS_AT, TASK_ENDS_AT, TASK_MAX_RUNS, TASK_RUN_COUNT,
	TASK_DECIDED_UNTIL
};

StaticAssertDecl(TASK_DECIDED_UNTIL == JQ_TASK_NCOLUMNS,
				 "JQ_TASK_NCOLUMNS does not count JQ_TASK_COLUMNS");

static const char *const catch_up_names[] = {
	[JQ_CATCH_UP_NONE] = "none",
	[JQ_CATCH_UP_LATEST] = "latest",
	[JQ_CATCH_UP_ALL] = "all"
};

static const char *const overlap_names[] = {
	[JQ_OVERLAP_ALLOW] = "allow",
	[JQ_OVERLAP_SKIP] = "skip",
	[JQ_OVERLAP_REPLACE] = "replace"
};

static Datum value_or(uint64 row, int column, Datum otherwise);
static int64 length_or(uint64 row, int column, int64 otherwise);
static int64 runs_left(uint64 row);
static int	find_name(const char *const *names, int count, const char *name);

void
jq_task_row_read(JqTaskRow *task, uint64 row)
{
	Datum		key = value_or(row, TASK_UNIQUE_KEY, 0);
	Datum		payload = jq_statement_value(row, TASK_PAYLOAD);

	task->id = DatumGetInt64(jq_statement_value(row, TASK_ID));
	task->name = TextDatumGetCString(jq_statement_value(row, TASK_NAME));
	task->schedule = TextDatumGetCString(jq_statement_value(row, TASK_SCHEDULE));
	task->timezone = TextDatumGetCString(jq_statement_value(row, TASK_TIMEZONE));
	task->owner = DatumGetObjectId(value_or(row, TASK_OWNER,
											ObjectIdGetDatum(InvalidOid)));
	task->planned = DatumGetTimestampTz(value_or(row, TASK_NEXT_RUN_AT,
												 TimestampTzGetDatum(DT_NOEND)));
	task->payload = datumCopy(payload, false, -1);
	task->unique_key = key == 0 ? NULL : TextDatumGetCString(key);
	if (!jq_catch_up_by_name(TextDatumGetCString(jq_statement_value(row, TASK_CATCH_UP)),
							 &task->catch_up))
		task->catch_up = JQ_CATCH_UP_LATEST;
	task->catch_up_limit =
		DatumGetInt32(jq_statement_value(row, TASK_CATCH_UP_LIMIT));
	task->start_deadline_us = length_or(row, TASK_START_DEADLINE, -1);
	if (!jq_overlap_by_name(TextDatumGetCString(jq_statement_value(row, TASK_OVERLAP)),
							&task->overlap))
		task->overlap = JQ_OVERLAP_ALLOW;
	task->jitter_us = length_or(row, TASK_JITTER, 0);
	task->starts_at =
		DatumGetTimestampTz(value_or(row, TASK_STARTS_AT,
									 TimestampTzGetDatum(DT_NOBEGIN)));
	task->ends_at =
		DatumGetTimestampTz(value_or(row, TASK_ENDS_AT,
									 TimestampTzGetDatum(DT_NOEND)));
	task->runs_left = runs_left(row);
	task->decided_until =
		DatumGetTimestampTz(value_or(row, TASK_DECIDED_UNTIL,
									 TimestampTzGetDatum(DT_NOBEGIN)));
}

const char *
jq_task_row_plan(const JqTaskRow *task, JqCronPlan *plan)
{
	JqCronError error;

	if (!jq_cron_parse(task->schedule, strlen(task->schedule), &plan->expr,
					   &error))
		return pstrdup(error.message);
	plan->zone = jq_zone_find(task->timezone);
	if (plan->zone == NULL)
		return psprintf("time zone \"%s\" not recognized", task->timezone);
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(task->owner)))
		return "the owner of the task no longer exists";
	plan->starts_at = task->starts_at;
	plan->ends_at = task->ends_at;
	plan->catch_up = task->catch_up;
	plan->catch_up_limit = Min(Max(task->catch_up_limit, 1),
							   JQ_PLAN_MAX_INSTANTS);
	plan->start_deadline_us = task->start_deadline_us;
	return NULL;
}

bool
jq_catch_up_by_name(const char *name, JqCatchUp *value)
{
	int			found = find_name(catch_up_names, lengthof(catch_up_names), name);

	*value = (JqCatchUp) Max(found, 0);
	return found >= 0;
}

bool
jq_overlap_by_name(const char *name, JqOverlap *value)
{
	int			found = find_name(overlap_names, lengthof(overlap_names), name);

	*value = (JqOverlap) Max(found, 0);
	return found >= 0;
}

static Datum
value_or(uint64 row, int column, Datum otherwise)
{
	bool		isnull;
	Datum		value = jq_statement_nullable(row, column, &isnull);

	return isnull ? otherwise : value;
}

/* Of an interval; a restored row may have one that the trigger would refuse. */
static int64
length_or(uint64 row, int column, int64 otherwise)
{
	bool		isnull;
	Datum		value = jq_statement_nullable(row, column, &isnull);

	return isnull ? otherwise :
		jq_interval_clamped_us(DatumGetIntervalP(value), MAX_LENGTH_US);
}

/* run_count is any number that somebody has written there. */
static int64
runs_left(uint64 row)
{
	bool		isnull;
	Datum		max_runs = jq_statement_nullable(row, TASK_MAX_RUNS, &isnull);
	int64		run_count = DatumGetInt64(jq_statement_value(row, TASK_RUN_COUNT));
	int64		result;

	if (isnull)
		return PG_INT64_MAX;
	if (pg_sub_s64_overflow(DatumGetInt64(max_runs), run_count, &result))
		return run_count < 0 ? PG_INT64_MAX : 0;
	return result;
}

static int
find_name(const char *const *names, int count, const char *name)
{
	for (int i = 0; i < count; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}
