/*-------------------------------------------------------------------------
 *
 * cancellation.c
 *	  Tells executors of cancelled jobs as soon as the request commits.
 *
 * Requests are kept with the depth of the subtransaction that made them, and
 * go where it goes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"

#include "base/shared_state.h"
#include "queue/cancellation.h"

#define MAX_REQUESTS 64

typedef struct Request
{
	pg_uuid_t	worker;
	int64		job_id;
	int32		claim_no;
	int			depth;
} Request;

static Request requests[MAX_REQUESTS];
static int	nrequests = 0;

static void end_requests(XactEvent event, void *arg);
static void follow_subtransaction(SubXactEvent event,
								  SubTransactionId mySubid,
								  SubTransactionId parentSubid, void *arg);

void
jq_cancellation_note(const pg_uuid_t *worker, int64 job_id, int32 claim_no)
{
	static bool is_registered = false;

	if (!is_registered)
	{
		RegisterXactCallback(end_requests, NULL);
		RegisterSubXactCallback(follow_subtransaction, NULL);
		is_registered = true;
	}
	if (nrequests == MAX_REQUESTS)
		return;
	requests[nrequests].worker = *worker;
	requests[nrequests].job_id = job_id;
	requests[nrequests].claim_no = claim_no;
	requests[nrequests++].depth = GetCurrentTransactionNestLevel();
}

static void
end_requests(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE ||
		event == XACT_EVENT_PARALLEL_PRE_COMMIT)
		return;
	if (event == XACT_EVENT_COMMIT)
		for (int i = 0; i < nrequests; i++)
			jq_shared_cancel_job(&requests[i].worker, requests[i].job_id,
								 requests[i].claim_no);
	nrequests = 0;
}

/* Those of deeper levels are at the end. */
static void
follow_subtransaction(SubXactEvent event, SubTransactionId mySubid,
					  SubTransactionId parentSubid, void *arg)
{
	int			depth = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
		while (nrequests > 0 && requests[nrequests - 1].depth >= depth)
			nrequests--;
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (int i = nrequests - 1; i >= 0 && requests[i].depth >= depth; i--)
			requests[i].depth = depth - 1;
}
