/*-------------------------------------------------------------------------
 *
 * event_line.c
 *	  One line of the server log for one event, as JSON or as key=value.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/event_line.h"

#include "base/config.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#define MAX_NAME 256			/* bytes; of what others choose freely */
#define MAX_ERROR 500

static void put_subject(JqEventLine *line, const JqEventSubject *subject);
static void put_key(JqEventLine *line, const char *key);
static void put_null(JqEventLine *line, const char *key);
static const char *level_name(int level);
static bool is_bare(const char *value, int length);
static void append_quoted(StringInfo out, const char *value, int length);
static bool is_plain(unsigned char c, int encoding);

void
jq_event_line_begin(JqEventLine *line, const char *prefix, const char *name,
					int level, const JqEventSubject *subject)
{
	char	   *event = psprintf("%s.%s", prefix != NULL ? prefix :
								 jq_config_event_prefix, name);

	initStringInfo(&line->text);
	line->is_json = jq_config_log_format == JQ_LOG_FORMAT_JSON;
	if (line->is_json)
		appendStringInfoChar(&line->text, '{');
	jq_event_line_put_text(line, "event", event, MAX_NAME);
	jq_event_line_put_text(line, "level", level_name(level), MAX_NAME);
	jq_event_line_put_text(line, "service", jq_config_service_name, MAX_NAME);
	put_subject(line, subject);
	pfree(event);
}

static void
put_subject(JqEventLine *line, const JqEventSubject *subject)
{
	if (subject->job_id != 0)
		jq_event_line_put_integer(line, "jobId", subject->job_id);
	else
		put_null(line, "jobId");
	jq_event_line_put_text(line, "jobType", subject->job_type, MAX_NAME);
	jq_event_line_put_text(line, "stage", subject->stage, MAX_NAME);
	jq_event_line_put_text(line, "correlationId", subject->correlation_id,
						   MAX_NAME);
	if (subject->worker_id != NULL)
	{
		char	   *id = DatumGetCString(DirectFunctionCall1(uuid_out,
															 UUIDPGetDatum(subject->worker_id)));

		jq_event_line_put_text(line, "workerId", id, MAX_NAME);
		pfree(id);
	}
	else
		put_null(line, "workerId");
}

static const char *
level_name(int level)
{
	return level >= ERROR ? "error" : level >= WARNING ? "warn" :
		level >= LOG ? "info" : "debug";
}

void
jq_event_line_put_text(JqEventLine *line, const char *key, const char *value,
					   int max)
{
	int			length;

	if (value == NULL)
	{
		put_null(line, key);
		return;
	}
	length = (int) strnlen(value, max + 1);
	if (length > max)
		length = pg_mbcliplen(value, length, max);
	put_key(line, key);
	if (!line->is_json && is_bare(value, length))
		appendBinaryStringInfo(&line->text, value, length);
	else
		append_quoted(&line->text, value, length);
}

void
jq_event_line_put_integer(JqEventLine *line, const char *key, int64 value)
{
	char		digits[MAXINT8LEN + 1];

	pg_lltoa(value, digits);
	put_key(line, key);
	appendStringInfoString(&line->text, digits);
}

void
jq_event_line_put_bool(JqEventLine *line, const char *key, bool value)
{
	put_key(line, key);
	appendStringInfoString(&line->text, value ? "true" : "false");
}

/* The clock may have been set back. */
void
jq_event_line_put_us(JqEventLine *line, const char *key, int64 us)
{
	us = Max(us, 0);
	put_key(line, key);
	appendStringInfo(&line->text, INT64_FORMAT ".%03d", us / 1000,
					 (int) (us % 1000));
}

void
jq_event_line_put_error(JqEventLine *line, const char *error, int length)
{
	const char *end = error + strcspn(error, "\r\n");
	char	   *first;

	if (length > 0 && error + length < end)
		end = error + length;
	first = pnstrdup(error, end - error);
	jq_event_line_put_text(line, "error", first, MAX_ERROR);
	pfree(first);
}

static void
put_null(JqEventLine *line, const char *key)
{
	if (!line->is_json)
		return;
	put_key(line, key);
	appendStringInfoString(&line->text, "null");
}

static void
put_key(JqEventLine *line, const char *key)
{
	StringInfo	out = &line->text;

	if (line->is_json)
	{
		appendStringInfoString(out, out->len > 1 ? ",\"" : "\"");
		appendStringInfoString(out, key);
		appendStringInfoString(out, "\":");
	}
	else
	{
		if (out->len > 0)
			appendStringInfoChar(out, ' ');
		appendStringInfoString(out, key);
		appendStringInfoChar(out, '=');
	}
}

/* Whether a reader of key=value needs no quotes to find its end. */
static bool
is_bare(const char *value, int length)
{
	for (int i = 0; i < length; i++)
	{
		unsigned char c = (unsigned char) value[i];

		if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
			  (c >= 'a' && c <= 'z') || strchr("_.:/@+-", c) != NULL))
			return false;
	}
	return length > 0;
}

/*
 * A string of JSON.  What is no UTF-8 in a database of another encoding would
 * not be one: such characters are written by number, where the encoding tells
 * it, or not at all.
 */
static void
append_quoted(StringInfo out, const char *value, int length)
{
	int			encoding = GetDatabaseEncoding();
	int			start = 0;		/* of what can be copied as it is */

	appendStringInfoChar(out, '"');
	for (int i = 0; i < length; i++)
	{
		unsigned char c = (unsigned char) value[i];

		if (is_plain(c, encoding))
			continue;
		appendBinaryStringInfo(out, value + start, i - start);
		start = i + 1;
		if (c == '"' || c == '\\')
		{
			appendStringInfoChar(out, '\\');
			appendStringInfoChar(out, (char) c);
		}
		else if (c <= 0x7f || encoding == PG_LATIN1)
			appendStringInfo(out, "\\u%04x", c);
		else
			appendStringInfoChar(out, '?');
	}
	appendBinaryStringInfo(out, value + start, length - start);
	appendStringInfoChar(out, '"');
}

static bool
is_plain(unsigned char c, int encoding)
{
	return c >= ' ' && c != '"' && c != '\\' &&
		(c < 0x7f || (c > 0x7f && encoding == PG_UTF8));
}

char *
jq_event_line_end(JqEventLine *line)
{
	if (line->is_json)
		appendStringInfoChar(&line->text, '}');
	return line->text.data;
}

void
jq_event_line_emit(const char *line)
{
	ereport(LOG_SERVER_ONLY,
			(errmsg_internal("%s", line), errhidestmt(true),
			 errhidecontext(true)));
}
