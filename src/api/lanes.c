/*-------------------------------------------------------------------------
 *
 * lanes.c
 *	  _lanes() and _claim_counts(): what shared memory remembers of jobs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "base/catalog.h"
#include "base/compat.h"
#include "fmgr.h"
#include "funcapi.h"
#include "queue/lanes.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(jobqueue_lanes);
PG_FUNCTION_INFO_V1(jobqueue_claim_counts);

#define LANE_COLUMNS 8

static bool join_lanes(void);

/* No rows when the library was not preloaded. */
Datum
jobqueue_lanes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JqLaneInfo *lanes = NULL;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	count = jq_lanes_info(&lanes);
	for (int i = 0; i < count; i++)
	{
		Datum		values[LANE_COLUMNS];
		bool		nulls[LANE_COLUMNS] = {false};

		values[0] = CStringGetTextDatum(lanes[i].name.job_type);
		values[1] = ObjectIdGetDatum(lanes[i].name.owner);
		nulls[1] = !OidIsValid(lanes[i].name.owner);
		values[2] = CStringGetTextDatum(lanes[i].name.stage);
		values[3] = Int16GetDatum(lanes[i].name.priority);
		values[4] = Int32GetDatum(lanes[i].candidates);
		values[5] = TimestampTzGetDatum(lanes[i].position_at);
		values[6] = TimestampTzGetDatum(lanes[i].last_used_at);
		values[7] = TimestampTzGetDatum(lanes[i].last_claim_at);
		nulls[7] = lanes[i].last_claim_at == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* NULL when the library was not preloaded. */
Datum
jobqueue_claim_counts(PG_FUNCTION_ARGS)
{
	uint64		counts[JQ_LANE_COUNTS];
	Datum		values[JQ_LANE_COUNTS];
	bool		nulls[JQ_LANE_COUNTS] = {false};
	TupleDesc	desc;

	if (!join_lanes() || !jq_lanes_counts(counts))
		PG_RETURN_NULL();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "_claim_counts() must return a row");
	for (int i = 0; i < JQ_LANE_COUNTS; i++)
		values[i] = Int64GetDatum((int64) counts[i]);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}

static bool
join_lanes(void)
{
	Relation	live = table_open(jq_catalog()->jobs_queue_live,
								  AccessShareLock);
	bool		is_joined = jq_lanes_join(RelationGetRelid(live),
										  jq_compat_file_number(live));

	table_close(live, AccessShareLock);
	return is_joined;
}
