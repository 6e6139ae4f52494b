/*-------------------------------------------------------------------------
 *
 * operate.c
 *	  SQL functions of operators: requeue, cancel.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "api/arguments.h"
#include "base/scope.h"
#include "base/statement.h"
#include "queue/job.h"
#include "queue/resolve.h"

PG_FUNCTION_INFO_V1(jobqueue_requeue_job);
PG_FUNCTION_INFO_V1(jobqueue_requeue_jobs);
PG_FUNCTION_INFO_V1(jobqueue_cancel_job);

/* A job whose unique key a live job has cannot come back beside it. */
static JqStatement select_ended = {
	.text = "SELECT id FROM @.jobs_queue_done q"
	" WHERE status = ANY ($2) AND ($1 IS NULL OR job_type = $1)"
	" AND ($3 IS NULL OR stage = $3)"
	" AND ($4 IS NULL OR last_error LIKE $4)"
	" AND ($5 IS NULL OR finished_at >= $5)"
	" AND ($6 IS NULL OR finished_at < $6)"
	" AND owner IS NOT NULL"
	" ORDER BY finished_at, id LIMIT $7",
	.nargs = 7,
	.argtypes = {
		TEXTOID, TEXTARRAYOID, TEXTOID, TEXTOID, TIMESTAMPTZOID,
		TIMESTAMPTZOID, INT8OID
	}
};

static JqStatement unique_key_is_taken = {
	.text = "SELECT 1 FROM @.jobs_queue_done d JOIN @.jobs_queue_live l"
	" ON l.job_type = d.job_type AND l.unique_key = d.unique_key"
	" WHERE d.id = $1",
	.nargs = 1,
	.argtypes = {INT8OID}
};

static int	read_statuses(ArrayType *statuses);
static int	final_status_bit(const char *name);
static int64 *ended_jobs(FunctionCallInfo fcinfo, int64 *count);

Datum
jobqueue_requeue_job(PG_FUNCTION_ARGS)
{
	jq_resolve_requeue(jq_argument_job_id(fcinfo, 0));
	PG_RETURN_BOOL(true);
}

Datum
jobqueue_requeue_jobs(PG_FUNCTION_ARGS)
{
	int64	   *ids;
	int64		count;
	int64		requeued = 0;
	int			statuses;

	jq_argument_required(fcinfo, 1, "statuses");
	statuses = read_statuses(PG_GETARG_ARRAYTYPE_P(1));
	if (!PG_ARGISNULL(6) && PG_GETARG_INT32(6) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_jobs must not be negative")));

	jq_scope_enter(JQ_WRITE_ENGINE);
	ids = ended_jobs(fcinfo, &count);
	for (int64 i = 0; i < count; i++)
	{
		Datum		id = Int64GetDatum(ids[i]);

		CHECK_FOR_INTERRUPTS();
		jq_scope_refresh();
		if (jq_statement_query(&unique_key_is_taken, &id, NULL, 1) == 0 &&
			jq_resolve_requeue_ended(ids[i], statuses))
			requeued++;
	}
	jq_scope_leave();
	PG_RETURN_INT64(requeued);
}

/* The set of statuses; only ended jobs can be requeued in bulk. */
static int
read_statuses(ArrayType *statuses)
{
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	int			set = 0;

	deconstruct_array(statuses, TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		int			bit = nulls[i] ? 0 :
		final_status_bit(TextDatumGetCString(elements[i]));

		if (bit == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("statuses must be completed, failed, error or cancelled")));
		set |= bit;
	}
	return set;
}

/* 0 when there is no such status. */
static int
final_status_bit(const char *name)
{
	for (int i = 0; i < JQ_STATUS_COUNT; i++)
		if (jq_job_status_is_final((JqStatus) i) &&
			strcmp(name, jq_job_status_name((JqStatus) i)) == 0)
			return 1 << i;
	return 0;
}

/* The ids of the jobs that the arguments describe, in the scope's memory. */
static int64 *
ended_jobs(FunctionCallInfo fcinfo, int64 *count)
{
	Datum		values[7];
	char		nulls[7];
	int64	   *ids;

	for (int i = 0; i < 7; i++)
	{
		values[i] = jq_argument_datum(fcinfo, i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	if (!PG_ARGISNULL(6))
		values[6] = Int64GetDatum(PG_GETARG_INT32(6));
	*count = jq_statement_query(&select_ended, values, nulls, 0);
	ids = palloc(sizeof(int64) * Max(*count, 1));
	for (int64 i = 0; i < *count; i++)
		ids[i] = DatumGetInt64(jq_statement_value(i, 1));
	return ids;
}

Datum
jobqueue_cancel_job(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(jq_resolve_cancel(jq_argument_job_id(fcinfo, 0),
									 jq_argument_text(fcinfo, 1)));
}
