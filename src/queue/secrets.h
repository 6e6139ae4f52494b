/*-------------------------------------------------------------------------
 *
 * secrets.h
 *	  Values that HTTP jobs need and nobody may read.
 *
 *	  Whoever gets a value here must never let it reach a message, a row, the
 *	  activity text or the memory of another job, and wipes it after use.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_SECRETS_H
#define JQ_SECRETS_H

#include "postgres.h"

/* The longest value, and the longest file, in bytes. */
#define JQ_SECRET_MAX_LENGTH 8192

/* Both are strings in the database's encoding, not empty. */
typedef struct JqSecret
{
	char	   *value;
	char	   *previous;		/* still valid after a change; NULL: none */
} JqSecret;

/*
 * The values of a secret for something that belongs to "user", allocated in
 * the current context; wipe them with jq_secret_wipe().  False, with a reason
 * in that context, when there is no such secret, user has not the rights of
 * its owner, or its file cannot be used.  The reason names the secret, as in
 *
 *		secret "token" does not exist
 *
 * and holds no part of a value.  In a transaction; a scope is not needed, and
 * nothing is written.  Costs no query while no secret changes.
 */
extern bool jq_secret_find(const char *name, Oid user, JqSecret *secret,
						   const char **reason);

/* Grows whenever a secret in the tables may have changed. */
extern uint32 jq_secrets_generation(void);

/* Overwrites and frees the values; harmless on zeroes. */
extern void jq_secret_wipe(JqSecret *secret);

/*
 * Creates or changes a secret for the current user.  keep_previous_us: how
 * long the value that was there stays valid; 0: not at all.  Raises 22023 for
 * a bad name or an empty value, 54000 for a long one, 42501 unless the user
 * may act as the owner of the secret.  No message holds a part of "value".
 * Enters a scope, as those below.
 */
extern void jq_secret_set(const char *name, const char *value,
						  int64 keep_previous_us);

/*
 * The same with a file, which is read at each use.  Raises 22023 for a path
 * that is not absolute, 55000 for a file that cannot be used.
 */
extern void jq_secret_set_file(const char *name, const char *path);

/* False when there is none of that name; raises 42501 as above. */
extern bool jq_secret_drop(const char *name);

#endif							/* JQ_SECRETS_H */
