/*
 * plan.c
 *	  Which instants of a cron task become jobs, and which is the next.
 */
#include "postgres.h"

#include "cron/plan.h"

#include "utils/timestamp.h"

/* With catch_up none, an instant that is later than this was missed. */
#define ON_TIME_US		USECS_PER_MINUTE

static TimestampTz within_bounds(const JqCronPlan *plan, TimestampTz instant);
static TimestampTz start_of_last(const JqCronPlan *plan, TimestampTz planned,
								 TimestampTz end, int64 count);
static TimestampTz earliest_start(const JqCronPlan *plan, TimestampTz now);

TimestampTz
jq_plan_first(const JqCronPlan *plan, TimestampTz now)
{
	bool		is_bounded = !TIMESTAMP_IS_NOBEGIN(plan->starts_at);

	return jq_plan_next(plan, now, is_bounded ? plan->starts_at : now);
}

TimestampTz
jq_plan_next(const JqCronPlan *plan, TimestampTz now, TimestampTz known)
{
	TimestampTz after = now;

	/* starts_at itself is legal, and no instant is a fraction of a second */
	if (plan->starts_at > now)
		after = plan->starts_at - 1;
	return within_bounds(plan, jq_cron_next(&plan->expr, after, known,
											plan->zone));
}

void
jq_plan_due(const JqCronPlan *plan, TimestampTz planned, TimestampTz now,
			JqCronDue *due)
{
	TimestampTz end = Min(now, plan->ends_at);
	TimestampTz earliest = earliest_start(plan, now);
	int64		wanted = plan->catch_up == JQ_CATCH_UP_ALL ? plan->catch_up_limit : 1;
	int64		later = jq_cron_count(&plan->expr, planned, end, planned,
									  plan->zone);
	TimestampTz instant = planned;

	if (later >= wanted)
		instant = jq_cron_next(&plan->expr,
							   start_of_last(plan, planned, end, wanted),
							   planned, plan->zone);

	due->ninstants = 0;
	for (int64 left = Min(later + 1, wanted); left > 0; left--)
	{
		due->latest = instant;
		if (instant >= earliest)
			due->instants[due->ninstants++] = instant;
		instant = jq_cron_next(&plan->expr, instant, planned, plan->zone);
	}
	due->missed = later + 1 - due->ninstants;
	due->next = jq_plan_next(plan, now, planned);
}

static TimestampTz
within_bounds(const JqCronPlan *plan, TimestampTz instant)
{
	return instant > plan->ends_at ? DT_NOEND : instant;
}

/*
 * An instant between planned and end after which exactly so many others
 * follow, up to end; there are at least so many.
 */
static TimestampTz
start_of_last(const JqCronPlan *plan, TimestampTz planned, TimestampTz end,
			  int64 count)
{
	TimestampTz low = planned;	/* followed by at least so many */
	TimestampTz high = end;		/* by fewer */

	while (jq_cron_count(&plan->expr, low, end, planned, plan->zone) > count)
	{
		TimestampTz middle = low + (high - low) / 2;

		if (jq_cron_count(&plan->expr, middle, end, planned, plan->zone) >= count)
			low = middle;
		else
			high = middle;
	}
	return low;
}

static TimestampTz
earliest_start(const JqCronPlan *plan, TimestampTz now)
{
	if (plan->start_deadline_us >= 0)
		return now - plan->start_deadline_us;
	return plan->catch_up == JQ_CATCH_UP_NONE ? now - ON_TIME_US : DT_NOBEGIN;
}
