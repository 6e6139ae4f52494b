/*-------------------------------------------------------------------------
 *
 * metric_memory.c
 *	  What shared memory knows of jobs in numbers.
 *
 * Two hash tables of a fixed number of entries, of types and of stages, whose
 * entries never move or go; and an array of the databases that they are of.
 * One LWLock, "jobqueue_metrics", guards who is in them, not what they count.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

#include "base/config.h"
#include "base/shared_memory.h"
#include "queue/metric_memory.h"

#define LOCK_TRANCHE "jobqueue_metrics"
#define MAX_DATABASES 128

typedef struct MetricState
{
	LWLock	   *lock;
	int			ntypes;
	int			nstages;
	JqDatabaseMetrics databases[MAX_DATABASES];
} MetricState;

typedef struct TypeKey
{
	Oid			database;
	char		name[JQ_METRIC_NAME_SIZE];
} TypeKey;

const int64 jq_metric_bounds_us[JQ_METRIC_BOUNDS] = {
	500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000,
	1000000, 2500000, 5000000, 10000000, 30000000, 60000000,
	INT64CONST(300000000), INT64CONST(900000000), INT64CONST(3600000000),
	INT64CONST(14400000000)
};

static MetricState *state = NULL;
static HTAB *types_table = NULL;
static HTAB *stages_table = NULL;

static void request_memory(void);
static void create_memory(void);
static HTAB *create_table(const char *name, Size keysize, Size entrysize);
static void *find_or_make(HTAB *table, int *count, const void *key);
static void start_type(void *entry);
static void start_stage(void *entry);
static void note_overflow(void);

void
jq_metric_memory_init(void)
{
	if (jq_config_max_stage_stats == 0)
		return;
	jq_shared_memory_add(request_memory, create_memory);
}

static void
request_memory(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(MetricState)));
	RequestAddinShmemSpace(hash_estimate_size(jq_config_max_stage_stats,
											  sizeof(JqTypeMetrics)));
	RequestAddinShmemSpace(hash_estimate_size(jq_config_max_stage_stats,
											  sizeof(JqStageMetrics)));
	RequestNamedLWLockTranche(LOCK_TRANCHE, 1);
}

/* In the postmaster at each start, and after each crash. */
static void
create_memory(void)
{
	bool		found;

	state = ShmemInitStruct("jobqueue metrics", sizeof(MetricState), &found);
	if (!found)
	{
		memset(state, 0, sizeof(*state));
		state->lock = &GetNamedLWLockTranche(LOCK_TRANCHE)->lock;
		for (int i = 0; i < MAX_DATABASES; i++)
		{
			pg_atomic_init_u64(&state->databases[i].changes, 0);
			pg_atomic_init_u64(&state->databases[i].forgotten, 0);
			pg_atomic_init_u64(&state->databases[i].as_of, 0);
			pg_atomic_init_u32(&state->databases[i].counted, 0);
			pg_atomic_init_u32(&state->databases[i].extensions[0], InvalidOid);
			pg_atomic_init_u32(&state->databases[i].extensions[1], InvalidOid);
			pg_atomic_init_u32(&state->databases[i].has_overflowed, 0);
		}
	}
	types_table = create_table("jobqueue metrics of types", sizeof(TypeKey),
							   sizeof(JqTypeMetrics));
	stages_table = create_table("jobqueue metrics of stages",
								sizeof(JqStageName), sizeof(JqStageMetrics));
}

static HTAB *
create_table(const char *name, Size keysize, Size entrysize)
{
	HASHCTL		info = {.keysize = keysize,.entrysize = entrysize};

	return ShmemInitHash(name, jq_config_max_stage_stats,
						 jq_config_max_stage_stats, &info,
						 HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

JqDatabaseMetrics *
jq_metric_database(void)
{
	static JqDatabaseMetrics *mine = NULL;

	if (mine != NULL || state == NULL || !OidIsValid(MyDatabaseId))
		return mine;
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DATABASES && mine == NULL; i++)
	{
		JqDatabaseMetrics *database = &state->databases[i];

		if (!OidIsValid(database->database))
			database->database = MyDatabaseId;
		if (database->database == MyDatabaseId)
			mine = database;
	}
	LWLockRelease(state->lock);
	return mine;
}

JqTypeMetrics *
jq_metric_type(const char *name)
{
	TypeKey		key = {0};
	JqTypeMetrics *type = NULL;

	StaticAssertStmt(offsetof(JqTypeMetrics, name) == offsetof(TypeKey, name),
					 "an entry begins with its key");
	if (state == NULL)
		return NULL;
	key.database = MyDatabaseId;
	if (strlcpy(key.name, name, JQ_METRIC_NAME_SIZE) < JQ_METRIC_NAME_SIZE)
		type = find_or_make(types_table, &state->ntypes, &key);
	if (type == NULL)
		note_overflow();
	return type;
}

JqStageMetrics *
jq_metric_stage(const char *job_type, const char *stage)
{
	JqStageName key = {0};

	if (state == NULL)
		return NULL;
	key.database = MyDatabaseId;
	if (strlcpy(key.job_type, job_type, JQ_METRIC_NAME_SIZE) >= JQ_METRIC_NAME_SIZE ||
		strlcpy(key.stage, stage, JQ_METRIC_NAME_SIZE) >= JQ_METRIC_NAME_SIZE)
		return NULL;
	return find_or_make(stages_table, &state->nstages, &key);
}

static void *
find_or_make(HTAB *table, int *count, const void *key)
{
	void	   *entry;
	bool		found = true;

	LWLockAcquire(state->lock, LW_SHARED);
	entry = hash_search(table, key, HASH_FIND, NULL);
	LWLockRelease(state->lock);
	if (entry != NULL || *count >= jq_config_max_stage_stats)
		return entry;

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	if (*count < jq_config_max_stage_stats)
		entry = hash_search(table, key, HASH_ENTER_NULL, &found);
	if (entry != NULL && !found)
	{
		(*count)++;
		if (table == types_table)
			start_type(entry);
		else
			start_stage(entry);
	}
	LWLockRelease(state->lock);
	return entry;
}

static void
start_type(void *entry)
{
	JqTypeMetrics *type = (JqTypeMetrics *) entry;

	for (int i = 0; i < JQ_STATUS_COUNT; i++)
		pg_atomic_init_u64(&type->jobs[i], 0);
	pg_atomic_init_u64(&type->scheduled, 0);
	memset(type->drift, 0, sizeof(type->drift));
}

static void
start_stage(void *entry)
{
	JqStageMetrics *stage = (JqStageMetrics *) entry;

	for (int i = 0; i < JQ_METRIC_COUNTERS; i++)
		pg_atomic_init_u64(&stage->counts[i], 0);
	for (int i = 0; i < JQ_METRIC_TIMES; i++)
	{
		pg_atomic_init_u64(&stage->us[i], 0);
		for (int b = 0; b < JQ_METRIC_BUCKETS; b++)
			pg_atomic_init_u64(&stage->buckets[i][b], 0);
	}
}

static void
note_overflow(void)
{
	JqDatabaseMetrics *database = jq_metric_database();

	if (database != NULL)
		pg_atomic_write_u32(&database->has_overflowed, 1);
}

int
jq_metric_types(JqTypeMetrics ***types)
{
	HASH_SEQ_STATUS scan;
	JqTypeMetrics *type;
	int			count = 0;

	*types = palloc(sizeof(JqTypeMetrics *) * (jq_config_max_stage_stats + 1));
	if (state == NULL)
		return 0;
	LWLockAcquire(state->lock, LW_SHARED);
	hash_seq_init(&scan, types_table);
	while ((type = hash_seq_search(&scan)) != NULL)
		if (type->database == MyDatabaseId)
			(*types)[count++] = type;
	LWLockRelease(state->lock);
	return count;
}

int
jq_metric_stages(JqStageMetrics ***stages)
{
	HASH_SEQ_STATUS scan;
	JqStageMetrics *stage;
	int			count = 0;

	*stages = palloc(sizeof(JqStageMetrics *) * (jq_config_max_stage_stats + 1));
	if (state == NULL)
		return 0;
	LWLockAcquire(state->lock, LW_SHARED);
	hash_seq_init(&scan, stages_table);
	while ((stage = hash_seq_search(&scan)) != NULL)
		if (stage->name.database == MyDatabaseId)
			(*stages)[count++] = stage;
	LWLockRelease(state->lock);
	return count;
}
