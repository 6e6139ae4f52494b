/*
 * calendar.c
 *	  The dates on which a schedule fires.
 */
#include "postgres.h"

#include "cron/calendar.h"

#include "utils/datetime.h"

#define BIT(n)			(UINT64CONST(1) << (n))

static int	nearest_workday(int day, int ndays, int first_weekday);

uint64
jq_cron_month_days(const JqCronExpr *expr, int year, int month)
{
	int			ndays = day_tab[isleap(year)][month - 1];
	int			first_weekday = j2day(date2j(year, month, 1));
	uint64		by_day = expr->values[JQ_CRON_DAY];
	uint64		by_weekday = 0;
	uint64		matching;

	if (!(expr->values[JQ_CRON_MONTH] & BIT(month)))
		return 0;

	if (expr->last_day)
		by_day |= BIT(ndays);
	if (expr->last_workday)
		by_day |= BIT(nearest_workday(ndays, ndays, first_weekday));
	for (int day = 1; day <= ndays; day++)
	{
		int			weekday = (first_weekday + day - 1) % 7;
		uint64		weekdays = expr->values[JQ_CRON_WEEKDAY];

		weekdays |= expr->nth_weekdays[(day + 6) / 7];
		if (day + 7 > ndays)
			weekdays |= expr->last_weekdays;
		if (weekdays & BIT(weekday))
			by_weekday |= BIT(day);
		if (expr->nearest_days & BIT(day))
			by_day |= BIT(nearest_workday(day, ndays, first_weekday));
	}

	if (expr->is_star[JQ_CRON_DAY] || expr->is_star[JQ_CRON_WEEKDAY])
		matching = by_day & by_weekday;
	else
		matching = by_day | by_weekday;
	return matching & (BIT(ndays + 1) - BIT(1));
}

/*
 * The 28 years from 2001 hold every kind of year there
 * is: each weekday as its first day, with and without February 29.
 */
bool
jq_cron_has_date(const JqCronExpr *expr)
{
	for (int year = 2001; year <= 2028; year++)
	{
		for (int month = 1; month <= 12; month++)
		{
			if (jq_cron_month_days(expr, year, month) != 0)
				return true;
		}
	}
	return false;
}

/* Day from Monday to Friday that is nearest to day within its month. */
static int
nearest_workday(int day, int ndays, int first_weekday)
{
	int			weekday = (first_weekday + day - 1) % 7;

	if (weekday == 6)
		return day > 1 ? day - 1 : day + 2;
	if (weekday == 0)
		return day < ndays ? day + 1 : day - 2;
	return day;
}
