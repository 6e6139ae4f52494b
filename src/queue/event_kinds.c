/*-------------------------------------------------------------------------
 *
 * event_kinds.c
 *	  The events of jobs and circuits that can be logged.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/config.h"
#include "base/json.h"
#include "base/names.h"
#include "queue/event_kinds.h"

/* What events are called, in the log and in job_types.event_messages. */
typedef struct EventName
{
	const char *name;
	const char *key;
} EventName;

static const EventName events[JQ_EVENT_COUNT] = {
	[JQ_EVENT_ENQUEUED] = {"job.enqueued", "enqueued"},
	[JQ_EVENT_REQUEUED] = {"job.requeued", "requeued"},
	[JQ_EVENT_START] = {"worker.job.start", "start"},
	[JQ_EVENT_COMPLETED] = {"worker.job.completed", "completed"},
	[JQ_EVENT_SKIPPED] = {"worker.job.skipped", "skipped"},
	[JQ_EVENT_RELEASED] = {"worker.job.released", "released"},
	[JQ_EVENT_CANCELLED] = {"worker.job.cancelled", "cancelled"},
	[JQ_EVENT_FAILED] = {"worker.job.failed", "failed"},
	[JQ_EVENT_EXPIRED] = {"worker.job.expired", "expired"},
	[JQ_EVENT_CRASHED] = {"worker.job.crashed", "crashed"},
	[JQ_EVENT_DEAD_LETTER] = {"worker.job.dead_letter", "dead_letter"},
	[JQ_EVENT_CIRCUIT_OPEN] = {"worker.circuit_open", "circuit_open"},
	[JQ_EVENT_CIRCUIT_HALF_OPEN] = {"worker.circuit_half_open", "circuit_half_open"},
	[JQ_EVENT_CIRCUIT_CLOSED] = {"worker.circuit_closed", "circuit_closed"}
};

static int	find_event(const char *key);

const char *
jq_event_name(JqEventKind kind)
{
	return events[kind].name;
}

JqEventKind
jq_event_of_run(const char *status)
{
	int			kind = find_event(status);

	if (kind < 0)
		elog(ERROR, "unexpected status \"%s\" of a run", status);
	return (JqEventKind) kind;
}

/* -1: there is none. */
static int
find_event(const char *key)
{
	for (int i = 0; i < JQ_EVENT_COUNT; i++)
		if (strcmp(events[i].key, key) == 0)
			return i;
	return -1;
}

void
jq_event_messages_parse(Jsonb *json, char **messages)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;
	int			kind = -1;

	memset(messages, 0, sizeof(char *) * JQ_EVENT_COUNT);
	if (!jq_json_is_object(json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("event_messages must be an object"),
				 errhint("For example {\"start\": \"Starting sale discovery cycle\"}.")));
	it = JsonbIteratorInit(&json->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char	   *string;

		if (token != WJB_KEY && token != WJB_VALUE)
			continue;
		if (token == WJB_VALUE && value.type != jbvString)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" of event_messages must be a text",
							events[kind].key)));
		string = pnstrdup(value.val.string.val, value.val.string.len);

		if (token == WJB_VALUE)
		{
			jq_name_check(string, psprintf("\"%s\" of event_messages",
										   events[kind].key),
						  1, JQ_EVENT_MAX_MESSAGE);
			messages[kind] = string;

			continue;
		}
		kind = find_event(string);
		if (kind < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unrecognized event \"%s\" in event_messages", string),
					 errhint("The events are enqueued, requeued, start, completed, skipped, released, cancelled, failed, expired, crashed, dead_letter, circuit_open, circuit_half_open and circuit_closed.")));
	}
}

void
jq_event_prefix_check(const char *prefix, const char *argument)
{
	const char *flaw = jq_config_event_prefix_flaw(prefix);

	if (flaw != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid %s \"%s\"", argument, prefix),
				 errdetail("%s", flaw),
				 errhint("For example \"giftcard\", for events like giftcard.job.enqueued.")));
}
