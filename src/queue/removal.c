/*-------------------------------------------------------------------------
 *
 * removal.c
 *	  Deleting jobs that have ended, many at once.
 *
 * A row that is being requeued, completed after all or updated by somebody is
 * locked, and passed over; whoever comes second finds no row, or the new one,
 * which is looked at again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/scope.h"
#include "base/statement.h"
#include "queue/dependencies.h"
#include "queue/removal.h"
#include "queue/resolve.h"

#define DELETE_OLD \
	" DELETE FROM @.jobs_queue_done d USING old WHERE d.id = old.id" \
	" RETURNING d.id, d.finished_at"

/*
 * The OFFSET keeps the planner from joining: the rows are read in the order
 * of the index, and few of them have children.
 */
static JqStatement prune_jobs = {
	.text = "WITH old AS MATERIALIZED (SELECT d.id FROM @.jobs_queue_done d"
	" WHERE d.job_type = $1 AND d.status = $2"
	" AND d.finished_at >= $3 AND d.finished_at <= $4"
	" AND (d.finished_at < $4 OR d.id <= $5)"
	" AND NOT EXISTS (SELECT FROM @.job_dependencies x"
	" JOIN @.jobs_queue_live c ON c.id = x.job_id AND c.status = 'blocked'"
	" WHERE x.depends_on = d.id OFFSET 0)"
	" ORDER BY d.finished_at LIMIT $6 FOR UPDATE OF d SKIP LOCKED)"
	DELETE_OLD,
	.nargs = 6,
	.argtypes = {TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID,
	INT8OID}
};

static JqStatement purge_jobs = {
	.text = "WITH old AS MATERIALIZED (SELECT d.id FROM @.jobs_queue_done d"
	" WHERE d.status = ANY ($2) AND ($1 IS NULL OR d.job_type = $1)"
	" AND ($3 IS NULL OR d.stage = $3)"
	" AND ($4 IS NULL OR d.last_error LIKE $4)"
	" AND ($5 IS NULL OR d.finished_at < $5)"
	" ORDER BY d.finished_at, d.id LIMIT $6 FOR UPDATE OF d SKIP LOCKED)"
	DELETE_OLD,
	.nargs = 6,
	.argtypes = {TEXTOID, TEXTARRAYOID, TEXTOID, TEXTOID, TIMESTAMPTZOID,
	INT8OID}
};

static void forget_jobs(uint64 rows);

int64
jq_removal_prune(JqPruning *pruning, int max_jobs)
{
	Datum		values[6] = {
		CStringGetTextDatum(pruning->job_type),
		CStringGetTextDatum(pruning->status),
		TimestampTzGetDatum(pruning->from),
		TimestampTzGetDatum(pruning->until),
		Int64GetDatum(pruning->until_id),
		Int64GetDatum(max_jobs)
	};
	uint64		rows;

	jq_scope_enter(JQ_WRITE_ENGINE);
	jq_scope_prefer_indexes();
	rows = jq_statement_execute(&prune_jobs, values, NULL, 0);
	for (uint64 i = 0; i < rows; i++)
		pruning->from = Max(pruning->from,
							DatumGetTimestampTz(jq_statement_value(i, 2)));
	forget_jobs(rows);
	jq_scope_leave();
	return (int64) rows;
}

int64
jq_removal_purge(JqPurge *purge)
{
	uint64		rows;

	jq_scope_enter(JQ_WRITE_ENGINE);
	rows = jq_statement_execute(&purge_jobs, purge->values, purge->nulls, 0);
	forget_jobs(rows);
	jq_scope_leave();
	return (int64) rows;
}

/*
 * What other tables know of the jobs that the last statement has deleted.
 * Somebody may have begun to wait for one of them just before it was locked.
 */
static void
forget_jobs(uint64 rows)
{
	int64	   *ids = palloc(sizeof(int64) * Max(rows, 1));

	if (rows == 0)
		return;
	for (uint64 i = 0; i < rows; i++)
		ids[i] = DatumGetInt64(jq_statement_value(i, 1));
	jq_scope_refresh();
	if (!jq_dependencies_forget_ended(ids, (int) rows))
		jq_resolve_cancel_orphans();
}
