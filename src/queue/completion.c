/*-------------------------------------------------------------------------
 *
 * completion.c
 *	  Completing jobs without a lock of its own.
 *
 * A lock would be one more WAL record for each job.  So the job is read,
 * decided on, and the very version that was read is deleted; if somebody was
 * faster, it is read again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/scope.h"
#include "queue/completion.h"
#include "queue/job_log.h"
#include "queue/job_types.h"
#include "queue/metrics.h"

static bool delete_held(JqCompletion *completion, const JqHeld *held,
						JqJob *job);

/* Opens the tables, unless a write to one of them could fire a trigger. */
void
jq_completion_begin(JqCompletion *completion)
{
	const JqCatalog *catalog = jq_catalog();

	if (completion->is_open || completion->is_refused)
		return;
	jq_table_open(&completion->live, catalog->jobs_queue_live);
	jq_table_open(&completion->done, catalog->jobs_queue_done);
	jq_table_open(&completion->runs, catalog->job_runs);
	completion->is_open = true;
	if (!completion->live.is_direct || !completion->done.is_direct ||
		!completion->runs.is_direct)
	{
		jq_completion_end(completion);
		completion->is_refused = true;
		return;
	}
	completion->row = jq_table_slot(&completion->live);
	completion->next = jq_table_new_row(&completion->live);
	completion->done_row = jq_table_new_row(&completion->done);
	completion->run_row = jq_table_new_row(&completion->runs);
}

void
jq_completion_end(JqCompletion *completion)
{
	if (!completion->is_open)
		return;
	jq_table_close(&completion->runs);
	jq_table_close(&completion->done);
	jq_table_close(&completion->live);
	completion->is_open = false;
}

bool
jq_completion_complete(JqCompletion *completion, const JqHeld *held,
					   const JqOutcome *outcome)
{
	JqRun		run = {.charged = true};
	JqJob		job;

	if (!delete_held(completion, held, &job))
		return false;
	jq_metrics_gone(&job);
	run.status = outcome->kind == JQ_OUTCOME_SKIPPED ? "skipped" : "completed";
	run.finished_at = GetCurrentTimestamp();
	run.error = outcome->error ? jq_job_clip_error(outcome->error) : NULL;
	run.has_result = outcome->has_result;
	run.result = outcome->result;
	run.command_tag = outcome->command_tag;
	run.response = outcome->response;
	if (!jq_job_type_drops_completed(job.job_type))
	{
		jq_job_begin_change(completion->row, completion->next, run.finished_at);
		jq_job_set_completed(completion->next, &job, &run);
		jq_table_convert(completion->next, completion->done_row);
		jq_table_insert(&completion->done, completion->done_row);
		jq_metrics_row(NULL, completion->done_row);
	}
	jq_job_log_write(&job, outcome->journal);
	jq_job_write_run(&completion->runs, completion->run_row, &job, &run);
	return true;
}

/*
 * Deletes a job that this worker holds, and leaves its last version in the
 * row slot.  Looks again when somebody was faster.
 */
static bool
delete_held(JqCompletion *completion, const JqHeld *held, JqJob *job)
{
	for (;;)
	{
		TM_Result	result;

		if (!jq_table_find_by_id(&completion->live,
								 jq_catalog()->jobs_queue_live_pkey,
								 held->job_id, completion->row))
			return false;
		jq_job_read(completion->row, job);
		if (!jq_completion_is_held(job, held))
			return false;
		result = jq_table_delete_version(&completion->live, completion->row);
		if (result == TM_Ok)
			return true;
		if (result != TM_Updated && result != TM_Deleted)
			elog(ERROR, "unexpected result %d of completing job " INT64_FORMAT,
				 result, held->job_id);
		CHECK_FOR_INTERRUPTS();
		jq_scope_refresh();
	}
}

bool
jq_completion_is_held(const JqJob *job, const JqHeld *held)
{
	return job->status == JQ_STATUS_RUNNING && job->is_held &&
		memcmp(&job->locked_by, &held->worker, sizeof(pg_uuid_t)) == 0 &&
		(held->claim_no == 0 || held->claim_no == job->claim_no);
}
