/*-------------------------------------------------------------------------
 *
 * receive.h
 *	  What a client sends, until it is a complete request: for server.c.
 *
 *	  The functions are callbacks of libmicrohttpd, or run inside of some: they
 *	  use malloc, and never raise.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HTTP_RECEIVE_H
#define JQ_HTTP_RECEIVE_H

#include "postgres.h"

#include <netinet/in.h>

#include <microhttpd.h>

#include "http/server.h"
#include "lib/ilist.h"

typedef enum JqHttpCallState
{
	JQ_CALL_NONE,
	JQ_CALL_STARTED,			/* the target is known */
	JQ_CALL_READING,			/* so are the headers */
	JQ_CALL_OVER,				/* the library has an answer */
	JQ_CALL_WAITING,			/* complete and suspended */
	JQ_CALL_ANSWERED,			/* resumed, with an answer */
	JQ_CALL_LOST				/* resumed, without one: out of memory */
} JqHttpCallState;

typedef struct JqHttpConnection
{
	dlist_node	node;			/* in connections */
	dlist_node	waiting_node;	/* in waiting, while the state is WAITING */
	struct MHD_Connection *mhd;
	int			fd;
	int64		since;			/* by jq_clock_ms(): it reads, or writes */
	int64		deadline;		/* PG_INT64_MAX: it waits for us */
	bool		is_writing;
	JqHttpCallState state;
	bool		is_long;		/* the target is, and was not kept */
	size_t		body_room;
	char	   *target;
	char	   *body;
	char		client[INET6_ADDRSTRLEN];
	int			status;			/* of the answer */
	struct MHD_Response *response;
	JqHttpCall	call;
} JqHttpConnection;

/* NULL: the library could not tell us of it. */
extern JqHttpConnection *jq_http_connection_of(struct MHD_Connection *mhd);

/* Frees what belongs to one request. */
extern void jq_http_call_forget(JqHttpConnection *connection);

/* The first that is known of a request. */
extern void *jq_http_receive_target(void *cls, const char *target,
									struct MHD_Connection *mhd);

/* Targets are decoded by us, once it is known which they are. */
extern size_t jq_http_receive_escaped(void *cls, struct MHD_Connection *mhd,
									  char *string);

/*
 * Called with the headers, with each part of the body, with nothing at the
 * end, and once more when the connection is resumed.  A complete request is
 * suspended, and put into the list that "cls" is.
 */
extern enum MHD_Result jq_http_receive(void *cls, struct MHD_Connection *mhd,
									   const char *url, const char *method,
									   const char *version, const char *data,
									   size_t *size, void **context);

#endif							/* JQ_HTTP_RECEIVE_H */
