/*-------------------------------------------------------------------------
 *
 * dependencies.c
 *	  Jobs that wait for other jobs.
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
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

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

static JqStatement add_dependency = {
	.text = "INSERT INTO @.job_dependencies (job_id, depends_on)"
	" SELECT $1, unnest($2)",
	.nargs = 2,
	.argtypes = {INT8OID, INT8ARRAYOID}
};

static JqStatement forget_dependencies = {
	.text = "DELETE FROM @.job_dependencies WHERE job_id = $1",
	.nargs = 1,
	.argtypes = {INT8OID}
};

static JqStatement forget_many = {
	.text = "DELETE FROM @.job_dependencies WHERE job_id = ANY ($1)",
	.nargs = 1,
	.argtypes = {INT8ARRAYOID}
};

static JqStatement select_edges = {
	.text = "SELECT depends_on, job_id FROM @.job_dependencies"
	" WHERE depends_on = ANY ($1) ORDER BY depends_on",
	.nargs = 1,
	.argtypes = {INT8ARRAYOID}
};

static JqStatement forget_edges = {
	.text = "DELETE FROM @.job_dependencies WHERE depends_on = ANY ($1)",
	.nargs = 1,
	.argtypes = {INT8ARRAYOID}
};

static JqStatement select_children = {
	.text = "SELECT DISTINCT job_id FROM @.job_dependencies"
	" WHERE depends_on = ANY ($1) ORDER BY job_id",
	.nargs = 1,
	.argtypes = {INT8ARRAYOID}
};

static JqStatement release_children = {
	.text = "WITH gone AS (DELETE FROM @.job_dependencies"
	" WHERE depends_on = ANY ($1) RETURNING job_id),"
	" released AS (SELECT job_id, count(*)::pg_catalog.int4 AS n FROM gone"
	" GROUP BY job_id)"
	" UPDATE @.jobs_queue_live q"
	" SET waiting_for = greatest(q.waiting_for - r.n, 0),"
	" status = CASE WHEN q.status = 'blocked' AND q.waiting_for <= r.n"
	" THEN 'queued' ELSE q.status END, updated_at = clock_timestamp()"
	" FROM released r WHERE q.id = r.job_id",
	.nargs = 1,
	.argtypes = {INT8ARRAYOID}
};

static JqStatement forget_orphans = {
	.text = "WITH gone AS (DELETE FROM @.job_dependencies d"
	" WHERE NOT EXISTS (SELECT FROM @.jobs_queue q WHERE q.id = d.depends_on)"
	" RETURNING d.job_id)"
	" SELECT DISTINCT job_id FROM gone ORDER BY job_id",
};

static bool parent_is_pending(int64 id);
static bool lock_parent(bool is_live, int64 id, bool *is_completed);
static int64 *awaited_parents(uint64 rows, int *count);
static int	compare_ids(const void *a, const void *b);
static Datum bigint_array(const int64 *ids, int count);
static int64 *read_ids(uint64 rows, MemoryContext context);
static void lock_children(const int64 *ids, int nids);
static bool has_dependencies(void);

int
jq_dependencies_pending(int64 *ids, int nids)
{
	int			pending = 0;

	for (int i = 0; i < nids; i++)
		if (parent_is_pending(ids[i]))
			ids[pending++] = ids[i];
	return pending;
}

/*
 * An ended parent without success keeps its children waiting: it is locked
 * too, because it may be about to complete after all.
 */
static bool
parent_is_pending(int64 id)
{
	Datum		values[1] = {Int64GetDatum(id)};
	bool		is_completed;

	/* A second look finds what was requeued between the two of the first. */
	for (int i = 0; i < 2; i++)
	{
		if (lock_parent(true, id, &is_completed))
			return true;
		if (lock_parent(false, id, &is_completed))
			return !is_completed;
	}
	jq_scope_refresh();
	if (jq_statement_query(&find_completed_run, values, NULL, 1) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("job " INT64_FORMAT " in depends_on does not exist", id)));
	return false;
}

/* Keeps a parent in its status and leaf; false when it is not in this one. */
static bool
lock_parent(bool is_live, int64 id, bool *is_completed)
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
		*is_completed = parent.status == JQ_STATUS_COMPLETED;
	}
	jq_table_close(&leaf);
	return is_found;
}

void
jq_dependencies_add(int64 job_id, const int64 *depends_on, int count)
{
	Datum		values[2] = {Int64GetDatum(job_id), bigint_array(depends_on, count)};

	jq_statement_execute(&add_dependency, values, NULL, 0);
}

void
jq_dependencies_forget(int64 job_id)
{
	Datum		values[1] = {Int64GetDatum(job_id)};

	if (has_dependencies())
		jq_statement_execute(&forget_dependencies, values, NULL, 0);
}

int
jq_dependencies_unawaited(int64 *ids, int nids)
{
	Datum		values[1];
	int64	   *awaited;
	int			nawaited;
	int			count = 0;

	if (nids == 0 || !has_dependencies())
		return nids;
	values[0] = bigint_array(ids, nids);
	jq_scope_refresh();
	awaited = awaited_parents(jq_statement_query(&select_edges, values,
												 NULL, 0), &nawaited);
	for (int i = 0; i < nids; i++)
		if (bsearch(&ids[i], awaited, nawaited, sizeof(int64),
					compare_ids) == NULL)
			ids[count++] = ids[i];
	values[0] = bigint_array(ids, count);
	jq_statement_execute(&forget_edges, values, NULL, 0);
	return count;
}

/* Of the edges in the result, those parents whose children are blocked. */
static int64 *
awaited_parents(uint64 rows, int *count)
{
	const JqCatalog *catalog = jq_catalog();
	int64	   *parents = palloc(sizeof(int64) * Max(rows, 1));
	JqTable		live;
	TupleTableSlot *row;
	JqJob		child;

	*count = 0;
	jq_table_open(&live, catalog->jobs_queue_live);
	row = jq_table_slot(&live);
	for (uint64 i = 0; i < rows; i++)
	{
		if (!jq_table_find_by_id(&live, catalog->jobs_queue_live_pkey,
								 DatumGetInt64(jq_statement_value(i, 2)), row))
			continue;
		jq_job_read(row, &child);
		if (child.status == JQ_STATUS_BLOCKED)
			parents[(*count)++] = DatumGetInt64(jq_statement_value(i, 1));
	}
	jq_table_close(&live);
	return parents;
}

static int
compare_ids(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return left < right ? -1 : left > right ? 1 : 0;
}

void
jq_dependencies_forget_many(const int64 *ids, int nids)
{
	Datum		values[1] = {bigint_array(ids, nids)};

	if (has_dependencies())
		jq_statement_execute(&forget_many, values, NULL, 0);
}

static Datum
bigint_array(const int64 *ids, int count)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		elements[i] = Int64GetDatum(ids[i]);
	return PointerGetDatum(construct_array(elements, count, INT8OID,
										   sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

/* The bigints in the first column of the result, in "context". */
static int64 *
read_ids(uint64 rows, MemoryContext context)
{
	int64	   *ids = MemoryContextAlloc(context, sizeof(int64) * Max(rows, 1));

	for (uint64 i = 0; i < rows; i++)
		ids[i] = DatumGetInt64(jq_statement_value(i, 1));
	return ids;
}

void
jq_dependencies_release(const int64 *ids, int nids)
{
	Datum		values[1];
	uint64		rows;

	if (nids == 0 || !has_dependencies())
		return;
	values[0] = bigint_array(ids, nids);
	jq_scope_refresh();
	rows = jq_statement_query(&select_children, values, NULL, 0);
	if (rows == 0)
		return;
	lock_children(read_ids(rows, CurrentMemoryContext), (int) rows);
	jq_statement_execute(&release_children, values, NULL, 0);
}

int64 *
jq_dependencies_orphans(int *count)
{
	int64	   *ids;

	*count = 0;
	if (!has_dependencies())
		return NULL;
	jq_scope_enter(JQ_WRITE_ENGINE);
	*count = (int) jq_statement_execute(&forget_orphans, NULL, NULL, 0);
	ids = read_ids(*count, jq_scope_result_context());
	jq_scope_leave();
	return ids;
}

/*
 * In the order of ids, so that two parents never lock children crosswise.
 * A child that has ended meanwhile is passed over.
 */
static void
lock_children(const int64 *ids, int nids)
{
	const JqCatalog *catalog = jq_catalog();
	JqTable		live;
	TupleTableSlot *row;

	jq_table_open(&live, catalog->jobs_queue_live);
	row = jq_table_slot(&live);
	for (int i = 0; i < nids; i++)
	{
		CHECK_FOR_INTERRUPTS();
		(void) jq_table_lock_by_id(&live, catalog->jobs_queue_live_pkey,
								   ids[i], LockTupleExclusive, row);
	}
	jq_table_close(&live);
}

/* Most queues have none: an empty table needs no look. */
static bool
has_dependencies(void)
{
	Relation	rel = table_open(jq_catalog()->job_dependencies,
								 AccessShareLock);
	bool		found = RelationGetNumberOfBlocks(rel) > 0;

	table_close(rel, AccessShareLock);
	return found;
}
