/*-------------------------------------------------------------------------
 *
 * monitor.c
 *	  Answers HTTP requests for health, metrics and the dashboard.
 *
 *	  One process for each entry of jobqueue.monitor, connected as its role:
 *	  whoever can connect to the port can read what that role can read, and
 *	  nothing else.  What is answered is up to two SQL functions, which run as
 *	  the role, in a short transaction each, read-only unless it is an action.
 *	  While nobody asks nothing is executed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/worker.h"

#include "access/xact.h"
#include "base/catalog.h"
#include "base/compat.h"
#include "base/config.h"
#include "base/db.h"
#include "base/json.h"
#include "base/monitor_list.h"
#include "base/worker_troubles.h"
#include "body/session.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "http/server.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "worker/monitor_page.h"
#include "worker/monitor_request.h"
#include "worker/monitors.h"

#define WAIT_EVENT "JobqueueMonitorMain"
#define HEARTBEAT_MS 5000		/* between two signs of life, while idle */
#define LISTEN_AGAIN_MS 1000
#define READ_TIMEOUT_MS 5000	/* of one answer's SQL */
#define ACTION_TIMEOUT_MS 30000

/* One of the two SQL functions. */
typedef struct Statement
{
	const char *format;			/* of its text; %s is the schema */
	int			nargs;
	Oid			types[3];
	SPIPlanPtr	plan;
	uint64		generation;		/* of the catalog that it was made for */
} Statement;

/* A request on its way through the database. */
typedef struct Asking
{
	const JqHttpCall *call;
	const JqMonitorRequest *request;
	JqHttpAnswer *answer;
	MemoryContext context;		/* of the answer */
	bool		is_absent;		/* the extension is */
	const char *problem;		/* of the role; NULL: none */
} Asking;

/* A request and its answer. */
typedef struct Turn
{
	const JqHttpCall *call;
	JqHttpAnswer answer;
} Turn;

static Statement get_statement = {
	.format = "SELECT * FROM %s.monitor_get($1, $2, $3)",
	.nargs = 3,.types = {TEXTOID, JSONBOID, TEXTOID}
};
static Statement post_statement = {
	.format = "SELECT * FROM %s.monitor_post($1, $2, $3)",
	.nargs = 3,.types = {TEXTOID, JSONBOID, TEXTOID}
};

static const JqMonitorEntry *entry = NULL;
static bool is_listening = false;
static bool must_exit = false;	/* it would be another process's job now */
static volatile sig_atomic_t is_asking = false;

static void request_shutdown(SIGNAL_ARGS);
static void follow_settings(void);
static void read_page(void *arg);
static void listen_if_possible(void);
static void serve(void);
static void answer_call(JqHttpCall *call);
static void make_answer(void *arg);
static void ask(const JqHttpCall *call, const JqMonitorRequest *request,
				JqHttpAnswer *answer);
static void ask_database(void *arg);
static const char *role_problem(void);
static void execute(Asking *asking, const JqCatalog *catalog);
static SPIPlanPtr plan_of(Statement *statement, const JqCatalog *catalog);
static char *to_server(const char *string);
static Datum query_of(const JqHttpTarget *target);
static Datum body_of(const JqHttpCall *call);
static void take_answer(Asking *asking);
static char *take_text(int column, MemoryContext context);
static bool is_unexpected(const ErrorData *error);
static void answer_failure(const ErrorData *error, bool is_action,
						   JqHttpAnswer *answer);
static void convert_to_utf8(void *arg);
static long wait_ms(void);

void
jq_monitor_main(Datum arg)
{
	jq_worker_begin(JQ_WORKER_MONITOR, request_shutdown);
	jq_worker_connect(jq_worker_role(), 0);
	jq_worker_pin_settings();
	jq_worker_report_start(NULL);
	follow_settings();

	while (!ShutdownRequestPending && !must_exit && !jq_shared_should_retire())
	{
		jq_worker_begin_cycle();
		if (!is_listening)
			listen_if_possible();
		if (is_listening)
			serve();
		jq_shared_report_cycle();
		if (must_exit)
			break;
		jq_worker_wait(wait_ms(), WAIT_EVENT);
		if (jq_worker_was_reloaded())
			follow_settings();
	}
	if (is_listening && jq_config_logs(LOG))
		ereport(LOG, (errmsg("jobqueue monitor stopped")));
	proc_exit(0);				/* the launcher decides who comes back */
}

/* SIGTERM: a statement that is running is cancelled. */
static void
request_shutdown(SIGNAL_ARGS)
{
	int			save_errno = errno;

	ShutdownRequestPending = true;
	if (is_asking)
	{
		InterruptPending = true;
		QueryCancelPending = true;
	}
	SetLatch(MyLatch);
	errno = save_errno;
}

/* Where its entry has gone, or says something else, so does this process. */
static void
follow_settings(void)
{
	static MemoryContext entry_context = NULL;
	MemoryContext old;

	if (entry_context == NULL)
		entry_context = AllocSetContextCreate(TopMemoryContext,
											  "jobqueue monitor",
											  ALLOCSET_SMALL_SIZES);
	MemoryContextReset(entry_context);
	old = MemoryContextSwitchTo(entry_context);
	entry = jq_monitor_list_find(jq_worker_monitor());
	MemoryContextSwitchTo(old);
	if (entry == NULL)
		must_exit = true;
	else
		(void) jq_worker_protect(read_page, NULL);
}

/* In a transaction, whose end closes what an error leaves open. */
static void
read_page(void *arg)
{
	jq_catalog_begin();
	jq_monitor_page_read(NULL);
	jq_catalog_commit();
}

/* Whoever has the port may give it up: so it is tried again and again. */
static void
listen_if_possible(void)
{
	static bool was_said = false;
	const char *problem;

	if (entry == NULL)
		return;
	problem = jq_http_server_start(entry->address, entry->port);
	if (problem != NULL)
	{
		jq_troubles_note(JQ_WORKER_MONITOR, MyDatabaseId,
						 JQ_TROUBLE_NOT_SERVING, 0);
		if (!was_said && jq_config_logs(WARNING))
			ereport(WARNING,
					(errmsg("jobqueue monitor for database \"%s\" cannot listen on address \"%s\", port %d yet: %s",
							entry->database, entry->address, entry->port,
							problem)));
		was_said = true;
		return;
	}
	is_listening = true;
	jq_troubles_end(JQ_WORKER_MONITOR, MyDatabaseId, JQ_TROUBLE_NOT_SERVING);
	jq_worker_watch(jq_http_server_fd());
	jq_shared_report_state(JQ_STATE_IDLE);
	if (jq_config_logs(LOG))
		ereport(LOG,
				(errmsg("jobqueue monitor for database \"%s\" listens on address \"%s\", port %d",
						entry->database, entry->address, entry->port)));
}

/* One request at a time; in between others are read, and answers sent. */
static void
serve(void)
{
	JqHttpCall *call;

	jq_http_server_run();
	while (!ShutdownRequestPending && !must_exit &&
		   (call = jq_http_server_next()) != NULL)
	{
		jq_worker_begin_cycle();
		jq_shared_report_state(JQ_STATE_RUNNING);
		answer_call(call);
		jq_shared_report_state(JQ_STATE_IDLE);
		jq_http_server_run();
		CHECK_FOR_INTERRUPTS();
	}
}

/* Each gets an answer, whatever happens: its client waits for one. */
static void
answer_call(JqHttpCall *call)
{
	static const char failure[] = "{\"error\": \"the request could not be answered\"}\n";
	Turn		turn = {.call = call};

	if (!jq_worker_protect(make_answer, &turn))
	{
		memset(&turn.answer, 0, sizeof(turn.answer));
		turn.answer.status = 500;
		turn.answer.content_type = "application/json; charset=utf-8";
		turn.answer.body = failure;
		turn.answer.body_size = strlen(failure);
		turn.answer.policy = JQ_MONITOR_POLICY;
	}
	jq_http_server_answer(call, &turn.answer);
}

/* A unit of work, with others in it. */
static void
make_answer(void *arg)
{
	Turn	   *turn = (Turn *) arg;
	JqMonitorRequest request;

	if (jq_monitor_judge(turn->call, entry, &request, &turn->answer))
		ask(turn->call, &request, &turn->answer);
}

static void
ask(const JqHttpCall *call, const JqMonitorRequest *request,
	JqHttpAnswer *answer)
{
	Asking		asking = {.call = call,.request = request,.answer = answer};
	ErrorData  *error;

	asking.context = CurrentMemoryContext;
	is_asking = true;
	error = jq_worker_try(ask_database, &asking, is_unexpected);
	is_asking = false;
	disable_timeout(STATEMENT_TIMEOUT, false);
	QueryCancelPending = false;

	/* An action may run the code of a job, which may leave something behind. */
	if (request->is_action)
		(void) jq_worker_protect(jq_session_reset, NULL);

	if (error != NULL)
		answer_failure(error, request->is_action, answer);
	else if (asking.problem != NULL)
	{
		jq_monitor_answer_error(answer, 503, "the monitor cannot work as its role",
								NULL, NULL);
		must_exit = true;		/* the launcher says what is wrong */
	}
	else if (asking.is_absent)
		jq_monitor_answer_error(answer, 503,
								"the database does not have the extension jobqueue",
								"Use CREATE EXTENSION jobqueue.", NULL);
}

/* A unit of work. */
static void
ask_database(void *arg)
{
	Asking	   *asking = (Asking *) arg;
	bool		is_action = asking->request->is_action;
	const JqCatalog *catalog;

	jq_db_begin(is_action ? "taking an action" : "answering a request");
	enable_timeout_after(STATEMENT_TIMEOUT,
						 is_action ? ACTION_TIMEOUT_MS : READ_TIMEOUT_MS);
	XactReadOnly = !is_action;
	asking->problem = role_problem();
	catalog = jq_catalog_if_present();
	asking->is_absent = catalog == NULL;
	if (asking->problem == NULL && catalog != NULL)
		execute(asking, catalog);
	disable_timeout(STATEMENT_TIMEOUT, false);
	jq_db_commit();
}

/* A role may lose what it had when the process was started. */
static const char *
role_problem(void)
{
	const char *problem = jq_monitor_role_problem(jq_worker_role());

	if (problem == NULL &&
		object_aclcheck(DatabaseRelationId, MyDatabaseId, jq_worker_role(),
						ACL_CONNECT) != ACLCHECK_OK)
		problem = "its role has no privilege to connect to its database";
	return problem;
}

static void
execute(Asking *asking, const JqCatalog *catalog)
{
	const JqHttpCall *call = asking->call;
	const JqMonitorRequest *request = asking->request;
	Statement  *statement = request->is_action ? &post_statement :
	&get_statement;
	SPIPlanPtr	plan = plan_of(statement, catalog);
	Datum		values[3];
	char		nulls[] = "   ";
	const char *accept = call->accept == NULL ? "" : call->accept;

	values[0] = CStringGetTextDatum(to_server(request->target.path));
	if (request->is_action)
	{
		values[1] = body_of(call);
		values[2] = CStringGetTextDatum(call->client);
	}
	else
	{
		values[1] = query_of(&request->target);
		values[2] = CStringGetTextDatum(to_server(accept));
	}
	if (SPI_execute_plan(plan, values, nulls, false, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "a function of the monitor returned no row");
	take_answer(asking);
}

/* The plan is made again when the extension is another one. */
static SPIPlanPtr
plan_of(Statement *statement, const JqCatalog *catalog)
{
	uint64		generation = catalog->generation;
	SPIPlanPtr	plan;

	if (statement->plan != NULL && statement->generation == generation)
		return statement->plan;
	if (statement->plan != NULL)
		SPI_freeplan(statement->plan);
	statement->plan = NULL;
	plan = SPI_prepare(psprintf(statement->format, catalog->schema_name),
					   statement->nargs, statement->types);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare a statement of the monitor");
	statement->plan = plan;
	statement->generation = generation;
	return plan;
}

/* Raises 22021 for bytes that are no text. */
static char *
to_server(const char *string)
{
	return pg_any_to_server(string, strlen(string), PG_UTF8);
}

static Datum
query_of(const JqHttpTarget *target)
{
	JsonbParseState *state = NULL;

	jq_json_begin(&state);
	for (int i = 0; i < target->nparameters; i++)
		jq_json_put_text(&state, to_server(target->parameters[i].name),
						 to_server(target->parameters[i].value));
	return JsonbPGetDatum(jq_json_end(&state));
}

/* Raises 22P02 for what is no JSON; without a body it is an empty object. */
static Datum
body_of(const JqHttpCall *call)
{
	char	   *string;

	if (call->body_size == 0)
		return DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
	if (memchr(call->body, '\0', call->body_size) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("the body must be JSON")));
	string = pnstrdup(call->body, call->body_size);

	return DirectFunctionCall1(jsonb_in, CStringGetDatum(to_server(string)));
}

/* Reads status, content_type and body. */
static void
take_answer(Asking *asking)
{
	JqHttpAnswer *answer = asking->answer;
	bool		isnull;
	Datum		status = SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &isnull);

	answer->status = isnull ? 0 : DatumGetInt32(status);
	if (answer->status < 200 || answer->status > 599)
		elog(ERROR, "a function of the monitor returned no valid status");
	answer->content_type = take_text(2, asking->context);
	answer->body = take_text(3, asking->context);
	answer->body_size = strlen(answer->body);
	answer->policy = JQ_MONITOR_POLICY;
}

/* In UTF-8, in a context that outlives the transaction. */
static char *
take_text(int column, MemoryContext context)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, column, &isnull);
	char	   *string = isnull ? "" : TextDatumGetCString(value);

	string = pg_server_to_any(string, strlen(string), PG_UTF8);
	return MemoryContextStrdup(context, string);
}

/*
 * What clients cause by what they ask for would fill the log, and alert people
 * of a worker that fails.  So would a table that somebody has locked: whoever
 * asks is told.
 */
static bool
is_unexpected(const ErrorData *error)
{
	int			category = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	return category != ERRCODE_DATA_EXCEPTION &&
		category != ERRCODE_PROGRAM_LIMIT_EXCEEDED &&
		error->sqlerrcode != ERRCODE_RAISE_EXCEPTION &&
		error->sqlerrcode != ERRCODE_INSUFFICIENT_PRIVILEGE &&
		error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
		error->sqlerrcode != ERRCODE_QUERY_CANCELED;
}

/*
 * Whoever has the token may know what went wrong; others are told what is
 * about their own request only.
 */
static void
answer_failure(const ErrorData *error, bool is_action, JqHttpAnswer *answer)
{
	int			code = error->sqlerrcode;
	int			category = ERRCODE_TO_CATEGORY(code);
	const char *message = error->message;
	const char *hint = error->hint;
	int			status = is_action ? 409 : 500;

	if (category == ERRCODE_DATA_EXCEPTION ||
		category == ERRCODE_PROGRAM_LIMIT_EXCEEDED)
		status = 400;
	else if (code == ERRCODE_INSUFFICIENT_PRIVILEGE)
	{
		status = 403;
		if (hint == NULL)
			hint = "grant_job_role() gives the monitor's role the rights of an observer or an operator.";
	}
	else if (code == ERRCODE_QUERY_CANCELED ||
			 code == ERRCODE_LOCK_NOT_AVAILABLE)
		status = 503;
	else if (category == ERRCODE_INTERNAL_ERROR)
		status = 500;
	if (!is_action && status == 500)
	{
		message = "the request could not be answered";
		hint = "The log of the server says why.";
	}
	jq_monitor_answer_error(answer, status, message, hint,
							unpack_sql_state(code));
	if (jq_worker_try(convert_to_utf8, answer, is_unexpected) != NULL)
		jq_monitor_answer_error(answer, status,
								"the request could not be answered", NULL,
								unpack_sql_state(code));
}

/* A unit of work: conversions need a transaction. */
static void
convert_to_utf8(void *arg)
{
	JqHttpAnswer *answer = (JqHttpAnswer *) arg;
	MemoryContext context = CurrentMemoryContext;
	char	   *body;

	jq_catalog_begin();
	body = pg_server_to_any(answer->body, answer->body_size, PG_UTF8);
	answer->body = MemoryContextStrdup(context, body);
	answer->body_size = strlen(answer->body);
	jq_catalog_commit();
}

static long
wait_ms(void)
{
	long		wait;

	if (!is_listening)
		return LISTEN_AGAIN_MS;
	wait = jq_http_server_wait_ms();
	return wait < 0 ? HEARTBEAT_MS : Min(wait, HEARTBEAT_MS);
}
