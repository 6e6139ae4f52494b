/*-------------------------------------------------------------------------
 *
 * user_metrics.c
 *	  Counters and timers that users name.
 *
 * A hash table of a fixed number of entries, which stay until the server ends.
 * Its lock guards who is in it; what an entry counts has a spinlock, held for
 * two additions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/hsearch.h"

#include "base/config.h"
#include "base/shared_memory.h"
#include "queue/user_metrics.h"

#define LOCK_TRANCHE "jobqueue_user_metrics"

typedef struct MetricKey
{
	Oid			database;
	int32		kind;
	char		name[JQ_USER_METRIC_NAME_SIZE];
	char		labels[JQ_USER_METRIC_LABELS_SIZE];
} MetricKey;

typedef struct MetricEntry
{
	MetricKey	key;			/* zero-padded */
	slock_t		mutex;
	int64		count;
	double		sum;
} MetricEntry;

typedef struct MetricState
{
	LWLock	   *lock;
	int			nentries;
} MetricState;

static MetricState *state = NULL;
static HTAB *table = NULL;

static void request_memory(void);
static void create_memory(void);
static MetricEntry *make_entry(const MetricKey *key);

void
jq_user_metrics_init(void)
{
	if (jq_config_max_user_metrics == 0)
		return;
	jq_shared_memory_add(request_memory, create_memory);
}

static void
request_memory(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(MetricState)));
	RequestAddinShmemSpace(hash_estimate_size(jq_config_max_user_metrics,
											  sizeof(MetricEntry)));
	RequestNamedLWLockTranche(LOCK_TRANCHE, 1);
}

/* In the postmaster at each start, and after each crash. */
static void
create_memory(void)
{
	HASHCTL		info = {
		.keysize = sizeof(MetricKey),.entrysize = sizeof(MetricEntry)
	};
	bool		found;

	state = ShmemInitStruct("jobqueue user metrics", sizeof(MetricState),
							&found);
	if (!found)
	{
		state->lock = &GetNamedLWLockTranche(LOCK_TRANCHE)->lock;
		state->nentries = 0;
	}
	table = ShmemInitHash("jobqueue user metrics table",
						  jq_config_max_user_metrics,
						  jq_config_max_user_metrics, &info,
						  HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

bool
jq_user_metric_count(JqUserMetricKind kind, const char *name,
					 const char *labels, double value)
{
	MetricKey	key;
	MetricEntry *entry;

	if (state == NULL)
		return true;
	memset(&key, 0, sizeof(key));
	key.database = MyDatabaseId;
	key.kind = kind;
	strlcpy(key.name, name, sizeof(key.name));
	strlcpy(key.labels, labels, sizeof(key.labels));

	LWLockAcquire(state->lock, LW_SHARED);
	entry = hash_search(table, &key, HASH_FIND, NULL);
	LWLockRelease(state->lock);
	if (entry == NULL)
		entry = make_entry(&key);
	if (entry == NULL)
		return false;
	SpinLockAcquire(&entry->mutex);
	entry->count++;
	entry->sum += value;
	SpinLockRelease(&entry->mutex);
	return true;
}

/* NULL: there is no room. */
static MetricEntry *
make_entry(const MetricKey *key)
{
	MetricEntry *entry = NULL;
	bool		found = true;

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	if (state->nentries < jq_config_max_user_metrics)
		entry = hash_search(table, key, HASH_ENTER_NULL, &found);
	else
		entry = hash_search(table, key, HASH_FIND, NULL);
	if (entry != NULL && !found)
	{
		state->nentries++;
		SpinLockInit(&entry->mutex);
		entry->count = 0;
		entry->sum = 0;
	}
	LWLockRelease(state->lock);
	return entry;
}

int
jq_user_metrics_list(JqUserMetric **metrics)
{
	HASH_SEQ_STATUS scan;
	MetricEntry *entry;
	int			count = 0;

	*metrics = NULL;
	if (state == NULL)
		return 0;
	*metrics = MemoryContextAllocExtended(CurrentMemoryContext,
										  sizeof(JqUserMetric) *
										  jq_config_max_user_metrics,
										  MCXT_ALLOC_HUGE);
	LWLockAcquire(state->lock, LW_SHARED);
	hash_seq_init(&scan, table);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		JqUserMetric *metric = &(*metrics)[count];

		if (entry->key.database != MyDatabaseId)
			continue;
		metric->kind = (JqUserMetricKind) entry->key.kind;
		memcpy(metric->name, entry->key.name, sizeof(metric->name));
		memcpy(metric->labels, entry->key.labels, sizeof(metric->labels));
		SpinLockAcquire(&entry->mutex);
		metric->count = entry->count;
		metric->sum = entry->sum;
		SpinLockRelease(&entry->mutex);
		count++;
	}
	LWLockRelease(state->lock);
	return count;
}
