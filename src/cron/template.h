/*
 * template.h
 *	  Placeholders of a cron task's payload and unique key.
 *
 *	  {{cron.instant}}	the instant in UTC, 2026-03-29T01:00:00Z
 *	  {{cron.local}}	the same in the task's zone, with its offset
 *	  {{cron.date}}		its local date, 2026-03-29
 *	  {{cron.time}}		its local time of day, 03:00:00
 *	  {{cron.epoch}}	seconds since 1970
 *	  {{cron.task}}		the name of the task
 *	  {{cron.task_id}}	its id
 *
 *	  Other text between braces is the user's own and stays as it is.
 */
#ifndef JQ_CRON_TEMPLATE_H
#define JQ_CRON_TEMPLATE_H

#include "datatype/timestamp.h"
#include "pgtime.h"

/* What the placeholders of one run stand for. */
typedef struct JqCronRun
{
	TimestampTz instant;
	pg_tz	   *zone;
	const char *task;
	int64		task_id;
} JqCronRun;

/* Raises 22023 for a placeholder of cron that is none of the above. */
extern void jq_template_check(const char *string, const char *argument);
extern void jq_template_check_jsonb(Datum document, const char *argument);

/* A document, read from its table, if it has placeholders; else 0. */
extern Datum jq_template_of_jsonb(Datum document);

/* The text, or the document, filled in. */
extern char *jq_template_fill(const char *string, const JqCronRun *run);
extern Datum jq_template_fill_jsonb(Datum document, const JqCronRun *run);

#endif							/* JQ_CRON_TEMPLATE_H */
