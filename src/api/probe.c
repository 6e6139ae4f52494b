/*-------------------------------------------------------------------------
 *
 * probe.c
 *	  test_endpoint(): one request, and how long each phase of it took.
 *
 * The dispatcher of the database sends it; this session waits, inside the
 * statement of its caller.  What the transaction has not committed yet the
 * dispatcher cannot see.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "api/arguments.h"
#include "base/catalog.h"
#include "base/compat.h"
#include "base/names.h"
#include "base/ownership.h"
#include "base/probe.h"
#include "base/scope.h"
#include "base/shared_state.h"
#include "base/statement.h"
#include "http/header.h"
#include "queue/activity.h"
#include "queue/endpoints.h"

PG_FUNCTION_INFO_V1(jobqueue_test_endpoint);

/* For a dispatcher to be started and to take it, and beside its time-out. */
#define TAKE_TIMEOUT_MS 10000
#define EXTRA_TIMEOUT_MS 10000

#define MAX_PHASES 5

/* How a phase ended, and when, in microseconds since the start. */
typedef struct Phase
{
	const char *name;
	int64		until_us;		/* -1: not known */
	const char *detail;			/* NULL: none */
} Phase;

typedef struct PhaseList
{
	int			count;
	Phase		phases[MAX_PHASES];
} PhaseList;

static JqStatement select_writer = {
	.text = "SELECT xmin FROM @.http_endpoints WHERE name = $1",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static int	read_request(FunctionCallInfo fcinfo, JqProbe *probe);
static void check_endpoint(const JqEndpoint *endpoint, const char *name);
static bool is_uncommitted(const char *name);
static void read_payload(FunctionCallInfo fcinfo, JqProbe *probe);
static void check_workers(const char *name);
static void leave(int code, Datum arg);
static void ask_and_wait(JqProbe *probe, int timeout_ms, JqProbeAnswer *answer);
static void check_progress(JqProbeState state, TimestampTz asked_at,
						   int timeout_ms, const char *name);
static void put_phases(ReturnSetInfo *rsinfo, const JqProbeAnswer *answer);
static void list_phases(PhaseList *list, const JqProbeAnswer *answer);
static void add_phase(PhaseList *list, const char *name, int64 until_us,
					  const char *detail);
static char *describe_connection(const JqProbeAnswer *answer);
static const char *version_name(int version);
static void put_row(ReturnSetInfo *rsinfo, const char *phase, int64 duration_us,
					const char *detail);

Datum
jobqueue_test_endpoint(PG_FUNCTION_ARGS)
{
	JqProbe    *probe = palloc0(sizeof(JqProbe));
	JqProbeAnswer *answer = palloc0(sizeof(JqProbeAnswer));
	int			timeout_ms = read_request(fcinfo, probe);

	check_workers(probe->endpoint);
	InitMaterializedSRF(fcinfo, 0);
	PG_ENSURE_ERROR_CLEANUP(leave, (Datum) 0);
	{
		ask_and_wait(probe, timeout_ms, answer);
	}
	PG_END_ENSURE_ERROR_CLEANUP(leave, (Datum) 0);
	jq_probe_leave();
	put_phases((ReturnSetInfo *) fcinfo->resultinfo, answer);
	return (Datum) 0;
}

/* ---- the request ---- */

/* Returns the time-out of the endpoint. */
static int
read_request(FunctionCallInfo fcinfo, JqProbe *probe)
{
	const JqEndpoint *endpoint;
	char	   *name;
	char	   *method = jq_argument_text(fcinfo, 1);

	jq_argument_required(fcinfo, 0, "name");
	name = jq_argument_text(fcinfo, 0);
	jq_name_check_required(name, "name");
	if (method != NULL)
		jq_method_check(method, "method");
	read_payload(fcinfo, probe);

	AcceptInvalidationMessages();
	endpoint = jq_endpoint(name);
	check_endpoint(endpoint, name);
	probe->role = GetUserId();
	strlcpy(probe->endpoint, name, sizeof(probe->endpoint));
	strlcpy(probe->method, method != NULL ? method : endpoint->method,
			sizeof(probe->method));
	return endpoint->timeout_ms;
}

static void
check_endpoint(const JqEndpoint *endpoint, const char *name)
{
	if (endpoint == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("HTTP endpoint \"%s\" does not exist", name)));
	/* What a dropped role has left is nobody's to use. */
	jq_ownership_check(GetUserId(), OidIsValid(endpoint->owner) ?
					   endpoint->owner : jq_catalog()->owner, "HTTP endpoints");
	if (is_uncommitted(name))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("HTTP endpoint \"%s\" was changed by this transaction",
						name),
				 errhint("The request is sent by another process: commit first.")));
}

static bool
is_uncommitted(const char *name)
{
	Datum		values[] = {CStringGetTextDatum(name)};
	bool		is_ours = false;

	jq_scope_enter_read_only();
	PushActiveSnapshot(GetLatestSnapshot());
	if (jq_statement_query(&select_writer, values, NULL, 1) > 0)
		is_ours = TransactionIdIsCurrentTransactionId(DatumGetTransactionId(jq_statement_value(0, 1)));
	PopActiveSnapshot();
	jq_scope_leave();
	return is_ours;
}

static void
read_payload(FunctionCallInfo fcinfo, JqProbe *probe)
{
	Jsonb	   *payload;
	char	   *json;
	Size		size;

	if (PG_ARGISNULL(2))
		return;
	payload = PG_GETARG_JSONB_P(2);
	json = JsonbToCString(NULL, &payload->root, VARSIZE(payload));
	size = strlen(json);
	if (size >= JQ_PROBE_PAYLOAD_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("payload is too large for a test"),
				 errdetail("It has %zu bytes; the limit is %d.", size,
						   JQ_PROBE_PAYLOAD_SIZE - 1)));
	probe->has_payload = true;
	memcpy(probe->payload, json, size + 1);
}

static void
check_workers(const char *name)
{
	const char *obstacle = jq_activity_obstacle();

	if (obstacle == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot test HTTP endpoint \"%s\"", name),
			 errdetail("The workers of the server, which send requests, do not serve this database: %s.",
					   obstacle),
			 jq_shared_is_attached() ?
			 errhint("The view queue_status shows whether they do.") :
			 errhint("Add jobqueue to shared_preload_libraries and restart the server.")));
}

/* ---- waiting ---- */

static void
leave(int code, Datum arg)
{
	jq_probe_leave();
}

static void
ask_and_wait(JqProbe *probe, int timeout_ms, JqProbeAnswer *answer)
{
	static uint32 wait_event = 0;
	TimestampTz asked_at = GetCurrentTimestamp();
	JqProbeState state;

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("JobqueueTestEndpoint");
	if (!jq_probe_ask(probe))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many tests of HTTP endpoints at once"),
				 errdetail("The server can run %d of them.", JQ_PROBE_SLOTS),
				 errhint("Try again when one has ended.")));
	if (jq_shared_scheduler_is_running(MyDatabaseId))
		jq_shared_wake_scheduler(MyDatabaseId);
	else
		jq_shared_mark_database(MyDatabaseId);

	while ((state = jq_probe_look(answer)) != JQ_PROBE_ANSWERED)
	{
		check_progress(state, asked_at, timeout_ms, probe->endpoint);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 500, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Raises when there is nothing to wait for any more. */
static void
check_progress(JqProbeState state, TimestampTz asked_at, int timeout_ms,
			   const char *name)
{
	TimestampTz now = GetCurrentTimestamp();

	if (state == JQ_PROBE_ABANDONED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the test of HTTP endpoint \"%s\" was given up", name),
				 errdetail("The dispatcher ended before there was an answer."),
				 errhint("Try again; the server's log may say why it ended.")));
	if (state == JQ_PROBE_WAITING &&
		TimestampDifferenceExceeds(asked_at, now, TAKE_TIMEOUT_MS))
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("no dispatcher came to test HTTP endpoint \"%s\"", name),
				 errhint("See job_workers; max_worker_processes may be too low for one more process.")));
	if (TimestampDifferenceExceeds(asked_at, now, timeout_ms + EXTRA_TIMEOUT_MS))
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("the dispatcher did not answer in time about HTTP endpoint \"%s\"",
						name),
				 errhint("See job_workers, and the server's log.")));
}

/* ---- the answer ---- */

static void
put_phases(ReturnSetInfo *rsinfo, const JqProbeAnswer *answer)
{
	PhaseList	list = {0};
	int64		since_us = 0;

	list_phases(&list, answer);
	for (int i = 0; i < list.count; i++)
	{
		const Phase *phase = &list.phases[i];

		/* Of a connection that was there, some phases took no time at all. */
		int64		until_us = Max(phase->until_us, since_us);

		put_row(rsinfo, phase->name,
				phase->until_us < 0 ? -1 : until_us - since_us, phase->detail);
		since_us = until_us;
	}
	if (answer->answered)
		put_row(rsinfo, "total", Max(answer->total_us, since_us),
				psprintf("status %d", answer->status));
}

/*
 * The phases of a request that was answered; of another one those that it went
 * through, and last the one in which it failed, until the end.
 */
static void
list_phases(PhaseList *list, const JqProbeAnswer *answer)
{
	bool		is_over = answer->answered;
	bool		is_sent = is_over || answer->total_us > 0;
	bool		is_resolved = is_over || (is_sent && answer->dns_us > 0);
	bool		is_connected = is_over || answer->address[0] != '\0';
	bool		is_ready = answer->has_tls ? answer->tls_us > 0 : is_connected;

	/* libcurl 7.88 forgets the time of a connection when its TLS fails. */
	bool		is_forgotten = is_connected && !is_over && answer->connect_us == 0;

	if (!is_sent)
		add_phase(list, "prepare", 0, NULL);
	else
		add_phase(list, "resolve", answer->dns_us,
				  answer->address[0] == '\0' ? NULL : answer->address);
	if (is_resolved)
		add_phase(list, "connect", is_forgotten ? -1 : answer->connect_us,
				  describe_connection(answer));
	if (answer->has_tls && is_connected)
		add_phase(list, "tls", answer->tls_us, NULL);
	if (is_over || is_ready)
		add_phase(list, "wait", answer->first_byte_us,
				  version_name(answer->http_version));
	if (is_over || answer->first_byte_us > 0)
		add_phase(list, "receive", answer->total_us,
				  psprintf(INT64_FORMAT " bytes", answer->bytes));
	if (!is_over)
	{
		list->phases[list->count - 1].until_us = answer->total_us;
		list->phases[list->count - 1].detail = answer->reason;
	}
}

static void
add_phase(PhaseList *list, const char *name, int64 until_us, const char *detail)
{
	Assert(list->count < MAX_PHASES);
	list->phases[list->count].name = name;
	list->phases[list->count].until_us = until_us;
	list->phases[list->count].detail = detail;
	list->count++;
}

static char *
describe_connection(const JqProbeAnswer *answer)
{
	bool		is_ipv6 = strchr(answer->address, ':') != NULL;
	StringInfoData out;

	initStringInfo(&out);
	if (answer->address[0] != '\0')
		appendStringInfo(&out, is_ipv6 ? "[%s]" : "%s", answer->address);
	if (answer->address[0] != '\0' && answer->port != 0)
		appendStringInfo(&out, ":%d", answer->port);
	appendStringInfo(&out, "%s%s connection", out.len > 0 ? ", " : "",
					 answer->reused ? "reused" : "new");
	return out.data;
}

/* NULL: not known */
static const char *
version_name(int version)
{
	switch (version)
	{
		case 10:
			return "HTTP/1.0";
		case 11:
			return "HTTP/1.1";
		case 20:
			return "HTTP/2";
		case 30:
			return "HTTP/3";
		default:
			return NULL;
	}
}

/* duration_us -1: not known */
static void
put_row(ReturnSetInfo *rsinfo, const char *phase, int64 duration_us,
		const char *detail)
{
	Datum		values[3] = {0};
	bool		nulls[3] = {false};

	values[0] = CStringGetTextDatum(phase);
	nulls[1] = duration_us < 0;
	if (duration_us >= 0)
		values[1] = NumericGetDatum(int64_div_fast_to_numeric(duration_us, 3));
	nulls[2] = detail == NULL;
	if (detail != NULL)
		values[2] = CStringGetTextDatum(detail);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}
