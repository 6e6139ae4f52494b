/*-------------------------------------------------------------------------
 *
 * throttle.c
 *	  Leaving a job type alone for a while.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/scope.h"
#include "base/statement.h"
#include "queue/activity.h"
#include "queue/throttle.h"

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

static JqStatement throttle_if_free = {
	.text = "UPDATE @.job_types SET throttled_until = $2 WHERE job_type IN"
	" (SELECT t.job_type FROM @.job_types t WHERE t.job_type = $1"
	" AND (t.throttled_until IS NULL OR t.throttled_until < $2)"
	" FOR UPDATE SKIP LOCKED)",
	.nargs = 2,
	.argtypes = {TEXTOID, TIMESTAMPTZOID}
};

bool
jq_throttle_job_type(const char *job_type, int64 delay_us)
{
	Datum		values[2];
	bool		is_changed;

	values[0] = CStringGetTextDatum(job_type);
	values[1] = TimestampTzGetDatum(GetCurrentTimestamp() + delay_us);
	jq_scope_enter(JQ_WRITE_PLAIN);
	is_changed = jq_statement_execute_latest(delay_us > 0 ? &throttle :
											 &end_throttle, values, NULL) > 0;
	jq_scope_leave();
	if (is_changed && delay_us == 0)
		jq_activity_wake_at_commit();
	return is_changed;
}

void
jq_throttle_after_error(const char *job_type, int64 delay_us)
{
	Datum		values[2];

	values[0] = CStringGetTextDatum(job_type);
	values[1] = TimestampTzGetDatum(GetCurrentTimestamp() + delay_us);
	jq_scope_enter(JQ_WRITE_PLAIN);
	(void) jq_statement_execute_latest(&throttle_if_free, values, NULL);
	jq_scope_leave();
}
