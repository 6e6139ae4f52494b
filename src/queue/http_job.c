/*-------------------------------------------------------------------------
 *
 * http_job.c
 *	  A claimed HTTP job: where it goes, and whether it may.
 *
 * Whatever an endpoint or a payload says was checked when it was written; but
 * what fills the placeholders was not, and settings and rights may have
 * changed.  So everything is judged once more, and what does not pass is the
 * job's refusal: its last attempt.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/catalog.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/interval.h"
#include "base/json.h"
#include "base/protect.h"
#include "base/scope.h"
#include "queue/http_reading.h"
#include "queue/job_types.h"

#define MAX_TIMEOUT_US USECS_PER_DAY
#define MAX_KEPT_CONTEXTS 512

static MemoryContext take_context(MemoryContext parent);
static void try_to_read(void (*read) (void *arg), JqHttpReading *reading);
static void read_request(void *arg);
static void read_probe(void *arg);
static bool choose_probed_endpoint(JqHttpReading *reading);
static int	timeout_ms(JqHttpReading *reading);
static bool choose_endpoint(JqHttpReading *reading);
static bool choose_built_in_endpoint(JqHttpReading *reading);
static void set_limits(JqHttpReading *reading);

/* Contexts of jobs that have ended, for others: making one costs more. */
static MemoryContext kept_contexts[MAX_KEPT_CONTEXTS];
static int	nkept_contexts = 0;

static MemoryContext
take_context(MemoryContext parent)
{
	if (nkept_contexts > 0)
		return kept_contexts[--nkept_contexts];
	return AllocSetContextCreate(parent, "jobqueue HTTP job",
								 ALLOCSET_DEFAULT_SIZES);
}

JqHttpJob *
jq_http_job_read(TupleTableSlot *slot, const pg_uuid_t *worker,
				 MemoryContext parent, bool is_careful)
{
	MemoryContext context = take_context(parent);
	MemoryContext old = MemoryContextSwitchTo(context);
	JqHttpJob  *job = palloc0(sizeof(JqHttpJob));
	JqHttpReading reading = {.job = job,.slot = slot};
	bool		isnull;

	job->context = context;
	jq_job_read(slot, &reading.row);
	job->held.job_id = reading.row.id;
	job->held.worker = *worker;
	job->held.claim_no = reading.row.claim_no;
	job->job_type = pstrdup(reading.row.job_type);
	job->stage = pstrdup(reading.row.stage);
	job->has_breaker =
		jq_job_type(job->job_type)->limits.breaker_threshold > 0;
	job->attempt = reading.row.attempts;
	job->max_attempts = reading.row.max_attempts;
	job->is_suspect = reading.row.crashes > 0;
	job->lease_until = reading.row.lease_expires_at;
	job->lease_us = reading.row.lease_expires_at - reading.row.locked_at;
	job->claimed_at = jq_clock_ms();
	job->target = "";
	job->idempotency_key =
		DatumGetCString(DirectFunctionCall1(uuid_out,
											slot_getattr(slot,
														 JQ_JOB_IDEMPOTENCY_KEY,
														 &isnull)));
	if (is_careful)
		try_to_read(read_request, &reading);
	else
		read_request(&reading);
	MemoryContextSwitchTo(old);
	return job;
}

/* What cannot be prepared is refused, unless it is the fault of the moment. */
static void
try_to_read(void (*read) (void *arg), JqHttpReading *reading)
{
	ErrorData  *fault = jq_protect(read, reading);

	if (fault != NULL)
		reading->job->refusal =
			psprintf("the request could not be prepared (%s)",
					 unpack_sql_state(fault->sqlerrcode));
}

JqHttpJob *
jq_http_job_probe(const char *endpoint, const char *method,
				  const char *payload, Oid role, MemoryContext parent)
{
	MemoryContext context = take_context(parent);
	MemoryContext old = MemoryContextSwitchTo(context);
	JqHttpJob  *job = palloc0(sizeof(JqHttpJob));
	JqHttpReading reading = {.job = job};

	job->context = context;
	job->target = pstrdup(endpoint);
	job->is_endpoint = true;
	job->request_size = 1;
	job->idempotency_key =
		DatumGetCString(DirectFunctionCall1(uuid_out,
											DirectFunctionCall1(gen_random_uuid,
																(Datum) 0)));
	reading.method = pstrdup(method);
	reading.row.owner = role;
	reading.probe_payload = payload;
	try_to_read(read_probe, &reading);
	MemoryContextSwitchTo(old);
	return job;
}

List *
jq_http_job_types(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *usable = NIL;
	List	   *names;
	ListCell   *cell;

	jq_scope_enter_read_only();
	names = jq_job_types_with_runner(JQ_RUNNER_HTTP);
	foreach(cell, names)
	{
		char	   *name = (char *) lfirst(cell);
		const JqJobType *type = jq_job_type(name);
		const JqEndpoint *endpoint = NULL;
		bool		is_built_in = strcmp(name, JQ_HTTP_JOB_TYPE) == 0;
		MemoryContext old;

		if (!type->is_enabled || !jq_config_lists(jq_config_run_job_types, name))
			continue;
		if (type->endpoint != NULL)
			endpoint = jq_endpoint(pstrdup(type->endpoint));
		if (!is_built_in && endpoint != NULL && !endpoint->is_enabled)
			continue;
		old = MemoryContextSwitchTo(context);
		usable = lappend(usable, pstrdup(name));
		MemoryContextSwitchTo(old);
	}
	jq_scope_leave();
	return usable;
}

void
jq_http_job_free(JqHttpJob *job)
{
	MemoryContext context = job->context;

	for (int i = 0; i < job->nsecrets; i++)
		jq_secret_wipe(&job->secrets[i]);
	jq_secret_wipe(&job->signing);
	jq_secret_wipe(&job->certificate);
	if (nkept_contexts == MAX_KEPT_CONTEXTS)
	{
		MemoryContextDelete(context);
		return;
	}
	MemoryContextReset(context);
	kept_contexts[nkept_contexts++] = context;
}

/* In a subtransaction. */
static void
read_request(void *arg)
{
	JqHttpReading *reading = (JqHttpReading *) arg;
	MemoryContext old = MemoryContextSwitchTo(reading->job->context);
	bool		isnull;
	Datum		payload = slot_getattr(reading->slot, JQ_JOB_PAYLOAD, &isnull);

	reading->payload = DatumGetJsonbPCopy(payload);
	if (choose_endpoint(reading))
	{
		set_limits(reading);
		jq_http_request_fill(reading);
	}
	MemoryContextSwitchTo(old);
}

/* The same for a probe. */
static void
read_probe(void *arg)
{
	JqHttpReading *reading = (JqHttpReading *) arg;
	MemoryContext old = MemoryContextSwitchTo(reading->job->context);

	if (reading->probe_payload != NULL)
		reading->payload =
			DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
											   CStringGetDatum(reading->probe_payload)));
	if (choose_probed_endpoint(reading))
	{
		set_limits(reading);
		jq_http_request_fill(reading);
	}
	MemoryContextSwitchTo(old);
}

bool
jq_http_refuse(JqHttpReading *reading, const char *reason)
{
	reading->job->refusal = pstrdup(reason);
	return false;
}

/* Where the job goes, and whether it may. */
static bool
choose_endpoint(JqHttpReading *reading)
{
	const JqJobType *type = jq_job_type(reading->row.job_type);
	const JqEndpoint *endpoint;
	Oid			sender = type->owner;

	if (strcmp(reading->row.job_type, JQ_HTTP_JOB_TYPE) == 0)
		return choose_built_in_endpoint(reading);
	reading->job->request_size = type->request_size;
	reading->job->max_linger_us = type->max_linger_us;
	endpoint = type->endpoint == NULL ? NULL : jq_endpoint(type->endpoint);
	if (endpoint == NULL)
		return jq_http_refuse(reading, "its job type has no endpoint");
	reading->endpoint = *endpoint;
	reading->has_endpoint = true;
	reading->sender = endpoint->owner;
	if (!OidIsValid(endpoint->owner) || !OidIsValid(sender) ||
		!has_privs_of_role(sender, endpoint->owner))
		return jq_http_refuse(reading, "the owner of its job type may not use the endpoint");
	return true;
}

/* The job names an endpoint of its owner's, or brings a URL of its own. */
static bool
choose_built_in_endpoint(JqHttpReading *reading)
{
	char	   *name;
	const JqEndpoint *endpoint;

	reading->call = reading->payload;
	reading->job->request_size = 1;
	name = jq_json_text(reading->call, "endpoint");
	if (!OidIsValid(reading->row.owner))
		return jq_http_refuse(reading, "its owner is gone");
	if (name == NULL)
	{
		reading->endpoint.url = jq_json_text(reading->call, "url");
		reading->endpoint.method = "POST";
		jq_endpoint_defaults(&reading->endpoint);
		reading->endpoint.is_enabled = true;
		reading->sender = reading->row.owner;
		return reading->endpoint.url != NULL ||
			jq_http_refuse(reading, "its payload has no URL");
	}
	endpoint = jq_endpoint(name);
	if (endpoint == NULL)
		return jq_http_refuse(reading, psprintf("endpoint \"%s\" does not exist", name));
	reading->endpoint = *endpoint;
	reading->has_endpoint = true;
	reading->sender = endpoint->owner;
	if (!OidIsValid(endpoint->owner) ||
		!has_privs_of_role(reading->row.owner, endpoint->owner))
		return jq_http_refuse(reading, "its owner may not use the endpoint");
	return true;
}

static bool
choose_probed_endpoint(JqHttpReading *reading)
{
	const JqEndpoint *endpoint = jq_endpoint(reading->job->target);

	if (endpoint == NULL)
		return jq_http_refuse(reading, "the endpoint does not exist");
	reading->endpoint = *endpoint;
	reading->has_endpoint = true;
	reading->sender = endpoint->owner;
	if (!OidIsValid(endpoint->owner) ||
		!has_privs_of_role(reading->row.owner, endpoint->owner))
		return jq_http_refuse(reading, "its owner is not yours");
	return true;
}

/* The job's own, else that of its type, else that of its endpoint. */
static int
timeout_ms(JqHttpReading *reading)
{
	int64		ms = reading->endpoint.timeout_ms;
	bool		isnull;
	Datum		timeout;

	if (reading->slot == NULL)
		return ms;
	timeout = slot_getattr(reading->slot, JQ_JOB_TIMEOUT, &isnull);
	if (!isnull)
		ms = jq_interval_clamped_us(DatumGetIntervalP(timeout),
									MAX_TIMEOUT_US) / 1000;
	else if (jq_job_type(reading->row.job_type)->timeout_us > 0)
		ms = jq_job_type(reading->row.job_type)->timeout_us / 1000;
	return (int) Max(ms, 1);
}

static void
set_limits(JqHttpReading *reading)
{
	JqHttpJob  *job = reading->job;
	const JqEndpoint *endpoint = &reading->endpoint;
	JqHttpRequest *request = &job->request;

	job->must_wait = !endpoint->is_enabled;
	job->is_endpoint = reading->has_endpoint;
	job->max_concurrency = endpoint->max_concurrency;
	job->max_redirects = endpoint->max_redirects;
	request->timeout_ms = timeout_ms(reading);
	request->connect_timeout_ms = endpoint->connect_timeout_ms;
	request->low_speed_limit = endpoint->low_speed_limit;
	request->low_speed_time = endpoint->low_speed_time;
	request->max_response = endpoint->max_response;
	request->version = endpoint->version;
	if (endpoint->tls_ca != NULL)
		request->ca = pstrdup(endpoint->tls_ca);
}
