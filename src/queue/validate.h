/*-------------------------------------------------------------------------
 *
 * validate.h
 *	  What the values of a job must be like.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_VALIDATE_H
#define JQ_VALIDATE_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* Each raises an error that names the argument; nothing is written before. */

/* 22023 unless finite, after the year 2000 and within ten years from now. */
extern void jq_validate_instant(TimestampTz instant, const char *argument);

/* 54000 over jobqueue.max_payload, 22023 nested deeper than 100. */
extern void jq_validate_payload(Datum payload);

/*
 * 22023 when empty, 54000 over 1 MB, 42601 with its place when it cannot be
 * parsed, 0A000 when it is of a kind that cannot be a job.
 */
extern void jq_validate_command(const char *command);

/* The above for payload->>'command' of the built-in job type. */
extern void jq_validate_sql_payload(Datum payload);

/* 22023 unless batched, alone or autonomous. */
extern void jq_validate_mode(const char *mode);

/*
 * {"command": command, "payload": payload, "mode": mode}; payload 0 means {},
 * mode NULL the default.
 */
extern Datum jq_sql_payload(Datum command, Datum payload, const char *mode);

#endif							/* JQ_VALIDATE_H */
