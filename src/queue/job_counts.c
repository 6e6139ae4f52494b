/*-------------------------------------------------------------------------
 *
 * job_counts.c
 *	  How many jobs of each type there are.
 *
 * A look compares what a snapshot has with what memory said when it was taken.
 * A commit may be visible a moment before its callback has counted it, so a
 * difference is believed when two looks find the same one; the first look
 * after the start, after a TRUNCATE, or of tables that are new, is believed as
 * it is.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/config.h"
#include "base/scope.h"
#include "base/statement.h"
#include "queue/job_counts.h"
#include "queue/metric_memory.h"

#define TRIES 10				/* for a moment in which nothing changes */
#define LONG_AGO_US (15 * USECS_PER_MINUTE)

#define COUNT_ROWS(leaf) \
	"SELECT q.job_type, q.status, count(*), count(*) FILTER (" \
	"WHERE q.status = 'queued' AND q.scheduled_at > $1) " \
	"FROM " leaf " q GROUP BY q.job_type, q.status"

static JqStatement count_live = {
	.text = COUNT_ROWS("@.jobs_queue_live"),
	.nargs = 1,
	.argtypes = {TIMESTAMPTZOID}
};

static JqStatement count_done = {
	.text = "SELECT q.job_type, q.status, count(*), 0::bigint"
	" FROM @.jobs_queue_done q GROUP BY q.job_type, q.status"
};

static JqStatement count_all = {
	.text = COUNT_ROWS("@.jobs_queue") " ORDER BY q.job_type",
	.nargs = 1,
	.argtypes = {TIMESTAMPTZOID}
};

/* What memory said of a type, then what a snapshot did. */
typedef struct Compared
{
	JqTypeMetrics *type;
	int64		before[JQ_STATUS_COUNT];
	int64		scheduled_before;
	int64		found[JQ_STATUS_COUNT];
	int64		scheduled_found;
} Compared;

static uint64 seen_changes = 0;

static bool is_in_doubt = false;	/* the last look found a difference */

/* By leaf: of the ended jobs, of the live ones. */
static uint64 seen_forgotten[2] = {0, 0};
static bool is_other_extension[2] = {false, false};

static bool memory_is_true(const JqDatabaseMetrics *database);
static bool is_of_extension(const JqDatabaseMetrics *database, bool is_live);
static int	list_memory(JqJobCounts **counts);
static int	list_table(JqJobCounts **counts);
static Compared *read_memory(JqDatabaseMetrics *database, int *count);
static void read_table(Compared *compared, int *count, bool is_live,
					   TimestampTz now);
static void settle(Compared *compared, bool is_live, bool is_first);
static int64 number(pg_atomic_uint64 *count);

int
jq_job_counts_list(JqJobCounts **counts)
{
	JqDatabaseMetrics *database = jq_metric_database();

	if (database != NULL && memory_is_true(database))
		return list_memory(counts);
	return list_table(counts);
}

/* Without a scheduler nobody says what has become due. */
static bool
memory_is_true(const JqDatabaseMetrics *database)
{
	JqDatabaseMetrics *of = unconstify(JqDatabaseMetrics *, database);

	return pg_atomic_read_u32(&of->counted) == JQ_COUNTED &&
		pg_atomic_read_u32(&of->has_overflowed) == 0 &&
		is_of_extension(of, true) && is_of_extension(of, false) &&
		GetCurrentTimestamp() - (TimestampTz) pg_atomic_read_u64(&of->as_of) <
		LONG_AGO_US;
}

/*
 * Not if the extension was dropped since, and created again.  Its tables are
 * not looked for: somebody may have locked them.
 */
static bool
is_of_extension(const JqDatabaseMetrics *database, bool is_live)
{
	JqDatabaseMetrics *of = unconstify(JqDatabaseMetrics *, database);

	return pg_atomic_read_u32(&of->extensions[is_live]) ==
		get_extension_oid("jobqueue", true);
}

static int64
number(pg_atomic_uint64 *count)
{
	return (int64) pg_atomic_read_u64(count);
}

static int
list_memory(JqJobCounts **counts)
{
	JqTypeMetrics **types;
	int			count = jq_metric_types(&types);

	*counts = palloc0(sizeof(JqJobCounts) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		JqJobCounts *one = &(*counts)[i];

		/* Each was true at some moment; together they may be a little off. */
		one->job_type = types[i]->name;
		for (int s = 0; s < JQ_STATUS_COUNT; s++)
			one->jobs[s] = Max(number(&types[i]->jobs[s]), 0);
		one->scheduled = Max(number(&types[i]->scheduled), 0);
		one->scheduled = Min(one->scheduled, one->jobs[JQ_STATUS_QUEUED]);
	}
	return count;
}

static int
list_table(JqJobCounts **counts)
{
	Datum		now = TimestampTzGetDatum(GetCurrentTimestamp());
	MemoryContext context = CurrentMemoryContext;
	int			count = 0;
	uint64		rows;

	jq_scope_enter_read_only();
	rows = jq_statement_query(&count_all, &now, NULL, 0);
	*counts = MemoryContextAllocZero(context, sizeof(JqJobCounts) * Max(rows, 1));
	for (uint64 i = 0; i < rows; i++)
	{
		char	   *job_type = TextDatumGetCString(jq_statement_value(i, 1));
		JqStatus	status = jq_job_status(TextDatumGetCString(jq_statement_value(i, 2)));

		if (count == 0 || strcmp((*counts)[count - 1].job_type, job_type) != 0)
			(*counts)[count++].job_type = MemoryContextStrdup(context, job_type);
		(*counts)[count - 1].jobs[status] = DatumGetInt64(jq_statement_value(i, 3));
		(*counts)[count - 1].scheduled += DatumGetInt64(jq_statement_value(i, 4));
	}
	jq_scope_leave();
	return count;
}

void
jq_job_counts_heed_extension(void)
{
	JqDatabaseMetrics *database = jq_metric_database();

	for (int leaf = 0; database != NULL && leaf < 2; leaf++)
		is_other_extension[leaf] = !is_of_extension(database, leaf);
}

bool
jq_job_counts_are_stale(void)
{
	JqDatabaseMetrics *database = jq_metric_database();
	JqTypeMetrics **types;
	int			count;

	if (database == NULL)
		return false;
	if (is_in_doubt || is_other_extension[true] ||
		pg_atomic_read_u64(&database->changes) != seen_changes ||
		(pg_atomic_read_u32(&database->counted) & JQ_COUNTED_LIVE) == 0)
		return true;
	count = jq_metric_types(&types);
	for (int i = 0; i < count; i++)
		if (number(&types[i]->scheduled) != 0)
			return true;
	pg_atomic_write_u64(&database->as_of, (uint64) GetCurrentTimestamp());
	return false;
}

bool
jq_job_counts_are_unknown(void)
{
	JqDatabaseMetrics *database = jq_metric_database();

	return database != NULL &&
		(is_other_extension[false] ||
		 (pg_atomic_read_u32(&database->counted) & JQ_COUNTED_DONE) == 0 ||
		 pg_atomic_read_u64(&database->forgotten) != seen_forgotten[0]);
}

void
jq_job_counts_look(bool is_live)
{
	JqDatabaseMetrics *database = jq_metric_database();
	uint32		bit = is_live ? JQ_COUNTED_LIVE : JQ_COUNTED_DONE;
	uint64		forgotten;
	bool		is_first;
	TimestampTz now;
	Compared   *compared;
	int			count;

	if (database == NULL)
		return;
	jq_scope_enter_read_only();
	if (!is_live)
		jq_scope_prefer_indexes();
	now = GetCurrentTimestamp();
	forgotten = pg_atomic_read_u64(&database->forgotten);
	is_first = (pg_atomic_read_u32(&database->counted) & bit) == 0 ||
		forgotten != seen_forgotten[is_live] || !is_of_extension(database, is_live);
	compared = read_memory(database, &count);
	if (is_live)
		seen_changes = pg_atomic_read_u64(&database->changes);
	read_table(compared, &count, is_live, now);

	/* From here on, what is scheduled after "now" is noted as such. */
	if (is_live)
	{
		pg_atomic_write_u64(&database->as_of, (uint64) now);
		is_in_doubt = false;
	}
	for (int i = 0; i < count; i++)
		settle(&compared[i], is_live, is_first);
	pg_atomic_fetch_or_u32(&database->counted, bit);
	pg_atomic_write_u32(&database->extensions[is_live],
						jq_catalog()->extension);
	is_other_extension[is_live] = false;
	seen_forgotten[is_live] = forgotten;
	jq_scope_leave();
}

/* What it says when the scope's snapshot is taken, as nearly as can be. */
static Compared *
read_memory(JqDatabaseMetrics *database, int *count)
{
	JqTypeMetrics **types;
	Compared   *compared;
	uint64		changes;

	*count = jq_metric_types(&types);
	compared = palloc0(sizeof(Compared) * (jq_config_max_stage_stats + 1));
	for (int try = 0; try < TRIES; try++)
	{
		changes = pg_atomic_read_u64(&database->changes);
		for (int i = 0; i < *count; i++)
		{
			compared[i].type = types[i];
			for (int s = 0; s < JQ_STATUS_COUNT; s++)
				compared[i].before[s] = number(&types[i]->jobs[s]);
			compared[i].scheduled_before = number(&types[i]->scheduled);
		}
		jq_scope_refresh();
		if (changes == pg_atomic_read_u64(&database->changes))
			break;
	}
	return compared;
}

/* Of a type that memory did not know, it had counted nothing. */
static void
read_table(Compared *compared, int *count, bool is_live, TimestampTz now)
{
	Datum		values[1] = {TimestampTzGetDatum(now)};
	uint64		rows;

	rows = jq_statement_query(is_live ? &count_live : &count_done, values,
							  NULL, 0);
	for (uint64 i = 0; i < rows; i++)
	{
		JqTypeMetrics *type = jq_metric_type(TextDatumGetCString(jq_statement_value(i, 1)));
		JqStatus	status = jq_job_status(TextDatumGetCString(jq_statement_value(i, 2)));
		int			at = 0;

		if (type == NULL)
			continue;
		while (at < *count && compared[at].type != type)
			at++;
		if (at == *count)
			compared[(*count)++].type = type;
		compared[at].found[status] = DatumGetInt64(jq_statement_value(i, 3));
		compared[at].scheduled_found += DatumGetInt64(jq_statement_value(i, 4));
	}
}

static void
settle(Compared *compared, bool is_live, bool is_first)
{
	JqTypeMetrics *type = compared->type;

	for (int s = 0; s < JQ_STATUS_COUNT; s++)
	{
		int64		drift = compared->found[s] - compared->before[s];

		if (jq_job_status_is_final((JqStatus) s) == is_live)
			continue;
		if (is_first || drift == type->drift[s])
		{
			pg_atomic_fetch_add_u64(&type->jobs[s], drift);
			drift = 0;
		}
		type->drift[s] = drift;
		is_in_doubt |= is_live && drift != 0;
	}
	if (is_live)
		pg_atomic_fetch_add_u64(&type->scheduled, compared->scheduled_found -
								compared->scheduled_before);
}
