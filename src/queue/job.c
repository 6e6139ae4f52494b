/*-------------------------------------------------------------------------
 *
 * job.c
 *	  A row of jobs_queue as C sees it, and the legal transitions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "queue/circuits.h"
#include "queue/event_log.h"
#include "queue/failure_counts.h"
#include "queue/hints.h"
#include "queue/job.h"
#include "queue/limits.h"
#include "queue/metrics.h"

/* Longest error text that is stored, in bytes. */
#define MAX_ERROR_LENGTH 8192

#define TO(status) (1 << (status))

static const char *const status_names[JQ_STATUS_COUNT] = {
	[JQ_STATUS_QUEUED] = "queued",
	[JQ_STATUS_RUNNING] = "running",
	[JQ_STATUS_BLOCKED] = "blocked",
	[JQ_STATUS_COMPLETED] = "completed",
	[JQ_STATUS_FAILED] = "failed",
	[JQ_STATUS_ERROR] = "error",
	[JQ_STATUS_CANCELLED] = "cancelled"
};

/*
 * Every legal transition.  Only a claim makes a job running, which the row
 * trigger sees to; only waiting for other jobs makes it blocked.
 */
static const int legal_transitions[JQ_STATUS_COUNT] = {
	[JQ_STATUS_QUEUED] =
	TO(JQ_STATUS_RUNNING) | TO(JQ_STATUS_BLOCKED) | TO(JQ_STATUS_COMPLETED) |
	TO(JQ_STATUS_FAILED) | TO(JQ_STATUS_ERROR) | TO(JQ_STATUS_CANCELLED),
	[JQ_STATUS_RUNNING] =
	TO(JQ_STATUS_QUEUED) | TO(JQ_STATUS_COMPLETED) | TO(JQ_STATUS_FAILED) |
	TO(JQ_STATUS_ERROR) | TO(JQ_STATUS_CANCELLED),
	[JQ_STATUS_BLOCKED] =
	TO(JQ_STATUS_QUEUED) | TO(JQ_STATUS_COMPLETED) | TO(JQ_STATUS_FAILED) |
	TO(JQ_STATUS_ERROR) | TO(JQ_STATUS_CANCELLED),
	[JQ_STATUS_COMPLETED] =
	TO(JQ_STATUS_QUEUED),
	[JQ_STATUS_FAILED] =
	TO(JQ_STATUS_QUEUED) | TO(JQ_STATUS_COMPLETED) | TO(JQ_STATUS_ERROR) |
	TO(JQ_STATUS_CANCELLED),
	[JQ_STATUS_ERROR] =
	TO(JQ_STATUS_QUEUED) | TO(JQ_STATUS_COMPLETED) | TO(JQ_STATUS_FAILED) |
	TO(JQ_STATUS_CANCELLED),
	[JQ_STATUS_CANCELLED] =
	TO(JQ_STATUS_QUEUED) | TO(JQ_STATUS_COMPLETED)
};

static bool read_nullable(TupleTableSlot *slot, int column, Datum *value);
static Datum read_value(TupleTableSlot *slot, int column);
static TimestampTz read_instant(TupleTableSlot *slot, int column);

const char *
jq_job_status_name(JqStatus status)
{
	return status_names[status];
}

JqStatus
jq_job_status(const char *name)
{
	for (int i = 0; i < JQ_STATUS_COUNT; i++)
		if (strcmp(name, status_names[i]) == 0)
			return (JqStatus) i;
	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("unrecognized job status \"%s\"", name),
			 errhint("A job is queued, running, blocked, completed, failed, error or cancelled.")));
}

bool
jq_job_status_is_final(JqStatus status)
{
	return status >= JQ_STATUS_COMPLETED;
}

bool
jq_job_transition_is_legal(JqStatus from, JqStatus to)
{
	return from == to || (legal_transitions[from] & TO(to)) != 0;
}

void
jq_job_read(TupleTableSlot *slot, JqJob *job)
{
	Datum		value;

	slot_getallattrs(slot);
	job->id = DatumGetInt64(read_value(slot, JQ_JOB_ID));
	job->job_type = TextDatumGetCString(read_value(slot, JQ_JOB_JOB_TYPE));
	job->stage = TextDatumGetCString(read_value(slot, JQ_JOB_STAGE));
	job->status = jq_job_status(TextDatumGetCString(read_value(slot, JQ_JOB_STATUS)));
	job->priority = DatumGetInt16(read_value(slot, JQ_JOB_PRIORITY));
	job->scheduled_at = read_instant(slot, JQ_JOB_SCHEDULED_AT);
	job->attempts = DatumGetInt16(read_value(slot, JQ_JOB_ATTEMPTS));
	job->max_attempts = DatumGetInt16(read_value(slot, JQ_JOB_MAX_ATTEMPTS));
	job->claim_no = DatumGetInt32(read_value(slot, JQ_JOB_CLAIM_NO));
	job->crashes = DatumGetInt16(read_value(slot, JQ_JOB_CRASHES));
	job->has_correlation_id = read_nullable(slot, JQ_JOB_CORRELATION_ID,
											&job->correlation_id);
	job->is_held = read_nullable(slot, JQ_JOB_LOCKED_BY, &value);
	if (job->is_held)
		job->locked_by = *DatumGetUUIDP(value);
	job->locked_at = read_instant(slot, JQ_JOB_LOCKED_AT);
	job->lease_expires_at = read_instant(slot, JQ_JOB_LEASE_EXPIRES_AT);
	job->cancel_requested = read_nullable(slot, JQ_JOB_CANCEL_REQUESTED_AT,
										  &value);
	job->holder = read_nullable(slot, JQ_JOB_HOLDER, &value) ?
		DatumGetInt64(value) : 0;
	job->has_backoff = read_nullable(slot, JQ_JOB_BACKOFF, &job->backoff);
	job->waiting_for = DatumGetInt32(read_value(slot, JQ_JOB_WAITING_FOR));
	job->group_key = read_nullable(slot, JQ_JOB_GROUP_KEY, &value) ?
		TextDatumGetCString(value) : NULL;
	job->owner = read_nullable(slot, JQ_JOB_OWNER, &value) ?
		DatumGetObjectId(value) : InvalidOid;
	job->created_at = read_instant(slot, JQ_JOB_CREATED_AT);
	job->updated_at = read_instant(slot, JQ_JOB_UPDATED_AT);
}

static bool
read_nullable(TupleTableSlot *slot, int column, Datum *value)
{
	*value = slot->tts_values[column - 1];
	return !slot->tts_isnull[column - 1];
}

static Datum
read_value(TupleTableSlot *slot, int column)
{
	Datum		value;

	if (!read_nullable(slot, column, &value))
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("%s must not be null",
						NameStr(TupleDescAttr(slot->tts_tupleDescriptor,
											  column - 1)->attname))));
	return value;
}

/* Null reads as the beginning of time. */
static TimestampTz
read_instant(TupleTableSlot *slot, int column)
{
	Datum		value;

	return read_nullable(slot, column, &value) ?
		DatumGetTimestampTz(value) : DT_NOBEGIN;
}

void
jq_job_begin_change(TupleTableSlot *row, TupleTableSlot *next, TimestampTz now)
{
	jq_table_convert(row, next);
	jq_job_set(next, JQ_JOB_UPDATED_AT, TimestampTzGetDatum(now));
}

void
jq_job_set(TupleTableSlot *next, int column, Datum value)
{
	next->tts_values[column - 1] = value;
	next->tts_isnull[column - 1] = false;
}

void
jq_job_set_null(TupleTableSlot *next, int column)
{
	next->tts_values[column - 1] = (Datum) 0;
	next->tts_isnull[column - 1] = true;
}

void
jq_job_set_status(TupleTableSlot *next, const JqJob *job, JqStatus status)
{
	if (!jq_job_transition_is_legal(job->status, status))
		elog(ERROR, "job " INT64_FORMAT " cannot go from %s to %s", job->id,
			 status_names[job->status], status_names[status]);
	jq_job_set(next, JQ_JOB_STATUS, CStringGetTextDatum(status_names[status]));
}

void
jq_job_clear_claim(TupleTableSlot *next)
{
	jq_job_set_null(next, JQ_JOB_LOCKED_BY);
	jq_job_set_null(next, JQ_JOB_LOCKED_AT);
	jq_job_set_null(next, JQ_JOB_LEASE_EXPIRES_AT);
	jq_job_set_null(next, JQ_JOB_CANCEL_REQUESTED_AT);
	jq_job_set_null(next, JQ_JOB_HOLDER);
}

void
jq_job_set_completed(TupleTableSlot *next, const JqJob *job, const JqRun *run)
{
	jq_job_clear_claim(next);
	jq_job_set_status(next, job, JQ_STATUS_COMPLETED);
	jq_job_set(next, JQ_JOB_FINISHED_AT, TimestampTzGetDatum(run->finished_at));
	if (run->has_result)
		jq_job_set(next, JQ_JOB_RESULT, run->result);
	if (run->error != NULL)
		jq_job_set(next, JQ_JOB_LAST_ERROR, CStringGetTextDatum(run->error));
}

void
jq_job_move(JqTable *from, JqTable *to, TupleTableSlot *row,
			TupleTableSlot *next)
{
	TupleTableSlot *target = jq_table_new_row(to);

	jq_table_convert(next, target);
	jq_job_delete(from, row);
	jq_table_insert(to, target);
	if (to->is_direct)
		jq_metrics_row(NULL, target);
	if (to->is_direct && RelationGetRelid(to->rel) == jq_catalog()->jobs_queue_live)
		jq_hints_note(to->rel, target);
}

bool
jq_job_update(JqTable *live, TupleTableSlot *row, TupleTableSlot *next)
{
	if (!jq_table_update(live, row, next))
		return false;
	if (live->is_direct)
		jq_metrics_row(row, next);
	if (live->is_direct && RelationGetRelid(live->rel) == jq_catalog()->jobs_queue_live)
		jq_hints_note(live->rel, next);
	return true;
}

void
jq_job_delete(JqTable *from, TupleTableSlot *row)
{
	bool		isnull;
	int64		id = DatumGetInt64(slot_getattr(row, JQ_JOB_ID, &isnull));

	if (!jq_table_delete(from, row))
		jq_job_report_suppressed(id);
	jq_metrics_row(row, NULL);
}

void
jq_job_report_suppressed(int64 job_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
			 errmsg("a trigger kept job " INT64_FORMAT " from being changed",
					job_id)));
}

void
jq_job_record_run(const JqJob *job, const JqRun *run)
{
	JqTable		runs;

	jq_table_open(&runs, jq_catalog()->job_runs);
	jq_job_write_run(&runs, jq_table_new_row(&runs), job, run);
	jq_table_close(&runs);
}

void
jq_job_write_run(JqTable *runs, TupleTableSlot *row, const JqJob *job,
				 const JqRun *run)
{
	ExecStoreAllNullTuple(row);
	jq_job_set(row, JQ_RUN_JOB_ID, Int64GetDatum(job->id));
	jq_job_set(row, JQ_RUN_CLAIM_NO, Int32GetDatum(job->claim_no));
	jq_job_set(row, JQ_RUN_ATTEMPT, Int16GetDatum(job->attempts));
	jq_job_set(row, JQ_RUN_JOB_TYPE, CStringGetTextDatum(job->job_type));
	jq_job_set(row, JQ_RUN_STAGE, CStringGetTextDatum(job->stage));
	if (job->has_correlation_id)
		jq_job_set(row, JQ_RUN_CORRELATION_ID, job->correlation_id);
	if (job->is_held)
		jq_job_set(row, JQ_RUN_WORKER_ID, UUIDPGetDatum(&job->locked_by));
	jq_job_set(row, JQ_RUN_STATUS, CStringGetTextDatum(run->status));
	jq_job_set(row, JQ_RUN_CHARGED, BoolGetDatum(run->charged));
	if (job->locked_at != DT_NOBEGIN)
		jq_job_set(row, JQ_RUN_STARTED_AT, TimestampTzGetDatum(job->locked_at));
	jq_job_set(row, JQ_RUN_FINISHED_AT, TimestampTzGetDatum(run->finished_at));
	if (run->error != NULL)
		jq_job_set(row, JQ_RUN_ERROR, CStringGetTextDatum(run->error));
	if (run->has_result)
		jq_job_set(row, JQ_RUN_RESULT, run->result);
	if (run->command_tag != NULL)
		jq_job_set(row, JQ_RUN_COMMAND_TAG,
				   CStringGetTextDatum(run->command_tag));
	if (run->response != 0)
		jq_job_set(row, JQ_RUN_RESPONSE, run->response);
	jq_table_insert(runs, row);
	if (jq_event_log_is_on())
		jq_event_log_run(job, run);
	jq_limits_note_end(job, run->will_retry);
	jq_circuit_note(job, run);
	jq_metrics_ended(job, run);
	jq_failure_counts_note(job, run);
}

char *
jq_job_clip_error(const char *error)
{
	static const char mark[] = "... (truncated)";
	int			length = strlen(error);
	int			kept;

	if (length <= MAX_ERROR_LENGTH)
		return pstrdup(error);
	kept = pg_mbcliplen(error, length, MAX_ERROR_LENGTH - (sizeof(mark) - 1));
	return psprintf("%.*s%s", kept, error, mark);
}
