/*-------------------------------------------------------------------------
 *
 * alert_conditions.c
 *	  Which alert rules hold now, and of what: a statement for each kind.
 *
 * None reads more of a table than its index leads to: job types and lanes are
 * found by loose scans, jobs are counted up to 10,000, and the head of a lane
 * is looked at for 1,000 rows.  Failures are counted in shared memory; where a
 * rule looks at their errors, the last 64 are looked up by their keys.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/protect.h"
#include "base/scope.h"
#include "base/statement.h"
#include "queue/alert_conditions.h"

#define WARNING_REST_MS (60 * 60 * 1000)

/* "c" has the columns of a condition; one row, with all of them. */
#define ALL_OF(conditions) \
	"SELECT coalesce(jsonb_agg(to_jsonb(c)), '[]')::text FROM (" conditions ") c"

/*
 * The SQLSTATE ends the first line of an error, as in "... (23505)"; its detail
 * and its context come after.
 */
#define MATCHES(error) \
	"(r.error_like IS NULL OR " error " LIKE r.error_like)" \
	" AND (r.sqlstate IS NULL OR substring(" error " FROM '(?n)\\(([0-9A-Z]{5})\\)$')" \
	" LIKE replace(r.sqlstate, '*', '%'))"

#define IS_FILTERED "(r.error_like IS NOT NULL OR r.sqlstate IS NOT NULL)"

/* The last failures, the newest first, with their errors if they matter. */
#define OF_FAILURES \
	"FROM unnest(f.failed_at, f.job_ids, f.claim_nos)" \
	" WITH ORDINALITY AS l (at, job_id, claim_no, n)" \
	" WHERE l.at <= $1 AND (NOT " IS_FILTERED " OR EXISTS (SELECT FROM @.job_runs j" \
	" WHERE j.job_id = l.job_id AND j.claim_no = l.claim_no AND " \
	MATCHES("j.error") "))"

/* That of the newest. */
#define LAST_ERROR \
	"(SELECT j.error FROM @.job_runs j WHERE j.job_id = f.job_ids[1]" \
	" AND j.claim_no = f.claim_nos[1])"

#define COUNTS_OF_RULES \
	"@.alert_rules r JOIN @._failure_counts() f" \
	" ON (r.job_type IS NULL OR r.job_type = f.job_type COLLATE \"C\")" \
	" AND r.stage IS NOT DISTINCT FROM f.stage COLLATE \"C\""

/*
 * What is more than memory has room for: intervals of ten seconds, or of a
 * minute, that have begun in the period.
 */
#define HISTORY_OF_RULES \
	"@.alert_rules r JOIN @.job_history h ON h.resolution =" \
	" CASE WHEN r.period <= '10 minutes' THEN '10s' ELSE '1m' END" \
	" AND h.at > $1 - r.period AND h.at <= $1" \
	" AND (r.job_type IS NULL OR r.job_type = h.job_type)" \
	" AND NOT starts_with(h.job_type, 'alert:')" \
	" WHERE r.kind = $2 AND r.enabled"

/* The job types that the done leaf has jobs of. */
#define DONE_TYPES \
	"WITH RECURSIVE t AS (" \
	"(SELECT d.job_type FROM @.jobs_queue_done d ORDER BY d.job_type LIMIT 1)" \
	" UNION ALL SELECT (SELECT d.job_type FROM @.jobs_queue_done d" \
	" WHERE d.job_type > t.job_type ORDER BY d.job_type LIMIT 1)" \
	" FROM t WHERE t.job_type IS NOT NULL)"

/* A row that was inserted as an ended one may lack finished_at. */
#define DONE_JOBS(finished, undated) \
	DONE_TYPES \
	" SELECT r.name AS rule, t.job_type, coalesce(r.stage, '') AS stage," \
	" '' AS subject, n.count AS value, (SELECT d.last_error" \
	" FROM @.jobs_queue_done d WHERE d.id = n.newest) AS error" \
	" FROM @.alert_rules r JOIN t ON NOT starts_with(t.job_type, 'alert:')" \
	" AND (r.job_type IS NULL OR r.job_type = t.job_type)" \
	" CROSS JOIN LATERAL (SELECT count(*) AS count, max(m.id) AS newest" \
	" FROM (" DONE_OF_TYPE("d.finished_at " finished) " UNION ALL " \
	DONE_OF_TYPE("d.finished_at IS NULL AND " undated) " LIMIT 10000) m) n" \
	" WHERE r.kind = $2 AND r.enabled AND n.count > r.threshold"

#define DONE_OF_TYPE(finished) \
	"SELECT d.id FROM @.jobs_queue_done d WHERE d.job_type = t.job_type" \
	" AND d.status IN ('failed', 'error') AND " finished \
	" AND (r.stage IS NULL OR d.stage = r.stage) AND " MATCHES("d.last_error")

/* The first jobs that are due in a lane, whoever has them. */
#define HEAD_OF(lane, count) \
	"SELECT q.status, q.scheduled_at, q.id FROM @.jobs_queue_live q" \
	" WHERE q.job_type = " lane ".job_type AND q.stage = " lane ".stage" \
	" AND q.priority = " lane ".priority AND q.scheduled_at <= $1" \
	" ORDER BY q.scheduled_at, q.id LIMIT " count

/*
 * The lanes that have jobs, and since when the first that waits is due.  A
 * type that is paused waits because somebody wants it.
 */
#define DUE_JOBS \
	"WITH RECURSIVE t AS (" \
	"(SELECT q.job_type, q.stage, q.priority FROM @.jobs_queue_live q" \
	" ORDER BY q.job_type, q.stage, q.priority LIMIT 1)" \
	" UNION ALL SELECT n.* FROM t CROSS JOIN LATERAL (" \
	"SELECT q.job_type, q.stage, q.priority FROM @.jobs_queue_live q" \
	" WHERE (q.job_type, q.stage, q.priority) > (t.job_type, t.stage, t.priority)" \
	" ORDER BY q.job_type, q.stage, q.priority LIMIT 1) n)," \
	" due AS (SELECT t.job_type, t.stage, t.priority, h.scheduled_at AS since" \
	" FROM t CROSS JOIN LATERAL (SELECT f.scheduled_at FROM (" HEAD_OF("t", "1000") \
	") f WHERE f.status = 'queued' ORDER BY f.scheduled_at, f.id LIMIT 1) h" \
	" LEFT JOIN @.job_types y ON y.job_type = t.job_type" \
	" WHERE NOT starts_with(t.job_type, 'alert:') AND coalesce(y.enabled, true))" \
	" SELECT r.name AS rule, d.job_type, coalesce(r.stage, '') AS stage," \
	" '' AS subject, ceil(extract(epoch FROM $1 - min(d.since))) AS value," \
	" NULL::text AS error" \
	" FROM @.alert_rules r JOIN due d" \
	" ON (r.job_type IS NULL OR r.job_type = d.job_type)" \
	" AND (r.stage IS NULL OR r.stage = d.stage)" \
	" WHERE r.kind = $2 AND r.enabled" \
	" GROUP BY r.name, r.stage, r.period, d.job_type" \
	" HAVING min(d.since) < $1 - r.period"

/*
 * Jobs that nobody has: the server's own lanes are looked at all the time,
 * those of outside workers only when one asks.
 */
#define IS_CLAIMED \
	"EXISTS (SELECT FROM (" HEAD_OF("d", "100") ") f WHERE f.status = 'running')" \
	" OR EXISTS (SELECT FROM @._lanes() l LEFT JOIN @.job_types y" \
	" ON y.job_type = l.job_type COLLATE \"C\"" \
	" WHERE l.job_type COLLATE \"C\" = d.job_type" \
	" AND coalesce(y.runner, 'external') = 'external'" \
	" AND NOT coalesce(y.notify, false) AND l.last_used_at > $1 - r.period)"

typedef struct Kind
{
	const char *name;
	JqStatement look;			/* of the instant, and the kind */
	int64		silent_until;	/* ms */
} Kind;

#define LOOK(conditions) \
	{.text = ALL_OF(conditions), .nargs = 2, .argtypes = {TIMESTAMPTZOID, TEXTOID}}

static Kind kinds[] = {
	{
		"consecutive_failures",
		LOOK("SELECT r.name AS rule, f.job_type, coalesce(r.stage, '') AS stage,"
			 " '' AS subject, v.streak AS value, " LAST_ERROR " AS error"
			 " FROM " COUNTS_OF_RULES
			 " CROSS JOIN LATERAL (SELECT CASE WHEN " IS_FILTERED
			 " THEN (SELECT count(*) " OF_FAILURES " AND l.n <= f.streak)"
			 " ELSE f.streak END AS streak) v"
			 " WHERE r.kind = $2 AND r.enabled AND v.streak >= r.threshold"
			 " AND f.last_failure_at > $1 - coalesce(r.period, '1 day')")
	},
	{
		"failures",
		LOOK("SELECT r.name AS rule, f.job_type, coalesce(r.stage, '') AS stage,"
			 " '' AS subject, v.failures AS value, " LAST_ERROR " AS error"
			 " FROM " COUNTS_OF_RULES
			 " CROSS JOIN LATERAL (SELECT count(*) AS failures " OF_FAILURES
			 " AND l.at > $1 - r.period) v"
			 " WHERE r.kind = $2 AND r.enabled AND r.threshold < 64"
			 " AND v.failures > r.threshold"
			 " UNION ALL SELECT r.name, h.job_type, '', '', sum(h.failed), NULL"
			 " FROM " HISTORY_OF_RULES " AND r.threshold >= 64"
			 " GROUP BY r.name, r.threshold, h.job_type"
			 " HAVING sum(h.failed) > r.threshold")
	},
	{
		"failure_rate",
		LOOK("SELECT r.name AS rule, h.job_type, '' AS stage, '' AS subject,"
			 " round(sum(h.failed) / nullif(sum(h.failed + h.succeeded), 0), 4) AS value,"
			 " NULL::text AS error FROM " HISTORY_OF_RULES
			 " GROUP BY r.name, r.threshold, r.min_attempts, h.job_type"
			 " HAVING sum(h.failed + h.succeeded) >= r.min_attempts"
			 " AND sum(h.failed) > r.threshold * sum(h.failed + h.succeeded)")
	},
	{
		"dead_letters",
		LOOK(DONE_JOBS("> coalesce($1 - r.period, '-infinity')",
					   "(r.period IS NULL OR d.updated_at > $1 - r.period)"))
	},
	{
		"failed_older_than",
		LOOK(DONE_JOBS("< $1 - r.period", "d.updated_at < $1 - r.period"))
	},
	{
		"circuit_open",
		LOOK("SELECT r.name AS rule, o.job_type, o.stage, '' AS subject,"
			 " o.failures AS value, o.last_error AS error"
			 " FROM @.alert_rules r JOIN ("
			 "SELECT c.job_type, c.stage, c.failures, c.last_error"
			 " FROM @.job_circuits c WHERE c.state <> 'closed'"
			 " UNION ALL SELECT DISTINCT e.job_type, e.stage, 0, NULL"
			 " FROM @.queue_events e WHERE e.happened_at > $1 - interval '1 minute'"
			 " AND e.happened_at <= $1"
			 " AND e.event IN ('circuit_open', 'circuit_reopened')"
			 " AND NOT EXISTS (SELECT FROM @.job_circuits c WHERE c.job_type = e.job_type"
			 " AND c.stage = e.stage AND c.state <> 'closed')) o"
			 " ON (r.job_type IS NULL OR r.job_type = o.job_type)"
			 " AND (r.stage IS NULL OR r.stage = o.stage)"
			 " AND NOT starts_with(o.job_type, 'alert:')"
			 " WHERE r.kind = $2 AND r.enabled")
	},
	{
		"backlog_age",
		LOOK(DUE_JOBS)
	},
	{
		"no_consumer",
		LOOK(DUE_JOBS " AND NOT bool_or(" IS_CLAIMED ")")
	},
	{
		"cron_late",
		LOOK("SELECT r.name AS rule, '' AS job_type, '' AS stage, t.name AS subject,"
			 " ceil(extract(epoch FROM $1 - t.next_run_at)) AS value,"
			 " NULL::text AS error FROM @.alert_rules r JOIN @.cron_tasks t"
			 " ON t.enabled AND t.next_run_at < $1 - r.period"
			 " AND (r.subject IS NULL OR r.subject = t.name)"
			 " WHERE r.kind = $2 AND r.enabled")
	},
	{
		"endpoint_down",
		LOOK("SELECT r.name AS rule, '' AS job_type, '' AS stage, h.name AS subject,"
			 " h.consecutive_failures AS value, h.last_error AS error"
			 " FROM @.alert_rules r JOIN @._endpoint_health() h"
			 " ON h.consecutive_failures >= r.threshold"
			 " AND (r.subject IS NULL OR r.subject = h.name COLLATE \"C\")"
			 " WHERE r.kind = $2 AND r.enabled"
			 " AND (h.kind = 'host' OR EXISTS (SELECT FROM @.http_endpoints e"
			 " WHERE e.name = h.name COLLATE \"C\" AND e.enabled))"
			 " AND NOT EXISTS (SELECT FROM @.alert_sinks s"
			 " WHERE h.kind = 'endpoint' AND s.endpoint = h.name COLLATE \"C\")")
	},
	{
		"worker_error",
		LOOK("SELECT r.name AS rule, '' AS job_type, '' AS stage, t.kind AS subject,"
			 " sum(t.count) AS value, NULL::text AS error"
			 " FROM @.alert_rules r JOIN @._worker_troubles() t"
			 " ON t.last_at > $1 - r.period AND t.last_at <= $1"
			 " AND (r.subject IS NULL OR r.subject = t.kind COLLATE \"C\")"
			 " WHERE r.kind = $2 AND r.enabled AND (t.database IS NULL OR t.database ="
			 " (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))"
			 " GROUP BY r.name, r.threshold, t.kind HAVING sum(t.count) > r.threshold")
	}
};

static JqStatement select_kinds = {
	.text = "SELECT DISTINCT kind FROM @.alert_rules WHERE enabled"
};

typedef struct Look
{
	Kind	   *kind;
	TimestampTz now;
	char	   *found;			/* in the context of the caller */
} Look;

static void wanted_kinds(bool *is_wanted);
static bool must_stop(const ErrorData *fault);
static void look(void *arg);
static void warn(Kind *kind, const ErrorData *fault);
static void add(StringInfo list, const char *element);

void
jq_alert_conditions(TimestampTz now, JqConditions *conditions)
{
	bool		is_wanted[lengthof(kinds)] = {false};
	StringInfoData found;
	StringInfoData unknown;

	wanted_kinds(is_wanted);
	initStringInfo(&found);
	initStringInfo(&unknown);
	conditions->have_rules = false;
	for (int i = 0; i < (int) lengthof(kinds); i++)
	{
		Look		kind = {&kinds[i], now, NULL};
		ErrorData  *fault;

		if (!is_wanted[i])
			continue;
		conditions->have_rules = true;
		fault = jq_attempt(look, &kind);
		if (fault != NULL && must_stop(fault))
			ReThrowError(fault);
		if (fault == NULL)
			add(&found, kind.found);
		else
		{
			add(&unknown, psprintf("\"%s\"", kinds[i].name));
			warn(&kinds[i], fault);
		}
	}
	appendStringInfoChar(&found, found.len == 0 ? '[' : ' ');
	appendStringInfoChar(&unknown, unknown.len == 0 ? '[' : ' ');
	appendStringInfoChar(&found, ']');
	appendStringInfoChar(&unknown, ']');
	conditions->found = found.data;
	conditions->unknown = unknown.data;
}

static void
wanted_kinds(bool *is_wanted)
{
	uint64		count;

	jq_scope_enter_read_only();
	count = jq_statement_query(&select_kinds, NULL, NULL, 0);
	for (uint64 row = 0; row < count; row++)
	{
		char	   *name = TextDatumGetCString(jq_statement_value(row, 1));

		for (int i = 0; i < (int) lengthof(kinds); i++)
			if (strcmp(name, kinds[i].name) == 0)
				is_wanted[i] = true;
	}
	jq_scope_leave();
}

/*
 * Somebody wants all of it to end.  Anything else, and be it a lock that is not
 * given or a page that cannot be read, must not silence the other rules.
 */
static bool
must_stop(const ErrorData *fault)
{
	int			category = ERRCODE_TO_CATEGORY(fault->sqlerrcode);

	return category == ERRCODE_OPERATOR_INTERVENTION ||
		category == ERRCODE_TRANSACTION_ROLLBACK;
}

static void
look(void *arg)
{
	Look	   *kind = (Look *) arg;
	Datum		values[2];
	Datum		found;

	jq_scope_enter_read_only();
	jq_scope_prefer_indexes();
	values[0] = TimestampTzGetDatum(kind->now);
	values[1] = CStringGetTextDatum(kind->kind->name);
	(void) jq_statement_query(&kind->kind->look, values, NULL, 1);
	found = jq_statement_value(0, 1);
	kind->found = MemoryContextStrdup(jq_scope_result_context(),
									  TextDatumGetCString(found));
	jq_scope_leave();
}

static void
warn(Kind *kind, const ErrorData *fault)
{
	if (jq_clock_ms() < kind->silent_until)
		return;
	kind->silent_until = jq_clock_ms() + WARNING_REST_MS;
	ereport(WARNING,
			(errcode(fault->sqlerrcode),
			 errmsg("could not evaluate alert rules of kind \"%s\": %s",
					kind->name, fault->message)));
}

/* One more element of an array that is not closed yet. */
static void
add(StringInfo list, const char *element)
{
	appendStringInfoChar(list, list->len == 0 ? '[' : ',');
	appendStringInfoString(list, element);
}
