/*-------------------------------------------------------------------------
 *
 * jobqueue.c
 *	  The library's entry point.
 *
 *	  Preloaded by the postmaster, the library has shared memory and workers.
 *	  Loaded later, by a session's first call, it still enqueues, claims and
 *	  resolves jobs; what only exists from the server's start is left out.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/config.h"
#include "base/endpoint_health.h"
#include "base/fault.h"
#include "base/probe.h"
#include "base/scope.h"
#include "base/shared_state.h"
#include "base/worker_troubles.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "queue/circuit_counts.h"
#include "queue/failure_counts.h"
#include "queue/hints.h"
#include "queue/lanes.h"
#include "queue/limit_memory.h"
#include "queue/limits.h"
#include "queue/metrics.h"
#include "queue/user_metrics.h"
#include "queue/waiters.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

extern void _PG_init(void);

void
_PG_init(void)
{
	bool		preloading = process_shared_preload_libraries_in_progress;

	/* pg_upgrade's servers must run nothing and change nothing. */
	if (IsBinaryUpgrade)
		return;

	jq_config_define(preloading);
	jq_scope_init();
	jq_hints_init();
	jq_limits_init();
	if (!preloading)
		return;

	jq_shared_init();
	jq_lanes_init();
	jq_limit_memory_init();
	jq_waiters_init();
	jq_circuit_counts_init();
	jq_metrics_init();
	jq_user_metrics_init();
	jq_failure_counts_init();
	jq_health_init();
	jq_probe_init();
	jq_troubles_init();
	JQ_FAULT_INIT();
	jq_launcher_init();
}
