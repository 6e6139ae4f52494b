/*-------------------------------------------------------------------------
 *
 * monitor_request.h
 *	  What a monitor may answer without asking the database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_MONITOR_REQUEST_H
#define JQ_MONITOR_REQUEST_H

#include "postgres.h"

#include "base/monitor_list.h"
#include "http/server.h"
#include "http/target.h"

/* What is to be asked of the database. */
typedef struct JqMonitorRequest
{
	bool		is_action;		/* POST, with the token */
	JqHttpTarget target;
} JqMonitorRequest;

/*
 * Judges a request.  True: the database is to be asked; else the answer is
 * there.
 */
extern bool jq_monitor_judge(const JqHttpCall *call,
							 const JqMonitorEntry *entry,
							 JqMonitorRequest *request, JqHttpAnswer *answer);

/* An error as an answer; "hint" and "code" may be NULL. */
extern void jq_monitor_answer_error(JqHttpAnswer *answer, int status,
									const char *message, const char *hint,
									const char *code);

/* The policy of everything that is not the page. */
#define JQ_MONITOR_POLICY "default-src 'none'; frame-ancestors 'none'"

#endif							/* JQ_MONITOR_REQUEST_H */
