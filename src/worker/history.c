/*-------------------------------------------------------------------------
 *
 * history.c
 *	  What happened, by intervals of ten seconds, a minute and an hour.
 *
 * Shared memory counts from the start of the server; a row is the difference
 * between two readings.  The first of them is in the memory of the scheduler:
 * what happens while there is none is lost to the history.  An interval in
 * which nothing has changed has no row, so an idle server writes nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/config.h"
#include "base/db.h"
#include "base/scope.h"
#include "base/statement.h"
#include "catalog/pg_type.h"
#include "queue/job_counts.h"
#include "queue/metric_memory.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/history.h"
#include "worker/worker.h"

#define LOOK_MS 10000			/* between two looks at the live jobs, */
#define LOOK_POLLS 10			/* or sooner where polls are frequent */
#define LOOK_REST 50			/* times a look took: 2 % of the time */
#define MAX_LOOK_MS 300000
#define SURE_LOOK_MS 600000		/* should nobody have told of a change */
#define LOOK_DONE_MS 3600000	/* between two looks at the ended ones */
#define KEEP_FINE_US (2 * USECS_PER_HOUR)
#define KEEP_MINUTES_US (2 * USECS_PER_DAY)

typedef enum Resolution
{
	TEN_SECONDS,
	MINUTE,
	HOUR
} Resolution;
#define RESOLUTIONS (HOUR + 1)

static const char *const names[RESOLUTIONS] = {"10s", "1m", "1h"};
static const int64 lengths_us[RESOLUTIONS] = {
	10 * USECS_PER_SEC, USECS_PER_MINUTE, USECS_PER_HOUR
};

/* What is written at the end of an interval. */
enum
{
	GAUGE_QUEUED,
	GAUGE_SCHEDULED,
	GAUGE_RUNNING,
	GAUGE_DEAD,
	GAUGES
};

typedef struct Reading
{
	uint64		counts[JQ_METRIC_COUNTERS];
	uint64		buckets[JQ_METRIC_TIMES][JQ_METRIC_BUCKETS];
} Reading;

/* A type as it was when an interval of each resolution began. */
typedef struct TypeHistory
{
	JqTypeMetrics *type;		/* the hash key */
	Reading		now;
	int64		gauges_now[GAUGES];
	Reading		before[RESOLUTIONS];
	int64		gauges_before[RESOLUTIONS][GAUGES];
} TypeHistory;

#define INSERT_HISTORY \
	"INSERT INTO @.job_history AS h (resolution, at, job_type, enqueued," \
	" started, succeeded, failed, dead, queued, ready, scheduled, running," \
	" dead_letters, wait_p50_ms, wait_p95_ms, run_p50_ms, run_p95_ms," \
	" total_p95_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9 - $10," \
	" $10, $11, $12, $13, $14, $15, $16, $17)" \
	" ON CONFLICT (resolution, at, job_type) DO UPDATE SET" \
	" enqueued = h.enqueued + excluded.enqueued," \
	" started = h.started + excluded.started," \
	" succeeded = h.succeeded + excluded.succeeded," \
	" failed = h.failed + excluded.failed, dead = h.dead + excluded.dead," \
	" queued = excluded.queued, ready = excluded.ready," \
	" scheduled = excluded.scheduled, running = excluded.running," \
	" dead_letters = excluded.dead_letters"

static JqStatement insert_row = {
	.text = INSERT_HISTORY,
	.nargs = 17,
	.argtypes = {TEXTOID, TIMESTAMPTZOID, TEXTOID, INT8OID, INT8OID, INT8OID,
		INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, FLOAT4OID,
	FLOAT4OID, FLOAT4OID, FLOAT4OID, FLOAT4OID}
};

static JqStatement delete_rows = {
	.text = "DELETE FROM @.job_history WHERE resolution = $1 AND at < $2",
	.nargs = 2,
	.argtypes = {TEXTOID, TIMESTAMPTZOID}
};

static HTAB *types = NULL;
static int64 interval[RESOLUTIONS]; /* which one it is, since 2000 */
static int64 look_at = 0;		/* by jq_clock_ms() */
static int64 sure_look_at = 0;
static int64 look_done_at = 0;

static void look_at_live(void *arg);
static void look_at_done(void *arg);
static void begin(void);
static bool read_all(void);
static TypeHistory *history_of(JqTypeMetrics *type);
static bool has_changed(const TypeHistory *history, Resolution resolution);
static void write_intervals(void *arg);
static void write_row(const TypeHistory *history, Resolution resolution,
					  TimestampTz at);
static void forget_old(Resolution resolution, TimestampTz now);
static Datum quantile(const TypeHistory *history, Resolution resolution,
					  JqMetricTime time, double part, char *null);

long
jq_history_tend(void)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		has_news;

	if (jq_metric_database() == NULL)
		return LONG_MAX;
	if (types == NULL)
		begin();
	if (jq_clock_ms() >= look_at &&
		(jq_job_counts_are_stale() || jq_clock_ms() >= sure_look_at))
	{
		int64		started_at = jq_clock_ms();

		(void) jq_worker_protect(look_at_live, NULL);
		look_at = Min(jq_clock_ms() + LOOK_REST * (jq_clock_ms() - started_at),
					  started_at + MAX_LOOK_MS);
		look_at = Max(look_at, started_at +
					  Min(LOOK_MS, LOOK_POLLS * jq_config_poll_interval));
		sure_look_at = started_at + SURE_LOOK_MS;
	}
	if (jq_clock_ms() >= look_done_at || jq_job_counts_are_unknown())
	{
		look_done_at = jq_clock_ms() + LOOK_DONE_MS;
		(void) jq_worker_protect(look_at_done, NULL);
	}
	has_news = read_all();
	if (now / lengths_us[TEN_SECONDS] != interval[TEN_SECONDS])
		(void) jq_worker_protect(write_intervals, &now);
	if (!has_news)
		return LONG_MAX;
	return (lengths_us[TEN_SECONDS] - now % lengths_us[TEN_SECONDS]) / 1000 + 1;
}

static void
look_at_live(void *arg)
{
	jq_db_begin("counting live jobs");
	jq_job_counts_look(true);
	jq_db_commit();
}

static void
look_at_done(void *arg)
{
	jq_db_begin("counting ended jobs");
	jq_job_counts_look(false);
	jq_db_commit();
}

/*
 * A server that has just started has counted nothing that is not to be
 * written; after a scheduler that ended, somebody has written most of it.
 */
static void
begin(void)
{
	HASHCTL		info = {
		.keysize = sizeof(JqTypeMetrics *),.entrysize = sizeof(TypeHistory),
		.hcxt = TopMemoryContext
	};
	bool		is_new = pg_atomic_read_u32(&jq_metric_database()->counted) == 0;
	TimestampTz now = GetCurrentTimestamp();
	HASH_SEQ_STATUS scan;
	TypeHistory *history;

	types = hash_create("jobqueue history", 64, &info,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (int i = 0; i < RESOLUTIONS; i++)
		interval[i] = now / lengths_us[i];
	if (is_new)
		return;
	(void) read_all();
	hash_seq_init(&scan, types);
	while ((history = hash_seq_search(&scan)) != NULL)
		for (int i = 0; i < RESOLUTIONS; i++)
		{
			history->before[i] = history->now;
			memcpy(history->gauges_before[i], history->gauges_now,
				   sizeof(history->gauges_now));
		}
}

/* Whether there is anything to be written at the end of an interval. */
static bool
read_all(void)
{
	JqTypeMetrics **all_types;
	JqStageMetrics **stages;
	int			ntypes = jq_metric_types(&all_types);
	int			nstages = jq_metric_stages(&stages);
	bool		has_news = false;
	HASH_SEQ_STATUS scan;
	TypeHistory *history;

	for (int i = 0; i < ntypes; i++)
	{
		JqTypeMetrics *type = all_types[i];

		history = history_of(type);
		memset(&history->now, 0, sizeof(history->now));
		history->gauges_now[GAUGE_QUEUED] = pg_atomic_read_u64(&type->jobs[JQ_STATUS_QUEUED]);
		history->gauges_now[GAUGE_SCHEDULED] = pg_atomic_read_u64(&type->scheduled);
		history->gauges_now[GAUGE_RUNNING] = pg_atomic_read_u64(&type->jobs[JQ_STATUS_RUNNING]);
		history->gauges_now[GAUGE_DEAD] = pg_atomic_read_u64(&type->jobs[JQ_STATUS_ERROR]);
		for (int g = 0; g < GAUGES; g++)
			history->gauges_now[g] = Max(history->gauges_now[g], 0);
		history->gauges_now[GAUGE_SCHEDULED] = Min(history->gauges_now[GAUGE_SCHEDULED],
												   history->gauges_now[GAUGE_QUEUED]);
	}
	for (int i = 0; i < nstages; i++)
	{
		JqStageMetrics *stage = stages[i];
		JqTypeMetrics *type = jq_metric_type(stage->name.job_type);

		if (type == NULL)
			continue;
		history = history_of(type);
		for (int c = 0; c < JQ_METRIC_COUNTERS; c++)
			history->now.counts[c] += pg_atomic_read_u64(&stage->counts[c]);
		for (int t = 0; t < JQ_METRIC_TIMES; t++)
			for (int b = 0; b < JQ_METRIC_BUCKETS; b++)
				history->now.buckets[t][b] += pg_atomic_read_u64(&stage->buckets[t][b]);
	}
	hash_seq_init(&scan, types);
	while ((history = hash_seq_search(&scan)) != NULL)
		for (int r = 0; r < RESOLUTIONS; r++)
			has_news |= has_changed(history, (Resolution) r);
	return has_news && jq_config_keep_history > 0;
}

static TypeHistory *
history_of(JqTypeMetrics *type)
{
	bool		found;
	TypeHistory *history = hash_search(types, &type, HASH_ENTER, &found);

	if (!found)
	{
		memset(history, 0, sizeof(*history));
		history->type = type;
	}
	return history;
}

static bool
has_changed(const TypeHistory *history, Resolution resolution)
{
	return memcmp(history->now.counts, history->before[resolution].counts,
				  sizeof(history->now.counts)) != 0 ||
		memcmp(history->gauges_now, history->gauges_before[resolution],
			   sizeof(history->gauges_now)) != 0;
}

/* Of the intervals that are over by now. */
static void
write_intervals(void *arg)
{
	TimestampTz now = *(TimestampTz *) arg;
	bool		has_begun = false;

	for (int r = 0; r < RESOLUTIONS; r++)
	{
		TimestampTz at = interval[r] * lengths_us[r];
		HASH_SEQ_STATUS scan;
		TypeHistory *history;

		if (now / lengths_us[r] == interval[r])
			continue;
		interval[r] = now / lengths_us[r];
		hash_seq_init(&scan, types);
		while ((history = hash_seq_search(&scan)) != NULL)
		{
			if (!has_changed(history, (Resolution) r))
				continue;
			if (jq_config_keep_history > 0)
			{
				if (!has_begun)
				{
					jq_db_begin("writing the history");
					jq_scope_enter(JQ_WRITE_ENGINE);
					has_begun = true;
				}
				write_row(history, (Resolution) r, at);
			}
			history->before[r] = history->now;
			memcpy(history->gauges_before[r], history->gauges_now,
				   sizeof(history->gauges_now));
		}
		if (has_begun)
			forget_old((Resolution) r, now);
	}
	if (has_begun)
	{
		jq_scope_leave();
		jq_db_commit();
	}
}

static void
write_row(const TypeHistory *history, Resolution resolution, TimestampTz at)
{
	static const JqMetricCounter counters[] = {
		JQ_METRIC_ENQUEUED, JQ_METRIC_STARTED, JQ_METRIC_SUCCEEDED,
		JQ_METRIC_FAILED, JQ_METRIC_DEAD
	};
	Datum		values[17];
	char		nulls[17];
	int			n = 0;

	memset(nulls, ' ', sizeof(nulls));
	values[n++] = CStringGetTextDatum(names[resolution]);
	values[n++] = TimestampTzGetDatum(at);
	values[n++] = CStringGetTextDatum(history->type->name);
	for (int i = 0; i < (int) lengthof(counters); i++)
		values[n++] = Int64GetDatum(history->now.counts[counters[i]] -
									history->before[resolution].counts[counters[i]]);
	for (int i = 0; i < GAUGES; i++)
		values[n++] = Int64GetDatum(history->gauges_now[i]);
	for (int i = 0; i < JQ_METRIC_TIMES; i++)
	{
		if (i != JQ_METRIC_TOTAL)
		{
			values[n] = quantile(history, resolution, (JqMetricTime) i, 0.5, &nulls[n]);
			n++;
		}
		values[n] = quantile(history, resolution, (JqMetricTime) i, 0.95, &nulls[n]);
		n++;
	}
	(void) jq_statement_execute(&insert_row, values, nulls, 0);
}

/* In milliseconds, as if the times in a bucket were spread over it evenly. */
static Datum
quantile(const TypeHistory *history, Resolution resolution, JqMetricTime time,
		 double part, char *null)
{
	uint64		counts[JQ_METRIC_BUCKETS];
	uint64		total = 0;
	double		before = 0;

	for (int i = 0; i < JQ_METRIC_BUCKETS; i++)
	{
		counts[i] = history->now.buckets[time][i] -
			history->before[resolution].buckets[time][i];
		total += counts[i];
	}
	*null = total == 0 ? 'n' : ' ';
	for (int i = 0; i < JQ_METRIC_BUCKETS; i++)
	{
		double		lower = i > 0 ? jq_metric_bounds_us[i - 1] : 0;
		double		upper = jq_metric_bounds_us[Min(i, JQ_METRIC_BOUNDS - 1)];

		if (counts[i] > 0 && before + counts[i] >= part * total)
			return Float4GetDatum((float4) ((lower + (upper - lower) *
											 (part * total - before) / counts[i]) / 1000));
		before += counts[i];
	}
	return Float4GetDatum(0);
}

static void
forget_old(Resolution resolution, TimestampTz now)
{
	int64		keep_us = jq_config_keep_history * USECS_PER_MINUTE;
	Datum		values[2];

	if (resolution == TEN_SECONDS)
		keep_us = Min(keep_us, KEEP_FINE_US);
	if (resolution == MINUTE)
		keep_us = Min(keep_us, KEEP_MINUTES_US);
	values[0] = CStringGetTextDatum(names[resolution]);
	values[1] = TimestampTzGetDatum(now - keep_us);
	(void) jq_statement_execute(&delete_rows, values, NULL, 0);
}
