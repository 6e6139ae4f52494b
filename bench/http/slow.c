/*
 * slow.c
 *		An HTTP server that answers each request after a while.
 *
 *		slow DELAY_MS [LOG_FILE]
 *
 * Listens on a free port of 127.0.0.1, which it prints, and answers every
 * request with 200 and an empty JSON object so many milliseconds after the
 * request was complete, however many there are. Reads bodies with a
 * Content-Length, and keeps connections.
 *
 * With LOG_FILE each request leaves a line there before it is answered: when it
 * was complete, in microseconds since 1970, and its body.
 *
 * At SIGTERM it prints how many requests it has answered, and how many it had
 * open at the same time at most, and ends.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_FDS 65536
#define BUFFER_SIZE 16384		/* of a request with its body */
#define MAX_EVENTS 256

static const char answer[] =
"HTTP/1.1 200 OK\r\n"
"Content-Type: application/json\r\n"
"Content-Length: 2\r\n"
"\r\n"
"{}";

typedef struct Connection
{
	char		buffer[BUFFER_SIZE];
	size_t		used;
	unsigned	generation;		/* of the connections with this descriptor */
} Connection;

/* A request that waits for its answer. All wait equally long: first come, first served. */
typedef struct Waiting
{
	int			fd;
	unsigned	generation;
	long long	due;			/* ns */
} Waiting;

static Connection *connections[MAX_FDS];
static unsigned generations[MAX_FDS];

static Waiting *queue;			/* a ring */
static size_t queue_size = 1024;
static size_t queue_first;
static size_t queue_used;

static int	epoll_fd;
static int	timer_fd;
static long long delay;			/* ns */
static FILE *log_file;
static long answered;
static size_t most_waiting;

static void
give_up(const char *what)
{
	perror(what);
	exit(1);
}

static long long
clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void
watch(int fd)
{
	struct epoll_event event = {.events = EPOLLIN,.data.fd = fd};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		give_up("epoll_ctl");
}

static void
drop(int fd)
{
	free(connections[fd]);
	connections[fd] = NULL;
	generations[fd]++;
	close(fd);
}

/* Small enough for any socket's buffer. */
static void
send_answer(int fd)
{
	answered++;
	if (send(fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL) != sizeof(answer) - 1)
		drop(fd);
}

/* ---- requests that wait ---- */

static void
set_timer(void)
{
	struct itimerspec at = {0};

	if (queue_used > 0)
	{
		at.it_value.tv_sec = queue[queue_first].due / 1000000000;
		at.it_value.tv_nsec = queue[queue_first].due % 1000000000;
	}
	timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static void
grow_queue(void)
{
	Waiting    *bigger = malloc(2 * queue_size * sizeof(Waiting));

	for (size_t i = 0; i < queue_used; i++)
		bigger[i] = queue[(queue_first + i) % queue_size];
	free(queue);
	queue = bigger;
	queue_first = 0;
	queue_size *= 2;
}

static void
answer_later(int fd)
{
	if (queue_used == queue_size)
		grow_queue();
	queue[(queue_first + queue_used++) % queue_size] =
		(Waiting) {fd, generations[fd], clock_ns(CLOCK_MONOTONIC) + delay};
	if (queue_used > most_waiting)
		most_waiting = queue_used;
	if (queue_used == 1)
		set_timer();
}

static void
answer_due(void)
{
	long long	now = clock_ns(CLOCK_MONOTONIC);
	unsigned long long expired;

	if (read(timer_fd, &expired, sizeof(expired)) < 0 && errno != EAGAIN)
		give_up("read");
	while (queue_used > 0 && queue[queue_first].due <= now)
	{
		Waiting		ready = queue[queue_first];

		queue_first = (queue_first + 1) % queue_size;
		queue_used--;
		if (connections[ready.fd] && generations[ready.fd] == ready.generation)
			send_answer(ready.fd);
	}
	set_timer();
}

/* ---- reading ---- */

/* Length of the first request in the buffer; 0: it is not complete. */
static size_t
request_length(const Connection *conn, const char **body)
{
	const char *end = memmem(conn->buffer, conn->used, "\r\n\r\n", 4);
	const char *line;
	size_t		length;

	if (end == NULL)
		return 0;
	*body = end + 4;
	length = *body - conn->buffer;
	for (line = conn->buffer; line < end; line = (char *) memchr(line, '\n', *body - line) + 1)
		if (strncasecmp(line, "content-length:", 15) == 0)
			length += strtoul(line + 15, NULL, 10);
	return length <= conn->used ? length : 0;
}

static void
take_requests(int fd, Connection *conn)
{
	const char *body;
	size_t		length;

	while ((length = request_length(conn, &body)) > 0)
	{
		if (log_file)
			fprintf(log_file, "%lld\t%.*s\n", clock_ns(CLOCK_REALTIME) / 1000,
					(int) (conn->buffer + length - body), body);
		conn->used -= length;
		memmove(conn->buffer, conn->buffer + length, conn->used);
		if (delay > 0)
			answer_later(fd);
		else
			send_answer(fd);
		if (connections[fd] == NULL)
			return;
	}
}

static void
read_from(int fd)
{
	Connection *conn = connections[fd];
	ssize_t		got = recv(fd, conn->buffer + conn->used, BUFFER_SIZE - 1 - conn->used, 0);

	if (got > 0)
	{
		conn->used += got;
		conn->buffer[conn->used] = '\0';
		take_requests(fd, conn);
	}
	else if (got == 0 || (errno != EAGAIN && errno != EINTR))
		drop(fd);
}

static void
accept_from(int listener)
{
	int			fd;
	int			on = 1;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
	{
		if (fd >= MAX_FDS || (connections[fd] = calloc(1, sizeof(Connection))) == NULL)
		{
			close(fd);
			continue;
		}
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		watch(fd);
	}
}

/* ---- the server ---- */

static int
listen_somewhere(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET,.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	length = sizeof(address);
	int			fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *) &address, length) != 0 || listen(fd, 4096) != 0)
		give_up("listen");
	getsockname(fd, (struct sockaddr *) &address, &length);
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	return fd;
}

static int
catch_signals(void)
{
	sigset_t	signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	return signalfd(-1, &signals, 0);
}

static void
allow_descriptors(void)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

int
main(int argc, char **argv)
{
	struct epoll_event events[MAX_EVENTS];
	int			listener;
	int			signal_fd;

	if (argc < 2)
	{
		fprintf(stderr, "usage: slow DELAY_MS [LOG_FILE]\n");
		return 2;
	}
	delay = atoll(argv[1]) * 1000000;
	if (argc > 2 && (log_file = fopen(argv[2], "w")) == NULL)
		give_up(argv[2]);
	if (log_file)
		setvbuf(log_file, NULL, _IOLBF, 0);
	allow_descriptors();
	queue = malloc(queue_size * sizeof(Waiting));
	signal_fd = catch_signals();
	epoll_fd = epoll_create1(0);
	timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	listener = listen_somewhere();
	watch(listener);
	watch(timer_fd);
	watch(signal_fd);

	for (;;)
	{
		int			nevents = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);

		for (int i = 0; i < nevents; i++)
		{
			int			fd = events[i].data.fd;

			if (fd == listener)
				accept_from(listener);
			else if (fd == timer_fd)
				answer_due();
			else if (fd == signal_fd)
			{
				printf("%ld,%zu\n", answered, most_waiting);
				return 0;
			}
			else if (connections[fd])
				read_from(fd);
		}
	}
}
