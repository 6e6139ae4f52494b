/*-------------------------------------------------------------------------
 *
 * enqueue.c
 *	  SQL functions that enqueue jobs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "api/arguments.h"
#include "base/compat.h"
#include "queue/enqueue.h"
#include "queue/job_types.h"
#include "queue/validate.h"
#include "queue/workflow.h"

PG_FUNCTION_INFO_V1(jobqueue_enqueue_job);
PG_FUNCTION_INFO_V1(jobqueue_enqueue_jobs);
PG_FUNCTION_INFO_V1(jobqueue_enqueue_job_batch);
PG_FUNCTION_INFO_V1(jobqueue_enqueue_sql);

static void read_common(FunctionCallInfo fcinfo, JqNewJob *job,
						int scheduled_at);
static void return_id(FunctionCallInfo fcinfo, int64 id);
static void check_payloads(ArrayType *payloads);
static void enqueue_each(FunctionCallInfo fcinfo, const JqNewJob *job,
						 ArrayType *payloads, ArrayType *unique_keys);
static void return_ids(FunctionCallInfo fcinfo, JqNewJob *jobs, int count);
static void read_object(Jsonb *object, int number, JqNewJob *job);
static bool set_member(JqNewJob *job, const char *key, JsonbValue *value);
static Datum member_text(const char *key, JsonbValue *value);
static Datum member_interval(const char *key, JsonbValue *value);
static int32 member_integer(const char *key, JsonbValue *value);
static Datum member_array(const char *key, JsonbValue *value, Oid type);
pg_noreturn static void wrong_member(const char *key, const char *type);

Datum
jobqueue_enqueue_job(PG_FUNCTION_ARGS)
{
	JqNewJob	job = {0};

	jq_argument_required(fcinfo, 0, "job_type");
	job.job_type = PG_GETARG_DATUM(0);
	job.payload = jq_argument_datum(fcinfo, 1);
	read_common(fcinfo, &job, 2);
	job.unique_key = jq_argument_datum(fcinfo, 5);
	jq_argument_unique(fcinfo, 6, 15, &job);
	job.group_key = jq_argument_datum(fcinfo, 7);
	job.stage = jq_argument_datum(fcinfo, 8);
	job.correlation_id = jq_argument_datum(fcinfo, 9);
	job.depends_on = jq_argument_datum(fcinfo, 10);
	job.timeout = jq_argument_datum(fcinfo, 11);
	job.tags = jq_argument_datum(fcinfo, 12);
	job.metadata = jq_argument_datum(fcinfo, 13);
	if (!PG_ARGISNULL(14))
		job.on_parent_failure =
			jq_dependencies_on_failure(jq_argument_text(fcinfo, 14));
	PG_RETURN_INT64(jq_enqueue(&job));
}

/* scheduled_at, priority and max_attempts, which stand side by side. */
static void
read_common(FunctionCallInfo fcinfo, JqNewJob *job, int scheduled_at)
{
	job->has_scheduled_at = !PG_ARGISNULL(scheduled_at);
	if (job->has_scheduled_at)
		job->scheduled_at = PG_GETARG_TIMESTAMPTZ(scheduled_at);
	if (!PG_ARGISNULL(scheduled_at + 1))
		job->priority = PG_GETARG_INT32(scheduled_at + 1);
	job->has_max_attempts = !PG_ARGISNULL(scheduled_at + 2);
	if (job->has_max_attempts)
		job->max_attempts = PG_GETARG_INT32(scheduled_at + 2);
}

Datum
jobqueue_enqueue_sql(PG_FUNCTION_ARGS)
{
	JqNewJob	job = {0};

	jq_argument_required(fcinfo, 0, "command");
	jq_validate_command(jq_argument_text(fcinfo, 0));
	job.owner = jq_argument_run_as(fcinfo, 12);
	jq_argument_notice_workers();
	job.job_type = CStringGetTextDatum(JQ_SQL_JOB_TYPE);
	job.payload = jq_sql_payload(PG_GETARG_DATUM(0), jq_argument_datum(fcinfo, 1),
								 jq_argument_text(fcinfo, 13));
	read_common(fcinfo, &job, 2);
	job.unique_key = jq_argument_datum(fcinfo, 5);
	jq_argument_unique(fcinfo, 6, 15, &job);
	job.correlation_id = jq_argument_datum(fcinfo, 7);
	job.depends_on = jq_argument_datum(fcinfo, 8);
	job.timeout = jq_argument_datum(fcinfo, 9);
	job.tags = jq_argument_datum(fcinfo, 10);
	job.metadata = jq_argument_datum(fcinfo, 11);
	if (!PG_ARGISNULL(14))
		job.on_parent_failure =
			jq_dependencies_on_failure(jq_argument_text(fcinfo, 14));
	PG_RETURN_INT64(jq_enqueue(&job));
}

Datum
jobqueue_enqueue_jobs(PG_FUNCTION_ARGS)
{
	JqNewJob	job = {0};
	ArrayType  *payloads;
	int64	   *ids;
	int			count;

	jq_argument_required(fcinfo, 0, "job_type");
	jq_argument_required(fcinfo, 1, "payloads");
	payloads = PG_GETARG_ARRAYTYPE_P(1);
	check_payloads(payloads);
	job.job_type = PG_GETARG_DATUM(0);
	read_common(fcinfo, &job, 2);
	job.group_key = jq_argument_datum(fcinfo, 6);
	job.stage = jq_argument_datum(fcinfo, 7);
	job.correlation_id = jq_argument_datum(fcinfo, 8);
	job.timeout = jq_argument_datum(fcinfo, 9);
	job.tags = jq_argument_datum(fcinfo, 10);
	job.metadata = jq_argument_datum(fcinfo, 11);
	jq_argument_unique(fcinfo, 14, 12, &job);

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (!PG_ARGISNULL(5))
		enqueue_each(fcinfo, &job, payloads, PG_GETARG_ARRAYTYPE_P(5));
	else
	{
		ids = jq_enqueue_many(&job, PointerGetDatum(payloads), &count);
		for (int i = 0; i < count; i++)
			return_id(fcinfo, ids[i]);
	}
	return (Datum) 0;
}

static void
check_payloads(ArrayType *payloads)
{
	if (ARR_NDIM(payloads) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("payloads must have one dimension")));
	if (array_contains_nulls(payloads))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("payloads must not contain nulls")));
}

/* With unique keys, each job may turn out to exist. */
static void
enqueue_each(FunctionCallInfo fcinfo, const JqNewJob *job,
			 ArrayType *payloads, ArrayType *unique_keys)
{
	JqNewJob   *jobs;
	Datum	   *payload;
	Datum	   *key;
	bool	   *key_nulls;
	int			npayloads;
	int			nkeys;

	deconstruct_array(payloads, JSONBOID, -1, false, TYPALIGN_INT,
					  &payload, NULL, &npayloads);
	if (ARR_NDIM(unique_keys) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("unique_keys must have one dimension")));
	deconstruct_array(unique_keys, TEXTOID, -1, false, TYPALIGN_INT,
					  &key, &key_nulls, &nkeys);
	if (npayloads != nkeys)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("payloads and unique_keys must have the same length")));
	jobs = palloc(sizeof(JqNewJob) * Max(npayloads, 1));
	for (int i = 0; i < npayloads; i++)
	{
		jobs[i] = *job;
		jobs[i].payload = payload[i];
		jobs[i].unique_key = key_nulls[i] ? (Datum) 0 : key[i];
	}
	return_ids(fcinfo, jobs, npayloads);
}

static void
return_ids(FunctionCallInfo fcinfo, JqNewJob *jobs, int count)
{
	int64	   *ids = palloc(sizeof(int64) * Max(count, 1));

	jq_enqueue_each(jobs, count, ids);
	for (int i = 0; i < count; i++)
		return_id(fcinfo, ids[i]);
}

static void
return_id(FunctionCallInfo fcinfo, int64 id)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		value = Int64GetDatum(id);
	bool		isnull = false;

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value, &isnull);
}

Datum
jobqueue_enqueue_job_batch(PG_FUNCTION_ARGS)
{
	Jsonb	   *jobs;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;
	JqNewJob   *parsed;
	int64	   *ids;
	int			number = 0;

	jq_argument_required(fcinfo, 0, "jobs");
	jobs = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_ARRAY(jobs) || JB_ROOT_IS_SCALAR(jobs))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("jobs must be a JSON array of objects")));

	/* Everything is read before anything is written. */
	parsed = palloc0(sizeof(JqNewJob) * Max(JB_ROOT_COUNT(jobs), 1));
	it = JsonbIteratorInit(&jobs->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (value.type != jbvBinary ||
			!JsonContainerIsObject(value.val.binary.data))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("element %d of jobs must be an object", number + 1)));
		read_object(JsonbValueToJsonb(&value), number + 1, &parsed[number]);
		number++;
	}

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	ids = jq_workflow_enqueue(parsed, number);
	for (int i = 0; i < number; i++)
		return_id(fcinfo, ids[i]);
	return (Datum) 0;
}

static void
read_object(Jsonb *object, int number, JqNewJob *job)
{
	JsonbIterator *it = JsonbIteratorInit(&object->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *key = NULL;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = pnstrdup(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE &&
				 (value.type != jbvNull || strcmp(key, "payload") == 0) &&
				 !set_member(job, key, &value))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unrecognized key \"%s\" in element %d of jobs", key,
							number),
					 errhint("The keys are the arguments of enqueue_job(), \"key\" and \"depends_on_keys\".")));
	}
	if (job->job_type == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("job_type must not be null"),
				 errdetail("Element %d of jobs has none.", number)));
	jq_enqueue_check_unique(job);
}

/* False when there is no such argument. */
static bool
set_member(JqNewJob *job, const char *key, JsonbValue *value)
{
	if (strcmp(key, "job_type") == 0)
		job->job_type = member_text(key, value);
	else if (strcmp(key, "payload") == 0)
		job->payload = JsonbPGetDatum(JsonbValueToJsonb(value));
	else if (strcmp(key, "scheduled_at") == 0)
	{
		job->scheduled_at =
			DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in,
													CStringGetDatum(TextDatumGetCString(member_text(key, value))),
													ObjectIdGetDatum(InvalidOid),
													Int32GetDatum(-1)));
		job->has_scheduled_at = true;
	}
	else if (strcmp(key, "priority") == 0)
		job->priority = member_integer(key, value);
	else if (strcmp(key, "max_attempts") == 0)
	{
		job->max_attempts = member_integer(key, value);
		job->has_max_attempts = true;
	}
	else if (strcmp(key, "unique_key") == 0)
		job->unique_key = member_text(key, value);
	else if (strcmp(key, "unique_mode") == 0)
		job->unique_mode =
			jq_unique_mode(TextDatumGetCString(member_text(key, value)));
	else if (strcmp(key, "unique_scope") == 0)
		job->unique_scope =
			jq_unique_scope(TextDatumGetCString(member_text(key, value)));
	else if (strcmp(key, "unique_period") == 0)
		job->unique_period = member_interval(key, value);
	else if (strcmp(key, "group_key") == 0)
		job->group_key = member_text(key, value);
	else if (strcmp(key, "stage") == 0)
		job->stage = member_text(key, value);
	else if (strcmp(key, "correlation_id") == 0)
		job->correlation_id = member_text(key, value);
	else if (strcmp(key, "depends_on") == 0)
		job->depends_on = member_array(key, value, INT8OID);
	else if (strcmp(key, "key") == 0)
		job->key = member_text(key, value);
	else if (strcmp(key, "depends_on_keys") == 0)
		job->depends_on_keys = member_array(key, value, TEXTOID);
	else if (strcmp(key, "on_parent_failure") == 0)
		job->on_parent_failure =
			jq_dependencies_on_failure(TextDatumGetCString(member_text(key, value)));
	else if (strcmp(key, "timeout") == 0)
		job->timeout = member_interval(key, value);
	else if (strcmp(key, "tags") == 0)
		job->tags = member_array(key, value, TEXTOID);
	else if (strcmp(key, "metadata") == 0)
		job->metadata = JsonbPGetDatum(JsonbValueToJsonb(value));
	else
		return false;
	return true;
}

static Datum
member_text(const char *key, JsonbValue *value)
{
	if (value->type != jbvString)
		wrong_member(key, "a text");
	return PointerGetDatum(cstring_to_text_with_len(value->val.string.val,
													value->val.string.len));
}

static Datum
member_interval(const char *key, JsonbValue *value)
{
	return DirectFunctionCall3(interval_in,
							   CStringGetDatum(TextDatumGetCString(member_text(key, value))),
							   ObjectIdGetDatum(InvalidOid),
							   Int32GetDatum(-1));
}

static int32
member_integer(const char *key, JsonbValue *value)
{
	if (value->type != jbvNumeric)
		wrong_member(key, "a number");
	return DatumGetInt32(DirectFunctionCall1(numeric_int4,
											 NumericGetDatum(value->val.numeric)));
}

static Datum
member_array(const char *key, JsonbValue *value, Oid type)
{
	ArrayBuildState *state = initArrayResult(type, CurrentMemoryContext, false);
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	element;

	if (value->type != jbvBinary ||
		!JsonContainerIsArray(value->val.binary.data))
		wrong_member(key, "an array");
	it = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &element, true)) != WJB_DONE)
	{
		Datum		datum;

		if (token != WJB_ELEM)
			continue;
		if (type == TEXTOID && element.type == jbvString)
			datum = member_text(key, &element);
		else if (type == TEXTOID)
			wrong_member(key, "an array of texts");
		else if (element.type == jbvNumeric)
			datum = DirectFunctionCall1(numeric_int8,
										NumericGetDatum(element.val.numeric));
		else
			wrong_member(key, "an array of numbers");
		accumArrayResult(state, datum, false, type, CurrentMemoryContext);
	}
	return makeArrayResult(state, CurrentMemoryContext);
}

static void
wrong_member(const char *key, const char *type)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" in jobs must be %s", key, type)));
}
