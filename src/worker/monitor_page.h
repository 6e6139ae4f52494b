/*-------------------------------------------------------------------------
 *
 * monitor_page.h
 *	  The page of the dashboard, as it is installed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_MONITOR_PAGE_H
#define JQ_MONITOR_PAGE_H

#include "postgres.h"

typedef struct JqMonitorPage
{
	char	   *text;			/* NULL: there is none */
	size_t		size;
	char	   *policy;			/* what the browser lets it do */
} JqMonitorPage;

/*
 * Reads the page anew, into a context of its own.  Raises when it is there
 * and cannot be read; then the one from before stays.
 */
extern void jq_monitor_page_read(void *arg);

extern const JqMonitorPage *jq_monitor_page(void);

#endif							/* JQ_MONITOR_PAGE_H */
