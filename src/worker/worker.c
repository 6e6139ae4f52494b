/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The skeleton that all workers of the server share.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/worker.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/config.h"
#include "base/db.h"
#include "base/event_line.h"
#include "base/fault.h"
#include "base/worker_troubles.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#define REPEAT_MS 60000			/* between two logs of a lasting condition */

/* What a parent tells its child, in bgw_extra. */
typedef struct StartParameters
{
	JqWorkerRef ref;
	Oid			database;
	Oid			role;
	uint32		monitor;		/* the key of its entry */
} StartParameters;

StaticAssertDecl(sizeof(StartParameters) <= BGW_EXTRALEN,
				 "start parameters must fit into bgw_extra");

static StartParameters parameters;
static JqWorkerKind my_kind;
static MemoryContext cycle_context = NULL;
static bool settings_are_pinned = false;
static bool was_reloaded = false;
static const char *kind_name = NULL;
static const pg_uuid_t *own_id = NULL;	/* NULL: it runs no jobs */
static WaitEventSet *wait_set = NULL;	/* NULL: the latch is all */

static JqStartResult start(JqWorkerKind kind, StartParameters *child,
						   int max_workers);
static void register_failed(const JqWorkerRef *ref, JqWorkerKind kind,
							Oid database);
static void reserve_own_slot(void);
static bool wait_with_descriptor(long timeout_ms, uint32 event);
static bool is_to_be_logged(const ErrorData *error);
static void log_error(const ErrorData *error);
static void report_stop(int code, Datum arg);
static void log_own_event(const char *name, int level, const ErrorData *error);

JqStartResult
jq_worker_start(JqWorkerKind kind, Oid database, Oid role, int max_workers)
{
	StartParameters child = {.database = database,.role = role};

	return start(kind, &child, max_workers);
}

JqStartResult
jq_worker_start_monitor(Oid database, Oid role, uint32 entry)
{
	StartParameters child = {
		.database = database,.role = role,.monitor = entry
	};

	return start(JQ_WORKER_MONITOR, &child, 0);
}

/* Adds the reference to what the child is told. */
static JqStartResult
start(JqWorkerKind kind, StartParameters *child, int max_workers)
{
	const char *child_kind = jq_shared_kind_name(kind);
	BackgroundWorker worker = {0};

	if (!jq_shared_reserve(kind, child->database, child->role, child->monitor,
						   max_workers, &child->ref))
		return JQ_START_NO_ROOM;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	snprintf(worker.bgw_name, BGW_MAXLEN, "jobqueue %s for database %u",
			 child_kind, child->database);
	snprintf(worker.bgw_type, BGW_MAXLEN, "jobqueue %s", child_kind);
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "jobqueue");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "jq_%s_main", child_kind);
	memcpy(worker.bgw_extra, child, sizeof(*child));

	if (RegisterDynamicBackgroundWorker(&worker, NULL))
		return JQ_START_REGISTERED;
	register_failed(&child->ref, kind, child->database);
	return JQ_START_NO_PROCESS;
}

/* Gives the slot back; the caller tries again later. */
static void
register_failed(const JqWorkerRef *ref, JqWorkerKind kind, Oid database)
{
	static int64 silent_until = 0;

	jq_shared_unreserve(ref);
	jq_troubles_note(kind, database, JQ_TROUBLE_NO_PROCESS, 0);
	if (jq_clock_ms() < silent_until)
		return;
	silent_until = jq_clock_ms() + REPEAT_MS;
	ereport(WARNING,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("jobqueue is waiting for a background worker slot"),
			 errhint("You might need to increase max_worker_processes.")));
}

/*
 * The handlers come before the signals, and the slot before anything that
 * could fail, so that it is freed whatever happens.
 */
void
jq_worker_begin(JqWorkerKind kind, pqsigfunc on_sigterm)
{
	MemoryContext worker_context;

	kind_name = jq_shared_kind_name(kind);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, on_sigterm);
	BackgroundWorkerUnblockSignals();

	my_kind = kind;
	if (kind == JQ_WORKER_LAUNCHER)
		reserve_own_slot();
	else
		memcpy(&parameters, MyBgworkerEntry->bgw_extra, sizeof(parameters));
	if (!jq_shared_attach(&parameters.ref))
		proc_exit(0);

	worker_context = AllocSetContextCreate(TopMemoryContext,
										   "jobqueue worker",
										   ALLOCSET_DEFAULT_SIZES);
	cycle_context = AllocSetContextCreate(worker_context,
										  "jobqueue cycle",
										  ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(cycle_context);
}

/* The launcher's parent is the postmaster, which stays out of shared memory. */
static void
reserve_own_slot(void)
{
	if (jq_shared_is_attached() &&
		jq_shared_reserve(JQ_WORKER_LAUNCHER, InvalidOid, InvalidOid, 0, 0,
						  &parameters.ref))
		return;
	proc_exit(1);				/* to be started again */
}

/* Connecting runs a transaction, which leaves another context current. */
void
jq_worker_connect(Oid role, uint32 flags)
{
	if (OidIsValid(parameters.database))
		BackgroundWorkerInitializeConnectionByOid(parameters.database, role,
												  flags);
	else
		BackgroundWorkerInitializeConnection(NULL, NULL, flags);
	MemoryContextSwitchTo(cycle_context);
	pgstat_report_appname(MyBgworkerEntry->bgw_type);
	JQ_FAULT("after_spawn");
}

void
jq_worker_report_start(const pg_uuid_t *worker_id)
{
	own_id = worker_id;
	before_shmem_exit(report_stop, (Datum) 0);
	log_own_event("worker.started", LOG, NULL);
}

static void
report_stop(int code, Datum arg)
{
	log_own_event("worker.stopped", LOG, NULL);
}

/* What this process does by itself; an error is one of it, not of a job. */
static void
log_own_event(const char *name, int level, const ErrorData *error)
{
	JqEventSubject subject = {.worker_id = own_id};
	JqEventLine line;

	if (!jq_config_logs(level) || jq_config_log_events == JQ_LOG_EVENTS_OFF ||
		(error == NULL && jq_config_log_events != JQ_LOG_EVENTS_ALL))
		return;
	jq_event_line_begin(&line, NULL, name, level, &subject);
	jq_event_line_put_text(&line, "worker", kind_name, NAMEDATALEN);
	jq_event_line_put_integer(&line, "pid", MyProcPid);
	if (OidIsValid(MyDatabaseId))
		jq_event_line_put_integer(&line, "database", MyDatabaseId);
	if (error != NULL)
	{
		jq_event_line_put_text(&line, "sqlstate",
							   unpack_sql_state(error->sqlerrcode), 5);
		jq_event_line_put_error(&line, error->message, 0);
	}
	jq_event_line_emit(jq_event_line_end(&line));
}

void
jq_worker_begin_cycle(void)
{
	MemoryContextSwitchTo(cycle_context);
	MemoryContextReset(cycle_context);
}

Oid
jq_worker_role(void)
{
	return parameters.role;
}

uint32
jq_worker_monitor(void)
{
	return parameters.monitor;
}

bool
jq_worker_wait(long timeout_ms, const char *wait_event)
{
	static uint32 event = 0;
	bool		was_set;

	if (event == 0)
		event = WaitEventExtensionNew(wait_event);
	if (wait_set == NULL)
		was_set = (WaitLatch(MyLatch,
							 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 timeout_ms, event) & WL_LATCH_SET) != 0;
	else
		was_set = wait_with_descriptor(timeout_ms, event);
	ResetLatch(MyLatch);
	QueryCancelPending = false; /* nothing is running that it could mean */
	CHECK_FOR_INTERRUPTS();
	jq_worker_reload();
	return was_set;
}

void
jq_worker_watch(int fd)
{
	Assert(wait_set == NULL);
	wait_set = jq_compat_create_wait_set(TopMemoryContext, 3);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL,
					  NULL);
	AddWaitEventToSet(wait_set, WL_SOCKET_READABLE, fd, NULL, NULL);
}

/* Whether the latch was set, or may have been. */
static bool
wait_with_descriptor(long timeout_ms, uint32 event)
{
	WaitEvent	occurred[3];
	int			count = WaitEventSetWait(wait_set, timeout_ms, occurred,
										 lengthof(occurred), event);
	bool		was_set = MyLatch->is_set;

	for (int i = 0; i < count; i++)
		if (occurred[i].events & WL_LATCH_SET)
			was_set = true;
	return was_set;
}

void
jq_worker_pause(long timeout_ms, const char *wait_event)
{
	static uint32 event = 0;

	if (event == 0)
		event = WaitEventExtensionNew(wait_event);
	(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout_ms, event);
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
}

/* The flag is cleared first, or a second signal would be lost. */
void
jq_worker_reload(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	if (settings_are_pinned)
		jq_db_pin_settings();
	was_reloaded = true;
}

bool
jq_worker_was_reloaded(void)
{
	bool		result = was_reloaded;

	was_reloaded = false;
	return result;
}

void
jq_worker_pin_settings(void)
{
	settings_are_pinned = true;
	jq_db_pin_settings();
}

bool
jq_worker_protect(void (*unit) (void *arg), void *arg)
{
	ErrorData  *error = jq_worker_try(unit, arg, is_to_be_logged);

	if (error == NULL)
		return true;
	FreeErrorData(error);
	return false;
}

static bool
is_to_be_logged(const ErrorData *error)
{
	return true;
}

ErrorData *
jq_worker_try(void (*unit) (void *arg), void *arg,
			  bool (*must_log) (const ErrorData *error))
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;
	volatile int sqlstate = 0;

	PG_TRY();
	{
		unit(arg);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (must_log(error))
		{
			sqlstate = error->sqlerrcode;
			log_error(error);
		}
		FlushErrorState();
		jq_db_abort();
		MemoryContextSwitchTo(context);
		if (sqlstate != 0)
			jq_troubles_note(my_kind, parameters.database, JQ_TROUBLE_ERROR,
							 sqlstate);
	}
	PG_END_TRY();
	return error;
}

/*
 * Logs the current error, unless it is the one that was logged last, less
 * than a minute ago.
 */
static void
log_error(const ErrorData *error)
{
	static char last_message[256] = "";
	static int64 silent_until = 0;

	if (strncmp(last_message, error->message, sizeof(last_message) - 1) != 0 ||
		jq_clock_ms() >= silent_until)
	{
		EmitErrorReport();
		log_own_event("worker.loop_error", ERROR, error);
		strlcpy(last_message, error->message, sizeof(last_message));
		silent_until = jq_clock_ms() + REPEAT_MS;
	}
}
