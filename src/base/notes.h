/*-------------------------------------------------------------------------
 *
 * notes.h
 *	  What a transaction notes, to be applied once it has committed.
 *
 *	  An array in TopMemoryContext, whose room is kept between transactions.
 *	  Items of one array have one size.  Those that belong to a subtransaction
 *	  begin with an int, the nesting level, which never falls along the array.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_NOTES_H
#define JQ_NOTES_H

#include "postgres.h"

typedef struct JqNotes
{
	void	   *items;
	int			count;
	int			max;
} JqNotes;

/* Appends an item of zeros.  Raises nothing but out of memory. */
extern void *jq_notes_add(JqNotes *notes, Size size);

/*
 * For the callback of subtransactions, at its two events: the subtransaction's
 * notes are gone, or become its parent's.  Neither raises.
 */
extern void jq_notes_abort_sub(JqNotes *notes, Size size);
extern void jq_notes_commit_sub(JqNotes *notes, Size size);

/* Empties the array, and gives back room that is more than usual. */
extern void jq_notes_clear(JqNotes *notes);

#endif							/* JQ_NOTES_H */
