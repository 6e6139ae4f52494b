/*
 * describe.h
 *	  Schedules in words.
 */
#ifndef JQ_CRON_DESCRIBE_H
#define JQ_CRON_DESCRIBE_H

#include "cron/expression.h"
#include "lib/stringinfo.h"

/*
 * Append to words what a schedule says, in plain English: "at 02:30, Monday to
 * Friday".  The words are true of every local time of a day on which no clock
 * changes, and complete: they name each time at which the schedule fires, and
 * no other.  Schedules with the same sets have the same words.
 */
extern void jq_cron_describe(const JqCronExpr *expr, StringInfo words);

#endif							/* JQ_CRON_DESCRIBE_H */
