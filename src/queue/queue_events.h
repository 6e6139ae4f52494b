/*-------------------------------------------------------------------------
 *
 * queue_events.h
 *	  What the queue did by itself, or was told to do: rows of queue_events.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_QUEUE_EVENTS_H
#define JQ_QUEUE_EVENTS_H

#include "postgres.h"

/*
 * Writes a row, in this transaction.  job_type, stage and data (the text of a
 * JSON object) may be NULL, job_id 0.  Enters a scope of its own.
 */
extern void jq_queue_event(const char *event, const char *job_type,
						   const char *stage, int64 job_id, const char *data);

#endif							/* JQ_QUEUE_EVENTS_H */
