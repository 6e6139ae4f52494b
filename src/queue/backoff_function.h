/*-------------------------------------------------------------------------
 *
 * backoff_function.h
 *	  Backoff strategy "function": an SQL function says how long.
 *
 *	  It is the code of the owner of a job type, asked by whoever records the
 *	  end of a job: see "Whose code runs" in docs/architecture.md.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_BACKOFF_FUNCTION_H
#define JQ_BACKOFF_FUNCTION_H

#include "postgres.h"

#include "queue/backoff.h"

/*
 * Raises what is wrong with the function for an owner of a job type: there is
 * none (attempt integer, error text) that returns interval, it may not be
 * called by the owner (42501), or it would run as a superuser.
 */
extern void jq_backoff_function_check(const JqBackoff *backoff, Oid owner);

/*
 * Asks the function, as "owner", and stores its answer.  False, with a
 * WARNING: it gave no delay.  Nothing that it does stays, and it never raises
 * an error; it is cut off after a second.
 */
extern bool jq_backoff_function_ask(const JqBackoff *backoff, Oid owner,
									const char *job_type, int attempt,
									const char *error, double *delay_us);

#endif							/* JQ_BACKOFF_FUNCTION_H */
