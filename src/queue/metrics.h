/*-------------------------------------------------------------------------
 *
 * metrics.h
 *	  Counting what happens to jobs: notes of a transaction, which count when
 *	  it commits.
 *
 *	  Each change of a row of jobs_queue is told once: by the trigger that it
 *	  fires, or by the code that writes it where no trigger does.  Without
 *	  preloading, or with jobqueue.max_stage_stats = 0, nothing is counted and
 *	  every function does nothing.  A transaction that is prepared does not
 *	  count; job_counts.c finds what is missed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_METRICS_H
#define JQ_METRICS_H

#include "postgres.h"

#include "queue/job.h"

/* Registers the transaction callbacks; once, while preloading. */
extern void jq_metrics_init(void);

/*
 * A row of a leaf was inserted ("was" is NULL), updated, or deleted ("is" is
 * NULL).  Slots in the layout of jobs_queue.
 */
extern void jq_metrics_row(TupleTableSlot *was, TupleTableSlot *is);

/* The same of a job that was read, whose row goes. */
extern void jq_metrics_gone(const JqJob *job);

/*
 * A queued job was claimed; with "has_row", no trigger has told of its row.
 */
extern void jq_metrics_claimed(const JqJob *job, TimestampTz now, bool has_row);

/* A claim has ended. */
extern void jq_metrics_ended(const JqJob *job, const JqRun *run);

/* All rows of a leaf are gone, at commit. */
extern void jq_metrics_forget(void);

#endif							/* JQ_METRICS_H */
