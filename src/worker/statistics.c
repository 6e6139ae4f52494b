/*-------------------------------------------------------------------------
 *
 * statistics.c
 *	  How many jobs there are, in the server log now and then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/statistics.h"

#include "base/clock.h"
#include "base/config.h"
#include "base/db.h"
#include "base/event_line.h"
#include "queue/job_counts.h"
#include "worker/worker.h"

typedef enum Count
{
	COUNT_TOTAL,
	COUNT_PENDING,				/* blocked ones included */
	COUNT_PROCESSING,
	COUNT_COMPLETED,
	COUNT_FAILED,
	COUNT_DEAD_LETTERS,
	COUNT_CANCELLED
} Count;
#define NCOUNTS (COUNT_CANCELLED + 1)

static const char *const keys[NCOUNTS] = {
	"total", "pending", "processing", "completed", "failed", "deadLetters",
	"cancelled"
};

/* What the jobs of each status count as. */
static const Count count_of[JQ_STATUS_COUNT] = {
	[JQ_STATUS_QUEUED] = COUNT_PENDING,
	[JQ_STATUS_BLOCKED] = COUNT_PENDING,
	[JQ_STATUS_RUNNING] = COUNT_PROCESSING,
	[JQ_STATUS_COMPLETED] = COUNT_COMPLETED,
	[JQ_STATUS_FAILED] = COUNT_FAILED,
	[JQ_STATUS_ERROR] = COUNT_DEAD_LETTERS,
	[JQ_STATUS_CANCELLED] = COUNT_CANCELLED
};

static int64 due_since = 0;		/* by jq_clock_ms(); 0: not begun */
static int64 last_counts[NCOUNTS];
static bool has_last = false;

static void read_counts(void *arg);
static void log_counts(const int64 *counts);

void
jq_statistics_tend(void)
{
	int64		now = jq_clock_ms();
	int64		counts[NCOUNTS];

	if (due_since == 0)
		due_since = now;
	if (jq_config_statistics_interval == 0 || !jq_config_logs(LOG) ||
		now < due_since + (int64) jq_config_statistics_interval * 1000)
		return;
	due_since = now;
	if (!jq_worker_protect(read_counts, counts) ||
		(has_last && memcmp(counts, last_counts, sizeof(counts)) == 0))
		return;
	memcpy(last_counts, counts, sizeof(counts));
	has_last = true;
	log_counts(counts);
}

static void
read_counts(void *arg)
{
	int64	   *counts = (int64 *) arg;
	JqJobCounts *types;
	int			ntypes;

	memset(counts, 0, sizeof(int64) * NCOUNTS);
	jq_db_begin("counting jobs");
	ntypes = jq_job_counts_list(&types);
	for (int i = 0; i < ntypes; i++)
		for (int status = 0; status < JQ_STATUS_COUNT; status++)
		{
			counts[COUNT_TOTAL] += types[i].jobs[status];
			counts[count_of[status]] += types[i].jobs[status];
		}
	jq_db_commit();
}

static void
log_counts(const int64 *counts)
{
	JqEventSubject nobody = {0};
	JqEventLine line;

	jq_event_line_begin(&line, NULL, "worker.statistics", LOG, &nobody);
	for (int i = 0; i < NCOUNTS; i++)
		jq_event_line_put_integer(&line, keys[i], counts[i]);
	jq_event_line_emit(jq_event_line_end(&line));
}
