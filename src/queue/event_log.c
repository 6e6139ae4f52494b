/*-------------------------------------------------------------------------
 *
 * event_log.c
 *	  What happens to jobs and circuits, in the server log.
 *
 * Lines wait in memory of this backend, with the nesting level of the
 * (sub)transaction that made them.  The callback that writes them runs after
 * the commit, where nothing may fail: so they are complete before, and it only
 * hands them to the logger, as the server does with its own warnings there.
 *
 * The callbacks exist from the first line on.  They are registered after those
 * of hints.c, and therefore called before: that a job was enqueued is logged
 * before anybody is woken to start it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/event_line.h"
#include "base/json.h"
#include "queue/event_log.h"
#include "queue/job_types.h"

#define MAX_LINES 10000			/* of one transaction; the rest is counted */
#define USUAL_LINES 64
#define MAX_MESSAGE 1000		/* bytes, of job_log() */

typedef struct Note
{
	int			nest_level;
	char	   *line;			/* NULL: there would be more */
	int64		dropped;		/* how many */
} Note;

static MemoryContext context = NULL;	/* of the notes and their lines */
static Note *notes = NULL;
static int	nnotes = 0;
static int	max_notes = 0;
static int	nlines = 0;

static bool is_wanted(JqEventKind kind, int level);
static void end_line(JqEventLine *line, JqEventKind kind,
					 const char *job_type);
static bool begin_named(JqEventLine *line, const char *name, int level,
						const JqEventSubject *subject);
static bool begin_of_job(JqEventLine *line, JqEventKind kind, int level,
						 const JqJob *job, const pg_uuid_t *worker);
static void log_dead_letter(const JqJob *job);
static void put_attempt(JqEventLine *line, int attempt, int max_attempts);
static void put_response(JqEventLine *line, const char *job_type,
						 Datum response);
static void keep_line(JqEventLine *line);
static void drop_line(void);
static Note *new_note(void);
static void prepare_notes(void);
static void write_notes(void);
static void forget_notes(void);
static void end_transaction(XactEvent event, void *arg);
static void end_subtransaction(SubXactEvent event, SubTransactionId mySubid,
							   SubTransactionId parentSubid, void *arg);

/* ---- jobs ---- */

void
jq_event_log_enqueued(TupleTableSlot *row)
{
	JqEventLine line;
	JqJob		job;

	jq_job_read(row, &job);
	if (begin_of_job(&line, JQ_EVENT_ENQUEUED, LOG, &job, NULL))
		end_line(&line, JQ_EVENT_ENQUEUED, job.job_type);
}

void
jq_event_log_requeued(const JqJob *job)
{
	JqEventLine line;

	if (begin_of_job(&line, JQ_EVENT_REQUEUED, LOG, job, NULL))
		end_line(&line, JQ_EVENT_REQUEUED, job->job_type);
}

void
jq_event_log_claim(const JqJob *job, const pg_uuid_t *worker)
{
	JqEventLine line;

	if (!begin_of_job(&line, JQ_EVENT_START, LOG, job, worker))
		return;
	put_attempt(&line, job->attempts + 1, job->max_attempts);
	end_line(&line, JQ_EVENT_START, job->job_type);
}

void
jq_event_log_run(const JqJob *job, const JqRun *run)
{
	JqEventKind kind;
	int			level;
	JqEventLine line;

	if (!jq_event_log_has_all() && strcmp(run->status, "completed") == 0)
		return;
	kind = jq_event_of_run(run->status);
	level = kind < JQ_EVENT_FAILED ? LOG : run->will_retry ? WARNING : ERROR;
	if (begin_of_job(&line, kind, level, job,
					 job->is_held ? &job->locked_by : NULL))
	{
		put_attempt(&line, job->attempts, job->max_attempts);
		if (job->locked_at != DT_NOBEGIN)
			jq_event_line_put_us(&line, "durationMs",
								 run->finished_at - job->locked_at);
		if (kind == JQ_EVENT_FAILED || kind == JQ_EVENT_EXPIRED)
			jq_event_line_put_bool(&line, "willRetry", run->will_retry);
		if (run->response != 0)
			put_response(&line, job->job_type, run->response);
		if (run->error != NULL)
			jq_event_line_put_error(&line, run->error, run->reason_length);
		end_line(&line, kind, job->job_type);
	}
	if (run->is_dead_letter)
		log_dead_letter(job);
}

void
jq_event_log_end(const JqJob *job, JqStatus status, const char *error)
{
	bool		is_failure = status == JQ_STATUS_FAILED ||
	status == JQ_STATUS_ERROR;
	JqEventKind kind = is_failure ? JQ_EVENT_FAILED :
	status == JQ_STATUS_CANCELLED ? JQ_EVENT_CANCELLED : JQ_EVENT_COMPLETED;
	JqEventLine line;

	if (begin_of_job(&line, kind, is_failure ? ERROR : LOG, job, NULL))
	{
		if (is_failure)
			jq_event_line_put_bool(&line, "willRetry", false);
		if (error != NULL)
			jq_event_line_put_error(&line, error, 0);
		end_line(&line, kind, job->job_type);
	}
	if (status == JQ_STATUS_ERROR)
		log_dead_letter(job);
}

static void
log_dead_letter(const JqJob *job)
{
	JqEventLine line;

	if (!begin_of_job(&line, JQ_EVENT_DEAD_LETTER, ERROR, job,
					  job->is_held ? &job->locked_by : NULL))
		return;
	put_attempt(&line, job->attempts, job->max_attempts);
	end_line(&line, JQ_EVENT_DEAD_LETTER, job->job_type);
}

void
jq_event_log_message(const JqJob *job, const char *level, const char *message)
{
	int			elevel = strcmp(level, "debug") == 0 ? DEBUG1 :
	strcmp(level, "warning") == 0 ? WARNING :
	strcmp(level, "error") == 0 ? ERROR : LOG;
	JqEventSubject subject = {.job_id = job->id,.job_type = job->job_type,
	.stage = job->stage};
	JqEventLine line;

	if (!jq_event_log_has_all() || !jq_config_logs(elevel))
		return;
	if (job->has_correlation_id)
		subject.correlation_id = TextDatumGetCString(job->correlation_id);
	if (job->is_held)
		subject.worker_id = &job->locked_by;
	if (!begin_named(&line, "worker.job.log", elevel, &subject))
		return;
	put_attempt(&line, job->attempts, job->max_attempts);
	jq_event_line_put_text(&line, "message", message, MAX_MESSAGE);
	keep_line(&line);
}

static bool
begin_of_job(JqEventLine *line, JqEventKind kind, int level, const JqJob *job,
			 const pg_uuid_t *worker)
{
	JqEventSubject subject = {
		.job_id = job->id,.job_type = job->job_type,.stage = job->stage,
		.worker_id = worker
	};

	if (!is_wanted(kind, level))
		return false;
	if (job->has_correlation_id)
		subject.correlation_id = TextDatumGetCString(job->correlation_id);
	return begin_named(line, jq_event_name(kind), level, &subject);
}

static void
put_attempt(JqEventLine *line, int attempt, int max_attempts)
{
	jq_event_line_put_integer(line, "attempt", attempt);
	jq_event_line_put_integer(line, "maxAttempts", max_attempts);
}

/* Of the response to an HTTP job: its status, and nothing that it says. */
static void
put_response(JqEventLine *line, const char *job_type, Datum response)
{
	JsonbValue *status = jq_json_find(DatumGetJsonbP(response), "status");
	const char *endpoint = jq_job_type(job_type)->endpoint;

	if (endpoint != NULL)
		jq_event_line_put_text(line, "endpoint", endpoint, MAX_MESSAGE);
	if (status != NULL && status->type == jbvNumeric)
		jq_event_line_put_integer(line, "status",
								  DatumGetInt32(DirectFunctionCall1(numeric_int4,
																	NumericGetDatum(status->val.numeric))));
}

/* ---- circuits ---- */

void
jq_event_log_circuit(const JqCircuitEvent *event)
{
	JqEventSubject subject = {
		.job_id = event->job_id,.job_type = event->job_type,
		.stage = event->stage
	};
	int			level = event->kind == JQ_EVENT_CIRCUIT_OPEN ? WARNING : LOG;
	JqEventLine line;

	if (!is_wanted(event->kind, level) ||
		!begin_named(&line, jq_event_name(event->kind), level, &subject))
		return;
	jq_event_line_put_text(&line, "cause", event->cause, NAMEDATALEN);
	if (event->failures > 0)
		jq_event_line_put_integer(&line, "failures", event->failures);
	if (event->cooldown_us > 0)
		jq_event_line_put_integer(&line, "cooldownMs",
								  event->cooldown_us / 1000);
	end_line(&line, event->kind, event->job_type);
}

/* ---- lines ---- */

static bool
is_wanted(JqEventKind kind, int level)
{
	return jq_config_logs(level) &&
		(jq_event_log_has_all() ||
		 (jq_event_log_is_on() && kind >= JQ_EVENT_FAILED));
}

/* False: there are too many. */
static bool
begin_named(JqEventLine *line, const char *name, int level,
			const JqEventSubject *subject)
{
	prepare_notes();
	if (nlines >= MAX_LINES)
	{
		drop_line();
		return false;
	}
	jq_event_line_begin(line, jq_job_type(subject->job_type)->event_prefix,
						name, level, subject);
	return true;
}

/* What the job type says of such an event comes last. */
static void
end_line(JqEventLine *line, JqEventKind kind, const char *job_type)
{
	const JqJobType *type = jq_job_type(job_type);

	if (type->event_messages != NULL && type->event_messages[kind] != NULL)
		jq_event_line_put_text(line, "message", type->event_messages[kind],
							   JQ_EVENT_MAX_MESSAGE);
	keep_line(line);
}

/* ---- notes ---- */

static void
prepare_notes(void)
{
	if (context != NULL)
		return;
	context = AllocSetContextCreate(TopMemoryContext, "jobqueue event log",
									ALLOCSET_DEFAULT_SIZES);
	RegisterXactCallback(end_transaction, NULL);
	RegisterSubXactCallback(end_subtransaction, NULL);
}

static void
keep_line(JqEventLine *line)
{
	char	   *string = jq_event_line_end(line);
	char	   *copy = MemoryContextStrdup(context, string);

	new_note()->line = copy;
	nlines++;
	pfree(string);
}

static void
drop_line(void)
{
	Note	   *last = nnotes > 0 ? &notes[nnotes - 1] : NULL;

	if (last == NULL || last->line != NULL ||
		last->nest_level != GetCurrentTransactionNestLevel())
		last = new_note();
	last->dropped++;
}

static Note *
new_note(void)
{
	if (nnotes == max_notes)
	{
		int			wanted = Max(max_notes * 2, USUAL_LINES);

		if (notes == NULL)
			notes = MemoryContextAlloc(context, sizeof(Note) * wanted);
		else
			notes = repalloc_huge(notes, sizeof(Note) * wanted);
		max_notes = wanted;
	}
	memset(&notes[nnotes], 0, sizeof(Note));
	notes[nnotes].nest_level = GetCurrentTransactionNestLevel();
	return &notes[nnotes++];
}

/* After a commit; what is said of lines that are missing needs no memory. */
static void
write_notes(void)
{
	int64		dropped = 0;

	for (int i = 0; i < nnotes; i++)
	{
		if (notes[i].line != NULL)
			jq_event_line_emit(notes[i].line);
		dropped += notes[i].dropped;
	}
	if (dropped > 0)
		ereport(LOG_SERVER_ONLY,
				(errmsg_internal("jobqueue did not log " INT64_FORMAT " more events of this transaction",
								 dropped),
				 errhidestmt(true), errhidecontext(true)));
}

static void
forget_notes(void)
{
	notes = NULL;
	nnotes = 0;
	max_notes = 0;
	nlines = 0;
	MemoryContextReset(context);
}

static void
end_transaction(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	if (nnotes == 0)
		return;
	if (event == XACT_EVENT_COMMIT)
		write_notes();
	forget_notes();
}

static void
end_subtransaction(SubXactEvent event, SubTransactionId mySubid,
				   SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
		while (nnotes > 0 && notes[nnotes - 1].nest_level >= level)
		{
			if (notes[--nnotes].line == NULL)
				continue;
			pfree(notes[nnotes].line);
			nlines--;
		}
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (int i = nnotes - 1; i >= 0 && notes[i].nest_level >= level; i--)
			notes[i].nest_level = level - 1;
}
