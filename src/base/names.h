/*-------------------------------------------------------------------------
 *
 * names.h
 *	  What names and numbers that users give must be.
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

/* Raises 22023, naming the argument, unless value lies in the range. */
extern void jq_range_check(int64 value, const char *argument, int min,
						   int max);

#endif							/* JQ_NAMES_H */
