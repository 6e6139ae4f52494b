/*-------------------------------------------------------------------------
 *
 * names.c
 *	  What names of job types, tasks and the like must be.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/names.h"

void
jq_name_check(const char *value, const char *argument, int min, int max)
{
	int			length = strlen(value);

	if (length < min || length > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be %d to %d bytes long", argument, min, max)));
	for (const char *c = value; *c != '\0'; c++)
		if ((unsigned char) *c < 0x20 || *c == 0x7f)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s must not contain control characters", argument)));
}
