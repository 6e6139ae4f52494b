/*-------------------------------------------------------------------------
 *
 * secrets.c
 *	  SQL functions that change secrets.
 *
 * A call has the value in its text, which these functions keep out of the log
 * and the activity of the session as far as a function can: from when it runs
 * on, not before, and not where the settings want statements logged as such.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "api/arguments.h"
#include "base/interval.h"
#include "queue/secrets.h"

PG_FUNCTION_INFO_V1(jobqueue_set_secret);
PG_FUNCTION_INFO_V1(jobqueue_set_secret_file);
PG_FUNCTION_INFO_V1(jobqueue_drop_secret);
PG_FUNCTION_INFO_V1(jobqueue_secret_problem);

#define MAX_KEEP_PREVIOUS_US (366 * USECS_PER_DAY)

static void hide_statement(void);
static void hide_message(void *arg);
static void set_secret(FunctionCallInfo fcinfo);
static void warn_of_log(const char *name);
static const char *logging_setting(void);
static bool is_set(const char *setting, const char *off);

Datum
jobqueue_set_secret(PG_FUNCTION_ARGS)
{
	ErrorContextCallback hide = {
		.previous = error_context_stack,
		.callback = hide_message
	};

	hide_statement();
	error_context_stack = &hide;
	set_secret(fcinfo);
	error_context_stack = hide.previous;
	PG_RETURN_VOID();
}

/*
 * Others see this instead of the statement, now and while the session is idle
 * after it; so does the log, if an error ends what is left of it.
 */
static void
hide_statement(void)
{
	static const char masked[] = "SELECT set_secret(...)";

	debug_query_string = masked;
	pgstat_report_activity(STATE_RUNNING, masked);
}

static void
hide_message(void *arg)
{
	(void) errhidestmt(true);
	(void) errhidecontext(true);
}

static void
set_secret(FunctionCallInfo fcinfo)
{
	char	   *name;
	char	   *value;
	int64		keep_previous_us;

	jq_argument_required(fcinfo, 0, "name");
	jq_argument_required(fcinfo, 1, "value");
	jq_argument_required(fcinfo, 2, "keep_previous");
	keep_previous_us = jq_interval_us(PG_GETARG_INTERVAL_P(2), "keep_previous",
									  0, MAX_KEEP_PREVIOUS_US);
	name = jq_argument_text(fcinfo, 0);
	value = jq_argument_text(fcinfo, 1);
	jq_secret_set(name, value, keep_previous_us);
	explicit_bzero(value, strlen(value));
	warn_of_log(name);
}

static void
warn_of_log(const char *name)
{
	const char *setting = logging_setting();

	if (setting != NULL)
		ereport(WARNING,
				(errmsg("the value of secret \"%s\" may be in the server's log", name),
				 errdetail("Setting \"%s\" lets this session write its statements there.",
						   setting),
				 errhint("Clean the log, and give secrets by set_secret_file(), or turn the setting off for whoever sets them.")));
}

/* One that writes the statement of a call to the log; NULL: none. */
static const char *
logging_setting(void)
{
	if (log_statement == LOGSTMT_ALL)
		return "log_statement";
	if (log_min_duration_statement >= 0)
		return "log_min_duration_statement";
	if (log_min_duration_sample >= 0 && log_statement_sample_rate > 0)
		return "log_min_duration_sample";
	if (log_xact_sample_rate > 0)
		return "log_transaction_sample_rate";
	if (Debug_print_parse)
		return "debug_print_parse";
	if (Debug_print_rewritten)
		return "debug_print_rewritten";
	if (Debug_print_plan)
		return "debug_print_plan";
	if (log_parser_stats)
		return "log_parser_stats";
	if (log_planner_stats)
		return "log_planner_stats";
	/* Messages that come before the call, with the statement. */
	if (log_min_error_statement < LOG && log_min_messages < LOG)
		return "log_min_error_statement";
	if (is_set("auto_explain.log_min_duration", "-1"))
		return "auto_explain.log_min_duration";
	if (is_set("pgaudit.log", "none"))
		return "pgaudit.log";
	return NULL;
}

static bool
is_set(const char *setting, const char *off)
{
	const char *value = GetConfigOption(setting, true, false);

	return value != NULL && value[0] != '\0' && strcmp(value, off) != 0;
}

Datum
jobqueue_set_secret_file(PG_FUNCTION_ARGS)
{
	jq_argument_required(fcinfo, 0, "name");
	jq_argument_required(fcinfo, 1, "path");
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to read secrets from files of the server"),
				 errhint("Only superusers and members of pg_read_server_files may do this.")));
	jq_secret_set_file(jq_argument_text(fcinfo, 0),
					   jq_argument_text(fcinfo, 1));
	PG_RETURN_VOID();
}

Datum
jobqueue_drop_secret(PG_FUNCTION_ARGS)
{
	jq_argument_required(fcinfo, 0, "name");
	PG_RETURN_BOOL(jq_secret_drop(jq_argument_text(fcinfo, 0)));
}

Datum
jobqueue_secret_problem(PG_FUNCTION_ARGS)
{
	Oid			role = PG_ARGISNULL(1) ? GetUserId() : PG_GETARG_OID(1);
	const char *reason;
	JqSecret	secret;

	jq_argument_required(fcinfo, 0, "name");
	if (!jq_secret_find(jq_argument_text(fcinfo, 0), role, &secret, &reason))
		PG_RETURN_TEXT_P(cstring_to_text(reason));
	jq_secret_wipe(&secret);
	PG_RETURN_NULL();
}
