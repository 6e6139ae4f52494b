/*-------------------------------------------------------------------------
 *
 * validate.c
 *	  What the values of a job must be like.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "base/config.h"
#include "body/command.h"
#include "queue/validate.h"

#define MAX_PAYLOAD_DEPTH 100
#define MAX_COMMAND_LENGTH (1024 * 1024)
#define YEAR_2000 ((TimestampTz) 0)
#define TEN_YEARS_US (10 * INT64CONST(366) * USECS_PER_DAY)

/* A document this short cannot be nested too deeply. */
#define SMALL_PAYLOAD 400

static void check_depth(Jsonb *payload);
static void report_place_in_command(void *arg);

void
jq_validate_instant(TimestampTz instant, const char *argument)
{
	if (TIMESTAMP_NOT_FINITE(instant))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be finite", argument)));
	if (instant < YEAR_2000 ||
		instant > GetCurrentTimestamp() + TEN_YEARS_US)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must lie between the year 2000 and ten years from now",
						argument)));
}

void
jq_validate_payload(Datum payload)
{
	Size		size = toast_raw_datum_size(payload) - VARHDRSZ;
	Size		limit = (Size) jq_config_max_payload * 1024;

	if (size > limit)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("payload is too large"),
				 errdetail("It has %zu bytes, the limit is %zu.", size, limit),
				 errhint("Store the data elsewhere and enqueue a reference, or raise jobqueue.max_payload.")));
	if (size > SMALL_PAYLOAD)
		check_depth(DatumGetJsonbP(payload));
}

static void
check_depth(Jsonb *payload)
{
	JsonbIterator *it = JsonbIteratorInit(&payload->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	int			depth = 0;

	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		if (token == WJB_BEGIN_ARRAY || token == WJB_BEGIN_OBJECT)
			depth++;
		else if (token == WJB_END_ARRAY || token == WJB_END_OBJECT)
			depth--;
		if (depth > MAX_PAYLOAD_DEPTH)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("payload must not be nested deeper than %d levels",
							MAX_PAYLOAD_DEPTH)));
	}
}

void
jq_validate_command(const char *command)
{
	ErrorContextCallback callback;
	List	   *statements;

	if (strlen(command) > MAX_COMMAND_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("command must be at most %d bytes long",
						MAX_COMMAND_LENGTH)));

	callback.callback = report_place_in_command;
	callback.arg = unconstify(char *, command);
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	statements = raw_parser(command, RAW_PARSE_DEFAULT);
	error_context_stack = callback.previous;

	if (statements == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("command must not be empty")));
	jq_command_check(statements);
}

/* Moves the place of a syntax error from the caller's query to the command. */
static void
report_place_in_command(void *arg)
{
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery((const char *) arg);
	}
}

void
jq_validate_sql_payload(Datum payload)
{
	Jsonb	   *json = DatumGetJsonbP(payload);
	JsonbValue	found;
	JsonbValue *value = NULL;

	if (JB_ROOT_IS_OBJECT(json))
		value = getKeyJsonValueFromContainer(&json->root, "command", 7, &found);
	if (value == NULL || value->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("payload of a job of type \"sql\" must have a text \"command\""),
				 errhint("Use enqueue_sql().")));
	jq_validate_command(pnstrdup(value->val.string.val, value->val.string.len));
	value = getKeyJsonValueFromContainer(&json->root, "mode", 4, &found);
	if (value != NULL)
		jq_validate_mode(value->type == jbvString ?
						 pnstrdup(value->val.string.val, value->val.string.len) :
						 "");
}

void
jq_validate_mode(const char *mode)
{
	JqMode		known;

	if (!jq_mode_from_name(mode, &known))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized mode \"%s\"", mode),
				 errhint("The modes are batched, alone and autonomous.")));
}

Datum
jq_sql_payload(Datum command, Datum payload, const char *mode)
{
	JsonbParseState *state = NULL;
	JsonbValue	value;
	Jsonb	   *inner = payload != 0 ? DatumGetJsonbP(payload) :
	DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));

	if (mode != NULL)
		jq_validate_mode(mode);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	value.type = jbvString;
	value.val.string.val = "command";
	value.val.string.len = strlen("command");
	pushJsonbValue(&state, WJB_KEY, &value);
	value.val.string.val = TextDatumGetCString(command);
	value.val.string.len = strlen(value.val.string.val);
	pushJsonbValue(&state, WJB_VALUE, &value);
	if (mode != NULL)
	{
		value.val.string.val = "mode";
		value.val.string.len = strlen("mode");
		pushJsonbValue(&state, WJB_KEY, &value);
		value.val.string.val = unconstify(char *, mode);
		value.val.string.len = strlen(mode);
		pushJsonbValue(&state, WJB_VALUE, &value);
	}
	value.val.string.val = "payload";
	value.val.string.len = strlen("payload");
	pushJsonbValue(&state, WJB_KEY, &value);
	JsonbToJsonbValue(inner, &value);
	if (JB_ROOT_IS_SCALAR(inner))
		JsonbExtractScalar(&inner->root, &value);
	pushJsonbValue(&state, WJB_VALUE, &value);
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state,
														   WJB_END_OBJECT, NULL)));
}
