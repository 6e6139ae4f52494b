/*-------------------------------------------------------------------------
 *
 * server.c
 *	  An HTTP server for a few clients, through libmicrohttpd.
 *
 * libmicrohttpd parses requests and sends answers.  Its callbacks run inside
 * of it: they use malloc, never raise, and only collect a request, suspend its
 * connection and put it into a queue.  Whoever takes it from there does so
 * between two calls of the library, and resumes the connection.
 *
 * The library knows idle clients, but not slow ones: so each connection has a
 * deadline of ours, for the whole request and then for the whole answer, and
 * its socket is shut down when that is over.  When all connections are in use
 * and more clients knock, those who have sent no request for a moment give
 * way: who fills all places with slow clients delays others by that moment.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/server.h"

#include "base/clock.h"
#include "http/receive.h"
#include "lib/ilist.h"
#include "storage/fd.h"
#include "storage/ipc.h"

#if MHD_VERSION < 0x00097500
#error "jobqueue needs libmicrohttpd 0.9.75 or later"
#endif

#define MAX_CONNECTIONS 64
#define BACKLOG 128
#define MAX_HEADERS (32 * 1024) /* the memory that one connection may use */
#define READ_MS 5000			/* for a request, and between two of them */
#define WRITE_MS 10000			/* for an answer */
#define CROWDED_READ_MS 500		/* for a request, while others knock */
#define CROWDED_WAIT_MS 100		/* between two looks at whether they do */
#define MAX_PASSES 64			/* of the library, before anything else */

static struct MHD_Daemon *server = NULL;
static int	listen_fd = -1;
static int	epoll_fd = -1;
static int	nconnections = 0;
static int64 taken_at = 0;		/* the call that is being answered */
static bool has_room_again = false; /* since the library was run */
static dlist_head connections = DLIST_STATIC_INIT(connections);
static dlist_head waiting = DLIST_STATIC_INIT(waiting);

static const char *open_socket(const char *address, int port);
static const char *start_library(void);
static void close_server(int code, Datum arg);
static bool has_more(void);
static void close_overdue(void);
static void cut_off(JqHttpConnection *connection);
static bool somebody_knocks(void);
static void put_off_deadlines(int64 ms);
static struct MHD_Response *make_response(const JqHttpAnswer *answer);
static void panic(void *cls, const char *file, unsigned int line,
				  const char *reason);
static void notify_connection(void *cls, struct MHD_Connection *mhd,
							  void **context,
							  enum MHD_ConnectionNotificationCode code);
static void notify_completed(void *cls, struct MHD_Connection *mhd,
							 void **context,
							 enum MHD_RequestTerminationCode code);
static void note_client(JqHttpConnection *connection);
static void set_deadline(JqHttpConnection *connection, bool is_writing);

const char *
jq_http_server_start(const char *address, int port)
{
	const char *problem;

	Assert(server == NULL);
	problem = open_socket(address, port);
	if (problem == NULL)
		problem = start_library();
	if (problem != NULL)
	{
		if (listen_fd >= 0)
			close(listen_fd);
		listen_fd = -1;
		return problem;
	}
	/* The listening socket, and two that the library has for itself. */
	for (int i = 0; i < 3; i++)
		(void) AcquireExternalFD();
	before_shmem_exit(close_server, (Datum) 0);
	return NULL;
}

static const char *
open_socket(const char *address, int port)
{
	struct sockaddr_storage name = {0};
	struct sockaddr_in *name4 = (struct sockaddr_in *) &name;
	struct sockaddr_in6 *name6 = (struct sockaddr_in6 *) &name;
	socklen_t	size;
	int			yes = 1;

	if (inet_pton(AF_INET, address, &name4->sin_addr) == 1)
	{
		name4->sin_family = AF_INET;
		name4->sin_port = htons((uint16) port);
		size = sizeof(*name4);
	}
	else if (inet_pton(AF_INET6, address, &name6->sin6_addr) == 1)
	{
		name6->sin6_family = AF_INET6;
		name6->sin6_port = htons((uint16) port);
		size = sizeof(*name6);
	}
	else
		return pstrdup("its address is not numeric");

	listen_fd = socket(name.ss_family,
					   SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listen_fd < 0)
		return psprintf("could not create a socket: %m");
	if (setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &yes,
				   sizeof(yes)) != 0 ||
		(name.ss_family == AF_INET6 &&
		 setsockopt(listen_fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes,
					sizeof(yes)) != 0))
		return psprintf("could not prepare its socket: %m");
	if (bind(listen_fd, (struct sockaddr *) &name, size) != 0 ||
		listen(listen_fd, BACKLOG) != 0)
		return psprintf("%m");
	return NULL;
}

/* Its own timeouts are off: ours are stricter. */
static const char *
start_library(void)
{
	const union MHD_DaemonInfo *info;

	MHD_set_panic_func(panic, NULL);
	server = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME,
							  0, NULL, NULL, jq_http_receive, &waiting,
							  MHD_OPTION_LISTEN_SOCKET, listen_fd,
							  MHD_OPTION_CONNECTION_LIMIT,
							  (unsigned int) MAX_CONNECTIONS,
							  MHD_OPTION_CONNECTION_MEMORY_LIMIT,
							  (size_t) MAX_HEADERS,
							  MHD_OPTION_CONNECTION_TIMEOUT, 0U,
							  MHD_OPTION_STRICT_FOR_CLIENT, 1,
							  MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
							  MHD_OPTION_NOTIFY_CONNECTION,
							  notify_connection, NULL,
							  MHD_OPTION_NOTIFY_COMPLETED,
							  notify_completed, NULL,
							  MHD_OPTION_URI_LOG_CALLBACK,
							  jq_http_receive_target, NULL,
							  MHD_OPTION_UNESCAPE_CALLBACK,
							  jq_http_receive_escaped, NULL,
							  MHD_OPTION_END);
	if (server == NULL)
		return pstrdup("could not start libmicrohttpd");
	info = MHD_get_daemon_info(server, MHD_DAEMON_INFO_EPOLL_FD);
	epoll_fd = info->epoll_fd;
	return NULL;
}

/*
 * The process is about to end.  The library is not told, because it could ask
 * of us what a callback must not do; the system closes the connections.
 */
static void
close_server(int code, Datum arg)
{
	if (listen_fd >= 0)
		close(listen_fd);
	listen_fd = -1;
}

/* What would be abort(), and so a restart of the whole server. */
static void
panic(void *cls, const char *file, unsigned int line, const char *reason)
{
	write_stderr("libmicrohttpd gave up: %s\n",
				 reason == NULL ? "no reason" : reason);
	proc_exit(1);
}

int
jq_http_server_fd(void)
{
	return epoll_fd;
}

long
jq_http_server_wait_ms(void)
{
	int64		now = jq_clock_ms();
	int64		first = PG_INT64_MAX;
	dlist_iter	iter;

	if (has_more())
		return 0;
	dlist_foreach(iter, &connections)
		first = Min(first,
					dlist_container(JqHttpConnection, node, iter.cur)->deadline);
	if (nconnections >= MAX_CONNECTIONS)
		first = Min(first, now + CROWDED_WAIT_MS);
	return first == PG_INT64_MAX ? -1 : (long) Max(first - now, 0);
}

void
jq_http_server_run(void)
{
	int			passes = 0;

	do
	{
		has_room_again = false;
		(void) MHD_run(server);
	} while (has_more() && ++passes < MAX_PASSES);

	/* Not before what they have sent was read. */
	close_overdue();
}

/*
 * Whether the library has something to do that its descriptor does not show:
 * it looks for new clients only when it is run with room for them.
 */
static bool
has_more(void)
{
	MHD_UNSIGNED_LONG_LONG timeout;

	return has_room_again ||
		(MHD_get_timeout(server, &timeout) == MHD_YES && timeout == 0);
}

/* The library notices that their sockets are closed. */
static void
close_overdue(void)
{
	int64		now = jq_clock_ms();
	bool		is_crowded = somebody_knocks();
	dlist_iter	iter;

	dlist_foreach(iter, &connections)
	{
		JqHttpConnection *connection = dlist_container(JqHttpConnection, node, iter.cur);

		if (connection->deadline == PG_INT64_MAX)
			continue;
		if (now >= connection->deadline ||
			(is_crowded && !connection->is_writing &&
			 now >= connection->since + CROWDED_READ_MS))
			cut_off(connection);
	}
}

/* What the client has not taken is dropped: the kernel need not keep it. */
static void
cut_off(JqHttpConnection *connection)
{
	struct linger none = {.l_onoff = 1,.l_linger = 0};

	if (connection->is_writing)
		(void) setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &none,
						  sizeof(none));
	(void) shutdown(connection->fd, SHUT_RDWR);
	connection->deadline = PG_INT64_MAX;
}

/* Whether a client waits for a place. */
static bool
somebody_knocks(void)
{
	struct pollfd door = {.fd = listen_fd,.events = POLLIN};

	return nconnections >= MAX_CONNECTIONS && poll(&door, 1, 0) > 0;
}

JqHttpCall *
jq_http_server_next(void)
{
	if (dlist_is_empty(&waiting))
		return NULL;
	taken_at = jq_clock_ms();
	return &dlist_head_element(JqHttpConnection, waiting_node, &waiting)->call;
}

void
jq_http_server_answer(JqHttpCall *call, const JqHttpAnswer *answer)
{
	JqHttpConnection *connection = (JqHttpConnection *)
	((char *) call - offsetof(JqHttpConnection, call));

	Assert(connection->state == JQ_CALL_WAITING);
	dlist_delete(&connection->waiting_node);
	put_off_deadlines(jq_clock_ms() - taken_at);
	connection->status = answer->status;
	connection->response = make_response(answer);
	connection->state = connection->response == NULL ? JQ_CALL_LOST :
		JQ_CALL_ANSWERED;
	set_deadline(connection, true);
	MHD_resume_connection(connection->mhd);
}

/* Nobody is to blame for the time that an answer took us. */
static void
put_off_deadlines(int64 ms)
{
	dlist_iter	iter;

	dlist_foreach(iter, &connections)
	{
		JqHttpConnection *connection = dlist_container(JqHttpConnection, node, iter.cur);

		connection->since += ms;
		if (connection->deadline != PG_INT64_MAX)
			connection->deadline += ms;
	}
}

/* NULL: out of memory. */
static struct MHD_Response *
make_response(const JqHttpAnswer *answer)
{
	struct MHD_Response *response;
	bool		is_complete;

	response = MHD_create_response_from_buffer(answer->body_size,
											   unconstify(char *, answer->body),
											   MHD_RESPMEM_MUST_COPY);
	if (response == NULL)
		return NULL;

#define ADD(name, value) \
	((value) == NULL || MHD_add_response_header(response, name, value) == MHD_YES)

	is_complete = ADD("Content-Type", answer->content_type) &&
		ADD("Content-Security-Policy", answer->policy) &&
		ADD("Cache-Control", "no-store") &&
		ADD("X-Content-Type-Options", "nosniff") &&
		ADD("X-Frame-Options", "DENY") &&
		ADD("Referrer-Policy", "no-referrer") &&
		ADD("Cross-Origin-Opener-Policy", "same-origin") &&
		ADD("Cross-Origin-Resource-Policy", "same-origin") &&
		ADD("Allow", answer->allow) &&
		ADD("WWW-Authenticate", answer->wants_token ?
			"Bearer realm=\"jobqueue\"" : NULL);
#undef ADD

	if (is_complete)
		return response;
	MHD_destroy_response(response);
	return NULL;
}

/* ---- callbacks of the library ---- */

static void
notify_connection(void *cls, struct MHD_Connection *mhd, void **context,
				  enum MHD_ConnectionNotificationCode code)
{
	JqHttpConnection *connection = (JqHttpConnection *) *context;
	const union MHD_ConnectionInfo *info;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED)
	{
		if (connection == NULL)
			return;
		*context = NULL;
		has_room_again |= nconnections-- >= MAX_CONNECTIONS;
		if (connection->state == JQ_CALL_WAITING)
			dlist_delete(&connection->waiting_node);
		dlist_delete(&connection->node);
		jq_http_call_forget(connection);
		free(connection);
		return;
	}

	info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
	connection = calloc(1, sizeof(JqHttpConnection));
	*context = connection;
	if (connection == NULL)
	{
		(void) shutdown(info->connect_fd, SHUT_RDWR);
		return;
	}
	connection->mhd = mhd;
	connection->fd = info->connect_fd;
	note_client(connection);
	set_deadline(connection, false);
	dlist_push_tail(&connections, &connection->node);
	nconnections++;
}

static void
note_client(JqHttpConnection *connection)
{
	const union MHD_ConnectionInfo *info =
	MHD_get_connection_info(connection->mhd,
							MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	const struct sockaddr *name = info == NULL ? NULL : info->client_addr;
	const void *address = NULL;

	if (name != NULL && name->sa_family == AF_INET)
		address = &((const struct sockaddr_in *) name)->sin_addr;
	else if (name != NULL && name->sa_family == AF_INET6)
		address = &((const struct sockaddr_in6 *) name)->sin6_addr;
	if (address == NULL ||
		inet_ntop(name->sa_family, address, connection->client,
				  sizeof(connection->client)) == NULL)
		connection->client[0] = '\0';
}

static void
set_deadline(JqHttpConnection *connection, bool is_writing)
{
	connection->since = jq_clock_ms();
	connection->is_writing = is_writing;
	connection->deadline = connection->since +
		(is_writing ? WRITE_MS : READ_MS);
}

/* The answer has gone out, or the client has. */
static void
notify_completed(void *cls, struct MHD_Connection *mhd, void **context,
				 enum MHD_RequestTerminationCode code)
{
	JqHttpConnection *connection = jq_http_connection_of(mhd);

	*context = NULL;
	if (connection == NULL || connection->state == JQ_CALL_WAITING)
		return;
	jq_http_call_forget(connection);
	set_deadline(connection, false);
}
