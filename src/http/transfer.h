/*-------------------------------------------------------------------------
 *
 * transfer.h
 *	  One request of libcurl and what came of it, for client.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HTTP_TRANSFER_H
#define JQ_HTTP_TRANSFER_H

#include "postgres.h"

#include <curl/curl.h>

#include "http/client.h"
#include "lib/ilist.h"

struct JqHttpPool;

/* A buffer that callbacks fill. */
typedef struct Buffer
{
	char	   *data;
	Size		size;
	Size		room;
} Buffer;

struct JqHttpTransfer
{
	dlist_node	node;			/* in ended or kept */
	CURL	   *easy;
	struct JqHttpPool *pool;	/* NULL: it has ended, or is not in use */
	void	   *owner;
	struct curl_slist *headers;
	Buffer		answer_headers;
	Buffer		body;
	Size		max_response;
	Size		headers_seen;	/* of all answers, 1xx included */
	bool		has_all_headers;	/* of the last answer */
	bool		is_resolved;
	bool		is_connected;	/* all that is left is to send and to wait */
	bool		is_refused;		/* by the settings, at its address */
	bool		is_truncated;
	bool		has_long_headers;
	bool		is_out_of_memory;
	bool		has_ended;
	CURLcode	code;
};

/* The settings have changed; the first time before anything else. */
extern void jq_transfer_apply_settings(void);

/* A transfer to prepare; NULL: there is no memory. */
extern JqHttpTransfer *jq_transfer_new(void);

/* Makes it one of this request; false: there is no memory. */
extern bool jq_transfer_prepare(JqHttpTransfer *transfer,
								const JqHttpRequest *request);

/* Keeps it for another request, without anything of this one. */
extern void jq_transfer_forget(JqHttpTransfer *transfer);

#endif							/* JQ_HTTP_TRANSFER_H */
