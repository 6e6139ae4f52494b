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
#include "catalog/pg_publication.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/relcache.h"

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
	"jobs_queue_live_owner", "jobs_queue_live_unique_key",
	"jobs_queue_live_group", "jobs_queue_live_cron"
};

static bool look_if_plain(Relation rel);
static bool has_only_own_triggers(Relation rel);
static bool has_only_own_checks(Relation rel);
static bool can_be_published(Relation rel);
static bool has_only_own_columns(Relation rel);
static bool has_number(const int *numbers, int count, int number);
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
		can_be_published(rel) &&
		has_only_own_triggers(rel) &&
		has_only_own_checks(rel) &&
		has_only_own_columns(rel) &&
		has_only_simple_indexes(rel);
}

static bool
has_only_own_triggers(Relation rel)
{
	/* Looking things up may bring an invalidation, which frees the original. */
	TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);

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

/*
 * Whether no publication forbids an UPDATE or DELETE, as the executor would
 * find out: by a row filter or a list of columns, or for want of an identity.
 */
static bool
can_be_published(Relation rel)
{
	PublicationDesc published;

	RelationBuildPublicationDesc(rel, &published);
	if (!published.pubactions.pubupdate && !published.pubactions.pubdelete)
		return true;
	return published.rf_valid_for_update && published.rf_valid_for_delete &&
		published.cols_valid_for_update && published.cols_valid_for_delete &&
		(rel->rd_rel->relreplident == REPLICA_IDENTITY_FULL ||
		 OidIsValid(RelationGetReplicaIndex(rel)));
}

/* None that is computed, or must not be null without being filled by us. */
static bool
has_only_own_columns(Relation rel)
{
	static const int filled_in_jobs[] = {
		JQ_JOB_ID, JQ_JOB_JOB_TYPE, JQ_JOB_STAGE, JQ_JOB_PRIORITY,
		JQ_JOB_SCHEDULED_AT, JQ_JOB_PAYLOAD, JQ_JOB_MAX_ATTEMPTS,
		JQ_JOB_CRASHES, JQ_JOB_WAITING_FOR, JQ_JOB_IDEMPOTENCY_KEY,
		JQ_JOB_CREATED_AT, JQ_JOB_STATUS, JQ_JOB_ATTEMPTS, JQ_JOB_CLAIM_NO,
		JQ_JOB_UPDATED_AT
	};
	static const int filled_in_runs[] = {
		JQ_RUN_JOB_ID, JQ_RUN_CLAIM_NO, JQ_RUN_ATTEMPT, JQ_RUN_JOB_TYPE,
		JQ_RUN_STAGE, JQ_RUN_STATUS, JQ_RUN_CHARGED, JQ_RUN_FINISHED_AT
	};
	TupleDesc	desc = RelationGetDescr(rel);
	bool		is_runs = RelationGetRelid(rel) == jq_catalog()->job_runs;

	if (desc->constr != NULL && desc->constr->has_generated_stored)
		return false;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (column->attnotnull && !column->attisdropped &&
			!(is_runs ?
			  has_number(filled_in_runs, lengthof(filled_in_runs), i + 1) :
			  has_number(filled_in_jobs, lengthof(filled_in_jobs), i + 1)))
			return false;
	}
	return true;
}

static bool
has_number(const int *numbers, int count, int number)
{
	for (int i = 0; i < count; i++)
		if (numbers[i] == number)
			return true;
	return false;
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
