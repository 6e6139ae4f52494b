/*-------------------------------------------------------------------------
 *
 * trust.c
 *	  Whose code takes part in the writes of our tables.
 *
 * A trigger runs its function, the functions of its condition and, for a
 * foreign key of another table, what the triggers of that table run.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "commands/trigger.h"
#include "utils/acl.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/trust.h"

static bool is_trusted_function(Oid function, Oid owner);
static bool calls_foreign_code(Node *node, void *owner);
static bool is_foreign_function(Oid function, void *owner);
static bool is_trusted_relation(Oid relid, Oid owner);

const Trigger *
jq_trust_foreign_trigger(Relation rel, Oid owner)
{
	/* Looking things up may bring an invalidation, which frees the original. */
	TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];

		if (!is_trusted_function(trigger->tgfoid, owner) ||
			(trigger->tgqual != NULL &&
			 calls_foreign_code(stringToNode(trigger->tgqual), &owner)) ||
			(OidIsValid(trigger->tgconstrrelid) &&
			 !is_trusted_relation(trigger->tgconstrrelid, owner)))
			return trigger;
	}
	return NULL;
}

/* Whoever owns a function can replace what it does. */
static bool
is_trusted_function(Oid function, Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		is_trusted;

	if (!HeapTupleIsValid(tuple))
		return false;
	is_trusted = member_can_set_role(((Form_pg_proc) GETSTRUCT(tuple))->proowner,
									 owner);
	ReleaseSysCache(tuple);
	return is_trusted;
}

static bool
calls_foreign_code(Node *node, void *owner)
{
	return node != NULL &&
		(check_functions_in_node(node, is_foreign_function, owner) ||
		 expression_tree_walker(node, calls_foreign_code, owner));
}

static bool
is_foreign_function(Oid function, void *owner)
{
	return !is_trusted_function(function, *(Oid *) owner);
}

static bool
is_trusted_relation(Oid relid, Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		is_trusted;

	if (!HeapTupleIsValid(tuple))
		return false;
	is_trusted = member_can_set_role(((Form_pg_class) GETSTRUCT(tuple))->relowner,
									 owner);
	ReleaseSysCache(tuple);
	return is_trusted;
}
