/*-------------------------------------------------------------------------
 *
 * limits.c
 *	  throttle_job_type(), and what shared memory counts of limits.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/arguments.h"
#include "base/interval.h"
#include "base/names.h"
#include "queue/limits.h"
#include "queue/throttle.h"

PG_FUNCTION_INFO_V1(jobqueue_throttle_job_type);
PG_FUNCTION_INFO_V1(jobqueue_limit_counts);

#define MAX_DELAY_US (366 * USECS_PER_DAY)
#define COUNT_COLUMNS 6

Datum
jobqueue_throttle_job_type(PG_FUNCTION_ARGS)
{
	char	   *job_type;
	int64		delay_us;

	jq_argument_required(fcinfo, 0, "job_type");
	jq_argument_required(fcinfo, 1, "delay");
	job_type = jq_argument_text(fcinfo, 0);
	jq_name_check_required(job_type, "job_type");
	delay_us = jq_interval_us(PG_GETARG_INTERVAL_P(1), "delay", 0,
							  MAX_DELAY_US);
	PG_RETURN_BOOL(jq_throttle_job_type(job_type, delay_us));
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
