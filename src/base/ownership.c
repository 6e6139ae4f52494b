/*-------------------------------------------------------------------------
 *
 * ownership.c
 *	  Who may write a row that carries "owner regrole".
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/compat.h"
#include "base/config.h"
#include "base/ownership.h"
#include "base/rows.h"
#include "base/scope.h"
#include "base/shared_state.h"

static Oid	row_owner(HeapTuple row, TupleDesc desc);
static bool protected_column_changed(TriggerData *trigger);
static bool is_restored(Oid caller, HeapTuple row, TupleDesc desc);

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

void
jq_ownership_check_superuser(Oid owner)
{
	if (jq_shared_is_attached() && !jq_config_allow_superuser_jobs &&
		superuser_arg(owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("SQL jobs cannot run as superuser \"%s\" while jobqueue.allow_superuser_jobs is off",
						GetUserNameFromId(owner, false)),
				 errhint("Enqueue as another role, name one in run_as or owner, or turn the setting on and restart the server.")));
}

void
jq_ownership_check_run_as(Oid caller, Oid owner)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(owner)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role %u does not exist", owner),
				 errhint("run_as must name a role, or be null for the caller.")));
	jq_ownership_check(caller, owner, "SQL jobs");
	jq_ownership_check_superuser(owner);
}

bool
jq_ownership_is_restore(Oid caller, TimestampTz updated_at)
{
	return updated_at != GetCurrentTransactionStartTimestamp() &&
		member_can_set_role(caller, jq_catalog()->owner);
}

HeapTuple
jq_ownership_guard(TriggerData *trigger)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	const char *what = RelationGetRelationName(trigger->tg_relation);
	Oid			caller = jq_scope_caller();
	HeapTuple	row = trigger->tg_trigtuple;
	Oid			owner = row_owner(row, desc);
	int			columns[2];
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (jq_scope_write_mode() == JQ_WRITE_ENGINE)
		return TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
			trigger->tg_newtuple : row;
	if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
	{
		jq_ownership_check(caller, owner, what);
		return row;
	}
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		bool		had_owner = OidIsValid(owner);

		row = trigger->tg_newtuple;
		if (protected_column_changed(trigger))
		{
			/* What a dropped role has left is nobody's to take. */
			jq_ownership_check(caller, had_owner ? owner :
							   jq_catalog()->owner, what);
			jq_ownership_check(caller, row_owner(row, desc), what);
		}
		owner = row_owner(row, desc);
		if (!OidIsValid(owner) && had_owner)
			owner = caller;
	}
	else if (OidIsValid(owner))
		jq_ownership_check(caller, owner, what);
	else if (!is_restored(caller, row, desc))
		owner = caller;

	columns[0] = SPI_fnumber(desc, "owner");
	values[0] = ObjectIdGetDatum(owner);
	nulls[0] = !OidIsValid(owner);
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

/* Such a row may belong to nobody, its owner having been dropped. */
static bool
is_restored(Oid caller, HeapTuple row, TupleDesc desc)
{
	bool		isnull;
	Datum		updated_at = jq_row_value(row, desc, "updated_at", &isnull);

	return !isnull &&
		jq_ownership_is_restore(caller, DatumGetTimestampTz(updated_at));
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
