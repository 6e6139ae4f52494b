/*-------------------------------------------------------------------------
 *
 * shared_state.c
 *	  What the workers of a server know of each other.
 *
 *	  One struct, one lock.  A parent reserves a slot before it registers the
 *	  process, which finds its slot by number and generation; whatever ends
 *	  the process frees the slot, after its transaction has been aborted and
 *	  before its latch could belong to another.  When a process is killed the
 *	  postmaster starts over with new shared memory, hence a new incarnation.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/shared_memory.h"
#include "base/shared_slots.h"

#include "base/config.h"
#include "base/worker_troubles.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#define START_TIMEOUT_MS 10000


JqSharedState *jq_slots_state = NULL;
JqWorkerSlot *jq_slots_mine = NULL;

static Size shared_size(void);
static void request_memory(void);
static void create_memory(void);
static void release_slot(int code, Datum arg);
static void wake_launcher(void);
static void wake_schedulers(void);
static void retire_slot(JqWorkerSlot *slot);

void
jq_shared_init(void)
{
	jq_shared_memory_add(request_memory, create_memory);
}

static Size
shared_size(void)
{
	return add_size(offsetof(JqSharedState, slots),
					mul_size(max_worker_processes, sizeof(JqWorkerSlot)));
}

static void
request_memory(void)
{
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche("jobqueue", 1);
}

/*
 * In the postmaster at each start, and after each crash.  Since its start, what
 * it knows of time zones may have become old.
 */
static void
create_memory(void)
{
	static bool is_restart = false;
	bool		found;

	jq_slots_state = ShmemInitStruct("jobqueue", shared_size(), &found);
	if (!found)
	{
		memset(jq_slots_state, 0, shared_size());
		jq_slots_state->lock = &GetNamedLWLockTranche("jobqueue")->lock;
		jq_slots_state->nslots = max_worker_processes;
		pg_atomic_init_u32(&jq_slots_state->zone_generation, is_restart);
		is_restart = true;
		while (jq_slots_state->incarnation == 0)
			if (!pg_strong_random(&jq_slots_state->incarnation,
								  sizeof(jq_slots_state->incarnation)))
				elog(FATAL, "could not generate a random number");
	}
}

bool
jq_shared_is_attached(void)
{
	return jq_slots_state != NULL;
}

int64
jq_shared_incarnation(void)
{
	return jq_slots_state == NULL ? 0 : jq_slots_state->incarnation;
}

uint32
jq_shared_zone_generation(void)
{
	return jq_slots_state == NULL ? 0 :
		pg_atomic_read_u32(&jq_slots_state->zone_generation);
}

uint32
jq_shared_note_zones(uint64 digest, bool is_stale)
{
	uint32		generation;

	if (jq_slots_state == NULL)
		return 0;
	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	generation = pg_atomic_read_u32(&jq_slots_state->zone_generation);
	if ((jq_slots_state->zone_digest != 0 &&
		 jq_slots_state->zone_digest != digest) ||
		(generation == 0 && is_stale))
		pg_atomic_write_u32(&jq_slots_state->zone_generation, ++generation);
	jq_slots_state->zone_digest = digest;
	LWLockRelease(jq_slots_state->lock);
	return generation;
}

const char *
jq_shared_kind_name(JqWorkerKind kind)
{
	switch (kind)
	{
		case JQ_WORKER_LAUNCHER:
			return "launcher";
		case JQ_WORKER_SCHEDULER:
			return "scheduler";
		case JQ_WORKER_EXECUTOR:
			return "executor";
		case JQ_WORKER_DISPATCHER:
			return "dispatcher";
		case JQ_WORKER_MONITOR:
			return "monitor";
	}
	return NULL;				/* keep compilers quiet */
}

const char *
jq_shared_state_name(JqWorkerState state)
{
	switch (state)
	{
		case JQ_STATE_STARTING:
			return "starting";
		case JQ_STATE_IDLE:
			return "idle";
		case JQ_STATE_RUNNING:
			return "running";
		case JQ_STATE_DRAINING:
			return "draining";
		case JQ_STATE_ENDED:
			return "ended";
	}
	return NULL;				/* keep compilers quiet */
}

/* Whether a slot describes an executor, of this role and database if given. */
static bool
is_executor(const JqWorkerSlot *slot, Oid database, Oid role)
{
	return slot->in_use &&
		slot->info.kind == JQ_WORKER_EXECUTOR &&
		(!OidIsValid(database) || slot->info.database == database) &&
		(!OidIsValid(role) || slot->info.role == role);
}

/* The lock must be held. */
static JqWorkerSlot *
find_scheduler(Oid database)
{
	for (int i = 0; i < jq_slots_state->nslots; i++)
	{
		JqWorkerSlot *slot = &jq_slots_state->slots[i];

		if (slot->in_use && slot->info.kind == JQ_WORKER_SCHEDULER &&
			slot->info.database == database)
			return slot;
	}
	return NULL;
}

JqWorkerSlot *
jq_slots_find_worker(const pg_uuid_t *worker)
{
	for (int i = 0; i < jq_slots_state->nslots; i++)
	{
		JqWorkerSlot *slot = &jq_slots_state->slots[i];

		if (slot->in_use && slot->info.has_worker_id &&
			memcmp(&slot->info.worker_id, worker, sizeof(pg_uuid_t)) == 0)
			return slot;
	}
	return NULL;
}

JqWorkerSlot *
jq_slots_find_executor(const pg_uuid_t *worker)
{
	JqWorkerSlot *slot = jq_slots_find_worker(worker);

	return slot != NULL && slot->info.kind == JQ_WORKER_EXECUTOR ? slot : NULL;
}

/* Whether the entry has its monitor.  The lock must be held. */
static bool
has_monitor(uint32 monitor)
{
	for (int i = 0; i < jq_slots_state->nslots; i++)
		if (jq_slots_state->slots[i].in_use &&
			jq_slots_state->slots[i].info.monitor == monitor)
			return true;
	return false;
}

/* Whether one more worker of this kind is allowed.  The lock must be held. */
static bool
has_room(JqWorkerKind kind, Oid database, uint32 monitor, int max_workers)
{
	int			executors = 0;

	if (kind == JQ_WORKER_SCHEDULER)
		return find_scheduler(database) == NULL;
	if (kind == JQ_WORKER_DISPATCHER)
		return jq_slots_count_dispatchers(database) < max_workers &&
			jq_slots_free_dispatcher_number(database) < JQ_MAX_DISPATCHERS;
	if (kind == JQ_WORKER_MONITOR)
		return !has_monitor(monitor);
	if (kind != JQ_WORKER_EXECUTOR)
		return true;
	for (int i = 0; i < jq_slots_state->nslots; i++)
		if (is_executor(&jq_slots_state->slots[i], InvalidOid, InvalidOid) &&
			!jq_slots_state->slots[i].info.is_stuck)
			executors++;
	return executors < max_workers;
}

bool
jq_shared_reserve(JqWorkerKind kind, Oid database, Oid role,
				  uint32 monitor, int max_workers, JqWorkerRef *ref)
{
	JqWorkerSlot *slot = NULL;

	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	if (has_room(kind, database, monitor, max_workers))
		for (int i = 0; i < jq_slots_state->nslots && slot == NULL; i++)
			if (!jq_slots_state->slots[i].in_use)
				slot = &jq_slots_state->slots[i];
	if (slot != NULL)
	{
		slot->number = kind == JQ_WORKER_DISPATCHER ?
			jq_slots_free_dispatcher_number(database) : 0;
		slot->in_use = true;
		slot->generation++;
		slot->latch = NULL;
		slot->is_cancelled = false;
		slot->ncancelled = 0;
		slot->waiting_taken = false;
		slot->suspect_at = 0;
		memset(&slot->info, 0, sizeof(slot->info));
		slot->info.kind = kind;
		slot->info.state = JQ_STATE_STARTING;
		slot->info.database = database;
		slot->info.role = role;
		slot->info.monitor = monitor;
		slot->info.started_at = GetCurrentTimestamp();
		ref->slot = slot - jq_slots_state->slots;
		ref->generation = slot->generation;
	}
	LWLockRelease(jq_slots_state->lock);
	return slot != NULL;
}

void
jq_shared_unreserve(const JqWorkerRef *ref)
{
	JqWorkerSlot *slot = &jq_slots_state->slots[ref->slot];

	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	if (slot->generation == ref->generation && slot->info.pid == 0)
		slot->in_use = false;
	LWLockRelease(jq_slots_state->lock);
}

void
jq_shared_free_unstarted(void)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	for (int i = 0; i < jq_slots_state->nslots; i++)
	{
		JqWorkerSlot *slot = &jq_slots_state->slots[i];

		if (slot->in_use && slot->info.state == JQ_STATE_STARTING &&
			slot->info.pid == 0 &&
			now >= TimestampTzPlusMilliseconds(slot->info.started_at,
											   START_TIMEOUT_MS))
			slot->in_use = false;
	}
	LWLockRelease(jq_slots_state->lock);
}

void
jq_shared_free_ended(Oid database)
{
	JqWorkerSlot *slot;

	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	slot = find_scheduler(database);
	if (slot != NULL && slot->info.state == JQ_STATE_ENDED)
		slot->in_use = false;
	LWLockRelease(jq_slots_state->lock);
}

bool
jq_shared_attach(const JqWorkerRef *ref)
{
	JqWorkerSlot *slot;
	bool		mine;

	if (jq_slots_state == NULL || ref->slot < 0 || ref->slot >= jq_slots_state->nslots)
		return false;
	slot = &jq_slots_state->slots[ref->slot];
	before_shmem_exit(release_slot, (Datum) 0);

	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	mine = slot->in_use && slot->generation == ref->generation;
	if (mine)
	{
		jq_slots_mine = slot;
		slot->latch = MyLatch;
		slot->info.pid = MyProcPid;
		slot->info.started_at = GetCurrentTimestamp();
		if (slot->info.kind == JQ_WORKER_LAUNCHER)
			jq_slots_state->launcher_latch = MyLatch;
		if (slot->info.retire)
			SetLatch(MyLatch);	/* nobody could before */
	}
	LWLockRelease(jq_slots_state->lock);
	return mine;
}

/*
 * Frees the slot of an exiting process.  A scheduler's stays, without a
 * process, until the launcher has read what became of it.
 */
static void
release_slot(int code, Datum arg)
{
	JqWorkerSlot *slot = jq_slots_mine;
	bool		has_failed;

	if (slot == NULL)
		return;
	jq_slots_mine = NULL;
	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	has_failed = code != 0 && !slot->info.retire;
	slot->latch = NULL;
	slot->info.pid = 0;
	slot->info.state = JQ_STATE_ENDED;
	if (slot->info.kind == JQ_WORKER_LAUNCHER)
		jq_slots_state->launcher_latch = NULL;
	if (slot->info.kind != JQ_WORKER_SCHEDULER)
		slot->in_use = false;
	else
		wake_launcher();
	if (slot->info.kind == JQ_WORKER_EXECUTOR)
		jq_slots_note_death(slot);
	if (slot->info.kind == JQ_WORKER_EXECUTOR ||
		slot->info.kind == JQ_WORKER_DISPATCHER)
		wake_schedulers();
	LWLockRelease(jq_slots_state->lock);

	/* The launcher looks after schedulers, and ends with 1 when asked to. */
	if (has_failed && !ShutdownRequestPending &&
		slot->info.kind != JQ_WORKER_SCHEDULER)
		jq_troubles_note(slot->info.kind, slot->info.database,
						 JQ_TROUBLE_ENDED, 0);
}

/* The lock must be held. */
static void
wake_launcher(void)
{
	if (jq_slots_state->launcher_latch != NULL)
		SetLatch(jq_slots_state->launcher_latch);
}

/* One of them may be waiting for room.  The lock must be held. */
static void
wake_schedulers(void)
{
	for (int i = 0; i < jq_slots_state->nslots; i++)
	{
		JqWorkerSlot *slot = &jq_slots_state->slots[i];

		if (slot->in_use && slot->info.kind == JQ_WORKER_SCHEDULER &&
			slot->latch != NULL)
			SetLatch(slot->latch);
	}
}

bool
jq_shared_serves_everybody(void)
{
	return jq_slots_mine != NULL &&
		jq_slots_mine->info.kind != JQ_WORKER_EXECUTOR &&
		jq_slots_mine->info.kind != JQ_WORKER_MONITOR;
}

void
jq_shared_report_state(JqWorkerState state)
{
	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	if (jq_slots_mine->info.state == JQ_STATE_STARTING &&
		jq_slots_mine->info.kind == JQ_WORKER_SCHEDULER)
		wake_launcher();		/* it starts one new scheduler at a time */
	jq_slots_mine->info.state = state;
	LWLockRelease(jq_slots_state->lock);
}

void
jq_shared_report_cycle(void)
{
	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	jq_slots_mine->info.last_cycle_at = GetCurrentTimestamp();
	LWLockRelease(jq_slots_state->lock);
}

void
jq_shared_report_worker_id(const pg_uuid_t *worker)
{
	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	jq_slots_mine->info.worker_id = *worker;
	jq_slots_mine->info.has_worker_id = true;
	LWLockRelease(jq_slots_state->lock);
}

void
jq_shared_report_quiet(JqQuiet quiet)
{
	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	jq_slots_mine->info.quiet = quiet;
	LWLockRelease(jq_slots_state->lock);
}

bool
jq_shared_should_retire(void)
{
	bool		retire;

	LWLockAcquire(jq_slots_state->lock, LW_SHARED);
	retire = jq_slots_mine->info.retire;
	LWLockRelease(jq_slots_state->lock);
	return retire;
}

int
jq_shared_workers(JqWorkerInfo **workers)
{
	int			count = 0;

	if (jq_slots_state == NULL)
		return 0;
	*workers = palloc(sizeof(JqWorkerInfo) * jq_slots_state->nslots);
	LWLockAcquire(jq_slots_state->lock, LW_SHARED);
	for (int i = 0; i < jq_slots_state->nslots; i++)
		if (jq_slots_state->slots[i].in_use)
			(*workers)[count++] = jq_slots_state->slots[i].info;
	LWLockRelease(jq_slots_state->lock);
	return count;
}

bool
jq_shared_find_scheduler(Oid database, JqWorkerInfo *info)
{
	JqWorkerSlot *slot;

	LWLockAcquire(jq_slots_state->lock, LW_SHARED);
	slot = find_scheduler(database);
	if (slot != NULL)
		*info = slot->info;
	LWLockRelease(jq_slots_state->lock);
	return slot != NULL;
}

bool
jq_shared_scheduler_is_running(Oid database)
{
	JqWorkerInfo info;

	return jq_slots_state != NULL && jq_shared_find_scheduler(database, &info) &&
		info.pid != 0;
}

bool
jq_shared_worker_is_alive(const pg_uuid_t *worker)
{
	bool		alive;

	if (jq_slots_state == NULL)
		return false;
	LWLockAcquire(jq_slots_state->lock, LW_SHARED);
	alive = jq_slots_find_worker(worker) != NULL;
	LWLockRelease(jq_slots_state->lock);
	return alive;
}

void
jq_shared_count_executors(Oid database, Oid role, JqExecutorCount *count)
{
	memset(count, 0, sizeof(*count));
	LWLockAcquire(jq_slots_state->lock, LW_SHARED);
	for (int i = 0; i < jq_slots_state->nslots; i++)
	{
		JqWorkerSlot *slot = &jq_slots_state->slots[i];

		if (!is_executor(slot, database, role) || slot->info.is_stuck)
			continue;
		if (slot->info.state == JQ_STATE_STARTING)
			count->starting++;
		else if (slot->info.state == JQ_STATE_IDLE && !slot->info.retire)
			count->idle++;
		else
			count->running++;
	}
	LWLockRelease(jq_slots_state->lock);
}

void
jq_shared_wake_scheduler(Oid database)
{
	JqWorkerSlot *slot;

	if (jq_slots_state == NULL)
		return;
	LWLockAcquire(jq_slots_state->lock, LW_SHARED);
	slot = find_scheduler(database);
	if (slot != NULL && slot->latch != NULL)
		SetLatch(slot->latch);
	LWLockRelease(jq_slots_state->lock);
}

int
jq_shared_wake_executors(Oid database, Oid role, int count)
{
	int			woken = 0;

	if (jq_slots_state == NULL)
		return 0;
	LWLockAcquire(jq_slots_state->lock, LW_SHARED);
	for (int i = 0; i < jq_slots_state->nslots && woken < count; i++)
	{
		JqWorkerSlot *slot = &jq_slots_state->slots[i];

		if (is_executor(slot, database, role) &&
			slot->info.state == JQ_STATE_IDLE && slot->latch != NULL)
		{
			SetLatch(slot->latch);
			woken++;
		}
	}
	LWLockRelease(jq_slots_state->lock);
	return woken;
}

/* The lock must be held. */
static void
retire_slot(JqWorkerSlot *slot)
{
	slot->info.retire = true;
	if (slot->latch != NULL)
		SetLatch(slot->latch);
}

void
jq_shared_retire(JqWorkerKind kind, Oid database)
{
	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	for (int i = 0; i < jq_slots_state->nslots; i++)
	{
		JqWorkerSlot *slot = &jq_slots_state->slots[i];

		if (slot->in_use && slot->info.kind == kind &&
			slot->info.database == database && !slot->info.retire)
			retire_slot(slot);
	}
	LWLockRelease(jq_slots_state->lock);
}

bool
jq_shared_retire_worker(Oid database, const pg_uuid_t *worker)
{
	JqWorkerSlot *slot;
	bool		is_there;

	if (jq_slots_state == NULL)
		return false;
	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	slot = jq_slots_find_worker(worker);
	is_there = slot != NULL && slot->info.database == database;
	if (is_there && !slot->info.retire)
		retire_slot(slot);
	LWLockRelease(jq_slots_state->lock);
	return is_there;
}

/* How many executors the role of this one has there.  Lock must be held. */
static int
count_colleagues(const JqWorkerSlot *executor)
{
	int			count = 0;

	for (int i = 0; i < jq_slots_state->nslots; i++)
		if (is_executor(&jq_slots_state->slots[i], executor->info.database,
						executor->info.role))
			count++;
	return count;
}

/* Whether a should rather end than b.  The lock must be held. */
static bool
should_retire_before(const JqWorkerSlot *a, const JqWorkerSlot *b)
{
	bool		a_is_idle = a->info.state == JQ_STATE_IDLE;
	bool		b_is_idle = b->info.state == JQ_STATE_IDLE;
	int			difference;

	if (a_is_idle != b_is_idle)
		return a_is_idle;
	difference = count_colleagues(a) - count_colleagues(b);
	if (difference != 0)
		return difference > 0;
	return a->info.started_at < b->info.started_at;
}

void
jq_shared_make_room(void)
{
	JqWorkerSlot *chosen = NULL;
	bool		is_waiting = false;

	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	for (int i = 0; i < jq_slots_state->nslots; i++)
	{
		JqWorkerSlot *slot = &jq_slots_state->slots[i];

		/* one that has just been started has something to do first */
		if (!is_executor(slot, InvalidOid, InvalidOid) ||
			slot->info.state == JQ_STATE_STARTING)
			continue;
		if (slot->info.retire || slot->info.state == JQ_STATE_DRAINING)
			is_waiting = true;
		else if (chosen == NULL || should_retire_before(slot, chosen))
			chosen = slot;
	}
	if (chosen != NULL && !is_waiting)
		retire_slot(chosen);
	LWLockRelease(jq_slots_state->lock);
}

/* Also wakes the scheduler, which notices when the extension has gone. */
void
jq_shared_mark_database(Oid database)
{
	JqWorkerSlot *scheduler;
	bool		is_marked = false;

	if (jq_slots_state == NULL)
		return;
	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	for (int i = 0; i < Min(jq_slots_state->nmarks, MAX_MARKS); i++)
		if (jq_slots_state->marks[i] == database)
			is_marked = true;
	if (!is_marked && jq_slots_state->nmarks < MAX_MARKS)
		jq_slots_state->marks[jq_slots_state->nmarks++] = database;
	else if (!is_marked)
		jq_slots_state->nmarks = MAX_MARKS + 1;
	wake_launcher();
	scheduler = find_scheduler(database);
	if (scheduler != NULL && scheduler->latch != NULL)
		SetLatch(scheduler->latch);
	LWLockRelease(jq_slots_state->lock);
}

int
jq_shared_take_marks(Oid *databases, int max, bool *all)
{
	int			count;

	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	*all = jq_slots_state->nmarks > Min(max, MAX_MARKS);
	count = Min(Min(jq_slots_state->nmarks, MAX_MARKS), max);
	memcpy(databases, jq_slots_state->marks, sizeof(Oid) * count);
	jq_slots_state->nmarks = 0;
	LWLockRelease(jq_slots_state->lock);
	return count;
}
