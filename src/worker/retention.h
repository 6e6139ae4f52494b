/*-------------------------------------------------------------------------
 *
 * retention.h
 *	  Deleting what has been kept for long enough.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_RETENTION_H
#define JQ_RETENTION_H

#include "postgres.h"

/*
 * For the scheduler, in each cycle: one step, of a few milliseconds and at
 * most a thousand jobs or so, of what is due, or at once.  Returns how many
 * milliseconds from now it wants the next one.  Runs transactions of its own,
 * and goes on with the rest where one of them fails.
 */
extern long jq_retention_tend(bool at_once);

/*
 * Once a minute: deletes the old rows of tables that have an index by age,
 * such as cron_runs.
 */
extern void jq_retention_prune_tables(void);

#endif							/* JQ_RETENTION_H */
