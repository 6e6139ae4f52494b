/*-------------------------------------------------------------------------
 *
 * groups.h
 *	  Groups of jobs that take turns.
 *
 *	  Where a job type has limits for each group_key, or fair groups, claims do
 *	  not take jobs with a key from the lanes: these only feed the groups.
 *	  Each group knows the one job that comes next, and of what is behind it
 *	  only that there is something.  A group waits for its turn while its next
 *	  job may begin; who claims that job reads the following one from the index
 *	  and puts the group at the end of the queue.  So a group with a million
 *	  jobs takes as many turns as one with two, and what is behind a group that
 *	  is at its limit is not looked at.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_GROUPS_H
#define JQ_GROUPS_H

#include "postgres.h"

#include "queue/limit_memory.h"
#include "queue/limits.h"

/* A group whose next job a claim has. */
typedef struct JqGroupTurn
{
	int			group;
	uint32		generation;
	JqCandidate candidate;
	JqLaneRef	lane;
	char		key[JQ_GROUP_KEY_SIZE]; /* empty: too long */
	bool		has_more;
	int16		bound_priority;
	JqLaneKey	bound;
} JqGroupTurn;

/* With the lock held: what a group's limits say. */
extern JqLimitAnswer jq_groups_look(JqGroup *group, const JqLimits *limits,
									TimestampTz now, bool has_place,
									TimestampTz *next_at);

/* With the lock held: queues the group where it belongs by now. */
extern void jq_groups_settle(JqGroup *group, TimestampTz now);

/* The same for all groups of a type, whose limits are others now. */
extern void jq_groups_settle_all(JqLimitedType *type, TimestampTz now);

/* Whether shared memory has room for the groups of this type. */
extern bool jq_groups_exist(const JqJobType *type);

/*
 * Offers a due job of a lane to its group.  False: there is no room for one
 * more group.
 */
extern bool jq_groups_offer(const JqJobType *type, const char *key,
							JqLaneRef lane, int16 priority,
							const JqCandidate *candidate);

/*
 * The group of a type whose turn it is; with "owner", among those whose next
 * job is this role's.  With "only_look" it stays; else jq_groups_end_turn()
 * must follow, or an abort.  False: none.  Then "next_at" is when one may have
 * a turn, or DT_NOEND.
 */
extern bool jq_groups_begin_turn(const JqJobType *type, Oid owner,
								 TimestampTz now, bool only_look,
								 JqGroupTurn *turn, int16 *priority,
								 TimestampTz *next_at);

/*
 * Ends a turn.  The next job of the group is now this one, behind which more
 * may be, or it has none (NULL).  False: another one was offered since the
 * turn began; look for it from the bound on, and call this again.
 */
extern bool jq_groups_end_turn(const JqGroupTurn *turn,
							   const JqCandidate *next, JqLaneRef lane,
							   int16 priority);

/* Ends a turn in which somebody else had the job: it is tried again later. */
extern void jq_groups_postpone(const JqGroupTurn *turn, TimestampTz until);

/*
 * How many groups of a type may have a turn now, with "owner" as above; more
 * than "max" do not count.
 */
extern int	jq_groups_ready(const JqJobType *type, Oid owner, int max);

/* Ends the turn of this backend that failed, if there is one. */
extern void jq_groups_give_up(void);

#endif							/* JQ_GROUPS_H */
