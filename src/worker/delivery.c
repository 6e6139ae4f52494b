/*-------------------------------------------------------------------------
 *
 * delivery.c
 *	  HTTP requests on their way: from the waiting job to the answer.
 *
 * A delivery is a request with its jobs: one, or several that share it, or
 * none but a probe that somebody waits for.  Whatever becomes of it, each of
 * its jobs becomes an ending.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "worker/delivery.h"

#include "base/clock.h"
#include "base/endpoint_health.h"
#include "base/shared_state.h"
#include "http/client.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "queue/circuits.h"
#include "utils/timestamp.h"
#include "worker/endings.h"
#include "worker/targets.h"
#include "worker/worker.h"

#define WAIT_DISABLED_MS 60000	/* for a disabled endpoint to be enabled */
#define WAIT_MEMORY_MS 1000
#define LEASE_MARGIN_MS 5000

/* A request that is under way; it lives in the context of its first job. */
typedef struct Delivery
{
	dlist_node	node;			/* in deliveries */
	JqTarget   *target;
	JqHttpTransfer *transfer;
	JqHttpRequest request;
	JqHttpJob **jobs;
	int			count;
	JqProbe    *probe;			/* NULL: of jobs */
	int64		started_at;		/* by jq_clock_ms() */
	int			timeout_ms;		/* of it with all its redirects */
	int			redirects;
	bool		is_resolving;	/* a thread may be finding its address */
} Delivery;

/* What judging an answer needs. */
typedef struct Judgement
{
	Delivery   *delivery;
	JqHttpResponse *response;
	JqOutcome  *outcomes;
} Judgement;

static dlist_head deliveries = DLIST_STATIC_INIT(deliveries);

static bool send_next(JqTarget *target, bool to_end);
static void send_request(JqTarget *target, JqHttpJob **jobs, int count,
						 const JqProbe *probe);
static void compose(void *arg);
static bool start(Delivery *delivery);
static void give_back(JqHttpJob **jobs, int count, const JqProbe *probe);
static void refuse(JqHttpJob **jobs, int count, const JqProbe *probe,
				   const char *reason);
static void note_resolved(void);
static void end_resolving(Delivery *delivery, bool is_resolved,
						  bool has_thread);
static void end_transfer(JqHttpTransfer *transfer);
static void judge(void *arg);
static void judge_unread(Judgement *judgement);
static bool follow(Delivery *delivery, const JqHttpResponse *response);
static const char *next_request(Delivery *delivery,
								const JqHttpResponse *response,
								JqHttpRequest *request);
static void keep_headers(JqHttpRequest *request,
						 bool (*may_stay) (const char *header));
static bool is_harmless(const char *header);
static bool is_not_of_body(const char *header);
static void note_end(const JqHttpJob *job, const JqHealthEvent *event);
static void note_health(const Delivery *delivery,
						const JqHttpResponse *response, bool was_aborted);
static void answer_probe(const JqProbe *probe, const char *reason,
						 const JqHttpResponse *response, bool has_tls);
static void forget_delivery(Delivery *delivery, int64 total_us);
static void abort_delivery(Delivery *delivery, const JqOutcome *outcome);
static bool cancel_waiting(int64 job_id, int32 claim_no);

/* ---- sending ---- */

bool
jq_delivery_add(JqHttpJob *job)
{
	TimestampTz retry_at;

	if (job->refusal != NULL)
	{
		if (job->target[0] != '\0' &&
			jq_health_start(job->target, job->is_endpoint, INT_MAX,
							GetCurrentTimestamp()))
			note_end(job, &jq_health_not_sent);
		refuse(&job, 1, NULL, job->refusal);
	}
	else if (job->must_wait)
		jq_endings_release(job, GetCurrentTimestamp() +
						   WAIT_DISABLED_MS * INT64CONST(1000));
	else if (!jq_target_add(job, &retry_at))
	{
		jq_endings_release(job, retry_at);
		return false;
	}
	return true;
}

void
jq_delivery_add_probe(JqHttpJob *job, const JqProbe *probe)
{
	if (job->refusal != NULL)
	{
		refuse(&job, 1, probe, job->refusal);
		return;
	}
	(void) jq_health_start(job->target, true, INT_MAX, GetCurrentTimestamp());
	send_request(jq_target_find(job->target, true), &job, 1, probe);
}

/* One request for each target, again and again. */
bool
jq_delivery_send(bool to_end)
{
	bool		has_sent = false;
	bool		goes_on = true;

	note_resolved();
	while (goes_on)
	{
		dlist_mutable_iter iter;

		goes_on = false;
		dlist_foreach_modify(iter, &jq_targets_busy)
			if (send_next(dlist_container(JqTarget, node, iter.cur), to_end))
			goes_on = true;
		has_sent |= goes_on;
	}
	return has_sent;
}

/* Sends the next request to a target; false: it has none, or no room. */
static bool
send_next(JqTarget *target, bool to_end)
{
	JqHttpJob  *jobs[JQ_MAX_SHARED];
	int			count = jq_target_next(target, jobs, to_end);

	/* Other dispatchers may have taken all places. */
	if (count == 0 ||
		!jq_health_start(jobs[0]->target, jobs[0]->is_endpoint,
						 target->max_concurrency, GetCurrentTimestamp()))
		return false;
	for (int i = 0; i < count; i++)
		jq_target_remove(target, jobs[i]);
	send_request(target, jobs, count, NULL);
	return true;
}

/* What a composition needs, and what it brings. */
typedef struct Composition
{
	Delivery   *delivery;
	const char *reason;
} Composition;

static void
send_request(JqTarget *target, JqHttpJob **jobs, int count,
			 const JqProbe *probe)
{
	MemoryContext old = MemoryContextSwitchTo(jobs[0]->context);
	Delivery   *delivery = palloc0(sizeof(Delivery));
	Composition composition = {.delivery = delivery};

	delivery->target = target;
	delivery->jobs = palloc(sizeof(JqHttpJob *) * count);
	memcpy(delivery->jobs, jobs, sizeof(JqHttpJob *) * count);
	delivery->count = count;
	if (probe != NULL)
	{
		delivery->probe = palloc(sizeof(JqProbe));
		*delivery->probe = *probe;
	}
	if (!jq_worker_protect(compose, &composition))
		composition.reason = "the request could not be prepared";
	MemoryContextSwitchTo(old);
	if (composition.reason != NULL)
	{
		note_end(jobs[0], &jq_health_not_sent);
		refuse(jobs, count, probe, composition.reason);
	}
	else if (start(delivery))
	{
		delivery->started_at = jq_clock_ms();
		delivery->timeout_ms = delivery->request.timeout_ms;
		dlist_push_tail(&deliveries, &delivery->node);
		jq_target_begin(target, jobs, count, probe != NULL);
	}
	else
	{
		note_end(jobs[0], &jq_health_aborted);
		give_back(jobs, count, probe);
	}
}

static void
compose(void *arg)
{
	Composition *composition = (Composition *) arg;
	Delivery   *delivery = composition->delivery;

	composition->reason = jq_http_job_compose(delivery->jobs, delivery->count,
											  &delivery->request);
}

/* Starts its request, the first one or one after a redirect. */
static bool
start(Delivery *delivery)
{
	delivery->transfer = jq_http_client_start(&delivery->request, delivery);
	if (delivery->transfer == NULL)
		return false;
	delivery->is_resolving = jq_target_begin_resolving(delivery->target,
													   delivery->jobs[0]);
	return true;
}

/* There was no memory for it. */
static void
give_back(JqHttpJob **jobs, int count, const JqProbe *probe)
{
	TimestampTz retry_at = GetCurrentTimestamp() +
	WAIT_MEMORY_MS * INT64CONST(1000);

	if (probe != NULL)
	{
		answer_probe(probe, "there is no memory for the request", NULL, false);
		jq_http_job_free(jobs[0]);
		return;
	}
	for (int i = 0; i < count; i++)
		jq_endings_release(jobs[i], retry_at);
}

/* A request that is not sent, and never will be. */
static void
refuse(JqHttpJob **jobs, int count, const JqProbe *probe, const char *reason)
{
	JqOutcome	outcome = {.kind = JQ_OUTCOME_FAILED,.is_permanent = true};

	if (probe != NULL)
	{
		answer_probe(probe, reason, NULL, false);
		jq_http_job_free(jobs[0]);
		return;
	}
	for (int i = 0; i < count; i++)
	{
		outcome.error = MemoryContextStrdup(jobs[i]->context,
											psprintf("not sent: %s", reason));
		jq_http_outcome_log(jobs[i], &outcome);
		jq_endings_add(jobs[i], &outcome);
	}
}

/* ---- names ---- */

/* As soon as the first transfer knows its address, others may follow. */
static void
note_resolved(void)
{
	dlist_iter	iter;

	if (!jq_targets_are_resolving())
		return;
	dlist_foreach(iter, &deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->is_resolving &&
			jq_http_transfer_is_resolved(delivery->transfer))
			end_resolving(delivery, true, false);
	}
}

static void
end_resolving(Delivery *delivery, bool is_resolved, bool has_thread)
{
	if (!delivery->is_resolving)
		return;
	delivery->is_resolving = false;
	jq_target_end_resolving(delivery->target, is_resolved, has_thread);
}

/* ---- answers ---- */

bool
jq_delivery_collect(void)
{
	JqHttpTransfer *transfer;
	bool		has_ended = false;

	while ((transfer = jq_http_client_next_ended()) != NULL)
	{
		end_transfer(transfer);
		has_ended = true;
	}
	return has_ended;
}

static void
end_transfer(JqHttpTransfer *transfer)
{
	Delivery   *delivery = (Delivery *) jq_http_transfer_owner(transfer);
	MemoryContext old = MemoryContextSwitchTo(delivery->jobs[0]->context);
	Judgement	judgement = {.delivery = delivery};
	JqHttpResponse response;

	jq_http_transfer_read(transfer, &response);
	end_resolving(delivery, response.end == JQ_HTTP_ANSWERED,
				  response.end == JQ_HTTP_TIMED_OUT);
	if (response.redirect_url != NULL && follow(delivery, &response))
	{
		MemoryContextSwitchTo(old);
		return;
	}

	note_health(delivery, &response, false);
	forget_delivery(delivery, response.total_us);
	if (delivery->probe != NULL)
	{
		answer_probe(delivery->probe, response.reason, &response,
					 strcmp(delivery->jobs[0]->url.scheme, "https") == 0);
		jq_http_transfer_release(transfer);
		jq_http_job_free(delivery->jobs[0]);
	}
	else
	{
		judgement.response = &response;
		judgement.outcomes = palloc0(sizeof(JqOutcome) * delivery->count);
		if (!jq_worker_protect(judge, &judgement))
			judge_unread(&judgement);
		jq_http_transfer_release(transfer);
		for (int i = 0; i < delivery->count; i++)
			jq_endings_add(delivery->jobs[i], &judgement.outcomes[i]);
	}
	MemoryContextSwitchTo(old);
}

/* Outcomes live as long as their jobs. */
static void
judge(void *arg)
{
	Judgement  *judgement = (Judgement *) arg;
	Delivery   *delivery = judgement->delivery;
	JqOutcome  *outcomes = judgement->outcomes;
	JqHttpJob **jobs = delivery->jobs;

	jq_http_job_outcomes(jobs, delivery->count, judgement->response,
						 delivery->redirects, outcomes);
	for (int i = 0; i < delivery->count; i++)
	{
		MemoryContextSwitchTo(jobs[i]->context);
		if (i > 0)
			jq_http_outcome_copy(&outcomes[i]);
		jq_http_outcome_log(jobs[i], &outcomes[i]);
	}
}

/* What was found before an error may be gone with it. */
static void
judge_unread(Judgement *judgement)
{
	JqOutcome	outcome = {
		.kind = JQ_OUTCOME_FAILED,.error = "the response could not be read"
	};

	for (int i = 0; i < judgement->delivery->count; i++)
		judgement->outcomes[i] = outcome;
}

/*
 * Goes where a redirect leads, if it may: then the delivery is under way once
 * more.
 */
static bool
follow(Delivery *delivery, const JqHttpResponse *response)
{
	JqHttpTransfer *before = delivery->transfer;
	JqHttpRequest request = delivery->request;

	if (delivery->redirects >= delivery->jobs[0]->max_redirects ||
		next_request(delivery, response, &request) != NULL)
		return false;
	delivery->redirects++;
	delivery->request = request;
	if (!start(delivery))
	{
		delivery->transfer = before;
		delivery->redirects--;
		return false;
	}
	jq_http_transfer_release(before);
	return true;
}

/*
 * Returns why not, or NULL.  Another origin gets no header of the endpoint's:
 * they may be secrets.  As browsers do it, a POST becomes a GET but for 307
 * and 308.
 */
static const char *
next_request(Delivery *delivery, const JqHttpResponse *response,
			 JqHttpRequest *request)
{
	JqHttpJob  *job = delivery->jobs[0];
	const char *reason;
	JqUrl		url;

	request->url = pstrdup(response->redirect_url);
	reason = jq_url_parse(request->url, &url);
	if (reason == NULL)
		reason = jq_url_policy(&url);
	if (reason != NULL)
		return reason;
	if (strcmp(job->url.scheme, "https") == 0 && strcmp(url.scheme, "http") == 0)
		return "it leads away from TLS";
	if (strcmp(job->url.origin, url.origin) != 0)
	{
		keep_headers(request, is_harmless);
		request->certificate = NULL;
	}
	if (response->status != 307 && response->status != 308 &&
		strcmp(request->method, "GET") != 0 &&
		strcmp(request->method, "HEAD") != 0)
	{
		keep_headers(request, is_not_of_body);
		request->method = "GET";
		request->body = NULL;
		request->body_size = 0;
	}
	request->timeout_ms = (int) (delivery->started_at + delivery->timeout_ms -
								 jq_clock_ms());
	return request->timeout_ms > 0 ? NULL : "there is no time left";
}

static void
keep_headers(JqHttpRequest *request, bool (*may_stay) (const char *header))
{
	int			kept = 0;

	for (int i = 0; i < request->nheaders; i++)
		if (may_stay(request->headers[i]))
			request->headers[kept++] = request->headers[i];
	request->nheaders = kept;
}

static bool
is_harmless(const char *header)
{
	return pg_strncasecmp(header, "Content-Type:", 13) == 0 ||
		pg_strncasecmp(header, "User-Agent:", 11) == 0 ||
		pg_strncasecmp(header, "Idempotency-Key:", 16) == 0;
}

/* What describes a body, or signs it, goes with it. */
static bool
is_not_of_body(const char *header)
{
	return pg_strncasecmp(header, "Content-Type:", 13) != 0 &&
		pg_strncasecmp(header, "webhook-", 8) != 0;
}

/* Another dispatcher may be waiting for the place. */
static void
note_end(const JqHttpJob *job, const JqHealthEvent *event)
{
	if (jq_health_end(job->target, job->is_endpoint, event))
		(void) jq_shared_wake_dispatchers(MyDatabaseId);
}

static void
note_health(const Delivery *delivery, const JqHttpResponse *response,
			bool was_aborted)
{
	static const JqHealthFailure failures[] = {
		[JQ_HTTP_ANSWERED] = JQ_HEALTH_ANSWERED,
		[JQ_HTTP_TIMED_OUT] = JQ_HEALTH_TIMED_OUT,
		[JQ_HTTP_NO_ADDRESS] = JQ_HEALTH_NOT_CONNECTED,
		[JQ_HTTP_NOT_ALLOWED] = JQ_HEALTH_NOT_ALLOWED,
		[JQ_HTTP_NO_CONNECTION] = JQ_HEALTH_NOT_CONNECTED,
		[JQ_HTTP_TLS_FAILED] = JQ_HEALTH_TLS_FAILED,
		[JQ_HTTP_HEADERS_TOO_LARGE] = JQ_HEALTH_OTHER,
		[JQ_HTTP_BROKEN] = JQ_HEALTH_NOT_CONNECTED,
		[JQ_HTTP_IMPOSSIBLE] = JQ_HEALTH_OTHER
	};
	JqHealthEvent event = {.was_aborted = was_aborted};

	if (!was_aborted)
	{
		event.succeeded = response->status >= 200 && response->status <= 299;
		event.status = response->status;
		event.failure = failures[response->end];
		event.reason = response->reason;
		event.dns_us = response->dns_us;
		event.connect_us = response->connect_us;
		event.tls_us = response->tls_us;
		event.first_byte_us = response->first_byte_us;
		event.total_us = response->total_us;
		event.bytes = response->body_size;
		event.was_reused = response->is_reused;
	}
	note_end(delivery->jobs[0], &event);
}

/* Without a response: it was never sent, or given up. */
static void
answer_probe(const JqProbe *probe, const char *reason,
			 const JqHttpResponse *response, bool has_tls)
{
	JqProbeAnswer answer = {.has_tls = has_tls};

	if (reason != NULL)
		strlcpy(answer.reason, reason, sizeof(answer.reason));
	if (response != NULL)
	{
		answer.answered = response->end == JQ_HTTP_ANSWERED;
		answer.status = response->status;
		strlcpy(answer.address, response->address, sizeof(answer.address));
		answer.port = response->port;
		answer.http_version = response->version;
		answer.reused = response->is_reused;
		answer.dns_us = response->dns_us;
		answer.connect_us = response->connect_us;
		answer.tls_us = response->tls_us;
		answer.first_byte_us = response->first_byte_us;
		answer.total_us = response->total_us;
		answer.bytes = response->body_size;
	}
	jq_probe_answer(probe, &answer);
}

/* ---- giving up ---- */

/* It is not under way any more; what becomes of its jobs is the caller's. */
static void
forget_delivery(Delivery *delivery, int64 total_us)
{
	end_resolving(delivery, false, false);
	dlist_delete(&delivery->node);
	jq_target_end(delivery->target, delivery->jobs, delivery->count,
				  delivery->probe != NULL, total_us);
}

/* The outcome is that of all its jobs; constant, or nothing but a kind. */
static void
abort_delivery(Delivery *delivery, const JqOutcome *outcome)
{
	note_health(delivery, NULL, true);
	jq_http_transfer_release(delivery->transfer);
	forget_delivery(delivery, 0);
	if (delivery->probe != NULL)
	{
		jq_probe_abandon(delivery->probe);
		jq_http_job_free(delivery->jobs[0]);
		return;
	}
	for (int i = 0; i < delivery->count; i++)
		jq_endings_add(delivery->jobs[i], outcome);
}

void
jq_delivery_release_waiting(void)
{
	while (!dlist_is_empty(&jq_targets_busy))
	{
		JqTarget   *target = dlist_head_element(JqTarget, node,
												&jq_targets_busy);
		JqHttpJob  *job = dlist_head_element(JqHttpJob, node,
											 &target->waiting);

		jq_target_remove(target, job);
		jq_endings_release(job, 0);
	}
}

void
jq_delivery_release_barred(void)
{
	dlist_mutable_iter targets;

	dlist_foreach_modify(targets, &jq_targets_busy)
	{
		JqTarget   *target = dlist_container(JqTarget, node, targets.cur);
		dlist_mutable_iter jobs;

		dlist_foreach_modify(jobs, &target->waiting)
		{
			JqHttpJob  *job = dlist_container(JqHttpJob, node, jobs.cur);

			if (!jq_circuit_bars(job->job_type, job->stage, job->held.job_id,
								 job->held.claim_no))
				continue;
			jq_target_remove(target, job);
			jq_endings_release(job, 0);
		}
	}
}

void
jq_delivery_abort_all(void)
{
	JqOutcome	outcome = {.kind = JQ_OUTCOME_RELEASED};

	while (!dlist_is_empty(&deliveries))
		abort_delivery(dlist_head_element(Delivery, node, &deliveries), &outcome);
}

/* One that shares its request goes on with the others. */
void
jq_delivery_cancel(int64 job_id, int32 claim_no)
{
	JqOutcome	outcome = {.kind = JQ_OUTCOME_FAILED,.error = "cancelled"};
	dlist_iter	iter;

	if (cancel_waiting(job_id, claim_no))
		return;
	dlist_foreach(iter, &deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->probe == NULL && delivery->count == 1 &&
			delivery->jobs[0]->held.job_id == job_id &&
			delivery->jobs[0]->held.claim_no == claim_no)
		{
			abort_delivery(delivery, &outcome);
			return;
		}
	}
}

static bool
cancel_waiting(int64 job_id, int32 claim_no)
{
	dlist_iter	outer;
	dlist_iter	iter;

	dlist_foreach(outer, &jq_targets_busy)
	{
		JqTarget   *target = dlist_container(JqTarget, node, outer.cur);

		dlist_foreach(iter, &target->waiting)
		{
			JqHttpJob  *job = dlist_container(JqHttpJob, node, iter.cur);

			if (job->held.job_id != job_id || job->held.claim_no != claim_no)
				continue;
			jq_target_remove(target, job);
			jq_endings_release(job, 0);
			return true;
		}
	}
	return false;
}

/* ---- leases ---- */

static int
add_expiring(JqHttpJob *job, TimestampTz now, JqHttpJob **jobs, int count,
			 int max)
{
	TimestampTz margin = Min(job->lease_us / 2,
							 LEASE_MARGIN_MS * INT64CONST(1000));

	if (count < max && job->lease_until - now < margin)
		jobs[count++] = job;
	return count;
}

int
jq_delivery_expiring(JqHttpJob **jobs, int max)
{
	TimestampTz now = GetCurrentTimestamp();
	int			count = 0;
	dlist_iter	outer;
	dlist_iter	iter;

	dlist_foreach(outer, &deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, outer.cur);

		for (int i = 0; delivery->probe == NULL && i < delivery->count; i++)
			count = add_expiring(delivery->jobs[i], now, jobs, count, max);
	}
	dlist_foreach(outer, &jq_targets_busy)
	{
		JqTarget   *target = dlist_container(JqTarget, node, outer.cur);

		dlist_foreach(iter, &target->waiting)
			count = add_expiring(dlist_container(JqHttpJob, node, iter.cur),
								 now, jobs, count, max);
	}
	return count;
}
