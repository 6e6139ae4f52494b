/*-------------------------------------------------------------------------
 *
 * client.c
 *	  HTTP requests, many at once, through libcurl.
 *
 * libcurl tells which sockets to watch and when it wants to be called; the
 * sockets are in an epoll set of our own, which is one descriptor to whoever
 * waits.
 *
 * Where requests may go is decided when a connection is made.  One that is
 * open already was judged by the settings of then: when they change, the
 * handle with all its connections is left to the transfers that use it, and
 * new ones get another.
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
#include "http/transfer.h"

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
#define MAX_EVENTS 128			/* of one pass */
#define SPARE_FDS 64			/* beside sockets and PostgreSQL's files */

/* One of libcurl's handles for many transfers, with its connections. */
typedef struct JqHttpPool
{
	dlist_node	node;			/* in pools; the first is the current one */
	CURLM	   *multi;
	int			transfers;		/* that use it */
	int64		timer_at;		/* by jq_clock_ms(); PG_INT64_MAX: none */
} JqHttpPool;

static int	epoll_fd = -1;
static int	max_transfers = INT_MAX;	/* by the limit of open files */
static dlist_head pools = DLIST_STATIC_INIT(pools);
static dlist_head ended = DLIST_STATIC_INIT(ended);
static MemoryContext client_context = NULL;

static void raise_fd_limit(void);
static void block_signals(sigset_t *before);
static void restore_signals(const sigset_t *before);
static JqHttpPool *open_pool(void);
static void close_idle_pools(void);
static void close_client(int code, Datum arg);
static void run_sockets(bool *is_full);
static void run_timers(void);
static void collect_ended(JqHttpPool *pool);
static void detach(JqHttpTransfer *transfer);
static int	watch_socket(CURL *easy, curl_socket_t fd, int what,
						 void *pool, void *was_watched);
static int	set_timer(CURLM *multi, long timeout_ms, void *pool);

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
	JqHttpPool *pool;

	jq_transfer_apply_settings();
	raise_fd_limit();
	pool = open_pool();
	if (pool == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not create a libcurl handle")));
	dlist_push_head(&pools, &pool->node);
	close_idle_pools();
}

static JqHttpPool *
open_pool(void)
{
	JqHttpPool *pool = calloc(1, sizeof(JqHttpPool));
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
		JqHttpPool *pool = dlist_container(JqHttpPool, node, iter.cur);

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
	JqHttpPool *pool = dlist_head_element(JqHttpPool, node, &pools);
	JqHttpTransfer *transfer = jq_transfer_new();

	if (transfer == NULL)
		return NULL;
	transfer->owner = owner;
	if (!jq_transfer_prepare(transfer, request))
	{
		jq_transfer_forget(transfer);
		return NULL;
	}
	/* It begins, and with it perhaps a thread, when libcurl is run. */
	if (curl_multi_add_handle(pool->multi, transfer->easy) != CURLM_OK)
	{
		jq_transfer_forget(transfer);
		return NULL;
	}
	transfer->pool = pool;
	pool->transfers++;
	return transfer;
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
		first = Min(first, dlist_container(JqHttpPool, node, iter.cur)->timer_at);
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
		collect_ended(dlist_container(JqHttpPool, node, iter.cur));
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
			JqHttpPool *pool = dlist_container(JqHttpPool, node, iter.cur);

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
		JqHttpPool *pool = dlist_container(JqHttpPool, node, iter.cur);

		if (pool->timer_at > now)
			continue;
		pool->timer_at = PG_INT64_MAX;
		curl_multi_socket_action(pool->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
}

/* Signals must be blocked. */
static void
collect_ended(JqHttpPool *pool)
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
	jq_transfer_forget(transfer);
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
		curl_multi_assign(((JqHttpPool *) pool)->multi, fd, pool);
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
	((JqHttpPool *) pool)->timer_at = timeout_ms < 0 ? PG_INT64_MAX :
		jq_clock_ms() + timeout_ms;
	return 0;
}
