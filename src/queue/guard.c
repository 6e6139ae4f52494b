/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  Row triggers of jobs_queue: plain DML is an API.
 *
 * The BEFORE trigger of jobs_queue holds an operator's INSERT, UPDATE, DELETE
 * and COPY to the same rules as the functions: the table of transitions, who
 * owns a job, what its values may be, one row of job_runs for every claim
 * that ends.  Writes of the C code pass through.
 *
 * An UPDATE of status that moves a row between the leaves fires BEFORE UPDATE
 * and BEFORE DELETE on the old leaf and BEFORE INSERT on the new one, all in
 * one command.  The first validates and says so in "moving"; the other two
 * recognise the row by it and let it pass.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/catalog.h"
#include "base/compat.h"
#include "base/interval.h"
#include "base/names.h"
#include "base/ownership.h"
#include "base/scope.h"
#include "queue/backoff.h"
#include "queue/dependencies.h"
#include "queue/dependents.h"
#include "queue/event_log.h"
#include "queue/failure_counts.h"
#include "queue/http_payload.h"
#include "queue/job.h"
#include "queue/job_row.h"
#include "queue/job_types.h"
#include "queue/metrics.h"
#include "queue/unique.h"
#include "queue/validate.h"

PG_FUNCTION_INFO_V1(jobqueue_guard_job);
PG_FUNCTION_INFO_V1(jobqueue_release_dependents);
PG_FUNCTION_INFO_V1(jobqueue_cancel_dependents);

/* Longest attempt that a job may ask for. */
#define MAX_TIMEOUT_US USECS_PER_DAY

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
static void fill_defaults(JqJobRow *row);
static void check_new_status(JqJobRow *row);
static void check_unknown_id(TriggerData *trigger, const JqJobRow *row);
static bool other_leaf_has(TriggerData *trigger, int64 id);
static bool has_later_run(const JqJobRow *row, int64 id);
static void set_new_owner(JqJobRow *row);
static void check_runs_as(const JqJobRow *row);
static void check_message(const JqJobRow *row);
static void validate_values(const JqJobRow *row);
static void check_request(const JqJobRow *row);
static void check_protected(const JqJobRow *was, const JqJobRow *is);
static void check_transition(const JqJobRow *was, const JqJobRow *is);
static bool is_restored(const JqJobRow *row);
static void clear_claim(JqJobRow *row);
static void settle_status(const JqJobRow *was, JqJobRow *is);
static void settle_attempts(const JqJobRow *was, JqJobRow *is);
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

	fill_defaults(&row);
	if (jq_scope_write_mode() == JQ_WRITE_PLAIN)
		check_new_status(&row);
	check_unknown_id(trigger, &row);
	set_new_owner(&row);
	if (!is_restored(&row))
		check_message(&row);
	if (!jq_job_status_is_final(jq_job_row_status(&row)) &&
		jq_job_row_integer(&row, JQ_JOB_CLAIM_NO) == 0 && !is_restored(&row))
	{
		validate_values(&row);
		check_runs_as(&row);
	}
	if (jq_job_row_status(&row) == JQ_STATUS_QUEUED)
	{
		clear_claim(&row);
		jq_job_row_clear(&row, JQ_JOB_RESULT);
		jq_job_row_clear(&row, JQ_JOB_FINISHED_AT);
		jq_job_row_set(&row, JQ_JOB_WAITING_FOR, Int32GetDatum(0));
	}
	return jq_job_row_store(&row, trigger->tg_trigtuple);
}

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
	check_protected(&was, &is);
	check_transition(&was, &is);
	if (!jq_job_row_has_owner(&is))
		jq_job_row_clear(&is, JQ_JOB_OWNER);
	from = jq_job_row_status(&was);
	to = jq_job_row_status(&is);
	settle_status(&was, &is);
	settle_attempts(&was, &is);
	if (jq_job_row_differs(&was, &is, JQ_JOB_PAYLOAD) ||
		jq_job_row_differs(&was, &is, JQ_JOB_JOB_TYPE) ||
		jq_job_row_differs(&was, &is, JQ_JOB_SCHEDULED_AT) ||
		jq_job_row_differs(&was, &is, JQ_JOB_TIMEOUT) ||
		jq_job_row_differs(&was, &is, JQ_JOB_BACKOFF) ||
		jq_job_row_differs(&was, &is, JQ_JOB_UNIQUE_KEY) ||
		jq_job_row_differs(&was, &is, JQ_JOB_GROUP_KEY) ||
		jq_job_row_differs(&was, &is, JQ_JOB_MAX_ATTEMPTS) ||
		jq_job_row_differs(&was, &is, JQ_JOB_STAGE))
		validate_values(&is);
	jq_job_row_set(&is, JQ_JOB_UPDATED_AT,
				   TimestampTzGetDatum(GetCurrentTimestamp()));

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

/* ---- new jobs ---- */

static void
fill_defaults(JqJobRow *row)
{
	char	   *job_type = jq_job_row_text(row, JQ_JOB_JOB_TYPE);

	jq_name_check_required(job_type, "job_type");
	if (jq_job_row_is_null(row, JQ_JOB_MAX_ATTEMPTS))
		jq_job_row_set(row, JQ_JOB_MAX_ATTEMPTS,
					   Int16GetDatum(jq_job_type(job_type)->max_attempts));
}

/*
 * Jobs start queued.  Whoever owns the tables may also bring rows in any
 * status that fits them, as a restore does.
 */
static void
check_new_status(JqJobRow *row)
{
	JqStatus	status = jq_job_row_status(row);
	bool		is_import = member_can_set_role(GetUserId(), jq_catalog()->owner);
	bool		is_consistent;

	if (jq_job_row_is_null(row, JQ_JOB_CLAIM_NO) || jq_job_row_is_null(row, JQ_JOB_ATTEMPTS))
		return;					/* the NOT NULL constraint says so */
	if (!is_import)
	{
		if (status != JQ_STATUS_QUEUED)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a job cannot start as %s",
							jq_job_status_name(status)),
					 errhint("Insert it with status \"queued\".")));
		if (jq_job_row_integer(row, JQ_JOB_CLAIM_NO) != 0 ||
			jq_job_row_integer(row, JQ_JOB_ATTEMPTS) != 0 ||
			jq_job_row_integer(row, JQ_JOB_CRASHES) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a job cannot start with attempts, claim_no or crashes other than 0")));
		/* With overlap, a task waits for its jobs. */
		if (!jq_job_row_is_null(row, JQ_JOB_CRON_TASK_ID))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a job cannot start with a cron_task_id"),
					 errhint("run_cron_task() enqueues a job of a cron task.")));
	}

	is_consistent = status == JQ_STATUS_RUNNING ?
		jq_job_row_integer(row, JQ_JOB_CLAIM_NO) > 0 && !jq_job_row_is_null(row, JQ_JOB_LOCKED_BY) :
		jq_job_row_is_null(row, JQ_JOB_LOCKED_BY);
	if (status == JQ_STATUS_BLOCKED)
		is_consistent &= jq_job_row_integer(row, JQ_JOB_WAITING_FOR) > 0;
	if (!is_consistent)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a job cannot start as %s", jq_job_status_name(status)),
				 status == JQ_STATUS_BLOCKED ?
				 errhint("Use depends_on of enqueue_job().") :
				 errhint("Insert it with status \"queued\"; only a claim makes a job running.")));
	if (jq_job_row_integer(row, JQ_JOB_ATTEMPTS) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("attempts of a job must be from 0 to max_attempts")));
	if (status == JQ_STATUS_QUEUED &&
		jq_job_row_integer(row, JQ_JOB_ATTEMPTS) >= jq_job_row_integer(row, JQ_JOB_MAX_ATTEMPTS))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_attempts must be greater than attempts")));
}

/*
 * A primary key reaches over one leaf only, and what a job of this id has left
 * in job_runs would stop the next one from ending its claims.
 */
static void
check_unknown_id(TriggerData *trigger, const JqJobRow *row)
{
	int64		id;

	if (jq_job_row_is_null(row, JQ_JOB_ID) || jq_job_row_is_null(row, JQ_JOB_CLAIM_NO))
		return;					/* the NOT NULL constraint says so */
	id = DatumGetInt64(jq_job_row_value(row, JQ_JOB_ID));
	if (id <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("id of a job must be positive")));
	if (other_leaf_has(trigger, id))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("job " INT64_FORMAT " already exists", id)));
	/* Ids of the sequence are new, until somebody sets it back. */
	if (jq_scope_write_mode() == JQ_WRITE_PLAIN && has_later_run(row, id))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("job " INT64_FORMAT " has been run before", id),
				 errhint("Leave id to its default.")));
}

static bool
other_leaf_has(TriggerData *trigger, int64 id)
{
	const JqCatalog *catalog = jq_catalog();
	bool		is_live =
	RelationGetRelid(trigger->tg_relation) == catalog->jobs_queue_live;
	Relation	other;
	ScanKeyData key;
	SysScanDesc scan;
	bool		is_found;

	other = table_open(is_live ? catalog->jobs_queue_done :
					   catalog->jobs_queue_live, AccessShareLock);
	ScanKeyInit(&key, JQ_JOB_ID, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(id));
	scan = systable_beginscan(other, is_live ? catalog->jobs_queue_done_pkey :
							  catalog->jobs_queue_live_pkey,
							  true, SnapshotSelf, 1, &key);
	is_found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(other, AccessShareLock);
	return is_found;
}

/* Whether there is a run of a claim that this row has not had, or still has. */
static bool
has_later_run(const JqJobRow *row, int64 id)
{
	int			ended = jq_job_row_integer(row, JQ_JOB_CLAIM_NO) -
	(jq_job_row_status(row) == JQ_STATUS_RUNNING ? 1 : 0);
	Relation	runs = table_open(jq_catalog()->job_runs, AccessShareLock);
	Oid			pkey = RelationGetReplicaIndex(runs);
	ScanKeyData keys[2];
	SysScanDesc scan;
	bool		is_found;

	ScanKeyInit(&keys[0], JQ_RUN_JOB_ID, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(id));
	ScanKeyInit(&keys[1], JQ_RUN_CLAIM_NO, BTGreaterStrategyNumber, F_INT4GT,
				Int32GetDatum(ended));
	scan = systable_beginscan(runs, pkey, OidIsValid(pkey), SnapshotSelf,
							  2, keys);
	is_found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(runs, AccessShareLock);
	return is_found;
}

/* Jobs belong to whoever enqueues them; nobody can enqueue as another. */
static void
set_new_owner(JqJobRow *row)
{
	if (!jq_job_row_has_owner(row))
	{
		if (jq_job_status_is_final(jq_job_row_status(row)))
			jq_job_row_clear(row, JQ_JOB_OWNER);
		else
			jq_job_row_set(row, JQ_JOB_OWNER, ObjectIdGetDatum(jq_scope_caller()));
	}
	else if (jq_scope_write_mode() == JQ_WRITE_PLAIN)
		jq_ownership_check(GetUserId(),
						   DatumGetObjectId(jq_job_row_value(row, JQ_JOB_OWNER)), "job");
}

/*
 * Whether somebody who may brings a row as it was elsewhere: a restore must
 * not fail because a limit has changed since.  A new row has the default.
 */
static bool
is_restored(const JqJobRow *row)
{
	return jq_scope_write_mode() == JQ_WRITE_PLAIN &&
		jq_ownership_is_restore(GetUserId(),
								DatumGetTimestampTz(jq_job_row_value(row, JQ_JOB_UPDATED_AT)));
}

/* The command of a job of the built-in type runs as the owner of the job. */
static void
check_runs_as(const JqJobRow *row)
{
	if (strcmp(jq_job_row_text(row, JQ_JOB_JOB_TYPE), JQ_SQL_JOB_TYPE) == 0 &&
		jq_job_row_has_owner(row))
		jq_ownership_check_superuser(DatumGetObjectId(jq_job_row_value(row, JQ_JOB_OWNER)));
}

/*
 * What is sent to an alert sink comes from alerts, and is its owner's: people
 * are to believe it, and a job of somebody else's could keep others of its
 * group waiting.
 */
static void
check_message(const JqJobRow *row)
{
	char	   *name = jq_job_row_text(row, JQ_JOB_JOB_TYPE);
	const JqJobType *type;

	if (strncmp(name, JQ_ALERT_PREFIX, strlen(JQ_ALERT_PREFIX)) != 0)
		return;
	type = jq_job_type(name);
	if (type->runner == JQ_RUNNER_HTTP)
		jq_ownership_check(jq_job_row_has_owner(row) ?
						   DatumGetObjectId(jq_job_row_value(row, JQ_JOB_OWNER)) :
						   jq_scope_caller(), type->owner, "alert sink");
}

static void
validate_values(const JqJobRow *row)
{
	char	   *job_type = jq_job_row_text(row, JQ_JOB_JOB_TYPE);
	JqBackoff	backoff;

	jq_name_check_required(job_type, "job_type");
	jq_validate_payload(jq_job_row_value(row, JQ_JOB_PAYLOAD));
	if (strcmp(job_type, JQ_SQL_JOB_TYPE) == 0)
		jq_validate_sql_payload(jq_job_row_value(row, JQ_JOB_PAYLOAD));
	if (strcmp(job_type, JQ_HTTP_JOB_TYPE) == 0)
		check_request(row);
	jq_validate_instant(DatumGetTimestampTz(jq_job_row_value(row, JQ_JOB_SCHEDULED_AT)),
						"scheduled_at");
	jq_range_check(jq_job_row_integer(row, JQ_JOB_MAX_ATTEMPTS),
				   "max_attempts", 1, 1000);
	jq_name_check(jq_job_row_text(row, JQ_JOB_STAGE), "stage", 0, 255);
	if (!jq_job_row_is_null(row, JQ_JOB_UNIQUE_KEY))
		jq_name_check(jq_job_row_text(row, JQ_JOB_UNIQUE_KEY), "unique_key", 1, 512);
	if (!jq_job_row_is_null(row, JQ_JOB_GROUP_KEY))
		jq_name_check(jq_job_row_text(row, JQ_JOB_GROUP_KEY), "group_key", 1, 512);
	if (!jq_job_row_is_null(row, JQ_JOB_TIMEOUT))
		jq_interval_us(DatumGetIntervalP(jq_job_row_value(row, JQ_JOB_TIMEOUT)),
					   "timeout", 1, MAX_TIMEOUT_US);
	if (jq_job_row_is_null(row, JQ_JOB_BACKOFF))
		return;
	jq_backoff_parse(DatumGetJsonbP(jq_job_row_value(row, JQ_JOB_BACKOFF)),
					 "backoff", &backoff);
	if (backoff.strategy == JQ_BACKOFF_FUNCTION)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("backoff of a job cannot have a function"),
				 errhint("Set it for the job type, as whose owner it runs.")));
}

/* The payload of the built-in type says what to send, and where. */
static void
check_request(const JqJobRow *row)
{
	jq_http_payload_check(DatumGetJsonbP(jq_job_row_value(row, JQ_JOB_PAYLOAD)),
						  jq_job_row_has_owner(row) ?
						  DatumGetObjectId(jq_job_row_value(row, JQ_JOB_OWNER)) :
						  InvalidOid);
}

/* ---- changes ---- */

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
		check_runs_as(is);
		check_message(is);
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
		clear_claim(is);
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

/* What only a running job has. */
static void
clear_claim(JqJobRow *row)
{
	static const int of_claim[] = {
		JQ_JOB_LOCKED_BY, JQ_JOB_LOCKED_AT, JQ_JOB_LEASE_EXPIRES_AT,
		JQ_JOB_CANCEL_REQUESTED_AT, JQ_JOB_HOLDER
	};

	for (int i = 0; i < (int) lengthof(of_claim); i++)
		if (!jq_job_row_is_null(row, of_claim[i]))
			jq_job_row_clear(row, of_claim[i]);
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
