/*-------------------------------------------------------------------------
 *
 * alerts.c
 *	  Alerts: rows that begin, are sent again, and end.
 *
 * An evaluation first only reads: which conditions hold, and what that means
 * for the alerts that are open.  Only if that is anything, it writes: the rows,
 * and the messages as jobs, in one transaction.  So a message is there if and
 * only if its row says so.  An insertion that somebody else was faster with
 * does nothing, and an update asks again for what it has read: so of two
 * evaluations at once only one sends.
 *
 * What shared memory counted is gone after a crash.  An alert that is older
 * than the memory is not over for want of counts: streaks go on from its row,
 * windows wait until they are full again, endpoints until one answers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/async.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/config.h"
#include "base/ownership.h"
#include "base/protect.h"
#include "base/scope.h"
#include "base/statement.h"
#include "queue/alert_conditions.h"
#include "queue/alerts.h"
#include "queue/enqueue.h"
#include "queue/failure_counts.h"

#define MAX_NOTIFY_BYTES 7999	/* what NOTIFY takes */
#define MAX_REPORTS 10			/* in one go */

/* An instant that the clock has since gone back behind has passed. */
#define HAS_PASSED(instant) \
	"(" instant " <= $1 OR " instant " > $1 + interval '366 days')"

/* Streaks that the memory has yet to be told of. */
static JqStatement select_lost_streaks = {
	.text = "SELECT a.job_type, r.stage, a.value::integer, a.started_at"
	" FROM @.alerts a JOIN @.alert_rules r ON r.name = a.rule"
	" WHERE a.resolved_at IS NULL AND a.kind = 'consecutive_failures'"
	" AND r.kind = a.kind AND r.error_like IS NULL AND r.sqlstate IS NULL"
	" AND a.started_at < $1 AND a.value < 1000000000 ORDER BY a.value DESC",
	.nargs = 1,
	.argtypes = {TIMESTAMPTZOID}
};

/*
 * $1 now, $2 what holds, $3 unknown kinds, $4 since when there are counts.  One
 * row: the changes as JSON, and how many.
 */
static JqStatement select_changes = {
	.text = "SELECT coalesce(jsonb_agg(to_jsonb(x)), '[]')::text, count(*)::integer FROM ("
	"SELECT a.id, a.notified_at, c.rule, c.job_type, c.stage, c.subject,"
	" coalesce(c.value, 0) AS value, c.error, n.change,"
	" CASE WHEN n.change = 'resolve' AND y.name IS NULL"
	" THEN 'the rule was deleted, disabled or changed' END AS reason"
	" FROM (SELECT h.rule COLLATE \"C\" AS rule, h.job_type COLLATE \"C\" AS job_type,"
	" h.stage COLLATE \"C\" AS stage, h.subject COLLATE \"C\" AS subject,"
	" h.value, h.error, r.kind, r.renotify"
	" FROM jsonb_array_elements($2::jsonb) AS k (list),"
	" jsonb_to_recordset(k.list) AS h (rule text, job_type text, stage text,"
	" subject text, value numeric, error text)"
	" JOIN @.alert_rules r ON r.name = h.rule COLLATE \"C\" AND r.enabled) c"
	" FULL JOIN (SELECT * FROM @.alerts o WHERE o.resolved_at IS NULL) a"
	" ON a.rule = c.rule AND a.kind = c.kind AND a.job_type = c.job_type"
	" AND a.stage = c.stage AND a.subject = c.subject"
	" LEFT JOIN @.alert_rules y ON y.name = a.rule AND y.kind = a.kind AND y.enabled"
	" CROSS JOIN LATERAL (SELECT CASE"
	" WHEN a.id IS NULL THEN 'fire'"
	" WHEN c.rule IS NOT NULL AND a.quiet_since IS NOT NULL THEN 'return'"
	" WHEN c.rule IS NOT NULL AND (a.notified_at + c.renotify <= $1"
	" OR a.notified_at > $1 + interval '1 minute' AND c.renotify IS NOT NULL)"
	" AND (a.muted_until IS NULL OR a.muted_until <= $1) THEN 'again'"
	" WHEN c.rule IS NOT NULL THEN NULL"
	" WHEN y.name IS NULL THEN 'resolve'"
	" WHEN $3::jsonb @> to_jsonb(a.kind) THEN NULL"
	" WHEN a.started_at < $4 AND CASE a.kind"
	" WHEN 'failures' THEN $1 < $4 + y.period AND y.threshold < 64"
	" WHEN 'worker_error' THEN $1 < $4 + y.period"
	" WHEN 'endpoint_down' THEN $1 < $4 + interval '1 day'"
	" AND EXISTS (SELECT FROM @.http_endpoints e WHERE e.name = a.subject AND e.enabled)"
	" AND NOT EXISTS (SELECT FROM @._endpoint_health() h"
	" WHERE h.name COLLATE \"C\" = a.subject AND h.last_success_at IS NOT NULL)"
	" ELSE false END THEN NULL"
	" WHEN y.resolve_after = interval '0' THEN 'resolve'"
	" WHEN a.quiet_since IS NULL THEN 'quiet'"
	" WHEN a.quiet_since + y.resolve_after <= $1 OR a.quiet_since > $1 + interval '1 minute'"
	" THEN 'resolve' END AS change) n"
	" WHERE n.change IS NOT NULL) x",
	.nargs = 4,
	.argtypes = {TIMESTAMPTZOID, TEXTOID, TEXTOID, TIMESTAMPTZOID}
};

/* $1 now, $2 the changes.  Returns the messages, and how many. */
static JqStatement apply_changes = {
	.text = "WITH x AS MATERIALIZED (SELECT * FROM jsonb_to_recordset($2::jsonb) AS"
	" t (change text, id bigint, notified_at timestamptz, rule text, job_type text,"
	" stage text, subject text, value numeric, error text, reason text)),"
	" fired AS (INSERT INTO @.alerts (rule, kind, job_type, stage, subject, severity,"
	" value, threshold, period, sinks, summary, started_at, notified_at)"
	" SELECT r.name, r.kind, x.job_type, x.stage, x.subject, r.severity, x.value,"
	" r.threshold, r.period, r.sinks, @._alert_summary(r.kind, x.job_type, x.stage,"
	" x.subject, x.value, r.period), $1, $1 FROM x"
	" JOIN @.alert_rules r ON r.name = x.rule COLLATE \"C\" WHERE x.change = 'fire'"
	" ON CONFLICT (rule, job_type, stage, subject) WHERE resolved_at IS NULL DO NOTHING"
	" RETURNING *),"
	" again AS (UPDATE @.alerts a SET notified_at = $1, notifications = a.notifications + 1,"
	" value = x.value, severity = r.severity, sinks = r.sinks, threshold = r.threshold,"
	" period = r.period, summary = @._alert_summary(a.kind, a.job_type, a.stage, a.subject,"
	" x.value, r.period) FROM x JOIN @.alert_rules r ON r.name = x.rule COLLATE \"C\""
	" WHERE x.change = 'again' AND a.id = x.id AND a.resolved_at IS NULL"
	" AND a.notified_at = x.notified_at RETURNING a.*),"
	" waiting AS (UPDATE @.alerts a SET quiet_since = CASE x.change WHEN 'quiet' THEN $1 END"
	" FROM x WHERE x.change IN ('quiet', 'return') AND a.id = x.id AND a.resolved_at IS NULL"
	" RETURNING a.id),"
	" resolved AS (UPDATE @.alerts a SET resolved_at = $1, resolve_reason = x.reason"
	" FROM x WHERE x.change = 'resolve' AND a.id = x.id AND a.resolved_at IS NULL"
	" RETURNING a.*),"
	" changed AS (SELECT 'firing' AS state, f.* FROM fired f"
	" UNION ALL SELECT 'firing', g.* FROM again g"
	" UNION ALL SELECT 'resolved', e.* FROM resolved e)"
	" SELECT coalesce(jsonb_agg(jsonb_build_object('event', 'alert.' || c.state,"
	" 'alert_id', c.id, 'state', c.state, 'rule', c.rule, 'kind', c.kind,"
	" 'severity', c.severity, 'job_type', nullif(c.job_type, ''),"
	" 'stage', nullif(c.stage, ''), 'subject', nullif(c.subject, ''),"
	" 'value', trim_scale(c.value), 'threshold', trim_scale(c.threshold),"
	" 'period_seconds', extract(epoch FROM c.period)::bigint,"
	" 'started_at', to_char(c.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),"
	" 'resolved_at', to_char(c.resolved_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),"
	" 'resolve_reason', c.resolve_reason, 'notifications', c.notifications,"
	" 'summary', c.summary, 'advice', @._alert_advice(c.kind, c.job_type, c.stage, c.subject),"
	" 'runbook', coalesce(r.runbook, 'docs/operations.md#' || c.kind),"
	" 'database', current_database(),"
	" 'service', current_setting('jobqueue.service_name', true),"
	" 'sinks', c.sinks, 'error', left(x.error, 500))"
	" ORDER BY @._alert_rank(c.severity) DESC, c.id), '[]')::text, count(*)::integer"
	" FROM changed c LEFT JOIN @.alert_rules r ON r.name = c.rule"
	" LEFT JOIN x ON x.id = c.id OR x.change = 'fire' AND c.state = 'firing'"
	" AND x.rule COLLATE \"C\" = c.rule AND x.job_type COLLATE \"C\" = c.job_type"
	" AND x.stage COLLATE \"C\" = c.stage AND x.subject COLLATE \"C\" = c.subject",
	.nargs = 2,
	.argtypes = {TIMESTAMPTZOID, TEXTOID}
};

/*
 * $1 messages, $2 how many go one by one, $3 the only sink, NULL: those that
 * they name.  A row for each thing to be sent: the sink, its kind, owner and
 * channel, whether its job type is there, the group, the body, and in words.
 */
static JqStatement select_messages = {
	.text = "SELECT s.name, s.kind, s.owner::oid, s.channel, t.job_type IS NOT NULL,"
	" m.group_key, CASE s.kind WHEN 'slack' THEN @._slack_message(m.items, s.channel)"
	" ELSE @._alert_message(m.items) END, @._alert_text(m.items)"
	" FROM @.alert_sinks s LEFT JOIN @.job_types t ON t.job_type = 'alert:' || s.name"
	" AND t.runner = 'http'"
	" CROSS JOIN LATERAL (SELECT jsonb_agg(CASE WHEN s.include_errors THEN g.item - 'sinks'"
	" ELSE g.item - 'sinks' - 'error' END ORDER BY g.n) AS items,"
	" CASE WHEN count(*) = 1 THEN min(g.item->>'alert_id') END AS group_key"
	" FROM (SELECT i.item, i.n, count(*) OVER () > $2 AS is_digest"
	" FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS i (item, n)"
	" WHERE CASE WHEN $3 IS NULL THEN s.enabled AND i.item->'sinks' @> to_jsonb(s.name)"
	" AND @._alert_rank(i.item->>'severity') >= @._alert_rank(s.min_severity)"
	" AND (s.send_resolved OR i.item->>'state' <> 'resolved') ELSE s.name = $3 END) g"
	" GROUP BY CASE WHEN g.is_digest THEN 0 ELSE g.n END) m"
	" ORDER BY s.name, m.group_key::bigint",
	.nargs = 3,
	.argtypes = {TEXTOID, INT4OID, TEXTOID}
};

static JqStatement select_test = {
	.text = "SELECT s.owner::oid, jsonb_build_array(jsonb_build_object("
	"'event', 'alert.test', 'alert_id', 0, 'state', 'test', 'rule', 'test_alert_sink',"
	" 'kind', 'test', 'severity', 'info', 'job_type', NULL, 'stage', NULL, 'subject', NULL,"
	" 'value', 0, 'threshold', 0, 'period_seconds', NULL, 'started_at',"
	" to_char($2 AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),"
	" 'resolved_at', NULL, 'resolve_reason', NULL, 'notifications', 1,"
	" 'summary', 'this is a test of alert sink ' || s.name, 'advice', 'nothing',"
	" 'runbook', 'docs/operations.md#be-told', 'database', current_database(),"
	" 'service', current_setting('jobqueue.service_name', true)))::text"
	" FROM @.alert_sinks s WHERE s.name = $1",
	.nargs = 2,
	.argtypes = {TEXTOID, TIMESTAMPTZOID}
};

static JqStatement select_failed = {
	.text = "SELECT d.job_type, d.id, d.finished_at, left(d.last_error, 200)"
	" FROM @.alert_sinks s JOIN @.jobs_queue_done d"
	" ON d.job_type = 'alert:' || s.name AND d.status IN ('failed', 'error')"
	" AND d.finished_at > $1 WHERE s.endpoint IS NOT NULL ORDER BY d.finished_at",
	.nargs = 1,
	.argtypes = {TIMESTAMPTZOID}
};

/* What is to be sent to a sink, in the context of the scope. */
typedef struct Message
{
	char	   *sink;
	char	   *kind;
	Oid			owner;			/* InvalidOid: a role that is gone */
	char	   *channel;
	bool		has_job_type;
	char	   *group_key;
	Datum		body;			/* jsonb */
	char	   *text;
	int64		job_id;			/* once it is a job */
} Message;

static void restore_streaks(void);
static char *find_changes(TimestampTz now, const JqConditions *conditions);
static int64 send_messages(const char *messages, const char *only_sink);
static void read_message(uint64 row, Message *message);
static char *read_text(uint64 row, int column);
static void deliver(void *arg);
static void enqueue(Message *message);
static void notify(const Message *message);

int
jq_alerts_evaluate(TimestampTz now)
{
	JqConditions conditions;
	Datum		values[2];
	char	   *changes;
	char	   *messages;
	int			count;

	restore_streaks();
	jq_alert_conditions(now, &conditions);
	changes = find_changes(now, &conditions);
	if (changes == NULL)
		return 0;

	jq_scope_enter(JQ_WRITE_ENGINE);
	values[0] = TimestampTzGetDatum(now);
	values[1] = CStringGetTextDatum(changes);
	(void) jq_statement_execute(&apply_changes, values, NULL, 0);
	messages = TextDatumGetCString(jq_statement_value(0, 1));
	count = DatumGetInt32(jq_statement_value(0, 2));
	if (count > 0)
		(void) send_messages(messages, NULL);
	jq_scope_leave();
	return count;
}

/* Once for each life of the memory is enough, and again does no harm. */
static void
restore_streaks(void)
{
	static TimestampTz restored = DT_NOBEGIN;
	TimestampTz since = jq_failure_counts_since();
	Datum		values[] = {TimestampTzGetDatum(since)};
	uint64		count;

	if (since == DT_NOEND || restored == since)
		return;
	jq_scope_enter_read_only();
	count = jq_statement_query(&select_lost_streaks, values, NULL, 0);
	for (uint64 row = 0; row < count; row++)
	{
		JqFailureName name = {0};
		char	   *stage = read_text(row, 2);

		name.subject = stage == NULL ? JQ_FAILURES_OF_TYPE : JQ_FAILURES_OF_STAGE;
		strlcpy(name.job_type, read_text(row, 1), JQ_FAILURE_NAME_SIZE);
		strlcpy(name.stage, stage == NULL ? "" : stage, JQ_FAILURE_NAME_SIZE);
		jq_failure_counts_restore(&name,
								  DatumGetInt32(jq_statement_value(row, 3)),
								  DatumGetTimestampTz(jq_statement_value(row, 4)));
	}
	jq_scope_leave();
	restored = since;
}

/* NULL: there are none. */
static char *
find_changes(TimestampTz now, const JqConditions *conditions)
{
	TimestampTz since = jq_failure_counts_since();
	Datum		values[4];
	char	   *changes = NULL;

	jq_scope_enter_read_only();
	jq_scope_prefer_indexes();
	values[0] = TimestampTzGetDatum(now);
	values[1] = CStringGetTextDatum(conditions->found);
	values[2] = CStringGetTextDatum(conditions->unknown);
	values[3] = TimestampTzGetDatum(since == DT_NOEND ? now : since);
	(void) jq_statement_query(&select_changes, values, NULL, 0);
	if (DatumGetInt32(jq_statement_value(0, 2)) > 0)
		changes = MemoryContextStrdup(jq_scope_result_context(),
									  TextDatumGetCString(jq_statement_value(0, 1)));
	jq_scope_leave();
	return changes;
}

/*
 * One sink that cannot be sent to must not keep the others: what it should
 * have got is a line in the log.  Returns the job of the last message.
 */
static int64
send_messages(const char *messages, const char *only_sink)
{
	Datum		values[] = {
		CStringGetTextDatum(messages),
		Int32GetDatum(jq_config_alert_digest_size),
		only_sink == NULL ? (Datum) 0 : CStringGetTextDatum(only_sink)
	};
	uint64		count = jq_statement_query(&select_messages, values,
										   only_sink == NULL ? "  n" : NULL, 0);
	Message    *sent = palloc0(sizeof(Message) * Max(count, 1));
	int64		job_id = 0;

	for (uint64 row = 0; row < count; row++)
		read_message(row, &sent[row]);
	for (uint64 row = 0; row < count; row++)
	{
		ErrorData  *fault;

		if (only_sink != NULL)
			deliver(&sent[row]);
		else if ((fault = jq_protect(deliver, &sent[row])) != NULL)
			ereport(WARNING,
					(errcode(fault->sqlerrcode),
					 errmsg("could not send to alert sink \"%s\": %s",
							sent[row].sink, fault->message),
					 errdetail("%s", sent[row].text)));
		job_id = sent[row].job_id;
	}
	return job_id;
}

static void
read_message(uint64 row, Message *message)
{
	bool		isnull;
	Datum		value;

	message->sink = read_text(row, 1);
	message->kind = read_text(row, 2);
	value = jq_statement_nullable(row, 3, &isnull);
	message->owner = isnull ? InvalidOid : DatumGetObjectId(value);
	message->channel = read_text(row, 4);
	message->has_job_type = DatumGetBool(jq_statement_value(row, 5));
	message->group_key = read_text(row, 6);
	message->body = jq_statement_value(row, 7);
	message->text = read_text(row, 8);
}

/* NULL: it is null. */
static char *
read_text(uint64 row, int column)
{
	bool		isnull;
	Datum		value = jq_statement_nullable(row, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

static void
deliver(void *arg)
{
	Message    *message = (Message *) arg;

	if (strcmp(message->kind, "log") == 0)
		ereport(LOG, (errmsg("jobqueue alert: %s", message->text)));
	else if (strcmp(message->kind, "notify") == 0)
		notify(message);
	else
		enqueue(message);
}

/* What is too long for NOTIFY is to be looked up in alerts. */
static void
notify(const Message *message)
{
	Jsonb	   *body = DatumGetJsonbP(message->body);
	char	   *payload = JsonbToCString(NULL, &body->root, VARSIZE(body));

	if (strlen(payload) > MAX_NOTIFY_BYTES)
		payload = "{\"event\": \"alert.digest\", \"truncated\": true}";
	Async_Notify(message->channel, payload);
}

/* A job of the owner of the sink, to its endpoint. */
static void
enqueue(Message *message)
{
	JqNewJob	job;

	if (!message->has_job_type)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("job type \"%s%s\" is not there, or not one of runner \"http\"",
						JQ_ALERT_PREFIX, message->sink),
				 errhint("UPDATE the row of the sink: that makes it anew.")));
	if (!OidIsValid(message->owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the owner of the sink is gone")));
	memset(&job, 0, sizeof(job));
	job.job_type = CStringGetTextDatum(psprintf("%s%s", JQ_ALERT_PREFIX,
												message->sink));
	job.payload = message->body;
	job.owner = message->owner;
	if (message->group_key != NULL && strcmp(message->group_key, "0") != 0)
		job.group_key = CStringGetTextDatum(message->group_key);
	message->job_id = jq_enqueue(&job);
}

int64
jq_alerts_test(const char *sink)
{
	Datum		values[2];
	int64		job_id;

	jq_scope_enter(JQ_WRITE_ENGINE);
	values[0] = CStringGetTextDatum(sink);
	values[1] = TimestampTzGetDatum(GetCurrentTimestamp());
	if (jq_statement_query(&select_test, values, NULL, 1) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("alert sink \"%s\" does not exist", sink)));
	{
		bool		isnull;
		Datum		owner = jq_statement_nullable(0, 1, &isnull);

		if (!isnull)
			jq_ownership_check(jq_scope_caller(), DatumGetObjectId(owner),
							   "alert_sinks");
	}
	job_id = send_messages(TextDatumGetCString(jq_statement_value(0, 2)), sink);
	jq_scope_leave();
	return job_id;
}

TimestampTz
jq_alerts_report_failed(TimestampTz after)
{
	Datum		values[] = {TimestampTzGetDatum(after)};
	TimestampTz newest = after;
	uint64		count;

	jq_scope_enter_read_only();
	jq_scope_prefer_indexes();
	count = jq_statement_query(&select_failed, values, NULL, 0);
	for (uint64 row = 0; row < count; row++)
	{
		char	   *error = read_text(row, 4);

		newest = DatumGetTimestampTz(jq_statement_value(row, 3));
		if (row < MAX_REPORTS)
			ereport(WARNING,
					(errmsg("job " INT64_FORMAT " of type \"%s\", a message to an alert sink, has failed: %s",
							DatumGetInt64(jq_statement_value(row, 2)),
							read_text(row, 1), error == NULL ? "" : error)));
	}
	if (count > MAX_REPORTS)
		ereport(WARNING,
				(errmsg("%d more messages to alert sinks have failed",
						(int) count - MAX_REPORTS)));
	jq_scope_leave();
	return newest;
}
