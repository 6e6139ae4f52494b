/*-------------------------------------------------------------------------
 *
 * event_patterns.c
 *	  Event types, patterns of them, and the subscriptions that match.
 *
 * A pattern is an event type, "a.b.*" for every type below "a.b.", or "*".  So
 * an event type matches as many patterns as it has segments, and one more;
 * each is looked up by itself, and what was found is cached, also that there
 * is nothing.  A statement trigger on event_subscriptions sends a relcache
 * invalidation for the table, which empties the cache of every backend.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/catalog.h"
#include "base/names.h"
#include "base/scope.h"
#include "base/statement.h"
#include "queue/event_patterns.h"

#define SEGMENT "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

/* More patterns than this are not worth remembering: start afresh. */
#define MAX_CACHED_PATTERNS 10000

/* The enabled subscriptions of one pattern. */
typedef struct CachedPattern
{
	char		pattern[256];	/* the hash key */
	bool		is_loaded;
	int			count;
	JqSubscription *subscriptions;
} CachedPattern;

static MemoryContext cache_context = NULL;
static HTAB *cache = NULL;
static Oid	cached_relation = InvalidOid;
static bool cache_is_stale = false;

static JqStatement select_subscriptions = {
	.text = "SELECT id, owner::pg_catalog.oid, job_type"
	" FROM @.event_subscriptions"
	" WHERE event_type = $1 AND enabled AND owner IS NOT NULL",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static bool is_event_type(const char *type, size_t length);
static bool is_pattern(const char *pattern);
static void add_matches(JqSubscription **matches, int *count,
						const CachedPattern *entry);
static int	compare_subscriptions(const void *a, const void *b);
static bool role_exists(Oid role);
static void prepare_cache(void);
static CachedPattern *look_up(const char *pattern);
static void load(CachedPattern *entry);
static void forget_subscriptions(Datum arg, Oid relid);

/* ---- what is a type, and what a pattern ---- */

void
jq_event_check_type(const char *type)
{
	jq_name_check_required(type, "event_type");
	if (!is_event_type(type, strlen(type)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid event type \"%s\"", type),
				 errhint("It consists of words of letters, digits, \"_\" and \"-\" with dots between them, as in \"order.paid\".")));
}

void
jq_event_check_pattern(const char *pattern)
{
	jq_name_check_required(pattern, "event_type");
	if (!is_pattern(pattern))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid event type \"%s\"", pattern),
				 errhint("It is a type such as \"order.paid\", \"order.*\" for all below it, or \"*\" for all.")));
}

/* Words with dots between them. */
static bool
is_event_type(const char *type, size_t length)
{
	const char *end = type + length;

	for (;;)
	{
		size_t		word = Min(strspn(type, SEGMENT), (size_t) (end - type));

		if (word == 0)
			return false;
		type += word;
		if (type == end)
			return true;
		if (*type++ != '.')
			return false;
	}
}

static bool
is_pattern(const char *pattern)
{
	size_t		length = strlen(pattern);

	if (strcmp(pattern, "*") == 0)
		return true;
	if (length > 2 && strcmp(pattern + length - 2, ".*") == 0)
		length -= 2;
	return is_event_type(pattern, length);
}

/* ---- who has subscribed ---- */

JqSubscription *
jq_event_match(const char *type, int *count)
{
	JqSubscription *matches = NULL;
	char		pattern[sizeof(((CachedPattern *) NULL)->pattern)];

	*count = 0;
	prepare_cache();
	add_matches(&matches, count, look_up(type));
	strlcpy(pattern, type, sizeof(pattern));
	for (char *dot = strrchr(pattern, '.'); dot != NULL; dot = strrchr(pattern, '.'))
	{
		strcpy(dot, ".*");
		add_matches(&matches, count, look_up(pattern));
		*dot = '\0';
	}
	add_matches(&matches, count, look_up("*"));
	if (*count > 1)
		qsort(matches, *count, sizeof(JqSubscription), compare_subscriptions);
	return matches;
}

/* Copies: the cache may go while jobs are enqueued. */
static void
add_matches(JqSubscription **matches, int *count, const CachedPattern *entry)
{
	if (entry->count == 0)
		return;
	if (*matches == NULL)
		*matches = palloc(sizeof(JqSubscription) * entry->count);
	else
		*matches = repalloc(*matches,
							sizeof(JqSubscription) * (*count + entry->count));
	for (int i = 0; i < entry->count; i++)
	{
		const JqSubscription *found = &entry->subscriptions[i];
		int			place = 0;

		if (!role_exists(found->owner))
			continue;
		while (place < *count &&
			   strcmp((*matches)[place].job_type, found->job_type) != 0)
			place++;
		if (place == *count)
			(*count)++;
		else if ((*matches)[place].id < found->id)
			continue;
		(*matches)[place] = *found;
		(*matches)[place].job_type = pstrdup(found->job_type);
	}
}

static int
compare_subscriptions(const void *a, const void *b)
{
	int64		left = ((const JqSubscription *) a)->id;
	int64		right = ((const JqSubscription *) b)->id;

	return left < right ? -1 : left > right ? 1 : 0;
}

static bool
role_exists(Oid role)
{
	return SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role));
}

/* ---- the cache ---- */

/* An empty cache for the table of now. */
static void
prepare_cache(void)
{
	Oid			relation = get_relname_relid("event_subscriptions",
											 jq_catalog()->schema);
	HASHCTL		info;

	if (cache_context == NULL)
	{
		cache_context = AllocSetContextCreate(TopMemoryContext,
											  "jobqueue subscriptions",
											  ALLOCSET_DEFAULT_SIZES);
		CacheRegisterRelcacheCallback(forget_subscriptions, (Datum) 0);
	}
	if (cache != NULL && !cache_is_stale && relation == cached_relation &&
		hash_get_num_entries(cache) < MAX_CACHED_PATTERNS)
		return;

	cache = NULL;
	MemoryContextReset(cache_context);
	info.keysize = sizeof(((CachedPattern *) NULL)->pattern);
	info.entrysize = sizeof(CachedPattern);
	info.hcxt = cache_context;
	cache = hash_create("jobqueue subscriptions", 64, &info,
						HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	cached_relation = relation;
	cache_is_stale = false;
}

static CachedPattern *
look_up(const char *pattern)
{
	char		key[sizeof(((CachedPattern *) NULL)->pattern)];
	CachedPattern *entry;
	bool		found;

	strlcpy(key, pattern, sizeof(key));
	entry = hash_search(cache, key, HASH_ENTER, &found);
	if (!found)
		entry->is_loaded = false;
	if (!entry->is_loaded)
		load(entry);
	return entry;
}

/*
 * Reads the newest rows, whatever the age of the transaction's snapshot: the
 * cache outlives the transaction.
 */
static void
load(CachedPattern *entry)
{
	Datum		values[1] = {CStringGetTextDatum(entry->pattern)};
	int			count;

	jq_scope_enter_read_only();
	PushActiveSnapshot(GetLatestSnapshot());
	count = (int) jq_statement_query(&select_subscriptions, values, NULL, 0);
	PopActiveSnapshot();
	entry->count = 0;
	entry->subscriptions = MemoryContextAlloc(cache_context,
											  sizeof(JqSubscription) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		JqSubscription *subscription = &entry->subscriptions[entry->count++];

		subscription->id = DatumGetInt64(jq_statement_value(i, 1));
		subscription->owner = DatumGetObjectId(jq_statement_value(i, 2));
		subscription->job_type =
			MemoryContextStrdup(cache_context,
								TextDatumGetCString(jq_statement_value(i, 3)));
	}
	jq_scope_leave();
	entry->is_loaded = true;
}

static void
forget_subscriptions(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == cached_relation)
		cache_is_stale = true;
}
