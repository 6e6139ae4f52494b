/*-------------------------------------------------------------------------
 *
 * signature.h
 *	  Signatures of webhooks, as of Standard Webhooks, version v1: HMAC-SHA256
 *	  of "id.timestamp.body".
 *
 *	  A secret is whsec_ and base64, or else the key itself.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HTTP_SIGNATURE_H
#define JQ_HTTP_SIGNATURE_H

#include "postgres.h"

/* Room for the value of webhook-signature, two signatures and a zero byte. */
#define JQ_SIGNATURE_SIZE 96

/*
 * What makes a secret unusable as a key, a sentence for errdetail that quotes
 * nothing of it; NULL when nothing does.
 */
extern const char *jq_signature_secret_flaw(const char *secret);

/*
 * Writes the value of webhook-signature: "v1,..." and, with a second secret
 * that is valid, too (else NULL), "v1,... v1,...".  Returns NULL, or the reason
 * why not, as above.  Leaves no copy of a key in memory.  Needs no transaction.
 */
extern const char *jq_signature_write(char value[JQ_SIGNATURE_SIZE],
									  const char *secret,
									  const char *previous_secret,
									  const char *id, int64 timestamp,
									  const void *body, size_t body_len);

#endif							/* JQ_HTTP_SIGNATURE_H */
