/*-------------------------------------------------------------------------
 *
 * watch.c
 *	  Looks at the bodies of jobs while they run, and cuts them off.
 *
 * The handler runs inside a signal: it reads and sets flags, and leaves the
 * rest to CHECK_FOR_INTERRUPTS().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "body/watch.h"

#include "access/xact.h"
#include "base/config.h"
#include "base/shared_state.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#define WATCH_MS 100			/* how often; and how long a batch may last */

/* Snapshots of others get slow when a backend has more than 64 of these. */
#define MAX_SUBTRANSACTION_IDS 48

static TimeoutId watch_timeout;
static volatile sig_atomic_t body_is_running = false;
static volatile sig_atomic_t body_is_in_batch = false;
static volatile sig_atomic_t batch_is_over = false;
static volatile sig_atomic_t cut = JQ_CUT_NONE;
static volatile TimestampTz deadline = 0;	/* of the body; 0: none */
static volatile TimestampTz cut_at = 0;
static volatile TimestampTz shutdown_at = 0;

static void look(void);
static void cut_off(JqCut reason, TimestampTz now);
static void insist(TimestampTz now);
static void insist_gently(TimestampTz now);
static void count_subtransactions(SubXactEvent event, SubTransactionId mySubid,
								  SubTransactionId parentSubid, void *arg);

void
jq_watch_init(void)
{
	watch_timeout = RegisterTimeout(USER_TIMEOUT, look);
	RegisterSubXactCallback(count_subtransactions, NULL);
}

/* As SignalHandlerForShutdownRequest, and remembers when it was. */
void
jq_watch_request_shutdown(SIGNAL_ARGS)
{
	int			save_errno = errno;

	if (!ShutdownRequestPending)
		shutdown_at = GetCurrentTimestamp();
	ShutdownRequestPending = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

void
jq_watch_begin(void)
{
	batch_is_over = false;
	enable_timeout_every(watch_timeout,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 WATCH_MS),
						 WATCH_MS);
}

void
jq_watch_end(void)
{
	jq_watch_leave_body();
	disable_timeout(watch_timeout, false);
}

void
jq_watch_enter_body(bool is_in_batch, int timeout_ms)
{
	QueryCancelPending = false;
	cut = JQ_CUT_NONE;
	cut_at = 0;
	deadline = 0;
	body_is_in_batch = is_in_batch;
	/* In a batch the end of the batch comes first. */
	if (timeout_ms > 0 && (!is_in_batch || timeout_ms < WATCH_MS))
	{
		deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
											   timeout_ms);
		enable_timeout_after(STATEMENT_TIMEOUT, timeout_ms);
	}
	body_is_running = true;
}

/* A cancellation that comes too late is forgotten. */
void
jq_watch_leave_body(void)
{
	body_is_running = false;
	if (deadline != 0)
		disable_timeout(STATEMENT_TIMEOUT, false);
	deadline = 0;
	QueryCancelPending = false;
}

JqCut
jq_watch_cut(void)
{
	return (JqCut) cut;
}

bool
jq_watch_batch_is_over(void)
{
	return batch_is_over ||
		MyProc->subxidStatus.overflowed ||
		MyProc->subxidStatus.count >= MAX_SUBTRANSACTION_IDS;
}

/* Timeout handler. */
static void
look(void)
{
	TimestampTz now = GetCurrentTimestamp();

	batch_is_over = true;
	if (!body_is_running)
		return;
	if (cut > JQ_CUT_BATCH || (deadline != 0 && now > deadline))
		insist(now);
	else if (jq_shared_job_is_cancelled())
		cut_off(JQ_CUT_CANCELLED, now);
	else if (ShutdownRequestPending &&
			 now >= TimestampTzPlusMilliseconds(shutdown_at,
												jq_config_shutdown_timeout))
		cut_off(JQ_CUT_SHUTDOWN, now);
	else if (cut == JQ_CUT_BATCH)
		insist_gently(now);
	else if (body_is_in_batch)
		cut_off(JQ_CUT_BATCH, now);
}

static void
cut_off(JqCut reason, TimestampTz now)
{
	cut = reason;
	cut_at = now;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

/*
 * A body may catch a cancellation: it is cancelled again.  After the grace
 * its process is to end; what does not look for interrupts cannot be ended at
 * all, and is only shown.
 */
static void
insist(TimestampTz now)
{
	TimestampTz since = cut_at != 0 ? cut_at : deadline;

	InterruptPending = true;
	QueryCancelPending = true;
	if (now >= TimestampTzPlusMilliseconds(since, jq_config_cancel_grace))
	{
		ProcDiePending = true;
		jq_shared_report_stuck();
	}
	SetLatch(MyLatch);
}

/*
 * Nobody wants the end of a body that is too long for its batch.  When it goes
 * on through all of the grace it is left in peace, to run again alone.
 */
static void
insist_gently(TimestampTz now)
{
	if (now < TimestampTzPlusMilliseconds(cut_at, jq_config_cancel_grace))
	{
		InterruptPending = true;
		QueryCancelPending = true;
		SetLatch(MyLatch);
	}
}

/* PL/pgSQL's EXCEPTION blocks are subtransactions, too. */
static void
count_subtransactions(SubXactEvent event, SubTransactionId mySubid,
					  SubTransactionId parentSubid, void *arg)
{
	if (event == SUBXACT_EVENT_START_SUB && body_is_running &&
		body_is_in_batch && cut == JQ_CUT_NONE && jq_watch_batch_is_over())
		cut_off(JQ_CUT_BATCH, GetCurrentTimestamp());
}
