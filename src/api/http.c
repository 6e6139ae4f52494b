/*-------------------------------------------------------------------------
 *
 * http.c
 *	  SQL functions about HTTP requests.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "api/arguments.h"
#include "http/url.h"
#include "queue/enqueue.h"
#include "queue/http_payload.h"
#include "queue/job_types.h"

PG_FUNCTION_INFO_V1(jobqueue_enqueue_http);
PG_FUNCTION_INFO_V1(jobqueue_http_check_url);

Datum
jobqueue_enqueue_http(PG_FUNCTION_ARGS)
{
	JqNewJob	job = {0};
	JqHttpCall	call = {0};
	Jsonb	   *payload;

	jq_argument_required(fcinfo, 0, "url");
	call.target = jq_argument_text(fcinfo, 0);
	call.body = PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1);
	call.method = jq_argument_text(fcinfo, 2);
	call.headers = PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3);
	call.body_type = jq_argument_text(fcinfo, 5);
	payload = jq_http_payload(&call);
	jq_http_payload_check(payload, GetUserId());
	jq_argument_notice_workers();

	job.job_type = CStringGetTextDatum(JQ_HTTP_JOB_TYPE);
	job.payload = JsonbPGetDatum(payload);
	job.timeout = jq_argument_datum(fcinfo, 4);
	job.has_scheduled_at = !PG_ARGISNULL(6);
	if (job.has_scheduled_at)
		job.scheduled_at = PG_GETARG_TIMESTAMPTZ(6);
	if (!PG_ARGISNULL(7))
		job.priority = PG_GETARG_INT32(7);
	job.has_max_attempts = !PG_ARGISNULL(8);
	if (job.has_max_attempts)
		job.max_attempts = PG_GETARG_INT32(8);
	job.unique_key = jq_argument_datum(fcinfo, 9);
	jq_argument_unique(fcinfo, 10, 17, &job);
	job.group_key = jq_argument_datum(fcinfo, 11);
	job.correlation_id = jq_argument_datum(fcinfo, 12);
	job.depends_on = jq_argument_datum(fcinfo, 13);
	job.tags = jq_argument_datum(fcinfo, 14);
	job.metadata = jq_argument_datum(fcinfo, 15);
	if (!PG_ARGISNULL(16))
		job.on_parent_failure =
			jq_dependencies_on_failure(jq_argument_text(fcinfo, 16));
	PG_RETURN_INT64(jq_enqueue(&job));
}

/*
 * http_check_url(url text): why a request to there would be refused now; null
 * when it would not be.  Strict.
 */
Datum
jobqueue_http_check_url(PG_FUNCTION_ARGS)
{
	JqUrl		parts;
	const char *flaw = jq_url_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)),
									&parts);

	if (flaw == NULL)
		flaw = jq_url_policy(&parts);
	if (flaw == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(flaw));
}
