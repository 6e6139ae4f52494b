/*-------------------------------------------------------------------------
 *
 * ownership.h
 *	  Who may write a row that carries "owner regrole".
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_OWNERSHIP_H
#define JQ_OWNERSHIP_H

#include "postgres.h"

#include "access/htup.h"
#include "commands/trigger.h"

/* Raises 42501 unless role may act as owner; "what" names the thing owned. */
extern void jq_ownership_check(Oid role, Oid owner, const char *what);

/*
 * The rule of our definition tables, for a BEFORE row trigger with the
 * protected columns as arguments: a new row belongs to the caller unless it
 * names an owner whom the caller may act as; a protected column, or the row
 * itself, goes only at the hand of somebody who may act as both the old and
 * the new owner.  Returns the row to store; an UPDATE also sets updated_at.
 */
extern HeapTuple jq_ownership_guard(TriggerData *trigger);

#endif							/* JQ_OWNERSHIP_H */
