/*-------------------------------------------------------------------------
 *
 * row_rules.c
 *	  What a row of jobs_queue must be like.
 *
 * Most rules hold for rows that plain DML brings and for those of the C code.
 * What a status has to fit to, and whether an id has been run before, is asked
 * of plain DML only.  A restored row, and one that has been claimed or has
 * ended, was checked where it came from.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/compat.h"
#include "base/interval.h"
#include "base/names.h"
#include "base/ownership.h"
#include "base/scope.h"
#include "queue/backoff.h"
#include "queue/failure_counts.h"
#include "queue/http_payload.h"
#include "queue/job.h"
#include "queue/job_types.h"
#include "queue/row_rules.h"
#include "queue/validate.h"

/* Longest attempt that a job may ask for. */
#define MAX_TIMEOUT_US USECS_PER_DAY

static void fill_defaults(JqJobRow *row);
static void check_new_status(JqJobRow *row);
static void check_unknown_id(Relation leaf, const JqJobRow *row);
static bool other_leaf_has(Relation leaf, int64 id);
static bool has_later_run(const JqJobRow *row, int64 id);
static void set_new_owner(JqJobRow *row);
static bool is_restored(const JqJobRow *row);
static void check_request(const JqJobRow *row);

void
jq_row_rules_admit(Relation leaf, JqJobRow *row)
{
	fill_defaults(row);
	if (jq_scope_write_mode() == JQ_WRITE_PLAIN)
		check_new_status(row);
	check_unknown_id(leaf, row);
	set_new_owner(row);
	if (!is_restored(row))
		jq_row_rules_check_message(row);
	if (!jq_job_status_is_final(jq_job_row_status(row)) &&
		jq_job_row_integer(row, JQ_JOB_CLAIM_NO) == 0 && !is_restored(row))
	{
		jq_row_rules_check_values(row);
		jq_row_rules_check_runs_as(row);
	}
	if (jq_job_row_status(row) == JQ_STATUS_QUEUED)
	{
		jq_job_row_clear_claim(row);
		jq_job_row_clear(row, JQ_JOB_RESULT);
		jq_job_row_clear(row, JQ_JOB_FINISHED_AT);
		jq_job_row_set(row, JQ_JOB_WAITING_FOR, Int32GetDatum(0));
	}
}

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
check_unknown_id(Relation leaf, const JqJobRow *row)
{
	int64		id;

	if (jq_job_row_is_null(row, JQ_JOB_ID) || jq_job_row_is_null(row, JQ_JOB_CLAIM_NO))
		return;					/* the NOT NULL constraint says so */
	id = DatumGetInt64(jq_job_row_value(row, JQ_JOB_ID));
	if (id <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("id of a job must be positive")));
	if (other_leaf_has(leaf, id))
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
other_leaf_has(Relation leaf, int64 id)
{
	const JqCatalog *catalog = jq_catalog();
	bool		is_live =
	RelationGetRelid(leaf) == catalog->jobs_queue_live;
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

void
jq_row_rules_check_values(const JqJobRow *row)
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

/* The command of a job of the built-in type runs as the owner of the job. */
void
jq_row_rules_check_runs_as(const JqJobRow *row)
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
void
jq_row_rules_check_message(const JqJobRow *row)
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
