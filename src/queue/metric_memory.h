/*-------------------------------------------------------------------------
 *
 * metric_memory.h
 *	  What shared memory knows of jobs in numbers: how many of a type there
 *	  are, how many a stage has seen begin and end, and how long that took.
 *
 *	  Entries are made when they are first wanted and stay where they are until
 *	  the server ends: a pointer to one is good for the life of a process.
 *	  What they count is changed by atomic additions, without a lock.
 *
 *	  For metrics.c, which counts what commits, and job_counts.c, which
 *	  compares with the table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_METRIC_MEMORY_H
#define JQ_METRIC_MEMORY_H

#include "postgres.h"

#include "port/atomics.h"
#include "queue/job.h"

#define JQ_METRIC_NAME_SIZE 256 /* of a type or stage, with the terminator */

/* Times that are counted together: up to a bound, or above the last one. */
#define JQ_METRIC_BOUNDS 20
#define JQ_METRIC_BUCKETS (JQ_METRIC_BOUNDS + 1)

/* The upper bounds of the buckets, ascending. */
extern const int64 jq_metric_bounds_us[JQ_METRIC_BOUNDS];

/* What has happened since the server started. */
typedef enum JqMetricCounter
{
	JQ_METRIC_ENQUEUED,			/* became live: new, or requeued */
	JQ_METRIC_STARTED,			/* claims */
	JQ_METRIC_SUCCEEDED,		/* claims that completed their job */
	JQ_METRIC_FAILED,			/* charged claims that failed */
	JQ_METRIC_RETRIED,			/* of these: another attempt follows */
	JQ_METRIC_DEAD,				/* jobs that became failed or error */
	JQ_METRIC_CANCELLED,		/* jobs */
	JQ_METRIC_RELEASED,			/* claims, as the next three */
	JQ_METRIC_EXPIRED,
	JQ_METRIC_CRASHED,
	JQ_METRIC_SKIPPED
} JqMetricCounter;
#define JQ_METRIC_COUNTERS (JQ_METRIC_SKIPPED + 1)

typedef enum JqMetricTime
{
	JQ_METRIC_WAIT,				/* from when it could be claimed, to its claim */
	JQ_METRIC_RUN,				/* from the claim to its end */
	JQ_METRIC_TOTAL				/* from when it was due first, to completion */
} JqMetricTime;
#define JQ_METRIC_TIMES (JQ_METRIC_TOTAL + 1)

/* The jobs of a type by status; numbers are signed, kept as unsigned ones. */
typedef struct JqTypeMetrics
{
	Oid			database;
	char		name[JQ_METRIC_NAME_SIZE];	/* zero-padded: with the database,
											 * a hash key */
	pg_atomic_uint64 jobs[JQ_STATUS_COUNT];
	pg_atomic_uint64 scheduled; /* of the queued ones; see job_counts.h */
	int64		drift[JQ_STATUS_COUNT]; /* for job_counts.c */
} JqTypeMetrics;

typedef struct JqStageName
{
	Oid			database;
	char		job_type[JQ_METRIC_NAME_SIZE];
	char		stage[JQ_METRIC_NAME_SIZE];
} JqStageName;

typedef struct JqStageMetrics
{
	JqStageName name;			/* zero-padded: the hash key */
	pg_atomic_uint64 counts[JQ_METRIC_COUNTERS];
	pg_atomic_uint64 us[JQ_METRIC_TIMES];	/* the sums */
	pg_atomic_uint64 buckets[JQ_METRIC_TIMES][JQ_METRIC_BUCKETS];
} JqStageMetrics;

/* Which counts of a database are true. */
#define JQ_COUNTED_LIVE 1
#define JQ_COUNTED_DONE 2
#define JQ_COUNTED (JQ_COUNTED_LIVE | JQ_COUNTED_DONE)

typedef struct JqDatabaseMetrics
{
	Oid			database;		/* InvalidOid: free */
	pg_atomic_uint64 changes;	/* transactions that have changed counts */
	pg_atomic_uint64 forgotten; /* times that all must be counted anew */
	pg_atomic_uint64 as_of;		/* what is scheduled later is "scheduled" */
	pg_atomic_uint32 counted;	/* JQ_COUNTED_* */
	pg_atomic_uint32 extensions[2]; /* whose jobs were: ended, live ones */
	pg_atomic_uint32 has_overflowed;	/* some types have no entry */
} JqDatabaseMetrics;

/* Asks for the shared memory; once, while preloading. */
extern void jq_metric_memory_init(void);

/* Of this database; NULL: nothing is counted. */
extern JqDatabaseMetrics *jq_metric_database(void);

/* Found or made; NULL: no room, which is noted. */
extern JqTypeMetrics *jq_metric_type(const char *name);
extern JqStageMetrics *jq_metric_stage(const char *job_type,
									   const char *stage);

/* Those of this database, palloc'd arrays of pointers; return how many. */
extern int	jq_metric_types(JqTypeMetrics ***types);
extern int	jq_metric_stages(JqStageMetrics ***stages);

#endif							/* JQ_METRIC_MEMORY_H */
