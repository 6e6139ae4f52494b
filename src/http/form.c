/*-------------------------------------------------------------------------
 *
 * form.c
 *	  Encodings of request bodies that are not JSON.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "http/form.h"

#include "common/base64.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

/* longest name of a field that reasons quote, in bytes */
#define QUOTED_LENGTH 64

static const char *encode_field(StringInfo out, const char *name,
								const JsonbValue *value, bool in_array);
static const char *encode_array(StringInfo out, const char *name,
								JsonbContainer *array);
static void encode_text(StringInfo out, const char *string, size_t len);

void
jq_percent_encode(StringInfo out, const char *string, size_t len)
{
	static const char digits[] = "0123456789ABCDEF";
	char	   *utf8 = unconstify(char *, string);

	if (GetDatabaseEncoding() != PG_SQL_ASCII)
		utf8 = pg_server_to_any(string, (int) len, PG_UTF8);
	if (utf8 != string)
		len = strlen(utf8);
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) utf8[i];

		if (c < 0x80 && (isalnum(c) || (c != '\0' && strchr("-._~", c) != NULL)))
			appendStringInfoChar(out, (char) c);
		else
		{
			appendStringInfoChar(out, '%');
			appendStringInfoChar(out, digits[c >> 4]);
			appendStringInfoChar(out, digits[c & 0xf]);
		}
	}
}

const char *
jq_form_encode(StringInfo out, Jsonb *fields)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *name = NULL;
	int			start = out->len;

	if (!JB_ROOT_IS_OBJECT(fields))
		return "The fields of a form must be a JSON object.";
	iterator = JsonbIteratorInit(&fields->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		const char *flaw = NULL;

		if (token == WJB_KEY)
			name = pnstrdup(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
			flaw = encode_field(out, name, &value, false);
		if (flaw != NULL)
			return flaw;
	}

	/* Every field ended in &. */
	if (out->len > start)
		out->data[--out->len] = '\0';
	return NULL;
}

const char *
jq_base64_decode(StringInfo out, const char *string)
{
	char	   *dense = palloc(strlen(string) + 1);
	int			len = 0;
	int			room;
	int			decoded;

	/* The server's decoder takes no white space. */
	for (; *string != '\0'; string++)
		if (strchr(" \t\r\n", *string) == NULL)
			dense[len++] = *string;
	room = pg_b64_dec_len(len);
	enlargeStringInfo(out, room);
	decoded = pg_b64_decode(dense, len, (void *) (out->data + out->len), room);
	pfree(dense);
	if (decoded < 0)
	{
		out->data[out->len] = '\0';
		return "The body is not base64.";
	}
	out->len += decoded;
	out->data[out->len] = '\0';
	return NULL;
}

static const char *
encode_field(StringInfo out, const char *name, const JsonbValue *value,
			 bool in_array)
{
	const char *string;
	size_t		len;

	switch (value->type)
	{
		case jbvNull:
			return NULL;
		case jbvString:
			string = value->val.string.val;

			len = value->val.string.len;
			break;
		case jbvNumeric:
			string = DatumGetCString(DirectFunctionCall1(numeric_out,
														 NumericGetDatum(value->val.numeric)));

			len = strlen(string);
			break;
		case jbvBool:
			string = value->val.boolean ? "true" : "false";

			len = strlen(string);
			break;
		case jbvBinary:
			if (!in_array && JsonContainerIsArray(value->val.binary.data))
				return encode_array(out, name, value->val.binary.data);
			/* FALLTHROUGH */
		default:
			return psprintf("Field \"%.*s\" of the form is neither a scalar nor an array of scalars.",
							pg_mbcliplen(name, (int) strlen(name),
										 QUOTED_LENGTH), name);
	}
	encode_text(out, name, strlen(name));
	appendStringInfoChar(out, '=');
	encode_text(out, string, len);
	appendStringInfoChar(out, '&');
	return NULL;
}

static const char *
encode_array(StringInfo out, const char *name, JsonbContainer *array)
{
	JsonbIterator *iterator = JsonbIteratorInit(array);
	JsonbIteratorToken token;
	JsonbValue	element;
	const char *flaw = NULL;

	while (flaw == NULL &&
		   (token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
		if (token == WJB_ELEM)
			flaw = encode_field(out, name, &element, true);
	return flaw;
}

/* Percent-encoded, but for spaces, which are plus signs here. */
static void
encode_text(StringInfo out, const char *string, size_t len)
{
	while (len > 0)
	{
		const char *space = memchr(string, ' ', len);
		size_t		word = space == NULL ? len : (size_t) (space - string);

		jq_percent_encode(out, string, word);
		if (space == NULL)
			break;
		appendStringInfoChar(out, '+');
		string += word + 1;

		len -= word + 1;
	}
}
