/*
 * units.c
 *	  SQL functions that call what HTTP requests are made with, one for one, for
 *	  test/t/100_http_units.pl, which builds them against the loaded library.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "base/allow_list.h"
#include "fmgr.h"
#include "http/form.h"
#include "http/header.h"
#include "http/retry_after.h"
#include "http/signature.h"
#include "http/template.h"
#include "http/url.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(address_is_allowed);
PG_FUNCTION_INFO_V1(address_list_flaw);
PG_FUNCTION_INFO_V1(host_list_has);
PG_FUNCTION_INFO_V1(port_list_has);
PG_FUNCTION_INFO_V1(url_parts);
PG_FUNCTION_INFO_V1(header_flaw);
PG_FUNCTION_INFO_V1(headers_check);
PG_FUNCTION_INFO_V1(method_check);
PG_FUNCTION_INFO_V1(sign);
PG_FUNCTION_INFO_V1(secret_flaw);
PG_FUNCTION_INFO_V1(template_check);
PG_FUNCTION_INFO_V1(template_check_jsonb);
PG_FUNCTION_INFO_V1(template_check_url);
PG_FUNCTION_INFO_V1(template_has);
PG_FUNCTION_INFO_V1(template_fill);
PG_FUNCTION_INFO_V1(template_fill_jsonb);
PG_FUNCTION_INFO_V1(retry_after);
PG_FUNCTION_INFO_V1(percent_encode);
PG_FUNCTION_INFO_V1(form_encode);
PG_FUNCTION_INFO_V1(base64_decode);

#define STRING(n) text_to_cstring(PG_GETARG_TEXT_PP(n))

static Datum
text_or_null(FunctionCallInfo fcinfo, const char *string)
{
	if (string == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(string));
}

/* (list, address): "unix" is an address of another family */
Datum
address_is_allowed(PG_FUNCTION_ARGS)
{
	JqAddressList *list = jq_address_list_compile(STRING(0));
	char	   *address = STRING(1);
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	struct sockaddr other = {.sa_family = AF_UNIX};

	if (inet_pton(AF_INET, address, &v4.sin_addr) == 1)
		PG_RETURN_BOOL(jq_address_is_allowed(list, (struct sockaddr *) &v4));
	if (inet_pton(AF_INET6, address, &v6.sin6_addr) == 1)
		PG_RETURN_BOOL(jq_address_is_allowed(list, (struct sockaddr *) &v6));
	Assert(strcmp(address, "unix") == 0);
	PG_RETURN_BOOL(jq_address_is_allowed(list, &other));
}

Datum
address_list_flaw(PG_FUNCTION_ARGS)
{
	return text_or_null(fcinfo, jq_address_list_flaw(STRING(0)));
}

Datum
host_list_has(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(jq_host_list_has(STRING(0), STRING(1)));
}

Datum
port_list_has(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(jq_port_list_has(STRING(0), PG_GETARG_INT32(1)));
}

Datum
url_parts(PG_FUNCTION_ARGS)
{
	JqUrl		parts;
	const char *flaw = jq_url_parse(STRING(0), &parts);

	if (flaw != NULL)
		return text_or_null(fcinfo, flaw);
	return text_or_null(fcinfo, psprintf("%s %s %d %s%s", parts.scheme,
										 parts.host, parts.port, parts.origin,
										 parts.is_literal_address ? " address" : ""));
}

Datum
header_flaw(PG_FUNCTION_ARGS)
{
	return text_or_null(fcinfo, jq_header_flaw(STRING(0), STRING(1), NULL));
}

Datum
headers_check(PG_FUNCTION_ARGS)
{
	jq_headers_check(PG_GETARG_JSONB_P(0), "headers");
	PG_RETURN_VOID();
}

Datum
method_check(PG_FUNCTION_ARGS)
{
	jq_method_check(STRING(0), "method");
	PG_RETURN_VOID();
}

/* (secret, previous or '', id, timestamp, body) */
Datum
sign(PG_FUNCTION_ARGS)
{
	char		value[JQ_SIGNATURE_SIZE];
	char	   *previous = STRING(1);
	char		again[JQ_SIGNATURE_SIZE];
	bytea	   *body = PG_GETARG_BYTEA_PP(4);
	ResourceOwner owner = CurrentResourceOwner;
	const char *flaw = jq_signature_write(value, STRING(0),
										  *previous == '\0' ? NULL : previous,
										  STRING(2), PG_GETARG_INT64(3),
										  VARDATA_ANY(body),
										  VARSIZE_ANY_EXHDR(body));

	/* As outside a transaction. */
	CurrentResourceOwner = NULL;
	jq_signature_write(again, STRING(0), *previous == '\0' ? NULL : previous,
					   STRING(2), PG_GETARG_INT64(3),
					   VARDATA_ANY(body), VARSIZE_ANY_EXHDR(body));
	CurrentResourceOwner = owner;
	if (strcmp(value, again) != 0)
		elog(ERROR, "outside a transaction, the signature is another");

	return text_or_null(fcinfo, flaw != NULL ? flaw : value);
}

Datum
secret_flaw(PG_FUNCTION_ARGS)
{
	return text_or_null(fcinfo, jq_signature_secret_flaw(STRING(0)));
}

Datum
template_check(PG_FUNCTION_ARGS)
{
	jq_http_template_check(STRING(0), PG_GETARG_INT32(1), "template");
	PG_RETURN_VOID();
}

Datum
template_check_jsonb(PG_FUNCTION_ARGS)
{
	jq_http_template_check_jsonb(PG_GETARG_JSONB_P(0), PG_GETARG_INT32(1),
								 "template");
	PG_RETURN_VOID();
}

Datum
template_check_url(PG_FUNCTION_ARGS)
{
	jq_http_template_check_url(STRING(0), "url");
	PG_RETURN_VOID();
}

Datum
template_has(PG_FUNCTION_ARGS)
{
	bool		has = jq_http_template_has_jsonb(PG_GETARG_JSONB_P(0),
												 PG_GETARG_INT32(1));

	PG_RETURN_BOOL(has);
}

static const char *
find_secret(const char *name, void *state)
{
	Assert(strcmp((char *) state, "state") == 0);
	if (strcmp(name, "token") == 0)
		return "s3cr3t";
	if (strcmp(name, "slash") == 0)
		return "a/b c";
	if (strcmp(name, "url") == 0)
		return "https://hooks.example.com/x?y";
	if (strcmp(name, "template") == 0)
		return "{{payload}}";
	return NULL;
}

static const JqTemplateField fields[] = {
	{"id", "42", true},
	{"type", "mail \"x\"", false},
	{"group_key", NULL, false},
};

/* (payload, items) from this argument on; nulls are not given */
static JqTemplateValues
values(FunctionCallInfo fcinfo, int n)
{
	JqTemplateValues result = {
		.payload = PG_ARGISNULL(n) ? NULL : PG_GETARG_JSONB_P(n),
		.fields = fields,
		.nfields = lengthof(fields),
		.items = PG_ARGISNULL(n + 1) ? NULL : PG_GETARG_JSONB_P(n + 1),
		.find_secret = find_secret,
		.secret_state = "state",
	};

	return result;
}

/* (template, is_url, payload, items) */
Datum
template_fill(PG_FUNCTION_ARGS)
{
	JqTemplateValues given = values(fcinfo, 2);
	const char *reason;
	char	   *filled = jq_http_template_fill(STRING(0), &given,
											   PG_GETARG_BOOL(1) ? JQ_ESCAPE_URL : JQ_ESCAPE_NONE,
											   &reason);

	Assert((filled == NULL) == (reason != NULL));
	return text_or_null(fcinfo, filled == NULL ? reason : filled);
}

/* (template, payload, items) */
Datum
template_fill_jsonb(PG_FUNCTION_ARGS)
{
	JqTemplateValues given = values(fcinfo, 1);
	const char *reason;
	Jsonb	   *filled = jq_http_template_fill_jsonb(PG_GETARG_JSONB_P(0),
													 &given, &reason);

	Assert((filled == NULL) == (reason != NULL));
	return text_or_null(fcinfo, filled == NULL ? reason :
						JsonbToCString(NULL, &filled->root, VARSIZE(filled)));
}

Datum
retry_after(PG_FUNCTION_ARGS)
{
	TimestampTz at;

	if (!jq_retry_after_parse(STRING(0), PG_GETARG_TIMESTAMPTZ(1), &at))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(at);
}

Datum
percent_encode(PG_FUNCTION_ARGS)
{
	text	   *string = PG_GETARG_TEXT_PP(0);
	StringInfoData out;

	initStringInfo(&out);
	jq_percent_encode(&out, VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string));
	return text_or_null(fcinfo, out.data);
}

Datum
form_encode(PG_FUNCTION_ARGS)
{
	StringInfoData out;
	const char *flaw;

	initStringInfo(&out);
	flaw = jq_form_encode(&out, PG_GETARG_JSONB_P(0));
	return text_or_null(fcinfo, flaw != NULL ? flaw : out.data);
}

/* hexadecimal */
Datum
base64_decode(PG_FUNCTION_ARGS)
{
	StringInfoData in;
	StringInfoData out;
	const char *flaw;

	initStringInfo(&in);
	initStringInfo(&out);
	flaw = jq_base64_decode(&in, STRING(0));
	if (flaw != NULL)
		return text_or_null(fcinfo, flaw);
	for (int i = 0; i < in.len; i++)
		appendStringInfo(&out, "%02x", (unsigned char) in.data[i]);
	return text_or_null(fcinfo, out.data);
}
