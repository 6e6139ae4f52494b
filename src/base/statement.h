/*-------------------------------------------------------------------------
 *
 * statement.h
 *	  SQL statements of the extension, prepared once per backend.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_STATEMENT_H
#define JQ_STATEMENT_H

#include "postgres.h"

#include "executor/spi.h"

#define JQ_STATEMENT_MAX_ARGS 24

/*
 * A static, initialised with text, nargs and argtypes.  In the text "@."
 * stands for the extension's schema and a dot.  The plan is kept and made
 * again when the schema or the relations changed.
 */
typedef struct JqStatement
{
	const char *text;
	int			nargs;
	Oid			argtypes[JQ_STATEMENT_MAX_ARGS];
	SPIPlanPtr	plan;
	uint64		generation;
} JqStatement;

/*
 * Runs a statement inside a scope; max_rows 0 means all.  "nulls" may be NULL.
 * Returns the number of rows; they are in SPI_tuptable.
 */
extern uint64 jq_statement_execute(JqStatement *statement, Datum *values,
								   const char *nulls, long max_rows);

/*
 * As the first, on the newest rows there are, whatever the isolation level of
 * the transaction: for rows that are the state of now, and are not read in it
 * otherwise.
 */
extern uint64 jq_statement_execute_latest(JqStatement *statement,
										  Datum *values, const char *nulls);

/* As the first, on the scope's snapshot, for statements that only read. */
extern uint64 jq_statement_query(JqStatement *statement, Datum *values,
								 const char *nulls, long max_rows);

/* A cursor over a reading statement; the scope closes it at the latest. */
extern Portal jq_statement_open(JqStatement *statement, Datum *values,
								const char *nulls);

/*
 * Column "column" (from 1) of row "row" (from 0) of SPI_tuptable.  The first
 * raises when the value is null.
 */
extern Datum jq_statement_value(uint64 row, int column);
extern Datum jq_statement_nullable(uint64 row, int column, bool *isnull);

#endif							/* JQ_STATEMENT_H */
