/*
 * expression.h
 *	  Schedules as users write them, and the sets of values they stand for.
 */
#ifndef JQ_CRON_EXPRESSION_H
#define JQ_CRON_EXPRESSION_H

/* longest schedule that is accepted, in bytes */
#define JQ_CRON_MAX_LENGTH	256

typedef enum JqCronKind
{
	JQ_CRON_FIELDS,				/* wall-clock times of a time zone */
	JQ_CRON_INTERVAL,			/* evenly spaced instants, zone irrelevant */
	JQ_CRON_REBOOT				/* no instants: when the server starts */
} JqCronKind;

typedef enum JqCronField
{
	JQ_CRON_SECOND,
	JQ_CRON_MINUTE,
	JQ_CRON_HOUR,
	JQ_CRON_DAY,				/* of the month */
	JQ_CRON_MONTH,
	JQ_CRON_WEEKDAY				/* Sunday is 0 */
} JqCronField;

#define JQ_CRON_NFIELDS		(JQ_CRON_WEEKDAY + 1)

/*
 * A parsed schedule.  Bit n of a set stands for the value n, so bit 0 of the
 * sets of days and months is never used.  In a schedule that
 * jq_cron_parse() accepted, the sets of seconds, minutes, hours and months
 * are not empty, and some date matches.
 */
typedef struct JqCronExpr
{
	JqCronKind	kind;
	int64		interval_s;		/* of JQ_CRON_INTERVAL: 1 .. 366 days */

	/* the rest is of JQ_CRON_FIELDS only */
	uint64		values[JQ_CRON_NFIELDS];	/* plain values, ranges, steps */
	uint64		nearest_days;	/* "nW": days of the month */
	uint64		last_weekdays;	/* "nL": weekdays */
	uint64		nth_weekdays[6];	/* "n#k": weekdays, by k of 1 .. 5 */
	bool		last_day;		/* "L" */
	bool		last_workday;	/* "LW" */
	bool		is_star[JQ_CRON_NFIELDS];	/* starts with "*", or is "?" */
} JqCronExpr;

/* Why a schedule was refused. */
typedef struct JqCronError
{
	char		message[160];	/* a full sentence with field and position */
	const char *field;			/* name of the field, NULL if in none */
	int			position;		/* byte of the text, counted from 1 */
} JqCronError;

/*
 * Read a schedule of len bytes, which may hold anything, into *expr.  Returns
 * false and fills *error if it is none; then *expr must not be used.  Never
 * raises an error and allocates nothing.
 */
extern bool jq_cron_parse(const char *schedule, size_t len, JqCronExpr *expr,
						  JqCronError *error);

#endif							/* JQ_CRON_EXPRESSION_H */
