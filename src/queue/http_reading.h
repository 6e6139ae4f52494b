/*-------------------------------------------------------------------------
 *
 * http_reading.h
 *	  A job while it becomes a request, for http_job.c and http_request.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HTTP_READING_H
#define JQ_HTTP_READING_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "http/template.h"
#include "queue/endpoints.h"
#include "queue/http_job.h"
#include "queue/job.h"

/* What a job is read from. */
typedef struct JqHttpReading
{
	JqHttpJob  *job;
	TupleTableSlot *slot;
	JqJob		row;
	JqEndpoint	endpoint;		/* or the defaults */
	bool		has_endpoint;
	Oid			sender;			/* whose secrets these are */
	Jsonb	   *payload;
	Jsonb	   *call;			/* the payload of the built-in type, or NULL */
	JqTemplateValues values;
	JqTemplateField fields[10];
	const char *secret_fault;
	char	   *method;			/* of a probe */
	const char *probe_payload;
} JqHttpReading;

/* Gives the job its refusal; returns false. */
extern bool jq_http_refuse(JqHttpReading *reading, const char *reason);

/*
 * Makes the request of a job whose endpoint and payload are known, or gives
 * it its refusal.  In a transaction, and in the context of the job.
 */
extern void jq_http_request_fill(JqHttpReading *reading);

#endif							/* JQ_HTTP_READING_H */
