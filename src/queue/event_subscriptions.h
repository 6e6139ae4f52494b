/*-------------------------------------------------------------------------
 *
 * event_subscriptions.h
 *	  Rows of event_subscriptions: how they are made, and what they may be.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_EVENT_SUBSCRIPTIONS_H
#define JQ_EVENT_SUBSCRIPTIONS_H

#include "postgres.h"

/*
 * Subscribes a job type to the events that a pattern matches, and returns the
 * id of the subscription; one that is there is enabled.  Raises 22023, or 42501
 * where it belongs to somebody else.
 */
extern int64 jq_event_subscribe(const char *pattern, const char *job_type);

/* False when there is no such subscription; raises as above. */
extern bool jq_event_unsubscribe(const char *pattern, const char *job_type);

/*
 * The job type that stands for an endpoint, made when there is none.  Raises
 * 42704 for an unknown endpoint, 42501 unless the current user may act as its
 * owner, 55000 when the job type is something else.
 */
extern const char *jq_event_webhook(const char *endpoint);

/* Its name alone. */
extern const char *jq_event_webhook_name(const char *endpoint);

#endif							/* JQ_EVENT_SUBSCRIPTIONS_H */
