/*-------------------------------------------------------------------------
 *
 * scope.c
 *	  The owner's scope: where the extension touches its own tables.
 *
 * Entered scopes are kept in a small stack of this backend.  The abort of a
 * transaction or subtransaction drops the entries made in it; user id,
 * settings, SPI connection and snapshots are restored by the server itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
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
	MemoryContext result_context;
} ScopeEntry;

static ScopeEntry scopes[SCOPE_MAX_DEPTH];
static int	scope_depth = 0;

static void enter(JqWriteMode mode);
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
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot work on jobs during recovery"),
				 errhint("Connect to the primary server.")));
	if (XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot work on jobs in a read-only transaction")));
	enter(mode);
}

void
jq_scope_enter_read_only(void)
{
	enter(JQ_WRITE_PLAIN);
}

static void
enter(JqWriteMode mode)
{
	Oid			owner;
	ScopeEntry *scope;

	if (scope_depth >= SCOPE_MAX_DEPTH)
		ereport(ERROR,
				(errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
				 errmsg("jobqueue calls are nested too deeply")));

	/* The parent before its leaves, as ALTER TABLE locks them. */
	LockRelationOid(jq_catalog()->jobs_queue, AccessShareLock);
	owner = jq_catalog()->owner;

	scope = &scopes[scope_depth];
	scope->mode = mode;
	scope->result_context = CurrentMemoryContext;
	scope->xact_nest_level = GetCurrentTransactionNestLevel();
	scope->trigger_depth = trigger_depth();
	GetUserIdAndSecContext(&scope->saved_user, &scope->saved_security);
	SPI_connect();
	scope->guc_nest_level = NewGUCNestLevel();
	scope_depth++;

	SetUserIdAndSecContext(owner,
						   scope->saved_security | SECURITY_LOCAL_USERID_CHANGE);
	set_for_scope("search_path", "pg_catalog, pg_temp");
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
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
	AtEOXact_GUC(true, scope->guc_nest_level);
	SetUserIdAndSecContext(scope->saved_user, scope->saved_security);
	SPI_finish();
	scope_depth--;
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
	return DatumGetInt32(OidFunctionCall0(F_PG_TRIGGER_DEPTH));
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
