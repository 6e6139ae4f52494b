/*-------------------------------------------------------------------------
 *
 * operate.c
 *	  SQL functions of operators: requeue, purge, cancel.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "api/arguments.h"
#include "base/names.h"
#include "base/protect.h"
#include "base/scope.h"
#include "base/statement.h"
#include "queue/job.h"
#include "queue/removal.h"
#include "queue/resolve.h"

PG_FUNCTION_INFO_V1(jobqueue_requeue_job);
PG_FUNCTION_INFO_V1(jobqueue_requeue_jobs);
PG_FUNCTION_INFO_V1(jobqueue_retry_from_dlq);
PG_FUNCTION_INFO_V1(jobqueue_purge_jobs);
PG_FUNCTION_INFO_V1(jobqueue_cancel_job);

/* A job to be requeued, by jq_protect() where it may have a rival. */
typedef struct EndedJob
{
	int64		id;
	bool		has_unique_key;
	int			statuses;		/* those that it may have by then */
	int64		delay_us;		/* until it is due */
	bool		is_requeued;
} EndedJob;

static JqStatement select_ended = {
	.text = "SELECT id, unique_key IS NOT NULL FROM @.jobs_queue_done q"
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

static void check_max_jobs(FunctionCallInfo fcinfo, int n);
static int	read_statuses(ArrayType *statuses);
static int	final_status_bit(const char *name);
static void requeue_one(void *arg);
static bool is_taken_key(ErrorData *fault);
static EndedJob *ended_jobs(FunctionCallInfo fcinfo, int64 *count);

Datum
jobqueue_requeue_job(PG_FUNCTION_ARGS)
{
	jq_resolve_requeue(jq_argument_job_id(fcinfo, 0));
	PG_RETURN_BOOL(true);
}

Datum
jobqueue_requeue_jobs(PG_FUNCTION_ARGS)
{
	EndedJob   *jobs;
	int64		count;
	int64		requeued = 0;
	int64		skipped = 0;
	int			statuses;
	int			per_second;

	jq_argument_required(fcinfo, 1, "statuses");
	statuses = read_statuses(PG_GETARG_ARRAYTYPE_P(1));
	check_max_jobs(fcinfo, 6);
	per_second = PG_ARGISNULL(7) ? 0 : PG_GETARG_INT32(7);
	if (!PG_ARGISNULL(7))
		jq_range_check(per_second, "per_second", 1, 1000000);

	jq_scope_enter(JQ_WRITE_ENGINE);
	jobs = ended_jobs(fcinfo, &count);
	for (int64 i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		jobs[i].statuses = statuses;
		jobs[i].delay_us = per_second == 0 ? 0 :
			requeued * USECS_PER_SEC / per_second;
		if (jobs[i].has_unique_key)
		{
			if (is_taken_key(jq_protect(requeue_one, &jobs[i])))
				skipped++;
		}
		else
			requeue_one(&jobs[i]);
		if (jobs[i].is_requeued)
			requeued++;
	}
	jq_scope_leave();
	if (skipped > 0)
		ereport(NOTICE,
				(errmsg_plural(INT64_FORMAT " job was skipped: a live job has its unique key",
							   INT64_FORMAT " jobs were skipped: live jobs have their unique keys",
							   (unsigned long) skipped, skipped)));
	PG_RETURN_INT64(requeued);
}

static void
requeue_one(void *arg)
{
	EndedJob   *job = (EndedJob *) arg;

	job->is_requeued = jq_resolve_requeue_ended(job->id, job->statuses,
												job->delay_us);
}

/* A job whose unique key a live job has cannot come back beside it. */
static bool
is_taken_key(ErrorData *fault)
{
	if (fault != NULL && fault->sqlerrcode != ERRCODE_UNIQUE_VIOLATION)
		ReThrowError(fault);
	return fault != NULL;
}

static void
check_max_jobs(FunctionCallInfo fcinfo, int n)
{
	if (!PG_ARGISNULL(n) && PG_GETARG_INT32(n) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_jobs must not be negative")));
}

/* The set of statuses; only ended jobs are handled in bulk. */
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

/* The jobs that the arguments describe, in the scope's memory. */
static EndedJob *
ended_jobs(FunctionCallInfo fcinfo, int64 *count)
{
	Datum		values[7];
	char		nulls[7];
	EndedJob   *jobs;

	for (int i = 0; i < 7; i++)
	{
		values[i] = jq_argument_datum(fcinfo, i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	if (!PG_ARGISNULL(6))
		values[6] = Int64GetDatum(PG_GETARG_INT32(6));
	*count = jq_statement_query(&select_ended, values, nulls, 0);
	jobs = MemoryContextAllocExtended(CurrentMemoryContext,
									  sizeof(EndedJob) * Max(*count, 1),
									  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int64 i = 0; i < *count; i++)
	{
		jobs[i].id = DatumGetInt64(jq_statement_value(i, 1));
		jobs[i].has_unique_key = DatumGetBool(jq_statement_value(i, 2));
	}
	return jobs;
}

Datum
jobqueue_retry_from_dlq(PG_FUNCTION_ARGS)
{
	int64		job_id;

	jq_argument_required(fcinfo, 0, "dlq_event_id");
	job_id = PG_GETARG_INT64(0);
	if (job_id <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("dlq_event_id must be positive")));
	jq_resolve_redrive(job_id);
	PG_RETURN_INT64(job_id);
}

Datum
jobqueue_purge_jobs(PG_FUNCTION_ARGS)
{
	JqPurge		purge;

	jq_argument_required(fcinfo, 1, "statuses");
	(void) read_statuses(PG_GETARG_ARRAYTYPE_P(1));
	check_max_jobs(fcinfo, 5);
	for (int i = 0; i < (int) lengthof(purge.values); i++)
	{
		purge.values[i] = jq_argument_datum(fcinfo, i);
		purge.nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	if (!PG_ARGISNULL(5))
		purge.values[5] = Int64GetDatum(PG_GETARG_INT32(5));
	PG_RETURN_INT64(jq_removal_purge(&purge));
}

Datum
jobqueue_cancel_job(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(jq_resolve_cancel(jq_argument_job_id(fcinfo, 0),
									 jq_argument_text(fcinfo, 1)));
}
