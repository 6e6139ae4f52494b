/*-------------------------------------------------------------------------
 *
 * server.c
 *	  _server_workers(): the workers of this server.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/shared_state.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define NCOLUMNS 9

PG_FUNCTION_INFO_V1(jobqueue_server_workers);

static const char *state_name(const JqWorkerInfo *worker);
static void put_worker(ReturnSetInfo *rsinfo, const JqWorkerInfo *worker);

/* No rows when the library was not preloaded. */
Datum
jobqueue_server_workers(PG_FUNCTION_ARGS)
{
	JqWorkerInfo *workers = NULL;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	count = jq_shared_workers(&workers);
	for (int i = 0; i < count; i++)
		if (workers[i].state != JQ_STATE_ENDED)
			put_worker((ReturnSetInfo *) fcinfo->resultinfo, &workers[i]);
	return (Datum) 0;
}

/* One row; what does not apply to the kind of worker is null. */
static void
put_worker(ReturnSetInfo *rsinfo, const JqWorkerInfo *worker)
{
	Datum		values[NCOLUMNS] = {0};
	bool		nulls[NCOLUMNS] = {false};

	values[0] = CStringGetTextDatum(jq_shared_kind_name(worker->kind));
	values[1] = ObjectIdGetDatum(worker->database);
	nulls[1] = !OidIsValid(worker->database);
	values[2] = ObjectIdGetDatum(worker->role);
	nulls[2] = !OidIsValid(worker->role);
	values[3] = Int32GetDatum(worker->pid);
	nulls[3] = worker->pid == 0;
	values[4] = UUIDPGetDatum(&worker->worker_id);
	nulls[4] = !worker->has_worker_id;
	values[5] = Int64GetDatum(worker->job_id);
	nulls[5] = worker->job_id == 0;
	values[6] = CStringGetTextDatum(state_name(worker));
	values[7] = TimestampTzGetDatum(worker->started_at);
	values[8] = TimestampTzGetDatum(worker->last_cycle_at);
	nulls[8] = worker->last_cycle_at == 0;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* One that was asked to end takes nothing new, whatever it does now. */
static const char *
state_name(const JqWorkerInfo *worker)
{
	if (worker->is_stuck)
		return "stuck";
	return jq_shared_state_name(worker->retire ? JQ_STATE_DRAINING :
								worker->state);
}
