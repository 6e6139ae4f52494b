/*-------------------------------------------------------------------------
 *
 * dependents.c
 *	  What the ends of jobs do to those that wait for them.
 *
 * A parent and its child meet on the parent's row.  Enqueueing the child
 * locks it; ending the parent deletes or updates it.  Whoever comes second
 * waits for the other's end and then sees what it did: either the child finds
 * the parent ended, or the parent finds the child waiting.
 *
 * So once the ended jobs are written, their children are known: one statement
 * finds them, and where some will be cancelled also the children of these, to
 * the end.  All are locked, in the order of their ids; then the edges are read
 * again, and who is freed and who is cancelled is decided in memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "lib/qunique.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/scope.h"
#include "base/statement.h"
#include "base/table.h"
#include "queue/dependencies.h"
#include "queue/dependents.h"
#include "queue/event_log.h"
#include "queue/job.h"

/* So many children are written before memory is given back. */
#define WRITE_CHUNK 1000

/* A pending edge that the end of its parent decides. */
typedef struct Edge
{
	int64		job_id;
	int64		parent;
	bool		runs;			/* on_failure is "run" */
	const char *parent_status;	/* NULL: it has not ended yet, or is gone */
} Edge;

/* A job that waits, and what becomes of it. */
typedef struct Child
{
	int64		id;
	bool		is_blocked;
	int			freed;			/* of so many parents */
	bool		is_cancelled;
	const char *reason;			/* if it is */
} Child;

/* The work of one call. */
typedef struct Settlement
{
	const JqEndedJobs *ended;
	Child	   *children;		/* in the order of their ids */
	int			nchildren;
	Edge	   *edges;			/* of failed parents, in the order of parents */
	int			nedges;
	int64	   *ends;			/* failed jobs, and the children cancelled */
	int			nends;
} Settlement;

static JqStatement select_children = {
	.text = "SELECT DISTINCT job_id FROM @.job_dependencies"
	" WHERE depends_on = ANY ($1) AND status IS NULL ORDER BY job_id",
	.nargs = 1,
	.argtypes = {INT8ARRAYOID}
};

/*
 * What the ends of the jobs $1 may decide: $2 says that they are deleted,
 * which cancels those with "block", too.  OFFSET 0 keeps the planner from
 * reading the whole table in each round.
 */
static JqStatement select_edges = {
	.text = "WITH RECURSIVE reached AS ("
	"SELECT d.job_id, d.depends_on, d.on_failure FROM @.job_dependencies d"
	" WHERE d.depends_on = ANY ($1) AND d.status IS NULL"
	" AND (d.on_failure <> 'block' OR $2)"
	" UNION SELECT d.* FROM reached r CROSS JOIN LATERAL ("
	"SELECT d.job_id, d.depends_on, d.on_failure FROM @.job_dependencies d"
	" WHERE d.depends_on = r.job_id AND d.status IS NULL"
	" AND d.on_failure <> 'block' AND r.on_failure <> 'run' OFFSET 0) d)"
	" SELECT r.job_id, r.depends_on, r.on_failure = 'run',"
	" (SELECT q.status FROM @.jobs_queue_done q WHERE q.id = r.depends_on)"
	" FROM reached r ORDER BY r.depends_on, r.job_id",
	.nargs = 2,
	.argtypes = {INT8ARRAYOID, BOOLOID}
};

/* The result is copied: the parent may be gone before the child runs. */
static JqStatement mark_completed = {
	.text = "UPDATE @.job_dependencies d SET status = 'completed',"
	" (ended_at, job_type, result) = (" JQ_LEFT_BY("d.depends_on",
												   "d.shares_result") ")"
	" WHERE d.depends_on = ANY ($1) AND d.status IS NULL"
	" RETURNING d.job_id",
	.nargs = 1,
	.argtypes = {INT8ARRAYOID}
};

/* What is gone has been cancelled, as far as its children know. */
static JqStatement mark_failed = {
	.text = "UPDATE @.job_dependencies d SET (status, ended_at, job_type) ="
	" (SELECT coalesce(max(q.status), 'cancelled'),"
	" coalesce(max(q.finished_at), clock_timestamp()), max(q.job_type)"
	" FROM @.jobs_queue_done q WHERE q.id = d.depends_on)"
	" WHERE d.depends_on = ANY ($1) AND d.status IS NULL"
	" AND (d.on_failure <> 'block' OR $2)",
	.nargs = 2,
	.argtypes = {INT8ARRAYOID, BOOLOID}
};

static JqStatement forget_of_cancelled = {
	.text = "DELETE FROM @.job_dependencies"
	" WHERE job_id = ANY ($1) AND status IS NULL",
	.nargs = 1,
	.argtypes = {INT8ARRAYOID}
};

static JqStatement select_truncated = {
	.text = "SELECT DISTINCT d.depends_on FROM @.job_dependencies d"
	" WHERE d.status IS NULL AND NOT EXISTS"
	" (SELECT FROM @.jobs_queue q WHERE q.id = d.depends_on)"
};

static void find_children(Settlement *work);
static void read_edges(Settlement *work);
static void add_child(Settlement *work, int64 id, int *room);
static void lock_children(Settlement *work);
static bool has_all_children(Settlement *work);
static Child *find_child(const Settlement *work, int64 id);
static void free_children(Settlement *work);
static void decide(Settlement *work);
static void decide_edge(Settlement *work, const Edge *edge, bool is_first);
static void write_children(Settlement *work);
static void write_child(JqTable *live, JqTable *done, TupleTableSlot *row,
						const Child *child);
static void mark_edges(const Settlement *work);
static int	compare_children(const void *a, const void *b);

void
jq_dependents_settle(const JqEndedJobs *ended)
{
	Settlement	work = {.ended = ended};

	if ((ended->ncompleted == 0 && ended->nfailed == 0) ||
		!jq_dependencies_exist())
		return;
	jq_scope_refresh();
	if (jq_dependencies_has_children(ended->completed, ended->ncompleted) ||
		jq_dependencies_has_children(ended->failed, ended->nfailed))
	{
		jq_scope_enter(JQ_WRITE_ENGINE);
		jq_scope_prefer_indexes();
		find_children(&work);
		lock_children(&work);
		if (ended->ncompleted > 0)
			free_children(&work);
		if (ended->nfailed > 0)
			decide(&work);
		write_children(&work);
		mark_edges(&work);
		jq_scope_leave();
		jq_scope_refresh();
	}
	jq_dependencies_prune(ended->completed, ended->ncompleted);
}

void
jq_dependents_settle_completed(int64 job_id)
{
	JqEndedJobs ended = {.completed = &job_id,.ncompleted = 1};

	jq_dependents_settle(&ended);
}

void
jq_dependents_settle_failed(int64 job_id)
{
	JqEndedJobs ended = {.failed = &job_id,.nfailed = 1};

	jq_dependents_settle(&ended);
}

void
jq_dependents_settle_truncated(void)
{
	JqEndedJobs ended = {.are_deleted = true};
	int64	   *ids;

	if (!jq_dependencies_exist())
		return;
	ended.nfailed = (int) jq_statement_execute(&select_truncated, NULL, NULL, 0);
	ids = palloc(sizeof(int64) * Max(ended.nfailed, 1));
	for (int i = 0; i < ended.nfailed; i++)
		ids[i] = DatumGetInt64(jq_statement_value(i, 1));
	ended.failed = ids;
	jq_dependents_settle(&ended);
	jq_dependencies_prune_all();
}

/* Everybody who may be changed, whatever the locked rows will say. */
static void
find_children(Settlement *work)
{
	const JqEndedJobs *ended = work->ended;
	int			room = 0;

	work->nchildren = 0;
	if (ended->ncompleted > 0)
	{
		Datum		values[1] = {jq_dependencies_array(ended->completed,
													   ended->ncompleted)};
		int			rows = (int) jq_statement_execute(&select_children, values,
													  NULL, 0);

		for (int i = 0; i < rows; i++)
			add_child(work, DatumGetInt64(jq_statement_value(i, 1)), &room);
	}
	if (ended->nfailed > 0)
	{
		read_edges(work);
		for (int i = 0; i < work->nedges; i++)
			add_child(work, work->edges[i].job_id, &room);
	}
	qsort(work->children, work->nchildren, sizeof(Child), compare_children);
	work->nchildren = (int) qunique(work->children, work->nchildren,
									sizeof(Child), compare_children);
}

static void
add_child(Settlement *work, int64 id, int *room)
{
	Child		child = {.id = id};

	if (work->nchildren == *room)
	{
		*room = Max(2 * *room, 64);
		work->children = work->children == NULL ?
			palloc_extended(sizeof(Child) * *room, MCXT_ALLOC_HUGE) :
			repalloc_huge(work->children, sizeof(Child) * *room);
	}
	work->children[work->nchildren++] = child;
}

static void
read_edges(Settlement *work)
{
	Datum		values[2] = {
		jq_dependencies_array(work->ended->failed, work->ended->nfailed),
		BoolGetDatum(work->ended->are_deleted)
	};

	work->nedges = (int) jq_statement_execute(&select_edges, values, NULL, 0);
	work->edges = palloc_extended(sizeof(Edge) * Max(work->nedges, 1),
								  MCXT_ALLOC_HUGE);
	for (int i = 0; i < work->nedges; i++)
	{
		Edge	   *edge = &work->edges[i];
		bool		isnull;
		Datum		status = jq_statement_nullable(i, 4, &isnull);

		edge->job_id = DatumGetInt64(jq_statement_value(i, 1));
		edge->parent = DatumGetInt64(jq_statement_value(i, 2));
		edge->runs = DatumGetBool(jq_statement_value(i, 3));
		edge->parent_status = isnull ? NULL : TextDatumGetCString(status);
	}
}

/*
 * In the order of ids, so that two calls never lock children crosswise.  Edges
 * may have come and gone while it waited: it looks again, and locks those who
 * are new, too.  These may be out of order, and two such calls may deadlock.
 */
static void
lock_children(Settlement *work)
{
	const JqCatalog *catalog = jq_catalog();
	JqTable		live;
	TupleTableSlot *row;

	do
	{
		jq_scope_refresh();
		jq_table_open(&live, catalog->jobs_queue_live);
		row = jq_table_slot(&live);
		for (int i = 0; i < work->nchildren; i++)
		{
			Child	   *child = &work->children[i];

			CHECK_FOR_INTERRUPTS();
			child->is_blocked =
				jq_table_lock_by_id(&live, catalog->jobs_queue_live_pkey,
									child->id, LockTupleExclusive, row);
			if (child->is_blocked)
			{
				JqJob		job;

				jq_job_read(row, &job);
				child->is_blocked = job.status == JQ_STATUS_BLOCKED;
			}
		}
		jq_table_close(&live);
	} while (!has_all_children(work));
}

/* Whether the edges, read again, lead to nobody who is not locked. */
static bool
has_all_children(Settlement *work)
{
	Child	   *children = work->children;
	int			nchildren = work->nchildren;
	bool		is_complete = true;

	if (work->ended->nfailed == 0)
		return true;			/* nobody can have come to wait for them */
	work->children = NULL;
	find_children(work);
	for (int i = 0; i < work->nchildren && is_complete; i++)
	{
		Child	   *known = bsearch(&work->children[i], children, nchildren,
									sizeof(Child), compare_children);

		if (known == NULL)
			is_complete = false;
		else
			work->children[i].is_blocked = known->is_blocked;
	}
	return is_complete;
}

static int
compare_children(const void *a, const void *b)
{
	int64		left = ((const Child *) a)->id;
	int64		right = ((const Child *) b)->id;

	return left < right ? -1 : left > right ? 1 : 0;
}

/* NULL: nobody has locked it, because it has waited for nobody here. */
static Child *
find_child(const Settlement *work, int64 id)
{
	Child		key = {.id = id};

	return work->nchildren == 0 ? NULL :
		bsearch(&key, work->children, work->nchildren, sizeof(Child),
				compare_children);
}

/* Those of completed parents, whose edges are marked. */
static void
free_children(Settlement *work)
{
	const JqEndedJobs *ended = work->ended;
	Datum		values[1] = {jq_dependencies_array(ended->completed,
												   ended->ncompleted)};
	int			rows = (int) jq_statement_execute(&mark_completed, values, NULL, 0);

	for (int i = 0; i < rows; i++)
	{
		Child	   *child = find_child(work,
									   DatumGetInt64(jq_statement_value(i, 1)));

		if (child != NULL)
			child->freed++;
	}
}

/*
 * From parents to children, whose ends are looked at in their turn: no
 * recursion, however long the chain.
 */
static void
decide(Settlement *work)
{
	int			nfailed = work->ended->nfailed;

	work->ends = palloc_extended(sizeof(int64) * (nfailed + work->nchildren),
								 MCXT_ALLOC_HUGE);
	memcpy(work->ends, work->ended->failed, sizeof(int64) * nfailed);
	work->nends = nfailed;
	for (int i = 0; i < work->nends; i++)
	{
		int			low = 0;
		int			high = work->nedges;

		while (low < high)
		{
			int			middle = low + (high - low) / 2;

			if (work->edges[middle].parent < work->ends[i])
				low = middle + 1;
			else
				high = middle;
		}
		for (; low < work->nedges && work->edges[low].parent == work->ends[i];
			 low++)
			decide_edge(work, &work->edges[low], i < nfailed);
	}
}

/* is_first: the parent is one of the jobs that ended, not one cancelled here. */
static void
decide_edge(Settlement *work, const Edge *edge, bool is_first)
{
	Child	   *child = find_child(work, edge->job_id);

	if (child == NULL)
		return;
	if (edge->runs)
	{
		child->freed++;
		return;
	}
	if (!child->is_blocked || child->is_cancelled)
		return;
	child->is_cancelled = true;
	if (is_first && work->ended->are_deleted)
		child->reason = "a job that it waited for was deleted";
	else if (is_first && edge->parent_status != NULL &&
			 jq_job_status(edge->parent_status) != JQ_STATUS_CANCELLED)
		child->reason = psprintf("parent job " INT64_FORMAT " failed",
								 edge->parent);
	else
		child->reason = psprintf("parent job " INT64_FORMAT " was cancelled",
								 edge->parent);
	work->ends[work->nends++] = child->id;
}

static void
write_children(Settlement *work)
{
	const JqCatalog *catalog = jq_catalog();
	MemoryContext context = CurrentMemoryContext;
	MemoryContext chunk = AllocSetContextCreate(context, "jobqueue children",
												ALLOCSET_DEFAULT_SIZES);

	jq_scope_refresh();
	for (int i = 0; i < work->nchildren;)
	{
		JqTable		live;
		JqTable		done;
		TupleTableSlot *row;

		MemoryContextSwitchTo(chunk);
		jq_table_open(&live, catalog->jobs_queue_live);
		jq_table_open(&done, catalog->jobs_queue_done);
		row = jq_table_slot(&live);
		for (int n = 0; n < WRITE_CHUNK && i < work->nchildren; n++, i++)
		{
			CHECK_FOR_INTERRUPTS();
			if ((work->children[i].freed > 0 || work->children[i].is_cancelled) &&
				jq_table_lock_by_id(&live, catalog->jobs_queue_live_pkey,
									work->children[i].id, LockTupleExclusive,
									row))
				write_child(&live, &done, row, &work->children[i]);
		}
		jq_table_close(&done);
		jq_table_close(&live);
		MemoryContextSwitchTo(context);
		MemoryContextReset(chunk);
	}
}

/* A child that waits no more, because somebody queued it, only counts. */
static void
write_child(JqTable *live, JqTable *done, TupleTableSlot *row,
			const Child *child)
{
	TupleTableSlot *next = jq_table_new_row(live);
	TimestampTz now = GetCurrentTimestamp();
	JqJob		job;

	jq_job_read(row, &job);
	jq_job_begin_change(row, next, now);
	if (child->is_cancelled)
	{
		jq_job_clear_claim(next);
		jq_job_set_status(next, &job, JQ_STATUS_CANCELLED);
		jq_job_set(next, JQ_JOB_LAST_ERROR, CStringGetTextDatum(child->reason));
		jq_job_set(next, JQ_JOB_FINISHED_AT, TimestampTzGetDatum(now));
		jq_job_move(live, done, row, next);
		if (jq_event_log_has_all())
			jq_event_log_end(&job, JQ_STATUS_CANCELLED, child->reason);
		return;
	}
	if (job.waiting_for == 0)
		return;
	jq_job_set(next, JQ_JOB_WAITING_FOR,
			   Int32GetDatum(Max(job.waiting_for - child->freed, 0)));
	if (job.status == JQ_STATUS_BLOCKED && job.waiting_for <= child->freed)
		jq_job_set_status(next, &job, JQ_STATUS_QUEUED);
	if (!jq_job_update(live, row, next))
		jq_job_report_suppressed(job.id);
}

/* After the children are written: the edges tell how their parents ended. */
static void
mark_edges(const Settlement *work)
{
	const JqEndedJobs *ended = work->ended;
	Datum		values[2];

	if (work->nends == 0)
		return;
	values[0] = jq_dependencies_array(ended->failed, ended->nfailed);
	values[1] = BoolGetDatum(ended->are_deleted);
	jq_statement_execute(&mark_failed, values, NULL, 0);
	if (work->nends == ended->nfailed)
		return;
	values[0] = jq_dependencies_array(work->ends + ended->nfailed,
									  work->nends - ended->nfailed);
	values[1] = BoolGetDatum(false);
	jq_statement_execute(&mark_failed, values, NULL, 0);
	jq_statement_execute(&forget_of_cancelled, values, NULL, 0);
}
