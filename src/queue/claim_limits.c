/*-------------------------------------------------------------------------
 *
 * claim_limits.c
 *	  Limits in tables: where shared memory does not count, and what must
 *	  outlive it.
 *
 * Without shared memory a claim of a limited type takes a lock of the type
 * that lasts as long as its transaction, counts what runs, and reads in
 * rate_log what has begun.  Two such claims never wait for each other: the
 * second one finds nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/scope.h"
#include "base/statement.h"
#include "queue/claim_limits.h"
#include "queue/limits.h"

/* Advisory locks of users have 1 or 2 here. */
#define LOCK_OF_LIMITS 0x6a71

/* Shorter windows are not worth a row: see limit_count.c. */
#define LOGGED_WINDOW_US (10 * USECS_PER_SEC)

/* How often old rows are looked for. */
#define PRUNE_CHANCE 0.01

static JqStatement count_running = {
	.text = "SELECT count(*) FILTER (WHERE q.status = 'running'),"
	" count(*) FILTER (WHERE q.group_key = $2 AND (q.status = 'running' OR"
	" ($3 AND q.status = 'queued' AND q.attempts > 0)))"
	" FROM @.jobs_queue_live q WHERE q.job_type = $1 AND q.id <> $4",
	.nargs = 4,
	.argtypes = {TEXTOID, TEXTOID, BOOLOID, INT8OID}
};

static JqStatement count_begun = {
	.text = "SELECT count(*) FILTER (WHERE l.claimed_at >= $3),"
	" count(*) FILTER (WHERE l.claimed_at >= $4 AND l.group_key = $2)"
	" FROM @.rate_log l WHERE l.job_type = $1"
	" AND l.claimed_at >= least($3, $4)",
	.nargs = 4,
	.argtypes = {TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

static JqStatement log_claim = {
	.text = "INSERT INTO @.rate_log"
	" (job_type, group_key, claimed_at, job_id, claim_no)"
	" VALUES ($1, $2, $3, $4, $5)",
	.nargs = 5,
	.argtypes = {TEXTOID, TEXTOID, TIMESTAMPTZOID, INT8OID, INT4OID}
};

static JqStatement prune_log = {
	.text = "DELETE FROM @.rate_log WHERE ctid IN (SELECT l.ctid"
	" FROM @.rate_log l WHERE l.job_type = $1 AND l.claimed_at < $2"
	" LIMIT 1000 FOR UPDATE SKIP LOCKED)",
	.nargs = 2,
	.argtypes = {TEXTOID, TIMESTAMPTZOID}
};

static JqStatement select_logged = {
	.text = "SELECT l.claimed_at, l.group_key FROM @.rate_log l"
	" WHERE l.job_type = $1 AND l.claimed_at >= $2 ORDER BY l.claimed_at",
	.nargs = 2,
	.argtypes = {TEXTOID, TIMESTAMPTZOID}
};

static bool try_lock(const char *job_type);
static bool has_place(const JqJobType *type, const JqJob *job);
static bool may_begin(const JqJobType *type, const JqJob *job,
					  TimestampTz now);
static JqRate as_window(const JqRate *rate);
static int64 longest_window(const JqLimits *limits);
static void insert_log(const JqJobType *type, const JqJob *job, TimestampTz at);

bool
jq_claim_limits_allow(const JqJobType *type, const JqJob *job,
					  TimestampTz *now)
{
	bool		is_allowed;

	if (!try_lock(type->name))
		return false;
	*now = GetCurrentTimestamp();
	/* What was committed before the lock was free, whatever the isolation. */
	PushActiveSnapshot(GetLatestSnapshot());
	is_allowed = has_place(type, job) && may_begin(type, job, *now);
	PopActiveSnapshot();
	if (is_allowed && longest_window(&type->limits) > 0)
		insert_log(type, job, *now);
	return is_allowed;
}

static bool
try_lock(const char *job_type)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, jq_catalog()->schema,
						 hash_bytes((const unsigned char *) job_type,
									strlen(job_type)), LOCK_OF_LIMITS);
	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

static bool
has_place(const JqJobType *type, const JqJob *job)
{
	const JqLimits *limits = &type->limits;
	bool		has_key = job->group_key != NULL;
	Datum		values[4] = {
		CStringGetTextDatum(type->name),
		has_key ? CStringGetTextDatum(job->group_key) : (Datum) 0,
		BoolGetDatum(limits->group_strict),
		Int64GetDatum(job->id)
	};

	if (jq_limits_counts(limits) == 0)
		return true;
	(void) jq_statement_query(&count_running, values, has_key ? NULL : " n",
							  0);
	return (limits->max_concurrency == 0 ||
			DatumGetInt64(jq_statement_value(0, 1)) < limits->max_concurrency) &&
		(limits->group_concurrency == 0 || !has_key ||
		 DatumGetInt64(jq_statement_value(0, 2)) < limits->group_concurrency);
}

static bool
may_begin(const JqJobType *type, const JqJob *job, TimestampTz now)
{
	JqRate		rate = as_window(&type->limits.rate);
	const JqRate *group_rate = &type->limits.group_rate;
	bool		has_key = job->group_key != NULL;
	Datum		values[4] = {
		CStringGetTextDatum(type->name),
		has_key ? CStringGetTextDatum(job->group_key) : (Datum) 0,
		TimestampTzGetDatum(now - rate.window_us),
		TimestampTzGetDatum(now - group_rate->window_us)
	};

	if (rate.max == 0 && group_rate->max == 0)
		return true;
	(void) jq_statement_query(&count_begun, values, has_key ? NULL : " n", 0);
	return (rate.max == 0 ||
			DatumGetInt64(jq_statement_value(0, 1)) < rate.max) &&
		(group_rate->max == 0 || !has_key ||
		 DatumGetInt64(jq_statement_value(0, 2)) < group_rate->max);
}

/* A bucket gives as many as it holds in the time that it takes to fill. */
static JqRate
as_window(const JqRate *rate)
{
	JqRate		window = *rate;

	if (rate->max == 0 || rate->burst == 0)
		return window;
	window.max = rate->burst;
	window.window_us = rate->window_us / rate->max * rate->burst;
	return window;
}

static int64
longest_window(const JqLimits *limits)
{
	return Max(limits->rate.max > 0 ? limits->rate.window_us : 0,
			   limits->group_rate.max > 0 ? limits->group_rate.window_us : 0);
}

void
jq_claim_limits_log(const JqJobType *type, const JqJob *job, TimestampTz at)
{
	if (longest_window(&type->limits) >= LOGGED_WINDOW_US)
		insert_log(type, job, at);
}

static void
insert_log(const JqJobType *type, const JqJob *job, TimestampTz at)
{
	bool		has_key = job->group_key != NULL;
	Datum		values[5] = {
		CStringGetTextDatum(type->name),
		has_key ? CStringGetTextDatum(job->group_key) : (Datum) 0,
		TimestampTzGetDatum(at),
		Int64GetDatum(job->id),
		Int32GetDatum(job->claim_no + 1)
	};

	(void) jq_statement_execute(&log_claim, values, has_key ? NULL : " n   ", 0);
	if (pg_prng_double(&pg_global_prng_state) >= PRUNE_CHANCE)
		return;
	values[1] = TimestampTzGetDatum(at - longest_window(&type->limits));
	(void) jq_statement_execute_latest(&prune_log, values, NULL);
}

JqLoggedClaim *
jq_claim_limits_logged(const JqJobType *type, int *count)
{
	MemoryContext context = CurrentMemoryContext;
	int64		window_us = longest_window(&type->limits);
	Datum		values[2];
	JqLoggedClaim *claims;

	*count = 0;
	if (window_us < LOGGED_WINDOW_US)
		return NULL;
	values[0] = CStringGetTextDatum(type->name);
	values[1] = TimestampTzGetDatum(GetCurrentTimestamp() - window_us);
	jq_scope_enter_read_only();
	PushActiveSnapshot(GetLatestSnapshot());
	*count = (int) jq_statement_query(&select_logged, values, NULL, 0);
	PopActiveSnapshot();
	claims = MemoryContextAlloc(context,
								sizeof(JqLoggedClaim) * Max(*count, 1));
	for (int i = 0; i < *count; i++)
	{
		bool		isnull;
		Datum		key = jq_statement_nullable(i, 2, &isnull);

		claims[i].at = DatumGetTimestampTz(jq_statement_value(i, 1));
		claims[i].group_key = isnull ? NULL :
			MemoryContextStrdup(context, TextDatumGetCString(key));
	}
	jq_scope_leave();
	return claims;
}
