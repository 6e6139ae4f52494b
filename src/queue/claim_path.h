/*-------------------------------------------------------------------------
 *
 * claim_path.h
 *	  What the two ways of finding jobs for a claim share.
 *
 *	  claim.c chooses the way and takes the jobs; claim_memory.c finds them
 *	  through the lanes in shared memory, claim_sql.c through SQL.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_CLAIM_PATH_H
#define JQ_CLAIM_PATH_H

#include "postgres.h"

#include "base/table.h"
#include "queue/claim.h"
#include "queue/job.h"
#include "queue/job_types.h"
#include "queue/lanes.h"

/* One call of jq_claim. */
typedef struct JqClaiming
{
	const JqClaim *claim;
	TimestampTz now;
	JqTable		live;
	TupleTableSlot *row;		/* the version that is there */
	TupleTableSlot *next;		/* the version that is running */
	TupleTableSlot *parent_row; /* the same in the layout of the result */
	Tuplestorestate *rows;
	int			claimed;
	BlockNumber blocks;			/* of the live leaf, as last counted */
	bool		is_alone;		/* the transaction had written nothing before */
	bool		must_stop;		/* the job just taken runs alone */
	TimestampTz retry_at;		/* see jq_claim_retry_at() */
	bool		ignores_limits; /* an operator wants this one job */
	const char *turn_type;		/* whose groups have a turn, for lack of a
								 * lane */
	List	   *uncounted;		/* names of types whose jobs must be counted */
} JqClaiming;

/* What became of a job that a claim tried to take. */
typedef enum JqTaking
{
	JQ_TAKING_CLAIMED,
	JQ_TAKING_BUSY,				/* somebody else has it, or it must wait */
	JQ_TAKING_GROUP,			/* its group is at a limit */
	JQ_TAKING_LIMITED,			/* its type is: no other job of it can be
								 * taken */
	JQ_TAKING_STALE,			/* it is not there any more, or not so */
	JQ_TAKING_CIRCUIT			/* the circuit of its stage is open */
} JqTaking;

/*
 * Tries to claim the row version at "tid".  With "expected", it must be that
 * job, and of that lane; without one, of "turn_type".  Needs a snapshot that is newer
 * than the finding.
 */
extern JqTaking jq_claim_take(JqClaiming *claiming, ItemPointer tid,
							  const JqCandidate *expected,
							  const JqLaneName *lane);

/*
 * Whether the circuit of a lane lets jobs be claimed now, or one of them as a
 * probe; if not, "next_at" is when to ask again.
 */
extern bool jq_claim_is_admitted(const char *job_type, const char *stage,
								 TimestampTz now, bool *is_probe,
								 TimestampTz *next_at);

/*
 * Whether the limits of a type let jobs of it be claimed now, and how many; if
 * not, "next_at" is when they may, or DT_NOEND.  "claiming" is NULL for those
 * who only look.
 */
extern bool jq_claim_is_open(JqClaiming *claiming, const JqJobType *type,
							 TimestampTz now, int *available,
							 TimestampTz *next_at);

/* Reads the row of a candidate; false: it is not that job any more. */
extern bool jq_claim_read(JqClaiming *claiming, const JqCandidate *candidate,
						  const JqLaneName *lane, JqJob *job);

/*
 * Whether this claim may take jobs of a type.  Those of the built-in type run
 * as their owners: then "job_owner" matters.
 */
extern bool jq_claim_may_take(const JqClaim *claim, const JqJobType *type,
							  Oid job_owner);

/* Claims until there are enough or none is left, through SQL. */
extern void jq_claim_by_sql(JqClaiming *claiming);

/* When the first job for this claim is due: DT_NOEND if there is none. */
extern TimestampTz jq_claim_next_due_by_sql(const JqClaim *claim);

/*
 * Whether the lanes can serve this claim now; may look for new ones.  If not,
 * "reason" says why in words, or is NULL where SQL is as it should be.
 */
extern bool jq_claim_has_memory(JqTable *live, TimestampTz now,
								const char **reason);

/*
 * Claims until there are enough or none is left, through the lanes.  False:
 * there may be more that only SQL can find.
 */
extern bool jq_claim_by_memory(JqClaiming *claiming);

/* As jq_claim_next_due_by_sql; false: only SQL can tell. */
extern bool jq_claim_next_due_by_memory(const JqClaim *claim, Relation live,
										TimestampTz now, TimestampTz *due_at);

/* Marks the lanes of a type that have ready jobs; true if one was not. */
extern bool jq_claim_announce_lanes(const char *job_type, Relation live,
									TimestampTz now);

/*
 * Whether a candidate is what jq_claim_take() would not call stale.  Needs a
 * snapshot that is newer than the finding.
 */
extern bool jq_claim_is_there(JqClaiming *looking,
							  const JqCandidate *candidate,
							  const JqLaneName *lane);

/* As jq_claim_count_due; "looking" has a table and a slot for its rows. */
extern bool jq_claim_count_due_by_memory(JqClaiming *looking,
										 const char *job_type, int max,
										 JqDueJobs **due, int *count);

/* Looks over the lanes whose turn it is, in a snapshot of its own. */
extern void jq_claim_sweep(Relation live);

#endif							/* JQ_CLAIM_PATH_H */
