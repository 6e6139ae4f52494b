/*-------------------------------------------------------------------------
 *
 * alerts.c
 *	  SQL functions about alerts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/arguments.h"
#include "base/config.h"
#include "base/names.h"
#include "queue/alerts.h"
#include "queue/failure_counts.h"

PG_FUNCTION_INFO_V1(jobqueue_failure_counts);
PG_FUNCTION_INFO_V1(jobqueue_evaluate_alerts);
PG_FUNCTION_INFO_V1(jobqueue_test_alert_sink);

#define COUNT_COLUMNS 8

static void put_count(ReturnSetInfo *rsinfo, const JqFailureCount *count);
static void put_failures(const JqFailureCount *count, Datum *values);

/* No rows when the library was not preloaded. */
Datum
jobqueue_failure_counts(PG_FUNCTION_ARGS)
{
	JqFailureCount *counts;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	count = jq_failure_counts_list(&counts);
	for (int i = 0; i < count; i++)
		put_count((ReturnSetInfo *) fcinfo->resultinfo, &counts[i]);
	return (Datum) 0;
}

/* One row; the order of the columns is that of _failure_counts(). */
static void
put_count(ReturnSetInfo *rsinfo, const JqFailureCount *count)
{
	Datum		values[COUNT_COLUMNS];
	bool		nulls[COUNT_COLUMNS] = {false};

	values[0] = CStringGetTextDatum(count->name.job_type);
	values[1] = CStringGetTextDatum(count->name.stage);
	nulls[1] = count->name.subject != JQ_FAILURES_OF_STAGE;
	values[2] = Int32GetDatum(count->streak);
	values[3] = TimestampTzGetDatum(count->streak_since);
	nulls[3] = count->streak == 0;
	values[4] = TimestampTzGetDatum(count->last_failure_at);
	put_failures(count, &values[5]);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* Three arrays of the same length, the newest first. */
static void
put_failures(const JqFailureCount *count, Datum *values)
{
	Datum		instants[JQ_FAILURE_PLACES];
	Datum		jobs[JQ_FAILURE_PLACES];
	Datum		claims[JQ_FAILURE_PLACES];

	for (int i = 0; i < count->nlast; i++)
	{
		const JqFailedRun *failure =
		&count->last[(count->next + JQ_FAILURE_PLACES - 1 - i) % JQ_FAILURE_PLACES];

		instants[i] = TimestampTzGetDatum(failure->at);
		jobs[i] = Int64GetDatum(failure->job_id);
		claims[i] = Int32GetDatum(failure->claim_no);
	}
	values[0] = PointerGetDatum(construct_array(instants, count->nlast, TIMESTAMPTZOID,
												sizeof(TimestampTz), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[1] = PointerGetDatum(construct_array(jobs, count->nlast, INT8OID,
												sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[2] = PointerGetDatum(construct_array(claims, count->nlast, INT4OID,
												sizeof(int32), true, TYPALIGN_INT));
}

Datum
jobqueue_evaluate_alerts(PG_FUNCTION_ARGS)
{
	TimestampTz now = PG_ARGISNULL(0) ? GetCurrentTimestamp() :
	PG_GETARG_TIMESTAMPTZ(0);

	if (TIMESTAMP_NOT_FINITE(now))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"at\" must be finite")));
	PreventCommandIfReadOnly("_evaluate_alerts()");
	if (!jq_config_alerts_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("alerts are off"),
				 errhint("Set jobqueue.alerts_enabled.")));
	PG_RETURN_INT32(jq_alerts_evaluate(now));
}

Datum
jobqueue_test_alert_sink(PG_FUNCTION_ARGS)
{
	char	   *name;
	int64		job_id;

	jq_argument_required(fcinfo, 0, "name");
	name = jq_argument_text(fcinfo, 0);
	jq_name_check_required(name, "name");
	job_id = jq_alerts_test(name);
	if (job_id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(job_id);
}
