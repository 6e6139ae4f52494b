/*-------------------------------------------------------------------------
 *
 * wake.c
 *	  Waking others when a transaction commits.
 *
 * Whoever is woken looks at what has been committed, and also at what was
 * invalidated by it.  A commit calls its callbacks before it sends its
 * invalidations: who was woken by one could look, see nothing new and sleep
 * on.  So others are woken when the locks of the transaction go, which is
 * after both.
 *
 * The commit of a prepared transaction calls nobody: the scheduler's poll
 * finds what it left.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/resowner.h"

#include "base/shared_state.h"
#include "base/wake.h"

#define MAX_WAKERS 4

static void (*wakers[MAX_WAKERS]) (void);
static int	nwakers = 0;
static bool is_committed = false;

static void wake_scheduler(void);
static void note_end(XactEvent event, void *arg);
static void wake_others(ResourceReleasePhase phase, bool isCommit,
						bool isTopLevel, void *arg);

void
jq_wake_at_commit(void)
{
	jq_call_at_commit(wake_scheduler);
}

static void
wake_scheduler(void)
{
	jq_shared_wake_scheduler(MyDatabaseId);
}

void
jq_call_at_commit(void (*waker) (void))
{
	static bool is_registered = false;

	if (!is_registered)
	{
		RegisterXactCallback(note_end, NULL);
		RegisterResourceReleaseCallback(wake_others, NULL);
		is_registered = true;
	}
	for (int i = 0; i < nwakers; i++)
		if (wakers[i] == waker)
			return;
	Assert(nwakers < MAX_WAKERS);
	wakers[nwakers++] = waker;
}

static void
note_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT)
		is_committed = true;
	else if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		nwakers = 0;
}

static void
wake_others(ResourceReleasePhase phase, bool isCommit, bool isTopLevel,
			void *arg)
{
	if (!is_committed || phase != RESOURCE_RELEASE_AFTER_LOCKS)
		return;
	is_committed = false;
	for (int i = 0; i < nwakers; i++)
		wakers[i] ();
	nwakers = 0;
}
