/*-------------------------------------------------------------------------
 *
 * change.c
 *	  A job whose row is locked, and the version that will follow it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/catalog.h"
#include "queue/change.h"

bool
jq_change_begin(JqChange *change, Oid leaf, int64 job_id)
{
	const JqCatalog *catalog = jq_catalog();

	jq_table_open(&change->table, leaf);
	change->row = jq_table_slot(&change->table);
	if (!jq_table_lock_by_id(&change->table,
							 leaf == catalog->jobs_queue_live ?
							 catalog->jobs_queue_live_pkey :
							 catalog->jobs_queue_done_pkey,
							 job_id, LockTupleExclusive, change->row))
	{
		jq_table_close(&change->table);
		return false;
	}
	jq_job_read(change->row, &change->job);
	change->next = NULL;
	change->has_failed = false;
	change->now = GetCurrentTimestamp();
	return true;
}

/*
 * A second look finds what moved from one leaf to
 * the other between the two of the first.
 */
bool
jq_change_find(JqChange *change, int64 job_id, bool *is_live)
{
	const JqCatalog *catalog = jq_catalog();

	for (int i = 0; i < 2; i++)
	{
		*is_live = jq_change_begin(change, catalog->jobs_queue_live, job_id);
		if (*is_live || jq_change_begin(change, catalog->jobs_queue_done, job_id))
			return true;
	}
	return false;
}

void
jq_change_end(JqChange *change)
{
	jq_table_close(&change->table);
}

void
jq_change_next(JqChange *change)
{
	change->next = jq_table_new_row(&change->table);
	jq_job_begin_change(change->row, change->next, change->now);
}

void
jq_change_write(JqChange *change)
{
	if (!jq_job_update(&change->table, change->row, change->next))
		jq_job_report_suppressed(change->job.id);
}

void
jq_change_move(JqChange *change, Oid target)
{
	JqTable		to;

	jq_table_open(&to, target);
	jq_job_move(&change->table, &to, change->row, change->next);
	jq_table_close(&to);
}
