/*-------------------------------------------------------------------------
 *
 * failure_counts.c
 *	  Failures in a row, and the last failures, in shared memory: for alerts.
 *
 * A fixed array of entries, found by a dense array of hashes, under one lock.
 * An entry is made by a failure and stays; where there is no room, the one
 * that failed longest ago makes way.  A success matters only to an entry with
 * a streak: while there is none in the whole server, it costs one comparison
 * at commit.
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
#include "queue/failure_counts.h"

#define LOCK_TRANCHE "jobqueue_failures"

typedef struct Entry
{
	Oid			database;
	JqFailureCount count;
} Entry;

typedef struct CountState
{
	LWLock	   *lock;			/* guards hashes and entries */
	TimestampTz since;
	pg_atomic_uint64 generation;	/* written under the lock */
	pg_atomic_uint32 nstreaks;	/* entries with a streak; the same */
	Entry		entries[FLEXIBLE_ARRAY_MEMBER];
	/* after them: a hash for each, 0 where it is free */
} CountState;

typedef enum NoteKind
{
	NOTE_FAILURE,
	NOTE_SUCCESS,
	NOTE_FORGET
} NoteKind;

typedef struct Note
{
	int			nest_level;
	NoteKind	kind;
	int			subject;		/* in subjects */
	int64		job_id;
	int32		claim_no;
} Note;

/* What notes are about. */
typedef struct Subject
{
	uint32		hash;			/* 0: not wanted so far */
	JqFailureName name;
} Subject;

static CountState *state = NULL;
static uint32 *hashes = NULL;	/* in shared memory */

static JqNotes notes = {0};		/* of Note */
static JqNotes subjects = {0};	/* of Subject */

static void request_memory(void);
static void create_memory(void);
static Size memory_size(void);
static Size entries_size(void);
static void note_end(JqFailureSubject kind, const JqJob *job,
					 const char *stage, bool has_failed);
static bool repeats_success(JqFailureSubject kind, const char *job_type,
							const char *stage);
static Note *note_at(int i);
static Subject *subject_at(int i);
static void add_note(NoteKind kind, int subject, int64 job_id,
					 int32 claim_no);
static void set_name(JqFailureName *name, JqFailureSubject kind,
					 const char *job_type, const char *stage);
static int	find_subject(JqFailureSubject kind, const char *job_type,
						 const char *stage);
static uint32 hash_name(const JqFailureName *name);
static bool must_apply(void);
static void apply_notes(void);
static void apply(const Note *note, TimestampTz now);
static void add_failure(Entry *entry, const JqFailedRun *failure);
static void set_streak(Entry *entry, int32 streak);
static Entry *find_entry(uint32 hash, const JqFailureName *name);
static Entry *make_entry(uint32 hash, const JqFailureName *name);
static void free_entry(int slot);
static void forget_type(const char *job_type);
static void end_transaction(XactEvent event, void *arg);
static void end_subtransaction(SubXactEvent event, SubTransactionId mySubid,
							   SubTransactionId parentSubid, void *arg);

void
jq_failure_counts_init(void)
{
	if (jq_config_max_failure_counts == 0)
		return;
	jq_shared_memory_add(request_memory, create_memory);
	RegisterXactCallback(end_transaction, NULL);
	RegisterSubXactCallback(end_subtransaction, NULL);
}

static Size
entries_size(void)
{
	return MAXALIGN(add_size(offsetof(CountState, entries),
							 mul_size(jq_config_max_failure_counts,
									  sizeof(Entry))));
}

static Size
memory_size(void)
{
	return add_size(entries_size(),
					mul_size(jq_config_max_failure_counts, sizeof(uint32)));
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

	state = ShmemInitStruct("jobqueue failures", memory_size(), &found);
	hashes = (uint32 *) ((char *) state + entries_size());
	if (!found)
	{
		memset(state, 0, memory_size());
		state->lock = &GetNamedLWLockTranche(LOCK_TRANCHE)->lock;
		state->since = GetCurrentTimestamp();
		pg_atomic_init_u64(&state->generation, 1);
		pg_atomic_init_u32(&state->nstreaks, 0);
	}
}

/* ---- notes ---- */

/* What is a failure, and what a success, is as with circuit breakers. */
void
jq_failure_counts_note(const JqJob *job, const JqRun *run)
{
	bool		has_succeeded = strcmp(run->status, "completed") == 0;
	bool		has_failed = !has_succeeded && run->charged &&
	(strcmp(run->status, "failed") == 0 || strcmp(run->status, "expired") == 0);

	if (state == NULL || !jq_config_alerts_enabled ||
		(!has_failed && !has_succeeded) ||
		strncmp(job->job_type, JQ_ALERT_PREFIX, strlen(JQ_ALERT_PREFIX)) == 0 ||
		strlen(job->job_type) >= JQ_FAILURE_NAME_SIZE ||
		strlen(job->stage) >= JQ_FAILURE_NAME_SIZE)
		return;
	note_end(JQ_FAILURES_OF_TYPE, job, "", has_failed);
	if (job->stage[0] != '\0')
		note_end(JQ_FAILURES_OF_STAGE, job, job->stage, has_failed);
}

static void
note_end(JqFailureSubject kind, const JqJob *job, const char *stage,
		 bool has_failed)
{
	if (!has_failed && repeats_success(kind, job->job_type, stage))
		return;
	add_note(has_failed ? NOTE_FAILURE : NOTE_SUCCESS,
			 find_subject(kind, job->job_type, stage), job->id,
			 job->claim_no);
}

/* One success after another changes nothing; looked for near the end. */
static bool
repeats_success(JqFailureSubject kind, const char *job_type,
				const char *stage)
{
	for (int i = notes.count - 1; i >= 0 && i >= notes.count - 2; i--)
	{
		const JqFailureName *name = &subject_at(note_at(i)->subject)->name;

		if (note_at(i)->kind == NOTE_SUCCESS &&
			note_at(i)->nest_level == GetCurrentTransactionNestLevel() &&
			name->subject == kind && strcmp(name->job_type, job_type) == 0 &&
			strcmp(name->stage, stage) == 0)
			return true;
		if (note_at(i)->kind != NOTE_SUCCESS)
			return false;
	}
	return false;
}

void
jq_failure_counts_forget(const char *job_type)
{
	if (state != NULL && strlen(job_type) < JQ_FAILURE_NAME_SIZE)
		add_note(NOTE_FORGET, find_subject(JQ_FAILURES_OF_TYPE, job_type, ""),
				 0, 0);
}

static void
add_note(NoteKind kind, int subject, int64 job_id, int32 claim_no)
{
	Note	   *note = (Note *) jq_notes_add(&notes, sizeof(Note));

	note->nest_level = GetCurrentTransactionNestLevel();
	note->kind = kind;
	note->subject = subject;
	note->job_id = job_id;
	note->claim_no = claim_no;
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
find_subject(JqFailureSubject kind, const char *job_type, const char *stage)
{
	for (int i = subjects.count - 1; i >= 0; i--)
		if (subject_at(i)->name.subject == kind &&
			strcmp(subject_at(i)->name.job_type, job_type) == 0 &&
			strcmp(subject_at(i)->name.stage, stage) == 0)
			return i;
	(void) jq_notes_add(&subjects, sizeof(Subject));
	set_name(&subject_at(subjects.count - 1)->name, kind, job_type, stage);
	return subjects.count - 1;
}

static void
set_name(JqFailureName *name, JqFailureSubject kind, const char *job_type,
		 const char *stage)
{
	memset(name, 0, sizeof(*name));
	name->subject = kind;
	strlcpy(name->job_type, job_type, JQ_FAILURE_NAME_SIZE);
	strlcpy(name->stage, stage, JQ_FAILURE_NAME_SIZE);
}

/* Never 0, which stands for a free entry. */
static uint32
hash_name(const JqFailureName *name)
{
	uint32		hash = hash_combine(murmurhash32((uint32) MyDatabaseId),
									(uint32) name->subject);

	hash = hash_combine(hash, string_hash(name->job_type, JQ_FAILURE_NAME_SIZE));
	hash = hash_combine(hash, string_hash(name->stage, JQ_FAILURE_NAME_SIZE));
	return hash == 0 ? 1 : hash;
}

/* ---- what counts ---- */

static bool
must_apply(void)
{
	if (pg_atomic_read_u32(&state->nstreaks) > 0)
		return notes.count > 0;
	for (int i = 0; i < notes.count; i++)
		if (note_at(i)->kind != NOTE_SUCCESS)
			return true;
	return false;
}

/* After a commit. */
static void
apply_notes(void)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	for (int i = 0; i < notes.count; i++)
		apply(note_at(i), now);
	LWLockRelease(state->lock);
}

/* The lock must be held. */
static void
apply(const Note *note, TimestampTz now)
{
	Subject    *subject = subject_at(note->subject);
	JqFailedRun failure = {now, note->job_id, note->claim_no};
	Entry	   *entry;

	if (subject->hash == 0)
		subject->hash = hash_name(&subject->name);
	switch (note->kind)
	{
		case NOTE_FAILURE:
			entry = make_entry(subject->hash, &subject->name);
			add_failure(entry, &failure);
			break;
		case NOTE_SUCCESS:
			entry = find_entry(subject->hash, &subject->name);
			if (entry != NULL)
			{
				set_streak(entry, 0);
				entry->count.is_sure = true;
			}
			break;
		case NOTE_FORGET:
			forget_type(subject->name.job_type);
			break;
	}
}

/* The lock must be held. */
static void
add_failure(Entry *entry, const JqFailedRun *failure)
{
	JqFailureCount *count = &entry->count;

	if (count->streak == 0)
		count->streak_since = failure->at;
	set_streak(entry, count->streak + (count->streak < PG_INT32_MAX));
	count->last_failure_at = failure->at;
	count->last[count->next] = *failure;
	count->next = (count->next + 1) % JQ_FAILURE_PLACES;
	count->nlast = Min(count->nlast + 1, JQ_FAILURE_PLACES);
	pg_atomic_fetch_add_u64(&state->generation, 1);
}

/* The lock must be held. */
static void
set_streak(Entry *entry, int32 streak)
{
	if (streak > 0 && entry->count.streak == 0)
		pg_atomic_fetch_add_u32(&state->nstreaks, 1);
	if (streak == 0 && entry->count.streak > 0)
		pg_atomic_fetch_sub_u32(&state->nstreaks, 1);
	entry->count.streak = streak;
}

/* The lock must be held. */
static Entry *
find_entry(uint32 hash, const JqFailureName *name)
{
	for (int i = 0; i < jq_config_max_failure_counts; i++)
	{
		Entry	   *entry = &state->entries[i];

		if (hashes[i] == hash && entry->database == MyDatabaseId &&
			entry->count.name.subject == name->subject &&
			strcmp(entry->count.name.job_type, name->job_type) == 0 &&
			strcmp(entry->count.name.stage, name->stage) == 0)
			return entry;
	}
	return NULL;
}

/* Found, or in the place of the one that is oldest.  The lock must be held. */
static Entry *
make_entry(uint32 hash, const JqFailureName *name)
{
	Entry	   *entry = find_entry(hash, name);
	int			oldest = 0;

	if (entry != NULL)
		return entry;
	for (int i = 0; i < jq_config_max_failure_counts; i++)
	{
		if (hashes[i] == 0)
		{
			oldest = i;
			break;
		}
		if (state->entries[i].count.last_failure_at <
			state->entries[oldest].count.last_failure_at)
			oldest = i;
	}
	if (hashes[oldest] != 0)
		free_entry(oldest);
	entry = &state->entries[oldest];
	memset(entry, 0, sizeof(*entry));
	entry->database = MyDatabaseId;
	entry->count.name = *name;
	hashes[oldest] = hash;
	return entry;
}

/* The lock must be held. */
static void
free_entry(int slot)
{
	set_streak(&state->entries[slot], 0);
	hashes[slot] = 0;
}

/* The lock must be held. */
static void
forget_type(const char *job_type)
{
	for (int i = 0; i < jq_config_max_failure_counts; i++)
	{
		const Entry *entry = &state->entries[i];

		if (hashes[i] != 0 && entry->database == MyDatabaseId &&
			strcmp(entry->count.name.job_type, job_type) == 0)
			free_entry(i);
	}
}

/* ---- what others tell and ask ---- */

void
jq_failure_counts_restore(const JqFailureName *name, int32 streak,
						  TimestampTz since)
{
	uint32		hash = hash_name(name);
	Entry	   *entry;

	if (state == NULL)
		return;
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	entry = make_entry(hash, name);
	if (!entry->count.is_sure)
	{
		entry->count.is_sure = true;
		entry->count.streak_since = since;
		if (entry->count.last_failure_at == 0)
			entry->count.last_failure_at = state->since;
		set_streak(entry, entry->count.streak + streak);
	}
	LWLockRelease(state->lock);
}

uint64
jq_failure_counts_generation(void)
{
	return state == NULL ? 0 : pg_atomic_read_u64(&state->generation);
}

TimestampTz
jq_failure_counts_since(void)
{
	return state == NULL ? DT_NOEND : state->since;
}

int
jq_failure_counts_list(JqFailureCount **counts)
{
	int			count = 0;

	*counts = NULL;
	if (state == NULL)
		return 0;
	*counts = palloc_extended(sizeof(JqFailureCount) *
							  jq_config_max_failure_counts, MCXT_ALLOC_HUGE);
	LWLockAcquire(state->lock, LW_SHARED);
	for (int i = 0; i < jq_config_max_failure_counts; i++)
	{
		const Entry *entry = &state->entries[i];

		if (hashes[i] != 0 && entry->database == MyDatabaseId)
			(*counts)[count++] = entry->count;
	}
	LWLockRelease(state->lock);
	return count;
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
