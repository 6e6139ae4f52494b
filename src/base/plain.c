/*-------------------------------------------------------------------------
 *
 * plain.c
 *	  Which of our tables have nothing of the users' in them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "catalog/dependency.h"
#include "catalog/pg_index.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "utils/inval.h"
#include "utils/rel.h"

#include "base/catalog.h"
#include "base/config.h"
#include "base/plain.h"

/* What is known of the tables opened last; emptied by invalidations. */
#define MAX_KNOWN 4
static struct
{
	Oid			relid;			/* InvalidOid: free */
	bool		is_plain;
}			known[MAX_KNOWN];
static int	next_known = 0;
static uint32 forgettings = 0;	/* grows with every invalidation */

/* The only CHECK constraints, all of which the C code satisfies by itself. */
static const char *const own_checks[] = {
	"jobs_queue_status_check", "jobs_queue_attempts_check",
	"jobs_queue_holder_check", "job_runs_status_check"
};

/* The only partial indexes, whose predicates call nothing of the users'. */
static const char *const own_partial_indexes[] = {
	"jobs_queue_live_unique_key", "jobs_queue_live_group"
};

static bool look_if_plain(Relation rel);
static bool has_only_own_triggers(Relation rel);
static bool has_only_own_checks(Relation rel);
static bool has_only_own_columns(Relation rel);
static bool has_only_simple_indexes(Relation rel);
static bool is_listed(const char *name, const char *const *names, int count);
static void forget_table(Datum arg, Oid relid);

bool
jq_plain_is(Relation rel)
{
	static bool is_registered = false;
	Oid			relid = RelationGetRelid(rel);
	uint32		forgettings_before = forgettings;
	bool		answer;

	if (jq_config_debug_claim_path == JQ_CLAIM_PATH_SQL)
		return false;
	for (int i = 0; i < MAX_KNOWN; i++)
		if (known[i].relid == relid)
			return known[i].is_plain;
	if (!is_registered)
	{
		CacheRegisterRelcacheCallback(forget_table, (Datum) 0);
		is_registered = true;
	}
	answer = look_if_plain(rel);
	if (forgettings != forgettings_before)
		return answer;			/* may be old already */
	known[next_known].relid = relid;
	known[next_known].is_plain = answer;
	next_known = (next_known + 1) % MAX_KNOWN;
	return answer;
}

static void
forget_table(Datum arg, Oid relid)
{
	forgettings++;
	for (int i = 0; i < MAX_KNOWN; i++)
		if (relid == InvalidOid || known[i].relid == relid)
			known[i].relid = InvalidOid;
}

static bool
look_if_plain(Relation rel)
{
	return rel->rd_tableam == GetHeapamTableAmRoutine() &&
		rel->rd_rules == NULL &&
		!rel->rd_rel->relrowsecurity &&
		rel->rd_rel->relreplident != REPLICA_IDENTITY_NOTHING &&
		has_only_own_triggers(rel) &&
		has_only_own_checks(rel) &&
		has_only_own_columns(rel) &&
		has_only_simple_indexes(rel);
}

static bool
has_only_own_triggers(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (getExtensionOfObject(ProcedureRelationId,
								 triggers->triggers[i].tgfoid) !=
			jq_catalog()->extension)
			return false;
	return true;
}

static bool
has_only_own_checks(Relation rel)
{
	TupleConstr *constr = RelationGetDescr(rel)->constr;

	for (int i = 0; constr != NULL && i < constr->num_check; i++)
		if (!is_listed(constr->check[i].ccname, own_checks, lengthof(own_checks)))
			return false;
	return true;
}

/* None that must not be null or is computed besides those that we know. */
static bool
has_only_own_columns(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			known_columns = RelationGetRelid(rel) == jq_catalog()->job_runs ?
	(int) JQ_RUN_NCOLUMNS : (int) JQ_JOB_NCOLUMNS;

	if (desc->constr != NULL && desc->constr->has_generated_stored)
		return false;
	for (int i = known_columns; i < desc->natts; i++)
		if (TupleDescAttr(desc, i)->attnotnull &&
			!TupleDescAttr(desc, i)->attisdropped)
			return false;
	return true;
}

static bool
has_only_simple_indexes(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	bool		are_simple = true;
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (!heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL) ||
			index->rd_index->indisexclusion ||
			!index->rd_index->indimmediate ||
			(!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL) &&
			 !is_listed(RelationGetRelationName(index), own_partial_indexes,
						lengthof(own_partial_indexes))))
			are_simple = false;
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return are_simple;
}

static bool
is_listed(const char *name, const char *const *names, int count)
{
	for (int i = 0; i < count; i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}
