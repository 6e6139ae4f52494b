/*-------------------------------------------------------------------------
 *
 * maintenance.h
 *	  What a scheduler does for the jobs of its database besides running them.
 *
 *	  Each function is a unit of work with transactions of its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_MAINTENANCE_H
#define JQ_MAINTENANCE_H

#include "postgres.h"

/*
 * Takes back the jobs of silent and dead workers, and passes requests to
 * cancel on to executors.  Only reads when there is nothing to do.  The
 * argument is a bool: whether to look at every live row.
 */
extern void jq_maintenance_watch_running(void *arg);

/*
 * Fails the jobs of dropped roles that were still to run, and clears the
 * owner of those that have ended.  Reads every job.  The argument is a bool,
 * set to whether none is left.
 */
extern void jq_maintenance_disown(void *arg);

/* Releases the jobs that wait behind a long one in an executor. */
extern void jq_maintenance_release_waiting(void *arg);

/* Deletes unique keys that hold no more. */
extern void jq_maintenance_prune_keys(void *arg);

/* Deletes the previous values of secrets that are valid no more. */
extern void jq_maintenance_forget_secrets(void *arg);

#endif							/* JQ_MAINTENANCE_H */
