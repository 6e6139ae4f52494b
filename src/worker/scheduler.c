/*-------------------------------------------------------------------------
 *
 * scheduler.c
 *	  One process per database: cron, lost jobs, retention, and executors.
 *
 *	  The launcher starts it in every database to find out whether the
 *	  extension is there and has something to do; where it has not, it lets
 *	  the executors finish, says so and ends.  It holds no
 *	  snapshot, lock or transaction while it waits, and assigns no transaction
 *	  id when there is nothing to do.  Executors belong to a role: jobs run in
 *	  sessions of the role they run as, never of a superuser who switched.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/worker.h"

#include "access/htup_details.h"
#include "base/catalog.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/config.h"
#include "base/db.h"
#include "base/scope.h"
#include "base/statement.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "commands/dbcommands.h"
#include "cron/tasks.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "queue/activity.h"
#include "queue/claim.h"
#include "queue/job_types.h"
#include "queue/lane_walk.h"
#include "queue/resolve.h"
#include "storage/ipc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/maintenance.h"

#define WAIT_EVENT "JobqueueSchedulerMain"
#define CHANNEL "jobqueue"
#define MIN_CYCLE_MS 10			/* however often it is woken */
#define PRUNE_INTERVAL_MS 60000
#define THOROUGH_INTERVAL_MS 10000
#define WATCH_REST 50			/* times the watching took: 2 % of the time */
#define MAX_WATCH_REST_MS 5000	/* of the frequent looks: one may have waited */
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
	"ORDER BY q.scheduled_at, q.id LIMIT " max ") d) "

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
	"SELECT q.id" JQ_DUE_IN_OWNED_LANE("now()") " LIMIT 100) d GROUP BY 2 "
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

static bool is_started = false; /* there was something to do once */
static bool is_draining = false;	/* there is nothing to do any more */

/* by jq_clock_ms() */
static int64 watch_at = 0;
static int64 thorough_at = 0;
static int64 prune_at = 0;
static int64 process_wanted_at = 0; /* nothing is started before */

/* by the clock on the wall, and read again in each cycle */
static TimestampTz next_cron_at = DT_NOEND;
static TimestampTz next_announcement_at = DT_NOEND;
static int	process_wait_ms = 0;
static bool roles_changed = true;	/* or nobody has looked yet */

static void note_role_change(Datum arg, int cacheid, uint32 hashvalue);
static long run_cycle(void);
static void look_at_database(void *arg);
static void report_start(void);
static void end_absent(void);
static void end_when_drained(JqQuiet quiet);
static bool has_executors(void);
static void run_cron(void *arg);
static void announce_jobs(void *arg);
static void tend_lanes(void *arg);
static void watch_running(void);
static void serve_demand(void *arg);
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

void
jq_scheduler_main(Datum arg)
{
	jq_worker_begin(JQ_WORKER_SCHEDULER, SignalHandlerForShutdownRequest);
	jq_worker_connect(BOOTSTRAP_SUPERUSERID, 0);
	jq_worker_pin_settings();
	CacheRegisterSyscacheCallback(AUTHOID, note_role_change, (Datum) 0);

	while (!ShutdownRequestPending && !jq_shared_should_retire())
	{
		int64		started_at = jq_clock_ms();
		long		sleep_ms;
		long		spent_ms;

		jq_worker_begin_cycle();
		sleep_ms = run_cycle();
		jq_shared_report_cycle();
		jq_worker_wait(sleep_ms, WAIT_EVENT);
		spent_ms = (long) (jq_clock_ms() - started_at);
		if (spent_ms < MIN_CYCLE_MS)
			jq_worker_pause(MIN_CYCLE_MS - spent_ms, WAIT_EVENT);
	}
	if (jq_shared_should_retire())
		jq_shared_retire(JQ_WORKER_EXECUTOR, MyDatabaseId);
	if (is_started && jq_config_logs(LOG))
		ereport(LOG, (errmsg("jobqueue scheduler stopped")));
	proc_exit(0);				/* the launcher decides who comes back */
}

/* Some role has changed; only the drop of one matters. */
static void
note_role_change(Datum arg, int cacheid, uint32 hashvalue)
{
	roles_changed = true;
}

/* Returns how long to sleep. */
static long
run_cycle(void)
{
	JqQuiet		quiet = JQ_QUIET_NOT;
	long		sleep_ms = jq_config_poll_interval;
	TimestampTz now;
	TimestampTz next_at;

	if (!jq_worker_protect(look_at_database, &quiet))
	{
		/* Its tables are not as they should be; the launcher goes on. */
		jq_shared_report_state(JQ_STATE_RUNNING);
		return sleep_ms;
	}
	if (quiet == JQ_QUIET_ABSENT)
		end_absent();
	if (quiet != JQ_QUIET_NOT)
	{
		end_when_drained(quiet);
		/* What still runs can be cancelled; what waits for it is let go. */
		watch_running();
		(void) jq_worker_protect(jq_maintenance_release_waiting, NULL);
		return sleep_ms;
	}
	if (!jq_config_enabled || ShutdownRequestPending)
		return sleep_ms;

	/* Somebody waits for the first; the others wake us when they enqueue. */
	(void) jq_worker_protect(serve_demand, NULL);
	(void) jq_worker_protect(run_cron, NULL);
	(void) jq_worker_protect(announce_jobs, NULL);
	(void) jq_worker_protect(tend_lanes, NULL);
	watch_running();
	(void) jq_worker_protect(jq_maintenance_release_waiting, NULL);
	if (jq_clock_ms() >= prune_at)
	{
		prune_at = jq_clock_ms() + PRUNE_INTERVAL_MS;
		(void) jq_worker_protect(jq_maintenance_prune, NULL);
		if (roles_changed)
		{
			bool		is_done = false;

			roles_changed = false;
			if (!jq_worker_protect(jq_maintenance_disown, &is_done) || !is_done)
				roles_changed = true;
		}
	}

	now = GetCurrentTimestamp();
	next_at = Min(next_cron_at, next_announcement_at);
	if (next_at <= now)
		return 0;
	if (next_at < TimestampTzPlusMilliseconds(now, sleep_ms))
		sleep_ms = (next_at - now) / 1000 + 1;
	return sleep_ms;
}

/* Whether there is something to do here. */
static void
look_at_database(void *arg)
{
	JqQuiet    *quiet = (JqQuiet *) arg;

	jq_db_begin("looking for the extension");
	*quiet = JQ_QUIET_ABSENT;
	if (jq_catalog_if_present() != NULL)
	{
		jq_activity_adopt();
		*quiet = jq_activity_quiet();
	}
	if (*quiet == JQ_QUIET_NOT)
		report_start();
	jq_db_commit();
}

/* The first time tells the launcher that this is no probe any more. */
static void
report_start(void)
{
	if (is_started && !is_draining)
		return;
	is_draining = false;
	jq_shared_report_state(JQ_STATE_RUNNING);
	if (!is_started && jq_config_logs(LOG))
		ereport(LOG,
				(errmsg("jobqueue scheduler started in database \"%s\"",
						get_database_name(MyDatabaseId))));
	is_started = true;
}

/* The executors of the database have nothing left to do either. */
static void
end_absent(void)
{
	jq_shared_report_quiet(JQ_QUIET_ABSENT);
	jq_shared_retire(JQ_WORKER_EXECUTOR, MyDatabaseId);
	if (is_started && jq_config_logs(LOG))
		ereport(LOG,
				(errmsg("jobqueue scheduler stopped: the extension was dropped")));
	proc_exit(0);
}

/*
 * Once the last executor has gone, so does this process: nobody is connected
 * to a paused database.
 */
static void
end_when_drained(JqQuiet quiet)
{
	jq_shared_retire(JQ_WORKER_EXECUTOR, MyDatabaseId);
	jq_shared_free_unstarted();
	if (has_executors())
	{
		is_draining = true;
		jq_shared_report_state(JQ_STATE_DRAINING);
		return;
	}
	jq_shared_report_quiet(quiet);
	if (is_started && jq_config_logs(LOG))
		ereport(LOG, (errmsg("jobqueue scheduler stopped")));
	proc_exit(0);
}

/* Also those that are stuck. */
static bool
has_executors(void)
{
	JqWorkerInfo *workers = NULL;
	int			count = jq_shared_workers(&workers);

	for (int i = 0; i < count; i++)
		if (workers[i].kind == JQ_WORKER_EXECUTOR &&
			workers[i].database == MyDatabaseId)
			return true;
	return false;
}

/* Reads first: a transaction that writes nothing costs nothing. */
static void
run_cron(void *arg)
{
	next_cron_at = DT_NOEND;	/* should this fail, polling goes on */
	jq_db_begin("looking for due cron tasks");
	jq_scope_enter_read_only();
	next_cron_at = jq_tasks_next_due();
	jq_scope_leave();
	jq_db_commit();
	if (next_cron_at > GetCurrentTimestamp())
		return;

	next_cron_at = DT_NOEND;
	jq_db_begin("enqueueing cron tasks");
	(void) jq_tasks_enqueue_due();
	jq_db_commit();

	jq_db_begin("looking for due cron tasks");
	jq_scope_enter_read_only();
	next_cron_at = jq_tasks_next_due();
	jq_scope_leave();
	jq_db_commit();
}

/*
 * Tells those who listen that jobs have begun to wait.  One short transaction
 * of this process says it for all that have arrived meanwhile: a NOTIFY in the
 * transaction of each producer would make them commit one after the other.
 */
static void
announce_jobs(void *arg)
{
	List	   *names;
	ListCell   *cell;

	next_announcement_at = DT_NOEND;
	jq_db_begin("announcing jobs");
	jq_scope_enter_read_only();
	names = jq_job_types_to_announce();
	foreach(cell, names)
	{
		char	   *name = (char *) lfirst(cell);
		TimestampTz due_at;

		if (jq_claim_must_announce(name, &due_at))
			Async_Notify(CHANNEL, name);
		next_announcement_at = Min(next_announcement_at, due_at);
	}
	jq_scope_leave();
	jq_db_commit();
}

/* Looks after what claims remember, so that none of them has to. */
static void
tend_lanes(void *arg)
{
	jq_db_begin("tending lanes");
	jq_claim_tend();
	jq_db_commit();
}

/*
 * Looks at the running jobs near the heads of their lanes at every poll and
 * when an executor has left some behind, and at every live row now and then:
 * with a long queue that takes its time, and must not become all that the
 * scheduler does.
 */
static void
watch_running(void)
{
	static uint32 deaths_seen = 0;
	uint32		deaths = jq_shared_deaths();
	int64		now = jq_clock_ms();
	bool		is_thorough = now >= thorough_at;
	int64		rested_at;

	if (now < watch_at && deaths == deaths_seen)
		return;
	deaths_seen = deaths;
	(void) jq_worker_protect(jq_maintenance_watch_running, &is_thorough);
	rested_at = jq_clock_ms();
	rested_at += (rested_at - now) * WATCH_REST;
	watch_at = now + jq_config_poll_interval;
	if (is_thorough)
		thorough_at = Max(now + THOROUGH_INTERVAL_MS, rested_at);
	else
		watch_at = Max(watch_at, Min(rested_at, now + MAX_WATCH_REST_MS));
}

/* Roles without an executor come first, or they might never get room. */
static void
serve_demand(void *arg)
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
