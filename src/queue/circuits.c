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
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
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
#include "base/statement.h"
#include "base/wake.h"
#include "queue/activity.h"
#include "queue/circuit_counts.h"
#include "queue/circuits.h"
#include "queue/job_types.h"
#include "queue/queue_events.h"

PG_FUNCTION_INFO_V1(jobqueue_guard_circuit);
PG_FUNCTION_INFO_V1(jobqueue_circuits_changed);

/* How often it is looked whether a probe is still under way. */
#define PROBE_LOOK_US (1 * USECS_PER_SEC)
/* Somebody is about to take a probe, or has, and has yet to commit. */
#define RESERVED_US (100 * 1000)

typedef enum CircuitState
{
	STATE_CLOSED,
	STATE_OPEN,
	STATE_HALF_OPEN
} CircuitState;

/* A row of job_circuits. */
typedef struct Circuit
{
	uint32		hash;			/* jq_circuit_hash() of the next two */
	char	   *job_type;
	char	   *stage;
	CircuitState state;
	TimestampTz retry_at;		/* DT_NOEND: NULL */
	int64		probe_job_id;	/* 0: none */
	int32		probe_claim_no;
	TimestampTz probe_seen_at;	/* its claim was running then */
} Circuit;

static Circuit *known = NULL;
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

static JqStatement select_claim = {
	.text = "SELECT FROM @.jobs_queue_live"
	" WHERE id = $1 AND claim_no = $2 AND status = 'running'",
	.nargs = 2,
	.argtypes = {INT8OID, INT4OID}
};

/* The row of $1 and $2, unless somebody has it locked. */
#define UNLOCKED_ROW(condition) \
	" WHERE (job_type, stage) IN (SELECT l.job_type, l.stage" \
	" FROM @.job_circuits l WHERE l.job_type = $1 AND l.stage = $2" \
	" AND " condition " FOR UPDATE SKIP LOCKED)"

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
	UNLOCKED_ROW("l.state <> 'closed'"),
	.nargs = 4,
	.argtypes = {TEXTOID, TEXTOID, INT8OID, INT4OID}
};

static JqStatement forget_probe = {
	.text = "UPDATE @.job_circuits"
	" SET probe_job_id = NULL, probe_claim_no = NULL" UNLOCKED_ROW(IS_PROBE),
	.nargs = 4,
	.argtypes = {TEXTOID, TEXTOID, INT8OID, INT4OID}
};

static JqStatement close_after_probe = {
	.text = "DELETE FROM @.job_circuits" UNLOCKED_ROW(IS_PROBE),
	.nargs = 4,
	.argtypes = {TEXTOID, TEXTOID, INT8OID, INT4OID}
};

static JqStatement reopen = {
	.text = "UPDATE @.job_circuits SET state = 'open', retry_at = $5,"
	" failures = failures + 1, last_error = $6,"
	" probe_job_id = NULL, probe_claim_no = NULL" UNLOCKED_ROW(IS_PROBE)
	" RETURNING failures",
	.nargs = 6,
	.argtypes = {TEXTOID, TEXTOID, INT8OID, INT4OID, TIMESTAMPTZOID, TEXTOID}
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
	UNLOCKED_ROW("l.state = 'closed'"),
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
	UNLOCKED_ROW("l.state = 'closed'"
				 " AND NOT ($4 AND $3 = ANY (l.failed_jobs))")
	" RETURNING failures, failed_jobs",
	.nargs = 5,
	.argtypes = {TEXTOID, TEXTOID, INT8OID, BOOLOID, TEXTOID}
};

static JqStatement delete_count = {
	.text = "DELETE FROM @.job_circuits" UNLOCKED_ROW("l.state = 'closed'"),
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID}
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

static void refresh(void);
static void load(Oid relation);
static void read_circuit(uint64 row, Circuit *circuit);
static Circuit *find_circuit(const char *job_type, const char *stage);
static JqAdmission ask_row(const char *job_type, const char *stage,
						   TimestampTz now, TimestampTz *until);
static bool probe_is_running(Circuit *circuit, TimestampTz now);
static bool lock_row(const char *job_type, const char *stage);
static void set_tag(LOCKTAG *tag, const char *job_type, const char *stage);
static bool try_reserve(const char *job_type, const char *stage);
static void end_reservation(const char *job_type, const char *stage);
static uint64 write_row(JqStatement *statement, Datum *values,
						const char *nulls);
static bool is_counted(const JqRun *run);
static void end_probe(const Circuit *circuit, const JqRun *run,
					  const JqLimits *limits);
static void close_circuit(const Circuit *circuit, Datum *values);
static void reopen_circuit(const Circuit *circuit, Datum *values,
						   const JqRun *run, int64 cooldown_us);
static void count_in_row(const JqJob *job, const JqRun *run,
						 const JqBreaker *breaker);
static void write_open(const JqCircuitCount *count);
static bool write_open_row(const JqCircuitCount *count);
static void report_open(const JqCircuitCount *count);
static void forget_circuits(Datum arg, Oid relid);
static char *new_text(TriggerData *trigger, const char *column);
static HeapTuple settle_row(TriggerData *trigger);

/* ---- what is known ---- */

static void
refresh(void)
{
	Oid			relation = jq_catalog()->job_circuits;

	if (known_invalidations != invalidations || known_relation != relation ||
		known_generation != jq_circuit_counts_generation())
		load(relation);
}

/* What changes while it is being read is read again by the next call. */
static void
load(Oid relation)
{
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
		known = MemoryContextAllocZero(known_context, sizeof(Circuit) * rows);
	for (uint64 i = 0; i < rows; i++)
		read_circuit(i, &known[i]);
	jq_scope_leave();
	nknown = (int) rows;
	known_invalidations = read_at;
	known_generation = generation;
}

static void
read_circuit(uint64 row, Circuit *circuit)
{
	MemoryContext old = MemoryContextSwitchTo(known_context);
	char	   *state;
	bool		isnull;
	Datum		value;

	circuit->job_type = TextDatumGetCString(jq_statement_value(row, 1));
	circuit->stage = TextDatumGetCString(jq_statement_value(row, 2));
	circuit->hash = jq_circuit_hash(circuit->job_type, circuit->stage);
	state = TextDatumGetCString(jq_statement_value(row, 3));
	circuit->state = strcmp(state, "closed") == 0 ? STATE_CLOSED :
		strcmp(state, "half_open") == 0 ? STATE_HALF_OPEN : STATE_OPEN;
	value = jq_statement_nullable(row, 4, &isnull);
	circuit->retry_at = isnull ? DT_NOEND : DatumGetTimestampTz(value);
	value = jq_statement_nullable(row, 5, &isnull);
	circuit->probe_job_id = isnull ? 0 : DatumGetInt64(value);
	value = jq_statement_nullable(row, 6, &isnull);
	circuit->probe_claim_no = isnull ? 0 : DatumGetInt32(value);
	MemoryContextSwitchTo(old);
}

static Circuit *
find_circuit(const char *job_type, const char *stage)
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

static void
forget_circuits(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == known_relation)
		invalidations++;
}

uint64
jq_circuits_generation(void)
{
	return jq_circuit_counts_generation();
}

TimestampTz
jq_circuits_next_retry(TimestampTz now)
{
	TimestampTz next = DT_NOEND;

	refresh();
	for (int i = 0; i < nknown; i++)
		if (known[i].state == STATE_OPEN && known[i].retry_at > now)
			next = Min(next, known[i].retry_at);
	return next;
}

/* ---- claims ---- */

JqAdmission
jq_circuit_look(const char *job_type, const char *stage, TimestampTz now,
				TimestampTz *until)
{
	JqAdmission answer;

	/* First memory, then rows: an entry goes when its row is there. */
	if (jq_circuit_counts_are_tripped(job_type, stage, until))
		return *until > now ? JQ_CIRCUIT_OPEN : JQ_CIRCUIT_PROBE;
	refresh();
	if (nknown == 0)
		return JQ_CIRCUIT_CLOSED;
	answer = ask_row(job_type, stage, now, until);
	if (answer == JQ_CIRCUIT_PROBE)
	{
		if (!try_reserve(job_type, stage))
		{
			*until = now + RESERVED_US;
			return JQ_CIRCUIT_OPEN;
		}
		end_reservation(job_type, stage);
	}
	return answer;
}

/* What the row says that is remembered. */
static JqAdmission
ask_row(const char *job_type, const char *stage, TimestampTz now,
		TimestampTz *until)
{
	Circuit    *circuit = find_circuit(job_type, stage);

	*until = DT_NOEND;
	if (circuit == NULL || circuit->state == STATE_CLOSED)
		return JQ_CIRCUIT_CLOSED;
	if (circuit->state == STATE_OPEN)
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
probe_is_running(Circuit *circuit, TimestampTz now)
{
	Datum		values[] = {
		Int64GetDatum(circuit->probe_job_id),
		Int32GetDatum(circuit->probe_claim_no)
	};
	uint32		known_before = known_invalidations;
	bool		is_running;

	if (circuit->probe_seen_at <= now &&
		now - circuit->probe_seen_at < PROBE_LOOK_US)
		return true;
	jq_scope_enter_read_only();
	PushActiveSnapshot(GetLatestSnapshot());
	is_running = jq_statement_query(&select_claim, values, NULL, 1) > 0;
	PopActiveSnapshot();
	jq_scope_leave();
	if (is_running && known_before == known_invalidations)
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
	if (!try_reserve(job_type, stage))
	{
		*until = now + RESERVED_US;
		return JQ_CIRCUIT_OPEN;
	}
	/* Nobody else can take a probe now: what is there? */
	load(jq_catalog()->job_circuits);
	answer = ask_row(job_type, stage, now, until);
	if (answer == JQ_CIRCUIT_PROBE && !lock_row(job_type, stage))
	{
		*until = now + RESERVED_US;
		answer = JQ_CIRCUIT_OPEN;
	}
	if (answer != JQ_CIRCUIT_PROBE)
		end_reservation(job_type, stage);
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
	bool		is_written;

	jq_scope_enter(JQ_WRITE_ENGINE);
	values[0] = CStringGetTextDatum(job_type);
	values[1] = CStringGetTextDatum(stage);
	values[2] = Int64GetDatum(job_id);
	values[3] = Int32GetDatum(claim_no);
	is_quiet = true;
	is_written = jq_statement_execute_latest(&update_probe, values, NULL) > 0;
	is_quiet = false;
	if (is_written)
		jq_queue_event("circuit_half_open", job_type, stage, job_id, NULL);
	jq_scope_leave();
}

void
jq_circuit_give_up_probe(const char *job_type, const char *stage)
{
	end_reservation(job_type, stage);
}

bool
jq_circuit_bars(const char *job_type, const char *stage, int64 job_id,
				int32 claim_no)
{
	const Circuit *circuit;
	TimestampTz retry_at;

	if (jq_circuit_counts_are_tripped(job_type, stage, &retry_at))
		return true;
	refresh();
	circuit = find_circuit(job_type, stage);
	return circuit != NULL && circuit->state != STATE_CLOSED &&
		!(circuit->state == STATE_HALF_OPEN &&
		  circuit->probe_job_id == job_id &&
		  circuit->probe_claim_no == claim_no);
}

static void
set_tag(LOCKTAG *tag, const char *job_type, const char *stage)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, jq_catalog()->job_circuits,
					   jq_circuit_hash(job_type, stage), 0);
}

static bool
try_reserve(const char *job_type, const char *stage)
{
	LOCKTAG		tag;

	set_tag(&tag, job_type, stage);
	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

static void
end_reservation(const char *job_type, const char *stage)
{
	LOCKTAG		tag;

	set_tag(&tag, job_type, stage);
	(void) LockRelease(&tag, ExclusiveLock, false);
}

/* ---- ends of claims ---- */

void
jq_circuit_note(const JqJob *job, const JqRun *run)
{
	const JqLimits *limits = &jq_job_type(job->job_type)->limits;
	JqLimits	copy;
	JqBreaker	breaker;
	bool		is_success = strcmp(run->status, "completed") == 0;
	const Circuit *circuit;

	if (limits->breaker_threshold == 0 && nknown == 0 &&
		known_invalidations == invalidations)
		return;
	copy = *limits;
	refresh();
	for (int i = 0; i < nknown; i++)
		if (known[i].probe_job_id == job->id &&
			known[i].probe_claim_no == job->claim_no &&
			known[i].state == STATE_HALF_OPEN)
		{
			end_probe(&known[i], run, &copy);
			return;
		}
	circuit = find_circuit(job->job_type, job->stage);
	if (copy.breaker_threshold == 0 ||
		(!is_success && !is_counted(run)) ||
		(circuit != NULL && circuit->state != STATE_CLOSED))
		return;
	breaker.threshold = copy.breaker_threshold;
	breaker.cooldown_us = copy.breaker_cooldown_us;
	breaker.distinct_jobs = copy.breaker_distinct_jobs;
	if (jq_circuit_counts_exist())
		jq_circuit_counts_note(job->job_type, job->stage, &breaker, job->id,
							   !is_success);
	else if (!is_success || circuit != NULL)
		count_in_row(job, run, &breaker);
}

/* Whether it is a failure. */
static bool
is_counted(const JqRun *run)
{
	return run->charged && (strcmp(run->status, "failed") == 0 ||
							strcmp(run->status, "expired") == 0);
}

static uint64
write_row(JqStatement *statement, Datum *values, const char *nulls)
{
	is_quiet = false;
	return jq_statement_execute_latest(statement, values, nulls);
}

/* "circuit" is remembered, and may go with the first write. */
static void
end_probe(const Circuit *circuit, const JqRun *run, const JqLimits *limits)
{
	Circuit		copy = *circuit;
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
		(void) write_row(&forget_probe, values, NULL);
	jq_scope_leave();
}

static void
close_circuit(const Circuit *circuit, Datum *values)
{
	if (write_row(&close_after_probe, values, NULL) > 0)
		jq_queue_event("circuit_closed", circuit->job_type, circuit->stage,
					   circuit->probe_job_id, NULL);
}

static void
reopen_circuit(const Circuit *circuit, Datum *values, const JqRun *run,
			   int64 cooldown_us)
{
	int			failures;

	values[4] = TimestampTzGetDatum(GetCurrentTimestamp() + cooldown_us);
	values[5] = run->error == NULL ? (Datum) 0 : CStringGetTextDatum(run->error);
	if (write_row(&reopen, values, run->error == NULL ? "     n" : NULL) == 0)
		return;
	failures = DatumGetInt32(jq_statement_value(0, 1));
	jq_queue_event("circuit_reopened", circuit->job_type, circuit->stage,
				   circuit->probe_job_id,
				   psprintf("{\"cooldown_ms\": " INT64_FORMAT
							", \"failures\": %d}", cooldown_us / 1000,
							failures));
}

/*
 * Without shared memory.  One transaction at a time counts a stage; what
 * others find out meanwhile is lost.
 */
static void
count_in_row(const JqJob *job, const JqRun *run, const JqBreaker *breaker)
{
	JqCircuitCount count = {0};
	const char *nulls = run->error == NULL ? "    n" : NULL;
	Datum		values[5];
	Datum	   *jobs;
	uint64		rows;

	if (strlcpy(count.name.job_type, job->job_type, JQ_CIRCUIT_NAME_SIZE) >= JQ_CIRCUIT_NAME_SIZE ||
		strlcpy(count.name.stage, job->stage, JQ_CIRCUIT_NAME_SIZE) >= JQ_CIRCUIT_NAME_SIZE ||
		!try_reserve(job->job_type, job->stage))
		return;
	jq_scope_enter(JQ_WRITE_ENGINE);
	values[0] = CStringGetTextDatum(job->job_type);
	values[1] = CStringGetTextDatum(job->stage);
	if (!is_counted(run))
	{
		(void) write_row(&delete_count, values, NULL);
		jq_scope_leave();
		return;
	}
	values[2] = Int64GetDatum(job->id);
	values[3] = BoolGetDatum(breaker->distinct_jobs);
	values[4] = run->error == NULL ? (Datum) 0 : CStringGetTextDatum(run->error);
	rows = write_row(&update_count, values, nulls);
	if (rows == 0)
		rows = write_row(&insert_count, values, nulls);
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
		write_open_row(&count))
		report_open(&count);
	jq_scope_leave();
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
		if (try_reserve(counts[i].name.job_type, counts[i].name.stage))
			write_open(&counts[i]);
}

/* Under the lock: somebody may have been faster, which the entry shows. */
static void
write_open(const JqCircuitCount *count)
{
	const char *job_type = count->name.job_type;
	const char *stage = count->name.stage;
	const Circuit *circuit;
	TimestampTz retry_at;

	if (!jq_circuit_counts_are_tripped(job_type, stage, &retry_at))
		return;
	load(jq_catalog()->job_circuits);
	circuit = find_circuit(job_type, stage);
	if (circuit != NULL && circuit->state != STATE_CLOSED)
	{
		jq_circuit_counts_forget(job_type, stage);
		jq_circuit_counts_change();
		return;
	}
	jq_scope_enter(JQ_WRITE_ENGINE);
	if (write_open_row(count) && jq_circuit_counts_mark_logged(&count->name))
		report_open(count);
	jq_scope_leave();
}

/* And the event.  False: somebody has the row locked. */
static bool
write_open_row(const JqCircuitCount *count)
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
	if (write_row(&update_open, values, NULL) == 0 &&
		write_row(&insert_open, values, NULL) == 0)
		return false;
	jq_queue_event("circuit_open", count->name.job_type, count->name.stage,
				   count->jobs[count->njobs - 1],
				   psprintf("{\"cooldown_ms\": " INT64_FORMAT
							", \"failures\": %d}",
							count->cooldown_us / 1000, count->failures));
	return true;
}

static void
report_open(const JqCircuitCount *count)
{
	if (jq_config_logs(LOG))
		ereport(LOG,
				(errmsg("circuit of job type \"%s\", stage \"%s\" opened after %d failures in a row, for %lld ms",
						count->name.job_type, count->name.stage,
						count->failures,
						(long long) (count->cooldown_us / 1000))));
}

/* ---- by hand ---- */

bool
jq_circuit_force_open(const char *job_type, const char *stage,
					  int64 duration_us, const char *reason)
{
	TimestampTz now;
	Oid			caller = GetUserId();
	const Circuit *circuit;
	char		nulls[6] = {' ', ' ', ' ', ' ', ' ', ' '};
	Datum		values[6];
	LOCKTAG		tag;
	bool		is_new;

	jq_scope_enter(JQ_WRITE_ENGINE);
	set_tag(&tag, job_type, stage);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	load(jq_catalog()->job_circuits);
	circuit = find_circuit(job_type, stage);
	is_new = circuit == NULL || circuit->state != STATE_OPEN;
	now = GetCurrentTimestamp();
	values[0] = CStringGetTextDatum(job_type);
	values[1] = CStringGetTextDatum(stage);
	values[2] = TimestampTzGetDatum(now);
	values[3] = TimestampTzGetDatum(now + duration_us);
	nulls[3] = duration_us == 0 ? 'n' : ' ';
	values[4] = reason == NULL ? (Datum) 0 : CStringGetTextDatum(reason);
	nulls[4] = reason == NULL ? 'n' : ' ';
	values[5] = ObjectIdGetDatum(caller);
	(void) write_row(&force_open, values, nulls);
	jq_queue_event("circuit_forced_open", job_type, stage, 0,
				   duration_us == 0 ? NULL :
				   psprintf("{\"cooldown_ms\": " INT64_FORMAT "}",
							duration_us / 1000));
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
	rows = write_row(&force_close, values, stage == NULL ? " n" : NULL);
	closed = SPI_tuptable;
	for (uint64 i = 0; i < rows; i++)
	{
		SPI_tuptable = closed;
		if (strcmp(TextDatumGetCString(jq_statement_value(i, 2)), "closed") == 0)
			continue;
		jq_queue_event("circuit_forced_closed", job_type,
					   TextDatumGetCString(jq_statement_value(i, 1)), 0, NULL);
		count++;
	}
	jq_circuit_counts_forget(job_type, stage);
	jq_scope_leave();
	return count;
}

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
	LOCKTAG		tag;
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
	set_tag(&tag, job_type, stage);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);

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
