/*-------------------------------------------------------------------------
 *
 * job_log.c
 *	  The rows of job_logs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "base/config.h"
#include "base/statement.h"
#include "queue/event_log.h"
#include "queue/job_log.h"

static JqStatement insert_line = {
	.text = "INSERT INTO @.job_logs (job_id, claim_no, logged_at, level, message, data)"
	" VALUES ($1, $2, $3, $4, $5, $6)",
	.nargs = 6,
	.argtypes = {INT8OID, INT4OID, TIMESTAMPTZOID, TEXTOID, TEXTOID, JSONBOID}
};

static JqStatement insert_capped = {
	.text = "INSERT INTO @.job_logs (job_id, claim_no, logged_at, level, message, data)"
	" SELECT $1, $2, $3, $4, $5, $6 WHERE (SELECT pg_catalog.count(*)"
	" FROM @.job_logs l WHERE l.job_id = $1 AND l.claim_no = $2) < $7",
	.nargs = 7,
	.argtypes = {INT8OID, INT4OID, TIMESTAMPTZOID, TEXTOID, TEXTOID, JSONBOID,
	INT8OID}
};

static void insert(JqStatement *statement, const JqJob *job,
				   const JqLogLine *line);

void
jq_job_log_write(const JqJob *job, const JqJournal *journal)
{
	if (journal == NULL)
		return;
	for (int i = 0; i < journal->nlines; i++)
		insert(&insert_line, job, &journal->lines[i]);
	if (journal->dropped > 0)
	{
		JqLogLine	line = {.level = "warning"};

		line.logged_at = GetCurrentTimestamp();
		line.message = psprintf(INT64_FORMAT " more lines were not kept",
								journal->dropped);
		insert(&insert_line, job, &line);
	}
}

void
jq_job_log_add(const JqJob *job, const char *level, const char *message,
			   const char *data)
{
	JqLogLine	line = {.level = level};

	line.logged_at = GetCurrentTimestamp();
	line.message = unconstify(char *, message);
	line.data = unconstify(char *, data);
	insert(&insert_capped, job, &line);
}

static void
insert(JqStatement *statement, const JqJob *job, const JqLogLine *line)
{
	Datum		values[7];
	char		nulls[] = "       ";

	values[0] = Int64GetDatum(job->id);
	values[1] = Int32GetDatum(job->claim_no);
	values[2] = TimestampTzGetDatum(line->logged_at);
	values[3] = CStringGetTextDatum(line->level);
	values[4] = CStringGetTextDatum(line->message);
	values[5] = (Datum) 0;
	if (line->data == NULL)
		nulls[5] = 'n';
	else
		values[5] = DirectFunctionCall1(jsonb_in, CStringGetDatum(line->data));
	values[6] = Int64GetDatum(jq_config_max_log_lines);
	if (jq_statement_execute(statement, values, nulls, 0) > 0 &&
		jq_event_log_has_all())
		jq_event_log_message(job, line->level, line->message);
}
