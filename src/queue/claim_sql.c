/*-------------------------------------------------------------------------
 *
 * claim_sql.c
 *	  Finding ready jobs through SQL: the reference path.
 *
 * A claim walks the lanes by a loose index scan, which costs one descent per
 * lane however many jobs are in it, and then merges them in claim order: it
 * reads the lane with the earliest head until another lane's head comes first.
 * Rows are read without a lock and then locked one by one, skipping what
 * others hold: a FOR UPDATE in the query would lock jobs of lanes that the
 * claim does not take, and would fail with 40001 where an operator's UPDATE
 * moved a row to the other leaf meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/pairingheap.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/statement.h"
#include "queue/claim_path.h"
#include "queue/lane_walk.h"
#include "queue/limits.h"

/* Rows fetched from a lane at a time beyond those still wanted. */
#define LANE_READ_AHEAD 8

typedef struct Lane
{
	pairingheap_node node;
	char	   *job_type;
	Oid			owner;			/* of the built-in type's jobs */
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

/* The lanes that are read, in the order of their heads. */
typedef struct Reading
{
	JqClaiming *claiming;
	pairingheap *lanes;
} Reading;

/* The walk, and then the head of each lane, read without locks. */
#define LANE_HEADS \
	" SELECT l.job_type, l.stage, l.priority, h.scheduled_at, h.id" \
	" FROM lane l CROSS JOIN LATERAL (" \
	"SELECT q.scheduled_at, q.id FROM @.jobs_queue_live q" \
	" WHERE q.job_type = l.job_type AND q.stage = l.stage" \
	" AND q.priority = l.priority AND q.scheduled_at <= $1" \
	" AND (q.scheduled_at, q.id) >= (l.scheduled_at, l.id)" \
	" AND q.status = 'queued'" \
	" ORDER BY q.scheduled_at, q.id LIMIT 1) h"

static JqStatement walk_all_lanes = {
	.text = "WITH RECURSIVE " JQ_WALK_ALL_LANES LANE_HEADS,
	.nargs = 1,
	.argtypes = {TIMESTAMPTZOID}
};

static JqStatement walk_lanes_of_type = {
	.text = "WITH RECURSIVE " JQ_WALK_LANES_OF("$2") LANE_HEADS,
	.nargs = 2,
	.argtypes = {TIMESTAMPTZOID, TEXTOID}
};

static JqStatement walk_lanes_of_owner = {
	.text = "WITH RECURSIVE " JQ_WALK_LANES_OF_OWNER("$2")
	" SELECT 'sql'::text, l.stage, l.priority, h.scheduled_at, h.id"
	" FROM lane l CROSS JOIN LATERAL (SELECT q.scheduled_at, q.id"
	JQ_DUE_IN_OWNED_LANE("$1") " LIMIT 1) h WHERE l.owner = $2",
	.nargs = 2,
	.argtypes = {TIMESTAMPTZOID, REGROLEOID}
};

/* When the first job of each lane is due. */
static JqStatement next_due_of_lanes = {
	.text = "WITH RECURSIVE " JQ_WALK_ALL_LANES
	" SELECT l.job_type, h.scheduled_at, l.stage"
	" FROM lane l CROSS JOIN LATERAL ("
	"SELECT q.scheduled_at FROM @.jobs_queue_live q"
	" WHERE q.job_type = l.job_type AND q.stage = l.stage"
	" AND q.priority = l.priority"
	" AND (q.scheduled_at, q.id) >= (l.scheduled_at, l.id)"
	" AND q.status = 'queued'"
	" AND ($1 IS NULL OR q.job_type = ANY ($1))"
	" ORDER BY q.scheduled_at, q.id LIMIT 1) h",
	.nargs = 1,
	.argtypes = {TEXTARRAYOID}
};

/* The jobs of a lane from the head on, which the walk has found. */
static JqStatement read_lane = {
	.text = "SELECT ctid, scheduled_at, id FROM @.jobs_queue_live"
	" WHERE job_type = $1 AND stage = $2 AND priority = $3"
	" AND scheduled_at <= $4 AND status = 'queued'"
	" AND (scheduled_at, id) >= ($5, $6) ORDER BY scheduled_at, id",
	.nargs = 6,
	.argtypes = {
		TEXTOID, TEXTOID, INT2OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID
	}
};

/* The same of an owner. */
static JqStatement read_owned_lane = {
	.text = "SELECT q.ctid, q.scheduled_at, q.id"
	JQ_OWNED_LANE_FROM("$1", "$2", "$3", "$5", "$6")
	JQ_OWNED_LANE_DUE("$1", "$2", "$3", "$4") JQ_OWNED_LANE_ORDER,
	.nargs = 6,
	.argtypes = {
		REGROLEOID, TEXTOID, INT2OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID
	}
};

static void find_lanes(Reading *reading);
static void add_lanes(Reading *reading, const char *job_type);
static void add_found(Reading *reading, uint64 rows, Oid owner);
static void merge_lanes(Reading *reading);
static void open_lane(Reading *reading, Lane *lane);
static bool advance_lane(Reading *reading, Lane *lane);
static Datum text_array(List *strings);
static int	compare_lanes(const pairingheap_node *a, const pairingheap_node *b,
						  void *arg);

void
jq_claim_by_sql(JqClaiming *claiming)
{
	Reading		reading = {.claiming = claiming};

	find_lanes(&reading);
	merge_lanes(&reading);
}

/* Collects the lanes that have a ready job for this claim. */
static void
find_lanes(Reading *reading)
{
	ListCell   *cell;

	reading->lanes = pairingheap_allocate(compare_lanes, NULL);
	if (reading->claiming->claim->job_types == NIL)
		add_lanes(reading, NULL);
	foreach(cell, reading->claiming->claim->job_types)
		add_lanes(reading, (const char *) lfirst(cell));
}

/*
 * Those of a type, or of all types (NULL); the built-in type, which runs in
 * the server only, has those of each owner apart.
 */
static void
add_lanes(Reading *reading, const char *job_type)
{
	const JqClaim *claim = reading->claiming->claim;
	Datum		values[2] = {TimestampTzGetDatum(reading->claiming->now)};

	if (job_type == NULL)
	{
		add_found(reading, jq_statement_query(&walk_all_lanes, values, NULL, 0),
				  InvalidOid);
		if (claim->holder != 0)
			add_lanes(reading, JQ_SQL_JOB_TYPE);
		return;
	}
	if (!jq_claim_may_take(claim, jq_job_type(job_type), claim->role))
		return;
	if (jq_job_type_is_built_in(job_type))
	{
		values[1] = ObjectIdGetDatum(claim->role);
		add_found(reading, jq_statement_query(&walk_lanes_of_owner, values,
											  NULL, 0), claim->role);
		return;
	}
	values[1] = CStringGetTextDatum(job_type);
	add_found(reading, jq_statement_query(&walk_lanes_of_type, values, NULL, 0),
			  InvalidOid);
}

/* The lanes that the last statement has found. */
static void
add_found(Reading *reading, uint64 rows, Oid owner)
{
	SPITupleTable *found = SPI_tuptable;
	TimestampTz next_at;
	bool		is_probe;
	int			available;

	for (uint64 i = 0; i < rows; i++)
	{
		Lane	   *lane = palloc0(sizeof(Lane));

		SPI_tuptable = found;
		lane->job_type = TextDatumGetCString(jq_statement_value(i, 1));
		lane->owner = owner;
		lane->stage = TextDatumGetCString(jq_statement_value(i, 2));
		lane->priority = DatumGetInt16(jq_statement_value(i, 3));
		lane->scheduled_at = DatumGetTimestampTz(jq_statement_value(i, 4));
		lane->id = DatumGetInt64(jq_statement_value(i, 5));
		if (jq_limits_forget(jq_job_type(lane->job_type)))
			jq_lanes_forget();
		if (jq_claim_may_take(reading->claiming->claim,
							  jq_job_type(lane->job_type), owner) &&
			jq_claim_is_admitted(lane->job_type, lane->stage,
								 reading->claiming->now, &is_probe, &next_at) &&
			jq_claim_is_open(reading->claiming, jq_job_type(lane->job_type),
							 reading->claiming->now, &available, &next_at))
			pairingheap_add(reading->lanes, &lane->node);
	}
}

/* Takes jobs from the lane whose head comes first, until there are enough. */
static void
merge_lanes(Reading *reading)
{
	while (!pairingheap_is_empty(reading->lanes) && !reading->claiming->must_stop &&
		   reading->claiming->claimed < reading->claiming->claim->max_jobs)
	{
		Lane	   *lane = pairingheap_container(Lane, node,
												 pairingheap_remove_first(reading->lanes));
		JqTaking	taking;

		/* The walk left only the key of the head: read up to it. */
		if (lane->portal == NULL)
		{
			if (advance_lane(reading, lane))
				pairingheap_add(reading->lanes, &lane->node);
			continue;
		}
		CHECK_FOR_INTERRUPTS();
		taking = jq_claim_take(reading->claiming, &lane->tid, NULL, NULL);
		if (taking == JQ_TAKING_LIMITED || taking == JQ_TAKING_CIRCUIT)
			SPI_cursor_close(lane->portal);
		else if (advance_lane(reading, lane))
			pairingheap_add(reading->lanes, &lane->node);
	}
	while (!pairingheap_is_empty(reading->lanes))
	{
		Lane	   *lane = pairingheap_container(Lane, node,
												 pairingheap_remove_first(reading->lanes));

		if (lane->portal != NULL)
			SPI_cursor_close(lane->portal);
	}
}

/* Moves a lane to its next ready job; false, and closed, at the end. */
static bool
advance_lane(Reading *reading, Lane *lane)
{
	HeapTuple	tuple;
	bool		isnull;

	if (lane->portal == NULL)
		open_lane(reading, lane);
	if (lane->page_next >= lane->page_rows)
	{
		if (lane->page != NULL)
			SPI_freetuptable(lane->page);
		SPI_cursor_fetch(lane->portal, true, LANE_READ_AHEAD +
						 reading->claiming->claim->max_jobs - reading->claiming->claimed);
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

static void
open_lane(Reading *reading, Lane *lane)
{
	bool		is_owned = OidIsValid(lane->owner);
	Datum		values[6] = {
		is_owned ? ObjectIdGetDatum(lane->owner) :
		CStringGetTextDatum(lane->job_type),
		CStringGetTextDatum(lane->stage),
		Int16GetDatum(lane->priority),
		TimestampTzGetDatum(reading->claiming->now),
		TimestampTzGetDatum(lane->scheduled_at),
		Int64GetDatum(lane->id)
	};

	lane->portal = jq_statement_open(is_owned ? &read_owned_lane : &read_lane,
									 values, NULL);
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

TimestampTz
jq_claim_next_due_by_sql(const JqClaim *claim)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due_at = DT_NOEND;
	Datum		values[1] = {text_array(claim->job_types)};
	uint64		rows = jq_statement_query(&next_due_of_lanes, values,
										  claim->job_types == NIL ? "n" : " ",
										  0);
	SPITupleTable *found = SPI_tuptable;

	for (uint64 i = 0; i < rows; i++)
	{
		char	   *job_type;
		const JqJobType *type;
		TimestampTz scheduled_at;
		TimestampTz next_at;
		bool		is_probe;
		int			available;

		SPI_tuptable = found;
		job_type = TextDatumGetCString(jq_statement_value(i, 1));
		scheduled_at = DatumGetTimestampTz(jq_statement_value(i, 2));
		type = jq_job_type(job_type);
		if (!jq_claim_may_take(claim, type, InvalidOid))
			continue;
		if (jq_claim_is_admitted(job_type,
								 TextDatumGetCString(jq_statement_value(i, 3)),
								 now, &is_probe, &next_at) &&
			jq_claim_is_open(NULL, type, now, &available, &next_at))
			next_at = scheduled_at;
		due_at = Min(due_at, next_at);
	}
	return due_at;
}

static Datum
text_array(List *strings)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(list_length(strings), 1));
	ListCell   *cell;

	foreach(cell, strings)
		elements[foreach_current_index(cell)] =
		CStringGetTextDatum((const char *) lfirst(cell));
	return PointerGetDatum(construct_array(elements, list_length(strings),
										   TEXTOID, -1, false, TYPALIGN_INT));
}
