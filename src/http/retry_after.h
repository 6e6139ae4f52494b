/*-------------------------------------------------------------------------
 *
 * retry_after.h
 *	  The header Retry-After.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HTTP_RETRY_AFTER_H
#define JQ_HTTP_RETRY_AFTER_H

#include "postgres.h"

#include "datatype/timestamp.h"

/*
 * Reads seconds or any of the three forms of HTTP dates.  Returns false when
 * it is neither; else sets "at", which is never before "now".  The caller
 * limits how far ahead it is: a server may name any time.
 */
extern bool jq_retry_after_parse(const char *value, TimestampTz now,
								 TimestampTz *at);

#endif							/* JQ_HTTP_RETRY_AFTER_H */
