/*-------------------------------------------------------------------------
 *
 * names.c
 *	  What names and numbers that users give must be.
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

void
jq_range_check(int64 value, const char *argument, int min, int max)
{
	if (value < min || value > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be between %d and %d", argument, min, max)));
}
