/*-------------------------------------------------------------------------
 *
 * event_log.h
 *	  What happens to jobs and circuits, in the server log.
 *
 *	  A line is made when its event happens and written when the transaction
 *	  has committed: what is rolled back leaves none, also with a
 *	  subtransaction, and neither does a transaction that is prepared.
 *
 *	  With jobqueue.log_events = off none of these functions must be called:
 *	  callers ask first, and so nothing is spent.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_EVENT_LOG_H
#define JQ_EVENT_LOG_H

#include "postgres.h"

#include "base/config.h"
#include "queue/event_kinds.h"
#include "queue/job.h"

/* Whether anything is logged, and whether everything is. */
#define jq_event_log_is_on() (jq_config_log_events != JQ_LOG_EVENTS_OFF)
#define jq_event_log_has_all() (jq_config_log_events == JQ_LOG_EVENTS_ALL)

/* A new job, and one that starts over. */
extern void jq_event_log_enqueued(TupleTableSlot *row);
extern void jq_event_log_requeued(const JqJob *job);

/* A claim of the job, which is as it was before. */
extern void jq_event_log_claim(const JqJob *job, const pg_uuid_t *worker);

/* The end of the claim that "job" was held under. */
extern void jq_event_log_run(const JqJob *job, const JqRun *run);

/* The end of a job that nobody held; error may be NULL. */
extern void jq_event_log_end(const JqJob *job, JqStatus status,
							 const char *error);

/* A line of job_log(), at a level of base/journal.h. */
extern void jq_event_log_message(const JqJob *job, const char *level,
								 const char *message);

/* What happened to a circuit.  Zero: that is not known. */
typedef struct JqCircuitEvent
{
	JqEventKind kind;
	const char *job_type;
	const char *stage;
	const char *cause;			/* failures, probe or operator */
	int64		job_id;
	int64		cooldown_us;
	int			failures;
} JqCircuitEvent;

extern void jq_event_log_circuit(const JqCircuitEvent *event);

#endif							/* JQ_EVENT_LOG_H */
