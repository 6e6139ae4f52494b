/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The skeleton that all workers of the server share.
 *
 *	  A worker's main function is: jq_worker_begin(), connect, then a loop of
 *	  units of work under jq_worker_protect() and of jq_worker_wait().  No
 *	  worker ends because of what a job, a row or a role did.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_WORKER_H
#define JQ_WORKER_H

#include "postgres.h"

#include "base/shared_state.h"
#include "libpq/pqsignal.h"

typedef enum JqStartResult
{
	JQ_START_REGISTERED,		/* the postmaster will start it */
	JQ_START_NO_ROOM,			/* the limit of its kind is reached */
	JQ_START_NO_PROCESS			/* max_worker_processes is used up */
} JqStartResult;

/* Starts a worker other than the launcher.  NO_PROCESS is warned of each minute. */
extern JqStartResult jq_worker_start(JqWorkerKind kind, Oid database,
									 Oid role, int max_workers);

/* The same for an entry of jobqueue.monitor, unless it has its monitor. */
extern JqStartResult jq_worker_start_monitor(Oid database, Oid role,
											 uint32 entry);

/*
 * First in a main function: installs the signal handlers, takes the slot that
 * the parent reserved and makes the cycle context current.  Exits quietly
 * when the slot was given away meanwhile.
 */
extern void jq_worker_begin(JqWorkerKind kind, pqsigfunc on_sigterm);

/*
 * Connects to the database that the parent chose, as the given role.  Without
 * one (the launcher) there are only the shared catalogs.
 */
extern void jq_worker_connect(Oid role, uint32 flags);

/*
 * Logs that this worker has started, and later that it has stopped, if these
 * events are logged.  worker_id, of one that runs jobs, must stay.
 */
extern void jq_worker_report_start(const pg_uuid_t *worker_id);

/* The role that the parent chose. */
extern Oid	jq_worker_role(void);

/* The key of the entry of jobqueue.monitor that this worker is for. */
extern uint32 jq_worker_monitor(void);

/* transaction_timeout of an executor's role, in ms; 0: none. */
extern int	jq_executor_session_timeout_ms(void);

/* Frees what was allocated in the cycle context, and makes it current. */
extern void jq_worker_begin_cycle(void);

/*
 * Sleeps until the latch is set or the time is over, with nothing held; then
 * handles interrupts and reloads the configuration if asked.  Returns whether
 * the latch was set.
 */
extern bool jq_worker_wait(long timeout_ms, const char *wait_event);

/* From now on that also wakes up when this descriptor is readable; once. */
extern void jq_worker_watch(int fd);

/* Sleeps without looking at the latch: bounds the rate of a loop. */
extern void jq_worker_pause(long timeout_ms, const char *wait_event);

/* Reloads the configuration if asked, between units of work. */
extern void jq_worker_reload(void);

/* Whether that was asked since the last call, or since the start. */
extern bool jq_worker_was_reloaded(void);

/* Keeps settings of roles and databases away from this process. */
extern void jq_worker_pin_settings(void);

/*
 * Runs one unit of work.  False: it raised an error, which was logged (the
 * same one at most once a minute) and its transaction aborted.
 */
extern bool jq_worker_protect(void (*unit) (void *arg), void *arg);

/*
 * As above, for work whose errors are somebody's to know: returns the error, in
 * the current context, or NULL; it is logged only if must_log() says so.
 */
extern ErrorData *jq_worker_try(void (*unit) (void *arg), void *arg,
								bool (*must_log) (const ErrorData *error));

/* Registers the launcher and its hook; once, while preloading. */
extern void jq_launcher_init(void);

/* The entry points that the postmaster calls. */
extern PGDLLEXPORT void jq_launcher_main(Datum arg);
extern PGDLLEXPORT void jq_scheduler_main(Datum arg);
extern PGDLLEXPORT void jq_executor_main(Datum arg);
extern PGDLLEXPORT void jq_dispatcher_main(Datum arg);
extern PGDLLEXPORT void jq_monitor_main(Datum arg);

#endif							/* JQ_WORKER_H */
