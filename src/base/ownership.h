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
#include "datatype/timestamp.h"

/* Raises 42501 unless role may act as owner; "what" names the thing owned. */
extern void jq_ownership_check(Oid role, Oid owner, const char *what);

/*
 * Raises 42501 if SQL would run as a superuser, and this server runs none
 * for superusers.  A server without the library preloaded runs none at all,
 * has no such setting and refuses nobody.
 */
extern void jq_ownership_check_superuser(Oid owner);

/*
 * Both rules, for a role that somebody names to run his SQL; 42704 where there
 * is no such role.
 */
extern void jq_ownership_check_run_as(Oid caller, Oid owner);

/*
 * Whether a row comes with an updated_at of its own, from somebody who may act
 * as the owner of the tables: a restore, which must not fail because rules or
 * settings have changed since.
 */
extern bool jq_ownership_is_restore(Oid caller, TimestampTz updated_at);

/*
 * The rule of our definition tables, for a BEFORE row trigger with the
 * protected columns as arguments: a new row belongs to the caller unless it
 * names an owner whom the caller may act as; a protected column, or the row
 * itself, goes only at the hand of somebody who may act as both the old and
 * the new owner.  A row whose owner has been dropped stays nobody's until
 * somebody who may act as the owner of the tables gives it away.  Returns the
 * row to store; an UPDATE also sets updated_at.
 */
extern HeapTuple jq_ownership_guard(TriggerData *trigger);

#endif							/* JQ_OWNERSHIP_H */
