/*-------------------------------------------------------------------------
 *
 * decide.c
 *	  Which instants of due tasks become runs, and which runs become jobs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/columns.h"
#include "base/config.h"
#include "base/scope.h"
#include "base/statement.h"
#include "cron/batch.h"

/* Rows of cron_runs this much younger than they are kept are surely there. */
#define PRUNE_MARGIN_US USECS_PER_HOUR

static JqStatement select_decided = {
	.text = "SELECT r.task_id, r.instant, r.job_id FROM @.cron_runs r"
	" JOIN unnest($1, $2) AS w (task_id, instant)"
	" ON r.task_id = w.task_id AND r.instant = w.instant",
	.nargs = 2,
	.argtypes = {INT8ARRAYOID, TIMESTAMPTZARRAYOID}
};

static JqStatement select_busy = {
	.text = "SELECT DISTINCT cron_task_id FROM @.jobs_queue_live"
	" WHERE cron_task_id = ANY ($1)",
	.nargs = 1,
	.argtypes = {INT8ARRAYOID}
};

static void decide(JqTaskBatch *batch, JqDueTask *task);
static bool decide_by_schedule(JqTaskBatch *batch, JqDueTask *task);
static int64 missed_since(const JqDueTask *task, TimestampTz latest);
static void decide_by_start(JqTaskBatch *batch, JqDueTask *task);
static void drop_run(JqDueTask *task, TimestampTz instant);
static void drop_old(const JqTaskBatch *batch, JqDueTask *task);
static void find_live_jobs(JqTaskBatch *batch);
static void apply_overlap(JqDueTask *task);

void
jq_batch_decide(JqTaskBatch *batch)
{
	for (int i = 0; i < batch->ntasks; i++)
	{
		CHECK_FOR_INTERRUPTS();
		decide(batch, &batch->tasks[i]);
	}
	jq_batch_drop_decided(batch);
	find_live_jobs(batch);
	for (int i = 0; i < batch->ntasks; i++)
		apply_overlap(&batch->tasks[i]);
}

/* A task with a fault is disabled. */
static void
decide(JqTaskBatch *batch, JqDueTask *task)
{
	const char *fault = jq_task_row_plan(&task->row, &task->plan);

	if (fault != NULL)
		jq_batch_disable(batch, task, fault);
	else if (batch->kind == JQ_RUN_BY_START)
		decide_by_start(batch, task);
	else
		task->is_left = !decide_by_schedule(batch, task);
}

/* False when the batch is full: the task stays due. */
static bool
decide_by_schedule(JqTaskBatch *batch, JqDueTask *task)
{
	static JqCronDue due;		/* large */

	if (batch->nruns >= JQ_BATCH_MAX)
		return false;
	jq_plan_due(&task->plan, task->row.planned, batch->now, &due);
	for (int i = 0; i < due.ninstants; i++)
	{
		if (due.ninstants - i > task->row.runs_left)
			due.missed++;
		else
			jq_batch_add_run(batch, task, due.instants[i]);
	}
	task->missed = due.missed;
	if (task->row.planned <= task->row.decided_until)
		task->missed = missed_since(task, due.latest);
	task->decided_until = due.latest;
	task->next = due.next;
	return true;
}

/*
 * Somebody has set next_run_at back, or the clock: what was decided about
 * before is not missed a second time.
 */
static int64
missed_since(const JqDueTask *task, TimestampTz latest)
{
	TimestampTz decided_until = task->row.decided_until;
	int64		missed = jq_cron_count(&task->plan.expr, decided_until, latest,
									   task->row.planned, task->plan.zone);

	for (int i = 0; i < task->nruns; i++)
		if (task->runs[i].instant > decided_until)
			missed--;
	return missed;
}

/* A start outside of the bounds of the task is none of its runs. */
static void
decide_by_start(JqTaskBatch *batch, JqDueTask *task)
{
	task->decided_until = task->row.decided_until;
	task->next = task->row.planned;
	if (batch->now >= task->plan.starts_at &&
		batch->now <= task->plan.ends_at && task->row.runs_left > 0)
		jq_batch_add_run(batch, task, PgStartTime);
}

void
jq_batch_add_run(JqTaskBatch *batch, JqDueTask *task, TimestampTz instant)
{
	if (task->runs == NULL)
		task->runs = palloc(sizeof(JqTaskRun));
	else
		task->runs = repalloc(task->runs,
							  sizeof(JqTaskRun) * (task->nruns + 1));
	task->runs[task->nruns++] = (JqTaskRun)
	{
		.instant = instant
	};
	batch->nruns++;
}

void
jq_batch_drop_decided(JqTaskBatch *batch)
{
	static const Oid types[] = {INT8OID, TIMESTAMPTZOID};
	JqColumn   *columns;
	Datum		values[lengthof(types)];
	uint64		count;
	int			hint = 0;

	if (batch->nruns == 0)
		return;
	columns = jq_columns_new(lengthof(types), types, batch->nruns);
	for (int i = 0; i < batch->ntasks; i++)
	{
		JqDueTask  *task = &batch->tasks[i];

		for (int j = 0; j < task->nruns; j++)
		{
			jq_column_add(&columns[0], Int64GetDatum(task->row.id), false);
			jq_column_add(&columns[1],
						  TimestampTzGetDatum(task->runs[j].instant), false);
		}
	}
	values[0] = jq_column_array(&columns[0]);
	values[1] = jq_column_array(&columns[1]);
	jq_scope_refresh();
	count = jq_statement_query(&select_decided, values, NULL, 0);
	for (uint64 row = 0; row < count; row++)
	{
		bool		is_skipped;

		(void) jq_statement_nullable(row, 3, &is_skipped);
		if (is_skipped && batch->kind == JQ_RUN_MANUAL)
			continue;
		drop_run(jq_batch_task(batch->tasks, batch->ntasks,
							   DatumGetInt64(jq_statement_value(row, 1)), &hint),
				 DatumGetTimestampTz(jq_statement_value(row, 2)));
	}
	if (batch->kind == JQ_RUN_BY_SCHEDULE)
		for (int i = 0; i < batch->ntasks; i++)
			drop_old(batch, &batch->tasks[i]);
}

static void
drop_run(JqDueTask *task, TimestampTz instant)
{
	for (int i = 0; i < task->nruns; i++)
	{
		if (task->runs[i].instant != instant)
			continue;
		memmove(&task->runs[i], &task->runs[i + 1],
				sizeof(JqTaskRun) * (task->nruns - i - 1));
		task->nruns--;
		return;
	}
}

/*
 * Rows of cron_runs may have been pruned: what is older than they reach was
 * decided about, too, if next_run_at was set back.
 */
static void
drop_old(const JqTaskBatch *batch, JqDueTask *task)
{
	TimestampTz horizon = batch->now + PRUNE_MARGIN_US -
	(int64) jq_config_keep_cron_runs * USECS_PER_MINUTE;
	TimestampTz decided_until = task->row.decided_until;

	if (task->is_left || task->row.planned > decided_until)
		return;
	for (int i = task->nruns - 1; i >= 0; i--)
		if (task->runs[i].instant < Min(horizon, decided_until + 1))
			drop_run(task, task->runs[i].instant);
}

/* Of the tasks that want to know. */
static void
find_live_jobs(JqTaskBatch *batch)
{
	static const Oid types[] = {INT8OID};
	JqColumn   *ids = jq_columns_new(1, types, batch->ntasks);
	Datum		values[1];
	uint64		count;
	int			hint = 0;

	for (int i = 0; i < batch->ntasks; i++)
		if (batch->tasks[i].row.overlap != JQ_OVERLAP_ALLOW &&
			batch->tasks[i].nruns > 0)
			jq_column_add(ids, Int64GetDatum(batch->tasks[i].row.id), false);
	if (ids->count == 0)
		return;
	values[0] = jq_column_array(ids);
	count = jq_statement_query(&select_busy, values, NULL, 0);
	for (uint64 row = 0; row < count; row++)
		jq_batch_task(batch->tasks, batch->ntasks,
					  DatumGetInt64(jq_statement_value(row, 1)),
					  &hint)->has_live_job = true;
}

/*
 * While a job of such a task is alive, no other is enqueued: of several runs
 * the first, or the last, which takes the place of those before.
 */
static void
apply_overlap(JqDueTask *task)
{
	for (int i = 0; i < task->nruns; i++)
	{
		if (task->row.overlap == JQ_OVERLAP_SKIP &&
			(task->has_live_job || i > 0))
			task->runs[i].skip_reason = "a job of the task has not ended";
		if (task->row.overlap == JQ_OVERLAP_REPLACE && i < task->nruns - 1)
			task->runs[i].skip_reason = "replaced by a later run";
	}
}
