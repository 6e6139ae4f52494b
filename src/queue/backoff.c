/*-------------------------------------------------------------------------
 *
 * backoff.c
 *	  How long a failed job waits for its next attempt.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "base/compat.h"
#include "base/config.h"
#include "base/interval.h"
#include "queue/backoff.h"

#define MAX_DELAYS 100

typedef enum BackoffKey
{
	KEY_STRATEGY,
	KEY_DELAY,
	KEY_DELAYS,
	KEY_FUNCTION,
	KEY_MULTIPLIER,
	KEY_MAX_DELAY,
	KEY_JITTER,
	KEY_JITTER_KIND
} BackoffKey;

static const char *const key_names[] = {
	"strategy", "delay", "delays", "function", "multiplier", "max_delay",
	"jitter", "jitter_kind"
};
static const char *const strategy_names[] = {
	"fixed", "exponential", "linear", "list", "function"
};
static const char *const jitter_names[] = {"proportional", "full", "equal"};

/* Strategies that need a key, which no other has. */
static const struct
{
	BackoffKey	key;
	JqBackoffStrategy strategy;
}			special_keys[] = {
	{KEY_DELAYS, JQ_BACKOFF_LIST},
	{KEY_FUNCTION, JQ_BACKOFF_FUNCTION}
};

static int	parse_object(Jsonb *json, const char *argument, JqBackoff *backoff);
static BackoffKey find_key(const JsonbValue *name, const char *argument);
static void set_key(JqBackoff *backoff, BackoffKey key, JsonbValue *value,
					const char *argument);
static void check_together(const JqBackoff *backoff, int keys,
						   const char *argument);
static int	read_choice(const JsonbValue *value, BackoffKey key,
						const char *argument, const char *const *names,
						int count, const char *detail);
static int64 read_delay(const JsonbValue *value, BackoffKey key,
						const char *argument);
static void read_delays(JqBackoff *backoff, JsonbContainer *array,
						const char *name);
static void read_function(JqBackoff *backoff, const JsonbValue *value,
						  const char *argument);
static double read_number(const JsonbValue *value, BackoffKey key,
						  const char *argument, double min, double max);
static double number_of(const JsonbValue *value);
pg_noreturn static void refuse(BackoffKey key, const char *argument,
							   const char *detail);

void
jq_backoff_default(JqBackoff *backoff)
{
	memset(backoff, 0, sizeof(*backoff));
	backoff->strategy = JQ_BACKOFF_FIXED;
	backoff->delay_us = (int64) jq_config_retry_delay * USECS_PER_SEC;
	backoff->multiplier = 2;
	backoff->max_delay_us = JQ_BACKOFF_MAX_US;
}

void
jq_backoff_parse(Jsonb *json, const char *argument, JqBackoff *backoff)
{
	JsonbValue	scalar;

	jq_backoff_default(backoff);
	if (JB_ROOT_IS_OBJECT(json))
		check_together(backoff, parse_object(json, argument, backoff), argument);
	else if (JB_ROOT_IS_SCALAR(json) &&
			 JsonbExtractScalar(&json->root, &scalar) &&
			 scalar.type == jbvString)
		backoff->delay_us = jq_backoff_parse_delay(&scalar, argument);
	else if (JB_ROOT_IS_ARRAY(json) && !JB_ROOT_IS_SCALAR(json))
	{
		backoff->strategy = JQ_BACKOFF_LIST;
		read_delays(backoff, &json->root, argument);
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON object, an array of delays or a delay",
						argument),
				 errhint("For example {\"strategy\": \"exponential\", \"delay\": \"1 second\"}, [\"1s\", \"10s\", \"5m\"] or \"5 minutes\".")));
}

/* Returns which keys there are, a set of bits. */
static int
parse_object(Jsonb *json, const char *argument, JqBackoff *backoff)
{
	JsonbIterator *it = JsonbIteratorInit(&json->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	BackoffKey	key = KEY_STRATEGY;
	int			keys = 0;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = find_key(&value, argument);
		else if (token == WJB_VALUE)
		{
			set_key(backoff, key, &value, argument);
			keys |= 1 << key;
		}
	}
	return keys;
}

static BackoffKey
find_key(const JsonbValue *name, const char *argument)
{
	char	   *key = pnstrdup(name->val.string.val, name->val.string.len);

	for (int i = 0; i < (int) lengthof(key_names); i++)
		if (strcmp(key, key_names[i]) == 0)
			return (BackoffKey) i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized key \"%s\" in %s", key, argument),
			 errhint("The keys are strategy, delay, delays, function, multiplier, max_delay, jitter and jitter_kind.")));
}

static void
set_key(JqBackoff *backoff, BackoffKey key, JsonbValue *value,
		const char *argument)
{
	switch (key)
	{
		case KEY_STRATEGY:
			backoff->strategy = (JqBackoffStrategy)
				read_choice(value, key, argument, strategy_names,
							lengthof(strategy_names),
							"It must be \"fixed\", \"exponential\", \"linear\", \"list\" or \"function\".");
			break;
		case KEY_DELAY:
			backoff->delay_us = read_delay(value, key, argument);
			break;
		case KEY_DELAYS:
			if (value->type != jbvBinary ||
				!JsonContainerIsArray(value->val.binary.data))
				refuse(key, argument, "It must be an array of delays.");
			read_delays(backoff, value->val.binary.data,
						psprintf("\"delays\" in %s", argument));
			break;
		case KEY_FUNCTION:
			read_function(backoff, value, argument);
			break;
		case KEY_MULTIPLIER:
			backoff->multiplier = read_number(value, key, argument, 1, 1000);
			break;
		case KEY_MAX_DELAY:
			backoff->max_delay_us = read_delay(value, key, argument);
			break;
		case KEY_JITTER:
			backoff->jitter = read_number(value, key, argument, 0, 1);
			break;
		case KEY_JITTER_KIND:
			backoff->jitter_kind = (JqJitterKind)
				read_choice(value, key, argument, jitter_names,
							lengthof(jitter_names),
							"It must be \"proportional\", \"full\" or \"equal\".");
			break;
	}
}

static void
check_together(const JqBackoff *backoff, int keys, const char *argument)
{
	const char *strategy = strategy_names[backoff->strategy];

	for (int i = 0; i < (int) lengthof(special_keys); i++)
	{
		BackoffKey	key = special_keys[i].key;

		if ((backoff->strategy == special_keys[i].strategy) !=
			((keys & (1 << key)) != 0))
			refuse(key, argument,
				   psprintf("Strategy \"%s\" needs it, and no other has it.",
							strategy_names[special_keys[i].strategy]));
	}
	if ((keys & (1 << KEY_DELAY)) != 0 &&
		(backoff->strategy == JQ_BACKOFF_LIST ||
		 backoff->strategy == JQ_BACKOFF_FUNCTION))
		refuse(KEY_DELAY, argument,
			   psprintf("Strategy \"%s\" does not have it.", strategy));
	if ((keys & (1 << KEY_MULTIPLIER)) != 0 &&
		backoff->strategy > JQ_BACKOFF_EXPONENTIAL)
		refuse(KEY_MULTIPLIER, argument,
			   psprintf("Strategy \"%s\" does not have it.", strategy));
	if ((keys & (1 << KEY_JITTER)) != 0 &&
		backoff->jitter_kind != JQ_JITTER_PROPORTIONAL)
		refuse(KEY_JITTER, argument,
			   "Only \"jitter_kind\" \"proportional\" has it.");
}

static int
read_choice(const JsonbValue *value, BackoffKey key, const char *argument,
			const char *const *names, int count, const char *detail)
{
	for (int i = 0; value->type == jbvString && i < count; i++)
		if (value->val.string.len == (int) strlen(names[i]) &&
			memcmp(value->val.string.val, names[i], strlen(names[i])) == 0)
			return i;
	refuse(key, argument, detail);
}

static int64
read_delay(const JsonbValue *value, BackoffKey key, const char *argument)
{
	return jq_backoff_parse_delay(value, psprintf("\"%s\" in %s",
												  key_names[key], argument));
}

int64
jq_backoff_parse_delay(const JsonbValue *value, const char *name)
{
	Datum		interval;

	if (value->type == jbvNumeric)
	{
		double		seconds = number_of(value);
		double		max = (double) (JQ_BACKOFF_MAX_US / USECS_PER_SEC);

		if (!(seconds >= 0 && seconds <= max))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid %s", name),
					 errdetail("It must be a number between %g and %g.", 0.0, max)));
		return (int64) rint(seconds * USECS_PER_SEC);
	}
	if (value->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid %s", name),
				 errdetail("It must be an interval, or a number of seconds.")));
	interval = DirectFunctionCall3(interval_in,
								   CStringGetDatum(pnstrdup(value->val.string.val,
															value->val.string.len)),
								   ObjectIdGetDatum(InvalidOid),
								   Int32GetDatum(-1));
	return jq_interval_us(DatumGetIntervalP(interval), name, 0,
						  JQ_BACKOFF_MAX_US);
}

static void
read_delays(JqBackoff *backoff, JsonbContainer *array, const char *name)
{
	int			count = (int) JsonContainerSize(array);

	if (count < 1 || count > MAX_DELAYS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must have 1 to %d delays", name, MAX_DELAYS),
				 errhint("The last one is repeated.")));
	backoff->ndelays = count;
	backoff->delays_us = palloc(sizeof(int64) * count);
	for (int i = 0; i < count; i++)
		backoff->delays_us[i] =
			jq_backoff_parse_delay(getIthJsonbValueFromContainer(array, i),
								   psprintf("delay %d of %s", i + 1, name));
}

/* With its schema: no search_path decides what runs when a job has failed. */
static void
read_function(JqBackoff *backoff, const JsonbValue *value,
			  const char *argument)
{
	List	   *names = NIL;

	if (value->type != jbvString ||
		!SplitIdentifierString(pnstrdup(value->val.string.val,
										value->val.string.len),
							   '.', &names) ||
		list_length(names) != 2)
		refuse(KEY_FUNCTION, argument,
			   "It must be a text \"schema.name\".");
	backoff->function_schema = pstrdup((char *) linitial(names));
	backoff->function_name = pstrdup((char *) lsecond(names));
}

static double
read_number(const JsonbValue *value, BackoffKey key, const char *argument,
			double min, double max)
{
	double		number = value->type == jbvNumeric ? number_of(value) : -1;

	if (!(number >= min && number <= max))
		refuse(key, argument,
			   psprintf("It must be a number between %g and %g.", min, max));
	return number;
}

static double
number_of(const JsonbValue *value)
{
	return DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
											  NumericGetDatum(value->val.numeric)));
}

static void
refuse(BackoffKey key, const char *argument, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid \"%s\" in %s", key_names[key], argument),
			 errdetail("%s", detail)));
}

int64
jq_backoff_delay(const JqBackoff *backoff, int attempt, double random)
{
	int			retry = Max(attempt, 1);
	double		delay = (double) backoff->delay_us;

	Assert(backoff->strategy != JQ_BACKOFF_FUNCTION);
	if (backoff->strategy == JQ_BACKOFF_EXPONENTIAL)
		delay *= pow(backoff->multiplier, retry - 1);
	else if (backoff->strategy == JQ_BACKOFF_LINEAR)
		delay *= retry;
	else if (backoff->strategy == JQ_BACKOFF_LIST)
		delay = (double) backoff->delays_us[Min(retry, backoff->ndelays) - 1];
	return jq_backoff_spread(backoff, delay, random);
}

int64
jq_backoff_spread(const JqBackoff *backoff, double delay_us, double random)
{
	double		delay = delay_us;

	if (!(delay <= (double) backoff->max_delay_us))
		delay = (double) backoff->max_delay_us;
	switch (backoff->jitter_kind)
	{
		case JQ_JITTER_PROPORTIONAL:
			delay *= 1 + backoff->jitter * (2 * random - 1);
			break;
		case JQ_JITTER_FULL:
			delay *= random;
			break;
		case JQ_JITTER_EQUAL:
			delay = delay / 2 + delay / 2 * random;
			break;
	}
	return (int64) rint(delay);
}
