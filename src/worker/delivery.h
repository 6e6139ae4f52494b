/*-------------------------------------------------------------------------
 *
 * delivery.h
 *	  HTTP jobs on their way: from the claim to the answer.
 *
 *	  A job that was claimed waits for room at its target, which is an
 *	  endpoint, or the origin of a URL.  It is sent, alone or with others, and
 *	  ends as one of the endings (endings.h).  Nothing here is done inside a
 *	  transaction but jq_delivery_wanted() and jq_delivery_add().
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_DELIVERY_H
#define JQ_DELIVERY_H

#include "postgres.h"

#include "base/probe.h"
#include "queue/http_job.h"

/* Once, before anything else.  What lives here is allocated below "parent". */
extern void jq_delivery_init(MemoryContext parent);

/* How many more jobs may be claimed for an endpoint, or (NULL) by URL. */
extern int	jq_delivery_wanted(const char *endpoint, int max_concurrency,
							   int request_size);

/* A job that has been claimed. */
extern void jq_delivery_add(JqHttpJob *job);

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

/* Aborts what is under way and gives it back. */
extern void jq_delivery_abort_all(void);

/* Aborts the delivery of a cancelled job, if it is here. */
extern void jq_delivery_cancel(int64 job_id, int32 claim_no);

/* Claimed jobs that have not ended: waiting and under way. */
extern int	jq_delivery_waiting(void);
extern int	jq_delivery_under_way(void);

/* Whether one of them was running when the server crashed. */
extern bool jq_delivery_has_suspect(void);

/* When something that waits for others is to be sent, in ms; -1: nothing is. */
extern long jq_delivery_linger_ms(void);

/*
 * The jobs whose lease must be extended now, at most "max"; "until" is set in
 * them, and to be extended by their lease.
 */
extern int	jq_delivery_expiring(JqHttpJob **jobs, int max);

#endif							/* JQ_DELIVERY_H */
