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

/*
 * The locks of REPEATABLE READ and SERIALIZABLE callers.  Others must not get
 * their 40001 where an operator's UPDATE moves the parent meanwhile.
 */
static JqStatement lock_live_parent = {
	.text = "SELECT status FROM @.jobs_queue_live WHERE id = $1 FOR SHARE",
	.nargs = 1,
	.argtypes = {INT8OID}
};

static JqStatement lock_done_parent = {
	.text = "SELECT status FROM @.jobs_queue_done WHERE id = $1 FOR SHARE",
	.nargs = 1,
	.argtypes = {INT8OID}
};

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

static JqStatement select_children = {
	.text = "SELECT job_id FROM @.job_dependencies WHERE depends_on = $1"
	" ORDER BY job_id",
	.nargs = 1,
	.argtypes = {INT8OID}
};

static JqStatement release_children = {
	.text = "WITH gone AS (DELETE FROM @.job_dependencies"
	" WHERE depends_on = $1 RETURNING job_id)"
	" UPDATE @.jobs_queue_live q"
	" SET waiting_for = greatest(q.waiting_for - 1, 0),"
	" status = CASE WHEN q.status = 'blocked' AND q.waiting_for <= 1"
	" THEN 'queued' ELSE q.status END, updated_at = clock_timestamp()"
	" FROM gone WHERE q.id = gone.job_id",
	.nargs = 1,
	.argtypes = {INT8OID}
};

static bool parent_is_pending(int64 id);
static bool lock_parent(bool is_live, int64 id, bool *is_completed);
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
	Datum		values[1] = {Int64GetDatum(id)};
	Datum		status;
	JqTable		leaf;
	TupleTableSlot *key;
	TupleTableSlot *row;
	bool		isnull;
	bool		is_found;

	if (IsolationUsesXactSnapshot())
	{
		if (jq_statement_execute(is_live ? &lock_live_parent :
								 &lock_done_parent, values, NULL, 1) == 0)
			return false;
		status = jq_statement_value(0, 1);
		*is_completed = strcmp(TextDatumGetCString(status), "completed") == 0;
		return true;
	}

	jq_table_open(&leaf, is_live ? catalog->jobs_queue_live :
				  catalog->jobs_queue_done);
	row = jq_table_slot(&leaf);
	key = jq_table_new_row(&leaf);
	ExecStoreAllNullTuple(key);
	jq_job_set(key, JQ_JOB_ID, values[0]);
	is_found = RelationFindReplTupleByIndex(leaf.rel, is_live ?
											catalog->jobs_queue_live_pkey :
											catalog->jobs_queue_done_pkey,
											LockTupleShare, key, row);
	if (is_found)
	{
		status = slot_getattr(row, JQ_JOB_STATUS, &isnull);
		*is_completed = strcmp(TextDatumGetCString(status), "completed") == 0;
	}
	jq_table_close(&leaf);
	return is_found;
}

void
jq_dependencies_add(int64 job_id, const int64 *depends_on, int count)
{
	Datum	   *elements = palloc(sizeof(Datum) * count);
	Datum		values[2];

	for (int i = 0; i < count; i++)
		elements[i] = Int64GetDatum(depends_on[i]);
	values[0] = Int64GetDatum(job_id);
	values[1] = PointerGetDatum(construct_array(elements, count, INT8OID,
												sizeof(int64), FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	jq_statement_execute(&add_dependency, values, NULL, 0);
}

void
jq_dependencies_release(int64 id)
{
	Datum		values[1] = {Int64GetDatum(id)};
	uint64		rows;
	int64	   *children;

	if (!has_dependencies())
		return;
	jq_scope_refresh();
	rows = jq_statement_query(&select_children, values, NULL, 0);
	if (rows == 0)
		return;
	children = palloc(sizeof(int64) * rows);
	for (uint64 i = 0; i < rows; i++)
		children[i] = DatumGetInt64(jq_statement_value(i, 1));
	lock_children(children, (int) rows);
	jq_statement_execute(&release_children, values, NULL, 0);
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
								   ids[i], row);
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
