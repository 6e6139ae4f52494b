/*-------------------------------------------------------------------------
 *
 * endpoints.h
 *	  HTTP endpoints, cached.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_ENDPOINTS_H
#define JQ_ENDPOINTS_H

#include "postgres.h"

#include "http/client.h"
#include "http/url.h"
#include "utils/jsonb.h"

/* How the body of a request is written. */
typedef enum JqBodyType
{
	JQ_BODY_JSON,
	JQ_BODY_FORM,
	JQ_BODY_TEXT,
	JQ_BODY_BINARY
} JqBodyType;

/* Every field has its effective value: jobqueue.* where the row says NULL. */
typedef struct JqEndpoint
{
	char		name[256];
	Oid			owner;			/* InvalidOid: the role is gone */
	char	   *url;
	char	   *method;
	Jsonb	   *headers;
	Jsonb	   *body;			/* NULL: the payload */
	JqBodyType	body_type;
	Jsonb	   *batch_body;		/* NULL: a bare array */
	char	   *batch_results;	/* NULL: the response itself */
	char	   *signing_secret; /* names; NULL: none */
	char	   *client_certificate;
	char	   *tls_ca;			/* PEM; NULL: none */
	JqHttpVersion version;
	int			timeout_ms;
	int			connect_timeout_ms;
	int			low_speed_limit;	/* bytes/s; 0: none */
	int			low_speed_time; /* s */
	int			max_concurrency;
	int			max_response;	/* bytes */
	int			max_redirects;
	bool		is_enabled;
	bool		has_parts;		/* the URL is good, and has no placeholders */
	JqUrl		parts;
	bool		has_header_template;	/* there are placeholders */
	bool		has_body_template;
	bool		has_template;	/* in either or in the URL */
} JqEndpoint;

/*
 * The endpoint of this name, or NULL.  Valid until the next call that may
 * process invalidations.  In a transaction.
 */
extern const JqEndpoint *jq_endpoint(const char *name);

/* Fills in what no endpoint says: the settings, for a job with its own URL. */
extern void jq_endpoint_defaults(JqEndpoint *endpoint);

/* Grows whenever something of an endpoint may have changed. */
extern uint32 jq_endpoints_generation(void);

/* Raises 22023 unless json, form, text or binary. */
extern JqBodyType jq_body_type(const char *name, const char *argument);

#endif							/* JQ_ENDPOINTS_H */
