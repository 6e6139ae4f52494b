/*-------------------------------------------------------------------------
 *
 * row_update.c
 *	  What an UPDATE may make of a row of jobs_queue.
 *
 * First who may change what, then which status may follow which, then the
 * columns that follow from the status.  Values are looked at when one of
 * them changes: a job can be ended although a limit has changed since.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/ownership.h"
#include "queue/job.h"
#include "queue/row_rules.h"
#include "queue/row_update.h"

static void check_protected(const JqJobRow *was, const JqJobRow *is);
static void check_transition(const JqJobRow *was, const JqJobRow *is);
static void settle_status(const JqJobRow *was, JqJobRow *is);
static void settle_attempts(const JqJobRow *was, JqJobRow *is);

void
jq_row_update_settle(const JqJobRow *was, JqJobRow *is)
{
	check_protected(was, is);
	check_transition(was, is);
	if (!jq_job_row_has_owner(is))
		jq_job_row_clear(is, JQ_JOB_OWNER);
	settle_status(was, is);
	settle_attempts(was, is);
	if (jq_job_row_differs(was, is, JQ_JOB_PAYLOAD) ||
		jq_job_row_differs(was, is, JQ_JOB_JOB_TYPE) ||
		jq_job_row_differs(was, is, JQ_JOB_SCHEDULED_AT) ||
		jq_job_row_differs(was, is, JQ_JOB_TIMEOUT) ||
		jq_job_row_differs(was, is, JQ_JOB_BACKOFF) ||
		jq_job_row_differs(was, is, JQ_JOB_UNIQUE_KEY) ||
		jq_job_row_differs(was, is, JQ_JOB_GROUP_KEY) ||
		jq_job_row_differs(was, is, JQ_JOB_MAX_ATTEMPTS) ||
		jq_job_row_differs(was, is, JQ_JOB_STAGE))
		jq_row_rules_check_values(is);
	jq_job_row_set(is, JQ_JOB_UPDATED_AT,
				   TimestampTzGetDatum(GetCurrentTimestamp()));
}

/* What DML may not write at all, and what only the owner's friends may. */
static void
check_protected(const JqJobRow *was, const JqJobRow *is)
{
	static const int fixed[] = {JQ_JOB_ID, JQ_JOB_CLAIM_NO, JQ_JOB_HOLDER,
	JQ_JOB_IDEMPOTENCY_KEY, JQ_JOB_CRON_TASK_ID};
	static const int owned[] = {JQ_JOB_OWNER, JQ_JOB_JOB_TYPE, JQ_JOB_PAYLOAD};

	for (int i = 0; i < (int) lengthof(fixed); i++)
		if (jq_job_row_differs(was, is, fixed[i]))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("column \"%s\" of a job cannot be changed",
							NameStr(TupleDescAttr(was->desc, fixed[i] - 1)->attname))));
	for (int i = 0; i < (int) lengthof(owned); i++)
	{
		if (!jq_job_row_differs(was, is, owned[i]))
			continue;
		if (jq_job_row_has_owner(was))
			jq_ownership_check(GetUserId(),
							   DatumGetObjectId(jq_job_row_value(was, JQ_JOB_OWNER)), "job");
		if (jq_job_row_has_owner(is))
			jq_ownership_check(GetUserId(),
							   DatumGetObjectId(jq_job_row_value(is, JQ_JOB_OWNER)), "job");
		else if (!jq_job_status_is_final(jq_job_row_status(is)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("owner of a job must be a role")));
		if (!jq_job_row_has_owner(was))
			jq_ownership_check(GetUserId(), jq_catalog()->owner, "job");
		jq_row_rules_check_runs_as(is);
		jq_row_rules_check_message(is);
	}
}

static void
check_transition(const JqJobRow *was, const JqJobRow *is)
{
	JqStatus	from = jq_job_row_status(was);
	JqStatus	to = jq_job_row_status(is);
	int64		id = DatumGetInt64(jq_job_row_value(was, JQ_JOB_ID));

	if (from != to &&
		(to == JQ_STATUS_RUNNING || to == JQ_STATUS_BLOCKED ||
		 !jq_job_transition_is_legal(from, to)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job " INT64_FORMAT " cannot go from %s to %s", id,
						jq_job_status_name(from), jq_job_status_name(to)),
				 to == JQ_STATUS_RUNNING ?
				 errhint("Only claim_next_job() and claim_jobs() make a job running.") :
				 to == JQ_STATUS_BLOCKED ?
				 errhint("Only depends_on of enqueue_job() makes a job blocked.") :
				 errhint("Requeue it first: UPDATE jobs_queue SET status = 'queued' ...")));
	if (from == JQ_STATUS_RUNNING && to == from &&
		(jq_job_row_differs(was, is, JQ_JOB_LOCKED_BY) ||
		 jq_job_row_differs(was, is, JQ_JOB_LOCKED_AT)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the holder of job " INT64_FORMAT " cannot be changed", id),
				 errhint("Set status to \"queued\" to take the job from its worker.")));
	if (to == JQ_STATUS_QUEUED && !jq_job_row_has_owner(is))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the owner of job " INT64_FORMAT " no longer exists", id),
				 errhint("Set owner in the same UPDATE.")));
}

/* The columns that follow from the status. */
static void
settle_status(const JqJobRow *was, JqJobRow *is)
{
	JqStatus	from = jq_job_row_status(was);
	JqStatus	to = jq_job_row_status(is);

	if (to != JQ_STATUS_RUNNING)
		jq_job_row_clear_claim(is);
	if (from == to)
		return;
	if (jq_job_status_is_final(to))
	{
		if (!jq_job_row_differs(was, is, JQ_JOB_FINISHED_AT))
			jq_job_row_set(is, JQ_JOB_FINISHED_AT,
						   TimestampTzGetDatum(GetCurrentTimestamp()));
	}
	else
	{
		jq_job_row_clear(is, JQ_JOB_FINISHED_AT);
		jq_job_row_clear(is, JQ_JOB_RESULT);
		jq_job_row_set(is, JQ_JOB_WAITING_FOR, Int32GetDatum(0));
	}
}

/* A requeued job has all its attempts, unless the UPDATE says otherwise. */
static void
settle_attempts(const JqJobRow *was, JqJobRow *is)
{
	JqStatus	from = jq_job_row_status(was);
	JqStatus	to = jq_job_row_status(is);

	if (to != JQ_STATUS_QUEUED)
	{
		/* Not by the CHECK constraint, whose message would show the row. */
		if (jq_job_row_integer(is, JQ_JOB_ATTEMPTS) < 0 ||
			jq_job_row_integer(is, JQ_JOB_ATTEMPTS) > jq_job_row_integer(is, JQ_JOB_MAX_ATTEMPTS))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("attempts of a job must be from 0 to max_attempts")));
		return;
	}
	if (jq_job_status_is_final(from))
	{
		if (!jq_job_row_differs(was, is, JQ_JOB_ATTEMPTS))
			jq_job_row_set(is, JQ_JOB_ATTEMPTS, Int16GetDatum(0));
		if (!jq_job_row_differs(was, is, JQ_JOB_CRASHES))
			jq_job_row_set(is, JQ_JOB_CRASHES, Int16GetDatum(0));
	}
	if (jq_job_row_integer(is, JQ_JOB_ATTEMPTS) < 0 ||
		jq_job_row_integer(is, JQ_JOB_ATTEMPTS) >= jq_job_row_integer(is, JQ_JOB_MAX_ATTEMPTS))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("attempts of a queued job must be from 0 to less than max_attempts"),
				 errhint("Set attempts = 0, or raise max_attempts.")));
}
