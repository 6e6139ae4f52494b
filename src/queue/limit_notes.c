/*-------------------------------------------------------------------------
 *
 * limit_notes.c
 *	  What this transaction does at limits, and what its end makes of it.
 *
 * What a transaction has reserved and what it will free is noted in this
 * backend, with the nesting level; callbacks settle it when the transaction
 * ends, and take the lock for that.  They allocate nothing and cannot fail.
 * They find places by job, not by what they remember of them: so it does no
 * harm when a place has been forgotten meanwhile, and counted anew.
 *
 * A claim in the transaction that ends another one may be given the place of
 * that one: the place is "lent", and goes back if only the claim is undone.
 *
 * That this backend is in a claim ends in the same way.  It stands in a flag of
 * its process, which needs no lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "queue/groups.h"
#include "queue/limit_memory.h"
#include "queue/limit_notes.h"
#include "queue/limit_places.h"
#include "queue/limits.h"

#define USUAL_NOTES 64

static JqLimitNote *notes = NULL;
static int	nnotes = 0;
static int	max_notes = 0;
static int	nclaims = 0;		/* within each other, by a user's trigger */
static int	claim_level;		/* where the first of them began */

static void stop_claiming(void);
static bool lends(const JqLimitNote *note, int type, int group);
static bool is_counted(const JqLimitNote *note, bool of_group);
static void undo(const JqLimitNote *note);
static void commit(bool is_prepared);
static void free_place(const JqLimitNote *note, JqLimitWakes *wakes);
static void count_lenders(const JqLimitNote *note);
static void abort_from(int nest_level);
static void end_transaction(XactEvent event, void *arg);
static void end_subtransaction(SubXactEvent event, SubTransactionId mySubid,
							   SubTransactionId parentSubid, void *arg);

void
jq_limits_init(void)
{
	RegisterXactCallback(end_transaction, NULL);
	RegisterSubXactCallback(end_subtransaction, NULL);
}

/* ---- claims under way ---- */

void
jq_limits_begin_claim(void)
{
	JqClaimFlag *flag;

	if (jq_limit_memory == NULL || nclaims++ > 0)
		return;
	claim_level = GetCurrentTransactionNestLevel();
	flag = &jq_limit_memory->flags[jq_compat_my_process()];
	flag->of.database = MyDatabaseId;
	pg_atomic_fetch_add_u64(&flag->of.number, 1);
	/* What changed before whoever counts saw this flag is known from here on. */
	AcceptInvalidationMessages();
}

void
jq_limits_end_claim(void)
{
	if (nclaims == 1)
		stop_claiming();
	else if (nclaims > 1)
		nclaims--;
}

static void
stop_claiming(void)
{
	if (nclaims == 0)
		return;
	nclaims = 0;
	pg_atomic_fetch_add_u64(&jq_limit_memory->flags[jq_compat_my_process()].of.number, 1);
}

/* ---- notes ---- */

JqLimitNote *
jq_limit_notes_add(void)
{
	JqLimitNote *note;

	if (nnotes == max_notes)
	{
		int			room = Max(max_notes * 2, USUAL_NOTES);

		notes = notes == NULL ?
			MemoryContextAlloc(TopMemoryContext, sizeof(JqLimitNote) * room) :
			repalloc_huge(notes, sizeof(JqLimitNote) * room);
		max_notes = room;
	}
	note = &notes[nnotes++];
	memset(note, 0, sizeof(*note));
	note->nest_level = GetCurrentTransactionNestLevel();
	note->group = JQ_NO_GROUP;
	return note;
}

void
jq_limit_notes_drop(void)
{
	nnotes--;
}

void
jq_limits_note_end(const JqJob *job, bool will_retry)
{
	JqLimitNote *note;
	const JqPlace *place;
	bool		keeps_group;

	if (!jq_limit_memory_is_used())
		return;
	keeps_group = will_retry && job->group_key != NULL &&
		(jq_limits_counts(&jq_job_type(job->job_type)->limits) &
		 JQ_COUNTS_RETRIES) != 0;
	note = jq_limit_notes_add();
	note->is_end = true;
	note->keeps_group = keeps_group;
	note->job_id = job->id;
	note->claim_no = job->claim_no;
	jq_limit_lock();
	place = jq_limit_find_place(job->id);
	if (place == NULL || place->claim_no != job->claim_no)
		nnotes--;
	else
	{
		note->type = place->type;
		note->group = place->group;
	}
	jq_limit_unlock();
}

/* A user's trigger may have ended other claims since. */
void
jq_limits_unreserve(int64 job_id)
{
	int			number = nnotes - 1;

	while (number >= 0 && (notes[number].is_end ||
						   notes[number].job_id != job_id))
		number--;
	if (number < 0)
		return;
	jq_limit_lock();
	undo(&notes[number]);
	jq_limit_unlock();
	nnotes--;
	memmove(&notes[number], &notes[number + 1],
			sizeof(JqLimitNote) * (nnotes - number));
}

/* Gives back what a claim has taken. */
static void
undo(const JqLimitNote *note)
{
	JqLimitedType *entry = &jq_limit_memory->types[note->type];
	JqPlace    *place = jq_limit_find_place(note->job_id);
	JqPlace    *lender;
	JqGroup    *group = note->group == JQ_NO_GROUP ? NULL :
	jq_limit_group(note->group);

	if (group != NULL && group->generation != note->group_generation)
		group = NULL;
	if (entry->database != MyDatabaseId)
		return;
	if (note->has_rate)
		jq_rate_give_back(&entry->rate.log, &entry->limits.rate, note->at);
	if (note->has_group_rate && group != NULL)
		jq_rate_give_back(&group->rate.log, &entry->limits.group_rate, note->at);
	if (place != NULL && place->claim_no == note->claim_no)
	{
		lender = note->type_lender == 0 ? NULL :
			jq_limit_find_place(note->type_lender);
		if (lender != NULL && place->counts_type && !lender->counts_type)
		{
			lender->counts_type = true;
			place->counts_type = false;
		}
		lender = note->group_lender == 0 ? NULL :
			jq_limit_find_place(note->group_lender);
		if (lender != NULL && place->counts_group && !lender->counts_group)
		{
			lender->counts_group = true;
			place->counts_group = false;
		}
		if (!note->had_type)
			jq_limit_places_leave_type(place);
		if (!note->was_kept)
			jq_limit_places_leave_group(place);
		place->claim_no = note->last_claim_no;
		place->is_uncommitted = note->was_uncommitted;
		if (note->last_claim_no == 0)
			jq_limit_places_free(place);
	}
	if (group != NULL && group->generation == note->group_generation)
		jq_groups_settle(group, GetCurrentTimestamp());
}

/* ---- places that this transaction gives up and may fill again ---- */

int
jq_limit_notes_lendable(int type, int group)
{
	int			count = 0;

	for (int i = 0; i < nnotes; i++)
		if (lends(&notes[i], type, group))
			count++;
	return count;
}

JqPlace *
jq_limit_notes_find_lender(int type, int group)
{
	for (int i = 0; i < nnotes; i++)
		if (lends(&notes[i], type, group))
			return jq_limit_find_place(notes[i].job_id);
	return NULL;
}

bool
jq_limit_notes_has_lendable(const JqGroup *group, const JqLimits *limits)
{
	int			lendable = jq_limit_notes_lendable(group->id.type,
												   jq_limit_group_number(group));

	return group->running - lendable < limits->group_concurrency;
}

JqGroup *
jq_limit_notes_freed_group(const JqLimitedType *type, Oid owner,
						   TimestampTz now)
{
	int			number = jq_limit_type_number(type);

	for (int i = 0; i < nnotes; i++)
	{
		JqGroup    *group;
		TimestampTz next_at;

		if (notes[i].group == JQ_NO_GROUP ||
			!lends(&notes[i], number, notes[i].group))
			continue;
		group = jq_limit_group(notes[i].group);
		if (group->has_next && group->state == JQ_GROUP_IDLE &&
			(!OidIsValid(owner) || group->next.owner == owner) &&
			jq_limit_notes_has_lendable(group, &type->limits) &&
			jq_groups_look(group, &type->limits, now, true,
						   &next_at) == JQ_LIMIT_FREE)
			return group;
	}
	return NULL;
}

/* Whether a claim ends here whose place nobody has been lent. */
static bool
lends(const JqLimitNote *note, int type, int group)
{
	return note->is_end && note->type == type &&
		(group == JQ_NO_GROUP ||
		 (note->group == group && !note->keeps_group)) &&
		is_counted(note, group != JQ_NO_GROUP);
}

static bool
is_counted(const JqLimitNote *note, bool of_group)
{
	const JqPlace *place = jq_limit_find_place(note->job_id);

	return place != NULL && place->claim_no == note->claim_no &&
		(of_group ? place->counts_group : place->counts_type);
}

/* ---- the end ---- */

/*
 * A prepared transaction keeps its places until the audit, those that it has
 * lent itself, too: for it may still be undone.
 */
static void
commit(bool is_prepared)
{
	JqLimitWakes wakes;

	wakes.count = 0;
	jq_limit_lock();
	for (int i = 0; i < nnotes; i++)
	{
		JqPlace    *place;

		if (notes[i].is_end)
		{
			if (!is_prepared)
				free_place(&notes[i], &wakes);
			continue;
		}
		place = jq_limit_find_place(notes[i].job_id);
		if (place != NULL && place->claim_no == notes[i].claim_no)
			place->is_uncommitted = false;
		if (is_prepared)
			count_lenders(&notes[i]);
	}
	jq_limit_unlock();
	jq_limit_places_wake(&wakes);
}

static void
free_place(const JqLimitNote *note, JqLimitWakes *wakes)
{
	JqPlace    *place = jq_limit_find_place(note->job_id);
	JqLimitedType *entry;

	if (place == NULL || place->claim_no != note->claim_no)
		return;
	entry = &jq_limit_memory->types[place->type];
	if (note->keeps_group)
		jq_limit_places_leave_type(place);
	else
		jq_limit_places_free(place);
	jq_limit_places_refuse_no_more(entry, wakes);
}

static void
count_lenders(const JqLimitNote *note)
{
	JqPlace    *lender = note->type_lender == 0 ? NULL :
	jq_limit_find_place(note->type_lender);

	if (lender != NULL && !lender->counts_type)
	{
		lender->counts_type = true;
		jq_limit_memory->types[lender->type].running++;
	}
	lender = note->group_lender == 0 ? NULL :
		jq_limit_find_place(note->group_lender);
	if (lender != NULL && !lender->counts_group &&
		lender->group != JQ_NO_GROUP)
	{
		lender->counts_group = true;
		jq_limit_group(lender->group)->running++;
	}
}

/* After the abort of a (sub)transaction at this level, the last note first. */
static void
abort_from(int nest_level)
{
	if (nest_level <= claim_level)
		stop_claiming();
	else
		nclaims = Min(nclaims, 1);	/* those inside of it have failed */
	if (jq_limit_memory == NULL)
		return;
	jq_groups_give_up();
	if (nnotes == 0 || notes[nnotes - 1].nest_level < nest_level)
		return;
	jq_limit_lock();
	while (nnotes > 0 && notes[nnotes - 1].nest_level >= nest_level)
	{
		nnotes--;
		if (!notes[nnotes].is_end)
			undo(&notes[nnotes]);
	}
	jq_limit_unlock();
}

static void
end_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			stop_claiming();
			if (nnotes > 0)
				commit(event == XACT_EVENT_PREPARE);
			break;
		case XACT_EVENT_ABORT:
			abort_from(0);
			break;
		default:
			return;
	}
	nnotes = 0;
	if (max_notes > USUAL_NOTES)
	{
		pfree(notes);
		notes = NULL;
		max_notes = 0;
	}
}

static void
end_subtransaction(SubXactEvent event, SubTransactionId mySubid,
				   SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
		abort_from(level);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (int i = nnotes - 1; i >= 0 && notes[i].nest_level >= level; i--)
			notes[i].nest_level = level - 1;
}
