/*-------------------------------------------------------------------------
 *
 * template.c
 *	  Placeholders of requests: in URLs, headers and bodies of endpoints.
 *
 *	  Templates are checked when an endpoint is written: filling them in takes
 *	  what it does not know for text.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "http/template.h"

#include "fmgr.h"
#include "http/form.h"
#include "http/url.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/jsonfuncs.h"

#define OPENING "{{"
#define CLOSING "}}"

/* longest name of a placeholder that messages quote, in bytes */
#define QUOTED_LENGTH 64

#define ALL_KINDS \
	(JQ_PLACEHOLDER_PAYLOAD | JQ_PLACEHOLDER_JOB | \
	 JQ_PLACEHOLDER_SECRET | JQ_PLACEHOLDER_ITEMS)

/* What stands between braces. */
typedef struct Placeholder
{
	int			kind;			/* one bit; 0: it is none */
	const char *start;			/* the opening braces */
	const char *end;			/* behind the closing ones */
	char	   *name;			/* path, field or secret; NULL: none */
} Placeholder;

/* What a walk over the strings of a document takes along. */
typedef struct Walk
{
	int			kinds;
	const char *argument;
	bool		found;
} Walk;

static bool next_placeholder(const char *string, Placeholder *placeholder);
static int	kind_of(char *name, char **rest);
static bool is_path(const char *path);
static bool is_field(const char *name);
static bool is_alone(const char *string, const Placeholder *placeholder);
static void check_string(void *state, char *value, int len);
static void look_into_string(void *state, char *value, int len);
static const char *authority_end(const char *url);
static char *replace_placeholders(const char *url);
static bool has_dot_segment(const char *url);
static size_t dot_length(const char *string);
static char *text_of(const Placeholder *placeholder,
					 const JqTemplateValues *values, const char **reason);
static bool fill_value(JsonbValue *value, const JqTemplateValues *values,
					   const char **reason);
static bool value_of(const Placeholder *placeholder,
					 const JqTemplateValues *values, JsonbValue *value,
					 const char **reason);
static Datum payload_element(const Placeholder *placeholder,
							 const JqTemplateValues *values, bool as_text);
static const JqTemplateField *field_of(const Placeholder *placeholder,
									   const JqTemplateValues *values);
static const char *secret_of(const Placeholder *placeholder,
							 const JqTemplateValues *values,
							 const char **reason);
static void set_string(JsonbValue *value, const char *string);
static void set_jsonb(JsonbValue *value, Jsonb *document);

void
jq_http_template_check(const char *string, int allowed_kinds,
					   const char *argument)
{
	Placeholder placeholder;

	for (; next_placeholder(string, &placeholder); string = placeholder.end)
	{
		const char *start = placeholder.start;
		int			len = pg_mbcliplen(start, (int) (placeholder.end - start),
									   QUOTED_LENGTH);

		/* Without an end, it could be anything. */
		if (*placeholder.end == '\0' && placeholder.end[-1] != '}')
			len = (int) strlen(OPENING);

		if (placeholder.kind == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown placeholder \"%.*s\" in %s", len, start,
							argument),
					 errhint("Placeholders are {{payload}}, {{payload.key}}, {{job.id}} and other fields of the job, {{secret.name}} and {{items}}.")));
		if ((placeholder.kind & allowed_kinds) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("placeholder \"%.*s\" cannot be used in %s", len,
							start, argument)));
	}
}

void
jq_http_template_check_jsonb(Jsonb *document, int allowed_kinds,
							 const char *argument)
{
	Walk		walk = {.kinds = allowed_kinds,.argument = argument};

	iterate_jsonb_values(document, jtiString, &walk, check_string);
}

void
jq_http_template_check_url(const char *url, const char *argument)
{
	Placeholder placeholder;
	const char *flaw = NULL;

	jq_http_template_check(url, ALL_KINDS & ~JQ_PLACEHOLDER_ITEMS, argument);
	if (next_placeholder(url, &placeholder))
	{
		if (placeholder.kind == JQ_PLACEHOLDER_SECRET &&
			is_alone(url, &placeholder))
			return;
		if (placeholder.start < authority_end(url))
			flaw = "Placeholders must stand in the path or the query, or the whole URL must be one {{secret.name}}.";
	}
	if (flaw == NULL)
		flaw = jq_url_parse(replace_placeholders(url), NULL);
	if (flaw == NULL && has_dot_segment(url))
		flaw = "The path must not have \".\" or \"..\" between its slashes.";
	if (flaw != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid URL in %s", argument),
				 errdetail("%s", flaw)));
}

bool
jq_http_template_has(const char *string, int kinds)
{
	Placeholder placeholder;

	for (; next_placeholder(string, &placeholder); string = placeholder.end)
		if ((placeholder.kind & kinds) != 0)
			return true;
	return false;
}

bool
jq_http_template_has_jsonb(Jsonb *document, int kinds)
{
	Walk		walk = {.kinds = kinds};

	iterate_jsonb_values(document, jtiString, &walk, look_into_string);
	return walk.found;
}

char *
jq_http_template_fill(const char *string, const JqTemplateValues *values,
					  JqTemplateEscape escape, const char **reason)
{
	bool		is_url = escape == JQ_ESCAPE_URL;
	StringInfoData out;
	Placeholder placeholder;

	*reason = NULL;
	if (is_url && next_placeholder(string, &placeholder) &&
		placeholder.kind == JQ_PLACEHOLDER_SECRET &&
		is_alone(string, &placeholder))
		return text_of(&placeholder, values, reason);

	initStringInfo(&out);
	while (next_placeholder(string, &placeholder))
	{
		char	   *value;

		if (placeholder.kind == 0)
		{
			appendBinaryStringInfo(&out, string, (int) (placeholder.end - string));
			string = placeholder.end;

			continue;
		}
		appendBinaryStringInfo(&out, string, (int) (placeholder.start - string));
		value = text_of(&placeholder, values, reason);
		if (value == NULL)
			return NULL;
		if (is_url)
			jq_percent_encode(&out, value, strlen(value));
		else
			appendStringInfoString(&out, value);
		string = placeholder.end;
	}
	appendStringInfoString(&out, string);
	if (is_url && has_dot_segment(out.data))
	{
		*reason = "A value makes \".\" or \"..\" stand between two slashes of the path.";
		return NULL;
	}
	return out.data;
}

Jsonb *
jq_http_template_fill_jsonb(Jsonb *document, const JqTemplateValues *values,
							const char **reason)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbParseState *state = NULL;
	JsonbValue	value;
	JsonbValue *result = NULL;

	*reason = NULL;
	if (JB_ROOT_IS_SCALAR(document))
	{
		JsonbExtractScalar(&document->root, &value);
		return fill_value(&value, values, reason) ?
			JsonbValueToJsonb(&value) : NULL;
	}
	iterator = JsonbIteratorInit(&document->root);
	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		if ((token == WJB_VALUE || token == WJB_ELEM) &&
			!fill_value(&value, values, reason))
			return NULL;
		result = pushJsonbValue(&state, token,
								token == WJB_KEY || token == WJB_VALUE ||
								token == WJB_ELEM ? &value : NULL);
	}
	return JsonbValueToJsonb(result);
}

/* The next thing in braces, placeholder or not; false when there is none. */
static bool
next_placeholder(const char *string, Placeholder *placeholder)
{
	const char *start = strstr(string, OPENING);
	const char *close;

	if (start == NULL)
		return false;
	memset(placeholder, 0, sizeof(*placeholder));
	placeholder->start = start;
	start += strlen(OPENING);
	close = strstr(start, CLOSING);
	if (close == NULL)
		placeholder->end = start + strlen(start);
	else
	{
		placeholder->end = close + strlen(CLOSING);
		placeholder->kind = kind_of(pnstrdup(start, close - start),
									&placeholder->name);
	}
	return true;
}

/* The kind of a placeholder, or 0, and what stands behind its first dot. */
static int
kind_of(char *name, char **rest)
{
	char	   *dot = strchr(name, '.');

	*rest = dot == NULL ? NULL : dot + 1;
	if (strpbrk(name, "{}") != NULL)
		return 0;
	if (strcmp(name, "payload") == 0)
		return JQ_PLACEHOLDER_PAYLOAD;
	if (strcmp(name, "items") == 0)
		return JQ_PLACEHOLDER_ITEMS;
	if (strncmp(name, "payload.", 8) == 0 && is_path(*rest))
		return JQ_PLACEHOLDER_PAYLOAD;
	if (strncmp(name, "job.", 4) == 0 && is_field(*rest))
		return JQ_PLACEHOLDER_JOB;
	if (strncmp(name, "secret.", 7) == 0 && **rest != '\0')
		return JQ_PLACEHOLDER_SECRET;
	return 0;
}

/* Whether there is something on both sides of every dot. */
static bool
is_path(const char *path)
{
	size_t		len = strlen(path);

	return len > 0 && path[0] != '.' && path[len - 1] != '.' &&
		strstr(path, "..") == NULL;
}

static bool
is_field(const char *name)
{
	static const char *const fields[] = {JQ_TEMPLATE_FIELDS};

	for (size_t i = 0; i < lengthof(fields); i++)
		if (strcmp(fields[i], name) == 0)
			return true;
	return false;
}

static bool
is_alone(const char *string, const Placeholder *placeholder)
{
	return placeholder->start == string && *placeholder->end == '\0';
}

static void
check_string(void *state, char *value, int len)
{
	const Walk *walk = (const Walk *) state;

	jq_http_template_check(pnstrdup(value, len), walk->kinds, walk->argument);
}

static void
look_into_string(void *state, char *value, int len)
{
	Walk	   *walk = (Walk *) state;

	if (!walk->found)
		walk->found = jq_http_template_has(pnstrdup(value, len), walk->kinds);
}

/* Where the path or the query of a URL begins, or would begin. */
static const char *
authority_end(const char *url)
{
	const char *slashes = strstr(url, "://");
	const char *start = slashes == NULL ? url + strlen(url) : slashes + 3;

	return start + strcspn(start, "/?");
}

/* The URL with a letter for each placeholder. */
static char *
replace_placeholders(const char *url)
{
	StringInfoData out;
	Placeholder placeholder;

	initStringInfo(&out);
	for (; next_placeholder(url, &placeholder); url = placeholder.end)
	{
		appendBinaryStringInfo(&out, url, (int) (placeholder.start - url));
		appendStringInfoChar(&out, 'x');
	}
	appendStringInfoString(&out, url);
	return out.data;
}

/* Whether a segment of the path is one that clients and servers take away. */
static bool
has_dot_segment(const char *url)
{
	const char *segment = authority_end(url);

	while (*segment == '/')
	{
		size_t		first = dot_length(++segment);
		size_t		second = first == 0 ? 0 : dot_length(segment + first);
		size_t		len = strcspn(segment, "/?");

		if (first > 0 && len == first + second)
			return true;
		segment += len;
	}
	return false;
}

/* The length of a dot, in one of its forms; 0 when there is none. */
static size_t
dot_length(const char *string)
{
	if (*string == '.')
		return 1;
	return pg_strncasecmp(string, "%2e", 3) == 0 ? 3 : 0;
}

/* What a placeholder is in a text; NULL and the reason when it cannot be. */
static char *
text_of(const Placeholder *placeholder, const JqTemplateValues *values,
		const char **reason)
{
	const JqTemplateField *field;
	const char *secret;
	Datum		element;

	switch (placeholder->kind)
	{
		case JQ_PLACEHOLDER_PAYLOAD:
			element = payload_element(placeholder, values, true);
			return element == (Datum) 0 ? pstrdup("") :
				TextDatumGetCString(element);
		case JQ_PLACEHOLDER_JOB:
			field = field_of(placeholder, values);
			return pstrdup(field == NULL || field->value == NULL ? "" :
						   field->value);
		case JQ_PLACEHOLDER_SECRET:
			secret = secret_of(placeholder, values, reason);
			return secret == NULL ? NULL : pstrdup(secret);
		case JQ_PLACEHOLDER_ITEMS:
			return values->items == NULL ? pstrdup("") :
				JsonbToCString(NULL, &values->items->root,
							   VARSIZE(values->items));
		default:
			elog(ERROR, "unexpected kind of placeholder: %d",
				 placeholder->kind);
	}
}

/* Fills in a value of a document, if it is a string with placeholders. */
static bool
fill_value(JsonbValue *value, const JqTemplateValues *values,
		   const char **reason)
{
	Placeholder placeholder;
	char	   *string;

	if (value->type != jbvString)
		return true;
	string = pnstrdup(value->val.string.val, value->val.string.len);

	if (!next_placeholder(string, &placeholder))
		return true;
	if (placeholder.kind != 0 && is_alone(string, &placeholder))
		return value_of(&placeholder, values, value, reason);
	string = jq_http_template_fill(string, values, JQ_ESCAPE_NONE, reason);

	if (string != NULL)
		set_string(value, string);
	return string != NULL;
}

/* What a placeholder is in JSON; false and the reason when it cannot be. */
static bool
value_of(const Placeholder *placeholder, const JqTemplateValues *values,
		 JsonbValue *value, const char **reason)
{
	const JqTemplateField *field;
	const char *secret;
	Datum		element;

	value->type = jbvNull;
	switch (placeholder->kind)
	{
		case JQ_PLACEHOLDER_PAYLOAD:
			element = payload_element(placeholder, values, false);
			if (element != (Datum) 0)
				set_jsonb(value, DatumGetJsonbP(element));
			return true;
		case JQ_PLACEHOLDER_JOB:
			field = field_of(placeholder, values);
			if (field == NULL || field->value == NULL)
				return true;
			if (!field->is_number)
			{
				set_string(value, field->value);
				return true;
			}
			value->type = jbvNumeric;
			value->val.numeric =
				DatumGetNumeric(DirectFunctionCall3(numeric_in,
													CStringGetDatum(field->value),
													ObjectIdGetDatum(InvalidOid),
													Int32GetDatum(-1)));
			return true;
		case JQ_PLACEHOLDER_SECRET:
			secret = secret_of(placeholder, values, reason);
			if (secret != NULL)
				set_string(value, pstrdup(secret));
			return secret != NULL;
		case JQ_PLACEHOLDER_ITEMS:
			if (values->items != NULL)
				set_jsonb(value, values->items);
			return true;
		default:
			elog(ERROR, "unexpected kind of placeholder: %d",
				 placeholder->kind);
	}
}

/* The payload or what is at a path inside of it; 0 for nothing, also null. */
static Datum
payload_element(const Placeholder *placeholder,
				const JqTemplateValues *values, bool as_text)
{
	const char *key = placeholder->name;
	Datum	   *path;
	int			depth = 0;
	bool		isnull;
	Datum		element;

	if (values->payload == NULL)
		return (Datum) 0;
	path = palloc(sizeof(Datum) * (key == NULL ? 1 : strlen(key)));
	while (key != NULL)
	{
		size_t		len = strcspn(key, ".");

		path[depth++] = PointerGetDatum(cstring_to_text_with_len(key, (int) len));
		key = key[len] == '.' ? key + len + 1 : NULL;
	}
	element = jsonb_get_element(values->payload, path, depth, &isnull, as_text);
	return isnull ? (Datum) 0 : element;
}

static const JqTemplateField *
field_of(const Placeholder *placeholder, const JqTemplateValues *values)
{
	for (int i = 0; i < values->nfields; i++)
		if (strcmp(values->fields[i].name, placeholder->name) == 0)
			return &values->fields[i];
	return NULL;
}

static const char *
secret_of(const Placeholder *placeholder, const JqTemplateValues *values,
		  const char **reason)
{
	const char *secret = NULL;

	if (values->find_secret != NULL)
		secret = values->find_secret(placeholder->name, values->secret_state);
	if (secret == NULL)
		*reason = psprintf("There is no secret \"%s\".", placeholder->name);
	return secret;
}

static void
set_string(JsonbValue *value, const char *string)
{
	value->type = jbvString;
	value->val.string.val = unconstify(char *, string);
	value->val.string.len = (int) strlen(string);
}

static void
set_jsonb(JsonbValue *value, Jsonb *document)
{
	if (JB_ROOT_IS_SCALAR(document))
	{
		JsonbExtractScalar(&document->root, value);
		return;
	}
	value->type = jbvBinary;
	value->val.binary.data = &document->root;
	value->val.binary.len = (int) VARSIZE(document) - VARHDRSZ;
}
