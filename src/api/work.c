/*-------------------------------------------------------------------------
 *
 * work.c
 *	  SQL functions of workers: claim jobs, resolve them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/arguments.h"
#include "base/catalog.h"
#include "base/config.h"
#include "base/interval.h"
#include "base/names.h"
#include "base/scope.h"
#include "base/statement.h"
#include "queue/activity.h"
#include "queue/backoff.h"
#include "queue/claim.h"
#include "queue/error_rules.h"
#include "queue/job_types.h"
#include "queue/resolve.h"
#include "queue/validate.h"

PG_FUNCTION_INFO_V1(jobqueue_claim_next_job);
PG_FUNCTION_INFO_V1(jobqueue_claim_jobs);
PG_FUNCTION_INFO_V1(jobqueue_resolve_job);
PG_FUNCTION_INFO_V1(jobqueue_resolve_jobs);
PG_FUNCTION_INFO_V1(jobqueue_resolve_and_claim);
PG_FUNCTION_INFO_V1(jobqueue_complete_job);
PG_FUNCTION_INFO_V1(jobqueue_fail_job);
PG_FUNCTION_INFO_V1(jobqueue_skip_job);
PG_FUNCTION_INFO_V1(jobqueue_release_job);
PG_FUNCTION_INFO_V1(jobqueue_snooze_job);
PG_FUNCTION_INFO_V1(jobqueue_heartbeat_job);
PG_FUNCTION_INFO_V1(jobqueue_set_job_stage);
PG_FUNCTION_INFO_V1(jobqueue_register_worker);
PG_FUNCTION_INFO_V1(jobqueue_heartbeat_worker);

#define MAX_CLAIM 1000
#define MAX_LEASE_US USECS_PER_DAY
#define MAX_SNOOZE_US (366 * USECS_PER_DAY)

static void claim_rows(FunctionCallInfo fcinfo, JqClaim *claim);
static int	default_batch(const JqClaim *claim);
static void check_may_operate(void);
static int	read_resolutions(FunctionCallInfo fcinfo, JqHeld **held,
							 JqOutcome **outcomes);
static bool resolve(const JqHeld *held, bool success, const char *error);
static void read_error(JqOutcome *outcome);
static void check_positive(int64 value, const char *name);

Datum
jobqueue_claim_next_job(PG_FUNCTION_ARGS)
{
	JqClaim		claim = {.max_jobs = 1};

	jq_argument_worker(fcinfo, 0, &claim.worker);
	if (!PG_ARGISNULL(1))
		claim.job_types = jq_argument_add_job_type(NIL, jq_argument_text(fcinfo, 1));
	claim_rows(fcinfo, &claim);
	return (Datum) 0;
}

Datum
jobqueue_claim_jobs(PG_FUNCTION_ARGS)
{
	JqClaim		claim = {0};

	jq_argument_worker(fcinfo, 0, &claim.worker);
	claim.job_types = jq_argument_job_types(fcinfo, 1);
	claim.max_jobs = PG_ARGISNULL(2) ? default_batch(&claim) :
		PG_GETARG_INT32(2);
	jq_range_check(claim.max_jobs, "max_jobs", 1, MAX_CLAIM);
	if (!PG_ARGISNULL(3))
		claim.lease_us = jq_interval_us(PG_GETARG_INTERVAL_P(3), "lease",
										1, MAX_LEASE_US);
	claim_rows(fcinfo, &claim);
	return (Datum) 0;
}

/* The largest batch that one of the types asks for. */
static int
default_batch(const JqClaim *claim)
{
	int			batch = claim->job_types == NIL ? jq_config_batch_size : 1;
	ListCell   *cell;

	foreach(cell, claim->job_types)
		batch = Max(batch, jq_job_type((char *) lfirst(cell))->batch_size);
	return batch;
}

static void
claim_rows(FunctionCallInfo fcinfo, JqClaim *claim)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	(void) jq_claim(claim, rsinfo->setResult, rsinfo->setDesc);
}

Datum
jobqueue_resolve_job(PG_FUNCTION_ARGS)
{
	JqHeld		held;

	jq_argument_held(fcinfo, 4, &held);
	jq_argument_required(fcinfo, 2, "success");
	PG_RETURN_BOOL(resolve(&held, PG_GETARG_BOOL(2),
						   jq_argument_text(fcinfo, 3)));
}

static bool
resolve(const JqHeld *held, bool success, const char *error)
{
	JqOutcome	outcome = {
		.kind = success ? JQ_OUTCOME_COMPLETED : JQ_OUTCOME_FAILED,
		.error = error
	};

	read_error(&outcome);
	return jq_resolve(held, &outcome);
}

/* What the text of a failure tells, for the error rules. */
static void
read_error(JqOutcome *outcome)
{
	if (outcome->kind != JQ_OUTCOME_FAILED || outcome->is_permanent ||
		outcome->error == NULL)
		return;
	outcome->sqlstate = jq_error_rules_sqlstate(outcome->error);
	outcome->http_status = jq_error_rules_http_status(outcome->error);
}

Datum
jobqueue_resolve_jobs(PG_FUNCTION_ARGS)
{
	JqHeld	   *held;
	JqOutcome  *outcomes;
	bool	   *resolved;
	Datum	   *results;
	int			count;

	count = read_resolutions(fcinfo, &held, &outcomes);
	resolved = palloc(sizeof(bool) * Max(count, 1));
	results = palloc(sizeof(Datum) * Max(count, 1));
	jq_resolve_many(held, outcomes, count, resolved);
	for (int i = 0; i < count; i++)
		results[i] = BoolGetDatum(resolved[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(results, count, BOOLOID,
										  sizeof(bool), true, TYPALIGN_CHAR));
}

/* The arguments of resolve_jobs, all checked before the first is resolved. */
static int
read_resolutions(FunctionCallInfo fcinfo, JqHeld **held, JqOutcome **outcomes)
{
	pg_uuid_t	worker;
	Datum	   *ids;
	Datum	   *successes;
	Datum	   *errors = NULL;
	Datum	   *claim_nos = NULL;
	bool	   *nulls;
	bool	   *error_nulls = NULL;
	bool	   *claim_nulls = NULL;
	int			count;

	jq_argument_worker(fcinfo, 0, &worker);
	jq_argument_required(fcinfo, 1, "job_ids");
	jq_argument_required(fcinfo, 2, "successes");
	count = ArrayGetNItems(ARR_NDIM(PG_GETARG_ARRAYTYPE_P(1)),
						   ARR_DIMS(PG_GETARG_ARRAYTYPE_P(1)));
	ids = jq_argument_array(fcinfo, 1, INT8OID, "job_ids", count, &nulls);
	successes = jq_argument_array(fcinfo, 2, BOOLOID, "successes", count, &nulls);
	if (!PG_ARGISNULL(3))
		errors = jq_argument_array(fcinfo, 3, TEXTOID, NULL, count, &error_nulls);
	if (!PG_ARGISNULL(4))
		claim_nos = jq_argument_array(fcinfo, 4, INT4OID, NULL, count, &claim_nulls);

	*held = palloc0(sizeof(JqHeld) * Max(count, 1));
	*outcomes = palloc0(sizeof(JqOutcome) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		JqHeld	   *job = &(*held)[i];
		JqOutcome  *outcome = &(*outcomes)[i];

		job->worker = worker;
		job->job_id = DatumGetInt64(ids[i]);
		check_positive(job->job_id, "job_ids");
		if (claim_nos != NULL && !claim_nulls[i])
		{
			job->claim_no = DatumGetInt32(claim_nos[i]);
			check_positive(job->claim_no, "claim_nos");
		}
		outcome->kind = DatumGetBool(successes[i]) ? JQ_OUTCOME_COMPLETED :
			JQ_OUTCOME_FAILED;
		if (errors != NULL && !error_nulls[i])
			outcome->error = TextDatumGetCString(errors[i]);
		read_error(outcome);
	}
	return count;
}

/* An element of the array "name"; a claim_no of 0 would fence nothing. */
static void
check_positive(int64 value, const char *name)
{
	if (value <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be positive", name)));
}

Datum
jobqueue_resolve_and_claim(PG_FUNCTION_ARGS)
{
	JqClaim		claim = {.max_jobs = 1};
	JqHeld		held;

	jq_argument_held(fcinfo, 5, &held);
	jq_argument_required(fcinfo, 2, "success");
	claim.worker = held.worker;
	if (!PG_ARGISNULL(4))
		claim.job_types = jq_argument_add_job_type(NIL, jq_argument_text(fcinfo, 4));
	if (!resolve(&held, PG_GETARG_BOOL(2), jq_argument_text(fcinfo, 3)))
		ereport(NOTICE,
				(errmsg("job " INT64_FORMAT " is not held by this worker",
						held.job_id)));
	claim_rows(fcinfo, &claim);
	return (Datum) 0;
}

Datum
jobqueue_complete_job(PG_FUNCTION_ARGS)
{
	JqOutcome	outcome = {.kind = JQ_OUTCOME_COMPLETED};
	JqHeld		held;

	outcome.has_result = !PG_ARGISNULL(2);
	outcome.result = jq_argument_datum(fcinfo, 2);
	if (PG_ARGISNULL(1))
	{
		check_may_operate();
		PG_RETURN_BOOL(jq_resolve_complete_unheld(jq_argument_job_id(fcinfo, 0),
												  outcome.has_result,
												  outcome.result));
	}
	jq_argument_held(fcinfo, 3, &held);
	PG_RETURN_BOOL(jq_resolve(&held, &outcome));
}

/* Completing a job that one does not hold is what an operator may do. */
static void
check_may_operate(void)
{
	if (pg_class_aclcheck(jq_catalog()->jobs_queue, GetUserId(),
						  ACL_UPDATE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to complete a job without worker_id"),
				 errhint("Give the worker_id that holds the job, or ask for the operator's rights.")));
}

Datum
jobqueue_fail_job(PG_FUNCTION_ARGS)
{
	JqOutcome	outcome = {.kind = JQ_OUTCOME_FAILED};
	JqHeld		held;

	jq_argument_held(fcinfo, 5, &held);
	outcome.error = jq_argument_text(fcinfo, 2);
	outcome.has_retry_at = !PG_ARGISNULL(3);
	if (outcome.has_retry_at)
	{
		outcome.retry_at = PG_GETARG_TIMESTAMPTZ(3);
		jq_validate_instant(outcome.retry_at, "retry_at");
	}
	jq_argument_required(fcinfo, 4, "permanent");
	outcome.is_permanent = PG_GETARG_BOOL(4);
	read_error(&outcome);
	PG_RETURN_BOOL(jq_resolve(&held, &outcome));
}

Datum
jobqueue_skip_job(PG_FUNCTION_ARGS)
{
	JqOutcome	outcome = {.kind = JQ_OUTCOME_SKIPPED};
	JqHeld		held;

	jq_argument_held(fcinfo, 3, &held);
	outcome.error = jq_argument_text(fcinfo, 2);
	PG_RETURN_BOOL(jq_resolve(&held, &outcome));
}

Datum
jobqueue_release_job(PG_FUNCTION_ARGS)
{
	JqOutcome	outcome = {.kind = JQ_OUTCOME_RELEASED};
	JqHeld		held;

	jq_argument_held(fcinfo, 2, &held);
	PG_RETURN_BOOL(jq_resolve(&held, &outcome));
}

Datum
jobqueue_snooze_job(PG_FUNCTION_ARGS)
{
	JqOutcome	outcome = {.kind = JQ_OUTCOME_RELEASED,.has_retry_at = true};
	JqHeld		held;

	jq_argument_held(fcinfo, 3, &held);
	jq_argument_required(fcinfo, 2, "delay");
	outcome.retry_at = GetCurrentTimestamp() +
		jq_interval_us(PG_GETARG_INTERVAL_P(2), "delay", 0, MAX_SNOOZE_US);
	PG_RETURN_BOOL(jq_resolve(&held, &outcome));
}

Datum
jobqueue_heartbeat_job(PG_FUNCTION_ARGS)
{
	JqHeld		held;
	int64		extend_us = 0;
	bool		goes_on;

	jq_argument_held(fcinfo, 4, &held);
	if (!PG_ARGISNULL(2))
		extend_us = jq_interval_us(PG_GETARG_INTERVAL_P(2), "extend",
								   1, MAX_LEASE_US);
	if (!PG_ARGISNULL(3))
		jq_validate_payload(PG_GETARG_DATUM(3));
	goes_on = jq_resolve_heartbeat(&held, extend_us, !PG_ARGISNULL(3),
								   jq_argument_datum(fcinfo, 3));
	(void) jq_activity_tell_stopped(&held.worker);
	PG_RETURN_BOOL(goes_on);
}

Datum
jobqueue_set_job_stage(PG_FUNCTION_ARGS)
{
	JqHeld		held;
	char	   *stage;

	jq_argument_held(fcinfo, 3, &held);
	jq_argument_required(fcinfo, 2, "stage");
	stage = jq_argument_text(fcinfo, 2);
	jq_name_check(stage, "stage", 0, 255);
	PG_RETURN_BOOL(jq_resolve_set_stage(&held, stage));
}

static JqStatement register_statement = {
	.text = "INSERT INTO @.registered_workers AS w"
	" (worker_id, name, info, registered_by) VALUES ($1, $2, $3, $4)"
	" ON CONFLICT (worker_id) DO UPDATE SET name = $2, info = $3,"
	" registered_by = $4, registered_at = now(), last_seen_at = now()",
	.nargs = 4,
	.argtypes = {UUIDOID, TEXTOID, JSONBOID, REGROLEOID}
};

/* A worker that calls it in a loop must not fill the table. */
static JqStatement seen_statement = {
	.text = "UPDATE @.registered_workers SET last_seen_at = clock_timestamp()"
	" WHERE worker_id = $1"
	" AND last_seen_at < clock_timestamp() - interval '1 second'",
	.nargs = 1,
	.argtypes = {UUIDOID}
};

Datum
jobqueue_register_worker(PG_FUNCTION_ARGS)
{
	pg_uuid_t	worker;
	Datum		values[4];
	char		nulls[] = "    ";
	char	   *name = jq_argument_text(fcinfo, 1);

	jq_argument_worker(fcinfo, 0, &worker);
	if (name != NULL)
		jq_name_check_required(name, "name");
	if (!PG_ARGISNULL(2))
		jq_validate_payload(PG_GETARG_DATUM(2));
	values[0] = UUIDPGetDatum(&worker);
	values[1] = jq_argument_datum(fcinfo, 1);
	values[2] = jq_argument_datum(fcinfo, 2);
	values[3] = ObjectIdGetDatum(GetUserId());
	if (PG_ARGISNULL(1))
		nulls[1] = 'n';
	if (PG_ARGISNULL(2))
		nulls[2] = 'n';
	jq_scope_enter(JQ_WRITE_ENGINE);
	jq_statement_execute(&register_statement, values, nulls, 0);
	jq_scope_leave();
	jq_activity_unstop_worker(&worker);
	PG_RETURN_VOID();
}

Datum
jobqueue_heartbeat_worker(PG_FUNCTION_ARGS)
{
	pg_uuid_t	worker;
	Datum		values[1];

	jq_argument_worker(fcinfo, 0, &worker);
	values[0] = UUIDPGetDatum(&worker);
	jq_scope_enter(JQ_WRITE_ENGINE);
	(void) jq_statement_execute(&seen_statement, values, NULL, 0);
	jq_scope_leave();
	PG_RETURN_BOOL(!jq_activity_tell_stopped(&worker));
}
