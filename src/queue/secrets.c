/*-------------------------------------------------------------------------
 *
 * secrets.c
 *	  The values of secrets, for those who may use them.
 *
 * A statement trigger on the tables sends a relcache invalidation, at which
 * every backend forgets all that it knows; so a look-up costs no query.  The
 * rows are read by index scans, not by statements: results of statements are
 * copied here and there, and those copies would not be wiped.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/rows.h"
#include "queue/secret_file.h"
#include "queue/secret_store.h"
#include "queue/secrets.h"

/* More names than this are not worth remembering: start afresh. */
#define MAX_CACHED_SECRETS 1000

typedef struct CachedSecret
{
	char		name[256];		/* the hash key */
	bool		is_loaded;
	bool		exists;
	Oid			owner;			/* InvalidOid: nobody, or a role that is gone */
	JqSecret	secret;
	TimestampTz previous_until; /* of a stored one */
	char	   *path;			/* NULL: it is stored */
	JqSecretFile file;
} CachedSecret;

static MemoryContext cache_context = NULL;
static HTAB *cache = NULL;
static Oid	cached_relations[2];
static bool cache_is_stale = false;
static uint32 generation = 1;

static void prepare_cache(void);
static void wipe_cache(void);
static void forget_secrets(Datum arg, Oid relid);
static CachedSecret *look_up(const char *name);
static void load(CachedSecret *entry);
static void read_row(CachedSecret *entry, HeapTuple row, TupleDesc desc,
					 Snapshot snapshot);
static void copy_values(CachedSecret *entry, JqSecret *secret);

bool
jq_secret_find(const char *name, Oid user, JqSecret *secret,
			   const char **reason)
{
	CachedSecret *entry = NULL;
	const char *problem;

	secret->value = NULL;
	secret->previous = NULL;
	if (strlen(name) < sizeof(entry->name))
		entry = look_up(name);
	if (entry == NULL || !entry->exists)
	{
		*reason = psprintf("secret \"%s\" does not exist", name);
		return false;
	}
	if (!OidIsValid(entry->owner) || !has_privs_of_role(user, entry->owner))
	{
		const char *role = GetUserNameFromId(user, true);

		*reason = psprintf("role \"%s\" has not the rights of the owner of secret \"%s\"",
						   role != NULL ? role : "(dropped)", name);
		return false;
	}
	if (entry->path != NULL)
	{
		problem = jq_secret_file_read(entry->path, &entry->file,
									  &entry->secret, cache_context);
		if (problem != NULL)
		{
			*reason = psprintf("the file of secret \"%s\" %s", name, problem);
			return false;
		}
	}
	else if (entry->secret.value == NULL)
	{
		*reason = psprintf("secret \"%s\" has no value", name);
		return false;
	}
	copy_values(entry, secret);
	return true;
}

static void
copy_values(CachedSecret *entry, JqSecret *secret)
{
	char	  **previous = &entry->secret.previous;

	if (entry->path == NULL && *previous != NULL &&
		entry->previous_until <= GetCurrentTimestamp())
		jq_secret_wipe_value(previous);
	secret->value = pstrdup(entry->secret.value);
	if (*previous != NULL)
		secret->previous = pstrdup(*previous);
}

void
jq_secret_wipe(JqSecret *secret)
{
	jq_secret_wipe_value(&secret->value);
	jq_secret_wipe_value(&secret->previous);
}

void
jq_secret_wipe_value(char **value)
{
	if (*value == NULL)
		return;
	explicit_bzero(*value, strlen(*value));
	pfree(*value);
	*value = NULL;
}

/* An empty cache for the tables of now. */
static void
prepare_cache(void)
{
	Oid			relations[2] = {
		jq_secret_relation("http_secrets"),
		jq_secret_relation("http_secret_values")
	};
	HASHCTL		info;

	if (cache_context == NULL)
	{
		cache_context = AllocSetContextCreate(TopMemoryContext,
											  "jobqueue secrets",
											  ALLOCSET_SMALL_SIZES);
		CacheRegisterRelcacheCallback(forget_secrets, (Datum) 0);
	}
	if (cache != NULL && !cache_is_stale &&
		memcmp(relations, cached_relations, sizeof(relations)) == 0 &&
		hash_get_num_entries(cache) < MAX_CACHED_SECRETS)
		return;

	wipe_cache();
	info.keysize = sizeof(((CachedSecret *) NULL)->name);
	info.entrysize = sizeof(CachedSecret);
	info.hcxt = cache_context;
	cache = hash_create("jobqueue secrets", 16, &info,
						HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	memcpy(cached_relations, relations, sizeof(relations));
	cache_is_stale = false;
}

static void
wipe_cache(void)
{
	HASH_SEQ_STATUS entries;
	CachedSecret *entry;

	if (cache != NULL)
	{
		hash_seq_init(&entries, cache);
		while ((entry = hash_seq_search(&entries)) != NULL)
			jq_secret_wipe(&entry->secret);
	}
	cache = NULL;
	MemoryContextReset(cache_context);
}

static void
forget_secrets(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == cached_relations[0] ||
		relid == cached_relations[1])
	{
		cache_is_stale = true;
		generation++;
	}
}

uint32
jq_secrets_generation(void)
{
	return generation;
}

static CachedSecret *
look_up(const char *name)
{
	char		key[sizeof(((CachedSecret *) NULL)->name)];
	CachedSecret *entry;
	bool		found;

	prepare_cache();
	strlcpy(key, name, sizeof(key));
	entry = hash_search(cache, key, HASH_ENTER, &found);
	if (!found)
		memset((char *) entry + sizeof(key), 0, sizeof(*entry) - sizeof(key));
	if (!entry->is_loaded)
		load(entry);
	return entry;
}

/*
 * Reads the newest rows, whatever the age of the transaction's snapshot: the
 * cache outlives the transaction.  What is left of an attempt that failed is
 * read again.
 */
static void
load(CachedSecret *entry)
{
	Relation	rel = table_open(jq_secret_relation("http_secrets"),
								 AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	row;

	jq_secret_wipe(&entry->secret);
	entry->exists = false;
	ScanKeyInit(&key, SPI_fnumber(RelationGetDescr(rel), "name"),
				BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(entry->name));
	scan = systable_beginscan(rel, jq_secret_relation("http_secrets_pkey"),
							  true, snapshot, 1, &key);
	row = systable_getnext(scan);
	if (HeapTupleIsValid(row))
		read_row(entry, row, RelationGetDescr(rel), snapshot);
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	entry->is_loaded = true;
}

static void
read_row(CachedSecret *entry, HeapTuple row, TupleDesc desc, Snapshot snapshot)
{
	bool		isnull;
	Datum		value;

	value = jq_row_value(row, desc, "owner", &isnull);
	entry->owner = isnull ? InvalidOid : DatumGetObjectId(value);
	value = jq_row_value(row, desc, "file", &isnull);
	if (!isnull)
	{
		char	   *path = TextDatumGetCString(value);

		entry->path = MemoryContextStrdup(cache_context, path);
		pfree(path);
	}
	else
	{
		entry->secret.value = jq_secret_read(entry->name, false, snapshot,
											 cache_context);
		value = jq_row_value(row, desc, "previous_until", &isnull);
		entry->previous_until = isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
		entry->secret.previous = jq_secret_read(entry->name, true, snapshot,
												cache_context);
	}
	entry->exists = true;
}
