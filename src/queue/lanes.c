/*-------------------------------------------------------------------------
 *
 * lanes.c
 *	  Where to look for ready jobs: the shared memory of claims.
 *
 * The directory (which lanes and databases there are) has one lock, each lane
 * another; the directory's comes first.  The candidates of a lane are a
 * sorted array, taken from the front.  Two rules keep its invariant:
 *
 * - What does not fit is the last candidate, and the position moves back to
 *	 it: the index will be read again from there.
 * - While somebody reads the index, every offer is kept, whatever its key: the
 *	 reader's snapshot may be older.  What had to be left out meanwhile is in
 *	 "dropped", before which the new position must stay.
 *
 * A new epoch of the database makes every lane forget its candidates when it
 * is locked next, for their row versions may be in a file that is gone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/config.h"
#include "queue/lanes.h"

#define MAX_CANDIDATES 256
#define MAX_DATABASES 256
#define LOCK_TRANCHE "jobqueue_lanes"

/* A lane that nobody used for so long may make room for another. */
#define EVICT_AFTER_US (10 * USECS_PER_SEC)
#define FREE_DATABASE_AFTER_US (USECS_PER_HOUR)

/* A lane in use is looked over so often, at most a fiftieth of the time. */
#define SWEEP_INTERVAL_US (5 * USECS_PER_SEC)
#define DUTY_REST 50

/* When to look again at a lane that has nothing but parked candidates. */
#define PARKED_LOOK_US (50 * 1000)

/* When the turn passes to another if who has it never ends it. */
#define DUTY_TIMEOUT_US (60 * USECS_PER_SEC)

/* The key of the hash table; unused bytes are zero. */
typedef struct LaneId
{
	Oid			database;
	JqLaneName	name;
} LaneId;

typedef struct LaneEntry
{
	LaneId		id;
	int			slot;
} LaneEntry;

/* A lane as the directory sees it. */
typedef struct LaneHeader
{
	bool		in_use;
	int			database;		/* slot in databases[] */
	LaneId		id;
} LaneHeader;

/* What is remembered of a lane; guarded by its lock. */
typedef struct Lane
{
	uint32		generation;		/* grows at eviction; needs both locks */
	int			database;		/* slot in databases[] */
	uint64		epoch;			/* of the database, when it was last reset */
	JqLaneKey	position;
	bool		is_being_read;	/* then "position" is that of the reader */
	JqLaneKey	dropped;		/* first key left out while it is read */
	ConditionVariable read;		/* signalled when it is not read any more */
	bool		is_announced;
	TimestampTz last_used_at;	/* by a claim */
	TimestampTz swept_at;
	TimestampTz sweep_at;
	int			first;
	int			count;
	JqCandidate candidates[MAX_CANDIDATES];
} Lane;

typedef struct Database
{
	Oid			oid;			/* InvalidOid: free */
	Oid			relid;			/* the live leaf */
	Oid			file;			/* where it is stored */
	pg_atomic_uint64 epoch;
	bool		is_overflowed;
	TimestampTz last_used_at;
	TimestampTz duty_at[JQ_DUTY_COUNT];
	pg_atomic_uint64 counts[JQ_LANE_COUNTS];
} Database;

typedef struct Directory
{
	LWLock	   *lock;			/* guards headers, databases and hash table */
	pg_atomic_uint64 generation;
	int			nlanes;
	Database	databases[MAX_DATABASES];
	LaneHeader	headers[FLEXIBLE_ARRAY_MEMBER];
} Directory;

static shmem_request_hook_type next_request_hook = NULL;
static shmem_startup_hook_type next_startup_hook = NULL;
static Directory *directory = NULL;
static HTAB *lane_table = NULL;
static Lane *lanes = NULL;
static LWLockPadded *locks = NULL;	/* the directory's, then the lanes' */
static Database *mine = NULL;	/* this backend's database, once joined */
static JqLaneRef my_read = {-1, 0}; /* the lane that this backend reads */

static Size directory_size(void);
static Size lanes_size(void);
static void request_memory(void);
static void create_memory(void);
static int	find_database(TimestampTz now);
static void make_id(LaneId *id, const JqLaneName *name);
static int	find_slot(TimestampTz now);
static void evict(int slot);
static int	list_some(const char *job_type, JqLaneRef *refs, JqLaneName *names,
					  int max);
static Lane *lock_lane(JqLaneRef ref);
static void unlock_lane(const Lane *lane);
static void reset(Lane *lane);
static int	find_place(const Lane *lane, const JqLaneKey *key, bool *is_there);
static bool insert(Lane *lane, const JqCandidate *candidate);
static void truncate_at(Lane *lane, JqLaneKey key);
static JqLaneAnswer answer_empty(Lane *lane, TimestampTz now,
								 TimestampTz *next_at);
static int	take_candidates(Lane *lane, const JqLaneWish *wish,
							JqCandidate *candidates);
static void end_read(Lane *lane);

void
jq_lanes_init(void)
{
	if (jq_config_max_lanes == 0)
		return;
	next_request_hook = shmem_request_hook;
	shmem_request_hook = request_memory;
	next_startup_hook = shmem_startup_hook;
	shmem_startup_hook = create_memory;
}

static Size
directory_size(void)
{
	return add_size(offsetof(Directory, headers),
					mul_size(jq_config_max_lanes, sizeof(LaneHeader)));
}

static Size
lanes_size(void)
{
	return mul_size(jq_config_max_lanes, sizeof(Lane));
}

static void
request_memory(void)
{
	if (next_request_hook)
		next_request_hook();
	RequestAddinShmemSpace(directory_size());
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
		.keysize = sizeof(LaneId),
		.entrysize = sizeof(LaneEntry)
	};
	bool		found;

	if (next_startup_hook)
		next_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	locks = GetNamedLWLockTranche(LOCK_TRANCHE);
	lanes = ShmemInitStruct("jobqueue lanes", lanes_size(), &found);
	lane_table = ShmemInitHash("jobqueue lane names", jq_config_max_lanes,
							   jq_config_max_lanes, &info,
							   HASH_ELEM | HASH_BLOBS);
	directory = ShmemInitStruct("jobqueue lane directory", directory_size(),
								&found);
	if (!found)
	{
		memset(directory, 0, directory_size());
		memset(lanes, 0, lanes_size());
		directory->lock = &locks[0].lock;
		directory->nlanes = jq_config_max_lanes;
		pg_atomic_init_u64(&directory->generation, 1);
		for (int i = 0; i < MAX_DATABASES; i++)
		{
			pg_atomic_init_u64(&directory->databases[i].epoch, 1);
			for (int n = 0; n < JQ_LANE_COUNTS; n++)
				pg_atomic_init_u64(&directory->databases[i].counts[n], 0);
		}
		for (int i = 0; i < directory->nlanes; i++)
			ConditionVariableInit(&lanes[i].read);
	}
	LWLockRelease(AddinShmemInitLock);
}

bool
jq_lanes_exist(void)
{
	return directory != NULL;
}

int
jq_lane_compare_keys(const JqLaneKey *a, const JqLaneKey *b)
{
	if (a->scheduled_at != b->scheduled_at)
		return a->scheduled_at < b->scheduled_at ? -1 : 1;
	if (a->id != b->id)
		return a->id < b->id ? -1 : 1;
	return 0;
}

bool
jq_lane_set_name(JqLaneName *name, Datum job_type, Datum stage, Datum priority)
{
	text	   *type_text = DatumGetTextPP(job_type);
	text	   *stage_text = DatumGetTextPP(stage);

	if (VARSIZE_ANY_EXHDR(type_text) >= JQ_LANE_NAME_SIZE ||
		VARSIZE_ANY_EXHDR(stage_text) >= JQ_LANE_NAME_SIZE)
		return false;
	text_to_cstring_buffer(type_text, name->job_type, JQ_LANE_NAME_SIZE);
	text_to_cstring_buffer(stage_text, name->stage, JQ_LANE_NAME_SIZE);
	name->priority = DatumGetInt16(priority);
	return true;
}

/* ---- databases ---- */

bool
jq_lanes_join(Oid relid, Oid file)
{
	TimestampTz now;
	int			slot;

	if (directory == NULL)
		return false;
	if (mine != NULL && mine->oid == MyDatabaseId && mine->relid == relid &&
		mine->file == file)
		return true;

	now = GetCurrentTimestamp();
	LWLockAcquire(directory->lock, LW_EXCLUSIVE);
	slot = find_database(now);
	mine = slot < 0 ? NULL : &directory->databases[slot];
	if (mine != NULL && (mine->relid != relid || mine->file != file))
	{
		mine->relid = relid;
		mine->file = file;
		mine->duty_at[JQ_DUTY_DISCOVER] = 0;
		pg_atomic_fetch_add_u64(&mine->epoch, 1);
	}
	LWLockRelease(directory->lock);
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
	Database   *database;
	int			slot = -1;

	for (int i = 0; i < MAX_DATABASES; i++)
	{
		database = &directory->databases[i];
		if (database->oid == MyDatabaseId)
			return i;
		if (!OidIsValid(database->oid) && slot < 0)
			slot = i;
	}
	for (int i = 0; i < MAX_DATABASES && slot < 0; i++)
		if (now - directory->databases[i].last_used_at > FREE_DATABASE_AFTER_US)
			slot = i;			/* it has probably been dropped */
	if (slot < 0)
		return -1;

	for (int i = 0; i < directory->nlanes; i++)
		if (directory->headers[i].in_use &&
			directory->headers[i].database == slot)
			evict(i);
	database = &directory->databases[slot];
	database->oid = MyDatabaseId;
	database->relid = InvalidOid;
	database->is_overflowed = false;
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
	mine->duty_at[JQ_DUTY_DISCOVER] = 0;
}

uint64
jq_lanes_epoch(void)
{
	return pg_atomic_read_u64(&mine->epoch);
}

uint64
jq_lanes_generation(void)
{
	return pg_atomic_read_u64(&directory->generation);
}

bool
jq_lanes_overflowed(void)
{
	return mine->is_overflowed;
}

void
jq_lanes_set_overflowed(bool overflowed)
{
	mine->is_overflowed = overflowed;
}

bool
jq_lanes_begin_duty(JqLaneDuty duty, TimestampTz now)
{
	bool		is_due;

	mine->last_used_at = now;
	if (mine->duty_at[duty] > now)
		return false;
	LWLockAcquire(directory->lock, LW_EXCLUSIVE);
	is_due = mine->duty_at[duty] <= now;
	if (is_due)
		mine->duty_at[duty] = now + DUTY_TIMEOUT_US;
	LWLockRelease(directory->lock);
	return is_due;
}

void
jq_lanes_end_duty(JqLaneDuty duty, TimestampTz started_at, int64 interval_us)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(directory->lock, LW_EXCLUSIVE);
	mine->duty_at[duty] =
		now + Max(interval_us, (now - started_at) * DUTY_REST);
	LWLockRelease(directory->lock);
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
	LaneId		id;
	LaneEntry  *entry;

	make_id(&id, name);
	LWLockAcquire(directory->lock, LW_SHARED);
	entry = hash_search(lane_table, &id, HASH_FIND, NULL);
	if (entry == NULL && create)
	{
		TimestampTz now = GetCurrentTimestamp();

		LWLockRelease(directory->lock);
		LWLockAcquire(directory->lock, LW_EXCLUSIVE);
		entry = hash_search(lane_table, &id, HASH_FIND, NULL);
		if (entry == NULL)
		{
			int			slot = find_slot(now);

			if (slot >= 0)
				entry = hash_search(lane_table, &id, HASH_ENTER_NULL, NULL);
			if (entry != NULL)
			{
				Lane	   *lane = &lanes[slot];

				entry->slot = slot;
				directory->headers[slot].in_use = true;
				directory->headers[slot].id = id;
				directory->headers[slot].database =
					mine - directory->databases;
				LWLockAcquire(&locks[slot + 1].lock, LW_EXCLUSIVE);
				lane->database = mine - directory->databases;
				lane->is_being_read = false;
				lane->is_announced = false;
				lane->last_used_at = now;
				lane->swept_at = now;
				lane->sweep_at = now + SWEEP_INTERVAL_US;
				reset(lane);
				LWLockRelease(&locks[slot + 1].lock);
				pg_atomic_fetch_add_u64(&directory->generation, 1);
			}
		}
	}
	if (entry != NULL)
	{
		ref.slot = entry->slot;
		ref.generation = lanes[entry->slot].generation;
	}
	LWLockRelease(directory->lock);
	return ref;
}

static void
make_id(LaneId *id, const JqLaneName *name)
{
	memset(id, 0, sizeof(*id));
	id->database = MyDatabaseId;
	strlcpy(id->name.job_type, name->job_type, JQ_LANE_NAME_SIZE);
	strlcpy(id->name.stage, name->stage, JQ_LANE_NAME_SIZE);
	id->name.priority = name->priority;
}

/* A free slot, or one made free; -1: none.  The directory must be locked. */
static int
find_slot(TimestampTz now)
{
	int			oldest = -1;

	for (int i = 0; i < directory->nlanes; i++)
	{
		if (!directory->headers[i].in_use)
			return i;
		if (!lanes[i].is_being_read &&
			(oldest < 0 ||
			 lanes[i].last_used_at < lanes[oldest].last_used_at))
			oldest = i;
	}
	if (oldest < 0 || now - lanes[oldest].last_used_at < EVICT_AFTER_US)
		return -1;
	evict(oldest);
	return oldest;
}

/* The directory must be locked. */
static void
evict(int slot)
{
	LaneHeader *header = &directory->headers[slot];

	hash_search(lane_table, &header->id, HASH_REMOVE, NULL);
	header->in_use = false;
	LWLockAcquire(&locks[slot + 1].lock, LW_EXCLUSIVE);
	lanes[slot].generation++;
	lanes[slot].is_being_read = false;
	ConditionVariableBroadcast(&lanes[slot].read);
	LWLockRelease(&locks[slot + 1].lock);
	pg_atomic_fetch_add_u64(&directory->generation, 1);
}

int
jq_lanes_list(const char *job_type, JqLaneRef **refs, JqLaneName **names)
{
	int			count = 0;
	int			max = 16;

	*refs = palloc(sizeof(JqLaneRef) * max);
	*names = palloc(sizeof(JqLaneName) * max);
	for (;;)
	{
		count = list_some(job_type, *refs, *names, max);
		if (count <= max)
			return count;
		max = count + 16;
		*refs = repalloc(*refs, sizeof(JqLaneRef) * max);
		*names = repalloc(*names, sizeof(JqLaneName) * max);
	}
}

/* How many there are; the first "max" of them are listed. */
static int
list_some(const char *job_type, JqLaneRef *refs, JqLaneName *names, int max)
{
	int			count = 0;

	LWLockAcquire(directory->lock, LW_SHARED);
	for (int i = 0; i < directory->nlanes; i++)
	{
		const LaneHeader *header = &directory->headers[i];

		if (!header->in_use || header->id.database != MyDatabaseId ||
			(job_type != NULL && strcmp(job_type, header->id.name.job_type) != 0))
			continue;
		if (count < max)
		{
			refs[count].slot = i;
			refs[count].generation = lanes[i].generation;
			names[count] = header->id.name;
		}
		count++;
	}
	LWLockRelease(directory->lock);
	return count;
}

int
jq_lanes_info(JqLaneInfo **infos)
{
	int			count = 0;

	if (directory == NULL)
		return 0;
	*infos = palloc(sizeof(JqLaneInfo) * directory->nlanes);
	LWLockAcquire(directory->lock, LW_SHARED);
	for (int i = 0; i < directory->nlanes; i++)
	{
		JqLaneInfo *info = &(*infos)[count];

		if (!directory->headers[i].in_use ||
			directory->headers[i].id.database != MyDatabaseId)
			continue;
		info->name = directory->headers[i].id.name;
		LWLockAcquire(&locks[i + 1].lock, LW_SHARED);
		info->candidates = lanes[i].count;
		info->position_at = lanes[i].position.scheduled_at;
		info->last_used_at = lanes[i].last_used_at;
		LWLockRelease(&locks[i + 1].lock);
		count++;
	}
	LWLockRelease(directory->lock);
	return count;
}

/* ---- lanes ---- */

/* NULL, with nothing locked, when the lane has gone. */
static Lane *
lock_lane(JqLaneRef ref)
{
	Lane	   *lane = &lanes[ref.slot];

	Assert(ref.slot >= 0 && ref.slot < directory->nlanes);
	LWLockAcquire(&locks[ref.slot + 1].lock, LW_EXCLUSIVE);
	if (lane->generation != ref.generation)
	{
		LWLockRelease(&locks[ref.slot + 1].lock);
		return NULL;
	}
	if (lane->epoch !=
		pg_atomic_read_u64(&directory->databases[lane->database].epoch))
		reset(lane);
	return lane;
}

static void
unlock_lane(const Lane *lane)
{
	LWLockRelease(&locks[lane - lanes + 1].lock);
}

/* Forgets everything.  Whoever reads the lane meanwhile has read in vain. */
static void
reset(Lane *lane)
{
	lane->epoch =
		pg_atomic_read_u64(&directory->databases[lane->database].epoch);
	lane->position = JQ_LANE_KEY_FIRST;
	lane->dropped = JQ_LANE_KEY_FIRST;
	lane->first = 0;
	lane->count = 0;
}

JqLaneAnswer
jq_lane_take(JqLaneRef ref, const JqLaneWish *wish, JqCandidate *candidates,
			 int *count, TimestampTz *next_at)
{
	Lane	   *lane = lock_lane(ref);
	JqLaneAnswer answer = JQ_LANE_READY;

	*count = 0;
	if (lane == NULL)
		return JQ_LANE_GONE;
	lane->last_used_at = wish->now;
	if (lane->is_being_read)
		answer = JQ_LANE_BEING_READ;
	else
	{
		*count = take_candidates(lane, wish, candidates);
		if (*count == 0)
			answer = answer_empty(lane, wish->now, next_at);
		if (answer == JQ_LANE_UNREAD)
		{
			lane->is_being_read = true;
			lane->dropped = JQ_LANE_KEY_END;
			my_read = ref;
		}
	}
	unlock_lane(lane);
	return answer;
}

/*
 * What becomes of a claim that found nothing for itself.  Candidates that are
 * due are of other owners then, or parked.
 */
static JqLaneAnswer
answer_empty(Lane *lane, TimestampTz now, TimestampTz *next_at)
{
	const JqCandidate *head = &lane->candidates[lane->first];
	bool		is_read = lane->position.scheduled_at > now;

	if (!is_read)
		return lane->count == 0 ? JQ_LANE_UNREAD : JQ_LANE_FOREIGN;
	*next_at = lane->position.scheduled_at;
	for (int i = 0; i < lane->count; i++)
	{
		bool		is_parked = head[i].key.scheduled_at <= now;

		if (is_parked && head[i].parked_until == 0)
			continue;			/* of another owner */
		*next_at = is_parked ? now + PARKED_LOOK_US : head[i].key.scheduled_at;
		break;
	}
	lane->is_announced = false;
	return JQ_LANE_WAITING;
}

/* Takes the candidates that the wish names; with max 0, only looks at one. */
static int
take_candidates(Lane *lane, const JqLaneWish *wish, JqCandidate *candidates)
{
	uint32		now_ms = JQ_LANE_MS(wish->now);
	int			taken = 0;
	int			end = lane->first + lane->count;
	int			kept = lane->first;

	for (int i = lane->first; i < end && taken < Max(wish->max, 1); i++)
	{
		const JqCandidate *candidate = &lane->candidates[i];

		if (candidate->key.scheduled_at > wish->now ||
			(wish->has_limit &&
			 jq_lane_compare_keys(&candidate->key, &wish->limit) > 0))
			break;
		if (OidIsValid(wish->owner) && candidate->owner != wish->owner)
			continue;
		if (candidate->parked_until != 0 &&
			(int32) (candidate->parked_until - now_ms) > 0)
			continue;
		candidates[taken++] = *candidate;
		if (wish->max == 0)
			return taken;
		/* Those of others move up; usually there are none. */
		memmove(&lane->candidates[kept + 1], &lane->candidates[kept],
				sizeof(JqCandidate) * (i - kept));
		kept++;
	}
	lane->first += taken;
	lane->count -= taken;
	return taken;
}

JqLaneKey
jq_lane_position(JqLaneRef ref)
{
	Lane	   *lane = lock_lane(ref);
	JqLaneKey	position = JQ_LANE_KEY_FIRST;

	if (lane != NULL)
	{
		position = lane->position;
		unlock_lane(lane);
	}
	return position;
}

void
jq_lane_publish(JqLaneRef ref, const JqCandidate *candidates, int count,
				JqLaneKey position)
{
	Lane	   *lane = lock_lane(ref);

	my_read.slot = -1;
	if (lane == NULL)
		return;
	if (lane->is_being_read)
	{
		lane->position = jq_lane_compare_keys(&position, &lane->dropped) < 0 ?
			position : lane->dropped;
		end_read(lane);
		/* Offers beyond the new position are read from the index again. */
		truncate_at(lane, lane->position);
		for (int i = 0; i < count; i++)
			(void) insert(lane, &candidates[i]);
	}
	unlock_lane(lane);
	jq_lanes_count(JQ_COUNT_REFILLS, 1);
}

void
jq_lane_give_up(void)
{
	Lane	   *lane;

	if (my_read.slot < 0)
		return;
	lane = lock_lane(my_read);
	my_read.slot = -1;
	if (lane == NULL)
		return;
	if (lane->is_being_read)
	{
		if (jq_lane_compare_keys(&lane->dropped, &lane->position) < 0)
			lane->position = lane->dropped;
		end_read(lane);
		truncate_at(lane, lane->position);
	}
	unlock_lane(lane);
}

static void
end_read(Lane *lane)
{
	lane->is_being_read = false;
	ConditionVariableBroadcast(&lane->read);
}

void
jq_lane_wait(JqLaneRef ref)
{
	volatile Lane *lane = &lanes[ref.slot];
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("JobqueueLaneRefill");
	ConditionVariablePrepareToSleep(&lanes[ref.slot].read);
	while (lane->is_being_read && lane->generation == ref.generation)
		ConditionVariableSleep(&lanes[ref.slot].read, wait_event);
	ConditionVariableCancelSleep();
}

bool
jq_lane_offer(JqLaneRef ref, uint64 epoch, const JqCandidate *candidate)
{
	Lane	   *lane = lock_lane(ref);

	if (lane == NULL)
		return false;
	if (lane->epoch == epoch)
		(void) insert(lane, candidate);
	else
		truncate_at(lane, candidate->key);
	unlock_lane(lane);
	return true;
}

bool
jq_lane_rewind(JqLaneRef ref, JqLaneKey key)
{
	Lane	   *lane = lock_lane(ref);

	if (lane == NULL)
		return false;
	truncate_at(lane, key);
	unlock_lane(lane);
	return true;
}

/*
 * Where a key is, or belongs, among the candidates.  Most keys are later than
 * all others.
 */
static int
find_place(const Lane *lane, const JqLaneKey *key, bool *is_there)
{
	int			low = lane->first;
	int			high = lane->first + lane->count;

	*is_there = false;
	if (high > low &&
		jq_lane_compare_keys(&lane->candidates[high - 1].key, key) < 0)
		return high;
	while (low < high)
	{
		int			middle = (low + high) / 2;
		int			order = jq_lane_compare_keys(&lane->candidates[middle].key,
												 key);

		if (order == 0)
		{
			*is_there = true;
			return middle;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* False: it was there already, or the index has it still to be read. */
static bool
insert(Lane *lane, const JqCandidate *candidate)
{
	bool		is_there;
	int			place;

	if (!lane->is_being_read &&
		jq_lane_compare_keys(&candidate->key, &lane->position) >= 0)
		return false;
	place = find_place(lane, &candidate->key, &is_there);
	if (is_there)
	{
		lane->candidates[place] = *candidate;
		return false;
	}
	if (lane->count == MAX_CANDIDATES)
	{
		const JqCandidate *last = &lane->candidates[lane->first + lane->count - 1];

		if (place > last - lane->candidates)
		{
			truncate_at(lane, candidate->key);
			return false;
		}
		truncate_at(lane, last->key);
	}
	if (lane->first + lane->count == MAX_CANDIDATES)
	{
		memmove(lane->candidates, &lane->candidates[lane->first],
				sizeof(JqCandidate) * lane->count);
		place -= lane->first;
		lane->first = 0;
	}
	memmove(&lane->candidates[place + 1], &lane->candidates[place],
			sizeof(JqCandidate) * (lane->first + lane->count - place));
	lane->candidates[place] = *candidate;
	lane->count++;
	return true;
}

/* Leaves everything from this key on to the next reader of the index. */
static void
truncate_at(Lane *lane, JqLaneKey key)
{
	JqLaneKey  *bound = lane->is_being_read ? &lane->dropped : &lane->position;
	bool		is_there;

	if (jq_lane_compare_keys(&key, bound) < 0)
		*bound = key;
	lane->count = find_place(lane, &key, &is_there) - lane->first;
}

/* ---- now and then ---- */

bool
jq_lane_begin_sweep(JqLaneRef ref, TimestampTz now)
{
	Lane	   *lane = lock_lane(ref);
	bool		is_due;

	if (lane == NULL)
		return false;
	is_due = lane->sweep_at <= now && lane->last_used_at > lane->swept_at;
	if (is_due)
		lane->sweep_at = now + DUTY_TIMEOUT_US;
	unlock_lane(lane);
	return is_due;
}

void
jq_lane_end_sweep(JqLaneRef ref, TimestampTz started_at,
				  const JqCandidate *candidates, int count)
{
	TimestampTz now = GetCurrentTimestamp();
	Lane	   *lane = lock_lane(ref);
	int			repairs = 0;

	if (lane == NULL)
		return;
	for (int i = 0; i < count; i++)
		if (insert(lane, &candidates[i]))
			repairs++;
	lane->swept_at = started_at;
	lane->sweep_at = now + Max(SWEEP_INTERVAL_US,
							   (now - started_at) * DUTY_REST);
	unlock_lane(lane);
	jq_lanes_count(JQ_COUNT_SWEEPS, 1);
	jq_lanes_count(JQ_COUNT_REPAIRS, repairs);
}

bool
jq_lane_announce(JqLaneRef ref)
{
	Lane	   *lane = lock_lane(ref);
	bool		is_first;

	if (lane == NULL)
		return false;
	is_first = !lane->is_announced;
	lane->is_announced = true;
	unlock_lane(lane);
	return is_first;
}
