/*-------------------------------------------------------------------------
 *
 * event_line.h
 *	  One line of the server log for one event, as JSON or as key=value.
 *
 *	  Keys are always in the same order: event, level, service, jobId, jobType,
 *	  stage, correlationId, workerId, and then what is put.  In JSON the first
 *	  eight are always there, null where nothing is known; as text what is
 *	  unknown is left out.  Whatever the values are, it is one line, and in
 *	  JSON one object.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_EVENT_LINE_H
#define JQ_EVENT_LINE_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/uuid.h"

typedef struct JqEventLine
{
	StringInfoData text;
	bool		is_json;
} JqEventLine;

/* Whom an event is about. */
typedef struct JqEventSubject
{
	int64		job_id;			/* 0: unknown, as NULL is below */
	const char *job_type;
	const char *stage;
	const char *correlation_id;
	const pg_uuid_t *worker_id;
} JqEventSubject;

/*
 * Begins the line of event PREFIX.NAME; level is DEBUG1, LOG, WARNING or
 * ERROR.  A NULL prefix is jobqueue.event_prefix.  Allocates in the current
 * context.
 */
extern void jq_event_line_begin(JqEventLine *line, const char *prefix,
								const char *name, int level,
								const JqEventSubject *subject);

/* A text is clipped to "max" bytes, on a character boundary. */
extern void jq_event_line_put_text(JqEventLine *line, const char *key,
								   const char *value, int max);
extern void jq_event_line_put_integer(JqEventLine *line, const char *key,
									  int64 value);
extern void jq_event_line_put_bool(JqEventLine *line, const char *key,
								   bool value);

/* Microseconds, as milliseconds with a fraction. */
extern void jq_event_line_put_us(JqEventLine *line, const char *key, int64 us);

/*
 * The beginning of an error text that says what happened, and nothing that it
 * quotes: its first line, as "error".
 */
extern void jq_event_line_put_error(JqEventLine *line, const char *error,
									int length);

/* The line. */
extern char *jq_event_line_end(JqEventLine *line);

/*
 * Writes a line to the server log, and there only, without the statement that
 * led to it, whose text may hold a payload.
 */
extern void jq_event_line_emit(const char *line);

#endif							/* JQ_EVENT_LINE_H */
