/*-------------------------------------------------------------------------
 *
 * change.h
 *	  A job whose row is locked, and the version that will follow it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_CHANGE_H
#define JQ_CHANGE_H

#include "postgres.h"

#include "base/table.h"
#include "queue/job.h"

typedef struct JqChange
{
	JqTable		table;
	TupleTableSlot *row;
	TupleTableSlot *next;		/* NULL: not begun */
	JqJob		job;			/* as "row" has it */
	TimestampTz now;
	bool		has_failed;		/* the job has ended without success */
} JqChange;

/*
 * Locks a job of one leaf, or wherever it is, and opens the change.  False,
 * with nothing open, when it is not there.
 */
extern bool jq_change_begin(JqChange *change, Oid leaf, int64 job_id);
extern bool jq_change_find(JqChange *change, int64 job_id, bool *is_live);

/* Begins the next version: as it is, with updated_at. */
extern void jq_change_next(JqChange *change);

/* Writes it, in this leaf or moving to another one. */
extern void jq_change_write(JqChange *change);
extern void jq_change_move(JqChange *change, Oid target);

/* Closes the change; the row stays locked by the transaction. */
extern void jq_change_end(JqChange *change);

#endif							/* JQ_CHANGE_H */
