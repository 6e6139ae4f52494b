/*-------------------------------------------------------------------------
 *
 * header.h
 *	  Methods and headers of requests: what users may send.
 *
 *	  Values of headers can be secret: no message quotes one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HTTP_HEADER_H
#define JQ_HTTP_HEADER_H

#include "postgres.h"

#include "utils/jsonb.h"

/* most headers of a request, and their size: names, values and 4 bytes each */
#define JQ_HEADERS_MAX_COUNT 64
#define JQ_HEADERS_MAX_SIZE (16 * 1024)

/* What counting the headers of one request needs; zero at first. */
typedef struct JqHeaderTotals
{
	int			count;
	size_t		size;
} JqHeaderTotals;

/*
 * What is wrong with a header, a sentence for errdetail that quotes nothing;
 * NULL when nothing is.  For values that have been filled in, again; "totals"
 * (or NULL) adds it to the request's.  A value may be empty, which libcurl
 * wants to be told as "name;".
 */
extern const char *jq_header_flaw(const char *name, const char *value,
								  JqHeaderTotals *totals);

/* Whether jobqueue or libcurl sets this header, and users must not. */
extern bool jq_header_is_reserved(const char *name);

/*
 * Raises 22023, naming the argument and the header, unless the document is an
 * object of headers that can be sent: strings, no name twice in any case.
 */
extern void jq_headers_check(Jsonb *headers, const char *argument);

/* Raises 22023 unless it is GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS. */
extern void jq_method_check(const char *method, const char *argument);

#endif							/* JQ_HTTP_HEADER_H */
