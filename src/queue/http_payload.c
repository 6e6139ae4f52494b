/*-------------------------------------------------------------------------
 *
 * http_payload.c
 *	  The payload of a job of the built-in type "http": what to send where.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "base/json.h"
#include "base/ownership.h"
#include "http/form.h"
#include "http/header.h"
#include "http/template.h"
#include "http/url.h"
#include "queue/endpoints.h"
#include "queue/http_payload.h"

static const char *const members[] = {
	"url", "endpoint", "method", "headers", "body", "body_type"
};

static void check_members(Jsonb *payload);
static void check_texts(Jsonb *payload);
static void check_url(const char *url);
static void check_endpoint(const char *name, Oid owner);
static void check_headers(Jsonb *payload);
static void check_body(Jsonb *payload, const char *endpoint);
static const char *body_flaw(Jsonb *body, JqBodyType type);

Jsonb *
jq_http_payload(const JqHttpCall *call)
{
	JsonbParseState *state = NULL;

	jq_json_begin(&state);
	jq_json_put_text(&state, strstr(call->target, "://") != NULL ?
					 "url" : "endpoint", call->target);
	if (call->method != NULL)
		jq_json_put_text(&state, "method", call->method);
	if (call->headers != NULL)
		jq_json_put(&state, "headers", call->headers);
	if (call->body != NULL)
		jq_json_put(&state, "body", call->body);
	if (call->body_type != NULL)
		jq_json_put_text(&state, "body_type", call->body_type);
	return jq_json_end(&state);
}

void
jq_http_payload_check(Jsonb *payload, Oid owner)
{
	char	   *url = jq_json_text(payload, "url");
	char	   *endpoint = jq_json_text(payload, "endpoint");
	char	   *method = jq_json_text(payload, "method");

	if ((url == NULL) == (endpoint == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("payload of a job of type \"http\" must have a text \"url\" or a text \"endpoint\""),
				 errhint("Use enqueue_http().")));
	check_members(payload);
	check_texts(payload);
	if (url != NULL)
		check_url(url);
	else
		check_endpoint(endpoint, owner);
	if (method != NULL)
		jq_method_check(method, "method");
	check_headers(payload);
	check_body(payload, endpoint);
}

/* A member that nobody reads is a mistake. */
static void
check_members(Jsonb *payload)
{
	JsonbIterator *it = JsonbIteratorInit(&payload->root);
	JsonbIteratorToken token;
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		bool		is_known = false;
		char	   *key;

		if (token != WJB_KEY)
			continue;
		key = pnstrdup(value.val.string.val, value.val.string.len);
		for (int i = 0; i < (int) lengthof(members); i++)
			is_known = is_known || strcmp(key, members[i]) == 0;
		if (!is_known)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unrecognized member \"%s\" in the payload of a job of type \"http\"",
							key),
					 errhint("Its members are url, endpoint, method, headers, body and body_type.")));
	}
}

static void
check_texts(Jsonb *payload)
{
	static const char *const texts[] = {
		"url", "endpoint", "method", "body_type"
	};

	for (int i = 0; i < (int) lengthof(texts); i++)
	{
		JsonbValue *value = jq_json_find(payload, texts[i]);

		if (value != NULL && value->type != jbvString && value->type != jbvNull)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("member \"%s\" in the payload of a job of type \"http\" must be a string",
							texts[i])));
	}
}

static void
check_url(const char *url)
{
	JqUrl		parts;
	const char *reason = jq_url_parse(url, &parts);

	if (reason != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid url"),
				 errdetail("%s", reason)));
	reason = jq_url_policy(&parts);
	if (reason != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("requests to \"%s\" are not allowed", parts.origin),
				 errdetail("%s", reason)));
}

/* An endpoint may hold secrets: only friends of its owner use it. */
static void
check_endpoint(const char *name, Oid owner)
{
	const JqEndpoint *endpoint = jq_endpoint(name);

	if (endpoint == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("HTTP endpoint \"%s\" does not exist", name),
				 errhint("A URL begins with https:// or http://.")));
	if (OidIsValid(owner) && OidIsValid(endpoint->owner))
		jq_ownership_check(owner, endpoint->owner, "endpoint");
}

static void
check_headers(Jsonb *payload)
{
	Jsonb	   *headers = jq_json_member(payload, "headers");

	if (headers == NULL)
		return;
	jq_headers_check(headers, "headers");
	jq_http_template_check_jsonb(headers, JQ_PLACEHOLDER_SECRET, "headers");
}

static void
check_body(Jsonb *payload, const char *endpoint)
{
	char	   *type = jq_json_text(payload, "body_type");
	char	   *method = jq_json_text(payload, "method");
	Jsonb	   *body = jq_json_member(payload, "body");
	JqBodyType	body_type = JQ_BODY_JSON;
	const char *flaw;

	if (method == NULL)
		method = endpoint != NULL ? jq_endpoint(endpoint)->method : "POST";
	if (body != NULL &&
		(strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a request with method %s has no body", method)));
	if (type != NULL)
		body_type = jq_body_type(type, "body_type");
	else if (endpoint != NULL)
		body_type = jq_endpoint(endpoint)->body_type;
	if (body == NULL || body_type == JQ_BODY_JSON)
		return;
	flaw = body_flaw(body, body_type);
	if (flaw != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("body does not fit its type"),
				 errdetail("%s", flaw)));
}

/* Found by writing it as it will be sent. */
static const char *
body_flaw(Jsonb *body, JqBodyType type)
{
	StringInfoData out;

	if (type == JQ_BODY_FORM ? !jq_json_is_object(body) :
		!jq_json_is_string(body))
		return "A form must be an object, a text or binary body a string.";
	initStringInfo(&out);
	if (type == JQ_BODY_FORM)
		return jq_form_encode(&out, body);
	if (type == JQ_BODY_BINARY)
		return jq_base64_decode(&out, jq_json_root_text(body));
	return NULL;
}
