/*-------------------------------------------------------------------------
 *
 * resolve.h
 *	  Ending claims, and the other transitions of a single job.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_RESOLVE_H
#define JQ_RESOLVE_H

#include "postgres.h"

#include "body/journal.h"
#include "datatype/timestamp.h"
#include "utils/uuid.h"

/* Which claim of which job: claim_no 0 means whichever the worker holds. */
typedef struct JqHeld
{
	int64		job_id;
	pg_uuid_t	worker;
	int32		claim_no;
} JqHeld;

typedef enum JqOutcomeKind
{
	JQ_OUTCOME_COMPLETED,
	JQ_OUTCOME_SKIPPED,			/* charged; the job completes, without success */
	JQ_OUTCOME_FAILED,			/* charged; retried while attempts are left */
	JQ_OUTCOME_RELEASED,		/* uncharged; queued again at retry_at */
	JQ_OUTCOME_EXPIRED,			/* charged; queued again at once */
	JQ_OUTCOME_CRASHED			/* uncharged, crashes + 1; queued at once */
} JqOutcomeKind;

typedef struct JqOutcome
{
	JqOutcomeKind kind;
	const char *error;			/* or NULL */
	int			reason_length;	/* of error, before what others say; 0: all */
	bool		has_result;
	Datum		result;			/* jsonb */
	bool		is_permanent;	/* FAILED: no further attempt */
	bool		has_retry_at;
	TimestampTz retry_at;		/* FAILED, RELEASED: instead of the backoff */
	TimestampTz not_before;		/* FAILED: the backoff lasts so long at least */
	int			sqlstate;		/* FAILED: for the error rules; 0: none */
	int			http_status;	/* the same; it decided about is_permanent */
	bool		is_reclaimed;	/* by somebody else than its worker */
	const char *command_tag;	/* of an SQL job, or NULL */
	Datum		response;		/* jsonb, of an HTTP job; 0: none */
	const JqJournal *journal;	/* lines to be kept with the run, or NULL */
} JqOutcome;

/*
 * Ends a claim.  False when the worker does not hold the job (any more), and
 * then nothing changed.  A failure with attempts left queues the job again
 * after its backoff; otherwise it ends as failed, or error where the job type
 * has dead letters; after a cancellation request it ends as cancelled.  The
 * error rules of the job type may decide otherwise about a failure, unless it
 * is permanent without an HTTP status.
 * Enters a scope of its own.
 */
extern bool jq_resolve(const JqHeld *held, const JqOutcome *outcome);

/*
 * The same for many claims, whose jobs are locked in the order of their ids
 * and dependents after all of them, so that two such calls never deadlock.
 */
extern void jq_resolve_many(const JqHeld *held, const JqOutcome *outcomes,
							int count, bool *results);

/* Extends the lease from now; 0: by the job type's lease.  progress: jsonb. */
extern bool jq_resolve_heartbeat(const JqHeld *held, int64 extend_us,
								 bool has_progress, Datum progress);

extern bool jq_resolve_set_stage(const JqHeld *held, const char *stage);

/* Adds a line to the log of the claim; see jq_job_log_add().  False: not held. */
extern bool jq_resolve_log(const JqHeld *held, const char *level,
						   const char *message, const char *data);

/* Completes a job that nobody holds.  False when held, ended so or unknown. */
extern bool jq_resolve_complete_unheld(int64 job_id, bool has_result,
									   Datum result);

/*
 * Queues a job again with all its attempts.  Raises P0002 when it is unknown,
 * 55000 when it is running or blocked.
 */
extern void jq_resolve_requeue(int64 job_id);

/*
 * The above for a job that has ended in one of "statuses", a set of bits
 * (1 << JqStatus), to be due after delay_us; false when it has not, or not any
 * more.
 */
extern bool jq_resolve_requeue_ended(int64 job_id, int statuses,
									 int64 delay_us);

/*
 * The same at once, for a job that ended without success.  Raises P0002 when
 * it is unknown, 55000 when it has another status.
 */
extern void jq_resolve_redrive(int64 job_id);

/* See cancel_job.  Raises P0002 when the job is unknown. */
extern bool jq_resolve_cancel(int64 job_id, const char *reason);

/*
 * Ends a queued or blocked job as failed, without a claim: its command cannot
 * run (its role is gone, say).  False when it is no longer queued.
 */
extern bool jq_resolve_reject(int64 job_id, const char *error);

/*
 * Ends the claims of lost jobs (see running.h): EXPIRED for outside workers,
 * CRASHED for those of another life of the server, FAILED for those of this
 * one, which ended with an error that they could not record.  Returns how
 * many.  Skips rows that somebody has locked, and, with a WARNING, those that
 * cannot be written.
 */
extern int	jq_resolve_reclaim(int64 incarnation,
							   bool (*is_alive) (const pg_uuid_t *worker),
							   bool is_thorough);

#endif							/* JQ_RESOLVE_H */
