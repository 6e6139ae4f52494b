/*-------------------------------------------------------------------------
 *
 * error_rules.c
 *	  What a job type makes of certain failures: job_types.error_rules.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "base/compat.h"
#include "queue/backoff.h"
#include "queue/error_rules.h"

#define MAX_RULES 100
#define MAX_VALUES 100			/* of a condition */
#define MAX_PATTERN_LENGTH 1000
#define SQLSTATE_LENGTH 5
#define HTTP_PREFIX "HTTP status "

/* One that a failure must have: from "low" to "high". */
typedef struct StatusRange
{
	int			low;
	int			high;
} StatusRange;

/* A condition without values holds. */
typedef struct ErrorRule
{
	char	  **sqlstates;		/* beginnings of, or all five characters */
	int			nsqlstates;
	StatusRange *statuses;
	int			nstatuses;
	text	   *error_like;		/* NULL: any error */
	JqErrorVerdict verdict;
} ErrorRule;

struct JqErrorRules
{
	int			count;
	ErrorRule	rules[FLEXIBLE_ARRAY_MEMBER];
};

/* What errors name while rules are read. */
typedef struct Place
{
	int			rule;			/* from 1 */
	const char *key;
} Place;

static void read_rule(JsonbValue *value, Place *place, ErrorRule *rule);
static void set_key(ErrorRule *rule, JsonbValue *value, const Place *place);
static JsonbValue *list_values(JsonbValue *value, int *count,
							   const Place *place);
static void read_sqlstates(ErrorRule *rule, JsonbValue *value,
						   const Place *place);
static char *read_sqlstate(const JsonbValue *value, const Place *place);
static void read_statuses(ErrorRule *rule, JsonbValue *value,
						  const Place *place);
static StatusRange read_status(const JsonbValue *value, const Place *place);
static text *read_pattern(const JsonbValue *value, const Place *place);
static JqErrorAction read_action(const JsonbValue *value, const Place *place);
static int64 read_length(const JsonbValue *value, const Place *place);
static bool is_sqlstate_part(const char *string, int length);
static bool matches(const ErrorRule *rule, const JqFailure *failure);
static bool matches_sqlstate(const ErrorRule *rule, int sqlstate);
static bool matches_status(const ErrorRule *rule, int status);
static bool matches_error(const ErrorRule *rule, const char *error);
pg_noreturn static void refuse(const Place *place, const char *detail);

JqErrorRules *
jq_error_rules_parse(Jsonb *json)
{
	JqErrorRules *rules;
	int			count;

	if (!JB_ROOT_IS_ARRAY(json) || JB_ROOT_IS_SCALAR(json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("error_rules must be a JSON array of rules"),
				 errhint("For example [{\"sqlstate\": \"23*\", \"then\": \"fail\"}].")));
	count = (int) JB_ROOT_COUNT(json);
	if (count > MAX_RULES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("error_rules must have at most %d rules", MAX_RULES)));
	rules = palloc0(offsetof(JqErrorRules, rules) + sizeof(ErrorRule) * count);
	rules->count = count;
	for (int i = 0; i < count; i++)
	{
		Place		place = {.rule = i + 1};

		read_rule(getIthJsonbValueFromContainer(&json->root, i), &place,
				  &rules->rules[i]);
	}
	return rules;
}

static void
read_rule(JsonbValue *value, Place *place, ErrorRule *rule)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	member;

	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("rule %d of error_rules must be a JSON object",
						place->rule)));
	it = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &member, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			place->key = pnstrdup(member.val.string.val, member.val.string.len);
		else if (token == WJB_VALUE)
			set_key(rule, &member, place);
	}
	place->key = "then";
	if (rule->verdict.action == JQ_ERROR_UNRULED)
		refuse(place, "A rule needs it: \"fail\", \"retry\", \"release\" or \"skip\".");
	place->key = "delay";
	if (rule->verdict.has_delay && rule->verdict.action != JQ_ERROR_RETRY &&
		rule->verdict.action != JQ_ERROR_RELEASE)
		refuse(place, "Only \"retry\" and \"release\" have it.");
	if (rule->verdict.has_delay && rule->verdict.action == JQ_ERROR_RELEASE &&
		rule->verdict.delay_us < JQ_MIN_RELEASE_US)
		refuse(place, "With \"release\" it must be at least 100 milliseconds.");
}

static void
set_key(ErrorRule *rule, JsonbValue *value, const Place *place)
{
	if (strcmp(place->key, "sqlstate") == 0)
		read_sqlstates(rule, value, place);
	else if (strcmp(place->key, "http_status") == 0)
		read_statuses(rule, value, place);
	else if (strcmp(place->key, "error_like") == 0)
		rule->error_like = read_pattern(value, place);
	else if (strcmp(place->key, "then") == 0)
		rule->verdict.action = read_action(value, place);
	else if (strcmp(place->key, "delay") == 0)
	{
		rule->verdict.delay_us = read_length(value, place);
		rule->verdict.has_delay = true;
	}
	else if (strcmp(place->key, "throttle") == 0)
	{
		rule->verdict.throttle_us = read_length(value, place);
		if (rule->verdict.throttle_us == 0)
			refuse(place, "It must be positive.");
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized key \"%s\" in rule %d of error_rules",
						place->key, place->rule),
				 errhint("The keys are sqlstate, http_status, error_like, then, delay and throttle.")));
}

/* Of an array, or the one that stands for itself. */
static JsonbValue *
list_values(JsonbValue *value, int *count, const Place *place)
{
	JsonbContainer *array;
	JsonbValue *values;

	*count = 1;
	if (value->type != jbvBinary)
		return value;
	array = value->val.binary.data;
	*count = JsonContainerIsArray(array) ? (int) JsonContainerSize(array) : 0;
	if (*count < 1 || *count > MAX_VALUES)
		refuse(place, psprintf("It must be a value, or an array of 1 to %d.",
							   MAX_VALUES));
	values = palloc(sizeof(JsonbValue) * *count);
	for (int i = 0; i < *count; i++)
		values[i] = *getIthJsonbValueFromContainer(array, i);
	return values;
}

static void
read_sqlstates(ErrorRule *rule, JsonbValue *value, const Place *place)
{
	int			count;
	JsonbValue *values = list_values(value, &count, place);

	rule->sqlstates = palloc(sizeof(char *) * count);
	for (int i = 0; i < count; i++)
		rule->sqlstates[i] = read_sqlstate(&values[i], place);
	rule->nsqlstates = count;
}

static char *
read_sqlstate(const JsonbValue *value, const Place *place)
{
	char	   *string;
	int			length;

	if (value->type != jbvString)
		refuse(place, "It must be a text such as \"23505\" or \"23*\", or an array of them.");
	string = pnstrdup(value->val.string.val, value->val.string.len);
	length = strlen(string);
	if (length >= 3 && length <= SQLSTATE_LENGTH && string[length - 1] == '*')
		string[--length] = '\0';
	else if (length != SQLSTATE_LENGTH)
		length = 0;
	if (!is_sqlstate_part(string, length))
		refuse(place, "A SQLSTATE has five digits and capital letters; fewer, but two at least, are followed by \"*\".");
	return string;
}

static bool
is_sqlstate_part(const char *string, int length)
{
	for (int i = 0; i < length; i++)
		if (!(string[i] >= '0' && string[i] <= '9') &&
			!(string[i] >= 'A' && string[i] <= 'Z'))
			return false;
	return length > 0;
}

static void
read_statuses(ErrorRule *rule, JsonbValue *value, const Place *place)
{
	int			count;
	JsonbValue *values = list_values(value, &count, place);

	rule->statuses = palloc(sizeof(StatusRange) * count);
	for (int i = 0; i < count; i++)
		rule->statuses[i] = read_status(&values[i], place);
	rule->nstatuses = count;
}

static StatusRange
read_status(const JsonbValue *value, const Place *place)
{
	StatusRange range = {0};

	if (value->type == jbvNumeric)
	{
		double		number = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
																NumericGetDatum(value->val.numeric)));

		if (number >= 100 && number <= 599 && number == (int) number)
			range.low = range.high = (int) number;
	}
	else if (value->type == jbvString && value->val.string.len == 3 &&
			 value->val.string.val[0] >= '1' &&
			 value->val.string.val[0] <= '5' &&
			 memcmp(value->val.string.val + 1, "xx", 2) == 0)
	{
		range.low = (value->val.string.val[0] - '0') * 100;
		range.high = range.low + 99;
	}
	if (range.low == 0)
		refuse(place, "It must be a number between 100 and 599, a class from \"1xx\" to \"5xx\", or an array of them.");
	return range;
}

/* LIKE raises an error about its last character only where it gets to it. */
static text *
read_pattern(const JsonbValue *value, const Place *place)
{
	int			length;
	int			escapes = 0;

	if (value->type != jbvString)
		refuse(place, "It must be a text, a pattern as of LIKE.");
	length = value->val.string.len;
	if (length > MAX_PATTERN_LENGTH)
		refuse(place, psprintf("It must be at most %d bytes long.",
							   MAX_PATTERN_LENGTH));
	while (escapes < length &&
		   value->val.string.val[length - 1 - escapes] == '\\')
		escapes++;
	if (escapes % 2 != 0)
		refuse(place, "A pattern must not end in an escape character.");
	return cstring_to_text_with_len(value->val.string.val, length);
}

static JqErrorAction
read_action(const JsonbValue *value, const Place *place)
{
	static const struct
	{
		const char *name;
		JqErrorAction action;
	}			actions[] = {
		{"fail", JQ_ERROR_FAIL},
		{"retry", JQ_ERROR_RETRY},
		{"release", JQ_ERROR_RELEASE},
		{"skip", JQ_ERROR_SKIP}
	};

	for (int i = 0; value->type == jbvString && i < (int) lengthof(actions); i++)
		if (value->val.string.len == (int) strlen(actions[i].name) &&
			memcmp(value->val.string.val, actions[i].name,
				   value->val.string.len) == 0)
			return actions[i].action;
	refuse(place, "It must be \"fail\", \"retry\", \"release\" or \"skip\".");
}

static int64
read_length(const JsonbValue *value, const Place *place)
{
	return jq_backoff_parse_delay(value,
								  psprintf("\"%s\" in rule %d of error_rules",
										   place->key, place->rule));
}

static void
refuse(const Place *place, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid \"%s\" in rule %d of error_rules",
					place->key, place->rule),
			 errdetail("%s", detail)));
}

JqErrorVerdict
jq_error_rules_judge(const JqErrorRules *rules, const JqFailure *failure)
{
	JqErrorVerdict unruled = {JQ_ERROR_UNRULED};

	for (int i = 0; rules != NULL && i < rules->count; i++)
		if (matches(&rules->rules[i], failure))
			return rules->rules[i].verdict;
	return unruled;
}

static bool
matches(const ErrorRule *rule, const JqFailure *failure)
{
	return matches_sqlstate(rule, failure->sqlstate) &&
		matches_status(rule, failure->http_status) &&
		matches_error(rule, failure->error);
}

static bool
matches_sqlstate(const ErrorRule *rule, int sqlstate)
{
	const char *code = sqlstate == 0 ? "" : unpack_sql_state(sqlstate);

	for (int i = 0; i < rule->nsqlstates; i++)
		if (strncmp(code, rule->sqlstates[i], strlen(rule->sqlstates[i])) == 0)
			return true;
	return rule->nsqlstates == 0;
}

static bool
matches_status(const ErrorRule *rule, int status)
{
	for (int i = 0; i < rule->nstatuses; i++)
		if (status >= rule->statuses[i].low && status <= rule->statuses[i].high)
			return true;
	return rule->nstatuses == 0;
}

/* In "C", which needs no catalogs: nothing may empty the cache meanwhile. */
static bool
matches_error(const ErrorRule *rule, const char *error)
{
	return rule->error_like == NULL ||
		DatumGetBool(DirectFunctionCall2Coll(textlike, C_COLLATION_OID,
											 CStringGetTextDatum(error),
											 PointerGetDatum(rule->error_like)));
}

int
jq_error_rules_sqlstate(const char *error)
{
	int			length = (int) strcspn(error, "\n");
	const char *code = error + length - SQLSTATE_LENGTH - 1;

	if (length < SQLSTATE_LENGTH + 2 || error[length - 1] != ')' ||
		code[-1] != '(' || !is_sqlstate_part(code, SQLSTATE_LENGTH))
		return 0;
	return MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4]);
}

int
jq_error_rules_http_status(const char *error)
{
	const char *digits = error + strlen(HTTP_PREFIX);
	int			status = 0;

	if (strncmp(error, HTTP_PREFIX, strlen(HTTP_PREFIX)) != 0 ||
		strspn(digits, "0123456789") != 3)
		return 0;
	for (int i = 0; i < 3; i++)
		status = status * 10 + (digits[i] - '0');
	return status;
}
