/*-------------------------------------------------------------------------
 *
 * table.c
 *	  Single-row writes on our tables.
 *
 * The executor's row functions prepare constraints, indexes and triggers anew
 * for every row that is written alone, which costs more than the write.  On a
 * plain table (plain.h) all of that would do nothing: there a row goes straight
 * to the heap, and to its indexes where they need it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/plain.h"
#include "base/scope.h"
#include "base/table.h"

/* A row that is there is not missed twice in a row, but for bad luck. */
#define MAX_MISSES 10

typedef enum LookUp
{
	LOOK_UP_LOCKED,
	LOOK_UP_CHANGED,			/* somebody else has it, or had: look again */
	LOOK_UP_MISSED
} LookUp;

static void open_through_executor(JqTable *table);
static void insert_into_indexes(JqTable *table, TupleTableSlot *row,
								bool is_update, bool only_summarizing);
static TM_Result update_heap(JqTable *table, TupleTableSlot *old,
							 TupleTableSlot *row, bool wait);
static void end_look_up(JqTable *table);
pg_noreturn static void report_lost_lock(const JqTable *table, TM_Result result);
static Bitmapset *changed_columns(TupleTableSlot *old, TupleTableSlot *row);
static bool lock_by_statement(JqTable *table, int64 id,
							  LockTupleMode lock_mode, TupleTableSlot *slot);
static LookUp look_up(Relation rel, Oid pkey, int64 id,
					  LockTupleMode lock_mode, TupleTableSlot *slot);
static bool lock_version(Relation rel, ItemPointer tid,
						 LockTupleMode lock_mode, TupleTableSlot *slot);
static int	same_column(TupleDesc desc, const char *name, int place);
static bool row_exists(Relation rel, Oid pkey, int64 id);

void
jq_table_open(JqTable *table, Oid relid)
{
	memset(table, 0, sizeof(*table));
	table->rel = table_open(relid, RowExclusiveLock);
	table->is_direct = !IsolationUsesXactSnapshot() && jq_plain_is(table->rel);
	if (table->is_direct)
		return;
	jq_scope_arm();
	open_through_executor(table);
	/* AFTER triggers look for it there. */
	table->estate->es_opened_result_relations = list_make1(table->result_rel);
	jq_compat_eval_plan_qual_init(&table->epqstate, table->estate);
	AfterTriggerBeginQuery();
}

static void
open_through_executor(JqTable *table)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	table->estate = CreateExecutorState();
	rte->rtekind = RTE_RELATION;
	rte->relid = RelationGetRelid(table->rel);
	rte->relkind = table->rel->rd_rel->relkind;
	rte->rellockmode = RowExclusiveLock;
	jq_compat_init_range_table(table->estate, rte);

	table->result_rel = makeNode(ResultRelInfo);
	InitResultRelInfo(table->result_rel, table->rel, 1, NULL, 0);
	table->estate->es_output_cid = GetCurrentCommandId(true);
	table->estate->es_snapshot = GetActiveSnapshot();
	ExecOpenIndices(table->result_rel, false);
}

void
jq_table_close(JqTable *table)
{
	if (!table->is_direct)
	{
		AfterTriggerEndQuery(table->estate);
		EvalPlanQualEnd(&table->epqstate);
		ExecCloseResultRelations(table->estate);
	}
	else if (table->estate != NULL)
		ExecCloseIndices(table->result_rel);
	end_look_up(table);
	ExecResetTupleTable(table->slots, true);
	if (table->estate != NULL)
	{
		ExecResetTupleTable(table->estate->es_tupleTable, false);
		FreeExecutorState(table->estate);
	}
	table_close(table->rel, NoLock);
}

TupleTableSlot *
jq_table_slot(JqTable *table)
{
	return ExecAllocTableSlot(&table->slots, RelationGetDescr(table->rel),
							  table_slot_callbacks(table->rel));
}

TupleTableSlot *
jq_table_new_row(JqTable *table)
{
	return ExecAllocTableSlot(&table->slots, RelationGetDescr(table->rel),
							  &TTSOpsVirtual);
}

void
jq_table_insert(JqTable *table, TupleTableSlot *row)
{
	if (!table->is_direct)
	{
		ExecSimpleRelationInsert(table->result_rel, table->estate, row);
		return;
	}
	table_tuple_insert(table->rel, row, GetCurrentCommandId(true), 0, NULL);
	insert_into_indexes(table, row, false, false);
}

static void
insert_into_indexes(JqTable *table, TupleTableSlot *row, bool is_update,
					bool only_summarizing)
{
	if (!table->rel->rd_rel->relhasindex)
		return;
	if (table->estate == NULL)
		open_through_executor(table);
	jq_compat_insert_index_tuples(table->result_rel, row, table->estate,
								  is_update, only_summarizing);
	ResetPerTupleExprContext(table->estate);
}

TM_Result
jq_table_try_update(JqTable *table, TupleTableSlot *old, TupleTableSlot *row)
{
	ItemPointerData tid = old->tts_tid;
	TM_Result	result;

	Assert(table->is_direct);
	result = update_heap(table, old, row, false);

	/* It may be our own lock, or one that an UPDATE does not conflict with. */
	if (result == TM_BeingModified && jq_table_try_lock(table, &tid, old))
		result = update_heap(table, old, row, true);
	return result;
}

static TM_Result
update_heap(JqTable *table, TupleTableSlot *old, TupleTableSlot *row, bool wait)
{
	TM_FailureData failure;
	TM_Result	result;
	bool		needs_indexes;
	bool		only_summarizing;

	result = jq_compat_tuple_update(table->rel, &old->tts_tid, row,
									GetCurrentCommandId(true), wait, &failure,
									&needs_indexes, &only_summarizing);
	if (result == TM_Ok && needs_indexes)
		insert_into_indexes(table, row, true, only_summarizing);
	return result;
}

/* The row was locked before: nobody can have been faster. */
static void
report_lost_lock(const JqTable *table, TM_Result result)
{
	elog(ERROR, "unexpected result %d of a write to \"%s\"", result,
		 RelationGetRelationName(table->rel));
}

bool
jq_table_update(JqTable *table, TupleTableSlot *old, TupleTableSlot *row)
{
	if (table->is_direct)
	{
		TM_Result	result = update_heap(table, old, row, true);

		if (result != TM_Ok)
			report_lost_lock(table, result);
		return true;
	}
	EvalPlanQualSetSlot(&table->epqstate, row);
	*jq_compat_updated_columns(table->estate) = changed_columns(old, row);
	/* Only the write itself tells where the new version is. */
	ItemPointerSetInvalid(&row->tts_tid);
	ExecSimpleRelationUpdate(table->result_rel, table->estate,
							 &table->epqstate, old, row);
	return ItemPointerIsValid(&row->tts_tid);
}

/* For triggers on UPDATE OF columns. */
static Bitmapset *
changed_columns(TupleTableSlot *old, TupleTableSlot *row)
{
	TupleDesc	desc = row->tts_tupleDescriptor;
	Bitmapset  *changed = NULL;

	slot_getallattrs(old);
	slot_getallattrs(row);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (old->tts_isnull[i] != row->tts_isnull[i] ||
			(!row->tts_isnull[i] &&
			 !datumIsEqual(old->tts_values[i], row->tts_values[i],
						   column->attbyval, column->attlen)))
			changed = bms_add_member(changed,
									 i + 1 - FirstLowInvalidHeapAttributeNumber);
	}
	return changed;
}

bool
jq_table_delete(JqTable *table, TupleTableSlot *old)
{
	ItemPointerData tid = old->tts_tid;
	TupleTableSlot *left;
	bool		is_left;

	if (table->is_direct)
	{
		TM_Result	result = jq_table_delete_version(table, old);

		if (result != TM_Ok)
			report_lost_lock(table, result);
		return true;
	}
	EvalPlanQualSetSlot(&table->epqstate, old);
	ExecSimpleRelationDelete(table->result_rel, table->estate,
							 &table->epqstate, old);

	/* It does not say so when a trigger suppressed it. */
	left = MakeSingleTupleTableSlot(RelationGetDescr(table->rel),
									table_slot_callbacks(table->rel));
	is_left = table_tuple_fetch_row_version(table->rel, &tid, SnapshotSelf,
											left);
	ExecDropSingleTupleTableSlot(left);
	return !is_left;
}

TM_Result
jq_table_delete_version(JqTable *table, TupleTableSlot *old)
{
	TM_FailureData failure;

	Assert(table->is_direct);
	return table_tuple_delete(table->rel, &old->tts_tid,
							  GetCurrentCommandId(true), GetActiveSnapshot(),
							  InvalidSnapshot, true, &failure, false);
}

bool
jq_table_find_by_id(JqTable *table, Oid pkey, int64 id, TupleTableSlot *slot)
{
	ScanKeyData key;

	if (table->look_up == NULL || table->look_up_snapshot != GetActiveSnapshot())
	{
		end_look_up(table);
		table->look_up_index = index_open(pkey, AccessShareLock);
		table->look_up_snapshot = RegisterSnapshot(GetActiveSnapshot());
		table->look_up = jq_compat_index_beginscan(table->rel,
												   table->look_up_index,
												   table->look_up_snapshot, 1);
	}
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	index_rescan(table->look_up, &key, 1, NULL, 0);
	return index_getnext_slot(table->look_up, ForwardScanDirection, slot);
}

static void
end_look_up(JqTable *table)
{
	if (table->look_up == NULL)
		return;
	index_endscan(table->look_up);
	UnregisterSnapshot(table->look_up_snapshot);
	index_close(table->look_up_index, NoLock);
	table->look_up = NULL;
}

bool
jq_table_lock_by_id(JqTable *table, Oid pkey, int64 id,
					LockTupleMode lock_mode, TupleTableSlot *slot)
{
	if (IsolationUsesXactSnapshot())
		return lock_by_statement(table, id, lock_mode, slot);

	/*
	 * The lookup sees uncommitted versions, and may pass between the old and
	 * the new one of a row that is being updated: so a miss is looked at
	 * again while the row is there.
	 */
	for (int i = 0; i < MAX_MISSES; i++)
	{
		for (;;)
		{
			LookUp		result = look_up(table->rel, pkey, id, lock_mode, slot);

			CHECK_FOR_INTERRUPTS();
			if (result == LOOK_UP_LOCKED)
				return true;
			if (result == LOOK_UP_MISSED)
				break;
		}
		if (!row_exists(table->rel, pkey, id))
			return false;
	}
	return false;
}

/*
 * One try to find the newest version of a row and to lock it, in the way of
 * logical replication's apply worker, whose own function is bound to the
 * table's replica identity, which users may change.
 */
static LookUp
look_up(Relation rel, Oid pkey, int64 id, LockTupleMode lock_mode,
		TupleTableSlot *slot)
{
	SnapshotData snapshot;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	TransactionId busy = InvalidTransactionId;
	LookUp		result = LOOK_UP_MISSED;

	InitDirtySnapshot(snapshot);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	scan = systable_beginscan(rel, pkey, true, &snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		/* Set by the look at a version only. */
		busy = TransactionIdIsValid(snapshot.xmin) ? snapshot.xmin :
			snapshot.xmax;
		result = LOOK_UP_CHANGED;
		/* The scan keeps the version from being pruned meanwhile. */
		if (!TransactionIdIsValid(busy) &&
			lock_version(rel, &tuple->t_self, lock_mode, slot))
			result = LOOK_UP_LOCKED;
	}
	systable_endscan(scan);
	if (result == LOOK_UP_CHANGED && TransactionIdIsValid(busy))
		XactLockTableWait(busy, NULL, NULL, XLTW_None);
	return result;
}

/* False: somebody was faster. */
static bool
lock_version(Relation rel, ItemPointer tid, LockTupleMode lock_mode,
			 TupleTableSlot *slot)
{
	TM_FailureData failure;
	TM_Result	result;

	PushActiveSnapshot(GetLatestSnapshot());
	result = table_tuple_lock(rel, tid, GetActiveSnapshot(), slot,
							  GetCurrentCommandId(false), lock_mode,
							  LockWaitBlock, 0, &failure);
	PopActiveSnapshot();
	if (result != TM_Ok && result != TM_Updated && result != TM_Deleted)
		elog(ERROR, "unexpected result %d of a tuple lock", result);
	return result == TM_Ok;
}

/* Whether a committed row has this id, as of now. */
static bool
row_exists(Relation rel, Oid pkey, int64 id)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	SysScanDesc scan;
	bool		is_found;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	scan = systable_beginscan(rel, pkey, true, snapshot, 1, &key);
	is_found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	return is_found;
}

/* The transaction's snapshot decides, with the errors that go with it. */
static bool
lock_by_statement(JqTable *table, int64 id, LockTupleMode lock_mode,
				  TupleTableSlot *slot)
{
	Oid			argtypes[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(id)};
	char	   *query;
	bool		isnull;
	ItemPointer tid;

	jq_scope_arm();
	query = psprintf("SELECT ctid FROM %s WHERE id = $1 FOR %s",
					 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(table->rel)),
												RelationGetRelationName(table->rel)),
					 lock_mode == LockTupleShare ? "SHARE" : "UPDATE");
	if (SPI_execute_with_args(query, 1, argtypes, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not lock a row of \"%s\"",
			 RelationGetRelationName(table->rel));
	if (SPI_processed == 0)
		return false;
	tid = (ItemPointer) DatumGetPointer(SPI_getbinval(SPI_tuptable->vals[0],
													  SPI_tuptable->tupdesc,
													  1, &isnull));
	return jq_table_fetch(table, tid, slot);
}

bool
jq_table_try_lock(JqTable *table, ItemPointer tid, TupleTableSlot *slot)
{
	TM_FailureData failure;
	TM_Result	result;

	/* Look before locking: a lock on a stale tid may hit another row. */
	if (!jq_table_fetch(table, tid, slot))
		return false;
	result = table_tuple_lock(table->rel, tid, GetActiveSnapshot(), slot,
							  GetCurrentCommandId(false),
							  LockTupleNoKeyExclusive, LockWaitSkip, 0,
							  &failure);
	if ((result == TM_Updated || result == TM_Deleted) &&
		IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update")));
	return result == TM_Ok;
}

bool
jq_table_fetch(JqTable *table, ItemPointer tid, TupleTableSlot *slot)
{
	return table_tuple_fetch_row_version(table->rel, tid, GetActiveSnapshot(),
										 slot);
}

bool
jq_table_is_uncommitted(JqTable *table, ItemPointer tid, TupleTableSlot *slot)
{
	SnapshotData snapshot;

	InitDirtySnapshot(snapshot);
	return table_tuple_fetch_row_version(table->rel, tid, &snapshot, slot);
}

void
jq_table_convert(TupleTableSlot *source, TupleTableSlot *target)
{
	TupleDesc	from = source->tts_tupleDescriptor;
	TupleDesc	to = target->tts_tupleDescriptor;

	slot_getallattrs(source);
	ExecClearTuple(target);
	for (int i = 0; i < to->natts; i++)
	{
		int			j = i;

		target->tts_isnull[i] = true;
		target->tts_values[i] = (Datum) 0;
		if (TupleDescAttr(to, i)->attisdropped)
			continue;
		if (from != to)
			j = same_column(from, NameStr(TupleDescAttr(to, i)->attname), i);
		if (j < from->natts)
		{
			target->tts_values[i] = source->tts_values[j];
			target->tts_isnull[i] = source->tts_isnull[j];
		}
	}
	ExecStoreVirtualTuple(target);
}

/* Nearly always in the same place; else found by name, or natts. */
static int
same_column(TupleDesc desc, const char *name, int place)
{
	for (int i = place; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped &&
			strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0)
			return i;
	for (int i = 0; i < Min(place, desc->natts); i++)
		if (!TupleDescAttr(desc, i)->attisdropped &&
			strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0)
			return i;
	return desc->natts;
}
