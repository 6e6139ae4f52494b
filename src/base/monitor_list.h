/*-------------------------------------------------------------------------
 *
 * monitor_list.h
 *	  The setting jobqueue.monitor: which monitors there are.
 *
 *	  Comma-separated entries of "key=value" words: database, role and port,
 *	  once each; address (127.0.0.1 without one), a numeric one; and host, any
 *	  number of times: a name that browsers and scrapers may call it by.  Values
 *	  with blanks, commas or quotes are in double quotes, with "" for ".
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_MONITOR_LIST_H
#define JQ_MONITOR_LIST_H

#include "postgres.h"

#include "nodes/pg_list.h"

#define JQ_MAX_MONITORS 16

typedef struct JqMonitorEntry
{
	char	   *database;
	char	   *role;
	char	   *address;
	int			port;
	List	   *hosts;			/* names, lower case */
	uint32		key;			/* of all but the hosts; never 0 */
} JqMonitorEntry;

/*
 * What is wrong with a list, as a sentence, palloc'd; NULL when nothing is.
 * Raises no error (other than out of memory), for the check hook.
 */
extern const char *jq_monitor_list_flaw(const char *list);

/* The entries of a list, palloc'd; NIL of one that is flawed. */
extern List *jq_monitor_list_read(const char *list);

/* The entry of that key in the setting; NULL: there is none. */
extern JqMonitorEntry *jq_monitor_list_find(uint32 key);

#endif							/* JQ_MONITOR_LIST_H */
