/*-------------------------------------------------------------------------
 *
 * http_demand.c
 *	  Whether there are HTTP jobs to send, and dispatchers for them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/demand.h"

#include "base/clock.h"
#include "base/config.h"
#include "base/db.h"
#include "base/endpoint_health.h"
#include "base/probe.h"
#include "base/shared_state.h"
#include "miscadmin.h"
#include "queue/claim.h"
#include "queue/http_job.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define PROCESS_WAIT_MS 1000	/* after none could be started */
#define MANY_JOBS 100			/* are worth another dispatcher */

static int	count_due(void);

/* One dispatcher serves all; more of them share what is a lot for one. */
void
jq_demand_serve_http(void *arg)
{
	static int64 start_at = 0;	/* by jq_clock_ms() */
	bool		is_probe = jq_probe_wanted(MyDatabaseId);
	int			due = count_due();
	int			dispatchers;

	if (due == 0 && !is_probe)
		return;
	dispatchers = jq_shared_wake_dispatchers(MyDatabaseId);
	if (dispatchers > 0 &&
		(due < MANY_JOBS || dispatchers >= jq_health_max_dispatchers()))
		return;
	if (jq_clock_ms() >= start_at &&
		jq_worker_start(JQ_WORKER_DISPATCHER, MyDatabaseId, InvalidOid,
						jq_health_max_dispatchers()) == JQ_START_NO_PROCESS)
		start_at = jq_clock_ms() + PROCESS_WAIT_MS;
}

/* Of each job type up to a hundred; where lanes cannot tell, one or none. */
static int
count_due(void)
{
	JqClaim		claim = {.is_http = true,.holder = jq_shared_incarnation()};
	int			count = 0;
	ListCell   *cell;

	jq_db_begin("looking for due HTTP jobs");
	claim.job_types = jq_http_job_types();
	foreach(cell, claim.job_types)
	{
		JqDueJobs  *due;
		int			lanes;

		if (!jq_claim_count_due((char *) lfirst(cell), MANY_JOBS, &due, &lanes))
		{
			if (jq_claim_next_due(&claim) <= GetCurrentTimestamp())
				count++;
			break;
		}
		for (int i = 0; i < lanes; i++)
			count += due[i].jobs;
	}
	jq_db_commit();
	return count;
}
