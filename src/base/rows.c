/*-------------------------------------------------------------------------
 *
 * rows.c
 *	  Reading the rows of row triggers by column name.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/spi.h"
#include "utils/datum.h"
#include "utils/rel.h"

#include "base/rows.h"

static int	column_number(TupleDesc desc, const char *name);

Datum
jq_row_value(HeapTuple row, TupleDesc desc, const char *name, bool *isnull)
{
	return heap_getattr(row, column_number(desc, name), desc, isnull);
}

Datum
jq_row_new_value(TriggerData *trigger, const char *name, bool *isnull)
{
	return jq_row_value(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
						trigger->tg_newtuple : trigger->tg_trigtuple,
						RelationGetDescr(trigger->tg_relation), name, isnull);
}

bool
jq_row_changes(TriggerData *trigger, const char *name)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	Form_pg_attribute column = TupleDescAttr(desc, column_number(desc, name) - 1);
	bool		was_null;
	bool		is_null;
	Datum		was;
	Datum		is;

	if (!TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		return false;
	was = jq_row_value(trigger->tg_trigtuple, desc, name, &was_null);
	is = jq_row_value(trigger->tg_newtuple, desc, name, &is_null);
	if (was_null || is_null)
		return was_null != is_null;
	return !datum_image_eq(was, is, column->attbyval, column->attlen);
}

static int
column_number(TupleDesc desc, const char *name)
{
	int			number = SPI_fnumber(desc, name);

	if (number <= 0)
		elog(ERROR, "column \"%s\" does not exist", name);
	return number;
}
