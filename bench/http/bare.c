/*
 * bare.c
 *		The least that HTTP requests can cost with libcurl: nothing is claimed,
 *		recorded or retried.
 *
 *		bare URL REQUESTS CONCURRENCY [CA_FILE]
 *
 * Sends so many POSTs with a JSON body of 200 bytes, so many at a time, over
 * kept connections, reads the answers and throws them away. One thread, epoll
 * and curl_multi_socket_action; the handles are made once. The answers are
 * expected to be 200 or 204.
 *
 * Prints: requests per second, CPU seconds of this process, CPU microseconds
 * per request, p50 and p99 of a request in milliseconds, connections made;
 * separated by commas.
 */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define BODY_SIZE 200
#define MAX_EVENTS 256

static CURLM *multi;
static int	epoll_fd;
static double timer_at = -1;	/* when curl wants to be called; -1: it does not */

static double *started;			/* by handle */
static double *latencies;		/* by request */
static long requests;
static long sent;
static long answered;
static long connections;

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void
give_up(const char *what, const char *why)
{
	fprintf(stderr, "bare: %s: %s\n", what, why);
	exit(1);
}

/* ---- callbacks of curl ---- */

static int
watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct epoll_event event = {0};

	(void) easy;
	(void) arg;
	if (what == CURL_POLL_REMOVE)
	{
		/* It may be closed already, which has removed it. */
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, &event);
		curl_multi_assign(multi, fd, NULL);
		return 0;
	}
	event.events = ((what & CURL_POLL_IN) ? EPOLLIN : 0) | ((what & CURL_POLL_OUT) ? EPOLLOUT : 0);
	event.data.fd = fd;
	if (epoll_ctl(epoll_fd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) != 0)
		give_up("epoll_ctl", strerror(errno));
	if (!known)
		curl_multi_assign(multi, fd, &epoll_fd);
	return 0;
}

static int
set_timer(CURLM *handle, long timeout_ms, void *arg)
{
	(void) handle;
	(void) arg;
	timer_at = timeout_ms < 0 ? -1 : now() + timeout_ms / 1e3;
	return 0;
}

static size_t
throw_away(char *data, size_t size, size_t nmemb, void *arg)
{
	(void) data;
	(void) arg;
	return size * nmemb;
}

/* ---- requests ---- */

static void
send_request(CURL *easy)
{
	double	   *start;

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &start);
	*start = now();
	sent++;
	if (curl_multi_add_handle(multi, easy) != CURLM_OK)
		give_up("curl_multi_add_handle", "failed");
}

/* Counts what has ended and sends what is left in its place. */
static void
collect_answers(void)
{
	CURLMsg    *message;
	int			left;

	while ((message = curl_multi_info_read(multi, &left)) != NULL)
	{
		CURL	   *easy = message->easy_handle;
		double	   *start;
		long		status = 0;
		long		made = 0;

		if (message->data.result != CURLE_OK)
			give_up("request", curl_easy_strerror(message->data.result));
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		if (status != 200 && status != 204)
			give_up("request", "an unexpected status");
		curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &made);
		connections += made;
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &start);
		latencies[answered++] = now() - *start;
		curl_multi_remove_handle(multi, easy);
		if (sent < requests)
			send_request(easy);
	}
}

static void
run(void)
{
	struct epoll_event events[MAX_EVENTS];
	int			running;

	while (answered < requests)
	{
		int			timeout_ms = -1;
		int			nevents;

		if (timer_at >= 0)
		{
			double		wait = (timer_at - now()) * 1e3;

			timeout_ms = wait <= 0 ? 0 : (int) wait + 1;
		}
		nevents = epoll_wait(epoll_fd, events, MAX_EVENTS, timeout_ms);
		for (int i = 0; i < nevents; i++)
		{
			int			what = 0;

			if (events[i].events & EPOLLIN)
				what |= CURL_CSELECT_IN;
			if (events[i].events & EPOLLOUT)
				what |= CURL_CSELECT_OUT;
			if (events[i].events & (EPOLLERR | EPOLLHUP))
				what |= CURL_CSELECT_ERR;
			curl_multi_socket_action(multi, events[i].data.fd, what, &running);
		}
		if (timer_at >= 0 && now() >= timer_at)
		{
			timer_at = -1;
			curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
		}
		collect_answers();
	}
}

static CURL *
make_handle(const char *url, const char *ca_file, const char *body, struct curl_slist *headers, double *start)
{
	CURL	   *easy = curl_easy_init();

	if (easy == NULL)
		give_up("curl_easy_init", "out of memory");
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long) BODY_SIZE);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, throw_away);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, start);
	if (ca_file)
	{
		curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
		curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L);
	}
	return easy;
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

static double
cpu_seconds(void)
{
	struct rusage used;

	getrusage(RUSAGE_SELF, &used);
	return used.ru_utime.tv_sec + used.ru_stime.tv_sec +
		(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

int
main(int argc, char **argv)
{
	char		body[BODY_SIZE + 1];
	struct curl_slist *headers = NULL;
	CURL	  **handles;
	long		concurrency;
	double		begin;
	double		elapsed;
	double		cpu;

	if (argc < 4 || (requests = atol(argv[2])) < 1 || (concurrency = atol(argv[3])) < 1)
	{
		fprintf(stderr, "usage: bare URL REQUESTS CONCURRENCY [CA_FILE]\n");
		return 2;
	}
	if (concurrency > requests)
		concurrency = requests;

	/* {"to": "someone@example.com", "text": "xxx..."} */
	memset(body, 'x', BODY_SIZE);
	memcpy(body, "{\"to\": \"someone@example.com\", \"text\": \"", 39);
	memcpy(body + BODY_SIZE - 2, "\"}", 3);

	epoll_fd = epoll_create1(0);
	curl_global_init(CURL_GLOBAL_ALL);
	multi = curl_multi_init();
	headers = curl_slist_append(headers, "Content-Type: application/json");
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, concurrency);

	handles = calloc(concurrency, sizeof(*handles));
	started = calloc(concurrency, sizeof(*started));
	latencies = calloc(requests, sizeof(*latencies));
	for (long i = 0; i < concurrency; i++)
		handles[i] = make_handle(argv[1], argc > 4 ? argv[4] : NULL, body, headers, &started[i]);

	cpu = cpu_seconds();
	begin = now();
	for (long i = 0; i < concurrency; i++)
		send_request(handles[i]);
	run();
	elapsed = now() - begin;
	cpu = cpu_seconds() - cpu;

	qsort(latencies, requests, sizeof(*latencies), compare);
	printf("%.1f,%.3f,%.2f,%.3f,%.3f,%ld\n", requests / elapsed, cpu, cpu * 1e6 / requests,
		   latencies[requests / 2] * 1e3, latencies[requests * 99 / 100] * 1e3, connections);
	return 0;
}
