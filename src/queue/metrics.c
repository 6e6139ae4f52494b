/*-------------------------------------------------------------------------
 *
 * metrics.c
 *	  Counting what happens to jobs.
 *
 * The notes of a transaction are sums, one for each stage and nesting level:
 * a batch of a thousand jobs is one of them.  Their entries in shared memory
 * are found when the note is made; the callback that adds them neither
 * allocates nor fails nor locks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/catalog.h"
#include "queue/metric_memory.h"
#include "queue/metrics.h"

#define USUAL_SUMS 16			/* room kept between transactions */

typedef struct Times
{
	int64		us;
	uint32		count;
	uint32		buckets[JQ_METRIC_BUCKETS];
} Times;

typedef struct Sum
{
	int			nest_level;
	JqTypeMetrics *type;		/* NULL: no room for it */
	JqStageMetrics *stage;		/* the same */
	int32		jobs[JQ_STATUS_COUNT];
	int32		scheduled;
	uint32		counts[JQ_METRIC_COUNTERS];
	Times		times[JQ_METRIC_TIMES];
} Sum;

/* Of a job type or stage, where it stands: most are seen again and again. */
typedef struct Word
{
	const char *bytes;			/* not terminated */
	int			length;
} Word;

/* Of the job that was noted last: the next one is probably of the same. */
typedef struct LastNames
{
	JqTypeMetrics *type;
	JqStageMetrics *stage;
	Word		job_type;
	Word		stage_name;
	bool		is_valid;
	char		room[2][JQ_METRIC_NAME_SIZE];
} LastNames;

/* What decides how a row counts. */
typedef struct Counted
{
	Word		job_type;
	Word		stage;
	JqStatus	status;
	bool		is_scheduled;
} Counted;

static Sum *sums = NULL;
static int	nsums = 0;
static int	max_sums = 0;
static bool must_forget = false;
static LastNames last;

static void read_row(TupleTableSlot *row, Counted *counted);
static bool is_scheduled(JqStatus status, TimestampTz scheduled_at,
						 TimestampTz updated_at);
static Word name_in(Datum value);
static Word name_of(const char *string);
static JqStatus status_in(Datum value);
static bool names_are_equal(Word a, Word b);
static Sum *sum_of(Word job_type, Word stage);
static void find_names(Word job_type, Word stage);
static Word keep_name(char *room, Word name);
static void grow(void);
static void count_row(Sum *sum, const Counted *row, int by);
static void count_gone(Sum *sum, const JqJob *job);
static void count_time(Sum *sum, JqMetricTime kind, TimestampTz since,
					   TimestampTz until);
static void apply(const Sum *sum);
static void merge(Sum *into, const Sum *from);
static void end_level(int level);
static void end_transaction(XactEvent event, void *arg);
static void end_subtransaction(SubXactEvent event, SubTransactionId mySubid,
							   SubTransactionId parentSubid, void *arg);

void
jq_metrics_init(void)
{
	jq_metric_memory_init();
	RegisterXactCallback(end_transaction, NULL);
	RegisterSubXactCallback(end_subtransaction, NULL);
}

/* ---- notes ---- */

void
jq_metrics_row(TupleTableSlot *was, TupleTableSlot *is)
{
	Counted		old;
	Counted		new;
	Sum		   *sum;

	if (jq_metric_database() == NULL)
		return;
	if (was != NULL)
		read_row(was, &old);
	if (is != NULL)
		read_row(is, &new);
	if (was != NULL && is != NULL && old.status == new.status &&
		old.is_scheduled == new.is_scheduled &&
		names_are_equal(old.job_type, new.job_type))
		return;
	if (was != NULL)
		count_row(sum_of(old.job_type, old.stage), &old, -1);
	if (is == NULL)
		return;
	sum = sum_of(new.job_type, new.stage);
	count_row(sum, &new, 1);
	if (!jq_job_status_is_final(new.status))
		sum->counts[JQ_METRIC_ENQUEUED] += was == NULL;
	else if (was != NULL && old.status == new.status)
		return;
	else if (new.status == JQ_STATUS_CANCELLED)
		sum->counts[JQ_METRIC_CANCELLED]++;
	else if (new.status != JQ_STATUS_COMPLETED)
		sum->counts[JQ_METRIC_DEAD]++;
}

static void
read_row(TupleTableSlot *row, Counted *counted)
{
	bool		isnull;
	TimestampTz scheduled_at;
	TimestampTz updated_at;

	counted->job_type = name_in(slot_getattr(row, JQ_JOB_JOB_TYPE, &isnull));
	counted->stage = name_in(slot_getattr(row, JQ_JOB_STAGE, &isnull));
	counted->status = status_in(slot_getattr(row, JQ_JOB_STATUS, &isnull));
	scheduled_at = DatumGetTimestampTz(slot_getattr(row, JQ_JOB_SCHEDULED_AT, &isnull));
	updated_at = DatumGetTimestampTz(slot_getattr(row, JQ_JOB_UPDATED_AT, &isnull));
	counted->is_scheduled = is_scheduled(counted->status, scheduled_at, updated_at);
}

static Word
name_in(Datum value)
{
	text	   *name = DatumGetTextPP(value);
	Word		result = {VARDATA_ANY(name), (int) VARSIZE_ANY_EXHDR(name)};

	return result;
}

static Word
name_of(const char *string)
{
	Word		result = {string, (int) strlen(string)};

	return result;
}

static JqStatus
status_in(Datum value)
{
	Word		name = name_in(value);
	int			status = 0;

	while (status < JQ_STATUS_COUNT &&
		   !names_are_equal(name, name_of(jq_job_status_name(status))))
		status++;
	Assert(status < JQ_STATUS_COUNT);	/* the leaves take no others */
	return (JqStatus) status;
}

/*
 * The row alone tells whether it was counted so, and the instant of the last
 * look at all of them: those that have become due since are not known yet.
 */
static bool
is_scheduled(JqStatus status, TimestampTz scheduled_at, TimestampTz updated_at)
{
	return status == JQ_STATUS_QUEUED && scheduled_at > updated_at &&
		scheduled_at >
		(TimestampTz) pg_atomic_read_u64(&jq_metric_database()->as_of);
}

void
jq_metrics_gone(const JqJob *job)
{
	if (jq_metric_database() != NULL)
		count_gone(sum_of(name_of(job->job_type), name_of(job->stage)), job);
}

void
jq_metrics_claimed(const JqJob *job, TimestampTz now, bool has_row)
{
	Counted		running = {.status = JQ_STATUS_RUNNING};
	Sum		   *sum;

	if (jq_metric_database() == NULL)
		return;
	sum = sum_of(name_of(job->job_type), name_of(job->stage));
	if (has_row)
	{
		count_gone(sum, job);
		count_row(sum, &running, 1);
	}
	sum->counts[JQ_METRIC_STARTED]++;
	count_time(sum, JQ_METRIC_WAIT, Max(job->scheduled_at, job->updated_at),
			   now);
}

void
jq_metrics_ended(const JqJob *job, const JqRun *run)
{
	static const char *const statuses[] = {
		"completed",			/* the usual one */
		"failed", "released", "expired", "crashed", "skipped"
	};
	static const JqMetricCounter counters[] = {
		JQ_METRIC_SUCCEEDED, JQ_METRIC_FAILED, JQ_METRIC_RELEASED,
		JQ_METRIC_EXPIRED, JQ_METRIC_CRASHED, JQ_METRIC_SKIPPED
	};
	int			ending = 0;
	Sum		   *sum;

	if (jq_metric_database() == NULL)
		return;
	sum = sum_of(name_of(job->job_type), name_of(job->stage));
	while (ending < (int) lengthof(statuses) &&
		   strcmp(run->status, statuses[ending]) != 0)
		ending++;
	if (ending < (int) lengthof(statuses))
		sum->counts[counters[ending]]++;
	sum->counts[JQ_METRIC_RETRIED] += run->will_retry;
	if (run->charged && job->locked_at != DT_NOBEGIN)
		count_time(sum, JQ_METRIC_RUN, job->locked_at, run->finished_at);
	if (ending == 0)
		count_time(sum, JQ_METRIC_TOTAL, job->attempts > 1 ? job->created_at :
				   Max(job->created_at, job->scheduled_at),
				   run->finished_at);
}

void
jq_metrics_forget(void)
{
	must_forget = jq_metric_database() != NULL;
}

/* ---- sums ---- */

/* Of this nesting level. */
static Sum *
sum_of(Word job_type, Word stage)
{
	int			level = GetCurrentTransactionNestLevel();
	Sum		   *sum;

	find_names(job_type, stage);
	for (int i = nsums - 1; i >= 0; i--)
		if (sums[i].type == last.type && sums[i].stage == last.stage &&
			sums[i].nest_level == level)
			return &sums[i];
	if (nsums == max_sums)
		grow();
	sum = &sums[nsums++];
	memset(sum, 0, sizeof(*sum));
	sum->nest_level = level;
	sum->type = last.type;
	sum->stage = last.stage;
	return sum;
}

/* Entries do not go: what was found once is so for ever. */
static void
find_names(Word job_type, Word stage)
{
	if (last.is_valid && names_are_equal(last.job_type, job_type) &&
		names_are_equal(last.stage_name, stage))
		return;
	last.job_type = keep_name(last.room[0], job_type);
	last.stage_name = keep_name(last.room[1], stage);
	last.type = jq_metric_type(last.room[0]);
	last.stage = jq_metric_stage(last.room[0], last.room[1]);
	last.is_valid = last.type != NULL && last.stage != NULL;
}

/* The checks of names allow no longer ones; rows that no check saw are cut. */
static Word
keep_name(char *room, Word name)
{
	name.length = Min(name.length, JQ_METRIC_NAME_SIZE - 1);
	memcpy(room, name.bytes, name.length);
	room[name.length] = '\0';
	name.bytes = room;
	return name;
}

static bool
names_are_equal(Word a, Word b)
{
	return a.length == b.length && memcmp(a.bytes, b.bytes, a.length) == 0;
}

static void
grow(void)
{
	int			wanted = max_sums == 0 ? USUAL_SUMS : max_sums * 2;

	sums = max_sums == 0 ?
		MemoryContextAlloc(TopMemoryContext, sizeof(Sum) * wanted) :
		repalloc_huge(sums, sizeof(Sum) * wanted);
	max_sums = wanted;
}

static void
count_row(Sum *sum, const Counted *row, int by)
{
	sum->jobs[row->status] += by;
	sum->scheduled += row->is_scheduled ? by : 0;
}

static void
count_gone(Sum *sum, const JqJob *job)
{
	Counted		counted = {.status = job->status};

	counted.is_scheduled = is_scheduled(job->status, job->scheduled_at,
										job->updated_at);
	count_row(sum, &counted, -1);
}

/*
 * Nothing from -infinity, which an inserted row may have, or by a clock that
 * was set back.
 */
static void
count_time(Sum *sum, JqMetricTime kind, TimestampTz since, TimestampTz until)
{
	Times	   *times = &sum->times[kind];
	int64		us = since == DT_NOBEGIN ? 0 : Max(until - since, 0);
	int			bucket = 0;

	while (bucket < JQ_METRIC_BOUNDS && us > jq_metric_bounds_us[bucket])
		bucket++;
	times->us += us;
	times->count++;
	times->buckets[bucket]++;
}

/* ---- the end ---- */

/* After a commit. */
static void
apply(const Sum *sum)
{
	JqTypeMetrics *type = sum->type;
	JqStageMetrics *stage = sum->stage;

	for (int i = 0; type != NULL && i < JQ_STATUS_COUNT; i++)
		if (sum->jobs[i] != 0)
			pg_atomic_fetch_add_u64(&type->jobs[i], (int64) sum->jobs[i]);
	if (type != NULL && sum->scheduled != 0)
		pg_atomic_fetch_add_u64(&type->scheduled, (int64) sum->scheduled);
	if (stage == NULL)
		return;
	for (int i = 0; i < JQ_METRIC_COUNTERS; i++)
		if (sum->counts[i] > 0)
			pg_atomic_fetch_add_u64(&stage->counts[i], sum->counts[i]);
	for (int i = 0; i < JQ_METRIC_TIMES; i++)
	{
		const Times *times = &sum->times[i];

		if (times->count == 0)
			continue;
		pg_atomic_fetch_add_u64(&stage->us[i], times->us);
		for (int b = 0; b < JQ_METRIC_BUCKETS; b++)
			if (times->buckets[b] > 0)
				pg_atomic_fetch_add_u64(&stage->buckets[i][b],
										times->buckets[b]);
	}
}

static void
merge(Sum *into, const Sum *from)
{
	for (int i = 0; i < JQ_STATUS_COUNT; i++)
		into->jobs[i] += from->jobs[i];
	into->scheduled += from->scheduled;
	for (int i = 0; i < JQ_METRIC_COUNTERS; i++)
		into->counts[i] += from->counts[i];
	for (int i = 0; i < JQ_METRIC_TIMES; i++)
	{
		into->times[i].us += from->times[i].us;
		into->times[i].count += from->times[i].count;
		for (int b = 0; b < JQ_METRIC_BUCKETS; b++)
			into->times[i].buckets[b] += from->times[i].buckets[b];
	}
}

/*
 * The sums of a subtransaction that commits become its parent's.  They are the
 * last ones; to look at the others each time would take long where many small
 * subtransactions follow one another.
 */
static void
end_level(int level)
{
	int			kept = nsums;

	while (kept > 0 && sums[kept - 1].nest_level >= level)
		kept--;
	for (int i = kept; i < nsums; i++)
	{
		int			same = 0;

		sums[i].nest_level = level - 1;
		while (same < kept && (sums[same].type != sums[i].type ||
							   sums[same].stage != sums[i].stage ||
							   sums[same].nest_level != sums[i].nest_level))
			same++;
		if (same < kept)
			merge(&sums[same], &sums[i]);
		else
		{
			if (kept != i)
				sums[kept] = sums[i];
			kept++;
		}
	}
	nsums = kept;
}

static void
end_transaction(XactEvent event, void *arg)
{
	JqDatabaseMetrics *database;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT && (nsums > 0 || must_forget))
	{
		database = jq_metric_database();
		for (int i = 0; i < nsums; i++)
			apply(&sums[i]);
		if (must_forget)
			pg_atomic_fetch_add_u64(&database->forgotten, 1);
		pg_atomic_fetch_add_u64(&database->changes, 1);
	}
	if (max_sums > USUAL_SUMS)
	{
		pfree(sums);
		sums = NULL;
		max_sums = 0;
	}
	nsums = 0;
	must_forget = false;
}

static void
end_subtransaction(SubXactEvent event, SubTransactionId mySubid,
				   SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	int			kept = 0;

	if (nsums == 0)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		end_level(level);
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	for (int i = 0; i < nsums; i++)
		if (sums[i].nest_level < level)
			sums[kept++] = sums[i];
	nsums = kept;
}
