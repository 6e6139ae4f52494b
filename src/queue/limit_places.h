/*-------------------------------------------------------------------------
 *
 * limit_places.h
 *	  Places of jobs that become free, and who is woken for them.
 *
 *	  A place counts for its type, for its group, for both or neither (while
 *	  it is lent, or another limit does not hold).  What it no longer counts
 *	  for is given back here, so that running is always the number of places
 *	  that count.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_LIMIT_PLACES_H
#define JQ_LIMIT_PLACES_H

#include "postgres.h"

#include "queue/limit_memory.h"

#define JQ_LIMIT_MAX_WAKES 64

/* Whoever waits for a type of which a place is free now. */
typedef struct JqLimitWake
{
	uint32		hash;
	JqRunner	runner;
	Oid			role;
	int			places;
} JqLimitWake;

/* All of them, to be woken when the lock is released. */
typedef struct JqLimitWakes
{
	int			count;
	JqLimitWake targets[JQ_LIMIT_MAX_WAKES];
} JqLimitWakes;

/* ---- with the lock held ---- */

/* The place counts for its type, or its group, no more; it may not have. */
extern void jq_limit_places_leave_type(JqPlace *place);
extern void jq_limit_places_leave_group(JqPlace *place);

/* It counts for nothing, and is gone. */
extern void jq_limit_places_free(JqPlace *place);

/*
 * A place of this type is free: adds who waits for one, if anybody was refused
 * or a group is ready.  Those beyond the last target are not woken.
 */
extern void jq_limit_places_refuse_no_more(JqLimitedType *entry,
										   JqLimitWakes *wakes);

/* ---- without the lock ---- */

/* Wakes them; cannot fail. */
extern void jq_limit_places_wake(const JqLimitWakes *wakes);

/*
 * An audit found that the job of this copied place runs, or that it does not
 * and its place is free; unless it has been claimed again since.  These take
 * the lock.
 */
extern void jq_limit_places_seen(const JqPlace *place);
extern void jq_limit_places_lost(const JqPlace *place);

#endif							/* JQ_LIMIT_PLACES_H */
