/*-------------------------------------------------------------------------
 *
 * backoff_function.c
 *	  Backoff strategy "function": an SQL function says how long.
 *
 * The session is that of a worker, whose rights may be others than those of
 * the job type's owner, and it is in the middle of recording the end of a
 * job.  So the function is only asked:
 *
 * - as the owner of the job type, in a security-restricted operation: neither
 *   role nor session user can be changed, and nothing can be left behind that
 *   would run later (deferred triggers, cursors, prepared statements,
 *   temporary objects);
 * - in a subtransaction that only reads and is always rolled back: whatever
 *   happens there, settings included, never happened;
 * - inside a scope of its own, so that no statement of its is taken for one
 *   of the extension;
 * - for a second.  What catches its cancellation is cancelled again, and
 *   costs the process after jobqueue.cancel_grace.
 *
 * Processes that serve everybody, as a superuser, ask nobody.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/config.h"
#include "base/interval.h"
#include "base/protect.h"
#include "base/scope.h"
#include "base/shared_state.h"
#include "queue/backoff_function.h"

#define BOUND_MS 1000			/* how long a function may think */
#define INSIST_MS 100			/* and then it is cancelled so often */

typedef struct Question
{
	char	   *schema;
	char	   *name;
	Oid			owner;
	int			attempt;
	const char *error;
	double		delay_us;		/* the answer */
} Question;

static TimeoutId bound_timeout;
static bool bound_is_registered = false;
static volatile sig_atomic_t bound_is_over = false;
static volatile TimestampTz bound_end = 0;

static void check_owner(Oid owner);
static Oid	find_function(const char *schema, const char *name, Oid owner);
static void check_shape(Oid function, const char *schema, const char *name);
static void ask(void *arg);
static void read_answer(Question *question, Datum answer, bool isnull);
static void begin_bound(void);
static void end_bound(void);
static void cancel(void);

void
jq_backoff_function_check(const JqBackoff *backoff, Oid owner)
{
	check_owner(owner);
	(void) find_function(backoff->function_schema, backoff->function_name,
						 owner);
}

/* A superuser could not be held in. */
static void
check_owner(Oid owner)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(owner)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role %u does not exist", owner)));
	if (jq_shared_is_attached() && !jq_config_allow_superuser_jobs &&
		superuser_arg(owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a backoff function cannot run as superuser \"%s\" while jobqueue.allow_superuser_jobs is off",
						GetUserNameFromId(owner, false)),
				 errhint("Give the job type another owner, or turn the setting on and restart the server.")));
}

/* Rights are the owner's, not those of whoever looks. */
static Oid
find_function(const char *schema, const char *name, Oid owner)
{
	Oid			types[] = {INT4OID, TEXTOID};
	Oid			namespace = get_namespace_oid(schema, true);
	Oid			function = InvalidOid;

	if (OidIsValid(namespace) && !isAnyTempNamespace(namespace))
		function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
								   CStringGetDatum(name),
								   PointerGetDatum(buildoidvector(types, lengthof(types))),
								   ObjectIdGetDatum(namespace));
	if (!OidIsValid(function))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s(integer, text) does not exist",
						quote_qualified_identifier(schema, name)),
				 errhint("A backoff function has two parameters, attempt integer and error text, and returns interval.")));
	check_shape(function, schema, name);
	if (object_aclcheck(NamespaceRelationId, namespace, owner,
						ACL_USAGE) != ACLCHECK_OK ||
		object_aclcheck(ProcedureRelationId, function, owner,
						ACL_EXECUTE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not call function %s(integer, text)",
						GetUserNameFromId(owner, false),
						quote_qualified_identifier(schema, name)),
				 errdetail("A backoff function runs as the owner of the job type."),
				 errhint("Grant USAGE on the schema and EXECUTE on the function to the owner.")));
	return function;
}

static void
check_shape(Oid function, const char *schema, const char *name)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc form;
	bool		fits;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	form = (Form_pg_proc) GETSTRUCT(tuple);
	fits = form->prokind == PROKIND_FUNCTION && !form->proretset &&
		form->prorettype == INTERVALOID;
	ReleaseSysCache(tuple);
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s(integer, text) is not a function that returns an interval",
						quote_qualified_identifier(schema, name))));
}

bool
jq_backoff_function_ask(const JqBackoff *backoff, Oid owner,
						const char *job_type, int attempt,
						const char *error, double *delay_us)
{
	MemoryContext context;
	MemoryContext old;
	Question	question = {.owner = owner,.attempt = attempt,.error = error};
	ErrorData  *fault;

	if (jq_shared_serves_everybody())
		return false;
	context = AllocSetContextCreate(CurrentMemoryContext,
									"jobqueue backoff function",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	/* The cache of job types may forget them meanwhile. */
	question.schema = pstrdup(backoff->function_schema);
	question.name = pstrdup(backoff->function_name);
	fault = jq_try_out(ask, &question);
	end_bound();
	MemoryContextSwitchTo(old);
	if (fault != NULL)
		ereport(WARNING,
				(errcode(fault->sqlerrcode),
				 errmsg("the backoff function of job type \"%s\" gave no delay (%s)",
						job_type, unpack_sql_state(fault->sqlerrcode)),
				 errdetail("The job waits for jobqueue.retry_delay.")));
	*delay_us = question.delay_us;
	MemoryContextDelete(context);
	return fault == NULL;
}

/* In a subtransaction that will be rolled back, which restores everything. */
static void
ask(void *arg)
{
	Question   *question = (Question *) arg;

	LOCAL_FCINFO(fcinfo, 2);
	FmgrInfo	function;
	Oid			user;
	int			security;
	Datum		answer;

	check_owner(question->owner);
	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(question->owner,
						   security | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	jq_scope_enter_bare(JQ_WRITE_PLAIN);
	(void) NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	XactReadOnly = true;
	fmgr_info(find_function(question->schema, question->name,
							question->owner), &function);
	InitFunctionCallInfoData(*fcinfo, &function, 2, DEFAULT_COLLATION_OID,
							 NULL, NULL);
	fcinfo->args[0].value = Int32GetDatum(question->attempt);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = CStringGetTextDatum(question->error);
	fcinfo->args[1].isnull = false;
	begin_bound();
	answer = FunctionCallInvoke(fcinfo);
	end_bound();
	read_answer(question, answer, fcinfo->isnull);
}

static void
read_answer(Question *question, Datum answer, bool isnull)
{
	Interval	zero = {0};

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the delay is null")));
	if (INTERVAL_NOT_FINITE(DatumGetIntervalP(answer)) ||
		DatumGetBool(DirectFunctionCall2(interval_lt, answer,
										 IntervalPGetDatum(&zero))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the delay is negative or infinite")));
	question->delay_us = (double)
		jq_interval_clamped_us(DatumGetIntervalP(answer), JQ_BACKOFF_MAX_US);
}

static void
begin_bound(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!bound_is_registered)
		bound_timeout = RegisterTimeout(USER_TIMEOUT, cancel);
	bound_is_registered = true;
	bound_is_over = false;
	bound_end = TimestampTzPlusMilliseconds(now, BOUND_MS);
	enable_timeout_every(bound_timeout, bound_end, INSIST_MS);
}

/* A cancellation that comes too late is forgotten. */
static void
end_bound(void)
{
	if (!bound_is_registered)
		return;
	disable_timeout(bound_timeout, false);
	if (bound_is_over)
		QueryCancelPending = false;
	bound_is_over = false;
}

/* Timeout handler. */
static void
cancel(void)
{
	bound_is_over = true;
	InterruptPending = true;
	QueryCancelPending = true;
	if (GetCurrentTimestamp() >=
		TimestampTzPlusMilliseconds(bound_end, jq_config_cancel_grace))
		ProcDiePending = true;
	SetLatch(MyLatch);
}
