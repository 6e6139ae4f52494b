/*-------------------------------------------------------------------------
 *
 * arguments.c
 *	  Checking the arguments of SQL-callable functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "api/arguments.h"
#include "base/shared_state.h"

void
jq_argument_required(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

void
jq_argument_worker(FunctionCallInfo fcinfo, int n, pg_uuid_t *worker)
{
	static const pg_uuid_t nil;

	jq_argument_required(fcinfo, n, "worker_id");
	*worker = *PG_GETARG_UUID_P(n);
	if (memcmp(worker, &nil, sizeof(nil)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("worker_id must not be the nil uuid"),
				 errhint("Give each worker instance an id of its own, for example with gen_random_uuid().")));
}

int64
jq_argument_job_id(FunctionCallInfo fcinfo, int n)
{
	jq_argument_required(fcinfo, n, "job_id");
	if (PG_GETARG_INT64(n) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("job_id must be positive")));
	return PG_GETARG_INT64(n);
}

char *
jq_argument_text(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

Datum
jq_argument_datum(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? (Datum) 0 : PG_GETARG_DATUM(n);
}

void
jq_argument_held(FunctionCallInfo fcinfo, int claim_no, JqHeld *held)
{
	held->job_id = jq_argument_job_id(fcinfo, 0);
	jq_argument_worker(fcinfo, 1, &held->worker);
	held->claim_no = jq_argument_claim_no(fcinfo, claim_no);
}

int32
jq_argument_claim_no(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		return 0;
	if (PG_GETARG_INT32(n) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("claim_no must be positive")));
	return PG_GETARG_INT32(n);
}

void
jq_argument_notice_workers(void)
{
	if (!jq_shared_is_attached())
		ereport(NOTICE,
				(errmsg("this server does not run SQL jobs by itself"),
				 errhint("Add jobqueue to shared_preload_libraries and restart the server.")));
}
