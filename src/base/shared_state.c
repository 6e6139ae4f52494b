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

#include "base/shared_state.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#define START_TIMEOUT_MS 10000
#define SUSPECT_MS 10000		/* how long a suspect job keeps others away */
#define MAX_MARKS 64
#define MAX_CANCELLED 64		/* claims of an executor that are remembered */
#define MAX_DEATHS 64			/* that are remembered */

/* A claim that was cancelled before it began. */
typedef struct CancelledClaim
{
	int64		job_id;
	int32		claim_no;
} CancelledClaim;

/* An executor that ended in the middle of a job. */
typedef struct Death
{
	pg_uuid_t	worker;
	int64		job_id;
} Death;

/* Fields that are not in JqWorkerInfo are nobody else's business. */
typedef struct WorkerSlot
{
	bool		in_use;
	uint32		generation;		/* grows with each reservation */
	Latch	   *latch;			/* NULL: has not attached */
	int32		claim_no;		/* of info.job_id */
	bool		is_cancelled;	/* the running job is */
	int			ncancelled;		/* of the claims that wait */
	CancelledClaim cancelled[MAX_CANCELLED];
	bool		waiting_taken;	/* see jq_shared_take_waiting */
	TimestampTz suspect_at;		/* a suspect job was begun; 0: none */
	JqWorkerInfo info;
} WorkerSlot;

typedef struct SharedState
{
	LWLock	   *lock;			/* guards everything but incarnation */
	int64		incarnation;	/* never changes */
	Latch	   *launcher_latch; /* NULL: not running */
	int			nmarks;			/* MAX_MARKS + 1: too many */
	Oid			marks[MAX_MARKS];
	uint32		ndeaths;		/* ever; the last ones are kept */
	Death		deaths[MAX_DEATHS];
	int			nslots;
	WorkerSlot	slots[FLEXIBLE_ARRAY_MEMBER];
} SharedState;

static shmem_request_hook_type next_request_hook = NULL;
static shmem_startup_hook_type next_startup_hook = NULL;
static SharedState *shared = NULL;
static WorkerSlot *my_slot = NULL;

static Size shared_size(void);
static void request_memory(void);
static void create_memory(void);
static void release_slot(int code, Datum arg);
static void note_death(const WorkerSlot *slot);
static void wake_launcher(void);
static void wake_schedulers(void);
static bool was_cancelled(int64 job_id, int32 claim_no);
static void keep_cancellation(void);
static void set_job(int64 job_id, int32 claim_no, int waiting);
static void retire_slot(WorkerSlot *slot);

void
jq_shared_init(void)
{
	next_request_hook = shmem_request_hook;
	shmem_request_hook = request_memory;
	next_startup_hook = shmem_startup_hook;
	shmem_startup_hook = create_memory;
}

static Size
shared_size(void)
{
	return add_size(offsetof(SharedState, slots),
					mul_size(max_worker_processes, sizeof(WorkerSlot)));
}

static void
request_memory(void)
{
	if (next_request_hook)
		next_request_hook();
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche("jobqueue", 1);
}

/* In the postmaster at each start, and after each crash. */
static void
create_memory(void)
{
	bool		found;

	if (next_startup_hook)
		next_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("jobqueue", shared_size(), &found);
	if (!found)
	{
		memset(shared, 0, shared_size());
		shared->lock = &GetNamedLWLockTranche("jobqueue")->lock;
		shared->nslots = max_worker_processes;
		while (shared->incarnation == 0)
			if (!pg_strong_random(&shared->incarnation,
								  sizeof(shared->incarnation)))
				elog(FATAL, "could not generate a random number");
	}
	LWLockRelease(AddinShmemInitLock);
}

bool
jq_shared_is_attached(void)
{
	return shared != NULL;
}

int64
jq_shared_incarnation(void)
{
	return shared == NULL ? 0 : shared->incarnation;
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
is_executor(const WorkerSlot *slot, Oid database, Oid role)
{
	return slot->in_use &&
		slot->info.kind == JQ_WORKER_EXECUTOR &&
		(!OidIsValid(database) || slot->info.database == database) &&
		(!OidIsValid(role) || slot->info.role == role);
}

/* The lock must be held. */
static WorkerSlot *
find_scheduler(Oid database)
{
	for (int i = 0; i < shared->nslots; i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (slot->in_use && slot->info.kind == JQ_WORKER_SCHEDULER &&
			slot->info.database == database)
			return slot;
	}
	return NULL;
}

/* The executor with this worker id.  The lock must be held. */
static WorkerSlot *
find_executor(const pg_uuid_t *worker)
{
	for (int i = 0; i < shared->nslots; i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (is_executor(slot, InvalidOid, InvalidOid) &&
			slot->info.has_worker_id &&
			memcmp(&slot->info.worker_id, worker, sizeof(pg_uuid_t)) == 0)
			return slot;
	}
	return NULL;
}

/* Whether one more worker of this kind is allowed.  The lock must be held. */
static bool
has_room(JqWorkerKind kind, Oid database, int max_executors)
{
	int			executors = 0;

	if (kind == JQ_WORKER_SCHEDULER)
		return find_scheduler(database) == NULL;
	if (kind != JQ_WORKER_EXECUTOR)
		return true;
	for (int i = 0; i < shared->nslots; i++)
		if (is_executor(&shared->slots[i], InvalidOid, InvalidOid) &&
			!shared->slots[i].info.is_stuck)
			executors++;
	return executors < max_executors;
}

bool
jq_shared_reserve(JqWorkerKind kind, Oid database, Oid role,
				  int max_executors, JqWorkerRef *ref)
{
	WorkerSlot *slot = NULL;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (has_room(kind, database, max_executors))
		for (int i = 0; i < shared->nslots && slot == NULL; i++)
			if (!shared->slots[i].in_use)
				slot = &shared->slots[i];
	if (slot != NULL)
	{
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
		slot->info.started_at = GetCurrentTimestamp();
		ref->slot = slot - shared->slots;
		ref->generation = slot->generation;
	}
	LWLockRelease(shared->lock);
	return slot != NULL;
}

void
jq_shared_unreserve(const JqWorkerRef *ref)
{
	WorkerSlot *slot = &shared->slots[ref->slot];

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (slot->generation == ref->generation && slot->info.pid == 0)
		slot->in_use = false;
	LWLockRelease(shared->lock);
}

void
jq_shared_free_unstarted(void)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->nslots; i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (slot->in_use && slot->info.state == JQ_STATE_STARTING &&
			slot->info.pid == 0 &&
			now >= TimestampTzPlusMilliseconds(slot->info.started_at,
											   START_TIMEOUT_MS))
			slot->in_use = false;
	}
	LWLockRelease(shared->lock);
}

void
jq_shared_free_ended(Oid database)
{
	WorkerSlot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_scheduler(database);
	if (slot != NULL && slot->info.state == JQ_STATE_ENDED)
		slot->in_use = false;
	LWLockRelease(shared->lock);
}

bool
jq_shared_attach(const JqWorkerRef *ref)
{
	WorkerSlot *slot;
	bool		mine;

	if (shared == NULL || ref->slot < 0 || ref->slot >= shared->nslots)
		return false;
	slot = &shared->slots[ref->slot];
	before_shmem_exit(release_slot, (Datum) 0);

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	mine = slot->in_use && slot->generation == ref->generation;
	if (mine)
	{
		my_slot = slot;
		slot->latch = MyLatch;
		slot->info.pid = MyProcPid;
		slot->info.started_at = GetCurrentTimestamp();
		if (slot->info.kind == JQ_WORKER_LAUNCHER)
			shared->launcher_latch = MyLatch;
		if (slot->info.retire)
			SetLatch(MyLatch);	/* nobody could before */
	}
	LWLockRelease(shared->lock);
	return mine;
}

/*
 * Frees the slot of an exiting process.  A scheduler's stays, without a
 * process, until the launcher has read what became of it.
 */
static void
release_slot(int code, Datum arg)
{
	WorkerSlot *slot = my_slot;

	if (slot == NULL)
		return;
	my_slot = NULL;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot->latch = NULL;
	slot->info.pid = 0;
	slot->info.state = JQ_STATE_ENDED;
	if (slot->info.kind == JQ_WORKER_LAUNCHER)
		shared->launcher_latch = NULL;
	if (slot->info.kind != JQ_WORKER_SCHEDULER)
		slot->in_use = false;
	else
		wake_launcher();
	if (slot->info.kind == JQ_WORKER_EXECUTOR)
	{
		note_death(slot);
		wake_schedulers();
	}
	LWLockRelease(shared->lock);
}

/* The lock must be held. */
static void
note_death(const WorkerSlot *slot)
{
	Death	   *death = &shared->deaths[shared->ndeaths % MAX_DEATHS];

	if (slot->info.job_id == 0)
		return;
	death->worker = slot->info.worker_id;
	death->job_id = slot->info.job_id;
	shared->ndeaths++;
}

uint32
jq_shared_deaths(void)
{
	uint32		ndeaths;

	LWLockAcquire(shared->lock, LW_SHARED);
	ndeaths = shared->ndeaths;
	LWLockRelease(shared->lock);
	return ndeaths;
}

bool
jq_shared_died_of(const pg_uuid_t *worker, int64 *job_id)
{
	bool		found = false;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_SHARED);
	for (uint32 i = 0; i < Min(shared->ndeaths, MAX_DEATHS) && !found; i++)
		if (memcmp(&shared->deaths[i].worker, worker, sizeof(pg_uuid_t)) == 0)
		{
			*job_id = shared->deaths[i].job_id;
			found = true;
		}
	LWLockRelease(shared->lock);
	return found;
}

/* The lock must be held. */
static void
wake_launcher(void)
{
	if (shared->launcher_latch != NULL)
		SetLatch(shared->launcher_latch);
}

/* One of them may be waiting for room.  The lock must be held. */
static void
wake_schedulers(void)
{
	for (int i = 0; i < shared->nslots; i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (slot->in_use && slot->info.kind == JQ_WORKER_SCHEDULER &&
			slot->latch != NULL)
			SetLatch(slot->latch);
	}
}

void
jq_shared_report_state(JqWorkerState state)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (my_slot->info.state == JQ_STATE_STARTING &&
		my_slot->info.kind == JQ_WORKER_SCHEDULER)
		wake_launcher();		/* it starts one new scheduler at a time */
	my_slot->info.state = state;
	LWLockRelease(shared->lock);
}

void
jq_shared_report_cycle(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_slot->info.last_cycle_at = GetCurrentTimestamp();
	LWLockRelease(shared->lock);
}

void
jq_shared_report_worker_id(const pg_uuid_t *worker)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_slot->info.worker_id = *worker;
	my_slot->info.has_worker_id = true;
	LWLockRelease(shared->lock);
}

void
jq_shared_report_quiet(JqQuiet quiet)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_slot->info.quiet = quiet;
	LWLockRelease(shared->lock);
}

void
jq_shared_begin_batch(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_slot->waiting_taken = false;
	my_slot->info.batch_no++;
	my_slot->info.state = JQ_STATE_RUNNING;
	LWLockRelease(shared->lock);
}

void
jq_shared_end_batch(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_slot->info.waiting_jobs = 0;
	my_slot->suspect_at = 0;
	my_slot->ncancelled = 0;
	LWLockRelease(shared->lock);
}

JqBegin
jq_shared_begin_job(int64 job_id, int32 claim_no, int waiting)
{
	JqBegin		begin = JQ_BEGIN_NOW;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (my_slot->waiting_taken)
		begin = JQ_BEGIN_TAKEN;
	else
	{
		if (was_cancelled(job_id, claim_no))
			begin = JQ_BEGIN_CANCELLED;
		set_job(job_id, claim_no, waiting);
	}
	LWLockRelease(shared->lock);
	return begin;
}

bool
jq_shared_resume_job(int64 job_id, int32 claim_no)
{
	bool		may_run;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	may_run = !was_cancelled(job_id, claim_no);
	set_job(job_id, claim_no, 0);
	LWLockRelease(shared->lock);
	return may_run;
}

/* While it was not the running one.  The lock must be held. */
static bool
was_cancelled(int64 job_id, int32 claim_no)
{
	for (int i = 0; i < my_slot->ncancelled; i++)
		if (my_slot->cancelled[i].job_id == job_id &&
			my_slot->cancelled[i].claim_no == claim_no)
			return true;
	return false;
}

/* Its batch may have to run it once more.  The lock must be held. */
static void
keep_cancellation(void)
{
	if (my_slot->is_cancelled && my_slot->ncancelled < MAX_CANCELLED)
	{
		CancelledClaim *claim = &my_slot->cancelled[my_slot->ncancelled++];

		claim->job_id = my_slot->info.job_id;
		claim->claim_no = my_slot->claim_no;
	}
	my_slot->is_cancelled = false;
}

/* The lock must be held. */
static void
set_job(int64 job_id, int32 claim_no, int waiting)
{
	keep_cancellation();
	my_slot->claim_no = claim_no;
	my_slot->info.job_id = job_id;
	my_slot->info.waiting_jobs = waiting;
	my_slot->info.job_started_at = GetCurrentTimestamp();
	my_slot->info.is_stuck = false;
}

void
jq_shared_end_job(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	keep_cancellation();
	my_slot->info.is_stuck = false;
	my_slot->info.job_id = 0;
	LWLockRelease(shared->lock);
}

/* Without the lock: in a signal handler. */
void
jq_shared_report_stuck(void)
{
	volatile WorkerSlot *slot = my_slot;

	if (slot != NULL)
		slot->info.is_stuck = true;
}

bool
jq_shared_begin_suspect(void)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		alone = true;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->nslots; i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (slot != my_slot && slot->in_use && slot->suspect_at != 0 &&
			now < TimestampTzPlusMilliseconds(slot->suspect_at, SUSPECT_MS))
			alone = false;
	}
	if (alone)
		my_slot->suspect_at = now;
	LWLockRelease(shared->lock);
	return alone;
}

void
jq_shared_end_suspect(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_slot->suspect_at = 0;
	LWLockRelease(shared->lock);
}

bool
jq_shared_should_retire(void)
{
	bool		retire;

	LWLockAcquire(shared->lock, LW_SHARED);
	retire = my_slot->info.retire;
	LWLockRelease(shared->lock);
	return retire;
}

/* Without the lock: it is reset by this process only, between jobs. */
bool
jq_shared_job_is_cancelled(void)
{
	volatile WorkerSlot *slot = my_slot;

	return slot != NULL && slot->is_cancelled;
}

int
jq_shared_workers(JqWorkerInfo **workers)
{
	int			count = 0;

	if (shared == NULL)
		return 0;
	*workers = palloc(sizeof(JqWorkerInfo) * shared->nslots);
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nslots; i++)
		if (shared->slots[i].in_use)
			(*workers)[count++] = shared->slots[i].info;
	LWLockRelease(shared->lock);
	return count;
}

bool
jq_shared_find_scheduler(Oid database, JqWorkerInfo *info)
{
	WorkerSlot *slot;

	LWLockAcquire(shared->lock, LW_SHARED);
	slot = find_scheduler(database);
	if (slot != NULL)
		*info = slot->info;
	LWLockRelease(shared->lock);
	return slot != NULL;
}

bool
jq_shared_scheduler_is_running(Oid database)
{
	JqWorkerInfo info;

	return shared != NULL && jq_shared_find_scheduler(database, &info) &&
		info.pid != 0;
}

bool
jq_shared_executor_is_alive(const pg_uuid_t *worker)
{
	bool		alive;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_SHARED);
	alive = find_executor(worker) != NULL;
	LWLockRelease(shared->lock);
	return alive;
}

void
jq_shared_count_executors(Oid database, Oid role, JqExecutorCount *count)
{
	memset(count, 0, sizeof(*count));
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nslots; i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (!is_executor(slot, database, role) || slot->info.is_stuck)
			continue;
		if (slot->info.state == JQ_STATE_STARTING)
			count->starting++;
		else if (slot->info.state == JQ_STATE_IDLE && !slot->info.retire)
			count->idle++;
		else
			count->running++;
	}
	LWLockRelease(shared->lock);
}

void
jq_shared_wake_scheduler(Oid database)
{
	WorkerSlot *slot;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_SHARED);
	slot = find_scheduler(database);
	if (slot != NULL && slot->latch != NULL)
		SetLatch(slot->latch);
	LWLockRelease(shared->lock);
}

int
jq_shared_wake_executors(Oid database, Oid role, int count)
{
	int			woken = 0;

	if (shared == NULL)
		return 0;
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nslots && woken < count; i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (is_executor(slot, database, role) &&
			slot->info.state == JQ_STATE_IDLE && slot->latch != NULL)
		{
			SetLatch(slot->latch);
			woken++;
		}
	}
	LWLockRelease(shared->lock);
	return woken;
}

/* The lock must be held. */
static void
retire_slot(WorkerSlot *slot)
{
	slot->info.retire = true;
	if (slot->latch != NULL)
		SetLatch(slot->latch);
}

void
jq_shared_retire(JqWorkerKind kind, Oid database)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->nslots; i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (slot->in_use && slot->info.kind == kind &&
			slot->info.database == database && !slot->info.retire)
			retire_slot(slot);
	}
	LWLockRelease(shared->lock);
}

bool
jq_shared_retire_executor(Oid database, const pg_uuid_t *worker)
{
	WorkerSlot *slot;
	bool		is_there;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_executor(worker);
	is_there = slot != NULL && slot->info.database == database;
	if (is_there && !slot->info.retire)
		retire_slot(slot);
	LWLockRelease(shared->lock);
	return is_there;
}

/* How many executors the role of this one has there.  Lock must be held. */
static int
count_colleagues(const WorkerSlot *executor)
{
	int			count = 0;

	for (int i = 0; i < shared->nslots; i++)
		if (is_executor(&shared->slots[i], executor->info.database,
						executor->info.role))
			count++;
	return count;
}

/* Whether a should rather end than b.  The lock must be held. */
static bool
should_retire_before(const WorkerSlot *a, const WorkerSlot *b)
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
	WorkerSlot *chosen = NULL;
	bool		is_waiting = false;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->nslots; i++)
	{
		WorkerSlot *slot = &shared->slots[i];

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
	LWLockRelease(shared->lock);
}

void
jq_shared_cancel_job(const pg_uuid_t *worker, int64 job_id, int32 claim_no)
{
	WorkerSlot *slot;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_executor(worker);
	if (slot != NULL && slot->info.job_id == job_id &&
		slot->claim_no == claim_no)
		slot->is_cancelled = true;
	else if (slot != NULL && slot->ncancelled < MAX_CANCELLED)
	{
		slot->cancelled[slot->ncancelled].job_id = job_id;
		slot->cancelled[slot->ncancelled++].claim_no = claim_no;
	}
	LWLockRelease(shared->lock);
}

bool
jq_shared_take_waiting(const pg_uuid_t *worker, uint32 batch_no,
					   int64 *job_id)
{
	WorkerSlot *slot;
	bool		taken = false;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_executor(worker);
	if (slot != NULL && slot->info.batch_no == batch_no &&
		slot->info.job_id != 0 && slot->info.waiting_jobs > 0)
	{
		slot->waiting_taken = true;
		*job_id = slot->info.job_id;
		taken = true;
	}
	LWLockRelease(shared->lock);
	return taken;
}

/* Also wakes the scheduler, which notices when the extension has gone. */
void
jq_shared_mark_database(Oid database)
{
	WorkerSlot *scheduler;
	bool		is_marked = false;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < Min(shared->nmarks, MAX_MARKS); i++)
		if (shared->marks[i] == database)
			is_marked = true;
	if (!is_marked && shared->nmarks < MAX_MARKS)
		shared->marks[shared->nmarks++] = database;
	else if (!is_marked)
		shared->nmarks = MAX_MARKS + 1;
	wake_launcher();
	scheduler = find_scheduler(database);
	if (scheduler != NULL && scheduler->latch != NULL)
		SetLatch(scheduler->latch);
	LWLockRelease(shared->lock);
}

int
jq_shared_take_marks(Oid *databases, int max, bool *all)
{
	int			count;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	*all = shared->nmarks > Min(max, MAX_MARKS);
	count = Min(Min(shared->nmarks, MAX_MARKS), max);
	memcpy(databases, shared->marks, sizeof(Oid) * count);
	shared->nmarks = 0;
	LWLockRelease(shared->lock);
	return count;
}
