/*-------------------------------------------------------------------------
 *
 * limit_count.c
 *	  Counting the running jobs of limited types in the table.
 *
 * Done when limits of concurrency begin to hold: when shared memory is new, or
 * when the settings did not have them before.  A dirty snapshot also shows
 * what is not committed: a claim that may yet count is counted, and an end
 * that may yet be undone is not.  What a claim that began under other settings
 * is about to write cannot be seen: so whoever counts waits for the claims
 * that are under way, which takes no longer than they do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "base/catalog.h"
#include "base/compat.h"
#include "queue/claim_limits.h"
#include "queue/groups.h"
#include "queue/limit_memory.h"
#include "queue/limit_places.h"
#include "queue/limits.h"

/* How long other claims are waited for. */
#define WAIT_MS 1000

/* Places younger than this are not compared with the table. */
#define AUDIT_AGE_US (5 * USECS_PER_SEC)
#define MAX_AUDITED 1000

static int	my_counted = -1;	/* entry that this backend counts for */

static bool begin_count(const JqJobType *type);
static void end_count(const JqJobType *type, bool is_done);
static bool wait_for_claims(void);
static bool is_claiming(int process, uint64 number);
static void count_jobs(const JqJobType *type, Relation live);
static void count_jobs_in(const JqJobType *type, Relation live,
						  Snapshot snapshot);
static void load_rates(const JqJobType *type);
static void begin_rates(JqLimitedType *entry, const JqLimits *limits);
static bool has_place(const JqJob *job, bool counts_retries);
static void add_place(const JqJobType *type, const JqJob *job);
static bool still_runs(Relation live, Relation index, TupleTableSlot *slot,
					   const JqPlace *place);
static bool runs_in(Relation live, Relation index, TupleTableSlot *slot,
					const JqPlace *place, Snapshot snapshot);
static void stop_counting(XactEvent event, void *arg);
static void stop_in_subtransaction(SubXactEvent event, SubTransactionId mySubid,
								   SubTransactionId parentSubid, void *arg);

bool
jq_limits_count(const JqJobType *type, Relation live)
{
	bool		is_done;

	if (!begin_count(type))
		return false;
	is_done = wait_for_claims();
	if (is_done && jq_limits_counts(&type->limits) != 0)
		count_jobs(type, live);
	if (is_done && !jq_limit_memory->types[my_counted].has_rates)
		load_rates(type);
	end_count(type, is_done);
	return is_done;
}

/* From here on nobody claims jobs of this type: they must be counted first. */
static bool
begin_count(const JqJobType *type)
{
	static bool is_registered = false;
	JqLimitedType *entry;

	if (!is_registered)
	{
		RegisterXactCallback(stop_counting, NULL);
		RegisterSubXactCallback(stop_in_subtransaction, NULL);
		is_registered = true;
	}
	jq_limit_lock();
	entry = jq_limit_make_type(type->name, GetCurrentTimestamp());
	if (entry != NULL && entry->counting_pid == 0)
	{
		jq_limit_forget_places(entry);
		entry->limits = type->limits;
		entry->counting_pid = MyProcPid;
		my_counted = jq_limit_type_number(entry);
	}
	jq_limit_unlock();
	return my_counted >= 0;
}

static void
end_count(const JqJobType *type, bool is_done)
{
	JqLimitedType *entry = &jq_limit_memory->types[my_counted];

	jq_limit_lock();
	entry->counting_pid = 0;
	if (is_done)
	{
		entry->counts = jq_limits_counts(&type->limits);
		entry->has_rates = type->limits.rate.max > 0 ||
			type->limits.group_rate.max > 0;
		jq_groups_settle_all(entry, GetCurrentTimestamp());
	}
	my_counted = -1;
	jq_limit_unlock();
}

/*
 * Each claim that is under way now may have looked at older settings; those
 * that begin later look at ours, for the table is locked before.
 */
static bool
wait_for_claims(void)
{
	static uint32 wait_event = 0;
	int			count = jq_limit_memory->nflags;
	uint64	   *numbers = palloc(sizeof(uint64) * count);
	int			waited_ms = 0;
	bool		was_set = false;
	int			next = 0;

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("JobqueueLimitCount");
	for (int i = 0; i < count; i++)
		numbers[i] = pg_atomic_read_u64(&jq_limit_memory->flags[i].of.number);
	for (;;)
	{
		while (next < count && !is_claiming(next, numbers[next]))
			next++;
		if (next == count || waited_ms >= WAIT_MS)
			break;
		if (WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					  1, wait_event) & WL_LATCH_SET)
			was_set = true;
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		waited_ms++;
	}
	pfree(numbers);
	/* It was set for somebody further out. */
	if (was_set)
		SetLatch(MyLatch);
	return next == count;
}

/* Whether a process is still in the claim in this database with that number. */
static bool
is_claiming(int process, uint64 number)
{
	JqClaimFlag *flag = &jq_limit_memory->flags[process];

	return number % 2 == 1 && flag->of.database == MyDatabaseId &&
		number == pg_atomic_read_u64(&flag->of.number);
}

/* In two snapshots: see still_runs(). */
static void
count_jobs(const JqJobType *type, Relation live)
{
	SnapshotData dirty;
	Snapshot	latest;

	if (!OidIsValid(jq_catalog()->jobs_queue_live_ready))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("cannot count the running jobs of type \"%s\": index \"jobs_queue_live_ready\" does not exist",
						type->name),
				 errhint("Create it again, or set the limits of the job type to NULL.")));
	InitDirtySnapshot(dirty);
	count_jobs_in(type, live, &dirty);
	latest = RegisterSnapshot(GetLatestSnapshot());
	count_jobs_in(type, live, latest);
	UnregisterSnapshot(latest);
}

static void
count_jobs_in(const JqJobType *type, Relation live, Snapshot snapshot)
{
	bool		counts_retries =
	(jq_limits_counts(&type->limits) & JQ_COUNTS_RETRIES) != 0;
	Relation	index = index_open(jq_catalog()->jobs_queue_live_ready,
								   AccessShareLock);
	TupleTableSlot *slot = table_slot_create(live, NULL);
	IndexScanDesc scan;
	ScanKeyData key;

	ScanKeyEntryInitialize(&key, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(type->name));
	scan = jq_compat_index_beginscan(live, index, snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		JqJob		job;

		CHECK_FOR_INTERRUPTS();
		jq_job_read(slot, &job);
		if (has_place(&job, counts_retries))
			add_place(type, &job);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
}

/*
 * What has begun before shared memory was new, if it may still count.  Of
 * short windows nobody has kept it: they are taken to be full.
 */
static void
load_rates(const JqJobType *type)
{
	JqLimitedType *entry = &jq_limit_memory->types[my_counted];
	int			count;
	JqLoggedClaim *claims = jq_claim_limits_logged(type, &count);

	jq_limit_lock();
	if (claims == NULL)
		begin_rates(entry, &type->limits);
	for (int i = 0; i < count; i++)
	{
		JqGroup    *group = NULL;

		jq_rate_take(&entry->rate.log, &type->limits.rate,
					 jq_rate_now(&entry->rate.log, claims[i].at));
		if (claims[i].group_key != NULL && type->limits.group_rate.max > 0)
			group = jq_limit_find_group(entry, claims[i].group_key, true);
		if (group != NULL)
			jq_rate_take(&group->rate.log, &type->limits.group_rate,
						 jq_rate_now(&group->rate.log, claims[i].at));
	}
	jq_limit_unlock();
}

/* Groups that are not known yet have to wait as long as their type. */
static void
begin_rates(JqLimitedType *entry, const JqLimits *limits)
{
	TimestampTz started_at = jq_limit_memory->started_at;
	int			count = limits->rate.burst > 0 ? limits->rate.burst :
	limits->rate.max;

	if (GetCurrentTimestamp() > started_at + Max(limits->rate.window_us,
												 limits->group_rate.window_us))
		return;
	entry->not_before = started_at + limits->group_rate.window_us;
	for (int i = 0; i < count; i++)
		jq_rate_take(&entry->rate.log, &limits->rate,
					 jq_rate_now(&entry->rate.log, started_at));
}

static bool
has_place(const JqJob *job, bool counts_retries)
{
	return job->status == JQ_STATUS_RUNNING ||
		(counts_retries && job->status == JQ_STATUS_QUEUED &&
		 job->attempts > 0 && job->group_key != NULL);
}

/* A job may be seen several times, in two versions: it has one place. */
static void
add_place(const JqJobType *type, const JqJob *job)
{
	JqLimitedType *entry = &jq_limit_memory->types[my_counted];
	bool		is_running = job->status == JQ_STATUS_RUNNING;
	JqPlace    *place;
	JqGroup    *group = NULL;

	jq_limit_lock();
	place = jq_limit_find_place(job->id);
	if (place == NULL)
		place = jq_limit_make_place(job->id);
	else if (place->counts_type)
		entry->running--;
	if (place != NULL)
	{
		if (!place->counts_group && job->group_key != NULL &&
			type->limits.group_concurrency > 0)
			group = jq_limit_find_group(entry, job->group_key, true);
		if (!place->counts_group)
			place->group = JQ_NO_GROUP;
		place->claim_no = Max(place->claim_no, job->claim_no);
		place->type = my_counted;
		place->taken_at = GetCurrentTimestamp();
		place->counts_type = type->limits.max_concurrency > 0 &&
			(is_running || place->counts_type);
		if (place->counts_type)
			entry->running++;
		if (group != NULL)
		{
			place->group = jq_limit_group_number(group);
			place->counts_group = true;
			group->running++;
		}
	}
	jq_limit_unlock();
	if (place == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("more jobs with limits are running than jobqueue.max_limited_jobs"),
				 errhint("Raise jobqueue.max_limited_jobs and restart the server.")));
}

/* ---- the audit ---- */

void
jq_limits_audit(Relation live)
{
	TimestampTz before = GetCurrentTimestamp() - AUDIT_AGE_US;
	Relation	index;
	TupleTableSlot *slot;
	JqPlace    *list;
	int			count;

	if (!jq_limit_memory_is_used())
		return;
	list = palloc(sizeof(JqPlace) * MAX_AUDITED);
	jq_limit_lock();
	count = jq_limit_list_places(list, MAX_AUDITED, before);
	jq_limit_unlock();
	index = index_open(jq_catalog()->jobs_queue_live_pkey, AccessShareLock);
	slot = table_slot_create(live, NULL);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (still_runs(live, index, slot, &list[i]))
			jq_limit_places_seen(&list[i]);
		else
			jq_limit_places_lost(&list[i]);
	}
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	pfree(list);
}

/*
 * A dirty snapshot may miss a row that moves to a new version while the index
 * is read; the other one misses none that is committed.
 */
static bool
still_runs(Relation live, Relation index, TupleTableSlot *slot,
		   const JqPlace *place)
{
	SnapshotData dirty;
	Snapshot	latest;
	bool		runs;

	InitDirtySnapshot(dirty);
	if (runs_in(live, index, slot, place, &dirty))
		return true;
	latest = RegisterSnapshot(GetLatestSnapshot());
	runs = runs_in(live, index, slot, place, latest);
	UnregisterSnapshot(latest);
	return runs;
}

static bool
runs_in(Relation live, Relation index, TupleTableSlot *slot,
		const JqPlace *place, Snapshot snapshot)
{
	IndexScanDesc scan;
	ScanKeyData key;
	bool		runs = false;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(place->id.job_id));
	scan = jq_compat_index_beginscan(live, index, snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (!runs && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		JqJob		job;

		jq_job_read(slot, &job);
		runs = has_place(&job, place->counts_group && !place->counts_type);
	}
	index_endscan(scan);
	return runs;
}

/* ---- errors ---- */

static void
stop_counting(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_ABORT || my_counted < 0)
		return;
	jq_limit_lock();
	jq_limit_memory->types[my_counted].counting_pid = 0;
	jq_limit_unlock();
	my_counted = -1;
}

static void
stop_in_subtransaction(SubXactEvent event, SubTransactionId mySubid,
					   SubTransactionId parentSubid, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		stop_counting(XACT_EVENT_ABORT, arg);
}
