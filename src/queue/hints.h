/*-------------------------------------------------------------------------
 *
 * hints.h
 *	  What a transaction has to tell the lanes when it ends.
 *
 *	  Jobs that it made ready are offered when it commits, jobs that it had
 *	  taken are given back when it aborts, and so for subtransactions.  When
 *	  it is prepared, both are offered at once: claims pass them until it ends.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HINTS_H
#define JQ_HINTS_H

#include "postgres.h"

#include "base/table.h"
#include "executor/tuptable.h"
#include "queue/job_types.h"
#include "queue/lanes.h"
#include "utils/rel.h"

/* Registers the transaction callbacks; once, from _PG_init. */
extern void jq_hints_init(void);

/*
 * Notes a new version of a row of the live leaf, with its tid: nothing unless
 * it is queued.  Also wakes who waits for such a job.  Rows that a plain DML
 * statement or an executor's row function writes are noted by the trigger
 * "hint"; direct writes call this.
 */
extern void jq_hints_note(Relation live, TupleTableSlot *row);

/*
 * Whether this transaction has made jobs ready that nobody else can see yet:
 * the lanes do not have them, and a claim must look for itself.
 */
extern bool jq_hints_are_pending(TimestampTz now);

/* Makes room for this many candidates, so that noting them cannot fail. */
extern void jq_hints_reserve(int count);

/*
 * Notes a candidate that this transaction has taken from a lane; it goes back
 * if that aborts.  Returns its number, good until jq_hints_end_taking().
 */
extern int	jq_hints_took(JqLaneRef ref, const JqCandidate *candidate,
						  const JqJobType *type);

/*
 * Notes a queued row that is being claimed and was found otherwise; nothing
 * unless this backend has joined the lanes.
 */
extern void jq_hints_took_row(TupleTableSlot *row);

/*
 * Notes that a lane is about to be read from "from" on.  What this transaction
 * has written may hide jobs from it: if that is undone, the lane is read again.
 */
extern void jq_hints_read(JqLaneRef ref, JqLaneKey from);

/* The candidate turned out to be none: it is forgotten. */
extern void jq_hints_drop(int number);

/*
 * The candidate was not claimed and goes back now, in jq_hints_end_taking();
 * there it is parked, as in JqCandidate.
 */
extern void jq_hints_skip(int number, uint32 parked_until, bool is_passed);

/* The number that the next candidate gets; ends the taking that began there. */
extern int	jq_hints_count(void);
extern void jq_hints_end_taking(int first);

#endif							/* JQ_HINTS_H */
