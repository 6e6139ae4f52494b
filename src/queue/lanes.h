/*-------------------------------------------------------------------------
 *
 * lanes.h
 *	  Where to look for ready jobs: the shared memory of claims.
 *
 *	  A lane is one (database, job type, stage, priority) of the ready index;
 *	  the built-in type, whose jobs run as their owners, has lanes for each
 *	  owner, so that none has to look at the jobs of others.  A lane holds candidates in the order of their keys (scheduled_at, id) and a
 *	  position: every job of the lane with a key before it is a candidate, or
 *	  has been taken.  All of it is a memory of where to look.  Whether a
 *	  candidate can be claimed, the heap alone decides; what is wrong or
 *	  missing here costs time.
 *
 *	  Nothing here touches a table.  Nothing allocates or raises, but for the
 *	  functions that list, and interrupts while waiting: so transaction
 *	  callbacks may call the others.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_LANES_H
#define JQ_LANES_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/itemptr.h"

/* Longest name of a job type or stage, with its terminator: row_rules.c. */
#define JQ_LANE_NAME_SIZE 256

/* How many candidates a refill may bring; the rest of the room is for hints. */
#define JQ_LANE_REFILL 192

/* The order of jobs within a lane. */
typedef struct JqLaneKey
{
	TimestampTz scheduled_at;
	int64		id;
} JqLaneKey;

typedef struct JqCandidate
{
	JqLaneKey	key;
	ItemPointerData tid;		/* of the row version */
	bool		is_passed;		/* while parked, by claims too */
	Oid			owner;			/* of the job */
	uint32		parked_until;	/* JQ_LANE_MS of an instant, till which it is
								 * not ready; 0: not parked */
} JqCandidate;

/* An instant in milliseconds, which wrap around. */
#define JQ_LANE_MS(instant) ((uint32) ((uint64) (instant) / 1000))

/* A lane as a backend remembers it; good until the lane is evicted. */
typedef struct JqLaneRef
{
	int			slot;			/* -1: none */
	uint32		generation;
} JqLaneRef;

typedef struct JqLaneName
{
	Oid			owner;			/* of the built-in type's jobs; else
								 * InvalidOid */
	char		job_type[JQ_LANE_NAME_SIZE];
	char		stage[JQ_LANE_NAME_SIZE];
	int16		priority;
} JqLaneName;

/*
 * Sets a name from the columns of a row (text, text, smallint, and the owner
 * of the job).  False: it is too long for a lane, which only rows that no
 * trigger saw can have.
 */
extern bool jq_lane_set_name(JqLaneName *name, Datum job_type, Datum stage,
							 Datum priority, Oid owner);

/* What a lane has for a claim. */
typedef enum JqLaneAnswer
{
	JQ_LANE_READY,				/* candidates that are due */
	JQ_LANE_WAITING,			/* nothing before "next_at" */
	JQ_LANE_UNREAD,				/* the caller must read on: see refill */
	JQ_LANE_BEING_READ,			/* somebody else does: wait, and ask again */
	JQ_LANE_PARKED,				/* only jobs that somebody else has are in
								 * sight */
	JQ_LANE_GONE				/* evicted */
} JqLaneAnswer;

/* Jobs that a claim asks a lane for. */
typedef struct JqLaneWish
{
	TimestampTz now;
	bool		is_claim;		/* then only what claims pass is parked */
	int			max;			/* 0: only look */
	bool		has_limit;		/* only keys up to "limit" */
	JqLaneKey	limit;
} JqLaneWish;

/* Counted per database since the server started. */
typedef enum JqLaneCount
{
	JQ_COUNT_MEMORY_CLAIMS,		/* calls that found their jobs here */
	JQ_COUNT_SQL_CLAIMS,		/* calls on the reference path */
	JQ_COUNT_OVERFLOWS,			/* of these, for want of lanes */
	JQ_COUNT_REFILLS,
	JQ_COUNT_DISCOVERIES,
	JQ_COUNT_SWEEPS,
	JQ_COUNT_REPAIRS,			/* jobs that a sweep has put back */
	JQ_COUNT_STALE				/* candidates that the heap refused */
} JqLaneCount;
#define JQ_LANE_COUNTS (JQ_COUNT_STALE + 1)

/* Work that one process at a time does for a database, now and then. */
typedef enum JqLaneDuty
{
	JQ_DUTY_DISCOVER,			/* find lanes in the ready index */
	JQ_DUTY_SWEEP,				/* find out which lanes to look over */
	JQ_DUTY_RECLAIM				/* take back expired leases */
} JqLaneDuty;
#define JQ_DUTY_COUNT (JQ_DUTY_RECLAIM + 1)

/* What people may see of a lane. */
typedef struct JqLaneInfo
{
	JqLaneName	name;
	int			candidates;
	TimestampTz position_at;	/* scheduled_at of the position */
	TimestampTz last_used_at;	/* by a claim, or by who looks for one */
	TimestampTz last_claim_at;	/* 0: none yet */
} JqLaneInfo;

#define JQ_LANE_KEY_FIRST ((JqLaneKey) {DT_NOBEGIN, PG_INT64_MIN})
#define JQ_LANE_KEY_END ((JqLaneKey) {DT_NOEND, PG_INT64_MAX})

/* Registers the shared memory; once, while preloading. */
extern void jq_lanes_init(void);

/* Whether there is shared memory with room for lanes. */
extern bool jq_lanes_exist(void);

extern int	jq_lane_compare_keys(const JqLaneKey *a, const JqLaneKey *b);

/*
 * Joins the lanes of this database, whose live leaf is stored in this file.
 * What is remembered of another file is forgotten.  The caller has the table
 * locked.  False when there is no room for one more database.
 */
extern bool jq_lanes_join(Oid relid, Oid file);

/* Whether this backend has joined them, for what is not about jobs. */
extern bool jq_lanes_are_joined(void);

/* Forgets all that is known of the jobs of this database, but not its lanes. */
extern void jq_lanes_forget(void);

/* The next claim looks for lanes that are not here. */
extern void jq_lanes_discover_soon(void);

/* Grows whenever the jobs of this database are forgotten. */
extern uint64 jq_lanes_epoch(void);

/* Grows whenever a lane appears or goes. */
extern uint64 jq_lanes_generation(void);

/*
 * The lanes of this database, of one job type or of all (NULL), and their
 * names; allocated here.  Returns how many.
 */
extern int	jq_lanes_list(const char *job_type, JqLaneRef **refs,
						  JqLaneName **names);

/*
 * Finds or makes a lane; a new one knows nothing yet.  May evict one that
 * nobody has used for a while.  slot -1: there is no room.
 */
extern JqLaneRef jq_lanes_get(const JqLaneName *name, bool create);

/* Whether the last discovery could not hold all lanes of this database. */
extern bool jq_lanes_overflowed(void);
extern void jq_lanes_set_overflowed(bool overflowed);

/*
 * Takes up to wish->max candidates that are due, in the order of their keys,
 * and says how many, or why there are none.  With max 0 and READY,
 * candidates[0] is the one that comes first, which stays.  WAITING sets
 * next_at.  After UNREAD the caller must jq_lane_publish() or
 * jq_lane_give_up(), even if it fails.
 */
extern JqLaneAnswer jq_lane_take(JqLaneRef ref, const JqLaneWish *wish,
								 JqCandidate *candidates, int *count,
								 TimestampTz *next_at);

/* How many candidates a claim would try now; more than "max" do not count. */
extern int	jq_lane_count_due(JqLaneRef ref, TimestampTz now, int max);

/* Where the refill that jq_lane_take() asked for starts, inclusive. */
extern JqLaneKey jq_lane_position(JqLaneRef ref);

/*
 * Ends a refill: "candidates" are all queued jobs from the old position up to
 * the new one, exclusive, as a snapshot taken after jq_lane_take() saw them.
 */
extern void jq_lane_publish(JqLaneRef ref, const JqCandidate *candidates,
							int count, JqLaneKey position);

/* Ends a refill or a sweep of this backend that failed, if there is one. */
extern void jq_lane_give_up(void);

/*
 * Waits while somebody else refills the lane; serves interrupts.  False: that
 * takes too long, perhaps because he waits for this transaction.
 */
extern bool jq_lane_wait(JqLaneRef ref);

/*
 * Offers a job that is or may be ready, as found in the table that was joined
 * at "epoch".  What is_new replaces an older version of the row; else one that
 * is there stays, but is not parked any more.  False: the lane has gone.
 */
extern bool jq_lane_offer(JqLaneRef ref, uint64 epoch,
						  const JqCandidate *candidate, bool is_new);

/* Forgets a candidate, unless a newer version of its row has been offered. */
extern void jq_lane_drop(JqLaneRef ref, const JqCandidate *candidate);

/* As jq_lane_offer, for many jobs of which this is the first key. */
extern bool jq_lane_rewind(JqLaneRef ref, JqLaneKey key);

/*
 * Whether it is this backend's turn to look over a lane that was used since
 * the last time.  Then jq_lane_end_sweep() must follow, or jq_lane_give_up().
 */
extern bool jq_lane_begin_sweep(JqLaneRef ref, TimestampTz now);

/* Returns how many jobs it has put back. */
extern int	jq_lane_end_sweep(JqLaneRef ref, TimestampTz started_at,
							  const JqCandidate *candidates, int count);

/*
 * The same for a duty of the database, which comes again after interval_us,
 * or later if it took long: a duty takes at most a fiftieth of the time.
 */
extern bool jq_lanes_begin_duty(JqLaneDuty duty, TimestampTz now);
extern void jq_lanes_end_duty(JqLaneDuty duty, TimestampTz started_at,
							  int64 interval_us);

/* Ends the duties of this backend that failed: somebody else may try. */
extern void jq_lanes_give_up(void);

/* Whether a discovery has ended since everything was forgotten. */
extern bool jq_lanes_are_discovered(void);

/*
 * Marks a lane as announced, until a claim finds it empty; false when it was
 * marked already.
 */
extern bool jq_lane_announce(JqLaneRef ref);

/* Adds to what is counted for this database; reads it; lists its lanes. */
extern void jq_lanes_count(JqLaneCount what, uint64 number);
extern bool jq_lanes_counts(uint64 counts[JQ_LANE_COUNTS]);
extern int	jq_lanes_info(JqLaneInfo **lanes);

#endif							/* JQ_LANES_H */
