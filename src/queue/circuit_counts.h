/*-------------------------------------------------------------------------
 *
 * circuit_counts.h
 *	  Failures in a row, per job type and stage, in shared memory.
 *
 *	  A transaction notes how its jobs ended; the notes count when it commits,
 *	  in the order of commits.  A stage that fails too often has tripped: its
 *	  circuit is open from that instant on, and somebody writes its row soon.
 *
 *	  Without preloading, or with jobqueue.max_circuits = 0, there are no
 *	  counts: the caller must count in rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_CIRCUIT_COUNTS_H
#define JQ_CIRCUIT_COUNTS_H

#include "postgres.h"

#include "datatype/timestamp.h"

#define JQ_CIRCUIT_NAME_SIZE 256	/* with the terminator */

/* More failed jobs than this are not told apart. */
#define JQ_CIRCUIT_MAX_JOBS 64

typedef struct JqCircuitName
{
	char		job_type[JQ_CIRCUIT_NAME_SIZE];
	char		stage[JQ_CIRCUIT_NAME_SIZE];
} JqCircuitName;

/* When a circuit opens, and for how long. */
typedef struct JqBreaker
{
	int			threshold;
	int64		cooldown_us;
	bool		distinct_jobs;
} JqBreaker;

/* What was counted. */
typedef struct JqCircuitCount
{
	JqCircuitName name;
	int			failures;
	int			njobs;			/* of the failed jobs, the last ones */
	int64		jobs[JQ_CIRCUIT_MAX_JOBS];
	TimestampTz last_failure_at;
	TimestampTz tripped_at;		/* 0: it has not */
	TimestampTz retry_at;		/* if it has */
	int64		cooldown_us;
	bool		is_logged;
} JqCircuitCount;

/* Asks for the shared memory; once, while preloading. */
extern void jq_circuit_counts_init(void);

/* Whether failures are counted here. */
extern bool jq_circuit_counts_exist(void);

/*
 * Notes for the end of this transaction: a job has failed or succeeded; all
 * is forgotten of a stage, or of a job type (NULL); some circuit has changed,
 * which bumps the generation.  A name that is too long is not counted.
 */
extern void jq_circuit_counts_note(const char *job_type, const char *stage,
								   const JqBreaker *breaker, int64 job_id,
								   bool has_failed);
extern void jq_circuit_counts_forget(const char *job_type, const char *stage);
extern void jq_circuit_counts_change(void);

/* Grows when a stage trips or a circuit has changed, in whatever database. */
extern uint64 jq_circuit_counts_generation(void);

/* Whether any stage of whatever database has tripped and has no row yet. */
extern bool jq_circuit_counts_have_tripped(void);

/* Whether this one has, and until when its circuit is open. */
extern bool jq_circuit_counts_are_tripped(const char *job_type,
										  const char *stage,
										  TimestampTz *retry_at);

/*
 * What is counted in this database, or only what has tripped; palloc'd.
 * Returns how many.
 */
extern int	jq_circuit_counts_list(bool only_tripped, JqCircuitCount **counts);

/* Marks one that has tripped as logged; false: it was, or is gone. */
extern bool jq_circuit_counts_mark_logged(const JqCircuitName *name);

/* What a stage of a job type is called in hash tables and locks. */
extern uint32 jq_circuit_hash(const char *job_type, const char *stage);

#endif							/* JQ_CIRCUIT_COUNTS_H */
