/*-------------------------------------------------------------------------
 *
 * ready.c
 *	  Reading the ready indexes of the live leaf.
 *
 * The index is (job_type, stage, priority, scheduled_at, id), and another one
 * for the built-in type has the owner in the place of the job type: it is read
 * for the lanes of that type.  Positions in them are row comparisons, so that
 * a million jobs with one scheduled_at, as an INSERT ... SELECT leaves them,
 * are not read again and again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/itup.h"
#include "access/relscan.h"
#include "access/skey.h"
#include "access/tableam.h"
#include "catalog/pg_collation.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "base/catalog.h"
#include "base/compat.h"
#include "queue/job_types.h"
#include "queue/ready.h"

/* Columns of the indexes. */
enum ReadyColumn
{
	READY_JOB_TYPE = 1,
	READY_OWNER = READY_JOB_TYPE,
	READY_STAGE,
	READY_PRIORITY,
	READY_SCHEDULED_AT,
	READY_ID,
	READY_NCOLUMNS = READY_ID
};

/* Columns of the index of groups. */
enum GroupColumn
{
	GROUP_JOB_TYPE = 1,
	GROUP_KEY,
	GROUP_PRIORITY,
	GROUP_SCHEDULED_AT,
	GROUP_ID
};

struct JqReadyWalk
{
	Relation	live;
	bool		is_of_owners;	/* the lanes of the built-in type, which come
								 * first */
	Relation	index;
	IndexScanDesc scan;
	Datum		head;			/* owner or job type of the lane found last; */
	Datum		stage;			/* at first, of one that comes before all */
	Datum		priority;
	bool		skips_type;		/* the next one is of another type */
};

static Oid	index_of(bool is_of_owners);
static void compare_key(ScanKey header, ScanKey members, StrategyNumber strategy,
						const JqLaneKey *key);
static void init_header(ScanKey header, int column, StrategyNumber strategy,
						ScanKey members);
static void init_member(ScanKey member, int column, Oid collation,
						RegProcedure compare, Datum value, bool is_last);
static bool read_candidate(TupleTableSlot *slot, JqCandidate *candidate);
static void start_in_group(IndexScanDesc scan, ScanKey members,
						   const char *job_type, const char *group_key, int16 priority,
						   const JqLaneKey *from);
static void begin_index(JqReadyWalk *walk, bool is_of_owners);
static void end_index(JqReadyWalk *walk);
static bool find_next(JqReadyWalk *walk);

int
jq_ready_read(Relation live, const JqLaneName *name, JqLaneKey from,
			  JqLaneKey until, int max, JqCandidate *candidates,
			  JqLaneKey *position)
{
	bool		is_of_owner = jq_job_type_is_built_in(name->job_type);
	Relation	index = index_open(index_of(is_of_owner), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(live, NULL);
	ScanKeyData keys[5];
	ScanKeyData from_members[2];
	ScanKeyData until_members[2];
	IndexScanDesc scan;
	int			count = 0;

	if (is_of_owner)
		ScanKeyInit(&keys[0], READY_OWNER, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(name->owner));
	else
		ScanKeyEntryInitialize(&keys[0], 0, READY_JOB_TYPE,
							   BTEqualStrategyNumber, InvalidOid,
							   C_COLLATION_OID, F_TEXTEQ,
							   CStringGetTextDatum(name->job_type));
	ScanKeyEntryInitialize(&keys[1], 0, READY_STAGE, BTEqualStrategyNumber,
						   InvalidOid, C_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(name->stage));
	ScanKeyInit(&keys[2], READY_PRIORITY, BTEqualStrategyNumber, F_INT2EQ,
				Int16GetDatum(name->priority));
	compare_key(&keys[3], from_members, BTGreaterEqualStrategyNumber, &from);
	compare_key(&keys[4], until_members, BTLessStrategyNumber, &until);

	*position = JQ_LANE_KEY_END;
	scan = jq_compat_index_beginscan(live, index, snapshot, lengthof(keys));
	index_rescan(scan, keys, lengthof(keys), NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (!read_candidate(slot, &candidates[count]))
			continue;
		if (++count < max)
			continue;
		*position = candidates[count - 1].key;
		position->id++;			/* an id is never the largest bigint */
		break;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	index_close(index, NoLock);
	return count;
}

static Oid
index_of(bool is_of_owners)
{
	return is_of_owners ? jq_catalog()->jobs_queue_live_owner :
		jq_catalog()->jobs_queue_live_ready;
}

/* A scan key for (scheduled_at, id) against "key". */
static void
compare_key(ScanKey header, ScanKey members, StrategyNumber strategy,
			const JqLaneKey *key)
{
	init_member(&members[0], READY_SCHEDULED_AT, InvalidOid, F_TIMESTAMPTZ_CMP,
				TimestampTzGetDatum(key->scheduled_at), false);
	init_member(&members[1], READY_ID, InvalidOid, F_BTINT8CMP,
				Int64GetDatum(key->id), true);
	init_header(header, READY_SCHEDULED_AT, strategy, members);
}

static void
init_header(ScanKey header, int column, StrategyNumber strategy,
			ScanKey members)
{
	MemSet(header, 0, sizeof(*header));
	header->sk_flags = SK_ROW_HEADER;
	header->sk_attno = column;
	header->sk_strategy = strategy;
	header->sk_argument = PointerGetDatum(members);
	for (ScanKey member = members;; member++)
	{
		member->sk_strategy = strategy;
		if (member->sk_flags & SK_ROW_END)
			break;
	}
}

static void
init_member(ScanKey member, int column, Oid collation, RegProcedure compare,
			Datum value, bool is_last)
{
	ScanKeyEntryInitialize(member, SK_ROW_MEMBER | (is_last ? SK_ROW_END : 0),
						   column, BTGreaterStrategyNumber, InvalidOid,
						   collation, compare, value);
}

/* False: it is running, or blocked. */
static bool
read_candidate(TupleTableSlot *slot, JqCandidate *candidate)
{
	bool		isnull;
	Datum		status = slot_getattr(slot, JQ_JOB_STATUS, &isnull);
	Datum		owner;

	if (VARSIZE_ANY_EXHDR(DatumGetPointer(status)) != strlen("queued") ||
		memcmp(VARDATA_ANY(DatumGetPointer(status)), "queued",
			   strlen("queued")) != 0)
		return false;
	candidate->key.scheduled_at =
		DatumGetTimestampTz(slot_getattr(slot, JQ_JOB_SCHEDULED_AT, &isnull));
	candidate->key.id = DatumGetInt64(slot_getattr(slot, JQ_JOB_ID, &isnull));
	candidate->tid = slot->tts_tid;
	candidate->is_passed = false;
	candidate->parked_until = 0;
	owner = slot_getattr(slot, JQ_JOB_OWNER, &isnull);
	candidate->owner = isnull ? InvalidOid : DatumGetObjectId(owner);
	return true;
}

bool
jq_ready_next_of_group(Relation live, const char *job_type,
					   const char *group_key, int16 priority, JqLaneKey from,
					   TimestampTz now, int64 except, JqCandidate *candidate,
					   JqLaneName *name)
{
	Relation	index = index_open(jq_catalog()->jobs_queue_live_group,
								   AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(live, NULL);
	IndexScanDesc scan = jq_compat_index_beginscan(live, index, snapshot, 3);
	ScanKeyData members[3];
	bool		is_found = false;

	start_in_group(scan, members, job_type, group_key, priority, &from);
	while (!is_found && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (!read_candidate(slot, candidate) || candidate->key.id == except)
			continue;
		priority = DatumGetInt16(slot_getattr(slot, JQ_JOB_PRIORITY, &isnull));
		if (candidate->key.scheduled_at > now)
		{
			/* So is all that follows, but for what has another priority. */
			start_in_group(scan, members, job_type, group_key, priority,
						   &JQ_LANE_KEY_END);
			continue;
		}
		is_found = jq_lane_set_name(name,
									slot_getattr(slot, JQ_JOB_JOB_TYPE, &isnull),
									slot_getattr(slot, JQ_JOB_STAGE, &isnull),
									Int16GetDatum(priority), InvalidOid);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	index_close(index, NoLock);
	return is_found;
}

/* From (priority, scheduled_at, id) of a group on; the scan needs "members". */
static void
start_in_group(IndexScanDesc scan, ScanKey members, const char *job_type,
			   const char *group_key, int16 priority, const JqLaneKey *from)
{
	ScanKeyData keys[3];

	ScanKeyEntryInitialize(&keys[0], 0, GROUP_JOB_TYPE, BTEqualStrategyNumber,
						   InvalidOid, C_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(job_type));
	ScanKeyEntryInitialize(&keys[1], 0, GROUP_KEY, BTEqualStrategyNumber,
						   InvalidOid, C_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(group_key));
	init_member(&members[0], GROUP_PRIORITY, InvalidOid, F_BTINT2CMP,
				Int16GetDatum(priority), false);
	init_member(&members[1], GROUP_SCHEDULED_AT, InvalidOid, F_TIMESTAMPTZ_CMP,
				TimestampTzGetDatum(from->scheduled_at), false);
	init_member(&members[2], GROUP_ID, InvalidOid, F_BTINT8CMP,
				Int64GetDatum(from->id), true);
	init_header(&keys[2], GROUP_PRIORITY, BTGreaterEqualStrategyNumber, members);
	index_rescan(scan, keys, lengthof(keys), NULL, 0);
}

JqReadyWalk *
jq_ready_begin_walk(Relation live)
{
	JqReadyWalk *walk = palloc0(sizeof(JqReadyWalk));

	walk->live = live;
	begin_index(walk, true);
	return walk;
}

static void
begin_index(JqReadyWalk *walk, bool is_of_owners)
{
	walk->is_of_owners = is_of_owners;
	walk->index = index_open(index_of(is_of_owners), AccessShareLock);
	walk->scan = jq_compat_index_beginscan(walk->live, walk->index,
										   GetActiveSnapshot(), 1);
	walk->scan->xs_want_itup = true;
	walk->head = is_of_owners ? ObjectIdGetDatum(InvalidOid) :
		CStringGetTextDatum("");
	walk->stage = CStringGetTextDatum("");
	walk->priority = Int16GetDatum(PG_INT16_MIN);
}

static void
end_index(JqReadyWalk *walk)
{
	index_endscan(walk->scan);
	index_close(walk->index, NoLock);
}

bool
jq_ready_next_lane(JqReadyWalk *walk, JqLaneName *name, bool *fits)
{
	for (;;)
	{
		if (find_next(walk))
		{
			/* One step for all lanes that the other index had. */
			walk->skips_type = !walk->is_of_owners &&
				jq_job_type_is_built_in(TextDatumGetCString(walk->head));
			if (walk->skips_type)
				continue;
			break;
		}
		if (!walk->is_of_owners)
			return false;
		end_index(walk);
		begin_index(walk, false);
	}
	*fits = walk->is_of_owners ?
		jq_lane_set_name(name, CStringGetTextDatum(JQ_SQL_JOB_TYPE),
						 walk->stage, walk->priority,
						 DatumGetObjectId(walk->head)) :
		jq_lane_set_name(name, walk->head, walk->stage, walk->priority,
						 InvalidOid);
	return true;
}

/*
 * Steps to the next lane of the index.
 * Only the index is looked at: to skip the dead rows of a lane would cost what
 * the memory of lanes is there to save.  Jobs without an owner, which come
 * last in the index, have no lane: nobody can run them.
 */
static bool
find_next(JqReadyWalk *walk)
{
	ScanKeyData header;
	ScanKeyData members[3];
	Datum		values[READY_NCOLUMNS];
	bool		nulls[READY_NCOLUMNS];

	if (walk->is_of_owners)
		init_member(&members[0], READY_OWNER, InvalidOid, F_BTOIDCMP,
					walk->head, false);
	else
		init_member(&members[0], READY_JOB_TYPE, C_COLLATION_OID, F_BTTEXTCMP,
					walk->head, false);
	init_member(&members[1], READY_STAGE, C_COLLATION_OID, F_BTTEXTCMP,
				walk->stage, false);
	init_member(&members[2], READY_PRIORITY, InvalidOid, F_BTINT2CMP,
				walk->priority, true);
	if (walk->skips_type)
		ScanKeyEntryInitialize(&header, 0, READY_JOB_TYPE,
							   BTGreaterStrategyNumber, InvalidOid,
							   C_COLLATION_OID, F_TEXT_GT, walk->head);
	else
		init_header(&header, READY_JOB_TYPE, BTGreaterStrategyNumber, members);
	index_rescan(walk->scan, &header, 1, NULL, 0);
	if (index_getnext_tid(walk->scan, ForwardScanDirection) == NULL)
		return false;

	index_deform_tuple(walk->scan->xs_itup, walk->scan->xs_itupdesc,
					   values, nulls);
	walk->head = walk->is_of_owners ? values[READY_OWNER - 1] :
		datumCopy(values[READY_JOB_TYPE - 1], false, -1);
	walk->stage = datumCopy(values[READY_STAGE - 1], false, -1);
	walk->priority = values[READY_PRIORITY - 1];
	return true;
}

void
jq_ready_end_walk(JqReadyWalk *walk)
{
	end_index(walk);
	pfree(walk);
}
