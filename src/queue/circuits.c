/*-------------------------------------------------------------------------
 *
 * circuits.c
 *	  Circuit breakers: a stage of a job type whose attempts fail one after
 *	  the other is left alone for a while.
 *
 * What is open is said by job_circuits, whose rows every backend remembers,
 * and before a row is there by the counts in shared memory (circuit_counts.c).
 * An entry of the counts goes when its row is committed, and the generation
 * grows before: so whoever misses the entry reads the rows anew.
 *
 * The right to take a probe is a lock of the transaction, under a name of the
 * circuit.  It ends with the (sub)transaction, whatever becomes of that; a
 * prepared one keeps it.  What the row says is read under it.  Rows are made
 * under the same lock, also those of plain DML, so that nobody here ever waits
 * for one that is not committed yet.
 *
 * Who ends the claim of a probe writes what follows in the same transaction,
 * unless somebody has the row locked.  Then, or where a job went in a way that
 * no trigger saw, the row names a claim that does not run any more, and the
 * next claim may take a probe.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/scope.h"
#include "base/statement.h"
#include "queue/circuit_counts.h"
#include "queue/circuit_rows.h"
#include "queue/circuits.h"
#include "queue/event_log.h"
#include "queue/job_types.h"
#include "queue/queue_events.h"

/* How often it is looked whether a probe is still under way. */
#define PROBE_LOOK_US (1 * USECS_PER_SEC)
/* Somebody is about to take a probe, or has, and has yet to commit. */
#define RESERVED_US (100 * 1000)

static JqStatement select_claim = {
	.text = "SELECT FROM @.jobs_queue_live"
	" WHERE id = $1 AND claim_no = $2 AND status = 'running'",
	.nargs = 2,
	.argtypes = {INT8OID, INT4OID}
};

#define IS_PROBE \
	"l.state = 'half_open' AND l.probe_job_id = $3 AND l.probe_claim_no = $4"

static JqStatement lock_circuit = {
	.text = "SELECT FROM @.job_circuits WHERE job_type = $1 AND stage = $2"
	" FOR UPDATE SKIP LOCKED",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID}
};

static JqStatement update_probe = {
	.text = "UPDATE @.job_circuits SET state = 'half_open', forced = false,"
	" probe_job_id = $3, probe_claim_no = $4"
	JQ_UNLOCKED_CIRCUIT("l.state <> 'closed'"),
	.nargs = 4,
	.argtypes = {TEXTOID, TEXTOID, INT8OID, INT4OID}
};

static JqStatement forget_probe = {
	.text = "UPDATE @.job_circuits"
	" SET probe_job_id = NULL, probe_claim_no = NULL"
	JQ_UNLOCKED_CIRCUIT(IS_PROBE),
	.nargs = 4,
	.argtypes = {TEXTOID, TEXTOID, INT8OID, INT4OID}
};

static JqStatement close_after_probe = {
	.text = "DELETE FROM @.job_circuits" JQ_UNLOCKED_CIRCUIT(IS_PROBE),
	.nargs = 4,
	.argtypes = {TEXTOID, TEXTOID, INT8OID, INT4OID}
};

static JqStatement reopen = {
	.text = "UPDATE @.job_circuits SET state = 'open', retry_at = $5,"
	" failures = failures + 1, last_error = $6,"
	" probe_job_id = NULL, probe_claim_no = NULL"
	JQ_UNLOCKED_CIRCUIT(IS_PROBE)
	" RETURNING failures",
	.nargs = 6,
	.argtypes = {TEXTOID, TEXTOID, INT8OID, INT4OID, TIMESTAMPTZOID, TEXTOID}
};

static JqStatement force_open = {
	.text = "INSERT INTO @.job_circuits AS c (job_type, stage, state, forced,"
	" opened_at, retry_at, reason, opened_by)"
	" VALUES ($1, $2, 'open', true, $3, $4, $5, $6)"
	" ON CONFLICT (job_type, stage) DO UPDATE SET state = 'open',"
	" forced = true, opened_at = CASE c.state WHEN 'closed' THEN $3"
	" ELSE c.opened_at END, retry_at = $4, reason = $5, opened_by = $6,"
	" probe_job_id = NULL, probe_claim_no = NULL",
	.nargs = 6,
	.argtypes = {
		TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, REGROLEOID
	}
};

static JqStatement force_close = {
	.text = "DELETE FROM @.job_circuits"
	" WHERE job_type = $1 AND ($2 IS NULL OR stage = $2)"
	" RETURNING stage, state",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID}
};

static JqAdmission ask_row(const char *job_type, const char *stage,
						   TimestampTz now, TimestampTz *until);
static bool probe_is_running(JqCircuit *circuit, TimestampTz now);
static bool lock_row(const char *job_type, const char *stage);
static bool is_counted(const JqRun *run);
static void end_probe(const JqCircuit *circuit, const JqRun *run,
					  const JqLimits *limits);
static void close_circuit(const JqCircuit *circuit, Datum *values);
static void reopen_circuit(const JqCircuit *circuit, Datum *values,
						   const JqRun *run, int64 cooldown_us);
static void write_open(const JqCircuitCount *count);

uint64
jq_circuits_generation(void)
{
	return jq_circuit_counts_generation();
}

TimestampTz
jq_circuits_next_retry(TimestampTz now)
{
	TimestampTz next = DT_NOEND;
	int			count;
	const JqCircuit *circuits = jq_circuit_rows(&count);

	for (int i = 0; i < count; i++)
		if (circuits[i].state == JQ_CIRCUIT_IS_OPEN &&
			circuits[i].retry_at > now)
			next = Min(next, circuits[i].retry_at);
	return next;
}

/* ---- claims ---- */

JqAdmission
jq_circuit_look(const char *job_type, const char *stage, TimestampTz now,
				TimestampTz *until)
{
	JqAdmission answer;
	int			count;

	/* First memory, then rows: an entry goes when its row is there. */
	if (jq_circuit_counts_are_tripped(job_type, stage, until))
		return *until > now ? JQ_CIRCUIT_OPEN : JQ_CIRCUIT_PROBE;
	(void) jq_circuit_rows(&count);
	if (count == 0)
		return JQ_CIRCUIT_CLOSED;
	answer = ask_row(job_type, stage, now, until);
	if (answer == JQ_CIRCUIT_PROBE)
	{
		if (!jq_circuit_rows_reserve(job_type, stage))
		{
			*until = now + RESERVED_US;
			return JQ_CIRCUIT_OPEN;
		}
		jq_circuit_rows_end_reservation(job_type, stage);
	}
	return answer;
}

/* What the row says that is remembered. */
static JqAdmission
ask_row(const char *job_type, const char *stage, TimestampTz now,
		TimestampTz *until)
{
	JqCircuit  *circuit = jq_circuit_rows_find(job_type, stage);

	*until = DT_NOEND;
	if (circuit == NULL || circuit->state == JQ_CIRCUIT_IS_CLOSED)
		return JQ_CIRCUIT_CLOSED;
	if (circuit->state == JQ_CIRCUIT_IS_OPEN)
	{
		*until = circuit->retry_at;
		return *until > now ? JQ_CIRCUIT_OPEN : JQ_CIRCUIT_PROBE;
	}
	if (circuit->probe_job_id == 0 || !probe_is_running(circuit, now))
		return JQ_CIRCUIT_PROBE;
	*until = now + PROBE_LOOK_US;
	return JQ_CIRCUIT_OPEN;
}

/* Whoever ends it tells us, but not in each and every case. */
static bool
probe_is_running(JqCircuit *circuit, TimestampTz now)
{
	Datum		values[] = {
		Int64GetDatum(circuit->probe_job_id),
		Int32GetDatum(circuit->probe_claim_no)
	};
	uint32		version = jq_circuit_rows_version();
	bool		is_running;

	if (circuit->probe_seen_at <= now &&
		now - circuit->probe_seen_at < PROBE_LOOK_US)
		return true;
	jq_scope_enter_read_only();
	PushActiveSnapshot(GetLatestSnapshot());
	is_running = jq_statement_query(&select_claim, values, NULL, 1) > 0;
	PopActiveSnapshot();
	jq_scope_leave();
	if (is_running && version == jq_circuit_rows_version())
		circuit->probe_seen_at = now;
	return is_running;
}

JqAdmission
jq_circuit_admit(const char *job_type, const char *stage, TimestampTz now,
				 TimestampTz *until)
{
	JqAdmission answer = jq_circuit_look(job_type, stage, now, until);

	if (answer != JQ_CIRCUIT_PROBE)
		return answer;
	if (jq_circuits_are_new())
		jq_circuits_tend();
	if (!jq_circuit_rows_reserve(job_type, stage))
	{
		*until = now + RESERVED_US;
		return JQ_CIRCUIT_OPEN;
	}
	/* Nobody else can take a probe now: what is there? */
	jq_circuit_rows_load();
	answer = ask_row(job_type, stage, now, until);
	if (answer == JQ_CIRCUIT_PROBE && !lock_row(job_type, stage))
	{
		*until = now + RESERVED_US;
		answer = JQ_CIRCUIT_OPEN;
	}
	if (answer != JQ_CIRCUIT_PROBE)
		jq_circuit_rows_end_reservation(job_type, stage);
	return answer;
}

/* A probe is written down.  False: somebody has the row locked. */
static bool
lock_row(const char *job_type, const char *stage)
{
	Datum		values[2];
	bool		is_locked;

	jq_scope_enter(JQ_WRITE_ENGINE);
	values[0] = CStringGetTextDatum(job_type);
	values[1] = CStringGetTextDatum(stage);
	is_locked = jq_statement_execute_latest(&lock_circuit, values, NULL) > 0;
	jq_scope_leave();
	return is_locked;
}

void
jq_circuit_probe(const char *job_type, const char *stage, int64 job_id,
				 int32 claim_no)
{
	Datum		values[4];

	jq_scope_enter(JQ_WRITE_ENGINE);
	values[0] = CStringGetTextDatum(job_type);
	values[1] = CStringGetTextDatum(stage);
	values[2] = Int64GetDatum(job_id);
	values[3] = Int32GetDatum(claim_no);
	if (jq_circuit_rows_write_quietly(&update_probe, values) > 0)
	{
		JqCircuitEvent event = {
			JQ_EVENT_CIRCUIT_HALF_OPEN, job_type, stage, "probe", job_id
		};

		jq_queue_event("circuit_half_open", job_type, stage, job_id, NULL);
		if (jq_event_log_is_on())
			jq_event_log_circuit(&event);
	}
	jq_scope_leave();
}

void
jq_circuit_give_up_probe(const char *job_type, const char *stage)
{
	jq_circuit_rows_end_reservation(job_type, stage);
}

bool
jq_circuit_bars(const char *job_type, const char *stage, int64 job_id,
				int32 claim_no)
{
	const JqCircuit *circuit;
	TimestampTz retry_at;
	int			count;

	if (jq_circuit_counts_are_tripped(job_type, stage, &retry_at))
		return true;
	(void) jq_circuit_rows(&count);
	circuit = jq_circuit_rows_find(job_type, stage);
	return circuit != NULL && circuit->state != JQ_CIRCUIT_IS_CLOSED &&
		!(circuit->state == JQ_CIRCUIT_IS_HALF_OPEN &&
		  circuit->probe_job_id == job_id &&
		  circuit->probe_claim_no == claim_no);
}

/* ---- ends of claims ---- */

void
jq_circuit_note(const JqJob *job, const JqRun *run)
{
	const JqLimits *limits = &jq_job_type(job->job_type)->limits;
	JqLimits	copy;
	JqBreaker	breaker;
	bool		is_success = strcmp(run->status, "completed") == 0;
	const JqCircuit *circuits;
	const JqCircuit *circuit;
	int			count;

	if (limits->breaker_threshold == 0 && jq_circuit_rows_are_none())
		return;
	copy = *limits;
	circuits = jq_circuit_rows(&count);
	for (int i = 0; i < count; i++)
		if (circuits[i].probe_job_id == job->id &&
			circuits[i].probe_claim_no == job->claim_no &&
			circuits[i].state == JQ_CIRCUIT_IS_HALF_OPEN)
		{
			end_probe(&circuits[i], run, &copy);
			return;
		}
	circuit = jq_circuit_rows_find(job->job_type, job->stage);
	if (copy.breaker_threshold == 0 ||
		(!is_success && !is_counted(run)) ||
		(circuit != NULL && circuit->state != JQ_CIRCUIT_IS_CLOSED))
		return;
	breaker.threshold = copy.breaker_threshold;
	breaker.cooldown_us = copy.breaker_cooldown_us;
	breaker.distinct_jobs = copy.breaker_distinct_jobs;
	if (jq_circuit_counts_exist())
		jq_circuit_counts_note(job->job_type, job->stage, &breaker, job->id,
							   !is_success);
	else if (!is_success || circuit != NULL)
		jq_circuit_rows_count(job, run, &breaker, !is_success);
}

/* Whether it is a failure. */
static bool
is_counted(const JqRun *run)
{
	return run->charged && (strcmp(run->status, "failed") == 0 ||
							strcmp(run->status, "expired") == 0);
}

/* "circuit" is remembered, and may go with the first write. */
static void
end_probe(const JqCircuit *circuit, const JqRun *run, const JqLimits *limits)
{
	JqCircuit	copy = *circuit;
	Datum		values[6];

	jq_scope_enter(JQ_WRITE_ENGINE);
	copy.job_type = pstrdup(circuit->job_type);
	copy.stage = pstrdup(circuit->stage);
	values[0] = CStringGetTextDatum(copy.job_type);
	values[1] = CStringGetTextDatum(copy.stage);
	values[2] = Int64GetDatum(copy.probe_job_id);
	values[3] = Int32GetDatum(copy.probe_claim_no);
	if (strcmp(run->status, "completed") == 0)
		close_circuit(&copy, values);
	else if (is_counted(run))
		reopen_circuit(&copy, values, run, limits->breaker_cooldown_us);
	else
		(void) jq_circuit_rows_write(&forget_probe, values, NULL);
	jq_scope_leave();
}

static void
close_circuit(const JqCircuit *circuit, Datum *values)
{
	JqCircuitEvent event = {
		JQ_EVENT_CIRCUIT_CLOSED, circuit->job_type, circuit->stage, "probe",
		circuit->probe_job_id
	};

	if (jq_circuit_rows_write(&close_after_probe, values, NULL) == 0)
		return;
	jq_queue_event("circuit_closed", circuit->job_type, circuit->stage,
				   circuit->probe_job_id, NULL);
	if (jq_event_log_is_on())
		jq_event_log_circuit(&event);
}

static void
reopen_circuit(const JqCircuit *circuit, Datum *values, const JqRun *run,
			   int64 cooldown_us)
{
	JqCircuitEvent event = {
		JQ_EVENT_CIRCUIT_OPEN, circuit->job_type, circuit->stage, "probe",
		circuit->probe_job_id, cooldown_us
	};

	values[4] = TimestampTzGetDatum(GetCurrentTimestamp() + cooldown_us);
	values[5] = run->error == NULL ? (Datum) 0 : CStringGetTextDatum(run->error);
	if (jq_circuit_rows_write(&reopen, values, run->error == NULL ? "     n" : NULL) == 0)
		return;
	event.failures = DatumGetInt32(jq_statement_value(0, 1));
	jq_queue_event("circuit_reopened", circuit->job_type, circuit->stage,
				   circuit->probe_job_id,
				   psprintf("{\"cooldown_ms\": " INT64_FORMAT
							", \"failures\": %d}", cooldown_us / 1000,
							event.failures));
	if (jq_event_log_is_on())
		jq_event_log_circuit(&event);
}

/* ---- circuits that open ---- */

bool
jq_circuits_are_new(void)
{
	return jq_circuit_counts_have_tripped();
}

void
jq_circuits_tend(void)
{
	JqCircuitCount *counts;
	int			count = jq_circuit_counts_list(true, &counts);

	for (int i = 0; i < count; i++)
		if (jq_circuit_rows_reserve(counts[i].name.job_type, counts[i].name.stage))
			write_open(&counts[i]);
}

/* Under the lock: somebody may have been faster, which the entry shows. */
static void
write_open(const JqCircuitCount *count)
{
	const char *job_type = count->name.job_type;
	const char *stage = count->name.stage;
	const JqCircuit *circuit;
	TimestampTz retry_at;

	if (!jq_circuit_counts_are_tripped(job_type, stage, &retry_at))
		return;
	jq_circuit_rows_load();
	circuit = jq_circuit_rows_find(job_type, stage);
	if (circuit != NULL && circuit->state != JQ_CIRCUIT_IS_CLOSED)
	{
		jq_circuit_counts_forget(job_type, stage);
		jq_circuit_counts_change();
		return;
	}
	jq_scope_enter(JQ_WRITE_ENGINE);
	if (jq_circuit_rows_write_open(count) && jq_circuit_counts_mark_logged(&count->name))
		jq_circuit_rows_report_open(count);
	jq_scope_leave();
}

/* ---- by hand ---- */

bool
jq_circuit_force_open(const char *job_type, const char *stage,
					  int64 duration_us, const char *reason)
{
	TimestampTz now;
	Oid			caller = GetUserId();
	const JqCircuit *circuit;
	char		nulls[6] = {' ', ' ', ' ', ' ', ' ', ' '};
	Datum		values[6];
	bool		is_new;
	JqCircuitEvent event = {
		JQ_EVENT_CIRCUIT_OPEN, job_type, stage, "operator", 0, duration_us
	};

	jq_scope_enter(JQ_WRITE_ENGINE);
	jq_circuit_rows_wait_for_name(job_type, stage);
	jq_circuit_rows_load();
	circuit = jq_circuit_rows_find(job_type, stage);
	is_new = circuit == NULL || circuit->state != JQ_CIRCUIT_IS_OPEN;
	now = GetCurrentTimestamp();
	values[0] = CStringGetTextDatum(job_type);
	values[1] = CStringGetTextDatum(stage);
	values[2] = TimestampTzGetDatum(now);
	values[3] = TimestampTzGetDatum(now + duration_us);
	nulls[3] = duration_us == 0 ? 'n' : ' ';
	values[4] = reason == NULL ? (Datum) 0 : CStringGetTextDatum(reason);
	nulls[4] = reason == NULL ? 'n' : ' ';
	values[5] = ObjectIdGetDatum(caller);
	(void) jq_circuit_rows_write(&force_open, values, nulls);
	jq_queue_event("circuit_forced_open", job_type, stage, 0,
				   duration_us == 0 ? NULL :
				   psprintf("{\"cooldown_ms\": " INT64_FORMAT "}",
							duration_us / 1000));
	if (jq_event_log_is_on())
		jq_event_log_circuit(&event);
	jq_scope_leave();
	return is_new;
}

int
jq_circuit_force_close(const char *job_type, const char *stage)
{
	Datum		values[2];
	SPITupleTable *closed;
	uint64		rows;
	int			count = 0;

	jq_circuits_tend();
	jq_scope_enter(JQ_WRITE_ENGINE);
	values[0] = CStringGetTextDatum(job_type);
	values[1] = stage == NULL ? (Datum) 0 : CStringGetTextDatum(stage);
	rows = jq_circuit_rows_write(&force_close, values, stage == NULL ? " n" : NULL);
	closed = SPI_tuptable;
	for (uint64 i = 0; i < rows; i++)
	{
		JqCircuitEvent event = {JQ_EVENT_CIRCUIT_CLOSED, job_type};

		SPI_tuptable = closed;
		if (strcmp(TextDatumGetCString(jq_statement_value(i, 2)), "closed") == 0)
			continue;
		event.stage = TextDatumGetCString(jq_statement_value(i, 1));
		event.cause = "operator";
		jq_queue_event("circuit_forced_closed", job_type, event.stage, 0, NULL);
		if (jq_event_log_is_on())
			jq_event_log_circuit(&event);
		count++;
	}
	jq_circuit_counts_forget(job_type, stage);
	jq_scope_leave();
	return count;
}
