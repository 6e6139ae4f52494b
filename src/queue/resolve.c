/*-------------------------------------------------------------------------
 *
 * resolve.c
 *	  Ending claims, and the other transitions of a single job.
 *
 * Every function here locks the job's row first, decides on what the locked
 * version says, and writes the next version.  A row that was moved to the
 * other leaf or deleted meanwhile reads as "not there".
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/compat.h"
#include "base/config.h"
#include "base/fault.h"
#include "base/protect.h"
#include "base/scope.h"
#include "base/shared_state.h"
#include "base/statement.h"
#include "base/table.h"
#include "queue/backoff_function.h"
#include "queue/cancellation.h"
#include "queue/change.h"
#include "queue/circuits.h"
#include "queue/completion.h"
#include "queue/dependencies.h"
#include "queue/dependents.h"
#include "queue/error_rules.h"
#include "queue/event_log.h"
#include "queue/job.h"
#include "queue/job_log.h"
#include "queue/job_types.h"
#include "queue/resolve.h"
#include "queue/running.h"
#include "queue/throttle.h"
#include "queue/unique.h"

/* A claim to be ended by jq_resolve_reclaim(). */
typedef struct LostJob
{
	int64		incarnation;
	int64		job_id;
	ItemPointerData tid;
	bool		is_reclaimed;
} LostJob;

/* What became of a job whose claim was to be ended. */
typedef enum ClaimEnd
{
	CLAIM_NOT_HELD,
	CLAIM_ENDED,
	CLAIM_FAILED,				/* without another attempt */
	CLAIM_COMPLETED				/* and its dependents are to be released */
} ClaimEnd;

static bool is_success(const JqOutcome *outcome);
static ClaimEnd end_held(const JqHeld *held, const JqOutcome *outcome);
static bool begin_held_change(JqChange *change, const JqHeld *held);
static ClaimEnd finish_claim(JqChange *change, const JqOutcome *outcome);
static void complete(JqChange *change, const JqRun *run);
static ClaimEnd fail(JqChange *change, const JqOutcome *outcome, JqRun *run);
static void fail_for_good(JqChange *change, JqRun *run);
static JqErrorVerdict judge(const JqChange *change, const JqOutcome *outcome,
							const JqRun *run);
static void give_attempt_back(JqChange *change);
static void requeue_later(JqChange *change, TimestampTz at);
static void end_without_success(JqChange *change, JqStatus status);
static TimestampTz retry_instant(const JqChange *change,
								 const JqOutcome *outcome,
								 const JqErrorVerdict *verdict,
								 const JqRun *run);
static int64 backoff_delay(const JqChange *change, const JqOutcome *outcome,
						   const JqRun *run);
static void check_unique_key(JqChange *change);
static void begin_fresh_start(JqChange *change);
pg_noreturn static void report_unknown_job(int64 job_id);
static void blame_process_end(const JqJob *job, JqOutcome *outcome);
static void reclaim_one(void *arg);
static int	compare_held(const void *a, const void *b, void *arg);

/* Locks a job that this worker holds, under this claim. */
static bool
begin_held_change(JqChange *change, const JqHeld *held)
{
	if (!jq_change_begin(change, jq_catalog()->jobs_queue_live, held->job_id))
		return false;
	if (jq_completion_is_held(&change->job, held))
		return true;
	jq_change_end(change);
	return false;
}

bool
jq_resolve(const JqHeld *held, const JqOutcome *outcome)
{
	bool		is_held;

	jq_resolve_many(held, outcome, 1, &is_held);
	return is_held;
}

void
jq_resolve_many(const JqHeld *held, const JqOutcome *outcomes, int count,
				bool *results)
{
	int		   *order = palloc(sizeof(int) * Max(count, 1));
	int64	   *completed = palloc(sizeof(int64) * Max(count, 1));
	int64	   *failed = palloc(sizeof(int64) * Max(count, 1));
	JqEndedJobs ended = {.completed = completed,.failed = failed};
	JqCompletion completion = {0};

	/* Jobs first, and then their children: each in the order of ids. */
	for (int i = 0; i < count; i++)
		order[i] = i;
	if (count > 1)
		qsort_arg(order, count, sizeof(int), compare_held,
				  unconstify(JqHeld *, held));

	jq_scope_enter_bare(JQ_WRITE_ENGINE);
	for (int i = 0; i < count; i++)
	{
		int			n = order[i];
		ClaimEnd	end = CLAIM_COMPLETED;

		CHECK_FOR_INTERRUPTS();
		if (is_success(&outcomes[n]))
			jq_completion_begin(&completion);
		else
			jq_completion_end(&completion);
		if (i > 0 && (!completion.is_open ||
					  held[n].job_id == held[order[i - 1]].job_id))
			jq_scope_refresh(); /* the same job may come twice */

		/* Somebody may be making this worker the holder: a lock waits. */
		if (!completion.is_open ||
			!jq_completion_complete(&completion, &held[n], &outcomes[n]))
			end = end_held(&held[n], &outcomes[n]);
		results[n] = end != CLAIM_NOT_HELD;
		if (end == CLAIM_COMPLETED)
			completed[ended.ncompleted++] = held[n].job_id;
		else if (end == CLAIM_FAILED)
			failed[ended.nfailed++] = held[n].job_id;
	}
	JQ_FAULT("in_resolve");
	jq_completion_end(&completion);
	jq_dependents_settle(&ended);
	jq_scope_leave();
}

static bool
is_success(const JqOutcome *outcome)
{
	return outcome->kind == JQ_OUTCOME_COMPLETED ||
		outcome->kind == JQ_OUTCOME_SKIPPED;
}

/* Ends one claim with a lock on its job. */
static ClaimEnd
end_held(const JqHeld *held, const JqOutcome *outcome)
{
	JqChange	change;
	ClaimEnd	end;

	if (!begin_held_change(&change, held))
		return CLAIM_NOT_HELD;
	end = finish_claim(&change, outcome);
	if (change.has_failed)
		end = CLAIM_FAILED;
	jq_change_end(&change);
	return end;
}

/* By job id; the same id in the order that it was given in. */
static int
compare_held(const void *a, const void *b, void *arg)
{
	const JqHeld *held = (const JqHeld *) arg;
	int			left = *(const int *) a;
	int			right = *(const int *) b;

	if (held[left].job_id != held[right].job_id)
		return held[left].job_id < held[right].job_id ? -1 : 1;
	return left - right;
}

/* Writes the next version of a running job, and the run. */
static ClaimEnd
finish_claim(JqChange *change, const JqOutcome *outcome)
{
	JqRun		run = {0};
	ClaimEnd	end = CLAIM_ENDED;

	jq_change_next(change);
	run.finished_at = change->now;
	run.charged = true;
	run.error = outcome->error ? jq_job_clip_error(outcome->error) : NULL;
	run.reason_length = outcome->reason_length;
	run.has_result = outcome->has_result;
	run.result = outcome->result;
	run.command_tag = outcome->command_tag;
	run.response = outcome->response;

	switch (outcome->kind)
	{
		case JQ_OUTCOME_COMPLETED:
			run.status = "completed";
			complete(change, &run);
			end = CLAIM_COMPLETED;
			break;
		case JQ_OUTCOME_SKIPPED:
			run.status = "skipped";
			complete(change, &run);
			end = CLAIM_COMPLETED;
			break;
		case JQ_OUTCOME_FAILED:
			run.status = "failed";
			end = fail(change, outcome, &run);
			break;
		case JQ_OUTCOME_EXPIRED:
			run.status = "expired";
			run.error = "lease expired";
			end = fail(change, outcome, &run);
			break;
		case JQ_OUTCOME_RELEASED:
			run.status = "released";
			run.charged = false;
			give_attempt_back(change);
			if (change->job.cancel_requested)
			{
				run.status = "cancelled";
				end_without_success(change, JQ_STATUS_CANCELLED);
			}
			else
				requeue_later(change, outcome->has_retry_at ?
							  outcome->retry_at : change->job.scheduled_at);
			break;
		case JQ_OUTCOME_CRASHED:
			run.status = "crashed";
			run.charged = false;
			run.error = "the server crashed while it ran this job";
			give_attempt_back(change);
			jq_job_set(change->next, JQ_JOB_CRASHES,
					   Int16GetDatum(change->job.crashes + 1));
			jq_job_set(change->next, JQ_JOB_LAST_ERROR,
					   CStringGetTextDatum(run.error));
			if (change->job.crashes + 1 >= jq_config_crash_limit)
				fail_for_good(change, &run);
			else
				requeue_later(change, change->job.scheduled_at);
			break;
	}
	jq_job_log_write(&change->job, outcome->journal);
	jq_job_record_run(&change->job, &run);
	return end;
}

/* To the done leaf, or away where completed jobs are not kept. */
static void
complete(JqChange *change, const JqRun *run)
{
	if (jq_job_type_drops_completed(change->job.job_type))
	{
		jq_job_delete(&change->table, change->row);
		return;
	}
	jq_change_next(change);
	jq_job_set_completed(change->next, &change->job, run);
	jq_change_move(change, jq_catalog()->jobs_queue_done);
}

/*
 * An end without success: another attempt, or the end of the job.  Charged,
 * and no completion, unless an error rule says so.
 */
static ClaimEnd
fail(JqChange *change, const JqOutcome *outcome, JqRun *run)
{
	JqJob	   *job = &change->job;
	JqErrorVerdict verdict;

	if (run->error == NULL)
		run->error = "unknown error";
	jq_job_set(change->next, JQ_JOB_LAST_ERROR,
			   CStringGetTextDatum(run->error));
	verdict = judge(change, outcome, run);
	if (verdict.throttle_us > 0)
		jq_throttle_after_error(job->job_type, verdict.throttle_us);
	if (job->cancel_requested)
	{
		run->status = "cancelled";
		end_without_success(change, JQ_STATUS_CANCELLED);
	}
	else if (verdict.action == JQ_ERROR_SKIP)
	{
		run->status = "skipped";
		complete(change, run);
		return CLAIM_COMPLETED;
	}
	else if (verdict.action == JQ_ERROR_RELEASE)
	{
		run->status = "released";
		run->charged = false;
		give_attempt_back(change);
		requeue_later(change, retry_instant(change, outcome, &verdict, run));
	}
	else if (verdict.action == JQ_ERROR_FAIL ||
			 (outcome->is_permanent && verdict.action != JQ_ERROR_RETRY) ||
			 job->attempts >= job->max_attempts)
		fail_for_good(change, run);
	else
	{
		run->will_retry = true;
		requeue_later(change, retry_instant(change, outcome, &verdict, run));
	}
	return CLAIM_ENDED;
}

/* A dead letter, where the job type has them. */
static void
fail_for_good(JqChange *change, JqRun *run)
{
	run->is_dead_letter = jq_job_type(change->job.job_type)->dead_letter;
	end_without_success(change, run->is_dead_letter ?
						JQ_STATUS_ERROR : JQ_STATUS_FAILED);
}

/* What somebody called permanent is so; of an HTTP status it is a default. */
static JqErrorVerdict
judge(const JqChange *change, const JqOutcome *outcome, const JqRun *run)
{
	JqErrorVerdict unruled = {JQ_ERROR_UNRULED};
	JqFailure	failure = {outcome->sqlstate, outcome->http_status, run->error};

	if (outcome->kind != JQ_OUTCOME_FAILED ||
		(outcome->is_permanent && outcome->http_status == 0))
		return unruled;
	return jq_error_rules_judge(jq_job_type(change->job.job_type)->error_rules,
								&failure);
}

static TimestampTz
retry_instant(const JqChange *change, const JqOutcome *outcome,
			  const JqErrorVerdict *verdict, const JqRun *run)
{
	TimestampTz at;

	if (outcome->kind == JQ_OUTCOME_EXPIRED)
		return change->job.scheduled_at;
	if (outcome->has_retry_at)
		at = outcome->retry_at;
	else
	{
		at = change->now + (verdict->has_delay ? verdict->delay_us :
							backoff_delay(change, outcome, run));
		at = Max(at, outcome->not_before);
	}
	if (verdict->action == JQ_ERROR_RELEASE)
		at = Max(at, change->now + JQ_MIN_RELEASE_US);
	return at;
}

/* Nobody's code runs for a worker that is gone. */
static int64
backoff_delay(const JqChange *change, const JqOutcome *outcome,
			  const JqRun *run)
{
	const JqJob *job = &change->job;
	const JqJobType *type = jq_job_type(job->job_type);
	double		random = pg_prng_double(&pg_global_prng_state);
	JqBackoff	backoff = type->backoff;
	double		delay_us;

	if (job->has_backoff)
		jq_backoff_parse(DatumGetJsonbP(job->backoff), "backoff", &backoff);
	else if (backoff.strategy == JQ_BACKOFF_FUNCTION &&
			 !outcome->is_reclaimed &&
			 jq_backoff_function_ask(&backoff, type->owner, job->job_type,
									 job->attempts, run->error, &delay_us))
		return jq_backoff_spread(&backoff, delay_us, random);
	if (backoff.strategy == JQ_BACKOFF_FUNCTION)
		jq_backoff_default(&backoff);
	return jq_backoff_delay(&backoff, job->attempts, random);
}

/* The end of a claim that is not charged. */
static void
give_attempt_back(JqChange *change)
{
	jq_job_set(change->next, JQ_JOB_ATTEMPTS,
			   Int16GetDatum(Max(change->job.attempts - 1, 0)));
}

static void
requeue_later(JqChange *change, TimestampTz at)
{
	jq_job_clear_claim(change->next);
	jq_job_set_status(change->next, &change->job, JQ_STATUS_QUEUED);
	jq_job_set(change->next, JQ_JOB_SCHEDULED_AT, TimestampTzGetDatum(at));
	jq_change_write(change);
}

/* The caller settles its dependents, with the table closed. */
static void
end_without_success(JqChange *change, JqStatus status)
{
	jq_job_clear_claim(change->next);
	jq_job_set_status(change->next, &change->job, status);
	jq_job_set(change->next, JQ_JOB_FINISHED_AT,
			   TimestampTzGetDatum(change->now));
	jq_change_move(change, jq_catalog()->jobs_queue_done);
	if (change->job.status == JQ_STATUS_BLOCKED)
		jq_dependencies_forget_pending(change->job.id);
	change->has_failed = true;
}

bool
jq_resolve_heartbeat(const JqHeld *held, int64 extend_us,
					 bool has_progress, Datum progress)
{
	JqChange	change;
	bool		goes_on;

	jq_scope_enter(JQ_WRITE_ENGINE);
	goes_on = begin_held_change(&change, held);
	if (goes_on)
	{
		if (extend_us == 0)
			extend_us = jq_job_type(change.job.job_type)->lease_us;
		jq_change_next(&change);
		jq_job_set(change.next, JQ_JOB_LEASE_EXPIRES_AT,
				   TimestampTzGetDatum(change.now + extend_us));
		if (has_progress)
			jq_job_set(change.next, JQ_JOB_PROGRESS, progress);
		jq_change_write(&change);
		JQ_FAULT("in_heartbeat");
		goes_on = !change.job.cancel_requested;
		jq_change_end(&change);
	}
	jq_scope_leave();
	return goes_on;
}

bool
jq_resolve_set_stage(const JqHeld *held, const char *stage)
{
	static const JqRun left_stage = {.status = "completed"};
	JqChange	change;
	bool		is_held;

	jq_scope_enter(JQ_WRITE_ENGINE);
	is_held = begin_held_change(&change, held);
	if (is_held)
	{
		jq_change_next(&change);
		jq_job_set(change.next, JQ_JOB_STAGE, CStringGetTextDatum(stage));
		jq_change_write(&change);
		if (strcmp(change.job.stage, stage) != 0)
			jq_circuit_note(&change.job, &left_stage);
		jq_change_end(&change);
	}
	jq_scope_leave();
	return is_held;
}

bool
jq_resolve_complete_unheld(int64 job_id, bool has_result, Datum result)
{
	const JqCatalog *catalog;
	JqChange	change;
	bool		done = false;
	bool		is_live;

	jq_scope_enter(JQ_WRITE_ENGINE);
	catalog = jq_catalog();
	if (jq_change_find(&change, job_id, &is_live))
	{
		done = change.job.status != JQ_STATUS_RUNNING &&
			change.job.status != JQ_STATUS_COMPLETED;
		if (done)
		{
			JqRun		run = {.finished_at = change.now};

			/* Without a run, this row is all that tells of it. */
			run.has_result = has_result;
			run.result = result;
			jq_change_next(&change);
			jq_job_set_completed(change.next, &change.job, &run);
			if (is_live)
				jq_change_move(&change, catalog->jobs_queue_done);
			else
				jq_change_write(&change);
			if (jq_event_log_is_on())
				jq_event_log_end(&change.job, JQ_STATUS_COMPLETED, NULL);
		}
		jq_change_end(&change);
	}
	if (done)
		jq_dependents_settle_completed(job_id);
	jq_scope_leave();
	return done;
}

void
jq_resolve_requeue(int64 job_id)
{
	JqChange	change;
	bool		is_live;

	jq_scope_enter(JQ_WRITE_ENGINE);
	if (!jq_change_find(&change, job_id, &is_live))
		report_unknown_job(job_id);
	if (is_live && change.job.status != JQ_STATUS_QUEUED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job " INT64_FORMAT " cannot be requeued while it is %s",
						job_id, jq_job_status_name(change.job.status)),
				 change.job.status == JQ_STATUS_RUNNING ?
				 errhint("Wait for its worker, or call cancel_job() first.") :
				 errhint("It is queued when the jobs it waits for complete.")));
	begin_fresh_start(&change);
	if (is_live)
		jq_change_write(&change);
	else
	{
		check_unique_key(&change);
		jq_change_move(&change, jq_catalog()->jobs_queue_live);
	}
	jq_change_end(&change);
	jq_scope_leave();
}

/* The index would say it, too, and less well. */
static void
check_unique_key(JqChange *change)
{
	bool		isnull;
	Datum		key = slot_getattr(change->row, JQ_JOB_UNIQUE_KEY, &isnull);

	if (!isnull)
		jq_unique_check_free(change->job.id,
							 CStringGetTextDatum(change->job.job_type), key);
}

bool
jq_resolve_requeue_ended(int64 job_id, int statuses, int64 delay_us)
{
	const JqCatalog *catalog;
	JqChange	change;
	bool		is_meant = false;

	jq_scope_enter(JQ_WRITE_ENGINE);
	catalog = jq_catalog();
	if (jq_change_begin(&change, catalog->jobs_queue_done, job_id))
	{
		is_meant = (statuses & (1 << change.job.status)) != 0;
		if (is_meant)
		{
			begin_fresh_start(&change);
			if (delay_us > 0)
				jq_job_set(change.next, JQ_JOB_SCHEDULED_AT,
						   TimestampTzGetDatum(change.now + delay_us));
			jq_change_move(&change, catalog->jobs_queue_live);
		}
		jq_change_end(&change);
	}
	jq_scope_leave();
	return is_meant;
}

void
jq_resolve_redrive(int64 job_id)
{
	JqChange	change;
	bool		is_live;

	jq_scope_enter(JQ_WRITE_ENGINE);
	if (!jq_change_find(&change, job_id, &is_live))
		report_unknown_job(job_id);
	if (change.job.status != JQ_STATUS_ERROR &&
		change.job.status != JQ_STATUS_FAILED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job " INT64_FORMAT " is no dead letter, but %s",
						job_id, jq_job_status_name(change.job.status)),
				 errhint("See dead_letter_jobs; requeue_job() takes others, too.")));
	begin_fresh_start(&change);
	jq_change_move(&change, jq_catalog()->jobs_queue_live);
	jq_change_end(&change);
	jq_scope_leave();
}

/* The next version of a job that starts over: now, with all attempts. */
static void
begin_fresh_start(JqChange *change)
{
	if (!OidIsValid(change->job.owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the owner of job " INT64_FORMAT " no longer exists",
						change->job.id),
				 errhint("Set its owner with UPDATE jobs_queue SET owner = ... first.")));
	jq_change_next(change);
	jq_job_set_status(change->next, &change->job, JQ_STATUS_QUEUED);
	jq_job_set(change->next, JQ_JOB_SCHEDULED_AT,
			   TimestampTzGetDatum(change->now));
	jq_job_set(change->next, JQ_JOB_ATTEMPTS, Int16GetDatum(0));
	jq_job_set(change->next, JQ_JOB_CRASHES, Int16GetDatum(0));
	jq_job_set(change->next, JQ_JOB_WAITING_FOR, Int32GetDatum(0));
	jq_job_set_null(change->next, JQ_JOB_LAST_ERROR);
	jq_job_set_null(change->next, JQ_JOB_RESULT);
	jq_job_set_null(change->next, JQ_JOB_FINISHED_AT);
	jq_job_set_null(change->next, JQ_JOB_CANCEL_REQUESTED_AT);
	if (jq_event_log_has_all())
		jq_event_log_requeued(&change->job);
}

static void
report_unknown_job(int64 job_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_NO_DATA_FOUND),
			 errmsg("job " INT64_FORMAT " does not exist", job_id)));
}

bool
jq_resolve_cancel(int64 job_id, const char *reason)
{
	JqChange	change;
	bool		is_live;

	jq_scope_enter(JQ_WRITE_ENGINE);
	if (!jq_change_find(&change, job_id, &is_live))
		report_unknown_job(job_id);
	if (is_live)
	{
		jq_change_next(&change);
		if (reason != NULL)
			jq_job_set(change.next, JQ_JOB_LAST_ERROR,
					   CStringGetTextDatum(jq_job_clip_error(reason)));
		if (change.job.status == JQ_STATUS_RUNNING)
		{
			jq_job_set(change.next, JQ_JOB_CANCEL_REQUESTED_AT,
					   TimestampTzGetDatum(change.now));
			jq_change_write(&change);
			if (change.job.holder != 0)
				jq_cancellation_note(&change.job.locked_by, change.job.id,
									 change.job.claim_no);
		}
		else
		{
			end_without_success(&change, JQ_STATUS_CANCELLED);
			if (jq_event_log_is_on())
				jq_event_log_end(&change.job, JQ_STATUS_CANCELLED, reason);
		}
	}
	jq_change_end(&change);
	if (change.has_failed)
		jq_dependents_settle_failed(job_id);
	jq_scope_leave();
	return is_live;
}

bool
jq_resolve_log(const JqHeld *held, const char *level, const char *message,
			   const char *data)
{
	JqChange	change;
	bool		is_held;

	jq_scope_enter(JQ_WRITE_ENGINE);
	is_held = begin_held_change(&change, held);
	if (is_held)
	{
		jq_job_log_add(&change.job, level, message, data);
		jq_change_end(&change);
	}
	jq_scope_leave();
	return is_held;
}

bool
jq_resolve_reject(int64 job_id, const char *error)
{
	JqChange	change;
	bool		is_waiting = false;

	jq_scope_enter(JQ_WRITE_ENGINE);
	if (jq_change_begin(&change, jq_catalog()->jobs_queue_live, job_id))
	{
		is_waiting = change.job.status != JQ_STATUS_RUNNING;
		if (is_waiting)
		{
			JqStatus	status = jq_job_type(change.job.job_type)->dead_letter ?
			JQ_STATUS_ERROR : JQ_STATUS_FAILED;

			jq_change_next(&change);
			jq_job_set(change.next, JQ_JOB_LAST_ERROR,
					   CStringGetTextDatum(jq_job_clip_error(error)));
			if (!SearchSysCacheExists1(AUTHOID,
									   ObjectIdGetDatum(change.job.owner)))
				jq_job_set_null(change.next, JQ_JOB_OWNER);
			end_without_success(&change, status);
			if (jq_event_log_is_on())
				jq_event_log_end(&change.job, status, error);
		}
		jq_change_end(&change);
		if (is_waiting)
			jq_dependents_settle_failed(job_id);
	}
	jq_scope_leave();
	return is_waiting;
}

int
jq_resolve_reclaim(int64 incarnation,
				   bool (*is_alive) (const pg_uuid_t *worker),
				   bool is_thorough)
{
	LostJob		lost = {.incarnation = incarnation};
	JqRunningJob *jobs;
	int			njobs;
	int			reclaimed = 0;

	jobs = jq_running_jobs(is_thorough, &njobs);
	for (int i = 0; i < njobs; i++)
	{
		ErrorData  *fault;

		CHECK_FOR_INTERRUPTS();
		if (!jq_running_is_lost(&jobs[i], incarnation, is_alive))
			continue;
		lost.job_id = jobs[i].id;
		lost.tid = jobs[i].tid;
		lost.is_reclaimed = false;
		fault = jq_protect(reclaim_one, &lost);
		if (fault != NULL)
			ereport(WARNING,
					(errcode(fault->sqlerrcode),
					 errmsg("could not take back job " INT64_FORMAT ": %s",
							lost.job_id, fault->message)));
		else if (lost.is_reclaimed)
			reclaimed++;
	}
	return reclaimed;
}

/* The job that was running has caused it, not those that were claimed with it. */
static void
blame_process_end(const JqJob *job, JqOutcome *outcome)
{
	int64		culprit;

	if (jq_shared_died_of(&job->locked_by, &culprit) && culprit != job->id)
	{
		outcome->kind = JQ_OUTCOME_RELEASED;
		return;
	}
	outcome->kind = JQ_OUTCOME_FAILED;
	outcome->error = "the process that ran this job was terminated (57P01)";
	outcome->sqlstate = ERRCODE_ADMIN_SHUTDOWN;
}

/* Ends one lost claim, unless somebody has the job locked or changed it. */
static void
reclaim_one(void *arg)
{
	LostJob    *lost = (LostJob *) arg;
	JqOutcome	outcome = {.kind = JQ_OUTCOME_EXPIRED,.is_reclaimed = true};
	ClaimEnd	end = CLAIM_NOT_HELD;
	JqChange	change;

	jq_scope_enter(JQ_WRITE_ENGINE);
	change.has_failed = false;
	jq_table_open(&change.table, jq_catalog()->jobs_queue_live);
	change.row = jq_table_slot(&change.table);
	if (jq_table_try_lock(&change.table, &lost->tid, change.row))
	{
		jq_job_read(change.row, &change.job);
		if (change.job.id == lost->job_id &&
			change.job.status == JQ_STATUS_RUNNING)
		{
			change.now = GetCurrentTimestamp();
			if (lost->incarnation != 0 && change.job.holder != 0)
			{
				outcome.kind = JQ_OUTCOME_CRASHED;
				if (change.job.holder == lost->incarnation)
					blame_process_end(&change.job, &outcome);
			}
			end = finish_claim(&change, &outcome);
			JQ_FAULT("in_watchdog");
			lost->is_reclaimed = true;
		}
	}
	jq_table_close(&change.table);
	if (end == CLAIM_COMPLETED)
		jq_dependents_settle_completed(lost->job_id);
	if (change.has_failed)
		jq_dependents_settle_failed(lost->job_id);
	jq_scope_leave();
}
