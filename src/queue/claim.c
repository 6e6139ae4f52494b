/*-------------------------------------------------------------------------
 *
 * claim.c
 *	  Claiming ready jobs.
 *
 * There are two ways to find them: through the lanes in shared memory
 * (claim_memory.c), and through SQL (claim_sql.c), which serves where the
 * first cannot.  Either way a job is claimed here, under the same conditions.
 *
 * Expired leases are looked for here only when no scheduler does so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/config.h"
#include "base/fault.h"
#include "base/scope.h"
#include "base/shared_state.h"
#include "queue/activity.h"
#include "queue/circuits.h"
#include "queue/claim_limits.h"
#include "queue/claim_path.h"
#include "queue/event_log.h"
#include "queue/hints.h"
#include "queue/limits.h"
#include "queue/metrics.h"
#include "queue/resolve.h"

/* How often expired leases are looked for, when nobody else does. */
#define RECLAIM_WHEN_IDLE_US (1 * USECS_PER_SEC)
#define RECLAIM_ALWAYS_US (5 * USECS_PER_SEC)

static TimestampTz last_retry_at = DT_NOEND;

/* Where the WAL of a transaction ended that had only claimed; 0: none. */
static XLogRecPtr async_claim_end = 0;

static void find_and_take(JqClaiming *claiming);
static void note_uncounted(JqClaiming *claiming, const char *name);
static bool count_types(JqClaiming *claiming);
static JqTaking reserve(JqClaiming *claiming, const JqJob *job,
						TimestampTz *now);
static bool can_use_memory(JqClaiming *claiming);
static bool find_expected(JqClaiming *claiming, const JqCandidate *expected,
						  const JqLaneName *lane, JqJob *job);
static bool is_uncommitted(JqClaiming *claiming, ItemPointer tid);
static bool block_exists(JqClaiming *claiming, ItemPointer tid);
static bool is_expected(const JqJob *job, const JqCandidate *expected,
						const JqLaneName *lane);
static bool is_of_lane(const JqJob *job, const JqLaneName *lane);
static JqTaking write_claim(JqClaiming *claiming, const JqJob *job,
							bool is_noted);
static void note_async_claim(bool is_alone);
static void commit_async_claim(XactEvent event, void *arg);
static void reclaim_if_due(bool is_idle);
static void tend_circuits_if_alone(void);

int
jq_claim(const JqClaim *claim, Tuplestorestate *rows, TupleDesc row_type)
{
	JqClaiming	claiming = {.claim = claim,.rows = rows,.retry_at = DT_NOEND};

	last_retry_at = DT_NOEND;
	if (!jq_config_enabled)
		return 0;

	tend_circuits_if_alone();
	jq_scope_enter_bare(JQ_WRITE_ENGINE);
	if (!jq_activity_may_claim(&claim->worker, claim->holder != 0))
	{
		jq_scope_leave();
		return 0;
	}
	jq_scope_prefer_indexes();
	claiming.now = GetCurrentTimestamp();
	claiming.is_alone = !TransactionIdIsValid(GetTopTransactionIdIfAny());
	claiming.parent_row = MakeSingleTupleTableSlot(row_type, &TTSOpsVirtual);
	jq_table_open(&claiming.live, jq_catalog()->jobs_queue_live);
	claiming.row = jq_table_slot(&claiming.live);
	claiming.next = jq_table_new_row(&claiming.live);
	find_and_take(&claiming);
	if (claiming.claimed < claim->max_jobs && count_types(&claiming))
		find_and_take(&claiming);
	jq_table_close(&claiming.live);
	ExecDropSingleTupleTableSlot(claiming.parent_row);
	jq_scope_leave();
	last_retry_at = claiming.retry_at;

	if (jq_config_async_claim && claim->holder == 0 && claiming.claimed > 0)
		note_async_claim(claiming.is_alone);
	if (claim->holder == 0)
		reclaim_if_due(claiming.claimed < claim->max_jobs);
	return claiming.claimed;
}

TimestampTz
jq_claim_retry_at(void)
{
	return last_retry_at;
}

bool
jq_claim_job(const JqClaim *claim, int64 job_id, Tuplestorestate *rows,
			 TupleDesc row_type, bool *is_live, JqStatus *status)
{
	JqClaiming	claiming = {.claim = claim,.rows = rows,.ignores_limits = true};
	bool		is_claimed = false;
	JqJob		job;

	jq_scope_enter(JQ_WRITE_ENGINE);
	claiming.now = GetCurrentTimestamp();
	claiming.parent_row = MakeSingleTupleTableSlot(row_type, &TTSOpsVirtual);
	jq_table_open(&claiming.live, jq_catalog()->jobs_queue_live);
	claiming.row = jq_table_slot(&claiming.live);
	claiming.next = jq_table_new_row(&claiming.live);
	if (!jq_table_lock_by_id(&claiming.live, jq_catalog()->jobs_queue_live_pkey,
							 job_id, LockTupleExclusive, claiming.row))
		*is_live = false;
	else
	{
		*is_live = true;
		jq_job_read(claiming.row, &job);
		*status = job.status;
		is_claimed = job.status == JQ_STATUS_QUEUED &&
			job.attempts < job.max_attempts &&
			write_claim(&claiming, &job, false) == JQ_TAKING_CLAIMED;
	}
	jq_table_close(&claiming.live);
	ExecDropSingleTupleTableSlot(claiming.parent_row);
	jq_scope_leave();
	return is_claimed;
}

TimestampTz
jq_claim_next_due(const JqClaim *claim)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due_at = DT_NOEND;
	const char *reason;
	JqTable		live;

	if (!jq_config_enabled)
		return DT_NOEND;
	jq_scope_enter_bare(JQ_WRITE_ENGINE);
	if (jq_activity_is_paused())
	{
		jq_scope_leave();
		return DT_NOEND;
	}
	jq_scope_prefer_indexes();
	jq_table_open(&live, jq_catalog()->jobs_queue_live);
	if (!jq_claim_has_memory(&live, now, &reason) ||
		!jq_claim_next_due_by_memory(claim, live.rel, now, &due_at))
		due_at = jq_claim_next_due_by_sql(claim);
	jq_table_close(&live);
	jq_scope_leave();
	return due_at;
}

bool
jq_claim_count_due(const char *job_type, int max, JqDueJobs **due, int *count)
{
	MemoryContext context = CurrentMemoryContext;
	JqClaiming	looking = {.now = GetCurrentTimestamp()};
	const char *reason;
	bool		is_known;

	jq_scope_enter_bare(JQ_WRITE_ENGINE);
	jq_table_open(&looking.live, jq_catalog()->jobs_queue_live);
	looking.row = jq_table_slot(&looking.live);
	is_known = jq_claim_has_memory(&looking.live, looking.now, &reason);
	if (is_known)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		is_known = jq_claim_count_due_by_memory(&looking, job_type, max, due,
												count);
		MemoryContextSwitchTo(old);
	}
	jq_table_close(&looking.live);
	jq_scope_leave();
	return is_known;
}

void
jq_claim_tend(void)
{
	TimestampTz now = GetCurrentTimestamp();
	const char *reason;
	JqTable		live;

	jq_scope_enter_bare(JQ_WRITE_ENGINE);
	jq_table_open(&live, jq_catalog()->jobs_queue_live);
	if (jq_claim_has_memory(&live, now, &reason))
		jq_claim_sweep(live.rel);
	jq_table_close(&live);
	jq_scope_leave();
}

void
jq_claim_tend_if_alone(void)
{
	if (jq_shared_scheduler_is_running(MyDatabaseId))
		return;
	jq_claim_tend();
	reclaim_if_due(true);
	tend_circuits_if_alone();
}

/* Circuits that have opened are written down by the scheduler, or else here. */
static void
tend_circuits_if_alone(void)
{
	if (jq_circuits_are_new() && !jq_shared_scheduler_is_running(MyDatabaseId))
		jq_circuits_tend();
}

bool
jq_claim_must_announce(const char *job_type, TimestampTz *due_at)
{
	JqClaim		claim = {.job_types = list_make1(unconstify(char *, job_type))};
	TimestampTz now = GetCurrentTimestamp();
	const char *reason;
	bool		must_announce;
	JqTable		live;

	*due_at = jq_claim_next_due(&claim);
	if (*due_at > now)
		return false;
	jq_scope_enter_bare(JQ_WRITE_ENGINE);
	jq_table_open(&live, jq_catalog()->jobs_queue_live);
	/* Without lanes nobody remembers: say it again. */
	must_announce = !jq_claim_has_memory(&live, now, &reason) ||
		jq_claim_announce_lanes(job_type, live.rel, now);
	jq_table_close(&live);
	jq_scope_leave();
	*due_at = DT_NOEND;
	return must_announce;
}

/* The table is locked: settings that it finds are those of now. */
static void
find_and_take(JqClaiming *claiming)
{
	bool		is_complete = false;

	if (can_use_memory(claiming))
	{
		jq_limits_begin_claim();
		is_complete = jq_claim_by_memory(claiming);
		jq_limits_end_claim();
		if (claiming->claim->holder == 0 &&
			!jq_shared_scheduler_is_running(MyDatabaseId))
			jq_claim_sweep(claiming->live.rel);
		jq_lanes_count(JQ_COUNT_MEMORY_CLAIMS, 1);
		if (is_complete || claiming->must_stop)
			return;
		jq_scope_refresh();
	}
	jq_lanes_count(JQ_COUNT_SQL_CLAIMS, 1);
	jq_limits_begin_claim();
	jq_claim_by_sql(claiming);
	jq_limits_end_claim();
}

static void
note_uncounted(JqClaiming *claiming, const char *name)
{
	ListCell   *cell;

	foreach(cell, claiming->uncounted)
		if (strcmp((const char *) lfirst(cell), name) == 0)
		return;
	claiming->uncounted = lappend(claiming->uncounted, pstrdup(name));
}

/* True: there may be more to claim by now. */
static bool
count_types(JqClaiming *claiming)
{
	bool		is_any = false;
	ListCell   *cell;

	foreach(cell, claiming->uncounted)
		if (jq_limits_count(jq_job_type((const char *) lfirst(cell)),
							claiming->live.rel))
		is_any = true;
	claiming->uncounted = NIL;
	return is_any;
}

bool
jq_claim_is_admitted(const char *job_type, const char *stage, TimestampTz now,
					 bool *is_probe, TimestampTz *next_at)
{
	JqAdmission admission = jq_circuit_look(job_type, stage, now, next_at);

	*is_probe = admission == JQ_CIRCUIT_PROBE;
	return admission != JQ_CIRCUIT_OPEN;
}

bool
jq_claim_is_open(JqClaiming *claiming, const JqJobType *type, TimestampTz now,
				 int *available, TimestampTz *next_at)
{
	*available = PG_INT32_MAX;
	if (!jq_limits_apply(&type->limits))
		return true;
	switch (jq_limits_look(type, now, available, next_at))
	{
		case JQ_LIMIT_FREE:
		case JQ_LIMIT_NO_MEMORY:
			return true;
		case JQ_LIMIT_LATER:
			if (claiming != NULL)
				claiming->retry_at = Min(claiming->retry_at, *next_at);
			return false;
		case JQ_LIMIT_UNCOUNTED:
			if (claiming == NULL)
				return true;
			note_uncounted(claiming, type->name);
			*next_at = DT_NOEND;
			return false;
		default:
			*next_at = DT_NOEND;
			return false;
	}
}

static bool
can_use_memory(JqClaiming *claiming)
{
	const char *reason;

	if (jq_claim_has_memory(&claiming->live, claiming->now, &reason))
		return true;
	if (jq_config_debug_claim_path == JQ_CLAIM_PATH_MEMORY && reason != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("shared memory cannot serve this claim: %s", reason),
				 errhint("Set jobqueue.debug_claim_path to auto.")));
	return false;
}

bool
jq_claim_may_take(const JqClaim *claim, const JqJobType *type, Oid job_owner)
{
	if (!type->is_enabled)
		return false;
	if (claim->holder == 0)
		return type->runner == JQ_RUNNER_EXTERNAL;
	if (claim->is_http)
		return type->runner == JQ_RUNNER_HTTP;
	return type->runner == JQ_RUNNER_SQL && claim->role ==
		(jq_job_type_is_built_in(type->name) ? job_owner : type->owner);
}

JqTaking
jq_claim_take(JqClaiming *claiming, ItemPointer tid,
			  const JqCandidate *expected, const JqLaneName *lane)
{
	const JqClaim *claim = claiming->claim;
	JqTable    *live = &claiming->live;
	JqJob		job;

	if (expected != NULL)
	{
		if (!find_expected(claiming, expected, lane, &job))
			return is_uncommitted(claiming, tid) ?
				JQ_TAKING_BUSY : JQ_TAKING_STALE;
	}
	else
	{
		if (!(live->is_direct ? jq_table_fetch(live, tid, claiming->row) :
			  jq_table_try_lock(live, tid, claiming->row)))
			return JQ_TAKING_BUSY;
		jq_job_read(claiming->row, &job);
	}
	/* Lanes were chosen before; a row may have changed since its offer. */
	if (expected != NULL && lane == NULL &&
		(strcmp(job.job_type, claiming->turn_type) != 0 ||
		 !jq_claim_may_take(claim, jq_job_type(job.job_type), job.owner)))
		return JQ_TAKING_STALE;
	/* Only rows that no trigger has seen are so. */
	if (job.attempts >= job.max_attempts)
		return JQ_TAKING_STALE;
	if (claim->holder != 0 && job.crashes > 0)
	{
		/* It may take the server down: nothing else must go with it. */
		if (claiming->claimed > 0 || claim->skip_suspects)
			return JQ_TAKING_BUSY;
		claiming->must_stop = true;
	}
	return write_claim(claiming, &job, expected != NULL);
}

bool
jq_claim_read(JqClaiming *claiming, const JqCandidate *candidate,
			  const JqLaneName *lane, JqJob *job)
{
	return find_expected(claiming, candidate, lane, job);
}

/*
 * Reads the job that a candidate stands for.  Its row may have got a newer
 * version, which somebody else's note of the older one has hidden.
 */
static bool
find_expected(JqClaiming *claiming, const JqCandidate *expected,
			  const JqLaneName *lane, JqJob *job)
{
	ItemPointerData tid = expected->tid;

	if (block_exists(claiming, &tid) &&
		jq_table_fetch(&claiming->live, &tid, claiming->row))
	{
		jq_job_read(claiming->row, job);
		if (is_expected(job, expected, lane))
			return true;
	}
	if (!jq_table_find_by_id(&claiming->live, jq_catalog()->jobs_queue_live_pkey,
							 expected->key.id, claiming->row))
		return false;
	jq_job_read(claiming->row, job);
	return is_expected(job, expected, lane);
}

static bool
is_uncommitted(JqClaiming *claiming, ItemPointer tid)
{
	return block_exists(claiming, tid) &&
		jq_table_is_uncommitted(&claiming->live, tid, claiming->row);
}

bool
jq_claim_is_there(JqClaiming *looking, const JqCandidate *candidate,
				  const JqLaneName *lane)
{
	ItemPointerData tid = candidate->tid;
	JqJob		job;

	return find_expected(looking, candidate, lane, &job) ||
		is_uncommitted(looking, &tid);
}

/*
 * VACUUM may have cut off the end of the table.  It cannot now: the table is
 * locked.
 */
static bool
block_exists(JqClaiming *claiming, ItemPointer tid)
{
	BlockNumber block = ItemPointerGetBlockNumber(tid);

	if (block >= claiming->blocks)
		claiming->blocks = RelationGetNumberOfBlocks(claiming->live.rel);
	return block < claiming->blocks;
}

/* A tid may have been given to another row, and a row may have changed. */
static bool
is_expected(const JqJob *job, const JqCandidate *expected,
			const JqLaneName *lane)
{
	return job->id == expected->key.id &&
		job->status == JQ_STATUS_QUEUED &&
		job->scheduled_at == expected->key.scheduled_at &&
		(lane == NULL || is_of_lane(job, lane));
}

static bool
is_of_lane(const JqJob *job, const JqLaneName *lane)
{
	return job->priority == lane->priority &&
		(!OidIsValid(lane->owner) || job->owner == lane->owner) &&
		strcmp(job->stage, lane->stage) == 0 &&
		strcmp(job->job_type, lane->job_type) == 0;
}

static JqTaking
write_claim(JqClaiming *claiming, const JqJob *job, bool is_noted)
{
	const JqClaim *claim = claiming->claim;
	TupleTableSlot *next = claiming->next;
	int64		lease_us = claim->lease_us != 0 ? claim->lease_us :
	jq_job_type(job->job_type)->lease_us;
	TimestampTz now = claiming->now;
	JqAdmission admission = JQ_CIRCUIT_CLOSED;
	bool		is_limited;
	JqTaking	taking = JQ_TAKING_CLAIMED;
	TimestampTz until;

	if (!claiming->ignores_limits)
		admission = jq_circuit_admit(job->job_type, job->stage, now, &until);
	if (admission == JQ_CIRCUIT_OPEN)
	{
		claiming->must_stop = false;
		return JQ_TAKING_CIRCUIT;
	}
	is_limited = !claiming->ignores_limits &&
		jq_limits_apply(&jq_job_type(job->job_type)->limits);
	if (is_limited)
		taking = reserve(claiming, job, &now);
	if (taking != JQ_TAKING_CLAIMED)
	{
		claiming->must_stop = false;
		if (admission == JQ_CIRCUIT_PROBE)
			jq_circuit_give_up_probe(job->job_type, job->stage);
		return taking;
	}
	jq_job_begin_change(claiming->row, next, now);
	jq_job_set_status(next, job, JQ_STATUS_RUNNING);
	jq_job_set(next, JQ_JOB_ATTEMPTS, Int16GetDatum(job->attempts + 1));
	jq_job_set(next, JQ_JOB_CLAIM_NO, Int32GetDatum(job->claim_no + 1));
	jq_job_set(next, JQ_JOB_LOCKED_BY, UUIDPGetDatum(&claim->worker));
	jq_job_set(next, JQ_JOB_LOCKED_AT, TimestampTzGetDatum(now));
	jq_job_set(next, JQ_JOB_LEASE_EXPIRES_AT,
			   TimestampTzGetDatum(now + lease_us));
	if (claim->holder != 0)
		jq_job_set(next, JQ_JOB_HOLDER, Int64GetDatum(claim->holder));
	if (claiming->live.is_direct)
	{
		TM_Result	result = jq_table_try_update(&claiming->live,
												 claiming->row, next);

		if (result != TM_Ok)
			taking = result == TM_BeingModified ? JQ_TAKING_BUSY : JQ_TAKING_STALE;
	}
	else if (!jq_table_update(&claiming->live, claiming->row, next))
		taking = JQ_TAKING_BUSY;	/* a trigger of the user's keeps it */
	if (taking != JQ_TAKING_CLAIMED)
	{
		claiming->must_stop = false;
		if (is_limited)
			jq_limits_unreserve(job->id);
		if (admission == JQ_CIRCUIT_PROBE)
			jq_circuit_give_up_probe(job->job_type, job->stage);
		return taking;
	}

	JQ_FAULT("after_claim_update");
	jq_metrics_claimed(job, now, claiming->live.is_direct);
	if (jq_event_log_has_all())
		jq_event_log_claim(job, &claim->worker);
	if (!is_noted)
		jq_hints_took_row(claiming->row);
	jq_table_convert(next, claiming->parent_row);
	tuplestore_puttupleslot(claiming->rows, claiming->parent_row);
	claiming->claimed++;
	if (admission == JQ_CIRCUIT_PROBE)
		jq_circuit_probe(job->job_type, job->stage, job->id,
						 job->claim_no + 1);
	return JQ_TAKING_CLAIMED;
}

/* Takes what limits count; an executor then takes no other job. */
static JqTaking
reserve(JqClaiming *claiming, const JqJob *job, TimestampTz *now)
{
	const JqJobType *type = jq_job_type(job->job_type);

	switch (jq_limits_reserve(type, job, now))
	{
		case JQ_LIMIT_FREE:
			/* It runs them one by one, and would keep their places. */
			if (claiming->claim->holder != 0 && !claiming->claim->is_http &&
				jq_limits_counts(&type->limits) != 0)
				claiming->must_stop = true;
			jq_claim_limits_log(type, job, *now);
			return JQ_TAKING_CLAIMED;
		case JQ_LIMIT_GROUP:
			return JQ_TAKING_GROUP;
		case JQ_LIMIT_BUSY:
			return JQ_TAKING_BUSY;
		case JQ_LIMIT_NO_MEMORY:
			if (jq_claim_limits_allow(type, job, now))
				return JQ_TAKING_CLAIMED;
			return jq_limits_have_groups(&type->limits) ?
				JQ_TAKING_GROUP : JQ_TAKING_LIMITED;
		default:
			return JQ_TAKING_LIMITED;
	}
}

/*
 * A transaction that has written nothing but claims may commit without waiting
 * for its flush: to lose it in a crash is to claim the jobs again.  What it
 * writes besides, before or after, is in its WAL.
 */
static void
note_async_claim(bool is_alone)
{
	static bool is_registered = false;

	if (!is_registered)
	{
		RegisterXactCallback(commit_async_claim, NULL);
		is_registered = true;
	}
	if (is_alone)
		async_claim_end = XactLastRecEnd;
}

static void
commit_async_claim(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT && async_claim_end != 0 &&
		async_claim_end == XactLastRecEnd && !IsTransactionBlock())
	{
		ereport(DEBUG1,
				(errmsg_internal("claim commits without waiting for its flush")));
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0,
								 false);
	}
	if (event != XACT_EVENT_PRE_COMMIT)
		async_claim_end = 0;
}

/*
 * Without a scheduler, claims take expired leases back: often when there is
 * nothing else to do, now and then in any case.  What comes back is for the
 * next call.  One look in a hundred is a thorough one: chance needs no memory
 * that sessions, which may live for one call, would have to share.
 */
static void
reclaim_if_due(bool is_idle)
{
	static TimestampTz last_at = 0;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz age = now - last_at;
	bool		is_shared;

	if (IsolationUsesXactSnapshot() || !jq_config_enabled)
		return;
	if (age >= 0 && age < (is_idle ? RECLAIM_WHEN_IDLE_US : RECLAIM_ALWAYS_US))
		return;
	if (jq_shared_scheduler_is_running(MyDatabaseId) ||
		jq_activity_is_paused())
		return;
	last_at = now;
	is_shared = jq_lanes_are_joined();
	if (is_shared && !jq_lanes_begin_duty(JQ_DUTY_RECLAIM, now))
		return;
	(void) jq_resolve_reclaim(jq_shared_incarnation(),
							  jq_shared_worker_is_alive,
							  pg_prng_double(&pg_global_prng_state) < 0.01);
	if (is_shared)
		jq_lanes_end_duty(JQ_DUTY_RECLAIM, now, RECLAIM_WHEN_IDLE_US);
}
