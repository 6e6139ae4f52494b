/*-------------------------------------------------------------------------
 *
 * dependencies.c
 *	  What jobs wait for.
 *
 * A parent and its child meet on the parent's row.  Enqueueing the child
 * locks it; completing the parent deletes it, or updates it where it had ended
 * without success.  Whoever comes second waits for the other's end and then
 * sees what it did: either the child finds the parent completed, or the parent
 * finds the child waiting.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/catalog.h"
#include "base/scope.h"
#include "base/statement.h"
#include "base/table.h"
#include "queue/dependencies.h"
#include "queue/job.h"

/* A completed job that was not kept has left its run. */
static JqStatement find_completed_run = {
	.text = "SELECT 1 FROM @.job_runs"
	" WHERE job_id = $1 AND status = 'completed' LIMIT 1",
	.nargs = 1,
	.argtypes = {INT8OID}
};

static JqStatement add_pending = {
	.text = "INSERT INTO @.job_dependencies (job_id, depends_on, on_failure,"
	" shares_result)"
	" SELECT $1, p.id, $3, p.shared FROM unnest($2, $4) AS p (id, shared)",
	.nargs = 4,
	.argtypes = {INT8OID, INT8ARRAYOID, TEXTOID, BOOLARRAYOID}
};

/* What the parent left is copied: it may be gone before the job runs. */
static JqStatement add_completed = {
	.text = "INSERT INTO @.job_dependencies (job_id, depends_on, on_failure,"
	" shares_result, status, ended_at, job_type, result)"
	" SELECT $1, p.id, $3, p.shared, 'completed', coalesce(x.ended_at, now()),"
	" x.job_type, x.result FROM unnest($2, $4) AS p (id, shared)"
	" LEFT JOIN LATERAL (" JQ_LEFT_BY("p.id", "p.shared") ") x ON true",
	.nargs = 4,
	.argtypes = {INT8OID, INT8ARRAYOID, TEXTOID, BOOLARRAYOID}
};

/* Who waits for the job, of its parents and theirs. */
static JqStatement find_cycle = {
	.text = "WITH RECURSIVE up (id) AS (SELECT unnest($2) UNION"
	" SELECT d.depends_on FROM up u CROSS JOIN LATERAL (SELECT d.depends_on"
	" FROM @.job_dependencies d WHERE d.job_id = u.id AND d.status IS NULL"
	" AND EXISTS (SELECT FROM @.jobs_queue_live q WHERE q.id = u.id"
	" AND q.status = 'blocked') OFFSET 0) d)"
	" SELECT d.job_id FROM up u CROSS JOIN LATERAL (SELECT d.job_id"
	" FROM @.job_dependencies d WHERE d.job_id = u.id AND d.depends_on = $1"
	" AND d.status IS NULL AND EXISTS (SELECT FROM @.jobs_queue_live q"
	" WHERE q.id = u.id AND q.status = 'blocked') OFFSET 0) d LIMIT 1",
	.nargs = 2,
	.argtypes = {INT8OID, INT8ARRAYOID}
};

static JqStatement forget_pending = {
	.text = "DELETE FROM @.job_dependencies"
	" WHERE job_id = $1 AND status IS NULL",
	.nargs = 1,
	.argtypes = {INT8OID}
};

static JqStatement forget_all = {
	.text = "DELETE FROM @.job_dependencies WHERE job_id = $1",
	.nargs = 1,
	.argtypes = {INT8OID}
};

static JqStatement prune_some = {
	.text = "DELETE FROM @.job_dependencies d WHERE d.job_id = ANY ($1)"
	" AND NOT EXISTS (SELECT FROM @.jobs_queue q WHERE q.id = d.job_id"
	" OFFSET 0)",
	.nargs = 1,
	.argtypes = {INT8ARRAYOID}
};

static JqStatement prune_all = {
	.text = "DELETE FROM @.job_dependencies d"
	" WHERE NOT EXISTS (SELECT FROM @.jobs_queue q WHERE q.id = d.job_id)"
};

static JqStatement select_awaited = {
	.text = "SELECT DISTINCT d.depends_on FROM @.job_dependencies d"
	" WHERE d.depends_on = ANY ($1) AND d.status IS NULL ORDER BY 1",
	.nargs = 1,
	.argtypes = {INT8ARRAYOID}
};

static const char *const on_failure_names[] = {
	[JQ_ON_FAILURE_BLOCK] = "block",
	[JQ_ON_FAILURE_CANCEL] = "cancel",
	[JQ_ON_FAILURE_RUN] = "run"
};

static void put_blocked_last(int64 *ids, int count);
static JqStatus look_at_parent(int64 id, Oid *owner);
static bool lock_parent(bool is_live, int64 id, JqStatus *status, Oid *owner);
static void add(JqStatement *statement, int64 job_id,
				const JqParents *parents, int first, int count);
static bool is_listed(int64 id, uint64 rows);
static bool has_edges(Oid index, int column, const int64 *ids, int nids,
					  bool only_pending);
static int	count_edges(Relation rel, Oid index, int column, int64 id,
						bool only_pending, Snapshot snapshot,
						bool only_first);

JqOnFailure
jq_dependencies_on_failure(const char *name)
{
	for (int i = 0; i < (int) lengthof(on_failure_names); i++)
		if (strcmp(name, on_failure_names[i]) == 0)
			return (JqOnFailure) i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized on_parent_failure \"%s\"", name),
			 errhint("It is block, cancel or run.")));
}

void
jq_dependencies_look(JqParents *parents)
{
	int64	   *completed = palloc(sizeof(int64) * Max(parents->count, 1));
	bool	   *completed_shared = palloc(sizeof(bool) * Max(parents->count, 1));
	int			ncompleted = 0;

	parents->shared = palloc(sizeof(bool) * Max(parents->count, 1));
	parents->failed = palloc(sizeof(int64) * Max(parents->count, 1));
	parents->nfailed = 0;
	parents->pending = 0;
	put_blocked_last(parents->ids, parents->count);
	for (int i = 0; i < parents->count; i++)
	{
		int64		id = parents->ids[i];
		Oid			owner;
		JqStatus	status = look_at_parent(id, &owner);
		bool		is_shared = OidIsValid(owner) &&
		has_privs_of_role(parents->owner, owner);

		CHECK_FOR_INTERRUPTS();
		if (status == JQ_STATUS_COMPLETED)
		{
			completed[ncompleted] = id;
			completed_shared[ncompleted++] = is_shared;
			continue;
		}
		parents->ids[parents->pending] = id;
		parents->shared[parents->pending++] = is_shared;
		if (jq_job_status_is_final(status))
			parents->failed[parents->nfailed++] = id;
	}
	memcpy(parents->ids + parents->pending, completed,
		   sizeof(int64) * ncompleted);
	memcpy(parents->shared + parents->pending, completed_shared,
		   sizeof(bool) * ncompleted);
}

/*
 * The order that the ends of jobs lock in: those that end, and then those that
 * wait for them.  Both groups stay in the order of their ids.
 */
static void
put_blocked_last(int64 *ids, int count)
{
	const JqCatalog *catalog = jq_catalog();
	int64	   *blocked = palloc(sizeof(int64) * Max(count, 1));
	int			nblocked = 0;
	int			nothers = 0;
	JqTable		live;
	TupleTableSlot *row;

	if (count < 2)
		return;
	jq_table_open(&live, catalog->jobs_queue_live);
	row = jq_table_slot(&live);
	for (int i = 0; i < count; i++)
	{
		bool		is_blocked = false;

		if (jq_table_find_by_id(&live, catalog->jobs_queue_live_pkey, ids[i], row))
		{
			JqJob		job;

			jq_job_read(row, &job);
			is_blocked = job.status == JQ_STATUS_BLOCKED;
		}
		if (is_blocked)
			blocked[nblocked++] = ids[i];
		else
			ids[nothers++] = ids[i];
	}
	jq_table_close(&live);
	memcpy(ids + nothers, blocked, sizeof(int64) * nblocked);
}

/*
 * An ended parent without success keeps its children waiting: it is locked
 * too, because it may be about to complete after all.  Nobody knows whose a
 * job was that has left no more than its run.
 */
static JqStatus
look_at_parent(int64 id, Oid *owner)
{
	Datum		values[1] = {Int64GetDatum(id)};
	JqStatus	status;

	/* A second look finds what was requeued between the two of the first. */
	for (int i = 0; i < 2; i++)
		if (lock_parent(true, id, &status, owner) ||
			lock_parent(false, id, &status, owner))
			return status;
	jq_scope_refresh();
	if (jq_statement_query(&find_completed_run, values, NULL, 1) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("job " INT64_FORMAT " in depends_on does not exist", id)));
	*owner = InvalidOid;
	return JQ_STATUS_COMPLETED;
}

/* Keeps a parent in its status and leaf; false when it is not in this one. */
static bool
lock_parent(bool is_live, int64 id, JqStatus *status, Oid *owner)
{
	const JqCatalog *catalog = jq_catalog();
	JqTable		leaf;
	TupleTableSlot *row;
	JqJob		parent;
	bool		is_found;

	jq_table_open(&leaf, is_live ? catalog->jobs_queue_live :
				  catalog->jobs_queue_done);
	row = jq_table_slot(&leaf);
	is_found = jq_table_lock_by_id(&leaf, is_live ?
								   catalog->jobs_queue_live_pkey :
								   catalog->jobs_queue_done_pkey,
								   id, LockTupleShare, row);
	if (is_found)
	{
		jq_job_read(row, &parent);
		*status = parent.status;
		*owner = parent.owner;
	}
	jq_table_close(&leaf);
	return is_found;
}

void
jq_dependencies_add(int64 job_id, const JqParents *parents)
{
	if (parents->pending > 0)
		add(&add_pending, job_id, parents, 0, parents->pending);
	if (parents->count > parents->pending)
		add(&add_completed, job_id, parents, parents->pending,
			parents->count - parents->pending);
}

static void
add(JqStatement *statement, int64 job_id, const JqParents *parents, int first,
	int count)
{
	Datum	   *shared = palloc(sizeof(Datum) * count);
	Datum		values[4];

	for (int i = 0; i < count; i++)
		shared[i] = BoolGetDatum(parents->shared[first + i]);
	values[0] = Int64GetDatum(job_id);
	values[1] = jq_dependencies_array(parents->ids + first, count);
	values[2] = CStringGetTextDatum(on_failure_names[parents->on_failure]);
	values[3] = PointerGetDatum(construct_array(shared, count, BOOLOID, 1,
												true, TYPALIGN_CHAR));
	jq_statement_execute(statement, values, NULL, 0);
}

void
jq_dependencies_lock_order(void)
{
	LockDatabaseObject(RelationRelationId, jq_catalog()->job_dependencies, 1,
					   ExclusiveLock);
}

void
jq_dependencies_refuse_cycle(int64 job_id, const JqParents *parents)
{
	Datum		values[2] = {Int64GetDatum(job_id)};

	for (int i = 0; i < parents->count; i++)
		if (parents->ids[i] == job_id)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("job " INT64_FORMAT " cannot wait for itself", job_id)));
	if (parents->pending == 0)
		return;
	values[1] = jq_dependencies_array(parents->ids, parents->pending);
	if (jq_statement_execute(&find_cycle, values, NULL, 1) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("job " INT64_FORMAT " cannot wait for jobs that wait for it",
						job_id),
				 errdetail("It would wait for job " INT64_FORMAT ", which waits for it.",
						   DatumGetInt64(jq_statement_value(0, 1)))));
}

void
jq_dependencies_forget_pending(int64 job_id)
{
	Datum		values[1] = {Int64GetDatum(job_id)};

	if (jq_dependencies_exist())
		jq_statement_execute(&forget_pending, values, NULL, 0);
}

void
jq_dependencies_forget(int64 job_id)
{
	Datum		values[1] = {Int64GetDatum(job_id)};

	if (jq_dependencies_exist())
		jq_statement_execute(&forget_all, values, NULL, 0);
}

int
jq_dependencies_unawaited(int64 *ids, int nids)
{
	Datum		values[1];
	uint64		rows;
	int			count = 0;

	jq_scope_refresh();
	if (nids == 0 || !jq_dependencies_has_children(ids, nids))
		return nids;
	values[0] = jq_dependencies_array(ids, nids);
	rows = jq_statement_query(&select_awaited, values, NULL, 0);
	for (int i = 0; i < nids; i++)
		if (!is_listed(ids[i], rows))
			ids[count++] = ids[i];
	return count;
}

/* In the result, which is in order. */
static bool
is_listed(int64 id, uint64 rows)
{
	uint64		low = 0;

	while (low < rows)
	{
		uint64		middle = (low + rows) / 2;
		int64		found = DatumGetInt64(jq_statement_value(middle, 1));

		if (found == id)
			return true;
		if (found < id)
			low = middle + 1;
		else
			rows = middle;
	}
	return false;
}

void
jq_dependencies_prune(const int64 *ids, int nids)
{
	Datum		values[1];

	if (nids == 0 || !jq_dependencies_has_parents(ids, nids))
		return;
	values[0] = jq_dependencies_array(ids, nids);
	jq_statement_execute(&prune_some, values, NULL, 0);
}

void
jq_dependencies_prune_all(void)
{
	jq_statement_execute(&prune_all, NULL, NULL, 0);
}

Datum
jq_dependencies_array(const int64 *ids, int count)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		elements[i] = Int64GetDatum(ids[i]);
	return PointerGetDatum(construct_array(elements, count, INT8OID,
										   sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

/* Most queues have none: an empty table needs no look. */
bool
jq_dependencies_exist(void)
{
	Relation	rel = table_open(jq_catalog()->job_dependencies,
								 AccessShareLock);
	bool		found = RelationGetNumberOfBlocks(rel) > 0;

	table_close(rel, AccessShareLock);
	return found;
}

bool
jq_dependencies_has_children(const int64 *ids, int nids)
{
	return has_edges(jq_catalog()->job_dependencies_depends_on,
					 JQ_DEPENDENCY_DEPENDS_ON, ids, nids, true);
}

bool
jq_dependencies_has_parents(const int64 *ids, int nids)
{
	return has_edges(jq_catalog()->job_dependencies_pkey,
					 JQ_DEPENDENCY_JOB_ID, ids, nids, false);
}

/*
 * A probe costs a tenth of a statement, and most jobs have no edges.  One that
 * the transaction's own snapshot is too old for would be missed by all that
 * follows, and its job would wait for ever.
 */
static bool
has_edges(Oid index, int column, const int64 *ids, int nids,
		  bool only_pending)
{
	Snapshot	latest = NULL;
	Relation	rel;
	bool		is_found = false;

	if (nids == 0 || !jq_dependencies_exist())
		return false;
	rel = table_open(jq_catalog()->job_dependencies, AccessShareLock);
	if (IsolationUsesXactSnapshot())
		latest = RegisterSnapshot(GetLatestSnapshot());
	for (int i = 0; i < nids; i++)
	{
		int			visible = count_edges(rel, index, column, ids[i],
										  only_pending, GetActiveSnapshot(),
										  latest == NULL);

		if (latest != NULL &&
			visible != count_edges(rel, index, column, ids[i], only_pending,
								   latest, false))
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to concurrent changes of what waits for job " INT64_FORMAT,
							ids[i]),
					 errhint("The transaction might succeed if retried.")));
		is_found |= visible > 0;
		if (is_found && latest == NULL)
			break;
	}
	if (latest != NULL)
		UnregisterSnapshot(latest);
	table_close(rel, AccessShareLock);
	return is_found;
}

static int
count_edges(Relation rel, Oid index, int column, int64 id, bool only_pending,
			Snapshot snapshot, bool only_first)
{
	int			count = 0;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	edge;

	ScanKeyInit(&key, column, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(id));
	scan = systable_beginscan(rel, index, OidIsValid(index), snapshot, 1, &key);
	while (!(only_first && count > 0) &&
		   HeapTupleIsValid(edge = systable_getnext(scan)))
		if (!only_pending ||
			heap_attisnull(edge, JQ_DEPENDENCY_STATUS, RelationGetDescr(rel)))
			count++;
	systable_endscan(scan);
	return count;
}
