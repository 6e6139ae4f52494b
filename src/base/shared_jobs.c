/*-------------------------------------------------------------------------
 *
 * shared_jobs.c
 *	  What an executor runs, and what others ask of its jobs.
 *
 *	  The lock of shared_state.c guards all of it, but for two flags that
 *	  signal handlers look at.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/shared_slots.h"

#include "storage/lwlock.h"
#include "utils/timestamp.h"

#define SUSPECT_MS 10000		/* how long a suspect job keeps others away */

static bool was_cancelled(int64 job_id, int32 claim_no);
static void keep_cancellation(void);
static void set_job(int64 job_id, int32 claim_no, int waiting);

/* The lock must be held. */
void
jq_slots_note_death(const JqWorkerSlot *slot)
{
	Death	   *death;

	if (slot->info.job_id == 0)
		return;
	death = &jq_slots_state->deaths[jq_slots_state->ndeaths++ % MAX_DEATHS];
	death->worker = slot->info.worker_id;
	death->job_id = slot->info.job_id;
}

uint32
jq_shared_deaths(void)
{
	uint32		ndeaths;

	LWLockAcquire(jq_slots_state->lock, LW_SHARED);
	ndeaths = jq_slots_state->ndeaths;
	LWLockRelease(jq_slots_state->lock);
	return ndeaths;
}

bool
jq_shared_died_of(const pg_uuid_t *worker, int64 *job_id)
{
	bool		found = false;

	if (jq_slots_state == NULL)
		return false;
	LWLockAcquire(jq_slots_state->lock, LW_SHARED);
	for (int i = 0; i < (int) Min(jq_slots_state->ndeaths, MAX_DEATHS); i++)
	{
		const Death *death = &jq_slots_state->deaths[i];

		if (memcmp(&death->worker, worker, sizeof(pg_uuid_t)) == 0)
		{
			*job_id = death->job_id;
			found = true;
		}
	}
	LWLockRelease(jq_slots_state->lock);
	return found;
}

void
jq_shared_begin_batch(void)
{
	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	jq_slots_mine->waiting_taken = false;
	jq_slots_mine->info.batch_no++;
	jq_slots_mine->info.state = JQ_STATE_RUNNING;
	LWLockRelease(jq_slots_state->lock);
}

void
jq_shared_end_batch(void)
{
	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	jq_slots_mine->info.waiting_jobs = 0;
	jq_slots_mine->suspect_at = 0;
	jq_slots_mine->ncancelled = 0;
	LWLockRelease(jq_slots_state->lock);
}

JqBegin
jq_shared_begin_job(int64 job_id, int32 claim_no, int waiting)
{
	JqBegin		begin = JQ_BEGIN_NOW;

	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	if (jq_slots_mine->waiting_taken)
		begin = JQ_BEGIN_TAKEN;
	else
	{
		if (was_cancelled(job_id, claim_no))
			begin = JQ_BEGIN_CANCELLED;
		set_job(job_id, claim_no, waiting);
	}
	LWLockRelease(jq_slots_state->lock);
	return begin;
}

bool
jq_shared_resume_job(int64 job_id, int32 claim_no)
{
	bool		may_run;

	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	may_run = !was_cancelled(job_id, claim_no);
	set_job(job_id, claim_no, 0);
	LWLockRelease(jq_slots_state->lock);
	return may_run;
}

/* While it was not the running one.  The lock must be held. */
static bool
was_cancelled(int64 job_id, int32 claim_no)
{
	for (int i = 0; i < jq_slots_mine->ncancelled; i++)
		if (jq_slots_mine->cancelled[i].job_id == job_id &&
			jq_slots_mine->cancelled[i].claim_no == claim_no)
			return true;
	return false;
}

/* Its batch may have to run it once more.  The lock must be held. */
static void
keep_cancellation(void)
{
	if (jq_slots_mine->is_cancelled && jq_slots_mine->ncancelled < MAX_CANCELLED)
	{
		CancelledClaim *claim = &jq_slots_mine->cancelled[jq_slots_mine->ncancelled++];

		claim->job_id = jq_slots_mine->info.job_id;
		claim->claim_no = jq_slots_mine->claim_no;
	}
	jq_slots_mine->is_cancelled = false;
}

/* The lock must be held. */
static void
set_job(int64 job_id, int32 claim_no, int waiting)
{
	keep_cancellation();
	jq_slots_mine->claim_no = claim_no;
	jq_slots_mine->info.job_id = job_id;
	jq_slots_mine->info.waiting_jobs = waiting;
	jq_slots_mine->info.job_started_at = GetCurrentTimestamp();
	jq_slots_mine->info.is_stuck = false;
}

void
jq_shared_end_job(void)
{
	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	keep_cancellation();
	jq_slots_mine->info.is_stuck = false;
	jq_slots_mine->info.job_id = 0;
	LWLockRelease(jq_slots_state->lock);
}

/* Without the lock: in a signal handler. */
void
jq_shared_report_stuck(void)
{
	volatile JqWorkerSlot *slot = jq_slots_mine;

	if (slot != NULL)
		slot->info.is_stuck = true;
}

bool
jq_shared_begin_suspect(void)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		alone = true;

	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	for (int i = 0; i < jq_slots_state->nslots; i++)
	{
		JqWorkerSlot *slot = &jq_slots_state->slots[i];

		if (slot != jq_slots_mine && slot->in_use && slot->suspect_at != 0 &&
			now < TimestampTzPlusMilliseconds(slot->suspect_at, SUSPECT_MS))
			alone = false;
	}
	if (alone)
		jq_slots_mine->suspect_at = now;
	LWLockRelease(jq_slots_state->lock);
	return alone;
}

void
jq_shared_end_suspect(void)
{
	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	jq_slots_mine->suspect_at = 0;
	LWLockRelease(jq_slots_state->lock);
}

/* Without the lock: it is reset by this process only, between jobs. */
bool
jq_shared_job_is_cancelled(void)
{
	volatile JqWorkerSlot *slot = jq_slots_mine;

	return slot != NULL && slot->is_cancelled;
}

void
jq_shared_cancel_job(const pg_uuid_t *worker, int64 job_id, int32 claim_no)
{
	JqWorkerSlot *slot;

	if (jq_slots_state == NULL)
		return;
	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	slot = jq_slots_find_worker(worker);
	if (slot != NULL && slot->info.job_id == job_id &&
		slot->claim_no == claim_no)
		slot->is_cancelled = true;
	else if (slot != NULL && slot->ncancelled < MAX_CANCELLED)
	{
		slot->cancelled[slot->ncancelled].job_id = job_id;
		slot->cancelled[slot->ncancelled++].claim_no = claim_no;
	}
	if (slot != NULL && slot->info.kind == JQ_WORKER_DISPATCHER &&
		slot->latch != NULL)
		SetLatch(slot->latch);
	LWLockRelease(jq_slots_state->lock);
}

bool
jq_shared_take_cancelled(int64 *job_id, int32 *claim_no)
{
	bool		found;

	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	found = jq_slots_mine->ncancelled > 0;
	if (found)
	{
		CancelledClaim *claim = &jq_slots_mine->cancelled[--jq_slots_mine->ncancelled];

		*job_id = claim->job_id;
		*claim_no = claim->claim_no;
	}
	LWLockRelease(jq_slots_state->lock);
	return found;
}

bool
jq_shared_take_waiting(const pg_uuid_t *worker, uint32 batch_no,
					   int64 *job_id)
{
	JqWorkerSlot *slot;
	bool		taken = false;

	LWLockAcquire(jq_slots_state->lock, LW_EXCLUSIVE);
	slot = jq_slots_find_executor(worker);
	if (slot != NULL && slot->info.batch_no == batch_no &&
		slot->info.job_id != 0 && slot->info.waiting_jobs > 0)
	{
		slot->waiting_taken = true;
		*job_id = slot->info.job_id;
		taken = true;
	}
	LWLockRelease(jq_slots_state->lock);
	return taken;
}
