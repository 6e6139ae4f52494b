/*-------------------------------------------------------------------------
 *
 * template.h
 *	  Placeholders of requests: in URLs, headers and bodies of endpoints.
 *
 *	  {{payload}}			the payload of the job
 *	  {{payload.a.b.0}}		a value inside of it: keys, elements from 0
 *	  {{job.id}}			a field of the job; see JQ_TEMPLATE_FIELDS
 *	  {{secret.name}}		a secret
 *	  {{items}}				the bodies of a bulk request's jobs
 *
 *	  Nothing else may stand between {{ and }}.  Values are never expanded
 *	  again.  Keys of JSON objects are not templates.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HTTP_TEMPLATE_H
#define JQ_HTTP_TEMPLATE_H

#include "postgres.h"

#include "utils/jsonb.h"

/* The fields of {{job.*}}. */
#define JQ_TEMPLATE_FIELDS \
	"id", "type", "stage", "attempt", "claim_no", "idempotency_key", \
	"correlation_id", "created_at", "scheduled_at", "group_key"

/* Kinds of placeholders, as bits. */
#define JQ_PLACEHOLDER_PAYLOAD	0x01
#define JQ_PLACEHOLDER_JOB		0x02
#define JQ_PLACEHOLDER_SECRET	0x04
#define JQ_PLACEHOLDER_ITEMS	0x08

/* What placeholders become in a text. */
typedef enum JqTemplateEscape
{
	JQ_ESCAPE_NONE,
	JQ_ESCAPE_URL				/* percent-encoded but for A-Z a-z 0-9 - . _ ~ */
} JqTemplateEscape;

/* One field of the job. */
typedef struct JqTemplateField
{
	const char *name;
	const char *value;			/* NULL: null */
	bool		is_number;		/* in JSON, it is one */
} JqTemplateField;

/* What placeholders stand for; what is not given is null or missing. */
typedef struct JqTemplateValues
{
	Jsonb	   *payload;
	const JqTemplateField *fields;
	int			nfields;
	Jsonb	   *items;

	/* The value of a secret, or NULL when there is none of that name. */
	const char *(*find_secret) (const char *name, void *secret_state);
	void	   *secret_state;
} JqTemplateValues;

/*
 * Raise 22023, naming the argument, for what is between {{ and }} and is no
 * placeholder, or one of a kind that is not allowed here.
 */
extern void jq_http_template_check(const char *string, int allowed_kinds,
								   const char *argument);
extern void jq_http_template_check_jsonb(Jsonb *document, int allowed_kinds,
										 const char *argument);

/*
 * Raises 22023 unless the URL of an endpoint is good: it is one {{secret.name}}
 * and nothing else, or a URL whose placeholders (payload, job, secret) all
 * stand in its path or query, and which is right with anything in their place.
 */
extern void jq_http_template_check_url(const char *url, const char *argument);

/* Whether there are placeholders at all; "kinds" restricts to these. */
extern bool jq_http_template_has(const char *string, int kinds);
extern bool jq_http_template_has_jsonb(Jsonb *document, int kinds);

/*
 * The text filled in, palloc'd, or NULL and the reason, a sentence for
 * errdetail without any value in it: a secret is missing, or, with
 * JQ_ESCAPE_URL, a value would make a segment "." or ".." of the path.
 * JSON strings go in as their text, null and missing values as nothing, other
 * values as JSON.  A URL that is one secret is not percent-encoded.
 */
extern char *jq_http_template_fill(const char *string,
								   const JqTemplateValues *values,
								   JqTemplateEscape escape,
								   const char **reason);

/*
 * The document with its strings filled in.  A string that is one placeholder
 * becomes the JSON value, null where it is missing.
 */
extern Jsonb *jq_http_template_fill_jsonb(Jsonb *document,
										  const JqTemplateValues *values,
										  const char **reason);

#endif							/* JQ_HTTP_TEMPLATE_H */
