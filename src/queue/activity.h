/*-------------------------------------------------------------------------
 *
 * activity.h
 *	  Whether jobs are worked on in this database: pauses, copies, and workers
 *	  that were asked to stop.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_ACTIVITY_H
#define JQ_ACTIVITY_H

#include "postgres.h"

#include "base/shared_state.h"
#include "utils/uuid.h"

/* Why the server's workers do nothing here.  Never JQ_QUIET_ABSENT. */
extern JqQuiet jq_activity_quiet(void);

/* The same in words, also when the server has none; NULL: they work. */
extern const char *jq_activity_obstacle(void);

/* Whether nobody may claim, in the server or from outside. */
extern bool jq_activity_is_paused(void);

/*
 * Whether a claim by this worker may take anything.  An outside worker that
 * was asked to stop is told so.
 */
extern bool jq_activity_may_claim(const pg_uuid_t *worker, bool in_server);

/*
 * Makes a database that no worker has ever served this server's own: the
 * first scheduler there does so.  Does nothing, and costs nothing, in others.
 */
extern void jq_activity_adopt(void);

/* Makes a copy this server's own.  False: it is already. */
extern bool jq_activity_activate(Oid role);

/* False: it is already paused, or not.  "reason" may be NULL. */
extern bool jq_activity_pause(Oid role, const char *reason);
extern bool jq_activity_resume(void);

/*
 * Outside workers that are to stop.  The second returns whether it was so, and
 * says why with a NOTICE; the third takes the request back.
 */
extern bool jq_activity_stop_worker(const pg_uuid_t *worker, Oid role,
									const char *reason);
extern bool jq_activity_tell_stopped(const pg_uuid_t *worker);
extern void jq_activity_unstop_worker(const pg_uuid_t *worker);

/* When this transaction commits, everybody here looks for work again. */
extern void jq_activity_wake_at_commit(void);

#endif							/* JQ_ACTIVITY_H */
