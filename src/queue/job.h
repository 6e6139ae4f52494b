/*-------------------------------------------------------------------------
 *
 * job.h
 *	  A row of jobs_queue as C sees it, and the legal transitions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_JOB_H
#define JQ_JOB_H

#include "postgres.h"

#include "base/compat.h"
#include "base/table.h"
#include "datatype/timestamp.h"
#include "utils/uuid.h"

typedef enum JqStatus
{
	JQ_STATUS_QUEUED,
	JQ_STATUS_RUNNING,
	JQ_STATUS_BLOCKED,
	JQ_STATUS_COMPLETED,
	JQ_STATUS_FAILED,
	JQ_STATUS_ERROR,
	JQ_STATUS_CANCELLED
} JqStatus;
#define JQ_STATUS_COUNT (JQ_STATUS_CANCELLED + 1)

/*
 * The row of a slot.  Pointers lead into the slot or into memory of the
 * caller's context; valid as long as the slot keeps its row.
 */
typedef struct JqJob
{
	int64		id;
	char	   *job_type;
	char	   *stage;
	JqStatus	status;
	int16		priority;
	TimestampTz scheduled_at;
	int16		attempts;
	int16		max_attempts;
	int32		claim_no;
	int16		crashes;
	bool		has_correlation_id;
	Datum		correlation_id;
	bool		is_held;		/* locked_by is not null */
	pg_uuid_t	locked_by;
	TimestampTz locked_at;		/* DT_NOBEGIN: null */
	TimestampTz lease_expires_at;	/* DT_NOBEGIN: null */
	bool		cancel_requested;
	int64		holder;			/* 0: an outside worker's */
	bool		has_backoff;
	Datum		backoff;		/* jsonb */
	int32		waiting_for;
	char	   *group_key;		/* NULL: none */
	Oid			owner;			/* InvalidOid: null */
	TimestampTz created_at;
	TimestampTz updated_at;
} JqJob;

extern const char *jq_job_status_name(JqStatus status);

/* Raises 23514 when this names no status. */
extern JqStatus jq_job_status(const char *name);

/* Whether a job ends in this status, that is, lives in the done leaf. */
extern bool jq_job_status_is_final(JqStatus status);

/* The one table of transitions; from == to is always legal. */
extern bool jq_job_transition_is_legal(JqStatus from, JqStatus to);

/* Reads the row in a slot of jobs_queue or of one of its leaves. */
extern void jq_job_read(TupleTableSlot *slot, JqJob *job);

/*
 * Starts the next version of a row: copies "row" into the virtual slot
 * "next", whose columns the caller then sets, and sets updated_at.
 */
extern void jq_job_begin_change(TupleTableSlot *row, TupleTableSlot *next,
								TimestampTz now);

/* Sets one column (JQ_JOB_*) of a virtual slot. */
extern void jq_job_set(TupleTableSlot *next, int column, Datum value);
extern void jq_job_set_null(TupleTableSlot *next, int column);

/* Sets status after checking that the transition from "job" is legal. */
extern void jq_job_set_status(TupleTableSlot *next, const JqJob *job,
							  JqStatus status);

/* Clears the columns that only a running job has. */
extern void jq_job_clear_claim(TupleTableSlot *next);

/*
 * Writes the next version of a locked row in its place; claims are told if it
 * is ready.  False: a trigger has suppressed it.
 */
extern bool jq_job_update(JqTable *live, TupleTableSlot *row,
						  TupleTableSlot *next);

/*
 * Moves a locked row between the leaves, by DELETE and INSERT: a moving
 * UPDATE would fail concurrent lockers with 40001.  "next" is the new
 * version, in the layout of "from".  Raises 09000 when a trigger of the
 * user's keeps the row where it is.
 */
extern void jq_job_move(JqTable *from, JqTable *to, TupleTableSlot *row,
						TupleTableSlot *next);

/* Deletes a locked row, with the same error. */
extern void jq_job_delete(JqTable *from, TupleTableSlot *row);

/* Raises that error: a trigger suppressed a write to this job. */
pg_noreturn extern void jq_job_report_suppressed(int64 job_id);

/* How a claim ended: the row of job_runs. */
typedef struct JqRun
{
	const char *status;			/* completed, failed, expired, … */
	bool		charged;
	bool		will_retry;		/* after a failure */
	TimestampTz finished_at;
	const char *error;			/* or NULL */
	int			reason_length;	/* of error, before what others say; 0: all */
	bool		is_dead_letter; /* the job ended with it, as error */
	bool		has_result;
	Datum		result;			/* jsonb */
	const char *command_tag;	/* or NULL */
	Datum		response;		/* jsonb; 0: none */
} JqRun;

/* Makes the next version of a job, which the run tells of, the completed one. */
extern void jq_job_set_completed(TupleTableSlot *next, const JqJob *job,
								 const JqRun *run);

/*
 * Records the end of the claim that "job" was held under.  The second writes
 * into an open job_runs, with a slot of jq_table_new_row().
 */
extern void jq_job_record_run(const JqJob *job, const JqRun *run);
extern void jq_job_write_run(JqTable *runs, TupleTableSlot *row,
							 const JqJob *job, const JqRun *run);

/*
 * Cuts a text to at most 8 kB on a character boundary and marks
 * the cut; always a copy.
 */
extern char *jq_job_clip_error(const char *error);

#endif							/* JQ_JOB_H */
