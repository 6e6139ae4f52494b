/*-------------------------------------------------------------------------
 *
 * plain.h
 *	  Which of our tables have nothing of the users' in them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_PLAIN_H
#define JQ_PLAIN_H

#include "postgres.h"

#include "utils/rel.h"

/*
 * Whether nothing of the users' takes part in the writes of a table, and
 * what of ours does is satisfied anyway: the row triggers let the engine's
 * writes pass, and the CHECK and NOT NULL constraints hold for what the C
 * code writes.  Remembered until the table changes; always false with
 * jobqueue.debug_claim_path = sql.
 */
extern bool jq_plain_is(Relation rel);

#endif							/* JQ_PLAIN_H */
