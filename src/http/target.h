/*-------------------------------------------------------------------------
 *
 * target.h
 *	  What a request asks for: the path and the parameters of its target.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HTTP_TARGET_H
#define JQ_HTTP_TARGET_H

#include "postgres.h"

typedef struct JqHttpParameter
{
	char	   *name;
	char	   *value;			/* "" without one */
} JqHttpParameter;

/* Decoded bytes, without zeroes; of whichever encoding. */
typedef struct JqHttpTarget
{
	char	   *path;			/* begins with a slash */
	int			nparameters;
	JqHttpParameter *parameters;	/* as they came, also twice */
} JqHttpTarget;

/*
 * Reads the target of a request line, into palloc'd memory.  False: it does
 * not begin with a slash, or holds control characters, bytes that must be
 * escaped, an escape that is none, or one for a zero byte.
 */
extern bool jq_http_target_read(const char *string, JqHttpTarget *target);

#endif							/* JQ_HTTP_TARGET_H */
