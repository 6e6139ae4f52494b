/*-------------------------------------------------------------------------
 *
 * server.h
 *	  An HTTP server for a few clients, through libmicrohttpd.
 *
 *	  A process has at most one, without threads.  Whoever waits does it on its
 *	  file descriptor; what is ready is run, complete requests are taken and
 *	  answered in between.  Nothing here waits.
 *
 *	  Memory, connections, the size of requests and the time that a client
 *	  takes to send one, or to take an answer, are bounded.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HTTP_SERVER_H
#define JQ_HTTP_SERVER_H

#include "postgres.h"

/*
 * A complete request.  Strings are NULL where the header is absent, and
 * nothing is known of their bytes but that none is zero.
 */
typedef struct JqHttpCall
{
	const char *method;
	const char *target;			/* as in the request line */
	const char *host;
	const char *origin;
	const char *authorization;
	const char *content_type;
	const char *accept;
	const char *fetch_site;		/* Sec-Fetch-Site */
	const char *fetch_mode;		/* Sec-Fetch-Mode */
	bool		is_ambiguous;	/* one of these came twice, or with a zero */
	bool		is_large;		/* the body was, and is not all here */
	const char *body;			/* NULL: none */
	size_t		body_size;
	const char *client;			/* its address */
} JqHttpCall;

typedef struct JqHttpAnswer
{
	int			status;
	const char *content_type;
	const char *body;
	size_t		body_size;
	const char *policy;			/* Content-Security-Policy */
	const char *allow;			/* Allow; NULL: none */
	bool		wants_token;	/* WWW-Authenticate */
} JqHttpAnswer;

/*
 * Listens.  Returns NULL, or why it cannot, palloc'd: something that may be
 * otherwise later.
 */
extern const char *jq_http_server_start(const char *address, int port);

/* Becomes readable when there is something to run. */
extern int	jq_http_server_fd(void);

/* How long nothing happens by itself, in ms; -1: for ever. */
extern long jq_http_server_wait_ms(void);

/* Runs what is ready, a bounded part of it, and closes what takes too long. */
extern void jq_http_server_run(void);

/*
 * The request that has waited longest, or NULL.  It stays valid until it is
 * answered, as it must be.
 */
extern JqHttpCall *jq_http_server_next(void);

/* Copies the answer, to be sent as soon as the server is run. */
extern void jq_http_server_answer(JqHttpCall *call,
								  const JqHttpAnswer *answer);

#endif							/* JQ_HTTP_SERVER_H */
