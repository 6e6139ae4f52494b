/*-------------------------------------------------------------------------
 *
 * body.c
 *	  SQL functions for the bodies of jobs: current_job, job_log,
 *	  skip_current_job.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "api/arguments.h"
#include "body/current.h"
#include "body/journal.h"

PG_FUNCTION_INFO_V1(jobqueue_current_job);
PG_FUNCTION_INFO_V1(jobqueue_job_log);
PG_FUNCTION_INFO_V1(jobqueue_skip_current_job);

#define MAX_LOG_DATA (8 * 1024)

enum CurrentJobColumn
{
	CURRENT_JOB_ID,
	CURRENT_CLAIM_NO,
	CURRENT_ATTEMPT,
	CURRENT_MAX_ATTEMPTS,
	CURRENT_JOB_TYPE,
	CURRENT_STAGE,
	CURRENT_CORRELATION_ID,
	CURRENT_WORKER_ID,
	CURRENT_SCHEDULED_AT,
	CURRENT_DEADLINE,
	CURRENT_CRON_TASK_ID,
	CURRENT_CRON_INSTANT,
	CURRENT_NCOLUMNS
};

static void check_job_runs(const char *hint);
static char *log_level(FunctionCallInfo fcinfo, int n);
static char *log_data(FunctionCallInfo fcinfo, int n);

/* A row of nulls where no body runs. */
Datum
jobqueue_current_job(PG_FUNCTION_ARGS)
{
	const JqCurrentJob *job = jq_current_job();
	Datum		values[CURRENT_NCOLUMNS] = {0};
	bool		nulls[CURRENT_NCOLUMNS];
	TupleDesc	row_type;

	if (get_call_result_type(fcinfo, NULL, &row_type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	memset(nulls, job == NULL, sizeof(nulls));
	if (job != NULL)
	{
		values[CURRENT_JOB_ID] = Int64GetDatum(job->job_id);
		values[CURRENT_CLAIM_NO] = Int32GetDatum(job->claim_no);
		values[CURRENT_ATTEMPT] = Int32GetDatum(job->attempt);
		values[CURRENT_MAX_ATTEMPTS] = Int32GetDatum(job->max_attempts);
		values[CURRENT_JOB_TYPE] = CStringGetTextDatum(job->job_type);
		values[CURRENT_STAGE] = CStringGetTextDatum(job->stage);
		nulls[CURRENT_CORRELATION_ID] = job->correlation_id == NULL;
		if (job->correlation_id != NULL)
			values[CURRENT_CORRELATION_ID] =
				CStringGetTextDatum(job->correlation_id);
		values[CURRENT_WORKER_ID] = UUIDPGetDatum(&job->worker);
		values[CURRENT_SCHEDULED_AT] = TimestampTzGetDatum(job->scheduled_at);
		nulls[CURRENT_DEADLINE] = TIMESTAMP_NOT_FINITE(job->deadline);
		values[CURRENT_DEADLINE] = TimestampTzGetDatum(job->deadline);
		nulls[CURRENT_CRON_TASK_ID] = job->cron_task_id == 0;
		values[CURRENT_CRON_TASK_ID] = Int64GetDatum(job->cron_task_id);
		nulls[CURRENT_CRON_INSTANT] = TIMESTAMP_NOT_FINITE(job->cron_instant);
		values[CURRENT_CRON_INSTANT] = TimestampTzGetDatum(job->cron_instant);
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row_type),
													  values, nulls)));
}

/*
 * In a body the line is kept in memory until the claim ends, so that an error
 * does not take it along.  An outside worker names the job that it holds.
 */
Datum
jobqueue_job_log(PG_FUNCTION_ARGS)
{
	char	   *level;
	char	   *data;
	JqHeld		held = {0};

	jq_argument_required(fcinfo, 0, "message");
	level = log_level(fcinfo, 1);
	data = log_data(fcinfo, 2);
	if (PG_ARGISNULL(3) && PG_ARGISNULL(4))
	{
		check_job_runs("An outside worker gives job_id and worker_id, too.");
		jq_journal_add(jq_journal_level(level), jq_argument_text(fcinfo, 0),
					   data);
		PG_RETURN_BOOL(true);
	}
	held.job_id = jq_argument_job_id(fcinfo, 3);
	jq_argument_worker(fcinfo, 4, &held.worker);
	held.claim_no = jq_argument_claim_no(fcinfo, 5);
	PG_RETURN_BOOL(jq_resolve_log(&held, level, jq_argument_text(fcinfo, 0),
								  data));
}

static void
check_job_runs(const char *hint)
{
	if (jq_current_job() == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no job runs in this session"),
				 errhint("%s", hint)));
}

/* As a line of the log, it stays if the block that said it is rolled back. */
Datum
jobqueue_skip_current_job(PG_FUNCTION_ARGS)
{
	check_job_runs("An outside worker calls skip_job().");
	jq_journal_skip(jq_argument_text(fcinfo, 0));
	PG_RETURN_VOID();
}

static char *
log_level(FunctionCallInfo fcinfo, int n)
{
	char	   *level = PG_ARGISNULL(n) ? pstrdup("info") :
	jq_argument_text(fcinfo, n);

	if (jq_journal_level(level) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized level \"%s\"", level),
				 errhint("The levels are debug, info, notice, warning and error.")));
	return level;
}

/* jsonb as text, or NULL. */
static char *
log_data(FunctionCallInfo fcinfo, int n)
{
	char	   *data;

	if (PG_ARGISNULL(n))
		return NULL;
	data = JsonbToCString(NULL, &PG_GETARG_JSONB_P(n)->root, 0);
	if (strlen(data) > MAX_LOG_DATA)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("data must be at most %d bytes long", MAX_LOG_DATA)));
	return data;
}
