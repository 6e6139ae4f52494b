/*-------------------------------------------------------------------------
 *
 * delivery.h
 *	  HTTP requests on their way: from the waiting job to the answer.
 *
 *	  A claimed job waits at its target (targets.h), is sent, alone or with
 *	  others, and becomes one of the endings (endings.h).  Not to be called in
 *	  a transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_DELIVERY_H
#define JQ_DELIVERY_H

#include "postgres.h"

#include "base/probe.h"
#include "queue/http_job.h"

/*
 * A job that has been claimed.  False: it is given back, for there is no room
 * where it goes.
 */
extern bool jq_delivery_add(JqHttpJob *job);

/* A request that is no job's; answered when it ends. */
extern void jq_delivery_add_probe(JqHttpJob *job, const JqProbe *probe);

/*
 * Sends what may be sent; to_end: nothing waits for others to share a request.
 * Whether something has been sent.
 */
extern bool jq_delivery_send(bool to_end);

/* Makes endings of the transfers that have ended; whether there were any. */
extern bool jq_delivery_collect(void);

/* Gives back every job that has not been sent. */
extern void jq_delivery_release_waiting(void);

/* The same of those whose circuit has opened meanwhile.  In a transaction. */
extern void jq_delivery_release_barred(void);

/* Aborts what is under way and gives it back. */
extern void jq_delivery_abort_all(void);

/* Aborts the delivery of a cancelled job, if it is here. */
extern void jq_delivery_cancel(int64 job_id, int32 claim_no);

/* The jobs whose lease must be extended now, at most "max". */
extern int	jq_delivery_expiring(JqHttpJob **jobs, int max);

#endif							/* JQ_DELIVERY_H */
