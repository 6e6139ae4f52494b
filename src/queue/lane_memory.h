/*-------------------------------------------------------------------------
 *
 * lane_memory.h
 *	  The layout of the lanes in shared memory.
 *
 *	  For lanes.c, which keeps the directory of databases and lanes, and
 *	  lane.c, which keeps what a lane remembers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_LANE_MEMORY_H
#define JQ_LANE_MEMORY_H

#include "postgres.h"

#include "port/atomics.h"
#include "queue/lanes.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"

#define JQ_LANE_CANDIDATES 256
#define JQ_LANE_DATABASES 256

/* A lane in use is looked over so often, at most a fiftieth of the time. */
#define JQ_LANE_SWEEP_US (5 * USECS_PER_SEC)
#define JQ_LANE_REST 50

/* When the turn passes to another if who has it never ends it. */
#define JQ_LANE_TURN_US (60 * USECS_PER_SEC)

/* The key of the hash table; unused bytes are zero. */
typedef struct JqLaneId
{
	Oid			database;
	JqLaneName	name;
} JqLaneId;

/* A lane as the directory sees it. */
typedef struct JqLaneHeader
{
	bool		in_use;
	int			database;		/* slot in databases[] */
	JqLaneId	id;
} JqLaneHeader;

/* What is remembered of a lane; guarded by its lock. */
typedef struct JqLane
{
	uint32		generation;		/* grows at eviction; needs both locks */
	int			database;		/* slot in databases[] */
	uint64		epoch;			/* of the database, when it was last reset */
	JqLaneKey	position;
	bool		is_being_read;	/* then "position" is that of the reader */
	JqLaneKey	dropped;		/* first key left out while it is read */
	ConditionVariable read;		/* signalled when it is not read any more */
	bool		is_announced;
	TimestampTz last_used_at;	/* by a claim, or by who looks for one */
	TimestampTz last_claim_at;	/* the same, by a claim; 0: none yet */
	TimestampTz last_needed_at; /* as last_used_at, with jobs in it */
	TimestampTz swept_at;
	TimestampTz sweep_at;
	int			first;
	int			count;
	JqCandidate candidates[JQ_LANE_CANDIDATES];
} JqLane;

typedef struct JqLaneDatabase
{
	Oid			oid;			/* InvalidOid: free */
	Oid			relid;			/* the live leaf */
	Oid			file;			/* where it is stored */
	pg_atomic_uint64 epoch;
	bool		is_overflowed;
	bool		is_discovered;	/* all lanes that there were are known */
	TimestampTz last_used_at;
	TimestampTz duty_at[JQ_DUTY_COUNT];
	pg_atomic_uint64 counts[JQ_LANE_COUNTS];
} JqLaneDatabase;

typedef struct JqLaneDirectory
{
	LWLock	   *lock;			/* guards headers, databases and hash table */
	pg_atomic_uint64 generation;
	int			nlanes;
	JqLaneDatabase databases[JQ_LANE_DATABASES];
	JqLaneHeader headers[FLEXIBLE_ARRAY_MEMBER];
} JqLaneDirectory;

extern JqLaneDirectory *jq_lane_directory;	/* NULL: there is none */
extern JqLane *jq_lane_array;
extern LWLockPadded *jq_lane_locks; /* the directory's, then the lanes' */

/*
 * Makes a lane forget everything; its lock must be held.  Whoever reads it
 * meanwhile has read in vain.
 */
extern void jq_lane_reset(JqLane *lane);

/*
 * Whether an instant has come.  One that is very far off was noted before the
 * clock was set back.
 */
static inline bool
jq_lane_is_time(TimestampTz instant, TimestampTz now)
{
	return instant <= now || instant > now + USECS_PER_HOUR;
}

#endif							/* JQ_LANE_MEMORY_H */
