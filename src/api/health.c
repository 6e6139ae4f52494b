/*-------------------------------------------------------------------------
 *
 * health.c
 *	  What job_health() asks and SQL cannot see: troubles of workers, and the
 *	  sessions whose snapshots keep dead rows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "base/compat.h"
#include "base/shared_state.h"
#include "base/worker_troubles.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(jobqueue_worker_troubles);
PG_FUNCTION_INFO_V1(jobqueue_session_snapshots);

#define TROUBLE_COLUMNS 7
#define SNAPSHOT_COLUMNS 6

static void put_trouble(ReturnSetInfo *rsinfo, const JqTroubleInfo *trouble);
static void put_snapshot(ReturnSetInfo *rsinfo,
						 const LocalPgBackendStatus *session);
static TransactionId oldest_of(const LocalPgBackendStatus *session);
static const char *session_state(const PgBackendStatus *session);

/* Of every database.  No rows when the library was not preloaded. */
Datum
jobqueue_worker_troubles(PG_FUNCTION_ARGS)
{
	JqTroubleInfo troubles[JQ_MAX_TROUBLES];
	int			count = jq_troubles_list(troubles);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < count; i++)
		put_trouble((ReturnSetInfo *) fcinfo->resultinfo, &troubles[i]);
	return (Datum) 0;
}

static void
put_trouble(ReturnSetInfo *rsinfo, const JqTroubleInfo *trouble)
{
	Datum		values[TROUBLE_COLUMNS];
	bool		nulls[TROUBLE_COLUMNS] = {false};

	values[0] = CStringGetTextDatum(jq_shared_kind_name(trouble->kind));
	values[1] = ObjectIdGetDatum(trouble->database);
	nulls[1] = !OidIsValid(trouble->database);
	values[2] = CStringGetTextDatum(jq_troubles_name(trouble->trouble));
	values[3] = TimestampTzGetDatum(trouble->first_at);
	values[4] = TimestampTzGetDatum(trouble->last_at);
	values[5] = Int32GetDatum(trouble->count);
	values[6] = CStringGetTextDatum(unpack_sql_state(trouble->sqlstate));
	nulls[6] = trouble->sqlstate == 0;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * The other sessions whose transactions this database's dead rows may be
 * visible to.  pg_stat_activity tells since when only to those who may read
 * all statistics; that much, and no query, is told here to whoever may call.
 */
Datum
jobqueue_session_snapshots(PG_FUNCTION_ARGS)
{
	int			count = pgstat_fetch_stat_numbackends();

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 1; i <= count; i++)
	{
		const LocalPgBackendStatus *session = jq_compat_session(i);

		if (session == NULL || session->backendStatus.st_procpid == MyProcPid ||
			!TransactionIdIsValid(oldest_of(session)) ||
			(OidIsValid(session->backendStatus.st_databaseid) &&
			 session->backendStatus.st_databaseid != MyDatabaseId))
			continue;
		put_snapshot((ReturnSetInfo *) fcinfo->resultinfo, session);
	}
	return (Datum) 0;
}

static void
put_snapshot(ReturnSetInfo *rsinfo, const LocalPgBackendStatus *session)
{
	const PgBackendStatus *status = &session->backendStatus;
	Datum		values[SNAPSHOT_COLUMNS];
	bool		nulls[SNAPSHOT_COLUMNS] = {false};

	values[0] = Int32GetDatum(status->st_procpid);
	values[1] = ObjectIdGetDatum(status->st_userid);
	nulls[1] = !OidIsValid(status->st_userid);
	values[2] = CStringGetTextDatum(status->st_appname);
	values[3] = CStringGetTextDatum(session_state(status));
	values[4] = TimestampTzGetDatum(status->st_xact_start_timestamp);
	nulls[4] = status->st_xact_start_timestamp == 0;
	values[5] = TransactionIdGetDatum(oldest_of(session));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* A transaction that has written counts without a snapshot, too. */
static TransactionId
oldest_of(const LocalPgBackendStatus *session)
{
	TransactionId oldest = session->backend_xmin;

	if (!TransactionIdIsValid(oldest) ||
		(TransactionIdIsValid(session->backend_xid) &&
		 TransactionIdPrecedes(session->backend_xid, oldest)))
		oldest = session->backend_xid;
	return oldest;
}

static const char *
session_state(const PgBackendStatus *session)
{
	switch (session->st_state)
	{
		case STATE_IDLE:
			return "idle";
		case STATE_IDLEINTRANSACTION:
			return "idle in transaction";
		case STATE_IDLEINTRANSACTION_ABORTED:
			return "idle in transaction (aborted)";
		default:
			return "active";
	}
}
