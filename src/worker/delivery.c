/*-------------------------------------------------------------------------
 *
 * delivery.c
 *	  HTTP jobs on their way: from the claim to the answer.
 *
 * Each target has a queue of its own and a number of requests at once.  Those
 * with something to send are served in turn, so that a slow one, whose places
 * are all taken, keeps none of the others.
 *
 * libcurl resolves each name in a thread, which goes on after its transfer
 * has timed out: so only a few transfers at once go to a name that has not
 * been resolved lately, and threads that may still be there count, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/delivery.h"

#include "base/clock.h"
#include "base/endpoint_health.h"
#include "http/client.h"
#include "lib/ilist.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/endings.h"
#include "worker/worker.h"

#define MAX_TARGETS 4096		/* that are remembered without work */
#define AHEAD_US 100000			/* the work that is claimed ahead for a target */
#define MIN_AHEAD 1				/* and jobs */
#define MAX_AHEAD 200
#define RESOLVED_MS 45000		/* libcurl remembers a name for 60 s */
#define MAX_RESOLVING 64		/* threads that may be resolving names */
#define MAX_RESOLVING_HERE 4	/* of one target */
#define THREAD_MS 60000			/* how long a name may take after a timeout */
#define WAIT_DISABLED_MS 60000	/* for a disabled endpoint to be enabled */
#define WAIT_BUSY_MS 1000		/* for a busy host, at least */
#define MAX_WAIT_BUSY_MS 60000
#define LEASE_MARGIN_MS 5000
#define MAX_SHARED 1000			/* jobs of a request: the largest batch_size */

#define KEY_SIZE 288

/* Where requests go. */
typedef struct Target
{
	char		key[KEY_SIZE];	/* its kind and name */
	dlist_node	node;			/* in busy, while jobs wait */
	dlist_head	waiting;		/* of Waiting */
	int			nwaiting;
	int			under_way;		/* requests */
	int			jobs_under_way;
	int			resolving;		/* requests that may be resolving its name */
	int			max_concurrency;
	int64		resolved_at;	/* by jq_clock_ms(); 0: not yet */
	int64		average_us;		/* of its last requests */
	TimestampTz put_off_until;	/* jobs that found no room came back then */
} Target;

/* A job that waits at its target. */
typedef struct Waiting
{
	dlist_node	node;
	JqHttpJob  *job;
} Waiting;

/* A request that is under way; it lives in the context of its first job. */
typedef struct Delivery
{
	dlist_node	node;			/* in deliveries */
	Target	   *target;
	JqHttpTransfer *transfer;
	JqHttpRequest request;
	JqHttpJob **jobs;
	int			count;
	JqProbe    *probe;			/* NULL: of jobs */
	int64		started_at;		/* by jq_clock_ms() */
	int			redirects;
	bool		is_resolving;	/* counted in resolving */
} Delivery;

static MemoryContext delivery_context = NULL;
static HTAB *targets = NULL;
static dlist_head busy = DLIST_STATIC_INIT(busy);
static dlist_head deliveries = DLIST_STATIC_INIT(deliveries);
static int	nwaiting = 0;
static int	njobs_under_way = 0;
static int	nunder_way = 0;		/* requests */
static int	nsuspects = 0;
static int	nresolving = 0;
static int64 threads[MAX_RESOLVING];	/* until when one may be there */

static Target *find_target(const char *name, bool is_endpoint);
static void forget_idle_targets(void);
static void wait_at(Target *target, JqHttpJob *job);
static void put_off(Target *target, JqHttpJob *job);
static JqHttpJob *remove_waiting(Target *target, dlist_node *node);
static JqHttpJob *remove_first(Target *target);
static bool may_send(Target *target, const JqHttpJob *job);
static bool is_known(const Target *target, const JqHttpJob *job);
static int	count_threads(void);
static int	gather(Target *target, JqHttpJob **jobs, bool to_end);
static bool send_next(Target *target, bool to_end);
static void send_request(Target *target, JqHttpJob **jobs, int count,
				 const JqProbe *probe);
static bool start(Delivery *delivery);
static void compose(void *arg);
static void refuse(JqHttpJob **jobs, int count, const JqProbe *probe,
				   const char *reason);
static void note_resolved(void);
static void end_resolving(Delivery *delivery, bool has_thread);
static void end_transfer(JqHttpTransfer *transfer);
static bool follow(Delivery *delivery, const JqHttpResponse *response);
static const char *next_request(Delivery *delivery,
								const JqHttpResponse *response,
								JqHttpRequest *request);
static void judge(void *arg);
static void note_refusal(const JqHttpJob *job);
static void note_health(const Delivery *delivery,
						const JqHttpResponse *response, bool was_aborted);
static void answer_probe(const JqProbe *probe, const char *reason,
						 const JqHttpResponse *response, bool has_tls);
static void forget_delivery(Delivery *delivery);
static void abort_delivery(Delivery *delivery, const JqOutcome *outcome);

void
jq_delivery_init(MemoryContext parent)
{
	HASHCTL		info;

	delivery_context = AllocSetContextCreate(parent, "jobqueue deliveries",
											 ALLOCSET_DEFAULT_SIZES);
	info.keysize = KEY_SIZE;
	info.entrysize = sizeof(Target);
	info.hcxt = delivery_context;
	targets = hash_create("jobqueue HTTP targets", 64, &info,
						  HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

/* ---- waiting for room ---- */

static Target *
find_target(const char *name, bool is_endpoint)
{
	char		key[KEY_SIZE];
	Target	   *target;
	bool		found;

	if (hash_get_num_entries(targets) >= MAX_TARGETS)
		forget_idle_targets();
	memset(key, 0, sizeof(key));
	snprintf(key, sizeof(key), "%c%s", is_endpoint ? 'e' : 'u', name);
	target = hash_search(targets, key, HASH_ENTER, &found);
	if (!found)
	{
		memset((char *) target + KEY_SIZE, 0, sizeof(Target) - KEY_SIZE);
		dlist_init(&target->waiting);
	}
	return target;
}

static void
forget_idle_targets(void)
{
	HASH_SEQ_STATUS status;
	Target	   *target;

	hash_seq_init(&status, targets);
	while ((target = hash_seq_search(&status)) != NULL)
		if (target->nwaiting == 0 && target->under_way == 0)
			hash_search(targets, target->key, HASH_REMOVE, NULL);
}

/* How many requests to claim ahead, so that a free place is taken at once. */
static int
count_ahead(int at_once, int64 average_us)
{
	int64		ahead = average_us == 0 ? at_once :
	(int64) at_once * AHEAD_US / average_us;

	return (int) Min(Max(ahead, MIN_AHEAD), MAX_AHEAD);
}

/*
 * As many as may be under way at once, and some ahead.  Few are not worth a
 * claim while others wait to be sent.
 */
int
jq_delivery_wanted(const char *endpoint, int max_concurrency, int request_size)
{
	int			room = jq_http_client_room();
	int			at_once = Min(max_concurrency, room);
	int			here = nwaiting + njobs_under_way;
	int			waiting = nwaiting;
	int64		average_us = 0;
	int			ahead;
	int			wanted;

	if (endpoint != NULL)
	{
		Target	   *target = find_target(endpoint, true);

		here = target->nwaiting + target->jobs_under_way;
		waiting = target->nwaiting;
		average_us = target->average_us;
	}
	ahead = count_ahead(at_once, average_us) * request_size;
	wanted = Min(at_once * request_size + ahead - here,
				 (2 * room + MAX_AHEAD) * request_size - nwaiting - njobs_under_way);
	return waiting > ahead / 2 ? 0 : Max(wanted, 0);
}

void
jq_delivery_add(JqHttpJob *job)
{
	Target	   *target;

	if (job->refusal != NULL)
	{
		JqHttpJob  *jobs[1] = {job};

		refuse(jobs, 1, NULL, job->refusal);
		return;
	}
	if (job->must_wait)
	{
		jq_endings_release(job, GetCurrentTimestamp() +
						   WAIT_DISABLED_MS * INT64CONST(1000));
		return;
	}
	target = find_target(job->target, job->is_endpoint);
	target->max_concurrency = job->max_concurrency;
	if (target->nwaiting >= (job->max_concurrency + MAX_AHEAD) * job->request_size)
		put_off(target, job);
	else
		wait_at(target, job);
}

void
jq_delivery_add_probe(JqHttpJob *job, const JqProbe *probe)
{
	JqHttpJob  *jobs[1] = {job};

	if (job->refusal != NULL)
		refuse(jobs, 1, probe, job->refusal);
	else
		send_request(find_target(job->target, true), jobs, 1, probe);
}

static void
wait_at(Target *target, JqHttpJob *job)
{
	Waiting    *waiting = MemoryContextAllocZero(job->context, sizeof(Waiting));

	waiting->job = job;
	dlist_push_tail(&target->waiting, &waiting->node);
	if (target->nwaiting++ == 0)
		dlist_push_tail(&busy, &target->node);
	nwaiting++;
	nsuspects += job->is_suspect;
}

/*
 * There is no room at its host, and others behind it in the queue may go
 * elsewhere: it comes back when its turn should be, as far as one can tell.
 */
static void
put_off(Target *target, JqHttpJob *job)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz first = now + WAIT_BUSY_MS * INT64CONST(1000);
	TimestampTz last = now + MAX_WAIT_BUSY_MS * INT64CONST(1000);

	target->put_off_until = Max(target->put_off_until, first) +
		target->average_us / Max(target->max_concurrency, 1);
	target->put_off_until = Min(target->put_off_until, last);
	jq_endings_release(job, target->put_off_until);
}

static JqHttpJob *
remove_waiting(Target *target, dlist_node *node)
{
	JqHttpJob  *job = dlist_container(Waiting, node, node)->job;

	dlist_delete(node);
	nwaiting--;
	nsuspects -= job->is_suspect;
	if (--target->nwaiting == 0)
		dlist_delete(&target->node);
	return job;
}

static JqHttpJob *
remove_first(Target *target)
{
	return remove_waiting(target, dlist_head_node(&target->waiting));
}

void
jq_delivery_release_waiting(void)
{
	while (!dlist_is_empty(&busy))
		jq_endings_release(remove_first(dlist_head_element(Target, node, &busy)),
						   0);
}

int
jq_delivery_waiting(void)
{
	return nwaiting;
}

int
jq_delivery_under_way(void)
{
	return nunder_way;
}

bool
jq_delivery_has_suspect(void)
{
	return nsuspects > 0;
}

/* ---- sending ---- */

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
		dlist_foreach_modify(iter, &busy)
			if (send_next(dlist_container(Target, node, iter.cur), to_end))
			goes_on = true;
		has_sent |= goes_on;
	}
	return has_sent;
}

/* Sends the next request to a target; false: it has none, or no room. */
static bool
send_next(Target *target, bool to_end)
{
	JqHttpJob  *jobs[MAX_SHARED];
	Waiting    *first = dlist_head_element(Waiting, node, &target->waiting);
	int			count = 1;

	if (!may_send(target, first->job))
		return false;
	if (first->job->request_size > 1)
		count = gather(target, jobs, to_end);
	else
		jobs[0] = remove_first(target);
	if (count == 0)
		return false;
	send_request(target, jobs, count, NULL);
	return true;
}

static bool
may_send(Target *target, const JqHttpJob *job)
{
	if (target->under_way >= target->max_concurrency ||
		nunder_way >= jq_http_client_room())
		return false;
	return is_known(target, job) ||
		(target->resolving < MAX_RESOLVING_HERE &&
		 nresolving + count_threads() < MAX_RESOLVING);
}

/* Whether no thread is needed to find the address. */
static bool
is_known(const Target *target, const JqHttpJob *job)
{
	return job->url.is_literal_address ||
		(target->resolved_at != 0 &&
		 jq_clock_ms() - target->resolved_at < RESOLVED_MS);
}

/* Of transfers that have given up. */
static int
count_threads(void)
{
	int64		now = jq_clock_ms();
	int			count = 0;

	for (int i = 0; i < MAX_RESOLVING; i++)
		count += threads[i] > now;
	return count;
}

/*
 * The jobs of the next shared request: of one job type, as many as it may
 * have, or fewer once the first of them has waited long enough.  Several job
 * types may be waiting here: the first of them that is complete goes first.
 */
static int
gather(Target *target, JqHttpJob **jobs, bool to_end)
{
	int64		now = jq_clock_ms();
	dlist_node *nodes[MAX_SHARED];
	dlist_iter	outer;

	dlist_foreach(outer, &target->waiting)
	{
		JqHttpJob  *first = dlist_container(Waiting, node, outer.cur)->job;
		bool		is_over = to_end ||
			now - first->claimed_at >= first->max_linger_us / 1000;
		dlist_iter	iter;
		int			count = 0;

		dlist_foreach(iter, &target->waiting)
		{
			JqHttpJob  *job = dlist_container(Waiting, node, iter.cur)->job;

			if (strcmp(job->job_type, first->job_type) != 0 ||
				count == MAX_SHARED || count == first->request_size)
				continue;
			nodes[count] = iter.cur;
			jobs[count++] = job;
		}
		if (count < first->request_size && !is_over)
			continue;
		for (int i = 0; i < count; i++)
			(void) remove_waiting(target, nodes[i]);
		return count;
	}
	return 0;
}

long
jq_delivery_linger_ms(void)
{
	int64		now = jq_clock_ms();
	long		least = -1;
	dlist_iter	outer;

	dlist_foreach(outer, &busy)
	{
		Target	   *target = dlist_container(Target, node, outer.cur);
		JqHttpJob  *first = dlist_head_element(Waiting, node,
											   &target->waiting)->job;
		long		left;

		if (first->request_size == 1)
			continue;
		left = (long) Max(first->claimed_at + first->max_linger_us / 1000 - now, 0);
		if (least < 0 || left < least)
			least = left;
	}
	return least;
}

/* What a composition needs, and what it brings. */
typedef struct Composition
{
	Delivery   *delivery;
	const char *reason;
} Composition;

static void
send_request(Target *target, JqHttpJob **jobs, int count, const JqProbe *probe)
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
	if (composition.reason == NULL && !start(delivery))
		composition.reason = "there is no memory for the request";
	MemoryContextSwitchTo(old);
	if (composition.reason != NULL)
		refuse(jobs, count, probe, composition.reason);
}

static void
compose(void *arg)
{
	Composition *composition = (Composition *) arg;
	Delivery   *delivery = composition->delivery;

	composition->reason = jq_http_job_compose(delivery->jobs, delivery->count,
											  &delivery->request);
}

/* Starts the request of a delivery, the first one or one after a redirect. */
static bool
start(Delivery *delivery)
{
	Target	   *target = delivery->target;

	delivery->transfer = jq_http_client_start(&delivery->request, delivery);
	if (delivery->transfer == NULL)
		return false;
	if (delivery->started_at == 0)
	{
		delivery->started_at = jq_clock_ms();
		dlist_push_tail(&deliveries, &delivery->node);
		target->under_way++;
		nunder_way++;
		if (delivery->probe == NULL)
		{
			target->jobs_under_way += delivery->count;
			njobs_under_way += delivery->count;
			for (int i = 0; i < delivery->count; i++)
				nsuspects += delivery->jobs[i]->is_suspect;
		}
		jq_health_started(delivery->jobs[0]->target,
						  delivery->jobs[0]->is_endpoint, GetCurrentTimestamp());
	}
	if (!is_known(target, delivery->jobs[0]))
	{
		delivery->is_resolving = true;
		target->resolving++;
		nresolving++;
	}
	return true;
}

/* A request that is not sent, and never will be. */
static void
refuse(JqHttpJob **jobs, int count, const JqProbe *probe, const char *reason)
{
	JqOutcome	outcome = {.kind = JQ_OUTCOME_FAILED,.is_permanent = true};

	note_refusal(jobs[0]);
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
		jq_endings_add(jobs[i], &outcome);
	}
}

/* Counted where it was to go, if that is known. */
static void
note_refusal(const JqHttpJob *job)
{
	JqHealthEvent event = {.failure = JQ_HEALTH_NOT_ALLOWED,
	.reason = "not sent; last_error of the job says why"};

	if (job->target[0] == '\0')
		return;
	jq_health_started(job->target, job->is_endpoint, GetCurrentTimestamp());
	jq_health_ended(job->target, job->is_endpoint, &event);
}

/* ---- names ---- */

/* As soon as the first transfer knows its address, others may follow. */
static void
note_resolved(void)
{
	dlist_iter	iter;

	if (nresolving == 0)
		return;
	dlist_foreach(iter, &deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->is_resolving &&
			jq_http_transfer_is_resolved(delivery->transfer))
		{
			delivery->target->resolved_at = jq_clock_ms();
			end_resolving(delivery, false);
		}
	}
}

static void
end_resolving(Delivery *delivery, bool has_thread)
{
	int64		now = jq_clock_ms();

	if (!delivery->is_resolving)
		return;
	delivery->is_resolving = false;
	delivery->target->resolving--;
	nresolving--;
	for (int i = 0; has_thread && i < MAX_RESOLVING; i++)
		if (threads[i] <= now)
		{
			threads[i] = now + THREAD_MS;
			break;
		}
}

/* ---- answers ---- */

/* What judging an answer needs. */
typedef struct Judgement
{
	Delivery   *delivery;
	JqHttpResponse *response;
	JqOutcome  *outcomes;
} Judgement;

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
	if (response.dns_us > 0 && response.end != JQ_HTTP_NO_ADDRESS)
		delivery->target->resolved_at = jq_clock_ms();
	end_resolving(delivery, response.end == JQ_HTTP_TIMED_OUT);
	if (response.redirect_url != NULL && follow(delivery, &response))
	{
		MemoryContextSwitchTo(old);
		return;
	}

	note_health(delivery, &response, false);
	delivery->target->average_us +=
		(response.total_us - delivery->target->average_us) / 8;
	forget_delivery(delivery);
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
		(void) jq_worker_protect(judge, &judgement);
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

	for (int i = 0; i < delivery->count; i++)
	{
		outcomes[i].kind = JQ_OUTCOME_FAILED;
		outcomes[i].error = "the response could not be read";
	}
	if (delivery->count == 1)
		MemoryContextSwitchTo(jobs[0]->context);
	jq_http_job_outcomes(jobs, delivery->count, judgement->response,
						 delivery->redirects, outcomes);
	for (int i = 0; i < delivery->count; i++)
	{
		MemoryContextSwitchTo(jobs[i]->context);
		if (delivery->count > 1)
			jq_http_outcome_copy(&outcomes[i]);
		jq_http_outcome_log(jobs[i], &outcomes[i]);
	}
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
	static const char *const harmless[] = {
		"Content-Type:", "User-Agent:", "Idempotency-Key:"
	};
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
		int			kept = 0;

		for (int i = 0; i < request->nheaders; i++)
			for (int n = 0; n < (int) lengthof(harmless); n++)
				if (pg_strncasecmp(request->headers[i], harmless[n],
								   strlen(harmless[n])) == 0)
					request->headers[kept++] = request->headers[i];
		request->nheaders = kept;
		request->certificate = NULL;
	}
	if (response->status != 307 && response->status != 308 &&
		strcmp(request->method, "GET") != 0 &&
		strcmp(request->method, "HEAD") != 0)
	{
		request->method = "GET";
		request->body = NULL;
		request->body_size = 0;
	}
	request->timeout_ms -= (int) (jq_clock_ms() - delivery->started_at);
	return request->timeout_ms > 0 ? NULL : "there is no time left";
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
	jq_health_ended(delivery->jobs[0]->target, delivery->jobs[0]->is_endpoint,
					&event);
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

/* It is not under way any more; what becomes of its jobs is the caller's. */
static void
forget_delivery(Delivery *delivery)
{
	Target	   *target = delivery->target;

	end_resolving(delivery, false);
	dlist_delete(&delivery->node);
	target->under_way--;
	nunder_way--;
	if (delivery->probe == NULL)
	{
		target->jobs_under_way -= delivery->count;
		njobs_under_way -= delivery->count;
		for (int i = 0; i < delivery->count; i++)
			nsuspects -= delivery->jobs[i]->is_suspect;
	}
}

/* ---- giving up ---- */

/* The outcome is that of all its jobs; constant, or nothing but a kind. */
static void
abort_delivery(Delivery *delivery, const JqOutcome *outcome)
{
	note_health(delivery, NULL, true);
	jq_http_transfer_release(delivery->transfer);
	forget_delivery(delivery);
	if (delivery->probe != NULL)
	{
		jq_probe_abandon(delivery->probe);
		jq_http_job_free(delivery->jobs[0]);
	}
	else
		for (int i = 0; i < delivery->count; i++)
			jq_endings_add(delivery->jobs[i], outcome);
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
	dlist_mutable_iter iter;
	dlist_iter	outer;

	dlist_foreach_modify(iter, &deliveries)
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
	dlist_foreach(outer, &busy)
	{
		Target	   *target = dlist_container(Target, node, outer.cur);

		dlist_foreach_modify(iter, &target->waiting)
		{
			JqHttpJob  *job = dlist_container(Waiting, node, iter.cur)->job;

			if (job->held.job_id != job_id || job->held.claim_no != claim_no)
				continue;
			remove_waiting(target, iter.cur);
			jq_endings_release(job, 0);
			return;
		}
	}
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
	dlist_foreach(outer, &busy)
	{
		Target	   *target = dlist_container(Target, node, outer.cur);

		dlist_foreach(iter, &target->waiting)
			count = add_expiring(dlist_container(Waiting, node, iter.cur)->job,
								 now, jobs, count, max);
	}
	return count;
}
