/*-------------------------------------------------------------------------
 *
 * endpoints.c
 *	  HTTP endpoints, cached, and the triggers of their table.
 *
 * A statement trigger on http_endpoints sends a relcache invalidation for the
 * table, which empties the cache of every backend.  What a row leaves NULL is
 * filled from the jobqueue.* settings at each look-up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/config.h"
#include "base/interval.h"
#include "base/json.h"
#include "base/names.h"
#include "base/ownership.h"
#include "base/rows.h"
#include "base/scope.h"
#include "base/statement.h"
#include "base/wake.h"
#include "http/header.h"
#include "http/template.h"
#include "queue/endpoints.h"

PG_FUNCTION_INFO_V1(jobqueue_guard_http_endpoint);
PG_FUNCTION_INFO_V1(jobqueue_http_endpoints_changed);

#define MAX_CACHED_ENDPOINTS 10000
#define MAX_TIMEOUT_US USECS_PER_DAY
#define MAX_RESPONSE_SIZE (16 * 1024 * 1024)
#define MAX_REDIRECTS 10
#define IN_REQUEST \
	(JQ_PLACEHOLDER_PAYLOAD | JQ_PLACEHOLDER_JOB | JQ_PLACEHOLDER_SECRET)
#define IN_BODY (JQ_PLACEHOLDER_PAYLOAD | JQ_PLACEHOLDER_JOB)

typedef struct CachedEndpoint
{
	JqEndpoint	settings;		/* name first: it is the hash key */
	bool		is_loaded;
	bool		exists;
	/* what the row says; 0: nothing */
	int			timeout_ms;
	int			connect_timeout_ms;
	int			max_concurrency;
	int			max_response;	/* -1: nothing */
} CachedEndpoint;

static MemoryContext cache_context = NULL;
static HTAB *cache = NULL;
static Oid	cached_relation = InvalidOid;
static bool cache_is_stale = false;
static uint32 generation = 1;

static JqStatement select_endpoint = {
	.text = "SELECT owner::pg_catalog.oid, url, method, headers, body, body_type,"
	" batch_body, batch_results, signing_secret, client_certificate, tls_ca,"
	" http_version, timeout, connect_timeout, low_speed_limit, low_speed_time,"
	" max_concurrency, max_response_size, max_redirects::pg_catalog.int4, enabled"
	" FROM @.http_endpoints WHERE name = $1",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static void prepare_cache(void);
static void load_row(CachedEndpoint *entry);
static void read_row(CachedEndpoint *entry);
static void read_parts(JqEndpoint *settings);
static void read_limits(CachedEndpoint *entry);
static bool read_column(int column, Datum *value);
static char *read_text(int column);
static Jsonb *read_jsonb(int column);
static int	read_ms(int column);
static void apply_defaults(CachedEndpoint *entry);
static void forget_endpoints(Datum arg, Oid relid);
static void check_request(TriggerData *trigger);
static void check_bodies(TriggerData *trigger);
static void check_limits(TriggerData *trigger);
static char *new_text(TriggerData *trigger, const char *column);
static Jsonb *new_jsonb(TriggerData *trigger, const char *column);
static void check_number(TriggerData *trigger, const char *column, Oid type,
						 int min, int max);
static void check_interval(TriggerData *trigger, const char *column,
						   int64 max_us);

const JqEndpoint *
jq_endpoint(const char *name)
{
	char		key[sizeof(((JqEndpoint *) NULL)->name)];
	CachedEndpoint *entry;
	bool		found;

	prepare_cache();
	strlcpy(key, name, sizeof(key));
	entry = hash_search(cache, key, HASH_ENTER, &found);
	if (!found)
		entry->is_loaded = false;
	if (!entry->is_loaded)
		load_row(entry);
	if (!entry->exists)
		return NULL;
	apply_defaults(entry);
	return &entry->settings;
}

uint32
jq_endpoints_generation(void)
{
	return generation;
}

static void
prepare_cache(void)
{
	Oid			relation = jq_catalog()->http_endpoints;
	HASHCTL		info;

	if (cache_context == NULL)
	{
		cache_context = AllocSetContextCreate(TopMemoryContext,
											  "jobqueue HTTP endpoints",
											  ALLOCSET_DEFAULT_SIZES);
		CacheRegisterRelcacheCallback(forget_endpoints, (Datum) 0);
	}
	if (cache != NULL && !cache_is_stale && relation == cached_relation &&
		hash_get_num_entries(cache) < MAX_CACHED_ENDPOINTS)
		return;

	cache = NULL;
	MemoryContextReset(cache_context);
	info.keysize = sizeof(((JqEndpoint *) NULL)->name);
	info.entrysize = sizeof(CachedEndpoint);
	info.hcxt = cache_context;
	cache = hash_create("jobqueue HTTP endpoints", 64, &info,
						HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	cached_relation = relation;
	cache_is_stale = false;
}

static void
forget_endpoints(Datum arg, Oid relid)
{
	if (relid != InvalidOid && relid != cached_relation)
		return;
	cache_is_stale = true;
	generation++;
}

/* Reads the newest row, whatever the age of the transaction's snapshot. */
static void
load_row(CachedEndpoint *entry)
{
	Datum		values[1];
	char		name[sizeof(entry->settings.name)];

	strlcpy(name, entry->settings.name, sizeof(name));
	memset(entry, 0, sizeof(CachedEndpoint));
	strlcpy(entry->settings.name, name, sizeof(name));

	jq_scope_enter_read_only();
	values[0] = CStringGetTextDatum(name);
	PushActiveSnapshot(GetLatestSnapshot());
	entry->exists = jq_statement_query(&select_endpoint, values, NULL, 1) > 0;
	PopActiveSnapshot();
	if (entry->exists)
		read_row(entry);
	jq_scope_leave();
	entry->is_loaded = true;
}

static void
read_row(CachedEndpoint *entry)
{
	JqEndpoint *settings = &entry->settings;
	char	   *version;
	Datum		value;

	if (read_column(1, &value))
		settings->owner = DatumGetObjectId(value);
	settings->url = read_text(2);
	settings->method = read_text(3);
	settings->headers = read_jsonb(4);
	settings->body = read_jsonb(5);
	settings->body_type = jq_body_type(TextDatumGetCString(jq_statement_value(0, 6)),
									   "body_type");
	settings->batch_body = read_jsonb(7);
	settings->batch_results = read_text(8);
	settings->signing_secret = read_text(9);
	settings->client_certificate = read_text(10);
	settings->tls_ca = read_text(11);
	version = TextDatumGetCString(jq_statement_value(0, 12));
	settings->version = strcmp(version, "1.1") == 0 ? JQ_HTTP_1_1 :
		strcmp(version, "2") == 0 ? JQ_HTTP_2 : JQ_HTTP_AUTO;
	read_limits(entry);
	settings->is_enabled = DatumGetBool(jq_statement_value(0, 20));
	settings->has_header_template =
		jq_http_template_has_jsonb(settings->headers, ~0);
	settings->has_body_template = settings->body != NULL &&
		jq_http_template_has_jsonb(settings->body, ~0);
	read_parts(settings);
	settings->has_template = settings->has_header_template ||
		settings->has_body_template || jq_http_template_has(settings->url, ~0);
}

/* What jobs would find out one by one. */
static void
read_parts(JqEndpoint *settings)
{
	MemoryContext old = MemoryContextSwitchTo(cache_context);

	settings->has_parts = !jq_http_template_has(settings->url, ~0) &&
		jq_url_parse(settings->url, &settings->parts) == NULL;
	MemoryContextSwitchTo(old);
}

static void
read_limits(CachedEndpoint *entry)
{
	JqEndpoint *settings = &entry->settings;
	Datum		value;

	entry->timeout_ms = read_ms(13);
	entry->connect_timeout_ms = read_ms(14);
	if (read_column(15, &value))
		settings->low_speed_limit = DatumGetInt32(value);
	settings->low_speed_time = (read_ms(16) + 999) / 1000;
	if (settings->low_speed_limit > 0 && settings->low_speed_time == 0)
		settings->low_speed_time = 10;
	if (read_column(17, &value))
		entry->max_concurrency = DatumGetInt32(value);
	entry->max_response = read_column(18, &value) ? DatumGetInt32(value) : -1;
	settings->max_redirects = DatumGetInt32(jq_statement_value(0, 19));
}

static bool
read_column(int column, Datum *value)
{
	bool		isnull;

	*value = jq_statement_nullable(0, column, &isnull);
	return !isnull;
}

static char *
read_text(int column)
{
	Datum		value;

	return read_column(column, &value) ?
		MemoryContextStrdup(cache_context, TextDatumGetCString(value)) : NULL;
}

static Jsonb *
read_jsonb(int column)
{
	MemoryContext old;
	Jsonb	   *copy;
	Datum		value;

	if (!read_column(column, &value))
		return NULL;
	old = MemoryContextSwitchTo(cache_context);
	copy = DatumGetJsonbPCopy(value);
	MemoryContextSwitchTo(old);
	return copy;
}

static int
read_ms(int column)
{
	Datum		value;

	if (!read_column(column, &value))
		return 0;
	return (int) Max(jq_interval_clamped_us(DatumGetIntervalP(value),
											MAX_TIMEOUT_US) / 1000, 1);
}

void
jq_endpoint_defaults(JqEndpoint *endpoint)
{
	endpoint->timeout_ms = jq_config_http_timeout;
	endpoint->connect_timeout_ms = jq_config_http_connect_timeout;
	endpoint->max_concurrency = jq_config_http_host_connections;
	endpoint->max_response = jq_config_http_max_response_size * 1024;
}

static void
apply_defaults(CachedEndpoint *entry)
{
	JqEndpoint *settings = &entry->settings;

	jq_endpoint_defaults(settings);
	if (entry->timeout_ms != 0)
		settings->timeout_ms = entry->timeout_ms;
	if (entry->connect_timeout_ms != 0)
		settings->connect_timeout_ms = entry->connect_timeout_ms;
	if (entry->max_concurrency != 0)
		settings->max_concurrency = entry->max_concurrency;
	if (entry->max_response >= 0)
		settings->max_response = entry->max_response;
}

JqBodyType
jq_body_type(const char *name, const char *argument)
{
	if (strcmp(name, "json") == 0)
		return JQ_BODY_JSON;
	if (strcmp(name, "form") == 0)
		return JQ_BODY_FORM;
	if (strcmp(name, "text") == 0)
		return JQ_BODY_TEXT;
	if (strcmp(name, "binary") == 0)
		return JQ_BODY_BINARY;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized %s \"%s\"", argument, name),
			 errhint("The types of bodies are json, form, text and binary.")));
}

/* ---- triggers ---- */

/* BEFORE INSERT OR UPDATE OR DELETE ON http_endpoints FOR EACH ROW */
Datum
jobqueue_guard_http_endpoint(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	result;
	bool		isnull;
	Datum		updated_at;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != jq_catalog()->http_endpoints)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"_guard_http_endpoint\" must be called as the trigger of http_endpoints")));
	result = jq_ownership_guard(trigger);
	if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		return PointerGetDatum(result);
	updated_at = jq_row_new_value(trigger, "updated_at", &isnull);
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event) && !isnull &&
		jq_ownership_is_restore(jq_scope_caller(),
								DatumGetTimestampTz(updated_at)))
		return PointerGetDatum(result);
	check_request(trigger);
	check_bodies(trigger);
	check_limits(trigger);
	return PointerGetDatum(result);
}

/* AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON http_endpoints */
Datum
jobqueue_http_endpoints_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"_http_endpoints_changed\" must be called as a trigger")));
	CacheInvalidateRelcache(trigger->tg_relation);
	jq_wake_at_commit();
	return PointerGetDatum(NULL);
}

static void
check_request(TriggerData *trigger)
{
	char	   *name = new_text(trigger, "name");
	char	   *url = new_text(trigger, "url");
	char	   *method = new_text(trigger, "method");
	Jsonb	   *headers = new_jsonb(trigger, "headers");
	char	   *version = new_text(trigger, "http_version");
	char	   *ca = new_text(trigger, "tls_ca");

	if (name != NULL)
	{
		jq_name_check_required(name, "name");
		if (strstr(name, "://") != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("name of an endpoint must not look like a URL")));
	}
	if (url != NULL)
		jq_http_template_check_url(url, "url");
	if (method != NULL)
		jq_method_check(method, "method");
	if (headers != NULL)
	{
		jq_headers_check(headers, "headers");
		jq_http_template_check_jsonb(headers, IN_REQUEST, "headers");
	}
	if (version != NULL && strcmp(version, "auto") != 0 &&
		strcmp(version, "1.1") != 0 && strcmp(version, "2") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized http_version \"%s\"", version),
				 errhint("The versions are auto, 1.1 and 2.")));
	if (ca != NULL && strstr(ca, "-----BEGIN CERTIFICATE-----") == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tls_ca must hold certificates in PEM format")));
}

static void
check_bodies(TriggerData *trigger)
{
	char	   *type = new_text(trigger, "body_type");
	Jsonb	   *body = new_jsonb(trigger, "body");
	Jsonb	   *batch_body = new_jsonb(trigger, "batch_body");
	char	   *batch_results = new_text(trigger, "batch_results");
	char	   *method;

	if (type == NULL)
		return;					/* to be refused */
	switch (jq_body_type(type, "body_type"))
	{
		case JQ_BODY_JSON:
			break;
		case JQ_BODY_FORM:
			if (body != NULL && !jq_json_is_object(body))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("body of type \"%s\" must be an object", type)));
			break;
		case JQ_BODY_TEXT:
		case JQ_BODY_BINARY:
			if (body != NULL && !jq_json_is_string(body))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("body of type \"%s\" must be a string", type)));
			break;
	}
	if (body != NULL)
		jq_http_template_check_jsonb(body, IN_BODY, "body");
	if (batch_body != NULL)
	{
		jq_http_template_check_jsonb(batch_body, JQ_PLACEHOLDER_ITEMS,
									 "batch_body");
		if (!jq_http_template_has_jsonb(batch_body, JQ_PLACEHOLDER_ITEMS))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("batch_body must have \"{{items}}\" somewhere")));
	}
	method = new_text(trigger, "method");
	if (body != NULL && method != NULL &&
		(strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a request with method %s has no body", method)));
	if (batch_results != NULL)
		jq_name_check_required(batch_results, "batch_results");
}

static void
check_limits(TriggerData *trigger)
{
	check_interval(trigger, "timeout", MAX_TIMEOUT_US);
	check_interval(trigger, "connect_timeout", MAX_TIMEOUT_US);
	check_interval(trigger, "low_speed_time", USECS_PER_HOUR);
	check_number(trigger, "low_speed_limit", INT4OID, 1, INT_MAX);
	check_number(trigger, "max_concurrency", INT4OID, 1, 10000);
	check_number(trigger, "max_response_size", INT4OID, 0, MAX_RESPONSE_SIZE);
	check_number(trigger, "max_redirects", INT2OID, 0, MAX_REDIRECTS);
}

static char *
new_text(TriggerData *trigger, const char *column)
{
	bool		isnull;
	Datum		value = jq_row_new_value(trigger, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

static Jsonb *
new_jsonb(TriggerData *trigger, const char *column)
{
	bool		isnull;
	Datum		value = jq_row_new_value(trigger, column, &isnull);

	return isnull ? NULL : DatumGetJsonbP(value);
}

static void
check_number(TriggerData *trigger, const char *column, Oid type,
			 int min, int max)
{
	bool		isnull;
	Datum		value = jq_row_new_value(trigger, column, &isnull);

	if (!isnull)
		jq_range_check(type == INT2OID ? DatumGetInt16(value) :
					   DatumGetInt32(value), column, min, max);
}

static void
check_interval(TriggerData *trigger, const char *column, int64 max_us)
{
	bool		isnull;
	Datum		value = jq_row_new_value(trigger, column, &isnull);

	if (!isnull)
		(void) jq_interval_us(DatumGetIntervalP(value), column, 1000, max_us);
}
