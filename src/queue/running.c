/*-------------------------------------------------------------------------
 *
 * running.c
 *	  Finding the jobs that somebody holds.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/scope.h"
#include "base/statement.h"
#include "queue/lane_walk.h"
#include "queue/running.h"

#define COLUMNS \
	"q.ctid, q.id, q.claim_no, q.locked_by, q.holder, q.lease_expires_at," \
	" q.cancel_requested_at IS NOT NULL"

static JqStatement heads_of_lanes = {
	.text = "WITH RECURSIVE " JQ_WALK_ALL_LANES
	" SELECT " COLUMNS " FROM lane l CROSS JOIN LATERAL ("
	"SELECT r.ctid, r.* FROM @.jobs_queue_live r"
	" WHERE r.job_type = l.job_type AND r.stage = l.stage"
	" AND r.priority = l.priority"
	" AND (r.scheduled_at, r.id) >= (l.scheduled_at, l.id)"
	" ORDER BY r.scheduled_at, r.id LIMIT 1000) q WHERE q.status = 'running'"
	" AND l.job_type <> 'sql'",
};

/* The same of the built-in type, whose jobs are claimed owner by owner. */
static JqStatement heads_of_owned_lanes = {
	.text = "WITH RECURSIVE " JQ_WALK_OWNED_LANES
	" SELECT " COLUMNS " FROM lane l CROSS JOIN LATERAL ("
	"SELECT q.ctid, q.*"
	JQ_OWNED_LANE_FROM("l.owner", "l.stage", "l.priority",
					   "l.scheduled_at", "l.id")
	" AND (q.owner, q.stage, q.priority) <= (l.owner, l.stage, l.priority)"
	JQ_OWNED_LANE_ORDER " LIMIT 1000) q WHERE q.status = 'running'",
};

static JqStatement every_row = {
	.text = "SELECT " COLUMNS " FROM @.jobs_queue_live q"
	" WHERE q.status = 'running'",
};

/* The jobs that statements have found. */
typedef struct Found
{
	JqRunningJob *jobs;			/* in the result context of the scope */
	int			count;
} Found;

static void find(Found *found, JqStatement *statement);
static void read_job(uint64 row, JqRunningJob *job);

JqRunningJob *
jq_running_jobs(bool is_thorough, int *count)
{
	Found		found = {0};

	jq_scope_enter_read_only();
	if (is_thorough)
		find(&found, &every_row);
	else
	{
		jq_scope_prefer_indexes();
		find(&found, &heads_of_lanes);
		find(&found, &heads_of_owned_lanes);
	}
	jq_scope_leave();
	*count = found.count;
	return found.jobs;
}

static void
find(Found *found, JqStatement *statement)
{
	int			rows = (int) jq_statement_query(statement, NULL, NULL, 0);
	Size		size = sizeof(JqRunningJob) * (found->count + rows + 1);

	if (found->jobs == NULL)
		found->jobs = MemoryContextAlloc(jq_scope_result_context(), size);
	else
		found->jobs = repalloc(found->jobs, size);
	for (int i = 0; i < rows; i++)
		read_job(i, &found->jobs[found->count++]);
}

static void
read_job(uint64 row, JqRunningJob *job)
{
	bool		isnull;
	Datum		value;

	job->tid = *(ItemPointer) DatumGetPointer(jq_statement_value(row, 1));
	job->id = DatumGetInt64(jq_statement_value(row, 2));
	job->claim_no = DatumGetInt32(jq_statement_value(row, 3));
	job->worker = *DatumGetUUIDP(jq_statement_value(row, 4));
	value = jq_statement_nullable(row, 5, &isnull);
	job->holder = isnull ? 0 : DatumGetInt64(value);
	value = jq_statement_nullable(row, 6, &isnull);
	job->lease_expires_at = isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
	job->cancel_requested = DatumGetBool(jq_statement_value(row, 7));
}

bool
jq_running_is_lost(const JqRunningJob *job, int64 incarnation,
				   bool (*is_alive) (const pg_uuid_t *worker))
{
	if (incarnation == 0 || job->holder == 0)
		return job->lease_expires_at <= GetCurrentTimestamp();
	return job->holder != incarnation || !is_alive(&job->worker);
}
