/*-------------------------------------------------------------------------
 *
 * probe.c
 *	  Single requests that sessions ask the dispatcher to send.
 *
 * A slot belongs to the session that asked, from asking until it leaves: the
 * dispatcher only writes into one that still has the generation it took.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/probe.h"
#include "base/shared_memory.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#define LOCK_TRANCHE "jobqueue_probes"

typedef struct ProbeSlot
{
	Latch	   *latch;			/* of who asks; NULL: free */
	Oid			database;
	uint32		generation;		/* grows with each request */
	JqProbeState state;
	int			taken_by;		/* pid of the dispatcher; 0: none */
	JqProbe		probe;
	JqProbeAnswer answer;
} ProbeSlot;

typedef struct Mailbox
{
	LWLock	   *lock;			/* guards everything */
	ProbeSlot	slots[JQ_PROBE_SLOTS];
} Mailbox;

static Mailbox *mailbox = NULL;
static ProbeSlot *mine = NULL;	/* of a session that asks */

static void request_memory(void);
static void create_memory(void);
static void abandon_at_exit(int code, Datum arg);
static void abandon(ProbeSlot *slot);

void
jq_probe_init(void)
{
	jq_shared_memory_add(request_memory, create_memory);
}

static void
request_memory(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(Mailbox)));
	RequestNamedLWLockTranche(LOCK_TRANCHE, 1);
}

/* In the postmaster at each start, and after each crash. */
static void
create_memory(void)
{
	bool		found;

	mailbox = ShmemInitStruct("jobqueue probes", sizeof(Mailbox), &found);
	if (!found)
	{
		memset(mailbox, 0, sizeof(Mailbox));
		mailbox->lock = &GetNamedLWLockTranche(LOCK_TRANCHE)->lock;
	}
}

/* ---- for scheduler and dispatcher ---- */

bool
jq_probe_wanted(Oid database)
{
	bool		is_wanted = false;

	if (mailbox == NULL)
		return false;
	LWLockAcquire(mailbox->lock, LW_SHARED);
	for (int i = 0; i < JQ_PROBE_SLOTS; i++)
		if (mailbox->slots[i].latch != NULL &&
			mailbox->slots[i].database == database &&
			mailbox->slots[i].state == JQ_PROBE_WAITING)
			is_wanted = true;
	LWLockRelease(mailbox->lock);
	return is_wanted;
}

bool
jq_probe_take(JqProbe *probe)
{
	static bool is_registered = false;
	bool		is_taken = false;

	if (mailbox == NULL)
		return false;
	if (!is_registered)
	{
		before_shmem_exit(abandon_at_exit, (Datum) 0);
		is_registered = true;
	}
	LWLockAcquire(mailbox->lock, LW_EXCLUSIVE);
	for (int i = 0; i < JQ_PROBE_SLOTS && !is_taken; i++)
	{
		ProbeSlot  *slot = &mailbox->slots[i];

		if (slot->latch == NULL || slot->database != MyDatabaseId ||
			slot->state != JQ_PROBE_WAITING)
			continue;
		slot->state = JQ_PROBE_TAKEN;
		slot->taken_by = MyProcPid;
		*probe = slot->probe;
		SetLatch(slot->latch);
		is_taken = true;
	}
	LWLockRelease(mailbox->lock);
	return is_taken;
}

void
jq_probe_answer(const JqProbe *probe, const JqProbeAnswer *answer)
{
	ProbeSlot  *slot = &mailbox->slots[probe->slot];

	Assert(probe->slot >= 0 && probe->slot < JQ_PROBE_SLOTS);
	LWLockAcquire(mailbox->lock, LW_EXCLUSIVE);
	if (slot->latch != NULL && slot->generation == probe->generation &&
		slot->state == JQ_PROBE_TAKEN)
	{
		slot->answer = *answer;
		slot->state = JQ_PROBE_ANSWERED;
		SetLatch(slot->latch);
	}
	LWLockRelease(mailbox->lock);
}

void
jq_probe_abandon(const JqProbe *probe)
{
	ProbeSlot  *slot = &mailbox->slots[probe->slot];

	LWLockAcquire(mailbox->lock, LW_EXCLUSIVE);
	if (slot->latch != NULL && slot->generation == probe->generation)
		abandon(slot);
	LWLockRelease(mailbox->lock);
}

/* Whose request this process has taken and not answered gets to know. */
static void
abandon_at_exit(int code, Datum arg)
{
	LWLockAcquire(mailbox->lock, LW_EXCLUSIVE);
	for (int i = 0; i < JQ_PROBE_SLOTS; i++)
	{
		if (mailbox->slots[i].latch != NULL &&
			mailbox->slots[i].taken_by == MyProcPid)
			abandon(&mailbox->slots[i]);
	}
	LWLockRelease(mailbox->lock);
}

/* The lock must be held. */
static void
abandon(ProbeSlot *slot)
{
	if (slot->state != JQ_PROBE_TAKEN)
		return;
	slot->state = JQ_PROBE_ABANDONED;
	SetLatch(slot->latch);
}

/* ---- for sessions ---- */

bool
jq_probe_ask(JqProbe *probe)
{
	if (mailbox == NULL)
		return false;
	jq_probe_leave();
	LWLockAcquire(mailbox->lock, LW_EXCLUSIVE);
	for (int i = 0; i < JQ_PROBE_SLOTS && mine == NULL; i++)
		if (mailbox->slots[i].latch == NULL)
			mine = &mailbox->slots[i];
	if (mine != NULL)
	{
		probe->slot = mine - mailbox->slots;
		probe->generation = ++mine->generation;
		mine->latch = MyLatch;
		mine->database = MyDatabaseId;
		mine->state = JQ_PROBE_WAITING;
		mine->taken_by = 0;
		mine->probe = *probe;
	}
	LWLockRelease(mailbox->lock);
	return mine != NULL;
}

JqProbeState
jq_probe_look(JqProbeAnswer *answer)
{
	JqProbeState state;

	Assert(mine != NULL);
	LWLockAcquire(mailbox->lock, LW_SHARED);
	state = mine->state;
	if (state == JQ_PROBE_ANSWERED)
		*answer = mine->answer;
	LWLockRelease(mailbox->lock);
	return state;
}

void
jq_probe_leave(void)
{
	if (mine == NULL)
		return;
	LWLockAcquire(mailbox->lock, LW_EXCLUSIVE);
	mine->latch = NULL;
	/* What was to be sent may be nobody else's business. */
	memset(&mine->probe, 0, sizeof(mine->probe));
	memset(&mine->answer, 0, sizeof(mine->answer));
	LWLockRelease(mailbox->lock);
	mine = NULL;
}
