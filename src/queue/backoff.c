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

#include "base/compat.h"
#include "base/config.h"
#include "base/interval.h"
#include "queue/backoff.h"

#define MAX_DELAY_US (366 * USECS_PER_DAY)

static void set_key(JqBackoff *backoff, const char *key, JsonbValue *value,
					const char *argument);
static int64 read_delay(JsonbValue *value, const char *key,
						const char *argument);
static double read_number(JsonbValue *value, const char *key,
						  const char *argument, double min, double max);
pg_noreturn static void refuse(const char *key, const char *argument,
							   const char *detail);

void
jq_backoff_default(JqBackoff *backoff)
{
	backoff->strategy = JQ_BACKOFF_FIXED;
	backoff->delay_us = (int64) jq_config_retry_delay * USECS_PER_SEC;
	backoff->multiplier = 2;
	backoff->max_delay_us = MAX_DELAY_US;
	backoff->jitter = 0;
}

void
jq_backoff_parse(Jsonb *json, const char *argument, JqBackoff *backoff)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *key = NULL;

	if (!JB_ROOT_IS_OBJECT(json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON object", argument),
				 errhint("For example {\"strategy\": \"exponential\", \"delay\": \"1 second\"}.")));

	jq_backoff_default(backoff);
	it = JsonbIteratorInit(&json->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = pnstrdup(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
			set_key(backoff, key, &value, argument);
	}
}

static void
set_key(JqBackoff *backoff, const char *key, JsonbValue *value,
		const char *argument)
{
	if (strcmp(key, "strategy") == 0)
	{
		char	   *name = value->type == jbvString ?
		pnstrdup(value->val.string.val, value->val.string.len) : "";

		if (strcmp(name, "fixed") == 0)
			backoff->strategy = JQ_BACKOFF_FIXED;
		else if (strcmp(name, "exponential") == 0)
			backoff->strategy = JQ_BACKOFF_EXPONENTIAL;
		else
			refuse(key, argument, "It must be \"fixed\" or \"exponential\".");
	}
	else if (strcmp(key, "delay") == 0)
		backoff->delay_us = read_delay(value, key, argument);
	else if (strcmp(key, "max_delay") == 0)
		backoff->max_delay_us = read_delay(value, key, argument);
	else if (strcmp(key, "multiplier") == 0)
		backoff->multiplier = read_number(value, key, argument, 1, 1000);
	else if (strcmp(key, "jitter") == 0)
		backoff->jitter = read_number(value, key, argument, 0, 1);
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized key \"%s\" in %s", key, argument),
				 errhint("The keys are strategy, delay, multiplier, max_delay and jitter.")));
}

/* An interval text, or seconds. */
static int64
read_delay(JsonbValue *value, const char *key, const char *argument)
{
	Interval   *interval;
	char	   *name = psprintf("\"%s\" in %s", key, argument);

	if (value->type == jbvNumeric)
		return (int64) rint(read_number(value, key, argument, 0,
										(double) (MAX_DELAY_US / USECS_PER_SEC)) *
							USECS_PER_SEC);
	if (value->type != jbvString)
		refuse(key, argument, "It must be an interval, or a number of seconds.");
	interval = DatumGetIntervalP(DirectFunctionCall3(interval_in,
													 CStringGetDatum(pnstrdup(value->val.string.val,
																			  value->val.string.len)),
													 ObjectIdGetDatum(InvalidOid),
													 Int32GetDatum(-1)));
	return jq_interval_us(interval, name, 0, MAX_DELAY_US);
}

static double
read_number(JsonbValue *value, const char *key, const char *argument,
			double min, double max)
{
	double		number = -1;

	if (value->type == jbvNumeric)
		number = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
													NumericGetDatum(value->val.numeric)));
	if (!(number >= min && number <= max))
		refuse(key, argument,
			   psprintf("It must be a number between %g and %g.", min, max));
	return number;
}

static void
refuse(const char *key, const char *argument, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid \"%s\" in %s", key, argument),
			 errdetail("%s", detail)));
}

int64
jq_backoff_delay(const JqBackoff *backoff, int attempt, double random)
{
	double		delay = (double) backoff->delay_us;

	if (backoff->strategy == JQ_BACKOFF_EXPONENTIAL)
		delay *= pow(backoff->multiplier, Max(attempt - 1, 0));
	if (!(delay <= (double) backoff->max_delay_us))
		delay = (double) backoff->max_delay_us;
	delay *= 1 + backoff->jitter * (2 * random - 1);
	return (int64) rint(delay);
}
