/*-------------------------------------------------------------------------
 *
 * forgetting.c
 *	  Deleting unique keys that hold no more.
 *
 * It looks first: deleting nothing would cost a transaction id.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "base/db.h"
#include "base/scope.h"
#include "queue/unique.h"
#include "worker/maintenance.h"

#define MAX_BATCHES 20			/* in one go */

static int64 *stale_keys(int64 *job_id, int *count);

/* All keys are looked at in turn, some of them each time. */
void
jq_maintenance_prune_keys(void *arg)
{
	static int64 job_id = 0;

	for (int i = 0; i < MAX_BATCHES; i++)
	{
		int			count;
		int64	   *stale = stale_keys(&job_id, &count);

		if (count > 0)
		{
			jq_db_begin("deleting old unique keys");
			jq_scope_enter(JQ_WRITE_ENGINE);
			(void) jq_unique_prune(stale, count);
			jq_scope_leave();
			jq_db_commit();
		}
		else if (job_id == 0)
			break;
		CHECK_FOR_INTERRUPTS();
	}
}

/* In the caller's context. */
static int64 *
stale_keys(int64 *job_id, int *count)
{
	MemoryContext context = CurrentMemoryContext;
	int64	   *stale;
	int64	   *result;

	jq_db_begin("looking for old unique keys");
	jq_scope_enter_read_only();
	jq_scope_prefer_indexes();
	stale = jq_unique_stale(job_id, count);
	result = MemoryContextAlloc(context, sizeof(int64) * Max(*count, 1));
	if (*count > 0)
		memcpy(result, stale, sizeof(int64) * *count);
	jq_scope_leave();
	jq_db_commit();
	return result;
}
