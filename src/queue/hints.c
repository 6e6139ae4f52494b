/*-------------------------------------------------------------------------
 *
 * hints.c
 *	  What a transaction has to tell the lanes when it ends.
 *
 * Notes are kept in one array of this backend, with the nesting level of the
 * (sub)transaction that made them.  A transaction that makes very many jobs
 * ready notes the first of them one by one, and of the rest only where in
 * each lane they begin.
 *
 * The callback of a commit runs when the transaction is visible to every
 * later snapshot, and before its locks are released.  It cannot fail.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/config.h"
#include "base/compat.h"
#include "base/endpoint_health.h"
#include "base/scope.h"
#include "base/shared_state.h"
#include "queue/event_log.h"
#include "queue/hints.h"
#include "queue/job_types.h"
#include "queue/metrics.h"
#include "queue/waiters.h"

PG_FUNCTION_INFO_V1(jobqueue_hint_job);

#define MAX_READY 128			/* jobs noted one by one */
#define MAX_REWINDS 64			/* lanes noted as a whole */
#define MAX_TAKEN 10000
#define USUAL_NOTES 256			/* room kept between transactions */

typedef enum NoteKind
{
	NOTE_DROPPED,
	NOTE_READY,					/* offered at commit */
	NOTE_REWIND,				/* the lane is read again from here, at commit */
	NOTE_TAKEN,					/* offered at abort */
	NOTE_SKIPPED,				/* the same, or earlier */
	NOTE_READ					/* the lane is read again from here, at abort */
} NoteKind;

typedef struct Note
{
	NoteKind	kind;
	int			nest_level;
	int			jobs;			/* of a rewind */
	JqLaneRef	lane;
	uint64		epoch;
	JqCandidate candidate;
	uint32		type_hash;
	Oid			role;			/* that runs it in the server, or InvalidOid */
	bool		runs_in_server;
	bool		is_http;
	bool		is_announced;	/* by a NOTIFY of the scheduler */
} Note;

/* The lane that was noted last: the next job is probably of the same. */
typedef struct LastLane
{
	bool		is_valid;
	uint64		generation;
	JqLaneName	name;
	JqLaneRef	ref;
} LastLane;

static Note *notes = NULL;
static int	nnotes = 0;
static int	max_notes = 0;
static int	nready = 0;
static int	nrewinds = 0;
static int	ntaken = 0;
static TimestampTz first_due = DT_NOEND;	/* of what was made ready */
static bool forget_at_commit = false;	/* more than could be noted */
static bool forget_at_abort = false;
static LastLane last_lane;

static bool is_new_job(TriggerData *trigger);
static bool is_queued(TupleTableSlot *row);
static bool read_row(TupleTableSlot *row, JqLaneName *name,
					 JqCandidate *candidate);
static void set_type(Note *note, const JqJobType *type);
static JqLaneRef find_lane(const JqLaneName *name);
static void note_ready(const Note *note);
static Note *add_note(void);
static Note *find_rewind(JqLaneRef lane);
static void publish(void);
static void offer(const Note *note, TimestampTz now);
static void offer_now(const Note *note);
static void read_again(const Note *note);
static void wake(const Note *note, TimestampTz now);
static int	first_of_level(int nest_level);
static void give_back(int nest_level);
static void forget_all(void);
static void end_transaction(XactEvent event, void *arg);
static void end_subtransaction(SubXactEvent event, SubTransactionId mySubid,
							   SubTransactionId parentSubid, void *arg);

void
jq_hints_init(void)
{
	RegisterXactCallback(end_transaction, NULL);
	RegisterSubXactCallback(end_subtransaction, NULL);
}

/* AFTER INSERT OR UPDATE ON jobs_queue_live FOR EACH ROW, always */
Datum
jobqueue_hint_job(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != jq_catalog()->jobs_queue_live)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"_hint_job\" must be called as the trigger of jobs_queue_live")));
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		jq_metrics_row(trigger->tg_trigslot, trigger->tg_newslot);
	else
		jq_metrics_row(NULL, trigger->tg_trigslot);
	if (jq_event_log_has_all() && is_new_job(trigger))
		jq_event_log_enqueued(trigger->tg_trigslot);
	jq_hints_note(trigger->tg_relation,
				  TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
				  trigger->tg_newslot : trigger->tg_trigslot);
	return PointerGetDatum(NULL);
}

/* Not one that starts over, is replicated, or is restored with its claims. */
static bool
is_new_job(TriggerData *trigger)
{
	bool		isnull;

	return TRIGGER_FIRED_BY_INSERT(trigger->tg_event) &&
		jq_scope_write_mode() != JQ_WRITE_ENGINE &&
		SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA &&
		DatumGetInt32(slot_getattr(trigger->tg_trigslot, JQ_JOB_CLAIM_NO,
								   &isnull)) == 0;
}

/* ---- what was made ready ---- */

void
jq_hints_note(Relation live, TupleTableSlot *row)
{
	Note		note = {.kind = NOTE_READY};
	const JqJobType *type;
	JqLaneName	name;
	bool		has_lanes;

	if (!jq_shared_is_attached() || !is_queued(row))
		return;
	has_lanes = jq_lanes_join(RelationGetRelid(live),
							  jq_compat_file_number(live));
	if (!read_row(row, &name, &note.candidate))
	{
		jq_lanes_set_overflowed(true);
		return;
	}
	type = jq_job_type(name.job_type);
	set_type(&note, type);
	note.is_announced = type->notify;
	note.lane.slot = -1;
	if (has_lanes)
	{
		note.epoch = jq_lanes_epoch();
		note.lane = find_lane(&name);
	}
	note_ready(&note);
}

/* False: the lane's name is too long. */
static bool
read_row(TupleTableSlot *row, JqLaneName *name, JqCandidate *candidate)
{
	bool		isnull;
	Datum		owner = slot_getattr(row, JQ_JOB_OWNER, &isnull);

	candidate->owner = isnull ? InvalidOid : DatumGetObjectId(owner);
	candidate->key.scheduled_at =
		DatumGetTimestampTz(slot_getattr(row, JQ_JOB_SCHEDULED_AT, &isnull));
	candidate->key.id = DatumGetInt64(slot_getattr(row, JQ_JOB_ID, &isnull));
	candidate->tid = row->tts_tid;
	candidate->is_passed = false;
	candidate->parked_until = 0;
	return jq_lane_set_name(name, slot_getattr(row, JQ_JOB_JOB_TYPE, &isnull),
							slot_getattr(row, JQ_JOB_STAGE, &isnull),
							slot_getattr(row, JQ_JOB_PRIORITY, &isnull),
							candidate->owner);
}

/* Who is to be woken for the job. */
static void
set_type(Note *note, const JqJobType *type)
{
	note->type_hash = jq_waiters_hash(type->name);
	note->runs_in_server = type->runner == JQ_RUNNER_SQL;
	note->is_http = type->runner == JQ_RUNNER_HTTP;
	note->role = type->command != NULL ? type->owner : note->candidate.owner;
}

static bool
is_queued(TupleTableSlot *row)
{
	static const char queued[] = "queued";
	bool		isnull;
	Datum		status = slot_getattr(row, JQ_JOB_STATUS, &isnull);
	struct varlena *value = (struct varlena *) DatumGetPointer(status);

	return !isnull && VARSIZE_ANY_EXHDR(value) == sizeof(queued) - 1 &&
		memcmp(VARDATA_ANY(value), queued, sizeof(queued) - 1) == 0;
}

/* A lane that does not exist yet is made: somebody will look for it. */
static JqLaneRef
find_lane(const JqLaneName *name)
{
	if (last_lane.is_valid &&
		last_lane.generation == jq_lanes_generation() &&
		last_lane.name.priority == name->priority &&
		last_lane.name.owner == name->owner &&
		strcmp(last_lane.name.stage, name->stage) == 0 &&
		strcmp(last_lane.name.job_type, name->job_type) == 0)
		return last_lane.ref;
	last_lane.ref = jq_lanes_get(name, true);
	last_lane.generation = jq_lanes_generation();
	last_lane.name = *name;
	last_lane.is_valid = last_lane.ref.slot >= 0;
	if (!last_lane.is_valid)
		jq_lanes_set_overflowed(true);
	return last_lane.ref;
}

/* One by one while there are few of them, else by lane. */
static void
note_ready(const Note *note)
{
	Note	   *rewind;

	first_due = Min(first_due, note->candidate.key.scheduled_at);
	if (nready < MAX_READY)
	{
		*add_note() = *note;
		notes[nnotes - 1].nest_level = GetCurrentTransactionNestLevel();
		nready++;
		return;
	}
	rewind = find_rewind(note->lane);
	if (rewind != NULL)
	{
		if (jq_lane_compare_keys(&note->candidate.key,
								 &rewind->candidate.key) < 0)
			rewind->candidate.key = note->candidate.key;
		rewind->jobs++;
	}
	else if (nrewinds < MAX_REWINDS)
	{
		*add_note() = *note;
		notes[nnotes - 1].kind = NOTE_REWIND;
		notes[nnotes - 1].jobs = 1;
		nrewinds++;
	}
	else
		forget_at_commit = true;
}

static Note *
find_rewind(JqLaneRef lane)
{
	for (int i = nnotes - 1; i >= 0; i--)
		if (notes[i].kind == NOTE_REWIND && notes[i].lane.slot == lane.slot &&
			notes[i].lane.generation == lane.generation)
			return &notes[i];
	return NULL;
}

static Note *
add_note(void)
{
	jq_hints_reserve(1);
	return &notes[nnotes++];
}

void
jq_hints_reserve(int count)
{
	if (nnotes + count <= max_notes)
		return;
	if (notes == NULL)
	{
		notes = MemoryContextAlloc(TopMemoryContext,
								   sizeof(Note) * Max(count, USUAL_NOTES));
		max_notes = Max(count, USUAL_NOTES);
	}
	else
	{
		notes = repalloc_huge(notes, sizeof(Note) * (max_notes + Max(count, max_notes)));
		max_notes += Max(count, max_notes);
	}
}

bool
jq_hints_are_pending(TimestampTz now)
{
	return first_due <= now;
}

/* ---- what was taken ---- */

int
jq_hints_count(void)
{
	return nnotes;
}

int
jq_hints_took(JqLaneRef ref, const JqCandidate *candidate,
			  const JqJobType *type)
{
	Note	   *note = &notes[nnotes++];

	Assert(nnotes <= max_notes);
	memset(note, 0, sizeof(*note));
	note->kind = NOTE_TAKEN;
	note->nest_level = GetCurrentTransactionNestLevel();
	note->lane = ref;
	note->epoch = jq_lanes_epoch();
	note->candidate = *candidate;
	note->candidate.is_passed = false;
	note->candidate.parked_until = 0;
	set_type(note, type);
	return nnotes - 1;
}

void
jq_hints_took_row(TupleTableSlot *row)
{
	JqLaneName	name;
	JqCandidate candidate;
	JqLaneRef	lane;

	if (!jq_lanes_are_joined() || !read_row(row, &name, &candidate))
		return;
	lane = jq_lanes_get(&name, false);
	if (lane.slot < 0)
		return;
	if (++ntaken > MAX_TAKEN)
	{
		forget_at_abort = true;
		return;
	}
	jq_hints_reserve(1);
	(void) jq_hints_took(lane, &candidate, jq_job_type(name.job_type));
}

void
jq_hints_read(JqLaneRef ref, JqLaneKey from)
{
	Note	   *note;

	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return;					/* it has written nothing */
	note = add_note();
	memset(note, 0, sizeof(*note));
	note->kind = NOTE_READ;
	note->nest_level = GetCurrentTransactionNestLevel();
	note->lane = ref;
	note->candidate.key = from;
}

void
jq_hints_drop(int number)
{
	notes[number].kind = NOTE_DROPPED;
}

void
jq_hints_skip(int number, uint32 parked_until, bool is_passed)
{
	notes[number].kind = NOTE_SKIPPED;
	notes[number].candidate.is_passed = is_passed;
	notes[number].candidate.parked_until = parked_until;
}

/*
 * Offers what was skipped, and closes the gaps.  A transaction that takes
 * very many jobs does not note them all: if it aborts, everything is read
 * again.
 */
void
jq_hints_end_taking(int first)
{
	int			kept = first;

	for (int i = first; i < nnotes; i++)
	{
		Note	   *note = &notes[i];

		if (note->kind == NOTE_SKIPPED)
			(void) jq_lane_offer(note->lane, note->epoch, &note->candidate,
								 false);
		if (note->kind == NOTE_SKIPPED || note->kind == NOTE_DROPPED)
			continue;
		if (note->kind == NOTE_TAKEN && ++ntaken > MAX_TAKEN)
		{
			forget_at_abort = true;
			continue;
		}
		notes[kept++] = *note;
	}
	nnotes = kept;
}

/* ---- the end ---- */

/* After a commit. */
static void
publish(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (forget_at_commit)
	{
		jq_lanes_forget();
		jq_waiters_wake_all();
		jq_shared_wake_scheduler(MyDatabaseId);
	}
	for (int i = 0; i < nnotes; i++)
	{
		if (notes[i].kind == NOTE_READY)
			offer(&notes[i], now);
		else if (notes[i].kind == NOTE_REWIND)
		{
			read_again(&notes[i]);
			for (int n = 0; n < Min(notes[i].jobs, MaxBackends); n++)
				wake(&notes[i], now);
		}
	}
}

static void
offer(const Note *note, TimestampTz now)
{
	offer_now(note);
	wake(note, now);
}

static void
read_again(const Note *note)
{
	if (note->lane.slot >= 0 &&
		!jq_lane_rewind(note->lane, note->candidate.key))
		jq_lanes_forget();
}

/*
 * Where the lane has been evicted, another of that name may have been made
 * and read meanwhile.
 */
static void
offer_now(const Note *note)
{
	if (note->lane.slot >= 0 &&
		!jq_lane_offer(note->lane, note->epoch, &note->candidate,
					   note->kind == NOTE_READY))
		jq_lanes_forget();
}

static void
wake(const Note *note, TimestampTz now)
{
	TimestampTz scheduled_at = note->candidate.key.scheduled_at;

	jq_waiters_wake(note->type_hash, scheduled_at, now);
	if (note->runs_in_server && scheduled_at <= now &&
		jq_shared_wake_executors(MyDatabaseId, note->role, 1) > 0)
		return;
	if (note->is_http && !note->is_announced &&
		jq_shared_wake_dispatchers(MyDatabaseId) >= jq_health_max_dispatchers())
		return;
	if (note->runs_in_server || note->is_http || note->is_announced)
		jq_shared_wake_scheduler(MyDatabaseId);
}

/*
 * Where the notes of this level and those within it begin.  Those that say to
 * read a lane again belong to no level.
 */
static int
first_of_level(int nest_level)
{
	int			first = nnotes;

	while (first > 0 && (notes[first - 1].kind == NOTE_REWIND ||
						 notes[first - 1].nest_level >= nest_level))
		first--;
	return first;
}

/*
 * After the abort of a (sub)transaction at this level: what it took is ready
 * again, what it made ready never was.
 */
static void
give_back(int nest_level)
{
	TimestampTz now = GetCurrentTimestamp();
	int			first = first_of_level(nest_level);
	int			kept = first;

	jq_lane_give_up();
	jq_lanes_give_up();
	if (forget_at_abort)
		jq_lanes_forget();
	for (int i = first; i < nnotes; i++)
	{
		Note	   *note = &notes[i];

		if (note->kind == NOTE_REWIND)
		{
			notes[kept++] = *note;
			continue;
		}
		if (note->kind == NOTE_TAKEN || note->kind == NOTE_SKIPPED)
		{
			offer(note, now);
			ntaken = Max(ntaken - 1, 0);
		}
		else if (note->kind == NOTE_READ)
			read_again(note);
		else if (note->kind == NOTE_READY)
			nready--;
	}
	nnotes = kept;
}

static void
forget_all(void)
{
	if (max_notes > USUAL_NOTES)
	{
		pfree(notes);
		notes = NULL;
		max_notes = 0;
	}
	nnotes = 0;
	nready = 0;
	nrewinds = 0;
	ntaken = 0;
	first_due = DT_NOEND;
	forget_at_commit = false;
	forget_at_abort = false;
}

static void
end_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (nnotes > 0 || forget_at_commit)
				publish();
			break;
		case XACT_EVENT_ABORT:
			give_back(0);
			break;
		case XACT_EVENT_PREPARE:
			for (int i = 0; i < nnotes; i++)
			{
				if (notes[i].kind == NOTE_READ)
					read_again(&notes[i]);
				else if (notes[i].kind != NOTE_REWIND)
					offer_now(&notes[i]);
			}
			break;
		default:
			return;
	}
	forget_all();
}

static void
end_subtransaction(SubXactEvent event, SubTransactionId mySubid,
				   SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
		give_back(level);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (int i = first_of_level(level); i < nnotes; i++)
			notes[i].nest_level = level - 1;
}
