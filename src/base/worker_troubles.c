/*-------------------------------------------------------------------------
 *
 * worker_troubles.c
 *	  What goes wrong with the server's workers, again and again.
 *
 * An array of a fixed size.  What happens again within ten minutes is one
 * trouble that goes on; when all places are taken, the one that has been quiet
 * for longest makes room.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/shared_memory.h"
#include "base/worker_troubles.h"

#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#define LOCK_TRANCHE "jobqueue_troubles"
#define QUIET_MS (10 * 60 * 1000)	/* then it is over */

typedef struct TroubleState
{
	LWLock	   *lock;			/* guards everything */
	int			count;			/* entries in use */
	JqTroubleInfo entries[JQ_MAX_TROUBLES];
} TroubleState;

static TroubleState *state = NULL;

static void request_memory(void);
static void create_memory(void);
static bool is_of(const JqTroubleInfo *entry, JqWorkerKind kind, Oid database,
				  JqTrouble trouble);
static JqTroubleInfo *find_or_create(JqWorkerKind kind, Oid database,
									 JqTrouble trouble);

void
jq_troubles_init(void)
{
	jq_shared_memory_add(request_memory, create_memory);
}

static void
request_memory(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(TroubleState)));
	RequestNamedLWLockTranche(LOCK_TRANCHE, 1);
}

/* In the postmaster at each start, and after each crash. */
static void
create_memory(void)
{
	bool		found;

	state = ShmemInitStruct("jobqueue troubles", sizeof(TroubleState), &found);
	if (!found)
	{
		memset(state, 0, sizeof(TroubleState));
		state->lock = &GetNamedLWLockTranche(LOCK_TRANCHE)->lock;
	}
}

void
jq_troubles_note(JqWorkerKind kind, Oid database, JqTrouble trouble,
				 int sqlstate)
{
	TimestampTz now = GetCurrentTimestamp();
	JqTroubleInfo *entry;

	if (state == NULL)
		return;
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	entry = find_or_create(kind, database, trouble);
	if (entry->count == 0 ||
		now > TimestampTzPlusMilliseconds(entry->last_at, QUIET_MS))
	{
		entry->first_at = now;
		entry->count = 0;
	}
	entry->last_at = now;
	if (entry->count < PG_INT32_MAX)
		entry->count++;
	entry->sqlstate = sqlstate;
	LWLockRelease(state->lock);
}

static bool
is_of(const JqTroubleInfo *entry, JqWorkerKind kind, Oid database,
	  JqTrouble trouble)
{
	return entry->kind == kind && entry->database == database &&
		entry->trouble == trouble;
}

/* The lock must be held. */
static JqTroubleInfo *
find_or_create(JqWorkerKind kind, Oid database, JqTrouble trouble)
{
	JqTroubleInfo *entry = &state->entries[0];

	for (int i = 0; i < state->count; i++)
	{
		JqTroubleInfo *other = &state->entries[i];

		if (is_of(other, kind, database, trouble))
			return other;
		if (other->last_at < entry->last_at)
			entry = other;
	}
	if (state->count < JQ_MAX_TROUBLES)
		entry = &state->entries[state->count++];
	memset(entry, 0, sizeof(JqTroubleInfo));
	entry->kind = kind;
	entry->database = database;
	entry->trouble = trouble;
	return entry;
}

void
jq_troubles_end(JqWorkerKind kind, Oid database, JqTrouble trouble)
{
	if (state == NULL)
		return;
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	for (int i = 0; i < state->count; i++)
		if (is_of(&state->entries[i], kind, database, trouble))
			state->entries[i--] = state->entries[--state->count];
	LWLockRelease(state->lock);
}

const char *
jq_troubles_name(JqTrouble trouble)
{
	switch (trouble)
	{
		case JQ_TROUBLE_ERROR:
			return "error";
		case JQ_TROUBLE_ENDED:
			return "ended";
		case JQ_TROUBLE_NO_PROCESS:
			return "no process";
		case JQ_TROUBLE_NOT_SERVING:
			return "not serving";
	}
	return NULL;				/* keep compilers quiet */
}

int
jq_troubles_list(JqTroubleInfo *troubles)
{
	int			count;

	if (state == NULL)
		return 0;
	LWLockAcquire(state->lock, LW_SHARED);
	count = state->count;
	memcpy(troubles, state->entries, sizeof(JqTroubleInfo) * count);
	LWLockRelease(state->lock);
	return count;
}
