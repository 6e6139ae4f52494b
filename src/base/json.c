/*-------------------------------------------------------------------------
 *
 * json.c
 *	  Reading and building jsonb objects by key.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/json.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

JsonbValue *
jq_json_find(Jsonb *object, const char *key)
{
	if (!jq_json_is_object(object))
		return NULL;
	return getKeyJsonValueFromContainer(&object->root, key, strlen(key), NULL);
}

char *
jq_json_text(Jsonb *object, const char *key)
{
	JsonbValue *value = jq_json_find(object, key);

	if (value == NULL || value->type != jbvString)
		return NULL;
	return pnstrdup(value->val.string.val, value->val.string.len);
}

Jsonb *
jq_json_member(Jsonb *object, const char *key)
{
	JsonbValue *value = jq_json_find(object, key);

	if (value == NULL || value->type == jbvNull)
		return NULL;
	return JsonbValueToJsonb(value);
}

bool
jq_json_is_object(Jsonb *document)
{
	return JB_ROOT_IS_OBJECT(document);
}

bool
jq_json_is_string(Jsonb *document)
{
	JsonbValue	value;

	return JB_ROOT_IS_SCALAR(document) &&
		JsonbExtractScalar(&document->root, &value) &&
		value.type == jbvString;
}

char *
jq_json_root_text(Jsonb *document)
{
	JsonbValue	value;

	(void) JsonbExtractScalar(&document->root, &value);
	Assert(value.type == jbvString);
	return pnstrdup(value.val.string.val, value.val.string.len);
}

void
jq_json_begin(JsonbParseState **state)
{
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
}

void
jq_json_put_key(JsonbParseState **state, const char *key)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, key);
	value.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &value);
}

void
jq_json_put_text(JsonbParseState **state, const char *key, const char *value)
{
	jq_json_put_text_len(state, key, value, strlen(value));
}

void
jq_json_put_text_len(JsonbParseState **state, const char *key,
					 const char *string, size_t len)
{
	JsonbValue	value;

	jq_json_put_key(state, key);
	value.type = jbvString;
	value.val.string.val = unconstify(char *, string);
	value.val.string.len = len;
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
put_numeric(JsonbParseState **state, const char *key, Numeric number)
{
	JsonbValue	value;

	jq_json_put_key(state, key);
	value.type = jbvNumeric;
	value.val.numeric = number;
	pushJsonbValue(state, WJB_VALUE, &value);
}

void
jq_json_put_integer(JsonbParseState **state, const char *key, int64 value)
{
	put_numeric(state, key, int64_to_numeric(value));
}

void
jq_json_put_ms(JsonbParseState **state, const char *key, int64 microseconds)
{
	put_numeric(state, key, int64_div_fast_to_numeric(microseconds, 3));
}

void
jq_json_put_bool(JsonbParseState **state, const char *key, bool truth)
{
	JsonbValue	value;

	jq_json_put_key(state, key);
	value.type = jbvBool;
	value.val.boolean = truth;
	pushJsonbValue(state, WJB_VALUE, &value);
}

void
jq_json_put(JsonbParseState **state, const char *key, Jsonb *value)
{
	jq_json_put_key(state, key);
	jq_json_push(state, WJB_VALUE, value);
}

Jsonb *
jq_json_end(JsonbParseState **state)
{
	return JsonbValueToJsonb(pushJsonbValue(state, WJB_END_OBJECT, NULL));
}

void
jq_json_push(JsonbParseState **state, JsonbIteratorToken token, Jsonb *value)
{
	JsonbValue	inner;

	if (JB_ROOT_IS_SCALAR(value))
		(void) JsonbExtractScalar(&value->root, &inner);
	else
		JsonbToJsonbValue(value, &inner);
	pushJsonbValue(state, token, &inner);
}
