/*-------------------------------------------------------------------------
 *
 * limit_places.c
 *	  Places of jobs that become free, and who is woken for them.
 *
 * Who waits is noted while the lock is held, and woken when it is not: wakes
 * take locks of their own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/endpoint_health.h"
#include "base/shared_state.h"
#include "queue/groups.h"
#include "queue/limit_places.h"
#include "queue/waiters.h"

static void wake(const JqLimitWake *target);

void
jq_limit_places_leave_type(JqPlace *place)
{
	if (place->counts_type)
		jq_limit_memory->types[place->type].running--;
	place->counts_type = false;
}

void
jq_limit_places_leave_group(JqPlace *place)
{
	if (place->group != JQ_NO_GROUP && place->counts_group)
	{
		JqGroup    *group = jq_limit_group(place->group);

		group->running--;
		place->counts_group = false;
		jq_groups_settle(group, GetCurrentTimestamp());
	}
}

void
jq_limit_places_free(JqPlace *place)
{
	jq_limit_places_leave_type(place);
	jq_limit_places_leave_group(place);
	jq_limit_drop_place(place);
}

/* ---- wakes ---- */

void
jq_limit_places_refuse_no_more(JqLimitedType *entry, JqLimitWakes *wakes)
{
	bool		must_wake = entry->was_refused || entry->nready > 0;
	JqLimitWake *target;

	/* Whoever was refused and not woken needs the next one that ends. */
	if (entry->running == 0)
		entry->was_refused = false;
	if (!must_wake)
		return;
	for (int i = 0; i < wakes->count; i++)
	{
		target = &wakes->targets[i];
		if (target->hash == entry->hash && target->runner == entry->runner &&
			target->role == entry->role)
		{
			target->places++;
			return;
		}
	}
	if (wakes->count == JQ_LIMIT_MAX_WAKES)
		return;
	target = &wakes->targets[wakes->count++];
	target->hash = entry->hash;
	target->runner = entry->runner;
	target->role = entry->role;
	target->places = 1;
}

void
jq_limit_places_wake(const JqLimitWakes *wakes)
{
	for (int i = 0; i < wakes->count; i++)
		wake(&wakes->targets[i]);
}

static void
wake(const JqLimitWake *target)
{
	TimestampTz now = GetCurrentTimestamp();

	if (target->runner == JQ_RUNNER_EXTERNAL)
		for (int i = 0; i < Min(target->places, JQ_LIMIT_MAX_WAKES); i++)
			jq_waiters_wake(target->hash, now, now);
	else if (target->runner == JQ_RUNNER_SQL && OidIsValid(target->role) &&
			 jq_shared_wake_executors(MyDatabaseId, target->role,
									  target->places) > 0)
		return;
	else if (target->runner == JQ_RUNNER_HTTP &&
			 jq_shared_wake_dispatchers(MyDatabaseId) >= jq_health_max_dispatchers())
		return;
	else
		jq_shared_wake_scheduler(MyDatabaseId);
}

/* ---- the audit ---- */

/* It is compared again when others have had their turn. */
void
jq_limit_places_seen(const JqPlace *place)
{
	JqPlace    *there;

	jq_limit_lock();
	there = jq_limit_find_place(place->id.job_id);
	if (there != NULL && there->claim_no == place->claim_no)
		there->taken_at = GetCurrentTimestamp();
	jq_limit_unlock();
}

void
jq_limit_places_lost(const JqPlace *place)
{
	JqPlace    *there;

	jq_limit_lock();
	there = jq_limit_find_place(place->id.job_id);
	if (there != NULL && there->claim_no == place->claim_no &&
		!there->is_uncommitted)
		jq_limit_places_free(there);
	jq_limit_unlock();
}
