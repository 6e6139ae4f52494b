/*-------------------------------------------------------------------------
 *
 * signature.c
 *	  Signatures of webhooks, as of Standard Webhooks, version v1.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "http/signature.h"

#include "common/base64.h"
#include "common/hmac.h"
#include "common/sha2.h"
#include "utils/resowner.h"

#define PREFIX "whsec_"
#define VERSION "v1,"

/* longest key, in bytes; Standard Webhooks wants 24 to 64 */
#define KEY_MAX_LENGTH 1024

/* base64 of a SHA-256 */
#define ENCODED_LENGTH 44

StaticAssertDecl(2 * (sizeof(VERSION) - 1 + ENCODED_LENGTH) + 1 < JQ_SIGNATURE_SIZE,
				 "two signatures must fit");

/* A key, which wipe() has to forget. */
typedef struct Key
{
	int			len;
	uint8		bytes[KEY_MAX_LENGTH];
} Key;

static const char *read_key(const char *secret, Key *key);
static bool sign(const Key *key, const char *id, int64 timestamp,
				 const void *body, size_t body_len, char *encoded);
static bool sign_owned(const Key *key, const char *id, int64 timestamp,
					   const void *body, size_t body_len, char *encoded);
static void wipe(volatile Key *key);

const char *
jq_signature_secret_flaw(const char *secret)
{
	Key			key;
	const char *flaw = read_key(secret, &key);

	wipe(&key);
	return flaw;
}

const char *
jq_signature_write(char value[JQ_SIGNATURE_SIZE],
				   const char *secret, const char *previous_secret,
				   const char *id, int64 timestamp,
				   const void *body, size_t body_len)
{
	const char *secrets[2] = {secret, previous_secret};
	char	   *end = value;

	for (int i = 0; i < 2 && secrets[i] != NULL; i++)
	{
		Key			key;
		const char *flaw = read_key(secrets[i], &key);
		bool		is_signed;

		if (i > 0)
			*end++ = ' ';
		memcpy(end, VERSION, strlen(VERSION));
		end += strlen(VERSION);
		is_signed = flaw == NULL &&
			sign(&key, id, timestamp, body, body_len, end);
		wipe(&key);
		if (!is_signed)
		{
			*value = '\0';
			return flaw != NULL ? flaw : "The signature could not be computed.";
		}
		end += ENCODED_LENGTH;
	}
	*end = '\0';
	return NULL;
}

static const char *
read_key(const char *secret, Key *key)
{
	size_t		len = strlen(secret);

	key->len = 0;
	if (strncmp(secret, PREFIX, strlen(PREFIX)) == 0)
	{
		secret += strlen(PREFIX);
		len -= strlen(PREFIX);
		if (len > KEY_MAX_LENGTH)
			return "The secret is longer than 1024 bytes.";
		key->len = pg_b64_decode(secret, (int) len, (void *) key->bytes,
								 KEY_MAX_LENGTH);
		if (key->len < 0)
			return "The secret is not base64 after \"whsec_\".";
	}
	else if (len > KEY_MAX_LENGTH)
		return "The secret is longer than 1024 bytes.";
	else
	{
		key->len = (int) len;
		memcpy(key->bytes, secret, len);
	}
	return key->len == 0 ? "The secret is empty." : NULL;
}

/*
 * Writes ENCODED_LENGTH bytes.  The server remembers the context with a
 * resource owner, of which there is none outside transactions.
 */
static bool
sign(const Key *key, const char *id, int64 timestamp,
	 const void *body, size_t body_len, char *encoded)
{
	ResourceOwner outer = CurrentResourceOwner;
	bool		done;

	if (outer == NULL)
		CurrentResourceOwner = ResourceOwnerCreate(NULL, "jobqueue signature");
	done = sign_owned(key, id, timestamp, body, body_len, encoded);
	if (outer == NULL)
	{
		ResourceOwner own = CurrentResourceOwner;

		CurrentResourceOwner = NULL;
		ResourceOwnerDelete(own);
	}
	return done;
}

static bool
sign_owned(const Key *key, const char *id, int64 timestamp,
		   const void *body, size_t body_len, char *encoded)
{
	pg_hmac_ctx *hmac = pg_hmac_create(PG_SHA256);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	char		middle[32];
	bool		done;

	if (hmac == NULL)
		return false;
	snprintf(middle, sizeof(middle), "." INT64_FORMAT ".", timestamp);
	done = pg_hmac_init(hmac, key->bytes, key->len) == 0 &&
		pg_hmac_update(hmac, (const uint8 *) id, strlen(id)) == 0 &&
		pg_hmac_update(hmac, (const uint8 *) middle, strlen(middle)) == 0 &&
		pg_hmac_update(hmac, (const uint8 *) body, body_len) == 0 &&
		pg_hmac_final(hmac, digest, sizeof(digest)) == 0;
	pg_hmac_free(hmac);			/* wipes what it made of the key */
	return done &&
		pg_b64_encode((const void *) digest, sizeof(digest), encoded,
					  ENCODED_LENGTH) == ENCODED_LENGTH;
}

/* Writes that the compiler cannot leave out, though nobody reads them. */
static void
wipe(volatile Key *key)
{
	volatile uint8 *bytes = key->bytes;

	for (size_t i = 0; i < sizeof(key->bytes); i++)
		bytes[i] = 0;
	key->len = 0;
}
