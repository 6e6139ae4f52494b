/*-------------------------------------------------------------------------
 *
 * scope.h
 *	  The owner's scope: where the extension touches its own tables.
 *
 *	  Rights are decided at the door, by EXECUTE on the SQL function and by
 *	  ownership checks against jq_scope_caller().  Inside, statements run as
 *	  the owner of the tables with search_path pinned to pg_catalog and
 *	  pg_temp, so that unqualified functions and operators are the server's
 *	  own and nothing of the caller's can be reached.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_SCOPE_H
#define JQ_SCOPE_H

#include "postgres.h"

/* What the row triggers may assume about a write to our tables. */
typedef enum JqWriteMode
{
	JQ_WRITE_PLAIN,				/* somebody's own DML: validate everything */
	JQ_WRITE_ENQUEUE,			/* new rows for jq_scope_caller(): validate */
	JQ_WRITE_ENGINE				/* transitions decided in C: let pass */
} JqWriteMode;

/*
 * Enters the scope: connects SPI, pushes a fresh snapshot that sees what this
 * transaction did, becomes the owner.  Raises 55000 without the extension,
 * 25006 in a read-only transaction or during recovery.  Undone by
 * jq_scope_leave(), or by the abort of the (sub)transaction.  Memory
 * allocated inside is freed on leaving, except in jq_scope_result_context().
 * Scopes nest.
 */
extern void jq_scope_enter(JqWriteMode mode);
extern void jq_scope_leave(void);

/*
 * As jq_scope_enter, but neither SPI nor the owner's rights are there before
 * they are needed: jq_statement_* and a jq_table_open() whose writes could
 * reach the code of users ask for them.
 */
extern void jq_scope_enter_bare(JqWriteMode mode);

/* Makes a bare scope a full one; does nothing in a full one. */
extern void jq_scope_arm(void);

/* As jq_scope_enter, for reading only: legal in a read-only transaction. */
extern void jq_scope_enter_read_only(void);

/* Takes a new snapshot for the statements that follow in this scope. */
extern void jq_scope_refresh(void);

/*
 * Plans made in this scope use indexes where they can, and are not compiled:
 * for statements that read the first few rows of many, whatever the planner
 * thinks of all of them in a table that fills and empties.
 */
extern void jq_scope_prefer_indexes(void);

/*
 * The role on whose behalf the current statement acts: the one that entered
 * the innermost scope, when it is a statement of that scope; else, also in a
 * user's trigger that such a statement fires, the current user.
 */
extern Oid	jq_scope_caller(void);

/* The context that was current when the innermost scope was entered. */
extern MemoryContext jq_scope_result_context(void);

/*
 * The innermost scope's mode, for the row triggers of its own statements;
 * JQ_WRITE_PLAIN in no scope, and for what a user's trigger writes.
 */
extern JqWriteMode jq_scope_write_mode(void);

/* Whether no scope is around the innermost one. */
extern bool jq_scope_is_outermost(void);

/* Registers the transaction callbacks; once, from _PG_init. */
extern void jq_scope_init(void);

#endif							/* JQ_SCOPE_H */
