/*-------------------------------------------------------------------------
 *
 * ownership.c
 *	  Who may write a row that carries "owner regrole".
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/ownership.h"
#include "base/rows.h"
#include "base/scope.h"

static Oid	row_owner(HeapTuple row, TupleDesc desc);
static bool protected_column_changed(TriggerData *trigger);

void
jq_ownership_check(Oid role, Oid owner, const char *what)
{
	if (OidIsValid(owner) && !member_can_set_role(role, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for %s of role \"%s\"", what,
						GetUserNameFromId(owner, true) ?
						GetUserNameFromId(owner, true) : "(dropped)"),
				 errhint("Only a member of that role may do this.")));
}

HeapTuple
jq_ownership_guard(TriggerData *trigger)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	const char *what = RelationGetRelationName(trigger->tg_relation);
	Oid			caller = jq_scope_caller();
	HeapTuple	row = trigger->tg_trigtuple;
	Oid			owner;
	int			columns[2];
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
	{
		jq_ownership_check(caller, row_owner(row, desc), what);
		return row;
	}
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		if (protected_column_changed(trigger))
		{
			jq_ownership_check(caller, row_owner(row, desc), what);
			jq_ownership_check(caller,
							   row_owner(trigger->tg_newtuple, desc), what);
		}
		row = trigger->tg_newtuple;
	}

	owner = row_owner(row, desc);
	if (!OidIsValid(owner))
		owner = caller;
	else if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		jq_ownership_check(caller, owner, what);

	columns[0] = SPI_fnumber(desc, "owner");
	values[0] = ObjectIdGetDatum(owner);
	columns[1] = SPI_fnumber(desc, "updated_at");
	values[1] = TimestampTzGetDatum(GetCurrentTimestamp());
	/* A restored row keeps the time it has. */
	return heap_modify_tuple_by_cols(row, desc,
									 TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? 2 : 1,
									 columns, values, nulls);
}

static Oid
row_owner(HeapTuple row, TupleDesc desc)
{
	bool		isnull;
	Datum		owner = jq_row_value(row, desc, "owner", &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(owner);
}

static bool
protected_column_changed(TriggerData *trigger)
{
	if (jq_row_changes(trigger, "owner"))
		return true;
	for (int i = 0; i < trigger->tg_trigger->tgnargs; i++)
		if (jq_row_changes(trigger, trigger->tg_trigger->tgargs[i]))
			return true;
	return false;
}
