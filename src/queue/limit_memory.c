/*-------------------------------------------------------------------------
 *
 * limit_memory.c
 *	  What shared memory counts of jobs with limits.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/config.h"
#include "base/shared_memory.h"
#include "queue/limit_memory.h"
#include "queue/waiters.h"

#define LOCK_TRANCHE "jobqueue_limits"

/* An entry that nothing counts in may go to another type after so long. */
#define EVICT_AFTER_US (10 * USECS_PER_SEC)

/* What each type may have, if there are any. */
#define SURE_GROUPS 16

typedef struct GroupEntry
{
	JqGroupId	id;
	int			number;
} GroupEntry;

JqLimitMemory *jq_limit_memory = NULL;

static HTAB *places = NULL;
static HTAB *group_table = NULL;

static Size header_size(void);
static Size flags_size(void);
static Size heap_size(void);
static Size groups_size(void);
static void request_memory(void);
static void create_memory(void);
static void init_memory(void);
static JqLimitedType *free_type(TimestampTz now);
static bool type_is_idle(const JqLimitedType *type, TimestampTz now);
static JqGroup *make_group(const JqGroupId *id, const char *key);
static bool has_room(const JqLimitedType *type);
static void free_group(JqGroup *group);
static bool is_before(int a, int b);
static void sift_up(int place);
static void sift_down(int place);
static void set_timed(int place, int group);

void
jq_limit_memory_init(void)
{
	jq_shared_memory_add(request_memory, create_memory);
}

static Size
header_size(void)
{
	return CACHELINEALIGN(sizeof(JqLimitMemory));
}

static Size
flags_size(void)
{
	return mul_size(MaxBackends, sizeof(JqClaimFlag));
}

static Size
heap_size(void)
{
	return CACHELINEALIGN(mul_size(jq_config_max_groups, sizeof(int)));
}

static Size
groups_size(void)
{
	return mul_size(jq_config_max_groups, sizeof(JqGroup));
}

static void
request_memory(void)
{
	RequestAddinShmemSpace(header_size());
	RequestAddinShmemSpace(PG_CACHE_LINE_SIZE);
	RequestAddinShmemSpace(flags_size());
	RequestAddinShmemSpace(heap_size());
	RequestAddinShmemSpace(groups_size());
	RequestAddinShmemSpace(hash_estimate_size(jq_config_max_limited_jobs,
											  sizeof(JqPlace)));
	RequestAddinShmemSpace(hash_estimate_size(jq_config_max_groups,
											  sizeof(GroupEntry)));
	RequestNamedLWLockTranche(LOCK_TRANCHE, 1);
}

/* In the postmaster at each start, and after each crash. */
static void
create_memory(void)
{
	HASHCTL		place_info = {
		.keysize = sizeof(JqPlaceId),
		.entrysize = sizeof(JqPlace)
	};
	HASHCTL		group_info = {
		.keysize = sizeof(JqGroupId),
		.entrysize = sizeof(GroupEntry)
	};
	bool		found;

	places = ShmemInitHash("jobqueue places", jq_config_max_limited_jobs,
						   jq_config_max_limited_jobs, &place_info,
						   HASH_ELEM | HASH_BLOBS);
	group_table = ShmemInitHash("jobqueue group names", jq_config_max_groups,
								jq_config_max_groups, &group_info,
								HASH_ELEM | HASH_BLOBS);
	jq_limit_memory = ShmemInitStruct("jobqueue limits",
									  header_size() + PG_CACHE_LINE_SIZE +
									  flags_size() + heap_size() +
									  groups_size(), &found);
	if (!found)
		init_memory();
}

static void
init_memory(void)
{
	JqLimitMemory *memory = jq_limit_memory;
	char	   *rest;

	memset(memory, 0, header_size() + PG_CACHE_LINE_SIZE + flags_size() +
		   heap_size() + groups_size());
	memory->lock = &GetNamedLWLockTranche(LOCK_TRANCHE)->lock;
	memory->started_at = GetCurrentTimestamp();
	pg_atomic_init_u32(&memory->ntypes, 0);
	rest = (char *) CACHELINEALIGN((char *) memory + header_size());
	memory->flags = (JqClaimFlag *) rest;
	memory->nflags = MaxBackends;
	for (int i = 0; i < memory->nflags; i++)
		pg_atomic_init_u64(&memory->flags[i].of.number, 0);
	rest += flags_size();
	memory->timed = (int *) rest;
	rest += heap_size();
	memory->groups = (JqGroup *) rest;
	memory->max_groups = jq_config_max_groups;
	memory->first_free = 0;
	for (int i = 0; i < memory->max_groups; i++)
		memory->groups[i].following =
			i + 1 < memory->max_groups ? i + 1 : JQ_NO_GROUP;
}

/* ---- job types ---- */

JqLimitedType *
jq_limit_find_type(const char *name)
{
	uint32		hash = jq_waiters_hash(name);

	for (int i = 0; i < jq_limit_memory->high; i++)
		if (jq_limit_memory->hashes[i] == hash &&
			jq_limit_memory->types[i].database == MyDatabaseId &&
			strcmp(jq_limit_memory->types[i].name, name) == 0)
			return &jq_limit_memory->types[i];
	return NULL;
}

JqLimitedType *
jq_limit_make_type(const char *name, TimestampTz now)
{
	JqLimitedType *type = jq_limit_find_type(name);

	if (type == NULL)
		type = free_type(now);
	if (type == NULL || OidIsValid(type->database))
		return type;
	memset(type, 0, offsetof(JqLimitedType, rate));
	type->database = MyDatabaseId;
	strlcpy(type->name, name, sizeof(type->name));
	type->hash = jq_waiters_hash(name);
	jq_limit_memory->hashes[jq_limit_type_number(type)] = type->hash;
	jq_limit_memory->high = Max(jq_limit_memory->high,
								jq_limit_type_number(type) + 1);
	type->used_at = now;
	type->first_ready = JQ_NO_GROUP;
	type->last_ready = JQ_NO_GROUP;
	jq_rate_reset(&type->rate.log, JQ_TYPE_PLACES);
	pg_atomic_fetch_add_u32(&jq_limit_memory->ntypes, 1);
	return type;
}

/* One that nobody has, or needs any more. */
static JqLimitedType *
free_type(TimestampTz now)
{
	for (int i = 0; i < JQ_LIMITED_TYPES; i++)
		if (!OidIsValid(jq_limit_memory->types[i].database))
			return &jq_limit_memory->types[i];
	for (int i = 0; i < JQ_LIMITED_TYPES; i++)
	{
		JqLimitedType *type = &jq_limit_memory->types[i];

		if (!type_is_idle(type, now))
			continue;
		type->database = InvalidOid;
		pg_atomic_fetch_sub_u32(&jq_limit_memory->ntypes, 1);
		return type;
	}
	return NULL;
}

/* What it has counted of a rate may still matter: so a day must pass. */
static bool
type_is_idle(const JqLimitedType *type, TimestampTz now)
{
	return type->running == 0 && type->ngroups == 0 &&
		type->counting_pid == 0 &&
		type->used_at + (type->rate.log.used > 0 || type->rate.log.full_at > now ?
						 USECS_PER_DAY : EVICT_AFTER_US) < now;
}

int
jq_limit_type_number(const JqLimitedType *type)
{
	return type - jq_limit_memory->types;
}

void
jq_limit_forget_places(JqLimitedType *type)
{
	int			number = jq_limit_type_number(type);
	HASH_SEQ_STATUS scan;
	JqPlace    *place;

	hash_seq_init(&scan, places);
	while ((place = hash_seq_search(&scan)) != NULL)
		if (place->type == number)
			hash_search(places, &place->id, HASH_REMOVE, NULL);
	for (JqGroup *group = jq_limit_next_group(type, NULL); group != NULL;
		 group = jq_limit_next_group(type, group))
		group->running = 0;
	type->running = 0;
	type->counts = 0;
}

void
jq_limit_drop_groups(JqLimitedType *type)
{
	for (JqGroup *group = jq_limit_next_group(type, NULL); group != NULL;
		 group = jq_limit_next_group(type, group))
	{
		jq_limit_unqueue_group(group);
		free_group(group);
	}
}

JqGroup *
jq_limit_next_group(const JqLimitedType *type, JqGroup *group)
{
	int			number = group == NULL ? 0 : jq_limit_group_number(group) + 1;

	for (; number < jq_limit_memory->max_groups; number++)
		if (jq_limit_memory->groups[number].in_use &&
			jq_limit_memory->groups[number].id.type ==
			jq_limit_type_number(type))
			return &jq_limit_memory->groups[number];
	return NULL;
}

/* ---- places ---- */

JqPlace *
jq_limit_find_place(int64 job_id)
{
	JqPlaceId	id = {.database = MyDatabaseId,.job_id = job_id};

	return hash_search(places, &id, HASH_FIND, NULL);
}

JqPlace *
jq_limit_make_place(int64 job_id)
{
	JqPlaceId	id = {.database = MyDatabaseId,.job_id = job_id};
	JqPlace    *place;
	bool		found;

	/* Partitioned or not, a table in shared memory may grow by slack. */
	if (hash_get_num_entries(places) >= jq_config_max_limited_jobs &&
		jq_limit_find_place(job_id) == NULL)
		return NULL;
	place = hash_search(places, &id, HASH_ENTER_NULL, &found);
	if (place != NULL && !found)
		memset((char *) place + sizeof(JqPlaceId), 0,
			   sizeof(JqPlace) - sizeof(JqPlaceId));
	return place;
}

void
jq_limit_drop_place(JqPlace *place)
{
	hash_search(places, &place->id, HASH_REMOVE, NULL);
}

int
jq_limit_list_places(JqPlace *list, int max, TimestampTz before)
{
	HASH_SEQ_STATUS scan;
	JqPlace    *place;
	int			count = 0;

	hash_seq_init(&scan, places);
	while ((place = hash_seq_search(&scan)) != NULL)
	{
		if (place->id.database != MyDatabaseId || place->is_uncommitted ||
			place->taken_at >= before)
			continue;
		list[count++] = *place;
		if (count == max)
		{
			hash_seq_term(&scan);
			break;
		}
	}
	return count;
}

/* ---- groups ---- */

JqGroup *
jq_limit_find_group(const JqLimitedType *type, const char *key, bool create)
{
	const unsigned char *bytes = (const unsigned char *) key;
	int			length = strlen(key);
	JqGroupId	id = {
		.hash = hash_bytes_extended(bytes, length, 0),
		.other_hash = hash_bytes_extended(bytes, length, 1),
		.type = jq_limit_type_number(type)
	};
	GroupEntry *entry = hash_search(group_table, &id, HASH_FIND, NULL);

	if (entry != NULL)
		return &jq_limit_memory->groups[entry->number];
	return create ? make_group(&id, key) : NULL;
}

static JqGroup *
make_group(const JqGroupId *id, const char *key)
{
	GroupEntry *entry;
	JqGroup    *group;
	uint32		generation;

	if (jq_limit_memory->first_free == JQ_NO_GROUP ||
		!has_room(&jq_limit_memory->types[id->type]))
		return NULL;
	entry = hash_search(group_table, id, HASH_ENTER_NULL, NULL);
	if (entry == NULL)
		return NULL;
	entry->number = jq_limit_memory->first_free;
	group = &jq_limit_memory->groups[entry->number];
	jq_limit_memory->first_free = group->following;
	generation = group->generation;
	memset(group, 0, offsetof(JqGroup, rate));
	group->generation = generation;
	group->in_use = true;
	group->id = *id;
	if (strlen(key) < JQ_GROUP_KEY_SIZE)
		strlcpy(group->key, key, JQ_GROUP_KEY_SIZE);
	group->lane.slot = -1;
	jq_rate_reset(&group->rate.log, JQ_GROUP_PLACES);
	jq_limit_memory->types[id->type].ngroups++;
	jq_limit_memory->ngroups++;
	return group;
}

/* A type leaves as many as it has to others: none keeps them from all. */
static bool
has_room(const JqLimitedType *type)
{
	return type->ngroups < SURE_GROUPS ||
		type->ngroups < jq_limit_memory->max_groups - jq_limit_memory->ngroups;
}

JqGroup *
jq_limit_group(int number)
{
	return &jq_limit_memory->groups[number];
}

int
jq_limit_group_number(const JqGroup *group)
{
	return group - jq_limit_memory->groups;
}

/* Its log of a rate is needed until the last instant has left the window. */
void
jq_limit_free_group_if_idle(JqGroup *group)
{
	if (group->running > 0 || group->has_next || group->has_more ||
		group->state != JQ_GROUP_IDLE)
		return;
	free_group(group);
}

static void
free_group(JqGroup *group)
{
	hash_search(group_table, &group->id, HASH_REMOVE, NULL);
	jq_limit_memory->types[group->id.type].ngroups--;
	jq_limit_memory->ngroups--;
	group->in_use = false;
	group->generation++;
	group->following = jq_limit_memory->first_free;
	jq_limit_memory->first_free = jq_limit_group_number(group);
}

void
jq_limit_queue_group(JqGroup *group)
{
	JqLimitedType *type = &jq_limit_memory->types[group->id.type];
	int			number = jq_limit_group_number(group);

	jq_limit_unqueue_group(group);
	group->state = JQ_GROUP_READY;
	group->previous = type->last_ready;
	group->following = JQ_NO_GROUP;
	if (type->last_ready != JQ_NO_GROUP)
		jq_limit_memory->groups[type->last_ready].following = number;
	else
		type->first_ready = number;
	type->last_ready = number;
	type->nready++;
}

void
jq_limit_unqueue_group(JqGroup *group)
{
	JqLimitedType *type = &jq_limit_memory->types[group->id.type];

	if (group->state == JQ_GROUP_READY)
	{
		if (group->previous != JQ_NO_GROUP)
			jq_limit_memory->groups[group->previous].following = group->following;
		else
			type->first_ready = group->following;
		if (group->following != JQ_NO_GROUP)
			jq_limit_memory->groups[group->following].previous = group->previous;
		else
			type->last_ready = group->previous;
		type->nready--;
	}
	else if (group->state == JQ_GROUP_TIMED)
	{
		int			place = group->heap_place;
		int			last = --jq_limit_memory->ntimed;

		if (place != last)
		{
			set_timed(place, jq_limit_memory->timed[last]);
			sift_up(place);
			sift_down(place);
		}
	}
	group->state = JQ_GROUP_IDLE;
}

/* ---- those that wait for an instant: a heap ---- */

void
jq_limit_time_group(JqGroup *group, TimestampTz ready_at)
{
	jq_limit_unqueue_group(group);
	group->state = JQ_GROUP_TIMED;
	group->ready_at = ready_at;
	set_timed(jq_limit_memory->ntimed, jq_limit_group_number(group));
	sift_up(jq_limit_memory->ntimed++);
}

JqGroup *
jq_limit_first_timed(void)
{
	if (jq_limit_memory->ntimed == 0)
		return NULL;
	return &jq_limit_memory->groups[jq_limit_memory->timed[0]];
}

static bool
is_before(int a, int b)
{
	const int  *timed = jq_limit_memory->timed;

	return jq_limit_memory->groups[timed[a]].ready_at <
		jq_limit_memory->groups[timed[b]].ready_at;
}

static void
sift_up(int place)
{
	while (place > 0 && is_before(place, (place - 1) / 2))
	{
		int			parent = (place - 1) / 2;
		int			group = jq_limit_memory->timed[place];

		set_timed(place, jq_limit_memory->timed[parent]);
		set_timed(parent, group);
		place = parent;
	}
}

static void
sift_down(int place)
{
	for (;;)
	{
		int			child = 2 * place + 1;
		int			group = jq_limit_memory->timed[place];

		if (child >= jq_limit_memory->ntimed)
			return;
		if (child + 1 < jq_limit_memory->ntimed && is_before(child + 1, child))
			child++;
		if (!is_before(child, place))
			return;
		set_timed(place, jq_limit_memory->timed[child]);
		set_timed(child, group);
		place = child;
	}
}

static void
set_timed(int place, int group)
{
	jq_limit_memory->timed[place] = group;
	jq_limit_memory->groups[group].heap_place = place;
}
