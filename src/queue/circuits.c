/*-------------------------------------------------------------------------
 *
 * circuits.c
 *	  Circuit breakers: a stage of a job type whose attempts fail one after
 *	  the other is left alone for a while.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "queue/circuits.h"

JqAdmission
jq_circuit_look(const char *job_type, const char *stage, TimestampTz now,
				TimestampTz *until)
{
	return JQ_CIRCUIT_CLOSED;
}

JqAdmission
jq_circuit_admit(const char *job_type, const char *stage, TimestampTz now,
				 TimestampTz *until)
{
	return JQ_CIRCUIT_CLOSED;
}

void
jq_circuit_probe(const char *job_type, const char *stage, int64 job_id,
				 int32 claim_no)
{
}

void
jq_circuit_give_up_probe(const char *job_type, const char *stage)
{
}

void
jq_circuit_note(const JqJob *job, const char *status, bool charged)
{
}

uint64
jq_circuits_generation(void)
{
	return 0;
}

void
jq_circuits_tend(void)
{
}

bool
jq_circuits_are_new(void)
{
	return false;
}

TimestampTz
jq_circuits_next_retry(TimestampTz now)
{
	return DT_NOEND;
}
