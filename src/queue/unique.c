/*-------------------------------------------------------------------------
 *
 * unique.c
 *	  Unique keys of jobs.
 *
 * A row of job_keys holds for as long as it says, or, without a time, as long
 * as the job or one of its runs is there: a job that is deleted when it has
 * completed leaves its run, and retention deletes that in the end.  So what
 * holds is found out when somebody wants the key; a row that does not hold
 * is taken over, and the scheduler deletes the others now and then.
 *
 * Whoever takes a key inserts its row or locks it, and then waits, at the
 * index of either table, for others who do.  Keys of one call are taken in
 * their order.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/interval.h"
#include "base/scope.h"
#include "base/statement.h"
#include "queue/unique.h"

#define MAX_PERIOD_US (3660 * USECS_PER_DAY)

/* A key may vanish before it can be looked at: try again. */
#define TAKE_TRIES 10

/* How many keys are looked at in one go. */
#define STALE_BATCH 1000

/* One snapshot for the key, its job and the job's runs. */
#define HOLDS \
	"CASE WHEN k.expires_at IS NOT NULL THEN k.expires_at > clock_timestamp()" \
	" ELSE EXISTS (SELECT FROM @.jobs_queue q WHERE q.id = k.job_id)" \
	" OR EXISTS (SELECT FROM @.job_runs r WHERE r.job_id = k.job_id) END"

static JqStatement insert_key = {
	.text = "INSERT INTO @.job_keys (job_type, unique_key, job_id, expires_at)"
	" VALUES ($1, $2, $3, clock_timestamp() + $4)"
	" ON CONFLICT (job_type, unique_key) DO NOTHING",
	.nargs = 4,
	.argtypes = {TEXTOID, TEXTOID, INT8OID, INTERVALOID}
};

static JqStatement find_key = {
	.text = "SELECT k.job_id, " HOLDS " FROM @.job_keys k"
	" WHERE k.job_type = $1 AND k.unique_key = $2",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID}
};

static JqStatement lock_key = {
	.text = "SELECT 1 FROM @.job_keys"
	" WHERE job_type = $1 AND unique_key = $2 FOR UPDATE",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID}
};

static JqStatement take_key = {
	.text = "UPDATE @.job_keys"
	" SET job_id = $3, expires_at = clock_timestamp() + $4"
	" WHERE job_type = $1 AND unique_key = $2",
	.nargs = 4,
	.argtypes = {TEXTOID, TEXTOID, INT8OID, INTERVALOID}
};

static JqStatement pass_key = {
	.text = "UPDATE @.job_keys SET job_id = $3, expires_at = $4 +"
	" (SELECT q.created_at FROM @.jobs_queue_live q WHERE q.id = $3)"
	" WHERE job_type = $1 AND unique_key = $2",
	.nargs = 4,
	.argtypes = {TEXTOID, TEXTOID, INT8OID, INTERVALOID}
};

static JqStatement forget_key = {
	.text = "DELETE FROM @.job_keys WHERE job_id = ANY ($1)"
	" AND expires_at IS NULL",
	.nargs = 1,
	.argtypes = {INT8ARRAYOID}
};

static JqStatement find_live_key = {
	.text = "SELECT id FROM @.jobs_queue_live"
	" WHERE job_type = $1 AND unique_key = $2 AND id <> $3",
	.nargs = 3,
	.argtypes = {TEXTOID, TEXTOID, INT8OID}
};

static JqStatement select_expired = {
	.text = "SELECT job_id FROM @.job_keys WHERE expires_at <= clock_timestamp()"
	" ORDER BY expires_at LIMIT $1",
	.nargs = 1,
	.argtypes = {INT8OID}
};

static JqStatement select_orphans = {
	.text = "SELECT k.job_id, NOT " HOLDS
	" FROM (SELECT job_id, expires_at FROM @.job_keys WHERE job_id > $1"
	" ORDER BY job_id LIMIT $2) k ORDER BY k.job_id",
	.nargs = 2,
	.argtypes = {INT8OID, INT8OID}
};

/* Whoever takes a key over gives it to another job, and keeps it locked. */
static JqStatement delete_stale = {
	.text = "DELETE FROM @.job_keys WHERE (job_type, unique_key) IN"
	" (SELECT k.job_type, k.unique_key FROM @.job_keys k"
	" WHERE k.job_id = ANY ($1) AND NOT " HOLDS " FOR UPDATE SKIP LOCKED)",
	.nargs = 1,
	.argtypes = {INT8ARRAYOID}
};

static int64 holder_of(Datum *key, bool *holds);
static bool has_keys(void);
static Datum bigint_array(const int64 *ids, int count);

JqUniqueMode
jq_unique_mode(const char *name)
{
	if (strcmp(name, "skip") == 0)
		return JQ_UNIQUE_SKIP;
	if (strcmp(name, "replace") == 0)
		return JQ_UNIQUE_REPLACE;
	if (strcmp(name, "keep_schedule") == 0)
		return JQ_UNIQUE_KEEP_SCHEDULE;
	if (strcmp(name, "debounce") == 0)
		return JQ_UNIQUE_DEBOUNCE;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized unique_mode \"%s\"", name),
			 errhint("It is skip, replace, keep_schedule or debounce.")));
}

JqUniqueScope
jq_unique_scope(const char *name)
{
	if (strcmp(name, "live") == 0)
		return JQ_UNIQUE_LIVE;
	if (strcmp(name, "period") == 0)
		return JQ_UNIQUE_PERIOD;
	if (strcmp(name, "kept") == 0)
		return JQ_UNIQUE_KEPT;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized unique_scope \"%s\"", name),
			 errhint("It is live, period or kept.")));
}

void
jq_unique_check(JqUniqueMode mode, JqUniqueScope scope, Datum period,
				bool has_scheduled_at)
{
	if (period != 0)
		(void) jq_unique_period_us(period);
	if (scope == JQ_UNIQUE_PERIOD && period == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("unique_period must not be null with unique_scope \"period\"")));
	if (period != 0 && scope != JQ_UNIQUE_PERIOD && mode != JQ_UNIQUE_DEBOUNCE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unique_period cannot be given here"),
				 errhint("It belongs to unique_scope \"period\", and to unique_mode \"debounce\".")));
	if (mode != JQ_UNIQUE_DEBOUNCE)
		return;
	if (scope != JQ_UNIQUE_LIVE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unique_mode \"debounce\" needs unique_scope \"live\"")));
	if (!has_scheduled_at)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("scheduled_at must not be null with unique_mode \"debounce\""),
				 errhint("It says until when the job waits for another call.")));
}

int64
jq_unique_period_us(Datum period)
{
	return jq_interval_us(DatumGetIntervalP(period), "unique_period", 1,
						  MAX_PERIOD_US);
}

int64
jq_unique_take(Datum job_type, Datum key, int64 id, Datum period)
{
	Datum		values[4] = {job_type, key, Int64GetDatum(id), period};
	const char *nulls = period == 0 ? "   n" : "    ";

	for (int i = 0; i < TAKE_TRIES; i++)
	{
		bool		holds;
		int64		holder;

		CHECK_FOR_INTERRUPTS();
		if (jq_statement_execute(&insert_key, values, nulls, 0) > 0)
			return id;
		holder = holder_of(values, &holds);
		if (holds)
			return holder;

		/* What a lock waited for may have changed: look once more. */
		if (holder == 0 ||
			jq_statement_execute(&lock_key, values, NULL, 1) == 0)
			continue;
		holder = holder_of(values, &holds);
		if (holds)
			return holder;
		if (jq_statement_execute(&take_key, values, nulls, 0) > 0)
			return id;
	}
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not enqueue a job with unique key \"%s\"",
					TextDatumGetCString(key)),
			 errdetail("Jobs with this key come and go too fast."),
			 errhint("Try again.")));
}

/* Whose the key is, and whether still; 0: nobody's. */
static int64
holder_of(Datum *key, bool *holds)
{
	*holds = false;
	if (jq_statement_execute(&find_key, key, NULL, 1) == 0)
		return 0;
	*holds = DatumGetBool(jq_statement_value(0, 2));
	return DatumGetInt64(jq_statement_value(0, 1));
}

/* The period of that job began when it was made. */
void
jq_unique_pass(Datum job_type, Datum key, int64 id, Datum period)
{
	Datum		values[4] = {job_type, key, Int64GetDatum(id), period};

	(void) jq_statement_execute(&pass_key, values,
								period == 0 ? "   n" : "    ", 0);
}

void
jq_unique_forget(const int64 *job_ids, int count)
{
	Datum		values[1];

	if (!has_keys())
		return;
	jq_scope_enter(JQ_WRITE_ENGINE);
	values[0] = bigint_array(job_ids, count);
	(void) jq_statement_execute(&forget_key, values, NULL, 0);
	jq_scope_leave();
}

void
jq_unique_check_free(int64 job_id, Datum job_type, Datum key)
{
	Datum		values[3] = {job_type, key, Int64GetDatum(job_id)};

	if (jq_statement_execute(&find_live_key, values, NULL, 1) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("job " INT64_FORMAT " cannot be queued beside job " INT64_FORMAT ", which has its unique key",
					job_id, DatumGetInt64(jq_statement_value(0, 1))),
			 errhint("Wait for the end of that job, or cancel it.")));
}

int64 *
jq_unique_stale(int64 *job_id, int *count)
{
	Datum		batch = Int64GetDatum(STALE_BATCH);
	Datum		values[2] = {Int64GetDatum(*job_id), batch};
	int64	   *stale;
	uint64		rows;

	*count = 0;
	if (!has_keys())
	{
		*job_id = 0;
		return NULL;
	}
	stale = MemoryContextAlloc(jq_scope_result_context(),
							   sizeof(int64) * STALE_BATCH);
	*count = (int) jq_statement_query(&select_expired, &batch, NULL, 0);
	for (int i = 0; i < *count; i++)
		stale[i] = DatumGetInt64(jq_statement_value(i, 1));
	if (*count > 0)
		return stale;

	rows = jq_statement_query(&select_orphans, values, NULL, 0);
	for (uint64 i = 0; i < rows; i++)
	{
		*job_id = DatumGetInt64(jq_statement_value(i, 1));
		if (DatumGetBool(jq_statement_value(i, 2)))
			stale[(*count)++] = *job_id;
	}
	if (rows < STALE_BATCH)
		*job_id = 0;
	return stale;
}

int64
jq_unique_prune(const int64 *job_ids, int count)
{
	Datum		values[1] = {bigint_array(job_ids, count)};

	return (int64) jq_statement_execute(&delete_stale, values, NULL, 0);
}

static Datum
bigint_array(const int64 *ids, int count)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		elements[i] = Int64GetDatum(ids[i]);
	return PointerGetDatum(construct_array(elements, count, INT8OID,
										   sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

/* Most databases have none: an empty table needs no look. */
static bool
has_keys(void)
{
	Relation	rel = table_open(get_relname_relid("job_keys",
												   jq_catalog()->schema),
								 AccessShareLock);
	bool		found = RelationGetNumberOfBlocks(rel) > 0;

	table_close(rel, AccessShareLock);
	return found;
}
