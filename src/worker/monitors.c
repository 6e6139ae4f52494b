/*-------------------------------------------------------------------------
 *
 * monitors.c
 *	  Which monitors the launcher keeps running.
 *
 *	  They belong to the entries of a setting, not to a database: so they live
 *	  on where its workers are paused, quiet or gone, which is what they are
 *	  to tell.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/monitors.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/db.h"
#include "base/monitor_list.h"
#include "base/worker_troubles.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "utils/acl.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "worker/worker.h"

#define FIRST_BACKOFF_MS 1000
#define MAX_BACKOFF_MS 30000
#define STEADY_MS 30000
#define CHECK_MS 1000			/* whether an entry can be served */

/* What is known of an entry. */
typedef struct Monitor
{
	uint32		key;			/* of the entry; 0: unused */
	bool		is_listed;		/* by the setting as it is now */
	bool		is_running;		/* as far as was seen */
	int			backoff_ms;		/* 0: the last one lasted */
	int64		start_at;		/* by jq_clock_ms(): none before */
	int64		started_at;		/* the same */
	char		problem[256];	/* that was warned of; "": none */
} Monitor;

static Monitor monitors[JQ_MAX_MONITORS];

static bool lists(List *entries, uint32 key);
static Monitor *find_monitor(uint32 key);
static bool has_process(const Monitor *monitor, const JqWorkerInfo *workers,
						int nworkers);
static void tend(Monitor *monitor, const JqMonitorEntry *entry,
				 bool is_running);
static const char *entry_problem(const JqMonitorEntry *entry, Oid *database,
								 Oid *role);
static const char *find_database(const char *name, Oid role, Oid *database);
static bool may_connect(HeapTuple tuple, TupleDesc desc, Oid role);
static void tell(const Monitor *monitor, const char *problem, Oid database);
static void say(Monitor *monitor, const JqMonitorEntry *entry,
				const char *problem);

void
jq_monitors_tend(void *arg)
{
	List	   *entries = jq_monitor_list_read(jq_config_monitor);
	JqWorkerInfo *workers = NULL;
	int			nworkers;
	ListCell   *cell;

	if (entries == NIL)
		return;
	for (int i = 0; i < (int) lengthof(monitors); i++)
		monitors[i].is_listed = lists(entries, monitors[i].key);
	nworkers = jq_shared_workers(&workers);
	foreach(cell, entries)
	{
		const JqMonitorEntry *entry = (const JqMonitorEntry *) lfirst(cell);
		Monitor    *monitor = find_monitor(entry->key);

		monitor->is_listed = true;
		tend(monitor, entry, has_process(monitor, workers, nworkers));
	}
}

static bool
lists(List *entries, uint32 key)
{
	ListCell   *cell;

	foreach(cell, entries)
		if (((const JqMonitorEntry *) lfirst(cell))->key == key)
		return true;
	return false;
}

/* There are as many places as entries can be: what is not listed makes room. */
static Monitor *
find_monitor(uint32 key)
{
	int			place = 0;

	for (int i = 0; i < (int) lengthof(monitors); i++)
	{
		if (monitors[i].key == key)
			return &monitors[i];
		if (!monitors[i].is_listed)
			place = i;
	}
	memset(&monitors[place], 0, sizeof(Monitor));
	monitors[place].key = key;
	return &monitors[place];
}

static bool
has_process(const Monitor *monitor, const JqWorkerInfo *workers, int nworkers)
{
	for (int i = 0; i < nworkers; i++)
		if (workers[i].kind == JQ_WORKER_MONITOR &&
			workers[i].monitor == monitor->key)
			return true;
	return false;
}

/* One that ends is started again, later and later unless it has lasted. */
static void
tend(Monitor *monitor, const JqMonitorEntry *entry, bool is_running)
{
	int64		now = jq_clock_ms();
	bool		has_ended = monitor->is_running && !is_running;
	const char *problem;
	Oid			database = InvalidOid;
	Oid			role;

	monitor->is_running = is_running;
	if (has_ended)
	{
		if (now >= monitor->started_at + STEADY_MS)
			monitor->backoff_ms = 0;
		monitor->backoff_ms = monitor->backoff_ms == 0 ? FIRST_BACKOFF_MS :
			Min(monitor->backoff_ms * 2, MAX_BACKOFF_MS);
		monitor->start_at = now + monitor->backoff_ms;
	}
	if (is_running || now < monitor->start_at)
		return;

	jq_catalog_begin();
	(void) GetTransactionSnapshot();
	problem = entry_problem(entry, &database, &role);
	tell(monitor, problem, database);
	say(monitor, entry, problem);
	jq_catalog_commit();
	monitor->start_at = now + CHECK_MS;
	if (problem == NULL &&
		jq_worker_start_monitor(database, role,
								entry->key) == JQ_START_REGISTERED)
	{
		monitor->is_running = true;
		monitor->started_at = now;
	}
}

/*
 * Why the entry cannot be served, a sentence; NULL: it can.  "database" stays
 * what it was where it is not known.
 */
static const char *
entry_problem(const JqMonitorEntry *entry, Oid *database, Oid *role)
{
	const char *problem;

	*role = get_role_oid(entry->role, true);
	if (!OidIsValid(*role))
		return "its role does not exist";
	problem = jq_monitor_role_problem(*role);
	if (problem == NULL)
		problem = find_database(entry->database, *role, database);
	return problem;
}

const char *
jq_monitor_role_problem(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	const char *problem = NULL;

	if (!HeapTupleIsValid(tuple))
		return "its role does not exist";
	if (((Form_pg_authid) GETSTRUCT(tuple))->rolsuper)
		problem = "its role is a superuser, as whom it must not be connected";
	else if (!((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin)
		problem = "its role is not permitted to log in";
	ReleaseSysCache(tuple);
	return problem;
}

/*
 * The database of that name, and why the role cannot be connected to it.  The
 * launcher, without a database of its own, cannot use an index of pg_database.
 */
static const char *
find_database(const char *name, Oid role, Oid *database)
{
	Relation	rel = table_open(DatabaseRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(rel, 0, NULL);
	const char *problem = "its database does not exist";
	HeapTuple	tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database row = (Form_pg_database) GETSTRUCT(tuple);

		if (strcmp(NameStr(row->datname), name) != 0)
			continue;
		*database = row->oid;
		if (!row->datallowconn)
			problem = "its database accepts no connections";
		else if (!may_connect(tuple, RelationGetDescr(rel), role))
			problem = "its role has no privilege to connect to its database";
		else
			problem = NULL;
		break;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	return problem;
}

/* A long list of rights, which is stored elsewhere, cannot be read here. */
static bool
may_connect(HeapTuple tuple, TupleDesc desc, Oid role)
{
	Oid			owner = ((Form_pg_database) GETSTRUCT(tuple))->datdba;
	bool		isnull;
	Datum		value = heap_getattr(tuple, Anum_pg_database_datacl, desc,
									 &isnull);
	Acl		   *acl;

	if (!isnull && VARATT_IS_EXTERNAL(DatumGetPointer(value)))
		return true;			/* the monitor finds out */
	acl = isnull ? acldefault(OBJECT_DATABASE, owner) : DatumGetAclP(value);
	return aclmask(acl, role, owner, ACL_CONNECT, ACLMASK_ANY) != 0;
}

/* What job_health() knows; of which database is not always known. */
static void
tell(const Monitor *monitor, const char *problem, Oid database)
{
	if (problem != NULL)
		jq_troubles_note(JQ_WORKER_MONITOR, database, JQ_TROUBLE_NOT_SERVING,
						 0);
	else if (monitor->problem[0] != '\0')
	{
		jq_troubles_end(JQ_WORKER_MONITOR, database, JQ_TROUBLE_NOT_SERVING);
		jq_troubles_end(JQ_WORKER_MONITOR, InvalidOid, JQ_TROUBLE_NOT_SERVING);
	}
}

/* Once for each problem. */
static void
say(Monitor *monitor, const JqMonitorEntry *entry, const char *problem)
{
	if (problem == NULL)
	{
		monitor->problem[0] = '\0';
		return;
	}
	if (strncmp(problem, monitor->problem, sizeof(monitor->problem) - 1) == 0)
		return;
	strlcpy(monitor->problem, problem, sizeof(monitor->problem));
	if (jq_config_logs(WARNING))
		ereport(WARNING,
				(errmsg("jobqueue cannot start the monitor for port %d: %s",
						entry->port, problem),
				 errhint("Its entry in jobqueue.monitor names database \"%s\" and role \"%s\".",
						 entry->database, entry->role)));
}
