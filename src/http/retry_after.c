/*-------------------------------------------------------------------------
 *
 * retry_after.c
 *	  The header Retry-After.
 *
 *	  The forms of HTTP dates, of which servers send the first and clients have
 *	  to read all (RFC 9110, 5.6.7):
 *
 *	  Sun, 06 Nov 1994 08:49:37 GMT
 *	  Sunday, 06-Nov-94 08:49:37 GMT
 *	  Sun Nov  6 08:49:37 1994
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "http/retry_after.h"

#include "pgtime.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

/* longest value that is looked at */
#define VALUE_MAX_LENGTH 64

/* Two-digit years are at most so far in the future, or else in the past. */
#define YEARS_AHEAD 50

static bool parse_seconds(const char *value, int *seconds);
static bool parse_date(const char *value, TimestampTz now, TimestampTz *at);
static int	full_year(int year, TimestampTz now);
static int	month_number(const char *name);
static bool date_to_timestamptz(struct pg_tm *date, TimestampTz *at);

bool
jq_retry_after_parse(const char *value, TimestampTz now, TimestampTz *at)
{
	char		trimmed[VALUE_MAX_LENGTH];
	size_t		len;
	int			seconds;

	value += strspn(value, " \t");
	len = strlen(value);
	while (len > 0 && strchr(" \t", value[len - 1]) != NULL)
		len--;
	if (len == 0 || len >= sizeof(trimmed))
		return false;
	memcpy(trimmed, value, len);
	trimmed[len] = '\0';

	if (parse_seconds(trimmed, &seconds))
		*at = now + seconds * USECS_PER_SEC;
	else if (!parse_date(trimmed, now, at))
		return false;
	if (*at < now)
		*at = now;
	return true;
}

/* Digits; more than an int holds is as good as its maximum. */
static bool
parse_seconds(const char *value, int *seconds)
{
	int64		sum = 0;

	for (; *value != '\0'; value++)
	{
		if (*value < '0' || *value > '9')
			return false;
		sum = Min(sum * 10 + (*value - '0'), INT_MAX);
	}
	*seconds = (int) sum;
	return true;
}

static bool
parse_date(const char *value, TimestampTz now, TimestampTz *at)
{
	struct pg_tm date = {0};
	char		weekday[10];
	char		month[4];
	int			end = 0;

	if (sscanf(value, "%3[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d GMT%n",
			   weekday, &date.tm_mday, month, &date.tm_year,
			   &date.tm_hour, &date.tm_min, &date.tm_sec, &end) == 7 &&
		end > 0)
		 /* the form of today */ ;
	else if (sscanf(value, "%9[A-Za-z], %2d-%3[A-Za-z]-%2d %2d:%2d:%2d GMT%n",
					weekday, &date.tm_mday, month, &date.tm_year,
					&date.tm_hour, &date.tm_min, &date.tm_sec, &end) == 7 &&
			 end > 0)
		date.tm_year = full_year(date.tm_year, now);
	else if (sscanf(value, "%3[A-Za-z] %3[A-Za-z] %2d %2d:%2d:%2d %4d%n",
					weekday, month, &date.tm_mday, &date.tm_hour,
					&date.tm_min, &date.tm_sec, &date.tm_year, &end) != 7 ||
			 end == 0)
		return false;
	if (value[end] != '\0')
		return false;
	date.tm_mon = month_number(month);
	return date_to_timestamptz(&date, at);
}

static int
full_year(int year, TimestampTz now)
{
	pg_time_t	now_unix = timestamptz_to_time_t(now);
	int			this_year = pg_gmtime(&now_unix)->tm_year + 1900;

	year += this_year - this_year % 100;
	return year > this_year + YEARS_AHEAD ? year - 100 : year;
}

/* 1 to 12, or 0 for what is no month. */
static int
month_number(const char *name)
{
	for (int i = 0; months[i] != NULL; i++)
		if (strcmp(months[i], name) == 0)
			return i + 1;
	return 0;
}

/* A leap second counts as the second after it. */
static bool
date_to_timestamptz(struct pg_tm *date, TimestampTz *at)
{
	int			zone = 0;

	if (date->tm_mon < 1 || date->tm_year < 1970 ||
		date->tm_mday < 1 ||
		date->tm_mday > day_tab[isleap(date->tm_year)][date->tm_mon - 1] ||
		date->tm_hour < 0 || date->tm_hour > 23 ||
		date->tm_min < 0 || date->tm_min > 59 ||
		date->tm_sec < 0 || date->tm_sec > 60)
		return false;
	return tm2timestamp(date, 0, &zone, at) == 0;
}
