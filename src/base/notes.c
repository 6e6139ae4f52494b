/*-------------------------------------------------------------------------
 *
 * notes.c
 *	  What a transaction notes, to be applied once it has committed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/notes.h"

#include "access/xact.h"
#include "utils/memutils.h"

#define USUAL_NOTES 64			/* room kept between transactions */

static int *level_of(const JqNotes *notes, Size size, int i);

void *
jq_notes_add(JqNotes *notes, Size size)
{
	if (notes->items == NULL)
	{
		notes->items = MemoryContextAlloc(TopMemoryContext,
										  size * USUAL_NOTES);
		notes->max = USUAL_NOTES;
	}
	else if (notes->count == notes->max)
	{
		notes->items = repalloc_huge(notes->items, size * notes->max * 2);
		notes->max *= 2;
	}
	return memset((char *) notes->items + size * notes->count++, 0, size);
}

void
jq_notes_abort_sub(JqNotes *notes, Size size)
{
	int			level = GetCurrentTransactionNestLevel();

	while (notes->count > 0 && *level_of(notes, size, notes->count - 1) >= level)
		notes->count--;
}

void
jq_notes_commit_sub(JqNotes *notes, Size size)
{
	int			level = GetCurrentTransactionNestLevel();

	for (int i = notes->count - 1; i >= 0; i--)
	{
		int		   *of = level_of(notes, size, i);

		if (*of < level)
			break;
		*of = level - 1;
	}
}

static int *
level_of(const JqNotes *notes, Size size, int i)
{
	return (int *) ((char *) notes->items + size * i);
}

void
jq_notes_clear(JqNotes *notes)
{
	if (notes->max > USUAL_NOTES)
	{
		pfree(notes->items);
		notes->items = NULL;
		notes->max = 0;
	}
	notes->count = 0;
}
