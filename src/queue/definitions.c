/*-------------------------------------------------------------------------
 *
 * definitions.c
 *	  Row triggers of job_types and of the tables that only have an owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/interval.h"
#include "base/names.h"
#include "base/ownership.h"
#include "base/rows.h"
#include "base/scope.h"
#include "base/wake.h"
#include "queue/backoff.h"
#include "queue/backoff_function.h"
#include "queue/endpoints.h"
#include "queue/error_rules.h"
#include "queue/event_kinds.h"
#include "queue/failure_counts.h"
#include "queue/job_types.h"
#include "queue/validate.h"

PG_FUNCTION_INFO_V1(jobqueue_guard_job_type);
PG_FUNCTION_INFO_V1(jobqueue_job_types_changed);
PG_FUNCTION_INFO_V1(jobqueue_guard_owned);
PG_FUNCTION_INFO_V1(jobqueue_definitions_changed);

static HeapTuple settle_pause(TriggerData *trigger, HeapTuple row);
static void check_runner(TriggerData *trigger, const char *name);
static void check_endpoint(TriggerData *trigger, const char *name);
static void check_sends_as(TriggerData *trigger, HeapTuple row);
static void check_runs_as(TriggerData *trigger, HeapTuple row);
static void check_backoff(TriggerData *trigger, HeapTuple row);
static void check_backoff_function(TriggerData *trigger, HeapTuple row,
								   const JqBackoff *backoff);
static bool is_restored(TriggerData *trigger, HeapTuple row);
static void check_limits(TriggerData *trigger);
static void check_retention(TriggerData *trigger);
static void check_events(TriggerData *trigger);
static bool check_count(TriggerData *trigger, const char *name);
static void check_groups(TriggerData *trigger);
static void check_rate(TriggerData *trigger, const char *max,
					   const char *window, const char *burst);
static void check_interval(TriggerData *trigger, const char *name,
						   int64 min_us, int64 max_us);

/* BEFORE INSERT OR UPDATE OR DELETE ON job_types FOR EACH ROW */
Datum
jobqueue_guard_job_type(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	result;
	bool		isnull;
	Datum		name;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != jq_catalog()->job_types)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"_guard_job_type\" must be called as the trigger of job_types")));
	result = jq_ownership_guard(trigger);
	name = jq_row_new_value(trigger, "job_type", &isnull);
	if (!isnull && TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		jq_failure_counts_forget(TextDatumGetCString(name));
	if (!isnull && !TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
	{
		jq_name_check_required(TextDatumGetCString(name), "job_type");
		check_runner(trigger, TextDatumGetCString(name));
		check_endpoint(trigger, TextDatumGetCString(name));
		check_runs_as(trigger, result);
		check_sends_as(trigger, result);
		check_backoff(trigger, result);
		check_limits(trigger);
		check_events(trigger);
		result = settle_pause(trigger, result);
	}
	return PointerGetDatum(result);
}

/* A plain UPDATE of enabled pauses and resumes, too. */
static HeapTuple
settle_pause(TriggerData *trigger, HeapTuple row)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	int			columns[2];
	Datum		values[2] = {0};
	bool		nulls[2] = {true, true};
	bool		is_enabled;
	bool		is_dated;
	bool		isnull;

	is_enabled = DatumGetBool(jq_row_value(row, desc, "enabled", &isnull));
	if (isnull)
		return row;				/* to be refused */
	(void) jq_row_value(row, desc, "paused_at", &isnull);
	is_dated = !isnull;
	if (is_enabled != is_dated)
		return row;
	columns[0] = SPI_fnumber(desc, "paused_at");
	columns[1] = SPI_fnumber(desc, "pause_reason");
	if (!is_enabled)
	{
		values[0] = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
		nulls[0] = false;
	}
	return heap_modify_tuple_by_cols(row, desc, is_enabled ? 2 : 1,
									 columns, values, nulls);
}

/* Which runner has a command, and where. */
static void
check_runner(TriggerData *trigger, const char *name)
{
	bool		isnull;
	Datum		value = jq_row_new_value(trigger, "runner", &isnull);
	char	   *runner = isnull ? "" : TextDatumGetCString(value);
	bool		has_command;
	bool		is_sql = strcmp(runner, "sql") == 0;

	value = jq_row_new_value(trigger, "command", &isnull);
	has_command = !isnull;
	if (has_command)
		jq_validate_command(TextDatumGetCString(value));
	if (strcmp(name, JQ_SQL_JOB_TYPE) == 0 ?
		has_command || !is_sql : has_command != is_sql)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("runner and command of job type \"%s\" do not fit", name),
				 errhint("Runner \"sql\" needs a command and no other runner has one; the built-in type \"sql\" has its commands in the payloads.")));
}

/* The built-in type "http" has its URLs and endpoints in the payloads. */
static void
check_endpoint(TriggerData *trigger, const char *name)
{
	bool		isnull;
	Datum		value = jq_row_new_value(trigger, "runner", &isnull);
	bool		is_http = !isnull &&
	strcmp(TextDatumGetCString(value), "http") == 0;
	bool		has_endpoint;

	(void) jq_row_new_value(trigger, "endpoint", &isnull);
	has_endpoint = !isnull;
	if (strcmp(name, JQ_HTTP_JOB_TYPE) == 0 ?
		has_endpoint || !is_http : has_endpoint != is_http)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("runner and endpoint of job type \"%s\" do not fit", name),
				 errhint("Runner \"http\" needs an endpoint and no other runner has one; the built-in type \"http\" has its URLs in the payloads.")));
	(void) jq_row_new_value(trigger, "max_linger", &isnull);
	if (!isnull && !is_http)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_linger is for runner \"http\" only")));
	check_interval(trigger, "max_linger", 0, USECS_PER_HOUR);
}

/* The endpoint may hold secrets: only friends of its owner send jobs there. */
static void
check_sends_as(TriggerData *trigger, HeapTuple row)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	bool		isnull;
	Datum		value;
	const JqEndpoint *endpoint;
	Oid			owner;

	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) &&
		!jq_row_changes(trigger, "owner") && !jq_row_changes(trigger, "endpoint"))
		return;
	value = jq_row_value(row, desc, "owner", &isnull);
	owner = isnull ? InvalidOid : DatumGetObjectId(value);
	value = jq_row_value(row, desc, "endpoint", &isnull);
	if (isnull || !OidIsValid(owner))
		return;
	endpoint = jq_endpoint(TextDatumGetCString(value));
	if (endpoint != NULL && OidIsValid(endpoint->owner))
		jq_ownership_check(owner, endpoint->owner, "endpoint");
}

/* The command of a job type runs as its owner, whom "row" has filled in. */
static void
check_runs_as(TriggerData *trigger, HeapTuple row)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	bool		isnull;
	Datum		value;

	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) &&
		!jq_row_changes(trigger, "owner") && !jq_row_changes(trigger, "command"))
		return;
	(void) jq_row_value(row, desc, "command", &isnull);
	if (isnull)
		return;
	if (is_restored(trigger, row))
		return;
	value = jq_row_value(row, desc, "owner", &isnull);
	if (!isnull)
		jq_ownership_check_superuser(DatumGetObjectId(value));
}

static bool
is_restored(TriggerData *trigger, HeapTuple row)
{
	bool		isnull;
	Datum		value = jq_row_value(row, RelationGetDescr(trigger->tg_relation),
									 "updated_at", &isnull);

	return TRIGGER_FIRED_BY_INSERT(trigger->tg_event) && !isnull &&
		jq_ownership_is_restore(jq_scope_caller(), DatumGetTimestampTz(value));
}

static void
check_backoff(TriggerData *trigger, HeapTuple row)
{
	bool		isnull;
	Datum		value = jq_row_new_value(trigger, "backoff", &isnull);
	JqBackoff	backoff;

	if (isnull)
		return;
	jq_backoff_parse(DatumGetJsonbP(value), "backoff", &backoff);
	if (backoff.strategy == JQ_BACKOFF_FUNCTION)
		check_backoff_function(trigger, row, &backoff);
}

/*
 * It runs as the owner of the job type: so whoever names it must be allowed
 * to act as the owner, as with a command.  The dispatchers, which are
 * everybody's, run no code.
 */
static void
check_backoff_function(TriggerData *trigger, HeapTuple row,
					   const JqBackoff *backoff)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	bool		is_update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	bool		isnull;
	Datum		value = jq_row_value(row, desc, "runner", &isnull);
	Oid			owner;

	if (!isnull && strcmp(TextDatumGetCString(value), "http") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a backoff function is not for runner \"http\""),
				 errhint("Use another strategy, or error_rules; a server can ask for a delay with Retry-After.")));
	value = jq_row_value(row, desc, "owner", &isnull);
	owner = isnull ? InvalidOid : DatumGetObjectId(value);
	if (!OidIsValid(owner) || is_restored(trigger, row) ||
		(is_update && !jq_row_changes(trigger, "owner") &&
		 !jq_row_changes(trigger, "backoff")))
		return;
	jq_ownership_check(jq_scope_caller(), owner, "job_types");
	jq_backoff_function_check(backoff, owner);
}

static void
check_limits(TriggerData *trigger)
{
	bool		isnull;
	Datum		value;

	value = jq_row_new_value(trigger, "error_rules", &isnull);
	if (!isnull)
		(void) jq_error_rules_parse(DatumGetJsonbP(value));
	value = jq_row_new_value(trigger, "max_attempts", &isnull);
	if (!isnull)
		jq_range_check(DatumGetInt16(value), "max_attempts", 1, 1000);
	value = jq_row_new_value(trigger, "batch_size", &isnull);
	if (!isnull)
		jq_range_check(DatumGetInt32(value), "batch_size", 1, 1000);
	check_interval(trigger, "lease", 1, USECS_PER_DAY);
	check_interval(trigger, "timeout", 1, USECS_PER_DAY);
	check_retention(trigger);
	check_count(trigger, "max_concurrency");
	check_count(trigger, "group_concurrency");
	check_count(trigger, "breaker_threshold");
	check_rate(trigger, "rate_max", "rate_window", "rate_burst");
	check_rate(trigger, "group_rate_max", "group_rate_window", NULL);
	check_groups(trigger);
	check_interval(trigger, "breaker_cooldown", 1000, USECS_PER_DAY);
}

/* What the log says of them. */
static void
check_events(TriggerData *trigger)
{
	char	   *messages[JQ_EVENT_COUNT];
	bool		isnull;
	Datum		value = jq_row_new_value(trigger, "event_prefix", &isnull);

	if (!isnull)
		jq_event_prefix_check(TextDatumGetCString(value), "event_prefix");
	value = jq_row_new_value(trigger, "event_messages", &isnull);
	if (!isnull)
		jq_event_messages_parse(DatumGetJsonbP(value), messages);
}

static void
check_retention(TriggerData *trigger)
{
	static const char *const ages[] = {
		"keep_completed", "keep_failed", "keep_cancelled", "keep_runs"
	};
	static const char *const counts[] = {
		"keep_completed_count", "keep_failed_count", "dead_letter_limit"
	};

	for (int i = 0; i < (int) lengthof(ages); i++)
		check_interval(trigger, ages[i], 0, 100 * 366 * USECS_PER_DAY);
	for (int i = 0; i < (int) lengthof(counts); i++)
	{
		bool		isnull;
		Datum		value = jq_row_new_value(trigger, counts[i], &isnull);

		if (!isnull)
			jq_range_check(DatumGetInt32(value), counts[i], 0, 1000000);
	}
}

static bool
check_count(TriggerData *trigger, const char *name)
{
	bool		isnull;
	Datum		value = jq_row_new_value(trigger, name, &isnull);

	if (!isnull)
		jq_range_check(DatumGetInt32(value), name, 1, 1000000);
	return !isnull;
}

/* The jobs of the built-in type "sql" run as many roles, each for itself. */
static void
check_groups(TriggerData *trigger)
{
	static const char *const names[] = {"group_concurrency", "group_rate_max"};
	bool		isnull;
	Datum		name = jq_row_new_value(trigger, "job_type", &isnull);
	Datum		is_fair;
	bool		has_groups;

	if (strcmp(TextDatumGetCString(name), JQ_SQL_JOB_TYPE) != 0)
		return;
	is_fair = jq_row_new_value(trigger, "fair_groups", &isnull);
	has_groups = !isnull && DatumGetBool(is_fair);
	for (int i = 0; i < (int) lengthof(names); i++)
	{
		(void) jq_row_new_value(trigger, names[i], &isnull);
		has_groups |= !isnull;
	}
	if (has_groups)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the built-in type \"sql\" has no groups"),
				 errhint("Give the jobs a type of their own, with the command in job_types.")));
}

/* How many and in what time belong together. */
static void
check_rate(TriggerData *trigger, const char *max, const char *window,
		   const char *burst)
{
	bool		has_max = check_count(trigger, max);
	bool		isnull;

	(void) jq_row_new_value(trigger, window, &isnull);
	if (has_max == isnull)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s and %s must be set together", max, window),
				 errhint("For example %s = 20, %s = '1 second'.", max, window)));
	check_interval(trigger, window, 1000, 366 * USECS_PER_DAY);
	if (burst != NULL && check_count(trigger, burst) && !has_max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s needs %s and %s", burst, max, window)));
}

static void
check_interval(TriggerData *trigger, const char *name, int64 min_us,
			   int64 max_us)
{
	bool		isnull;
	Datum		value = jq_row_new_value(trigger, name, &isnull);

	if (!isnull)
		(void) jq_interval_us(DatumGetIntervalP(value), name, min_us, max_us);
}

/* AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON job_types */
Datum
jobqueue_job_types_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"_job_types_changed\" must be called as a trigger")));
	CacheInvalidateRelcache(trigger->tg_relation);
	jq_wake_at_commit();
	return PointerGetDatum(NULL);
}

/* BEFORE INSERT OR UPDATE OR DELETE, with the protected columns */
Datum
jobqueue_guard_owned(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		RelationGetNamespace(trigger->tg_relation) != jq_catalog()->schema)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"_guard_owned\" must be called as the trigger of a table with an owner")));
	return PointerGetDatum(jq_ownership_guard(trigger));
}

/* AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE: whoever caches rows forgets */
Datum
jobqueue_definitions_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"_definitions_changed\" must be called as a trigger")));
	CacheInvalidateRelcache(trigger->tg_relation);
	return PointerGetDatum(NULL);
}
