/*-------------------------------------------------------------------------
 *
 * retention.c
 *	  Deleting what has been kept for long enough.
 *
 * Jobs go in rounds, one a minute and one after each reload.  A round begins with the oldest job of each
 * job type and status, which a loose scan of the index on (job_type, status,
 * finished_at) finds without reading the others.  What is too old, or one too
 * many, is deleted batch by batch, types taking turns.
 *
 * Runs have no index on their age: each claim would have to maintain it.  A
 * hand goes round the pages of job_runs instead, a few at a time, so that it
 * has been everywhere once an hour.
 *
 * All of it shares one budget: jobqueue.max_prune_rate rows per second, and a
 * fifth of the time of the scheduler.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/retention.h"

#include "base/clock.h"
#include "base/config.h"
#include "base/db.h"
#include "base/interval.h"
#include "base/protect.h"
#include "base/scope.h"
#include "base/statement.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "queue/removal.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define BATCH 1000
#define MAX_TABLE_BATCHES 100
#define ROUND_MS 60000
#define STEP_MS 10				/* looking, before others have their turn */
#define REST 4					/* times the work took */
#define PASS_MS (60 * 60 * 1000)	/* of the hand over job_runs */
#define PAGES 16				/* about a thousand rows */
#define MAX_KEEP_US (INT64CONST(36600) * USECS_PER_DAY)
#define WARNING_REST_MS (60 * 60 * 1000)

static JqStatement oldest_statement = {
	.text = "WITH RECURSIVE oldest AS ("
	"(SELECT d.job_type, d.status, d.finished_at FROM @.jobs_queue_done d "
	"ORDER BY d.job_type, d.status, d.finished_at LIMIT 1) "
	"UNION ALL "
	"SELECT n.job_type, n.status, n.finished_at FROM oldest o "
	"CROSS JOIN LATERAL (SELECT d.job_type, d.status, d.finished_at "
	"FROM @.jobs_queue_done d "
	"WHERE (d.job_type, d.status) > (o.job_type, o.status) "
	"ORDER BY d.job_type, d.status, d.finished_at LIMIT 1) n) "
	"SELECT o.job_type, o.status, o.finished_at, CASE o.status "
	"WHEN 'completed' THEN t.keep_completed WHEN 'failed' THEN t.keep_failed "
	"ELSE t.keep_cancelled END, CASE o.status "
	"WHEN 'completed' THEN t.keep_completed_count "
	"WHEN 'failed' THEN t.keep_failed_count END "
	"FROM oldest o LEFT JOIN @.job_types t ON t.job_type = o.job_type "
	"WHERE o.status <> 'error'"
};

/*
 * The newest of those that are too many, whose place among those of the same
 * instant goes by their ids.  Written so that the index alone gives the order,
 * also to a plan that was made while the table was empty.
 */
#define OF_KIND(alias) \
	"FROM @.jobs_queue_done " alias " WHERE " alias ".job_type = $1 " \
	"AND " alias ".status = $2 AND " alias ".finished_at "

static JqStatement surplus_statement = {
	.text = "SELECT e.finished_at, (SELECT t.id " OF_KIND("t")
	"= e.finished_at ORDER BY t.id + 0 DESC OFFSET $3 - "
	"(SELECT count(*) " OF_KIND("n") "> e.finished_at) LIMIT 1) "
	"FROM (SELECT d.finished_at " OF_KIND("d") "IS NOT NULL "
	"ORDER BY d.finished_at DESC OFFSET $3 LIMIT 1) e",
	.nargs = 3,
	.argtypes = {TEXTOID, TEXTOID, INT8OID}
};

/*
 * Tables with an index by age: whether they have rows older than $1, and the
 * deletion of at most $2 of them.
 */
typedef struct AgedTable
{
	JqStatement has_old;
	JqStatement prune;
	const int  *keep_minutes;	/* -1: for ever */
} AgedTable;

static AgedTable aged_tables[] = {
	/* A run just decided stays: the clock may be the one that is wrong. */
	{
		.has_old = {
			.text = "SELECT EXISTS (SELECT FROM @.cron_runs "
			"WHERE instant < $1 AND decided_at < $1)",
			.nargs = 1,
			.argtypes = {TIMESTAMPTZOID}
		},
		.prune = {
			.text = "DELETE FROM @.cron_runs WHERE (task_id, instant) IN "
			"(SELECT r.task_id, r.instant FROM @.cron_runs r "
			"WHERE r.instant < $1 AND r.decided_at < $1 "
			"ORDER BY r.instant LIMIT $2)",
			.nargs = 2,
			.argtypes = {TIMESTAMPTZOID, INT8OID}
		},
		.keep_minutes = &jq_config_keep_cron_runs
	},
	{
		.has_old = {
			.text = "SELECT EXISTS (SELECT FROM @.queue_events "
			"WHERE happened_at < $1)",
			.nargs = 1,
			.argtypes = {TIMESTAMPTZOID}
		},
		.prune = {
			.text = "DELETE FROM @.queue_events WHERE id IN "
			"(SELECT e.id FROM @.queue_events e WHERE e.happened_at < $1 "
			"ORDER BY e.happened_at LIMIT $2)",
			.nargs = 2,
			.argtypes = {TIMESTAMPTZOID, INT8OID}
		},
		.keep_minutes = &jq_config_keep_queue_events
	},
	{
		.has_old = {
			.text = "SELECT EXISTS (SELECT FROM @.monitor_actions "
			"WHERE happened_at < $1)",
			.nargs = 1,
			.argtypes = {TIMESTAMPTZOID}
		},
		.prune = {
			.text = "DELETE FROM @.monitor_actions WHERE id IN "
			"(SELECT a.id FROM @.monitor_actions a WHERE a.happened_at < $1 "
			"ORDER BY a.happened_at LIMIT $2)",
			.nargs = 2,
			.argtypes = {TIMESTAMPTZOID, INT8OID}
		},
		.keep_minutes = &jq_config_keep_monitor_actions
	},
	/* A replay has those locked that it brings. */
	{
		.has_old = {
			.text = "SELECT EXISTS (SELECT FROM @.published_events "
			"WHERE published_at < $1)",
			.nargs = 1,
			.argtypes = {TIMESTAMPTZOID}
		},
		.prune = {
			.text = "DELETE FROM @.published_events WHERE id IN "
			"(SELECT e.id FROM @.published_events e WHERE e.published_at < $1 "
			"ORDER BY e.published_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
			.nargs = 2,
			.argtypes = {TIMESTAMPTZOID, INT8OID}
		},
		.keep_minutes = &jq_config_keep_events
	},
	{
		.has_old = {
			.text = "SELECT EXISTS (SELECT FROM @.alerts "
			"WHERE resolved_at < $1)",
			.nargs = 1,
			.argtypes = {TIMESTAMPTZOID}
		},
		.prune = {
			.text = "DELETE FROM @.alerts WHERE id IN "
			"(SELECT a.id FROM @.alerts a WHERE a.resolved_at < $1 "
			"ORDER BY a.resolved_at LIMIT $2)",
			.nargs = 2,
			.argtypes = {TIMESTAMPTZOID, INT8OID}
		},
		.keep_minutes = &jq_config_keep_queue_events
	}
};

/* What is to be deleted of a job type and status in this round. */
typedef struct Surplus
{
	JqPruning	pruning;
	int64		keep_count;		/* -1: as many as there are, or seen to */
	int64		deleted;		/* by the last batch */
} Surplus;

/* What the hand has found. */
typedef struct Sector
{
	BlockNumber pages;			/* that the table has */
	int64		deleted;
} Sector;

/* by jq_clock_ms() */
static int64 rest_until = 0;
static int64 round_at = 0;
static int64 hand_at = 0;

static MemoryContext round_context = NULL;
static List *surpluses = NIL;	/* still to be looked at in this round */
static BlockNumber hand = InvalidBlockNumber;

static int64 tend_jobs(void);
static void begin_round(void *arg);
static Surplus *read_surplus(uint64 row, TimestampTz now);
static int	default_minutes(const char *status);
static void prune(void *arg);
static void prune_batch(void *arg);
static void find_surplus(Surplus *surplus);
static void report(const Surplus *surplus, const ErrorData *fault);
static int64 tend_runs(void);
static void prune_sector(void *arg);
static BlockNumber first_page(BlockNumber pages);
static void prune_table(void *arg);
static bool has_old_rows(AgedTable *table, TimestampTz until);
static uint64 prune_rows(AgedTable *table, TimestampTz until);

long
jq_retention_tend(bool at_once)
{
	int64		began_at = jq_clock_ms();
	int64		deleted = 0;
	int64		now;

	if (at_once)
	{
		surpluses = NIL;
		round_at = hand_at = rest_until = 0;
	}
	if (began_at >= rest_until)
	{
		if (surpluses != NIL || began_at >= round_at)
			deleted = tend_jobs();
		if (began_at >= hand_at)
			deleted += tend_runs();
		now = jq_clock_ms();
		rest_until = now + Max((now - began_at) * REST,
							   deleted * 1000 / jq_config_max_prune_rate);
	}
	now = jq_clock_ms();
	return (long) Max(Max(rest_until, surpluses != NIL ? 0 :
						  Min(round_at, hand_at)) - now, 0);
}

/* Until a batch has deleted something; returns how much. */
static int64
tend_jobs(void)
{
	int64		began_at = jq_clock_ms();

	if (surpluses == NIL)
	{
		round_at = began_at + ROUND_MS;
		(void) jq_worker_protect(begin_round, NULL);
	}
	while (surpluses != NIL && jq_clock_ms() < began_at + STEP_MS)
	{
		Surplus    *surplus = (Surplus *) linitial(surpluses);
		MemoryContext old;

		/* Taken out first: what fails has to wait for the next round. */
		surpluses = list_delete_first(surpluses);
		surplus->deleted = 0;
		if (jq_worker_protect(prune, surplus) && !surplus->pruning.is_done)
		{
			old = MemoryContextSwitchTo(round_context);
			surpluses = lappend(surpluses, surplus);
			MemoryContextSwitchTo(old);
		}
		if (surplus->deleted > 0)
			return surplus->deleted;
	}
	return 0;
}

/* Lists where there is something too old, or may be too many. */
static void
begin_round(void *arg)
{
	TimestampTz now = GetCurrentTimestamp();
	uint64		rows;

	if (round_context == NULL)
		round_context = AllocSetContextCreate(TopMemoryContext,
											  "jobqueue retention",
											  ALLOCSET_SMALL_SIZES);
	MemoryContextReset(round_context);
	jq_db_begin("looking for old jobs");
	jq_scope_enter_read_only();
	jq_scope_prefer_indexes();
	rows = jq_statement_query(&oldest_statement, NULL, NULL, 0);
	for (uint64 row = 0; row < rows; row++)
	{
		MemoryContext old = MemoryContextSwitchTo(round_context);
		Surplus    *surplus = read_surplus(row, now);

		if (surplus != NULL)
			surpluses = lappend(surpluses, surplus);
		MemoryContextSwitchTo(old);
	}
	jq_scope_leave();
	jq_db_commit();
}

/* NULL: all of it is to be kept. */
static Surplus *
read_surplus(uint64 row, TimestampTz now)
{
	Surplus    *surplus = palloc0(sizeof(Surplus));
	JqPruning  *pruning = &surplus->pruning;
	TimestampTz oldest;
	int			minutes;
	Datum		value;
	bool		isnull;

	pruning->job_type = TextDatumGetCString(jq_statement_value(row, 1));
	pruning->status = TextDatumGetCString(jq_statement_value(row, 2));
	pruning->from = DT_NOBEGIN;
	pruning->until = DT_NOBEGIN;
	pruning->until_id = PG_INT64_MAX;

	minutes = default_minutes(pruning->status);
	value = jq_statement_nullable(row, 4, &isnull);
	if (!isnull)
		pruning->until = now -
			jq_interval_clamped_us(DatumGetIntervalP(value), MAX_KEEP_US);
	else if (minutes >= 0)
		pruning->until = now - minutes * USECS_PER_MINUTE;
	value = jq_statement_nullable(row, 5, &isnull);
	surplus->keep_count = isnull ? -1 : DatumGetInt32(value);

	value = jq_statement_nullable(row, 3, &isnull);
	oldest = isnull ? DT_NOEND : DatumGetTimestampTz(value);
	return surplus->keep_count < 0 && oldest > pruning->until ? NULL : surplus;
}

static int
default_minutes(const char *status)
{
	if (strcmp(status, "completed") == 0)
		return jq_config_keep_completed;
	if (strcmp(status, "failed") == 0)
		return jq_config_keep_failed;
	return jq_config_keep_cancelled;
}

/* One batch, in a transaction of its own. */
static void
prune(void *arg)
{
	Surplus    *surplus = (Surplus *) arg;
	ErrorData  *fault;

	jq_db_begin("deleting old jobs");
	if (surplus->keep_count >= 0)
		find_surplus(surplus);
	surplus->deleted = 0;
	surplus->pruning.is_done = true;	/* should it fail */
	fault = jq_protect(prune_batch, surplus);
	if (fault != NULL)
		report(surplus, fault);
	jq_db_commit();
}

static void
prune_batch(void *arg)
{
	Surplus    *surplus = (Surplus *) arg;

	surplus->deleted = jq_removal_prune(&surplus->pruning, BATCH);
}

/* How far the jobs go that are too many; those that are too old go anyway. */
static void
find_surplus(Surplus *surplus)
{
	JqPruning  *pruning = &surplus->pruning;
	Datum		values[3] = {
		CStringGetTextDatum(pruning->job_type),
		CStringGetTextDatum(pruning->status),
		Int64GetDatum(surplus->keep_count)
	};

	jq_scope_enter_read_only();
	jq_scope_prefer_indexes();
	if (jq_statement_query(&surplus_statement, values, NULL, 1) > 0)
	{
		TimestampTz until = DatumGetTimestampTz(jq_statement_value(0, 1));

		if (until > pruning->until)
		{
			pruning->until = until;
			pruning->until_id = DatumGetInt64(jq_statement_value(0, 2));
		}
	}
	jq_scope_leave();
	surplus->keep_count = -1;
}

/* Each round meets it again: said once an hour. */
static void
report(const Surplus *surplus, const ErrorData *fault)
{
	static char last_job_type[256] = "";
	static int64 silent_until = 0;

	if (strcmp(last_job_type, surplus->pruning.job_type) == 0 &&
		jq_clock_ms() < silent_until)
		return;
	strlcpy(last_job_type, surplus->pruning.job_type, sizeof(last_job_type));
	silent_until = jq_clock_ms() + WARNING_REST_MS;
	ereport(WARNING,
			(errcode(fault->sqlerrcode),
			 errmsg("could not delete old jobs of type \"%s\": %s",
					surplus->pruning.job_type, fault->message)));
}

/* A few pages more of job_runs; returns how many runs it has deleted. */
static int64
tend_runs(void)
{
	Sector		sector = {.pages = 0};
	int64		interval_ms;

	hand_at = jq_clock_ms() + ROUND_MS; /* should this fail */
	if (!jq_worker_protect(prune_sector, &sector))
		return 0;
	hand = hand + PAGES < sector.pages ? hand + PAGES : 0;
	interval_ms = (int64) PASS_MS * PAGES / Max(sector.pages, 1);
	hand_at = jq_clock_ms() + Min(interval_ms, ROUND_MS);
	return sector.deleted;
}

static void
prune_sector(void *arg)
{
	Sector	   *sector = (Sector *) arg;
	int64		keep_us = jq_config_keep_runs < 0 ? -1 :
	jq_config_keep_runs * USECS_PER_MINUTE;

	jq_db_begin("deleting old runs");
	sector->pages = jq_removal_run_pages();
	if (hand == InvalidBlockNumber)
		hand = first_page(sector->pages);
	sector->deleted = jq_removal_prune_runs(hand, hand + PAGES, keep_us);
	jq_db_commit();
}

/*
 * Anywhere: schedulers that live for less than an hour see all of the table,
 * too, one after the other.
 */
static BlockNumber
first_page(BlockNumber pages)
{
	if (pages <= PAGES)
		return 0;
	return (BlockNumber) (pg_prng_double(&pg_global_prng_state) * pages);
}

void
jq_retention_prune_tables(void)
{
	for (int i = 0; i < (int) lengthof(aged_tables); i++)
		if (*aged_tables[i].keep_minutes >= 0)
			(void) jq_worker_protect(prune_table, &aged_tables[i]);
}

/* Looks first: deleting nothing would cost a transaction id. */
static void
prune_table(void *arg)
{
	AgedTable  *table = (AgedTable *) arg;
	TimestampTz until = GetCurrentTimestamp() -
	*table->keep_minutes * USECS_PER_MINUTE;

	if (!has_old_rows(table, until))
		return;
	for (int i = 0; i < MAX_TABLE_BATCHES; i++)
	{
		if (prune_rows(table, until) < BATCH)
			break;
		CHECK_FOR_INTERRUPTS();
	}
}

static bool
has_old_rows(AgedTable *table, TimestampTz until)
{
	Datum		values[] = {TimestampTzGetDatum(until)};
	bool		result;

	jq_db_begin("looking for old records");
	jq_scope_enter_read_only();
	jq_scope_prefer_indexes();
	(void) jq_statement_query(&table->has_old, values, NULL, 0);
	result = DatumGetBool(jq_statement_value(0, 1));
	jq_scope_leave();
	jq_db_commit();
	return result;
}

/* Returns how many were deleted. */
static uint64
prune_rows(AgedTable *table, TimestampTz until)
{
	Datum		values[] = {TimestampTzGetDatum(until), Int64GetDatum(BATCH)};
	uint64		deleted;

	jq_db_begin("deleting old records");
	jq_scope_enter(JQ_WRITE_ENGINE);
	jq_scope_prefer_indexes();
	deleted = jq_statement_execute(&table->prune, values, NULL, 0);
	jq_scope_leave();
	jq_db_commit();
	return deleted;
}
