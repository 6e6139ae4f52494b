/*-------------------------------------------------------------------------
 *
 * runs.c
 *	  Runs of cron tasks: instants that become jobs, once.
 *
 * Whoever enqueues a due task holds its row's lock, and writes the job, the
 * row of cron_runs, whose key is (task, instant), and the next plan in one
 * transaction.  Others pass over a locked task and find it no longer due
 * afterwards.  cron_runs decides when somebody has set next_run_at back, or
 * the clock; rows that have been pruned are covered by decided_until.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/config.h"
#include "base/scope.h"
#include "base/statement.h"
#include "cron/batch.h"
#include "cron/runs.h"

static JqStatement select_due = {
	.text = "SELECT " JQ_TASK_COLUMNS " FROM @.cron_tasks"
	" WHERE enabled AND (next_run_at, id) >= ($1, $4) AND next_run_at <= $2"
	" ORDER BY next_run_at, id LIMIT $3 FOR UPDATE SKIP LOCKED",
	.nargs = 4,
	.argtypes = {TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID}
};

static JqStatement select_starting = {
	.text = "SELECT " JQ_TASK_COLUMNS " FROM @.cron_tasks"
	" WHERE enabled AND run_on_start AND id >= $4"
	" AND (start_seen_at < $2 OR start_seen_at > $2)"
	" ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED",
	.nargs = 4,
	.argtypes = {TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID}
};

static JqStatement select_named = {
	.text = "SELECT " JQ_TASK_COLUMNS " FROM @.cron_tasks"
	" WHERE name = $1 FOR UPDATE",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static JqStatement select_next = {
	.text = "SELECT min(next_run_at), CASE WHEN min(next_run_at) <= $2 THEN"
	" (SELECT min(next_run_at) FROM @.cron_tasks"
	" WHERE enabled AND next_run_at > $2) END,"
	" EXISTS (SELECT FROM @.cron_tasks WHERE enabled AND run_on_start"
	" AND (start_seen_at < $3 OR start_seen_at > $3))"
	" FROM @.cron_tasks WHERE enabled AND next_run_at >= $1",
	.nargs = 3,
	.argtypes = {TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

static JqStatement update_manual = {
	.text = "UPDATE @.cron_tasks SET last_instant = $2, last_job_id = $3,"
	" last_enqueued_at = $4, updated_at = $4 WHERE id = $1",
	.nargs = 4,
	.argtypes = {INT8OID, TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID}
};

static bool is_enqueueing = false;

static int	enqueue_due(TimestampTz from, JqCronOutlook *outlook);
static int	enqueue_batches(JqTaskBatch *batch, JqStatement *select,
							TimestampTz from, TimestampTz until, bool *moved);
static int	enqueue_batch(JqTaskBatch *batch, JqStatement *select,
						  Datum *values);
static bool has_moved(const JqTaskBatch *batch);
static void look_ahead(TimestampTz from, TimestampTz now,
					   JqCronOutlook *outlook);
static TimestampTz instant_or_none(int column);
static void read_tasks(JqTaskBatch *batch, uint64 count);
static void log_lateness(const JqTaskBatch *batch);
static void log_stuck(const JqTaskBatch *batch);

int
jq_runs_enqueue_due(TimestampTz from, JqCronOutlook *outlook)
{
	int			enqueued = 0;

	/* A user's trigger on a job that is being enqueued may call it again. */
	if (is_enqueueing)
		return 0;
	is_enqueueing = true;
	PG_TRY();
	{
		enqueued = enqueue_due(from, outlook);
	}
	PG_FINALLY();
	{
		is_enqueueing = false;
	}
	PG_END_TRY();
	return enqueued;
}

static int
enqueue_due(TimestampTz from, JqCronOutlook *outlook)
{
	JqTaskBatch starting = {.kind = JQ_RUN_BY_START,.now = GetCurrentTimestamp()};
	JqTaskBatch due = {.kind = JQ_RUN_BY_SCHEDULE,.now = starting.now};
	bool		moved = false;
	int			enqueued;

	jq_scope_enter(JQ_WRITE_ENGINE);
	enqueued = enqueue_batches(&starting, &select_starting, from, PgStartTime,
							   &moved);
	enqueued += enqueue_batches(&due, &select_due, from, due.now, &moved);
	if (outlook != NULL)
	{
		outlook->has_moved = moved;
		look_ahead(from, due.now, outlook);
	}
	jq_scope_leave();
	return enqueued;
}

int64
jq_runs_enqueue_now(const char *name, TimestampTz instant)
{
	JqTaskBatch batch = {.kind = JQ_RUN_MANUAL,.now = GetCurrentTimestamp()};
	Datum		values[4] = {CStringGetTextDatum(name)};
	JqDueTask  *task;
	const char *fault;
	int64		job_id;

	jq_scope_enter(JQ_WRITE_ENGINE);
	read_tasks(&batch, jq_statement_execute(&select_named, values, NULL, 0));
	if (batch.ntasks == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("cron task \"%s\" does not exist", name)));
	task = &batch.tasks[0];
	fault = jq_task_row_plan(&task->row, &task->plan);
	if (fault != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cron task \"%s\" cannot run", name),
				 errdetail_internal("%s", fault)));
	jq_batch_add_run(&batch, task, instant);
	jq_batch_drop_decided(&batch);
	if (task->nruns == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("cron task \"%s\" has run for that instant", name),
				 errhint("requeue_job() repeats its job; cron_runs tells which it was.")));
	jq_batch_store_runs(&batch);
	job_id = task->runs[0].job_id;
	if (job_id != 0)
	{
		values[0] = Int64GetDatum(task->row.id);
		values[1] = TimestampTzGetDatum(instant);
		values[2] = Int64GetDatum(job_id);
		values[3] = TimestampTzGetDatum(batch.now);
		(void) jq_statement_execute(&update_manual, values, NULL, 0);
	}
	jq_scope_leave();
	return job_id;
}

/*
 * One batch, and those after it as long as most of their tasks are stuck:
 * there may be others behind them.
 */
static int
enqueue_batches(JqTaskBatch *batch, JqStatement *select, TimestampTz from,
				TimestampTz until, bool *moved)
{
	Datum		values[] = {
		TimestampTzGetDatum(from), TimestampTzGetDatum(until),
		Int64GetDatum(JQ_BATCH_MAX), Int64GetDatum(PG_INT64_MIN)
	};
	int			enqueued = 0;

	for (;;)
	{
		const JqTaskRow *last;

		enqueued += enqueue_batch(batch, select, values);
		*moved |= has_moved(batch);
		if (batch->ntasks < JQ_BATCH_MAX || batch->nstuck < JQ_BATCH_MAX / 2)
			return enqueued;
		last = &batch->tasks[batch->ntasks - 1].row;
		values[0] = TimestampTzGetDatum(last->planned);
		values[3] = Int64GetDatum(last->id + 1);
	}
}

static int
enqueue_batch(JqTaskBatch *batch, JqStatement *select, Datum *values)
{
	int			enqueued = 0;

	jq_scope_prefer_indexes();
	read_tasks(batch, jq_statement_execute(select, values, NULL, 0));
	if (batch->ntasks == 0)
		return 0;
	jq_batch_decide(batch);
	jq_batch_store(batch);
	for (int i = 0; i < batch->ntasks; i++)
		for (int j = 0; j < batch->tasks[i].nruns; j++)
			if (batch->tasks[i].runs[j].job_id != 0)
				enqueued++;
	log_lateness(batch);
	log_stuck(batch);
	return enqueued;
}

/*
 * Whether anything was decided.  If not, a task that is still due has come
 * back by itself: a trigger of users may have undone its plan.
 */
static bool
has_moved(const JqTaskBatch *batch)
{
	for (int i = 0; i < batch->ntasks; i++)
	{
		const JqDueTask *task = &batch->tasks[i];

		if (!task->is_left && (task->nruns > 0 ||
							   task->decided_until > task->row.decided_until))
			return true;
	}
	return false;
}

/* Also at tasks that have not run since the server has started. */
static void
look_ahead(TimestampTz from, TimestampTz now, JqCronOutlook *outlook)
{
	Datum		values[] = {
		TimestampTzGetDatum(from), TimestampTzGetDatum(now),
		TimestampTzGetDatum(PgStartTime)
	};

	jq_scope_prefer_indexes();
	jq_scope_refresh();
	(void) jq_statement_query(&select_next, values, NULL, 1);
	outlook->next = instant_or_none(1);
	outlook->later = instant_or_none(2);
	if (DatumGetBool(jq_statement_value(0, 3)))
	{
		if (outlook->next > now)
			outlook->later = outlook->next;
		outlook->next = DT_NOBEGIN;
	}
}

/* Of the only row of a result. */
static TimestampTz
instant_or_none(int column)
{
	bool		isnull;
	Datum		value = jq_statement_nullable(0, column, &isnull);

	return isnull ? DT_NOEND : DatumGetTimestampTz(value);
}

static void
read_tasks(JqTaskBatch *batch, uint64 count)
{
	batch->ntasks = (int) count;
	batch->nruns = 0;
	batch->nstuck = 0;
	batch->tasks = palloc0(sizeof(JqDueTask) * Max(count, 1));
	for (uint64 i = 0; i < count; i++)
		jq_task_row_read(&batch->tasks[i].row, i);
}

/* One line for all of them: after a long pause they may be many. */
static void
log_lateness(const JqTaskBatch *batch)
{
	const JqDueTask *first = NULL;
	int			ntasks = 0;
	int64		missed = 0;

	for (int i = 0; i < batch->ntasks; i++)
	{
		if (batch->tasks[i].missed == 0 || batch->tasks[i].is_left)
			continue;
		if (first == NULL)
			first = &batch->tasks[i];
		ntasks++;
		missed += batch->tasks[i].missed;
	}
	if (first != NULL && jq_config_logs(LOG))
		ereport(LOG,
				(errmsg("instants of cron tasks passed without a job: %lld of %d tasks, first of \"%s\", planned for %s",
						(long long) missed, ntasks, first->row.name,
						timestamptz_to_str(first->row.planned))));
}

/* One line for all of them: they are tried again each second. */
static void
log_stuck(const JqTaskBatch *batch)
{
	if (batch->nstuck > 0 && jq_config_logs(WARNING))
		ereport(LOG,
				(errmsg("cron task \"%s\" stays due: %s",
						batch->first_stuck->row.name, batch->stuck_reason),
				 batch->nstuck == 1 ? 0 :
				 errdetail("So do %d other tasks.", batch->nstuck - 1)));
}
