/*-------------------------------------------------------------------------
 *
 * waiters.h
 *	  Sessions that sleep in wait_for_jobs().
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_WAITERS_H
#define JQ_WAITERS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

/* Registers the shared memory; once, while preloading. */
extern void jq_waiters_init(void);

/*
 * From here on this backend's latch is set when a job of one of these types
 * (of char *; NIL: any) may be ready, or becomes so before "until".  Every
 * call counts on being woken once more.  Does nothing without shared memory.
 */
extern void jq_waiters_enter(List *job_types, TimestampTz until);
extern void jq_waiters_leave(void);

/* What a job type is called here. */
extern uint32 jq_waiters_hash(const char *job_type);

/*
 * Wakes one sleeper of this database that waits for this type, if the job is
 * due, else whoever would sleep too long.  Never allocates or raises.
 */
extern void jq_waiters_wake(uint32 job_type_hash, TimestampTz scheduled_at,
							TimestampTz now);

/* Wakes all sleepers of this database. */
extern void jq_waiters_wake_all(void);

#endif							/* JQ_WAITERS_H */
