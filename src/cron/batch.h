/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  Due tasks on their way to becoming jobs: read, decided, stored.
 *
 *	  All of it within one scope in write mode ENGINE, whose memory it uses,
 *	  with the rows of the tasks locked.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_CRON_BATCH_H
#define JQ_CRON_BATCH_H

#include "postgres.h"

#include "cron/plan.h"
#include "cron/task_row.h"

/* Tasks of a batch, and roughly runs; the rest is due at the next call. */
#define JQ_BATCH_MAX 1000

/* Why there are runs: values of cron_runs.kind. */
typedef enum JqRunKind
{
	JQ_RUN_BY_SCHEDULE,
	JQ_RUN_BY_START,			/* of the server */
	JQ_RUN_MANUAL
} JqRunKind;

typedef struct JqTaskRun
{
	TimestampTz instant;
	int64		job_id;			/* 0: none */
	const char *skip_reason;	/* there shall be none; NULL: it depends on
								 * the unique key */
} JqTaskRun;

typedef struct JqDueTask
{
	JqTaskRow	row;
	JqCronPlan	plan;
	JqTaskRun  *runs;			/* oldest first */
	int			nruns;
	int64		missed;
	TimestampTz decided_until;
	TimestampTz next;			/* DT_NOEND: none */
	bool		has_live_job;
	bool		is_left;		/* not to be stored */
} JqDueTask;

typedef struct JqTaskBatch
{
	JqRunKind	kind;
	TimestampTz now;
	JqDueTask  *tasks;
	int			ntasks;
	int			nruns;			/* that were decided, also those dropped since */
	bool		is_hasty;		/* waits for hardly any lock; stays so */
	int			nstuck;			/* tasks that met trouble, and stay due */
	const JqDueTask *first_stuck;
	const char *stuck_reason;	/* its trouble */
} JqTaskBatch;

/*
 * Fills in the plan, the runs and what comes after them.  A task with a fault
 * is disabled.  Of manual runs only jq_batch_drop_decided() is needed.
 */
extern void jq_batch_decide(JqTaskBatch *batch);

extern void jq_batch_add_run(JqTaskBatch *batch, JqDueTask *task,
							 TimestampTz instant);

/*
 * Drops the runs whose instants were decided about before.  One by hand makes
 * up for an instant that was skipped.
 */
extern void jq_batch_drop_decided(JqTaskBatch *batch);

/*
 * Writes the jobs, cron_runs and the tasks.  A task with a fault is disabled;
 * one that met trouble of the moment stays due.
 */
extern void jq_batch_store(JqTaskBatch *batch);

/* Writes the jobs and cron_runs of all tasks; raises what goes wrong. */
extern void jq_batch_store_runs(JqTaskBatch *batch);

/* Disables a task, and says so in the log; one that cannot be stays due. */
extern void jq_batch_disable(JqTaskBatch *batch, JqDueTask *task,
							 const char *reason);

/*
 * The task of that id, looked for from tasks[*hint] on and around; *hint
 * becomes its place, for rows that come in the order of the tasks.
 */
extern JqDueTask *jq_batch_task(JqDueTask *tasks, int ntasks, int64 id,
								int *hint);

#endif							/* JQ_CRON_BATCH_H */
