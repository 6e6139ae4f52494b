/*-------------------------------------------------------------------------
 *
 * wake.c
 *	  Waking the scheduler of this database when a transaction commits.
 *
 * The commit of a prepared transaction calls nobody: the scheduler's poll
 * finds what it left.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "base/shared_state.h"
#include "base/wake.h"

static bool is_due = false;

static void wake_scheduler(XactEvent event, void *arg);

void
jq_wake_at_commit(void)
{
	static bool is_registered = false;

	if (!is_registered)
	{
		RegisterXactCallback(wake_scheduler, NULL);
		is_registered = true;
	}
	is_due = true;
}

static void
wake_scheduler(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	if (is_due && event == XACT_EVENT_COMMIT)
		jq_shared_wake_scheduler(MyDatabaseId);
	is_due = false;
}
