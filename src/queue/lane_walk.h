/*-------------------------------------------------------------------------
 *
 * lane_walk.h
 *	  The walk of the lanes in SQL.
 *
 *	  A lane is one (job type, stage, priority) of the ready index.  The walk
 *	  hops from one to the next by a loose index scan: one descent per lane,
 *	  however many jobs are in it.  The lanes of the built-in type have an
 *	  index of their own, where each belongs to an owner, too.
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

/*
 * The same for the lanes of the built-in type, with their owners; jobs without
 * one are in none.  Everything is compared and ordered from the owner on, even
 * where he is known: no other index has that order, so the planner, whatever
 * it thinks of the table, cannot take one that would lead past other owners.
 */
#define JQ_WALK_OWNED(first, next) \
	"lane AS (" \
	"(SELECT owner, stage, priority, scheduled_at, id" \
	" FROM @.jobs_queue_live WHERE job_type = 'sql' AND " first \
	" ORDER BY owner, stage, priority, scheduled_at, id LIMIT 1)" \
	" UNION ALL" \
	" SELECT n.* FROM lane l CROSS JOIN LATERAL (" \
	"SELECT q.owner, q.stage, q.priority, q.scheduled_at, q.id" \
	" FROM @.jobs_queue_live q WHERE q.job_type = 'sql'" \
	" AND (q.owner, q.stage, q.priority) > (l.owner, l.stage, l.priority)" \
	" ORDER BY q.owner, q.stage, q.priority, q.scheduled_at, q.id LIMIT 1) n" \
	" WHERE " next ")"

#define JQ_WALK_OWNED_LANES JQ_WALK_OWNED("owner IS NOT NULL", "true")

/* Those of one owner, perhaps followed by one of another. */
#define JQ_WALK_LANES_OF_OWNER(owner) \
	JQ_WALK_OWNED("owner >= " owner, "l.owner = " owner)

/* The rows of such a lane from a key on, in order, and those due by then. */
#define JQ_OWNED_LANE_FROM(owner, stage, priority, scheduled_at, id) \
	" FROM @.jobs_queue_live q WHERE q.job_type = 'sql'" \
	" AND (q.owner, q.stage, q.priority, q.scheduled_at, q.id) >=" \
	" (" owner ", " stage ", " priority ", " scheduled_at ", " id ")"

#define JQ_OWNED_LANE_DUE(owner, stage, priority, instant) \
	" AND (q.owner, q.stage, q.priority, q.scheduled_at) <=" \
	" (" owner ", " stage ", " priority ", " instant ")" \
	" AND q.status = 'queued'"

#define JQ_OWNED_LANE_ORDER \
	" ORDER BY q.owner, q.stage, q.priority, q.scheduled_at, q.id"

/* For a lane "l" of the walk: the jobs that are due. */
#define JQ_DUE_IN_OWNED_LANE(instant) \
	JQ_OWNED_LANE_FROM("l.owner", "l.stage", "l.priority", \
					   "l.scheduled_at", "l.id") \
	JQ_OWNED_LANE_DUE("l.owner", "l.stage", "l.priority", instant) \
	JQ_OWNED_LANE_ORDER

/* Those that are due and have no owner any more. */
#define JQ_DUE_WITHOUT_OWNER \
	"SELECT q.id FROM @.jobs_queue_live q WHERE q.job_type = 'sql'" \
	" AND q.owner IS NULL AND q.status = 'queued' AND q.scheduled_at <= now()"

#endif							/* JQ_LANE_WALK_H */
