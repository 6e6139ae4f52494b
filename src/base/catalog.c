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

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
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

static JqCatalog catalog;
static bool catalog_is_valid = false;
static uint64 catalog_generation = 0;

static bool load_catalog(void);
static Oid	extension_schema(Oid extension);
static Oid	find_relation(const char *name);
static void check_columns(Oid relid);
static void forget_relation(Datum arg, Oid relid);
static void forget_schema(Datum arg, int cacheid, uint32 hashvalue);

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

const JqCatalog *
jq_catalog_if_present(void)
{
	static bool callbacks_registered = false;

	if (!callbacks_registered)
	{
		CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, forget_schema, (Datum) 0);
		callbacks_registered = true;
	}
	if (!catalog_is_valid && !load_catalog())
		return NULL;
	return &catalog;
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

/* Fills the cache; false when the extension or one of its tables is gone. */
static bool
load_catalog(void)
{
	Oid			extension = get_extension_oid("jobqueue", true);
	char	   *schema_name;
	Relation	live;

	if (!OidIsValid(extension))
		return false;
	catalog.extension = extension;
	catalog.schema = extension_schema(extension);
	schema_name = get_namespace_name(catalog.schema);
	if (schema_name == NULL)
		return false;

	catalog.jobs_queue = find_relation("jobs_queue");
	catalog.jobs_queue_live = find_relation("jobs_queue_live");
	catalog.jobs_queue_live_pkey = find_relation("jobs_queue_live_pkey");
	catalog.jobs_queue_done = find_relation("jobs_queue_done");
	catalog.jobs_queue_done_pkey = find_relation("jobs_queue_done_pkey");
	catalog.job_runs = find_relation("job_runs");
	catalog.job_types = find_relation("job_types");
	catalog.cron_tasks = find_relation("cron_tasks");
	catalog.job_dependencies = find_relation("job_dependencies");
	if (!OidIsValid(catalog.jobs_queue) ||
		!OidIsValid(catalog.jobs_queue_live) ||
		!OidIsValid(catalog.jobs_queue_live_pkey) ||
		!OidIsValid(catalog.jobs_queue_done) ||
		!OidIsValid(catalog.jobs_queue_done_pkey) ||
		!OidIsValid(catalog.job_runs) ||
		!OidIsValid(catalog.job_types) ||
		!OidIsValid(catalog.cron_tasks) ||
		!OidIsValid(catalog.job_dependencies))
		return false;

	live = table_open(catalog.jobs_queue_live, AccessShareLock);
	catalog.owner = live->rd_rel->relowner;
	table_close(live, AccessShareLock);
	check_columns(catalog.jobs_queue);
	check_columns(catalog.jobs_queue_live);
	check_columns(catalog.jobs_queue_done);

	if (catalog.schema_name != NULL)
		pfree(catalog.schema_name);
	catalog.schema_name =
		MemoryContextStrdup(TopMemoryContext, quote_identifier(schema_name));
	catalog.generation = ++catalog_generation;
	catalog_is_valid = true;
	return true;
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

static Oid
find_relation(const char *name)
{
	return get_relname_relid(name, catalog.schema);
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
		relid == catalog.jobs_queue_done ||
		relid == catalog.jobs_queue_done_pkey ||
		relid == catalog.job_runs ||
		relid == catalog.cron_tasks ||
		relid == catalog.job_dependencies)
		catalog_is_valid = false;
}

static void
forget_schema(Datum arg, int cacheid, uint32 hashvalue)
{
	catalog_is_valid = false;
}
