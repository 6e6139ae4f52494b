/*-------------------------------------------------------------------------
 *
 * job_types.c
 *	  Settings of job types, cached.
 *
 * A statement trigger on job_types sends a relcache invalidation for the
 * table, which empties the cache of every backend.  What a row leaves NULL is
 * filled from the jobqueue.* settings at each look-up, because those change
 * without a message.  Job types without a row are cached too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/config.h"
#include "base/interval.h"
#include "base/scope.h"
#include "base/statement.h"
#include "queue/job_types.h"

/* More names than this are not worth remembering: start afresh. */
#define MAX_CACHED_TYPES 10000

typedef struct CachedJobType
{
	JqJobType	settings;		/* name first: it is the hash key */
	bool		is_loaded;
	bool		has_max_attempts;
	bool		has_backoff;
	bool		has_lease;
	bool		has_batch_size;
	bool		has_breaker_cooldown;
	bool		has_keep_completed;
} CachedJobType;

static MemoryContext cache_context = NULL;
static HTAB *cache = NULL;
static Oid	cached_relation = InvalidOid;
static bool cache_is_stale = false;
static uint32 generation = 1;

/* Names of job types, remembered. */
typedef struct NameList
{
	MemoryContext context;
	uint32		generation;		/* 0: nothing is */
	List	   *names;
} NameList;

static JqStatement select_job_type = {
	.text = "SELECT runner, owner::pg_catalog.oid, command, enabled,"
	" max_attempts::pg_catalog.int4, backoff, lease, timeout, batch_size,"
	" dead_letter, keep_completed, notify, mode, endpoint, max_linger,"
	" max_concurrency, rate_max, rate_window, rate_burst,"
	" throttled_until, group_concurrency, group_rate_max, group_rate_window,"
	" group_strict, fair_groups, breaker_threshold, breaker_cooldown,"
	" breaker_distinct_jobs, error_rules, event_prefix, event_messages"
	" FROM @.job_types WHERE job_type = $1",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static JqStatement select_announced = {
	.text = "SELECT job_type FROM @.job_types"
	" WHERE notify AND enabled ORDER BY job_type"
};

static JqStatement select_names = {
	.text = "SELECT job_type FROM @.job_types"
	" WHERE runner = $1 AND job_type NOT IN"
	" ('" JQ_SQL_JOB_TYPE "', '" JQ_HTTP_JOB_TYPE "') ORDER BY job_type",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static void prepare_cache(void);
static void load_row(CachedJobType *entry);
static void read_row(CachedJobType *entry);
static void read_backoff(Jsonb *json, JqJobType *settings);
static void read_error_rules(Jsonb *json, JqJobType *settings);
static void read_event_messages(Jsonb *json, JqJobType *settings);
static void read_limits(CachedJobType *entry);
static int	read_count(int column);
static void read_rate(int column, JqRate *rate);
static JqRunner runner_from_name(const char *name);
static bool read_column(int column, Datum *value);
static void apply_defaults(CachedJobType *entry);
static void forget_job_types(Datum arg, Oid relid);
static List *listed_names(NameList *list, JqStatement *statement,
						  Datum *values);

const JqJobType *
jq_job_type(const char *name)
{
	char		key[sizeof(((JqJobType *) NULL)->name)];
	CachedJobType *entry;
	bool		found;

	prepare_cache();
	strlcpy(key, name, sizeof(key));
	entry = hash_search(cache, key, HASH_ENTER, &found);
	if (!found)
		entry->is_loaded = false;
	if (!entry->is_loaded)
		load_row(entry);
	apply_defaults(entry);
	return &entry->settings;
}

/* An empty cache for the job_types table of now. */
static void
prepare_cache(void)
{
	Oid			relation = jq_catalog()->job_types;
	HASHCTL		info;

	if (cache_context == NULL)
	{
		cache_context = AllocSetContextCreate(TopMemoryContext,
											  "jobqueue job types",
											  ALLOCSET_DEFAULT_SIZES);
		CacheRegisterRelcacheCallback(forget_job_types, (Datum) 0);
	}
	if (cache != NULL && !cache_is_stale && relation == cached_relation &&
		hash_get_num_entries(cache) < MAX_CACHED_TYPES)
		return;

	cache = NULL;
	MemoryContextReset(cache_context);
	info.keysize = sizeof(((JqJobType *) NULL)->name);
	info.entrysize = sizeof(CachedJobType);
	info.hcxt = cache_context;
	cache = hash_create("jobqueue job types", 64, &info,
						HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	cached_relation = relation;
	cache_is_stale = false;
}

/*
 * Reads the newest row, whatever the age of the transaction's snapshot: the
 * cache outlives the transaction.
 */
static void
load_row(CachedJobType *entry)
{
	Datum		values[1];
	char		name[sizeof(entry->settings.name)];
	uint64		rows;

	strlcpy(name, entry->settings.name, sizeof(name));
	memset(entry, 0, sizeof(CachedJobType));
	strlcpy(entry->settings.name, name, sizeof(name));
	entry->settings.is_enabled = true;
	entry->settings.runner = strcmp(name, JQ_SQL_JOB_TYPE) == 0 ?
		JQ_RUNNER_SQL : strcmp(name, JQ_HTTP_JOB_TYPE) == 0 ?
		JQ_RUNNER_HTTP : JQ_RUNNER_EXTERNAL;
	entry->settings.request_size = 1;
	entry->settings.limits.throttled_until = DT_NOBEGIN;

	jq_scope_enter_read_only();
	values[0] = CStringGetTextDatum(name);
	PushActiveSnapshot(GetLatestSnapshot());
	rows = jq_statement_query(&select_job_type, values, NULL, 1);
	PopActiveSnapshot();
	if (rows > 0)
		read_row(entry);
	jq_scope_leave();
	entry->is_loaded = true;
}

static void
read_row(CachedJobType *entry)
{
	JqJobType  *settings = &entry->settings;
	Datum		value;

	settings->runner =
		runner_from_name(TextDatumGetCString(jq_statement_value(0, 1)));
	if (read_column(2, &value))
		settings->owner = DatumGetObjectId(value);
	if (read_column(3, &value))
		settings->command = MemoryContextStrdup(cache_context,
												TextDatumGetCString(value));
	settings->is_enabled = DatumGetBool(jq_statement_value(0, 4));
	entry->has_max_attempts = read_column(5, &value);
	if (entry->has_max_attempts)
		settings->max_attempts = DatumGetInt32(value);
	entry->has_backoff = read_column(6, &value);
	if (entry->has_backoff)
		read_backoff(DatumGetJsonbP(value), settings);
	entry->has_lease = read_column(7, &value);
	if (entry->has_lease)
		settings->lease_us = jq_interval_us(DatumGetIntervalP(value), "lease",
											1, PG_INT64_MAX);
	if (read_column(8, &value))
		settings->timeout_us = jq_interval_us(DatumGetIntervalP(value),
											  "timeout", 1, PG_INT64_MAX);
	entry->has_batch_size = read_column(9, &value);
	if (entry->has_batch_size)
		settings->request_size = settings->batch_size = DatumGetInt32(value);
	settings->dead_letter = DatumGetBool(jq_statement_value(0, 10));
	entry->has_keep_completed = read_column(11, &value);
	if (entry->has_keep_completed)
		settings->keep_completed_us = jq_interval_us(DatumGetIntervalP(value),
													 "keep_completed",
													 0, PG_INT64_MAX);
	settings->notify = DatumGetBool(jq_statement_value(0, 12));
	if (!jq_mode_from_name(TextDatumGetCString(jq_statement_value(0, 13)),
						   &settings->mode))
		settings->mode = JQ_MODE_ALONE; /* another version's: the safe one */
	if (read_column(14, &value))
		settings->endpoint = MemoryContextStrdup(cache_context,
												 TextDatumGetCString(value));
	if (read_column(15, &value))
		settings->max_linger_us =
			jq_interval_clamped_us(DatumGetIntervalP(value), USECS_PER_HOUR);
	read_limits(entry);
	if (read_column(29, &value))
		read_error_rules(DatumGetJsonbP(value), settings);
	if (read_column(30, &value))
		settings->event_prefix = MemoryContextStrdup(cache_context,
													 TextDatumGetCString(value));
	if (read_column(31, &value))
		read_event_messages(DatumGetJsonbP(value), settings);
}

/* What it points to lives as long as the cache. */
static void
read_backoff(Jsonb *json, JqJobType *settings)
{
	MemoryContext old = MemoryContextSwitchTo(cache_context);

	jq_backoff_parse(json, "backoff", &settings->backoff);
	MemoryContextSwitchTo(old);
}

/* So do they. */
static void
read_error_rules(Jsonb *json, JqJobType *settings)
{
	MemoryContext old = MemoryContextSwitchTo(cache_context);

	settings->error_rules = jq_error_rules_parse(json);
	MemoryContextSwitchTo(old);
}

static void
read_event_messages(Jsonb *json, JqJobType *settings)
{
	MemoryContext old = MemoryContextSwitchTo(cache_context);

	settings->event_messages = palloc(sizeof(char *) * JQ_EVENT_COUNT);
	jq_event_messages_parse(json, settings->event_messages);
	MemoryContextSwitchTo(old);
}

static void
read_limits(CachedJobType *entry)
{
	JqLimits   *limits = &entry->settings.limits;
	Datum		value;

	limits->max_concurrency = read_count(16);
	read_rate(17, &limits->rate);
	limits->rate.burst = read_count(19);
	if (read_column(20, &value))
		limits->throttled_until = DatumGetTimestampTz(value);
	limits->group_concurrency = read_count(21);
	read_rate(22, &limits->group_rate);
	limits->group_strict = DatumGetBool(jq_statement_value(0, 24));
	limits->fair_groups = DatumGetBool(jq_statement_value(0, 25));
	limits->breaker_threshold = read_count(26);
	entry->has_breaker_cooldown = read_column(27, &value);
	if (entry->has_breaker_cooldown)
		limits->breaker_cooldown_us =
			jq_interval_clamped_us(DatumGetIntervalP(value), USECS_PER_DAY);
	limits->breaker_distinct_jobs = DatumGetBool(jq_statement_value(0, 28));
}

/* NULL is 0. */
static int
read_count(int column)
{
	Datum		value;

	return read_column(column, &value) ? DatumGetInt32(value) : 0;
}

/* From two columns: how many, and in what time. */
static void
read_rate(int column, JqRate *rate)
{
	Datum		window;

	rate->max = read_count(column);
	rate->window_us = read_column(column + 1, &window) ?
		jq_interval_clamped_us(DatumGetIntervalP(window),
							   366 * USECS_PER_DAY) : 0;
	if (rate->window_us <= 0)
		rate->max = 0;
}

static bool
read_column(int column, Datum *value)
{
	bool		isnull;

	*value = jq_statement_nullable(0, column, &isnull);
	return !isnull;
}

static JqRunner
runner_from_name(const char *name)
{
	if (strcmp(name, "sql") == 0)
		return JQ_RUNNER_SQL;
	if (strcmp(name, "http") == 0)
		return JQ_RUNNER_HTTP;
	return JQ_RUNNER_EXTERNAL;
}

static void
apply_defaults(CachedJobType *entry)
{
	JqJobType  *settings = &entry->settings;

	if (!entry->has_max_attempts)
		settings->max_attempts = jq_config_max_attempts;
	if (!entry->has_backoff)
		jq_backoff_default(&settings->backoff);
	if (!entry->has_lease)
		settings->lease_us = (int64) jq_config_lease * USECS_PER_SEC;
	if (!entry->has_batch_size)
		settings->batch_size = jq_config_batch_size;
	if (!entry->has_breaker_cooldown)
		settings->limits.breaker_cooldown_us =
			(int64) jq_config_breaker_cooldown * 1000;
	if (!entry->has_keep_completed)
		settings->keep_completed_us = jq_config_keep_completed < 0 ? -1 :
			(int64) jq_config_keep_completed * USECS_PER_MINUTE;
}

static void
forget_job_types(Datum arg, Oid relid)
{
	if (relid != InvalidOid && relid != cached_relation)
		return;
	cache_is_stale = true;
	generation++;
}

uint32
jq_job_types_generation(void)
{
	return generation;
}

bool
jq_job_type_drops_completed(const char *name)
{
	return jq_job_type(name)->keep_completed_us == 0;
}

List *
jq_job_types_with_runner(JqRunner runner)
{
	static const char *const names[] = {"external", "sql", "http"};
	static NameList lists[lengthof(names)];
	Datum		values[1] = {CStringGetTextDatum(names[runner])};
	List	   *types = listed_names(&lists[runner], &select_names, values);

	if (runner == JQ_RUNNER_SQL)
		types = lappend(types, pstrdup(JQ_SQL_JOB_TYPE));
	if (runner == JQ_RUNNER_HTTP)
		types = lappend(types, pstrdup(JQ_HTTP_JOB_TYPE));
	return types;
}

List *
jq_job_types_to_announce(void)
{
	static NameList list;

	return listed_names(&list, &select_announced, NULL);
}

/*
 * The names that a statement selects, remembered until a job type changes.
 * The caller gets a copy: what is remembered may change while he reads.
 */
static List *
listed_names(NameList *list, JqStatement *statement, Datum *values)
{
	List	   *copy = NIL;
	ListCell   *cell;

	prepare_cache();			/* from here on changes are noticed */
	if (list->generation != generation)
	{
		uint32		read_at = generation;
		uint64		rows = jq_statement_query(statement, values, NULL, 0);

		list->generation = 0;
		if (list->context == NULL)
			list->context = AllocSetContextCreate(TopMemoryContext,
												  "jobqueue names of job types",
												  ALLOCSET_SMALL_SIZES);
		MemoryContextReset(list->context);
		list->names = NIL;
		for (uint64 i = 0; i < rows; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(list->context);

			list->names = lappend(list->names,
								  TextDatumGetCString(jq_statement_value(i, 1)));
			MemoryContextSwitchTo(old);
		}
		list->generation = read_at;
	}
	foreach(cell, list->names)
		copy = lappend(copy, pstrdup((const char *) lfirst(cell)));
	return copy;
}
