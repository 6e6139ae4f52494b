/*-------------------------------------------------------------------------
 *
 * unique.h
 *	  Unique keys of jobs.
 *
 *	  An index keeps the live jobs of a job type apart.  What is to be unique
 *	  for longer has a row in job_keys besides, which is taken before the job
 *	  is inserted.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_UNIQUE_H
#define JQ_UNIQUE_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* What the job that has the unique key of a new one becomes. */
typedef enum JqUniqueMode
{
	JQ_UNIQUE_SKIP,				/* it stays as it is */
	JQ_UNIQUE_REPLACE,			/* it becomes the new job */
	JQ_UNIQUE_KEEP_SCHEDULE,	/* the same, but for its scheduled_at */
	JQ_UNIQUE_DEBOUNCE			/* the same, not later than a period allows */
} JqUniqueMode;

/* How long a job keeps its key. */
typedef enum JqUniqueScope
{
	JQ_UNIQUE_LIVE,				/* while it is live */
	JQ_UNIQUE_PERIOD,			/* for a period, whatever becomes of it */
	JQ_UNIQUE_KEPT				/* as long as it or one of its runs is kept */
} JqUniqueScope;

/* Raise 22023 for what is no mode, and no scope. */
extern JqUniqueMode jq_unique_mode(const char *name);
extern JqUniqueScope jq_unique_scope(const char *name);

/*
 * Raises 22023, or 22004, unless these go together.  "period" is an interval;
 * 0: null.
 */
extern void jq_unique_check(JqUniqueMode mode, JqUniqueScope scope,
							Datum period, bool has_scheduled_at);

/* The length of a checked period. */
extern int64 jq_unique_period_us(Datum period);

/*
 * Takes a key for job "id", which is yet to be inserted, and returns "id"; or
 * the id of the job that has it.  "period" 0: as long as something of the job
 * is kept.  Waits for whoever is about to take the key.  In a scope.
 */
extern int64 jq_unique_take(Datum job_type, Datum key, int64 id, Datum period);

/* Gives the key that was taken to a live job that was there already. */
extern void jq_unique_pass(Datum job_type, Datum key, int64 id, Datum period);

/* Jobs somebody deletes have no key any more, but for the rest of a period. */
extern void jq_unique_forget(const int64 *job_ids, int count);

/* Raises 23505 when a live job has the key of an ended one.  In a scope. */
extern void jq_unique_check_free(int64 job_id, Datum job_type, Datum key);

/*
 * The jobs of keys that hold no more, "count" of them, in the context of the
 * caller of the scope: first of periods that are over; when there is none, of
 * job ids above *job_id, which is set to where the next call goes on, 0 at the
 * end.  The second function deletes the keys of such jobs and returns how
 * many.  Each in a scope.
 */
extern int64 *jq_unique_stale(int64 *job_id, int *count);
extern int64 jq_unique_prune(const int64 *job_ids, int count);

#endif							/* JQ_UNIQUE_H */
