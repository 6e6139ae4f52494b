/*-------------------------------------------------------------------------
 *
 * running.h
 *	  Finding the jobs that somebody holds.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_RUNNING_H
#define JQ_RUNNING_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/itemptr.h"
#include "utils/uuid.h"

typedef struct JqRunningJob
{
	ItemPointerData tid;		/* of the version that the snapshot sees */
	int64		id;
	int32		claim_no;
	pg_uuid_t	worker;
	int64		holder;			/* 0: an outside worker's */
	TimestampTz lease_expires_at;	/* DT_NOBEGIN: null */
	bool		cancel_requested;
} JqRunningJob;

/*
 * The running jobs, in the result context of the scope that this enters.
 *
 * No index tells running jobs from others: a claim would have to maintain it.
 * But claims take the jobs of a lane from its head, so running jobs are
 * there: the first thousand rows of each lane are read, at a cost in lanes,
 * however long they are; of the built-in type, of each lane of each owner.  A thorough look reads every live row, and finds
 * those that have a thousand others before them, too.
 */
extern JqRunningJob *jq_running_jobs(bool is_thorough, int *count);

/*
 * Whether nobody is looking after a job any more: an outside worker whose
 * lease is over, or a worker of a server life that ended ("incarnation" is
 * that of now, 0 without shared memory), or one of this life that is_alive
 * denies.
 */
extern bool jq_running_is_lost(const JqRunningJob *job, int64 incarnation,
							   bool (*is_alive) (const pg_uuid_t *worker));

#endif							/* JQ_RUNNING_H */
