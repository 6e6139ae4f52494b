/*-------------------------------------------------------------------------
 *
 * scheduler.c
 *	  One process per database: cron, lost jobs, retention, and the workers
 *	  that run jobs.
 *
 *	  The launcher starts it in every database to find out whether the
 *	  extension is there and has something to do; where it has not, it lets
 *	  the executors finish, says so and ends.  It holds no
 *	  snapshot, lock or transaction while it waits, and assigns no transaction
 *	  id when there is nothing to do.  Executors belong to a role: jobs run in
 *	  sessions of the role they run as, never of a superuser who switched.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/worker.h"

#include "base/catalog.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/db.h"
#include "base/scope.h"
#include "catalog/pg_authid.h"
#include "commands/async.h"
#include "commands/dbcommands.h"
#include "cron/runs.h"
#include "cron/tasks.h"
#include "cron/zone.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "queue/activity.h"
#include "queue/alerts.h"
#include "queue/circuits.h"
#include "queue/claim.h"
#include "queue/failure_counts.h"
#include "queue/job_counts.h"
#include "queue/job_types.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/demand.h"
#include "worker/history.h"
#include "worker/maintenance.h"
#include "worker/retention.h"
#include "worker/statistics.h"

#define WAIT_EVENT "JobqueueSchedulerMain"
#define CHANNEL "jobqueue"
#define MIN_CYCLE_MS 10			/* however often it is woken */
#define PRUNE_INTERVAL_MS 60000
#define THOROUGH_INTERVAL_MS 10000
#define CRON_RETRY_MS 1000
#define LONG_SLEEP_MS 2000
#define MAX_SLEEP_MS 60000
#define CLOCK_STEP_US (500 * INT64CONST(1000))	/* smaller ones are no jump */
#define WATCH_REST 50			/* times the watching took: 2 % of the time */
#define MAX_WATCH_REST_MS 5000	/* of the frequent looks: one may have waited */
#define ZONES_REST_MS 5000		/* after an error; doubled after the next */
#define MAX_ZONES_REST_MS 300000
#define ALERTS_REST_MS 1000		/* however often something fails */
#define ALERTS_REST 50			/* times the evaluation took */

static bool is_started = false; /* there was something to do once */
static bool is_draining = false;	/* there is nothing to do any more */

/* by jq_clock_ms() */
static int64 watch_at = 0;
static int64 thorough_at = 0;
static int64 prune_at = 0;
static int64 zones_at = 0;		/* PG_INT64_MAX: when asked to */
static int64 alerts_at = 0;

/*
 * Where the scheduler stands in the index of next_run_at: every task that is
 * planned before has been enqueued, until an invalidation says that somebody
 * has changed one.  So a tick reads what is due and the one after it, however
 * many tasks there are, and not the entries that earlier ticks left dead.
 */
static TimestampTz next_cron_at = DT_NOBEGIN;
static int64 cron_retry_at = 0; /* what is due now waits for somebody */
static TimestampTz later_cron_at = DT_NOEND;	/* what comes meanwhile */
static int64 cron_recheck_at = 0;	/* should an invalidation be lost */
static bool plans_are_stale = false;	/* not all could be made anew */
static int64 replan_at = 0;

/* by the clock on the wall, and read again in each cycle */
static TimestampTz next_announcement_at = DT_NOEND;
static TimestampTz next_probe_at = DT_NOEND;	/* of a circuit */
static bool roles_changed = true;	/* or nobody has looked yet */

static void note_role_change(Datum arg, int cacheid, uint32 hashvalue);
static long run_cycle(void);
static void look_at_database(void *arg);
static void report_start(void);
static void end_absent(void);
static void end_when_drained(JqQuiet quiet);
static void retire_workers(void);
static bool has_workers(void);
static void watch_zones(bool was_reloaded);
static void heed_zones(void *arg);
static void run_cron(void *arg);
static void replan_cron(void *arg);
static bool clock_has_jumped(void);
static long ms_until_cron(TimestampTz now);
static long ms_until(TimestampTz instant, TimestampTz now);
static void announce_jobs(void *arg);
static void tend_lanes(void *arg);
static void tend_circuits(void *arg);
static void watch_running(void);
static void watch_alerts(void);
static void evaluate_alerts(void *arg);
static void report_failed_alerts(void *arg);

void
jq_scheduler_main(Datum arg)
{
	jq_worker_begin(JQ_WORKER_SCHEDULER, SignalHandlerForShutdownRequest);
	jq_worker_connect(BOOTSTRAP_SUPERUSERID, 0);
	jq_worker_pin_settings();
	CacheRegisterSyscacheCallback(AUTHOID, note_role_change, (Datum) 0);

	while (!ShutdownRequestPending && !jq_shared_should_retire())
	{
		int64		started_at = jq_clock_ms();
		long		sleep_ms;
		long		spent_ms;

		jq_worker_begin_cycle();
		sleep_ms = run_cycle();
		jq_shared_report_cycle();
		jq_worker_wait(sleep_ms, WAIT_EVENT);
		spent_ms = (long) (jq_clock_ms() - started_at);
		if (spent_ms < MIN_CYCLE_MS)
			jq_worker_pause(Min(MIN_CYCLE_MS - spent_ms,
								ms_until_cron(GetCurrentTimestamp())),
							WAIT_EVENT);
	}
	if (jq_shared_should_retire())
		retire_workers();
	if (is_started && jq_config_logs(LOG))
		ereport(LOG, (errmsg("jobqueue scheduler stopped")));
	proc_exit(0);				/* the launcher decides who comes back */
}

/* Some role has changed; only the drop of one matters. */
static void
note_role_change(Datum arg, int cacheid, uint32 hashvalue)
{
	roles_changed = true;
}

/* Returns how long to sleep. */
static long
run_cycle(void)
{
	JqQuiet		quiet = JQ_QUIET_NOT;
	long		sleep_ms = jq_config_poll_interval;
	bool		has_failed;
	bool		was_reloaded;
	TimestampTz now;

	if (!jq_worker_protect(look_at_database, &quiet))
	{
		/* Its tables are not as they should be; the launcher goes on. */
		jq_shared_report_state(JQ_STATE_RUNNING);
		return sleep_ms;
	}
	if (quiet == JQ_QUIET_ABSENT)
		end_absent();
	if (quiet != JQ_QUIET_NOT)
	{
		end_when_drained(quiet);
		/* What still runs can be cancelled; what waits for it is let go. */
		watch_running();
		(void) jq_worker_protect(jq_maintenance_release_waiting, NULL);
		return sleep_ms;
	}
	jq_statistics_tend();
	if (!jq_config_enabled || ShutdownRequestPending)
		return sleep_ms;

	was_reloaded = jq_worker_was_reloaded();
	/* Somebody waits for the first; the others wake us when they enqueue. */
	watch_zones(was_reloaded);
	if (clock_has_jumped())
		plans_are_stale = true;
	if (plans_are_stale && jq_clock_ms() >= replan_at)
		(void) jq_worker_protect(replan_cron, NULL);
	has_failed = !jq_worker_protect(run_cron, NULL);
	(void) jq_worker_protect(tend_circuits, NULL);
	(void) jq_worker_protect(jq_demand_serve, NULL);
	(void) jq_worker_protect(jq_demand_serve_http, NULL);
	(void) jq_worker_protect(announce_jobs, NULL);
	(void) jq_worker_protect(tend_lanes, NULL);
	watch_running();
	(void) jq_worker_protect(jq_maintenance_release_waiting, NULL);
	watch_alerts();
	if (jq_clock_ms() >= prune_at)
	{
		prune_at = jq_clock_ms() + PRUNE_INTERVAL_MS;
		jq_retention_prune_tables();
		(void) jq_worker_protect(jq_maintenance_prune_keys, NULL);
		(void) jq_worker_protect(jq_maintenance_forget_secrets, NULL);
		if (roles_changed)
		{
			bool		is_done = false;

			roles_changed = false;
			if (!jq_worker_protect(jq_maintenance_disown, &is_done) || !is_done)
				roles_changed = true;
		}
	}
	sleep_ms = Min(sleep_ms, jq_retention_tend(was_reloaded));
	sleep_ms = Min(sleep_ms, jq_history_tend());

	if (jq_config_alerts_enabled)
		sleep_ms = Min(sleep_ms, Max(alerts_at - jq_clock_ms(), 0));
	now = GetCurrentTimestamp();
	if (next_announcement_at <= now)
		return 0;
	if (next_announcement_at < TimestampTzPlusMilliseconds(now, sleep_ms))
		sleep_ms = (next_announcement_at - now) / 1000 + 1;
	if (next_probe_at < TimestampTzPlusMilliseconds(now, sleep_ms))
		sleep_ms = Max((next_probe_at - now) / 1000 + 1, 0);
	if (plans_are_stale)
		sleep_ms = Min(sleep_ms, Max(replan_at - jq_clock_ms(), 0));
	/* The other units may have waited for the same lock, one by one. */
	return Min(sleep_ms, has_failed ? CRON_RETRY_MS : ms_until_cron(now));
}

/* Whether there is something to do here. */
static void
look_at_database(void *arg)
{
	JqQuiet    *quiet = (JqQuiet *) arg;

	jq_db_begin("looking for the extension");
	*quiet = JQ_QUIET_ABSENT;
	if (jq_catalog_if_present() != NULL)
	{
		jq_activity_adopt();
		*quiet = jq_activity_quiet();
		jq_job_counts_heed_extension();
		if (jq_tasks_have_changed())
			next_cron_at = DT_NOBEGIN;
	}
	if (*quiet == JQ_QUIET_NOT)
		report_start();
	jq_db_commit();
}

/* The first time tells the launcher that this is no probe any more. */
static void
report_start(void)
{
	if (is_started && !is_draining)
		return;
	is_draining = false;
	jq_shared_report_state(JQ_STATE_RUNNING);
	if (!is_started && jq_config_logs(LOG))
		ereport(LOG,
				(errmsg("jobqueue scheduler started in database \"%s\"",
						get_database_name(MyDatabaseId))));
	if (!is_started)
		jq_worker_report_start(NULL);
	is_started = true;
}

/* The other workers of the database have nothing left to do either. */
static void
end_absent(void)
{
	jq_shared_report_quiet(JQ_QUIET_ABSENT);
	retire_workers();
	if (is_started && jq_config_logs(LOG))
		ereport(LOG,
				(errmsg("jobqueue scheduler stopped: the extension was dropped")));
	proc_exit(0);
}

/*
 * Once the last worker has gone, so does this process: nobody is connected
 * to a paused database.
 */
static void
end_when_drained(JqQuiet quiet)
{
	retire_workers();
	jq_shared_free_unstarted();
	if (has_workers())
	{
		is_draining = true;
		jq_shared_report_state(JQ_STATE_DRAINING);
		return;
	}
	jq_shared_report_quiet(quiet);
	if (is_started && jq_config_logs(LOG))
		ereport(LOG, (errmsg("jobqueue scheduler stopped")));
	proc_exit(0);
}

/* Those that this process has started here. */
static void
retire_workers(void)
{
	jq_shared_retire(JQ_WORKER_EXECUTOR, MyDatabaseId);
	jq_shared_retire(JQ_WORKER_DISPATCHER, MyDatabaseId);
}

/* Also those that are stuck. */
static bool
has_workers(void)
{
	JqWorkerInfo *workers = NULL;
	int			count = jq_shared_workers(&workers);

	for (int i = 0; i < count; i++)
		if ((workers[i].kind == JQ_WORKER_EXECUTOR ||
			 workers[i].kind == JQ_WORKER_DISPATCHER) &&
			workers[i].database == MyDatabaseId)
			return true;
	return false;
}

/*
 * At the start, and after each reload of the configuration.  What an operator
 * has to put right is tried again less and less often.
 */
static void
watch_zones(bool was_reloaded)
{
	static int64 rest_ms = ZONES_REST_MS;

	if (was_reloaded)
	{
		zones_at = 0;
		rest_ms = ZONES_REST_MS;
	}
	if (jq_clock_ms() < zones_at)
		return;
	zones_at = PG_INT64_MAX;
	if (jq_worker_protect(heed_zones, NULL))
		return;
	zones_at = jq_clock_ms() + rest_ms;
	rest_ms = Min(rest_ms * 2, MAX_ZONES_REST_MS);
}

/* Where the rules of time zones have changed, so must plans. */
static void
heed_zones(void *arg)
{
	bool		have_changed;

	jq_catalog_begin();
	have_changed = jq_zones_reload();
	jq_catalog_commit();
	if (!have_changed)
		return;

	replan_cron(NULL);
	jq_zones_settle();
}

/* A transaction that finds nothing due writes nothing, and costs nothing. */
static void
run_cron(void *arg)
{
	TimestampTz from;
	JqCronOutlook outlook;

	if (jq_clock_ms() >= cron_recheck_at)
	{
		next_cron_at = DT_NOBEGIN;
		cron_recheck_at = jq_clock_ms() + PRUNE_INTERVAL_MS;
	}
	if (ms_until_cron(GetCurrentTimestamp()) > 0)
		return;

	from = next_cron_at;
	next_cron_at = DT_NOBEGIN;	/* should this fail */
	later_cron_at = DT_NOEND;
	cron_retry_at = jq_clock_ms() + CRON_RETRY_MS;
	jq_db_begin("enqueueing cron tasks");
	(void) jq_runs_enqueue_due(from, &outlook);
	jq_db_commit();
	next_cron_at = outlook.next;
	later_cron_at = outlook.later;
	if (outlook.has_moved || outlook.next != from)
		cron_retry_at = 0;
}

/*
 * Plans that were made by another time: before the clock was set back, or
 * while no scheduler was there to see it.  What cannot be done now, because
 * somebody holds a row or the table, is tried again.
 */
static void
replan_cron(void *arg)
{
	bool		is_complete;

	replan_at = jq_clock_ms() + CRON_RETRY_MS;
	jq_db_begin("planning cron tasks");
	is_complete = jq_tasks_replan();
	jq_db_commit();
	plans_are_stale = !is_complete;
	next_cron_at = DT_NOBEGIN;
}

/* Against the clock that nobody sets; true in the first cycle. */
static bool
clock_has_jumped(void)
{
	static int64 offset_us = PG_INT64_MIN;
	int64		was = offset_us;

	offset_us = GetCurrentTimestamp() - jq_clock_ms() * 1000;
	return was == PG_INT64_MIN || offset_us < was - CLOCK_STEP_US;
}

static long
ms_until_cron(TimestampTz now)
{
	if (next_cron_at > now)
		return ms_until(next_cron_at, now);
	if (later_cron_at <= now)
		return 0;
	return (long) Max(Min(cron_retry_at - jq_clock_ms(),
						  ms_until(later_cron_at, now)), 0);
}

/*
 * A kernel may wake a sleeper late by a thousandth of the sleep: the last part
 * of a long one is slept for itself.  And the clock may be set forward, or the
 * machine may sleep meanwhile, which wakes nobody.
 */
static long
ms_until(TimestampTz instant, TimestampTz now)
{
	int64		ms;

	if (TIMESTAMP_IS_NOEND(instant))
		return LONG_MAX;
	ms = (instant - now) / 1000 + 1;
	return (long) Min(ms > LONG_SLEEP_MS ? ms - ms / 64 : ms, MAX_SLEEP_MS);
}

/*
 * Tells those who listen that jobs have begun to wait.  One short transaction
 * of this process says it for all that have arrived meanwhile: a NOTIFY in the
 * transaction of each producer would make them commit one after the other.
 */
static void
announce_jobs(void *arg)
{
	List	   *names;
	ListCell   *cell;

	next_announcement_at = DT_NOEND;
	jq_db_begin("announcing jobs");
	jq_scope_enter_read_only();
	names = jq_job_types_to_announce();
	foreach(cell, names)
	{
		char	   *name = (char *) lfirst(cell);
		TimestampTz due_at;

		if (jq_claim_must_announce(name, &due_at))
			Async_Notify(CHANNEL, name);
		next_announcement_at = Min(next_announcement_at, due_at);
	}
	jq_scope_leave();
	jq_db_commit();
}

/* Looks after what claims remember, so that none of them has to. */
static void
tend_lanes(void *arg)
{
	jq_db_begin("tending lanes");
	jq_claim_tend();
	jq_db_commit();
}

/*
 * Writes down circuits that have opened.  When the cooldown of one is over,
 * there is demand again for its jobs.
 */
static void
tend_circuits(void *arg)
{
	TimestampTz now = GetCurrentTimestamp();

	next_probe_at = DT_NOEND;
	jq_db_begin("tending circuits");
	jq_circuits_tend();
	next_probe_at = jq_circuits_next_retry(now);
	jq_db_commit();
}

/*
 * Looks at the running jobs near the heads of their lanes at every poll and
 * when an executor has left some behind, and at every live row now and then:
 * with a long queue that takes its time, and must not become all that the
 * scheduler does.
 */
static void
watch_running(void)
{
	static uint32 deaths_seen = 0;
	uint32		deaths = jq_shared_deaths();
	int64		now = jq_clock_ms();
	bool		is_thorough = now >= thorough_at;
	int64		rested_at;

	if (now < watch_at && deaths == deaths_seen)
		return;
	deaths_seen = deaths;
	(void) jq_worker_protect(jq_maintenance_watch_running, &is_thorough);
	rested_at = jq_clock_ms();
	rested_at += (rested_at - now) * WATCH_REST;
	watch_at = now + jq_config_poll_interval;
	if (is_thorough)
		thorough_at = Max(now + THOROUGH_INTERVAL_MS, rested_at);
	else
		watch_at = Max(watch_at, Min(rested_at, now + MAX_WATCH_REST_MS));
}

/*
 * Every jobqueue.alert_interval, and soon after something has failed: how soon
 * is up to the poll interval.  However many jobs there are to look at, it is
 * not what the scheduler does most of the time.
 */
static void
watch_alerts(void)
{
	static uint64 failures_seen = 0;
	static int64 rested_at = 0;
	uint64		failures = jq_failure_counts_generation();
	int64		now = jq_clock_ms();

	if (!jq_config_alerts_enabled || now < rested_at ||
		(now < alerts_at && failures == failures_seen))
		return;
	failures_seen = failures;
	(void) jq_worker_protect(evaluate_alerts, NULL);
	(void) jq_worker_protect(report_failed_alerts, NULL);
	rested_at = jq_clock_ms();
	rested_at += Max((rested_at - now) * ALERTS_REST,
					 Min(ALERTS_REST_MS, jq_config_alert_interval));
	alerts_at = Max(now + jq_config_alert_interval, rested_at);
}

static void
evaluate_alerts(void *arg)
{
	jq_db_begin("evaluating alert rules");
	(void) jq_alerts_evaluate(GetCurrentTimestamp());
	jq_db_commit();
}

static void
report_failed_alerts(void *arg)
{
	static TimestampTz reported = DT_NOBEGIN;

	if (reported == DT_NOBEGIN || reported > GetCurrentTimestamp())
		reported = GetCurrentTimestamp();
	jq_db_begin("looking for alerts that were not delivered");
	reported = jq_alerts_report_failed(reported);
	jq_db_commit();
}
