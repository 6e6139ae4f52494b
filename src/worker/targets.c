/*-------------------------------------------------------------------------
 *
 * targets.c
 *	  Where HTTP requests go, and the claimed jobs that wait to be sent.
 *
 * A slow target, whose places are all taken, keeps none of the others.  Jobs
 * of an endpoint are claimed only as far as it has room; those that bring a
 * URL may all go to the same host, and what finds no room there is given back
 * until its turn should come.
 *
 * libcurl resolves each name in a thread, which goes on after its transfer
 * has timed out: so only a few requests at once go to a name that has not
 * been resolved lately, and threads that may still be there count, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/targets.h"

#include "base/clock.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define MAX_TARGETS 4096		/* that are remembered without work */
#define AHEAD_US 100000			/* the work that is claimed ahead for a target */
#define MIN_AHEAD 1				/* and jobs */
#define MAX_AHEAD 200
#define MAX_WAITING 5000		/* jobs, wherever they go */
#define RESOLVED_MS 45000		/* libcurl remembers a name for 60 s */
#define MAX_RESOLVING 64		/* threads that may be resolving names */
#define MAX_RESOLVING_HERE 4	/* of one target */
#define THREAD_MS 60000			/* how long a name may take after a timeout */
#define MAX_TYPES 16			/* job types that are gathered at a target */
#define MIN_LINGER_MS 10		/* another dispatcher may have the places */
#define WAIT_BUSY_MS 1000		/* for a busy host, at least */
#define MAX_WAIT_BUSY_MS 60000

/* Job types that were met among the jobs of a target. */
typedef struct TypesMet
{
	const char *names[MAX_TYPES];
	int			count;
} TypesMet;

dlist_head	jq_targets_busy = DLIST_STATIC_INIT(jq_targets_busy);

static HTAB *targets = NULL;
static int	nwaiting = 0;		/* jobs */
static int	nunder_way = 0;		/* requests */
static int	nsuspects = 0;
static int	nresolving = 0;
static int64 threads[MAX_RESOLVING];	/* until when one may be there */

static void forget_idle_targets(void);
static int	count_ahead(int at_once, int64 average_us);
static double count_sendable(bool by_url);
static bool is_full(const JqTarget *target, const JqHttpJob *job);
static TimestampTz next_turn(JqTarget *target);
static bool may_send(const JqTarget *target, const JqHttpJob *job);
static bool is_known(const JqTarget *target, const JqHttpJob *job);
static int	count_threads(void);
static int	gather(JqTarget *target, JqHttpJob **jobs, bool to_end);
static bool is_first_of_type(TypesMet *met, const JqHttpJob *job);
static int	gather_of_type(JqTarget *target, JqHttpJob *first,
						   JqHttpJob **jobs);

void
jq_targets_init(MemoryContext parent)
{
	HASHCTL		info;

	info.keysize = JQ_TARGET_KEY_SIZE;
	info.entrysize = sizeof(JqTarget);
	info.hcxt = AllocSetContextCreate(parent, "jobqueue HTTP targets",
									  ALLOCSET_DEFAULT_SIZES);
	targets = hash_create("jobqueue HTTP targets", 64, &info,
						  HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

JqTarget *
jq_target_find(const char *name, bool is_endpoint)
{
	char		key[JQ_TARGET_KEY_SIZE];
	JqTarget   *target;
	bool		found;

	if (hash_get_num_entries(targets) >= MAX_TARGETS)
		forget_idle_targets();
	snprintf(key, sizeof(key), "%c%s", is_endpoint ? 'e' : 'u', name);
	target = hash_search(targets, key, HASH_ENTER, &found);
	if (!found)
	{
		memset((char *) target + JQ_TARGET_KEY_SIZE, 0,
			   sizeof(JqTarget) - JQ_TARGET_KEY_SIZE);
		dlist_init(&target->waiting);
	}
	return target;
}

static void
forget_idle_targets(void)
{
	HASH_SEQ_STATUS status;
	JqTarget   *target;

	hash_seq_init(&status, targets);
	while ((target = hash_seq_search(&status)) != NULL)
		if (target->nwaiting == 0 && target->under_way == 0)
			hash_search(targets, target->key, HASH_REMOVE, NULL);
}

/* ---- waiting for room ---- */

/* How many requests to claim ahead, so that a free place is taken at once. */
static int
count_ahead(int at_once, int64 average_us)
{
	int64		ahead = average_us == 0 ? at_once :
	(int64) at_once * AHEAD_US / average_us;

	return (int) Min(Max(ahead, MIN_AHEAD), MAX_AHEAD);
}

/*
 * The requests that wait and could be sent, to URLs only or to all targets;
 * jobs that wait for company count by their share.  Those that wait for a
 * place of their own target keep no others.
 */
static double
count_sendable(bool by_url)
{
	double		count = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &jq_targets_busy)
	{
		JqTarget   *target = dlist_container(JqTarget, node, iter.cur);
		JqHttpJob  *first = dlist_head_element(JqHttpJob, node,
											   &target->waiting);

		if (target->under_way < target->max_concurrency &&
			!(by_url && target->is_endpoint))
			count += (double) target->nwaiting / first->request_size;
	}
	return count;
}

/*
 * As many as may be under way at once, and some ahead.  Few are not worth a
 * claim while others wait to be sent.
 */
int
jq_targets_wanted(const char *endpoint, int max_concurrency, int request_size)
{
	int			at_once = Min(max_concurrency, jq_http_client_room());
	double		room = 2 * jq_http_client_room() + MAX_AHEAD -
	count_sendable(false) - nunder_way;
	int64		average_us = 0;
	int			waiting;
	int			here;
	int			ahead;
	int			wanted;

	if (endpoint != NULL)
	{
		JqTarget   *target = jq_target_find(endpoint, true);

		waiting = target->nwaiting;
		here = waiting + target->jobs_under_way;
		average_us = target->average_us;
	}
	else
	{
		waiting = (int) count_sendable(true);
		here = waiting + nunder_way;
	}
	ahead = count_ahead(at_once, average_us) * request_size;
	wanted = Min(at_once * request_size + ahead - here,
				 (int) (Max(room, 0) * request_size));
	wanted = Min(wanted, MAX_WAITING - nwaiting);
	/* A shared request may still be short of some. */
	return waiting > Max(ahead / 2, request_size - 1) ? 0 : Max(wanted, 0);
}

bool
jq_target_add(JqHttpJob *job, TimestampTz *retry_at)
{
	JqTarget   *target = jq_target_find(job->target, job->is_endpoint);

	target->max_concurrency = job->max_concurrency;
	target->is_endpoint = job->is_endpoint;
	if (is_full(target, job))
	{
		*retry_at = next_turn(target);
		return false;
	}
	dlist_push_tail(&target->waiting, &job->node);
	if (target->nwaiting++ == 0)
		dlist_push_tail(&jq_targets_busy, &target->node);
	nwaiting++;
	nsuspects += job->is_suspect;
	return true;
}

/*
 * What is claimed for an endpoint finds room there, unless its limit has been
 * lowered.  What names a URL may be too much for its host.
 */
static bool
is_full(const JqTarget *target, const JqHttpJob *job)
{
	int			places = Max(target->max_concurrency - target->under_way, 0);

	if (job->is_endpoint)
		return target->nwaiting >=
			(job->max_concurrency + MAX_AHEAD) * job->request_size;
	return target->nwaiting >= places +
		Min(count_ahead(target->max_concurrency, target->average_us),
			target->max_concurrency);
}

/* As far as one can tell from how long its requests take. */
static TimestampTz
next_turn(JqTarget *target)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz first = now + WAIT_BUSY_MS * INT64CONST(1000);
	TimestampTz last = now + MAX_WAIT_BUSY_MS * INT64CONST(1000);

	target->put_off_until = Max(target->put_off_until, first) +
		target->average_us / Max(target->max_concurrency, 1);
	target->put_off_until = Min(target->put_off_until, last);
	return target->put_off_until;
}

void
jq_target_remove(JqTarget *target, JqHttpJob *job)
{
	dlist_delete(&job->node);
	nwaiting--;
	nsuspects -= job->is_suspect;
	if (--target->nwaiting == 0)
		dlist_delete(&target->node);
}

/* ---- the next request ---- */

int
jq_target_next(JqTarget *target, JqHttpJob **jobs, bool to_end)
{
	JqHttpJob  *first = dlist_head_element(JqHttpJob, node, &target->waiting);

	if (!may_send(target, first))
		return 0;
	if (first->request_size > 1)
		return gather(target, jobs, to_end);
	jobs[0] = first;
	return 1;
}

static bool
may_send(const JqTarget *target, const JqHttpJob *job)
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
is_known(const JqTarget *target, const JqHttpJob *job)
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
gather(JqTarget *target, JqHttpJob **jobs, bool to_end)
{
	int64		now = jq_clock_ms();
	TypesMet	met = {.count = 0};
	dlist_iter	iter;

	dlist_foreach(iter, &target->waiting)
	{
		JqHttpJob  *first = dlist_container(JqHttpJob, node, iter.cur);
		bool		is_over = to_end ||
		now - first->claimed_at >= first->max_linger_us / 1000;
		int			count;

		if (!is_first_of_type(&met, first))
			continue;
		count = gather_of_type(target, first, jobs);
		if (count == Min(first->request_size, JQ_MAX_SHARED) || is_over)
			return count;
	}
	return 0;
}

/* Whether its type was not met before; more than a few are not gathered. */
static bool
is_first_of_type(TypesMet *met, const JqHttpJob *job)
{
	for (int i = 0; i < met->count; i++)
		if (strcmp(met->names[i], job->job_type) == 0)
			return false;
	if (met->count == MAX_TYPES)
		return false;
	met->names[met->count++] = job->job_type;
	return true;
}

static int
gather_of_type(JqTarget *target, JqHttpJob *first, JqHttpJob **jobs)
{
	int			max = Min(first->request_size, JQ_MAX_SHARED);
	int			count = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &target->waiting)
	{
		JqHttpJob  *job = dlist_container(JqHttpJob, node, iter.cur);

		if (count == max)
			break;
		if (strcmp(job->job_type, first->job_type) == 0)
			jobs[count++] = job;
	}
	return count;
}

/* A target whose places are all taken waits for one of them, not for time. */
long
jq_targets_linger_ms(void)
{
	int64		now = jq_clock_ms();
	int64		least = PG_INT64_MAX;
	dlist_iter	outer;
	dlist_iter	iter;

	dlist_foreach(outer, &jq_targets_busy)
	{
		JqTarget   *target = dlist_container(JqTarget, node, outer.cur);
		TypesMet	met = {.count = 0};

		if (!may_send(target, dlist_head_element(JqHttpJob, node,
												 &target->waiting)))
			continue;
		dlist_foreach(iter, &target->waiting)
		{
			JqHttpJob  *job = dlist_container(JqHttpJob, node, iter.cur);

			if (is_first_of_type(&met, job))
				least = Min(least, job->claimed_at + job->max_linger_us / 1000);
		}
	}
	return least == PG_INT64_MAX ? -1 :
		(long) Max(least - now, MIN_LINGER_MS);
}

/* ---- requests under way ---- */

void
jq_target_begin(JqTarget *target, JqHttpJob **jobs, int count, bool is_probe)
{
	target->under_way++;
	nunder_way++;
	if (is_probe)
		return;
	target->jobs_under_way += count;
	for (int i = 0; i < count; i++)
		nsuspects += jobs[i]->is_suspect;
}

void
jq_target_end(JqTarget *target, JqHttpJob **jobs, int count, bool is_probe,
			  int64 total_us)
{
	target->under_way--;
	nunder_way--;
	if (total_us > 0 && target->average_us == 0)
		target->average_us = total_us;
	else if (total_us > 0)
		target->average_us += (total_us - target->average_us) / 8;
	if (is_probe)
		return;
	target->jobs_under_way -= count;
	for (int i = 0; i < count; i++)
		nsuspects -= jobs[i]->is_suspect;
}

bool
jq_target_begin_resolving(JqTarget *target, const JqHttpJob *job)
{
	if (is_known(target, job))
		return false;
	target->resolving++;
	nresolving++;
	return true;
}

void
jq_target_end_resolving(JqTarget *target, bool is_resolved, bool has_thread)
{
	int64		now = jq_clock_ms();

	target->resolving--;
	nresolving--;
	if (is_resolved)
		target->resolved_at = now;
	for (int i = 0; has_thread && i < MAX_RESOLVING; i++)
		if (threads[i] <= now)
		{
			threads[i] = now + THREAD_MS;
			break;
		}
}

bool
jq_targets_are_resolving(void)
{
	return nresolving > 0;
}

int
jq_targets_waiting(void)
{
	return nwaiting;
}

int
jq_targets_under_way(void)
{
	return nunder_way;
}

bool
jq_targets_have_suspect(void)
{
	return nsuspects > 0;
}
