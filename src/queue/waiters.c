/*-------------------------------------------------------------------------
 *
 * waiters.c
 *	  Sessions that sleep in wait_for_jobs().
 *
 * A due job wakes one sleeper, the one that has slept longest and has not
 * been woken yet: ten workers do not get up for one job.  One that is woken
 * and finds nothing enters again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "base/shared_memory.h"
#include "queue/waiters.h"

/* Who waits for more types than this is woken for all. */
#define MAX_TYPES 16
#define LOCK_TRANCHE "jobqueue_waiters"

typedef struct Waiter
{
	Latch	   *latch;			/* NULL: free */
	Oid			database;
	bool		is_woken;
	TimestampTz since;
	TimestampTz until;
	int			ntypes;			/* 0: any */
	uint32		types[MAX_TYPES];
} Waiter;

typedef struct Waiters
{
	LWLock	   *lock;			/* guards slots */
	pg_atomic_uint32 count;
	int			nslots;
	Waiter		slots[FLEXIBLE_ARRAY_MEMBER];
} Waiters;

static Waiters *waiters = NULL;
static Waiter *mine = NULL;

static Size waiters_size(void);
static void request_memory(void);
static void create_memory(void);
static void leave_at_abort(XactEvent event, void *arg);
static void leave_at_exit(int code, Datum arg);
static void leave_unserved(void);
static bool is_meant(const Waiter *waiter, uint32 type);

void
jq_waiters_init(void)
{
	jq_shared_memory_add(request_memory, create_memory);
}

static Size
waiters_size(void)
{
	return add_size(offsetof(Waiters, slots),
					mul_size(MaxBackends, sizeof(Waiter)));
}

static void
request_memory(void)
{
	RequestAddinShmemSpace(waiters_size());
	RequestNamedLWLockTranche(LOCK_TRANCHE, 1);
}

static void
create_memory(void)
{
	bool		found;

	waiters = ShmemInitStruct("jobqueue waiters", waiters_size(), &found);
	if (!found)
	{
		memset(waiters, 0, waiters_size());
		waiters->lock = &GetNamedLWLockTranche(LOCK_TRANCHE)->lock;
		waiters->nslots = MaxBackends;
		pg_atomic_init_u32(&waiters->count, 0);
	}
}

uint32
jq_waiters_hash(const char *job_type)
{
	return hash_bytes((const unsigned char *) job_type, strlen(job_type));
}

void
jq_waiters_enter(List *job_types, TimestampTz until)
{
	static bool is_registered = false;
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *cell;

	if (waiters == NULL)
		return;
	if (!is_registered)
	{
		RegisterXactCallback(leave_at_abort, NULL);
		before_shmem_exit(leave_at_exit, (Datum) 0);
		is_registered = true;
	}
	LWLockAcquire(waiters->lock, LW_EXCLUSIVE);
	for (int i = 0; i < waiters->nslots && mine == NULL; i++)
		if (waiters->slots[i].latch == NULL)
		{
			mine = &waiters->slots[i];
			mine->latch = MyLatch;
			mine->since = now;
			pg_atomic_fetch_add_u32(&waiters->count, 1);
		}
	if (mine != NULL)			/* there are as many as backends */
	{
		mine->database = MyDatabaseId;
		mine->until = until;
		mine->is_woken = false;
		mine->ntypes = list_length(job_types) > MAX_TYPES ? 0 : list_length(job_types);
		foreach(cell, mine->ntypes == 0 ? NIL : job_types)
			mine->types[foreach_current_index(cell)] =
			jq_waiters_hash((const char *) lfirst(cell));
	}
	LWLockRelease(waiters->lock);
}

void
jq_waiters_leave(void)
{
	if (mine == NULL)
		return;
	LWLockAcquire(waiters->lock, LW_EXCLUSIVE);
	mine->latch = NULL;
	LWLockRelease(waiters->lock);
	pg_atomic_fetch_sub_u32(&waiters->count, 1);
	mine = NULL;
}

static void
leave_at_abort(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT)
		leave_unserved();
}

static void
leave_at_exit(int code, Datum arg)
{
	leave_unserved();
}

/* Whoever was woken for a job and does not claim it passes the call on. */
static void
leave_unserved(void)
{
	bool		was_woken = mine != NULL && mine->is_woken;

	jq_waiters_leave();
	if (was_woken)
		jq_waiters_wake_all();
}

static bool
is_meant(const Waiter *waiter, uint32 type)
{
	if (waiter->latch == NULL || waiter->database != MyDatabaseId)
		return false;
	for (int i = 0; i < waiter->ntypes; i++)
		if (waiter->types[i] == type)
			return true;
	return waiter->ntypes == 0;
}

void
jq_waiters_wake(uint32 job_type_hash, TimestampTz scheduled_at,
				TimestampTz now)
{
	Waiter	   *chosen = NULL;

	if (waiters == NULL || pg_atomic_read_u32(&waiters->count) == 0)
		return;
	LWLockAcquire(waiters->lock, LW_EXCLUSIVE);
	for (int i = 0; i < waiters->nslots; i++)
	{
		Waiter	   *waiter = &waiters->slots[i];

		if (!is_meant(waiter, job_type_hash))
			continue;
		if (scheduled_at > now)
		{
			if (scheduled_at < waiter->until)
				SetLatch(waiter->latch);
		}
		else if (!waiter->is_woken &&
				 (chosen == NULL || waiter->since < chosen->since))
			chosen = waiter;
	}
	if (chosen != NULL)
	{
		chosen->is_woken = true;
		SetLatch(chosen->latch);
	}
	LWLockRelease(waiters->lock);
}

void
jq_waiters_wake_all(void)
{
	if (waiters == NULL || pg_atomic_read_u32(&waiters->count) == 0)
		return;
	LWLockAcquire(waiters->lock, LW_SHARED);
	for (int i = 0; i < waiters->nslots; i++)
		if (waiters->slots[i].latch != NULL &&
			waiters->slots[i].database == MyDatabaseId)
			SetLatch(waiters->slots[i].latch);
	LWLockRelease(waiters->lock);
}
