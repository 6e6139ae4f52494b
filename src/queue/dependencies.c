/*-------------------------------------------------------------------------
 *
 * dependencies.c
 *	  Jobs that wait for other jobs.
 *
 * A parent and its child meet on the parent's row.  Enqueueing the child
 * locks it; completing the parent deletes it.  Whoever comes second waits for
 * the other's end and then sees what it did: either the child finds the
 * parent completed, or the parent finds the child waiting.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "base/catalog.h"
#include "base/scope.h"
#include "base/statement.h"
#include "queue/dependencies.h"

static JqStatement lock_parent = {
	.text = "SELECT 1 FROM @.jobs_queue_live WHERE id = $1 FOR SHARE",
	.nargs = 1,
	.argtypes = {INT8OID}
};

/* A completed job that was not kept has left its run. */
static JqStatement find_ended_parent = {
	.text = "SELECT status FROM @.jobs_queue_done WHERE id = $1"
	" UNION ALL"
	" SELECT status FROM @.job_runs"
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

/* In the order of ids, so that two parents never lock children crosswise. */
static JqStatement lock_children = {
	.text = "SELECT q.id FROM @.jobs_queue_live q WHERE q.id IN"
	" (SELECT d.job_id FROM @.job_dependencies d WHERE d.depends_on = $1)"
	" ORDER BY q.id FOR UPDATE",
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

/* An ended parent without success keeps its children waiting. */
static bool
parent_is_pending(int64 id)
{
	Datum		values[1] = {Int64GetDatum(id)};
	char	   *status;

	if (jq_statement_execute(&lock_parent, values, NULL, 1) > 0)
		return true;
	jq_scope_refresh();
	if (jq_statement_query(&find_ended_parent, values, NULL, 1) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("job " INT64_FORMAT " in depends_on does not exist", id)));
	status = TextDatumGetCString(jq_statement_value(0, 1));
	return strcmp(status, "completed") != 0;
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

	if (!has_dependencies())
		return;
	jq_scope_refresh();
	if (jq_statement_execute(&lock_children, values, NULL, 0) > 0)
		jq_statement_execute(&release_children, values, NULL, 0);
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
