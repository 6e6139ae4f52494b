/*-------------------------------------------------------------------------
 *
 * client.c
 *	  HTTP requests, many at once, through libcurl.
 *
 * libcurl tells which sockets to watch and when it wants to be called; the
 * sockets are in an epoll set of our own, which is one descriptor to whoever
 * waits.  Its callbacks only record: an error raised there would leave libcurl
 * inside of itself for ever.  Their memory is malloc'ed, for the same reason.
 *
 * Where requests may go is decided when a socket is about to be opened, on the
 * address that it will really be connected to.  A connection that is open
 * already was judged by the settings of then: when they change, the handle
 * with all its connections is left to the transfers that use it, and new ones
 * get another.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <curl/curl.h>

#include "http/client.h"

#include "base/clock.h"
#include "base/config.h"
#include "lib/ilist.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#if LIBCURL_VERSION_NUM < 0x075700
#error "jobqueue needs libcurl 7.87 or later"
#endif

#define MIN_CURL_VERSION 0x075700
#define MAX_HEADERS_SIZE (64 * 1024)	/* of a response, 1xx included */
#define MAX_EVENTS 128			/* of one pass */
#define MAX_KEPT_BUFFER (64 * 1024) /* of a transfer that is not in use */
#define MAX_KEPT_TRANSFERS 1024
#define DNS_CACHE_S 60
#define MAX_CONNECTION_AGE_S 600	/* servers move */
#define SPARE_FDS 64			/* beside sockets and PostgreSQL's files */

/* A buffer that callbacks fill. */
typedef struct Buffer
{
	char	   *data;
	Size		size;
	Size		room;
} Buffer;

/* One of libcurl's handles for many transfers, with its connections. */
typedef struct Pool
{
	dlist_node	node;			/* in pools; the first is the current one */
	CURLM	   *multi;
	int			transfers;		/* that use it */
	int64		timer_at;		/* by jq_clock_ms(); PG_INT64_MAX: none */
	bool		is_due;			/* its timer has to run */
} Pool;

struct JqHttpTransfer
{
	dlist_node	node;			/* in ended or kept */
	CURL	   *easy;
	Pool	   *pool;			/* NULL: it has ended, or is not in use */
	void	   *owner;
	struct curl_slist *headers;
	Buffer		answer_headers;
	Buffer		body;
	Size		max_response;
	Size		headers_seen;	/* of all answers, 1xx included */
	bool		is_resolved;
	bool		is_refused;		/* by the settings, at its address */
	bool		is_truncated;
	bool		has_long_headers;
	bool		is_out_of_memory;
	bool		has_ended;
	CURLcode	code;
	char	   *redirect_url;	/* libcurl's */
	char	   *address;		/* libcurl's */
	char		error[CURL_ERROR_SIZE];
};

static int	epoll_fd = -1;
static int	max_transfers = INT_MAX;	/* by the limit of open files */
static dlist_head pools = DLIST_STATIC_INIT(pools);
static dlist_head ended = DLIST_STATIC_INIT(ended);
static dlist_head kept = DLIST_STATIC_INIT(kept);
static int	nkept = 0;
static MemoryContext client_context = NULL;
static JqAddressList *addresses = NULL; /* of jobqueue.http_allow_cidrs */

static void raise_fd_limit(void);
static void block_signals(sigset_t *before);
static void restore_signals(const sigset_t *before);
static Pool *open_pool(void);
static void close_idle_pools(void);
static void close_client(int code, Datum arg);
static JqHttpTransfer *new_transfer(void);
static bool prepare(JqHttpTransfer *transfer, const JqHttpRequest *request);
static void set_method(CURL *easy, const JqHttpRequest *request);
static void set_tls(CURL *easy, const JqHttpRequest *request);
static bool set_headers(JqHttpTransfer *transfer,
						const JqHttpRequest *request);
static void run_sockets(bool *is_full);
static void run_timers(void);
static void collect_ended(Pool *pool);
static void detach(JqHttpTransfer *transfer);
static void forget(JqHttpTransfer *transfer);
static int	watch_socket(CURL *easy, curl_socket_t fd, int what,
						 void *pool, void *was_watched);
static int	set_timer(CURLM *multi, long timeout_ms, void *pool);
static curl_socket_t open_socket(void *transfer, curlsocktype purpose,
								 struct curl_sockaddr *address);
static size_t keep_header(char *data, size_t size, size_t count,
						  void *transfer);
static size_t keep_body(char *data, size_t size, size_t count,
						void *transfer);
static bool append(Buffer *buffer, const char *data, Size size);
static JqHttpEnd classify(const JqHttpTransfer *transfer, const char **reason);
static const char *timeout_phase(const JqHttpTransfer *transfer);
static int64 time_of(const JqHttpTransfer *transfer, CURLINFO info);

void
jq_http_client_init(void)
{
	sigset_t	before;

	if (client_context != NULL)
		return;
	if (curl_version_info(CURLVERSION_NOW)->version_num < MIN_CURL_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("libcurl %s is too old for HTTP jobs",
						curl_version_info(CURLVERSION_NOW)->version),
				 errhint("Install libcurl 7.87 or later.")));
	/* Where transfers are secret, so is their log. */
	unsetenv("SSLKEYLOGFILE");

	block_signals(&before);
	if (curl_global_init(CURL_GLOBAL_ALL) != CURLE_OK)
	{
		restore_signals(&before);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not start libcurl")));
	}
	restore_signals(&before);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create an epoll set: %m")));
	(void) AcquireExternalFD();
	client_context = AllocSetContextCreate(TopMemoryContext,
										   "jobqueue HTTP client",
										   ALLOCSET_SMALL_SIZES);
	before_shmem_exit(close_client, (Datum) 0);
	jq_http_client_apply_settings();
}

/* PostgreSQL may open max_safe_fds files; sockets come besides. */
static void
raise_fd_limit(void)
{
	struct rlimit limit;
	rlim_t		wanted = max_safe_fds + SPARE_FDS +
	(rlim_t) jq_config_http_max_connections;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	if (limit.rlim_cur < wanted)
	{
		limit.rlim_cur = limit.rlim_max == RLIM_INFINITY ? wanted :
			Min(wanted, limit.rlim_max);
		(void) setrlimit(RLIMIT_NOFILE, &limit);
		(void) getrlimit(RLIMIT_NOFILE, &limit);
	}
	max_transfers = limit.rlim_cur == RLIM_INFINITY ? INT_MAX :
		(int) Max((int64) limit.rlim_cur - max_safe_fds / 2 - SPARE_FDS, 8);
}

int
jq_http_client_room(void)
{
	return Min(jq_config_http_max_connections, max_transfers);
}

/*
 * The process is about to end: connections are closed without waiting for
 * threads that still resolve names, and what libcurl holds goes with it.
 */
static void
close_client(int code, Datum arg)
{
	if (epoll_fd >= 0)
		close(epoll_fd);
	epoll_fd = -1;
}

int
jq_http_client_fd(void)
{
	return epoll_fd;
}

/* A thread that libcurl starts must not run PostgreSQL's signal handlers. */
static void
block_signals(sigset_t *before)
{
	sigset_t	all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, before);
}

static void
restore_signals(const sigset_t *before)
{
	sigprocmask(SIG_SETMASK, before, NULL);
}

void
jq_http_client_apply_settings(void)
{
	JqAddressList *old_addresses = addresses;
	MemoryContext old_context = MemoryContextSwitchTo(client_context);
	Pool	   *pool;

	addresses = jq_address_list_compile(jq_config_http_allow_cidrs);
	MemoryContextSwitchTo(old_context);
	if (old_addresses != NULL)
		pfree(old_addresses);

	raise_fd_limit();
	pool = open_pool();
	if (pool == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not create a libcurl handle")));
	dlist_push_head(&pools, &pool->node);
	close_idle_pools();
}

static Pool *
open_pool(void)
{
	Pool	   *pool = calloc(1, sizeof(Pool));
	CURLM	   *multi = curl_multi_init();

	if (pool == NULL || multi == NULL)
	{
		curl_multi_cleanup(multi);
		free(pool);
		return NULL;
	}
	pool->multi = multi;
	pool->timer_at = PG_INT64_MAX;
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, pool);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(multi, CURLMOPT_TIMERDATA, pool);
	curl_multi_setopt(multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS,
					  (long) jq_config_http_max_connections);
	return pool;
}

/* Closes the connections of earlier settings once nothing uses them. */
static void
close_idle_pools(void)
{
	dlist_mutable_iter iter;
	sigset_t	before;

	block_signals(&before);
	dlist_foreach_modify(iter, &pools)
	{
		Pool	   *pool = dlist_container(Pool, node, iter.cur);

		if (pool->transfers > 0 || dlist_head_node(&pools) == iter.cur)
			continue;
		dlist_delete(&pool->node);
		curl_multi_cleanup(pool->multi);
		free(pool);
	}
	restore_signals(&before);
}

JqHttpTransfer *
jq_http_client_start(const JqHttpRequest *request, void *owner)
{
	Pool	   *pool = dlist_head_element(Pool, node, &pools);
	JqHttpTransfer *transfer = new_transfer();
	sigset_t	before;
	bool		is_started;

	if (transfer == NULL)
		return NULL;
	transfer->owner = owner;
	if (!prepare(transfer, request))
	{
		forget(transfer);
		return NULL;
	}
	block_signals(&before);
	is_started = curl_multi_add_handle(pool->multi, transfer->easy) == CURLM_OK;
	restore_signals(&before);
	if (!is_started)
	{
		forget(transfer);
		return NULL;
	}
	transfer->pool = pool;
	pool->transfers++;
	return transfer;
}

/* One that was used before, if there is one: its settings are the same. */
static JqHttpTransfer *
new_transfer(void)
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
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->error);
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
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, keep_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, keep_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
	return transfer;
}

/* What differs from request to request. */
static bool
prepare(JqHttpTransfer *transfer, const JqHttpRequest *request)
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

long
jq_http_client_wait_ms(void)
{
	int64		now = jq_clock_ms();
	int64		first = PG_INT64_MAX;
	dlist_iter	iter;

	if (!dlist_is_empty(&ended))
		return 0;
	dlist_foreach(iter, &pools)
		first = Min(first, dlist_container(Pool, node, iter.cur)->timer_at);
	return first == PG_INT64_MAX ? -1 : (long) Max(first - now, 0);
}

bool
jq_http_client_run(void)
{
	bool		is_full = false;
	sigset_t	before;
	dlist_iter	iter;

	block_signals(&before);
	run_sockets(&is_full);
	run_timers();
	dlist_foreach(iter, &pools)
		collect_ended(dlist_container(Pool, node, iter.cur));
	restore_signals(&before);
	if (!dlist_is_empty(&pools) &&
		dlist_has_next(&pools, dlist_head_node(&pools)))
		close_idle_pools();
	return is_full;
}

/* A socket belongs to the pool that its event names. */
static void
run_sockets(bool *is_full)
{
	struct epoll_event events[MAX_EVENTS];
	int			count = epoll_wait(epoll_fd, events, MAX_EVENTS, 0);
	int			running;

	for (int i = 0; i < count; i++)
	{
		int			fd = (int) (uint32) events[i].data.u64;
		int			what = 0;
		dlist_iter	iter;

		if (events[i].events & (EPOLLIN | EPOLLRDHUP))
			what |= CURL_CSELECT_IN;
		if (events[i].events & EPOLLOUT)
			what |= CURL_CSELECT_OUT;
		if (events[i].events & (EPOLLERR | EPOLLHUP))
			what |= CURL_CSELECT_ERR;
		dlist_foreach(iter, &pools)
		{
			Pool	   *pool = dlist_container(Pool, node, iter.cur);

			/* The others do not know this socket, and ignore it. */
			curl_multi_socket_action(pool->multi, fd, what, &running);
		}
	}
	*is_full = count == MAX_EVENTS;
}

static void
run_timers(void)
{
	int64		now = jq_clock_ms();
	dlist_iter	iter;
	int			running;

	dlist_foreach(iter, &pools)
	{
		Pool	   *pool = dlist_container(Pool, node, iter.cur);

		if (pool->timer_at > now)
			continue;
		pool->timer_at = PG_INT64_MAX;
		curl_multi_socket_action(pool->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
}

/* Signals must be blocked. */
static void
collect_ended(Pool *pool)
{
	CURLMsg    *message;
	int			left;

	while ((message = curl_multi_info_read(pool->multi, &left)) != NULL)
	{
		JqHttpTransfer *transfer;
		CURLcode	code = message->data.result;
		char	   *private;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
		transfer = (JqHttpTransfer *) private;
		transfer->code = code;
		transfer->has_ended = true;
		detach(transfer);
		dlist_push_tail(&ended, &transfer->node);
	}
}

/* Signals must be blocked. */
static void
detach(JqHttpTransfer *transfer)
{
	curl_multi_remove_handle(transfer->pool->multi, transfer->easy);
	transfer->pool->transfers--;
	transfer->pool = NULL;
}

JqHttpTransfer *
jq_http_client_next_ended(void)
{
	if (dlist_is_empty(&ended))
		return NULL;
	return dlist_container(JqHttpTransfer, node, dlist_pop_head_node(&ended));
}

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
jq_http_transfer_release(JqHttpTransfer *transfer)
{
	sigset_t	before;

	if (transfer->pool != NULL)
	{
		block_signals(&before);
		detach(transfer);
		restore_signals(&before);
	}
	forget(transfer);
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

/* Keeps it for another request, without anything of this one. */
static void
forget(JqHttpTransfer *transfer)
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
	transfer->is_resolved = false;
	transfer->is_refused = false;
	transfer->is_truncated = false;
	transfer->has_long_headers = false;
	transfer->is_out_of_memory = false;
	transfer->has_ended = false;
	transfer->error[0] = '\0';
	nkept++;
	dlist_push_head(&kept, &transfer->node);
}

/* ---- callbacks of libcurl: they must not raise, palloc or log ---- */

static int
watch_socket(CURL *easy, curl_socket_t fd, int what, void *pool,
			 void *was_watched)
{
	struct epoll_event event = {0};

	if (what == CURL_POLL_REMOVE)
	{
		(void) epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, &event);
		return 0;
	}
	if (what & CURL_POLL_IN)
		event.events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		event.events |= EPOLLOUT;
	event.data.u64 = (uint32) fd;
	if (was_watched == NULL)
		curl_multi_assign(((Pool *) pool)->multi, fd, pool);
	if (epoll_ctl(epoll_fd, was_watched == NULL ? EPOLL_CTL_ADD : EPOLL_CTL_MOD,
				  fd, &event) < 0 &&
		epoll_ctl(epoll_fd, was_watched == NULL ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
				  fd, &event) < 0)
		return -1;
	return 0;
}

static int
set_timer(CURLM *multi, long timeout_ms, void *pool)
{
	((Pool *) pool)->timer_at = timeout_ms < 0 ? PG_INT64_MAX :
		jq_clock_ms() + timeout_ms;
	return 0;
}

static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	JqHttpTransfer *transfer = (JqHttpTransfer *) arg;

	transfer->is_resolved = true;
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
		return length;
	}
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

void
jq_http_transfer_read(JqHttpTransfer *transfer, JqHttpResponse *response)
{
	CURL	   *easy = transfer->easy;
	long		value = 0;
	char	   *text = NULL;

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
		curl_easy_getinfo(easy, CURLINFO_REDIRECT_URL, &text);
		response->redirect_url = text;
	}
	curl_easy_getinfo(easy, CURLINFO_HTTP_VERSION, &value);
	response->version = value == CURL_HTTP_VERSION_1_0 ? 10 :
		value == CURL_HTTP_VERSION_1_1 ? 11 :
		value == CURL_HTTP_VERSION_2_0 ? 20 : value == CURL_HTTP_VERSION_3 ? 30 : 0;
	value = 0;
	curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &value);
	response->is_reused = value == 0 && response->end == JQ_HTTP_ANSWERED;
	text = NULL;
	curl_easy_getinfo(easy, CURLINFO_PRIMARY_IP, &text);
	response->address = text == NULL ? "" : text;
	value = 0;
	curl_easy_getinfo(easy, CURLINFO_PRIMARY_PORT, &value);
	response->port = (int) value;
	response->dns_us = time_of(transfer, CURLINFO_NAMELOOKUP_TIME_T);
	response->connect_us = time_of(transfer, CURLINFO_CONNECT_TIME_T);
	response->tls_us = time_of(transfer, CURLINFO_APPCONNECT_TIME_T);
	response->first_byte_us = time_of(transfer, CURLINFO_STARTTRANSFER_TIME_T);
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

	if (!transfer->is_resolved &&
		time_of(transfer, CURLINFO_NAMELOOKUP_TIME_T) == 0)
		return "timed out while resolving the name of the host";
	/* The time of the connection is not set before TLS is done (7.88). */
	curl_easy_getinfo(transfer->easy, CURLINFO_PRIMARY_IP, &address);
	if (address == NULL || address[0] == '\0')
		return "timed out while connecting";
	if (time_of(transfer, CURLINFO_PRETRANSFER_TIME_T) == 0)
		return "timed out in the TLS handshake";
	if (time_of(transfer, CURLINFO_STARTTRANSFER_TIME_T) == 0)
		return "timed out while waiting for the answer";
	return "timed out while receiving the answer";
}
