/*
 * plan.h
 *	  Which instants of a cron task become jobs, and which is the next.
 *
 *	  Pure: no table and no clock is looked at.
 */
#ifndef JQ_CRON_PLAN_H
#define JQ_CRON_PLAN_H

#include "cron/schedule.h"

/* largest catch_up_limit, and so the most instants that are due at once */
#define JQ_PLAN_MAX_INSTANTS	1000

/* What happens to instants that passed unseen. */
typedef enum JqCatchUp
{
	JQ_CATCH_UP_NONE,			/* they are missed, but for one just passed */
	JQ_CATCH_UP_LATEST,			/* one run for all of them */
	JQ_CATCH_UP_ALL				/* one run for each, up to a limit */
} JqCatchUp;

typedef struct JqCronPlan
{
	JqCronExpr	expr;
	pg_tz	   *zone;
	TimestampTz starts_at;		/* DT_NOBEGIN: no bound */
	TimestampTz ends_at;		/* DT_NOEND: no bound; itself included */
	JqCatchUp	catch_up;
	int			catch_up_limit; /* 1 .. JQ_PLAN_MAX_INSTANTS */
	int64		start_deadline_us;	/* negative: the default of catch_up */
} JqCronPlan;

/* What has come due, of the instants from the planned one up to now. */
typedef struct JqCronDue
{
	int			ninstants;
	TimestampTz instants[JQ_PLAN_MAX_INSTANTS]; /* oldest first */
	int64		missed;			/* how many are not among them */
	TimestampTz latest;			/* the newest, also if it was missed */
	TimestampTz next;			/* the first after now; DT_NOEND: none */
} JqCronDue;

/*
 * The first instant after now of a task that is defined now, DT_NOEND if
 * there is none.  An interval starts with starts_at or, without, one interval
 * from now.
 */
extern TimestampTz jq_plan_first(const JqCronPlan *plan, TimestampTz now);

/*
 * The first instant after now of a task one of whose instants is known.
 */
extern TimestampTz jq_plan_next(const JqCronPlan *plan, TimestampTz now,
								TimestampTz known);

/*
 * Decides about a planned instant that has come, planned <= now, and about
 * those that have passed since.  The planned one counts even if the schedule
 * does not name it: somebody may have set it by hand.
 */
extern void jq_plan_due(const JqCronPlan *plan, TimestampTz planned,
						TimestampTz now, JqCronDue *due);

#endif							/* JQ_CRON_PLAN_H */
