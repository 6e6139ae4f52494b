/*
 * template.c
 *	  Placeholders of a cron task's payload and unique key.
 */
#include "postgres.h"

#include "cron/template.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/jsonfuncs.h"
#include "utils/timestamp.h"

#define OPENING "{{cron."
#define CLOSING "}}"

/* longest name of a placeholder that messages quote, in bytes */
#define QUOTED_LENGTH 32

typedef void (*Writer) (StringInfo out, const JqCronRun *run);

typedef struct Placeholder
{
	const char *name;
	Writer		write;
} Placeholder;

static const Placeholder *find(const char *name, size_t len);
static void write_utc(StringInfo out, const JqCronRun *run);
static void write_local(StringInfo out, const JqCronRun *run);
static void write_date(StringInfo out, const JqCronRun *run);
static void write_time(StringInfo out, const JqCronRun *run);
static void write_epoch(StringInfo out, const JqCronRun *run);
static void write_task(StringInfo out, const JqCronRun *run);
static void write_task_id(StringInfo out, const JqCronRun *run);
static struct pg_tm *local_time(const JqCronRun *run);
static pg_time_t unix_time(const JqCronRun *run);
static void check_string(void *state, char *value, int len);
static void look_into_string(void *state, char *value, int len);
static text *fill_string(void *state, char *value, int len);

static const Placeholder placeholders[] = {
	{"instant", write_utc},
	{"local", write_local},
	{"date", write_date},
	{"time", write_time},
	{"epoch", write_epoch},
	{"task", write_task},
	{"task_id", write_task_id},
};

void
jq_template_check(const char *string, const char *argument)
{
	const char *next = string;

	while ((next = strstr(next, OPENING)) != NULL)
	{
		const char *name = next + strlen(OPENING);
		const char *end = strstr(name, CLOSING);
		size_t		len = end == NULL ? strlen(name) : (size_t) (end - name);

		if (end == NULL || find(name, len) == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown placeholder \"" OPENING "%.*s\" in %s",
							pg_mbcliplen(name, (int) len, QUOTED_LENGTH),
							name, argument),
					 errhint("After \"" OPENING "\" come instant, local, date, time, epoch, task or task_id, and \"" CLOSING "\".")));
		next = end + strlen(CLOSING);
	}
}

void
jq_template_check_jsonb(Datum document, const char *argument)
{
	iterate_jsonb_values(DatumGetJsonbP(document), jtiString,
						 unconstify(char *, argument), check_string);
}

char *
jq_template_fill(const char *string, const JqCronRun *run)
{
	StringInfoData out;
	const char *opening;

	initStringInfo(&out);
	while ((opening = strstr(string, OPENING)) != NULL)
	{
		const char *name = opening + strlen(OPENING);
		const char *end = strstr(name, CLOSING);
		const Placeholder *placeholder = end == NULL ? NULL :
		find(name, end - name);

		appendBinaryStringInfo(&out, string, (int) (opening - string));
		if (placeholder != NULL)
		{
			placeholder->write(&out, run);
			string = end + strlen(CLOSING);
		}
		else
		{
			appendStringInfoString(&out, OPENING);
			string = name;
		}
	}
	appendStringInfoString(&out, string);
	return out.data;
}

Datum
jq_template_of_jsonb(Datum document)
{
	Jsonb	   *source = DatumGetJsonbP(document);
	bool		is_template = false;

	iterate_jsonb_values(source, jtiString, &is_template, look_into_string);
	return is_template ? JsonbPGetDatum(source) : (Datum) 0;
}

Datum
jq_template_fill_jsonb(Datum document, const JqCronRun *run)
{
	return JsonbPGetDatum(transform_jsonb_string_values(DatumGetJsonbP(document),
														unconstify(JqCronRun *, run),
														fill_string));
}

static const Placeholder *
find(const char *name, size_t len)
{
	for (size_t i = 0; i < lengthof(placeholders); i++)
		if (strlen(placeholders[i].name) == len &&
			strncmp(placeholders[i].name, name, len) == 0)
			return &placeholders[i];
	return NULL;
}

/* Instants of start and manual runs have fractions, which nobody wants here. */
static void
write_utc(StringInfo out, const JqCronRun *run)
{
	pg_time_t	instant = unix_time(run);
	char		buffer[64];

	pg_strftime(buffer, sizeof(buffer), "%Y-%m-%dT%H:%M:%SZ",
				pg_gmtime(&instant));
	appendStringInfoString(out, buffer);
}

static void
write_local(StringInfo out, const JqCronRun *run)
{
	struct pg_tm *local = local_time(run);
	long int	offset = labs(local->tm_gmtoff);
	char		buffer[64];

	pg_strftime(buffer, sizeof(buffer), "%Y-%m-%dT%H:%M:%S", local);
	appendStringInfo(out, "%s%c%02ld:%02ld", buffer,
					 local->tm_gmtoff < 0 ? '-' : '+', offset / SECS_PER_HOUR,
					 offset / SECS_PER_MINUTE % MINS_PER_HOUR);
}

static void
write_date(StringInfo out, const JqCronRun *run)
{
	char		buffer[64];

	pg_strftime(buffer, sizeof(buffer), "%Y-%m-%d", local_time(run));
	appendStringInfoString(out, buffer);
}

static void
write_time(StringInfo out, const JqCronRun *run)
{
	char		buffer[64];

	pg_strftime(buffer, sizeof(buffer), "%H:%M:%S", local_time(run));
	appendStringInfoString(out, buffer);
}

static void
write_epoch(StringInfo out, const JqCronRun *run)
{
	appendStringInfo(out, INT64_FORMAT, (int64) unix_time(run));
}

static void
write_task(StringInfo out, const JqCronRun *run)
{
	appendStringInfoString(out, run->task);
}

static void
write_task_id(StringInfo out, const JqCronRun *run)
{
	appendStringInfo(out, INT64_FORMAT, run->task_id);
}

static struct pg_tm *
local_time(const JqCronRun *run)
{
	pg_time_t	instant = unix_time(run);

	return pg_localtime(&instant, run->zone);
}

static pg_time_t
unix_time(const JqCronRun *run)
{
	return timestamptz_to_time_t(run->instant);
}

static void
check_string(void *state, char *value, int len)
{
	jq_template_check(pnstrdup(value, len), (const char *) state);
}

static void
look_into_string(void *state, char *value, int len)
{
	bool	   *is_template = (bool *) state;

	if (len >= (int) strlen(OPENING) &&
		strstr(pnstrdup(value, len), OPENING) != NULL)
		*is_template = true;
}

static text *
fill_string(void *state, char *value, int len)
{
	return cstring_to_text(jq_template_fill(pnstrdup(value, len),
											(const JqCronRun *) state));
}
