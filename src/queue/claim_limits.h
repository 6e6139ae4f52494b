/*-------------------------------------------------------------------------
 *
 * claim_limits.h
 *	  Limits in tables: where shared memory does not count, and what must
 *	  outlive it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_CLAIM_LIMITS_H
#define JQ_CLAIM_LIMITS_H

#include "postgres.h"

#include "queue/job.h"
#include "queue/job_types.h"

/*
 * Whether the limits of a type let this job begin now, by what the tables say;
 * "now" becomes the instant of its claim.  False: they do not, or another
 * transaction has asked and not ended.  Never waits.
 */
extern bool jq_claim_limits_allow(const JqJobType *type, const JqJob *job,
								  TimestampTz *now);

/*
 * Remembers a claim for as long as the windows of its rates last; nothing for
 * short ones, which a new start of the server lets pass.
 */
extern void jq_claim_limits_log(const JqJobType *type, const JqJob *job,
								TimestampTz at);

/* A claim that was remembered. */
typedef struct JqLoggedClaim
{
	TimestampTz at;
	char	   *group_key;		/* or NULL */
} JqLoggedClaim;

/*
 * Those of a type within the longest of its windows, the oldest first, in the
 * caller's context.  NULL: its windows are short.
 */
extern JqLoggedClaim *jq_claim_limits_logged(const JqJobType *type,
											 int *count);

#endif							/* JQ_CLAIM_LIMITS_H */
