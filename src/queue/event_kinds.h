/*-------------------------------------------------------------------------
 *
 * event_kinds.h
 *	  The events of jobs and circuits that can be logged.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_EVENT_KINDS_H
#define JQ_EVENT_KINDS_H

#include "postgres.h"

#include "utils/jsonb.h"

typedef enum JqEventKind
{
	JQ_EVENT_ENQUEUED,
	JQ_EVENT_REQUEUED,
	JQ_EVENT_START,
	JQ_EVENT_COMPLETED,
	JQ_EVENT_SKIPPED,
	JQ_EVENT_RELEASED,
	JQ_EVENT_CANCELLED,
	JQ_EVENT_FAILED,
	JQ_EVENT_EXPIRED,
	JQ_EVENT_CRASHED,
	JQ_EVENT_DEAD_LETTER,
	JQ_EVENT_CIRCUIT_OPEN,
	JQ_EVENT_CIRCUIT_HALF_OPEN,
	JQ_EVENT_CIRCUIT_CLOSED
} JqEventKind;
#define JQ_EVENT_COUNT (JQ_EVENT_CIRCUIT_CLOSED + 1)

/* Longest text that job_types.event_messages has for an event, in bytes. */
#define JQ_EVENT_MAX_MESSAGE 500

/* What an event is called, after the prefix and a dot. */
extern const char *jq_event_name(JqEventKind kind);

/* The event that a status of job_runs stands for. */
extern JqEventKind jq_event_of_run(const char *status);

/*
 * Reads job_types.event_messages into an array of JQ_EVENT_COUNT texts, NULL
 * where there is none.  Raises 22023, with the key, for what is no such
 * document.
 */
extern void jq_event_messages_parse(Jsonb *json, char **messages);

/* Raises 22023, naming the argument, for what cannot be a prefix. */
extern void jq_event_prefix_check(const char *prefix, const char *argument);

#endif							/* JQ_EVENT_KINDS_H */
