/*-------------------------------------------------------------------------
 *
 * lanes.c
 *	  The directory of lanes: which databases and lanes there are.
 *
 * The directory has one lock, each lane another; the directory's comes first.
 * A new epoch of a database makes every lane of it forget its candidates when
 * it is locked next, for their row versions may be in a file that is gone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/config.h"
#include "base/shared_memory.h"
#include "queue/lane_memory.h"

#define LOCK_TRANCHE "jobqueue_lanes"

/*
 * A lane in which nobody has found a job for so long may make room for
 * another; the next job makes it again.
 */
#define EVICT_AFTER_US (10 * USECS_PER_SEC)
#define FREE_DATABASE_AFTER_US (USECS_PER_HOUR)

typedef struct LaneEntry
{
	JqLaneId	id;
	int			slot;
} LaneEntry;

JqLaneDirectory *jq_lane_directory = NULL;
JqLane	   *jq_lane_array = NULL;
LWLockPadded *jq_lane_locks = NULL;

static HTAB *lane_table = NULL;
static uint32 *lane_types = NULL;	/* hash of each lane's job type; 0: free */
static JqLaneDatabase *mine = NULL; /* this backend's database, once joined */
static bool my_duties[JQ_DUTY_COUNT];	/* that this backend has begun */

static Size directory_size(void);
static Size types_size(void);
static Size lanes_size(void);
static void request_memory(void);
static void create_memory(void);
static int	find_database(TimestampTz now);
static uint32 hash_type(const char *job_type);
static void make_id(JqLaneId *id, const JqLaneName *name);
static LaneEntry *create_lane(const JqLaneId *id);
static int	find_slot(TimestampTz now);
static void evict(int slot);
static int	list_some(const char *job_type, JqLaneRef *refs, JqLaneName *names,
					  int max);

void
jq_lanes_init(void)
{
	if (jq_config_max_lanes == 0)
		return;
	jq_shared_memory_add(request_memory, create_memory);
}

static Size
directory_size(void)
{
	return add_size(offsetof(JqLaneDirectory, headers),
					mul_size(jq_config_max_lanes, sizeof(JqLaneHeader)));
}

static Size
types_size(void)
{
	return mul_size(jq_config_max_lanes, sizeof(uint32));
}

static Size
lanes_size(void)
{
	return mul_size(jq_config_max_lanes, sizeof(JqLane));
}

static void
request_memory(void)
{
	RequestAddinShmemSpace(directory_size());
	RequestAddinShmemSpace(types_size());
	RequestAddinShmemSpace(lanes_size());
	RequestAddinShmemSpace(hash_estimate_size(jq_config_max_lanes,
											  sizeof(LaneEntry)));
	RequestNamedLWLockTranche(LOCK_TRANCHE, jq_config_max_lanes + 1);
}

/* In the postmaster at each start, and after each crash. */
static void
create_memory(void)
{
	HASHCTL		info = {
		.keysize = sizeof(JqLaneId),
		.entrysize = sizeof(LaneEntry)
	};
	bool		found;

	jq_lane_locks = GetNamedLWLockTranche(LOCK_TRANCHE);
	jq_lane_array = ShmemInitStruct("jobqueue lanes", lanes_size(), &found);
	lane_table = ShmemInitHash("jobqueue lane names", jq_config_max_lanes,
							   jq_config_max_lanes, &info,
							   HASH_ELEM | HASH_BLOBS);
	lane_types = ShmemInitStruct("jobqueue lane types", types_size(), &found);
	jq_lane_directory = ShmemInitStruct("jobqueue lane directory", directory_size(),
										&found);
	if (!found)
	{
		memset(jq_lane_directory, 0, directory_size());
		memset(jq_lane_array, 0, lanes_size());
		memset(lane_types, 0, types_size());
		jq_lane_directory->lock = &jq_lane_locks[0].lock;
		jq_lane_directory->nlanes = jq_config_max_lanes;
		pg_atomic_init_u64(&jq_lane_directory->generation, 1);
		for (int i = 0; i < JQ_LANE_DATABASES; i++)
		{
			pg_atomic_init_u64(&jq_lane_directory->databases[i].epoch, 1);
			for (int n = 0; n < JQ_LANE_COUNTS; n++)
				pg_atomic_init_u64(&jq_lane_directory->databases[i].counts[n], 0);
		}
		for (int i = 0; i < jq_lane_directory->nlanes; i++)
			ConditionVariableInit(&jq_lane_array[i].read);
	}
}

bool
jq_lanes_exist(void)
{
	return jq_lane_directory != NULL;
}

/* ---- databases ---- */

bool
jq_lanes_join(Oid relid, Oid file)
{
	TimestampTz now;
	int			slot;

	if (jq_lane_directory == NULL)
		return false;
	if (mine != NULL && mine->oid == MyDatabaseId && mine->relid == relid &&
		mine->file == file)
		return true;

	now = GetCurrentTimestamp();
	LWLockAcquire(jq_lane_directory->lock, LW_EXCLUSIVE);
	slot = find_database(now);
	mine = slot < 0 ? NULL : &jq_lane_directory->databases[slot];
	if (mine != NULL && (mine->relid != relid || mine->file != file))
	{
		mine->relid = relid;
		mine->file = file;
		mine->is_discovered = false;
		mine->duty_at[JQ_DUTY_DISCOVER] = 0;
		pg_atomic_fetch_add_u64(&mine->epoch, 1);
	}
	LWLockRelease(jq_lane_directory->lock);
	return mine != NULL;
}

bool
jq_lanes_are_joined(void)
{
	return mine != NULL;
}

/* The slot of this database; -1: there is no room.  The lock must be held. */
static int
find_database(TimestampTz now)
{
	JqLaneDatabase *database;
	int			slot = -1;

	for (int i = 0; i < JQ_LANE_DATABASES; i++)
	{
		database = &jq_lane_directory->databases[i];
		if (database->oid == MyDatabaseId)
			return i;
		if (!OidIsValid(database->oid) && slot < 0)
			slot = i;
	}
	for (int i = 0; i < JQ_LANE_DATABASES && slot < 0; i++)
		if (now - jq_lane_directory->databases[i].last_used_at > FREE_DATABASE_AFTER_US)
			slot = i;			/* it has probably been dropped */
	if (slot < 0)
		return -1;

	for (int i = 0; i < jq_lane_directory->nlanes; i++)
		if (jq_lane_directory->headers[i].in_use &&
			jq_lane_directory->headers[i].database == slot)
			evict(i);
	database = &jq_lane_directory->databases[slot];
	database->oid = MyDatabaseId;
	database->relid = InvalidOid;
	database->is_overflowed = false;
	database->is_discovered = false;
	database->last_used_at = now;
	memset(database->duty_at, 0, sizeof(database->duty_at));
	for (int i = 0; i < JQ_LANE_COUNTS; i++)
		pg_atomic_write_u64(&database->counts[i], 0);
	return slot;
}

void
jq_lanes_forget(void)
{
	if (mine == NULL)
		return;
	pg_atomic_fetch_add_u64(&mine->epoch, 1);
	jq_lanes_discover_soon();
}

void
jq_lanes_discover_soon(void)
{
	if (mine != NULL)
		mine->duty_at[JQ_DUTY_DISCOVER] = 0;
}

bool
jq_lanes_are_discovered(void)
{
	return mine->is_discovered;
}

uint64
jq_lanes_epoch(void)
{
	return pg_atomic_read_u64(&mine->epoch);
}

uint64
jq_lanes_generation(void)
{
	return pg_atomic_read_u64(&jq_lane_directory->generation);
}

bool
jq_lanes_overflowed(void)
{
	return mine->is_overflowed;
}

void
jq_lanes_set_overflowed(bool overflowed)
{
	if (mine != NULL)
		mine->is_overflowed = overflowed;
}

bool
jq_lanes_begin_duty(JqLaneDuty duty, TimestampTz now)
{
	bool		is_due;

	mine->last_used_at = now;
	if (!jq_lane_is_time(mine->duty_at[duty], now))
		return false;
	LWLockAcquire(jq_lane_directory->lock, LW_EXCLUSIVE);
	is_due = jq_lane_is_time(mine->duty_at[duty], now);
	my_duties[duty] = is_due;
	if (is_due)
		mine->duty_at[duty] = now + JQ_LANE_TURN_US;
	LWLockRelease(jq_lane_directory->lock);
	return is_due;
}

void
jq_lanes_end_duty(JqLaneDuty duty, TimestampTz started_at, int64 interval_us)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(jq_lane_directory->lock, LW_EXCLUSIVE);
	mine->duty_at[duty] =
		now + Max(interval_us, (now - started_at) * JQ_LANE_REST);
	if (duty == JQ_DUTY_DISCOVER)
		mine->is_discovered = true;
	LWLockRelease(jq_lane_directory->lock);
	my_duties[duty] = false;
}

void
jq_lanes_give_up(void)
{
	for (int duty = 0; duty < JQ_DUTY_COUNT; duty++)
	{
		if (my_duties[duty] && mine != NULL)
			mine->duty_at[duty] = 0;
		my_duties[duty] = false;
	}
}

void
jq_lanes_count(JqLaneCount what, uint64 number)
{
	if (mine != NULL)
		pg_atomic_fetch_add_u64(&mine->counts[what], number);
}

bool
jq_lanes_counts(uint64 counts[JQ_LANE_COUNTS])
{
	if (mine == NULL)
		return false;
	for (int i = 0; i < JQ_LANE_COUNTS; i++)
		counts[i] = pg_atomic_read_u64(&mine->counts[i]);
	return true;
}

/* ---- the directory ---- */

JqLaneRef
jq_lanes_get(const JqLaneName *name, bool create)
{
	JqLaneRef	ref = {.slot = -1};
	JqLaneId	id;
	LaneEntry  *entry;

	make_id(&id, name);
	LWLockAcquire(jq_lane_directory->lock, LW_SHARED);
	entry = hash_search(lane_table, &id, HASH_FIND, NULL);
	if (entry == NULL && create)
	{
		LWLockRelease(jq_lane_directory->lock);
		LWLockAcquire(jq_lane_directory->lock, LW_EXCLUSIVE);
		entry = hash_search(lane_table, &id, HASH_FIND, NULL);
		if (entry == NULL)
			entry = create_lane(&id);
	}
	if (entry != NULL)
	{
		ref.slot = entry->slot;
		ref.generation = jq_lane_array[entry->slot].generation;
	}
	LWLockRelease(jq_lane_directory->lock);
	return ref;
}

/* NULL: there is no room.  The directory must be locked. */
static LaneEntry *
create_lane(const JqLaneId *id)
{
	TimestampTz now = GetCurrentTimestamp();
	int			slot = find_slot(now);
	LaneEntry  *entry = NULL;
	JqLane	   *lane;

	if (slot >= 0)
		entry = hash_search(lane_table, id, HASH_ENTER_NULL, NULL);
	if (entry == NULL)
		return NULL;
	entry->slot = slot;
	lane_types[slot] = hash_type(id->name.job_type);
	jq_lane_directory->headers[slot].in_use = true;
	jq_lane_directory->headers[slot].id = *id;
	jq_lane_directory->headers[slot].database =
		mine - jq_lane_directory->databases;

	lane = &jq_lane_array[slot];
	LWLockAcquire(&jq_lane_locks[slot + 1].lock, LW_EXCLUSIVE);
	lane->database = mine - jq_lane_directory->databases;
	lane->is_being_read = false;
	lane->is_announced = false;
	lane->last_used_at = now;
	lane->last_claim_at = 0;
	lane->last_needed_at = now;
	lane->swept_at = now;
	lane->sweep_at = now + JQ_LANE_SWEEP_US;
	jq_lane_reset(lane);
	LWLockRelease(&jq_lane_locks[slot + 1].lock);
	pg_atomic_fetch_add_u64(&jq_lane_directory->generation, 1);
	return entry;
}

/* Never 0. */
static uint32
hash_type(const char *job_type)
{
	return hash_bytes((const unsigned char *) job_type, strlen(job_type)) | 1;
}

static void
make_id(JqLaneId *id, const JqLaneName *name)
{
	memset(id, 0, sizeof(*id));
	id->database = MyDatabaseId;
	strlcpy(id->name.job_type, name->job_type, JQ_LANE_NAME_SIZE);
	strlcpy(id->name.stage, name->stage, JQ_LANE_NAME_SIZE);
	id->name.priority = name->priority;
	id->name.owner = name->owner;
}

/* A free slot, or one made free; -1: none.  The directory must be locked. */
static int
find_slot(TimestampTz now)
{
	int			oldest = -1;

	for (int i = 0; i < jq_lane_directory->nlanes; i++)
	{
		if (!jq_lane_directory->headers[i].in_use)
			return i;
		if (!jq_lane_array[i].is_being_read &&
			(oldest < 0 ||
			 jq_lane_array[i].last_needed_at < jq_lane_array[oldest].last_needed_at))
			oldest = i;
	}
	if (oldest < 0 || now - jq_lane_array[oldest].last_needed_at < EVICT_AFTER_US)
		return -1;
	evict(oldest);
	return oldest;
}

/* The directory must be locked. */
static void
evict(int slot)
{
	JqLaneHeader *header = &jq_lane_directory->headers[slot];

	hash_search(lane_table, &header->id, HASH_REMOVE, NULL);
	header->in_use = false;
	lane_types[slot] = 0;
	LWLockAcquire(&jq_lane_locks[slot + 1].lock, LW_EXCLUSIVE);
	jq_lane_array[slot].generation++;
	jq_lane_array[slot].is_being_read = false;
	ConditionVariableBroadcast(&jq_lane_array[slot].read);
	LWLockRelease(&jq_lane_locks[slot + 1].lock);
	pg_atomic_fetch_add_u64(&jq_lane_directory->generation, 1);
}

int
jq_lanes_list(const char *job_type, JqLaneRef **refs, JqLaneName **names)
{
	int			count = list_some(job_type, NULL, NULL, 0);
	int			max;

	*refs = NULL;
	*names = NULL;
	do
	{
		/* There may be more of them by now. */
		max = count;
		if (*refs != NULL)
			pfree(*refs);
		if (*names != NULL)
			pfree(*names);
		*refs = palloc(sizeof(JqLaneRef) * Max(max, 1));
		*names = palloc(sizeof(JqLaneName) * Max(max, 1));
		count = list_some(job_type, *refs, *names, max);
	} while (count > max);
	return count;
}

/* How many there are; the first "max" of them are listed. */
static int
list_some(const char *job_type, JqLaneRef *refs, JqLaneName *names, int max)
{
	uint32		hash = job_type != NULL ? hash_type(job_type) : 0;
	int			count = 0;

	LWLockAcquire(jq_lane_directory->lock, LW_SHARED);
	for (int i = 0; i < jq_lane_directory->nlanes; i++)
	{
		const JqLaneHeader *header = &jq_lane_directory->headers[i];

		/* Headers are large: most are told apart without them. */
		if (lane_types[i] == 0 || (hash != 0 && lane_types[i] != hash) ||
			header->id.database != MyDatabaseId ||
			(job_type != NULL && strcmp(job_type, header->id.name.job_type) != 0))
			continue;
		if (count < max)
		{
			refs[count].slot = i;
			refs[count].generation = jq_lane_array[i].generation;
			names[count] = header->id.name;
		}
		count++;
	}
	LWLockRelease(jq_lane_directory->lock);
	return count;
}

int
jq_lanes_info(JqLaneInfo **infos)
{
	int			count = 0;

	if (jq_lane_directory == NULL)
		return 0;
	*infos = palloc(sizeof(JqLaneInfo) * jq_lane_directory->nlanes);
	LWLockAcquire(jq_lane_directory->lock, LW_SHARED);
	for (int i = 0; i < jq_lane_directory->nlanes; i++)
	{
		JqLaneInfo *info = &(*infos)[count];

		if (!jq_lane_directory->headers[i].in_use ||
			jq_lane_directory->headers[i].id.database != MyDatabaseId)
			continue;
		info->name = jq_lane_directory->headers[i].id.name;
		LWLockAcquire(&jq_lane_locks[i + 1].lock, LW_SHARED);
		info->candidates = jq_lane_array[i].count;
		info->position_at = jq_lane_array[i].position.scheduled_at;
		info->last_used_at = jq_lane_array[i].last_used_at;
		info->last_claim_at = jq_lane_array[i].last_claim_at;
		LWLockRelease(&jq_lane_locks[i + 1].lock);
		count++;
	}
	LWLockRelease(jq_lane_directory->lock);
	return count;
}
