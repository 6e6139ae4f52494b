/*-------------------------------------------------------------------------
 *
 * circuits.h
 *	  Circuit breakers: a stage of a job type whose attempts fail one after
 *	  the other is left alone for a while.
 *
 *	  A circuit is closed, open, or half-open, when one job is let through as
 *	  a probe.  job_circuits has a row for each one that is not closed.
 *
 *	  All of these need a transaction, unless it says otherwise.  Those that
 *	  read or write rows enter a scope of their own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_CIRCUITS_H
#define JQ_CIRCUITS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "queue/job.h"

/* What a circuit says to a claim. */
typedef enum JqAdmission
{
	JQ_CIRCUIT_CLOSED,			/* go on */
	JQ_CIRCUIT_OPEN,			/* no job before "until" */
	JQ_CIRCUIT_PROBE			/* one job */
} JqAdmission;

/*
 * What the circuit of a stage would say now.  Costs two comparisons while no
 * circuit is open.  OPEN sets "until", when to ask again: after the cooldown,
 * soon while a probe is under way, DT_NOEND: when somebody has closed it.
 * Sleepers, executors and dispatchers are woken when a circuit closes.
 */
extern JqAdmission jq_circuit_look(const char *job_type, const char *stage,
								   TimestampTz now, TimestampTz *until);

/*
 * The same for a claim that is about to take a job of this stage.  Never
 * waits.  PROBE: it may take exactly one, from whichever lane of the stage;
 * until it says which, or gives up, or its (sub)transaction ends, nobody else
 * is let through.  Asked again in the same transaction after that it says
 * OPEN.  An answer other than PROBE asks for nothing.
 */
extern JqAdmission jq_circuit_admit(const char *job_type, const char *stage,
									TimestampTz now, TimestampTz *until);

/* The job that was taken, with the number of its new claim. */
extern void jq_circuit_probe(const char *job_type, const char *stage,
							 int64 job_id, int32 claim_no);

/* No job was there to be taken: the next claim may try. */
extern void jq_circuit_give_up_probe(const char *job_type, const char *stage);

/*
 * A claim of this job has ended so; or, as completed, it has left the stage
 * that "job" is in.  Never waits for a lock.
 */
extern void jq_circuit_note(const JqJob *job, const JqRun *run);

/*
 * Whether a job that was claimed, and has not begun, must be given back: the
 * circuit has opened since, and the job is not its probe.
 */
extern bool jq_circuit_bars(const char *job_type, const char *stage,
							int64 job_id, int32 claim_no);

/*
 * Grows when a circuit has opened or changed, of whatever database: then
 * whoever holds jobs that have not begun asks the above.  Costs a read, and
 * needs no transaction.
 */
extern uint64 jq_circuits_generation(void);

/*
 * Writes down the circuits that have opened, once, and logs them.  The second
 * tells whether there are any, in whatever database, without a transaction.
 */
extern void jq_circuits_tend(void);
extern bool jq_circuits_are_new(void);

/* When the next cooldown of this database ends, later than now; DT_NOEND. */
extern TimestampTz jq_circuits_next_retry(TimestampTz now);

/*
 * Opens a circuit, for "duration_us" (0: until it is closed), and closes one,
 * or those of all stages (NULL); what was counted is forgotten.  They return
 * whether it was not open before, and how many were not closed.
 */
extern bool jq_circuit_force_open(const char *job_type, const char *stage,
								  int64 duration_us, const char *reason);
extern int	jq_circuit_force_close(const char *job_type, const char *stage);

/* Longest reason, in bytes. */
#define JQ_CIRCUIT_MAX_REASON 1024

#endif							/* JQ_CIRCUITS_H */
