/*-------------------------------------------------------------------------
 *
 * columns.h
 *	  Arrays to hand many rows to a statement, which unnests them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_COLUMNS_H
#define JQ_COLUMNS_H

#include "postgres.h"

/* One column of the rows. */
typedef struct JqColumn
{
	Oid			type;			/* int8, timestamptz, text or jsonb */
	Datum	   *values;
	bool	   *nulls;
	int			count;
} JqColumn;

/* As many columns as there are types, each with room for so many values. */
extern JqColumn *jq_columns_new(int count, const Oid *types, int capacity);

extern void jq_column_add(JqColumn *column, Datum value, bool isnull);

/* A text, or null. */
extern void jq_column_add_string(JqColumn *column, const char *string);

extern Datum jq_column_array(const JqColumn *column);

#endif							/* JQ_COLUMNS_H */
