/*-------------------------------------------------------------------------
 *
 * claim.c
 *	  Claiming ready jobs: the reference path.
 *
 * A lane is one (job type, stage, priority) of the ready index.  A claim
 * walks the lanes by a loose index scan, which costs one descent per lane
 * however many jobs are in it, and then merges them in claim order: it reads
 * the lane with the earliest head until another lane's head comes first.
 * Rows are read without a lock and then locked one by one, skipping what
 * others hold: a FOR UPDATE in the query would lock jobs of lanes that the
 * claim does not take, and would fail with 40001 where an operator's UPDATE
 * moved a row to the other leaf meanwhile.
 *
 * Expired leases are looked for here only when no scheduler does so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "lib/pairingheap.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/config.h"
#include "base/scope.h"
#include "base/shared_state.h"
#include "base/statement.h"
#include "base/table.h"
#include "queue/claim.h"
#include "queue/job.h"
#include "queue/job_types.h"
#include "queue/lanes.h"
#include "queue/resolve.h"

/* Rows fetched from a lane at a time beyond those still wanted. */
#define LANE_READ_AHEAD 8

/* How often a backend looks for expired leases, when nobody else does. */
#define SWEEP_WHEN_IDLE_US (1 * USECS_PER_SEC)
#define SWEEP_ALWAYS_US (5 * USECS_PER_SEC)

typedef struct Lane
{
	pairingheap_node node;
	char	   *job_type;
	char	   *stage;
	int16		priority;
	TimestampTz scheduled_at;	/* key of the head, with id */
	int64		id;
	ItemPointerData tid;
	Portal		portal;			/* NULL until the lane is read */
	SPITupleTable *page;		/* rows fetched and not yet used */
	uint64		page_rows;
	uint64		page_next;
} Lane;

/* One call of jq_claim. */
typedef struct ClaimState
{
	const JqClaim *claim;
	TimestampTz now;
	pairingheap *lanes;
	JqTable		live;
	TupleTableSlot *row;		/* the version that is locked */
	TupleTableSlot *next;		/* the version that is running */
	TupleTableSlot *parent_row; /* the same in the layout of the result */
	Tuplestorestate *rows;
	int			claimed;
	bool		must_stop;		/* the job just taken runs alone */
} ClaimState;

/* The walk, and then the head of each lane, read without locks. */
#define LANE_HEADS(owner) \
	" SELECT l.job_type, l.stage, l.priority, h.scheduled_at, h.id" \
	" FROM lane l CROSS JOIN LATERAL (" \
	"SELECT q.scheduled_at, q.id FROM @.jobs_queue_live q" \
	" WHERE q.job_type = l.job_type AND q.stage = l.stage" \
	" AND q.priority = l.priority AND q.scheduled_at <= $1" \
	" AND (q.scheduled_at, q.id) >= (l.scheduled_at, l.id)" \
	" AND q.status = 'queued'" owner \
	" ORDER BY q.scheduled_at, q.id LIMIT 1) h"

static JqStatement walk_all_lanes = {
	.text = "WITH RECURSIVE " JQ_WALK_ALL_LANES LANE_HEADS(""),
	.nargs = 1,
	.argtypes = {TIMESTAMPTZOID}
};

static JqStatement walk_lanes_of_type = {
	.text = "WITH RECURSIVE " JQ_WALK_LANES_OF("$2")
	LANE_HEADS(" AND ($3 IS NULL OR q.owner = $3)"),
	.nargs = 3,
	.argtypes = {TIMESTAMPTZOID, TEXTOID, REGROLEOID}
};

/* The jobs of a lane from the head on, which the walk has found. */
static JqStatement read_lane = {
	.text = "SELECT ctid, scheduled_at, id FROM @.jobs_queue_live"
	" WHERE job_type = $1 AND stage = $2 AND priority = $3"
	" AND scheduled_at <= $4 AND status = 'queued'"
	" AND (scheduled_at, id) >= ($6, $7)"
	" AND ($5 IS NULL OR owner = $5) ORDER BY scheduled_at, id",
	.nargs = 7,
	.argtypes = {
		TEXTOID, TEXTOID, INT2OID, TIMESTAMPTZOID, REGROLEOID,
		TIMESTAMPTZOID, INT8OID
	}
};

static void sweep_if_due(ClaimState *state);
static void find_lanes(ClaimState *state);
static void add_lanes(ClaimState *state, const char *job_type);
static bool type_is_claimable(const ClaimState *state, const char *job_type,
							  Oid *owner);
static void merge_lanes(ClaimState *state);
static bool advance_lane(ClaimState *state, Lane *lane);
static void take(ClaimState *state, ItemPointer tid);
static int	compare_lanes(const pairingheap_node *a, const pairingheap_node *b,
						  void *arg);

int
jq_claim(const JqClaim *claim, Tuplestorestate *rows, TupleDesc row_type)
{
	ClaimState	state = {.claim = claim,.rows = rows};

	if (!jq_config_enabled)
		return 0;

	jq_scope_enter(JQ_WRITE_ENGINE);
	jq_scope_prefer_indexes();
	state.now = GetCurrentTimestamp();
	find_lanes(&state);
	if (!pairingheap_is_empty(state.lanes))
	{
		state.parent_row = MakeSingleTupleTableSlot(row_type, &TTSOpsVirtual);
		jq_table_open(&state.live, jq_catalog()->jobs_queue_live);
		state.row = jq_table_slot(&state.live);
		state.next = jq_table_new_row(&state.live);
		merge_lanes(&state);
		jq_table_close(&state.live);
		ExecDropSingleTupleTableSlot(state.parent_row);
	}
	jq_scope_leave();
	sweep_if_due(&state);
	return state.claimed;
}

/*
 * Without a scheduler, claims take expired leases back: often when there is
 * nothing else to do, now and then in any case.  What comes back is for the
 * next call.  One look in a hundred is a thorough one: chance needs no memory
 * that sessions, which may live for one call, would have to share.
 */
static void
sweep_if_due(ClaimState *state)
{
	static TimestampTz last_sweep = 0;
	TimestampTz age = state->now - last_sweep;

	if (state->claim->holder != 0 || IsolationUsesXactSnapshot() ||
		jq_shared_scheduler_is_running(MyDatabaseId))
		return;
	if (age >= 0 && age < (state->claimed < state->claim->max_jobs ?
						   SWEEP_WHEN_IDLE_US : SWEEP_ALWAYS_US))
		return;
	last_sweep = state->now;
	(void) jq_resolve_reclaim(jq_shared_incarnation(),
							  jq_shared_executor_is_alive,
							  pg_prng_double(&pg_global_prng_state) < 0.01);
}

/* Collects the lanes that have a ready job for this claim. */
static void
find_lanes(ClaimState *state)
{
	ListCell   *cell;

	state->lanes = pairingheap_allocate(compare_lanes, NULL);
	if (state->claim->job_types == NIL)
		add_lanes(state, NULL);
	foreach(cell, state->claim->job_types)
		add_lanes(state, (const char *) lfirst(cell));
}

static void
add_lanes(ClaimState *state, const char *job_type)
{
	Datum		values[3] = {TimestampTzGetDatum(state->now)};
	char		nulls[] = "   ";
	uint64		rows;
	SPITupleTable *found;
	Oid			owner = InvalidOid;

	if (job_type == NULL)
		rows = jq_statement_query(&walk_all_lanes, values, nulls, 0);
	else
	{
		if (!type_is_claimable(state, job_type, &owner))
			return;
		values[1] = CStringGetTextDatum(job_type);
		values[2] = ObjectIdGetDatum(owner);
		if (!OidIsValid(owner))
			nulls[2] = 'n';
		rows = jq_statement_query(&walk_lanes_of_type, values, nulls, 0);
	}
	found = SPI_tuptable;
	for (uint64 i = 0; i < rows; i++)
	{
		Lane	   *lane = palloc0(sizeof(Lane));

		SPI_tuptable = found;
		lane->job_type = TextDatumGetCString(jq_statement_value(i, 1));
		lane->stage = TextDatumGetCString(jq_statement_value(i, 2));
		lane->priority = DatumGetInt16(jq_statement_value(i, 3));
		lane->scheduled_at = DatumGetTimestampTz(jq_statement_value(i, 4));
		lane->id = DatumGetInt64(jq_statement_value(i, 5));
		if (job_type != NULL ||
			type_is_claimable(state, lane->job_type, &owner))
			pairingheap_add(state->lanes, &lane->node);
	}
}

/*
 * Whether this claim may take jobs of a type.  "owner" is set where only the
 * jobs of one owner run as the role of an in-server claim.
 */
static bool
type_is_claimable(const ClaimState *state, const char *job_type, Oid *owner)
{
	const JqJobType *type = jq_job_type(job_type);
	JqRunner	runner = state->claim->holder != 0 ?
	JQ_RUNNER_SQL : JQ_RUNNER_EXTERNAL;

	if (!type->is_enabled || type->runner != runner)
		return false;
	if (runner == JQ_RUNNER_EXTERNAL)
		return true;
	if (type->command == NULL)
		*owner = state->claim->role;
	return type->command == NULL || type->owner == state->claim->role;
}

/* Takes jobs from the lane whose head comes first, until there are enough. */
static void
merge_lanes(ClaimState *state)
{
	while (!pairingheap_is_empty(state->lanes) && !state->must_stop &&
		   state->claimed < state->claim->max_jobs)
	{
		Lane	   *lane = pairingheap_container(Lane, node,
												 pairingheap_remove_first(state->lanes));

		/* The walk left only the key of the head: read up to it. */
		if (lane->portal == NULL)
		{
			if (advance_lane(state, lane))
				pairingheap_add(state->lanes, &lane->node);
			continue;
		}
		CHECK_FOR_INTERRUPTS();
		take(state, &lane->tid);
		if (advance_lane(state, lane))
			pairingheap_add(state->lanes, &lane->node);
	}
	while (!pairingheap_is_empty(state->lanes))
	{
		Lane	   *lane = pairingheap_container(Lane, node,
												 pairingheap_remove_first(state->lanes));

		if (lane->portal != NULL)
			SPI_cursor_close(lane->portal);
	}
}

/* Moves a lane to its next ready job; false, and closed, at the end. */
static bool
advance_lane(ClaimState *state, Lane *lane)
{
	HeapTuple	tuple;
	bool		isnull;

	if (lane->portal == NULL)
	{
		const JqJobType *type = jq_job_type(lane->job_type);
		bool		by_owner = state->claim->holder != 0 && type->command == NULL;
		Datum		values[7] = {
			CStringGetTextDatum(lane->job_type),
			CStringGetTextDatum(lane->stage),
			Int16GetDatum(lane->priority),
			TimestampTzGetDatum(state->now),
			ObjectIdGetDatum(state->claim->role),
			TimestampTzGetDatum(lane->scheduled_at),
			Int64GetDatum(lane->id)
		};

		lane->portal = jq_statement_open(&read_lane, values,
										 by_owner ? "       " : "    n  ");
	}
	if (lane->page_next >= lane->page_rows)
	{
		if (lane->page != NULL)
			SPI_freetuptable(lane->page);
		SPI_cursor_fetch(lane->portal, true, LANE_READ_AHEAD +
						 state->claim->max_jobs - state->claimed);
		lane->page = SPI_tuptable;
		lane->page_rows = SPI_processed;
		lane->page_next = 0;
		if (lane->page_rows == 0)
		{
			SPI_cursor_close(lane->portal);
			return false;
		}
	}
	tuple = lane->page->vals[lane->page_next++];
	ItemPointerCopy((ItemPointer) DatumGetPointer(SPI_getbinval(tuple, lane->page->tupdesc, 1, &isnull)),
					&lane->tid);
	lane->scheduled_at = DatumGetTimestampTz(SPI_getbinval(tuple, lane->page->tupdesc, 2, &isnull));
	lane->id = DatumGetInt64(SPI_getbinval(tuple, lane->page->tupdesc, 3, &isnull));
	return true;
}

/* Claims the job at tid, unless somebody else has it. */
static void
take(ClaimState *state, ItemPointer tid)
{
	const JqClaim *claim = state->claim;
	TupleTableSlot *row = state->row;
	TupleTableSlot *next = state->next;
	JqJob		job;
	int64		lease_us;

	if (!jq_table_try_lock(&state->live, tid, row))
		return;
	jq_job_read(row, &job);
	if (claim->holder != 0 && job.crashes > 0)
	{
		/* It may take the server down: nothing else must go with it. */
		if (state->claimed > 0 || claim->skip_suspects)
			return;
		state->must_stop = true;
	}
	lease_us = claim->lease_us != 0 ? claim->lease_us :
		jq_job_type(job.job_type)->lease_us;

	jq_job_begin_change(row, next, state->now);
	jq_job_set_status(next, &job, JQ_STATUS_RUNNING);
	jq_job_set(next, JQ_JOB_ATTEMPTS, Int16GetDatum(job.attempts + 1));
	jq_job_set(next, JQ_JOB_CLAIM_NO, Int32GetDatum(job.claim_no + 1));
	jq_job_set(next, JQ_JOB_LOCKED_BY, UUIDPGetDatum(&claim->worker));
	jq_job_set(next, JQ_JOB_LOCKED_AT, TimestampTzGetDatum(state->now));
	jq_job_set(next, JQ_JOB_LEASE_EXPIRES_AT,
			   TimestampTzGetDatum(state->now + lease_us));
	if (claim->holder != 0)
		jq_job_set(next, JQ_JOB_HOLDER, Int64GetDatum(claim->holder));
	if (!jq_table_update(&state->live, row, next))
		return;					/* a trigger of the user's keeps it */

	jq_table_convert(next, state->parent_row);
	tuplestore_puttupleslot(state->rows, state->parent_row);
	state->claimed++;
}

/* The lane whose head comes first in claim order is the first of the heap. */
static int
compare_lanes(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	const Lane *left = pairingheap_const_container(Lane, node, a);
	const Lane *right = pairingheap_const_container(Lane, node, b);

	if (left->priority != right->priority)
		return left->priority < right->priority ? 1 : -1;
	if (left->scheduled_at != right->scheduled_at)
		return left->scheduled_at < right->scheduled_at ? 1 : -1;
	if (left->id != right->id)
		return left->id < right->id ? 1 : -1;
	return 0;
}
