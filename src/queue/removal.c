/*-------------------------------------------------------------------------
 *
 * removal.c
 *	  Deleting what is over, many rows at once: ended jobs, and old runs.
 *
 * Jobs are locked first, then it is looked for others that wait for them, and
 * then they are deleted.  Who enqueues a child locks its parent: either the
 * child is seen here, or it finds the parent gone.  A row that is being
 * requeued, completed after all or updated is locked by somebody else, and
 * passed over; whoever comes second finds no row, or the new one, and looks
 * at that.
 *
 * Single rows are looked up by their key and not through the planner, who
 * may have seen these tables when they were empty.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/itemptr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/scope.h"
#include "base/statement.h"
#include "base/table.h"
#include "queue/dependencies.h"
#include "queue/dependents.h"
#include "queue/job.h"
#include "queue/removal.h"
#include "queue/resolve.h"
#include "queue/unique.h"

static JqStatement select_aged = {
	.text = "SELECT d.id, d.finished_at FROM @.jobs_queue_done d"
	" WHERE d.job_type = $1 AND d.status = $2"
	" AND d.finished_at >= $3 AND d.finished_at <= $4"
	" AND (d.finished_at < $4 OR d.id <= $5)"
	" ORDER BY d.finished_at LIMIT $6 FOR UPDATE SKIP LOCKED",
	.nargs = 6,
	.argtypes = {TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID,
	INT8OID}
};

static JqStatement select_purged = {
	.text = "SELECT d.id FROM @.jobs_queue_done d"
	" WHERE d.status = ANY ($2) AND ($1 IS NULL OR d.job_type = $1)"
	" AND ($3 IS NULL OR d.stage = $3)"
	" AND ($4 IS NULL OR d.last_error LIKE $4)"
	" AND ($5 IS NULL OR d.finished_at < $5)"
	" ORDER BY d.finished_at, d.id LIMIT $6 FOR UPDATE SKIP LOCKED",
	.nargs = 6,
	.argtypes = {TEXTOID, TEXTARRAYOID, TEXTOID, TEXTOID, TIMESTAMPTZOID,
	INT8OID}
};

static JqStatement delete_jobs = {
	.text = "DELETE FROM @.jobs_queue_done WHERE id = ANY ($1)",
	.nargs = 1,
	.argtypes = {INT8ARRAYOID}
};

static JqStatement select_aged_runs = {
	.text = "SELECT r.ctid, r.job_id, r.claim_no FROM @.job_runs r"
	" LEFT JOIN @.job_types t ON t.job_type = r.job_type"
	" WHERE r.ctid >= $1 AND r.ctid < $2 AND r.finished_at < $3"
	" - least(coalesce(t.keep_runs, $4), '36600 days')",
	.nargs = 4,
	.argtypes = {TIDOID, TIDOID, TIMESTAMPTZOID, INTERVALOID}
};

static JqStatement delete_logs = {
	.text = "DELETE FROM @.job_logs WHERE job_id = $1 AND claim_no = $2",
	.nargs = 2,
	.argtypes = {INT8OID, INT4OID}
};

/* Jobs to be deleted, in the scope's memory. */
typedef struct Doomed
{
	int64	   *ids;
	int			count;
} Doomed;

/* What is needed to judge runs. */
typedef struct RunPruning
{
	JqTable		runs;
	JqTable		live;
	JqTable		done;
	TupleTableSlot *run;
	TupleTableSlot *live_job;
	TupleTableSlot *done_job;
} RunPruning;

static void read_doomed(Doomed *doomed, uint64 rows);
static int64 delete_doomed(const Doomed *doomed);
static void settle_dependents(const Doomed *doomed);
static void open_runs(RunPruning *pruning);
static void close_runs(RunPruning *pruning);
static bool is_needed(RunPruning *pruning, int64 job_id);

int64
jq_removal_prune(JqPruning *pruning, int max_jobs)
{
	TimestampTz from = pruning->from;
	int64		deleted;
	Doomed		doomed;
	uint64		rows;
	Datum		values[6] = {
		CStringGetTextDatum(pruning->job_type),
		CStringGetTextDatum(pruning->status),
		TimestampTzGetDatum(pruning->from),
		TimestampTzGetDatum(pruning->until),
		Int64GetDatum(pruning->until_id),
		Int64GetDatum(max_jobs)
	};

	jq_scope_enter(JQ_WRITE_ENGINE);
	jq_scope_prefer_indexes();
	rows = jq_statement_execute(&select_aged, values, NULL, 0);
	if (rows > 0)
		pruning->from = DatumGetTimestampTz(jq_statement_value(rows - 1, 2));
	read_doomed(&doomed, rows);
	doomed.count = jq_dependencies_unawaited(doomed.ids, doomed.count);
	deleted = delete_doomed(&doomed);
	jq_scope_leave();
	pruning->is_done = rows < (uint64) max_jobs ||
		(deleted == 0 && pruning->from == from);
	return deleted;
}

int64
jq_removal_purge(JqPurge *purge)
{
	Doomed		doomed;
	int64		deleted;

	jq_scope_enter(JQ_WRITE_ENGINE);
	read_doomed(&doomed, jq_statement_execute(&select_purged, purge->values,
											  purge->nulls, 0));
	deleted = delete_doomed(&doomed);
	if (deleted > 0)
	{
		jq_unique_forget(doomed.ids, doomed.count);
		settle_dependents(&doomed);
	}
	jq_scope_leave();
	return deleted;
}

/* The ids in the first column of the result. */
static void
read_doomed(Doomed *doomed, uint64 rows)
{
	doomed->ids = MemoryContextAllocExtended(CurrentMemoryContext,
											 sizeof(int64) * Max(rows, 1),
											 MCXT_ALLOC_HUGE);
	doomed->count = (int) rows;
	for (uint64 i = 0; i < rows; i++)
		doomed->ids[i] = DatumGetInt64(jq_statement_value(i, 1));
}

/* Locked jobs, and what other tables say of them: their place is here. */
static int64
delete_doomed(const Doomed *doomed)
{
	Datum		values[1];
	Datum	   *ids;
	int64		deleted;

	if (doomed->count == 0)
		return 0;
	ids = palloc(sizeof(Datum) * doomed->count);
	for (int i = 0; i < doomed->count; i++)
		ids[i] = Int64GetDatum(doomed->ids[i]);
	values[0] = PointerGetDatum(construct_array(ids, doomed->count, INT8OID,
												sizeof(int64),
												FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	deleted = (int64) jq_statement_execute(&delete_jobs, values, NULL, 0);
	jq_dependencies_prune(doomed->ids, doomed->count);
	return deleted;
}

/* Who waits for a job that was purged is cancelled, as after a DELETE. */
static void
settle_dependents(const Doomed *doomed)
{
	JqEndedJobs ended = {
		.failed = doomed->ids,
		.nfailed = doomed->count,
		.are_deleted = true
	};

	if (jq_dependencies_exist())
		jq_dependents_settle(&ended);
}

int64
jq_removal_prune_runs(BlockNumber from, BlockNumber until, int64 keep_us)
{
	ItemPointerData first;
	ItemPointerData end;
	Interval	keep = {.time = keep_us};
	Datum		values[4] = {
		PointerGetDatum(&first),
		PointerGetDatum(&end),
		TimestampTzGetDatum(GetCurrentTimestamp()),
		IntervalPGetDatum(&keep)
	};
	SPITupleTable *aged;
	RunPruning	pruning;
	int64		deleted = 0;
	uint64		rows;

	ItemPointerSet(&first, from, 0);
	ItemPointerSet(&end, until, 0);
	jq_scope_enter(JQ_WRITE_ENGINE);
	jq_scope_prefer_indexes();
	rows = jq_statement_query(&select_aged_runs, values,
							  keep_us < 0 ? "   n" : NULL, 0);
	aged = SPI_tuptable;
	if (rows > 0)
		open_runs(&pruning);
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;
		HeapTuple	row = aged->vals[i];
		Datum		tid = SPI_getbinval(row, aged->tupdesc, 1, &isnull);
		Datum		key[2] = {
			SPI_getbinval(row, aged->tupdesc, 2, &isnull),
			SPI_getbinval(row, aged->tupdesc, 3, &isnull)
		};

		CHECK_FOR_INTERRUPTS();
		if (is_needed(&pruning, DatumGetInt64(key[0])) ||
			!jq_table_try_lock(&pruning.runs,
							   (ItemPointer) DatumGetPointer(tid),
							   pruning.run) ||
			!jq_table_delete(&pruning.runs, pruning.run))
			continue;
		jq_statement_execute(&delete_logs, key, NULL, 0);
		deleted++;
	}
	if (rows > 0)
		close_runs(&pruning);
	jq_scope_leave();
	return deleted;
}

static void
open_runs(RunPruning *pruning)
{
	const JqCatalog *catalog = jq_catalog();

	jq_table_open(&pruning->live, catalog->jobs_queue_live);
	jq_table_open(&pruning->done, catalog->jobs_queue_done);
	jq_table_open(&pruning->runs, catalog->job_runs);
	pruning->live_job = jq_table_slot(&pruning->live);
	pruning->done_job = jq_table_slot(&pruning->done);
	pruning->run = jq_table_slot(&pruning->runs);
}

static void
close_runs(RunPruning *pruning)
{
	jq_table_close(&pruning->runs);
	jq_table_close(&pruning->done);
	jq_table_close(&pruning->live);
}

/* Whether somebody may yet ask how this job came to be as it is. */
static bool
is_needed(RunPruning *pruning, int64 job_id)
{
	const JqCatalog *catalog = jq_catalog();
	JqJob		job;

	if (jq_table_find_by_id(&pruning->live, catalog->jobs_queue_live_pkey,
							job_id, pruning->live_job))
		return true;
	if (!jq_table_find_by_id(&pruning->done, catalog->jobs_queue_done_pkey,
							 job_id, pruning->done_job))
		return false;
	jq_job_read(pruning->done_job, &job);
	return job.status == JQ_STATUS_ERROR;
}

BlockNumber
jq_removal_run_pages(void)
{
	Relation	rel = table_open(jq_catalog()->job_runs, AccessShareLock);
	BlockNumber pages = RelationGetNumberOfBlocks(rel);

	table_close(rel, AccessShareLock);
	return pages;
}
