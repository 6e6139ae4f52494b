/*-------------------------------------------------------------------------
 *
 * table.c
 *	  Single-row writes on our tables through the executor's row functions.
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
#include "base/table.h"

/* A row that is there is not missed twice in a row, but for bad luck. */
#define MAX_MISSES 10

typedef enum LookUp
{
	LOOK_UP_LOCKED,
	LOOK_UP_CHANGED,			/* somebody else has it, or had: look again */
	LOOK_UP_MISSED
} LookUp;

static Bitmapset *changed_columns(TupleTableSlot *old, TupleTableSlot *row);
static bool lock_by_statement(JqTable *table, int64 id,
							  LockTupleMode lock_mode, TupleTableSlot *slot);
static LookUp look_up(Relation rel, Oid pkey, int64 id,
					  LockTupleMode lock_mode, TupleTableSlot *slot);
static bool lock_version(Relation rel, ItemPointer tid,
						 LockTupleMode lock_mode, TupleTableSlot *slot);
static bool row_exists(Relation rel, Oid pkey, int64 id);
static bool fetch_version(JqTable *table, ItemPointer tid,
						  TupleTableSlot *slot);

void
jq_table_open(JqTable *table, Oid relid)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	table->rel = table_open(relid, RowExclusiveLock);
	table->estate = CreateExecutorState();

	rte->rtekind = RTE_RELATION;
	rte->relid = relid;
	rte->relkind = table->rel->rd_rel->relkind;
	rte->rellockmode = RowExclusiveLock;
	jq_compat_init_range_table(table->estate, rte);

	table->result_rel = makeNode(ResultRelInfo);
	InitResultRelInfo(table->result_rel, table->rel, 1, NULL, 0);
	table->estate->es_output_cid = GetCurrentCommandId(true);
	table->estate->es_snapshot = GetActiveSnapshot();
	ExecOpenIndices(table->result_rel, false);
	/* AFTER triggers look for it there. */
	table->estate->es_opened_result_relations = list_make1(table->result_rel);
	jq_compat_eval_plan_qual_init(&table->epqstate, table->estate);
	AfterTriggerBeginQuery();
}

void
jq_table_close(JqTable *table)
{
	AfterTriggerEndQuery(table->estate);
	EvalPlanQualEnd(&table->epqstate);
	ExecCloseResultRelations(table->estate);
	ExecResetTupleTable(table->estate->es_tupleTable, true);
	FreeExecutorState(table->estate);
	table_close(table->rel, NoLock);
}

TupleTableSlot *
jq_table_slot(JqTable *table)
{
	return ExecInitExtraTupleSlot(table->estate, RelationGetDescr(table->rel),
								  table_slot_callbacks(table->rel));
}

TupleTableSlot *
jq_table_new_row(JqTable *table)
{
	return ExecInitExtraTupleSlot(table->estate, RelationGetDescr(table->rel),
								  &TTSOpsVirtual);
}

void
jq_table_insert(JqTable *table, TupleTableSlot *row)
{
	ExecSimpleRelationInsert(table->result_rel, table->estate, row);
}

bool
jq_table_update(JqTable *table, TupleTableSlot *old, TupleTableSlot *row)
{
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
	TransactionId busy;
	LookUp		result = LOOK_UP_MISSED;

	InitDirtySnapshot(snapshot);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	scan = systable_beginscan(rel, pkey, true, &snapshot, 1, &key);
	tuple = systable_getnext(scan);
	busy = TransactionIdIsValid(snapshot.xmin) ? snapshot.xmin : snapshot.xmax;
	if (HeapTupleIsValid(tuple))
	{
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
	return fetch_version(table, tid, slot);
}

bool
jq_table_try_lock(JqTable *table, ItemPointer tid, TupleTableSlot *slot)
{
	TM_FailureData failure;
	TM_Result	result;

	/* Look before locking: a lock on a stale tid may hit another row. */
	if (!fetch_version(table, tid, slot))
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

static bool
fetch_version(JqTable *table, ItemPointer tid, TupleTableSlot *slot)
{
	return table_tuple_fetch_row_version(table->rel, tid, GetActiveSnapshot(),
										 slot);
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
		Form_pg_attribute column = TupleDescAttr(to, i);
		int			j = i;

		target->tts_isnull[i] = true;
		target->tts_values[i] = (Datum) 0;
		if (column->attisdropped)
			continue;
		/* Nearly always the same place; else look it up by name. */
		if (j >= from->natts || TupleDescAttr(from, j)->attisdropped ||
			strcmp(NameStr(TupleDescAttr(from, j)->attname),
				   NameStr(column->attname)) != 0)
		{
			for (j = 0; j < from->natts; j++)
				if (!TupleDescAttr(from, j)->attisdropped &&
					strcmp(NameStr(TupleDescAttr(from, j)->attname),
						   NameStr(column->attname)) == 0)
					break;
		}
		if (j < from->natts)
		{
			target->tts_values[i] = source->tts_values[j];
			target->tts_isnull[i] = source->tts_isnull[j];
		}
	}
	ExecStoreVirtualTuple(target);
}
