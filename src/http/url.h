/*-------------------------------------------------------------------------
 *
 * url.h
 *	  URLs of requests: what they must be, and whether the settings let a
 *	  request go there.  Parsed by libcurl, which sends the requests: what is
 *	  checked is where the request goes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HTTP_URL_H
#define JQ_HTTP_URL_H

#include "postgres.h"

/* longest URL, in bytes */
#define JQ_URL_MAX_LENGTH 8192

/* The parts of a URL that decide where a request goes; palloc'd. */
typedef struct JqUrl
{
	const char *scheme;			/* "http" or "https" */
	char	   *host;			/* lower case, no trailing dot, no brackets */
	int			port;			/* that of the scheme when the URL has none */
	char	   *origin;			/* "https://host:port", [host] for IPv6 */
	bool		is_literal_address; /* the host is an IP address */
} JqUrl;

/*
 * Reads the parts of a URL without placeholders, and returns NULL; or returns
 * what is wrong with the URL, a sentence for errdetail, that quotes nothing of
 * it.  "parts" may be NULL.
 */
extern const char *jq_url_parse(const char *url, JqUrl *parts);

/*
 * Why the settings jobqueue.http_allow_* refuse a request to there, a sentence
 * for errdetail that names the setting; NULL when they do not.  Of a host by
 * name (other than localhost) the address is judged when it is connected to.
 */
extern const char *jq_url_policy(const JqUrl *parts);

#endif							/* JQ_HTTP_URL_H */
