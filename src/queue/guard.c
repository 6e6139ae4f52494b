/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  Triggers of jobs_queue: plain DML is an API.
 *
 * The BEFORE trigger of jobs_queue holds an operator's INSERT, UPDATE, DELETE
 * and COPY to the same rules as the functions.  What a row must be like says
 * row_rules.c, what may become of it row_update.c; here is what follows for
 * others: one row of job_runs for every claim that ends, the logged event, the
 * unique key, the jobs that wait.  Writes of the C code pass through.
 *
 * An UPDATE of status that moves a row between the leaves fires BEFORE UPDATE
 * and BEFORE DELETE on the old leaf and BEFORE INSERT on the new one, all in
 * one command.  The first validates and says so in "moving"; the other two
 * recognise the row by it and let it pass.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/catalog.h"
#include "base/scope.h"
#include "queue/dependencies.h"
#include "queue/dependents.h"
#include "queue/event_log.h"
#include "queue/job.h"
#include "queue/job_row.h"
#include "queue/metrics.h"
#include "queue/row_rules.h"
#include "queue/row_update.h"
#include "queue/unique.h"

PG_FUNCTION_INFO_V1(jobqueue_guard_job);
PG_FUNCTION_INFO_V1(jobqueue_release_dependents);
PG_FUNCTION_INFO_V1(jobqueue_cancel_dependents);

/*
 * The row that the current command moves to the other leaf.  The transaction
 * id is that of the subtransaction, so that nothing outlives an abort; the
 * command id would not do: other triggers, and a look at job_types, start new
 * commands between the three firings.  That of the snapshot which the command
 * runs under stays: a move that another trigger has suppressed lets nothing
 * pass afterwards.
 */
static struct
{
	int64		id;
	TransactionId xid;
	CommandId	cid;
	bool		is_deleted;		/* from the old leaf */
}			moving;

static bool fired_for_leaf(FunctionCallInfo fcinfo);
static bool is_our_table(Oid relid);
static HeapTuple guard_insert(TriggerData *trigger);
static HeapTuple guard_update(TriggerData *trigger);
static HeapTuple guard_delete(TriggerData *trigger);
static void end_claim(HeapTuple tuple, Relation rel, const char *status,
					  bool charged, const char *error, bool is_dead_letter);
static void log_change(HeapTuple tuple, Relation rel, JqStatus to);
static void check_unique_key(const JqJobRow *row);
static void note_moving(int64 id);
static bool row_is_moving(int64 id);
static void count_deleted(TriggerData *trigger);
static int64 *deleted_ids(TriggerData *trigger, int *count);
static TupleTableSlot *read_deleted(TriggerData *trigger);

/* BEFORE INSERT OR UPDATE OR DELETE ON jobs_queue FOR EACH ROW */
Datum
jobqueue_guard_job(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	result;

	if (!fired_for_leaf(fcinfo) || !TRIGGER_FIRED_BEFORE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"_guard_job\" must be called as the trigger of jobs_queue")));

	if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		result = jq_scope_write_mode() != JQ_WRITE_PLAIN ?
			trigger->tg_trigtuple : guard_delete(trigger);
	else if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		result = jq_scope_write_mode() == JQ_WRITE_ENGINE ?
			trigger->tg_trigtuple : guard_insert(trigger);
	else
		result = jq_scope_write_mode() != JQ_WRITE_PLAIN ?
			trigger->tg_newtuple : guard_update(trigger);
	return PointerGetDatum(result);
}

/* Rows of other tables do not have the columns that are read by number. */
static bool
fired_for_leaf(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Oid			relid;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		return false;
	relid = RelationGetRelid(trigger->tg_relation);
	return relid == jq_catalog()->jobs_queue_live ||
		relid == jq_catalog()->jobs_queue_done;
}

static bool
is_our_table(Oid relid)
{
	return relid == jq_catalog()->jobs_queue ||
		relid == jq_catalog()->jobs_queue_live ||
		relid == jq_catalog()->jobs_queue_done;
}

/* A new job, or the second half of a move. */
static HeapTuple
guard_insert(TriggerData *trigger)
{
	JqJobRow	row;
	int64		id;

	jq_job_row_read(&row, trigger->tg_trigtuple, RelationGetDescr(trigger->tg_relation));
	id = jq_job_row_is_null(&row, JQ_JOB_ID) ? 0 : DatumGetInt64(jq_job_row_value(&row, JQ_JOB_ID));
	if (row_is_moving(id) && moving.is_deleted)
	{
		moving.id = 0;
		return trigger->tg_trigtuple;
	}

	jq_row_rules_admit(trigger->tg_relation, &row);
	return jq_job_row_store(&row, trigger->tg_trigtuple);
}

/* A change of a job, or the first half of a move. */
static HeapTuple
guard_update(TriggerData *trigger)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	JqJobRow	was;
	JqJobRow	is;
	JqStatus	from;
	JqStatus	to;

	jq_job_row_read(&was, trigger->tg_trigtuple, desc);
	jq_job_row_read(&is, trigger->tg_newtuple, desc);
	jq_row_update_settle(&was, &is);
	from = jq_job_row_status(&was);
	to = jq_job_row_status(&is);
	if (from == JQ_STATUS_RUNNING && to != from)
	{
		static const char *const run_status[JQ_STATUS_COUNT] = {
			[JQ_STATUS_QUEUED] = "released",
			[JQ_STATUS_COMPLETED] = "completed",
			[JQ_STATUS_FAILED] = "failed",
			[JQ_STATUS_ERROR] = "failed",
			[JQ_STATUS_CANCELLED] = "cancelled"
		};

		end_claim(trigger->tg_trigtuple, trigger->tg_relation, run_status[to],
				  jq_job_row_integer(&is, JQ_JOB_ATTEMPTS) >=
				  jq_job_row_integer(&was, JQ_JOB_ATTEMPTS),
				  "ended by an UPDATE of jobs_queue",
				  to == JQ_STATUS_ERROR);
	}
	else if (to != from && jq_event_log_is_on())
		log_change(trigger->tg_trigtuple, trigger->tg_relation, to);
	if (jq_job_status_is_final(from) && !jq_job_status_is_final(to))
		check_unique_key(&is);
	if (jq_job_status_is_final(from) != jq_job_status_is_final(to))
		note_moving(DatumGetInt64(jq_job_row_value(&was, JQ_JOB_ID)));
	return jq_job_row_store(&is, trigger->tg_newtuple);
}

/* Anybody who may delete may delete; a claim that ends so leaves its run. */
static HeapTuple
guard_delete(TriggerData *trigger)
{
	JqJobRow	row;
	int64		id;

	jq_job_row_read(&row, trigger->tg_trigtuple, RelationGetDescr(trigger->tg_relation));
	id = DatumGetInt64(jq_job_row_value(&row, JQ_JOB_ID));
	if (row_is_moving(id))
	{
		moving.is_deleted = true;
		jq_metrics_row(trigger->tg_trigslot, NULL);
		return trigger->tg_trigtuple;
	}
	if (jq_job_row_status(&row) == JQ_STATUS_RUNNING)
		end_claim(trigger->tg_trigtuple, trigger->tg_relation, "cancelled",
				  true, "ended by a DELETE from jobs_queue", false);
	if (!jq_job_row_is_null(&row, JQ_JOB_UNIQUE_KEY))
		jq_unique_forget(&id, 1);
	return trigger->tg_trigtuple;
}

/* The index would say it, too, and less well. */
static void
check_unique_key(const JqJobRow *row)
{
	if (jq_job_row_is_null(row, JQ_JOB_UNIQUE_KEY))
		return;
	jq_scope_enter(JQ_WRITE_ENGINE);
	jq_unique_check_free(DatumGetInt64(jq_job_row_value(row, JQ_JOB_ID)),
						 jq_job_row_value(row, JQ_JOB_JOB_TYPE),
						 jq_job_row_value(row, JQ_JOB_UNIQUE_KEY));
	jq_scope_leave();
}

/* Records the run of a claim that plain DML ends. */
static void
end_claim(HeapTuple tuple, Relation rel, const char *status, bool charged,
		  const char *error, bool is_dead_letter)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel),
													&TTSOpsHeapTuple);
	JqRun		run = {.status = status,.charged = charged,.error = error,
	.is_dead_letter = is_dead_letter};
	JqJob		job;

	jq_scope_enter(JQ_WRITE_ENGINE);
	ExecStoreHeapTuple(tuple, slot, false);
	jq_job_read(slot, &job);
	run.finished_at = GetCurrentTimestamp();
	if (strcmp(status, "completed") == 0)
		run.error = NULL;
	jq_job_record_run(&job, &run);
	jq_scope_leave();
	ExecDropSingleTupleTableSlot(slot);
}

/* A job that nobody held is ended or queued again by plain DML. */
static void
log_change(HeapTuple tuple, Relation rel, JqStatus to)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel),
													&TTSOpsHeapTuple);
	JqJob		job;

	ExecStoreHeapTuple(tuple, slot, false);
	jq_job_read(slot, &job);
	if (jq_job_status_is_final(to))
		jq_event_log_end(&job, to, NULL);
	else if (jq_job_status_is_final(job.status))
		jq_event_log_requeued(&job);
	ExecDropSingleTupleTableSlot(slot);
}

static void
note_moving(int64 id)
{
	moving.id = id;
	moving.xid = GetCurrentTransactionId();
	moving.cid = GetActiveSnapshot()->curcid;
	moving.is_deleted = false;
}

static bool
row_is_moving(int64 id)
{
	return moving.id != 0 && moving.id == id &&
		moving.xid == GetCurrentTransactionIdIfAny() &&
		ActiveSnapshotSet() && moving.cid == GetActiveSnapshot()->curcid;
}

/* ---- after the fact ---- */

/*
 * AFTER DELETE, with the rows that are gone, OR TRUNCATE ON jobs_queue and its
 * leaves, per statement
 */
Datum
jobqueue_cancel_dependents(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	JqEndedJobs ended = {.are_deleted = true};

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		!is_our_table(RelationGetRelid(trigger->tg_relation)))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"_cancel_dependents\" must be called as the trigger of jobs_queue")));
	if (trigger->tg_oldtable != NULL)
		count_deleted(trigger);
	else
		jq_metrics_forget();
	/* The functions that delete jobs see to this themselves. */
	if (jq_scope_write_mode() != JQ_WRITE_PLAIN || !jq_dependencies_exist())
		return PointerGetDatum(NULL);
	jq_scope_enter(JQ_WRITE_ENGINE);
	if (trigger->tg_oldtable != NULL)
	{
		ended.failed = deleted_ids(trigger, &ended.nfailed);
		jq_dependents_settle(&ended);
		jq_dependencies_prune(ended.failed, ended.nfailed);
	}
	else
		jq_dependents_settle_truncated();
	jq_scope_leave();
	return PointerGetDatum(NULL);
}

/* Of whatever mode: only statements come here. */
static void
count_deleted(TriggerData *trigger)
{
	TupleTableSlot *slot = read_deleted(trigger);

	while (tuplestore_gettupleslot(trigger->tg_oldtable, true, false, slot))
		jq_metrics_row(slot, NULL);
	ExecDropSingleTupleTableSlot(slot);
}

static int64 *
deleted_ids(TriggerData *trigger, int *count)
{
	TupleTableSlot *slot = read_deleted(trigger);
	int64	   *ids;
	bool		isnull;
	int64		room = tuplestore_tuple_count(trigger->tg_oldtable);

	ids = palloc_extended(sizeof(int64) * Max(room, 1), MCXT_ALLOC_HUGE);
	*count = 0;
	while (*count < room &&
		   tuplestore_gettupleslot(trigger->tg_oldtable, true, false, slot))
		ids[(*count)++] = DatumGetInt64(slot_getattr(slot, JQ_JOB_ID, &isnull));
	ExecDropSingleTupleTableSlot(slot);
	return ids;
}

/* From the first row on, which the slot that is returned takes. */
static TupleTableSlot *
read_deleted(TriggerData *trigger)
{
	tuplestore_select_read_pointer(trigger->tg_oldtable,
								   tuplestore_alloc_read_pointer(trigger->tg_oldtable,
																 EXEC_FLAG_REWIND));
	tuplestore_rescan(trigger->tg_oldtable);
	return MakeSingleTupleTableSlot(RelationGetDescr(trigger->tg_relation),
									&TTSOpsMinimalTuple);
}

/* AFTER INSERT OR UPDATE OF status ON jobs_queue_done */
Datum
jobqueue_release_dependents(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool		isnull;
	int64		id;
	char	   *status;

	if (!fired_for_leaf(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"_release_dependents\" must be called as the trigger of jobs_queue_done")));
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		jq_metrics_row(trigger->tg_trigslot, trigger->tg_newslot);
	else
		jq_metrics_row(NULL, trigger->tg_trigslot);
	/* The functions that complete jobs see to this themselves. */
	if (jq_scope_write_mode() == JQ_WRITE_PLAIN && jq_dependencies_exist())
	{
		/* Of an UPDATE this is the old row: its id is the same. */
		id = DatumGetInt64(heap_getattr(trigger->tg_trigtuple, JQ_JOB_ID,
										RelationGetDescr(trigger->tg_relation),
										&isnull));
		/* Of an UPDATE this is the new row. */
		status = TextDatumGetCString(heap_getattr(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
												  trigger->tg_newtuple : trigger->tg_trigtuple,
												  JQ_JOB_STATUS,
												  RelationGetDescr(trigger->tg_relation),
												  &isnull));
		jq_scope_enter(JQ_WRITE_ENGINE);
		if (jq_job_status(status) == JQ_STATUS_COMPLETED)
			jq_dependents_settle_completed(id);
		else
			jq_dependents_settle_failed(id);
		jq_scope_leave();
	}
	return PointerGetDatum(NULL);
}
