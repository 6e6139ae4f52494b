/*-------------------------------------------------------------------------
 *
 * lane.c
 *	  What a lane remembers: its next jobs, and how far the index was read.
 *
 * The candidates of a lane are a sorted array, taken from the front.  Two
 * rules keep its invariant:
 *
 * - What does not fit is the last candidate, and the position moves back to
 *	 it: the index will be read again from there.
 * - While somebody reads the index, every offer is kept, whatever its key: the
 *	 reader's snapshot may be older.  What had to be left out meanwhile is in
 *	 "dropped", before which the new position must stay.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "queue/job_types.h"
#include "queue/lane_memory.h"

/* How long a claim waits for another to read a lane. */
#define READ_TIMEOUT_MS 1000

static JqLaneRef my_read = {-1, 0}; /* the lane that this backend reads */
static JqLaneRef my_sweep = {-1, 0};	/* the one that it sweeps */

static JqLane *lock_lane(JqLaneRef ref);
static void unlock_lane(const JqLane *lane);
static int	find_place(const JqLane *lane, const JqLaneKey *key, bool *is_there);
static bool insert(JqLane *lane, const JqCandidate *candidate, bool is_new);
static void truncate_at(JqLane *lane, JqLaneKey key);
static JqLaneAnswer answer_empty(JqLane *lane, TimestampTz now,
								 TimestampTz *next_at);
static bool is_parked(const JqCandidate *candidate, TimestampTz now);
static int	take_candidates(JqLane *lane, const JqLaneWish *wish,
							JqCandidate *candidates);
static void end_read(JqLane *lane);

int
jq_lane_compare_keys(const JqLaneKey *a, const JqLaneKey *b)
{
	if (a->scheduled_at != b->scheduled_at)
		return a->scheduled_at < b->scheduled_at ? -1 : 1;
	if (a->id != b->id)
		return a->id < b->id ? -1 : 1;
	return 0;
}

bool
jq_lane_set_name(JqLaneName *name, Datum job_type, Datum stage, Datum priority,
				 Oid owner)
{
	text	   *type_text = DatumGetTextPP(job_type);
	text	   *stage_text = DatumGetTextPP(stage);

	if (VARSIZE_ANY_EXHDR(type_text) >= JQ_LANE_NAME_SIZE ||
		VARSIZE_ANY_EXHDR(stage_text) >= JQ_LANE_NAME_SIZE)
		return false;
	text_to_cstring_buffer(type_text, name->job_type, JQ_LANE_NAME_SIZE);
	text_to_cstring_buffer(stage_text, name->stage, JQ_LANE_NAME_SIZE);
	name->priority = DatumGetInt16(priority);
	name->owner = jq_job_type_is_built_in(name->job_type) ? owner : InvalidOid;
	return true;
}

/* NULL, with nothing locked, when the lane has gone. */
static JqLane *
lock_lane(JqLaneRef ref)
{
	JqLane	   *lane = &jq_lane_array[ref.slot];

	Assert(ref.slot >= 0 && ref.slot < jq_lane_directory->nlanes);
	LWLockAcquire(&jq_lane_locks[ref.slot + 1].lock, LW_EXCLUSIVE);
	if (lane->generation != ref.generation)
	{
		LWLockRelease(&jq_lane_locks[ref.slot + 1].lock);
		return NULL;
	}
	if (lane->epoch !=
		pg_atomic_read_u64(&jq_lane_directory->databases[lane->database].epoch))
		jq_lane_reset(lane);
	return lane;
}

static void
unlock_lane(const JqLane *lane)
{
	LWLockRelease(&jq_lane_locks[lane - jq_lane_array + 1].lock);
}

void
jq_lane_reset(JqLane *lane)
{
	lane->epoch =
		pg_atomic_read_u64(&jq_lane_directory->databases[lane->database].epoch);
	lane->position = JQ_LANE_KEY_FIRST;
	lane->dropped = JQ_LANE_KEY_FIRST;
	lane->first = 0;
	lane->count = 0;
}

JqLaneAnswer
jq_lane_take(JqLaneRef ref, const JqLaneWish *wish, JqCandidate *candidates,
			 int *count, TimestampTz *next_at)
{
	JqLane	   *lane = lock_lane(ref);
	JqLaneAnswer answer = JQ_LANE_READY;

	*count = 0;
	if (lane == NULL)
		return JQ_LANE_GONE;
	lane->last_used_at = wish->now;
	if (wish->is_claim)
		lane->last_claim_at = wish->now;
	if (lane->count > 0)
		lane->last_needed_at = wish->now;
	if (lane->is_being_read)
		answer = JQ_LANE_BEING_READ;
	else
	{
		*count = take_candidates(lane, wish, candidates);
		if (*count == 0)
			answer = answer_empty(lane, wish->now, next_at);
		if (answer == JQ_LANE_UNREAD)
		{
			lane->is_being_read = true;
			lane->dropped = JQ_LANE_KEY_END;
			my_read = ref;
		}
	}
	unlock_lane(lane);
	return answer;
}

/*
 * What becomes of a claim that found nothing for itself.  Candidates that are
 * due are parked then.
 */
static JqLaneAnswer
answer_empty(JqLane *lane, TimestampTz now, TimestampTz *next_at)
{
	const JqCandidate *head = &lane->candidates[lane->first];
	bool		is_read = lane->position.scheduled_at > now;

	if (!is_read)
		return lane->count == 0 ? JQ_LANE_UNREAD : JQ_LANE_PARKED;
	*next_at = lane->position.scheduled_at;
	for (int i = 0; i < lane->count; i++)
	{
		if (head[i].key.scheduled_at > now)
		{
			*next_at = Min(*next_at, head[i].key.scheduled_at);
			break;
		}
		if (is_parked(&head[i], now))
			*next_at = Min(*next_at, now + (int64) 1000 *
						   (int32) (head[i].parked_until - JQ_LANE_MS(now)));
	}
	lane->is_announced = false;
	return JQ_LANE_WAITING;
}

static bool
is_parked(const JqCandidate *candidate, TimestampTz now)
{
	return candidate->parked_until != 0 &&
		(int32) (candidate->parked_until - JQ_LANE_MS(now)) > 0;
}

/* Takes the candidates that the wish names; with max 0, only looks at one. */
static int
take_candidates(JqLane *lane, const JqLaneWish *wish, JqCandidate *candidates)
{
	int			taken = 0;
	int			end = lane->first + lane->count;
	int			kept = lane->first;

	for (int i = lane->first; i < end && taken < Max(wish->max, 1); i++)
	{
		const JqCandidate *candidate = &lane->candidates[i];

		if (candidate->key.scheduled_at > wish->now ||
			(wish->has_limit &&
			 jq_lane_compare_keys(&candidate->key, &wish->limit) > 0))
			break;
		if (is_parked(candidate, wish->now) &&
			(candidate->is_passed || !wish->is_claim))
			continue;
		candidates[taken++] = *candidate;
		if (wish->max == 0)
			return taken;
		/* Those that are parked move up; usually there are none. */
		memmove(&lane->candidates[kept + 1], &lane->candidates[kept],
				sizeof(JqCandidate) * (i - kept));
		kept++;
	}
	lane->first += taken;
	lane->count -= taken;
	return taken;
}

int
jq_lane_count_due(JqLaneRef ref, TimestampTz now, int max)
{
	JqLane	   *lane = lock_lane(ref);
	int			count = 0;

	if (lane == NULL)
		return 0;
	for (int i = lane->first; i < lane->first + lane->count && count < max; i++)
	{
		if (lane->candidates[i].key.scheduled_at > now)
			break;
		if (!is_parked(&lane->candidates[i], now) ||
			!lane->candidates[i].is_passed)
			count++;
	}
	unlock_lane(lane);
	return count;
}

JqLaneKey
jq_lane_position(JqLaneRef ref)
{
	JqLane	   *lane = lock_lane(ref);
	JqLaneKey	position = JQ_LANE_KEY_FIRST;

	if (lane != NULL)
	{
		position = lane->position;
		unlock_lane(lane);
	}
	return position;
}

void
jq_lane_publish(JqLaneRef ref, const JqCandidate *candidates, int count,
				JqLaneKey position)
{
	JqLane	   *lane = lock_lane(ref);

	my_read.slot = -1;
	if (lane == NULL)
		return;
	if (lane->is_being_read)
	{
		lane->position = jq_lane_compare_keys(&position, &lane->dropped) < 0 ?
			position : lane->dropped;
		end_read(lane);
		/* Offers beyond the new position are read from the index again. */
		truncate_at(lane, lane->position);
		for (int i = 0; i < count; i++)
			(void) insert(lane, &candidates[i], false);
	}
	unlock_lane(lane);
	jq_lanes_count(JQ_COUNT_REFILLS, 1);
}

void
jq_lane_give_up(void)
{
	JqLane	   *lane;

	if (my_sweep.slot >= 0)
	{
		lane = lock_lane(my_sweep);
		my_sweep.slot = -1;
		if (lane != NULL)
		{
			lane->sweep_at = 0;
			unlock_lane(lane);
		}
	}
	if (my_read.slot < 0)
		return;
	lane = lock_lane(my_read);
	my_read.slot = -1;
	if (lane == NULL)
		return;
	if (lane->is_being_read)
	{
		if (jq_lane_compare_keys(&lane->dropped, &lane->position) < 0)
			lane->position = lane->dropped;
		end_read(lane);
		truncate_at(lane, lane->position);
	}
	unlock_lane(lane);
}

static void
end_read(JqLane *lane)
{
	lane->is_being_read = false;
	ConditionVariableBroadcast(&lane->read);
}

bool
jq_lane_wait(JqLaneRef ref)
{
	volatile JqLane *lane = &jq_lane_array[ref.slot];
	static uint32 wait_event = 0;
	bool		is_over = true;

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("JobqueueLaneRefill");
	ConditionVariablePrepareToSleep(&jq_lane_array[ref.slot].read);
	while (is_over && lane->is_being_read && lane->generation == ref.generation)
		is_over = !ConditionVariableTimedSleep(&jq_lane_array[ref.slot].read,
											   READ_TIMEOUT_MS, wait_event);
	ConditionVariableCancelSleep();
	return is_over;
}

bool
jq_lane_offer(JqLaneRef ref, uint64 epoch, const JqCandidate *candidate,
			  bool is_new)
{
	JqLane	   *lane = lock_lane(ref);

	if (lane == NULL)
		return false;
	if (lane->epoch == epoch)
		(void) insert(lane, candidate, is_new);
	else
		truncate_at(lane, candidate->key);
	unlock_lane(lane);
	return true;
}

void
jq_lane_drop(JqLaneRef ref, const JqCandidate *candidate)
{
	JqLane	   *lane = lock_lane(ref);
	bool		is_there;
	int			place;

	if (lane == NULL)
		return;
	place = find_place(lane, &candidate->key, &is_there);
	if (is_there &&
		ItemPointerEquals(&lane->candidates[place].tid,
						  unconstify(ItemPointerData *, &candidate->tid)))
	{
		lane->count--;
		memmove(&lane->candidates[place], &lane->candidates[place + 1],
				sizeof(JqCandidate) * (lane->first + lane->count - place));
	}
	unlock_lane(lane);
}

bool
jq_lane_rewind(JqLaneRef ref, JqLaneKey key)
{
	JqLane	   *lane = lock_lane(ref);

	if (lane == NULL)
		return false;
	truncate_at(lane, key);
	unlock_lane(lane);
	return true;
}

/*
 * Where a key is, or belongs, among the candidates.  Most keys are later than
 * all others.
 */
static int
find_place(const JqLane *lane, const JqLaneKey *key, bool *is_there)
{
	int			low = lane->first;
	int			high = lane->first + lane->count;

	*is_there = false;
	if (high > low &&
		jq_lane_compare_keys(&lane->candidates[high - 1].key, key) < 0)
		return high;
	while (low < high)
	{
		int			middle = (low + high) / 2;
		int			order = jq_lane_compare_keys(&lane->candidates[middle].key,
												 key);

		if (order == 0)
		{
			*is_there = true;
			return middle;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* False: it was there already, or the index has it still to be read. */
static bool
insert(JqLane *lane, const JqCandidate *candidate, bool is_new)
{
	bool		is_there;
	int			place;

	if (!lane->is_being_read &&
		jq_lane_compare_keys(&candidate->key, &lane->position) >= 0)
		return false;
	place = find_place(lane, &candidate->key, &is_there);
	if (is_there)
	{
		if (is_new)
			lane->candidates[place] = *candidate;
		else if (candidate->parked_until == 0)
			lane->candidates[place].parked_until = 0;
		return false;
	}
	if (lane->count == JQ_LANE_CANDIDATES)
	{
		const JqCandidate *last = &lane->candidates[lane->first + lane->count - 1];

		if (place > last - lane->candidates)
		{
			truncate_at(lane, candidate->key);
			return false;
		}
		truncate_at(lane, last->key);
	}
	if (lane->first + lane->count == JQ_LANE_CANDIDATES)
	{
		memmove(lane->candidates, &lane->candidates[lane->first],
				sizeof(JqCandidate) * lane->count);
		place -= lane->first;
		lane->first = 0;
	}
	memmove(&lane->candidates[place + 1], &lane->candidates[place],
			sizeof(JqCandidate) * (lane->first + lane->count - place));
	lane->candidates[place] = *candidate;
	lane->count++;
	return true;
}

/* Leaves everything from this key on to the next reader of the index. */
static void
truncate_at(JqLane *lane, JqLaneKey key)
{
	JqLaneKey  *bound = lane->is_being_read ? &lane->dropped : &lane->position;
	bool		is_there;

	if (jq_lane_compare_keys(&key, bound) < 0)
		*bound = key;
	lane->count = find_place(lane, &key, &is_there) - lane->first;
}

/* ---- now and then ---- */

bool
jq_lane_begin_sweep(JqLaneRef ref, TimestampTz now)
{
	JqLane	   *lane = lock_lane(ref);
	bool		is_due;

	if (lane == NULL)
		return false;
	is_due = jq_lane_is_time(lane->sweep_at, now) &&
		lane->last_used_at > lane->swept_at;
	if (is_due)
	{
		lane->sweep_at = now + JQ_LANE_TURN_US;
		my_sweep = ref;
	}
	unlock_lane(lane);
	return is_due;
}

int
jq_lane_end_sweep(JqLaneRef ref, TimestampTz started_at,
				  const JqCandidate *candidates, int count)
{
	TimestampTz now = GetCurrentTimestamp();
	JqLane	   *lane = lock_lane(ref);
	int			repairs = 0;

	my_sweep.slot = -1;
	if (lane == NULL)
		return 0;
	for (int i = 0; i < count; i++)
		if (insert(lane, &candidates[i], false))
			repairs++;
	lane->swept_at = started_at;
	lane->sweep_at = now + Max(JQ_LANE_SWEEP_US,
							   (now - started_at) * JQ_LANE_REST);
	unlock_lane(lane);
	jq_lanes_count(JQ_COUNT_SWEEPS, 1);
	jq_lanes_count(JQ_COUNT_REPAIRS, repairs);
	return repairs;
}

bool
jq_lane_announce(JqLaneRef ref)
{
	JqLane	   *lane = lock_lane(ref);
	bool		is_first;

	if (lane == NULL)
		return false;
	is_first = !lane->is_announced;
	lane->is_announced = true;
	unlock_lane(lane);
	return is_first;
}
