/*-------------------------------------------------------------------------
 *
 * http_job.h
 *	  A claimed HTTP job, and the request that it becomes.
 *
 *	  A job is read in the transaction that claims it; from then on nothing
 *	  more of the database is needed to send it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HTTP_JOB_H
#define JQ_HTTP_JOB_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "http/client.h"
#include "http/url.h"
#include "lib/ilist.h"
#include "nodes/pg_list.h"
#include "queue/endpoints.h"
#include "queue/resolve.h"
#include "queue/secrets.h"

typedef struct JqHttpJob
{
	dlist_node	node;			/* for whoever has it */
	MemoryContext context;		/* holds all of it */
	JqHeld		held;
	char	   *job_type;
	char	   *stage;
	bool		has_breaker;	/* its failures count together with others */
	int			attempt;
	int			max_attempts;
	bool		is_suspect;		/* the server crashed while it was running */
	TimestampTz lease_until;
	int64		lease_us;
	int64		claimed_at;		/* by jq_clock_ms() */

	/* Where it goes.  With a refusal, the rest is not there. */
	const char *refusal;		/* why it cannot be sent; NULL: it can */
	bool		must_wait;		/* its endpoint is disabled */
	char	   *target;			/* name of the endpoint, or origin of the URL */
	bool		is_endpoint;
	JqUrl		url;
	int			max_concurrency;
	int			max_redirects;
	int			request_size;	/* jobs that may share its request */
	int64		max_linger_us;

	/* What is sent. */
	JqHttpRequest request;		/* without headers, and of a bulk, body */
	char	  **headers;
	int			nheaders;
	const char *content_type;	/* NULL: a header says it, or there is no body */
	char	   *idempotency_key;
	Jsonb	   *item;			/* its body in a bulk request */
	Jsonb	   *batch_body;		/* around all of them; NULL: an array */
	char	   *batch_results;
	JqSecret	signing;		/* zeroes: it is not signed */
	JqSecret	certificate;
	JqSecret   *secrets;		/* in its URL and headers */
	int			nsecrets;
} JqHttpJob;

/*
 * Reads a claimed row, in a context of its own below "parent".  What is wrong
 * with the job is in its refusal.  In a transaction.  An error that it raises
 * is raised for good; is_careful: it is a refusal, too, at the cost of a
 * subtransaction.
 */
extern JqHttpJob *jq_http_job_read(TupleTableSlot *slot,
								   const pg_uuid_t *worker,
								   MemoryContext parent, bool is_careful);

/*
 * A request to an endpoint that is no job's, with this payload (or NULL), for
 * a role that must be allowed to use it.
 */
extern JqHttpJob *jq_http_job_probe(const char *endpoint, const char *method,
									const char *payload, Oid role,
									MemoryContext parent);

/*
 * The job types whose jobs the dispatcher may claim now, a list of palloc'd
 * names.  In a transaction.
 */
extern List *jq_http_job_types(void);

/* Frees a job, and wipes its secrets. */
extern void jq_http_job_free(JqHttpJob *job);

/*
 * The request of a job, or of several that share one, in the current context.
 * Returns NULL, or why it cannot be sent.
 */
extern const char *jq_http_job_compose(JqHttpJob **jobs, int count,
									   JqHttpRequest *request);

/*
 * What became of each of the jobs, in the current context, which must not be
 * in a transaction; "outcomes" has room for all of them.
 */
extern void jq_http_job_outcomes(JqHttpJob **jobs, int count,
								 JqHttpResponse *response, int redirects,
								 JqOutcome *outcomes);

/* Copies what an outcome points to into the current context. */
extern void jq_http_outcome_copy(JqOutcome *outcome);

/* Logs a failure, without what the server said. */
extern void jq_http_outcome_log(const JqHttpJob *job,
								const JqOutcome *outcome);

#endif							/* JQ_HTTP_JOB_H */
