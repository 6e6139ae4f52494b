/*-------------------------------------------------------------------------
 *
 * db.h
 *	  Transactions of workers.
 *
 *	  Short, bounded, never across a wait.  Each begin remembers the memory
 *	  context that is current, and each end makes it current again: what must
 *	  outlive the transaction is copied there.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_DB_H
#define JQ_DB_H

#include "postgres.h"

/*
 * Begins a transaction for the extension's own work: read-write, read
 * committed and free of triggers' and timeouts' settings, whatever the role
 * or the database says; with SPI connected and a snapshot.  "activity" is
 * shown in pg_stat_activity.
 */
extern void jq_db_begin(const char *activity);

/* As above, with the settings of the session: for the body of a job. */
extern void jq_db_begin_as_session(const char *activity);

extern void jq_db_commit(void);

/*
 * In a transaction of the second kind: protects what follows up to its end,
 * which is the extension's own work, from the settings of the session.
 * synchronous_commit is left to the session.
 */
extern void jq_db_pin_rest(void);

/*
 * Around each statement of a body that manages its transactions: begins a
 * transaction, or goes on in one that an earlier statement has begun.
 */
extern void jq_db_begin_statement(void);
extern void jq_db_end_statement(void);

/* Ends the transaction, if there is one, without effect.  Safe in PG_CATCH. */
extern void jq_db_abort(void);

/*
 * The same without SPI, for shared catalogs and session state.  The first
 * works without a database.
 */
extern void jq_catalog_begin(void);
extern void jq_catalog_commit(void);

/*
 * Settings that could break or slow the extension's own work, set for the
 * whole life of a process that runs nobody else's code.  Call it after
 * connecting and after each reload.
 */
extern void jq_db_pin_settings(void);

/*
 * Before the first of them: synchronous_commit is left to the server and the
 * database, for a process that records what others have done.
 */
extern void jq_db_leave_synchronous_commit(void);

/*
 * Before the first of them, too: no lock is waited for longer than that, by a
 * process that must not stand still.
 */
extern void jq_db_wait_for_locks(int ms);

#endif							/* JQ_DB_H */
