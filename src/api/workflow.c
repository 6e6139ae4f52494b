/*-------------------------------------------------------------------------
 *
 * workflow.c
 *	  SQL functions about jobs and those that they wait for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "api/arguments.h"
#include "base/catalog.h"
#include "base/compat.h"
#include "base/scope.h"
#include "base/statement.h"
#include "body/current.h"

PG_FUNCTION_INFO_V1(jobqueue_parent_results);

#define RESULT_COLUMNS 4

static JqStatement find_holder = {
	.text = "SELECT q.owner::oid, q.locked_by FROM @.jobs_queue q"
	" WHERE q.id = $1",
	.nargs = 1,
	.argtypes = {INT8OID}
};

static JqStatement select_results = {
	.text = "SELECT d.depends_on, coalesce(d.job_type, q.job_type),"
	" coalesce(d.status, q.status), d.result FROM @.job_dependencies d"
	" LEFT JOIN @.jobs_queue q ON q.id = d.depends_on AND d.status IS NULL"
	" WHERE d.job_id = $1 ORDER BY d.depends_on",
	.nargs = 1,
	.argtypes = {INT8OID}
};

static int64 wanted_job(FunctionCallInfo fcinfo, bool *is_current);
static void check_may_read(FunctionCallInfo fcinfo, int64 job_id);

/* parent_results(job_id bigint, worker_id uuid) */
Datum
jobqueue_parent_results(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		is_current;
	int64		job_id = wanted_job(fcinfo, &is_current);
	Datum		values[RESULT_COLUMNS] = {Int64GetDatum(job_id)};
	uint64		rows;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	jq_scope_enter_read_only();
	if (!is_current)
		check_may_read(fcinfo, job_id);
	rows = jq_statement_query(&select_results, values, NULL, 0);
	for (uint64 i = 0; i < rows; i++)
	{
		bool		nulls[RESULT_COLUMNS];

		for (int n = 0; n < RESULT_COLUMNS; n++)
			values[n] = jq_statement_nullable(i, n + 1, &nulls[n]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	jq_scope_leave();
	return (Datum) 0;
}

static int64
wanted_job(FunctionCallInfo fcinfo, bool *is_current)
{
	const JqCurrentJob *current = jq_current_job();
	int64		job_id;

	if (PG_ARGISNULL(0))
	{
		if (current == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("no job runs in this session"),
					 errhint("An outside worker gives job_id and worker_id.")));
		*is_current = true;
		return current->job_id;
	}
	job_id = jq_argument_job_id(fcinfo, 0);
	*is_current = current != NULL && current->job_id == job_id;
	return job_id;
}

/*
 * For who holds the job, who owns it, and who may read all jobs.  The results
 * are those that its owner may see: see jq_dependencies_look().
 */
static void
check_may_read(FunctionCallInfo fcinfo, int64 job_id)
{
	Datum		values[1] = {Int64GetDatum(job_id)};
	Oid			caller = jq_scope_caller();
	Datum		owner;
	Datum		holder;
	bool		has_no_owner;
	bool		is_free;
	pg_uuid_t	worker;

	if (pg_class_aclcheck(jq_catalog()->jobs_queue, caller, ACL_SELECT) == ACLCHECK_OK)
		return;
	if (jq_statement_query(&find_holder, values, NULL, 1) > 0)
	{
		owner = jq_statement_nullable(0, 1, &has_no_owner);
		if (!has_no_owner && has_privs_of_role(caller, DatumGetObjectId(owner)))
			return;
		holder = jq_statement_nullable(0, 2, &is_free);
		if (!is_free && !PG_ARGISNULL(1))
		{
			jq_argument_worker(fcinfo, 1, &worker);
			if (memcmp(DatumGetUUIDP(holder), &worker, sizeof(worker)) == 0)
				return;
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for the results of the parents of job " INT64_FORMAT,
					job_id),
			 errhint("A worker gives its worker_id while it holds the job.")));
}
