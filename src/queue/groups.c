/*-------------------------------------------------------------------------
 *
 * groups.c
 *	  Groups of jobs that take turns.
 *
 * The invariant: a queued job that was offered to its group is the next one of
 * it, or the group has more and the job is at or after its bound.  Jobs that
 * come later in the order of the group (priority, scheduled_at, id) than its
 * next one are forgotten here: the index has them.
 *
 * A retry that kept its place in the group (group_strict) comes before all
 * others, because nobody else can have it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "queue/groups.h"
#include "queue/limit_notes.h"

static int	my_turn = JQ_NO_GROUP;	/* group whose turn this backend has */
static uint32 my_generation;
static bool my_group_had_more;

static bool next_has_place(const JqGroup *group);
static int	compare(int16 priority, const JqLaneKey *key, int16 other_priority,
					const JqLaneKey *other);
static void set_next(JqGroup *group, const JqCandidate *candidate,
					 JqLaneRef lane, int16 priority);
static void lower_bound(JqGroup *group, int16 priority, const JqLaneKey *key);
static void serve_timed(TimestampTz now);
static JqGroup *first_ready(const JqLimitedType *entry, Oid owner);
static void fill_turn(const JqGroup *group, JqGroupTurn *turn);
static JqGroup *end_turn(const JqGroupTurn *turn);

JqLimitAnswer
jq_groups_look(JqGroup *group, const JqLimits *limits, TimestampTz now,
			   bool has_place, TimestampTz *next_at)
{
	if (limits->group_concurrency > 0 && !has_place &&
		group->running >= limits->group_concurrency)
		return JQ_LIMIT_GROUP;
	if (jq_rate_available(&group->rate.log, &limits->group_rate,
						  jq_rate_now(&group->rate.log, now), next_at) == 0)
		return JQ_LIMIT_GROUP;
	return JQ_LIMIT_FREE;
}

void
jq_groups_settle(JqGroup *group, TimestampTz now)
{
	const JqLimits *limits = &jq_limit_memory->types[group->id.type].limits;
	TimestampTz next_at = now;

	if (group->state == JQ_GROUP_TAKEN)
		return;
	if (group->has_next)
	{
		if (jq_groups_look(group, limits, now, next_has_place(group),
						   &next_at) == JQ_LIMIT_FREE)
		{
			if (group->state != JQ_GROUP_READY)
				jq_limit_queue_group(group);
		}
		else if (next_at > now)
			jq_limit_time_group(group, next_at);
		else
			jq_limit_unqueue_group(group);
		return;
	}
	/* What has begun must be remembered while it counts. */
	if (group->rate.log.used > 0 &&
		group->rate.log.latest + limits->group_rate.window_us >= now)
		jq_limit_time_group(group, group->rate.log.latest +
							limits->group_rate.window_us + 1);
	else
	{
		jq_limit_unqueue_group(group);
		jq_limit_free_group_if_idle(group);
	}
}

void
jq_groups_settle_all(JqLimitedType *type, TimestampTz now)
{
	for (JqGroup *group = jq_limit_next_group(type, NULL); group != NULL;
		 group = jq_limit_next_group(type, group))
		jq_groups_settle(group, now);
}

/* Only a retry has one before it is claimed. */
static bool
next_has_place(const JqGroup *group)
{
	const JqPlace *place = jq_limit_find_place(group->next.key.id);

	return place != NULL && place->counts_group && !place->is_uncommitted &&
		!place->counts_type &&
		place->group == jq_limit_group_number(group);
}

/* ---- offers ---- */

bool
jq_groups_exist(const JqJobType *type)
{
	bool		exist;

	if (jq_limit_memory == NULL)
		return false;
	jq_limit_lock();
	exist = jq_limit_find_type(type->name) != NULL;
	jq_limit_unlock();
	return exist;
}

bool
jq_groups_offer(const JqJobType *type, const char *key, JqLaneRef lane,
				int16 priority, const JqCandidate *candidate)
{
	TimestampTz now = GetCurrentTimestamp();
	JqLimitedType *entry;
	JqGroup    *group = NULL;

	jq_limit_lock();
	entry = jq_limit_find_type(type->name);
	if (entry != NULL)
		group = jq_limit_find_group(entry, key, true);
	if (group != NULL && !group->has_next)
	{
		if (group->state != JQ_GROUP_TAKEN && !group->has_more)
		{
			group->bound_priority = priority;
			group->bound = candidate->key;
		}
		set_next(group, candidate, lane, priority);
	}
	else if (group != NULL)
	{
		JqPlace    *place = jq_limit_find_place(candidate->key.id);
		bool		keeps_place = place != NULL && place->counts_group;
		int			order = compare(priority, &candidate->key,
									group->priority, &group->next.key);

		if (order != 0)
			group->has_more = true;
		if (keeps_place || (order <= 0 && !next_has_place(group)))
			set_next(group, candidate, lane, priority);
		else
			lower_bound(group, priority, &candidate->key);
	}
	if (group != NULL)
		jq_groups_settle(group, now);
	jq_limit_unlock();
	return group != NULL;
}

static int
compare(int16 priority, const JqLaneKey *key, int16 other_priority,
		const JqLaneKey *other)
{
	if (priority != other_priority)
		return priority < other_priority ? -1 : 1;
	return jq_lane_compare_keys(key, other);
}

static void
set_next(JqGroup *group, const JqCandidate *candidate, JqLaneRef lane,
		 int16 priority)
{
	group->has_next = true;
	group->next = *candidate;
	group->lane = lane;
	group->priority = priority;
	lower_bound(group, priority, &candidate->key);
}

static void
lower_bound(JqGroup *group, int16 priority, const JqLaneKey *key)
{
	if (compare(priority, key, group->bound_priority, &group->bound) >= 0)
		return;
	group->bound_priority = priority;
	group->bound = *key;
}

/* ---- turns ---- */

bool
jq_groups_begin_turn(const JqJobType *type, Oid owner, TimestampTz now,
					 bool only_look, JqGroupTurn *turn, int16 *priority,
					 TimestampTz *next_at)
{
	JqLimitedType *entry;
	JqGroup    *group = NULL;

	*next_at = DT_NOEND;
	jq_limit_lock();
	serve_timed(now);
	entry = jq_limit_find_type(type->name);
	/* What the settings forbid by now is put where it belongs. */
	while (entry != NULL && (group = first_ready(entry, owner)) != NULL)
	{
		TimestampTz at;

		if (jq_groups_look(group, &entry->limits, now, next_has_place(group),
						   &at) == JQ_LIMIT_FREE)
			break;
		jq_limit_unqueue_group(group);
		jq_groups_settle(group, now);
	}
	if (group == NULL && entry != NULL)
		group = jq_limit_notes_freed_group(entry, owner, now);
	if (group != NULL)
	{
		fill_turn(group, turn);
		*priority = group->priority;
		if (!only_look)
		{
			jq_limit_unqueue_group(group);
			group->state = JQ_GROUP_TAKEN;
			group->has_more = false;	/* from here on, what is offered now */
			my_turn = turn->group;
			my_generation = group->generation;
			my_group_had_more = turn->has_more;
		}
	}
	else if (jq_limit_first_timed() != NULL)
		*next_at = jq_limit_first_timed()->ready_at;
	jq_limit_unlock();
	return group != NULL;
}

static JqGroup *
first_ready(const JqLimitedType *entry, Oid owner)
{
	int			number = entry->first_ready;

	while (number != JQ_NO_GROUP && OidIsValid(owner) &&
		   jq_limit_group(number)->next.owner != owner)
		number = jq_limit_group(number)->following;
	return number == JQ_NO_GROUP ? NULL : jq_limit_group(number);
}

/* Puts groups whose instant has come where they belong by now. */
static void
serve_timed(TimestampTz now)
{
	JqGroup    *group;

	while ((group = jq_limit_first_timed()) != NULL && group->ready_at <= now)
	{
		jq_limit_unqueue_group(group);
		jq_groups_settle(group, now);
	}
}

static void
fill_turn(const JqGroup *group, JqGroupTurn *turn)
{
	turn->group = jq_limit_group_number(group);
	turn->generation = group->generation;
	turn->candidate = group->next;
	turn->lane = group->lane;
	strlcpy(turn->key, group->key, JQ_GROUP_KEY_SIZE);
	turn->has_more = group->has_more;
	turn->bound_priority = group->bound_priority;
	turn->bound = group->bound;
}

/* Meanwhile somebody may have offered a job that comes before this one. */
bool
jq_groups_end_turn(const JqGroupTurn *turn, const JqCandidate *next,
				   JqLaneRef lane, int16 priority)
{
	JqGroup    *group;
	bool		is_over = true;

	jq_limit_lock();
	group = end_turn(turn);
	if (group != NULL && group->has_next &&
		group->next.key.id != turn->candidate.key.id)
		group->has_more = true;
	else if (group != NULL && next != NULL)
	{
		group->has_more = true;
		group->bound_priority = priority;
		group->bound = next->key;
		set_next(group, next, lane, priority);
	}
	else if (group != NULL && group->has_more)
	{
		is_over = false;
		group->has_more = false;
		group->state = JQ_GROUP_TAKEN;
		my_turn = turn->group;
	}
	else if (group != NULL)
		group->has_next = false;
	if (group != NULL)
		jq_groups_settle(group, GetCurrentTimestamp());
	jq_limit_unlock();
	return is_over;
}

void
jq_groups_postpone(const JqGroupTurn *turn, TimestampTz until)
{
	JqGroup    *group;

	jq_limit_lock();
	group = end_turn(turn);
	if (group != NULL)
	{
		group->has_more |= turn->has_more;
		jq_limit_time_group(group, until);
	}
	jq_limit_unlock();
}

static JqGroup *
end_turn(const JqGroupTurn *turn)
{
	JqGroup    *group = jq_limit_group(turn->group);

	my_turn = JQ_NO_GROUP;
	if (!group->in_use || group->generation != turn->generation ||
		group->state != JQ_GROUP_TAKEN)
		return NULL;
	group->state = JQ_GROUP_IDLE;
	return group;
}

int
jq_groups_ready(const JqJobType *type, Oid owner, int max)
{
	JqLimitedType *entry;
	int			count = 0;

	if (jq_limit_memory == NULL)
		return 0;
	jq_limit_lock();
	serve_timed(GetCurrentTimestamp());
	entry = jq_limit_find_type(type->name);
	for (int i = entry == NULL ? JQ_NO_GROUP : entry->first_ready;
		 i != JQ_NO_GROUP && count < max; i = jq_limit_group(i)->following)
		if (!OidIsValid(owner) || jq_limit_group(i)->next.owner == owner)
			count++;
	jq_limit_unlock();
	return count;
}

/* The job is still the next one of its group. */
void
jq_groups_give_up(void)
{
	JqGroup    *group;

	if (my_turn == JQ_NO_GROUP)
		return;
	jq_limit_lock();
	group = jq_limit_group(my_turn);
	if (group->in_use && group->generation == my_generation &&
		group->state == JQ_GROUP_TAKEN)
	{
		group->state = JQ_GROUP_IDLE;
		group->has_more |= my_group_had_more;
		jq_groups_settle(group, GetCurrentTimestamp());
	}
	jq_limit_unlock();
	my_turn = JQ_NO_GROUP;
}
