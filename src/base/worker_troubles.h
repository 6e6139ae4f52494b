/*-------------------------------------------------------------------------
 *
 * worker_troubles.h
 *	  What goes wrong with the server's workers, again and again.
 *
 *	  Shared memory counts per kind of worker and database; without preloading
 *	  there is nothing to count.  Errors of jobs are not among it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_WORKER_TROUBLES_H
#define JQ_WORKER_TROUBLES_H

#include "postgres.h"

#include "base/shared_state.h"
#include "datatype/timestamp.h"

typedef enum JqTrouble
{
	JQ_TROUBLE_ERROR,			/* a unit of its work failed */
	JQ_TROUBLE_ENDED,			/* it ended, and nobody had asked it to */
	JQ_TROUBLE_NO_PROCESS,		/* there was no process to start it in */
	JQ_TROUBLE_NOT_SERVING		/* a monitor: it cannot start, or listen */
} JqTrouble;

#define JQ_MAX_TROUBLES 64		/* kinds, databases and troubles */

typedef struct JqTroubleInfo
{
	JqWorkerKind kind;
	JqTrouble	trouble;
	Oid			database;		/* InvalidOid: the launcher's, or unknown */
	TimestampTz first_at;
	TimestampTz last_at;
	int			count;			/* since first_at, never long apart */
	int			sqlstate;		/* of the last error; 0: none */
} JqTroubleInfo;

/* Asks for shared memory; once, from _PG_init of a preloaded library. */
extern void jq_troubles_init(void);

/* Never with an LWLock held.  Neither raises nor allocates. */
extern void jq_troubles_note(JqWorkerKind kind, Oid database,
							 JqTrouble trouble, int sqlstate);

/* It is over, and forgotten.  The same rules. */
extern void jq_troubles_end(JqWorkerKind kind, Oid database,
							JqTrouble trouble);

extern const char *jq_troubles_name(JqTrouble trouble);

/* Copies at most JQ_MAX_TROUBLES; returns how many. */
extern int	jq_troubles_list(JqTroubleInfo *troubles);

#endif							/* JQ_WORKER_TROUBLES_H */
