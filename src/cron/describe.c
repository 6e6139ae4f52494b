/*
 * describe.c
 *	  What a schedule says, in words: "every 15 minutes from 09:00 to 17:45".
 *
 * The words are made from the sets of the expression, in three parts: times of
 * day, days, months.  The first form that is true of a set is taken, from the
 * one that reads best to one that fits every set, which lists its members.
 */
#include "postgres.h"

#include "cron/describe.h"

#include "port/pg_bitutils.h"
#include "utils/datetime.h"

#define BIT(n)			(UINT64CONST(1) << (n))
#define SET(low, high)	((BIT(high) << 1) - BIT(low))

#define ALL_HOURS		SET(0, 23)
#define ALL_MINUTES		SET(0, 59)
#define ALL_DAYS		SET(1, 31)
#define ALL_MONTHS		SET(1, 12)
#define ALL_WEEKDAYS	SET(0, 6)

/* so many times are listed, even where "every ... from ... to" were true */
#define FEW_TIMES		4

/* and so many where it is not */
#define MANY_TIMES		12

/* shortest "every 2nd minute from 10 to 18" */
#define MIN_PROGRESSION	5

/* most parts of a day in "from 09:00 to 11:45 and from 14:00 to 15:45" */
#define MAX_PARTS		3

/* times of a day, in seconds since midnight */
typedef struct Times
{
	int			count;
	int			first;
	int			last;
	int			step;			/* from each to the next, 0 if it differs */
} Times;

/* A list being written, whose length is known before. */
typedef struct Listing
{
	StringInfo	words;
	const char *conjunction;	/* before the last member */
	int			nitems;
	int			nwritten;
} Listing;

static const char *const ordinals[] = {
	"", "first", "second", "third", "fourth", "fifth"
};

static void describe_interval(StringInfo words, int64 seconds);
static void describe_times(StringInfo words, const JqCronExpr *expr);
static bool describe_few_times(StringInfo words, const JqCronExpr *expr,
							   int limit);
static bool describe_steady(StringInfo words, const JqCronExpr *expr);
static bool describe_parts(StringInfo words, const JqCronExpr *expr);
static void describe_units(StringInfo words, const JqCronExpr *expr);
static Times times_of(const JqCronExpr *expr, uint64 hours);
static void describe_days(StringInfo words, const JqCronExpr *expr);
static bool is_any_day(const JqCronExpr *expr);
static bool is_any_weekday(const JqCronExpr *expr);
static void append_days(StringInfo words, const JqCronExpr *expr);
static void append_weekdays(StringInfo words, const JqCronExpr *expr,
							const char *conjunction);
static bool is_one_range(const JqCronExpr *expr);
static void describe_months(StringInfo words, uint64 set);
static void append_duration(StringInfo words, int64 seconds);
static void append_from_to(StringInfo words, int first, int last,
						   bool has_seconds);
static void append_time(StringInfo words, int time, bool has_seconds);
static void append_unit(StringInfo words, uint64 set, uint64 all,
						const char *unit);
static bool is_listed(uint64 set, uint64 all);
static int	progression(uint64 set);
static void append_set(Listing *list, uint64 set, const char *const *names);
static int	count_items(uint64 set);
static void next_item(uint64 *set, int *low, int *high);
static void begin_item(Listing *list);
static int	first_of(uint64 set);
static int	last_of(uint64 set);

void
jq_cron_describe(const JqCronExpr *expr, StringInfo words)
{
	if (expr->kind == JQ_CRON_INTERVAL)
		describe_interval(words, expr->interval_s);
	else if (expr->kind == JQ_CRON_FIELDS)
	{
		describe_times(words, expr);
		describe_days(words, expr);
		describe_months(words, expr->values[JQ_CRON_MONTH]);
	}
	else						/* JQ_CRON_REBOOT */
		appendStringInfoString(words, "when the server starts");
}

/* One day is said in hours: a day on which clocks change is none. */
static void
describe_interval(StringInfo words, int64 seconds)
{
	appendStringInfoString(words, "every ");
	if (seconds == SECS_PER_DAY)
		appendStringInfoString(words, "24 hours");
	else
		append_duration(words, seconds);
}

static void
describe_times(StringInfo words, const JqCronExpr *expr)
{
	if (!describe_few_times(words, expr, FEW_TIMES) &&
		!describe_steady(words, expr) &&
		!describe_parts(words, expr) &&
		!describe_few_times(words, expr, MANY_TIMES))
		describe_units(words, expr);
}

/* "at 02:30 and 14:30", unless there are more than that. */
static bool
describe_few_times(StringInfo words, const JqCronExpr *expr, int limit)
{
	const uint64 *values = expr->values;
	bool		has_seconds = (values[JQ_CRON_SECOND] != BIT(0));
	Listing		list = {.words = words,.conjunction = " and "};

	list.nitems = times_of(expr, values[JQ_CRON_HOUR]).count;
	if (list.nitems > limit)
		return false;

	appendStringInfoString(words, "at ");
	for (int time = 0; time < SECS_PER_DAY; time++)
	{
		if (values[JQ_CRON_HOUR] & BIT(time / SECS_PER_HOUR) &&
			values[JQ_CRON_MINUTE] & BIT(time / SECS_PER_MINUTE % MINS_PER_HOUR) &&
			values[JQ_CRON_SECOND] & BIT(time % SECS_PER_MINUTE))
		{
			begin_item(&list);
			append_time(words, time, has_seconds);
		}
	}
	return true;
}

/*
 * "every 2 hours", from midnight to midnight, or "every 2 hours from 09:00 to
 * 17:00".  What is the same in each hour reads better by its minutes.
 */
static bool
describe_steady(StringInfo words, const JqCronExpr *expr)
{
	const uint64 *values = expr->values;
	Times		times = times_of(expr, values[JQ_CRON_HOUR]);
	bool		is_all_day = (times.first == 0 &&
							  times.last + times.step == SECS_PER_DAY);

	if (times.step == 0)
		return false;
	if (!is_all_day && values[JQ_CRON_HOUR] == ALL_HOURS &&
		times.count <= FEW_TIMES * HOURS_PER_DAY)
		return false;
	if (!is_all_day && values[JQ_CRON_HOUR] == ALL_HOURS &&
		values[JQ_CRON_MINUTE] == ALL_MINUTES &&
		pg_popcount64(values[JQ_CRON_SECOND]) <= FEW_TIMES)
		return false;

	appendStringInfoString(words, "every ");
	append_duration(words, times.step);
	if (!is_all_day)
	{
		appendStringInfoChar(words, ' ');
		append_from_to(words, times.first, times.last,
					   values[JQ_CRON_SECOND] != BIT(0));
	}
	return true;
}

/*
 * "every 15 minutes from 09:00 to 11:45 and from 14:00 to 15:45": the times of
 * an hour and of the one after it are evenly spaced, so those of any row of
 * hours are.
 */
static bool
describe_parts(StringInfo words, const JqCronExpr *expr)
{
	uint64		hours = expr->values[JQ_CRON_HOUR];
	Times		times = times_of(expr, BIT(0) | BIT(1));
	Listing		list = {.words = words,.conjunction = " and "};

	/* an hour that starts a row is one whose predecessor is missing */
	list.nitems = pg_popcount64(hours & ~(hours << 1));
	if (times.step == 0 || times.step >= SECS_PER_HOUR ||
		list.nitems > MAX_PARTS || hours == ALL_HOURS)
		return false;

	appendStringInfoString(words, "every ");
	append_duration(words, times.step);
	appendStringInfoChar(words, ' ');
	while (hours != 0)
	{
		int			first = first_of(hours);
		int			last = first_of(~(hours | SET(0, first))) - 1;

		hours &= ~SET(first, last);
		begin_item(&list);
		append_from_to(words, first * SECS_PER_HOUR + times.first,
					   (last - 1) * SECS_PER_HOUR + times.last,
					   expr->values[JQ_CRON_SECOND] != BIT(0));
	}
	return true;
}

/* "at minutes 5 and 20 of hours 9 to 17": true of all sets. */
static void
describe_units(StringInfo words, const JqCronExpr *expr)
{
	uint64		seconds = expr->values[JQ_CRON_SECOND];
	uint64		minutes = expr->values[JQ_CRON_MINUTE];
	uint64		hours = expr->values[JQ_CRON_HOUR];
	bool		has_seconds = (seconds != BIT(0));

	if (has_seconds ? is_listed(seconds, ALL_MINUTES) :
		is_listed(minutes, ALL_MINUTES))
		appendStringInfoString(words, "at ");
	if (has_seconds)
	{
		append_unit(words, seconds, ALL_MINUTES, "second");
		appendStringInfoString(words, " of ");
	}
	append_unit(words, minutes, ALL_MINUTES, "minute");
	if (minutes != ALL_MINUTES || hours != ALL_HOURS)
	{
		appendStringInfoString(words, " of ");
		append_unit(words, hours, ALL_HOURS, "hour");
	}
}

/* The times of the day of a schedule in these hours. */
static Times
times_of(const JqCronExpr *expr, uint64 hours)
{
	Times		times = {.first = -1};
	bool		is_even = true;

	for (int minute = 0; minute < MINS_PER_HOUR * HOURS_PER_DAY; minute++)
	{
		if (!(hours & BIT(minute / MINS_PER_HOUR)) ||
			!(expr->values[JQ_CRON_MINUTE] & BIT(minute % MINS_PER_HOUR)))
			continue;
		for (uint64 left = expr->values[JQ_CRON_SECOND]; left != 0; left &= left - 1)
		{
			int			time = minute * SECS_PER_MINUTE + first_of(left);

			if (times.count++ == 0)
				times.first = time;
			else if (times.count == 2)
				times.step = time - times.last;
			else if (time - times.last != times.step)
				is_even = false;
			times.last = time;
		}
	}
	if (!is_even)
		times.step = 0;
	return times;
}

/*
 * The rule of jq_cron_month_days(): a day of either field, unless one of them
 * starts with a star; then a day of both.
 */
static void
describe_days(StringInfo words, const JqCronExpr *expr)
{
	bool		any_day = is_any_day(expr);
	bool		any_weekday = is_any_weekday(expr);
	bool		needs_both = (expr->is_star[JQ_CRON_DAY] ||
							  expr->is_star[JQ_CRON_WEEKDAY]);

	if (needs_both ? any_day && any_weekday : any_day || any_weekday)
	{
		/* "every 5 minutes" needs no "every day" */
		if (times_of(expr, expr->values[JQ_CRON_HOUR]).count <= FEW_TIMES)
			appendStringInfoString(words, ", every day");
		return;
	}

	appendStringInfoString(words, ", ");
	if (any_day && is_one_range(expr))
	{
		append_weekdays(words, expr, " and ");
		return;
	}
	appendStringInfoString(words, "on ");
	if (!any_day)
		append_days(words, expr);
	if (!any_day && !any_weekday)
		appendStringInfoString(words, needs_both ? " but only if that is " :
							   " or on ");
	if (!any_weekday)
		append_weekdays(words, expr, any_day || !needs_both ? " and " : " or ");
}

static bool
is_any_day(const JqCronExpr *expr)
{
	return expr->values[JQ_CRON_DAY] == ALL_DAYS;
}

static bool
is_any_weekday(const JqCronExpr *expr)
{
	return expr->values[JQ_CRON_WEEKDAY] == ALL_WEEKDAYS;
}

/* "days 1 and 15 and the last day of the month" */
static void
append_days(StringInfo words, const JqCronExpr *expr)
{
	uint64		plain = expr->values[JQ_CRON_DAY];
	Listing		list = {.words = words,.conjunction = " and "};

	list.nitems = (plain != 0) + (expr->nearest_days != 0) +
		expr->last_day + expr->last_workday;
	if (plain != 0)
	{
		begin_item(&list);
		append_unit(words, plain, ALL_DAYS, "day");
	}
	if (expr->nearest_days != 0)
	{
		begin_item(&list);
		appendStringInfoString(words,
							   pg_popcount64(expr->nearest_days) == 1 ?
							   "the weekday nearest to " :
							   "the weekdays nearest to ");
		append_unit(words, expr->nearest_days, 0, "day");
	}
	if (expr->last_day)
	{
		begin_item(&list);
		appendStringInfoString(words, "the last day");
	}
	if (expr->last_workday)
	{
		begin_item(&list);
		appendStringInfoString(words, "the last weekday");
	}
	appendStringInfoString(words, " of the month");
}

/* "Monday to Wednesday, the second Friday and the last Sunday of the month" */
static void
append_weekdays(StringInfo words, const JqCronExpr *expr,
				const char *conjunction)
{
	uint64		weekdays = expr->values[JQ_CRON_WEEKDAY];
	Listing		list = {.words = words,.conjunction = conjunction};
	int			nplain;

	/* a week ends on Sunday, so that it may end a range */
	static const char *const names[] = {
		"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday",
		"Saturday", "Sunday"
	};

	if (weekdays & BIT(0))
		weekdays = (weekdays & ~BIT(0)) | BIT(7);
	nplain = count_items(weekdays);
	list.nitems = nplain + pg_popcount64(expr->last_weekdays);
	for (int k = 1; k <= 5; k++)
		list.nitems += pg_popcount64(expr->nth_weekdays[k]);

	append_set(&list, weekdays, names);
	for (int k = 1; k <= 6; k++)
	{
		uint64		left = k <= 5 ? expr->nth_weekdays[k] : expr->last_weekdays;

		for (; left != 0; left &= left - 1)
		{
			begin_item(&list);
			appendStringInfo(words, "the %s %s",
							 k <= 5 ? ordinals[k] : "last",
							 names[first_of(left)]);
		}
	}
	if (list.nitems > nplain)
		appendStringInfoString(words, " of the month");
}

/* Are the weekdays such as "Monday to Friday", and nothing else? */
static bool
is_one_range(const JqCronExpr *expr)
{
	uint64		weekdays = expr->values[JQ_CRON_WEEKDAY];

	if (weekdays & BIT(0))
		weekdays = (weekdays & ~BIT(0)) | BIT(7);
	if (expr->last_weekdays != 0)
		return false;
	for (int k = 1; k <= 5; k++)
	{
		if (expr->nth_weekdays[k] != 0)
			return false;
	}
	return count_items(weekdays) == 1 && pg_popcount64(weekdays) > 1;
}

static void
describe_months(StringInfo words, uint64 set)
{
	static const char *const names[] = {
		"", "January", "February", "March", "April", "May", "June", "July",
		"August", "September", "October", "November", "December"
	};
	Listing		list = {.words = words,.conjunction = " and "};

	if (set == ALL_MONTHS)
		return;
	list.nitems = count_items(set);
	appendStringInfoString(words,
						   list.nitems == 1 && pg_popcount64(set) > 1 ?
						   ", from " : ", in ");
	append_set(&list, set, names);
}

/* "1 hour 30 minutes"; a single unit has no number */
static void
append_duration(StringInfo words, int64 seconds)
{
	static const struct
	{
		const char *name;
		int			seconds;
	}			units[] = {
		{"day", SECS_PER_DAY}, {"hour", SECS_PER_HOUR},
		{"minute", SECS_PER_MINUTE}, {"second", 1}
	};
	const char *separator = "";

	for (int i = 0; i < (int) lengthof(units); i++)
	{
		int			count = (int) (seconds / units[i].seconds);

		if (seconds == units[i].seconds && separator[0] == '\0')
		{
			appendStringInfoString(words, units[i].name);
			return;
		}
		if (count == 0)
			continue;
		appendStringInfo(words, "%s%d %s%s", separator, count, units[i].name,
						 count == 1 ? "" : "s");
		seconds %= units[i].seconds;
		separator = " ";
	}
}

static void
append_from_to(StringInfo words, int first, int last, bool has_seconds)
{
	appendStringInfoString(words, "from ");
	append_time(words, first, has_seconds);
	appendStringInfoString(words, " to ");
	append_time(words, last, has_seconds);
}

static void
append_time(StringInfo words, int time, bool has_seconds)
{
	appendStringInfo(words, "%02d:%02d", time / SECS_PER_HOUR,
					 time / SECS_PER_MINUTE % MINS_PER_HOUR);
	if (has_seconds)
		appendStringInfo(words, ":%02d", time % SECS_PER_MINUTE);
}

/*
 * "every minute", where set is all; "minute 5", "minutes 0 to 5 and 7", "every
 * 7th minute from 0 to 56".
 */
static void
append_unit(StringInfo words, uint64 set, uint64 all, const char *unit)
{
	int			step = progression(set);
	Listing		list = {.words = words,.conjunction = " and "};

	if (set == all)
		appendStringInfo(words, "every %s", unit);
	else if (step > 0)
		appendStringInfo(words, "every %d%s %s from %d to %d", step,
						 step == 2 ? "nd" : step == 3 ? "rd" : "th", unit,
						 first_of(set), last_of(set));
	else
	{
		appendStringInfo(words, "%s%s ", unit,
						 pg_popcount64(set) == 1 ? "" : "s");
		list.nitems = count_items(set);
		append_set(&list, set, NULL);
	}
}

/* Does append_unit() write a list? */
static bool
is_listed(uint64 set, uint64 all)
{
	return set != all && progression(set) == 0;
}

/*
 * Step of a set of evenly spaced values, 0 if they are not, or neighbours, or
 * few.  No set of 60 values has a longer step than 14.
 */
static int
progression(uint64 set)
{
	int			first = first_of(set);
	int			last = last_of(set);
	int			step;
	uint64		expected = 0;

	if (pg_popcount64(set) < MIN_PROGRESSION)
		return 0;
	step = first_of(set & (set - 1)) - first;
	for (int value = first; value <= last; value += step)
		expected |= BIT(value);
	return step > 1 && expected == set ? step : 0;
}

/* Write the members of a set, as names or, if that is NULL, as numbers. */
static void
append_set(Listing *list, uint64 set, const char *const *names)
{
	while (set != 0)
	{
		int			low;
		int			high;

		next_item(&set, &low, &high);
		begin_item(list);
		if (names != NULL)
			appendStringInfoString(list->words, names[low]);
		else
			appendStringInfo(list->words, "%d", low);
		if (high == low)
			continue;
		if (names != NULL)
			appendStringInfo(list->words, " to %s", names[high]);
		else
			appendStringInfo(list->words, " to %d", high);
	}
}

/* How many items append_set() writes. */
static int
count_items(uint64 set)
{
	int			nitems = 0;
	int			low;
	int			high;

	for (; set != 0; nitems++)
		next_item(&set, &low, &high);
	return nitems;
}

/* Take a value out of the set, or three and more that follow each other. */
static void
next_item(uint64 *set, int *low, int *high)
{
	*low = first_of(*set);
	*high = first_of(~(*set | SET(0, *low))) - 1;
	if (*high == *low + 1)
		*high = *low;
	*set &= ~SET(*low, *high);
}

/* Write what stands before the next item of the list. */
static void
begin_item(Listing *list)
{
	Assert(list->nwritten < list->nitems);
	if (list->nwritten > 0)
		appendStringInfoString(list->words,
							   list->nwritten == list->nitems - 1 ?
							   list->conjunction : ", ");
	list->nwritten++;
}

/* Smallest member of a set that is not empty. */
static int
first_of(uint64 set)
{
	return pg_rightmost_one_pos64(set);
}

/* Largest member of a set that is not empty. */
static int
last_of(uint64 set)
{
	return pg_leftmost_one_pos64(set);
}
