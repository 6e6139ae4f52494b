/*-------------------------------------------------------------------------
 *
 * ready.h
 *	  Reading the ready indexes of the live leaf.
 *
 *	  All of it reads under a snapshot of its own, taken now, and locks
 *	  nothing.  "live" must be open and locked.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_READY_H
#define JQ_READY_H

#include "postgres.h"

#include "queue/lanes.h"
#include "utils/rel.h"

/*
 * Reads the queued jobs of a lane, due or not, from the key "from" on
 * (inclusive) up to "until" (exclusive), at most "max" of them.  Sets
 * *position to where the next reading starts: JQ_LANE_KEY_END at the end of
 * the lane.
 */
extern int	jq_ready_read(Relation live, const JqLaneName *name,
						  JqLaneKey from, JqLaneKey until, int max,
						  JqCandidate *candidates, JqLaneKey *position);

/*
 * Walks the lanes in the order of the indexes, one descent for each, whatever
 * it holds; a lane whose rows are all dead is found too, until it is vacuumed.
 * *fits is as jq_lane_set_name() says.
 */
typedef struct JqReadyWalk JqReadyWalk;
extern JqReadyWalk *jq_ready_begin_walk(Relation live);
extern bool jq_ready_next_lane(JqReadyWalk *walk, JqLaneName *name, bool *fits);
extern void jq_ready_end_walk(JqReadyWalk *walk);

/*
 * The first job of a group, in the order of its priority and key, from a bound
 * on (inclusive), that is queued and due, but for the job "except".  False:
 * there is none.
 */
extern bool jq_ready_next_of_group(Relation live, const char *job_type,
								   const char *group_key, int16 priority,
								   JqLaneKey from, TimestampTz now,
								   int64 except, JqCandidate *candidate,
								   JqLaneName *name);

#endif							/* JQ_READY_H */
