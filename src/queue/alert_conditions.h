/*-------------------------------------------------------------------------
 *
 * alert_conditions.h
 *	  Which alert rules hold now, and of what.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_ALERT_CONDITIONS_H
#define JQ_ALERT_CONDITIONS_H

#include "postgres.h"

#include "datatype/timestamp.h"

typedef struct JqConditions
{
	bool		have_rules;		/* enabled ones */
	char	   *found;			/* a JSON array of arrays of objects: rule,
								 * job_type, stage, subject, value, error */
	char	   *unknown;		/* a JSON array of the kinds that could not be
								 * looked at */
} JqConditions;

/*
 * Looks at everything that enabled rules ask for, as of an instant, by indexes
 * and shared memory.  Writes nothing.  A kind that raises an error is unknown,
 * with a WARNING now and then.  Allocated in the caller's context.
 */
extern void jq_alert_conditions(TimestampTz now, JqConditions *conditions);

#endif							/* JQ_ALERT_CONDITIONS_H */
