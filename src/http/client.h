/*-------------------------------------------------------------------------
 *
 * client.h
 *	  HTTP requests, many at once, through libcurl.
 *
 *	  A process has at most one client.  It starts requests, hands its file
 *	  descriptor to whoever waits, and runs what is ready; nothing here waits.
 *	  Signals are blocked while libcurl runs, because it starts threads that
 *	  resolve names.  No function here may be called inside a transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_HTTP_CLIENT_H
#define JQ_HTTP_CLIENT_H

#include "postgres.h"

#include "base/allow_list.h"

typedef enum JqHttpVersion
{
	JQ_HTTP_AUTO,				/* 2 where TLS negotiates it, else 1.1 */
	JQ_HTTP_1_1,
	JQ_HTTP_2					/* with TLS, or by prior knowledge */
} JqHttpVersion;

/*
 * What to send.  The caller checks URL and headers before; what is pointed to
 * must stay until the transfer is released.
 */
typedef struct JqHttpRequest
{
	const char *method;			/* GET, POST, PUT, PATCH, DELETE or HEAD */
	const char *url;
	char	  **headers;		/* "Name: value" */
	int			nheaders;
	const char *body;			/* NULL: none */
	Size		body_size;
	int			timeout_ms;		/* of the whole transfer */
	int			connect_timeout_ms; /* name, connection and TLS */
	int			low_speed_limit;	/* bytes/s; 0: none */
	int			low_speed_time; /* s below that limit end the transfer */
	Size		max_response;	/* bytes of the decoded body that are kept */
	JqHttpVersion version;
	const char *ca;				/* PEM; NULL: jobqueue.http_ca_file */
	const char *certificate;	/* PEM of certificate and key; NULL: none */
} JqHttpRequest;

/* How a transfer ended. */
typedef enum JqHttpEnd
{
	JQ_HTTP_ANSWERED,			/* there is a status */
	JQ_HTTP_TIMED_OUT,
	JQ_HTTP_NO_ADDRESS,			/* the name could not be resolved */
	JQ_HTTP_NOT_ALLOWED,		/* its address is refused by the settings */
	JQ_HTTP_NO_CONNECTION,
	JQ_HTTP_TLS_FAILED,
	JQ_HTTP_HEADERS_TOO_LARGE,
	JQ_HTTP_BROKEN,				/* reset, cut short, or not HTTP */
	JQ_HTTP_IMPOSSIBLE			/* libcurl cannot send this request */
} JqHttpEnd;

/* What came of it.  Times are in microseconds since the start; 0: not so far. */
typedef struct JqHttpResponse
{
	JqHttpEnd	end;
	const char *reason;			/* unless answered: why not; a constant */
	int			status;			/* 0: none */
	const char *headers;		/* lines as they came, without status lines */
	Size		headers_size;
	const char *body;			/* decoded, cut at max_response */
	Size		body_size;
	bool		is_truncated;
	int			version;		/* 9, 10, 11, 20, 30; 0: none */
	const char *address;		/* of the server; "": none */
	int			port;
	const char *redirect_url;	/* where a 3xx leads; NULL: nowhere */
	bool		is_reused;		/* the connection was there before */
	int64		dns_us;
	int64		connect_us;
	int64		tls_us;
	int64		first_byte_us;
	int64		total_us;
} JqHttpResponse;

typedef struct JqHttpTransfer JqHttpTransfer;

/*
 * Makes the client of this process.  Raises 0A000 when the libcurl that was
 * loaded is too old, 53000 without memory or file descriptors.
 */
extern void jq_http_client_init(void);

/* How many transfers may be under way, by settings and open files. */
extern int	jq_http_client_room(void);

/* Becomes readable when there is something to run. */
extern int	jq_http_client_fd(void);

/* How long libcurl wants to be left alone at most, in ms; -1: no limit. */
extern long jq_http_client_wait_ms(void);

/*
 * The settings have changed: connections that were made before are not used
 * for new requests.
 */
extern void jq_http_client_apply_settings(void);

/*
 * Starts a request.  NULL: there is no memory for it.  "owner" comes back with
 * the end of the transfer.
 */
extern JqHttpTransfer *jq_http_client_start(const JqHttpRequest *request,
											void *owner);

/* Runs what is ready, a bounded part of it; whether there may be more. */
extern bool jq_http_client_run(void);

/* The next transfer that has ended, or NULL. */
extern JqHttpTransfer *jq_http_client_next_ended(void);

extern void *jq_http_transfer_owner(const JqHttpTransfer *transfer);

/* Whether the name of the server is known. */
extern bool jq_http_transfer_is_resolved(const JqHttpTransfer *transfer);

/* What came of an ended transfer; valid until it is released. */
extern void jq_http_transfer_read(JqHttpTransfer *transfer,
								  JqHttpResponse *response);

/* Aborts it if it has not ended, and frees what it holds. */
extern void jq_http_transfer_release(JqHttpTransfer *transfer);

#endif							/* JQ_HTTP_CLIENT_H */
