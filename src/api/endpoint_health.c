/*-------------------------------------------------------------------------
 *
 * endpoint_health.c
 *	  _endpoint_health() and reset_endpoint_stats(): how the servers do that
 *	  HTTP jobs go to.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "api/arguments.h"
#include "base/endpoint_health.h"
#include "base/json.h"

PG_FUNCTION_INFO_V1(jobqueue_endpoint_health);
PG_FUNCTION_INFO_V1(jobqueue_reset_endpoint_stats);

#define HEALTH_COLUMNS 29

static void put_health(ReturnSetInfo *rsinfo, const JqHealth *health);
static Jsonb *histogram(const JqHealth *health);

/* No rows when the library was not preloaded. */
Datum
jobqueue_endpoint_health(PG_FUNCTION_ARGS)
{
	JqHealth   *entries = NULL;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	count = jq_health_list(&entries);
	for (int i = 0; i < count; i++)
		put_health((ReturnSetInfo *) fcinfo->resultinfo, &entries[i]);
	return (Datum) 0;
}

/* One row; the order of the columns is that of _endpoint_health(). */
static void
put_health(ReturnSetInfo *rsinfo, const JqHealth *health)
{
	static const double parts[] = {0.5, 0.95, 0.99};
	Datum		values[HEALTH_COLUMNS] = {0};
	bool		nulls[HEALTH_COLUMNS] = {false};
	int			n = 0;

	values[n++] = CStringGetTextDatum(health->is_endpoint ? "endpoint" : "host");
	values[n++] = CStringGetTextDatum(health->key);
	values[n++] = Int32GetDatum(health->in_flight);
	values[n++] = Int64GetDatum(health->requests);
	values[n++] = Int64GetDatum(health->succeeded);
	values[n++] = Int64GetDatum(health->failed);
	values[n++] = Int64GetDatum(health->aborted);
	values[n++] = Int64GetDatum(health->consecutive_failures);
	for (int class = 2; class <= 5; class++)
		values[n++] = Int64GetDatum(health->by_class[class]);
	values[n++] = Int64GetDatum(health->too_many);
	for (int failure = JQ_HEALTH_TIMED_OUT; failure <= JQ_HEALTH_OTHER; failure++)
		values[n++] = Int64GetDatum(health->unanswered[failure]);
	values[n] = Int32GetDatum(health->last_status);
	nulls[n++] = health->last_status == 0;
	values[n] = CStringGetTextDatum(health->last_error);
	nulls[n++] = health->last_error[0] == '\0';
	values[n] = TimestampTzGetDatum(health->last_success_at);
	nulls[n++] = health->last_success_at == 0;
	values[n] = TimestampTzGetDatum(health->last_failure_at);
	nulls[n++] = health->last_failure_at == 0;
	values[n++] = Int64GetDatum(health->bytes);
	values[n++] = Int64GetDatum(health->reused);
	values[n] = Float8GetDatum(health->timed == 0 ? 0 :
							   health->total_us / 1000.0 / health->timed);
	nulls[n++] = health->timed == 0;
	for (int i = 0; i < (int) lengthof(parts); i++)
	{
		values[n] = Float8GetDatum(jq_health_quantile_ms(health, parts[i]));
		nulls[n++] = health->timed == 0;
	}
	values[n++] = JsonbPGetDatum(histogram(health));
	Assert(n == HEALTH_COLUMNS);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* The buckets that have something in them; the last one has no bound. */
static Jsonb *
histogram(const JqHealth *health)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < JQ_HEALTH_BUCKETS; i++)
	{
		if (health->buckets[i] == 0)
			continue;
		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		if (i < JQ_HEALTH_BOUNDS)
			jq_json_put_ms(&state, "up_to_ms", jq_health_bounds_us[i]);
		jq_json_put_integer(&state, "requests", health->buckets[i]);
		pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

Datum
jobqueue_reset_endpoint_stats(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(jq_health_reset(jq_argument_text(fcinfo, 0)));
}
