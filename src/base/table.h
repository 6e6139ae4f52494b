/*-------------------------------------------------------------------------
 *
 * table.h
 *	  Single-row writes on our tables: through the executor's row functions,
 *	  the path that logical replication's apply worker takes, where triggers
 *	  fire, constraints and partition bounds are checked; or directly, where
 *	  the table has nothing of the users' that could take part.  Indexes are
 *	  kept on both.  No rights are checked: use it inside a scope.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_TABLE_H
#define JQ_TABLE_H

#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "nodes/lockoptions.h"
#include "utils/rel.h"

typedef struct JqTable
{
	Relation	rel;
	bool		is_direct;		/* no trigger fires; READ COMMITTED */
	List	   *slots;
	EState	   *estate;			/* if direct: only once an index is written */
	ResultRelInfo *result_rel;	/* with estate */
	EPQState	epqstate;		/* if not direct */
	IndexScanDesc look_up;		/* kept between calls of find_by_id */
	Relation	look_up_index;
	Snapshot	look_up_snapshot;
} JqTable;

/*
 * Opens a table for writing; AFTER triggers fire when it is closed.  The
 * scope's snapshot must stay while the table is open.
 */
extern void jq_table_open(JqTable *table, Oid relid);
extern void jq_table_close(JqTable *table);

/* A slot for stored rows, and one for a row to be made; freed with the table. */
extern TupleTableSlot *jq_table_slot(JqTable *table);
extern TupleTableSlot *jq_table_new_row(JqTable *table);

/*
 * The row writes.  "old" must hold a row version that this transaction has
 * locked.  Slots belong to the table.
 */
extern void jq_table_insert(JqTable *table, TupleTableSlot *row);

/* These return false when a BEFORE trigger has suppressed the write. */
extern bool jq_table_update(JqTable *table, TupleTableSlot *old,
							TupleTableSlot *row);
extern bool jq_table_delete(JqTable *table, TupleTableSlot *old);

/*
 * For direct tables only.  Writes the next version of "old", which need not be
 * locked, unless somebody else has it locked (TM_BeingModified) or has changed
 * it (TM_Updated, TM_Deleted).  Never waits.
 */
extern TM_Result jq_table_try_update(JqTable *table, TupleTableSlot *old,
									 TupleTableSlot *row);

/* As above for a DELETE, which waits for whoever else has the row. */
extern TM_Result jq_table_delete_version(JqTable *table, TupleTableSlot *old);

/* Reads the row version at "tid", if the active snapshot sees it. */
extern bool jq_table_fetch(JqTable *table, ItemPointer tid,
						   TupleTableSlot *slot);

/* Whether a row version is there that may yet become visible. */
extern bool jq_table_is_uncommitted(JqTable *table, ItemPointer tid,
									TupleTableSlot *slot);

/* As jq_table_fetch, by the bigint primary key, which is always the same. */
extern bool jq_table_find_by_id(JqTable *table, Oid pkey, int64 id,
								TupleTableSlot *slot);

/*
 * Locks the row whose bigint primary key is "id", in LockTupleExclusive or
 * LockTupleShare mode, and stores it, waiting for whoever else has it.  False:
 * there is no such row any more, also when it was moved to another leaf
 * meanwhile.  REPEATABLE READ and SERIALIZABLE callers get 40001 where READ
 * COMMITTED ones see a newer row.
 */
extern bool jq_table_lock_by_id(JqTable *table, Oid pkey, int64 id,
								LockTupleMode lock_mode, TupleTableSlot *slot);

/*
 * Locks the row version at "tid" unless somebody else has it locked or has
 * changed it since the scope's snapshot; stores it.  Never waits.
 */
extern bool jq_table_try_lock(JqTable *table, ItemPointer tid,
							  TupleTableSlot *slot);

/*
 * Copies a row between leaves or from a leaf to the parent, by column name.
 * "target" takes the values of "source", which must stay.
 */
extern void jq_table_convert(TupleTableSlot *source, TupleTableSlot *target);

#endif							/* JQ_TABLE_H */
