/*-------------------------------------------------------------------------
 *
 * probe.h
 *	  Single requests that sessions ask the dispatcher to send.
 *
 *	  Only the dispatcher has libcurl running.  A session puts a request into
 *	  a slot of a small mailbox in shared memory and sleeps on its latch; the
 *	  dispatcher of its database takes it and answers.  Whichever of them goes
 *	  away first, the other one gets to know, or does not care.
 *
 *	  Nothing here raises or allocates.  Without preloading there is no
 *	  mailbox: nobody can ask, and nothing is wanted.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_PROBE_H
#define JQ_PROBE_H

#include "postgres.h"

#define JQ_PROBE_SLOTS 8
#define JQ_PROBE_NAME_SIZE 256
#define JQ_PROBE_METHOD_SIZE 16
#define JQ_PROBE_PAYLOAD_SIZE (8 * 1024)	/* with the terminator */
#define JQ_PROBE_REASON_SIZE 256
#define JQ_PROBE_ADDRESS_SIZE 64

/* A request as the dispatcher takes it. */
typedef struct JqProbe
{
	int			slot;
	uint32		generation;
	Oid			role;			/* who asks; he may use the endpoint */
	char		endpoint[JQ_PROBE_NAME_SIZE];
	char		method[JQ_PROBE_METHOD_SIZE];
	bool		has_payload;
	char		payload[JQ_PROBE_PAYLOAD_SIZE]; /* jsonb as text */
} JqProbe;

/*
 * What came of it.  Times are in microseconds since the start of the request,
 * 0 for a phase that it did not reach; all of them when it was not sent.
 */
typedef struct JqProbeAnswer
{
	bool		answered;		/* there is a status */
	int			status;
	char		reason[JQ_PROBE_REASON_SIZE];	/* unless answered: why not */
	char		address[JQ_PROBE_ADDRESS_SIZE]; /* of the server; "": none */
	int			port;			/* 0: not known */
	int			http_version;	/* 10, 11, 20; 0: none */
	bool		has_tls;
	bool		reused;			/* the connection was there before */
	int64		dns_us;
	int64		connect_us;
	int64		tls_us;
	int64		first_byte_us;
	int64		total_us;
	int64		bytes;			/* of the response's body */
} JqProbeAnswer;

/* Asks for the shared memory; once, while preloading. */
extern void jq_probe_init(void);

/* ---- for scheduler and dispatcher ---- */

/* Whether somebody in the database waits for a dispatcher to take a request. */
extern bool jq_probe_wanted(Oid database);

/*
 * Takes the next request of this database.  It must be answered; when this
 * process exits before, who waits is told.
 */
extern bool jq_probe_take(JqProbe *probe);

/* Answers, unless nobody waits for it any more. */
extern void jq_probe_answer(const JqProbe *probe, const JqProbeAnswer *answer);

/* Gives it up: who waits is told that the dispatcher has gone. */
extern void jq_probe_abandon(const JqProbe *probe);

/* ---- for sessions ---- */

/* How a request that this session has asked for stands. */
typedef enum JqProbeState
{
	JQ_PROBE_WAITING,			/* no dispatcher has taken it */
	JQ_PROBE_TAKEN,
	JQ_PROBE_ABANDONED,			/* the dispatcher has gone */
	JQ_PROBE_ANSWERED
} JqProbeState;

/*
 * Puts a request into the mailbox; its slot and generation are set, its role
 * and texts given.  From then on the session's latch is set whenever it moves
 * on.  False: there is no room, or no shared memory.
 */
extern bool jq_probe_ask(JqProbe *probe);

/* How the session's request stands; "answer" is filled once it is ANSWERED. */
extern JqProbeState jq_probe_look(JqProbeAnswer *answer);

/*
 * Gives the session's slot back, answered or not; does nothing without one.
 * Who asks must see to it that this is called when he fails or exits, too.
 */
extern void jq_probe_leave(void);

#endif							/* JQ_PROBE_H */
