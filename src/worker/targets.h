/*-------------------------------------------------------------------------
 *
 * targets.h
 *	  Where HTTP requests go, and the claimed jobs that wait to be sent.
 *
 *	  A target is an endpoint, or the origin of URLs that jobs bring.  Each has
 *	  a queue of its own and a number of requests at once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_TARGETS_H
#define JQ_TARGETS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/ilist.h"
#include "queue/http_job.h"

#define JQ_TARGET_KEY_SIZE 288
#define JQ_MAX_SHARED 1000		/* jobs of a request: the largest batch_size */

typedef struct JqTarget
{
	char		key[JQ_TARGET_KEY_SIZE];	/* its kind and name */
	dlist_node	node;			/* in jq_targets_busy, while jobs wait */
	bool		is_endpoint;
	dlist_head	waiting;		/* of JqHttpJob */
	int			nwaiting;
	int			under_way;		/* requests */
	int			jobs_under_way;
	int			resolving;		/* requests that may be resolving its name */
	int			max_concurrency;
	int64		resolved_at;	/* by jq_clock_ms(); 0: not yet */
	int64		average_us;		/* of its last requests; 0: none yet */
	TimestampTz put_off_until;	/* jobs that found no room come back then */
} JqTarget;

/* Those with jobs that wait.  To be served in turn. */
extern dlist_head jq_targets_busy;

/* Once, before anything else. */
extern void jq_targets_init(MemoryContext parent);

extern JqTarget *jq_target_find(const char *name, bool is_endpoint);

/* How many more jobs may be claimed for an endpoint, or (NULL) by URL. */
extern int	jq_targets_wanted(const char *endpoint, int max_concurrency,
							  int request_size);

/*
 * Lets a claimed job wait where it goes.  False: there are too many already;
 * it may come back at "retry_at".
 */
extern bool jq_target_add(JqHttpJob *job, TimestampTz *retry_at);

/*
 * The jobs of the next request to a target, which go on waiting; returns how
 * many: 0 when there are none, or none that may be sent now.  to_end: they do
 * not wait for others to share a request.
 */
extern int	jq_target_next(JqTarget *target, JqHttpJob **jobs, bool to_end);

/* One of them does not wait any more. */
extern void jq_target_remove(JqTarget *target, JqHttpJob *job);

/* A request begins, and ends, after so long (0: nothing is known). */
extern void jq_target_begin(JqTarget *target, JqHttpJob **jobs, int count,
							bool is_probe);
extern void jq_target_end(JqTarget *target, JqHttpJob **jobs, int count,
						  bool is_probe, int64 total_us);

/*
 * A request may need a thread to resolve the name: true, and then the second
 * is called as soon as that is over.  has_thread: the thread goes on.
 */
extern bool jq_target_begin_resolving(JqTarget *target, const JqHttpJob *job);
extern void jq_target_end_resolving(JqTarget *target, bool is_resolved,
									bool has_thread);
extern bool jq_targets_are_resolving(void);

/* Jobs that wait, and requests that are under way. */
extern int	jq_targets_waiting(void);
extern int	jq_targets_under_way(void);

/* Whether one of these jobs was running when the server crashed. */
extern bool jq_targets_have_suspect(void);

/* When something that waits for others is to be sent, in ms; -1: nothing is. */
extern long jq_targets_linger_ms(void);

#endif							/* JQ_TARGETS_H */
