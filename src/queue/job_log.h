/*-------------------------------------------------------------------------
 *
 * job_log.h
 *	  The rows of job_logs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_JOB_LOG_H
#define JQ_JOB_LOG_H

#include "postgres.h"

#include "body/journal.h"

/*
 * Keeps the lines of a journal (NULL: none) with a claim, and says so when
 * some were dropped.  Inside a scope.
 */
extern void jq_job_log_write(int64 job_id, int32 claim_no,
							 const JqJournal *journal);

/*
 * Adds a line to a claim, unless it has jobqueue.max_log_lines.  "data": jsonb
 * as text, or NULL.  Inside a scope.
 */
extern void jq_job_log_add(int64 job_id, int32 claim_no, const char *level,
						   const char *message, const char *data);

#endif							/* JQ_JOB_LOG_H */
