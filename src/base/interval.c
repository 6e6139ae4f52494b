/*-------------------------------------------------------------------------
 *
 * interval.c
 *	  Intervals as lengths of time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/int.h"

#include "base/interval.h"

int64
jq_interval_us(const Interval *interval, const char *argument,
			   int64 min_us, int64 max_us)
{
	int64		us = 0;
	bool		is_legal = interval->month == 0 &&
	!pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &us) &&
	!pg_add_s64_overflow(us, interval->time, &us);

	if (interval->month != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not contain months or years", argument),
				 errhint("Give it in days or smaller units.")));
	if (!is_legal || us < min_us || us > max_us)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be %s and at most " INT64_FORMAT " seconds",
						argument, min_us > 0 ? "positive" : "zero or more",
						max_us / USECS_PER_SEC)));
	return us;
}

int64
jq_interval_clamped_us(const Interval *interval, int64 max_us)
{
	int64		days = (int64) interval->month * DAYS_PER_MONTH + interval->day;
	int64		us;

	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &us) ||
		pg_add_s64_overflow(us, interval->time, &us))
		return days < 0 ? 0 : max_us;
	return Min(Max(us, 0), max_us);
}
