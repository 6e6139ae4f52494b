/*-------------------------------------------------------------------------
 *
 * row_rules.h
 *	  What a row of jobs_queue must be like.
 *
 *	  Each raises an error; nothing but the row in hand is written.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_ROW_RULES_H
#define JQ_ROW_RULES_H

#include "postgres.h"

#include "utils/relcache.h"

#include "queue/job_row.h"

/*
 * A new row of a leaf: gets the defaults that depend on others, its owner, and
 * nothing that a queued job does not have.  Raises 55000 where plain DML
 * brings a job that did not begin queued, unless it fits and comes from who
 * may act as the owner of the tables; 22023 for an id or attempts out of
 * range; 23505 for an id that is taken; 42501 for an owner whom the caller may
 * not act as; and the errors below.  A restored row is not held to today's
 * limits.
 */
extern void jq_row_rules_admit(Relation leaf, JqJobRow *row);

/*
 * 22023, or what validate.h and http_payload.h say, unless each value is one
 * that a job may have.
 */
extern void jq_row_rules_check_values(const JqJobRow *row);

/* 42501 for the SQL of somebody as whom this server runs none. */
extern void jq_row_rules_check_runs_as(const JqJobRow *row);

/* 42501 for the message of an alert sink that is not its owner's. */
extern void jq_row_rules_check_message(const JqJobRow *row);

#endif							/* JQ_ROW_RULES_H */
