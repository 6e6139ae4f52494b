/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  Runs the jobs of a claim: together, alone, or on their own terms.
 *
 * Together: one transaction, a subtransaction for each body, and at the end
 * the completions of all, so that effects and completions commit together and
 * one flush serves many jobs.  An error rolls back its own job only.  A body
 * that is too long for the company, that lost a lock to it, or that cannot run
 * in a subtransaction is rolled back, the others commit, and it runs again
 * alone, under the same claim.  So does each of them when the transaction as a
 * whole fails: then the fault finds its job.
 *
 * Alone: the same with one body.  An error rolls back the transaction, and
 * another one records it.
 *
 * Autonomous: the body has its own transactions, and the completion another
 * one: what a crash between them hides is run again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/batch.h"

#include "access/xact.h"
#include "base/config.h"
#include "base/db.h"
#include "base/fault.h"
#include "base/protect.h"
#include "base/shared_state.h"
#include "body/session.h"
#include "body/watch.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "queue/circuits.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define MAX_TRIES 3				/* of a body that collided with others */
#define ACTIVITY_LENGTH 300

/* The part of a batch that shares a transaction. */
typedef struct Company
{
	JqBatch    *batch;
	int			first;			/* of batch->jobs; up to batch->next */
	bool		(*may_go_on) (void);
	bool		session_is_tidy;
	bool		gives_back;		/* what waits behind the company */
} Company;

static void heed_circuits(JqBatch *batch);
static void release_barred(void *arg);
static bool run_together(Company *company);
static bool commit_together(Company *company);
static void run_bodies(Company *company);
static bool may_join(const Company *company);
static void try_body(JqClaimedJob *job, bool is_in_batch);
static void perform_body(void *arg);
static JqFate fate_of_fault(const JqClaimedJob *job, bool is_in_batch);
static void settle(Company *company);
static bool finish_company(Company *company, bool is_committed);
static void end_job_if(bool is_fine);
static bool release_cancelled(JqClaimedJob *job);
static bool run_on_its_own(JqClaimedJob *job);
static bool run_alone(JqClaimedJob *job);
static bool run_autonomous(JqClaimedJob *job);
static void record_end(void *arg);
static void begin_body(JqClaimedJob *job, bool is_in_batch);
static void end_body(void);
static void report_activity(const JqClaimedJob *job);

bool
jq_batch_run(JqBatch *batch, bool (*may_go_on) (void))
{
	for (;;)
	{
		JqClaimedJob *job;
		Company		company = {.batch = batch,.first = batch->next};
		bool		is_fine;

		heed_circuits(batch);
		if (batch->next >= batch->njobs || !may_go_on())
			break;
		job = &batch->jobs[batch->next];
		company.may_go_on = may_go_on;
		if (!job->is_suspect && jq_config_executor_batch_size > 1 &&
			jq_body_mode(&job->body) == JQ_MODE_BATCHED)
			is_fine = run_together(&company);
		else
		{
			JqBegin		begin = jq_shared_begin_job(job->held.job_id,
													job->held.claim_no,
													batch->njobs - batch->next - 1);

			if (begin == JQ_BEGIN_TAKEN)
				break;
			batch->next++;
			if (begin == JQ_BEGIN_CANCELLED)
				is_fine = release_cancelled(job);
			else
				is_fine = run_on_its_own(job);
			end_job_if(is_fine);
		}
		if (!is_fine)
			return false;
		if (company.first == batch->next)
			break;				/* taken away */
		QueryCancelPending = false; /* no body runs: it came too late */
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

/* Gives back what waits behind a circuit that has opened since the claim. */
static void
heed_circuits(JqBatch *batch)
{
	if (batch->next < batch->njobs &&
		batch->circuits != jq_circuits_generation())
		(void) jq_worker_protect(release_barred, batch);
}

/* A unit of work. */
static void
release_barred(void *arg)
{
	JqBatch    *batch = (JqBatch *) arg;
	bool	   *is_barred = palloc0(sizeof(bool) * batch->njobs);
	uint64		circuits = jq_circuits_generation();
	JqOutcome	outcome = {.kind = JQ_OUTCOME_RELEASED};
	int			kept = batch->next;

	jq_db_begin("releasing jobs");
	for (int i = batch->next; i < batch->njobs; i++)
	{
		const JqClaimedJob *job = &batch->jobs[i];

		is_barred[i] = jq_circuit_bars(job->body.job.job_type,
									   job->body.job.stage,
									   job->held.job_id, job->held.claim_no);
		if (is_barred[i])
			(void) jq_resolve(&job->held, &outcome);
	}
	jq_db_commit();

	for (int i = batch->next; i < batch->njobs; i++)
		if (!is_barred[i])
			batch->jobs[kept++] = batch->jobs[i];
	batch->njobs = kept;
	batch->circuits = circuits;
}

/* False: see jq_batch_run(). */
static bool
run_together(Company *company)
{
	bool		is_committed = commit_together(company);

	JQ_FAULT("after_batch_commit");
	return finish_company(company, is_committed);
}

/* False: the transaction has failed, and nothing of it is left. */
static bool
commit_together(Company *company)
{
	MemoryContext context = company->batch->context;
	volatile bool is_committed = true;

	PG_TRY();
	{
		jq_db_begin_as_session("running jobs");
		MemoryContextSwitchTo(context);
		jq_watch_begin();
		run_bodies(company);
		jq_watch_end();
		JQ_FAULT("after_body_before_resolve");
		settle(company);
		JQ_FAULT("before_batch_commit");
		jq_db_commit();
	}
	PG_CATCH();
	{
		is_committed = false;
		jq_watch_end();
		MemoryContextSwitchTo(context);
		if (jq_config_logs(DEBUG1))
			ereport(DEBUG1,
					(errmsg("%d jobs that shared a transaction are run again one by one",
							company->batch->next - company->first)));
		FlushErrorState();
		jq_db_abort();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return is_committed;
}

static void
run_bodies(Company *company)
{
	JqBatch    *batch = company->batch;

	company->session_is_tidy = true;
	while (may_join(company))
	{
		JqClaimedJob *job = &batch->jobs[batch->next];
		JqBegin		begin = jq_shared_begin_job(job->held.job_id,
												job->held.claim_no,
												batch->njobs - batch->next - 1);

		if (begin == JQ_BEGIN_TAKEN)
			return;
		batch->next++;
		if (begin == JQ_BEGIN_CANCELLED)
			job->fate = JQ_FATE_RELEASED;
		else
		{
			try_body(job, batch->next - 1 > company->first);
			company->session_is_tidy = jq_session_tidy();
		}
		if (job->fate == JQ_FATE_MOVED || !company->session_is_tidy)
			return;
		CHECK_FOR_INTERRUPTS();
	}
}

static bool
may_join(const Company *company)
{
	const JqBatch *batch = company->batch;
	int			count = batch->next - company->first;

	if (batch->next >= batch->njobs)
		return false;
	if (count == 0)
		return true;

	/* The next one may not begin before this failure counts. */
	if (batch->jobs[batch->next - 1].fate == JQ_FATE_FAILED &&
		batch->jobs[batch->next - 1].has_breaker)
		return false;
	return batch->circuits == jq_circuits_generation() && count < jq_config_executor_batch_size &&
		!jq_watch_batch_is_over() &&
		jq_body_mode(&batch->jobs[batch->next].body) == JQ_MODE_BATCHED &&
		company->may_go_on();
}

/* One body, in a subtransaction. */
static void
try_body(JqClaimedJob *job, bool is_in_batch)
{
	begin_body(job, is_in_batch);
	job->fault = jq_attempt(perform_body, job);
	end_body();
	if (job->fault != NULL)
		job->fate = fate_of_fault(job, is_in_batch);
	if (job->fate == JQ_FATE_COMPLETED && !is_in_batch &&
		jq_watch_batch_is_over())
		jq_body_learn_mode(&job->body, JQ_MODE_ALONE);
}

/* Settings that the body changes, for the session too, end with it. */
static void
perform_body(void *arg)
{
	JqClaimedJob *job = (JqClaimedJob *) arg;
	int			level;

	if (jq_body_read_mode(&job->body) != JQ_MODE_BATCHED)
	{
		job->fate = JQ_FATE_MOVED;
		return;
	}
	level = NewGUCNestLevel();
	JQ_FAULT("before_body");
	jq_body_run(&job->body, &job->end);

	/*
	 * Triggers that the body deferred fire now, as the role.  SET CONSTRAINTS
	 * would decide for the jobs that follow, too.
	 */
	AfterTriggerFireDeferred();
	AtEOXact_GUC(false, level);

	/*
	 * Nobody has cancelled this job, but it may have seen a cancellation,
	 * handled it and gone another way than it would alone.
	 */
	if (jq_watch_cut() == JQ_CUT_BATCH)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("job is run again outside of its batch")));
	job->fate = JQ_FATE_COMPLETED;
}

/* Also learns from it. */
static JqFate
fate_of_fault(const JqClaimedJob *job, bool is_in_batch)
{
	/* Whatever became of a body that noticed: without company it would not. */
	if (jq_watch_cut() == JQ_CUT_BATCH)
	{
		jq_body_learn_mode(&job->body, JQ_MODE_ALONE);
		return JQ_FATE_MOVED;
	}
	if (jq_body_wants_autonomy(&job->body, job->fault))
	{
		jq_body_learn_mode(&job->body, JQ_MODE_AUTONOMOUS);
		return JQ_FATE_MOVED;
	}
	if (job->fault->sqlerrcode == ERRCODE_ACTIVE_SQL_TRANSACTION &&
		jq_body_mode(&job->body) == JQ_MODE_BATCHED)
	{
		/* It may only want to be first, or no subtransaction. */
		jq_body_learn_mode(&job->body, JQ_MODE_ALONE);
		return JQ_FATE_MOVED;
	}
	switch (ERRCODE_TO_CATEGORY(job->fault->sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
			return JQ_FATE_MOVED;
	}
	if (job->fault->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE && is_in_batch)
		return JQ_FATE_MOVED;
	if (job->fault->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		jq_watch_cut() == JQ_CUT_SHUTDOWN)
		return JQ_FATE_RELEASED;
	return JQ_FATE_FAILED;
}

/*
 * Records the ends of the company, and gives back what would wait behind one
 * that is about to run alone.
 */
static void
settle(Company *company)
{
	JqBatch    *batch = company->batch;
	bool		gives_back = batch->next > company->first &&
	batch->jobs[batch->next - 1].fate == JQ_FATE_MOVED &&
	jq_watch_cut() == JQ_CUT_BATCH;
	int			end = gives_back ? batch->njobs : batch->next;
	JqHeld	   *held = palloc(sizeof(JqHeld) * (end - company->first));
	JqOutcome  *outcomes = palloc(sizeof(JqOutcome) * (end - company->first));
	bool	   *results = palloc(sizeof(bool) * (end - company->first));
	int			count = 0;

	for (int i = company->first; i < end; i++)
	{
		if (batch->jobs[i].fate == JQ_FATE_MOVED)
			continue;
		held[count] = batch->jobs[i].held;
		jq_claimed_outcome(&batch->jobs[i], &outcomes[count++]);
	}
	jq_db_pin_rest();
	jq_resolve_many(held, outcomes, count, results);
	for (int i = 0; i < count; i++)
		if (!results[i] && (outcomes[i].kind == JQ_OUTCOME_COMPLETED ||
							outcomes[i].kind == JQ_OUTCOME_SKIPPED))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("job %lld is not held any more",
							(long long) held[i].job_id)));
	company->gives_back = gives_back;
}

/* What the shared transaction could not do is done for each job by itself. */
static bool
finish_company(Company *company, bool is_committed)
{
	JqBatch    *batch = company->batch;
	bool		is_fine = true;
	int			end = batch->next;

	if (is_committed && company->gives_back)
		batch->next = batch->njobs;
	if (!company->session_is_tidy)
		is_fine = jq_worker_protect(jq_session_reset, NULL);
	end_job_if(is_fine);
	for (int i = company->first; i < end && is_fine; i++)
	{
		JqClaimedJob *job = &batch->jobs[i];
		bool		must_run = job->fate == JQ_FATE_MOVED ||
		(!is_committed && job->fate == JQ_FATE_COMPLETED);

		if (must_run || !is_committed)
		{
			bool		may_run = jq_shared_resume_job(job->held.job_id,
													   job->held.claim_no);

			if (!must_run)
				is_fine = jq_worker_protect(record_end, job);
			else if (may_run)
				is_fine = run_on_its_own(job);
			else
				is_fine = release_cancelled(job);
			end_job_if(is_fine);
		}
		else if (job->fate == JQ_FATE_FAILED)
			jq_claimed_log_failure(job);
	}
	return is_fine;
}

/* If not, this process ends because of the job, which is to be seen. */
static void
end_job_if(bool is_fine)
{
	if (is_fine)
		jq_shared_end_job();
}

/* Of a job that was cancelled before it could begin. */
static bool
release_cancelled(JqClaimedJob *job)
{
	job->fate = JQ_FATE_RELEASED;
	return jq_worker_protect(record_end, job);
}

/* Runs a job and sees to it that its end is recorded, or this process ends. */
static bool
run_on_its_own(JqClaimedJob *job)
{
	TimestampTz started_at = GetCurrentTimestamp();
	bool		is_recorded = false;

	for (int i = 0; i < MAX_TRIES; i++)
	{
		is_recorded = jq_body_mode(&job->body) == JQ_MODE_AUTONOMOUS ?
			run_autonomous(job) : run_alone(job);
		if (job->fate != JQ_FATE_MOVED)
			break;
		if (!jq_worker_protect(jq_session_reset, NULL))
			return false;
	}
	if (job->fate == JQ_FATE_MOVED)
		job->fate = JQ_FATE_FAILED;
	jq_body_learn_duration(&job->body,
						   TimestampDifferenceMilliseconds(started_at,
														   GetCurrentTimestamp()));
	if (!is_recorded && !jq_worker_protect(record_end, job))
		return false;
	return jq_worker_protect(jq_session_reset, NULL);
}

/* What surrounds a body; the second also after an error. */
static void
begin_body(JqClaimedJob *job, bool is_in_batch)
{
	report_activity(job);
	job->fault = NULL;
	memset(&job->end, 0, sizeof(job->end));
	if (job->body.timeout_ms > 0)
		job->body.job.deadline =
			TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										job->body.timeout_ms);
	jq_current_set(&job->body.job);
	(void) jq_journal_begin(&job->end.journal, CurrentMemoryContext);
	jq_watch_enter_body(is_in_batch, job->body.timeout_ms);
}

static void
end_body(void)
{
	jq_watch_leave_body();
	jq_journal_end(NULL);
	jq_current_set(NULL);
}

/* In PG_CATCH: nothing of the body's transaction is left, job->fault is set. */
static void
note_fault(JqClaimedJob *job, MemoryContext context)
{
	end_body();
	jq_watch_end();
	MemoryContextSwitchTo(context);
	job->fault = CopyErrorData();
	FlushErrorState();
	jq_db_abort();
	MemoryContextSwitchTo(context);
	job->fate = fate_of_fault(job, false);
}

/*
 * True: committed with its completion.  The completion is written even if the
 * body, or the role's settings, made the transaction read-only.
 */
static bool
run_alone(JqClaimedJob *job)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool is_recorded = true;

	PG_TRY();
	{
		JqOutcome	outcome;

		jq_db_begin_as_session("running a job");
		MemoryContextSwitchTo(context);
		jq_watch_begin();
		begin_body(job, false);
		JQ_FAULT("before_body");
		jq_body_run(&job->body, &job->end);
		AfterTriggerFireDeferred();
		end_body();
		jq_watch_end();

		JQ_FAULT("after_body_before_resolve");
		job->fate = JQ_FATE_COMPLETED;
		jq_claimed_outcome(job, &outcome);
		jq_db_pin_rest();
		if (!jq_resolve(&job->held, &outcome))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("job %lld is not held any more",
							(long long) job->held.job_id)));
		jq_db_commit();
	}
	PG_CATCH();
	{
		is_recorded = false;
		note_fault(job, context);
	}
	PG_END_TRY();
	return is_recorded;
}

/* Never recorded yet. */
static bool
run_autonomous(JqClaimedJob *job)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		jq_watch_begin();
		begin_body(job, false);
		JQ_FAULT("before_body");
		jq_body_run_autonomous(&job->body, &job->end);
		end_body();
		jq_watch_end();
		job->fate = JQ_FATE_COMPLETED;
	}
	PG_CATCH();
	{
		note_fault(job, context);

		/* What it has committed stays: it must not simply begin again. */
		if (job->fate == JQ_FATE_MOVED)
			job->fate = JQ_FATE_FAILED;
	}
	PG_END_TRY();
	return false;
}

/* A unit of work: records the end of a job in a transaction of its own. */
static void
record_end(void *arg)
{
	JqClaimedJob *job = (JqClaimedJob *) arg;
	JqOutcome	outcome;
	bool		is_held;

	JQ_FAULT("after_body_before_resolve");
	jq_claimed_outcome(job, &outcome);
	jq_db_begin("recording the end of a job");
	is_held = jq_resolve(&job->held, &outcome);
	jq_db_commit();

	if (!is_held && jq_config_logs(DEBUG1))
		ereport(DEBUG1,
				(errmsg("job %lld (%s) was lost while it ran",
						(long long) job->held.job_id,
						job->body.job.job_type)));
	if (is_held && job->fate == JQ_FATE_FAILED)
		jq_claimed_log_failure(job);
}

static void
report_activity(const JqClaimedJob *job)
{
	char		activity[ACTIVITY_LENGTH];

	snprintf(activity, sizeof(activity), "job %lld (%s)",
			 (long long) job->held.job_id, job->body.job.job_type);
	pgstat_report_activity(STATE_RUNNING, activity);
}

/* A unit of work. */
static void
release_rest(void *arg)
{
	JqBatch    *batch = (JqBatch *) arg;
	JqOutcome	outcome = {.kind = JQ_OUTCOME_RELEASED};

	JQ_FAULT("before_release");
	jq_db_begin("releasing jobs");
	for (int i = batch->next; i < batch->njobs; i++)
		(void) jq_resolve(&batch->jobs[i].held, &outcome);
	jq_db_commit();
}

bool
jq_batch_release(JqBatch *batch)
{
	return batch->next >= batch->njobs ||
		jq_worker_protect(release_rest, batch);
}
