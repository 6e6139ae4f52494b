/*-------------------------------------------------------------------------
 *
 * session.c
 *	  What a job leaves in the session of an executor.
 *
 * Most jobs leave nothing, and a batch must not pay for a DISCARD ALL after
 * each of them.  What costs next to nothing when there is nothing is removed
 * at once.  Temporary objects and advisory locks must outlive the transaction
 * that wrote under them, so they end the batch.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "body/session.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/db.h"
#include "catalog/namespace.h"
#include "commands/async.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "replication/slot.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/portal.h"

static ProcessUtility_hook_type next_utility_hook = NULL;
static bool marks_transaction = false;	/* for what follows in it */

static void note_utility(PlannedStmt *statement, const char *source,
						 bool is_read_only_tree, ProcessUtilityContext context,
						 ParamListInfo params, QueryEnvironment *environment,
						 DestReceiver *receiver, QueryCompletion *completion);
static bool holds_advisory_locks(void);

void
jq_session_init(void)
{
	next_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = note_utility;
}

/*
 * Functions, too, can decide when the constraints of those that follow are
 * checked, or make enum values that cannot be used before the commit.
 */
static void
note_utility(PlannedStmt *statement, const char *source,
			 bool is_read_only_tree, ProcessUtilityContext context,
			 ParamListInfo params, QueryEnvironment *environment,
			 DestReceiver *receiver, QueryCompletion *completion)
{
	if (IsA(statement->utilityStmt, ConstraintsSetStmt) ||
		IsA(statement->utilityStmt, AlterEnumStmt))
		marks_transaction = true;
	if (next_utility_hook)
		next_utility_hook(statement, source, is_read_only_tree, context, params,
						  environment, receiver, completion);
	else
		standard_ProcessUtility(statement, source, is_read_only_tree, context,
								params, environment, receiver, completion);
}

bool
jq_session_tidy(void)
{
	PortalHashTableDeleteAll();
	DropAllPreparedStatements();
	Async_UnlistenAll();
	ResetSequenceCaches();
	if (MyReplicationSlot != NULL)
		ReplicationSlotRelease();	/* after an error in its use */
	return !marks_transaction &&
		(MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE) == 0 &&
		!holds_advisory_locks();
}

/*
 * Advisory locks never take the fast path, so they are in this list, which
 * others can lengthen (by moving our fast-path locks there) but not empty.
 */
static bool
holds_advisory_locks(void)
{
	for (int i = 0; i < NUM_LOCK_PARTITIONS; i++)
	{
		LWLock	   *lock = LockHashPartitionLockByIndex(i);
		bool		found;

		if (!jq_compat_has_proc_locks(MyProc, i))
			continue;
		LWLockAcquire(lock, LW_SHARED);
		found = jq_compat_has_advisory_lock(MyProc, i);
		LWLockRelease(lock);
		if (found)
			return true;
	}
	return false;
}

/*
 * What DISCARD ALL does, but for the plan cache, which holds nothing of the
 * job's.
 */
void
jq_session_reset(void *arg)
{
	marks_transaction = false;
	jq_catalog_begin();
	PortalHashTableDeleteAll();
	SetPGVariable("session_authorization", NIL, false);
	SetConfigOption("role", "none", PGC_USERSET, PGC_S_SESSION);
	ResetAllOptions();
	DropAllPreparedStatements();
	Async_UnlistenAll();
	LockReleaseAll(USER_LOCKMETHOD, true);
	ResetTempTableNamespace();
	ResetSequenceCaches();
	jq_compat_drop_temporary_slots();
	jq_catalog_commit();
}
