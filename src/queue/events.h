/*-------------------------------------------------------------------------
 *
 * events.h
 *	  Events become jobs: of subscribers at once, of later ones by replay.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_EVENTS_H
#define JQ_EVENTS_H

#include "postgres.h"

#include "datatype/timestamp.h"

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

/*
 * Enqueues the stored events that a job type is subscribed to and has not got,
 * oldest first, and returns how many.  Waits for the transactions that are
 * publishing events, or changing subscriptions.  Raises 42704 when there is no
 * subscription, 42501 where one belongs to somebody else, 0A000 under
 * REPEATABLE READ and SERIALIZABLE.
 */
extern int64 jq_event_replay(const JqReplay *replay);

#endif							/* JQ_EVENTS_H */
