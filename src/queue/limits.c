/*-------------------------------------------------------------------------
 *
 * limits.c
 *	  How many jobs may run at once, and begin in a window of time.
 *
 * What a transaction has reserved and what it will free is noted in this
 * backend, with the nesting level; callbacks settle it when the transaction
 * ends.  They find places by job, not by what they remember of them: so it
 * does no harm when a place has been forgotten meanwhile, and counted anew.
 *
 * A claim in the transaction that ends another one may be given the place of
 * that one: the place is "lent", and goes back if only the claim is undone.
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
#include "base/endpoint_health.h"
#include "base/shared_state.h"
#include "queue/groups.h"
#include "queue/limit_memory.h"
#include "queue/limits.h"
#include "queue/waiters.h"

#define USUAL_NOTES 64
#define MAX_WAKES 64

/* What this transaction does to a job's place. */
typedef struct LimitNote
{
	bool		is_end;			/* it will be free; else it was taken */
	bool		keeps_group;	/* but not in its group: it will be tried
								 * again */
	bool		was_kept;		/* it was taken so, or given up in this
								 * transaction and taken again */
	bool		had_type;		/* the same of its place in the type */
	bool		was_uncommitted;	/* the claim before it */
	int32		last_claim_no;	/* the same; 0: it had no place */
	int			nest_level;
	int64		job_id;
	int32		claim_no;
	int			type;			/* number of the entry */
	int			group;			/* the same, or JQ_NO_GROUP */
	uint32		group_generation;
	bool		has_rate;
	bool		has_group_rate;
	TimestampTz at;				/* what was taken of the rates */
	int64		type_lender;	/* job whose place in the type it has, or 0 */
	int64		group_lender;	/* the same, in the group */
} LimitNote;

/* Whoever waits for a type of which a place is free now. */
typedef struct Wake
{
	uint32		hash;
	JqRunner	runner;
	Oid			role;
	int			places;
} Wake;

static LimitNote *notes = NULL;
static int	nnotes = 0;
static int	max_notes = 0;
static int	nclaims = 0;		/* within each other, by a user's trigger */
static int	claim_level;		/* where the first of them began */

static void stop_claiming(void);
static LimitNote *add_note(void);
static void know_limits(JqLimitedType *entry, const JqLimits *limits,
						TimestampTz now);
static JqLimitAnswer look_at_type(JqLimitedType *entry, const JqLimits *limits,
								  TimestampTz now, int *available,
								  TimestampTz *next_at);
static int	count_lendable(int type, int group, bool of_group);
static JqLimitAnswer take_place(JqLimitedType *entry, const JqLimits *limits,
								JqGroup *group, const JqJob *job,
								LimitNote *note);
static LimitNote *find_lender(int type, int group, bool of_group);
static bool lends(const LimitNote *note, int type, int group, bool of_group);
static bool is_counted(const LimitNote *note, bool of_group);
static bool has_lendable(const JqGroup *group, const JqLimits *limits);
static bool holds_place(const JqGroup *group, int64 job_id);
static void undo(const LimitNote *note);
static void count_lenders(const LimitNote *note);
static void free_place(const LimitNote *note, Wake *wakes, int *nwakes);
static void leave_place(JqPlace *place);
static void leave_type(JqPlace *place);
static void leave_group(JqPlace *place);
static void drop_place(JqPlace *place);
static void refuse_no_more(JqLimitedType *entry, Wake *wakes, int *nwakes);
static void wake(const Wake *target);
static void commit(bool is_prepared);
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

int
jq_limits_counts(const JqLimits *limits)
{
	return (limits->max_concurrency > 0 ? JQ_COUNTS_TYPE : 0) |
		(limits->group_concurrency > 0 ? JQ_COUNTS_GROUPS : 0) |
		(limits->group_concurrency > 0 && limits->group_strict ?
		 JQ_COUNTS_RETRIES : 0);
}

/* ---- claims ---- */

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

JqLimitAnswer
jq_limits_look(const JqJobType *type, TimestampTz now, int *available,
			   TimestampTz *next_at)
{
	JqLimitAnswer answer;
	JqLimitedType *entry;

	*available = PG_INT32_MAX;
	*next_at = now;
	if (!jq_limits_apply(&type->limits))
		return JQ_LIMIT_FREE;
	if (type->limits.throttled_until > now)
	{
		*next_at = type->limits.throttled_until;
		return JQ_LIMIT_LATER;
	}
	if (jq_limit_memory == NULL)
		return JQ_LIMIT_NO_MEMORY;
	jq_limit_lock();
	entry = jq_limit_make_type(type->name, now);
	answer = entry == NULL ? JQ_LIMIT_NO_MEMORY :
		look_at_type(entry, &type->limits, now, available, next_at);
	if (entry != NULL)
	{
		know_limits(entry, &type->limits, now);
		entry->runner = type->runner;
		entry->role = type->command != NULL ? type->owner : InvalidOid;
	}
	jq_limit_unlock();
	return answer;
}

/* Groups that the older limits made wait may have their turn now. */
static void
know_limits(JqLimitedType *entry, const JqLimits *limits, TimestampTz now)
{
	JqLimits	older = entry->limits;

	entry->limits = *limits;
	if (entry->ngroups > 0 &&
		(older.group_concurrency != limits->group_concurrency ||
		 older.group_rate.max != limits->group_rate.max ||
		 older.group_rate.window_us != limits->group_rate.window_us))
		jq_groups_settle_all(entry, now);
}

static JqLimitAnswer
look_at_type(JqLimitedType *entry, const JqLimits *limits, TimestampTz now,
			 int *available, TimestampTz *next_at)
{
	entry->used_at = now;
	if (entry->counts != jq_limits_counts(limits) ||
		entry->counting_pid != 0 ||
		(!entry->has_rates && (limits->rate.max > 0 ||
							   limits->group_rate.max > 0)))
		return JQ_LIMIT_UNCOUNTED;
	if (entry->not_before > now)
	{
		*next_at = entry->not_before;
		return JQ_LIMIT_LATER;
	}
	*available = jq_rate_available(&entry->rate.log, &limits->rate,
								   jq_rate_now(&entry->rate.log, now), next_at);
	if (*available == 0)
		return JQ_LIMIT_LATER;
	if (limits->max_concurrency > 0)
	{
		int			places = limits->max_concurrency - entry->running +
		count_lendable(jq_limit_type_number(entry), JQ_NO_GROUP, false);

		*available = Min(*available, places);
		if (places <= 0)
		{
			entry->was_refused = true;
			return JQ_LIMIT_FULL;
		}
	}
	return JQ_LIMIT_FREE;
}

/* Places that this transaction gives up and may fill again. */
static int
count_lendable(int type, int group, bool of_group)
{
	int			count = 0;

	for (int i = 0; i < nnotes; i++)
		if (lends(&notes[i], type, group, of_group))
			count++;
	return count;
}

/* Whether a claim ends here whose place nobody has been lent. */
static bool
lends(const LimitNote *note, int type, int group, bool of_group)
{
	return note->is_end && note->type == type &&
		(!of_group || (note->group == group && !note->keeps_group)) &&
		is_counted(note, of_group);
}

static bool
is_counted(const LimitNote *note, bool of_group)
{
	const JqPlace *place = jq_limit_find_place(note->job_id);

	return place != NULL && place->claim_no == note->claim_no &&
		(of_group ? place->counts_group : place->counts_type);
}

JqLimitAnswer
jq_limits_reserve(const JqJobType *type, const JqJob *job, TimestampTz *now)
{
	bool		has_groups = job->group_key != NULL &&
	jq_limits_have_groups(&type->limits);
	JqGroup    *group = NULL;
	JqLimitAnswer answer;
	JqLimitedType *entry;
	LimitNote  *note;
	TimestampTz next_at;
	int			available;

	if (jq_limit_memory == NULL)
		return JQ_LIMIT_NO_MEMORY;
	note = add_note();
	/* Nothing from here on may fail. */
	jq_limit_lock();
	entry = jq_limit_find_type(type->name);
	if (entry == NULL)
		answer = jq_limit_make_type(type->name, GetCurrentTimestamp()) == NULL ?
			JQ_LIMIT_NO_MEMORY : JQ_LIMIT_UNCOUNTED;
	else
	{
		note->type = jq_limit_type_number(entry);
		*now = GetCurrentTimestamp();
		answer = look_at_type(entry, &type->limits, *now, &available, &next_at);
		*now = jq_rate_now(&entry->rate.log, *now);
	}
	if (answer == JQ_LIMIT_FREE && has_groups)
	{
		group = jq_limit_find_group(entry, job->group_key, true);
		answer = group == NULL ? JQ_LIMIT_GROUP :
			jq_groups_look(group, &type->limits, *now,
						   holds_place(group, job->id) ||
						   has_lendable(group, &type->limits), &next_at);
	}
	if (answer == JQ_LIMIT_FREE)
		answer = take_place(entry, &type->limits, group, job, note);
	if (answer == JQ_LIMIT_FREE)
	{
		note->has_rate = type->limits.rate.max > 0;
		note->at = *now;
		jq_rate_take(&entry->rate.log, &type->limits.rate, *now);
		if (group != NULL)
		{
			note->has_group_rate = type->limits.group_rate.max > 0;
			jq_rate_take(&group->rate.log, &type->limits.group_rate, *now);
		}
	}
	else
		nnotes--;
	if (group != NULL)
		jq_groups_settle(group, *now);
	jq_limit_unlock();
	return answer;
}

/* Where there is none left, one that this transaction gives up. */
static JqLimitAnswer
take_place(JqLimitedType *entry, const JqLimits *limits, JqGroup *group,
		   const JqJob *job, LimitNote *note)
{
	JqPlace    *place;

	if (group != NULL)
	{
		note->group = jq_limit_group_number(group);
		note->group_generation = group->generation;
	}
	note->job_id = job->id;
	note->claim_no = job->claim_no + 1;
	if (entry->counts == 0)
		return JQ_LIMIT_FREE;
	place = jq_limit_make_place(job->id);
	if (place == NULL)
		return JQ_LIMIT_FULL;
	/* Somebody else claims it, or has since its row was read. */
	if (place->claim_no > job->claim_no)
		return JQ_LIMIT_BUSY;
	/* A retry goes on in the place that it kept, whatever the limit is now. */
	note->last_claim_no = place->claim_no;
	note->was_uncommitted = place->is_uncommitted;
	note->had_type = place->counts_type && place->type == note->type &&
		limits->max_concurrency > 0;
	note->was_kept = place->counts_group && group != NULL &&
		place->group == note->group && limits->group_concurrency > 0;
	if (!note->had_type)
		leave_type(place);
	if (!note->was_kept)
		leave_group(place);
	place->claim_no = note->claim_no;
	place->type = note->type;
	place->group = note->group;
	place->is_uncommitted = true;
	place->taken_at = GetCurrentTimestamp();
	place->counts_type = limits->max_concurrency > 0;
	place->counts_group = group != NULL && limits->group_concurrency > 0;
	if (place->counts_type && !note->had_type &&
		entry->running >= limits->max_concurrency)
	{
		note->type_lender = find_lender(note->type, JQ_NO_GROUP, false)->job_id;
		jq_limit_find_place(note->type_lender)->counts_type = false;
	}
	else if (place->counts_type && !note->had_type)
		entry->running++;
	/* Who was refused before, and not woken since, still waits for it. */
	if (entry->runner == JQ_RUNNER_EXTERNAL && place->counts_type &&
		entry->running >= limits->max_concurrency)
		entry->was_refused = true;
	if (!place->counts_group || note->was_kept)
		return JQ_LIMIT_FREE;
	if (group->running >= limits->group_concurrency)
	{
		note->group_lender = find_lender(note->type, note->group, true)->job_id;
		jq_limit_find_place(note->group_lender)->counts_group = false;
	}
	else
		group->running++;
	return JQ_LIMIT_FREE;
}

static LimitNote *
find_lender(int type, int group, bool of_group)
{
	for (int i = 0; i < nnotes; i++)
		if (lends(&notes[i], type, group, of_group))
			return &notes[i];
	return NULL;
}

/* Whether a group is below its limit without the places that it gives up. */
static bool
has_lendable(const JqGroup *group, const JqLimits *limits)
{
	return group->running - count_lendable(group->id.type,
										   jq_limit_group_number(group), true) <
		limits->group_concurrency;
}

JqGroup *
jq_limits_freed_group(const JqLimitedType *type, Oid owner, TimestampTz now)
{
	int			number = jq_limit_type_number(type);

	for (int i = 0; i < nnotes; i++)
	{
		JqGroup    *group;
		TimestampTz next_at;

		if (notes[i].group == JQ_NO_GROUP ||
			!lends(&notes[i], number, notes[i].group, true))
			continue;
		group = jq_limit_group(notes[i].group);
		if (group->has_next && group->state == JQ_GROUP_IDLE &&
			(!OidIsValid(owner) || group->next.owner == owner) &&
			has_lendable(group, &type->limits) &&
			jq_groups_look(group, &type->limits, now, true,
						   &next_at) == JQ_LIMIT_FREE)
			return group;
	}
	return NULL;
}

static bool
holds_place(const JqGroup *group, int64 job_id)
{
	const JqPlace *place = jq_limit_find_place(job_id);

	return place != NULL && place->counts_group &&
		place->group == jq_limit_group_number(group);
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
			sizeof(LimitNote) * (nnotes - number));
}

/* Gives back what a claim has taken. */
static void
undo(const LimitNote *note)
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
			leave_type(place);
		if (!note->was_kept)
			leave_group(place);
		place->claim_no = note->last_claim_no;
		place->is_uncommitted = note->was_uncommitted;
		if (note->last_claim_no == 0)
			drop_place(place);
	}
	if (group != NULL && group->generation == note->group_generation)
		jq_groups_settle(group, GetCurrentTimestamp());
}

/* What a place counts for is free. */
static void
leave_place(JqPlace *place)
{
	leave_type(place);
	leave_group(place);
}

static void
leave_group(JqPlace *place)
{
	if (place->group != JQ_NO_GROUP && place->counts_group)
	{
		JqGroup    *group = jq_limit_group(place->group);

		group->running--;
		place->counts_group = false;
		jq_groups_settle(group, GetCurrentTimestamp());
	}
}

static void
leave_type(JqPlace *place)
{
	if (place->counts_type)
		jq_limit_memory->types[place->type].running--;
	place->counts_type = false;
}

static void
drop_place(JqPlace *place)
{
	leave_place(place);
	jq_limit_drop_place(place);
}

/* ---- ends of claims ---- */

void
jq_limits_note_end(const JqJob *job, bool will_retry)
{
	LimitNote  *note;
	const JqPlace *place;
	bool		keeps_group;

	if (!jq_limit_memory_is_used())
		return;
	keeps_group = will_retry && job->group_key != NULL &&
		(jq_limits_counts(&jq_job_type(job->job_type)->limits) &
		 JQ_COUNTS_RETRIES) != 0;
	note = add_note();
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

bool
jq_limits_forget(const JqJobType *type)
{
	JqLimitedType *entry;
	bool		had_groups = false;

	if (!jq_limit_memory_is_used())
		return false;
	jq_limit_lock();
	entry = jq_limit_find_type(type->name);
	if (entry != NULL && !jq_limits_have_groups(&type->limits) &&
		entry->ngroups > 0)
	{
		had_groups = true;
		jq_limit_forget_places(entry);
		jq_limit_drop_groups(entry);
	}
	else if (entry != NULL && entry->counts != 0 &&
			 jq_limits_counts(&type->limits) == 0)
	{
		jq_limit_forget_places(entry);
		entry->limits = type->limits;
		jq_groups_settle_all(entry, GetCurrentTimestamp());
	}
	jq_limit_unlock();
	return had_groups;
}

int
jq_limits_list(JqLimitCount **counts)
{
	TimestampTz now = GetCurrentTimestamp();
	int			count = 0;

	if (!jq_limit_memory_is_used())
		return 0;
	*counts = palloc(sizeof(JqLimitCount) * JQ_LIMITED_TYPES);
	jq_limit_lock();
	for (int i = 0; i < JQ_LIMITED_TYPES; i++)
	{
		JqLimitedType *entry = &jq_limit_memory->types[i];
		JqLimitCount *info = &(*counts)[count];

		if (entry->database != MyDatabaseId)
			continue;
		strlcpy(info->job_type, entry->name, sizeof(info->job_type));
		info->is_counted = entry->counts != 0;
		info->running = entry->running;
		info->has_rate = entry->limits.rate.max > 0;
		info->available = jq_rate_available(&entry->rate.log,
											&entry->limits.rate,
											jq_rate_now(&entry->rate.log, now),
											&info->next_at);
		info->groups = entry->ngroups;
		info->ready_groups = entry->nready;
		count++;
	}
	jq_limit_unlock();
	return count;
}

/* It is compared again when others have had their turn. */
void
jq_limits_seen(const JqPlace *place)
{
	JqPlace    *there;

	jq_limit_lock();
	there = jq_limit_find_place(place->id.job_id);
	if (there != NULL && there->claim_no == place->claim_no)
		there->taken_at = GetCurrentTimestamp();
	jq_limit_unlock();
}

void
jq_limits_lost(const JqPlace *place)
{
	JqPlace    *there;

	jq_limit_lock();
	there = jq_limit_find_place(place->id.job_id);
	if (there != NULL && there->claim_no == place->claim_no &&
		!there->is_uncommitted)
		drop_place(there);
	jq_limit_unlock();
}

static LimitNote *
add_note(void)
{
	LimitNote  *note;

	if (nnotes == max_notes)
	{
		int			room = Max(max_notes * 2, USUAL_NOTES);

		notes = notes == NULL ?
			MemoryContextAlloc(TopMemoryContext, sizeof(LimitNote) * room) :
			repalloc_huge(notes, sizeof(LimitNote) * room);
		max_notes = room;
	}
	note = &notes[nnotes++];
	memset(note, 0, sizeof(*note));
	note->nest_level = GetCurrentTransactionNestLevel();
	note->group = JQ_NO_GROUP;
	return note;
}

/* ---- the end ---- */

/*
 * A prepared transaction keeps its places until the audit, those that it has
 * lent itself, too: for it may still be undone.
 */
static void
commit(bool is_prepared)
{
	Wake		wakes[MAX_WAKES];
	int			nwakes = 0;

	jq_limit_lock();
	for (int i = 0; i < nnotes; i++)
	{
		JqPlace    *place;

		if (notes[i].is_end)
		{
			if (!is_prepared)
				free_place(&notes[i], wakes, &nwakes);
			continue;
		}
		place = jq_limit_find_place(notes[i].job_id);
		if (place != NULL && place->claim_no == notes[i].claim_no)
			place->is_uncommitted = false;
		if (is_prepared)
			count_lenders(&notes[i]);
	}
	jq_limit_unlock();
	for (int i = 0; i < nwakes; i++)
		wake(&wakes[i]);
}

static void
count_lenders(const LimitNote *note)
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

static void
free_place(const LimitNote *note, Wake *wakes, int *nwakes)
{
	JqPlace    *place = jq_limit_find_place(note->job_id);
	JqLimitedType *entry;

	if (place == NULL || place->claim_no != note->claim_no)
		return;
	entry = &jq_limit_memory->types[place->type];
	if (note->keeps_group)
		leave_type(place);
	else
		drop_place(place);
	refuse_no_more(entry, wakes, nwakes);
}

static void
refuse_no_more(JqLimitedType *entry, Wake *wakes, int *nwakes)
{
	bool		must_wake = entry->was_refused || entry->nready > 0;

	/* Whoever was refused and not woken needs the next one that ends. */
	if (entry->running == 0)
		entry->was_refused = false;
	if (!must_wake)
		return;
	for (int i = 0; i < *nwakes; i++)
		if (wakes[i].hash == entry->hash && wakes[i].runner == entry->runner &&
			wakes[i].role == entry->role)
		{
			wakes[i].places++;
			return;
		}
	if (*nwakes == MAX_WAKES)
		return;
	wakes[*nwakes].hash = entry->hash;
	wakes[*nwakes].runner = entry->runner;
	wakes[*nwakes].role = entry->role;
	wakes[*nwakes].places = 1;
	(*nwakes)++;
}

static void
wake(const Wake *target)
{
	TimestampTz now = GetCurrentTimestamp();

	if (target->runner == JQ_RUNNER_EXTERNAL)
		for (int i = 0; i < Min(target->places, MAX_WAKES); i++)
			jq_waiters_wake(target->hash, now, now);
	else if (target->runner == JQ_RUNNER_SQL && OidIsValid(target->role) &&
			 jq_shared_wake_executors(MyDatabaseId, target->role,
									  target->places) > 0)
		return;
	else if (target->runner == JQ_RUNNER_HTTP &&
			 jq_shared_wake_dispatchers(MyDatabaseId) >= jq_health_max_dispatchers())
		return;
	else
		jq_shared_wake_scheduler(MyDatabaseId);
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
