/*-------------------------------------------------------------------------
 *
 * header.c
 *	  Methods and headers of requests: what users may send.
 *
 *	  A line break inside a value would go out as a second header, so the
 *	  grammar is held here, whatever the library that sends would let pass.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "http/header.h"

#include "mb/pg_wchar.h"

/* characters of a token (RFC 9110, 5.6.2) besides letters and digits */
#define TOKEN_CHARACTERS "!#$%&'*+-.^_`|~"

/* longest name that messages quote, in bytes */
#define QUOTED_LENGTH 64

/* Headers of the connection, of the message's length, and of our own. */
static const char *const reserved[] = {
	"connection", "content-length", "expect", "host", "keep-alive", "te",
	"trailer", "transfer-encoding", "upgrade",
};
static const char *const reserved_prefixes[] = {"proxy-", "webhook-"};

static const char *const methods[] = {
	"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS",
};

static void check_one(const char *name, const JsonbValue *value,
					  JqHeaderTotals *totals, const char *argument);
static bool is_token(const char *name);

const char *
jq_header_flaw(const char *name, const char *value, JqHeaderTotals *totals)
{
	if (*name == '\0')
		return "A header must have a name.";
	if (!is_token(name))
		return "The name of a header must be letters, digits and \"-\", or others of the characters that HTTP allows there.";
	if (jq_header_is_reserved(name))
		return "This header is set by jobqueue, or belongs to the connection.";
	for (const char *c = value; *c != '\0'; c++)
		if ((unsigned char) *c < ' ' || *c == 0x7f)
			return "The value of a header must not have control characters.";
	if (totals != NULL)
	{
		totals->count++;
		totals->size += strlen(name) + strlen(value) + 4;
		if (totals->count > JQ_HEADERS_MAX_COUNT)
			return "A request must not have more than 64 headers.";
		if (totals->size > JQ_HEADERS_MAX_SIZE)
			return "The headers of a request must not be larger than 16 kB.";
	}
	return NULL;
}

bool
jq_header_is_reserved(const char *name)
{
	for (size_t i = 0; i < lengthof(reserved); i++)
		if (pg_strcasecmp(name, reserved[i]) == 0)
			return true;
	for (size_t i = 0; i < lengthof(reserved_prefixes); i++)
		if (pg_strncasecmp(name, reserved_prefixes[i],
						   strlen(reserved_prefixes[i])) == 0)
			return true;
	return false;
}

void
jq_headers_check(Jsonb *headers, const char *argument)
{
	JqHeaderTotals totals = {0};
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *names[JQ_HEADERS_MAX_COUNT];
	char	   *name = NULL;

	if (!JB_ROOT_IS_OBJECT(headers))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON object", argument),
				 errhint("Write it like {\"Accept\": \"text/plain\"}.")));
	iterator = JsonbIteratorInit(&headers->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = pnstrdup(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
		{
			check_one(name, &value, &totals, argument);
			for (int i = 0; i < totals.count - 1; i++)
				if (pg_strcasecmp(names[i], name) == 0)
					ereport(ERROR,
							(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							 errmsg("header \"%s\" is given twice in %s",
									name, argument)));
			names[totals.count - 1] = name;
		}
	}
}

void
jq_method_check(const char *method, const char *argument)
{
	for (size_t i = 0; i < lengthof(methods); i++)
		if (strcmp(method, methods[i]) == 0)
			return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid HTTP method \"%.*s\" in %s",
					pg_mbcliplen(method, (int) strlen(method), QUOTED_LENGTH),
					method, argument),
			 errhint("Use GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS, in upper case.")));
}

static void
check_one(const char *name, const JsonbValue *value, JqHeaderTotals *totals,
		  const char *argument)
{
	const char *flaw;

	if (value->type != jbvString)
		flaw = "The value of a header must be a JSON string.";
	else
		flaw = jq_header_flaw(name, pnstrdup(value->val.string.val,
											 value->val.string.len),
							  totals);
	if (flaw != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid header \"%.*s\" in %s",
						pg_mbcliplen(name, (int) strlen(name), QUOTED_LENGTH),
						name, argument),
				 errdetail("%s", flaw)));
}

static bool
is_token(const char *name)
{
	for (; *name != '\0'; name++)
	{
		unsigned char c = (unsigned char) *name;

		if (c >= 0x80 || (!isalnum(c) && strchr(TOKEN_CHARACTERS, c) == NULL))
			return false;
	}
	return true;
}
