/*-------------------------------------------------------------------------
 *
 * queue_events.c
 *	  What the queue did by itself, or was told to do: rows of queue_events.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "base/scope.h"
#include "base/statement.h"
#include "queue/queue_events.h"

static JqStatement insert_event = {
	.text = "INSERT INTO @.queue_events (event, job_type, stage, job_id, data)"
	" VALUES ($1, $2, $3, $4, $5::pg_catalog.jsonb)",
	.nargs = 5,
	.argtypes = {TEXTOID, TEXTOID, TEXTOID, INT8OID, TEXTOID}
};

void
jq_queue_event(const char *event, const char *job_type, const char *stage,
			   int64 job_id, const char *data)
{
	Datum		values[5];
	char		nulls[5] = {' ', ' ', ' ', ' ', ' '};

	jq_scope_enter(JQ_WRITE_ENGINE);
	values[0] = CStringGetTextDatum(event);
	values[1] = job_type == NULL ? (Datum) 0 : CStringGetTextDatum(job_type);
	values[2] = stage == NULL ? (Datum) 0 : CStringGetTextDatum(stage);
	values[3] = Int64GetDatum(job_id);
	values[4] = data == NULL ? (Datum) 0 : CStringGetTextDatum(data);
	nulls[1] = job_type == NULL ? 'n' : ' ';
	nulls[2] = stage == NULL ? 'n' : ' ';
	nulls[3] = job_id == 0 ? 'n' : ' ';
	nulls[4] = data == NULL ? 'n' : ' ';
	(void) jq_statement_execute(&insert_event, values, nulls, 1);
	jq_scope_leave();
}
