/*-------------------------------------------------------------------------
 *
 * alerts.h
 *	  Alerts: rows that begin, are sent again, and end.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_ALERTS_H
#define JQ_ALERTS_H

#include "postgres.h"

#include "datatype/timestamp.h"

/*
 * Compares what rules hold with the alerts there are, writes what changes, and
 * sends it in the same transaction.  Where nothing changes, nothing is
 * written, and no transaction id assigned.  Anybody may do so at any time;
 * of two at once, one finds nothing to do.  Returns how many alerts began,
 * were sent again, or ended.
 */
extern int	jq_alerts_evaluate(TimestampTz now);

/*
 * Sends a message to one sink, for a caller who may act as its owner; the id
 * of its job, or 0.  Raises 42704 where there is none of that name.
 */
extern int64 jq_alerts_test(const char *sink);

/*
 * A line in the log for each message that could not be delivered and whose job
 * ended after that instant; returns the newest end of all.
 */
extern TimestampTz jq_alerts_report_failed(TimestampTz after);

#endif							/* JQ_ALERTS_H */
