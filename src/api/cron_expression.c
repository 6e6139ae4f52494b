/*
 * cron_expression.c
 *	  SQL functions to check and try schedules.
 */
#include "postgres.h"

#include "base/compat.h"
#include "cron/describe.h"
#include "cron/expression.h"
#include "cron/schedule.h"
#include "cron/zone.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

/* most occurrences that one call of cron_next_runs() lists */
#define MAX_NEXT_RUNS	1000

PG_FUNCTION_INFO_V1(jobqueue_cron_is_valid);
PG_FUNCTION_INFO_V1(jobqueue_cron_describe);
PG_FUNCTION_INFO_V1(jobqueue_cron_next_runs);

static void refuse_null(FunctionCallInfo fcinfo, int argno, const char *name);

/* cron_is_valid(schedule text): can this schedule be used?  Strict. */
Datum
jobqueue_cron_is_valid(PG_FUNCTION_ARGS)
{
	text	   *schedule = PG_GETARG_TEXT_PP(0);
	JqCronExpr	expr;
	JqCronError error;

	PG_RETURN_BOOL(jq_cron_parse(VARDATA_ANY(schedule),
								 VARSIZE_ANY_EXHDR(schedule),
								 &expr, &error));
}

/* cron_describe(schedule text): what it says, in words.  Strict. */
Datum
jobqueue_cron_describe(PG_FUNCTION_ARGS)
{
	JqCronExpr	expr;
	StringInfoData words;

	jq_cron_parse_or_error(text_to_cstring(PG_GETARG_TEXT_PP(0)), &expr);
	initStringInfo(&words);
	jq_cron_describe(&expr, &words);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(words.data, words.len));
}

/*
 * cron_next_runs(schedule text, timezone text, after timestamptz, n integer):
 * the first n instants after that one at which the schedule fires.  Intervals
 * are counted from "after".
 */
Datum
jobqueue_cron_next_runs(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	JqCronExpr	expr;
	pg_tz	   *zone;
	TimestampTz after;
	int32		n;

	refuse_null(fcinfo, 0, "schedule");
	refuse_null(fcinfo, 1, "timezone");
	refuse_null(fcinfo, 2, "after");
	refuse_null(fcinfo, 3, "n");
	jq_cron_parse_or_error(text_to_cstring(PG_GETARG_TEXT_PP(0)), &expr);
	zone = jq_zone_find_or_error(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	after = PG_GETARG_TIMESTAMPTZ(2);
	n = PG_GETARG_INT32(3);
	if (TIMESTAMP_NOT_FINITE(after))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("after must be finite")));
	if (n < 1 || n > MAX_NEXT_RUNS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("n must be between 1 and %d", MAX_NEXT_RUNS)));

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	for (int i = 0; i < n; i++)
	{
		Datum		value;
		bool		isnull = false;

		after = jq_cron_next(&expr, after, after, zone);
		if (TIMESTAMP_IS_NOEND(after))
			break;
		value = TimestampTzGetDatum(after);
		tuplestore_putvalues(result->setResult, result->setDesc,
							 &value, &isnull);
	}
	return (Datum) 0;
}

/* Raise 22004 if the argument of that name is null. */
static void
refuse_null(FunctionCallInfo fcinfo, int argno, const char *name)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}
