/*-------------------------------------------------------------------------
 *
 * http_demand.c
 *	  Whether there are HTTP jobs to send, and a dispatcher for them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/demand.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/probe.h"
#include "base/shared_state.h"
#include "miscadmin.h"
#include "queue/claim.h"
#include "queue/http_job.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define PROCESS_WAIT_MS 1000	/* after none could be started */

static bool is_wanted(void);

void
jq_demand_serve_http(void *arg)
{
	static int64 start_at = 0;	/* by jq_clock_ms() */

	if (!is_wanted() || jq_shared_wake_dispatcher(MyDatabaseId) ||
		jq_clock_ms() < start_at)
		return;
	if (jq_worker_start(JQ_WORKER_DISPATCHER, MyDatabaseId, InvalidOid,
						0) == JQ_START_NO_PROCESS)
		start_at = jq_clock_ms() + PROCESS_WAIT_MS;
}

/* Whether a job is due, or somebody waits for an answer. */
static bool
is_wanted(void)
{
	JqClaim		claim = {.is_http = true};
	TimestampTz due_at = DT_NOEND;

	if (jq_probe_wanted(MyDatabaseId))
		return true;
	jq_db_begin("looking for due HTTP jobs");
	claim.holder = jq_shared_incarnation();
	claim.job_types = jq_http_job_types();
	if (claim.job_types != NIL)
		due_at = jq_claim_next_due(&claim);
	jq_db_commit();
	return due_at <= GetCurrentTimestamp();
}
