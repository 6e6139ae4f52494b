/*-------------------------------------------------------------------------
 *
 * endings.c
 *	  HTTP jobs that have ended and are not yet recorded.
 *
 * They are written many at a time.  When that fails, each is tried alone, so
 * that one which cannot be written keeps no other: it stays here, and its job
 * this worker's, until it can, and is not written with others any more.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/endings.h"

#include "base/clock.h"
#include "base/db.h"
#include "lib/ilist.h"
#include "worker/worker.h"

#define MAX_WRITTEN 500			/* in one transaction */
#define GROUP_MS 2				/* how long an ending waits for others */
#define GROUP_SIZE 50			/* unless there are that many */
#define FIRST_DELAY_MS 1000		/* after an ending could not be written */
#define MAX_DELAY_MS 60000
#define MAX_ALONE_MS 300		/* for recording some of them one by one */

typedef struct Ending
{
	dlist_node	node;
	JqHttpJob  *job;
	JqOutcome	outcome;
	int			delay_ms;		/* 0: has not failed alone */
	int64		retry_at;		/* by jq_clock_ms() */
} Ending;

static dlist_head ready = DLIST_STATIC_INIT(ready);
static dlist_head put_off = DLIST_STATIC_INIT(put_off);
static int	nready = 0;
static int64 ready_since = 0;	/* by jq_clock_ms() */
static int	nurgent = 0;		/* of those that are ready */
static int	nput_off = 0;
static int	nwritten = 0;		/* the first of those that are ready */

static bool is_urgent(const Ending *ending);
static void forget_first(void);
static bool record_alone(Ending *ending);
static void write_one(void *arg);

void
jq_endings_add(JqHttpJob *job, const JqOutcome *outcome)
{
	Ending	   *ending = MemoryContextAllocZero(job->context, sizeof(Ending));

	ending->job = job;
	ending->outcome = *outcome;
	dlist_push_tail(&ready, &ending->node);
	if (is_urgent(ending))
		nurgent++;
	if (nready++ == 0)
		ready_since = jq_clock_ms();
}

static bool
is_urgent(const Ending *ending)
{
	return ending->job->has_breaker &&
		ending->outcome.kind == JQ_OUTCOME_FAILED;
}

bool
jq_endings_are_urgent(void)
{
	return nurgent > 0;
}

void
jq_endings_release(JqHttpJob *job, TimestampTz retry_at)
{
	JqOutcome	outcome = {.kind = JQ_OUTCOME_RELEASED};

	outcome.has_retry_at = retry_at != 0;
	outcome.retry_at = retry_at;
	jq_endings_add(job, &outcome);
}

int
jq_endings_count(void)
{
	return nready + nput_off;
}

int
jq_endings_ready(void)
{
	return nready;
}

long
jq_endings_wait_ms(void)
{
	int64		first = PG_INT64_MAX;
	dlist_iter	iter;

	if (nready > 0)
		return nready >= GROUP_SIZE || nurgent > 0 ? 0 :
			(long) Max(ready_since + GROUP_MS - jq_clock_ms(), 0);
	dlist_foreach(iter, &put_off)
		first = Min(first, dlist_container(Ending, node, iter.cur)->retry_at);
	return first == PG_INT64_MAX ? -1 : (long) Max(first - jq_clock_ms(), 0);
}

void
jq_endings_write(void)
{
	int			count = Min(nready, MAX_WRITTEN);
	JqHeld	   *held = palloc(sizeof(JqHeld) * Max(count, 1));
	JqOutcome  *outcomes = palloc(sizeof(JqOutcome) * Max(count, 1));
	bool	   *results = palloc(sizeof(bool) * Max(count, 1));
	dlist_iter	iter;

	nwritten = 0;
	dlist_foreach(iter, &ready)
	{
		Ending	   *ending = dlist_container(Ending, node, iter.cur);

		if (nwritten == count)
			break;
		held[nwritten] = ending->job->held;
		outcomes[nwritten++] = ending->outcome;
	}
	/* A job that is not held any more is somebody else's business. */
	if (nwritten > 0)
		jq_resolve_many(held, outcomes, nwritten, results);
}

void
jq_endings_written(void)
{
	while (nwritten > 0)
	{
		forget_first();
		nwritten--;
	}
}

static void
forget_first(void)
{
	Ending	   *ending = dlist_container(Ending, node, dlist_pop_head_node(&ready));

	nready--;
	if (is_urgent(ending))
		nurgent--;
	jq_http_job_free(ending->job);	/* and the ending with it */
}

bool
jq_endings_record_each(void)
{
	int64		until = jq_clock_ms() + MAX_ALONE_MS;
	bool		has_failed = false;

	for (int left = nready; left > 0 && jq_clock_ms() < until; left--)
	{
		Ending	   *ending = dlist_head_element(Ending, node, &ready);

		if (record_alone(ending))
			forget_first();
		else
		{
			has_failed = true;
			dlist_delete(&ending->node);
			nready--;
			if (is_urgent(ending))
				nurgent--;
			dlist_push_tail(&put_off, &ending->node);
			nput_off++;
		}
	}
	return has_failed && nready == 0;
}

void
jq_endings_retry(void)
{
	int64		until = jq_clock_ms() + MAX_ALONE_MS;
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &put_off)
	{
		Ending	   *ending = dlist_container(Ending, node, iter.cur);
		int64		now = jq_clock_ms();

		if (now >= until)
			return;
		if (ending->retry_at > now || !record_alone(ending))
			continue;
		dlist_delete(&ending->node);
		nput_off--;
		jq_http_job_free(ending->job);
	}
}

static bool
record_alone(Ending *ending)
{
	if (jq_worker_protect(write_one, ending))
		return true;
	ending->delay_ms = Min(Max(ending->delay_ms * 2, FIRST_DELAY_MS),
						   MAX_DELAY_MS);
	ending->retry_at = jq_clock_ms() + ending->delay_ms;
	return false;
}

static void
write_one(void *arg)
{
	Ending	   *ending = (Ending *) arg;

	jq_db_begin("recording an HTTP job");
	(void) jq_resolve(&ending->job->held, &ending->outcome);
	jq_db_commit();
}
