/*-------------------------------------------------------------------------
 *
 * events.c
 *	  SQL functions that publish events and subscribe to them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/arguments.h"
#include "base/config.h"
#include "queue/event_patterns.h"
#include "queue/event_subscriptions.h"
#include "queue/events.h"

PG_FUNCTION_INFO_V1(jobqueue_publish_event);
PG_FUNCTION_INFO_V1(jobqueue_subscribe_event);
PG_FUNCTION_INFO_V1(jobqueue_unsubscribe_event);
PG_FUNCTION_INFO_V1(jobqueue_replay_events);

static void check_subscriber_arguments(FunctionCallInfo fcinfo);
static const char *subscriber(FunctionCallInfo fcinfo);

Datum
jobqueue_publish_event(PG_FUNCTION_ARGS)
{
	JqEvent		event;
	int64	   *ids;
	Datum	   *elements;
	int			count;

	jq_argument_required(fcinfo, 0, "event_type");
	event.type = jq_argument_text(fcinfo, 0);
	event.payload = jq_argument_datum(fcinfo, 1);
	event.key = jq_argument_datum(fcinfo, 2);
	event.tenant_id = jq_argument_datum(fcinfo, 3);
	event.published_at = GetCurrentTransactionStartTimestamp();
	ids = jq_event_publish(&event, &count);
	elements = palloc(sizeof(Datum) * Max(count, 1));
	for (int i = 0; i < count; i++)
		elements[i] = Int64GetDatum(ids[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(elements, count, INT8OID,
										  sizeof(int64), FLOAT8PASSBYVAL,
										  TYPALIGN_DOUBLE));
}

Datum
jobqueue_subscribe_event(PG_FUNCTION_ARGS)
{
	const char *job_type;

	check_subscriber_arguments(fcinfo);
	if (!PG_ARGISNULL(1))
		job_type = jq_argument_text(fcinfo, 1);
	else
	{
		jq_event_check_pattern(jq_argument_text(fcinfo, 0));
		job_type = jq_event_webhook(jq_argument_text(fcinfo, 2));
	}
	PG_RETURN_INT64(jq_event_subscribe(jq_argument_text(fcinfo, 0), job_type));
}

Datum
jobqueue_unsubscribe_event(PG_FUNCTION_ARGS)
{
	const char *job_type;

	check_subscriber_arguments(fcinfo);
	job_type = subscriber(fcinfo);
	PG_RETURN_BOOL(jq_event_unsubscribe(jq_argument_text(fcinfo, 0), job_type));
}

Datum
jobqueue_replay_events(PG_FUNCTION_ARGS)
{
	JqReplay	replay = {0};

	check_subscriber_arguments(fcinfo);
	replay.pattern = jq_argument_text(fcinfo, 0);
	jq_event_check_pattern(replay.pattern);
	replay.job_type = subscriber(fcinfo);
	replay.since = jq_argument_datum(fcinfo, 3);
	replay.has_since = !PG_ARGISNULL(3);
	replay.until = jq_argument_datum(fcinfo, 4);
	replay.has_until = !PG_ARGISNULL(4);
	replay.max_events = PG_ARGISNULL(5) ? PG_INT64_MAX : PG_GETARG_INT32(5);
	if (replay.max_events < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_events must not be negative")));
	if (jq_config_keep_events == 0)
		ereport(NOTICE,
				(errmsg("events are not kept"),
				 errhint("Set jobqueue.keep_events.")));
	PG_RETURN_INT64(jq_event_replay(&replay));
}

/* The job type that an argument names, or that stands for an endpoint. */
static const char *
subscriber(FunctionCallInfo fcinfo)
{
	return !PG_ARGISNULL(1) ? jq_argument_text(fcinfo, 1) :
		jq_event_webhook_name(jq_argument_text(fcinfo, 2));
}

static void
check_subscriber_arguments(FunctionCallInfo fcinfo)
{
	jq_argument_required(fcinfo, 0, "event_type");
	if (PG_ARGISNULL(1) == PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("one of job_type and endpoint must be given, and not both")));
}
