/*-------------------------------------------------------------------------
 *
 * form.h
 *	  Encodings of request bodies that are not JSON.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HTTP_FORM_H
#define JQ_HTTP_FORM_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

/* Appends text percent-encoded, but for A-Z a-z 0-9 - . _ ~ (RFC 3986). */
extern void jq_percent_encode(StringInfo out, const char *string, size_t len);

/*
 * Appends an object of scalars as application/x-www-form-urlencoded: null is
 * left out, an array of scalars repeats its key.  Returns NULL, or the reason
 * why it cannot be sent so, a sentence for errdetail that quotes no value.
 */
extern const char *jq_form_encode(StringInfo out, Jsonb *fields);

/*
 * Appends the bytes that base64 text, white space in it or not, stands for.
 * Returns NULL, or the reason why it is not base64, like above.
 */
extern const char *jq_base64_decode(StringInfo out, const char *string);

#endif							/* JQ_HTTP_FORM_H */
