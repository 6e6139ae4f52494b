/*-------------------------------------------------------------------------
 *
 * shared_state.h
 *	  What the workers of a server know of each other.
 *
 *	  Every worker has a slot, reserved by its parent and attached by itself.
 *	  Without preloading there is no shared memory: then nothing is known to
 *	  run, and the functions say so.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_SHARED_STATE_H
#define JQ_SHARED_STATE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/uuid.h"

typedef enum JqWorkerKind
{
	JQ_WORKER_LAUNCHER,
	JQ_WORKER_SCHEDULER,
	JQ_WORKER_EXECUTOR,
	JQ_WORKER_DISPATCHER,
	JQ_WORKER_MONITOR
} JqWorkerKind;

typedef enum JqWorkerState
{
	JQ_STATE_STARTING,			/* reserved; nothing done yet */
	JQ_STATE_IDLE,
	JQ_STATE_RUNNING,
	JQ_STATE_DRAINING,			/* takes nothing new, will exit */
	JQ_STATE_ENDED				/* a scheduler's slot that its parent frees */
} JqWorkerState;

/* Why the server's workers do nothing in a database. */
typedef enum JqQuiet
{
	JQ_QUIET_NOT,				/* they work */
	JQ_QUIET_ABSENT,			/* it lacks the extension */
	JQ_QUIET_PAUSED,			/* pause_workers() */
	JQ_QUIET_COPY,				/* the jobs are another database's */
	JQ_QUIET_SUBSCRIBER			/* its jobs come from elsewhere */
} JqQuiet;

/* Names a worker; stale as soon as its slot is used again. */
typedef struct JqWorkerRef
{
	int			slot;
	uint32		generation;
} JqWorkerRef;

/* What a slot says about its worker. */
typedef struct JqWorkerInfo
{
	JqWorkerKind kind;
	JqWorkerState state;
	Oid			database;		/* InvalidOid: the launcher's */
	Oid			role;			/* executors and monitors */
	uint32		monitor;		/* the key of its entry; 0: no monitor */
	int			pid;			/* 0: has not attached */
	bool		has_worker_id;	/* of those that run jobs */
	pg_uuid_t	worker_id;
	int64		job_id;			/* 0: none */
	uint32		batch_no;		/* grows with every claim that found jobs */
	int			waiting_jobs;	/* claimed, not yet begun */
	bool		is_stuck;		/* its job ignores that it was cancelled */
	bool		retire;			/* asked to end after the current job */
	JqQuiet		quiet;			/* ENDED: why it has nothing to do */
	TimestampTz started_at;		/* of the reservation until attached */
	TimestampTz job_started_at;
	TimestampTz last_cycle_at;
} JqWorkerInfo;

/* How busy the executors of one role in one database are. */
typedef struct JqExecutorCount
{
	int			starting;
	int			idle;
	int			running;
} JqExecutorCount;

/* Asks for shared memory; once, from _PG_init of a preloaded library. */
extern void jq_shared_init(void);

/* Whether there is shared memory. */
extern bool jq_shared_is_attached(void);

/*
 * Names this life of the server: random, never 0, another one after each
 * start, crash restart and on each other server.  0 without preloading.
 */
extern int64 jq_shared_incarnation(void);

/*
 * Grows when the files of time zones have changed; 0: they have not, or there
 * is no shared memory.
 */
extern uint32 jq_shared_zone_generation(void);

/*
 * Tells what the files say now, by a digest of them; is_stale: processes
 * inherit something else.  Returns the generation that holds then.
 */
extern uint32 jq_shared_note_zones(uint64 digest, bool is_stale);

extern const char *jq_shared_kind_name(JqWorkerKind kind);
extern const char *jq_shared_state_name(JqWorkerState state);

/*
 * Reserves a slot for a worker to be started.  False: there is no slot, or
 * the database has a scheduler, or the server has as many executors, or the
 * database as many dispatchers, as "max_workers"; or there is a monitor for
 * the entry.
 */
extern bool jq_shared_reserve(JqWorkerKind kind, Oid database, Oid role,
							  uint32 monitor, int max_workers,
							  JqWorkerRef *ref);

/* Gives back the slot of a worker that could not be started. */
extern void jq_shared_unreserve(const JqWorkerRef *ref);

/* Frees slots whose workers did not attach for ten seconds. */
extern void jq_shared_free_unstarted(void);

/* Frees the slot of a scheduler that has ended. */
extern void jq_shared_free_ended(Oid database);

/*
 * Takes the slot for this process until it exits.  False: it was given to
 * somebody else.
 */
extern bool jq_shared_attach(const JqWorkerRef *ref);

/* Whether a job may begin. */
typedef enum JqBegin
{
	JQ_BEGIN_NOW,
	JQ_BEGIN_CANCELLED,			/* it was cancelled while it waited */
	JQ_BEGIN_TAKEN				/* somebody else gives it back, and the rest */
} JqBegin;

/*
 * Whether this process is a worker that serves all roles, as a superuser, and
 * so must not run the code of any.
 */
extern bool jq_shared_serves_everybody(void);

/* What this worker says of itself. */
extern void jq_shared_report_state(JqWorkerState state);
extern void jq_shared_report_cycle(void);
extern void jq_shared_report_worker_id(const pg_uuid_t *worker);
extern void jq_shared_report_quiet(JqQuiet quiet);

/*
 * Begins a job; "waiting" others are claimed.  TAKEN: they were taken away by
 * jq_shared_take_waiting(), this one included, and none of them may be run.
 */
extern JqBegin jq_shared_begin_job(int64 job_id, int32 claim_no, int waiting);
extern void jq_shared_end_job(void);

/*
 * Begins a job once more, which must have begun before: it is this worker's,
 * whether others were taken away or not.  False: it was cancelled meanwhile.
 */
extern bool jq_shared_resume_job(int64 job_id, int32 claim_no);

/* The job ignores that it was cancelled.  Safe in a signal handler. */
extern void jq_shared_report_stuck(void);

/*
 * Asks to claim a job that was running when the server crashed.  False: an
 * executor has just begun another one.  Were both running when the culprit
 * strikes again, the innocent one would be blamed with it.  Ends with the
 * batch, or by the second function when no such job was found.
 */
extern bool jq_shared_begin_suspect(void);
extern void jq_shared_end_suspect(void);

/* After a claim, and when its jobs have ended. */
extern void jq_shared_begin_batch(void);
extern void jq_shared_end_batch(void);

/* What others ask of this worker. */
extern bool jq_shared_should_retire(void);

/* Whether the current job is to be cancelled.  Safe in a signal handler. */
extern bool jq_shared_job_is_cancelled(void);

/* Everybody's slots, in a palloc'd array; returns how many. */
extern int	jq_shared_workers(JqWorkerInfo **workers);

/* False: the database has no scheduler and no slot for one. */
extern bool jq_shared_find_scheduler(Oid database, JqWorkerInfo *info);

extern bool jq_shared_scheduler_is_running(Oid database);

/* Whether this executor or dispatcher still looks after its jobs. */
extern bool jq_shared_worker_is_alive(const pg_uuid_t *worker);

/* How many executors have ended in the middle of a job, ever. */
extern uint32 jq_shared_deaths(void);

/* False: it is not known that this executor ended in the middle of a job. */
extern bool jq_shared_died_of(const pg_uuid_t *worker, int64 *job_id);

/*
 * InvalidOid stands for every database, and every role.  Those that are stuck
 * do not count: others may take their place.
 */
extern void jq_shared_count_executors(Oid database, Oid role,
									  JqExecutorCount *count);

/* These never raise and never allocate: commit callbacks call them. */
extern void jq_shared_wake_scheduler(Oid database);
extern void jq_shared_mark_database(Oid database);

/* Wakes up to "count" idle executors; returns how many.  The same holds. */
extern int	jq_shared_wake_executors(Oid database, Oid role, int count);

/*
 * Wakes the dispatchers of a database.  Returns how many of them take jobs, or
 * are about to begin.
 */
extern int	jq_shared_wake_dispatchers(Oid database);

/* Which of the dispatchers of its database this one is, from 0. */
extern int	jq_shared_dispatcher_number(void);

/* Asks the workers of this kind in the database to end. */
extern void jq_shared_retire(JqWorkerKind kind, Oid database);

/* Asks one executor or dispatcher to end.  False: there is none of this id. */
extern bool jq_shared_retire_worker(Oid database, const pg_uuid_t *worker);

/*
 * Asks one executor to end so that another role gets its turn: an idle one,
 * else one of the role that has most.  Nothing while one is about to end.
 */
extern void jq_shared_make_room(void);

/*
 * Cancels a claim, if that worker is running it now or has yet to begin it.
 * Never raises and never allocates.
 */
extern void jq_shared_cancel_job(const pg_uuid_t *worker, int64 job_id,
								 int32 claim_no);

/* The next claim of this dispatcher that was cancelled; false: no more. */
extern bool jq_shared_take_cancelled(int64 *job_id, int32 *claim_no);

/*
 * Takes from an executor the jobs of this batch that wait behind its current
 * one, job_id: it will not begin them, and the caller must release them.
 * False: the batch has ended, or nothing waits.
 */
extern bool jq_shared_take_waiting(const pg_uuid_t *worker, uint32 batch_no,
								   int64 *job_id);

/*
 * The databases marked since the last call, at most "max".  "all": there
 * were more than could be noted.
 */
extern int	jq_shared_take_marks(Oid *databases, int max, bool *all);

#endif							/* JQ_SHARED_STATE_H */
