/*-------------------------------------------------------------------------
 *
 * response.c
 *	  What is kept of an HTTP response.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "http/response.h"

#include "base/json.h"
#include "common/base64.h"
#include "common/jsonapi.h"
#include "http/form.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

#define MAX_HEADERS 100			/* that are kept */
#define MAX_JSON_DEPTH 1000
#define MIN_BEGINNING 4			/* of a secret, at the end of a cut body */

/* One line of the headers; the parts lead into the response. */
typedef struct Header
{
	const char *name;
	int			name_length;
	const char *value;
	int			value_length;
} Header;

static const char *path_of_url(const char *secret);
static void strike_forms(JqHttpResponse *response, const char *secret);
static void strike_both(JqHttpResponse *response, const char *secret);
static void strike_end(char *data, Size size, const char *secret);
static void strike(char *data, Size size, const char *secret);
static bool next_header(const JqHttpResponse *response, Size *offset,
						Header *header);
static char *own_text(const char *data, Size size);
static char *header_text(const char *data, int length);
static void put_headers(JsonbParseState **state,
						const JqHttpResponse *response);
static void put_body(JsonbParseState **state, const JqHttpResponse *response);
static void put_timings(JsonbParseState **state,
						const JqHttpResponse *response);
static bool is_media_type(const char *content_type, const char *type);
static bool is_json_type(const char *content_type);
static bool is_shallow(const char *string);

void
jq_http_response_strike_out(JqHttpResponse *response,
							const char *const *secrets, int count)
{
	for (int i = 0; i < count; i++)
	{
		const char *path = path_of_url(secrets[i]);

		strike_forms(response, secrets[i]);
		if (path != NULL)
			strike_forms(response, path);
	}
}

/* A secret may be all of a URL, of which a server sees only the end. */
static const char *
path_of_url(const char *secret)
{
	const char *host = strstr(secret, "://");
	const char *path = host == NULL ? NULL : strpbrk(host + 3, "/?");

	return path == NULL || path[1] == '\0' ? NULL : path;
}

/* The ways in which a server might write it. */
static void
strike_forms(JqHttpResponse *response, const char *secret)
{
	StringInfoData percent;
	StringInfoData json;
	StringInfoData slashes;

	initStringInfo(&percent);
	jq_percent_encode(&percent, secret, strlen(secret));
	initStringInfo(&json);
	escape_json(&json, secret);
	json.data[--json.len] = '\0';	/* the quote at its end */
	initStringInfo(&slashes);
	for (const char *c = json.data + 1; *c != '\0'; c++)
		appendStringInfo(&slashes, *c == '/' ? "\\%c" : "%c", *c);

	strike_both(response, secret);
	strike_both(response, percent.data);
	strike_both(response, json.data + 1);
	strike_both(response, slashes.data);
	explicit_bzero(percent.data, percent.len);
	explicit_bzero(json.data, json.len);
	explicit_bzero(slashes.data, slashes.len);
}

static void
strike_both(JqHttpResponse *response, const char *secret)
{
	strike(unconstify(char *, response->headers), response->headers_size, secret);
	strike(unconstify(char *, response->body), response->body_size, secret);
	if (response->is_truncated)
		strike_end(unconstify(char *, response->body), response->body_size, secret);
}

/* Whoever knows where a body is cut could ask for all but the last byte. */
static void
strike_end(char *data, Size size, const char *secret)
{
	Size		length = Min(strlen(secret), size);

	for (; length >= MIN_BEGINNING; length--)
		if (memcmp(data + size - length, secret, length) == 0)
		{
			memset(data + size - length, '*', length);
			return;
		}
}

static void
strike(char *data, Size size, const char *secret)
{
	Size		length = strlen(secret);
	char	   *found;

	while (length > 0 && size >= length &&
		   (found = memmem(data, size, secret, length)) != NULL)
	{
		memset(found, '*', length);
		size -= found + length - data;
		data = found + length;
	}
}

/* Continuation lines are left out: nobody may send them any more. */
static bool
next_header(const JqHttpResponse *response, Size *offset, Header *header)
{
	while (*offset < response->headers_size)
	{
		const char *line = response->headers + *offset;
		Size		left = response->headers_size - *offset;
		const char *end = memchr(line, '\n', left);
		Size		length = end == NULL ? left : (Size) (end - line);
		const char *colon = memchr(line, ':', length);

		*offset += length + 1;
		if (colon == NULL || colon == line || *line == ' ' || *line == '\t')
			continue;
		header->name = line;
		header->name_length = colon - line;
		header->value = colon + 1;
		header->value_length = line + length - header->value;
		while (header->value_length > 0 && strchr(" \t", *header->value) != NULL)
		{
			header->value++;
			header->value_length--;
		}
		while (header->value_length > 0 &&
			   strchr(" \t\r", header->value[header->value_length - 1]) != NULL)
			header->value_length--;
		return true;
	}
	return false;
}

char *
jq_http_response_header(const JqHttpResponse *response, const char *name)
{
	Size		offset = 0;
	Header		header;

	while (next_header(response, &offset, &header))
		if (header.name_length == (int) strlen(name) &&
			pg_strncasecmp(header.name, name, header.name_length) == 0)
			return header_text(header.value, header.value_length);
	return NULL;
}

/* UTF-8 as text of the database; NULL when it is none. */
static char *
own_text(const char *data, Size size)
{
	if (size > 0 && !pg_verify_mbstr(PG_UTF8, data, size, true))
		return NULL;
	if (GetDatabaseEncoding() != PG_UTF8)
		for (Size i = 0; i < size; i++)
			if (IS_HIGHBIT_SET(data[i]))
				return NULL;	/* it may have no such character */
	return size == 0 ? pstrdup("") : pnstrdup(data, size);
}

/* What is no text in a header is shown as question marks. */
static char *
header_text(const char *data, int length)
{
	char	   *string = own_text(data, length);

	if (string != NULL)
		return string;
	string = palloc(length + 1);
	for (int i = 0; i < length; i++)
		string[i] = IS_HIGHBIT_SET(data[i]) || data[i] == '\0' ? '?' : data[i];
	string[length] = '\0';
	return string;
}

Jsonb *
jq_http_response_json(const JqHttpResponse *response, int redirects,
					  bool with_body)
{
	JsonbParseState *state = NULL;

	jq_json_begin(&state);
	if (response->status != 0)
	{
		jq_json_put_integer(&state, "status", response->status);
		put_headers(&state, response);
		if (with_body)
			put_body(&state, response);
		jq_json_put_integer(&state, "bytes", response->body_size);
		jq_json_put_bool(&state, "reused", response->is_reused);
	}
	if (response->is_truncated)
		jq_json_put_bool(&state, "truncated", true);
	if (response->version != 0)
		jq_json_put_text(&state, "http_version",
						 response->version == 10 ? "1.0" :
						 response->version == 11 ? "1.1" :
						 response->version == 20 ? "2" : "3");
	if (response->address[0] != '\0')
		jq_json_put_text(&state, "address",
						 psprintf(strchr(response->address, ':') ? "[%s]:%d" : "%s:%d",
								  response->address, response->port));
	if (redirects > 0)
		jq_json_put_integer(&state, "redirects", redirects);
	put_timings(&state, response);
	return jq_json_end(&state);
}

/* Names in lower case; the values of one that comes twice stand together. */
static void
put_headers(JsonbParseState **state, const JqHttpResponse *response)
{
	char	   *names[MAX_HEADERS];
	StringInfoData values[MAX_HEADERS];
	Size		offset = 0;
	Header		header;
	int			count = 0;

	while (next_header(response, &offset, &header))
	{
		char	   *name = header_text(header.name, header.name_length);
		char	   *value;
		int			place = 0;

		for (char *c = name; *c != '\0'; c++)
			*c = pg_ascii_tolower((unsigned char) *c);
		while (place < count && strcmp(names[place], name) != 0)
			place++;
		if (place == MAX_HEADERS)
			continue;
		value = header_text(header.value, header.value_length);
		if (place < count)
			appendStringInfoString(&values[place], ", ");
		else
		{
			names[count] = name;
			initStringInfo(&values[count++]);
		}
		appendStringInfoString(&values[place], value);
	}
	jq_json_put_key(state, "headers");
	jq_json_begin(state);
	for (int i = 0; i < count; i++)
		jq_json_put_text(state, names[i], values[i].data);
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static void
put_body(JsonbParseState **state, const JqHttpResponse *response)
{
	Size		size = response->body_size;
	char	   *string;
	int			length;

	if (size == 0)
		return;
	/* A text may have been cut inside of a character. */
	if (response->is_truncated)
		size = pg_encoding_mbcliplen(PG_UTF8, response->body, size, size);
	string = own_text(response->body, size);
	if (string != NULL && strlen(string) == size)
	{
		jq_json_put_text_len(state, "body", string, size);
		return;
	}
	length = pg_b64_enc_len(response->body_size);
	string = palloc(length + 1);
	length = pg_b64_encode((const void *) response->body, response->body_size, string, length);
	jq_json_put_text_len(state, "body_base64", string, length);
}

static void
put_timings(JsonbParseState **state, const JqHttpResponse *response)
{
	jq_json_put_key(state, "timings");
	jq_json_begin(state);
	if (response->dns_us > 0)
		jq_json_put_ms(state, "dns_ms", response->dns_us);
	if (response->connect_us > 0)
		jq_json_put_ms(state, "connect_ms", response->connect_us);
	if (response->tls_us > 0)
		jq_json_put_ms(state, "tls_ms", response->tls_us);
	if (response->first_byte_us > 0)
		jq_json_put_ms(state, "first_byte_ms", response->first_byte_us);
	jq_json_put_ms(state, "total_ms", response->total_us);
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/* ---- bodies ---- */

static bool
is_media_type(const char *content_type, const char *type)
{
	return pg_strncasecmp(content_type, type, strlen(type)) == 0;
}

/* application/json, and what ends in +json */
static bool
is_json_type(const char *content_type)
{
	int			length = strcspn(content_type, "; \t");

	return (length == 16 && is_media_type(content_type, "application/json")) ||
		(length > 5 && pg_strncasecmp(content_type + length - 5, "+json", 5) == 0);
}

char *
jq_http_response_text(const JqHttpResponse *response)
{
	char	   *type = jq_http_response_header(response, "Content-Type");
	char	   *string;

	if (response->is_truncated || response->body_size == 0 || type == NULL ||
		!(is_json_type(type) || is_media_type(type, "text/")))
		return NULL;
	string = own_text(response->body, response->body_size);
	return string != NULL && strlen(string) == response->body_size ? string : NULL;
}

/*
 * jsonb is not asked before the text is known to be JSON, and not too deep:
 * its errors quote what they do not like.
 */
Jsonb *
jq_http_response_value(const JqHttpResponse *response)
{
	char	   *type = jq_http_response_header(response, "Content-Type");
	char	   *string;

	if (type == NULL || !is_json_type(type))
		return NULL;
	string = jq_http_response_text(response);
	if (string == NULL || !is_shallow(string))
		return NULL;
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(string)));
}

static bool
is_shallow(const char *string)
{
	bool		is_in_string = false;
	int			depth = 0;

	for (; *string != '\0'; string++)
	{
		if (is_in_string && *string == '\\' && string[1] != '\0')
			string++;
		else if (*string == '"')
			is_in_string = !is_in_string;
		else if (!is_in_string && (*string == '[' || *string == '{') &&
				 ++depth > MAX_JSON_DEPTH)
			return false;
		else if (!is_in_string && (*string == ']' || *string == '}'))
			depth--;
	}
	return true;
}
