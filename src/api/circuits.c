/*-------------------------------------------------------------------------
 *
 * circuits.c
 *	  SQL functions of operators about circuit breakers.
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
#include "queue/circuit_counts.h"
#include "queue/circuits.h"

PG_FUNCTION_INFO_V1(jobqueue_open_circuit);
PG_FUNCTION_INFO_V1(jobqueue_close_circuit);
PG_FUNCTION_INFO_V1(jobqueue_circuit_counts);

#define MAX_DURATION_US (366 * USECS_PER_DAY)
#define COUNT_COLUMNS 5

static char *job_type_argument(FunctionCallInfo fcinfo);

Datum
jobqueue_open_circuit(PG_FUNCTION_ARGS)
{
	char	   *job_type = job_type_argument(fcinfo);
	char	   *stage;
	char	   *reason = jq_argument_text(fcinfo, 3);
	int64		duration_us = 0;

	jq_argument_required(fcinfo, 1, "stage");
	stage = jq_argument_text(fcinfo, 1);
	jq_name_check(stage, "stage", 0, 255);
	if (!PG_ARGISNULL(2))
		duration_us = jq_interval_us(PG_GETARG_INTERVAL_P(2), "duration", 1000,
									 MAX_DURATION_US);
	if (reason != NULL)
		jq_name_check(reason, "reason", 0, JQ_CIRCUIT_MAX_REASON);
	PG_RETURN_BOOL(jq_circuit_force_open(job_type, stage, duration_us, reason));
}

Datum
jobqueue_close_circuit(PG_FUNCTION_ARGS)
{
	char	   *job_type = job_type_argument(fcinfo);
	char	   *stage = jq_argument_text(fcinfo, 1);

	if (stage != NULL)
		jq_name_check(stage, "stage", 0, 255);
	PG_RETURN_INT32(jq_circuit_force_close(job_type, stage));
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

/* No rows when the library was not preloaded. */
Datum
jobqueue_circuit_counts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JqCircuitCount *counts;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	count = jq_circuit_counts_list(false, &counts);
	for (int i = 0; i < count; i++)
	{
		bool		is_closed = counts[i].tripped_at == 0;
		Datum		values[COUNT_COLUMNS];
		bool		nulls[COUNT_COLUMNS] = {false};

		values[0] = CStringGetTextDatum(counts[i].name.job_type);
		values[1] = CStringGetTextDatum(counts[i].name.stage);
		values[2] = Int32GetDatum(counts[i].failures);
		values[3] = TimestampTzGetDatum(counts[i].tripped_at);
		values[4] = TimestampTzGetDatum(counts[i].retry_at);
		nulls[3] = nulls[4] = is_closed;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
