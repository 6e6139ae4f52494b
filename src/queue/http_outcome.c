/*-------------------------------------------------------------------------
 *
 * http_outcome.c
 *	  What the answer to a request means for the jobs that were sent with it.
 *
 * This runs outside of transactions, where an error of jsonb does no harm: it
 * only means that a body is not the JSON that it pretends to be.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/config.h"
#include "base/json.h"
#include "http/response.h"
#include "http/retry_after.h"
#include "queue/event_log.h"
#include "queue/http_job.h"

#define REFUSED_ITEM "the response says that it failed"
#define MAX_EXCERPT 200			/* bytes of a body that an error quotes */
#define MAX_ERROR_SIZE 1000		/* of an item's error that is no text */

static Jsonb *response_value(const JqHttpResponse *response);
static void judge(const JqHttpResponse *response, Jsonb *value,
				  JqOutcome *outcome);
static void judge_status(int status, JqOutcome *outcome);
static bool is_passing(int status);
static void put_off(const JqHttpResponse *response, JqOutcome *outcome);
static char *excerpt(const JqHttpResponse *response);
static void judge_items(JqHttpJob **jobs, int count, Jsonb *value,
						JqOutcome *outcomes);
static Jsonb *find_items(const JqHttpJob *job, Jsonb *value);
static void judge_item(Jsonb *item, JqOutcome *outcome);
static void judge_item_object(Jsonb *item, JqOutcome *outcome);
static int	status_of(Numeric number);
static char *error_text(Jsonb *error);
static void strike_out(JqHttpJob **jobs, int count, JqHttpResponse *response);

void
jq_http_job_outcomes(JqHttpJob **jobs, int count, JqHttpResponse *response,
					 int redirects, JqOutcome *outcomes)
{
	Jsonb	   *value;
	JqOutcome	whole = {0};

	if (response->end == JQ_HTTP_ANSWERED)
		strike_out(jobs, count, response);
	value = response_value(response);
	judge(response, value, &whole);
	/* What it says of each job is in its result. */
	whole.response = JsonbPGetDatum(jq_http_response_json(response, redirects,
														  count == 1));
	for (int i = 0; i < count; i++)
		outcomes[i] = whole;
	if (jobs[0]->request_size > 1 && whole.kind == JQ_OUTCOME_COMPLETED)
		judge_items(jobs, count, value, outcomes);
}

void
jq_http_outcome_copy(JqOutcome *outcome)
{
	if (outcome->error != NULL)
		outcome->error = pstrdup(outcome->error);
	if (outcome->has_result)
		outcome->result = datumCopy(outcome->result, false, -1);
	if (outcome->response != 0)
		outcome->response = datumCopy(outcome->response, false, -1);
}

void
jq_http_outcome_log(const JqHttpJob *job, const JqOutcome *outcome)
{
	if (outcome->kind != JQ_OUTCOME_FAILED || jq_event_log_is_on() ||
		!jq_config_logs(LOG))
		return;
	ereport(LOG,
			(errmsg("job %lld (%s) failed on attempt %d of %d: %.*s",
					(long long) job->held.job_id, job->job_type,
					job->attempt, job->max_attempts,
					outcome->reason_length > 0 ? outcome->reason_length :
					(int) strlen(outcome->error), outcome->error)));
}

/* No answer may bring a secret to where others can read it. */
static void
strike_out(JqHttpJob **jobs, int count, JqHttpResponse *response)
{
	for (int i = 0; i < count; i++)
		for (int n = 0; n < jobs[i]->nsecrets; n++)
		{
			const char *value = jobs[i]->secrets[n].value;

			jq_http_response_strike_out(response, &value, 1);
		}
}

/* NULL, too, for what jsonb cannot hold, such as \u0000. */
static Jsonb *
response_value(const JqHttpResponse *response)
{
	MemoryContext context = CurrentMemoryContext;
	Jsonb	   *volatile value = NULL;

	if (response->end != JQ_HTTP_ANSWERED)
		return NULL;
	PG_TRY();
	{
		value = jq_http_response_value(response);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	return value;
}

static void
judge(const JqHttpResponse *response, Jsonb *value, JqOutcome *outcome)
{
	char	   *quoted;

	if (response->end != JQ_HTTP_ANSWERED)
	{
		outcome->kind = JQ_OUTCOME_FAILED;
		outcome->error = psprintf("the request failed: %s", response->reason);
		outcome->is_permanent = response->end == JQ_HTTP_NOT_ALLOWED ||
			response->end == JQ_HTTP_IMPOSSIBLE;
		return;
	}
	judge_status(response->status, outcome);
	if (outcome->kind == JQ_OUTCOME_COMPLETED)
	{
		outcome->has_result = value != NULL;
		outcome->result = JsonbPGetDatum(value);
		return;
	}
	put_off(response, outcome);
	quoted = excerpt(response);
	outcome->reason_length = strlen(outcome->error);
	if (quoted != NULL)
		outcome->error = psprintf("%s: %s", outcome->error, quoted);
}

static void
judge_status(int status, JqOutcome *outcome)
{
	if (status >= 200 && status <= 299)
	{
		outcome->kind = JQ_OUTCOME_COMPLETED;
		return;
	}
	outcome->kind = JQ_OUTCOME_FAILED;
	outcome->http_status = status;
	outcome->is_permanent = !is_passing(status);
	outcome->error = psprintf("HTTP status %d%s", status,
							  status >= 300 && status <= 399 ?
							  ", a redirect that is not followed" : "");
}

/* Whether another attempt may end better. */
static bool
is_passing(int status)
{
	return status < 200 || status == 408 || status == 425 || status == 429 ||
		status >= 500;
}

/* What the server asks for, within reason. */
static void
put_off(const JqHttpResponse *response, JqOutcome *outcome)
{
	char	   *value = jq_http_response_header(response, "Retry-After");
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz last = now + jq_config_http_max_retry_after * USECS_PER_SEC;
	TimestampTz at;

	if (value != NULL && jq_retry_after_parse(value, now, &at))
		outcome->not_before = Min(at, last);
}

/* The beginning of a body that is text, on one line. */
static char *
excerpt(const JqHttpResponse *response)
{
	char	   *string = jq_http_response_text(response);
	int			length;

	if (string == NULL)
		return NULL;
	length = strlen(string);
	if (length > MAX_EXCERPT)
		length = pg_mbcliplen(string, length, MAX_EXCERPT);
	string[length] = '\0';
	for (char *c = string; *c != '\0'; c++)
		if ((unsigned char) *c < ' ')
			*c = ' ';
	return string;
}

/* ---- requests of several jobs ---- */

/*
 * Without an array of outcomes, one for each, the status stands for all.  An
 * array of another length tells nothing about any of them: they are sent once
 * more.
 */
static void
judge_items(JqHttpJob **jobs, int count, Jsonb *value, JqOutcome *outcomes)
{
	Jsonb	   *items = value == NULL ? NULL : find_items(jobs[0], value);
	int			nitems = items == NULL ? 0 : JB_ROOT_COUNT(items);

	if (items == NULL)
	{
		for (int i = 0; i < count; i++)
			outcomes[i].has_result = false;
		return;
	}
	for (int i = 0; i < count; i++)
	{
		JsonbValue *item = nitems == count ?
		getIthJsonbValueFromContainer(&items->root, i) : NULL;

		outcomes[i].has_result = false;
		if (item != NULL)
			judge_item(JsonbValueToJsonb(item), &outcomes[i]);
		else
		{
			outcomes[i].kind = JQ_OUTCOME_FAILED;
			outcomes[i].error = psprintf("the response has %d outcomes for %d jobs",
										 nitems, count);
		}
	}
}

/* NULL: there is no array of them. */
static Jsonb *
find_items(const JqHttpJob *job, Jsonb *value)
{
	if (job->batch_results != NULL)
		value = jq_json_member(value, job->batch_results);
	return value != NULL && JB_ROOT_IS_ARRAY(value) &&
		!JB_ROOT_IS_SCALAR(value) ? value : NULL;
}

/* true and null are success, false is failure, an object says more. */
static void
judge_item(Jsonb *item, JqOutcome *outcome)
{
	JsonbValue	scalar;

	if (jq_json_is_object(item))
	{
		judge_item_object(item, outcome);
		return;
	}
	outcome->has_result = true;
	outcome->result = JsonbPGetDatum(item);
	if (JB_ROOT_IS_SCALAR(item) && JsonbExtractScalar(&item->root, &scalar) &&
		scalar.type == jbvBool && !scalar.val.boolean)
	{
		outcome->kind = JQ_OUTCOME_FAILED;
		outcome->has_result = false;
		outcome->error = REFUSED_ITEM;
	}
}

/* 0: no number that a status can be. */
static int
status_of(Numeric number)
{
	double		value = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
														   NumericGetDatum(number)));

	return value >= 0 && value <= 999 ? (int) value : 0;
}

/*
 * {"status": an HTTP status or a word, "success": boolean, "error": text,
 * "permanent": boolean}: a status is judged like that of a response; else
 * "success": false or an error that is neither null nor empty means failure.
 */
static void
judge_item_object(Jsonb *item, JqOutcome *outcome)
{
	JsonbValue *status = jq_json_find(item, "status");
	JsonbValue *success = jq_json_find(item, "success");
	JsonbValue *permanent = jq_json_find(item, "permanent");
	Jsonb	   *error = jq_json_member(item, "error");
	char	   *string = error == NULL ? NULL : error_text(error);

	if (status != NULL && status->type == jbvNumeric)
	{
		outcome->is_permanent = false;
		judge_status(status_of(status->val.numeric), outcome);
		outcome->reason_length = outcome->kind == JQ_OUTCOME_FAILED ?
			strlen(outcome->error) : 0;
		if (outcome->kind == JQ_OUTCOME_FAILED && string != NULL)
			outcome->error = psprintf("%s: %s", outcome->error, string);
	}
	else if ((success != NULL && success->type == jbvBool &&
			  !success->val.boolean) || (string != NULL && string[0] != '\0'))
	{
		outcome->kind = JQ_OUTCOME_FAILED;
		outcome->error = psprintf("%s%s%s", REFUSED_ITEM, string == NULL ? "" : ": ",
								  string == NULL ? "" : string);
		outcome->reason_length = strlen(REFUSED_ITEM);
		outcome->is_permanent = permanent != NULL &&
			permanent->type == jbvBool && permanent->val.boolean;
	}
	outcome->has_result = outcome->kind == JQ_OUTCOME_COMPLETED;
	outcome->result = JsonbPGetDatum(item);
}

/*
 * What is no text is shown as JSON.  A number of few bytes can be very long:
 * so only little is written, and less is kept.
 */
static char *
error_text(Jsonb *error)
{
	char	   *string;

	if (jq_json_is_string(error))
		return jq_json_root_text(error);
	if (VARSIZE(error) > MAX_ERROR_SIZE)
		return psprintf("an error of %d bytes", (int) VARSIZE(error));
	string = JsonbToCString(NULL, &error->root, VARSIZE(error));
	if (strlen(string) > MAX_ERROR_SIZE)
	{
		char	   *beginning = pnstrdup(string, pg_mbcliplen(string, strlen(string),
															  MAX_ERROR_SIZE));

		pfree(string);
		string = beginning;
	}
	return string;
}
