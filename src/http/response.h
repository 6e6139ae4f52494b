/*-------------------------------------------------------------------------
 *
 * response.h
 *	  What is kept of an HTTP response.
 *
 *	  All of it comes from elsewhere and may be anything: what is no valid text
 *	  is kept in base64, and secrets that come back are struck out.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HTTP_RESPONSE_H
#define JQ_HTTP_RESPONSE_H

#include "postgres.h"

#include "http/client.h"
#include "utils/jsonb.h"

/*
 * Overwrites what equals one of the secrets, as it is, percent-encoded or as
 * JSON writes it, in headers and body; of a URL, also what follows its host.
 */
extern void jq_http_response_strike_out(JqHttpResponse *response,
										const char *const *secrets, int count);

/* The value of a header, palloc'd, as text; NULL: there is none. */
extern char *jq_http_response_header(const JqHttpResponse *response,
									 const char *name);

/*
 * {"status", "headers", "body" or "body_base64", "truncated", "bytes",
 * "http_version", "address", "reused", "redirects", "timings"}; without an
 * answer what there is of it.  with_body: the body is kept, too.
 */
extern Jsonb *jq_http_response_json(const JqHttpResponse *response,
									int redirects, bool with_body);

/*
 * The body as text in the encoding of the database; NULL when it is none, or
 * is not to be looked at: cut, or of another content type than JSON or text.
 */
extern char *jq_http_response_text(const JqHttpResponse *response);

/* The body as JSON; NULL when it is none.  Raises errors of jsonb. */
extern Jsonb *jq_http_response_value(const JqHttpResponse *response);

#endif							/* JQ_HTTP_RESPONSE_H */
