/*-------------------------------------------------------------------------
 *
 * demand.c
 *	  Which roles have due SQL jobs, and executors for them.
 *
 * Shared memory knows who has jobs; where it cannot serve, SQL looks for the
 * heads of the queue.  Roles without an executor come first, and among them
 * the one that has waited longest: so none starves where executors are few.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/demand.h"

#include "access/htup_details.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/config.h"
#include "base/db.h"
#include "base/scope.h"
#include "base/shared_state.h"
#include "base/statement.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "queue/claim.h"
#include "queue/job_types.h"
#include "queue/lane_walk.h"
#include "queue/resolve.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define MAX_PROCESS_WAIT_MS 4000

/* Jobs that are due and that an executor of a role could run. */
typedef struct Demand
{
	char	   *job_type;
	bool		by_job_owner;	/* run as the job's owner, not the type's */
	Oid			role;
	int64		due;			/* at most a hundred per lane are counted */
	char	   *refusal;		/* why they cannot run; NULL: they can */
	bool		has_executor;
	TimestampTz served_at;		/* when the role last had an executor */
} Demand;

/* Roles that had an executor, so that each gets its turn where room is short. */
#define MAX_SERVED 256
typedef struct Served
{
	Oid			role;			/* InvalidOid: free */
	TimestampTz at;
} Served;

static Served served[MAX_SERVED];

/* Lanes whose circuit is open have nothing that could be run. */
#define CIRCUIT_ALLOWS(job_type) \
	" NOT EXISTS (SELECT FROM @.job_circuits c" \
	" WHERE c.job_type = " job_type " AND c.stage = l.stage" \
	" AND (c.state = 'open' AND coalesce(c.retry_at > now(), true)" \
	" OR c.state = 'half_open' AND EXISTS (SELECT FROM @.jobs_queue_live p" \
	" WHERE p.id = c.probe_job_id AND p.claim_no = c.probe_claim_no" \
	" AND p.status = 'running'))) "

/*
 * The due jobs of a job type, at most "max" per lane (stage and priority):
 * future jobs are behind them in the index and cost nothing.
 */
#define DUE_JOBS(max) \
	"WITH RECURSIVE " JQ_WALK_LANES_OF("$1") ", " \
	"due AS (SELECT d.id FROM lane l, LATERAL (" \
	"SELECT q.id FROM @.jobs_queue_live q " \
	"WHERE q.job_type = $1 AND q.stage = l.stage " \
	"AND q.priority = l.priority AND q.status = 'queued' " \
	"AND (q.scheduled_at, q.id) >= (l.scheduled_at, l.id) " \
	"AND q.scheduled_at <= now() " \
	"ORDER BY q.scheduled_at, q.id LIMIT " max ") d" \
	" WHERE" CIRCUIT_ALLOWS("$1") ") "

/* Only so many executors can be woken. */
#define MAX_DUE 100

static JqStatement due_statement = {
	.text = DUE_JOBS("100") "SELECT count(*) FROM due d",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

/*
 * The same of the built-in type for each owner, who need not look past the
 * jobs of another; and of those whose owner is gone.
 */
static JqStatement due_by_owner_statement = {
	.text = "WITH RECURSIVE " JQ_WALK_OWNED_LANES
	" SELECT count(*), l.owner::pg_catalog.oid FROM lane l, LATERAL ("
	"SELECT q.id" JQ_DUE_IN_OWNED_LANE("now()") " LIMIT 100) d"
	" WHERE" CIRCUIT_ALLOWS("'" JQ_SQL_JOB_TYPE "'") "GROUP BY 2 "
	"UNION ALL SELECT count(*), NULL FROM (" JQ_DUE_WITHOUT_OWNER " LIMIT 100) d",
};

static JqStatement due_ids_statement = {
	.text = DUE_JOBS("1000") "SELECT d.id FROM due d",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static JqStatement due_ids_of_owner_statement = {
	.text = "WITH RECURSIVE " JQ_WALK_LANES_OF_OWNER("$1")
	" SELECT d.id FROM lane l, LATERAL ("
	"SELECT q.id" JQ_DUE_IN_OWNED_LANE("now()") " LIMIT 1000) d"
	" WHERE l.owner = $1",
	.nargs = 1,
	.argtypes = {REGROLEOID}
};

static JqStatement due_without_owner_statement = {
	.text = JQ_DUE_WITHOUT_OWNER " LIMIT 1000"
};

static int64 process_wanted_at = 0; /* by jq_clock_ms(): nothing is started
									 * before */
static int	process_wait_ms = 0;

static List *collect_demand(void);
static List *collect_of_type(List *demand, const char *name,
							 MemoryContext context);
static Served *find_served(Oid role);
static int	compare_demands(const ListCell *a, const ListCell *b);
static List *collect_by_sql(List *demands, const char *name, Oid owner,
							MemoryContext context);
static List *add_demand(List *demands, const char *name, Oid role, int64 due,
						MemoryContext context);
static char *role_refusal(Oid role);
static void reject_due(const Demand *demand);
static uint64 find_due(const Demand *demand);
static void serve_role(const Demand *demand);

/* Roles without an executor come first, or they might never get room. */
void
jq_demand_serve(void *arg)
{
	List	   *demands = collect_demand();
	JqExecutorCount all;
	ListCell   *cell;

	foreach(cell, demands)
	{
		Demand	   *demand = (Demand *) lfirst(cell);

		if (demand->refusal != NULL)
			reject_due(demand);
		else if (!demand->has_executor)
			serve_role(demand);
	}
	foreach(cell, demands)
	{
		Demand	   *demand = (Demand *) lfirst(cell);

		if (demand->refusal == NULL && demand->has_executor)
			serve_role(demand);
	}

	jq_shared_free_unstarted();
	jq_shared_count_executors(InvalidOid, InvalidOid, &all);
	if (all.starting + all.idle + all.running > jq_config_max_executors)
		jq_shared_make_room();	/* the setting was lowered */
}

/* In the caller's context; who has waited longest for an executor is first. */
static List *
collect_demand(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *demands = NIL;
	List	   *names;
	ListCell   *cell;

	jq_db_begin("looking for due jobs");
	jq_scope_enter_read_only();
	jq_scope_prefer_indexes();
	names = jq_job_types_with_runner(JQ_RUNNER_SQL);
	foreach(cell, names)
	{
		char	   *name = (char *) lfirst(cell);

		if (jq_config_lists(jq_config_run_job_types, name))
			demands = collect_of_type(demands, name, context);
	}
	jq_scope_leave();

	foreach(cell, demands)
	{
		Demand	   *demand = (Demand *) lfirst(cell);
		Served	   *last = find_served(demand->role);
		char	   *refusal = role_refusal(demand->role);
		JqExecutorCount count;

		if (refusal != NULL)
			demand->refusal = MemoryContextStrdup(context, refusal);
		jq_shared_count_executors(MyDatabaseId, demand->role, &count);
		demand->has_executor = count.starting + count.idle + count.running > 0;
		if (demand->has_executor)
			*last = (Served)
		{
			demand->role, GetCurrentTimestamp()
		};
		demand->served_at = last->role == demand->role ? last->at : 0;
	}
	jq_db_commit();
	list_sort(demands, compare_demands);
	return demands;
}

/* What is known of a role, or else of the one that was served longest ago. */
static Served *
find_served(Oid role)
{
	Served	   *oldest = &served[0];

	for (int i = 0; i < MAX_SERVED; i++)
	{
		if (served[i].role == role)
			return &served[i];
		if (served[i].at < oldest->at)
			oldest = &served[i];
	}
	return oldest;
}

static int
compare_demands(const ListCell *a, const ListCell *b)
{
	const Demand *left = (const Demand *) lfirst(a);
	const Demand *right = (const Demand *) lfirst(b);

	if (left->served_at != right->served_at)
		return left->served_at < right->served_at ? -1 : 1;
	return 0;
}

/* Adds the roles that have due jobs of this type, perhaps several times. */
static List *
collect_of_type(List *demands, const char *name, MemoryContext context)
{
	const JqJobType *type = jq_job_type(name);
	bool		by_job_owner = jq_job_type_is_built_in(name);
	Oid			owner = type->owner;
	JqDueJobs  *due;
	int			count;

	if (!type->is_enabled)
		return demands;
	if (!jq_claim_count_due(name, MAX_DUE, &due, &count))
		return collect_by_sql(demands, name, owner, context);
	for (int i = 0; i < count; i++)
		demands = add_demand(demands, name, by_job_owner ? due[i].owner : owner,
							 due[i].jobs, context);
	if (by_job_owner &&
		jq_statement_query(&due_without_owner_statement, NULL, NULL, 1) > 0)
		demands = add_demand(demands, name, InvalidOid, 1, context);
	return demands;
}

/* The same where the lanes cannot tell. */
static List *
collect_by_sql(List *demands, const char *name, Oid owner,
			   MemoryContext context)
{
	Datum		values[1] = {CStringGetTextDatum(name)};
	bool		by_job_owner = jq_job_type_is_built_in(name);
	uint64		count = by_job_owner ?
	jq_statement_query(&due_by_owner_statement, NULL, NULL, 0) :
	jq_statement_query(&due_statement, values, NULL, 0);

	for (uint64 row = 0; row < count; row++)
	{
		int64		due = DatumGetInt64(jq_statement_value(row, 1));

		if (by_job_owner)
		{
			bool		isnull;
			Datum		role = jq_statement_nullable(row, 2, &isnull);

			owner = isnull ? InvalidOid : DatumGetObjectId(role);
		}
		if (due > 0)
			demands = add_demand(demands, name, owner, due, context);
	}
	return demands;
}

static List *
add_demand(List *demands, const char *name, Oid role, int64 due,
		   MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	Demand	   *demand = palloc0(sizeof(Demand));

	demand->job_type = pstrdup(name);
	demand->by_job_owner = jq_job_type_is_built_in(name);
	demand->role = role;
	demand->due = due;
	demands = lappend(demands, demand);
	MemoryContextSwitchTo(old);
	return demands;
}

/* Why no executor can be started for the role; NULL: one can. */
static char *
role_refusal(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	Form_pg_authid row;
	char	   *refusal = NULL;
	char	   *name;

	if (!HeapTupleIsValid(tuple))
		return OidIsValid(role) ?
			psprintf("role %u does not exist (42704)", role) :
			pstrdup("role of the owner does not exist (42704)");
	row = (Form_pg_authid) GETSTRUCT(tuple);
	name = NameStr(row->rolname);
	if (!row->rolcanlogin && !JQ_CAN_BYPASS_ROLE_LOGIN)
		refusal = psprintf("role \"%s\" is not permitted to log in (28000)\n"
						   "HINT:  Use ALTER ROLE ... LOGIN, or enqueue as "
						   "a role that can log in.", name);
	else if (row->rolsuper && !jq_config_allow_superuser_jobs)
		refusal = psprintf("role \"%s\" is a superuser, and "
						   "jobqueue.allow_superuser_jobs is off (42501)",
						   name);
	else if (object_aclcheck(DatabaseRelationId, MyDatabaseId, role,
							 ACL_CONNECT) != ACLCHECK_OK)
		refusal = psprintf("role \"%s\" has no privilege to connect to "
						   "database \"%s\" (42501)",
						   name, get_database_name(MyDatabaseId));
	ReleaseSysCache(tuple);
	return refusal;
}

/* Ends jobs that cannot run, so that they do not wait for ever. */
static void
reject_due(const Demand *demand)
{
	uint64		count;
	int64	   *ids;

	jq_db_begin("rejecting jobs");
	jq_scope_enter_read_only();
	jq_scope_prefer_indexes();
	count = find_due(demand);
	ids = MemoryContextAlloc(jq_scope_result_context(),
							 sizeof(int64) * Max(count, 1));
	for (uint64 row = 0; row < count; row++)
		ids[row] = DatumGetInt64(jq_statement_value(row, 1));
	jq_scope_leave();

	for (uint64 i = 0; i < count; i++)
		if (jq_resolve_reject(ids[i], demand->refusal) && jq_config_logs(LOG))
			ereport(LOG,
					(errmsg("job %lld (%s) was rejected: %s",
							(long long) ids[i], demand->job_type,
							demand->refusal)));
	jq_db_commit();
}

/* The ids of the jobs that a demand stands for, or of the first of them. */
static uint64
find_due(const Demand *demand)
{
	Datum		values[1];

	if (!demand->by_job_owner)
	{
		values[0] = CStringGetTextDatum(demand->job_type);
		return jq_statement_query(&due_ids_statement, values, NULL, 0);
	}
	if (!OidIsValid(demand->role))
		return jq_statement_query(&due_without_owner_statement, NULL, NULL, 0);
	values[0] = ObjectIdGetDatum(demand->role);
	return jq_statement_query(&due_ids_of_owner_statement, values, NULL, 0);
}

/*
 * Wakes the idle executors of the role, or starts one more.  Never more than
 * one at a time: it claims several jobs, and may leave nothing to others.
 */
static void
serve_role(const Demand *demand)
{
	int64		now = jq_clock_ms();
	JqExecutorCount count;

	jq_shared_count_executors(MyDatabaseId, demand->role, &count);
	if (count.idle > 0)
		jq_shared_wake_executors(MyDatabaseId, demand->role,
								 (int) Min(demand->due, count.idle));
	if (count.idle > 0 || count.starting > 0 || now < process_wanted_at)
		return;

	switch (jq_worker_start(JQ_WORKER_EXECUTOR, MyDatabaseId, demand->role,
							jq_config_max_executors))
	{
		case JQ_START_REGISTERED:
			process_wait_ms = 0;
			break;
		case JQ_START_NO_ROOM:
			if (count.running == 0 && jq_config_max_executors > 0)
				jq_shared_make_room();
			break;
		case JQ_START_NO_PROCESS:
			process_wait_ms = Min(Max(process_wait_ms * 2, 1000),
								  MAX_PROCESS_WAIT_MS);
			process_wanted_at = now + process_wait_ms;
			break;
	}
}
