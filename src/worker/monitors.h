/*-------------------------------------------------------------------------
 *
 * monitors.h
 *	  Which monitors the launcher keeps running.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_MONITORS_H
#define JQ_MONITORS_H

#include "postgres.h"

/*
 * Starts what jobqueue.monitor lists and is not there; whoever is there and
 * not listed ends by itself.  A unit of work of the launcher.
 */
extern void jq_monitors_tend(void *arg);

/*
 * Why no monitor can be connected as the role, a sentence; NULL: one can.  In
 * a transaction.
 */
extern const char *jq_monitor_role_problem(Oid role);

#endif							/* JQ_MONITORS_H */
