/*-------------------------------------------------------------------------
 *
 * demand.h
 *	  Which roles have due SQL jobs, and executors for them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_DEMAND_H
#define JQ_DEMAND_H

/*
 * A unit of work of the scheduler: wakes and starts executors, ends jobs that
 * cannot run as their role.  Runs transactions of its own.
 */
extern void jq_demand_serve(void *arg);

/* The same for HTTP jobs, and for requests that sessions wait for. */
extern void jq_demand_serve_http(void *arg);

#endif							/* JQ_DEMAND_H */
