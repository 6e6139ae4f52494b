/*-------------------------------------------------------------------------
 *
 * claim_memory.c
 *	  Finding ready jobs through the lanes in shared memory: the fast path.
 *
 * A claim takes candidates from the lane whose head comes first, up to the
 * head of the next.  A lane that has none left in memory is read on from the
 * index, by one claim at a time.  The snapshot in which candidates are looked
 * at is taken after they are: what was offered after a commit is then visible.
 *
 * A candidate that somebody else has locked goes back when the claim ends.
 * Where those fill the memory of a lane, SQL goes on: it knows how to pass
 * any number of them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "lib/pairingheap.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/compat.h"
#include "base/config.h"
#include "base/scope.h"
#include "queue/claim_path.h"
#include "queue/groups.h"
#include "queue/hints.h"
#include "queue/limits.h"
#include "queue/ready.h"
#include "queue/waiters.h"

#define DISCOVER_INTERVAL_US (5 * USECS_PER_SEC)
/* More job types than this are not worth remembering: start afresh. */
#define MAX_KNOWN 4096

#define SWEEP_CHECK_INTERVAL_US (1 * USECS_PER_SEC)

/*
 * Most queued jobs that one sweep looks at in a lane.  Of one that feeds groups
 * it is a part after the other: what these have set aside comes back, and must
 * not fill the lane, or it would be read again.
 */
#define MAX_SWEPT 512
#define MAX_SWEPT_OF_GROUPS 64

/*
 * A candidate that somebody else has is parked when it goes back: who waits
 * for jobs does not count on it before its holder ends or some time is over.
 * Claims try it again at once, but pass what is beyond a few for a moment, or
 * they would slow down by all that a long transaction holds.
 */
#define MAX_BUSY 8
#define PARK_US (5 * USECS_PER_SEC)
#define PASS_US (100 * 1000)

/* How long a group waits whose next job is behind an open circuit. */
#define CIRCUIT_US (1 * USECS_PER_SEC)

/* Most jobs of a lane that one claim offers to groups when some are ready. */
#define MAX_FED 1024

/* The lanes of a job type, or of all, as this backend remembers them. */
typedef struct KnownLanes
{
	char		job_type[JQ_LANE_NAME_SIZE];	/* the hash key; "": all */
	uint64		generation;		/* 0: not known yet */
	int			count;
	JqLaneRef  *refs;
	JqLaneName *names;
	/* Which of them a claim may take. */
	uint32		types_generation;	/* 0: not known yet */
	int64		holder;			/* of the claims that this is about */
	Oid			role;
	bool	   *may_take;
	JqLaneKey  *swept;			/* where the sweep of a lane of groups goes on */
} KnownLanes;

static MemoryContext known_context = NULL;
static HTAB *known_table = NULL;	/* of KnownLanes */

/* A lane in one claim, or the groups of a job type. */
typedef struct Source
{
	pairingheap_node node;
	JqLaneRef	ref;
	const JqLaneName *name;		/* of groups: of one of their lanes */
	bool		is_of_groups;
	int16		priority;
	bool		is_probe;		/* its circuit lets one job through */
	JqCandidate head;
} Source;

/* The lanes that one claim takes from. */
typedef struct Merge
{
	JqClaiming *claiming;		/* NULL: who looks does not claim */
	const JqClaim *claim;
	Relation	live;
	TimestampTz now;
	pairingheap *ready;			/* of Source */
	TimestampTz next_due_at;	/* of the lanes that have none ready */
	JqCandidate *candidates;
	List	   *grouped;		/* of Source: the groups of types and owners */
	bool		groups_are_full;	/* there is no room for another group */
	int			busy;
	bool		is_complete;	/* nothing was left to SQL */
} Merge;

static void discover(Relation live, TimestampTz now);
static KnownLanes *known_lanes(const char *job_type);
static void list_lanes(KnownLanes *known, const char *job_type);
static void decide_lanes(KnownLanes *known, const JqClaim *claim);
static void begin_merge(Merge *merge, const JqClaim *claim, Relation live,
						TimestampTz now);
static void begin_looking(Merge *merge, Relation live, TimestampTz now);
static void add_sources(Merge *merge, const char *job_type);
static void add_source(Merge *merge, Source *source);
static bool has_ready(Merge *merge, Source *source);
static void read_on(Merge *merge, const Source *source);
static void feed_groups(Merge *merge, Source *source);
static void feed_candidates(Merge *merge, const Source *source,
							const JqJobType *type, int count);
static bool offer_to_group(Merge *merge, const Source *source,
						   const JqJobType *type,
						   const JqCandidate *candidate);
static void add_groups(Merge *merge, const Source *lane);
static void look_at_all_groups(Merge *merge);
static bool look_at_groups(Merge *merge, Source *source);
static void take_turn(Merge *merge, Source *source);
static void end_turn(Merge *merge, const JqGroupTurn *turn,
					 const char *job_type, bool has_more);
static void take_from(Merge *merge, Source *source);
static bool claim_candidates(Merge *merge, const Source *source,
							 const JqJobType *type, int count);
static bool has_due(Merge *merge, Source *source);
static int	compare_sources(const pairingheap_node *a,
							const pairingheap_node *b, void *arg);

bool
jq_claim_has_memory(JqTable *live, TimestampTz now, const char **reason)
{
	*reason = NULL;
	if (jq_config_debug_claim_path == JQ_CLAIM_PATH_SQL ||
		IsolationUsesXactSnapshot())
		return false;
	if (!jq_lanes_exist())
		*reason = "the library was not preloaded, or jobqueue.max_lanes is 0";
	else if (!live->is_direct)
		*reason = "jobs_queue_live has triggers, rules, policies, constraints or indexes of its own";
	else if (!OidIsValid(jq_catalog()->jobs_queue_live_ready))
		*reason = "index \"jobs_queue_live_ready\" does not exist";
	else if (!OidIsValid(jq_catalog()->jobs_queue_live_owner))
		*reason = "index \"jobs_queue_live_owner\" does not exist";
	else if (!jq_lanes_join(RelationGetRelid(live->rel),
							jq_compat_file_number(live->rel)))
		*reason = "too many databases have jobs";
	if (*reason != NULL)
		return false;

	if (jq_lanes_begin_duty(JQ_DUTY_DISCOVER, now))
		discover(live->rel, now);
	if (!jq_lanes_are_discovered())
		return false;			/* somebody else is at it */
	if (jq_lanes_overflowed())
	{
		*reason = "there are more lanes than jobqueue.max_lanes, or one with too long a name";
		jq_lanes_count(JQ_COUNT_OVERFLOWS, 1);
		return false;
	}
	return !jq_hints_are_pending(now);
}

/* Finds the lanes that nobody has told of. */
static void
discover(Relation live, TimestampTz now)
{
	JqReadyWalk *walk = jq_ready_begin_walk(live);
	bool		has_room = true;
	JqLaneName	name;
	bool		fits;

	while (has_room && jq_ready_next_lane(walk, &name, &fits))
	{
		CHECK_FOR_INTERRUPTS();
		has_room = fits && jq_lanes_get(&name, true).slot >= 0;
	}
	jq_ready_end_walk(walk);
	jq_lanes_set_overflowed(!has_room);
	jq_lanes_end_duty(JQ_DUTY_DISCOVER, now, DISCOVER_INTERVAL_US);
	jq_lanes_count(JQ_COUNT_DISCOVERIES, 1);
}

/* ---- which lanes ---- */

/* The lanes of a job type, listed again whenever lanes have come or gone. */
static KnownLanes *
known_lanes(const char *job_type)
{
	char		key[JQ_LANE_NAME_SIZE];
	uint64		generation = jq_lanes_generation();
	KnownLanes *known;
	bool		found;

	if (known_table == NULL)
	{
		HASHCTL		info = {
			.keysize = JQ_LANE_NAME_SIZE,
			.entrysize = sizeof(KnownLanes)
		};

		if (known_context == NULL)
			known_context = AllocSetContextCreate(TopMemoryContext,
												  "jobqueue known lanes",
												  ALLOCSET_DEFAULT_SIZES);
		info.hcxt = known_context;
		known_table = hash_create("jobqueue known lanes", 64, &info,
								  HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	strlcpy(key, job_type == NULL ? "" : job_type, sizeof(key));
	known = hash_search(known_table, key, HASH_ENTER, &found);
	if (!found)
		memset((char *) known + JQ_LANE_NAME_SIZE, 0,
			   sizeof(KnownLanes) - JQ_LANE_NAME_SIZE);
	if (known->generation != generation)
	{
		list_lanes(known, job_type);
		known->generation = generation;
	}
	return known;
}

/* In memory that lasts; an error in between leaves nothing behind but that. */
static void
list_lanes(KnownLanes *known, const char *job_type)
{
	MemoryContext old = MemoryContextSwitchTo(known_context);
	void	   *outdated[] = {
		known->refs, known->names, known->may_take, known->swept
	};

	memset((char *) known + JQ_LANE_NAME_SIZE, 0,
		   sizeof(KnownLanes) - JQ_LANE_NAME_SIZE);
	for (int i = 0; i < (int) lengthof(outdated); i++)
		if (outdated[i] != NULL)
			pfree(outdated[i]);
	known->count = jq_lanes_list(job_type, &known->refs, &known->names);
	known->may_take = palloc(sizeof(bool) * Max(known->count, 1));
	known->swept = palloc(sizeof(JqLaneKey) * Max(known->count, 1));
	for (int i = 0; i < known->count; i++)
		known->swept[i] = JQ_LANE_KEY_FIRST;
	MemoryContextSwitchTo(old);
}

/* Finds out again when a job type or the kind of claim has changed. */
static void
decide_lanes(KnownLanes *known, const JqClaim *claim)
{
	uint32		generation = jq_job_types_generation();

	if (known->types_generation == generation &&
		known->holder == claim->holder && known->role == claim->role)
		return;
	for (int i = 0; i < known->count; i++)
	{
		const JqJobType *type = jq_job_type(known->names[i].job_type);

		known->may_take[i] = jq_claim_may_take(claim, type,
											   known->names[i].owner);
		if (jq_limits_forget(type))
			jq_lanes_forget();
	}
	known->types_generation = generation;
	known->holder = claim->holder;
	known->role = claim->role;
}

static void
begin_merge(Merge *merge, const JqClaim *claim, Relation live, TimestampTz now)
{
	ListCell   *cell;

	/* Nothing of it is in use now. */
	if (known_table != NULL && hash_get_num_entries(known_table) > MAX_KNOWN)
	{
		known_table = NULL;
		MemoryContextReset(known_context);
	}
	merge->claim = claim;
	begin_looking(merge, live, now);
	merge->candidates = palloc(sizeof(JqCandidate) * JQ_LANE_REFILL);
	if (claim->job_types == NIL)
		add_sources(merge, NULL);
	foreach(cell, claim->job_types)
		add_sources(merge, (const char *) lfirst(cell));
	look_at_all_groups(merge);
}

static void
begin_looking(Merge *merge, Relation live, TimestampTz now)
{
	merge->live = live;
	merge->now = now;
	merge->ready = pairingheap_allocate(compare_sources, NULL);
	merge->next_due_at = DT_NOEND;
	merge->is_complete = true;
}

/* Looks at the lanes of a type, or of all types, that this claim may take. */
static void
add_sources(Merge *merge, const char *job_type)
{
	KnownLanes *known = known_lanes(job_type);
	Source	   *sources = palloc0(sizeof(Source) * Max(known->count, 1));

	decide_lanes(known, merge->claim);
	for (int i = 0; i < known->count; i++)
	{
		if (!known->may_take[i])
			continue;
		sources[i].ref = known->refs[i];
		sources[i].name = &known->names[i];
		sources[i].priority = known->names[i].priority;
		add_source(merge, &sources[i]);
	}
}

/* Unless limits or a lack of jobs keep it from being claimed from. */
static void
add_source(Merge *merge, Source *source)
{
	const JqJobType *type = jq_job_type(source->name->job_type);
	TimestampTz next_at;
	int			available;

	if (!jq_claim_is_admitted(source->name->job_type, source->name->stage,
							  merge->now, &source->is_probe, &next_at) ||
		!jq_claim_is_open(merge->claiming, type, merge->now, &available,
						  &next_at))
	{
		merge->next_due_at = Min(merge->next_due_at, next_at);
		return;
	}
	if (!jq_limits_have_groups(&type->limits))
	{
		if (has_ready(merge, source))
			pairingheap_add(merge->ready, &source->node);
	}
	else if (!OidIsValid(jq_catalog()->jobs_queue_live_group) ||
			 !jq_groups_exist(type))
		merge->is_complete = false;
	else
	{
		/* Who only looks does not feed: what is in a lane may be ready. */
		if (merge->claiming != NULL)
			feed_groups(merge, source);
		else if (has_ready(merge, source))
			pairingheap_add(merge->ready, &source->node);
		add_groups(merge, source);
	}
}

/* Whether a lane has something ready, and what comes first. */
static bool
has_ready(Merge *merge, Source *source)
{
	JqLaneWish	wish = {
		.now = merge->now,
		.is_claim = merge->claiming != NULL
	};
	TimestampTz next_at;
	int			count;

	for (;;)
	{
		switch (jq_lane_take(source->ref, &wish, &source->head, &count,
							 &next_at))
		{
			case JQ_LANE_READY:
				return true;
			case JQ_LANE_WAITING:
				merge->next_due_at = Min(merge->next_due_at, next_at);
				return false;
			case JQ_LANE_UNREAD:
				read_on(merge, source);
				break;
			case JQ_LANE_BEING_READ:
				if (jq_lane_wait(source->ref))
					break;
				merge->is_complete = false;
				return false;
			case JQ_LANE_PARKED:
				merge->is_complete = false;
				return false;
			case JQ_LANE_GONE:
				jq_lanes_discover_soon();
				return false;
		}
		CHECK_FOR_INTERRUPTS();
	}
}

/* Reads the next candidates of a lane from the index. */
static void
read_on(Merge *merge, const Source *source)
{
	JqCandidate *found = palloc(sizeof(JqCandidate) * JQ_LANE_REFILL);
	JqLaneKey	from = jq_lane_position(source->ref);
	JqLaneKey	position;
	int			count;

	jq_hints_read(source->ref, from);
	count = jq_ready_read(merge->live, source->name, from, JQ_LANE_KEY_END,
						  JQ_LANE_REFILL, found, &position);
	jq_lane_publish(source->ref, found, count, position);
	pfree(found);
}

/* ---- claiming ---- */

bool
jq_claim_by_memory(JqClaiming *claiming)
{
	Merge		merge = {.claiming = claiming};
	int			first = jq_hints_count();

	begin_merge(&merge, claiming->claim, claiming->live.rel, claiming->now);
	while (!pairingheap_is_empty(merge.ready) && !claiming->must_stop &&
		   claiming->claimed < claiming->claim->max_jobs)
	{
		CHECK_FOR_INTERRUPTS();
		take_from(&merge, pairingheap_container(Source, node,
												pairingheap_remove_first(merge.ready)));
	}
	jq_hints_end_taking(first);
	return merge.is_complete;
}

/* Takes from the lane that comes first, as long as it does. */
static void
take_from(Merge *merge, Source *source)
{
	JqClaiming *claiming = merge->claiming;
	JqLaneWish	wish = {
		.now = merge->now,
		.is_claim = true,
		.max = Min(claiming->claim->max_jobs - claiming->claimed, JQ_LANE_REFILL)
	};
	const JqJobType *type;
	TimestampTz next_at;
	int			available;
	int			count;
	bool		goes_on = true;

	if (source->is_of_groups)
	{
		take_turn(merge, source);
		return;
	}
	if (!pairingheap_is_empty(merge->ready))
	{
		const Source *second = pairingheap_container(Source, node,
													 pairingheap_first(merge->ready));

		wish.has_limit = second->priority == source->priority;
		wish.limit = second->head.key;
	}
	type = jq_job_type(source->name->job_type);
	if (!jq_claim_is_open(claiming, type, merge->now, &available, &next_at))
		return;
	wish.max = source->is_probe ? 1 : Min(wish.max, available);
	/* Nothing may fail between the taking and the noting. */
	jq_hints_reserve(wish.max);
	if (jq_lane_take(source->ref, &wish, merge->candidates, &count,
					 &next_at) == JQ_LANE_READY)
		goes_on = claim_candidates(merge, source, type, count);
	else
		jq_lane_give_up();		/* it is looked at below */
	if (goes_on && claiming->claimed < claiming->claim->max_jobs &&
		has_ready(merge, source))
		pairingheap_add(merge->ready, &source->node);
}

/*
 * What somebody else has or what must wait goes back when the claim ends, and
 * so does what is left when a job must run alone, or when no other one of the
 * type may begin: then there is no more to take from the lane.
 */
static bool
claim_candidates(Merge *merge, const Source *source, const JqJobType *type,
				 int count)
{
	int			first = jq_hints_count();
	JqTaking	taking = JQ_TAKING_BUSY;

	for (int i = 0; i < count; i++)
		(void) jq_hints_took(source->ref, &merge->candidates[i], type);

	jq_scope_refresh();
	for (int i = 0; i < count; i++)
	{
		if (merge->claiming->must_stop)
			taking = JQ_TAKING_BUSY;
		else if (taking != JQ_TAKING_LIMITED && taking != JQ_TAKING_CIRCUIT)
			taking = jq_claim_take(merge->claiming, &merge->candidates[i].tid,
								   &merge->candidates[i], source->name);
		if (taking == JQ_TAKING_LIMITED || taking == JQ_TAKING_CIRCUIT)
			jq_hints_skip(first + i, 0, false);
		else if (taking == JQ_TAKING_BUSY || taking == JQ_TAKING_GROUP)
		{
			bool		is_passed = merge->busy++ >= MAX_BUSY;
			TimestampTz until = merge->now + (is_passed ? PASS_US : PARK_US);

			/* Never 0, which means that it is not parked. */
			jq_hints_skip(first + i, JQ_LANE_MS(until) | 1, is_passed);
		}
		else if (taking == JQ_TAKING_STALE)
		{
			/* What this transaction did to it may be undone. */
			if (merge->claiming->is_alone)
				jq_hints_drop(first + i);
			jq_lanes_count(JQ_COUNT_STALE, 1);
		}
	}
	return taking != JQ_TAKING_LIMITED && taking != JQ_TAKING_CIRCUIT;
}

/* ---- groups ---- */

/*
 * Offers what is due in a lane to its groups.  Any number of jobs may wait in
 * groups that are full: they must not hide those that come after them.
 */
static void
feed_groups(Merge *merge, Source *source)
{
	JqLaneWish	wish = {
		.now = merge->now,
		.is_claim = true,
		.max = JQ_LANE_REFILL
	};
	TimestampTz next_at;
	int			fed = 0;
	int			count;

	while ((fed < MAX_FED ||
			jq_groups_ready(jq_job_type(source->name->job_type),
							source->name->owner, 1) == 0) &&
		   has_ready(merge, source))
	{
		const JqJobType *type = jq_job_type(source->name->job_type);

		CHECK_FOR_INTERRUPTS();
		jq_hints_reserve(wish.max);
		if (jq_lane_take(source->ref, &wish, merge->candidates, &count,
						 &next_at) != JQ_LANE_READY)
		{
			jq_lane_give_up();
			continue;
		}
		feed_candidates(merge, source, type, count);
		fed += count;
		if (merge->groups_are_full)
			break;
	}
}

static void
feed_candidates(Merge *merge, const Source *source, const JqJobType *type,
				int count)
{
	char		name[JQ_LANE_NAME_SIZE];
	int			first = jq_hints_count();

	strlcpy(name, type->name, sizeof(name));
	for (int i = 0; i < count; i++)
		(void) jq_hints_took(source->ref, &merge->candidates[i], type);
	jq_scope_refresh();
	for (int i = 0; i < count; i++)
	{
		const JqCandidate *candidate = &merge->candidates[i];

		if (merge->groups_are_full)
			jq_hints_skip(first + i, 0, false);
		else if (offer_to_group(merge, source, jq_job_type(name), candidate))
			jq_hints_drop(first + i);
		else if (merge->groups_are_full)
			jq_hints_skip(first + i, 0, false);
		else
		{
			/* Somebody has it: what is fed next must come after it. */
			jq_hints_skip(first + i,
						  JQ_LANE_MS(merge->now + PASS_US) | 1, true);
		}
	}
	jq_hints_end_taking(first);
}

/*
 * A job without a key is a group of its own.  False: there is no room for one
 * more group, or somebody else has the job.
 */
static bool
offer_to_group(Merge *merge, const Source *source, const JqJobType *type,
			   const JqCandidate *candidate)
{
	char		single[32];
	JqJob		job;

	if (!jq_claim_read(merge->claiming, candidate, source->name, &job))
	{
		if (jq_claim_is_there(merge->claiming, candidate, source->name))
			return false;
		jq_lanes_count(JQ_COUNT_STALE, 1);
		return true;
	}
	snprintf(single, sizeof(single), "\001" INT64_FORMAT, job.id);
	if (jq_groups_offer(type, job.group_key != NULL ? job.group_key : single,
						source->ref, source->name->priority, candidate))
		return true;
	merge->groups_are_full = true;
	return false;
}

/*
 * The groups of a type are one source, whatever lanes feed them; of the
 * built-in type those whose next job is the lane's owner's.
 */
static void
add_groups(Merge *merge, const Source *lane)
{
	Source	   *source;
	ListCell   *cell;

	foreach(cell, merge->grouped)
	{
		const JqLaneName *name = ((const Source *) lfirst(cell))->name;

		if (strcmp(name->job_type, lane->name->job_type) == 0 &&
			name->owner == lane->name->owner)
			return;
	}
	source = palloc(sizeof(Source));
	*source = *lane;
	source->is_of_groups = true;
	merge->grouped = lappend(merge->grouped, source);
}

/* Once all lanes have fed them. */
static void
look_at_all_groups(Merge *merge)
{
	ListCell   *cell;

	foreach(cell, merge->grouped)
	{
		Source	   *source = (Source *) lfirst(cell);

		if (look_at_groups(merge, source))
			pairingheap_add(merge->ready, &source->node);
	}
}

static bool
look_at_groups(Merge *merge, Source *source)
{
	JqGroupTurn turn;
	TimestampTz next_at;

	if (!jq_groups_begin_turn(jq_job_type(source->name->job_type),
							  source->name->owner, merge->now, true, &turn,
							  &source->priority, &next_at))
	{
		merge->next_due_at = Min(merge->next_due_at, next_at);
		if (merge->claiming != NULL)
			merge->claiming->retry_at = Min(merge->claiming->retry_at, next_at);
		return false;
	}
	source->head = turn.candidate;
	return true;
}

/* Claims the next job of the group whose turn it is. */
static void
take_turn(Merge *merge, Source *source)
{
	JqClaiming *claiming = merge->claiming;
	const JqJobType *type = jq_job_type(source->name->job_type);
	JqGroupTurn turn;
	JqTaking	taking;
	TimestampTz next_at;
	int			available;
	int			first;

	if (!jq_claim_is_open(claiming, type, merge->now, &available, &next_at) ||
		!jq_groups_begin_turn(type, source->name->owner, merge->now, false, &turn,
							  &source->priority, &next_at))
		return;
	jq_hints_reserve(1);
	jq_scope_refresh();
	claiming->turn_type = source->name->job_type;
	taking = jq_claim_take(claiming, &turn.candidate.tid, &turn.candidate,
						   NULL);
	switch (taking)
	{
		case JQ_TAKING_CLAIMED:
			first = jq_hints_count();
			jq_hints_reserve(1);
			(void) jq_hints_took(turn.lane, &turn.candidate,
								 jq_job_type(source->name->job_type));
			jq_hints_end_taking(first);
			end_turn(merge, &turn, source->name->job_type, turn.has_more);
			break;
		case JQ_TAKING_CIRCUIT:
			/* Others may go on; it is asked again before long. */
			jq_groups_postpone(&turn, merge->now + CIRCUIT_US);
			break;
		case JQ_TAKING_STALE:
			jq_lanes_count(JQ_COUNT_STALE, 1);
			end_turn(merge, &turn, source->name->job_type, turn.has_more);
			break;
		case JQ_TAKING_BUSY:
			jq_groups_postpone(&turn, merge->now + PASS_US);
			break;
		default:
			(void) jq_groups_end_turn(&turn, &turn.candidate, turn.lane,
									  source->priority);
			break;
	}
	if (taking != JQ_TAKING_LIMITED && !claiming->must_stop &&
		claiming->claimed < claiming->claim->max_jobs &&
		look_at_groups(merge, source))
		pairingheap_add(merge->ready, &source->node);
}

/* Looks for the job that comes next in the group. */
static void
end_turn(Merge *merge, const JqGroupTurn *turn, const char *job_type,
		 bool has_more)
{
	JqCandidate next;
	JqLaneName	name = {0};
	bool		has_next = false;
	JqLaneRef	lane = turn->lane;

	for (;;)
	{
		if (has_more && turn->key[0] == '\0')
			jq_lanes_forget();	/* all are offered again */
		else if (has_more)
		{
			jq_scope_refresh();
			has_next = jq_ready_next_of_group(merge->live, job_type, turn->key,
											  turn->bound_priority,
											  turn->bound, merge->now,
											  turn->candidate.key.id, &next,
											  &name);
			if (has_next && jq_job_type_is_built_in(job_type))
				name.owner = next.owner;
			if (has_next)
				lane = jq_lanes_get(&name, true);
		}
		if (jq_groups_end_turn(turn, has_next ? &next : NULL, lane,
							   name.priority))
			return;
		has_more = true;
	}
}

bool
jq_claim_next_due_by_memory(const JqClaim *claim, Relation live,
							TimestampTz now, TimestampTz *due_at)
{
	Merge		merge = {0};

	begin_merge(&merge, claim, live, now);
	*due_at = pairingheap_is_empty(merge.ready) ? merge.next_due_at : now;
	return merge.is_complete;
}

bool
jq_claim_announce_lanes(const char *job_type, Relation live, TimestampTz now)
{
	JqClaim		claim = {.job_types = list_make1(unconstify(char *, job_type))};
	Merge		merge = {0};
	bool		is_new = false;

	begin_merge(&merge, &claim, live, now);
	while (!pairingheap_is_empty(merge.ready))
		if (jq_lane_announce(pairingheap_container(Source, node,
												   pairingheap_remove_first(merge.ready))->ref))
			is_new = true;
	return is_new;
}

bool
jq_claim_count_due_by_memory(JqClaiming *looking, const char *job_type,
							 int max, JqDueJobs **due, int *count)
{
	const KnownLanes *known = known_lanes(job_type);
	Merge		merge = {.claiming = looking};
	TimestampTz next_at;
	int			available;
	int			groups;

	begin_looking(&merge, looking->live.rel, looking->now);
	*count = 0;
	*due = palloc(sizeof(JqDueJobs) * Max(2 * known->count, 1));
	for (int i = 0; i < known->count; i++)
	{
		Source		source = {.ref = known->refs[i],.name = &known->names[i]};

		if (!jq_claim_is_admitted(job_type, source.name->stage, merge.now,
								  &source.is_probe, &next_at) ||
			!jq_claim_is_open(NULL, jq_job_type(job_type), merge.now,
							  &available, &next_at) ||
			!has_due(&merge, &source))
			continue;
		if (source.is_probe)
			available = 1;
		(*due)[*count].owner = source.name->owner;
		(*due)[*count].jobs = jq_lane_count_due(source.ref, merge.now,
												Min(max, available));
		(*count)++;
	}
	groups = jq_limits_have_groups(&jq_job_type(job_type)->limits) &&
		jq_claim_is_open(NULL, jq_job_type(job_type), merge.now, &available,
						 &next_at) ?
		Min(max, available) : 0;
	for (int i = 0; i < known->count && groups > 0; i++)
	{
		Oid			owner = known->names[i].owner;
		int			ready = 0;
		bool		is_new = true;

		/* Only of the built-in type there is more than one owner. */
		for (int j = 0; j < i && is_new; j++)
			is_new = known->names[j].owner != owner;
		if (is_new)
			ready = jq_groups_ready(jq_job_type(job_type), owner, groups);
		if (ready == 0)
			continue;
		(*due)[*count].owner = owner;
		(*due)[*count].jobs = ready;
		(*count)++;
	}
	return merge.is_complete;
}

/*
 * Whether there is a job at the head of a lane.  Cancelled ones, and those of
 * owners that nobody runs, are never taken from it: they are dropped here.
 */
static bool
has_due(Merge *merge, Source *source)
{
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (!has_ready(merge, source))
			return false;
		jq_scope_refresh();
		if (jq_claim_is_there(merge->claiming, &source->head,
							  source->name))
			return true;
		jq_lane_drop(source->ref, &source->head);
		jq_lanes_count(JQ_COUNT_STALE, 1);
	}
}

/* The lane whose head comes first in claim order is the first of the heap. */
static int
compare_sources(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	const Source *left = pairingheap_const_container(Source, node, a);
	const Source *right = pairingheap_const_container(Source, node, b);

	if (left->priority != right->priority)
		return left->priority < right->priority ? 1 : -1;
	return jq_lane_compare_keys(&right->head.key, &left->head.key);
}

/* ---- now and then ---- */

/*
 * Finds what no hint has told of: what prepared transactions left, and rows
 * that somebody had locked when they were looked at.
 */
void
jq_claim_sweep(Relation live)
{
	TimestampTz now = GetCurrentTimestamp();
	KnownLanes *known;
	JqCandidate *found;
	int			repairs = 0;

	if (!jq_lanes_begin_duty(JQ_DUTY_SWEEP, now))
		return;
	jq_scope_refresh();			/* what this claim has taken is not lost */
	known = known_lanes(NULL);
	found = palloc(sizeof(JqCandidate) * MAX_SWEPT);
	for (int i = 0; i < known->count; i++)
	{
		TimestampTz started_at = GetCurrentTimestamp();
		JqLaneRef	ref = known->refs[i];
		JqLaneKey	position;
		bool		has_groups;
		int			max;
		int			count;

		CHECK_FOR_INTERRUPTS();
		if (!jq_lane_begin_sweep(ref, started_at))
			continue;
		has_groups = jq_limits_have_groups(&jq_job_type(known->names[i].job_type)->limits);
		max = has_groups ? MAX_SWEPT_OF_GROUPS : MAX_SWEPT;
		count = jq_ready_read(live, &known->names[i],
							  has_groups ? known->swept[i] : JQ_LANE_KEY_FIRST,
							  jq_lane_position(ref), max, found, &position);
		known->swept[i] = count < max ? JQ_LANE_KEY_FIRST : position;
		count = jq_lane_end_sweep(ref, started_at, found, count);
		if (!has_groups)
			repairs += count;
	}
	pfree(found);
	jq_limits_audit(live);
	if (repairs > 0)
		jq_waiters_wake_all();
	jq_lanes_end_duty(JQ_DUTY_SWEEP, now, SWEEP_CHECK_INTERVAL_US);
}
