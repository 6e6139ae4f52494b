/*-------------------------------------------------------------------------
 *
 * enqueue.h
 *	  New jobs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_ENQUEUE_H
#define JQ_ENQUEUE_H

#include "postgres.h"

#include "queue/dependencies.h"
#include "queue/unique.h"
#include "utils/timestamp.h"

/* A job to be; a zero Datum (or 0) means NULL, that is, the default. */
typedef struct JqNewJob
{
	int64		id;				/* 0: the next one */
	Datum		job_type;		/* text */
	Datum		payload;		/* jsonb */
	TimestampTz scheduled_at;
	bool		has_scheduled_at;
	int32		priority;
	int32		max_attempts;
	bool		has_max_attempts;
	Datum		unique_key;		/* text */
	JqUniqueMode unique_mode;
	JqUniqueScope unique_scope;
	Datum		unique_period;	/* interval */
	Datum		group_key;		/* text */
	Datum		stage;			/* text */
	Datum		correlation_id; /* text */
	Datum		depends_on;		/* bigint[] */
	Datum		timeout;		/* interval */
	Datum		tags;			/* text[] */
	Datum		metadata;		/* jsonb */
	JqOnFailure on_parent_failure;
	Datum		key;			/* text: of enqueue_job_batch */
	Datum		depends_on_keys;	/* text[]: the same */
	Oid			owner;			/* whom the caller may act as; InvalidOid: the
								 * caller */
} JqNewJob;

/*
 * Enqueues a job for its owner and returns its id; where its unique
 * key is taken, the id of the job that has it.  Raises the errors of
 * section "Errors" in docs/reference.md before anything is written.  Enters a
 * scope of its own.
 */
extern int64 jq_enqueue(const JqNewJob *job);

/*
 * Enqueues one copy of "job" for each of the payloads (jsonb[] without nulls)
 * and returns their ids in that order, "count" of them, allocated in the
 * caller's context.  job->payload, unique_key and depends_on are not used.
 */
extern int64 *jq_enqueue_many(const JqNewJob *job, Datum payloads, int *count);

/*
 * Enqueues jobs that may have unique keys.  The ids go into "ids", in the order
 * of the jobs; the keys are taken in an order that all calls share.  Sets the
 * ids of the jobs.
 */
extern void jq_enqueue_each(JqNewJob *jobs, int count, int64 *ids);

/* Raises what jq_enqueue() would for its unique_* members. */
extern void jq_enqueue_check_unique(const JqNewJob *job);

#endif							/* JQ_ENQUEUE_H */
