/*-------------------------------------------------------------------------
 *
 * shared_slots.h
 *	  The layout of what workers know of each other, for the files
 *	  shared_*.c only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_SHARED_SLOTS_H
#define JQ_SHARED_SLOTS_H

#include "postgres.h"

#include "base/shared_state.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

#define MAX_MARKS 64
#define MAX_CANCELLED 64		/* claims of a worker that are remembered */
#define MAX_DEATHS 64			/* that are remembered */

/* A claim that was cancelled before it began. */
typedef struct CancelledClaim
{
	int64		job_id;
	int32		claim_no;
} CancelledClaim;

/* An executor that ended in the middle of a job. */
typedef struct Death
{
	pg_uuid_t	worker;
	int64		job_id;
} Death;

/* Fields that are not in JqWorkerInfo are the business of those files. */
typedef struct JqWorkerSlot
{
	bool		in_use;
	int			number;			/* of a dispatcher, among those of its
								 * database */
	uint32		generation;		/* grows with each reservation */
	Latch	   *latch;			/* NULL: has not attached */
	int32		claim_no;		/* of info.job_id */
	bool		is_cancelled;	/* the running job is */
	int			ncancelled;		/* of the claims that wait */
	CancelledClaim cancelled[MAX_CANCELLED];
	bool		waiting_taken;	/* see jq_shared_take_waiting */
	TimestampTz suspect_at;		/* a suspect job was begun; 0: none */
	JqWorkerInfo info;
} JqWorkerSlot;

typedef struct JqSharedState
{
	LWLock	   *lock;			/* guards everything but the next two */
	int64		incarnation;	/* never changes */
	pg_atomic_uint32 zone_generation;	/* written with the lock held */
	uint64		zone_digest;	/* of all time zones; 0: not known */
	Latch	   *launcher_latch; /* NULL: not running */
	int			nmarks;			/* MAX_MARKS + 1: too many */
	Oid			marks[MAX_MARKS];
	uint32		ndeaths;		/* ever; the last ones are kept */
	Death		deaths[MAX_DEATHS];
	int			nslots;
	JqWorkerSlot slots[FLEXIBLE_ARRAY_MEMBER];
} JqSharedState;

extern JqSharedState *jq_slots_state;	/* NULL: not preloaded */
extern JqWorkerSlot *jq_slots_mine; /* NULL: this process is no worker */

/*
 * The executor with this worker id, or the executor or dispatcher; NULL: there
 * is none.  The lock must be held.
 */
extern JqWorkerSlot *jq_slots_find_executor(const pg_uuid_t *worker);
extern JqWorkerSlot *jq_slots_find_worker(const pg_uuid_t *worker);

/* How many dispatchers of a database take jobs.  The lock must be held. */
extern int	jq_slots_count_dispatchers(Oid database);

/* The lowest number that none of them has.  The lock must be held. */
extern int	jq_slots_free_dispatcher_number(Oid database);

/* Remembers in which job an executor ended.  The lock must be held. */
extern void jq_slots_note_death(const JqWorkerSlot *slot);

#endif							/* JQ_SHARED_SLOTS_H */
