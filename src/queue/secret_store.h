/*-------------------------------------------------------------------------
 *
 * secret_store.h
 *	  The tables of secrets, for those who keep their values in memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_SECRET_STORE_H
#define JQ_SECRET_STORE_H

#include "postgres.h"

#include "utils/snapshot.h"

/* The oid of one of those tables, or of its index. */
extern Oid	jq_secret_relation(const char *name);

/*
 * A stored value, or the one before it, allocated in the given context; NULL
 * when there is none.
 */
extern char *jq_secret_read(const char *name, bool is_previous,
							Snapshot snapshot, MemoryContext context);

/* Overwrites and frees one value; harmless on NULL. */
extern void jq_secret_wipe_value(char **value);

/*
 * Whether previous values have expired, and away with them.  Each inside a
 * scope, the second one of mode JQ_WRITE_ENGINE.
 */
extern bool jq_secrets_have_expired(void);
extern void jq_secrets_delete_expired(void);

#endif							/* JQ_SECRET_STORE_H */
