/*-------------------------------------------------------------------------
 *
 * catalog.c
 *	  Where the extension's relations are in this database.
 *
 * The oids are looked up once and kept until an invalidation message says
 * that one of the relations, or a schema, changed.  That the extension is
 * absent is never cached: nothing would tell us of its creation.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/catalog.h"
#include "base/trust.h"

static JqCatalog catalog;		/* generation 0: never loaded */
static bool catalog_is_valid = false;
static bool catalog_was_changed = false;	/* while it was being loaded */

static bool load_catalog(void);
static Oid	extension_schema(Oid extension);
static bool schema_name_differs(const char *schema_name);
static bool find_objects(JqCatalog *found);
static Oid	find_foreign_trigger(const JqCatalog *found);
static Oid	foreign_trigger_of(Oid relid, Oid owner);
static bool find_relation(const JqCatalog *found, const char *name,
						  Oid *relid);
static void check_columns(Oid relid);
static void forget_relation(Datum arg, Oid relid);
static void forget_schema(Datum arg, int cacheid, uint32 hashvalue);
static void forget(void);

/* The names that enum JqJobColumn counts on. */
static const char *const job_columns[JQ_JOB_NCOLUMNS] = {
	"id", "job_type", "stage", "priority", "scheduled_at", "payload",
	"max_attempts", "crashes", "last_error", "correlation_id", "unique_key",
	"group_key", "timeout", "backoff", "waiting_for", "cron_task_id",
	"cron_instant", "owner", "idempotency_key", "result", "progress",
	"tags", "metadata", "created_at", "finished_at", "cancel_requested_at",
	"status", "attempts", "claim_no", "locked_by", "locked_at",
	"lease_expires_at", "holder", "updated_at"
};

/* Tables that are written with the rights of the owner, and not named. */
static const char *const other_tables[JQ_CATALOG_OTHERS] = {
	"job_logs", "cron_runs", "registered_workers", "event_subscriptions",
	"http_secrets", "http_secret_values", "queue_events", "rate_log",
	"job_keys", "published_events", "job_history",
	"alert_sinks", "alert_rules", "alerts", "monitor_actions"
};

const JqCatalog *
jq_catalog_if_present(void)
{
	static bool callbacks_registered = false;

	Assert(IsTransactionState());	/* it may have to look things up */
	if (!callbacks_registered)
	{
		CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, forget_schema, (Datum) 0);
		CacheRegisterSyscacheCallback(PROCOID, forget_schema, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHOID, forget_schema, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, forget_schema, (Datum) 0);
		callbacks_registered = true;
	}
	if (!catalog_is_valid && !load_catalog())
		return NULL;
	return &catalog;
}

Oid
jq_catalog_extension(void)
{
	return catalog_is_valid ? catalog.extension :
		get_extension_oid("jobqueue", true);
}

const JqCatalog *
jq_catalog(void)
{
	const JqCatalog *found = jq_catalog_if_present();

	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"jobqueue\" is not installed in this database"),
				 errhint("Run CREATE EXTENSION jobqueue.")));
	return found;
}

/*
 * Fills the cache; false when the extension or one of its tables is gone.
 * An invalidation that arrives meanwhile makes the next call load again.
 */
static bool
load_catalog(void)
{
	JqCatalog	fresh;
	char	   *schema_name;

	catalog_was_changed = false;
	memset(&fresh, 0, sizeof(fresh));
	if (!find_objects(&fresh))
		return false;
	check_columns(fresh.jobs_queue);
	check_columns(fresh.jobs_queue_live);
	check_columns(fresh.jobs_queue_done);

	/* Most invalidations change nothing that plans depend on. */
	schema_name = fresh.schema_name;
	fresh.schema_name = catalog.schema_name;
	fresh.generation = catalog.generation;
	if (schema_name_differs(schema_name) ||
		memcmp(&fresh, &catalog, sizeof(JqCatalog)) != 0)
	{
		fresh.schema_name = MemoryContextStrdup(TopMemoryContext, schema_name);
		fresh.generation = catalog.generation + 1;
		if (catalog.schema_name != NULL)
			pfree(catalog.schema_name);
		catalog = fresh;
	}
	/* A missing index may come back under its name without telling us. */
	catalog_is_valid = !catalog_was_changed &&
		OidIsValid(catalog.jobs_queue_live_ready) &&
		OidIsValid(catalog.jobs_queue_live_owner) &&
		OidIsValid(catalog.jobs_queue_live_group) &&
		OidIsValid(catalog.job_dependencies_pkey) &&
		OidIsValid(catalog.job_dependencies_depends_on);
	return true;
}

static bool
schema_name_differs(const char *schema_name)
{
	return catalog.schema_name == NULL ||
		strcmp(schema_name, catalog.schema_name) != 0;
}

/* Everything but the generation; the name is in the current context. */
static bool
find_objects(JqCatalog *found)
{
	char	   *schema_name;
	HeapTuple	tuple;

	found->extension = get_extension_oid("jobqueue", true);
	if (!OidIsValid(found->extension))
		return false;
	found->schema = extension_schema(found->extension);
	schema_name = get_namespace_name(found->schema);
	if (schema_name == NULL)
		return false;
	found->schema_name = unconstify(char *, quote_identifier(schema_name));

	if (!find_relation(found, "jobs_queue", &found->jobs_queue) ||
		!find_relation(found, "jobs_queue_live", &found->jobs_queue_live) ||
		!find_relation(found, "jobs_queue_live_pkey",
					   &found->jobs_queue_live_pkey) ||
		!find_relation(found, "jobs_queue_done", &found->jobs_queue_done) ||
		!find_relation(found, "jobs_queue_done_pkey",
					   &found->jobs_queue_done_pkey) ||
		!find_relation(found, "job_runs", &found->job_runs) ||
		!find_relation(found, "job_types", &found->job_types) ||
		!find_relation(found, "cron_tasks", &found->cron_tasks) ||
		!find_relation(found, "cron_tasks_pkey", &found->cron_tasks_pkey) ||
		!find_relation(found, "http_endpoints", &found->http_endpoints) ||
		!find_relation(found, "job_dependencies", &found->job_dependencies) ||
		!find_relation(found, "database_identity",
					   &found->database_identity) ||
		!find_relation(found, "worker_stops", &found->worker_stops) ||
		!find_relation(found, "job_circuits", &found->job_circuits))
		return false;
	for (int i = 0; i < JQ_CATALOG_OTHERS; i++)
		if (!find_relation(found, other_tables[i], &found->others[i]))
			return false;

	/* Without them claims are slow, and nothing else. */
	(void) find_relation(found, "jobs_queue_live_ready",
						 &found->jobs_queue_live_ready);
	(void) find_relation(found, "jobs_queue_live_owner",
						 &found->jobs_queue_live_owner);
	(void) find_relation(found, "jobs_queue_live_group",
						 &found->jobs_queue_live_group);
	(void) find_relation(found, "job_dependencies_pkey",
						 &found->job_dependencies_pkey);
	(void) find_relation(found, "job_dependencies_depends_on",
						 &found->job_dependencies_depends_on);

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(found->jobs_queue_live));
	if (!HeapTupleIsValid(tuple))
		return false;
	found->owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	found->foreign_trigger = find_foreign_trigger(found);
	return true;
}

static Oid
find_foreign_trigger(const JqCatalog *found)
{
	const Oid	relids[] = {
		found->jobs_queue, found->jobs_queue_live, found->jobs_queue_done,
		found->job_runs, found->job_types, found->cron_tasks, found->http_endpoints,
		found->job_dependencies, found->database_identity, found->worker_stops,
		found->job_circuits
	};
	Oid			foreign = InvalidOid;

	for (int i = 0; i < (int) lengthof(relids) && !OidIsValid(foreign); i++)
		foreign = foreign_trigger_of(relids[i], found->owner);
	for (int i = 0; i < JQ_CATALOG_OTHERS && !OidIsValid(foreign); i++)
		foreign = foreign_trigger_of(found->others[i], found->owner);
	return foreign;
}

static Oid
foreign_trigger_of(Oid relid, Oid owner)
{
	Relation	rel = table_open(relid, AccessShareLock);
	const Trigger *trigger = jq_trust_foreign_trigger(rel, owner);
	Oid			result = trigger == NULL ? InvalidOid : trigger->tgoid;

	table_close(rel, AccessShareLock);
	return result;
}

/* pg_extension has no syscache of its own on all servers. */
static Oid
extension_schema(Oid extension)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	Oid			schema = InvalidOid;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return schema;
}

static bool
find_relation(const JqCatalog *found, const char *name, Oid *relid)
{
	*relid = get_relname_relid(name, found->schema);
	return OidIsValid(*relid);
}

/* The C code reads columns by number: they must be where it expects them. */
static void
check_columns(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	bool		is_expected = desc->natts >= JQ_JOB_NCOLUMNS;

	for (int i = 0; is_expected && i < JQ_JOB_NCOLUMNS; i++)
		is_expected = !TupleDescAttr(desc, i)->attisdropped &&
			strcmp(NameStr(TupleDescAttr(desc, i)->attname), job_columns[i]) == 0;
	if (!is_expected)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" does not have the columns that this version of jobqueue expects",
						RelationGetRelationName(rel)),
				 errhint("Run ALTER EXTENSION jobqueue UPDATE.")));
	table_close(rel, AccessShareLock);
}

static void
forget_relation(Datum arg, Oid relid)
{
	if (relid == InvalidOid ||
		relid == catalog.jobs_queue ||
		relid == catalog.jobs_queue_live ||
		relid == catalog.jobs_queue_live_pkey ||
		relid == catalog.jobs_queue_live_ready ||
		relid == catalog.jobs_queue_live_owner ||
		relid == catalog.jobs_queue_live_group ||
		relid == catalog.jobs_queue_done ||
		relid == catalog.jobs_queue_done_pkey ||
		relid == catalog.job_runs ||
		relid == catalog.job_types ||
		relid == catalog.cron_tasks ||
		relid == catalog.http_endpoints ||
		relid == catalog.job_dependencies ||
		relid == catalog.job_dependencies_pkey ||
		relid == catalog.job_dependencies_depends_on ||
		relid == catalog.database_identity ||
		relid == catalog.worker_stops || relid == catalog.job_circuits)
		forget();
	for (int i = 0; i < JQ_CATALOG_OTHERS; i++)
		if (relid == catalog.others[i])
			forget();
}

static void
forget_schema(Datum arg, int cacheid, uint32 hashvalue)
{
	forget();
}

static void
forget(void)
{
	catalog_is_valid = false;
	catalog_was_changed = true;
}
