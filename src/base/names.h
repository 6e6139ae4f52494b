/*-------------------------------------------------------------------------
 *
 * names.h
 *	  What names of job types, tasks and the like must be.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_NAMES_H
#define JQ_NAMES_H

#include "postgres.h"

/*
 * Raises 22023, naming the argument, unless "value" has min to max bytes and
 * no control characters.
 */
extern void jq_name_check(const char *value, const char *argument,
						  int min, int max);

/* The above for a name, 1 to 255 bytes. */
#define jq_name_check_required(value, argument) \
	jq_name_check(value, argument, 1, 255)

#endif							/* JQ_NAMES_H */
