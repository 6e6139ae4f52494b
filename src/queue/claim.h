/*-------------------------------------------------------------------------
 *
 * claim.h
 *	  Claiming ready jobs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_CLAIM_H
#define JQ_CLAIM_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "queue/job.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

typedef struct JqClaim
{
	pg_uuid_t	worker;
	List	   *job_types;		/* of char *; NIL: every type of the runner */
	int			max_jobs;
	int64		lease_us;		/* 0: that of the job type */
	int64		holder;			/* incarnation for in-server work, else 0 */
	Oid			role;			/* in-server: only jobs that run as this role */
	bool		is_http;		/* in-server: HTTP jobs, of whatever role */
	bool		skip_suspects;	/* in-server: no job that crashed the server */
} JqClaim;

/*
 * Claims up to max_jobs ready jobs in claim order (priority, scheduled_at,
 * id) and puts their rows, in the layout of jobs_queue, into "rows".  Returns
 * how many.  Never waits for a lock on a job; 40001 may be raised under
 * REPEATABLE READ and SERIALIZABLE.  Enters a scope of its own.  An in-server
 * claim (holder <> 0) takes a job that has crashed the server alone.
 */
extern int	jq_claim(const JqClaim *claim, Tuplestorestate *rows,
					 TupleDesc row_type);

/*
 * When limits may allow a job that they kept from the last claim of this
 * backend; DT_NOEND: they kept none, or somebody will be told.
 */
extern TimestampTz jq_claim_retry_at(void);

/*
 * Claims one job, due or not, waiting for whoever has it locked; puts its row
 * into "rows".  False: it is not live, that is, unknown or ended; or live with
 * a status other than queued; or queued, and a trigger of the user's keeps it.
 * Enters a scope of its own; settings that stop claims are not looked at.
 */
extern bool jq_claim_job(const JqClaim *claim, int64 job_id,
						 Tuplestorestate *rows, TupleDesc row_type,
						 bool *is_live, JqStatus *status);

/*
 * When the first job that this claim could take is due: now or earlier if one
 * is ready, DT_NOEND if there is none.  Writes nothing.  Enters a scope of its
 * own.
 */
extern TimestampTz jq_claim_next_due(const JqClaim *claim);

/* Due jobs of an owner, if they are of the built-in type, else of anybody. */
typedef struct JqDueJobs
{
	Oid			owner;			/* InvalidOid: anybody */
	int			jobs;
} JqDueJobs;

/*
 * The due jobs of a job type as the lanes know them, one entry for each lane
 * that has some, of which at most "max" are counted; allocated here.  The first
 * of them is there.  False: nothing was found out, and SQL must.  Writes
 * nothing.  Enters a scope of its own.
 */
extern bool jq_claim_count_due(const char *job_type, int max, JqDueJobs **due,
							   int *count);

/*
 * What claims do now and then, for a worker that does it in their stead.
 * Enters scopes of its own.
 */
extern void jq_claim_tend(void);

/* The same and the taking back of expired leases, unless a scheduler runs. */
extern void jq_claim_tend_if_alone(void);

/*
 * Whether jobs of this type, which outside workers serve, began to wait since
 * this was last asked or a claim found none; else *due_at is when to ask
 * again.  Enters a scope of its own.
 */
extern bool jq_claim_must_announce(const char *job_type, TimestampTz *due_at);

#endif							/* JQ_CLAIM_H */
