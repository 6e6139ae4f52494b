/*-------------------------------------------------------------------------
 *
 * statement.c
 *	  SQL statements of the extension, prepared once per backend.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "lib/stringinfo.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/catalog.h"
#include "base/scope.h"
#include "base/statement.h"

static void prepare(JqStatement *statement);
static uint64 execute(JqStatement *statement, Datum *values,
					  const char *nulls, bool read_only, long max_rows);

uint64
jq_statement_execute(JqStatement *statement, Datum *values,
					 const char *nulls, long max_rows)
{
	return execute(statement, values, nulls, false, max_rows);
}

uint64
jq_statement_query(JqStatement *statement, Datum *values,
				   const char *nulls, long max_rows)
{
	return execute(statement, values, nulls, true, max_rows);
}

uint64
jq_statement_execute_latest(JqStatement *statement, Datum *values,
							const char *nulls)
{
	Snapshot	snapshot;
	int			result;

	prepare(statement);
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	result = SPI_execute_snapshot(statement->plan, values, nulls, snapshot,
								  InvalidSnapshot, false, true, 0);
	UnregisterSnapshot(snapshot);
	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", statement->text,
			 SPI_result_code_string(result));
	return SPI_processed;
}

Portal
jq_statement_open(JqStatement *statement, Datum *values, const char *nulls)
{
	prepare(statement);
	return SPI_cursor_open(NULL, statement->plan, values, nulls, true);
}

static uint64
execute(JqStatement *statement, Datum *values, const char *nulls,
		bool read_only, long max_rows)
{
	int			result;

	prepare(statement);
	result = SPI_execute_plan(statement->plan, values, nulls, read_only,
							  max_rows);
	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", statement->text,
			 SPI_result_code_string(result));
	return SPI_processed;
}

/*
 * Keeps the plan until the relations or their schema have changed.  In a
 * nested scope, a statement further out may be using the old plan: then it is
 * left behind.
 */
static void
prepare(JqStatement *statement)
{
	const JqCatalog *catalog = jq_catalog();
	StringInfoData query;

	jq_scope_arm();
	if (statement->plan != NULL && statement->generation == catalog->generation)
		return;
	if (statement->plan != NULL)
	{
		if (jq_scope_is_outermost())
			SPI_freeplan(statement->plan);
		statement->plan = NULL;
	}

	initStringInfo(&query);
	for (const char *c = statement->text; *c != '\0'; c++)
	{
		if (c[0] == '@' && c[1] == '.')
			appendStringInfoString(&query, catalog->schema_name);
		else
			appendStringInfoChar(&query, *c);
	}
	statement->generation = catalog->generation;
	/* The values never matter to a plan: do not plan for each of them. */
	statement->plan = SPI_prepare_cursor(query.data, statement->nargs,
										 statement->argtypes,
										 CURSOR_OPT_GENERIC_PLAN);
	if (statement->plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", query.data,
			 SPI_result_code_string(SPI_result));
	if (SPI_keepplan(statement->plan) != 0)
		elog(ERROR, "could not keep the plan of \"%s\"", query.data);
	pfree(query.data);
}

Datum
jq_statement_nullable(uint64 row, int column, bool *isnull)
{
	Assert(row < SPI_tuptable->numvals);
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
						 column, isnull);
}

Datum
jq_statement_value(uint64 row, int column)
{
	bool		isnull;
	Datum		value = jq_statement_nullable(row, column, &isnull);

	if (isnull)
		elog(ERROR, "unexpected null in column %d", column);
	return value;
}
