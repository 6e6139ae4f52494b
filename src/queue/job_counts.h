/*-------------------------------------------------------------------------
 *
 * job_counts.h
 *	  How many jobs of each type there are, without counting them.
 *
 *	  Shared memory follows each commit.  A look at the table says where the
 *	  count began, finds what no callback could tell (a prepared transaction,
 *	  a change that fired no trigger), and which queued jobs have become due:
 *	  "scheduled" are those that were not at the last look.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_JOB_COUNTS_H
#define JQ_JOB_COUNTS_H

#include "postgres.h"

#include "queue/job.h"

typedef struct JqJobCounts
{
	const char *job_type;
	int64		jobs[JQ_STATUS_COUNT];
	int64		scheduled;		/* of the queued ones */
} JqJobCounts;

/*
 * Those of this database, palloc'd in the caller's context: from memory where
 * that is true, else counted in the tables.  Returns how many.
 */
extern int	jq_job_counts_list(JqJobCounts **counts);

/*
 * Notices that the extension was dropped and created again: other tables are
 * there than those that were counted.  In a transaction of the scheduler's.
 */
extern void jq_job_counts_heed_extension(void);

/*
 * Whether the live jobs are to be looked at again: something has changed, or
 * may become due.  If not, the last look is as good as one of now.
 */
extern bool jq_job_counts_are_stale(void);

/* Whether the ended jobs were never looked at, or are to be again. */
extern bool jq_job_counts_are_unknown(void);

/*
 * Looks at the live or at the ended jobs, all of them.  In a transaction of
 * the scheduler's; nobody else may.
 */
extern void jq_job_counts_look(bool is_live);

#endif							/* JQ_JOB_COUNTS_H */
