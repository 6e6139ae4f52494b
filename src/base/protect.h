/*-------------------------------------------------------------------------
 *
 * protect.h
 *	  Work whose failure must not fail what is around it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_PROTECT_H
#define JQ_PROTECT_H

#include "postgres.h"

/*
 * Does the work in a subtransaction.  When it raises an error, the
 * subtransaction is rolled back and the error returned, in the caller's
 * context; NULL when it succeeded.  Trouble of the moment, which is nobody's
 * fault and may be gone at the next try (a serialization failure, lack of
 * resources, a cancellation, a lock timeout, internal errors), is raised
 * again.
 */
extern ErrorData *jq_protect(void (*work) (void *arg), void *arg);

/* The same, but every error is returned. */
extern ErrorData *jq_attempt(void (*work) (void *arg), void *arg);

/*
 * The same, but the subtransaction is always rolled back: what the work did
 * has never happened, except in memory.
 */
extern ErrorData *jq_try_out(void (*work) (void *arg), void *arg);

/* Whether an error is none of those that may be gone at the next try. */
extern bool jq_error_is_lasting(const ErrorData *fault);

#endif							/* JQ_PROTECT_H */
