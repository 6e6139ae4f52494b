/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  One process per server: keeps a scheduler running in every database
 *	  that has the extension.
 *
 *	  Without a database of its own it can read pg_database but not see which
 *	  databases have the extension.  A scheduler is therefore its own probe:
 *	  it connects, and ends at once where the extension is absent or has
 *	  nothing to do: paused, a copy, a subscriber.  What was found is cached by
 *	  database; the rest is probed again each minute, and at once when
 *	  something that matters commits there and marks the database: CREATE or
 *	  DROP EXTENSION and changed subscriptions, which a hook notices, and what
 *	  activity.c writes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/worker.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/db.h"
#include "base/worker_troubles.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_subscription.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/monitors.h"

#define CYCLE_MS 1000
#define PROBE_AGAIN_MS 60000
#define FIRST_BACKOFF_MS 1000
#define MAX_BACKOFF_MS 30000
#define MAX_SLOT_WAIT_MS 4000
#define MAX_MARKS 64
#define INVALID_CONNECTION_LIMIT (-2)	/* of a half-dropped database */

typedef enum Presence
{
	PRESENCE_UNKNOWN,
	PRESENCE_QUIET,				/* or absent: there is nothing to do */
	PRESENCE_PRESENT
} Presence;

/* What is known of a database. */
typedef struct Database
{
	Oid			oid;			/* hash key */
	NameData	name;
	bool		is_served;		/* by the last reading of pg_database */
	Presence	presence;		/* of the extension */
	JqQuiet		quiet;			/* why there is nothing to do */
	bool		was_warned_of;	/* that it is a copy */
	bool		is_marked;		/* since its last scheduler was started */
	int			backoff_ms;		/* 0: its scheduler ended in order */
	int64		start_at;		/* by jq_clock_ms(): no scheduler before */
	int64		steady_at;		/* the one that runs now has proved itself
								 * then */
} Database;

static object_access_hook_type next_object_access_hook = NULL;
static bool must_mark = false;	/* what the current transaction changed */

static HTAB *databases = NULL;
static int64 slots_wanted_at = 0;	/* nothing is started before */
static int	slot_wait_ms = 0;

static void note_change(ObjectAccessType access, Oid classId,
						Oid objectId, int subId, void *arg);
static void mark_at_commit(XactEvent event, void *arg);
static void run_cycle(void *arg);
static void list_databases(void);
static void forget_databases(void);
static void apply_marks(void);
static void mark(Database *database);
static bool observe_scheduler(Database *database, int64 now);
static void set_quiet(Database *database, JqQuiet quiet);
static void scheduler_ended(Database *database, const JqWorkerInfo *info,
							int64 now);
static bool start_scheduler(Database *database, int64 now);

void
jq_launcher_init(void)
{
	BackgroundWorker worker = {0};

	if (!jq_config_launcher)
		return;

	next_object_access_hook = object_access_hook;
	object_access_hook = note_change;
	RegisterXactCallback(mark_at_commit, NULL);

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	snprintf(worker.bgw_name, BGW_MAXLEN, "jobqueue launcher");
	snprintf(worker.bgw_type, BGW_MAXLEN, "jobqueue launcher");
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "jobqueue");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "jq_launcher_main");
	RegisterBackgroundWorker(&worker);
}

/*
 * Remembers that an extension was created or dropped, or a subscription
 * changed.  Any extension: the row of a new one cannot be read yet.
 */
static void
note_change(ObjectAccessType access, Oid classId, Oid objectId, int subId,
			void *arg)
{
	if (next_object_access_hook)
		next_object_access_hook(access, classId, objectId, subId, arg);
	if ((classId == ExtensionRelationId || classId == SubscriptionRelationId) &&
		(access == OAT_POST_CREATE || access == OAT_POST_ALTER ||
		 access == OAT_DROP))
		must_mark = true;
}

/* Tells the launcher; a prepared transaction waits for the next probe. */
static void
mark_at_commit(XactEvent event, void *arg)
{
	if (!must_mark)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			must_mark = false;
			jq_shared_mark_database(MyDatabaseId);
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			must_mark = false;
			break;
		default:
			break;
	}
}

/* Exit code 1 on SIGTERM: with 0 the postmaster would forget the launcher. */
void
jq_launcher_main(Datum arg)
{
	HASHCTL		control = {0};

	jq_worker_begin(JQ_WORKER_LAUNCHER, SignalHandlerForShutdownRequest);
	pqsignal(SIGINT, SIG_IGN);
	jq_worker_connect(InvalidOid, 0);
	jq_worker_pin_settings();
	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(Database);
	databases = hash_create("jobqueue databases", 64, &control,
							HASH_ELEM | HASH_BLOBS);
	jq_shared_report_state(JQ_STATE_RUNNING);
	if (jq_config_logs(LOG))
		ereport(LOG, (errmsg("jobqueue launcher started")));
	jq_worker_report_start(NULL);

	while (!ShutdownRequestPending)
	{
		jq_worker_begin_cycle();
		(void) jq_worker_protect(run_cycle, NULL);
		(void) jq_worker_protect(jq_monitors_tend, NULL);
		jq_shared_report_cycle();
		jq_worker_wait(CYCLE_MS, "JobqueueLauncherMain");
	}
	if (jq_config_logs(LOG))
		ereport(LOG, (errmsg("jobqueue launcher stopped")));
	proc_exit(1);
}

/*
 * Never-seen databases are probed one at a time, so that a server with a
 * thousand of them does not start a thousand processes.
 */
static void
run_cycle(void *arg)
{
	int64		now = jq_clock_ms();
	HASH_SEQ_STATUS scan;
	Database   *database;
	bool		is_probing = false;

	list_databases();
	forget_databases();
	apply_marks();
	jq_shared_free_unstarted();

	hash_seq_init(&scan, databases);
	while ((database = hash_seq_search(&scan)) != NULL)
		if (observe_scheduler(database, now))
			is_probing = true;
	if (!jq_config_enabled)
		return;

	hash_seq_init(&scan, databases);
	while ((database = hash_seq_search(&scan)) != NULL)
	{
		bool		is_probe = database->presence != PRESENCE_PRESENT;

		if (!database->is_served || now < database->start_at ||
			now < slots_wanted_at || (is_probe && is_probing))
			continue;
		if (start_scheduler(database, now) && is_probe)
			is_probing = true;
	}
}

/* Finds the databases that are to be served, adding new ones. */
static void
list_databases(void)
{
	HASH_SEQ_STATUS entries;
	Database   *known;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	hash_seq_init(&entries, databases);
	while ((known = hash_seq_search(&entries)) != NULL)
		known->is_served = false;

	jq_catalog_begin();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database row = (Form_pg_database) GETSTRUCT(tuple);
		Database   *database;
		bool		found;

		if (row->datistemplate || !row->datallowconn ||
			row->datconnlimit == INVALID_CONNECTION_LIMIT ||
			!jq_config_lists(jq_config_databases, NameStr(row->datname)))
			continue;
		database = hash_search(databases, &row->oid, HASH_ENTER, &found);
		if (!found)
			memset((char *) database + sizeof(Oid), 0,
				   sizeof(Database) - sizeof(Oid));
		database->is_served = true;
		database->name = row->datname;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	jq_catalog_commit();
}

/* Drops what was not listed, and asks the schedulers there to end. */
static void
forget_databases(void)
{
	HASH_SEQ_STATUS scan;
	Database   *database;

	hash_seq_init(&scan, databases);
	while ((database = hash_seq_search(&scan)) != NULL)
	{
		Oid			oid = database->oid;

		if (database->is_served)
			continue;
		jq_shared_retire(JQ_WORKER_SCHEDULER, oid);
		jq_shared_free_ended(oid);
		if (!jq_shared_scheduler_is_running(oid))
			hash_search(databases, &oid, HASH_REMOVE, NULL);
	}
}

/* Probes again where something may have to be done now. */
static void
apply_marks(void)
{
	Oid			marks[MAX_MARKS];
	bool		all;
	int			count = jq_shared_take_marks(marks, MAX_MARKS, &all);
	HASH_SEQ_STATUS scan;
	Database   *database;

	for (int i = 0; i < count; i++)
	{
		database = hash_search(databases, &marks[i], HASH_FIND, NULL);
		if (database != NULL)
			mark(database);
	}
	if (!all)
		return;
	hash_seq_init(&scan, databases);
	while ((database = hash_seq_search(&scan)) != NULL)
		mark(database);
}

/* Its scheduler, if there is one, may have looked before the change. */
static void
mark(Database *database)
{
	database->is_marked = true;
	if (database->presence == PRESENCE_QUIET)
		database->start_at = 0;
}

/*
 * Learns from the scheduler's slot, which may have been filled before this
 * launcher was started.  True: it is a probe that has not answered yet.
 */
static bool
observe_scheduler(Database *database, int64 now)
{
	JqWorkerInfo info;

	if (!jq_shared_find_scheduler(database->oid, &info))
		return false;
	switch (info.state)
	{
		case JQ_STATE_STARTING:
			return database->presence != PRESENCE_PRESENT;
		case JQ_STATE_ENDED:
			jq_shared_free_ended(database->oid);
			scheduler_ended(database, &info, now);
			return false;
		default:
			database->presence = PRESENCE_PRESENT;
			database->quiet = JQ_QUIET_NOT;
			database->was_warned_of = false;
			if (database->steady_at == 0)
				database->steady_at = now + MAX_BACKOFF_MS;
			if (now >= database->steady_at)
				database->backoff_ms = 0;
			return false;
	}
}

/* Says why nothing is done there, once. */
static void
set_quiet(Database *database, JqQuiet quiet)
{
	const char *name = NameStr(database->name);
	bool		is_new = database->quiet != quiet;

	database->presence = PRESENCE_QUIET;
	database->quiet = quiet;
	if (!is_new)
		return;
	if (quiet == JQ_QUIET_COPY && !database->was_warned_of &&
		jq_config_logs(WARNING))
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("jobqueue runs nothing in database \"%s\": it was restored or copied from another one",
						name),
				 errhint("Call activate_jobs() there if its cron tasks and SQL jobs are to run.")));
	if (quiet == JQ_QUIET_PAUSED && jq_config_logs(LOG))
		ereport(LOG,
				(errmsg("jobqueue is paused in database \"%s\"", name)));
	if (quiet == JQ_QUIET_SUBSCRIBER && jq_config_logs(LOG))
		ereport(LOG,
				(errmsg("jobqueue runs nothing in database \"%s\": its jobs come from a subscription",
						name)));
	if (quiet == JQ_QUIET_COPY)
		database->was_warned_of = true;
}

/* Decides when the database gets its next scheduler. */
static void
scheduler_ended(Database *database, const JqWorkerInfo *info, int64 now)
{
	database->steady_at = 0;
	if (info->quiet != JQ_QUIET_NOT)
	{
		set_quiet(database, info->quiet);
		database->backoff_ms = 0;
		database->start_at = database->is_marked ? now :
			now + PROBE_AGAIN_MS;
		return;
	}
	if (info->retire)
	{
		database->backoff_ms = 0;
		database->start_at = now;
		return;
	}
	jq_troubles_note(JQ_WORKER_SCHEDULER, database->oid, JQ_TROUBLE_ENDED, 0);
	database->backoff_ms = database->backoff_ms == 0 ? FIRST_BACKOFF_MS :
		Min(database->backoff_ms * 2, MAX_BACKOFF_MS);
	database->start_at = now + database->backoff_ms;
}

/* True: one was registered.  Without a free process nothing is tried soon. */
static bool
start_scheduler(Database *database, int64 now)
{
	switch (jq_worker_start(JQ_WORKER_SCHEDULER, database->oid,
							InvalidOid, 0))
	{
		case JQ_START_REGISTERED:
			slot_wait_ms = 0;
			database->is_marked = false;
			return true;
		case JQ_START_NO_ROOM:
			break;				/* it has one */
		case JQ_START_NO_PROCESS:
			slot_wait_ms = Min(Max(slot_wait_ms * 2, CYCLE_MS),
							   MAX_SLOT_WAIT_MS);
			slots_wanted_at = now + slot_wait_ms;
			break;
	}
	return false;
}
