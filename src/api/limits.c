/*-------------------------------------------------------------------------
 *
 * limits.c
 *	  throttle_job_type(), and what shared memory counts of limits.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/arguments.h"
#include "base/interval.h"
#include "base/names.h"
#include "base/scope.h"
#include "base/statement.h"
#include "queue/activity.h"
#include "queue/limits.h"

PG_FUNCTION_INFO_V1(jobqueue_throttle_job_type);
PG_FUNCTION_INFO_V1(jobqueue_limit_counts);

#define MAX_DELAY_US (366 * USECS_PER_DAY)
#define COUNT_COLUMNS 6

/* Of several callers, the one who knows of the longest delay counts. */
static JqStatement throttle = {
	.text = "INSERT INTO @.job_types AS t (job_type, runner, throttled_until)"
	" VALUES ($1, CASE WHEN $1 IN ('sql', 'http') THEN $1 ELSE 'external' END,"
	" $2) ON CONFLICT (job_type) DO UPDATE SET throttled_until = $2"
	" WHERE t.throttled_until IS NULL OR t.throttled_until < $2",
	.nargs = 2,
	.argtypes = {TEXTOID, TIMESTAMPTZOID}
};

static JqStatement end_throttle = {
	.text = "UPDATE @.job_types SET throttled_until = NULL"
	" WHERE job_type = $1 AND throttled_until > clock_timestamp()",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

Datum
jobqueue_throttle_job_type(PG_FUNCTION_ARGS)
{
	Datum		values[2];
	char	   *job_type;
	int64		delay_us;
	bool		is_changed;

	jq_argument_required(fcinfo, 0, "job_type");
	jq_argument_required(fcinfo, 1, "delay");
	job_type = jq_argument_text(fcinfo, 0);
	jq_name_check_required(job_type, "job_type");
	delay_us = jq_interval_us(PG_GETARG_INTERVAL_P(1), "delay", 0,
							  MAX_DELAY_US);
	values[0] = CStringGetTextDatum(job_type);
	values[1] = TimestampTzGetDatum(GetCurrentTimestamp() + delay_us);
	jq_scope_enter(JQ_WRITE_PLAIN);
	is_changed = jq_statement_execute(delay_us > 0 ? &throttle : &end_throttle,
									  values, NULL, 0) > 0;
	jq_scope_leave();
	if (is_changed && delay_us == 0)
		jq_activity_wake_at_commit();
	PG_RETURN_BOOL(is_changed);
}

/* No rows when the library was not preloaded. */
Datum
jobqueue_limit_counts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JqLimitCount *counts;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	count = jq_limits_list(&counts);
	for (int i = 0; i < count; i++)
	{
		Datum		values[COUNT_COLUMNS];
		bool		nulls[COUNT_COLUMNS] = {false};

		values[0] = CStringGetTextDatum(counts[i].job_type);
		values[1] = Int32GetDatum(counts[i].running);
		nulls[1] = !counts[i].is_counted;
		values[2] = Int32GetDatum(counts[i].available);
		nulls[2] = !counts[i].has_rate;
		values[3] = TimestampTzGetDatum(counts[i].next_at);
		nulls[3] = !counts[i].has_rate;
		values[4] = Int32GetDatum(counts[i].groups);
		values[5] = Int32GetDatum(counts[i].ready_groups);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
