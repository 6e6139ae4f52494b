/*-------------------------------------------------------------------------
 *
 * circuit_counts.c
 *	  Failures in a row, per job type and stage, in shared memory.
 *
 * A fixed array of entries, found by a hash, under one lock.  An entry exists
 * while failures are counted, or until the row of a circuit that has opened is
 * committed.  Where there is no room, the stage that failed longest ago and
 * has not tripped is forgotten.
 *
 * The callback that applies the notes of a transaction neither allocates nor
 * fails.  A transaction that is prepared does not count.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "base/config.h"
#include "base/notes.h"
#include "base/shared_memory.h"
#include "base/shared_state.h"
#include "queue/circuit_counts.h"

#define LOCK_TRANCHE "jobqueue_circuits"

typedef struct Entry
{
	uint32		hash;			/* 0: free */
	Oid			database;
	JqCircuitCount count;
} Entry;

typedef struct CountState
{
	LWLock	   *lock;			/* guards the entries */
	pg_atomic_uint64 generation;	/* written under the lock */
	pg_atomic_uint32 nentries;	/* the same */
	pg_atomic_uint32 ntripped;	/* the same */
	Entry		entries[FLEXIBLE_ARRAY_MEMBER];
} CountState;

typedef enum NoteKind
{
	NOTE_FAILURE,
	NOTE_SUCCESS,
	NOTE_FORGET,
	NOTE_FORGET_TYPE,
	NOTE_CHANGE
} NoteKind;

typedef struct Note
{
	int			nest_level;
	NoteKind	kind;
	int			subject;		/* in subjects */
	int64		job_id;
} Note;

/* What notes are about. */
typedef struct Subject
{
	uint32		hash;
	JqCircuitName name;
	JqBreaker	breaker;
} Subject;

static CountState *state = NULL;

static JqNotes notes = {0};		/* of Note */
static JqNotes subjects = {0};	/* of Subject */

static void request_memory(void);
static void create_memory(void);
static Size memory_size(void);
static Note *note_at(int i);
static Subject *subject_at(int i);
static void add_note(NoteKind kind, int subject, int64 job_id);
static int	find_subject(const char *job_type, const char *stage);
static bool must_apply(void);
static void apply_notes(void);
static bool apply(const Note *note, TimestampTz now);
static bool count_failure(const Subject *subject, int64 job_id,
						  TimestampTz now);
static bool has_failed_before(const JqCircuitCount *count, int64 job_id);
static Entry *find_entry(uint32 hash, const JqCircuitName *name);
static Entry *make_entry(const Subject *subject);
static void free_entry(Entry *entry);
static void forget_type(const char *job_type);
static void end_transaction(XactEvent event, void *arg);
static void end_subtransaction(SubXactEvent event, SubTransactionId mySubid,
							   SubTransactionId parentSubid, void *arg);

void
jq_circuit_counts_init(void)
{
	if (jq_config_max_circuits == 0)
		return;
	jq_shared_memory_add(request_memory, create_memory);
	RegisterXactCallback(end_transaction, NULL);
	RegisterSubXactCallback(end_subtransaction, NULL);
}

static Size
memory_size(void)
{
	return add_size(offsetof(CountState, entries),
					mul_size(jq_config_max_circuits, sizeof(Entry)));
}

static void
request_memory(void)
{
	RequestAddinShmemSpace(memory_size());
	RequestNamedLWLockTranche(LOCK_TRANCHE, 1);
}

/* In the postmaster at each start, and after each crash. */
static void
create_memory(void)
{
	bool		found;

	state = ShmemInitStruct("jobqueue circuits", memory_size(), &found);
	if (!found)
	{
		memset(state, 0, memory_size());
		state->lock = &GetNamedLWLockTranche(LOCK_TRANCHE)->lock;
		pg_atomic_init_u64(&state->generation, 1);
		pg_atomic_init_u32(&state->nentries, 0);
		pg_atomic_init_u32(&state->ntripped, 0);
	}
}

bool
jq_circuit_counts_exist(void)
{
	return state != NULL;
}

/* Never 0, which stands for a free entry. */
uint32
jq_circuit_hash(const char *job_type, const char *stage)
{
	uint32		hash = hash_combine(string_hash(job_type, JQ_CIRCUIT_NAME_SIZE),
									string_hash(stage, JQ_CIRCUIT_NAME_SIZE));

	return hash == 0 ? 1 : hash;
}

/* ---- notes ---- */

void
jq_circuit_counts_note(const char *job_type, const char *stage,
					   const JqBreaker *breaker, int64 job_id,
					   bool has_failed)
{
	NoteKind	kind = has_failed ? NOTE_FAILURE : NOTE_SUCCESS;
	int			subject;

	if (state == NULL || strlen(job_type) >= JQ_CIRCUIT_NAME_SIZE ||
		strlen(stage) >= JQ_CIRCUIT_NAME_SIZE)
		return;
	subject = find_subject(job_type, stage);
	subject_at(subject)->breaker = *breaker;

	/* One success after another changes nothing. */
	if (kind == NOTE_SUCCESS && notes.count > 0 &&
		note_at(notes.count - 1)->kind == NOTE_SUCCESS &&
		note_at(notes.count - 1)->subject == subject &&
		note_at(notes.count - 1)->nest_level == GetCurrentTransactionNestLevel())
		return;
	add_note(kind, subject, job_id);
}

void
jq_circuit_counts_forget(const char *job_type, const char *stage)
{
	if (state == NULL || strlen(job_type) >= JQ_CIRCUIT_NAME_SIZE ||
		(stage != NULL && strlen(stage) >= JQ_CIRCUIT_NAME_SIZE))
		return;
	add_note(stage == NULL ? NOTE_FORGET_TYPE : NOTE_FORGET,
			 find_subject(job_type, stage == NULL ? "" : stage), 0);
}

void
jq_circuit_counts_change(void)
{
	if (state != NULL)
		add_note(NOTE_CHANGE, 0, 0);
}

static void
add_note(NoteKind kind, int subject, int64 job_id)
{
	Note	   *note = (Note *) jq_notes_add(&notes, sizeof(Note));

	note->nest_level = GetCurrentTransactionNestLevel();
	note->kind = kind;
	note->subject = subject;
	note->job_id = job_id;
}

static Note *
note_at(int i)
{
	return (Note *) notes.items + i;
}

static Subject *
subject_at(int i)
{
	return (Subject *) subjects.items + i;
}

/* The last one is the most likely one. */
static int
find_subject(const char *job_type, const char *stage)
{
	uint32		hash = jq_circuit_hash(job_type, stage);
	Subject    *subject;

	for (int i = subjects.count - 1; i >= 0; i--)
		if (subject_at(i)->hash == hash &&
			strcmp(subject_at(i)->name.stage, stage) == 0 &&
			strcmp(subject_at(i)->name.job_type, job_type) == 0)
			return i;
	subject = (Subject *) jq_notes_add(&subjects, sizeof(Subject));
	subject->hash = hash;
	strlcpy(subject->name.job_type, job_type, JQ_CIRCUIT_NAME_SIZE);
	strlcpy(subject->name.stage, stage, JQ_CIRCUIT_NAME_SIZE);
	return subjects.count - 1;
}

/* ---- what counts ---- */

/* Successes matter only where something is counted. */
static bool
must_apply(void)
{
	if (pg_atomic_read_u32(&state->nentries) > 0)
		return notes.count > 0;
	for (int i = 0; i < notes.count; i++)
		if (note_at(i)->kind == NOTE_FAILURE || note_at(i)->kind == NOTE_CHANGE)
			return true;
	return false;
}

/* After a commit. */
static void
apply_notes(void)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		has_tripped = false;
	bool		has_changed = false;

	/*
	 * What a row says now is read anew before its entry goes: see
	 * jq_circuit_look().
	 */
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	for (int i = 0; i < notes.count; i++)
		has_changed |= note_at(i)->kind == NOTE_CHANGE;
	if (has_changed)
		pg_atomic_fetch_add_u64(&state->generation, 1);
	for (int i = 0; i < notes.count; i++)
		has_tripped |= apply(note_at(i), now);
	if (has_tripped)
		pg_atomic_fetch_add_u64(&state->generation, 1);
	LWLockRelease(state->lock);
	if (has_tripped)
		jq_shared_wake_scheduler(MyDatabaseId);
}

/* True: a stage has tripped.  The lock must be held. */
static bool
apply(const Note *note, TimestampTz now)
{
	const Subject *subject = subject_at(note->subject);
	Entry	   *entry;

	switch (note->kind)
	{
		case NOTE_FAILURE:
			return count_failure(subject, note->job_id, now);
		case NOTE_SUCCESS:
			entry = find_entry(subject->hash, &subject->name);
			if (entry != NULL && entry->count.tripped_at == 0)
				free_entry(entry);
			return false;
		case NOTE_FORGET:
			entry = find_entry(subject->hash, &subject->name);
			if (entry != NULL)
				free_entry(entry);
			return false;
		case NOTE_FORGET_TYPE:
			forget_type(subject->name.job_type);
			return false;
		case NOTE_CHANGE:
			return false;
	}
	return false;
}

/* The lock must be held. */
static bool
count_failure(const Subject *subject, int64 job_id, TimestampTz now)
{
	Entry	   *entry = find_entry(subject->hash, &subject->name);
	JqCircuitCount *count;

	if (entry == NULL)
		entry = make_entry(subject);
	if (entry == NULL)
		return false;			/* all of them have tripped */
	count = &entry->count;
	if (count->tripped_at != 0 || (subject->breaker.distinct_jobs &&
								   has_failed_before(count, job_id)))
		return false;
	if (count->njobs == JQ_CIRCUIT_MAX_JOBS)
	{
		count->njobs--;
		memmove(count->jobs, count->jobs + 1, sizeof(int64) * count->njobs);
	}
	count->jobs[count->njobs++] = job_id;
	count->failures++;
	count->last_failure_at = now;
	if (count->failures < subject->breaker.threshold)
		return false;
	count->tripped_at = now;
	count->cooldown_us = subject->breaker.cooldown_us;
	count->retry_at = now + count->cooldown_us;
	pg_atomic_fetch_add_u32(&state->ntripped, 1);
	return true;
}

static bool
has_failed_before(const JqCircuitCount *count, int64 job_id)
{
	for (int i = 0; i < count->njobs; i++)
		if (count->jobs[i] == job_id)
			return true;
	return false;
}

/* The lock must be held. */
static Entry *
find_entry(uint32 hash, const JqCircuitName *name)
{
	int			left = (int) pg_atomic_read_u32(&state->nentries);

	for (int i = 0; left > 0 && i < jq_config_max_circuits; i++)
	{
		Entry	   *entry = &state->entries[i];

		if (entry->hash == 0)
			continue;
		left--;
		if (entry->hash == hash && entry->database == MyDatabaseId &&
			strcmp(entry->count.name.stage, name->stage) == 0 &&
			strcmp(entry->count.name.job_type, name->job_type) == 0)
			return entry;
	}
	return NULL;
}

/* NULL: there is no room.  The lock must be held. */
static Entry *
make_entry(const Subject *subject)
{
	Entry	   *oldest = NULL;

	for (int i = 0; i < jq_config_max_circuits; i++)
	{
		Entry	   *entry = &state->entries[i];

		if (entry->hash == 0)
		{
			oldest = entry;
			break;
		}
		if (entry->count.tripped_at == 0 &&
			(oldest == NULL || entry->count.last_failure_at <
			 oldest->count.last_failure_at))
			oldest = entry;
	}
	if (oldest == NULL)
		return NULL;
	if (oldest->hash != 0)
		free_entry(oldest);
	memset(oldest, 0, sizeof(*oldest));
	oldest->hash = subject->hash;
	oldest->database = MyDatabaseId;
	oldest->count.name = subject->name;
	pg_atomic_fetch_add_u32(&state->nentries, 1);
	return oldest;
}

/* The lock must be held. */
static void
free_entry(Entry *entry)
{
	if (entry->count.tripped_at != 0)
		pg_atomic_fetch_sub_u32(&state->ntripped, 1);
	entry->hash = 0;
	pg_atomic_fetch_sub_u32(&state->nentries, 1);
}

/* The lock must be held. */
static void
forget_type(const char *job_type)
{
	for (int i = 0; i < jq_config_max_circuits; i++)
	{
		Entry	   *entry = &state->entries[i];

		if (entry->hash != 0 && entry->database == MyDatabaseId &&
			strcmp(entry->count.name.job_type, job_type) == 0)
			free_entry(entry);
	}
}

/* ---- what others ask ---- */

uint64
jq_circuit_counts_generation(void)
{
	return state == NULL ? 0 : pg_atomic_read_u64(&state->generation);
}

bool
jq_circuit_counts_have_tripped(void)
{
	return state != NULL && pg_atomic_read_u32(&state->ntripped) > 0;
}

bool
jq_circuit_counts_are_tripped(const char *job_type, const char *stage,
							  TimestampTz *retry_at)
{
	JqCircuitName name;
	const Entry *entry;
	bool		are_tripped;

	if (!jq_circuit_counts_have_tripped() ||
		strlcpy(name.job_type, job_type, JQ_CIRCUIT_NAME_SIZE) >= JQ_CIRCUIT_NAME_SIZE ||
		strlcpy(name.stage, stage, JQ_CIRCUIT_NAME_SIZE) >= JQ_CIRCUIT_NAME_SIZE)
		return false;
	LWLockAcquire(state->lock, LW_SHARED);
	entry = find_entry(jq_circuit_hash(job_type, stage), &name);
	are_tripped = entry != NULL && entry->count.tripped_at != 0;
	if (are_tripped)
		*retry_at = entry->count.retry_at;
	LWLockRelease(state->lock);
	return are_tripped;
}

int
jq_circuit_counts_list(bool only_tripped, JqCircuitCount **counts)
{
	int			count = 0;

	*counts = NULL;
	if (state == NULL || (only_tripped && !jq_circuit_counts_have_tripped()))
		return 0;
	*counts = palloc(sizeof(JqCircuitCount) * jq_config_max_circuits);
	LWLockAcquire(state->lock, LW_SHARED);
	for (int i = 0; i < jq_config_max_circuits; i++)
	{
		const Entry *entry = &state->entries[i];

		if (entry->hash != 0 && entry->database == MyDatabaseId &&
			(!only_tripped || entry->count.tripped_at != 0))
			(*counts)[count++] = entry->count;
	}
	LWLockRelease(state->lock);
	return count;
}

bool
jq_circuit_counts_mark_logged(const JqCircuitName *name)
{
	Entry	   *entry;
	bool		is_new;

	if (state == NULL)
		return false;
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	entry = find_entry(jq_circuit_hash(name->job_type, name->stage), name);
	is_new = entry != NULL && !entry->count.is_logged;
	if (is_new)
		entry->count.is_logged = true;
	LWLockRelease(state->lock);
	return is_new;
}

/* ---- the end ---- */

static void
end_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (notes.count > 0 && must_apply())
				apply_notes();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			break;
		default:
			return;
	}
	jq_notes_clear(&notes);
	jq_notes_clear(&subjects);
}

static void
end_subtransaction(SubXactEvent event, SubTransactionId mySubid,
				   SubTransactionId parentSubid, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		jq_notes_abort_sub(&notes, sizeof(Note));
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		jq_notes_commit_sub(&notes, sizeof(Note));
}
