/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  What differs between the supported servers, 15 to 18, under the
 *	  newest name.  PG_VERSION_NUM appears in no other file.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_COMPAT_H
#define JQ_COMPAT_H

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "parser/parse_relation.h"
#include "postmaster/bgworker.h"
#include "replication/slot.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "jobqueue needs PostgreSQL 15 or later"
#endif

/* 16: walkers of nodes have prototypes */
#if PG_VERSION_NUM < 160000
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#include "nodes/nodeFuncs.h"
#pragma GCC diagnostic pop
#else
#include "nodes/nodeFuncs.h"
#endif

/* 18: a prefix, not a suffix */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* 16: rights moved from the range table entry to a list of their own */
#if PG_VERSION_NUM < 160000
static inline bool
member_can_set_role(Oid member, Oid role)
{
	return is_member_of_role(member, role);
}

static inline AclResult
object_aclcheck(Oid classid, Oid objectid, Oid roleid, AclMode mode)
{
	if (classid == NamespaceRelationId)
		return pg_namespace_aclcheck(objectid, roleid, mode);
	if (classid == ProcedureRelationId)
		return pg_proc_aclcheck(objectid, roleid, mode);
	Assert(classid == DatabaseRelationId);
	return pg_database_aclcheck(objectid, roleid, mode);
}
#endif

/* 17: processes are numbered in a variable of their own */
static inline int
jq_compat_my_process(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProcNumber;
#else
	return MyProc->pgprocno;
#endif
}

/* 16: it is called by what it counts, sessions from 1 */
static inline LocalPgBackendStatus *
jq_compat_session(int number)
{
#if PG_VERSION_NUM >= 160000
	return pgstat_get_local_beentry_by_index(number);
#else
	return pgstat_fetch_stat_local_beentry(number);
#endif
}

/* 17: intervals may be infinite */
#ifndef INTERVAL_NOT_FINITE
#define INTERVAL_NOT_FINITE(interval) false
#endif

/* A range table of one relation, for the executor's row functions. */
static inline void
jq_compat_init_range_table(EState *estate, RangeTblEntry *rte)
{
#if PG_VERSION_NUM >= 160000
	List	   *perminfos = NIL;

	addRTEPermissionInfo(&perminfos, rte);
#endif
#if PG_VERSION_NUM >= 180000
	ExecInitRangeTable(estate, list_make1(rte), perminfos,
					   bms_make_singleton(1));
#elif PG_VERSION_NUM >= 160000
	ExecInitRangeTable(estate, list_make1(rte), perminfos);
#else
	ExecInitRangeTable(estate, list_make1(rte));
#endif
}

/* Where that range table says which columns an UPDATE sets. */
static inline Bitmapset **
jq_compat_updated_columns(EState *estate)
{
#if PG_VERSION_NUM >= 160000
	return &linitial_node(RTEPermissionInfo, estate->es_rteperminfos)->updatedCols;
#else
	return &linitial_node(RangeTblEntry, estate->es_range_table)->updatedCols;
#endif
}

static inline void
jq_compat_eval_plan_qual_init(EPQState *epqstate, EState *estate)
{
#if PG_VERSION_NUM >= 160000
	EvalPlanQualInit(epqstate, estate, NULL, NIL, -1, NIL);
#else
	EvalPlanQualInit(epqstate, estate, NULL, NIL, -1);
#endif
}

/* 16: summarizing indexes are told apart */
static inline TM_Result
jq_compat_tuple_update(Relation rel, ItemPointer tid, TupleTableSlot *slot,
					   CommandId cid, bool wait, TM_FailureData *failure,
					   bool *needs_indexes, bool *only_summarizing)
{
	LockTupleMode lock_mode;
#if PG_VERSION_NUM >= 160000
	TU_UpdateIndexes indexes;
	TM_Result	result = table_tuple_update(rel, tid, slot, cid,
											GetActiveSnapshot(),
											InvalidSnapshot, wait, failure,
											&lock_mode, &indexes);

	*needs_indexes = result == TM_Ok && indexes != TU_None;
	*only_summarizing = result == TM_Ok && indexes == TU_Summarizing;
#else
	TM_Result	result = table_tuple_update(rel, tid, slot, cid,
											GetActiveSnapshot(),
											InvalidSnapshot, wait, failure,
											&lock_mode, needs_indexes);

	*only_summarizing = false;
#endif
	return result;
}

static inline void
jq_compat_insert_index_tuples(ResultRelInfo *result_rel, TupleTableSlot *slot,
							  EState *estate, bool is_update,
							  bool only_summarizing)
{
#if PG_VERSION_NUM >= 160000
	list_free(ExecInsertIndexTuples(result_rel, slot, estate, is_update, false,
									NULL, NIL, only_summarizing));
#else
	list_free(ExecInsertIndexTuples(result_rel, slot, estate, is_update, false,
									NULL, NIL));
#endif
}

/* 18: statistics of a scan that EXPLAIN shows */
static inline IndexScanDesc
jq_compat_index_beginscan(Relation heap, Relation index, Snapshot snapshot,
						  int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(heap, index, snapshot, nkeys, 0);
#endif
}

/* 16: the file of a relation is called so */
static inline Oid
jq_compat_file_number(Relation rel)
{
#if PG_VERSION_NUM >= 160000
	return rel->rd_locator.relNumber;
#else
	return rel->rd_node.relNode;
#endif
}

/* 17: it belongs to a resource owner, or to the process */
static inline WaitEventSet *
jq_compat_create_wait_set(MemoryContext context, int nevents)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, nevents);
#else
	return CreateWaitEventSet(context, nevents);
#endif
}

/* 17: a worker may be started for a role that cannot log in */
#if PG_VERSION_NUM >= 170000
#define JQ_CAN_BYPASS_ROLE_LOGIN 1
#else
#define JQ_CAN_BYPASS_ROLE_LOGIN 0
#define BGWORKER_BYPASS_ROLELOGINCHECK 0
#endif

/* 17: wait events of extensions have names */
#if PG_VERSION_NUM < 170000
static inline uint32
WaitEventExtensionNew(const char *name)
{
	return PG_WAIT_EXTENSION;
}
#endif

/* 18: a portal is always run once */
static inline bool
jq_compat_portal_run(Portal portal, DestReceiver *receiver,
					 QueryCompletion *completion)
{
#if PG_VERSION_NUM >= 180000
	return PortalRun(portal, FETCH_ALL, true, receiver, receiver, completion);
#else
	return PortalRun(portal, FETCH_ALL, true, true, receiver, receiver,
					 completion);
#endif
}

/* 17: or only those that follow another server's */
static inline void
jq_compat_drop_temporary_slots(void)
{
#if PG_VERSION_NUM >= 170000
	ReplicationSlotCleanup(false);
#else
	ReplicationSlotCleanup();
#endif
}

/*
 * 16: lists of locks are dlists.  Whether a process has locks in a partition
 * of the lock table, and whether one of them is advisory; the second with that
 * partition's lock held.
 */
static inline bool
jq_compat_has_proc_locks(PGPROC *proc, int partition)
{
#if PG_VERSION_NUM >= 160000
	return !dlist_is_empty(&proc->myProcLocks[partition]);
#else
	return !SHMQueueEmpty(&proc->myProcLocks[partition]);
#endif
}

static inline bool
jq_compat_has_advisory_lock(PGPROC *proc, int partition)
{
#if PG_VERSION_NUM >= 160000
	dlist_iter	iter;

	dlist_foreach(iter, &proc->myProcLocks[partition])
	{
		PROCLOCK   *lock = dlist_container(PROCLOCK, procLink, iter.cur);

		if (lock->tag.myLock->tag.locktag_lockmethodid == USER_LOCKMETHOD)
			return true;
	}
#else
	SHM_QUEUE  *locks = &proc->myProcLocks[partition];
	PROCLOCK   *lock = (PROCLOCK *) SHMQueueNext(locks, locks,
												 offsetof(PROCLOCK, procLink));

	while (lock != NULL)
	{
		if (lock->tag.myLock->tag.locktag_lockmethodid == USER_LOCKMETHOD)
			return true;
		lock = (PROCLOCK *) SHMQueueNext(locks, &lock->procLink,
										 offsetof(PROCLOCK, procLink));
	}
#endif
	return false;
}

#endif							/* JQ_COMPAT_H */
