/*-------------------------------------------------------------------------
 *
 * transfer.c
 *	  One request of libcurl and what came of it.
 *
 * Callbacks only record: an error raised there would leave libcurl inside of
 * itself for ever.  Their memory is malloc'ed, for the same reason.
 *
 * Where a request may go is decided when a socket is about to be opened, on
 * the address that it will really be connected to.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "http/transfer.h"

#include "base/allow_list.h"
#include "base/config.h"
#include "utils/memutils.h"

#define MAX_HEADERS_SIZE (64 * 1024)	/* of a response, 1xx included */
#define MAX_KEPT_BUFFER (16 * 1024) /* of a transfer that is not in use */
#define MAX_KEPT_TRANSFERS 1024
#define DNS_CACHE_S 60
#define MAX_CONNECTION_AGE_S 600	/* servers move */

static dlist_head kept = DLIST_STATIC_INIT(kept);
static int	nkept = 0;
static JqAddressList *addresses = NULL; /* of jobqueue.http_allow_cidrs */

static void set_method(CURL *easy, const JqHttpRequest *request);
static void set_tls(CURL *easy, const JqHttpRequest *request);
static bool set_headers(JqHttpTransfer *transfer,
						const JqHttpRequest *request);
static void trim(Buffer *buffer);
static int	note_connection(void *arg, char *to_address, char *from_address,
							int to_port, int from_port);
static curl_socket_t open_socket(void *arg, curlsocktype purpose,
								 struct curl_sockaddr *address);
static size_t keep_header(char *data, size_t size, size_t count, void *arg);
static size_t keep_body(char *data, size_t size, size_t count, void *arg);
static bool append(Buffer *buffer, const char *data, Size size);
static JqHttpEnd classify(const JqHttpTransfer *transfer, const char **reason);
static const char *timeout_phase(const JqHttpTransfer *transfer);
static int64 time_of(const JqHttpTransfer *transfer, CURLINFO info);

void
jq_transfer_apply_settings(void)
{
	MemoryContext old_context = MemoryContextSwitchTo(TopMemoryContext);
	JqAddressList *old = addresses;

	addresses = jq_address_list_compile(jq_config_http_allow_cidrs);
	MemoryContextSwitchTo(old_context);
	if (old != NULL)
		pfree(old);
}

/* One that was used before, if there is one: its settings are the same. */
JqHttpTransfer *
jq_transfer_new(void)
{
	JqHttpTransfer *transfer;
	CURL	   *easy;

	if (!dlist_is_empty(&kept))
	{
		nkept--;
		return dlist_container(JqHttpTransfer, node, dlist_pop_head_node(&kept));
	}
	transfer = calloc(1, sizeof(JqHttpTransfer));
	easy = curl_easy_init();
	if (transfer == NULL || easy == NULL)
	{
		curl_easy_cleanup(easy);
		free(transfer);
		return NULL;
	}
	transfer->easy = easy;
	curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "gzip, deflate");
	curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, (long) DNS_CACHE_S);
	curl_easy_setopt(easy, CURLOPT_MAXLIFETIME_CONN,
					 (long) MAX_CONNECTION_AGE_S);
	curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, note_connection);
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, keep_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, keep_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
	return transfer;
}

/* What differs from request to request. */
bool
jq_transfer_prepare(JqHttpTransfer *transfer, const JqHttpRequest *request)
{
	CURL	   *easy = transfer->easy;
	bool		is_https = pg_strncasecmp(request->url, "https:", 6) == 0;
	long		version = request->version == JQ_HTTP_1_1 ?
	CURL_HTTP_VERSION_1_1 : CURL_HTTP_VERSION_2TLS;

	if (request->version == JQ_HTTP_2 && !is_https)
		version = CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE;
	transfer->max_response = request->max_response;
	if (curl_easy_setopt(easy, CURLOPT_URL, request->url) != CURLE_OK ||
		!set_headers(transfer, request))
		return false;
	set_method(easy, request);
	if (is_https)
		set_tls(easy, request);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, version);
	/* Better one more stream of a connection than one more connection. */
	curl_easy_setopt(easy, CURLOPT_PIPEWAIT,
					 (long) (is_https && request->version != JQ_HTTP_1_1));
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long) request->timeout_ms);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
					 (long) Min(request->connect_timeout_ms,
								request->timeout_ms));
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT,
					 (long) request->low_speed_limit);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME,
					 (long) request->low_speed_time);
	/* An empty string also switches off those of the environment. */
	return curl_easy_setopt(easy, CURLOPT_PROXY,
							jq_config_http_proxy) == CURLE_OK;
}

/* In this order: each of these options changes what others have set. */
static void
set_method(CURL *easy, const JqHttpRequest *request)
{
	bool		is_post = strcmp(request->method, "POST") == 0;
	bool		has_body = request->body != NULL || is_post ||
	strcmp(request->method, "PUT") == 0 ||
	strcmp(request->method, "PATCH") == 0;

	curl_easy_setopt(easy, CURLOPT_NOBODY, 0L);
	curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, NULL);
	if (has_body)
	{
		curl_easy_setopt(easy, CURLOPT_POST, 1L);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
						 (curl_off_t) request->body_size);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS,
						 request->body != NULL ? request->body : "");
	}
	else if (strcmp(request->method, "HEAD") == 0)
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	else
		curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
	if (has_body ? !is_post : (strcmp(request->method, "GET") != 0 &&
							   strcmp(request->method, "HEAD") != 0))
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
}

static void
set_pem(CURL *easy, CURLoption option, const char *pem)
{
	struct curl_blob blob;

	blob.data = unconstify(char *, pem);
	blob.len = pem == NULL ? 0 : strlen(pem);
	blob.flags = CURL_BLOB_COPY;
	curl_easy_setopt(easy, option, pem == NULL ? NULL : &blob);
}

static void
set_tls(CURL *easy, const JqHttpRequest *request)
{
	const curl_version_info_data *libcurl = curl_version_info(CURLVERSION_NOW);
	bool		is_default = jq_config_http_ca_file[0] == '\0';

	/* One's own CA stands instead of the system's, not besides. */
	curl_easy_setopt(easy, CURLOPT_CAINFO,
					 is_default ? libcurl->cainfo : jq_config_http_ca_file);
	curl_easy_setopt(easy, CURLOPT_CAPATH,
					 is_default && request->ca == NULL ? libcurl->capath : NULL);
	set_pem(easy, CURLOPT_CAINFO_BLOB, request->ca);
	set_pem(easy, CURLOPT_SSLCERT_BLOB, request->certificate);
	set_pem(easy, CURLOPT_SSLKEY_BLOB, request->certificate);
}

static bool
set_headers(JqHttpTransfer *transfer, const JqHttpRequest *request)
{
	/* Without the first one, libcurl may wait for "100 Continue". */
	struct curl_slist *list = curl_slist_append(NULL, "Expect:");

	for (int i = 0; list != NULL && i < request->nheaders; i++)
	{
		struct curl_slist *longer = curl_slist_append(list,
													  request->headers[i]);

		if (longer == NULL)
			curl_slist_free_all(list);
		list = longer;
	}
	transfer->headers = list;
	return list != NULL && curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER,
											list) == CURLE_OK;
}

void
jq_transfer_forget(JqHttpTransfer *transfer)
{
	CURL	   *easy = transfer->easy;

	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, NULL);
	curl_slist_free_all(transfer->headers);
	transfer->headers = NULL;
	if (nkept >= MAX_KEPT_TRANSFERS)
	{
		curl_easy_cleanup(easy);
		free(transfer->answer_headers.data);
		free(transfer->body.data);
		free(transfer);
		return;
	}
	trim(&transfer->answer_headers);
	trim(&transfer->body);
	transfer->owner = NULL;
	transfer->headers_seen = 0;
	transfer->has_all_headers = false;
	transfer->is_resolved = false;
	transfer->is_connected = false;
	transfer->is_refused = false;
	transfer->is_truncated = false;
	transfer->has_long_headers = false;
	transfer->is_out_of_memory = false;
	transfer->has_ended = false;
	nkept++;
	dlist_push_head(&kept, &transfer->node);
}

static void
trim(Buffer *buffer)
{
	buffer->size = 0;
	if (buffer->room <= MAX_KEPT_BUFFER)
		return;
	free(buffer->data);
	memset(buffer, 0, sizeof(*buffer));
}

/* ---- callbacks of libcurl: they must not raise, palloc or log ---- */

static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	JqHttpTransfer *transfer = (JqHttpTransfer *) arg;

	transfer->is_resolved = true;
	transfer->is_connected = false;
	/* A proxy is the administrator's choice, and he may have it nearby. */
	if (jq_config_http_proxy[0] == '\0' &&
		!jq_address_is_allowed(addresses, &address->addr))
	{
		transfer->is_refused = true;
		return CURL_SOCKET_BAD;
	}
	transfer->is_refused = false;
	return socket(address->family, address->socktype | SOCK_CLOEXEC,
				  address->protocol);
}

/* The connection stands, TLS and all; now comes the request. */
static int
note_connection(void *arg, char *to_address, char *from_address, int to_port,
				int from_port)
{
	((JqHttpTransfer *) arg)->is_connected = true;
	return CURL_PREREQFUNC_OK;
}

/* Each answer starts over: of several, only the last one counts. */
static size_t
keep_header(char *data, size_t size, size_t count, void *arg)
{
	JqHttpTransfer *transfer = (JqHttpTransfer *) arg;
	Size		length = size * count;

	transfer->headers_seen += length;
	if (transfer->headers_seen > MAX_HEADERS_SIZE)
	{
		transfer->has_long_headers = true;
		return 0;				/* a short count makes libcurl give up */
	}
	if (length >= 5 && memcmp(data, "HTTP/", 5) == 0)
	{
		transfer->answer_headers.size = 0;
		transfer->has_all_headers = false;
		return length;
	}
	/* An empty line ends them; what follows a body does not matter. */
	transfer->has_all_headers |= *data == '\r' || *data == '\n';
	if (append(&transfer->answer_headers, data, length))
		return length;
	transfer->is_out_of_memory = true;
	return 0;
}

static size_t
keep_body(char *data, size_t size, size_t count, void *arg)
{
	JqHttpTransfer *transfer = (JqHttpTransfer *) arg;
	Size		length = size * count;
	Size		room = transfer->max_response - transfer->body.size;

	if (!append(&transfer->body, data, Min(length, room)))
	{
		transfer->is_out_of_memory = true;
		return 0;
	}
	if (length <= room)
		return length;
	transfer->is_truncated = true;
	return 0;
}

/* False: there is no memory. */
static bool
append(Buffer *buffer, const char *data, Size size)
{
	if (size > buffer->room - buffer->size)
	{
		Size		room = Max(buffer->room * 2, 1024);
		char	   *larger;

		while (room < buffer->size + size)
			room *= 2;
		larger = realloc(buffer->data, room);
		if (larger == NULL)
			return false;
		buffer->data = larger;
		buffer->room = room;
	}
	memcpy(buffer->data + buffer->size, data, size);
	buffer->size += size;
	return true;
}

/* ---- what came of it ---- */

void *
jq_http_transfer_owner(const JqHttpTransfer *transfer)
{
	return transfer->owner;
}

bool
jq_http_transfer_is_resolved(const JqHttpTransfer *transfer)
{
	return transfer->is_resolved || transfer->has_ended;
}

void
jq_http_transfer_read(JqHttpTransfer *transfer, JqHttpResponse *response)
{
	CURL	   *easy = transfer->easy;
	long		value = 0;
	char	   *string = NULL;

	memset(response, 0, sizeof(*response));
	response->end = classify(transfer, &response->reason);
	if (response->end == JQ_HTTP_ANSWERED)
	{
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &value);
		response->status = (int) value;
		response->headers = transfer->answer_headers.data;
		response->headers_size = transfer->answer_headers.size;
		response->body = transfer->body.data;
		response->body_size = transfer->body.size;
		response->is_truncated = transfer->is_truncated;
		curl_easy_getinfo(easy, CURLINFO_REDIRECT_URL, &string);
		response->redirect_url = string;
	}
	curl_easy_getinfo(easy, CURLINFO_HTTP_VERSION, &value);
	response->version = value == CURL_HTTP_VERSION_1_0 ? 10 :
		value == CURL_HTTP_VERSION_1_1 ? 11 :
		value == CURL_HTTP_VERSION_2_0 ? 20 : value == CURL_HTTP_VERSION_3 ? 30 : 0;
	value = 0;
	curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &value);
	response->is_reused = value == 0 && response->end == JQ_HTTP_ANSWERED;
	string = NULL;

	curl_easy_getinfo(easy, CURLINFO_PRIMARY_IP, &string);
	response->address = string == NULL ? "" : string;

	value = 0;
	curl_easy_getinfo(easy, CURLINFO_PRIMARY_PORT, &value);
	response->port = (int) value;
	response->dns_us = time_of(transfer, CURLINFO_NAMELOOKUP_TIME_T);
	response->connect_us = time_of(transfer, CURLINFO_CONNECT_TIME_T);
	response->tls_us = time_of(transfer, CURLINFO_APPCONNECT_TIME_T);
	response->first_byte_us = transfer->headers_seen == 0 ? 0 :
		time_of(transfer, CURLINFO_STARTTRANSFER_TIME_T);
	response->total_us = time_of(transfer, CURLINFO_TOTAL_TIME_T);
}

static int64
time_of(const JqHttpTransfer *transfer, CURLINFO info)
{
	curl_off_t	value = 0;

	curl_easy_getinfo(transfer->easy, info, &value);
	return (int64) value;
}

/*
 * The reasons are constants: what libcurl says could name the URL, which can
 * be a secret.
 */
static JqHttpEnd
classify(const JqHttpTransfer *transfer, const char **reason)
{
	if (transfer->is_out_of_memory)
	{
		*reason = "there was no memory for the answer";
		return JQ_HTTP_BROKEN;
	}
	if (transfer->has_long_headers)
	{
		*reason = "the headers of the answer are too large";
		return JQ_HTTP_HEADERS_TOO_LARGE;
	}
	if (transfer->code == CURLE_OK && !transfer->has_all_headers)
	{
		/* libcurl takes the end of the connection for the end of headers. */
		*reason = "the answer is shorter than announced";
		return JQ_HTTP_BROKEN;
	}
	if (transfer->code == CURLE_OK || transfer->is_truncated)
		return JQ_HTTP_ANSWERED;
	if (transfer->is_refused)
	{
		*reason = "its address is not one that jobqueue.http_allow_cidrs allows";
		return JQ_HTTP_NOT_ALLOWED;
	}

	switch (transfer->code)
	{
		case CURLE_OPERATION_TIMEDOUT:
			*reason = timeout_phase(transfer);
			return JQ_HTTP_TIMED_OUT;
		case CURLE_COULDNT_RESOLVE_HOST:
			*reason = "could not resolve the name of the host";
			return JQ_HTTP_NO_ADDRESS;
		case CURLE_COULDNT_RESOLVE_PROXY:
			*reason = "could not resolve the name of the proxy";
			return JQ_HTTP_NO_ADDRESS;
		case CURLE_COULDNT_CONNECT:
		case CURLE_PROXY:
			*reason = "could not connect";
			return JQ_HTTP_NO_CONNECTION;
		case CURLE_SSL_CONNECT_ERROR:
			*reason = "the TLS handshake failed";
			return JQ_HTTP_TLS_FAILED;
		case CURLE_PEER_FAILED_VERIFICATION:
			*reason = "the certificate of the server could not be verified";
			return JQ_HTTP_TLS_FAILED;
		case CURLE_SSL_CERTPROBLEM:
			*reason = "the client certificate could not be used";
			return JQ_HTTP_TLS_FAILED;
		case CURLE_SSL_CACERT_BADFILE:
			*reason = "the CA certificates could not be read";
			return JQ_HTTP_TLS_FAILED;
		case CURLE_SSL_ENGINE_NOTFOUND:
		case CURLE_SSL_ENGINE_SETFAILED:
		case CURLE_SSL_CIPHER:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_INVALIDCERTSTATUS:
		case CURLE_SSL_CLIENTCERT:
			*reason = "TLS failed";
			return JQ_HTTP_TLS_FAILED;
#if LIBCURL_VERSION_NUM >= 0x080600
		case CURLE_TOO_LARGE:
			*reason = "the headers of the answer are too large";
			return JQ_HTTP_HEADERS_TOO_LARGE;
#endif
		case CURLE_GOT_NOTHING:
			*reason = "the server closed the connection without an answer";
			return JQ_HTTP_BROKEN;
		case CURLE_PARTIAL_FILE:
			*reason = "the answer is shorter than announced";
			return JQ_HTTP_BROKEN;
		case CURLE_BAD_CONTENT_ENCODING:
			*reason = "the answer is not compressed as announced";
			return JQ_HTTP_BROKEN;
		case CURLE_UNSUPPORTED_PROTOCOL:
		case CURLE_WEIRD_SERVER_REPLY:
		case CURLE_HTTP2:
		case CURLE_HTTP2_STREAM:
			*reason = "the answer is not valid HTTP";
			return JQ_HTTP_BROKEN;
		case CURLE_URL_MALFORMAT:
		case CURLE_BAD_FUNCTION_ARGUMENT:
		case CURLE_NOT_BUILT_IN:
			*reason = "libcurl cannot send this request";
			return JQ_HTTP_IMPOSSIBLE;
		default:
			*reason = "the connection broke";
			return JQ_HTTP_BROKEN;
	}
}

/* What it was waiting for. */
static const char *
timeout_phase(const JqHttpTransfer *transfer)
{
	char	   *address = NULL;

	/*
	 * The times of libcurl do not tell: of a connection that was there before
	 * some versions know none, and others set them all when a transfer ends.
	 */
	if (transfer->headers_seen > 0)
		return "timed out while receiving the answer";
	if (transfer->is_connected)
		return "timed out while waiting for the answer";
	curl_easy_getinfo(transfer->easy, CURLINFO_PRIMARY_IP, &address);
	if (address != NULL && address[0] != '\0')
		return "timed out in the TLS handshake";
	return transfer->is_resolved ? "timed out while connecting" :
		"timed out while resolving the name of the host";
}
