/*-------------------------------------------------------------------------
 *
 * http_request.c
 *	  The request that an HTTP job becomes: placeholders, headers and body.
 *
 * What is filled in can be anything: it is judged as what users write is, and
 * what does not pass is the job's refusal.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/json.h"
#include "http/form.h"
#include "http/header.h"
#include "http/signature.h"
#include "queue/http_reading.h"

#define MAX_SECRETS 16			/* of one request */
#define OWN_HEADERS 6			/* that are added to those of the user */
#define USER_AGENT "User-Agent: jobqueue/1.0"
#define NO_CONTENT_TYPE "Content-Type:" /* libcurl calls no body a form */

static void prepare_values(JqHttpReading *reading);
static char *instant_text(TupleTableSlot *slot, int column);
static const char *find_secret(const char *name, void *arg);
static bool fill_url(JqHttpReading *reading);
static bool fill_headers(JqHttpReading *reading, Jsonb *headers, bool is_template);
static bool add_header(JqHttpReading *reading, const char *name, const char *value,
					   JqHeaderTotals *totals);
static bool has_header(const JqHttpJob *job, const char *name);
static bool fill_body(JqHttpReading *reading);
static bool write_body(JqHttpReading *reading, Jsonb *document, JqBodyType type);
static void set_body(JqHttpRequest *request, const char *data, Size size);
static bool find_keys(JqHttpReading *reading);
static const char *to_utf8(const char *string);
static const char *compose_bulk(JqHttpJob **jobs, int count,
								JqHttpRequest *request);
static char *bulk_key(JqHttpJob **jobs, int count);
static const char *sign(JqHttpJob *job, JqHttpRequest *request,
						const char *id);

void
jq_http_request_fill(JqHttpReading *reading)
{
	prepare_values(reading);
	(void) (fill_url(reading) &&
			fill_headers(reading, reading->endpoint.headers,
						 reading->endpoint.has_header_template) &&
			(reading->call == NULL ||
			 fill_headers(reading, jq_json_member(reading->call, "headers"),
						  true)) &&
			fill_body(reading) &&
			find_keys(reading));
}

/* ---- placeholders ---- */

static void
prepare_values(JqHttpReading *reading)
{
	JqTemplateValues *values = &reading->values;
	JqJob	   *row = &reading->row;
	Datum		group_key;
	bool		isnull;

	reading->job->secrets = palloc0(sizeof(JqSecret) * MAX_SECRETS);
	values->find_secret = find_secret;
	values->secret_state = reading;
	if (reading->call != NULL)
		return;					/* no others are allowed there */
	values->payload = reading->payload;
	if (!reading->endpoint.has_template || reading->slot == NULL)
		return;

	group_key = slot_getattr(reading->slot, JQ_JOB_GROUP_KEY, &isnull);
	values->fields = reading->fields;
	values->nfields = lengthof(reading->fields);
	reading->fields[0] = (JqTemplateField)
	{
		"id", psprintf(INT64_FORMAT, row->id), true
	};
	reading->fields[1] = (JqTemplateField)
	{
		"type", row->job_type, false
	};
	reading->fields[2] = (JqTemplateField)
	{
		"stage", row->stage, false
	};
	reading->fields[3] = (JqTemplateField)
	{
		"attempt", psprintf("%d", row->attempts), true
	};
	reading->fields[4] = (JqTemplateField)
	{
		"claim_no", psprintf("%d", row->claim_no), true
	};
	reading->fields[5] = (JqTemplateField)
	{
		"idempotency_key", reading->job->idempotency_key, false
	};
	reading->fields[6] = (JqTemplateField)
	{
		"correlation_id",
			row->has_correlation_id ? TextDatumGetCString(row->correlation_id) : NULL,
			false
	};
	reading->fields[7] = (JqTemplateField)
	{
		"created_at", instant_text(reading->slot, JQ_JOB_CREATED_AT), false
	};
	reading->fields[8] = (JqTemplateField)
	{
		"scheduled_at", instant_text(reading->slot, JQ_JOB_SCHEDULED_AT), false
	};
	reading->fields[9] = (JqTemplateField)
	{
		"group_key", isnull ? NULL : TextDatumGetCString(group_key), false
	};
}

/* As JSON has it, in UTC. */
static char *
instant_text(TupleTableSlot *slot, int column)
{
	bool		isnull;
	Datum		instant = slot_getattr(slot, column, &isnull);
	char		string[MAXDATELEN + 1];
	int			utc = 0;

	JsonEncodeDateTime(string, instant, TIMESTAMPTZOID, &utc);
	return pstrdup(string);
}

/* Remembers what it finds, so that it can be struck out of the answer. */
static const char *
find_secret(const char *name, void *arg)
{
	JqHttpReading *reading = (JqHttpReading *) arg;
	JqHttpJob  *job = reading->job;
	JqSecret   *secret = &job->secrets[job->nsecrets];

	if (job->nsecrets == MAX_SECRETS)
	{
		reading->secret_fault = "there are too many secrets in it";
		return NULL;
	}
	if (!jq_secret_find(name, reading->sender, secret, &reading->secret_fault))
		return NULL;
	job->nsecrets++;
	return secret->value;
}

static bool
refuse_template(JqHttpReading *reading, const char *what, const char *reason)
{
	if (reading->secret_fault != NULL)
		reason = reading->secret_fault;
	return jq_http_refuse(reading, psprintf("%s cannot be filled in: %s", what, reason));
}

static bool
fill_url(JqHttpReading *reading)
{
	JqHttpJob  *job = reading->job;
	char	   *url = reading->endpoint.url;
	const char *reason;

	if (job->request_size > 1 &&
		jq_http_template_has(url, JQ_PLACEHOLDER_PAYLOAD | JQ_PLACEHOLDER_JOB))
		return jq_http_refuse(reading, "a URL that differs from job to job cannot be shared by several");
	if (reading->has_endpoint && jq_http_template_has(url, ~0))
	{
		url = jq_http_template_fill(url, &reading->values, JQ_ESCAPE_URL, &reason);
		if (url == NULL)
			return refuse_template(reading, "the URL", reason);
	}
	else
		url = pstrdup(url);
	if (reading->endpoint.has_parts)
	{
		job->url = reading->endpoint.parts;
		job->url.host = pstrdup(job->url.host);
		job->url.origin = pstrdup(job->url.origin);
	}
	else if ((reason = jq_url_parse(url, &job->url)) != NULL)
		return jq_http_refuse(reading, psprintf("its URL is invalid: %s", reason));
	job->request.url = url;
	job->target = reading->has_endpoint ? pstrdup(reading->endpoint.name) :
		job->url.origin;
	return true;
}

static bool
fill_headers(JqHttpReading *reading, Jsonb *headers, bool is_template)
{
	JqHttpJob  *job = reading->job;
	JqHeaderTotals totals = {0};
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *name = NULL;

	if (job->headers == NULL)
		job->headers = palloc(sizeof(char *) *
							  (2 * JQ_HEADERS_MAX_COUNT + OWN_HEADERS));
	if (headers == NULL)
		return true;
	if (job->request_size > 1 && is_template &&
		jq_http_template_has_jsonb(headers,
								   JQ_PLACEHOLDER_PAYLOAD | JQ_PLACEHOLDER_JOB))
		return jq_http_refuse(reading, "headers that differ from job to job cannot be shared by several");
	it = JsonbIteratorInit(&headers->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		const char *reason;
		char	   *string;

		if (token == WJB_KEY)
			name = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_VALUE || value.type != jbvString)
			continue;
		string = pnstrdup(value.val.string.val, value.val.string.len);
		if (is_template)
			string = jq_http_template_fill(string, &reading->values, JQ_ESCAPE_NONE,
										   &reason);
		if (string == NULL)
			return refuse_template(reading, psprintf("header \"%s\"", name),
								   reason);
		if (!add_header(reading, name, string, &totals))
			return false;
	}
	return true;
}

/* One of the job takes the place of the endpoint's. */
static bool
add_header(JqHttpReading *reading, const char *name, const char *value,
		   JqHeaderTotals *totals)
{
	JqHttpJob  *job = reading->job;
	const char *flaw = jq_header_flaw(name, value, totals);
	Size		length = strlen(name);
	int			place = job->nheaders;

	if (flaw != NULL)
		return jq_http_refuse(reading, psprintf("header \"%s\" cannot be sent: %s",
												name, flaw));
	for (int i = 0; i < job->nheaders; i++)
		if (pg_strncasecmp(job->headers[i], name, length) == 0 &&
			strchr(":;", job->headers[i][length]) != NULL)
			place = i;
	/* To libcurl, a name and a colon alone mean: do not send this header. */
	job->headers[place] = value[0] == '\0' ? psprintf("%s;", name) :
		psprintf("%s: %s", name, to_utf8(value));
	if (place == job->nheaders)
		job->nheaders++;
	return true;
}

static bool
has_header(const JqHttpJob *job, const char *name)
{
	Size		length = strlen(name);

	for (int i = 0; i < job->nheaders; i++)
		if (pg_strncasecmp(job->headers[i], name, length) == 0 &&
			strchr(":;", job->headers[i][length]) != NULL)
			return true;
	return false;
}

/* ---- bodies ---- */

static bool
fill_body(JqHttpReading *reading)
{
	JqHttpJob  *job = reading->job;
	const JqEndpoint *endpoint = &reading->endpoint;
	char	   *method = reading->call == NULL ? reading->method :
	jq_json_text(reading->call, "method");
	char	   *type = reading->call == NULL ? NULL :
	jq_json_text(reading->call, "body_type");
	Jsonb	   *document = reading->payload;
	const char *reason;

	job->request.method = pstrdup(method != NULL ? method : endpoint->method);
	if (reading->call != NULL)
		document = jq_json_member(reading->call, "body");
	else if (endpoint->body != NULL && !endpoint->has_body_template)
		document = endpoint->body;
	else if (endpoint->body != NULL)
	{
		document = jq_http_template_fill_jsonb(endpoint->body, &reading->values,
											   &reason);
		if (document == NULL)
			return refuse_template(reading, "the body", reason);
	}
	else if (strcmp(job->request.method, "DELETE") == 0)
		document = NULL;		/* unless the endpoint has one */
	if (strcmp(job->request.method, "GET") == 0 ||
		strcmp(job->request.method, "HEAD") == 0)
		document = NULL;
	if (job->request_size > 1)
	{
		job->item = document;
		if (document != NULL && document == endpoint->body)
		{
			/* That of the endpoint's cache may go before the job. */
			job->item = palloc(VARSIZE(document));
			memcpy(job->item, document, VARSIZE(document));
		}
		if (endpoint->batch_results != NULL)
			job->batch_results = pstrdup(endpoint->batch_results);
		if (endpoint->batch_body != NULL)
		{
			job->batch_body = palloc(VARSIZE(endpoint->batch_body));
			memcpy(job->batch_body, endpoint->batch_body,
				   VARSIZE(endpoint->batch_body));
		}
		if (document == NULL || endpoint->body_type != JQ_BODY_JSON)
			return jq_http_refuse(reading, "a request of several jobs needs a JSON body");
		job->content_type = "application/json";
		return true;
	}
	return document == NULL ||
		write_body(reading, document,
				   type != NULL ? jq_body_type(type, "body_type") :
				   endpoint->body_type);
}

static bool
write_body(JqHttpReading *reading, Jsonb *document, JqBodyType type)
{
	JqHttpJob  *job = reading->job;
	const char *reason = NULL;
	StringInfoData out;

	if ((type == JQ_BODY_TEXT || type == JQ_BODY_BINARY) &&
		!jq_json_is_string(document))
		return jq_http_refuse(reading, "a text or binary body must be a string");
	initStringInfo(&out);
	switch (type)
	{
		case JQ_BODY_JSON:
			(void) JsonbToCString(&out, &document->root, VARSIZE(document));
			job->content_type = "application/json";
			break;
		case JQ_BODY_FORM:
			reason = jq_form_encode(&out, document);
			job->content_type = "application/x-www-form-urlencoded";
			break;
		case JQ_BODY_TEXT:
			appendStringInfoString(&out, jq_json_root_text(document));
			job->content_type = "text/plain; charset=utf-8";
			break;
		case JQ_BODY_BINARY:
			reason = jq_base64_decode(&out, jq_json_root_text(document));
			job->content_type = "application/octet-stream";
			break;
	}
	if (reason != NULL)
		return jq_http_refuse(reading, psprintf("its body cannot be written: %s", reason));
	set_body(&job->request, out.data, out.len);
	if (type == JQ_BODY_JSON || type == JQ_BODY_TEXT)
	{
		const char *converted = to_utf8(out.data);

		if (converted != out.data)
			set_body(&job->request, converted, strlen(converted));
	}
	return true;
}

static void
set_body(JqHttpRequest *request, const char *data, Size size)
{
	request->body = data;
	request->body_size = size;
}

static const char *
to_utf8(const char *string)
{
	return pg_server_to_any(string, strlen(string), PG_UTF8);
}

/* The secrets that are not in a text. */
static bool
find_keys(JqHttpReading *reading)
{
	JqHttpJob  *job = reading->job;
	const JqEndpoint *endpoint = &reading->endpoint;
	const char *reason;

	if (has_header(job, "Content-Type"))
		job->content_type = NULL;
	if (endpoint->signing_secret != NULL)
	{
		if (!jq_secret_find(endpoint->signing_secret, reading->sender,
							&job->signing, &reason))
			return jq_http_refuse(reading, psprintf("it cannot be signed: %s", reason));
		reason = jq_signature_secret_flaw(job->signing.value);
		if (reason != NULL)
			return jq_http_refuse(reading, psprintf("it cannot be signed: %s", reason));
	}
	if (endpoint->client_certificate != NULL)
	{
		if (!jq_secret_find(endpoint->client_certificate, reading->sender,
							&job->certificate, &reason))
			return jq_http_refuse(reading, psprintf("there is no client certificate: %s",
													reason));
		job->request.certificate = job->certificate.value;
	}
	return true;
}

/* ---- requests ---- */

const char *
jq_http_job_compose(JqHttpJob **jobs, int count, JqHttpRequest *request)
{
	JqHttpJob  *job = jobs[0];
	const char *reason = jq_url_policy(&job->url);
	char	   *key;

	if (reason != NULL)
		return psprintf("requests to there are not allowed: %s", reason);
	*request = job->request;
	request->headers = palloc(sizeof(char *) * (job->nheaders + OWN_HEADERS));
	memcpy(request->headers, job->headers, sizeof(char *) * job->nheaders);
	request->nheaders = job->nheaders;
	if (job->content_type != NULL)
		request->headers[request->nheaders++] =
			psprintf("Content-Type: %s", job->content_type);
	else if (!has_header(job, "Content-Type"))
		request->headers[request->nheaders++] = pstrdup(NO_CONTENT_TYPE);
	if (!has_header(job, "User-Agent"))
		request->headers[request->nheaders++] = pstrdup(USER_AGENT);
	if (job->request_size > 1)
	{
		reason = compose_bulk(jobs, count, request);
		if (reason != NULL)
			return reason;
	}
	key = job->request_size > 1 ? bulk_key(jobs, count) : job->idempotency_key;
	if (!has_header(job, "Idempotency-Key"))
		request->headers[request->nheaders++] =
			psprintf("Idempotency-Key: %s", key);
	return job->signing.value == NULL ? NULL : sign(job, request, key);
}

/* One body of all their bodies. */
static const char *
compose_bulk(JqHttpJob **jobs, int count, JqHttpRequest *request)
{
	JsonbParseState *state = NULL;
	JqTemplateValues values = {0};
	StringInfoData out;
	const char *reason;
	const char *body;
	Jsonb	   *document;

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < count; i++)
		jq_json_push(&state, WJB_ELEM, jobs[i]->item);
	document = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
	if (jobs[0]->batch_body != NULL)
	{
		values.items = document;
		document = jq_http_template_fill_jsonb(jobs[0]->batch_body, &values,
											   &reason);
		if (document == NULL)
			return psprintf("the body cannot be filled in: %s", reason);
	}
	initStringInfo(&out);
	(void) JsonbToCString(&out, &document->root, VARSIZE(document));
	body = to_utf8(out.data);
	set_body(request, body, strlen(body));
	return NULL;
}

/* The same jobs have the same key, so that it is stable where they are. */
static char *
bulk_key(JqHttpJob **jobs, int count)
{
	uint64		parts[2] = {count, 0};

	for (int i = 0; i < count; i++)
		for (int n = 0; n < 2; n++)
			parts[n] = hash_combine64(parts[n],
									  hash_bytes_extended((const unsigned char *) jobs[i]->idempotency_key,
														  strlen(jobs[i]->idempotency_key), n));
	return psprintf("%08x-%04x-8%03x-%04x-%012llx",
					(uint32) (parts[0] >> 32), (uint32) (parts[0] >> 16) & 0xffff,
					(uint32) parts[0] & 0xfff,
					0x8000 | ((uint32) (parts[1] >> 48) & 0x3fff),
					(unsigned long long) (parts[1] & UINT64CONST(0xffffffffffff)));
}

/* As of Standard Webhooks. */
static const char *
sign(JqHttpJob *job, JqHttpRequest *request, const char *id)
{
	int64		now = (int64) time(NULL);
	char		signature[JQ_SIGNATURE_SIZE];
	const char *reason;

	reason = jq_signature_write(signature, job->signing.value,
								job->signing.previous, id, now,
								request->body != NULL ? request->body : "",
								request->body_size);
	if (reason != NULL)
		return psprintf("it cannot be signed: %s", reason);
	request->headers[request->nheaders++] = psprintf("webhook-id: %s", id);
	request->headers[request->nheaders++] =
		psprintf("webhook-timestamp: " INT64_FORMAT, now);
	request->headers[request->nheaders++] =
		psprintf("webhook-signature: %s", signature);
	return NULL;
}
