/*-------------------------------------------------------------------------
 *
 * http.c
 *	  SQL functions about HTTP requests.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "http/url.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(jobqueue_http_check_url);

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
