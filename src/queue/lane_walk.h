/*-------------------------------------------------------------------------
 *
 * lane_walk.h
 *	  The walk of the lanes in SQL.
 *
 *	  A lane is one (job type, stage, priority) of the ready index.  The walk
 *	  hops from one to the next by a loose index scan: one descent per lane,
 *	  however many jobs are in it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_LANE_WALK_H
#define JQ_LANE_WALK_H

/*
 * A WITH RECURSIVE element "lane": job_type, stage and priority, and in
 * scheduled_at and id the key of its first row.  Whoever reads the lane starts
 * there, or he would pass once more over the dead rows before it.
 */
#define JQ_WALK_ALL_LANES \
	"lane AS (" \
	"(SELECT job_type, stage, priority, scheduled_at, id" \
	" FROM @.jobs_queue_live" \
	" ORDER BY job_type, stage, priority, scheduled_at, id LIMIT 1)" \
	" UNION ALL" \
	" SELECT n.* FROM lane l CROSS JOIN LATERAL (" \
	"SELECT q.job_type, q.stage, q.priority, q.scheduled_at, q.id" \
	" FROM @.jobs_queue_live q" \
	" WHERE (q.job_type, q.stage, q.priority) >" \
	" (l.job_type, l.stage, l.priority)" \
	" ORDER BY q.job_type, q.stage, q.priority, q.scheduled_at, q.id" \
	" LIMIT 1) n)"

/* The same for the job type that is parameter "type". */
#define JQ_WALK_LANES_OF(type) \
	"lane AS (" \
	"(SELECT job_type, stage, priority, scheduled_at, id" \
	" FROM @.jobs_queue_live WHERE job_type = " type \
	" ORDER BY stage, priority, scheduled_at, id LIMIT 1)" \
	" UNION ALL" \
	" SELECT n.* FROM lane l CROSS JOIN LATERAL (" \
	"SELECT q.job_type, q.stage, q.priority, q.scheduled_at, q.id" \
	" FROM @.jobs_queue_live q WHERE q.job_type = " type \
	" AND (q.stage, q.priority) > (l.stage, l.priority)" \
	" ORDER BY q.stage, q.priority, q.scheduled_at, q.id LIMIT 1) n)"

#endif							/* JQ_LANE_WALK_H */
