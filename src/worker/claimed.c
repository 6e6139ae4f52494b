/*-------------------------------------------------------------------------
 *
 * claimed.c
 *	  The jobs that an executor has claimed in one go.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/claimed.h"

#include "base/config.h"
#include "base/scope.h"
#include "executor/tuptable.h"
#include "queue/event_log.h"
#include "queue/job_body.h"
#include "queue/job_types.h"
#include "storage/proc.h"
#include "worker/worker.h"

static void read_job(JqClaimedJob *job, const pg_uuid_t *worker,
					 TupleTableSlot *slot, MemoryContext context);

void
jq_claimed_read(JqBatch *batch, const pg_uuid_t *worker,
				Tuplestorestate *rows, TupleDesc row_type)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(row_type,
													&TTSOpsMinimalTuple);
	int64		count = tuplestore_tuple_count(rows);

	batch->jobs = MemoryContextAllocZero(batch->context,
										 sizeof(JqClaimedJob) * count);
	jq_scope_enter_read_only();
	while (tuplestore_gettupleslot(rows, true, false, slot))
		read_job(&batch->jobs[batch->njobs++], worker, slot, batch->context);
	jq_scope_leave();
	ExecDropSingleTupleTableSlot(slot);
}

static void
read_job(JqClaimedJob *job, const pg_uuid_t *worker, TupleTableSlot *slot,
		 MemoryContext context)
{
	int			session_ms[2] = {StatementTimeout,
	jq_executor_session_timeout_ms()};

	jq_job_body_read(slot, worker, jq_worker_role(), context, &job->held,
					 &job->body);
	job->is_suspect = job->body.crashes > 0;
	job->has_breaker =
		jq_job_type(job->body.job.job_type)->limits.breaker_threshold > 0;
	for (int i = 0; i < (int) lengthof(session_ms); i++)
		if (session_ms[i] > 0 && (job->body.timeout_ms == 0 ||
								  session_ms[i] < job->body.timeout_ms))
			job->body.timeout_ms = session_ms[i];
}

void
jq_claimed_outcome(const JqClaimedJob *job, JqOutcome *outcome)
{
	memset(outcome, 0, sizeof(*outcome));
	outcome->journal = &job->end.journal;
	outcome->command_tag = job->end.command_tag;
	switch (job->fate)
	{
		case JQ_FATE_COMPLETED:
			jq_job_body_outcome(&job->end, outcome);
			break;
		case JQ_FATE_FAILED:
			outcome->kind = JQ_OUTCOME_FAILED;
			outcome->error = jq_job_error_text(job->fault);
			outcome->sqlstate = job->fault->sqlerrcode;
			outcome->command_tag = NULL;
			break;
		case JQ_FATE_WAITING:
		case JQ_FATE_MOVED:
		case JQ_FATE_RELEASED:
			outcome->kind = JQ_OUTCOME_RELEASED;
			outcome->command_tag = NULL;
			break;
	}
}

void
jq_claimed_log_failure(const JqClaimedJob *job)
{
	if (jq_event_log_is_on() || !jq_config_logs(LOG))
		return;
	ereport(LOG,
			(errmsg("job %lld (%s) failed on attempt %d of %d: %s (%s)",
					(long long) job->held.job_id, job->body.job.job_type,
					job->body.job.attempt, job->body.job.max_attempts,
					job->fault->message,
					unpack_sql_state(job->fault->sqlerrcode))));
}
