/*
 * schedule.h
 *	  When schedules fire.
 */
#ifndef JQ_CRON_SCHEDULE_H
#define JQ_CRON_SCHEDULE_H

#include "cron/expression.h"
#include "datatype/timestamp.h"
#include "pgtime.h"

/* Read a schedule, or raise 22023 with the place and the reason. */
extern void jq_cron_parse_or_error(const char *schedule, JqCronExpr *expr);

/*
 * First instant strictly after "after" at which expr fires.  DT_NOEND if there
 * is none up to the year 9999; an interval goes on to the end of timestamptz.
 *
 * An interval fires at anchor + k * interval for every whole k, negative ones
 * included.  The anchor must be finite.
 *
 * Fields are matched with the local time of zone.  If neither the minute nor
 * the hour starts with "*", each local time fires once: in the overlap when a
 * clock is set back at its first occurrence, and in the gap when a clock is
 * set forward at the end of the gap, together with all others of that gap.
 * Other schedules fire at every instant whose local time matches.
 */
extern TimestampTz jq_cron_next(const JqCronExpr *expr, TimestampTz after,
								TimestampTz anchor, pg_tz *zone);

/*
 * How many instants jq_cron_next() finds after "after" and up to "upto", both
 * finite.  Takes time by the months and clock changes between them, not by
 * the instants.
 */
extern int64 jq_cron_count(const JqCronExpr *expr, TimestampTz after,
						   TimestampTz upto, TimestampTz anchor, pg_tz *zone);

#endif							/* JQ_CRON_SCHEDULE_H */
