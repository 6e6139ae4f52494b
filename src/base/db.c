/*-------------------------------------------------------------------------
 *
 * db.c
 *	  Transactions of workers.
 *
 *	  ALTER ROLE and ALTER DATABASE SET reach background workers too.  So what
 *	  could break our own statements is set here: for a whole process that
 *	  runs our code only, or for one transaction in a process that otherwise
 *	  keeps the settings of its role.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/db.h"

#include "access/xact.h"
#include "base/catalog.h"
#include "catalog/pg_extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "replication/slot.h"
#include "replication/syncrep.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#define COMMIT_WATCH_MS 200

typedef struct Setting
{
	const char *name;
	const char *value;
} Setting;

/* For the life of a process.  Names that a server does not know are skipped. */
static const Setting process_settings[] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"role", "none"},
	{"session_replication_role", "origin"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_deferrable", "off"},
	{"statement_timeout", "0"},
	{"lock_timeout", "1s"},
	{"transaction_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
	{"row_security", "on"},
	{"TimeZone", "UTC"},
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"bytea_output", "hex"},
	{"standard_conforming_strings", "on"},
	{"jit", "off"},
	{"log_statement", "none"},
};

/* For one transaction of ours in a session that is somebody's. */
static const Setting transaction_settings[] = {
	{"session_replication_role", "origin"},
	{"lock_timeout", "5000"},
	{"row_security", "on"},
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"bytea_output", "hex"},
};

static const Setting durable_commit = {"synchronous_commit", "on"};

/* Current outside the transaction; NULL while there is none. */
static MemoryContext outer_context = NULL;

static bool process_is_pinned = false;
static bool commit_is_left = false; /* to the server's synchronous_commit */
static char lock_wait[16] = ""; /* instead of the usual one */

static TimeoutId watch_timeout = MAX_TIMEOUTS;	/* not registered */

static void begin_transaction(void);
static void commit_transaction(void);
static void watch_commit(void);
static void pin_setting(const Setting *setting);
static void lock_extension(void);

void
jq_db_begin(const char *activity)
{
	begin_transaction();
	XactIsoLevel = XACT_READ_COMMITTED;
	XactDeferrable = false;
	jq_db_pin_rest();
	if (!process_is_pinned)
		pin_setting(&durable_commit);
	lock_extension();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, activity);
}

/*
 * What DROP EXTENSION locks first: so it waits for this short transaction
 * before it has locked anything else, and never deadlocks with it.
 */
static void
lock_extension(void)
{
	Oid			extension = jq_catalog_extension();

	if (OidIsValid(extension))
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
}

void
jq_db_begin_as_session(const char *activity)
{
	begin_transaction();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, activity);
}

void
jq_db_commit(void)
{
	SPI_finish();
	PopActiveSnapshot();
	jq_catalog_commit();
}

/* Committing leaves another context current. */
void
jq_db_begin_statement(void)
{
	MemoryContext context = CurrentMemoryContext;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	MemoryContextSwitchTo(context);
}

void
jq_db_end_statement(void)
{
	MemoryContext context = CurrentMemoryContext;

	commit_transaction();
	MemoryContextSwitchTo(context);
}

/*
 * A body may have begun a transaction block, which takes two steps to end.
 * What a procedure that commits has left, and slots, are no part of
 * transactions: the server cleans them up where it catches an error, as here.
 */
void
jq_db_abort(void)
{
	AbortOutOfAnyTransaction();
	if (watch_timeout != MAX_TIMEOUTS)
		disable_timeout(watch_timeout, false);
	PortalErrorCleanup();
	if (MyReplicationSlot != NULL)
		ReplicationSlotRelease();
	if (outer_context != NULL)
		MemoryContextSwitchTo(outer_context);
	outer_context = NULL;
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

void
jq_catalog_begin(void)
{
	begin_transaction();
}

void
jq_catalog_commit(void)
{
	commit_transaction();
	MemoryContextSwitchTo(outer_context);
	outer_context = NULL;
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/*
 * A commit may wait for a standby, and a standby may be gone for good: a
 * worker that was asked to end must not wait for it then.
 */
static void
commit_transaction(void)
{
	if (SyncRepStandbyNames == NULL || SyncRepStandbyNames[0] == '\0')
	{
		CommitTransactionCommand();
		return;
	}
	if (watch_timeout == MAX_TIMEOUTS)
		watch_timeout = RegisterTimeout(USER_TIMEOUT, watch_commit);
	enable_timeout_every(watch_timeout,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 COMMIT_WATCH_MS),
						 COMMIT_WATCH_MS);
	CommitTransactionCommand();
	disable_timeout(watch_timeout, false);
	QueryCancelPending = false;
}

/* Timeout handler.  The transaction is committed here whatever we do. */
static void
watch_commit(void)
{
	if (ShutdownRequestPending && MyProc->syncRepState == SYNC_REP_WAITING)
	{
		InterruptPending = true;
		QueryCancelPending = true;
		SetLatch(MyLatch);
	}
}

void
jq_db_leave_synchronous_commit(void)
{
	commit_is_left = true;
}

void
jq_db_wait_for_locks(int ms)
{
	snprintf(lock_wait, sizeof(lock_wait), "%d", ms);
}

void
jq_db_pin_settings(void)
{
	process_is_pinned = true;
	if (!commit_is_left)
		SetConfigOption(durable_commit.name, durable_commit.value,
						PGC_SUSET, PGC_S_OVERRIDE);
	for (int i = 0; i < (int) lengthof(process_settings); i++)
	{
		const Setting *setting = &process_settings[i];

		if (GetConfigOption(setting->name, true, false) != NULL)
			SetConfigOption(setting->name, setting->value,
							PGC_SUSET, PGC_S_OVERRIDE);
	}
	if (lock_wait[0] != '\0')
		SetConfigOption("lock_timeout", lock_wait, PGC_SUSET, PGC_S_OVERRIDE);
}

/* Without the new timestamp now() would stand still in a worker. */
static void
begin_transaction(void)
{
	Assert(outer_context == NULL);
	outer_context = CurrentMemoryContext;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
}

void
jq_db_pin_rest(void)
{
	XactReadOnly = false;
	if (process_is_pinned)
		return;
	for (int i = 0; i < (int) lengthof(transaction_settings); i++)
		pin_setting(&transaction_settings[i]);
}

/* Only what differs is set, for setting costs more than looking. */
static void
pin_setting(const Setting *setting)
{
	const char *value = GetConfigOption(setting->name, true, false);

	if (value != NULL && strcmp(value, setting->value) != 0)
		set_config_option(setting->name, setting->value,
						  PGC_SUSET, PGC_S_SESSION,
						  GUC_ACTION_LOCAL, true, 0, false);
}
