/*-------------------------------------------------------------------------
 *
 * endpoint_health.c
 *	  How the servers do that HTTP jobs go to: counters in shared memory.
 *
 * A hash table of a fixed number of entries, and two lists of them, endpoints
 * and origins, in the order of their last use.  When the table is full, the
 * entry used longest ago makes room, unless something of it is in flight.
 * Anybody can make origins, by jobs that name a URL: so an origin takes the
 * room of origins only, and an endpoint that of an origin first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/endpoint_health.h"

#include "lib/ilist.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "base/config.h"
#include "base/shared_memory.h"

#define LOCK_TRANCHE "jobqueue_endpoint_stats"

typedef struct HealthKey
{
	Oid			database;
	bool		is_endpoint;
	char		name[JQ_HEALTH_KEY_SIZE];	/* zeroes to its end */
} HealthKey;

/* The key is also in "health", but for the database. */
typedef struct HealthEntry
{
	HealthKey	key;			/* first: it is the hash key */
	dlist_node	node;			/* in a list of HealthState */
	JqHealth	health;
} HealthEntry;

typedef struct HealthState
{
	LWLock	   *lock;			/* guards everything, and the table */
	int			nentries;
	dlist_head	endpoints;		/* the one used last comes first */
	dlist_head	origins;
} HealthState;

const int64 jq_health_bounds_us[JQ_HEALTH_BOUNDS] = {
	500, 1000, 1500, 2000, 3000, 5000, 7000,
	10000, 15000, 20000, 30000, 50000, 70000,
	100000, 150000, 200000, 300000, 500000, 700000,
	1000000, 1500000, 2000000, 3000000, 5000000, 7000000,
	10000000, 15000000, 20000000, 30000000, 50000000, 70000000,
	100000000, 120000000
};

const JqHealthEvent jq_health_not_sent = {
	.failure = JQ_HEALTH_NOT_ALLOWED,
	.reason = "not sent; last_error of the job says why"
};
const JqHealthEvent jq_health_aborted = {.was_aborted = true};

static HealthState *state = NULL;
static HTAB *table = NULL;
static int	my_number = 0;		/* among the dispatchers of the database */

static void request_memory(void);
static void create_memory(void);
static void make_key(HealthKey *key, const char *name, bool is_endpoint);
static HealthEntry *find_or_create(const HealthKey *key);
static bool make_room(bool is_endpoint);
static bool evict_oldest(dlist_head *list);
static dlist_head *list_of(bool is_endpoint);
static void detach(int code, Datum arg);
static void count_end(JqHealth *health, const JqHealthEvent *event);
static void count_failure(JqHealth *health, const JqHealthEvent *event);
static void count_time(JqHealth *health, int64 total_us);
static int	list_some(JqHealth *entries, int max);
static void forget(JqHealth *health);

void
jq_health_init(void)
{
	if (jq_config_max_endpoint_stats == 0)
		return;
	jq_shared_memory_add(request_memory, create_memory);
}

static void
request_memory(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(HealthState)));
	RequestAddinShmemSpace(hash_estimate_size(jq_config_max_endpoint_stats,
											  sizeof(HealthEntry)));
	RequestNamedLWLockTranche(LOCK_TRANCHE, 1);
}

/* In the postmaster at each start, and after each crash. */
static void
create_memory(void)
{
	HASHCTL		info = {0};
	bool		found;

	state = ShmemInitStruct("jobqueue endpoint stats", sizeof(HealthState),
							&found);
	if (!found)
	{
		state->lock = &GetNamedLWLockTranche(LOCK_TRANCHE)->lock;
		state->nentries = 0;
		dlist_init(&state->endpoints);
		dlist_init(&state->origins);
	}
	info.keysize = sizeof(HealthKey);
	info.entrysize = sizeof(HealthEntry);
	table = ShmemInitHash("jobqueue endpoint stats table",
						  jq_config_max_endpoint_stats,
						  jq_config_max_endpoint_stats,
						  &info, HASH_ELEM | HASH_BLOBS);
}

/* A name is cut between characters. */
static void
make_key(HealthKey *key, const char *name, bool is_endpoint)
{
	memset(key, 0, sizeof(*key));
	key->database = MyDatabaseId;
	key->is_endpoint = is_endpoint;
	memcpy(key->name, name, pg_mbcliplen(name, strlen(name),
										 JQ_HEALTH_KEY_SIZE - 1));
}

static dlist_head *
list_of(bool is_endpoint)
{
	return is_endpoint ? &state->endpoints : &state->origins;
}

bool
jq_health_start(const char *key, bool is_endpoint, int limit, TimestampTz now)
{
	HealthKey	full_key;
	HealthEntry *entry;
	bool		has_place = true;

	if (state == NULL)
		return true;			/* this one is the only one */
	make_key(&full_key, key, is_endpoint);
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	entry = find_or_create(&full_key);
	if (entry == NULL)
		has_place = my_number == 0;
	else if (entry->health.in_flight >= limit)
	{
		entry->health.is_contended = true;
		has_place = false;
	}
	else
	{
		entry->health.in_flight++;
		entry->health.in_flight_of[my_number]++;
		entry->health.requests++;
		entry->health.last_used_at = now;
		dlist_move_head(list_of(is_endpoint), &entry->node);
	}
	LWLockRelease(state->lock);
	return has_place;
}

/* NULL: there is no room.  The lock must be held. */
static HealthEntry *
find_or_create(const HealthKey *key)
{
	HealthEntry *entry = hash_search(table, key, HASH_FIND, NULL);

	if (entry != NULL)
		return entry;
	if (state->nentries >= jq_config_max_endpoint_stats &&
		!make_room(key->is_endpoint))
		return NULL;
	entry = hash_search(table, key, HASH_ENTER_NULL, NULL);
	if (entry == NULL)
		return NULL;
	state->nentries++;
	memset(&entry->health, 0, sizeof(entry->health));
	entry->health.is_endpoint = key->is_endpoint;
	memcpy(entry->health.key, key->name, JQ_HEALTH_KEY_SIZE);
	dlist_push_head(list_of(key->is_endpoint), &entry->node);
	return entry;
}

/* The lock must be held. */
static bool
make_room(bool is_endpoint)
{
	return evict_oldest(&state->origins) ||
		(is_endpoint && evict_oldest(&state->endpoints));
}

/* False: each one has something in flight.  The lock must be held. */
static bool
evict_oldest(dlist_head *list)
{
	dlist_iter	iter;

	dlist_reverse_foreach(iter, list)
	{
		HealthEntry *entry = dlist_container(HealthEntry, node, iter.cur);

		if (entry->health.in_flight > 0)
			continue;
		dlist_delete(&entry->node);
		(void) hash_search(table, &entry->key, HASH_REMOVE, NULL);
		state->nentries--;
		return true;
	}
	return false;
}

bool
jq_health_end(const char *key, bool is_endpoint, const JqHealthEvent *event)
{
	HealthKey	full_key;
	HealthEntry *entry;
	TimestampTz now;
	bool		was_contended = false;

	if (state == NULL)
		return false;
	make_key(&full_key, key, is_endpoint);
	now = GetCurrentTimestamp();
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	entry = hash_search(table, &full_key, HASH_FIND, NULL);
	if (entry != NULL)
	{
		if (entry->health.in_flight_of[my_number] > 0)
		{
			entry->health.in_flight--;
			entry->health.in_flight_of[my_number]--;
		}
		was_contended = entry->health.is_contended;
		entry->health.is_contended = false;
		entry->health.last_used_at = now;
		count_end(&entry->health, event);
	}
	LWLockRelease(state->lock);
	return was_contended;
}

/* The lock must be held; last_used_at is now. */
static void
count_end(JqHealth *health, const JqHealthEvent *event)
{
	int			class = event->status / 100;

	if (event->was_aborted)
	{
		health->aborted++;
		return;
	}
	health->bytes += event->bytes;
	health->reused += event->was_reused ? 1 : 0;
	health->last_status = event->status;
	if (class >= 1 && class < (int) lengthof(health->by_class))
		health->by_class[class]++;
	if (event->status == 429)
		health->too_many++;
	if (event->total_us > 0)
		count_time(health, event->total_us);
	if (event->succeeded)
	{
		health->succeeded++;
		health->consecutive_failures = 0;
		health->last_success_at = health->last_used_at;
	}
	else
		count_failure(health, event);
}

static void
count_failure(JqHealth *health, const JqHealthEvent *event)
{
	health->failed++;
	health->consecutive_failures++;
	health->last_failure_at = health->last_used_at;
	if (event->status == 0)
	{
		Assert(event->failure <= JQ_HEALTH_OTHER);
		health->unanswered[event->failure == JQ_HEALTH_ANSWERED ?
						   JQ_HEALTH_OTHER : event->failure]++;
	}
	if (event->reason != NULL)
		strlcpy(health->last_error, event->reason, JQ_HEALTH_ERROR_SIZE);
	else if (event->status != 0)
		snprintf(health->last_error, JQ_HEALTH_ERROR_SIZE, "status %d",
				 event->status);
	else
		strlcpy(health->last_error, "no answer", JQ_HEALTH_ERROR_SIZE);
}

static void
count_time(JqHealth *health, int64 total_us)
{
	int			bucket = 0;

	while (bucket < JQ_HEALTH_BOUNDS && total_us > jq_health_bounds_us[bucket])
		bucket++;
	health->buckets[bucket]++;
	health->timed++;
	health->total_us += total_us;
	health->slowest_us = Max(health->slowest_us, total_us);
}

int
jq_health_max_dispatchers(void)
{
	return state == NULL ? 1 : jq_config_max_dispatchers;
}

void
jq_health_attach(int dispatcher)
{
	Assert(dispatcher >= 0 && dispatcher < JQ_MAX_DISPATCHERS);
	my_number = dispatcher;
	if (state == NULL)
		return;
	detach(0, (Datum) 0);
	before_shmem_exit(detach, (Datum) 0);
}

/* Nothing of this dispatcher is under way any more. */
static void
detach(int code, Datum arg)
{
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	for (int kind = 0; kind < 2; kind++)
	{
		dlist_iter	iter;

		dlist_foreach(iter, list_of(kind == 0))
		{
			HealthEntry *entry = dlist_container(HealthEntry, node, iter.cur);
			JqHealth   *health = &entry->health;

			if (entry->key.database != MyDatabaseId)
				continue;
			health->aborted += health->in_flight_of[my_number];
			health->in_flight -= health->in_flight_of[my_number];
			health->in_flight_of[my_number] = 0;
		}
	}
	LWLockRelease(state->lock);
}

int
jq_health_list(JqHealth **entries)
{
	int			count;
	int			max;

	*entries = NULL;
	if (state == NULL)
		return 0;
	count = list_some(NULL, 0);
	do
	{
		/* There may be more of them by now. */
		max = count;
		if (*entries != NULL)
			pfree(*entries);
		*entries = palloc_extended(sizeof(JqHealth) * Max(max, 1),
								   MCXT_ALLOC_HUGE);
		count = list_some(*entries, max);
	} while (count > max);
	return count;
}

/* How many there are; the first "max" of them are listed. */
static int
list_some(JqHealth *entries, int max)
{
	int			count = 0;

	LWLockAcquire(state->lock, LW_SHARED);
	for (int kind = 0; kind < 2; kind++)
	{
		dlist_iter	iter;

		dlist_foreach(iter, list_of(kind == 0))
		{
			HealthEntry *entry = dlist_container(HealthEntry, node, iter.cur);

			if (entry->key.database != MyDatabaseId)
				continue;
			if (count < max)
				entries[count] = entry->health;
			count++;
		}
	}
	LWLockRelease(state->lock);
	return count;
}

int
jq_health_reset(const char *key)
{
	int			count = 0;

	if (state == NULL)
		return 0;
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	for (int kind = 0; kind < 2; kind++)
	{
		dlist_iter	iter;

		dlist_foreach(iter, list_of(kind == 0))
		{
			HealthEntry *entry = dlist_container(HealthEntry, node, iter.cur);

			if (entry->key.database != MyDatabaseId ||
				(key != NULL && strcmp(entry->health.key, key) != 0))
				continue;
			forget(&entry->health);
			count++;
		}
	}
	LWLockRelease(state->lock);
	return count;
}

/* What is in flight will end, and is counted as a request then and now. */
static void
forget(JqHealth *health)
{
	JqHealth	before = *health;

	memset(health, 0, sizeof(*health));
	health->is_endpoint = before.is_endpoint;
	memcpy(health->key, before.key, JQ_HEALTH_KEY_SIZE);
	health->in_flight = before.in_flight;
	memcpy(health->in_flight_of, before.in_flight_of,
		   sizeof(health->in_flight_of));
	health->requests = before.in_flight;
	health->last_used_at = before.last_used_at;
}

/* As if the times in a bucket were spread over it evenly. */
double
jq_health_quantile_ms(const JqHealth *health, double part)
{
	double		rank = part * health->timed;
	double		lower = 0;
	double		upper = health->slowest_us;
	int64		before = 0;

	if (health->timed == 0)
		return -1;
	for (int i = 0; i < JQ_HEALTH_BUCKETS; i++)
	{
		int64		here = health->buckets[i];

		if (here > 0 && before + here >= rank)
		{
			if (i < JQ_HEALTH_BOUNDS)
				upper = Min(upper, jq_health_bounds_us[i]);
			lower = i > 0 ? jq_health_bounds_us[i - 1] : 0;
			return (lower + (upper - lower) * Max(rank - before, 0) / here) / 1000.0;
		}
		before += here;
	}
	return upper / 1000.0;
}
