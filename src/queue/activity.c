/*-------------------------------------------------------------------------
 *
 * activity.c
 *	  Whether jobs are worked on in this database.
 *
 * database_identity says which database of which server the jobs belong to.
 * A dump carries it, and so does a copy of the files of a database: there it
 * names another database, and the server runs nothing of its own accord until
 * activate_jobs().  The same row holds a pause.
 *
 * What is read is remembered until a statement trigger on one of the two
 * tables, or a change of a subscription, sends an invalidation: a claim pays
 * two comparisons.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/catalog.h"
#include "base/config.h"
#include "base/scope.h"
#include "base/statement.h"
#include "base/wake.h"
#include "queue/activity.h"
#include "queue/waiters.h"

PG_FUNCTION_INFO_V1(jobqueue_activity_changed);

typedef struct StopRequest
{
	pg_uuid_t	worker;			/* they are sorted by it */
	char	   *reason;			/* NULL: none was given */
} StopRequest;

/* What the tables say. */
typedef struct Standing
{
	bool		has_identity;
	bool		is_ours;		/* or nobody's yet */
	bool		is_paused;
	bool		is_subscriber;
	int			nstops;
	StopRequest *stops;
} Standing;

static Standing known;
static MemoryContext known_context = NULL;	/* of the requests */
static uint32 known_generation = 0; /* 0: nothing is known */
static Oid	known_identity = InvalidOid;	/* the tables it was read from */
static Oid	known_stops = InvalidOid;
static uint32 generation = 1;

static JqStatement select_standing = {
	.text = "SELECT i.system_identifier, i.database, i.paused_at IS NOT NULL,"
	" EXISTS (SELECT FROM @.worker_stops),"
	" EXISTS (SELECT FROM pg_catalog.pg_subscription_rel r"
	" JOIN pg_catalog.pg_subscription s ON s.oid = r.srsubid"
	" WHERE s.subenabled AND r.srrelid IN ($1, $2))"
	" FROM (SELECT) one LEFT JOIN @.database_identity i ON true",
	.nargs = 2,
	.argtypes = {OIDOID, OIDOID}
};

static JqStatement select_stops = {
	.text = "SELECT worker_id, reason FROM @.worker_stops ORDER BY worker_id"
};

static JqStatement insert_identity = {
	.text = "INSERT INTO @.database_identity (system_identifier, database,"
	" activated_by) SELECT $1, $2, $3"
	" WHERE NOT EXISTS (SELECT FROM @.database_identity)",
	.nargs = 3,
	.argtypes = {INT8OID, OIDOID, REGROLEOID}
};

/* A pause that came along belongs to the original. */
static JqStatement update_identity = {
	.text = "UPDATE @.database_identity SET system_identifier = $1,"
	" database = $2, activated_at = now(), activated_by = $3,"
	" paused_at = NULL, paused_by = NULL, pause_reason = NULL"
	" WHERE (system_identifier, database) <> ($1, $2)",
	.nargs = 3,
	.argtypes = {INT8OID, OIDOID, REGROLEOID}
};

static JqStatement update_pause = {
	.text = "UPDATE @.database_identity SET paused_at = now(),"
	" paused_by = $1, pause_reason = $2 WHERE paused_at IS NULL",
	.nargs = 2,
	.argtypes = {REGROLEOID, TEXTOID}
};

static JqStatement end_pause = {
	.text = "UPDATE @.database_identity SET paused_at = NULL,"
	" paused_by = NULL, pause_reason = NULL WHERE paused_at IS NOT NULL",
};

static JqStatement insert_stop = {
	.text = "INSERT INTO @.worker_stops (worker_id, reason, requested_by)"
	" VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
	.nargs = 3,
	.argtypes = {UUIDOID, TEXTOID, REGROLEOID}
};

static JqStatement delete_stop = {
	.text = "DELETE FROM @.worker_stops WHERE worker_id = $1",
	.nargs = 1,
	.argtypes = {UUIDOID}
};

static const Standing *standing(void);
static void load(const JqCatalog *catalog);
static void read_standing(const JqCatalog *catalog, Standing *fresh);
static void read_stops(Standing *fresh);
static const StopRequest *find_stop(const pg_uuid_t *worker);
static int	compare_stops(const void *a, const void *b);
static void lock_identity(void);
static bool add_identity(Oid role);
static void forget_relation(Datum arg, Oid relid);
static void forget_subscriptions(Datum arg, int cacheid, uint32 hashvalue);
static void tell_others(void);

/* ---- what is so ---- */

JqQuiet
jq_activity_quiet(void)
{
	const Standing *now = standing();

	if (now->is_paused)
		return JQ_QUIET_PAUSED;
	if (!now->is_ours)
		return JQ_QUIET_COPY;
	if (now->is_subscriber)
		return JQ_QUIET_SUBSCRIBER;
	return JQ_QUIET_NOT;
}

/* Of the database first, then of the server. */
const char *
jq_activity_obstacle(void)
{
	switch (jq_activity_quiet())
	{
		case JQ_QUIET_PAUSED:
			return "paused";
		case JQ_QUIET_COPY:
			return "restored copy";
		case JQ_QUIET_SUBSCRIBER:
			return "subscription";
		default:
			break;
	}
	if (RecoveryInProgress())
		return "standby";
	if (!jq_config_enabled)
		return "jobqueue.enabled is off";
	if (!jq_shared_is_attached())
		return "library not preloaded";
	if (!jq_config_launcher)
		return "jobqueue.launcher is off";
	if (!jq_config_lists(jq_config_databases, get_database_name(MyDatabaseId)))
		return "not in jobqueue.databases";
	return NULL;
}

bool
jq_activity_is_paused(void)
{
	return standing()->is_paused;
}

bool
jq_activity_may_claim(const pg_uuid_t *worker, bool in_server)
{
	const Standing *now;

	/* A transaction that has claimed before locks nothing anew. */
	AcceptInvalidationMessages();
	now = standing();
	if (in_server)
		return jq_activity_quiet() == JQ_QUIET_NOT;
	return !now->is_paused &&
		(now->nstops == 0 || !jq_activity_tell_stopped(worker));
}

static const Standing *
standing(void)
{
	const JqCatalog *catalog = jq_catalog();

	if (known_generation != generation ||
		known_identity != catalog->database_identity ||
		known_stops != catalog->worker_stops)
		load(catalog);
	return &known;
}

/* What changes while it is being read is read again by the next call. */
static void
load(const JqCatalog *catalog)
{
	uint32		read_at;
	Standing	fresh = {0};

	if (known_context == NULL)
	{
		known_context = AllocSetContextCreate(TopMemoryContext,
											  "jobqueue activity",
											  ALLOCSET_SMALL_SIZES);
		CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
		CacheRegisterSyscacheCallback(SUBSCRIPTIONOID, forget_subscriptions,
									  (Datum) 0);
		CacheRegisterSyscacheCallback(SUBSCRIPTIONRELMAP,
									  forget_subscriptions, (Datum) 0);
	}
	known_generation = 0;
	known_identity = catalog->database_identity;
	known_stops = catalog->worker_stops;
	MemoryContextReset(known_context);
	read_at = generation;

	/* The newest rows, whatever the age of the transaction's snapshot. */
	jq_scope_enter_read_only();
	PushActiveSnapshot(GetLatestSnapshot());
	read_standing(catalog, &fresh);
	if (fresh.nstops > 0)
		read_stops(&fresh);
	PopActiveSnapshot();
	jq_scope_leave();
	known = fresh;
	known_generation = read_at;
}

/* Of the requests to stop only whether there are any. */
static void
read_standing(const JqCatalog *catalog, Standing *fresh)
{
	Datum		values[] = {
		ObjectIdGetDatum(catalog->jobs_queue),
		ObjectIdGetDatum(catalog->jobs_queue_live)
	};
	bool		isnull;
	int64		server;

	(void) jq_statement_query(&select_standing, values, NULL, 1);
	server = DatumGetInt64(jq_statement_nullable(0, 1, &isnull));
	fresh->has_identity = !isnull;
	fresh->is_ours = !fresh->has_identity ||
		(server == (int64) GetSystemIdentifier() &&
		 DatumGetObjectId(jq_statement_value(0, 2)) == MyDatabaseId);
	fresh->is_paused = DatumGetBool(jq_statement_value(0, 3));
	fresh->nstops = DatumGetBool(jq_statement_value(0, 4)) ? 1 : 0;
	fresh->is_subscriber = DatumGetBool(jq_statement_value(0, 5));
}

static void
read_stops(Standing *fresh)
{
	uint64		count = jq_statement_query(&select_stops, NULL, NULL, 0);

	fresh->nstops = (int) count;
	fresh->stops = MemoryContextAllocZero(known_context,
										  sizeof(StopRequest) * Max(count, 1));
	for (uint64 i = 0; i < count; i++)
	{
		StopRequest *stop = &fresh->stops[i];
		bool		isnull;
		Datum		reason = jq_statement_nullable(i, 2, &isnull);

		stop->worker = *DatumGetUUIDP(jq_statement_value(i, 1));
		if (!isnull)
			stop->reason = MemoryContextStrdup(known_context,
											   TextDatumGetCString(reason));
	}
}

static const StopRequest *
find_stop(const pg_uuid_t *worker)
{
	const Standing *now = standing();
	StopRequest key = {.worker = *worker};

	if (now->nstops == 0)
		return NULL;
	return bsearch(&key, now->stops, now->nstops, sizeof(StopRequest),
				   compare_stops);
}

static int
compare_stops(const void *a, const void *b)
{
	return memcmp(&((const StopRequest *) a)->worker,
				  &((const StopRequest *) b)->worker, sizeof(pg_uuid_t));
}

bool
jq_activity_tell_stopped(const pg_uuid_t *worker)
{
	const StopRequest *stop = find_stop(worker);

	if (stop == NULL)
		return false;
	ereport(NOTICE,
			(errcode(ERRCODE_WARNING),
			 errmsg("worker %s was asked to stop",
					DatumGetCString(DirectFunctionCall1(uuid_out,
														UUIDPGetDatum(worker)))),
			 stop->reason == NULL ? 0 : errdetail("%s", stop->reason),
			 errhint("It may finish the jobs that it holds and gets no others, until it registers again.")));
	return true;
}

/* ---- what is made so ---- */

void
jq_activity_adopt(void)
{
	if (!standing()->has_identity)
		(void) add_identity(GetUserId());
}

bool
jq_activity_activate(Oid role)
{
	Datum		values[] = {
		Int64GetDatum((int64) GetSystemIdentifier()),
		ObjectIdGetDatum(MyDatabaseId),
		ObjectIdGetDatum(role)
	};
	bool		was_copy;

	jq_scope_enter(JQ_WRITE_ENGINE);
	lock_identity();
	was_copy = jq_statement_execute(&update_identity, values, NULL, 0) > 0;
	if (!was_copy)
		(void) add_identity(role);
	jq_scope_leave();
	return was_copy;
}

bool
jq_activity_pause(Oid role, const char *reason)
{
	Datum		values[2] = {ObjectIdGetDatum(role)};
	bool		is_new;

	jq_scope_enter(JQ_WRITE_ENGINE);
	lock_identity();
	(void) add_identity(role);
	if (reason != NULL)
		values[1] = CStringGetTextDatum(reason);
	is_new = jq_statement_execute(&update_pause, values,
								  reason == NULL ? " n" : NULL, 0) > 0;
	jq_scope_leave();
	return is_new;
}

bool
jq_activity_resume(void)
{
	bool		was_paused;

	jq_scope_enter(JQ_WRITE_ENGINE);
	lock_identity();
	was_paused = jq_statement_execute(&end_pause, NULL, NULL, 0) > 0;
	jq_scope_leave();
	return was_paused;
}

/*
 * Who writes the row comes after those who are writing it: a restore above
 * all, whose row the next look must see.
 */
static void
lock_identity(void)
{
	LockRelationOid(jq_catalog()->database_identity, ShareRowExclusiveLock);
}

/* False: there is one. */
static bool
add_identity(Oid role)
{
	Datum		values[] = {
		Int64GetDatum((int64) GetSystemIdentifier()),
		ObjectIdGetDatum(MyDatabaseId),
		ObjectIdGetDatum(role)
	};
	bool		is_new;

	jq_scope_enter(JQ_WRITE_ENGINE);
	lock_identity();
	is_new = jq_statement_execute(&insert_identity, values, NULL, 0) > 0;
	jq_scope_leave();
	return is_new;
}

bool
jq_activity_stop_worker(const pg_uuid_t *worker, Oid role, const char *reason)
{
	Datum		values[3] = {UUIDPGetDatum(worker)};
	bool		is_new;

	jq_scope_enter(JQ_WRITE_ENGINE);
	if (reason != NULL)
		values[1] = CStringGetTextDatum(reason);
	values[2] = ObjectIdGetDatum(role);
	is_new = jq_statement_execute(&insert_stop, values,
								  reason == NULL ? " n " : NULL, 0) > 0;
	jq_scope_leave();
	return is_new;
}

/* Looks first: even a statement that deletes nothing tells everybody. */
void
jq_activity_unstop_worker(const pg_uuid_t *worker)
{
	Datum		values[] = {UUIDPGetDatum(worker)};

	if (find_stop(worker) == NULL)
		return;
	jq_scope_enter(JQ_WRITE_ENGINE);
	(void) jq_statement_execute(&delete_stop, values, NULL, 0);
	jq_scope_leave();
}

/* ---- who must know ---- */

/*
 * AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE, on both tables.  A change of
 * the identity also concerns the launcher, which may have to start a
 * scheduler, and whoever sleeps.
 */
Datum
jobqueue_activity_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"_activity_changed\" must be called as a trigger")));
	CacheInvalidateRelcache(trigger->tg_relation);
	if (RelationGetRelid(trigger->tg_relation) != jq_catalog()->worker_stops)
		jq_activity_wake_at_commit();
	return PointerGetDatum(NULL);
}

void
jq_activity_wake_at_commit(void)
{
	jq_call_at_commit(tell_others);
}

/* A prepared transaction is noticed by polls. */
static void
tell_others(void)
{
	jq_shared_mark_database(MyDatabaseId);
	jq_waiters_wake_all();
}

static void
forget_relation(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == known_identity || relid == known_stops)
		generation++;
}

static void
forget_subscriptions(Datum arg, int cacheid, uint32 hashvalue)
{
	generation++;
}
