/*-------------------------------------------------------------------------
 *
 * event_subscriptions.c
 *	  Rows of event_subscriptions: how they are made, and what they may be.
 *
 * Who writes rows in SQL meets the same checks: the row trigger makes them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "base/catalog.h"
#include "base/names.h"
#include "base/ownership.h"
#include "base/rows.h"
#include "base/scope.h"
#include "base/statement.h"
#include "queue/event_patterns.h"
#include "queue/event_subscriptions.h"
#include "queue/job_types.h"

PG_FUNCTION_INFO_V1(jobqueue_guard_event_subscription);

/* What the jobs of subscriptions to an endpoint are called: this and its name. */
#define WEBHOOK_PREFIX "webhook:"

/* One whose owner has been dropped goes to whoever may give it away. */
static JqStatement upsert_subscription = {
	.text = "INSERT INTO @.event_subscriptions AS s (event_type, job_type)"
	" VALUES ($1, $2) ON CONFLICT (event_type, job_type) DO UPDATE"
	" SET enabled = true, owner = coalesce(s.owner, $3::regrole)"
	" RETURNING id, owner::pg_catalog.oid",
	.nargs = 3,
	.argtypes = {TEXTOID, TEXTOID, OIDOID}
};

static JqStatement delete_subscription = {
	.text = "DELETE FROM @.event_subscriptions"
	" WHERE event_type = $1 AND job_type = $2",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID}
};

static JqStatement select_endpoint = {
	.text = "SELECT owner::pg_catalog.oid FROM @.http_endpoints"
	" WHERE name = $1 FOR KEY SHARE",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static JqStatement insert_webhook = {
	.text = "INSERT INTO @.job_types (job_type, runner, endpoint)"
	" VALUES ($1, 'http', $2) ON CONFLICT (job_type) DO NOTHING",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID}
};

static JqStatement select_webhook = {
	.text = "SELECT 1 FROM @.job_types"
	" WHERE job_type = $1 AND runner = 'http' AND endpoint = $2",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID}
};

static void check_subscriber(const char *job_type);

int64
jq_event_subscribe(const char *pattern, const char *job_type)
{
	Datum		values[3] = {CStringGetTextDatum(pattern),
	CStringGetTextDatum(job_type), ObjectIdGetDatum(GetUserId())};
	int64		id;

	jq_event_check_pattern(pattern);
	check_subscriber(job_type);
	jq_scope_enter(JQ_WRITE_PLAIN);
	jq_statement_execute(&upsert_subscription, values, NULL, 0);
	id = DatumGetInt64(jq_statement_value(0, 1));
	jq_ownership_check(jq_scope_caller(),
					   DatumGetObjectId(jq_statement_value(0, 2)), "event_subscriptions");
	jq_scope_leave();
	return id;
}

bool
jq_event_unsubscribe(const char *pattern, const char *job_type)
{
	Datum		values[2] = {CStringGetTextDatum(pattern),
	CStringGetTextDatum(job_type)};
	bool		is_gone;

	jq_event_check_pattern(pattern);
	jq_name_check_required(job_type, "job_type");
	jq_scope_enter(JQ_WRITE_PLAIN);
	is_gone = jq_statement_execute(&delete_subscription, values, NULL, 0) > 0;
	jq_scope_leave();
	return is_gone;
}

const char *
jq_event_webhook(const char *endpoint)
{
	char	   *job_type;
	Datum		values[2];
	bool		isnull;
	Datum		owner;

	job_type = pstrdup(jq_event_webhook_name(endpoint));
	jq_scope_enter(JQ_WRITE_PLAIN);
	values[0] = CStringGetTextDatum(endpoint);
	if (jq_statement_execute(&select_endpoint, values, NULL, 1) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("endpoint \"%s\" does not exist", endpoint),
				 errhint("Insert it into http_endpoints.")));
	owner = jq_statement_nullable(0, 1, &isnull);
	jq_ownership_check(jq_scope_caller(),
					   isnull ? jq_catalog()->owner : DatumGetObjectId(owner),
					   "endpoint");

	values[1] = values[0];
	values[0] = CStringGetTextDatum(job_type);
	if (jq_statement_execute(&select_webhook, values, NULL, 1) == 0 &&
		jq_statement_execute(&insert_webhook, values, NULL, 0) == 0 &&
		jq_statement_execute(&select_webhook, values, NULL, 1) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job type \"%s\" does not call endpoint \"%s\"",
						job_type, endpoint),
				 errhint("Subscribe a job type of another name, with runner \"http\" and that endpoint.")));
	jq_scope_leave();
	return job_type;
}

const char *
jq_event_webhook_name(const char *endpoint)
{
	jq_name_check(endpoint, "endpoint", 1, 255 - strlen(WEBHOOK_PREFIX));
	return psprintf("%s%s", WEBHOOK_PREFIX, endpoint);
}

static void
check_subscriber(const char *job_type)
{
	jq_name_check_required(job_type, "job_type");
	if (jq_job_type_is_built_in(job_type) ||
		strcmp(job_type, JQ_HTTP_JOB_TYPE) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("events cannot become jobs of the built-in type \"%s\"",
						job_type),
				 errhint("Subscribe a job type of your own: its jobs have the event as payload.")));
}

/* BEFORE INSERT OR UPDATE OR DELETE ON event_subscriptions FOR EACH ROW */
Datum
jobqueue_guard_event_subscription(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	result;
	Datum		value;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		RelationGetNamespace(trigger->tg_relation) != jq_catalog()->schema)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"_guard_event_subscription\" must be called as the trigger of event_subscriptions")));
	result = jq_ownership_guard(trigger);
	if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		return PointerGetDatum(result);
	/* A null is for the constraint to refuse. */
	value = jq_row_new_value(trigger, "event_type", &isnull);
	if (!isnull)
		jq_event_check_pattern(TextDatumGetCString(value));
	value = jq_row_new_value(trigger, "job_type", &isnull);
	if (!isnull)
		check_subscriber(TextDatumGetCString(value));
	return PointerGetDatum(result);
}
