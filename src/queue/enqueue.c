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
#include "commands/sequence.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "lib/qunique.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

#include "base/catalog.h"
#include "base/interval.h"
#include "base/names.h"
#include "base/ownership.h"
#include "base/scope.h"
#include "base/statement.h"
#include "base/table.h"
#include "queue/dependencies.h"
#include "queue/dependents.h"
#include "queue/enqueue.h"
#include "queue/job.h"
#include "queue/http_payload.h"
#include "queue/job_types.h"
#include "queue/unique.h"
#include "queue/validate.h"

/* A taken unique key may vanish before it can be looked at: try again. */
#define UNIQUE_TRIES 10

/* What became of a new job. */
typedef enum Effect
{
	EFFECT_NONE,				/* the job that was there stays as it is */
	EFFECT_INSERTED,
	EFFECT_REPLACED
} Effect;

#define INSERT_COLUMNS \
	"job_type, payload, scheduled_at, priority, max_attempts, unique_key," \
	" group_key, stage, correlation_id, timeout, tags, metadata," \
	" waiting_for, owner, status"
#define INSERT_ARGTYPES \
	TEXTOID, JSONBOID, TIMESTAMPTZOID, INT4OID, INT4OID, TEXTOID, \
	TEXTOID, TEXTOID, TEXTOID, INTERVALOID, TEXTARRAYOID, JSONBOID, \
	INT4OID, OIDOID

enum
{
	ARG_JOB_TYPE, ARG_PAYLOAD, ARG_SCHEDULED_AT, ARG_PRIORITY,
	ARG_MAX_ATTEMPTS, ARG_UNIQUE_KEY, ARG_GROUP_KEY, ARG_STAGE,
	ARG_CORRELATION_ID, ARG_TIMEOUT, ARG_TAGS, ARG_METADATA,
	ARG_WAITING_FOR, ARG_OWNER, ARG_COUNT,
	ARG_ID = ARG_COUNT			/* of insert_job_as alone */
};

#define INSERT_STATUS \
	"CASE WHEN $13 > 0 THEN 'blocked' ELSE 'queued' END"

static JqStatement insert_job = {
	.text = "INSERT INTO @.jobs_queue_live (" INSERT_COLUMNS ")"
	" VALUES ($1, $2, $3, $4::int2, $5::int2, $6, $7, $8, $9, $10, $11, $12,"
	" $13, $14, " INSERT_STATUS ")"
	" RETURNING id",
	.nargs = ARG_COUNT,
	.argtypes = {INSERT_ARGTYPES}
};

static JqStatement insert_unique_job = {
	.text = "INSERT INTO @.jobs_queue_live (" INSERT_COLUMNS ")"
	" VALUES ($1, $2, $3, $4::int2, $5::int2, $6, $7, $8, $9, $10, $11, $12,"
	" $13, $14, " INSERT_STATUS ")"
	" ON CONFLICT (job_type, unique_key) WHERE unique_key IS NOT NULL"
	" DO NOTHING RETURNING id",
	.nargs = ARG_COUNT,
	.argtypes = {INSERT_ARGTYPES}
};

/* With an id that was chosen before. */
static JqStatement insert_job_as = {
	.text = "INSERT INTO @.jobs_queue_live (" INSERT_COLUMNS ", id)"
	" VALUES ($1, $2, $3, $4::int2, $5::int2, $6, $7, $8, $9, $10, $11, $12,"
	" $13, $14, " INSERT_STATUS ", $15)"
	" ON CONFLICT (job_type, unique_key) WHERE unique_key IS NOT NULL"
	" DO NOTHING RETURNING id",
	.nargs = ARG_COUNT + 1,
	.argtypes = {INSERT_ARGTYPES, INT8OID}
};

static JqStatement insert_jobs = {
	.text = "INSERT INTO @.jobs_queue_live (" INSERT_COLUMNS ")"
	" SELECT $1, p.payload, $3, $4::int2, $5::int2, $6, $7, $8, $9, $10, $11,"
	" $12, $13, $14, 'queued'"
	" FROM unnest($2) WITH ORDINALITY AS p (payload, n) ORDER BY p.n"
	" RETURNING id",
	.nargs = ARG_COUNT,
	.argtypes = {
		TEXTOID, JSONBARRAYOID, TIMESTAMPTZOID, INT4OID, INT4OID, TEXTOID,
		TEXTOID, TEXTOID, TEXTOID, INTERVALOID, TEXTARRAYOID, JSONBOID, INT4OID,
		OIDOID
	}
};

static JqStatement find_unique_job = {
	.text = "SELECT id FROM @.jobs_queue_live"
	" WHERE job_type = $1 AND unique_key = $2",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID}
};

static void fill_values(const JqNewJob *job, int waiting_for, Datum *values,
						char *nulls);
static void check_values(const JqNewJob *job, Datum *values);
static int64 insert_wider(const JqNewJob *job, Datum *values,
						  const char *nulls, Effect *effect);
static int64 insert_unique(const JqNewJob *job, int64 new_id, Datum *values,
						   const char *nulls, Effect *effect);
static uint64 insert(int64 new_id, Datum *values, const char *nulls);
static bool replace(const JqNewJob *job, int64 id, Datum *values,
					const char *nulls, Effect *effect);
static void settle_failed_parents(const JqParents *parents);
static bool has_key(TupleTableSlot *row, Datum key);
static void write_replacement(const JqNewJob *job, JqTable *live,
							  TupleTableSlot *row, Datum *values,
							  const char *nulls, Effect *effect);
static TimestampTz debounced_instant(const JqNewJob *job, TupleTableSlot *row);
static void supersede(JqTable *live, TupleTableSlot *row);
static int64 next_id(void);
static int	compare_keys(const void *a, const void *b, void *arg);
static int	compare_texts(Datum a, Datum b);
static int64 *wanted_jobs(Datum depends_on, int *count);
static int	compare_ids(const void *a, const void *b);

int64
jq_enqueue(const JqNewJob *job)
{
	Datum		values[ARG_COUNT];
	char		nulls[ARG_COUNT];
	JqParents	parents = {.on_failure = job->on_parent_failure};
	Effect		effect = EFFECT_INSERTED;
	int64		id;

	jq_enqueue_check_unique(job);
	if (job->depends_on != 0)
		parents.ids = wanted_jobs(job->depends_on, &parents.count);

	jq_scope_enter(JQ_WRITE_ENQUEUE);
	if (parents.count > 0)
	{
		if (job->unique_key != 0 && job->unique_mode != JQ_UNIQUE_SKIP)
			jq_dependencies_lock_order();
		parents.owner = OidIsValid(job->owner) ? job->owner : jq_scope_caller();
		jq_dependencies_look(&parents);
	}
	fill_values(job, parents.pending, values, nulls);
	if (job->unique_key == 0)
	{
		if (job->id != 0)
			(void) insert(job->id, values, nulls);
		else
			jq_statement_execute(&insert_job, values, nulls, 0);
		id = DatumGetInt64(jq_statement_value(0, 1));
	}
	else if (job->unique_scope == JQ_UNIQUE_LIVE)
		id = insert_unique(job, job->id, values, nulls, &effect);
	else
		id = insert_wider(job, values, nulls, &effect);
	if (effect == EFFECT_REPLACED)
	{
		jq_dependencies_forget(id);
		jq_dependencies_refuse_cycle(id, &parents);
	}
	if (effect != EFFECT_NONE && parents.count > 0)
	{
		jq_dependencies_add(id, &parents);
		if (job->on_parent_failure != JQ_ON_FAILURE_BLOCK)
			settle_failed_parents(&parents);
	}
	jq_scope_leave();
	return id;
}

/* What their ends would have done to the job, had it been there. */
static void
settle_failed_parents(const JqParents *parents)
{
	JqEndedJobs ended = {.failed = parents->failed,.nfailed = parents->nfailed};

	jq_dependents_settle(&ended);
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

/*
 * Two calls with the same keys in different orders would wait for each other.
 * The ids tell in which order the jobs were given, and will be claimed.  Jobs
 * that wait for others stay where they are: it may be for one of these.
 */
void
jq_enqueue_each(JqNewJob *jobs, int count, int64 *ids)
{
	int		   *order = palloc(sizeof(int) * Max(count, 1));
	bool		is_free = count > 1;

	for (int i = 0; i < count; i++)
	{
		jq_enqueue_check_unique(&jobs[i]);
		is_free &= jobs[i].depends_on == 0;
		order[i] = i;
	}
	if (is_free)
	{
		for (int i = 0; i < count; i++)
			jobs[i].id = next_id();
		qsort_arg(order, count, sizeof(int), compare_keys, jobs);
	}
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		ids[order[i]] = jq_enqueue(&jobs[order[i]]);
	}
}

void
jq_enqueue_check_unique(const JqNewJob *job)
{
	jq_unique_check(job->unique_mode, job->unique_scope, job->unique_period,
					job->has_scheduled_at);
}

/* By job type and key; what is equal, or has no key, in the order given. */
static int
compare_keys(const void *a, const void *b, void *arg)
{
	const JqNewJob *jobs = (const JqNewJob *) arg;
	int			left = *(const int *) a;
	int			right = *(const int *) b;
	int			result = 0;

	if (jobs[left].unique_key != 0 && jobs[right].unique_key != 0)
	{
		result = compare_texts(jobs[left].job_type, jobs[right].job_type);
		if (result == 0)
			result = compare_texts(jobs[left].unique_key,
								   jobs[right].unique_key);
	}
	else if (jobs[left].unique_key != jobs[right].unique_key)
		result = jobs[left].unique_key != 0 ? -1 : 1;
	return result != 0 ? result : left - right;
}

static int
compare_texts(Datum a, Datum b)
{
	return strcmp(TextDatumGetCString(a), TextDatumGetCString(b));
}

/* The arguments of the INSERT; smallint columns are checked before casting. */
static void
fill_values(const JqNewJob *job, int waiting_for, Datum *values, char *nulls)
{
	jq_range_check(job->priority, "priority", PG_INT16_MIN, PG_INT16_MAX);
	if (job->has_max_attempts)
		jq_range_check(job->max_attempts, "max_attempts", 1, 1000);

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
	values[ARG_OWNER] = ObjectIdGetDatum(job->owner);
	for (int i = 0; i < ARG_COUNT; i++)
		nulls[i] = values[i] == 0 ? 'n' : ' ';
	nulls[ARG_PRIORITY] = ' ';
	nulls[ARG_WAITING_FOR] = ' ';
	nulls[ARG_MAX_ATTEMPTS] = job->has_max_attempts ? ' ' : 'n';
	nulls[ARG_SCHEDULED_AT] = ' ';
}

/*
 * The trigger of the leaf checks what is inserted; this is for what turns out
 * to be there.
 */
static void
check_values(const JqNewJob *job, Datum *values)
{
	char	   *job_type = TextDatumGetCString(job->job_type);

	jq_name_check_required(job_type, "job_type");
	jq_validate_payload(values[ARG_PAYLOAD]);
	if (strcmp(job_type, JQ_SQL_JOB_TYPE) == 0)
		jq_validate_sql_payload(values[ARG_PAYLOAD]);
	if (strcmp(job_type, JQ_HTTP_JOB_TYPE) == 0)
		jq_http_payload_check(DatumGetJsonbP(values[ARG_PAYLOAD]),
							  OidIsValid(job->owner) ? job->owner :
							  jq_scope_caller());
	jq_validate_instant(DatumGetTimestampTz(values[ARG_SCHEDULED_AT]),
						"scheduled_at");
	jq_name_check(TextDatumGetCString(values[ARG_STAGE]), "stage", 0, 255);
	jq_name_check(TextDatumGetCString(job->unique_key), "unique_key", 1, 512);
	if (job->group_key != 0)
		jq_name_check(TextDatumGetCString(job->group_key), "group_key", 1, 512);
	if (job->timeout != 0)
		jq_interval_us(DatumGetIntervalP(job->timeout), "timeout", 1,
					   USECS_PER_DAY);
}

/*
 * The id of the job that has the key, where that outlives the job: a row in
 * job_keys comes first.  A live job that has the key without one is given it.
 */
static int64
insert_wider(const JqNewJob *job, Datum *values, const char *nulls,
			 Effect *effect)
{
	int64		new_id = job->id != 0 ? job->id : next_id();
	Datum		period = job->unique_scope == JQ_UNIQUE_PERIOD ?
	job->unique_period : (Datum) 0;
	int64		id;

	check_values(job, values);
	id = jq_unique_take(job->job_type, job->unique_key, new_id, period);
	if (id == new_id)
	{
		id = insert_unique(job, new_id, values, nulls, effect);
		if (id != new_id)
			jq_unique_pass(job->job_type, job->unique_key, id, period);
		return id;
	}
	*effect = EFFECT_NONE;
	if (job->unique_mode != JQ_UNIQUE_SKIP)
		(void) replace(job, id, values, nulls, effect);
	return id;
}

/*
 * The new id, or that of the live job that has the key already.  "new_id" 0:
 * the next one.
 */
static int64
insert_unique(const JqNewJob *job, int64 new_id, Datum *values,
			  const char *nulls, Effect *effect)
{
	for (int i = 0; i < UNIQUE_TRIES; i++)
	{
		Datum		key[2] = {job->job_type, job->unique_key};
		int64		id;

		CHECK_FOR_INTERRUPTS();
		*effect = EFFECT_INSERTED;
		if (insert(new_id, values, nulls) > 0)
			return DatumGetInt64(jq_statement_value(0, 1));
		if (jq_statement_execute(&find_unique_job, key, NULL, 1) == 0)
			continue;
		id = DatumGetInt64(jq_statement_value(0, 1));
		*effect = EFFECT_NONE;
		if (job->unique_mode == JQ_UNIQUE_SKIP ||
			replace(job, id, values, nulls, effect))
			return id;
	}
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not enqueue a job with unique key \"%s\"",
					TextDatumGetCString(job->unique_key)),
			 errdetail("Jobs with this key come and go too fast."),
			 errhint("Try again.")));
}

/* Unless a live job has the key. */
static uint64
insert(int64 new_id, Datum *values, const char *nulls)
{
	Datum		values_as[ARG_COUNT + 1];
	char		nulls_as[ARG_COUNT + 1];

	if (new_id == 0)
		return jq_statement_execute(&insert_unique_job, values, nulls, 0);
	memcpy(values_as, values, sizeof(Datum) * ARG_COUNT);
	memcpy(nulls_as, nulls, ARG_COUNT);
	values_as[ARG_ID] = Int64GetDatum(new_id);
	nulls_as[ARG_ID] = ' ';
	return jq_statement_execute(&insert_job_as, values_as, nulls_as, 0);
}

static int64
next_id(void)
{
	Oid			sequence = get_relname_relid("jobs_queue_id_seq",
											 jq_catalog()->schema);

	return nextval_internal(sequence, false);
}

/*
 * Makes the waiting job "id" the new job.  False when there is room for
 * another one: it has gone, or lost its key, meanwhile; or it is running, and
 * what its worker has read would be all that comes of this call.  Then it goes
 * on without the key.  Where the key is for more than live jobs, a job that
 * runs or has ended is left as it is.
 */
static bool
replace(const JqNewJob *job, int64 id, Datum *values, const char *nulls,
		Effect *effect)
{
	const JqCatalog *catalog = jq_catalog();
	bool		is_settled = false;
	JqTable		live;
	TupleTableSlot *row;
	JqJob		old;

	jq_table_open(&live, catalog->jobs_queue_live);
	row = jq_table_slot(&live);
	if (jq_table_lock_by_id(&live, catalog->jobs_queue_live_pkey, id,
							LockTupleExclusive, row) &&
		has_key(row, job->unique_key))
	{
		jq_job_read(row, &old);
		is_settled = old.status != JQ_STATUS_RUNNING ||
			job->unique_scope != JQ_UNIQUE_LIVE;
		/* Somebody else's job may not be given another payload. */
		if (old.status != JQ_STATUS_RUNNING || !is_settled)
			jq_ownership_check(jq_scope_caller(), old.owner, "job");
		if (old.status != JQ_STATUS_RUNNING)
			write_replacement(job, &live, row, values, nulls, effect);
		else if (!is_settled)
			supersede(&live, row);
	}
	jq_table_close(&live);
	return is_settled;
}

static bool
has_key(TupleTableSlot *row, Datum key)
{
	bool		isnull;
	Datum		found = slot_getattr(row, JQ_JOB_UNIQUE_KEY, &isnull);

	return !isnull && compare_texts(found, key) == 0;
}

/* The next version of a locked job that waits. */
static void
write_replacement(const JqNewJob *job, JqTable *live, TupleTableSlot *row,
				  Datum *values, const char *nulls, Effect *effect)
{
	static const int columns[][2] = {
		{JQ_JOB_PAYLOAD, ARG_PAYLOAD}, {JQ_JOB_GROUP_KEY, ARG_GROUP_KEY},
		{JQ_JOB_STAGE, ARG_STAGE},
		{JQ_JOB_CORRELATION_ID, ARG_CORRELATION_ID},
		{JQ_JOB_TIMEOUT, ARG_TIMEOUT}, {JQ_JOB_TAGS, ARG_TAGS},
		{JQ_JOB_METADATA, ARG_METADATA}
	};
	TupleTableSlot *next = jq_table_new_row(live);
	JqJob		old;

	jq_job_read(row, &old);
	jq_job_begin_change(row, next, GetCurrentTimestamp());
	for (int i = 0; i < (int) lengthof(columns); i++)
	{
		if (nulls[columns[i][1]] == 'n')
			jq_job_set_null(next, columns[i][0]);
		else
			jq_job_set(next, columns[i][0], values[columns[i][1]]);
	}
	if (OidIsValid(job->owner))
		jq_job_set(next, JQ_JOB_OWNER, values[ARG_OWNER]);
	jq_job_set(next, JQ_JOB_PRIORITY, Int16GetDatum(job->priority));
	jq_job_set(next, JQ_JOB_WAITING_FOR, values[ARG_WAITING_FOR]);
	jq_job_set_status(next, &old, DatumGetInt32(values[ARG_WAITING_FOR]) > 0 ?
					  JQ_STATUS_BLOCKED : JQ_STATUS_QUEUED);
	if (job->unique_mode == JQ_UNIQUE_DEBOUNCE)
		jq_job_set(next, JQ_JOB_SCHEDULED_AT,
				   TimestampTzGetDatum(debounced_instant(job, row)));
	else if (job->unique_mode != JQ_UNIQUE_KEEP_SCHEDULE)
		jq_job_set(next, JQ_JOB_SCHEDULED_AT, values[ARG_SCHEDULED_AT]);
	jq_job_set(next, JQ_JOB_MAX_ATTEMPTS,
			   Int16GetDatum(Max(old.attempts + 1,
								 job->has_max_attempts ? job->max_attempts :
								 jq_job_type(old.job_type)->max_attempts)));
	if (jq_job_update(live, row, next))
		*effect = EFFECT_REPLACED;
}

/* Later, but not for longer than the period since the first call. */
static TimestampTz
debounced_instant(const JqNewJob *job, TupleTableSlot *row)
{
	bool		isnull;
	Datum		created_at = slot_getattr(row, JQ_JOB_CREATED_AT, &isnull);

	if (job->unique_period == 0)
		return job->scheduled_at;
	return Min(job->scheduled_at, DatumGetTimestampTz(created_at) +
			   jq_unique_period_us(job->unique_period));
}

/*
 * A running job gives its key to the one that follows it.  It gets no other
 * attempt: that would bring back, after the new job, what was there before.
 */
static void
supersede(JqTable *live, TupleTableSlot *row)
{
	TupleTableSlot *next = jq_table_new_row(live);
	JqJob		old;

	jq_job_read(row, &old);
	jq_job_begin_change(row, next, GetCurrentTimestamp());
	jq_job_set_null(next, JQ_JOB_UNIQUE_KEY);
	jq_job_set(next, JQ_JOB_MAX_ATTEMPTS, Int16GetDatum(Max(old.attempts, 1)));
	if (!jq_job_update(live, row, next))
		jq_job_report_suppressed(old.id);
}

/* The elements of depends_on, each once, in the order all lock them in. */
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
	for (int i = 0; i < nelements; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("depends_on must not contain nulls")));
		ids[i] = DatumGetInt64(elements[i]);
	}
	qsort(ids, nelements, sizeof(int64), compare_ids);
	*count = (int) qunique(ids, nelements, sizeof(int64), compare_ids);
	return ids;
}

static int
compare_ids(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return left < right ? -1 : left > right ? 1 : 0;
}
