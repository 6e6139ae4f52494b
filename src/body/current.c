/*-------------------------------------------------------------------------
 *
 * current.c
 *	  The job whose body this session runs now.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "body/current.h"

static const JqCurrentJob *current = NULL;

const JqCurrentJob *
jq_current_job(void)
{
	return current;
}

const JqCurrentJob *
jq_current_set(const JqCurrentJob *job)
{
	const JqCurrentJob *before = current;

	current = job;
	return before;
}
