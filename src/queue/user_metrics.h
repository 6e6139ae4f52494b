/*-------------------------------------------------------------------------
 *
 * user_metrics.h
 *	  Counters and timers that users name: sums in shared memory, since the
 *	  server started.
 *
 *	  They count at once and for good, whatever becomes of the transaction: an
 *	  attempt that fails has called whom it called.  Without preloading, or
 *	  with jobqueue.max_user_metrics = 0, nothing is counted.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_USER_METRICS_H
#define JQ_USER_METRICS_H

#include "postgres.h"

#define JQ_USER_METRIC_NAME_SIZE 104	/* with the terminator */
#define JQ_USER_METRIC_LABELS_SIZE 304	/* the same */

typedef enum JqUserMetricKind
{
	JQ_USER_COUNTER,
	JQ_USER_TIMER
} JqUserMetricKind;

typedef struct JqUserMetric
{
	JqUserMetricKind kind;
	char		name[JQ_USER_METRIC_NAME_SIZE];
	char		labels[JQ_USER_METRIC_LABELS_SIZE]; /* the text of a jsonb */
	int64		count;			/* calls */
	double		sum;
} JqUserMetric;

/* Asks for the shared memory; once, while preloading. */
extern void jq_user_metrics_init(void);

/*
 * Adds to one; names and labels must fit.  False: there is no room for another
 * one.  True, too, where nothing is counted.
 */
extern bool jq_user_metric_count(JqUserMetricKind kind, const char *name,
								 const char *labels, double value);

/* Those of this database, palloc'd; returns how many. */
extern int	jq_user_metrics_list(JqUserMetric **metrics);

#endif							/* JQ_USER_METRICS_H */
