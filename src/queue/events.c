/*-------------------------------------------------------------------------
 *
 * events.c
 *	  Events, and the subscriptions that turn them into jobs.
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

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/config.h"
#include "base/names.h"
#include "base/ownership.h"
#include "base/rows.h"
#include "base/scope.h"
#include "base/statement.h"
#include "queue/enqueue.h"
#include "queue/events.h"
#include "queue/job_types.h"
#include "queue/validate.h"

PG_FUNCTION_INFO_V1(jobqueue_guard_event_subscription);

#define SEGMENT "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

/* How many stored events are read in one go. */
#define REPLAY_BATCH 1000

/* More patterns than this are not worth remembering: start afresh. */
#define MAX_CACHED_PATTERNS 10000

typedef struct Subscription
{
	int64		id;
	Oid			owner;
	char	   *job_type;
} Subscription;

/* The enabled subscriptions of one pattern. */
typedef struct CachedPattern
{
	char		pattern[256];	/* the hash key */
	bool		is_loaded;
	int			count;
	Subscription *subscriptions;
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

/* One whose owner has been dropped goes to whoever may give it away. */
static JqStatement upsert_subscription = {
	.text = "INSERT INTO @.event_subscriptions AS s (event_type, job_type)"
	" VALUES ($1, $2) ON CONFLICT (event_type, job_type) DO UPDATE"
	" SET enabled = true, owner = coalesce(s.owner, $3::regrole)"
	" RETURNING id, owner::pg_catalog.oid",
	.nargs = 3,
	.argtypes = {TEXTOID, TEXTOID, OIDOID}
};

static JqStatement delete_subscription = {
	.text = "DELETE FROM @.event_subscriptions"
	" WHERE event_type = $1 AND job_type = $2",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID}
};

static JqStatement select_endpoint = {
	.text = "SELECT owner::pg_catalog.oid FROM @.http_endpoints"
	" WHERE name = $1 FOR KEY SHARE",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static JqStatement insert_webhook = {
	.text = "INSERT INTO @.job_types (job_type, runner, endpoint)"
	" VALUES ($1, 'http', $2) ON CONFLICT (job_type) DO NOTHING",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID}
};

static JqStatement select_webhook = {
	.text = "SELECT 1 FROM @.job_types"
	" WHERE job_type = $1 AND runner = 'http' AND endpoint = $2",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID}
};

static JqStatement insert_event = {
	.text = "INSERT INTO @.published_events AS e"
	" (event_type, event_key, tenant_id, payload, job_types, published_at)"
	" VALUES ($1, $2, $3, $4, $5, $6)"
	" ON CONFLICT (event_key) WHERE event_key IS NOT NULL DO UPDATE"
	" SET job_types = e.job_types || ARRAY(SELECT unnest(EXCLUDED.job_types)"
	" EXCEPT SELECT unnest(e.job_types))"
	" WHERE NOT e.job_types @> EXCLUDED.job_types",
	.nargs = 6,
	.argtypes = {
		TEXTOID, TEXTOID, TEXTOID, JSONBOID, TEXTARRAYOID, TIMESTAMPTZOID
	}
};

/* A role that is gone has no subscriptions. */
#define OF_SUBSCRIBER \
	" FROM @.event_subscriptions s WHERE s.job_type = $1 AND s.enabled" \
	" AND EXISTS (SELECT FROM pg_catalog.pg_authid a" \
	" WHERE a.oid = s.owner::pg_catalog.oid)"

static JqStatement select_subscriber = {
	.text = "SELECT s.owner::pg_catalog.oid, s.xmin" OF_SUBSCRIBER,
	.nargs = 1,
	.argtypes = {TEXTOID}
};

#define IS_MATCHED_BY(pattern) \
	"(" pattern " = '*' OR " pattern " = e.event_type" \
	" OR right(" pattern ", 2) = '.*'" \
	" AND starts_with(e.event_type, left(" pattern ", -1)))"

/* Another session that does the same has its events locked. */
static JqStatement select_events = {
	.text = "SELECT e.id, e.event_type, e.payload, e.event_key, e.tenant_id,"
	" e.published_at, o.owner FROM @.published_events e"
	" CROSS JOIN LATERAL (SELECT s.owner::pg_catalog.oid AS owner" OF_SUBSCRIBER
	" AND " IS_MATCHED_BY("s.event_type") " ORDER BY s.id LIMIT 1) o"
	" WHERE " IS_MATCHED_BY("$2") " AND NOT $1 = ANY (e.job_types)"
	" AND ($3 IS NULL OR e.published_at >= $3)"
	" AND ($4 IS NULL OR e.published_at < $4)"
	" AND e.id > $5 ORDER BY e.id LIMIT $6 FOR UPDATE OF e",
	.nargs = 6,
	.argtypes = {
		TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID
	}
};

static JqStatement mark_event = {
	.text = "UPDATE @.published_events SET job_types = job_types || $2"
	" WHERE id = $1",
	.nargs = 2,
	.argtypes = {INT8OID, TEXTOID}
};

static void fill_job(JqNewJob *job, const JqEvent *event);
static void lock_events(void);
static void store(const JqEvent *event, const Subscription *subscriptions,
				  int count);
static Oid	our_relation(const char *name);
static bool check_subscriptions(const char *job_type);
static void wait_for_events(const char *job_type);
static void wait_for_writers(Oid relid);
static int	replay_batch(const JqReplay *replay, int64 *after, int64 limit);
static void read_event(int row, JqEvent *event);
static void check_event(const JqEvent *event);
static bool is_event_type(const char *type, size_t length);
static bool is_pattern(const char *pattern);
static void check_subscriber(const char *job_type);
static Subscription *match(const char *type, int *count);
static void add_matches(Subscription **matches, int *count,
						const CachedPattern *entry);
static int	compare_subscriptions(const void *a, const void *b);
static bool role_exists(Oid role);
static Datum envelope(const JqEvent *event);
static void push_member(JsonbParseState **state, const char *key,
						JsonbValue *value);
static void push_text(JsonbParseState **state, const char *key, Datum value);
static void prepare_cache(void);
static CachedPattern *look_up(const char *pattern);
static void load(CachedPattern *entry);
static void forget_subscriptions(Datum arg, Oid relid);

/* ---- publishing ---- */

int64 *
jq_event_publish(const JqEvent *event, int *count)
{
	JqNewJob	job;
	Subscription *subscriptions;
	int64	   *ids;

	check_event(event);
	PreventCommandIfReadOnly("publish_event()");
	if (jq_config_keep_events > 0)
		lock_events();
	subscriptions = match(event->type, count);
	if (jq_config_keep_events > 0)
		store(event, subscriptions, *count);
	ids = palloc(sizeof(int64) * Max(*count, 1));
	if (*count == 0)
		return ids;

	fill_job(&job, event);
	for (int i = 0; i < *count; i++)
	{
		job.job_type = CStringGetTextDatum(subscriptions[i].job_type);
		job.owner = subscriptions[i].owner;
		ids[i] = jq_enqueue(&job);
	}
	return ids;
}

/* What the jobs of all subscriptions have in common. */
static void
fill_job(JqNewJob *job, const JqEvent *event)
{
	memset(job, 0, sizeof(*job));
	job->payload = envelope(event);
	job->unique_key = event->key;
	job->unique_scope = JQ_UNIQUE_KEPT;
	job->group_key = event->tenant_id;
	job->correlation_id = event->key;
}

static void
check_event(const JqEvent *event)
{
	jq_name_check_required(event->type, "event_type");
	if (!is_event_type(event->type, strlen(event->type)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid event type \"%s\"", event->type),
				 errhint("It consists of words of letters, digits, \"_\" and \"-\" with dots between them, as in \"order.paid\".")));
	if (event->payload != 0)
		jq_validate_payload(event->payload);
	if (event->key != 0)
		jq_name_check(TextDatumGetCString(event->key), "event_key", 1, 512);
	if (event->tenant_id != 0)
		jq_name_check(TextDatumGetCString(event->tenant_id), "tenant_id", 1, 512);
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

/*
 * The enabled subscriptions to an event, the oldest of each job type, by id.
 * Of roles that are gone there are none: nobody would have the jobs.
 */
static Subscription *
match(const char *type, int *count)
{
	Subscription *matches = NULL;
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
		qsort(matches, *count, sizeof(Subscription), compare_subscriptions);
	return matches;
}

/* Copies: the cache may go while jobs are enqueued. */
static void
add_matches(Subscription **matches, int *count, const CachedPattern *entry)
{
	if (entry->count == 0)
		return;
	if (*matches == NULL)
		*matches = palloc(sizeof(Subscription) * entry->count);
	else
		*matches = repalloc(*matches,
							sizeof(Subscription) * (*count + entry->count));
	for (int i = 0; i < entry->count; i++)
	{
		const Subscription *found = &entry->subscriptions[i];
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
	int64		left = ((const Subscription *) a)->id;
	int64		right = ((const Subscription *) b)->id;

	return left < right ? -1 : left > right ? 1 : 0;
}

static bool
role_exists(Oid role)
{
	return SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role));
}

/* The payload of the jobs: as Standard Webhooks has it, and key and tenant. */
static Datum
envelope(const JqEvent *event)
{
	JsonbParseState *state = NULL;
	JsonbValue	value;
	char		timestamp[MAXDATELEN + 1];
	int			utc = 0;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_text(&state, "type", CStringGetTextDatum(event->type));
	JsonEncodeDateTime(timestamp,
					   TimestampTzGetDatum(event->published_at),
					   TIMESTAMPTZOID, &utc);
	push_text(&state, "timestamp", CStringGetTextDatum(timestamp));
	push_text(&state, "key", event->key);
	push_text(&state, "tenant_id", event->tenant_id);
	value.type = jbvBinary;
	if (event->payload == 0)
	{
		value.val.binary.data =
			&DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")))->root;
		value.val.binary.len = 0;
	}
	else
	{
		Jsonb	   *data = DatumGetJsonbP(event->payload);

		if (JB_ROOT_IS_SCALAR(data))
			(void) JsonbExtractScalar(&data->root, &value);
		else
		{
			value.val.binary.data = &data->root;
			value.val.binary.len = VARSIZE(data) - VARHDRSZ;
		}
	}
	push_member(&state, "data", &value);
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

static void
push_text(JsonbParseState **state, const char *key, Datum value)
{
	JsonbValue	member;

	member.type = jbvNull;
	if (value != 0)
	{
		member.type = jbvString;
		member.val.string.val = TextDatumGetCString(value);
		member.val.string.len = strlen(member.val.string.val);
	}
	push_member(state, key, &member);
}

static void
push_member(JsonbParseState **state, const char *key, JsonbValue *value)
{
	JsonbValue	name;

	name.type = jbvString;
	name.val.string.val = unconstify(char *, key);
	name.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &name);
	pushJsonbValue(state, WJB_VALUE, value);
}

/* ---- stored events ---- */

/*
 * Events are stored together with the names of the job types that get them,
 * so that a replay brings each of them to a job type once, and for good.
 *
 * No event is lost between a subscription and a replay.  Whoever publishes
 * holds a lock on published_events before it looks for subscriptions, and has
 * then seen all that were committed.  A replay waits until those are gone who
 * held it when it began: what they published without seeing the subscription
 * is there by then.
 */
static void
lock_events(void)
{
	LockRelationOid(our_relation("published_events"), RowExclusiveLock);
}

static Oid
our_relation(const char *name)
{
	return get_relname_relid(name, jq_catalog()->schema);
}

/* An event whose key is there has been published before. */
static void
store(const JqEvent *event, const Subscription *subscriptions, int count)
{
	Datum		values[6] = {CStringGetTextDatum(event->type), event->key,
	event->tenant_id, event->payload};
	char		nulls[7] = "      ";
	Datum	   *job_types = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		job_types[i] = CStringGetTextDatum(subscriptions[i].job_type);
	values[4] = PointerGetDatum(construct_array(job_types, count, TEXTOID, -1,
												false, TYPALIGN_INT));
	values[5] = TimestampTzGetDatum(event->published_at);
	for (int i = 1; i < 4; i++)
		if (values[i] == 0)
			nulls[i] = 'n';
	jq_scope_enter(JQ_WRITE_ENGINE);
	(void) jq_statement_execute(&insert_event, values, nulls, 0);
	jq_scope_leave();
}

int64
jq_event_replay(const JqReplay *replay)
{
	int64		after = 0;
	int64		replayed = 0;

	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("events can be replayed in READ COMMITTED transactions only")));
	PreventCommandIfReadOnly("replay_events()");
	wait_for_events(replay->job_type);
	while (replayed < replay->max_events)
	{
		int64		limit = Min(replay->max_events - replayed, REPLAY_BATCH);
		int			count = replay_batch(replay, &after, limit);

		replayed += count;
		if (count < limit)
			break;
	}
	return replayed;
}

/*
 * Until a subscription of this very transaction is committed, whoever
 * publishes does not see it: then publishing has to wait, too.
 */
static void
wait_for_events(const char *job_type)
{
	Oid			events = our_relation("published_events");

	if (check_subscriptions(job_type))
		LockRelationOid(events, ShareRowExclusiveLock);
	else
	{
		/* Who commits a subscription tells the others right afterwards. */
		wait_for_writers(our_relation("event_subscriptions"));
		wait_for_writers(events);
	}
}

/* Without being in anybody's way. */
static void
wait_for_writers(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	WaitForLockers(tag, ShareLock, false);
}

/* Whether one of them was made or changed by this transaction. */
static bool
check_subscriptions(const char *job_type)
{
	Datum		values[1] = {CStringGetTextDatum(job_type)};
	bool		is_ours = false;
	int			count;

	jq_scope_enter(JQ_WRITE_PLAIN);
	count = (int) jq_statement_execute(&select_subscriber, values, NULL, 0);
	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("job type \"%s\" has no enabled subscription", job_type),
				 errhint("Call subscribe_event() first.")));
	for (int i = 0; i < count; i++)
	{
		jq_ownership_check(jq_scope_caller(),
						   DatumGetObjectId(jq_statement_value(i, 1)),
						   "event_subscriptions");
		if (TransactionIdIsCurrentTransactionId(DatumGetTransactionId(jq_statement_value(i, 2))))
			is_ours = true;
	}
	jq_scope_leave();
	return is_ours;
}

/* The next events after id *after; how many. */
static int
replay_batch(const JqReplay *replay, int64 *after, int64 limit)
{
	Datum		job_type = CStringGetTextDatum(replay->job_type);
	Datum		values[6] = {job_type, CStringGetTextDatum(replay->pattern),
		replay->since, replay->until, Int64GetDatum(*after),
	Int64GetDatum(limit)};
	char		nulls[7] = "      ";
	SPITupleTable *rows;
	int			count;

	nulls[2] = replay->has_since ? ' ' : 'n';
	nulls[3] = replay->has_until ? ' ' : 'n';
	jq_scope_enter(JQ_WRITE_ENGINE);
	count = (int) jq_statement_execute(&select_events, values, nulls, 0);
	rows = SPI_tuptable;
	for (int i = 0; i < count; i++)
	{
		JqEvent		event;
		JqNewJob	job;
		Datum		mark[2];

		CHECK_FOR_INTERRUPTS();
		SPI_tuptable = rows;	/* that of the statements below is another */
		*after = DatumGetInt64(jq_statement_value(i, 1));
		read_event(i, &event);
		fill_job(&job, &event);
		job.job_type = job_type;
		job.owner = DatumGetObjectId(jq_statement_value(i, 7));
		(void) jq_enqueue(&job);
		mark[0] = Int64GetDatum(*after);
		mark[1] = job_type;
		(void) jq_statement_execute(&mark_event, mark, NULL, 0);
	}
	jq_scope_leave();
	return count;
}

static void
read_event(int row, JqEvent *event)
{
	bool		isnull;

	event->type = TextDatumGetCString(jq_statement_value(row, 2));
	event->payload = jq_statement_nullable(row, 3, &isnull);
	event->key = jq_statement_nullable(row, 4, &isnull);
	event->tenant_id = jq_statement_nullable(row, 5, &isnull);
	event->published_at = DatumGetTimestampTz(jq_statement_value(row, 6));
}

/* ---- subscribing ---- */

int64
jq_event_subscribe(const char *pattern, const char *job_type)
{
	Datum		values[3] = {CStringGetTextDatum(pattern),
	CStringGetTextDatum(job_type), ObjectIdGetDatum(GetUserId())};
	int64		id;

	jq_event_check_pattern(pattern);
	check_subscriber(job_type);
	jq_scope_enter(JQ_WRITE_PLAIN);
	jq_statement_execute(&upsert_subscription, values, NULL, 0);
	id = DatumGetInt64(jq_statement_value(0, 1));
	jq_ownership_check(jq_scope_caller(),
					   DatumGetObjectId(jq_statement_value(0, 2)), "event_subscriptions");
	jq_scope_leave();
	return id;
}

bool
jq_event_unsubscribe(const char *pattern, const char *job_type)
{
	Datum		values[2] = {CStringGetTextDatum(pattern),
	CStringGetTextDatum(job_type)};
	bool		is_gone;

	jq_event_check_pattern(pattern);
	jq_name_check_required(job_type, "job_type");
	jq_scope_enter(JQ_WRITE_PLAIN);
	is_gone = jq_statement_execute(&delete_subscription, values, NULL, 0) > 0;
	jq_scope_leave();
	return is_gone;
}

const char *
jq_event_webhook(const char *endpoint)
{
	char	   *job_type;
	Datum		values[2];
	bool		isnull;
	Datum		owner;

	job_type = pstrdup(jq_event_webhook_name(endpoint));
	jq_scope_enter(JQ_WRITE_PLAIN);
	values[0] = CStringGetTextDatum(endpoint);
	if (jq_statement_execute(&select_endpoint, values, NULL, 1) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("endpoint \"%s\" does not exist", endpoint),
				 errhint("Insert it into http_endpoints.")));
	owner = jq_statement_nullable(0, 1, &isnull);
	jq_ownership_check(jq_scope_caller(),
					   isnull ? jq_catalog()->owner : DatumGetObjectId(owner),
					   "endpoint");

	values[1] = values[0];
	values[0] = CStringGetTextDatum(job_type);
	if (jq_statement_execute(&select_webhook, values, NULL, 1) == 0 &&
		jq_statement_execute(&insert_webhook, values, NULL, 0) == 0 &&
		jq_statement_execute(&select_webhook, values, NULL, 1) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job type \"%s\" does not call endpoint \"%s\"",
						job_type, endpoint),
				 errhint("Subscribe a job type of another name, with runner \"http\" and that endpoint.")));
	jq_scope_leave();
	return job_type;
}

const char *
jq_event_webhook_name(const char *endpoint)
{
	jq_name_check(endpoint, "endpoint", 1, 255 - strlen(JQ_WEBHOOK_PREFIX));
	return psprintf("%s%s", JQ_WEBHOOK_PREFIX, endpoint);
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

static void
check_subscriber(const char *job_type)
{
	jq_name_check_required(job_type, "job_type");
	if (jq_job_type_is_built_in(job_type) ||
		strcmp(job_type, JQ_HTTP_JOB_TYPE) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("events cannot become jobs of the built-in type \"%s\"",
						job_type),
				 errhint("Subscribe a job type of your own: its jobs have the event as payload.")));
}

/* BEFORE INSERT OR UPDATE OR DELETE ON event_subscriptions FOR EACH ROW */
Datum
jobqueue_guard_event_subscription(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	result;
	Datum		value;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		RelationGetNamespace(trigger->tg_relation) != jq_catalog()->schema)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"_guard_event_subscription\" must be called as the trigger of event_subscriptions")));
	result = jq_ownership_guard(trigger);
	if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		return PointerGetDatum(result);
	/* A null is for the constraint to refuse. */
	value = jq_row_new_value(trigger, "event_type", &isnull);
	if (!isnull)
		jq_event_check_pattern(TextDatumGetCString(value));
	value = jq_row_new_value(trigger, "job_type", &isnull);
	if (!isnull)
		check_subscriber(TextDatumGetCString(value));
	return PointerGetDatum(result);
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
											  sizeof(Subscription) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		Subscription *subscription = &entry->subscriptions[entry->count++];

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
