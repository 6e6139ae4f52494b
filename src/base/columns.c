/*-------------------------------------------------------------------------
 *
 * columns.c
 *	  Arrays to hand many rows to a statement, which unnests them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "base/columns.h"

JqColumn *
jq_columns_new(int count, const Oid *types, int capacity)
{
	JqColumn   *columns = palloc0(sizeof(JqColumn) * count);

	for (int i = 0; i < count; i++)
	{
		columns[i].type = types[i];
		columns[i].values = palloc(sizeof(Datum) * Max(capacity, 1));
		columns[i].nulls = palloc(sizeof(bool) * Max(capacity, 1));
	}
	return columns;
}

void
jq_column_add(JqColumn *column, Datum value, bool isnull)
{
	column->values[column->count] = value;
	column->nulls[column->count++] = isnull;
}

void
jq_column_add_string(JqColumn *column, const char *string)
{
	jq_column_add(column, string == NULL ? (Datum) 0 : CStringGetTextDatum(string),
				  string == NULL);
}

Datum
jq_column_array(const JqColumn *column)
{
	bool		is_by_value = column->type == INT8OID || column->type == TIMESTAMPTZOID;
	int			lower_bound = 1;
	int			count = column->count;

	return PointerGetDatum(construct_md_array(column->values, column->nulls,
											  1, &count, &lower_bound,
											  column->type,
											  is_by_value ? (int) sizeof(int64) : -1,
											  is_by_value, is_by_value ?
											  TYPALIGN_DOUBLE : TYPALIGN_INT));
}
