/*
 * calendar.h
 *	  The dates on which a schedule fires.
 */
#ifndef JQ_CRON_CALENDAR_H
#define JQ_CRON_CALENDAR_H

#include "cron/expression.h"

/*
 * Days of that month on which expr fires, as bits 1 to 31.  None if the month
 * is not among those of expr.
 */
extern uint64 jq_cron_month_days(const JqCronExpr *expr, int year, int month);

/* Whether it fires on any date at all. */
extern bool jq_cron_has_date(const JqCronExpr *expr);

#endif							/* JQ_CRON_CALENDAR_H */
