/*-------------------------------------------------------------------------
 *
 * events.c
 *	  Events become jobs: of subscribers at once, of later ones by replay.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/config.h"
#include "base/names.h"
#include "base/ownership.h"
#include "base/scope.h"
#include "base/statement.h"
#include "queue/enqueue.h"
#include "queue/event_patterns.h"
#include "queue/events.h"
#include "queue/validate.h"

/* How many stored events are read in one go. */
#define REPLAY_BATCH 1000

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
static void store(const JqEvent *event, const JqSubscription *subscriptions,
				  int count);
static Oid	our_relation(const char *name);
static bool check_subscriptions(const char *job_type);
static void wait_for_events(const char *job_type);
static void wait_for_writers(Oid relid);
static int	replay_batch(const JqReplay *replay, int64 *after, int64 limit);
static void read_event(int row, JqEvent *event);
static void check_event(const JqEvent *event);
static Datum envelope(const JqEvent *event);
static void push_member(JsonbParseState **state, const char *key,
						JsonbValue *value);
static void push_text(JsonbParseState **state, const char *key, Datum value);

/* ---- publishing ---- */

int64 *
jq_event_publish(const JqEvent *event, int *count)
{
	JqNewJob	job;
	JqSubscription *subscriptions;
	int64	   *ids;

	check_event(event);
	PreventCommandIfReadOnly("publish_event()");
	if (jq_config_keep_events > 0)
		lock_events();
	subscriptions = jq_event_match(event->type, count);
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
	jq_event_check_type(event->type);
	if (event->payload != 0)
		jq_validate_payload(event->payload);
	if (event->key != 0)
		jq_name_check(TextDatumGetCString(event->key), "event_key", 1, 512);
	if (event->tenant_id != 0)
		jq_name_check(TextDatumGetCString(event->tenant_id), "tenant_id", 1, 512);
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
store(const JqEvent *event, const JqSubscription *subscriptions, int count)
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
