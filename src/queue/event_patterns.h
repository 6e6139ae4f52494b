/*-------------------------------------------------------------------------
 *
 * event_patterns.h
 *	  Event types, patterns of them, and the subscriptions that match.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_EVENT_PATTERNS_H
#define JQ_EVENT_PATTERNS_H

#include "postgres.h"

/* Who gets an event, and as jobs of which type. */
typedef struct JqSubscription
{
	int64		id;
	Oid			owner;
	char	   *job_type;
} JqSubscription;

/* Raises 22023 for what no event can be called. */
extern void jq_event_check_type(const char *type);

/* Raises 22023 for what cannot be subscribed to. */
extern void jq_event_check_pattern(const char *pattern);

/*
 * The enabled subscriptions to events of a type that has been checked, the
 * oldest of each job type, by id; "count" of them, in the current context.  Of
 * roles that are gone there are none: nobody would have the jobs.
 *
 * Sees all that were committed before the caller got a lock on a relation,
 * whatever the age of the transaction's snapshot: the rows are the newest, and
 * invalidations of what is cached are read with a lock not held before.
 */
extern JqSubscription *jq_event_match(const char *type, int *count);

#endif							/* JQ_EVENT_PATTERNS_H */
