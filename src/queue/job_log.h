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
#include "queue/job.h"

/*
 * Keeps the lines of a journal (NULL: none) with the claim that the job is
 * held under, and says so when some were dropped.  Inside a scope.
 */
extern void jq_job_log_write(const JqJob *job, const JqJournal *journal);

/*
 * Adds a line to a claim, unless it has jobqueue.max_log_lines.  "data": jsonb
 * as text, or NULL.  Inside a scope.
 */
extern void jq_job_log_add(const JqJob *job, const char *level,
						   const char *message, const char *data);

#endif							/* JQ_JOB_LOG_H */
