/*-------------------------------------------------------------------------
 *
 * metrics.c
 *	  What shared memory counts of jobs, and the metrics of users.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "api/arguments.h"
#include "base/names.h"
#include "queue/job_counts.h"
#include "queue/metric_memory.h"
#include "queue/user_metrics.h"

PG_FUNCTION_INFO_V1(jobqueue_job_metrics);
PG_FUNCTION_INFO_V1(jobqueue_job_counts);
PG_FUNCTION_INFO_V1(jobqueue_metric_bounds);
PG_FUNCTION_INFO_V1(jobqueue_job_metric_add);
PG_FUNCTION_INFO_V1(jobqueue_job_metric_observe);
PG_FUNCTION_INFO_V1(jobqueue_user_metrics);

#define METRIC_COLUMNS (2 + JQ_METRIC_COUNTERS + 2 * JQ_METRIC_TIMES)
#define COUNT_COLUMNS 9
#define USER_COLUMNS 5

static Datum bucket_array(JqStageMetrics *stage, int time);
static void count_for_user(FunctionCallInfo fcinfo, JqUserMetricKind kind,
						   const char *argument);
static char *labels_text(Jsonb *labels);

/* No rows when the library was not preloaded. */
Datum
jobqueue_job_metrics(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JqStageMetrics **stages;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	count = jq_metric_stages(&stages);
	for (int i = 0; i < count; i++)
	{
		JqStageMetrics *stage = stages[i];
		Datum		values[METRIC_COLUMNS];
		bool		nulls[METRIC_COLUMNS] = {false};
		int			column = 0;

		values[column++] = CStringGetTextDatum(stage->name.job_type);
		values[column++] = CStringGetTextDatum(stage->name.stage);
		for (int c = 0; c < JQ_METRIC_COUNTERS; c++)
			values[column++] = Int64GetDatum(pg_atomic_read_u64(&stage->counts[c]));
		for (int t = 0; t < JQ_METRIC_TIMES; t++)
		{
			values[column++] = Int64GetDatum(pg_atomic_read_u64(&stage->us[t]));
			values[column++] = bucket_array(stage, t);
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

static Datum
bucket_array(JqStageMetrics *stage, int time)
{
	Datum		elements[JQ_METRIC_BUCKETS];

	for (int i = 0; i < JQ_METRIC_BUCKETS; i++)
		elements[i] = Int64GetDatum(pg_atomic_read_u64(&stage->buckets[time][i]));
	return PointerGetDatum(construct_array(elements, JQ_METRIC_BUCKETS,
										   INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

Datum
jobqueue_job_counts(PG_FUNCTION_ARGS)
{
	static const JqStatus statuses[] = {
		JQ_STATUS_QUEUED, JQ_STATUS_RUNNING, JQ_STATUS_BLOCKED,
		JQ_STATUS_COMPLETED, JQ_STATUS_FAILED, JQ_STATUS_ERROR,
		JQ_STATUS_CANCELLED
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JqJobCounts *counts;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	count = jq_job_counts_list(&counts);
	for (int i = 0; i < count; i++)
	{
		Datum		values[COUNT_COLUMNS];
		bool		nulls[COUNT_COLUMNS] = {false};
		int			column = 0;

		values[column++] = CStringGetTextDatum(counts[i].job_type);
		values[column++] = Int64GetDatum(counts[i].scheduled);
		for (int s = 0; s < (int) lengthof(statuses); s++)
			values[column++] = Int64GetDatum(counts[i].jobs[statuses[s]]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* In seconds, ascending. */
Datum
jobqueue_metric_bounds(PG_FUNCTION_ARGS)
{
	Datum		elements[JQ_METRIC_BOUNDS];

	for (int i = 0; i < JQ_METRIC_BOUNDS; i++)
		elements[i] = Float8GetDatum(jq_metric_bounds_us[i] / 1000000.0);
	PG_RETURN_ARRAYTYPE_P(construct_array(elements, JQ_METRIC_BOUNDS,
										  FLOAT8OID, sizeof(float8),
										  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* ---- metrics of users ---- */

Datum
jobqueue_job_metric_add(PG_FUNCTION_ARGS)
{
	count_for_user(fcinfo, JQ_USER_COUNTER, "n");
	PG_RETURN_VOID();
}

Datum
jobqueue_job_metric_observe(PG_FUNCTION_ARGS)
{
	count_for_user(fcinfo, JQ_USER_TIMER, "value");
	PG_RETURN_VOID();
}

/*
 * A metric too many must not fail the job that tells of it, nor fill the log:
 * a session says it once.
 */
static void
count_for_user(FunctionCallInfo fcinfo, JqUserMetricKind kind,
			   const char *argument)
{
	static bool has_warned = false;
	char	   *name;
	char	   *labels;
	double		value;

	jq_argument_required(fcinfo, 0, "name");
	jq_argument_required(fcinfo, 1, argument);
	jq_argument_required(fcinfo, 2, "labels");
	name = jq_argument_text(fcinfo, 0);
	jq_name_check(name, "name", 1, JQ_USER_METRIC_NAME_SIZE - 4);
	value = PG_GETARG_FLOAT8(1);
	if (isnan(value) || isinf(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a finite number", argument)));
	if (kind == JQ_USER_COUNTER && value < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative: counters only grow", argument),
				 errhint("Use job_metric_observe() for values that rise and fall.")));
	labels = labels_text(PG_GETARG_JSONB_P(2));
	if (!jq_user_metric_count(kind, name, labels, value) && !has_warned)
	{
		has_warned = true;
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("metric \"%s\" is not counted: there are too many", name),
				 errhint("Use fewer labels, or increase jobqueue.max_user_metrics.")));
	}
}

/* One level of an object; equal ones have equal texts. */
static char *
labels_text(Jsonb *labels)
{
	JsonbIterator *iterator = JsonbIteratorInit(&labels->root);
	JsonbValue	value;
	JsonbIteratorToken token = JsonbIteratorNext(&iterator, &value, true);
	char	   *result;

	if (token != WJB_BEGIN_OBJECT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("labels must be a JSON object"),
				 errhint("For example {\"region\": \"eu\"}.")));
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
		if (token == WJB_VALUE &&
			(value.type == jbvBinary || value.type == jbvNull))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the values of labels must be strings, numbers or booleans")));
	result = JsonbToCString(NULL, &labels->root, VARSIZE(labels));
	if (strlen(result) >= JQ_USER_METRIC_LABELS_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("labels must have at most %d bytes as text",
						JQ_USER_METRIC_LABELS_SIZE - 1)));
	return result;
}

Datum
jobqueue_user_metrics(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JqUserMetric *metrics;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	count = jq_user_metrics_list(&metrics);
	for (int i = 0; i < count; i++)
	{
		Datum		values[USER_COLUMNS];
		bool		nulls[USER_COLUMNS] = {false};

		values[0] = CStringGetTextDatum(metrics[i].kind == JQ_USER_COUNTER ?
										"counter" : "timer");
		values[1] = CStringGetTextDatum(metrics[i].name);
		values[2] = DirectFunctionCall1(jsonb_in,
										CStringGetDatum(metrics[i].labels));
		values[3] = Int64GetDatum(metrics[i].count);
		values[4] = Float8GetDatum(metrics[i].sum);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
