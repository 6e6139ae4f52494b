/*-------------------------------------------------------------------------
 *
 * circuit_rows.c
 *	  The rows of job_circuits: what each backend remembers of them, and what
 *	  is written.
 *
 * They are read anew when somebody has written them, which an invalidation
 * tells, and when the generation in shared memory has grown: see circuits.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/config.h"
#include "base/names.h"
#include "base/rows.h"
#include "base/scope.h"
#include "base/wake.h"
#include "queue/activity.h"
#include "queue/circuit_rows.h"
#include "queue/circuits.h"
#include "queue/event_log.h"
#include "queue/queue_events.h"

PG_FUNCTION_INFO_V1(jobqueue_guard_circuit);
PG_FUNCTION_INFO_V1(jobqueue_circuits_changed);

static JqCircuit *known = NULL;
static int	nknown = 0;
static MemoryContext known_context = NULL;
static Oid	known_relation = InvalidOid;
static uint32 known_invalidations = 0;	/* 0: nothing is known */
static uint64 known_generation = 0;
static uint32 invalidations = 1;

/* What the statement that is being executed writes is of no use to sleepers. */
static bool is_quiet = false;

static JqStatement select_circuits = {
	.text = "SELECT job_type, stage, state, retry_at, probe_job_id,"
	" probe_claim_no FROM @.job_circuits"
};

/* With what its last attempt said. */
#define LAST_ERROR \
	"(SELECT r.error FROM @.job_runs r WHERE r.job_id = $7" \
	" AND r.status IN ('failed', 'expired') ORDER BY r.claim_no DESC LIMIT 1)"

static JqStatement insert_open = {
	.text = "INSERT INTO @.job_circuits (job_type, stage, state, opened_at,"
	" retry_at, failures, failed_jobs, last_error)"
	" VALUES ($1, $2, 'open', $3, $4, $5, $6, " LAST_ERROR ")"
	" ON CONFLICT DO NOTHING",
	.nargs = 7,
	.argtypes = {
		TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID,
		INT8ARRAYOID, INT8OID
	}
};

static JqStatement update_open = {
	.text = "UPDATE @.job_circuits SET state = 'open', forced = false,"
	" opened_at = $3, retry_at = $4, failures = $5, failed_jobs = $6,"
	" reason = NULL, opened_by = NULL, last_error = " LAST_ERROR
	JQ_UNLOCKED_CIRCUIT("l.state = 'closed'"),
	.nargs = 7,
	.argtypes = {
		TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID,
		INT8ARRAYOID, INT8OID
	}
};

/* Without shared memory: the last jobs that failed are kept. */
static JqStatement insert_count = {
	.text = "INSERT INTO @.job_circuits (job_type, stage, state, failures,"
	" failed_jobs, last_error) VALUES ($1, $2, 'closed', 1, ARRAY[$3], $5)"
	" ON CONFLICT DO NOTHING RETURNING failures, failed_jobs",
	.nargs = 5,
	.argtypes = {TEXTOID, TEXTOID, INT8OID, BOOLOID, TEXTOID}
};

static JqStatement update_count = {
	.text = "UPDATE @.job_circuits SET failures = failures + 1,"
	" failed_jobs = failed_jobs[greatest(cardinality(failed_jobs) - 62, 1):]"
	" || $3, last_error = $5"
	JQ_UNLOCKED_CIRCUIT("l.state = 'closed'"
						" AND NOT ($4 AND $3 = ANY (l.failed_jobs))")
	" RETURNING failures, failed_jobs",
	.nargs = 5,
	.argtypes = {TEXTOID, TEXTOID, INT8OID, BOOLOID, TEXTOID}
};

static JqStatement delete_count = {
	.text = "DELETE FROM @.job_circuits"
	JQ_UNLOCKED_CIRCUIT("l.state = 'closed'"),
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID}
};

static void read_circuit(uint64 row, JqCircuit *circuit);
static void forget_circuits(Datum arg, Oid relid);
static void log_open(const JqCircuitCount *count);
static void set_tag(LOCKTAG *tag, const char *job_type, const char *stage);
static char *new_text(TriggerData *trigger, const char *column);
static HeapTuple settle_row(TriggerData *trigger);

/* ---- what is known ---- */

JqCircuit *
jq_circuit_rows(int *count)
{
	Oid			relation = jq_catalog()->job_circuits;

	if (known_invalidations != invalidations || known_relation != relation ||
		known_generation != jq_circuit_counts_generation())
		jq_circuit_rows_load();
	*count = nknown;
	return known;
}

/* What changes while it is being read is read again by the next call. */
void
jq_circuit_rows_load(void)
{
	Oid			relation = jq_catalog()->job_circuits;
	uint32		read_at;
	uint64		generation;
	uint64		rows;

	if (known_context == NULL)
	{
		known_context = AllocSetContextCreate(TopMemoryContext,
											  "jobqueue circuits",
											  ALLOCSET_SMALL_SIZES);
		CacheRegisterRelcacheCallback(forget_circuits, (Datum) 0);
	}
	known_invalidations = 0;
	known_relation = relation;
	nknown = 0;
	MemoryContextReset(known_context);
	read_at = invalidations;
	generation = jq_circuit_counts_generation();

	/* The newest rows, whatever the age of the transaction's snapshot. */
	jq_scope_enter_read_only();
	PushActiveSnapshot(GetLatestSnapshot());
	rows = jq_statement_query(&select_circuits, NULL, NULL, 0);
	PopActiveSnapshot();
	if (rows > 0)
		known = MemoryContextAllocZero(known_context, sizeof(JqCircuit) * rows);
	for (uint64 i = 0; i < rows; i++)
		read_circuit(i, &known[i]);
	jq_scope_leave();
	nknown = (int) rows;
	known_invalidations = read_at;
	known_generation = generation;
}

static void
read_circuit(uint64 row, JqCircuit *circuit)
{
	MemoryContext old = MemoryContextSwitchTo(known_context);
	char	   *state;
	bool		isnull;
	Datum		value;

	circuit->job_type = TextDatumGetCString(jq_statement_value(row, 1));
	circuit->stage = TextDatumGetCString(jq_statement_value(row, 2));
	circuit->hash = jq_circuit_hash(circuit->job_type, circuit->stage);
	state = TextDatumGetCString(jq_statement_value(row, 3));
	circuit->state = strcmp(state, "closed") == 0 ? JQ_CIRCUIT_IS_CLOSED :
		strcmp(state, "half_open") == 0 ? JQ_CIRCUIT_IS_HALF_OPEN :
		JQ_CIRCUIT_IS_OPEN;
	value = jq_statement_nullable(row, 4, &isnull);
	circuit->retry_at = isnull ? DT_NOEND : DatumGetTimestampTz(value);
	value = jq_statement_nullable(row, 5, &isnull);
	circuit->probe_job_id = isnull ? 0 : DatumGetInt64(value);
	value = jq_statement_nullable(row, 6, &isnull);
	circuit->probe_claim_no = isnull ? 0 : DatumGetInt32(value);
	MemoryContextSwitchTo(old);
}

JqCircuit *
jq_circuit_rows_find(const char *job_type, const char *stage)
{
	uint32		hash;

	if (nknown == 0)
		return NULL;
	hash = jq_circuit_hash(job_type, stage);
	for (int i = 0; i < nknown; i++)
		if (known[i].hash == hash &&
			strcmp(known[i].stage, stage) == 0 &&
			strcmp(known[i].job_type, job_type) == 0)
			return &known[i];
	return NULL;
}

uint32
jq_circuit_rows_version(void)
{
	return known_invalidations;
}

bool
jq_circuit_rows_are_none(void)
{
	return nknown == 0 && known_invalidations == invalidations;
}

static void
forget_circuits(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == known_relation)
		invalidations++;
}

/* ---- names ---- */

static void
set_tag(LOCKTAG *tag, const char *job_type, const char *stage)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, jq_catalog()->job_circuits,
					   jq_circuit_hash(job_type, stage), 0);
}

bool
jq_circuit_rows_reserve(const char *job_type, const char *stage)
{
	LOCKTAG		tag;

	set_tag(&tag, job_type, stage);
	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

void
jq_circuit_rows_end_reservation(const char *job_type, const char *stage)
{
	LOCKTAG		tag;

	set_tag(&tag, job_type, stage);
	(void) LockRelease(&tag, ExclusiveLock, false);
}

void
jq_circuit_rows_wait_for_name(const char *job_type, const char *stage)
{
	LOCKTAG		tag;

	set_tag(&tag, job_type, stage);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* ---- writing ---- */

uint64
jq_circuit_rows_write(JqStatement *statement, Datum *values, const char *nulls)
{
	is_quiet = false;
	return jq_statement_execute_latest(statement, values, nulls);
}

uint64
jq_circuit_rows_write_quietly(JqStatement *statement, Datum *values)
{
	uint64		rows;

	is_quiet = true;
	rows = jq_statement_execute_latest(statement, values, NULL);
	is_quiet = false;
	return rows;
}

void
jq_circuit_rows_count(const JqJob *job, const JqRun *run,
					  const JqBreaker *breaker, bool is_failure)
{
	JqCircuitCount count = {0};
	const char *nulls = run->error == NULL ? "    n" : NULL;
	Datum		values[5];
	Datum	   *jobs;
	uint64		rows;

	if (strlcpy(count.name.job_type, job->job_type, JQ_CIRCUIT_NAME_SIZE) >= JQ_CIRCUIT_NAME_SIZE ||
		strlcpy(count.name.stage, job->stage, JQ_CIRCUIT_NAME_SIZE) >= JQ_CIRCUIT_NAME_SIZE ||
		!jq_circuit_rows_reserve(job->job_type, job->stage))
		return;
	jq_scope_enter(JQ_WRITE_ENGINE);
	values[0] = CStringGetTextDatum(job->job_type);
	values[1] = CStringGetTextDatum(job->stage);
	if (!is_failure)
	{
		(void) jq_circuit_rows_write(&delete_count, values, NULL);
		jq_scope_leave();
		return;
	}
	values[2] = Int64GetDatum(job->id);
	values[3] = BoolGetDatum(breaker->distinct_jobs);
	values[4] = run->error == NULL ? (Datum) 0 : CStringGetTextDatum(run->error);
	rows = jq_circuit_rows_write(&update_count, values, nulls);
	if (rows == 0)
		rows = jq_circuit_rows_write(&insert_count, values, nulls);
	if (rows > 0)
	{
		count.failures = DatumGetInt32(jq_statement_value(0, 1));
		deconstruct_array(DatumGetArrayTypeP(jq_statement_value(0, 2)),
						  INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
						  TYPALIGN_DOUBLE, &jobs, NULL, &count.njobs);
		count.njobs = Min(count.njobs, JQ_CIRCUIT_MAX_JOBS);
		for (int i = 0; i < count.njobs; i++)
			count.jobs[i] = DatumGetInt64(jobs[i]);
		count.tripped_at = GetCurrentTimestamp();
		count.cooldown_us = breaker->cooldown_us;
		count.retry_at = count.tripped_at + count.cooldown_us;
	}
	if (rows > 0 && count.failures >= breaker->threshold &&
		jq_circuit_rows_write_open(&count))
		jq_circuit_rows_report_open(&count);
	jq_scope_leave();
}

bool
jq_circuit_rows_write_open(const JqCircuitCount *count)
{
	Datum		jobs[JQ_CIRCUIT_MAX_JOBS];
	Datum		values[7];

	Assert(count->njobs > 0);
	for (int i = 0; i < count->njobs; i++)
		jobs[i] = Int64GetDatum(count->jobs[i]);
	values[0] = CStringGetTextDatum(count->name.job_type);
	values[1] = CStringGetTextDatum(count->name.stage);
	values[2] = TimestampTzGetDatum(count->tripped_at);
	values[3] = TimestampTzGetDatum(count->retry_at);
	values[4] = Int32GetDatum(count->failures);
	values[5] = PointerGetDatum(construct_array(jobs, count->njobs, INT8OID,
												sizeof(int64), FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	values[6] = jobs[count->njobs - 1];
	if (jq_circuit_rows_write(&update_open, values, NULL) == 0 &&
		jq_circuit_rows_write(&insert_open, values, NULL) == 0)
		return false;
	jq_queue_event("circuit_open", count->name.job_type, count->name.stage,
				   count->jobs[count->njobs - 1],
				   psprintf("{\"cooldown_ms\": " INT64_FORMAT
							", \"failures\": %d}",
							count->cooldown_us / 1000, count->failures));
	if (jq_event_log_is_on())
		log_open(count);
	return true;
}

static void
log_open(const JqCircuitCount *count)
{
	JqCircuitEvent event = {
		JQ_EVENT_CIRCUIT_OPEN, count->name.job_type, count->name.stage,
		"failures", count->jobs[count->njobs - 1], count->cooldown_us,
		count->failures
	};

	jq_event_log_circuit(&event);
}

void
jq_circuit_rows_report_open(const JqCircuitCount *count)
{
	if (!jq_event_log_is_on() && jq_config_logs(LOG))
		ereport(LOG,
				(errmsg("circuit of job type \"%s\", stage \"%s\" opened after %d failures in a row, for %lld ms",
						count->name.job_type, count->name.stage,
						count->failures,
						(long long) (count->cooldown_us / 1000))));
}

/* ---- plain DML ---- */

/*
 * BEFORE INSERT OR UPDATE OR DELETE ON job_circuits FOR EACH ROW.  What was
 * counted before a row came or went does not count any more.
 */
Datum
jobqueue_guard_circuit(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	result;
	char	   *job_type;
	char	   *stage;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != jq_catalog()->job_circuits)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"_guard_circuit\" must be called as the trigger of job_circuits")));
	result = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
		trigger->tg_newtuple : trigger->tg_trigtuple;
	if (jq_scope_write_mode() == JQ_WRITE_PLAIN &&
		!TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		result = settle_row(trigger);
	job_type = new_text(trigger, "job_type");
	stage = new_text(trigger, "stage");
	if (job_type != NULL && stage != NULL)
		jq_circuit_counts_forget(job_type, stage);
	return PointerGetDatum(result);
}

/* A new row without opened_at is not one of a restore, but somebody's wish. */
static HeapTuple
settle_row(TriggerData *trigger)
{
	static const char *const names[] = {"forced", "opened_at", "opened_by"};
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	HeapTuple	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
	trigger->tg_newtuple : trigger->tg_trigtuple;
	char	   *job_type = new_text(trigger, "job_type");
	char	   *stage = new_text(trigger, "stage");
	char	   *state = new_text(trigger, "state");
	char	   *reason = new_text(trigger, "reason");
	int			columns[lengthof(names)];
	Datum		values[lengthof(names)];
	bool		nulls[lengthof(names)] = {false};
	bool		isnull;
	bool		has_job;

	if (job_type == NULL || stage == NULL || state == NULL)
		return row;				/* to be refused */
	jq_name_check_required(job_type, "job_type");
	jq_name_check(stage, "stage", 0, 255);
	if (reason != NULL)
		jq_name_check(reason, "reason", 0, JQ_CIRCUIT_MAX_REASON);
	(void) jq_row_new_value(trigger, "probe_job_id", &isnull);
	has_job = !isnull;
	(void) jq_row_new_value(trigger, "probe_claim_no", &isnull);
	if (has_job == isnull)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("probe_job_id and probe_claim_no must be set together")));
	jq_circuit_rows_wait_for_name(job_type, stage);

	(void) jq_row_new_value(trigger, "opened_at", &isnull);
	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) || !isnull ||
		strcmp(state, "closed") == 0)
		return row;
	for (int i = 0; i < (int) lengthof(names); i++)
		columns[i] = SPI_fnumber(desc, names[i]);
	values[0] = BoolGetDatum(true);
	values[1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[2] = ObjectIdGetDatum(jq_scope_caller());
	return heap_modify_tuple_by_cols(row, desc, (int) lengthof(names),
									 columns, values, nulls);
}

/* NULL: it is null. */
static char *
new_text(TriggerData *trigger, const char *column)
{
	bool		isnull;
	Datum		value = jq_row_new_value(trigger, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/*
 * AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE: everybody reads the rows anew,
 * and looks for work, unless a probe is all that has come of it.
 */
Datum
jobqueue_circuits_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"_circuits_changed\" must be called as a trigger")));
	CacheInvalidateRelcache(trigger->tg_relation);
	if (is_quiet && jq_scope_write_mode() == JQ_WRITE_ENGINE)
		return PointerGetDatum(NULL);
	jq_circuit_counts_change();
	jq_activity_wake_at_commit();
	jq_wake_at_commit();
	return PointerGetDatum(NULL);
}
