/*-------------------------------------------------------------------------
 *
 * rows.h
 *	  Reading the rows of row triggers by column name.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_ROWS_H
#define JQ_ROWS_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "commands/trigger.h"

/* A column's value; raises an internal error when there is no such column. */
extern Datum jq_row_value(HeapTuple row, TupleDesc desc, const char *name,
						  bool *isnull);

/* The same of the row that the trigger is to let in. */
extern Datum jq_row_new_value(TriggerData *trigger, const char *name,
							  bool *isnull);

/* Whether the UPDATE changes the column; false for INSERT and DELETE. */
extern bool jq_row_changes(TriggerData *trigger, const char *name);

#endif							/* JQ_ROWS_H */
