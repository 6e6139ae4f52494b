/*-------------------------------------------------------------------------
 *
 * arguments.c
 *	  Checking the arguments of SQL-callable functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "api/arguments.h"
#include "base/names.h"
#include "base/ownership.h"
#include "base/scope.h"
#include "base/shared_state.h"
#include "queue/job_types.h"

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
jq_argument_unique(FunctionCallInfo fcinfo, int mode, int scope, JqNewJob *job)
{
	if (!PG_ARGISNULL(mode))
		job->unique_mode = jq_unique_mode(jq_argument_text(fcinfo, mode));
	if (!PG_ARGISNULL(scope))
		job->unique_scope = jq_unique_scope(jq_argument_text(fcinfo, scope));
	job->unique_period = jq_argument_datum(fcinfo, scope + 1);
	jq_enqueue_check_unique(job);
}

Oid
jq_argument_run_as(FunctionCallInfo fcinfo, int n)
{
	if (!PG_ARGISNULL(n))
	{
		jq_ownership_check_run_as(jq_scope_caller(), PG_GETARG_OID(n));
		return PG_GETARG_OID(n);
	}
	jq_ownership_check_superuser(jq_scope_caller());
	return InvalidOid;
}

void
jq_argument_notice_workers(void)
{
	if (!jq_shared_is_attached())
		ereport(NOTICE,
				(errmsg("this server does not run SQL jobs by itself"),
				 errhint("Add jobqueue to shared_preload_libraries and restart the server.")));
}

Datum *
jq_argument_array(FunctionCallInfo fcinfo, int n, Oid type, const char *name,
				  int expected, bool **nulls)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(n);
	Datum	   *elements;
	int			count;
	int16		length;
	bool		by_value;
	char		align;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("arrays must have one dimension")));
	if (name != NULL && array_contains_nulls(array))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not contain nulls", name)));
	get_typlenbyvalalign(type, &length, &by_value, &align);
	deconstruct_array(array, type, length, by_value, align,
					  &elements, nulls, &count);
	if (count != expected)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("arrays must have the same length as job_ids")));
	return elements;
}

List *
jq_argument_job_types(FunctionCallInfo fcinfo, int n)
{
	List	   *job_types = NIL;
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (PG_ARGISNULL(n))
		return NIL;
	count = ArrayGetNItems(ARR_NDIM(PG_GETARG_ARRAYTYPE_P(n)),
						   ARR_DIMS(PG_GETARG_ARRAYTYPE_P(n)));
	elements = jq_argument_array(fcinfo, n, TEXTOID, "job_types", count, &nulls);
	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("job_types must not be empty"),
				 errhint("NULL means every type that outside workers serve.")));
	for (int i = 0; i < count; i++)
		job_types = jq_argument_add_job_type(job_types,
											 TextDatumGetCString(elements[i]));
	return job_types;
}

List *
jq_argument_add_job_type(List *job_types, const char *job_type)
{
	ListCell   *cell;

	jq_name_check_required(job_type, "job_type");
	if (jq_job_type(job_type)->runner != JQ_RUNNER_EXTERNAL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("jobs of type \"%s\" are run by the server", job_type),
				 errhint("Workers claim the job types whose runner is \"external\".")));
	foreach(cell, job_types)
		if (strcmp((char *) lfirst(cell), job_type) == 0)
		return job_types;
	return lappend(job_types, pstrdup(job_type));
}
