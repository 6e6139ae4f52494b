/*-------------------------------------------------------------------------
 *
 * limit_notes.h
 *	  What this transaction does at limits, and what its end makes of it.
 *
 *	  For limits.c, which notes what it takes, and groups.c.  Claims and ends
 *	  of claims call what limits.h declares.
 *
 *	  Notes are this backend's own and need no lock; the places that they name
 *	  do.  When the (sub)transaction aborts, its notes are undone, the last one
 *	  first; when the transaction commits, what its claims have taken is theirs
 *	  and the places of the claims that it ended are free.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_LIMIT_NOTES_H
#define JQ_LIMIT_NOTES_H

#include "postgres.h"

#include "queue/limit_memory.h"

/* What this transaction does to a job's place. */
typedef struct JqLimitNote
{
	bool		is_end;			/* it will be free; else it was taken */
	bool		keeps_group;	/* but not in its group: it will be tried
								 * again */
	bool		was_kept;		/* it was taken so, or given up in this
								 * transaction and taken again */
	bool		had_type;		/* the same of its place in the type */
	bool		was_uncommitted;	/* the claim before it */
	int32		last_claim_no;	/* the same; 0: it had no place */
	int			nest_level;
	int64		job_id;
	int32		claim_no;
	int			type;			/* number of the entry */
	int			group;			/* the same, or JQ_NO_GROUP */
	uint32		group_generation;
	bool		has_rate;
	bool		has_group_rate;
	TimestampTz at;				/* what was taken of the rates */
	int64		type_lender;	/* job whose place in the type it has, or 0 */
	int64		group_lender;	/* the same, in the group */
} JqLimitNote;

/*
 * A new note of this (sub)transaction: a claim that has taken nothing yet.
 * Valid until the next one.  May run out of memory, so it comes before the
 * lock; it must be filled in, or dropped, before anything else may fail.
 */
extern JqLimitNote *jq_limit_notes_add(void);

/* Drops the note that was added last, as if it had not been. */
extern void jq_limit_notes_drop(void);

/*
 * Places that claims which end in this transaction give up, and it may fill
 * again: in a group, or with JQ_NO_GROUP in the type.  All of these need the
 * lock.
 */

/* How many there are. */
extern int	jq_limit_notes_lendable(int type, int group);

/* The first of them; NULL: there is none. */
extern JqPlace *jq_limit_notes_find_lender(int type, int group);

/* Whether a group is below its limit without the places that it gives up. */
extern bool jq_limit_notes_has_lendable(const JqGroup *group,
										const JqLimits *limits);

/*
 * A group of the type that has a next job, and such a place for it, with
 * "owner" as in groups.h; NULL: none.
 */
extern JqGroup *jq_limit_notes_freed_group(const JqLimitedType *type,
										   Oid owner, TimestampTz now);

#endif							/* JQ_LIMIT_NOTES_H */
