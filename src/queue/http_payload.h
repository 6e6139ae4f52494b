/*-------------------------------------------------------------------------
 *
 * http_payload.h
 *	  The payload of a job of the built-in type "http": what to send where.
 *
 *	  {"url" or "endpoint", "method", "headers", "body", "body_type"}; what is
 *	  missing is the endpoint's, or POST, no headers, no body and json.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HTTP_PAYLOAD_H
#define JQ_HTTP_PAYLOAD_H

#include "postgres.h"

#include "utils/jsonb.h"

/* The arguments of enqueue_http(); NULL where they are null. */
typedef struct JqHttpCall
{
	const char *target;			/* URL, or name of an endpoint */
	const char *method;
	Jsonb	   *headers;
	Jsonb	   *body;
	const char *body_type;
} JqHttpCall;

/* The payload for them, unchecked. */
extern Jsonb *jq_http_payload(const JqHttpCall *call);

/*
 * Raises 22023 for what cannot be sent, 42704 for an endpoint that does not
 * exist, 42501 where the settings do not allow the host or "owner", who sends
 * it, may not use the endpoint.  InvalidOid: nobody sends it yet.
 */
extern void jq_http_payload_check(Jsonb *payload, Oid owner);

#endif							/* JQ_HTTP_PAYLOAD_H */
