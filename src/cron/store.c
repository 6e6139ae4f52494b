/*-------------------------------------------------------------------------
 *
 * store.c
 *	  Writes decided runs: jobs, cron_runs, and the plans of their tasks.
 *
 * One statement of each kind serves all tasks of a batch.  If that fails, the
 * tasks are stored one by one: so the one with the fault is found, and the
 * others go on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/columns.h"
#include "base/config.h"
#include "base/fault.h"
#include "base/protect.h"
#include "base/scope.h"
#include "base/statement.h"
#include "cron/batch.h"
#include "cron/template.h"

/*
 * For how long a lock is waited for, in all by the tasks of a batch: whoever
 * holds what many of them want, as the unique keys of their jobs, must not
 * hold up the others.
 */
#define BATCH_LOCK_MS 500
#define TASK_LOCK_MS 100
#define HASTY_LOCK_MS 1
#define PATIENCE 5				/* stuck tasks, then there is haste */

/* Some tasks of a batch, to be stored together. */
typedef struct Share
{
	const JqTaskBatch *batch;
	JqDueTask  *tasks;
	int			ntasks;
} Share;

/*
 * By the function that everybody uses.  A job that somebody has locked is not
 * waited for: its task stays due.
 */
static JqStatement cancel_live = {
	.text = "SELECT @.cancel_job(l.id, $2) FROM (SELECT q.id"
	" FROM @.jobs_queue_live q WHERE q.cron_task_id = ANY ($1)"
	" AND q.cancel_requested_at IS NULL ORDER BY q.id FOR UPDATE NOWAIT) l",
	.nargs = 2,
	.argtypes = {INT8ARRAYOID, TEXTOID}
};

#define INSERT_JOBS \
	"INSERT INTO @.jobs_queue_live (job_type, payload, stage, priority," \
	" max_attempts, scheduled_at, unique_key, cron_instant, cron_task_id, owner)" \
	" SELECT t.job_type, coalesce(r.payload, t.payload), t.stage, t.priority," \
	" t.max_attempts, r.scheduled_at, r.unique_key, r.instant, t.id, t.owner" \
	" FROM unnest($1, $2, $3, $4, $5) WITH ORDINALITY" \
	" AS r (task_id, instant, scheduled_at, payload, unique_key, n)" \
	" JOIN @.cron_tasks t ON t.id = r.task_id ORDER BY r.n"
#define INSERT_JOBS_RETURNING " RETURNING id, cron_task_id, cron_instant"
#define INSERT_JOBS_TYPES \
	{INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, JSONBARRAYOID, \
	TEXTARRAYOID}

static JqStatement insert_jobs = {
	.text = INSERT_JOBS INSERT_JOBS_RETURNING,
	.nargs = 5,
	.argtypes = INSERT_JOBS_TYPES
};

static JqStatement insert_unique_jobs = {
	.text = INSERT_JOBS
	" ON CONFLICT (job_type, unique_key) WHERE unique_key IS NOT NULL DO NOTHING"
	INSERT_JOBS_RETURNING,
	.nargs = 5,
	.argtypes = INSERT_JOBS_TYPES
};

#define INSERT_RUNS \
	"INSERT INTO @.cron_runs AS c (task_id, instant, job_id, skip_reason, kind," \
	" decided_at) SELECT r.task_id, r.instant, r.job_id, r.skip_reason, $5, $6" \
	" FROM unnest($1, $2, $3, $4) AS r (task_id, instant, job_id, skip_reason)"
#define INSERT_RUNS_TYPES \
	{INT8ARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TEXTOID, \
	TIMESTAMPTZOID}

static JqStatement insert_runs = {
	.text = INSERT_RUNS,
	.nargs = 6,
	.argtypes = INSERT_RUNS_TYPES
};

/* Over those that were skipped: jq_batch_drop_decided() has left no others. */
static JqStatement insert_manual_runs = {
	.text = INSERT_RUNS
	" ON CONFLICT (task_id, instant) DO UPDATE SET job_id = EXCLUDED.job_id,"
	" skip_reason = EXCLUDED.skip_reason, kind = EXCLUDED.kind,"
	" decided_at = EXCLUDED.decided_at WHERE c.job_id IS NULL",
	.nargs = 6,
	.argtypes = INSERT_RUNS_TYPES
};

/* After a start of the server, $11, the plan stays as it is. */
static JqStatement update_tasks = {
	.text = "UPDATE @.cron_tasks t SET next_run_at = r.next_run_at,"
	" planned_at = CASE WHEN $11 IS NULL THEN $10 ELSE t.planned_at END,"
	" start_seen_at = coalesce($11, t.start_seen_at),"
	" decided_until = greatest(t.decided_until, r.decided_until),"
	" last_instant = coalesce(r.last_instant, t.last_instant),"
	" last_job_id = coalesce(r.last_job_id, t.last_job_id),"
	" last_enqueued_at = CASE WHEN r.last_job_id IS NULL"
	" THEN t.last_enqueued_at ELSE $10 END,"
	" run_count = t.run_count + r.enqueued,"
	" missed_count = t.missed_count + r.missed,"
	" skipped_count = t.skipped_count + r.skipped,"
	" enabled = r.reason IS NULL, disabled_reason = r.reason, updated_at = $10"
	" FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) AS r (id, next_run_at,"
	" decided_until, last_instant, last_job_id, enqueued, missed, skipped, reason)"
	" WHERE t.id = r.id",
	.nargs = 11,
	.argtypes = {
		INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
		TIMESTAMPTZARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID,
		INT8ARRAYOID, TEXTARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID
	}
};

static JqStatement disable_task = {
	.text = "UPDATE @.cron_tasks SET enabled = false, next_run_at = NULL,"
	" planned_at = NULL, disabled_reason = $2, updated_at = clock_timestamp()"
	" WHERE id = $1",
	.nargs = 2,
	.argtypes = {INT8OID, TEXTOID}
};

static const char *const kinds[] = {
	[JQ_RUN_BY_SCHEDULE] = "schedule",
	[JQ_RUN_BY_START] = "start",
	[JQ_RUN_MANUAL] = "manual"
};

/*
 * Jobs on their way into a statement.  What their templates come to is kept
 * within bounds: one task may have a thousand runs, of a megabyte each.
 */
#define MAX_FILLED_SIZE (8 * 1024 * 1024)

enum
{
	JOB_TASK_ID, JOB_INSTANT, JOB_SCHEDULED_AT, JOB_PAYLOAD, JOB_UNIQUE_KEY,
	JOB_COLUMN_COUNT
};

typedef struct NewJobs
{
	const Share *share;
	MemoryContext filled;		/* of the rows below; emptied with them */
	MemoryContext document;		/* of the payload of one task */
	JqColumn   *columns;
	bool		has_keys;
} NewJobs;

/* A task that is to be disabled. */
typedef struct Disabling
{
	const JqDueTask *task;
	const char *reason;
} Disabling;

static void limit_lock_waits(int limit_ms);
static void store_each(JqTaskBatch *batch);
static void store_one(JqTaskBatch *batch, JqDueTask *task);
static ErrorData *attempt(void (*work) (void *arg), void *arg);
static bool is_decided_meanwhile(const ErrorData *fault);
static void note_stuck(JqTaskBatch *batch, const JqDueTask *task,
					   const char *reason);
static void store_share(void *arg);
static void disable(void *arg);
static void check_written(uint64 count, int expected);
static void cancel_replaced(const Share *share);
static int	count_runs(const Share *share);
static void insert_jobs_of(const Share *share);
static void add_jobs(NewJobs *jobs, JqDueTask *task);
static void add_job(NewJobs *jobs, const JqDueTask *task, const JqTaskRun *run,
					Datum template);
static void insert_jobs_now(NewJobs *jobs);
static TimestampTz spread(const JqDueTask *task, TimestampTz instant);
static void note_jobs(const Share *share, uint64 count);
static void insert_runs_of(const Share *share);
static void move_plans(const Share *share);
static void add_task(const JqDueTask *task, TimestampTz now, JqColumn *columns);
static const char *reason_to_end(const JqDueTask *task, TimestampTz now,
								 int64 enqueued);

void
jq_batch_store(JqTaskBatch *batch)
{
	Share		share = {.batch = batch,.tasks = batch->tasks,.ntasks = batch->ntasks};
	int			nest_level = NewGUCNestLevel();
	ErrorData  *fault;

	limit_lock_waits(batch->is_hasty ? HASTY_LOCK_MS : BATCH_LOCK_MS);
	fault = attempt(store_share, &share);
	if (fault != NULL)
	{
		FreeErrorData(fault);
		store_each(batch);
	}
	AtEOXact_GUC(true, nest_level);
}

/* Of the calling transaction, too, whose own limit stands if it is smaller. */
static void
limit_lock_waits(int limit_ms)
{
	char		value[32];

	if (LockTimeout > 0 && LockTimeout <= limit_ms)
		return;
	snprintf(value, sizeof(value), "%d", limit_ms);
	(void) set_config_option("lock_timeout", value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

static void
store_each(JqTaskBatch *batch)
{
	for (int i = 0; i < batch->ntasks; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (batch->nstuck >= PATIENCE)
			batch->is_hasty = true;
		limit_lock_waits(batch->is_hasty ? HASTY_LOCK_MS : TASK_LOCK_MS);
		if (!batch->tasks[i].is_left)
			store_one(batch, &batch->tasks[i]);
	}
}

static void
store_one(JqTaskBatch *batch, JqDueTask *task)
{
	Share		share = {.batch = batch,.tasks = task,.ntasks = 1};
	ErrorData  *fault = attempt(store_share, &share);

	if (fault == NULL)
		return;
	task->nruns = 0;
	task->is_left = true;
	if (jq_error_is_lasting(fault) && !is_decided_meanwhile(fault))
		jq_batch_disable(batch, task, fault->message);
	else
		note_stuck(batch, task, fault->message);
	FreeErrorData(fault);
}

/*
 * Somebody has decided about the same instant, which the snapshot of a
 * transaction that sees no later ones does not show.
 */
static bool
is_decided_meanwhile(const ErrorData *fault)
{
	return fault->sqlerrcode == ERRCODE_UNIQUE_VIOLATION &&
		fault->table_name != NULL &&
		strcmp(fault->table_name, "cron_runs") == 0;
}

static void
note_stuck(JqTaskBatch *batch, const JqDueTask *task, const char *reason)
{
	if (batch->nstuck++ > 0)
		return;
	batch->first_stuck = task;
	batch->stuck_reason = pstrdup(reason);
}

/* A cancellation of this process is meant for all of it, and raised. */
static ErrorData *
attempt(void (*work) (void *arg), void *arg)
{
	ErrorData  *fault = jq_attempt(work, arg);

	if (fault != NULL && fault->funcname != NULL &&
		strcmp(fault->funcname, "ProcessInterrupts") == 0 &&
		ERRCODE_TO_CATEGORY(fault->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		ReThrowError(fault);
	return fault;
}

/* May be undone and done again: what it notes in the tasks is noted anew. */
static void
store_share(void *arg)
{
	Share	   *share = (Share *) arg;

	cancel_replaced(share);
	insert_jobs_of(share);
	insert_runs_of(share);
	move_plans(share);
	JQ_FAULT("in_cron_enqueue");
}

void
jq_batch_store_runs(JqTaskBatch *batch)
{
	Share		share = {.batch = batch,.tasks = batch->tasks,.ntasks = batch->ntasks};

	insert_jobs_of(&share);
	insert_runs_of(&share);
}

/* A trigger or a constraint of users may be in the way of this, too. */
void
jq_batch_disable(JqTaskBatch *batch, JqDueTask *task, const char *reason)
{
	Disabling	disabling = {.task = task,.reason = reason};
	ErrorData  *fault = attempt(disable, &disabling);

	task->is_left = true;
	if (fault != NULL)
	{
		note_stuck(batch, task, fault->message);
		FreeErrorData(fault);
	}
	else if (jq_config_logs(WARNING))
		ereport(LOG,
				(errmsg("cron task \"%s\" was disabled: %s", task->row.name,
						reason)));
}

static void
disable(void *arg)
{
	const Disabling *disabling = (const Disabling *) arg;
	Datum		values[2] = {
		Int64GetDatum(disabling->task->row.id),
		CStringGetTextDatum(disabling->reason)
	};

	check_written(jq_statement_execute(&disable_task, values, NULL, 0), 1);
}

/* What a trigger has left out would be found due again at once. */
static void
check_written(uint64 count, int expected)
{
	if (count != (uint64) expected)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("a trigger on cron_tasks left out the update of its plan")));
}

JqDueTask *
jq_batch_task(JqDueTask *tasks, int ntasks, int64 id, int *hint)
{
	for (int i = 0; i < ntasks; i++)
	{
		int			place = (*hint + i) % ntasks;

		if (tasks[place].row.id != id)
			continue;
		*hint = place;
		return &tasks[place];
	}
	elog(ERROR, "cron task " INT64_FORMAT " is not in its batch", id);
}

static void
cancel_replaced(const Share *share)
{
	static const Oid types[] = {INT8OID};
	JqColumn   *ids = jq_columns_new(1, types, share->ntasks);
	Datum		values[2] = {0, CStringGetTextDatum("replaced by a later run of its cron task")};

	for (int i = 0; i < share->ntasks; i++)
		if (share->tasks[i].row.overlap == JQ_OVERLAP_REPLACE &&
			share->tasks[i].has_live_job && share->tasks[i].nruns > 0)
			jq_column_add(ids, Int64GetDatum(share->tasks[i].row.id), false);
	if (ids->count == 0)
		return;
	values[0] = jq_column_array(ids);
	(void) jq_statement_execute(&cancel_live, values, NULL, 0);
}

static void
insert_jobs_of(const Share *share)
{
	static const Oid types[JOB_COLUMN_COUNT] = {
		INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, JSONBOID, TEXTOID
	};
	NewJobs		jobs = {
		.share = share,
		.filled = AllocSetContextCreate(CurrentMemoryContext, "jobqueue filled jobs",
										ALLOCSET_DEFAULT_SIZES),
		.document = AllocSetContextCreate(CurrentMemoryContext, "jobqueue payload",
										  ALLOCSET_DEFAULT_SIZES),
		.columns = jq_columns_new(JOB_COLUMN_COUNT, types, count_runs(share))
	};

	for (int i = 0; i < share->ntasks; i++)
		add_jobs(&jobs, &share->tasks[i]);
	insert_jobs_now(&jobs);
	MemoryContextDelete(jobs.document);
	MemoryContextDelete(jobs.filled);
}

/* Of the runs of a task. */
static void
add_jobs(NewJobs *jobs, JqDueTask *task)
{
	MemoryContext old = MemoryContextSwitchTo(jobs->document);
	Datum		payload = jq_template_of_jsonb(task->row.payload);

	MemoryContextSwitchTo(jobs->filled);
	for (int i = 0; i < task->nruns; i++)
	{
		task->runs[i].job_id = 0;
		if (task->runs[i].skip_reason != NULL)
			continue;
		add_job(jobs, task, &task->runs[i], payload);
		if (MemoryContextMemAllocated(jobs->filled, false) > MAX_FILLED_SIZE)
			insert_jobs_now(jobs);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(jobs->document);
}

/* "template": the payload, if it has placeholders; else 0. */
static void
add_job(NewJobs *jobs, const JqDueTask *task, const JqTaskRun *run,
		Datum template)
{
	JqCronRun	values = {
		.instant = run->instant,
		.zone = task->plan.zone,
		.task = task->row.name,
		.task_id = task->row.id
	};
	JqColumn   *columns = jobs->columns;

	jq_column_add(&columns[JOB_TASK_ID], Int64GetDatum(task->row.id), false);
	jq_column_add(&columns[JOB_INSTANT], TimestampTzGetDatum(run->instant), false);
	jq_column_add(&columns[JOB_SCHEDULED_AT],
				  TimestampTzGetDatum(spread(task, run->instant)), false);
	jq_column_add(&columns[JOB_PAYLOAD], template == 0 ? (Datum) 0 :
				  jq_template_fill_jsonb(template, &values), template == 0);
	jq_column_add_string(&columns[JOB_UNIQUE_KEY], task->row.unique_key == NULL ? NULL :
						 jq_template_fill(task->row.unique_key, &values));
	jobs->has_keys |= task->row.unique_key != NULL;
}

/* And begins anew. */
static void
insert_jobs_now(NewJobs *jobs)
{
	Datum		values[JOB_COLUMN_COUNT];

	if (jobs->columns[0].count == 0)
		return;
	for (int i = 0; i < JOB_COLUMN_COUNT; i++)
	{
		values[i] = jq_column_array(&jobs->columns[i]);
		jobs->columns[i].count = 0;
	}
	jq_scope_enter(JQ_WRITE_ENQUEUE);
	note_jobs(jobs->share, jq_statement_execute(jobs->has_keys ? &insert_unique_jobs :
												&insert_jobs, values, NULL, 0));
	jq_scope_leave();
	MemoryContextReset(jobs->filled);
}

static int
count_runs(const Share *share)
{
	int			count = 0;

	for (int i = 0; i < share->ntasks; i++)
		count += share->tasks[i].nruns;
	return count;
}

/* When a job may start: whoever computes it again gets the same. */
static TimestampTz
spread(const JqDueTask *task, TimestampTz instant)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) &instant,
										   sizeof(instant),
										   (uint64) task->row.id);

	if (task->row.jitter_us <= 0)
		return instant;
	return instant + (int64) (hash % ((uint64) task->row.jitter_us + 1));
}

static void
note_jobs(const Share *share, uint64 count)
{
	int			hint = 0;

	for (uint64 row = 0; row < count; row++)
	{
		JqDueTask  *task = jq_batch_task(share->tasks, share->ntasks,
										 DatumGetInt64(jq_statement_value(row, 2)),
										 &hint);
		TimestampTz instant = DatumGetTimestampTz(jq_statement_value(row, 3));

		for (int i = 0; i < task->nruns; i++)
			if (task->runs[i].instant == instant)
				task->runs[i].job_id = DatumGetInt64(jq_statement_value(row, 1));
	}
}

static void
insert_runs_of(const Share *share)
{
	static const Oid types[] = {INT8OID, TIMESTAMPTZOID, INT8OID, TEXTOID};
	JqColumn   *columns = jq_columns_new(lengthof(types), types,
										 count_runs(share));
	Datum		values[lengthof(types) + 2];

	for (int i = 0; i < share->ntasks; i++)
	{
		const JqDueTask *task = &share->tasks[i];

		for (int j = 0; j < task->nruns; j++)
		{
			const JqTaskRun *run = &task->runs[j];
			const char *reason = run->skip_reason;

			if (run->job_id == 0 && reason == NULL)
				reason = task->row.unique_key != NULL ?
					"a live job has its unique key" : "a trigger left its job out";
			jq_column_add(&columns[0], Int64GetDatum(task->row.id), false);
			jq_column_add(&columns[1], TimestampTzGetDatum(run->instant), false);
			jq_column_add(&columns[2], Int64GetDatum(run->job_id), run->job_id == 0);
			jq_column_add_string(&columns[3], reason);
		}
	}
	if (columns[0].count == 0)
		return;
	for (int i = 0; i < (int) lengthof(types); i++)
		values[i] = jq_column_array(&columns[i]);
	values[4] = CStringGetTextDatum(kinds[share->batch->kind]);
	values[5] = TimestampTzGetDatum(share->batch->now);
	(void) jq_statement_execute(share->batch->kind == JQ_RUN_MANUAL ?
								&insert_manual_runs : &insert_runs,
								values, NULL, 0);
}

/* What the runs of a task have come to. */
static void
move_plans(const Share *share)
{
	static const Oid types[] = {
		INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID,
		INT8OID, INT8OID, INT8OID, TEXTOID
	};
	JqColumn   *columns = jq_columns_new(lengthof(types), types, share->ntasks);
	Datum		values[lengthof(types) + 2];
	char		nulls[] = "           ";
	int			n = 0;

	for (int i = 0; i < share->ntasks; i++)
		if (!share->tasks[i].is_left)
			add_task(&share->tasks[i], share->batch->now, columns);
	if (columns[0].count == 0)
		return;
	for (; n < (int) lengthof(types); n++)
		values[n] = jq_column_array(&columns[n]);
	values[n++] = TimestampTzGetDatum(share->batch->now);
	values[n] = TimestampTzGetDatum(PgStartTime);
	if (share->batch->kind != JQ_RUN_BY_START)
		nulls[n] = 'n';
	check_written(jq_statement_execute(&update_tasks, values, nulls, 0),
				  columns[0].count);
}

static void
add_task(const JqDueTask *task, TimestampTz now, JqColumn *columns)
{
	const JqTaskRun *last = NULL;
	int64		enqueued = 0;
	const char *end_reason;

	for (int i = 0; i < task->nruns; i++)
	{
		if (task->runs[i].job_id == 0)
			continue;
		last = &task->runs[i];
		enqueued++;
	}
	end_reason = reason_to_end(task, now, enqueued);
	jq_column_add(columns++, Int64GetDatum(task->row.id), false);
	jq_column_add(columns++, TimestampTzGetDatum(task->next),
				  TIMESTAMP_IS_NOEND(task->next) || end_reason != NULL);
	jq_column_add(columns++, TimestampTzGetDatum(task->decided_until),
				  TIMESTAMP_IS_NOBEGIN(task->decided_until));
	jq_column_add(columns++, last == NULL ? (Datum) 0 :
				  TimestampTzGetDatum(last->instant), last == NULL);
	jq_column_add(columns++, last == NULL ? (Datum) 0 :
				  Int64GetDatum(last->job_id), last == NULL);
	jq_column_add(columns++, Int64GetDatum(enqueued), false);
	jq_column_add(columns++, Int64GetDatum(task->missed), false);
	jq_column_add(columns++, Int64GetDatum(task->nruns - enqueued), false);
	jq_column_add_string(columns, end_reason);
}

/* Whether a task has come to its end, by what was decided; NULL: it has not. */
static const char *
reason_to_end(const JqDueTask *task, TimestampTz now, int64 enqueued)
{
	if (enqueued >= task->row.runs_left)
		return "max_runs is reached";
	if (!TIMESTAMP_IS_NOEND(task->next) ||
		(task->plan.expr.kind == JQ_CRON_REBOOT && now <= task->plan.ends_at))
		return NULL;
	return TIMESTAMP_IS_NOEND(task->plan.ends_at) ?
		"the schedule has no further instants" : "ends_at has passed";
}
