/*-------------------------------------------------------------------------
 *
 * limit_memory.h
 *	  What shared memory counts of jobs with limits.
 *
 *	  A limited job type has an entry, a job that a limit of concurrency counts
 *	  has a place, and a group has an entry while one of its jobs has a place,
 *	  or is known to wait, or has begun within its rate's window.  One LWLock,
 *	  "jobqueue_limits", guards all of it; it is taken last, and held for
 *	  memory work only.
 *
 *	  For limits.c, which decides, limit_notes.c and limit_places.c, which give
 *	  back, groups.c, which lets groups take turns, and limit_count.c, which
 *	  compares with the table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_LIMIT_MEMORY_H
#define JQ_LIMIT_MEMORY_H

#include "postgres.h"

#include "port/atomics.h"
#include "queue/job_types.h"
#include "queue/lanes.h"
#include "queue/rate.h"
#include "storage/lwlock.h"

#define JQ_LIMITED_TYPES 256
#define JQ_TYPE_PLACES 256
#define JQ_GROUP_PLACES 16
#define JQ_GROUP_KEY_SIZE 128
#define JQ_NO_GROUP (-1)

/* Which limits count the jobs of a type: what its places are for. */
#define JQ_COUNTS_TYPE 1
#define JQ_COUNTS_GROUPS 2
#define JQ_COUNTS_RETRIES 4		/* a retry keeps its place in the group */

typedef union JqTypeLog
{
	JqRateLog	log;
	char		room[JQ_RATE_LOG_SIZE(JQ_TYPE_PLACES)];
} JqTypeLog;

typedef union JqGroupLog
{
	JqRateLog	log;
	char		room[JQ_RATE_LOG_SIZE(JQ_GROUP_PLACES)];
} JqGroupLog;

typedef struct JqLimitedType
{
	Oid			database;		/* InvalidOid: free */
	char		name[JQ_LANE_NAME_SIZE];
	int			counts;			/* JQ_COUNTS_*; 0: its jobs are not counted */
	bool		has_rates;		/* what has begun is known, too */
	TimestampTz not_before;		/* nothing is claimed, or 0 */
	int			counting_pid;	/* who counts them now, or 0 */
	JqLimits	limits;			/* as the last claim knew them */
	int			running;		/* places that count for the type */
	bool		was_refused;	/* somebody waits for a place */
	uint32		hash;			/* of waiters */
	JqRunner	runner;
	Oid			role;			/* that runs it in the server, or InvalidOid */
	TimestampTz used_at;
	int			ngroups;
	int			first_ready;	/* groups whose turn comes, or JQ_NO_GROUP */
	int			last_ready;
	int			nready;
	JqTypeLog	rate;
} JqLimitedType;

typedef enum JqGroupState
{
	JQ_GROUP_IDLE,				/* nothing to do, or no place free */
	JQ_GROUP_READY,				/* waits for its turn */
	JQ_GROUP_TIMED,				/* waits for its rate, or a locked row */
	JQ_GROUP_TAKEN				/* somebody claims its next job */
} JqGroupState;

typedef struct JqGroupId
{
	uint64		hash;			/* of its key; two, for they must differ */
	uint64		other_hash;
	int32		type;			/* index of its JqLimitedType */
	int32		unused;			/* zero: this is a hash key */
} JqGroupId;

/*
 * The next job of a group is the first of those that were offered and are due;
 * "has_more" says that there may be others, all of them at or after the bound
 * in the index of groups.
 */
typedef struct JqGroup
{
	bool		in_use;
	JqGroupId	id;
	char		key[JQ_GROUP_KEY_SIZE]; /* empty: too long */
	uint32		generation;		/* grows when the entry becomes free */
	JqGroupState state;
	int			running;
	bool		has_next;
	bool		has_more;
	JqCandidate next;
	int16		priority;		/* of the next job */
	JqLaneRef	lane;			/* the same */
	int16		bound_priority;
	JqLaneKey	bound;
	int			previous;		/* among those ready, or free */
	int			following;
	int			heap_place;		/* among those timed */
	TimestampTz ready_at;
	JqGroupLog	rate;
} JqGroup;

typedef struct JqPlaceId
{
	Oid			database;
	int32		unused;			/* zero: this is a hash key */
	int64		job_id;
} JqPlaceId;

/* A job that counts. */
typedef struct JqPlace
{
	JqPlaceId	id;
	int32		claim_no;
	int			type;
	int			group;			/* or JQ_NO_GROUP */
	bool		counts_type;
	bool		counts_group;
	bool		is_uncommitted;
	TimestampTz taken_at;
} JqPlace;

/* Whether a backend is in a claim: odd while it is. */
typedef union JqClaimFlag
{
	struct
	{
		pg_atomic_uint64 number;
		Oid			database;	/* set before */
	}			of;
	char		padding[PG_CACHE_LINE_SIZE];
} JqClaimFlag;

typedef struct JqLimitMemory
{
	LWLock	   *lock;			/* guards everything but the atomics */
	TimestampTz started_at;
	pg_atomic_uint32 ntypes;	/* entries in use */
	int			high;			/* entries after this one were never used */
	uint32		hashes[JQ_LIMITED_TYPES];	/* of the entries, which are large */
	JqLimitedType types[JQ_LIMITED_TYPES];
	int			max_groups;
	int			ngroups;		/* in use */
	int			first_free;		/* group, or JQ_NO_GROUP */
	int			ntimed;
	int			nflags;
	JqClaimFlag *flags;			/* of each process */
	int		   *timed;			/* a heap of groups; the first is due first */
	JqGroup    *groups;
} JqLimitMemory;

extern JqLimitMemory *jq_limit_memory;	/* NULL: there is none */

/* Registers the shared memory; once, while preloading. */
extern void jq_limit_memory_init(void);

static inline void
jq_limit_lock(void)
{
	LWLockAcquire(jq_limit_memory->lock, LW_EXCLUSIVE);
}

static inline void
jq_limit_unlock(void)
{
	LWLockRelease(jq_limit_memory->lock);
}

/* Whether any job type of the server is limited. */
static inline bool
jq_limit_memory_is_used(void)
{
	return jq_limit_memory != NULL &&
		pg_atomic_read_u32(&jq_limit_memory->ntypes) > 0;
}

/* All that follows needs the lock. */

/* The entry of a type of this database; NULL: none, or no room for one. */
extern JqLimitedType *jq_limit_find_type(const char *name);
extern JqLimitedType *jq_limit_make_type(const char *name, TimestampTz now);
extern int	jq_limit_type_number(const JqLimitedType *type);

/* Forgets the places of a type, whose jobs are to be counted anew. */
extern void jq_limit_forget_places(JqLimitedType *type);

/* Forgets its groups. */
extern void jq_limit_drop_groups(JqLimitedType *type);

/* The groups of a type, one after the other: from NULL to NULL. */
extern JqGroup *jq_limit_next_group(const JqLimitedType *type, JqGroup *group);

/* The place of a job of this database; NULL: none, or no room for one. */
extern JqPlace *jq_limit_find_place(int64 job_id);
extern JqPlace *jq_limit_make_place(int64 job_id);
extern void jq_limit_drop_place(JqPlace *place);

/* Copies up to "max" places of this database, for whoever compares them. */
extern int	jq_limit_list_places(JqPlace *places, int max, TimestampTz before);

/* The entry of a group; NULL: none, or no room for one. */
extern JqGroup *jq_limit_find_group(const JqLimitedType *type,
									const char *key, bool create);
extern JqGroup *jq_limit_group(int number);
extern int	jq_limit_group_number(const JqGroup *group);

/* Frees a group that nothing is known of. */
extern void jq_limit_free_group_if_idle(JqGroup *group);

/* Puts a group at the end of its type's queue, or takes it out of any. */
extern void jq_limit_queue_group(JqGroup *group);
extern void jq_limit_time_group(JqGroup *group, TimestampTz ready_at);
extern void jq_limit_unqueue_group(JqGroup *group);

/* The group that is timed and due first; NULL: none is. */
extern JqGroup *jq_limit_first_timed(void);

#endif							/* JQ_LIMIT_MEMORY_H */
