/*-------------------------------------------------------------------------
 *
 * trust.h
 *	  Whose code takes part in the writes of our tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_TRUST_H
#define JQ_TRUST_H

#include "postgres.h"

#include "utils/rel.h"
#include "utils/reltrigger.h"

/*
 * The first trigger of a table that would run code of a role which may not act
 * as "owner"; NULL when there is none.  The right to create triggers, or to
 * refer to a table, would otherwise be a way to the rights of its owner, as
 * whom the extension writes.  It is a copy in the current context.
 */
extern const Trigger *jq_trust_foreign_trigger(Relation rel, Oid owner);

#endif							/* JQ_TRUST_H */
