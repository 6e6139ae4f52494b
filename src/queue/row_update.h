/*-------------------------------------------------------------------------
 *
 * row_update.h
 *	  What an UPDATE may make of a row of jobs_queue.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_ROW_UPDATE_H
#define JQ_ROW_UPDATE_H

#include "postgres.h"

#include "queue/job_row.h"

/*
 * Plain DML makes "is" of "was".  Raises 55000 for a column that is fixed, a
 * holder, or a status that cannot follow; 42501 where owner, job type or
 * payload is not the caller's to change; 42704 where nobody would own a queued
 * job; 22023 and others for values that a job may not have.  Sets in "is" what
 * follows from its status, and updated_at; writes nothing else.
 */
extern void jq_row_update_settle(const JqJobRow *was, JqJobRow *is);

#endif							/* JQ_ROW_UPDATE_H */
