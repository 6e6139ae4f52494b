/*-------------------------------------------------------------------------
 *
 * scope.c
 *	  The owner's scope: where the extension touches its own tables.
 *
 * Entered scopes are kept in a small stack of this backend.  The abort of a
 * transaction or subtransaction drops the entries made in it; user id,
 * settings, SPI connection and snapshots are restored by the server itself.
 *
 * A bare scope has neither owner, settings nor SPI until jq_scope_arm() is
 * called in it: they cost more than the row that a claim writes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/catalog.h"
#include "base/scope.h"

#define SCOPE_MAX_DEPTH 32

typedef struct ScopeEntry
{
	JqWriteMode mode;
	Oid			saved_user;
	int			saved_security;
	int			guc_nest_level;
	int			xact_nest_level;
	int			trigger_depth;	/* at entry */
	bool		is_armed;
	bool		prefers_indexes;
	MemoryContext result_context;
	MemoryContext context;		/* what is freed on leaving */
} ScopeEntry;

static ScopeEntry scopes[SCOPE_MAX_DEPTH];
static int	scope_depth = 0;

static void check_writable(void);
static void enter(JqWriteMode mode);
static void arm(ScopeEntry *scope);
static void refuse_foreign_trigger(void);
static void avoid_other_scans(void);
static void set_for_scope(const char *name, const char *value);
static bool in_own_statement(void);
static int	trigger_depth(void);
static void forget_at_xact_end(XactEvent event, void *arg);
static void forget_at_subxact_abort(SubXactEvent event,
									SubTransactionId mySubid,
									SubTransactionId parentSubid, void *arg);

void
jq_scope_enter(JqWriteMode mode)
{
	check_writable();
	enter(mode);
	jq_scope_arm();
}

void
jq_scope_enter_bare(JqWriteMode mode)
{
	check_writable();
	enter(mode);
}

void
jq_scope_enter_read_only(void)
{
	enter(JQ_WRITE_PLAIN);
	arm(&scopes[scope_depth - 1]);
}

static void
check_writable(void)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot work on jobs during recovery"),
				 errhint("Connect to the primary server.")));
	if (XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot work on jobs in a read-only transaction")));
}

static void
enter(JqWriteMode mode)
{
	ScopeEntry *scope;

	if (scope_depth >= SCOPE_MAX_DEPTH)
		ereport(ERROR,
				(errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
				 errmsg("jobqueue calls are nested too deeply")));

	/* The parent before its leaves, as ALTER TABLE locks them. */
	LockRelationOid(jq_catalog()->jobs_queue, AccessShareLock);
	(void) jq_catalog();		/* raises if it has gone meanwhile */

	scope = &scopes[scope_depth];
	memset(scope, 0, sizeof(*scope));
	scope->mode = mode;
	scope->result_context = CurrentMemoryContext;
	scope->xact_nest_level = GetCurrentTransactionNestLevel();
	scope->trigger_depth = trigger_depth();
	GetUserIdAndSecContext(&scope->saved_user, &scope->saved_security);
	scope->context = AllocSetContextCreate(CurrentMemoryContext,
										   "jobqueue scope",
										   ALLOCSET_DEFAULT_SIZES);
	scope_depth++;
	MemoryContextSwitchTo(scope->context);
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
jq_scope_arm(void)
{
	ScopeEntry *scope = &scopes[scope_depth - 1];

	Assert(scope_depth > 0);
	if (scope->is_armed)
		return;
	refuse_foreign_trigger();
	arm(scope);
}

/*
 * It would run with the rights that the scope is about to take.  The lock,
 * which most scopes will need anyway, keeps it from coming after the look.
 */
static void
refuse_foreign_trigger(void)
{
	ObjectAddress address;
	Oid			trigger;

	LockRelationOid(jq_catalog()->jobs_queue_live, RowExclusiveLock);
	trigger = jq_catalog()->foreign_trigger;
	if (!OidIsValid(trigger))
		return;
	ObjectAddressSet(address, TriggerRelationId, trigger);
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("a trigger would run code of another role as the owner of the jobqueue tables"),
			 errdetail("It is %s.", getObjectDescription(&address, false)),
			 errhint("Drop it, or make whoever owns its functions, or the table of a foreign key, a member of the owner; and grant nobody TRIGGER or REFERENCES.")));
}

static void
arm(ScopeEntry *scope)
{
	MemoryContext context = CurrentMemoryContext;

	SPI_connect();
	MemoryContextSwitchTo(context);
	scope->guc_nest_level = NewGUCNestLevel();
	scope->is_armed = true;
	SetUserIdAndSecContext(jq_catalog()->owner,
						   scope->saved_security | SECURITY_LOCAL_USERID_CHANGE);
	set_for_scope("search_path", "pg_catalog, pg_temp");
	if (scope->prefers_indexes)
		avoid_other_scans();
}

/* A setting that ends with the scope. */
static void
set_for_scope(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
jq_scope_prefer_indexes(void)
{
	ScopeEntry *scope = &scopes[scope_depth - 1];

	scope->prefers_indexes = true;
	if (scope->is_armed)
		avoid_other_scans();
}

static void
avoid_other_scans(void)
{
	set_for_scope("enable_seqscan", "off");
	set_for_scope("enable_bitmapscan", "off");
	set_for_scope("jit", "off");
}

void
jq_scope_leave(void)
{
	ScopeEntry *scope = &scopes[scope_depth - 1];

	Assert(scope_depth > 0);
	PopActiveSnapshot();
	if (scope->is_armed)
	{
		AtEOXact_GUC(true, scope->guc_nest_level);
		SetUserIdAndSecContext(scope->saved_user, scope->saved_security);
		SPI_finish();
	}
	scope_depth--;
	MemoryContextSwitchTo(scope->result_context);
	MemoryContextDelete(scope->context);
}

void
jq_scope_refresh(void)
{
	PopActiveSnapshot();
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
}

Oid
jq_scope_caller(void)
{
	return in_own_statement() ? scopes[scope_depth - 1].saved_user :
		GetUserId();
}

MemoryContext
jq_scope_result_context(void)
{
	Assert(scope_depth > 0);
	return scopes[scope_depth - 1].result_context;
}

JqWriteMode
jq_scope_write_mode(void)
{
	return in_own_statement() ? scopes[scope_depth - 1].mode : JQ_WRITE_PLAIN;
}

bool
jq_scope_is_outermost(void)
{
	return scope_depth == 1;
}

/*
 * Whether the innermost scope is what runs now: its code, or the first row
 * trigger below it, but not a statement of a trigger that it has fired.
 */
static bool
in_own_statement(void)
{
	return scope_depth > 0 &&
		trigger_depth() <= scopes[scope_depth - 1].trigger_depth + 1;
}

static int
trigger_depth(void)
{
	LOCAL_FCINFO(fcinfo, 0);

	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	return DatumGetInt32(pg_trigger_depth(fcinfo));
}

void
jq_scope_init(void)
{
	RegisterXactCallback(forget_at_xact_end, NULL);
	RegisterSubXactCallback(forget_at_subxact_abort, NULL);
}

static void
forget_at_xact_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PARALLEL_ABORT)
		scope_depth = 0;
}

static void
forget_at_subxact_abort(SubXactEvent event, SubTransactionId mySubid,
						SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (scope_depth > 0 &&
		   scopes[scope_depth - 1].xact_nest_level >= level)
		scope_depth--;
}
