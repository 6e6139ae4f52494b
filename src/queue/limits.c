/*-------------------------------------------------------------------------
 *
 * limits.c
 *	  What limits let claims take.
 *
 * Looks at the limits of a type and of a job's group, and takes what a claim
 * needs of them: all of it under one lock, so that two claims never take the
 * same.  What has been taken stands in a note of the transaction, by which
 * limit_notes.c gives it back; nothing is remembered here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "queue/groups.h"
#include "queue/limit_memory.h"
#include "queue/limit_notes.h"
#include "queue/limit_places.h"
#include "queue/limits.h"

static void know_limits(JqLimitedType *entry, const JqLimits *limits,
						TimestampTz now);
static JqLimitAnswer look_at_type(JqLimitedType *entry, const JqLimits *limits,
								  TimestampTz now, int *available,
								  TimestampTz *next_at);
static bool holds_place(const JqGroup *group, int64 job_id);
static JqLimitAnswer take_place(JqLimitedType *entry, const JqLimits *limits,
								JqGroup *group, const JqJob *job,
								JqLimitNote *note);

int
jq_limits_counts(const JqLimits *limits)
{
	return (limits->max_concurrency > 0 ? JQ_COUNTS_TYPE : 0) |
		(limits->group_concurrency > 0 ? JQ_COUNTS_GROUPS : 0) |
		(limits->group_concurrency > 0 && limits->group_strict ?
		 JQ_COUNTS_RETRIES : 0);
}

/* ---- claims ---- */

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
		jq_limit_notes_lendable(jq_limit_type_number(entry), JQ_NO_GROUP);

		*available = Min(*available, places);
		if (places <= 0)
		{
			entry->was_refused = true;
			return JQ_LIMIT_FULL;
		}
	}
	return JQ_LIMIT_FREE;
}

JqLimitAnswer
jq_limits_reserve(const JqJobType *type, const JqJob *job, TimestampTz *now)
{
	bool		has_groups = job->group_key != NULL &&
	jq_limits_have_groups(&type->limits);
	JqGroup    *group = NULL;
	JqLimitAnswer answer;
	JqLimitedType *entry;
	JqLimitNote *note;
	TimestampTz next_at;
	int			available;

	if (jq_limit_memory == NULL)
		return JQ_LIMIT_NO_MEMORY;
	note = jq_limit_notes_add();
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
						   jq_limit_notes_has_lendable(group, &type->limits),
						   &next_at);
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
		jq_limit_notes_drop();
	if (group != NULL)
		jq_groups_settle(group, *now);
	jq_limit_unlock();
	return answer;
}

static bool
holds_place(const JqGroup *group, int64 job_id)
{
	const JqPlace *place = jq_limit_find_place(job_id);

	return place != NULL && place->counts_group &&
		place->group == jq_limit_group_number(group);
}

/* Where there is none left, one that this transaction gives up. */
static JqLimitAnswer
take_place(JqLimitedType *entry, const JqLimits *limits, JqGroup *group,
		   const JqJob *job, JqLimitNote *note)
{
	JqPlace    *place;
	JqPlace    *lender;

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
		jq_limit_places_leave_type(place);
	if (!note->was_kept)
		jq_limit_places_leave_group(place);
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
		lender = jq_limit_notes_find_lender(note->type, JQ_NO_GROUP);
		note->type_lender = lender->id.job_id;
		lender->counts_type = false;
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
		lender = jq_limit_notes_find_lender(note->type, note->group);
		note->group_lender = lender->id.job_id;
		lender->counts_group = false;
	}
	else
		group->running++;
	return JQ_LIMIT_FREE;
}

/* ---- what is remembered ---- */

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
