/*-------------------------------------------------------------------------
 *
 * enqueue.c
 *	  New jobs.
 *
 * The row trigger on jobs_queue validates the values, for these functions as
 * for a plain INSERT; here is only what a row cannot say by itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/fmgrprotos.h"

#include "base/ownership.h"
#include "base/scope.h"
#include "base/statement.h"
#include "queue/dependencies.h"
#include "queue/enqueue.h"
#include "queue/job_types.h"

/* A taken unique key may vanish before it can be looked at: try again. */
#define UNIQUE_TRIES 10

#define INSERT_COLUMNS \
	"job_type, payload, scheduled_at, priority, max_attempts, unique_key," \
	" group_key, stage, correlation_id, timeout, tags, metadata," \
	" waiting_for, status"
#define INSERT_ARGTYPES \
	TEXTOID, JSONBOID, TIMESTAMPTZOID, INT4OID, INT4OID, TEXTOID, \
	TEXTOID, TEXTOID, TEXTOID, INTERVALOID, TEXTARRAYOID, JSONBOID, \
	INT4OID

enum
{
	ARG_JOB_TYPE, ARG_PAYLOAD, ARG_SCHEDULED_AT, ARG_PRIORITY,
	ARG_MAX_ATTEMPTS, ARG_UNIQUE_KEY, ARG_GROUP_KEY, ARG_STAGE,
	ARG_CORRELATION_ID, ARG_TIMEOUT, ARG_TAGS, ARG_METADATA,
	ARG_WAITING_FOR, ARG_COUNT
};

#define INSERT_STATUS \
	"CASE WHEN $13 > 0 THEN 'blocked' ELSE 'queued' END"

static JqStatement insert_job = {
	.text = "INSERT INTO @.jobs_queue_live (" INSERT_COLUMNS ")"
	" VALUES ($1, $2, $3, $4::int2, $5::int2, $6, $7, $8, $9, $10, $11, $12,"
	" $13, " INSERT_STATUS ")"
	" RETURNING id",
	.nargs = ARG_COUNT,
	.argtypes = {INSERT_ARGTYPES}
};

static JqStatement insert_unique_job = {
	.text = "INSERT INTO @.jobs_queue_live (" INSERT_COLUMNS ")"
	" VALUES ($1, $2, $3, $4::int2, $5::int2, $6, $7, $8, $9, $10, $11, $12,"
	" $13, " INSERT_STATUS ")"
	" ON CONFLICT (job_type, unique_key) WHERE unique_key IS NOT NULL"
	" DO NOTHING RETURNING id",
	.nargs = ARG_COUNT,
	.argtypes = {INSERT_ARGTYPES}
};

static JqStatement insert_jobs = {
	.text = "INSERT INTO @.jobs_queue_live (" INSERT_COLUMNS ")"
	" SELECT $1, p.payload, $3, $4::int2, $5::int2, $6, $7, $8, $9, $10, $11,"
	" $12, $13, 'queued'"
	" FROM unnest($2) WITH ORDINALITY AS p (payload, n) ORDER BY p.n"
	" RETURNING id",
	.nargs = ARG_COUNT,
	.argtypes = {
		TEXTOID, JSONBARRAYOID, TIMESTAMPTZOID, INT4OID, INT4OID, TEXTOID,
		TEXTOID, TEXTOID, TEXTOID, INTERVALOID, TEXTARRAYOID, JSONBOID, INT4OID
	}
};

static JqStatement find_unique_job = {
	.text = "SELECT id, owner::pg_catalog.oid, status <> 'running'"
	" FROM @.jobs_queue_live WHERE job_type = $1 AND unique_key = $2",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID}
};

/* Only what waits is replaced; a running job is left to its worker. */
static JqStatement replace_job = {
	.text = "UPDATE @.jobs_queue_live SET payload = $2,"
	" scheduled_at = coalesce($3, scheduled_at), priority = $4::int2,"
	" max_attempts = greatest($5, attempts + 1)::int2,"
	" group_key = $6, stage = $7, correlation_id = $8, timeout = $9,"
	" tags = $10, metadata = $11, updated_at = clock_timestamp()"
	" WHERE id = $1 AND status <> 'running'",
	.nargs = 11,
	.argtypes = {
		INT8OID, JSONBOID, TIMESTAMPTZOID, INT4OID, INT4OID, TEXTOID,
		TEXTOID, TEXTOID, INTERVALOID, TEXTARRAYOID, JSONBOID
	}
};

static void fill_values(const JqNewJob *job, int waiting_for, Datum *values,
						char *nulls);
static void check_number(int64 value, const char *argument, int min, int max);
static int64 insert_unique(const JqNewJob *job, Datum *values,
						   const char *nulls);
static bool find_taken(const JqNewJob *job, int64 *id, Oid *owner,
					   bool *is_waiting);
static void replace(const JqNewJob *job, int64 id, Oid owner, Datum *values,
					const char *nulls);
static int64 *wanted_jobs(Datum depends_on, int *count);

int64
jq_enqueue(const JqNewJob *job)
{
	Datum		values[ARG_COUNT];
	char		nulls[ARG_COUNT];
	int64	   *depends_on = NULL;
	int			ndepends_on = 0;
	int64		id;

	if (job->depends_on != 0)
		depends_on = wanted_jobs(job->depends_on, &ndepends_on);

	jq_scope_enter(JQ_WRITE_ENQUEUE);
	if (ndepends_on > 0)
		ndepends_on = jq_dependencies_pending(depends_on, ndepends_on);
	fill_values(job, ndepends_on, values, nulls);
	if (job->unique_key != 0)
		id = insert_unique(job, values, nulls);
	else
	{
		jq_statement_execute(&insert_job, values, nulls, 0);
		id = DatumGetInt64(jq_statement_value(0, 1));
	}
	if (ndepends_on > 0 && id > 0)
		jq_dependencies_add(id, depends_on, ndepends_on);
	jq_scope_leave();
	return id < 0 ? -id : id;
}

int64 *
jq_enqueue_many(const JqNewJob *job, Datum payloads, int *count)
{
	Datum		values[ARG_COUNT];
	char		nulls[ARG_COUNT];
	int64	   *ids;

	jq_scope_enter(JQ_WRITE_ENQUEUE);
	fill_values(job, 0, values, nulls);
	values[ARG_PAYLOAD] = payloads;
	*count = (int) jq_statement_execute(&insert_jobs, values, nulls, 0);
	ids = MemoryContextAlloc(jq_scope_result_context(),
							 sizeof(int64) * Max(*count, 1));
	for (int i = 0; i < *count; i++)
		ids[i] = DatumGetInt64(jq_statement_value(i, 1));
	jq_scope_leave();
	return ids;
}

/* The arguments of the INSERT; smallint columns are checked before casting. */
static void
fill_values(const JqNewJob *job, int waiting_for, Datum *values, char *nulls)
{
	check_number(job->priority, "priority", PG_INT16_MIN, PG_INT16_MAX);
	if (job->has_max_attempts)
		check_number(job->max_attempts, "max_attempts", 1, 1000);

	values[ARG_JOB_TYPE] = job->job_type;
	values[ARG_PAYLOAD] = job->payload != 0 ? job->payload :
		DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
	values[ARG_SCHEDULED_AT] =
		TimestampTzGetDatum(job->has_scheduled_at ? job->scheduled_at :
							GetCurrentTransactionStartTimestamp());
	values[ARG_PRIORITY] = Int32GetDatum(job->priority);
	values[ARG_MAX_ATTEMPTS] = Int32GetDatum(job->max_attempts);
	values[ARG_UNIQUE_KEY] = job->unique_key;
	values[ARG_GROUP_KEY] = job->group_key;
	values[ARG_STAGE] = job->stage != 0 ? job->stage : CStringGetTextDatum("");
	values[ARG_CORRELATION_ID] = job->correlation_id;
	values[ARG_TIMEOUT] = job->timeout;
	values[ARG_TAGS] = job->tags;
	values[ARG_METADATA] = job->metadata;
	values[ARG_WAITING_FOR] = Int32GetDatum(waiting_for);
	for (int i = 0; i < ARG_COUNT; i++)
		nulls[i] = values[i] == 0 ? 'n' : ' ';
	nulls[ARG_PRIORITY] = ' ';
	nulls[ARG_WAITING_FOR] = ' ';
	nulls[ARG_MAX_ATTEMPTS] = job->has_max_attempts ? ' ' : 'n';
	nulls[ARG_SCHEDULED_AT] = ' ';
}

static void
check_number(int64 value, const char *argument, int min, int max)
{
	if (value < min || value > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be between %d and %d", argument, min, max)));
}

/* The new id, or minus the id of the live job that has the key already. */
static int64
insert_unique(const JqNewJob *job, Datum *values, const char *nulls)
{
	for (int i = 0; i < UNIQUE_TRIES; i++)
	{
		int64		id;
		Oid			owner;
		bool		is_waiting;

		if (jq_statement_execute(&insert_unique_job, values, nulls, 0) > 0)
			return DatumGetInt64(jq_statement_value(0, 1));
		if (!find_taken(job, &id, &owner, &is_waiting))
		{
			CHECK_FOR_INTERRUPTS();
			continue;
		}
		if (job->unique_mode != JQ_UNIQUE_SKIP && is_waiting)
			replace(job, id, owner, values, nulls);
		return -id;
	}
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not enqueue a job with unique key \"%s\"",
					TextDatumGetCString(job->unique_key)),
			 errdetail("Jobs with this key come and go too fast."),
			 errhint("Try again.")));
}

static bool
find_taken(const JqNewJob *job, int64 *id, Oid *owner, bool *is_waiting)
{
	Datum		values[2] = {job->job_type, job->unique_key};
	bool		isnull;

	if (jq_statement_execute(&find_unique_job, values, NULL, 1) == 0)
		return false;
	*id = DatumGetInt64(jq_statement_value(0, 1));
	*owner = DatumGetObjectId(jq_statement_nullable(0, 2, &isnull));
	*is_waiting = DatumGetBool(jq_statement_value(0, 3));
	return true;
}

/* Somebody else's job may not be given another payload. */
static void
replace(const JqNewJob *job, int64 id, Oid owner, Datum *values,
		const char *nulls)
{
	Datum		new_values[11];
	char		new_nulls[11];

	jq_ownership_check(jq_scope_caller(), owner, "job");
	new_values[0] = Int64GetDatum(id);
	new_nulls[0] = ' ';
	for (int i = ARG_PAYLOAD, to = 1; i <= ARG_METADATA; i++)
	{
		if (i == ARG_UNIQUE_KEY)
			continue;
		new_values[to] = values[i];
		new_nulls[to++] = nulls[i];
	}
	if (job->unique_mode == JQ_UNIQUE_KEEP_SCHEDULE)
		new_nulls[2] = 'n';
	if (!job->has_max_attempts)
	{
		new_values[4] =
			Int32GetDatum(jq_job_type(TextDatumGetCString(job->job_type))->max_attempts);
		new_nulls[4] = ' ';
	}
	jq_statement_execute(&replace_job, new_values, new_nulls, 0);
}

/* The elements of depends_on, each once. */
static int64 *
wanted_jobs(Datum depends_on, int *count)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;
	int			nelements;
	int64	   *ids;

	array = DatumGetArrayTypeP(depends_on);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("depends_on must have one dimension")));
	deconstruct_array(array, INT8OID, sizeof(int64),
					  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &elements, &nulls, &nelements);
	ids = palloc(sizeof(int64) * Max(nelements, 1));
	*count = 0;
	for (int i = 0; i < nelements; i++)
	{
		bool		is_new = true;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("depends_on must not contain nulls")));
		for (int j = 0; j < *count && is_new; j++)
			is_new = ids[j] != DatumGetInt64(elements[i]);
		if (is_new)
			ids[(*count)++] = DatumGetInt64(elements[i]);
	}
	return ids;
}

JqUniqueMode
jq_enqueue_unique_mode(const char *name)
{
	if (strcmp(name, "skip") == 0)
		return JQ_UNIQUE_SKIP;
	if (strcmp(name, "replace") == 0)
		return JQ_UNIQUE_REPLACE;
	if (strcmp(name, "keep_schedule") == 0)
		return JQ_UNIQUE_KEEP_SCHEDULE;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized unique_mode \"%s\"", name),
			 errhint("It is skip, replace or keep_schedule.")));
}
