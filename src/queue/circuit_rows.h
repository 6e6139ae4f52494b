/*-------------------------------------------------------------------------
 *
 * circuit_rows.h
 *	  The rows of job_circuits: what each backend remembers of them, and what
 *	  is written.
 *
 *	  For circuits.c, which decides.  All of it needs a transaction; who writes
 *	  has entered a scope.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_CIRCUIT_ROWS_H
#define JQ_CIRCUIT_ROWS_H

#include "postgres.h"

#include "base/statement.h"
#include "datatype/timestamp.h"
#include "queue/circuit_counts.h"
#include "queue/job.h"

typedef enum JqCircuitState
{
	JQ_CIRCUIT_IS_CLOSED,
	JQ_CIRCUIT_IS_OPEN,
	JQ_CIRCUIT_IS_HALF_OPEN
} JqCircuitState;

/* A row of job_circuits. */
typedef struct JqCircuit
{
	uint32		hash;			/* jq_circuit_hash() of the next two */
	char	   *job_type;
	char	   *stage;
	JqCircuitState state;
	TimestampTz retry_at;		/* DT_NOEND: NULL */
	int64		probe_job_id;	/* 0: none */
	int32		probe_claim_no;
	TimestampTz probe_seen_at;	/* its claim was running then */
} JqCircuit;

/* The row of $1 and $2, unless somebody has it locked. */
#define JQ_UNLOCKED_CIRCUIT(condition) \
	" WHERE (job_type, stage) IN (SELECT l.job_type, l.stage" \
	" FROM @.job_circuits l WHERE l.job_type = $1 AND l.stage = $2" \
	" AND " condition " FOR UPDATE SKIP LOCKED)"

/* ---- what is remembered ---- */

/*
 * The rows of this database, read anew if somebody has written them since.
 * They are good until the next call that reads them.
 */
extern JqCircuit *jq_circuit_rows(int *count);

/* Reads them anew in any case. */
extern void jq_circuit_rows_load(void);

/* One of those that were read last; NULL: it has no row. */
extern JqCircuit *jq_circuit_rows_find(const char *job_type,
									   const char *stage);

/* As long as this is the same, what was found is where it was. */
extern uint32 jq_circuit_rows_version(void);

/* Whether there were no rows, and nobody has written any; reads nothing. */
extern bool jq_circuit_rows_are_none(void);

/* ---- the lock of a circuit's name, of the transaction ---- */

/* Takes it if it is free. */
extern bool jq_circuit_rows_reserve(const char *job_type, const char *stage);
extern void jq_circuit_rows_end_reservation(const char *job_type,
											const char *stage);

/* Waits for it, as operators do. */
extern void jq_circuit_rows_wait_for_name(const char *job_type,
										  const char *stage);

/* ---- writing ---- */

/* Writes a row; everybody looks for work then, or with the second nobody. */
extern uint64 jq_circuit_rows_write(JqStatement *statement, Datum *values,
									const char *nulls);
extern uint64 jq_circuit_rows_write_quietly(JqStatement *statement,
											Datum *values);

/*
 * Writes the row of a circuit that opens now, and the event; there is a job
 * that has failed.  False: somebody has the row locked.
 */
extern bool jq_circuit_rows_write_open(const JqCircuitCount *count);

/* Logs that it has opened. */
extern void jq_circuit_rows_report_open(const JqCircuitCount *count);

/*
 * Counts the end of a claim in the row, without shared memory.  One transaction
 * at a time counts a stage; what others find out meanwhile is lost.  Enters a
 * scope of its own.
 */
extern void jq_circuit_rows_count(const JqJob *job, const JqRun *run,
								  const JqBreaker *breaker, bool is_failure);

#endif							/* JQ_CIRCUIT_ROWS_H */
