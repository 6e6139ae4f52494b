/*-------------------------------------------------------------------------
 *
 * endpoint_health.h
 *	  How the servers do that HTTP jobs go to: counters in shared memory.
 *
 *	  There is an entry for each endpoint of a database that was used, and for
 *	  each origin that jobs name themselves, as far as there is room.  They
 *	  count from the start of the server, or since they were reset, and can
 *	  be lost for want of room: nothing may depend on them.
 *
 *	  Without preloading, or with jobqueue.max_endpoint_stats = 0, nothing is
 *	  counted and every function does nothing.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_ENDPOINT_HEALTH_H
#define JQ_ENDPOINT_HEALTH_H

#include "postgres.h"

#include "base/config.h"
#include "datatype/timestamp.h"

/* Longest key, the terminator included; longer ones are clipped. */
#define JQ_HEALTH_KEY_SIZE 280
#define JQ_HEALTH_ERROR_SIZE 96

/* Times that are counted together: up to a bound, or above the last one. */
#define JQ_HEALTH_BOUNDS 33
#define JQ_HEALTH_BUCKETS (JQ_HEALTH_BOUNDS + 1)

/* Why there was no answer. */
typedef enum JqHealthFailure
{
	JQ_HEALTH_ANSWERED,			/* there was one: status is set */
	JQ_HEALTH_TIMED_OUT,
	JQ_HEALTH_NOT_CONNECTED,	/* no address, refused, reset, cut short */
	JQ_HEALTH_TLS_FAILED,
	JQ_HEALTH_NOT_ALLOWED,		/* by the settings or by checks before it */
	JQ_HEALTH_OTHER
} JqHealthFailure;

/*
 * How a request ended.  Times are in microseconds since its start, 0 for a
 * phase that it did not reach.
 */
typedef struct JqHealthEvent
{
	bool		succeeded;
	bool		was_aborted;	/* by us: neither a success nor a failure */
	int			status;			/* 0: none */
	JqHealthFailure failure;
	const char *reason;			/* of a failure, else NULL: constant text,
								 * never of a response or a URL */
	int64		dns_us;
	int64		connect_us;
	int64		tls_us;
	int64		first_byte_us;
	int64		total_us;
	int64		bytes;			/* of the response's body */
	bool		was_reused;		/* the connection was there before */
} JqHealthEvent;

/* A request that was not sent, because of what it is; and one given up. */
extern const JqHealthEvent jq_health_not_sent;
extern const JqHealthEvent jq_health_aborted;

/* What is known of one endpoint or origin. */
typedef struct JqHealth
{
	bool		is_endpoint;
	char		key[JQ_HEALTH_KEY_SIZE];
	int			in_flight;
	int			in_flight_of[JQ_MAX_DISPATCHERS];
	bool		is_contended;	/* a dispatcher found no place */
	int			last_status;	/* 0: the last request had no answer */
	char		last_error[JQ_HEALTH_ERROR_SIZE];	/* "": none yet */
	int64		requests;		/* started */
	int64		succeeded;
	int64		failed;
	int64		aborted;
	int64		by_class[6];	/* status / 100; [0] is unused */
	int64		too_many;		/* status 429, also among 4xx */
	int64		unanswered[JQ_HEALTH_OTHER + 1];	/* by JqHealthFailure */
	int64		bytes;
	int64		reused;
	int64		consecutive_failures;
	TimestampTz last_used_at;
	TimestampTz last_success_at;	/* 0: never */
	TimestampTz last_failure_at;
	int64		timed;			/* requests in the next fields */
	int64		total_us;
	int64		slowest_us;
	int64		buckets[JQ_HEALTH_BUCKETS];
} JqHealth;

/* The upper bounds of the buckets, ascending. */
extern const int64 jq_health_bounds_us[JQ_HEALTH_BOUNDS];

/* Asks for the shared memory; once, while preloading. */
extern void jq_health_init(void);

/*
 * Dispatchers count here what is under way, so that those of a database
 * respect a limit together.  Each first says which one it is, from 0; what was
 * under way in one of that number before, and when this one ends, is no more.
 */
extern void jq_health_attach(int dispatcher);

/* jobqueue.max_dispatchers; 1 without counters that they could share. */
extern int	jq_health_max_dispatchers(void);

/*
 * A request of this database to an endpoint (its name) or an origin
 * ("https://host:port") starts, unless "limit" of them are under way: then
 * false.  Where there is no room for an entry only the first dispatcher may,
 * which knows its own.
 */
extern bool jq_health_start(const char *key, bool is_endpoint, int limit,
							TimestampTz now);

/* And ends.  Returns whether somebody was refused a place meanwhile. */
extern bool jq_health_end(const char *key, bool is_endpoint,
						  const JqHealthEvent *event);

/* The entries of this database, palloc'd; returns how many. */
extern int	jq_health_list(JqHealth **entries);

/*
 * Forgets what was counted in this database for a key of either kind, or all
 * (NULL), but not what is in flight.  Returns how many entries that were.
 */
extern int	jq_health_reset(const char *key);

/* The time that this part (0 to 1) of the requests did not exceed; -1: none. */
extern double jq_health_quantile_ms(const JqHealth *health, double part);

#endif							/* JQ_ENDPOINT_HEALTH_H */
