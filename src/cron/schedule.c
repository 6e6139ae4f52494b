/*
 * schedule.c
 *	  When schedules fire: the next occurrence, exact across clock changes.
 *
 * To a schedule, a time zone is a row of segments of constant offset from UTC.
 * Within a segment the local clock runs evenly, so the next occurrence is
 * found on local time alone, by going from month to day to time of day through
 * the sets of the expression; only if it lies beyond the end of the segment is
 * the next one looked at.  Instants and local times are seconds since 1970,
 * local times as if they were UTC.
 */
#include "postgres.h"

#include "cron/calendar.h"
#include "cron/schedule.h"
#include "cron/zone.h"

#include "mb/pg_wchar.h"
#include "port/pg_bitutils.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#define LAST_YEAR		9999

/* 10000-01-01 00:00 as seconds since 1970 */
#define END_OF_SEARCH	INT64CONST(253402300800)

#define UNIX_TO_POSTGRES_S \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

/*
 * How far before an instant the search for its past local times starts.
 * Offsets are less than 16 hours, so what the local clock read earlier than
 * this is behind what it reads at the instant.
 */
#define LOOK_BACK_S		(2 * SECS_PER_DAY)

/* bytes of a user's text that messages quote */
#define QUOTED_LENGTH	64

static TimestampTz next_of_interval(int64 interval_s, TimestampTz after,
									TimestampTz anchor);
static int64 next_of_fields(const JqCronExpr *expr, int64 after, pg_tz *zone);
static bool fires_once(const JqCronExpr *expr);
static int64 count_of_interval(int64 interval_s, TimestampTz after,
							   TimestampTz upto, TimestampTz anchor);
static int64 count_of_fields(const JqCronExpr *expr, int64 after, int64 upto,
							 pg_tz *zone);
static int64 count_local_times(const JqCronExpr *expr, int64 from, int64 end);
static int64 count_days(const JqCronExpr *expr, int64 from, int64 end);
static int64 count_times_of_day(const JqCronExpr *expr, int end);
static int	count_below(uint64 set, int end);
static int64 next_local_time(const JqCronExpr *expr, int64 from);
static bool next_date(const JqCronExpr *expr, int *year, int *month, int *day);
static int	next_time_of_day(const JqCronExpr *expr, int from);
static int	next_bit(uint64 set, int from);
static int64 floor_divide(int64 dividend, int64 divisor);
static int	quoted_length(const char *string);

void
jq_cron_parse_or_error(const char *schedule, JqCronExpr *expr)
{
	JqCronError error;

	if (jq_cron_parse(schedule, strlen(schedule), expr, &error))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid cron expression \"%.*s\"",
					quoted_length(schedule), schedule),
			 errdetail_internal("%s", error.message),
			 errhint("Use cron_next_runs() to try an expression.")));
}

TimestampTz
jq_cron_next(const JqCronExpr *expr, TimestampTz after, TimestampTz anchor,
			 pg_tz *zone)
{
	int64		instant;

	if (TIMESTAMP_IS_NOEND(after) || expr->kind == JQ_CRON_REBOOT)
		return DT_NOEND;
	after = Max(after, MIN_TIMESTAMP);
	if (expr->kind == JQ_CRON_INTERVAL)
		return next_of_interval(expr->interval_s, after, anchor);

	instant = next_of_fields(expr, floor_divide(after, USECS_PER_SEC) +
							 UNIX_TO_POSTGRES_S, zone);
	if (instant == PG_INT64_MAX)
		return DT_NOEND;
	return (instant - UNIX_TO_POSTGRES_S) * USECS_PER_SEC;
}

/* First point after that instant on the grid through the anchor. */
static TimestampTz
next_of_interval(int64 interval_s, TimestampTz after, TimestampTz anchor)
{
	int64		interval = interval_s * USECS_PER_SEC;
	int64		phase;

	Assert(!TIMESTAMP_NOT_FINITE(anchor));

	/* reduced one by one, as after - anchor might overflow */
	phase = (after % interval - anchor % interval) % interval;
	if (phase < 0)
		phase += interval;
	if (after >= END_TIMESTAMP - (interval - phase))
		return DT_NOEND;
	return after + (interval - phase);
}

/*
 * First instant after that one, PG_INT64_MAX if none.
 *
 * high is one more than the latest time that the local clock has shown before
 * the segment.  A local time of a schedule that fires once fires where the
 * clock first shows or passes it: so what is below high has fired, and what
 * lies between high and the start of the segment was in a gap.
 */
static int64
next_of_fields(const JqCronExpr *expr, int64 after, pg_tz *zone)
{
	int64		start = after - LOOK_BACK_S;
	int64		high = PG_INT64_MIN;
	bool		is_fixed = fires_once(expr);

	while (start < END_OF_SEARCH)
	{
		int64		offset;
		int64		end = jq_zone_segment_end(start, zone, &offset);
		int64		from = Max(start, after + 1) + offset;
		int64		local;

		if (is_fixed)
			from = start > after ? high : Max(from, high);
		local = next_local_time(expr, from);
		if (local < end + offset)
			return Max(start, local - offset);
		high = Max(high, end + offset);
		start = end;
	}
	return PG_INT64_MAX;
}

/* Does each local time fire once, whatever the clock does? */
static bool
fires_once(const JqCronExpr *expr)
{
	return !expr->is_star[JQ_CRON_MINUTE] && !expr->is_star[JQ_CRON_HOUR];
}

int64
jq_cron_count(const JqCronExpr *expr, TimestampTz after, TimestampTz upto,
			  TimestampTz anchor, pg_tz *zone)
{
	if (upto <= after || expr->kind == JQ_CRON_REBOOT)
		return 0;
	if (expr->kind == JQ_CRON_INTERVAL)
		return count_of_interval(expr->interval_s, after, upto, anchor);
	return count_of_fields(expr,
						   floor_divide(after, USECS_PER_SEC) + UNIX_TO_POSTGRES_S,
						   floor_divide(upto, USECS_PER_SEC) + UNIX_TO_POSTGRES_S,
						   zone);
}

static int64
count_of_interval(int64 interval_s, TimestampTz after, TimestampTz upto,
				  TimestampTz anchor)
{
	TimestampTz first = next_of_interval(interval_s, after, anchor);

	return first > upto ? 0 :
		(upto - first) / (interval_s * USECS_PER_SEC) + 1;
}

/* Goes through the segments as next_of_fields() does. */
static int64
count_of_fields(const JqCronExpr *expr, int64 after, int64 upto, pg_tz *zone)
{
	int64		start = after - LOOK_BACK_S;
	int64		high = PG_INT64_MIN;
	int64		count = 0;
	bool		is_fixed = fires_once(expr);

	while (start <= upto && start < END_OF_SEARCH)
	{
		int64		offset;
		int64		end = jq_zone_segment_end(start, zone, &offset);
		int64		from = Max(start, after + 1) + offset;
		int64		local_end = Min(end, upto + 1) + offset;

		if (is_fixed && start > after && high < from)
		{
			/* what lay in the gap fires with what its end shows */
			if (next_local_time(expr, high) <= from)
				count++;
			from++;
		}
		else if (is_fixed)
			from = Max(from, high);
		count += count_local_times(expr, from, local_end);
		high = Max(high, end + offset);
		start = end;
	}
	return count;
}

/* How many local times fire from "from" on and before "end". */
static int64
count_local_times(const JqCronExpr *expr, int64 from, int64 end)
{
	int64		first_day;
	int64		last_day;
	int64		count;

	if (from >= end)
		return 0;
	first_day = floor_divide(from, SECS_PER_DAY);
	last_day = floor_divide(end, SECS_PER_DAY);
	count = count_days(expr, first_day, last_day) *
		count_times_of_day(expr, SECS_PER_DAY);
	if (count_days(expr, first_day, first_day + 1) > 0)
		count -= count_times_of_day(expr, (int) (from - first_day * SECS_PER_DAY));
	if (count_days(expr, last_day, last_day + 1) > 0)
		count += count_times_of_day(expr, (int) (end - last_day * SECS_PER_DAY));
	return count;
}

/* How many dates match, from one day number on and before another. */
static int64
count_days(const JqCronExpr *expr, int64 from, int64 end)
{
	int64		count = 0;

	while (from < end)
	{
		int			year;
		int			month;
		int			day;
		int64		ndays;
		uint64		matching;

		j2date((int) from + UNIX_EPOCH_JDATE, &year, &month, &day);
		ndays = Min(day_tab[isleap(year)][month - 1] - day + 1, end - from);
		matching = jq_cron_month_days(expr, year, month) >> day;
		count += count_below(matching, (int) ndays);
		from += ndays;
	}
	return count;
}

/* How many times of day match before that second of the day. */
static int64
count_times_of_day(const JqCronExpr *expr, int end)
{
	const uint64 *values = expr->values;
	int			hour = end / SECS_PER_HOUR;
	int			minute = end / SECS_PER_MINUTE % MINS_PER_HOUR;
	int			seconds = count_below(values[JQ_CRON_SECOND], SECS_PER_MINUTE);
	int			minutes = count_below(values[JQ_CRON_MINUTE], MINS_PER_HOUR);
	int64		count = (int64) count_below(values[JQ_CRON_HOUR], hour) * minutes * seconds;

	if ((values[JQ_CRON_HOUR] >> hour) & 1)
	{
		count += count_below(values[JQ_CRON_MINUTE], minute) * seconds;
		if ((values[JQ_CRON_MINUTE] >> minute) & 1)
			count += count_below(values[JQ_CRON_SECOND], end % SECS_PER_MINUTE);
	}
	return count;
}

/* How many members of the set are smaller than "end", at most 63. */
static int
count_below(uint64 set, int end)
{
	return pg_popcount64(set & ((UINT64CONST(1) << end) - 1));
}

/* First local time that is not before from, PG_INT64_MAX if none. */
static int64
next_local_time(const JqCronExpr *expr, int64 from)
{
	int64		day_number = floor_divide(from, SECS_PER_DAY);
	int			time_of_day = (int) (from - day_number * SECS_PER_DAY);
	int			year;
	int			month;
	int			day;

	j2date((int) day_number + UNIX_EPOCH_JDATE, &year, &month, &day);
	time_of_day = next_time_of_day(expr, time_of_day);
	if (time_of_day < 0 ||
		(jq_cron_month_days(expr, year, month) & (UINT64CONST(1) << day)) == 0)
	{
		day++;
		if (!next_date(expr, &year, &month, &day))
			return PG_INT64_MAX;
		time_of_day = next_time_of_day(expr, 0);
	}
	day_number = date2j(year, month, day) - UNIX_EPOCH_JDATE;
	return day_number * SECS_PER_DAY + time_of_day;
}

/*
 * Move a date to the first matching one that is not before it; false if there
 * is none.  The day may be one past the end of its month.
 */
static bool
next_date(const JqCronExpr *expr, int *year, int *month, int *day)
{
	while (*year <= LAST_YEAR)
	{
		int			found = next_bit(jq_cron_month_days(expr, *year, *month),
									 *day);

		if (found >= 0)
		{
			*day = found;
			return true;
		}
		*day = 1;
		if (++*month > MONTHS_PER_YEAR)
		{
			*month = 1;
			++*year;
		}
	}
	return false;
}

/* First time of day that is not before from, in seconds; -1 if none. */
static int
next_time_of_day(const JqCronExpr *expr, int from)
{
	const uint64 *values = expr->values;
	int			from_hour = from / SECS_PER_HOUR;
	int			from_minute = from / SECS_PER_MINUTE % MINS_PER_HOUR;
	int			hour;
	int			minute;
	int			second;

	/* what is exhausted carries over to the next larger unit */
	second = next_bit(values[JQ_CRON_SECOND], from % SECS_PER_MINUTE);
	minute = next_bit(values[JQ_CRON_MINUTE],
					  second < 0 ? from_minute + 1 : from_minute);
	hour = next_bit(values[JQ_CRON_HOUR],
					minute < 0 ? from_hour + 1 : from_hour);
	if (hour < 0)
		return -1;

	/* and what is below a unit that moved starts afresh */
	if (hour != from_hour)
		minute = next_bit(values[JQ_CRON_MINUTE], 0);
	if (hour != from_hour || minute != from_minute)
		second = next_bit(values[JQ_CRON_SECOND], 0);
	return hour * SECS_PER_HOUR + minute * SECS_PER_MINUTE + second;
}

/* Smallest member of the set that is at least from, below 64; -1 if none. */
static int
next_bit(uint64 set, int from)
{
	set &= ~UINT64CONST(0) << from;
	return set == 0 ? -1 : pg_rightmost_one_pos64(set);
}

/* Quotient rounded down, also for what lies before the epoch. */
static int64
floor_divide(int64 dividend, int64 divisor)
{
	int64		quotient = dividend / divisor;

	if (dividend % divisor < 0)
		quotient--;
	return quotient;
}

/* How many bytes of a text to quote, without splitting a character. */
static int
quoted_length(const char *string)
{
	return pg_mbcliplen(string, (int) strlen(string), QUOTED_LENGTH);
}
