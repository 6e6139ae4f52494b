/*-------------------------------------------------------------------------
 *
 * events.h
 *	  Events, and the subscriptions that turn them into jobs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_EVENTS_H
#define JQ_EVENTS_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* What the jobs of subscriptions to an endpoint are called: this and its name. */
#define JQ_WEBHOOK_PREFIX "webhook:"

/* An event to be published; a zero Datum means NULL. */
typedef struct JqEvent
{
	const char *type;
	Datum		payload;		/* jsonb */
	Datum		key;			/* text */
	Datum		tenant_id;		/* text */
	TimestampTz published_at;	/* of stored ones */
} JqEvent;

/* Which of the stored events are meant. */
typedef struct JqReplay
{
	const char *pattern;
	const char *job_type;
	Datum		since;			/* timestamptz; has_since */
	Datum		until;			/* exclusive; has_until */
	bool		has_since;
	bool		has_until;
	int64		max_events;
} JqReplay;

/*
 * Enqueues one job for each job type that has an enabled subscription to the
 * event, for the owner of the oldest one.  Returns the ids in the order of the
 * subscriptions, "count" of them, in the current context; where the event has a
 * key, and there is or was a job with it, it is the id of that job.  Raises 22023 for what is
 * wrong with the event, whether anybody has subscribed or not.
 */
extern int64 *jq_event_publish(const JqEvent *event, int *count);

/* Raises 22023 for what cannot be subscribed to. */
extern void jq_event_check_pattern(const char *pattern);

/*
 * Subscribes a job type to the events that a pattern matches, and returns the
 * id of the subscription; one that is there is enabled.  Raises 22023, or 42501
 * where it belongs to somebody else.
 */
extern int64 jq_event_subscribe(const char *pattern, const char *job_type);

/*
 * The job type that stands for an endpoint, made when there is none.  Raises
 * 42704 for an unknown endpoint, 42501 unless the current user may act as its
 * owner, 55000 when the job type is something else.
 */
extern const char *jq_event_webhook(const char *endpoint);

/* Its name alone. */
extern const char *jq_event_webhook_name(const char *endpoint);

/* False when there is no such subscription; raises 42501 as above. */
extern bool jq_event_unsubscribe(const char *pattern, const char *job_type);

/*
 * Enqueues the stored events that a job type is subscribed to and has not got,
 * oldest first, and returns how many.  Waits for the transactions that are
 * publishing events, or changing subscriptions.  Raises 42704 when there is no
 * subscription, 42501 as above, 0A000 under REPEATABLE READ and SERIALIZABLE.
 */
extern int64 jq_event_replay(const JqReplay *replay);

#endif							/* JQ_EVENTS_H */
