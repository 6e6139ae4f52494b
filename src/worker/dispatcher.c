/*-------------------------------------------------------------------------
 *
 * dispatcher.c
 *	  Sends the HTTP jobs of one database.
 *
 *	  Each turn of its loop lets libcurl run, makes endings of the transfers
 *	  that have ended, sends what waits for their places, and then, in one
 *	  short transaction, records the endings and claims more jobs; the claim
 *	  is always flushed, so that a crash finds attempts charged; the endings
 *	  are as durable as the server's synchronous_commit says.  No transaction, snapshot or lock is there while it waits.
 *
 *	  It runs nobody's code: what jobs say is data to it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/worker.h"

#include "access/table.h"
#include "access/xact.h"
#include "base/catalog.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/db.h"
#include "base/endpoint_health.h"
#include "base/fault.h"
#include "base/probe.h"
#include "base/scope.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "http/client.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "queue/circuits.h"
#include "queue/claim.h"
#include "queue/endpoints.h"
#include "queue/http_job.h"
#include "queue/job_types.h"
#include "queue/secrets.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "worker/delivery.h"
#include "worker/endings.h"
#include "worker/targets.h"

#define WAIT_EVENT "JobqueueDispatcherMain"
#define LEASE_INTERVAL_MS 1000
#define MAX_EXTENDED 500		/* leases in one transaction */
#define MAX_CLAIM 500			/* jobs of one claim */
#define MAX_UNRECORDED 1000		/* endings, before nothing more is claimed */
#define MAX_PASSES 64			/* of libcurl, before anything else is done */
#define RETRY_MS 1000			/* after a transaction has failed */
#define MAX_LOCK_MS 100			/* the wait for a lock: transfers wait, too */

static pg_uuid_t worker_id;
static MemoryContext jobs_context = NULL;	/* of claimed jobs */
static int64 lease_at = 0;		/* by jq_clock_ms(), like those below */
static int64 claim_at = 0;		/* PG_INT64_MAX: when something happens */
static int64 failed_until = 0;
static int64 idle_since = 0;
static int64 drain_until = PG_INT64_MAX;
static bool is_draining = false;
static bool must_exit = false;	/* the extension has gone */
static bool is_careful = false; /* the last exchange failed: a job may be why */
static bool has_more = false;	/* the last claim may have left some behind */
static bool is_short = false;	/* and there was room for more of them */
static bool has_new_suspect = false;	/* it found a job that crashed the
										 * server */
static bool is_up_to_date = false;	/* with changes, in this cycle */
static int64 quiet_since = 0;	/* nothing has been under way */
static uint64 seen_circuits = 0;	/* the generation that was heeded */
static uint32 seen_generation[3];	/* of what waiting jobs were made from */

/* Claimed in a transaction that has yet to commit. */
static List *new_jobs = NIL;

static void prepare(void);
static void run_cycle(void);
static void send_waiting(void);
static void release_barred(void *arg);
static void heed_orders(void);
static void begin_draining(void);
static void look_for_drop(void *arg);
static void heed_settings(void);
static void accept_changes(void *arg);
static bool heed_changes(void);
static void take_probes(void);
static void prepare_probe(void *arg);
static void exchange(void);
static bool may_linger(void);
static bool may_claim(void);
static bool is_same_extension(void);
static void record_and_claim(void *arg);
static void claim(void);
static bool claim_for(List *job_types, int wanted);
static void note_next_due(List *exhausted);
static void take_new_jobs(void);
static void drop_new_jobs(void);
static void extend_leases(void);
static void extend_some(void *arg);
static bool is_idle(void);
static bool is_drained(void);
static long wait_ms(void);

void
jq_dispatcher_main(Datum arg)
{
	jq_worker_begin(JQ_WORKER_DISPATCHER, SignalHandlerForShutdownRequest);
	jq_worker_connect(BOOTSTRAP_SUPERUSERID, 0);
	jq_db_leave_synchronous_commit();
	jq_db_wait_for_locks(MAX_LOCK_MS);
	jq_worker_pin_settings();
	prepare();

	do
	{
		jq_worker_begin_cycle();
		run_cycle();
		jq_shared_report_cycle();
		if (is_draining && is_drained())
			break;
		if (is_idle())
		{
			jq_shared_report_state(JQ_STATE_IDLE);
			if (must_exit ||
				jq_clock_ms() - idle_since >= jq_config_dispatcher_idle_timeout)
				break;
		}
		else
		{
			jq_shared_report_state(is_draining ? JQ_STATE_DRAINING :
								   JQ_STATE_RUNNING);
			idle_since = jq_clock_ms();
		}
		if (jq_worker_wait(wait_ms(), WAIT_EVENT))
			claim_at = 0;		/* somebody says that there is more */
	} while (!must_exit);
	proc_exit(0);
}

static void
prepare(void)
{
	jobs_context = AllocSetContextCreate(TopMemoryContext,
										 "jobqueue claimed HTTP jobs",
										 ALLOCSET_DEFAULT_SIZES);
	jq_http_client_init();
	jq_targets_init(TopMemoryContext);
	jq_worker_watch(jq_http_client_fd());
	jq_health_attach(jq_shared_dispatcher_number());
	if (!pg_strong_random(&worker_id, sizeof(worker_id)))
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random worker id")));
	worker_id.data[6] = (worker_id.data[6] & 0x0f) | 0x40;	/* version 4 */
	worker_id.data[8] = (worker_id.data[8] & 0x3f) | 0x80;
	jq_shared_report_worker_id(&worker_id);
	jq_worker_report_start(&worker_id);
	idle_since = jq_clock_ms();
}

static void
run_cycle(void)
{
	bool		had_suspect = jq_targets_have_suspect();
	int			passes = 0;
	bool		is_full;

	is_up_to_date = false;
	heed_orders();
	heed_settings();
	do
	{
		is_full = jq_http_client_run();
		CHECK_FOR_INTERRUPTS();
		if (!jq_delivery_collect())
			continue;
		if (has_more || (had_suspect && !jq_targets_have_suspect()))
			claim_at = 0;		/* there is room again */
		if (jq_targets_waiting() > 0)
		{
			/* What waits was made from settings that may be old by now. */
			(void) jq_worker_protect(accept_changes, NULL);
			send_waiting();
		}
	} while (is_full && jq_endings_count() < MAX_UNRECORDED &&
			 ++passes < MAX_PASSES);

	take_probes();
	exchange();
	if (jq_clock_ms() >= lease_at)
	{
		lease_at = jq_clock_ms() + LEASE_INTERVAL_MS;
		extend_leases();
	}
	if (jq_targets_waiting() > 0 && !is_up_to_date)
		(void) jq_worker_protect(accept_changes, NULL);
	send_waiting();
	if (jq_targets_under_way() > 0)
		quiet_since = jq_clock_ms();
}

/*
 * Sends what may be sent.  Nothing is while a failure that may open a circuit
 * has yet to be recorded, and nothing whose circuit has opened since it was
 * claimed.
 */
static void
send_waiting(void)
{
	if (jq_targets_waiting() > 0 && jq_endings_are_urgent())
		exchange();
	if (jq_targets_waiting() > 0 &&
		seen_circuits != jq_circuits_generation() &&
		!jq_worker_protect(release_barred, NULL))
		return;					/* in the next cycle */
	(void) jq_delivery_send(is_draining);
}

/* A unit of work. */
static void
release_barred(void *arg)
{
	uint64		circuits = jq_circuits_generation();

	jq_db_begin("looking for open circuits");
	jq_delivery_release_barred();
	jq_db_commit();
	seen_circuits = circuits;
}

/* What others ask of this process. */
static void
heed_orders(void)
{
	int64		job_id;
	int32		claim_no;

	while (jq_shared_take_cancelled(&job_id, &claim_no))
		jq_delivery_cancel(job_id, claim_no);
	if (ShutdownRequestPending || jq_shared_should_retire() ||
		!jq_config_enabled)
		begin_draining();
	if (jq_clock_ms() >= drain_until)
		jq_delivery_abort_all();
}

/*
 * Takes nothing new.  A shutdown waits for what is under way only so long;
 * otherwise timeouts are the limit.
 */
static void
begin_draining(void)
{
	bool		is_dropped = false;

	if (ShutdownRequestPending && drain_until == PG_INT64_MAX)
	{
		(void) jq_worker_protect(look_for_drop, &is_dropped);
		drain_until = jq_clock_ms() +
			(is_dropped ? 0 : jq_config_shutdown_timeout);
	}
	is_draining = true;
	jq_delivery_release_waiting();
}

/*
 * DROP DATABASE WITH (FORCE) terminates whoever is connected, and waits for 5
 * seconds at most; while it does, it has the database locked.
 */
static void
look_for_drop(void *arg)
{
	bool	   *is_dropped = (bool *) arg;
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	jq_catalog_begin();
	*is_dropped = LockAcquire(&tag, AccessShareLock, false,
							  true) == LOCKACQUIRE_NOT_AVAIL;
	jq_catalog_commit();
}

/* Settings hold for the next request: also for those that wait to be sent. */
static void
heed_settings(void)
{
	if (!jq_worker_was_reloaded())
		return;
	jq_delivery_release_waiting();
	jq_http_client_apply_settings();
	claim_at = 0;
}

/* Lets invalidations in, as the beginning of each transaction does. */
static void
accept_changes(void *arg)
{
	jq_catalog_begin();
	jq_catalog_commit();
	(void) heed_changes();
}

/*
 * When an endpoint, a job type or a secret has changed, the jobs that wait are
 * given back, to be claimed and made anew.  True: there were such.
 */
static bool
heed_changes(void)
{
	uint32		now[3] = {
		jq_endpoints_generation(), jq_job_types_generation(),
		jq_secrets_generation()
	};

	is_up_to_date = true;
	if (memcmp(now, seen_generation, sizeof(now)) == 0)
		return false;
	memcpy(seen_generation, now, sizeof(now));
	claim_at = 0;
	if (jq_targets_waiting() == 0)
		return false;
	jq_delivery_release_waiting();
	return true;
}

/* ---- probes ---- */

typedef struct Probing
{
	JqProbe		probe;
	JqHttpJob  *job;
} Probing;

static void
take_probes(void)
{
	Probing		probing;

	while (!is_draining && jq_probe_take(&probing.probe))
	{
		JqProbeAnswer answer = {0};

		if (jq_worker_protect(prepare_probe, &probing))
		{
			jq_delivery_add_probe(probing.job, &probing.probe);
			continue;
		}
		strlcpy(answer.reason, "the request could not be prepared",
				sizeof(answer.reason));
		jq_probe_answer(&probing.probe, &answer);
	}
}

static void
prepare_probe(void *arg)
{
	Probing    *probing = (Probing *) arg;
	JqProbe    *probe = &probing->probe;

	jq_db_begin("preparing a probe");
	probing->job = jq_http_job_probe(probe->endpoint, probe->method,
									 probe->has_payload ? probe->payload : NULL,
									 probe->role, jobs_context);
	jq_db_commit();
}

/* ---- the database ---- */

/* Records what has ended and claims more, if there is a reason to. */
static void
exchange(void)
{
	bool		is_claiming;

	jq_endings_retry();
	is_claiming = may_claim();
	if (may_linger() || (jq_endings_ready() == 0 && !is_claiming))
		return;
	if (jq_clock_ms() < failed_until)
		return;
	if (jq_worker_protect(record_and_claim, &is_claiming))
	{
		jq_endings_written();
		is_careful = false;
		JQ_FAULT("after_http_claim");
		take_new_jobs();
		return;
	}
	drop_new_jobs();
	is_careful = true;
	if (!jq_endings_record_each())
		failed_until = jq_clock_ms() + RETRY_MS;
	claim_at = 0;
}

/*
 * Whether endings, and a claim with them, can wait for more endings, because
 * there is something to do meanwhile.
 */
static bool
may_linger(void)
{
	return jq_endings_ready() > 0 && jq_endings_wait_ms() > 0 &&
		jq_targets_under_way() > 0 && jq_targets_waiting() > 0;
}

static bool
may_claim(void)
{
	return !is_draining && !must_exit && jq_clock_ms() >= claim_at &&
		jq_endings_count() < MAX_UNRECORDED;
}

/* In another one, made since, other jobs have the numbers of ours. */
static bool
is_same_extension(void)
{
	static Oid	table = InvalidOid;
	const JqCatalog *catalog = jq_catalog_if_present();

	if (catalog == NULL)
		return false;
	if (!OidIsValid(table))
		table = catalog->jobs_queue_live;
	return table == catalog->jobs_queue_live;
}

static void
record_and_claim(void *arg)
{
	bool		is_claiming = *(bool *) arg;

	jq_db_begin("recording and claiming HTTP jobs");
	if (!is_same_extension())
		must_exit = true;
	else
	{
		bool		must_follow = heed_changes();

		jq_endings_write();
		if (is_claiming)
			claim();
		if (must_follow)
			claim_at = 0;		/* once they are given back */
	}
	jq_db_commit();
}

/*
 * Each endpoint gets what it has room for; the built-in type comes last, as
 * its jobs may go anywhere.
 */
static void
claim(void)
{
	List	   *job_types = jq_http_job_types();
	List	   *exhausted = NIL;
	ListCell   *cell;

	has_more = false;
	is_short = false;
	has_new_suspect = false;
	foreach(cell, job_types)
	{
		char	   *name = (char *) lfirst(cell);
		const JqJobType *type = jq_job_type(name);
		const JqEndpoint *endpoint = NULL;
		int			size = type->request_size;
		int			wanted;

		if (type->endpoint != NULL)
			endpoint = jq_endpoint(pstrdup(type->endpoint));
		if (endpoint != NULL)
			wanted = jq_targets_wanted(endpoint->name,
									   endpoint->max_concurrency, size);
		else
			wanted = jq_targets_wanted(NULL, jq_http_client_room(), 1);
		if (wanted == 0)
			has_more = true;
		else if (claim_for(list_make1(name), Min(wanted, MAX_CLAIM)))
			exhausted = lappend(exhausted, name);
	}
	note_next_due(exhausted);
}

/* Whether that was all that is due. */
static bool
claim_for(List *job_types, int wanted)
{
	JqClaim		claim = {.is_http = true,.job_types = job_types,
	.max_jobs = wanted};
	Relation	rel = table_open(jq_catalog()->jobs_queue, AccessShareLock);
	TupleDesc	row_type = CreateTupleDescCopy(RelationGetDescr(rel));
	Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);
	TupleTableSlot *slot;
	bool		is_full = false;

	table_close(rel, NoLock);
	claim.worker = worker_id;
	claim.holder = jq_shared_incarnation();
	claim.skip_suspects = has_new_suspect || jq_targets_have_suspect() ||
		!jq_shared_begin_suspect();
	has_more |= claim.skip_suspects;
	if (jq_claim(&claim, rows, row_type) > 0)
	{
		MemoryContext old;

		ForceSyncCommit();
		slot = MakeSingleTupleTableSlot(row_type, &TTSOpsMinimalTuple);
		is_full = tuplestore_tuple_count(rows) == wanted;
		has_more |= is_full;
		is_short |= is_full && wanted == MAX_CLAIM;
		while (tuplestore_gettupleslot(rows, true, false, slot))
		{
			JqHttpJob  *job = jq_http_job_read(slot, &worker_id, jobs_context,
											   is_careful);

			/* It came alone, whatever is behind it. */
			if (job->is_suspect)
				has_new_suspect = has_more = is_short = true;
			old = MemoryContextSwitchTo(jobs_context);
			new_jobs = lappend(new_jobs, job);
			MemoryContextSwitchTo(old);
		}
		ExecDropSingleTupleTableSlot(slot);
	}
	tuplestore_end(rows);
	if (!has_new_suspect && !jq_targets_have_suspect())
		jq_shared_end_suspect();
	return !is_full;
}

/*
 * When to claim again, unless somebody calls before.  Those of whom more is due
 * than there is room for wait for room.
 */
static void
note_next_due(List *exhausted)
{
	JqClaim		claim = {.is_http = true,.job_types = exhausted};
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due_at;

	claim_at = jq_clock_ms() + jq_config_poll_interval;
	if (is_short)
		claim_at = 0;
	else if (exhausted != NIL)
	{
		claim.holder = jq_shared_incarnation();
		due_at = jq_claim_next_due(&claim);
		if (due_at > now &&
			due_at < TimestampTzPlusMilliseconds(now, jq_config_poll_interval))
			claim_at = jq_clock_ms() + (due_at - now) / 1000 + 1;
	}
}

/* After the commit. */
static void
take_new_jobs(void)
{
	ListCell   *cell;

	foreach(cell, new_jobs)
		if (!jq_delivery_add((JqHttpJob *) lfirst(cell)))
		claim_at = 0;			/* those behind it may go elsewhere */
	list_free(new_jobs);
	new_jobs = NIL;
}

/* Their claims have been rolled back. */
static void
drop_new_jobs(void)
{
	ListCell   *cell;

	foreach(cell, new_jobs)
		jq_http_job_free((JqHttpJob *) lfirst(cell));
	list_free(new_jobs);
	new_jobs = NIL;
}

/* The jobs whose leases one transaction extends. */
typedef struct Extension
{
	JqHttpJob **jobs;
	int			count;
} Extension;

/*
 * The lease of a job says to others that somebody looks after it.  Nobody
 * takes the jobs of a living dispatcher: so one that somebody else has locked
 * is left alone until its next lease would end.
 */
static void
extend_leases(void)
{
	JqHttpJob  *jobs[MAX_EXTENDED];
	Extension	extension = {.jobs = jobs};
	int64		until = jq_clock_ms() + MAX_LOCK_MS;

	extension.count = jq_delivery_expiring(jobs, MAX_EXTENDED);
	if (extension.count == 0 || jq_worker_protect(extend_some, &extension))
		return;
	for (int i = 0; i < extension.count && jq_clock_ms() < until; i++)
	{
		Extension	one = {.jobs = &jobs[i],.count = 1};

		if (!jq_worker_protect(extend_some, &one))
			jobs[i]->lease_until = GetCurrentTimestamp() + jobs[i]->lease_us;
	}
}

static void
extend_some(void *arg)
{
	Extension  *extension = (Extension *) arg;
	TimestampTz now = GetCurrentTimestamp();

	jq_db_begin("extending leases");
	for (int i = 0; i < extension->count; i++)
		(void) jq_resolve_heartbeat(&extension->jobs[i]->held,
									extension->jobs[i]->lease_us, false, 0);
	jq_db_commit();
	for (int i = 0; i < extension->count; i++)
		extension->jobs[i]->lease_until = now + extension->jobs[i]->lease_us;
}

static bool
is_idle(void)
{
	return jq_targets_under_way() == 0 && jq_targets_waiting() == 0 &&
		jq_endings_count() == 0;
}

/*
 * Endings that cannot be recorded are tried for a while, and then left to the
 * scheduler, which takes back what a process that has ended holds.
 */
static bool
is_drained(void)
{
	int64		give_up_at = Min(drain_until,
								 quiet_since + jq_config_shutdown_timeout);

	return is_idle() ||
		(jq_targets_under_way() == 0 && jq_endings_ready() == 0 &&
		 jq_clock_ms() >= give_up_at);
}

static long
earlier(long a, long b)
{
	return a < 0 ? b : b < 0 ? a : Min(a, b);
}

/* How long nothing happens by itself. */
static long
wait_ms(void)
{
	int64		now = jq_clock_ms();
	long		wait = jq_config_poll_interval;

	wait = earlier(wait, jq_http_client_wait_ms());
	wait = earlier(wait, jq_targets_linger_ms());
	if (jq_endings_ready() > 0 && !may_linger())
		wait = earlier(wait, Max(0, failed_until - now));
	wait = earlier(wait, Max(jq_endings_wait_ms(), failed_until - now));
	if (!is_draining && !may_linger())
		wait = earlier(wait, (long) Max(Max(claim_at, failed_until) - now, 0));
	if (jq_targets_under_way() + jq_targets_waiting() > 0)
		wait = earlier(wait, (long) Max(lease_at - now, 0));
	if (is_draining && jq_targets_under_way() == 0)
		wait = earlier(wait, 100);	/* until it gives up */
	if (drain_until != PG_INT64_MAX && jq_targets_under_way() > 0)
		wait = earlier(wait, (long) Max(drain_until - now, 0));
	return wait;
}
