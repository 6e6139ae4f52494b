/*-------------------------------------------------------------------------
 *
 * shared_dispatchers.c
 *	  What the workers of a server know of its dispatchers.
 *
 *	  The lock of shared_state.c guards all of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/shared_slots.h"

#include "storage/latch.h"
#include "storage/lwlock.h"

static bool
is_dispatcher(const JqWorkerSlot *slot, Oid database)
{
	return slot->in_use && slot->info.kind == JQ_WORKER_DISPATCHER &&
		slot->info.database == database;
}

int
jq_slots_count_dispatchers(Oid database)
{
	int			count = 0;

	for (int i = 0; i < jq_slots_state->nslots; i++)
		if (is_dispatcher(&jq_slots_state->slots[i], database) &&
			jq_slots_state->slots[i].info.state != JQ_STATE_DRAINING)
			count++;
	return count;
}

int
jq_slots_free_dispatcher_number(Oid database)
{
	int			number = 0;

	for (int i = 0; i < jq_slots_state->nslots; i++)
		if (is_dispatcher(&jq_slots_state->slots[i], database) &&
			jq_slots_state->slots[i].number == number)
		{
			number++;
			i = -1;				/* look again for the next one */
		}
	return number;
}

int
jq_shared_wake_dispatchers(Oid database)
{
	int			count = 0;

	if (jq_slots_state == NULL)
		return 0;
	LWLockAcquire(jq_slots_state->lock, LW_SHARED);
	for (int i = 0; i < jq_slots_state->nslots; i++)
	{
		JqWorkerSlot *slot = &jq_slots_state->slots[i];

		if (!is_dispatcher(slot, database))
			continue;
		if (slot->info.state != JQ_STATE_DRAINING)
			count++;
		if (slot->latch != NULL)
			SetLatch(slot->latch);
	}
	LWLockRelease(jq_slots_state->lock);
	return count;
}

int
jq_shared_dispatcher_number(void)
{
	return jq_slots_mine->number;
}
