/*-------------------------------------------------------------------------
 *
 * job_body.c
 *	  The body of an SQL job, as the rows of the job and its type have it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "queue/job.h"
#include "queue/job_body.h"
#include "queue/job_types.h"

static void choose_command(JqBody *body, const JqJob *row,
						   const JqJobType *type, Oid role);
static void read_payload_command(JqBody *body);
static JsonbValue *payload_key(Jsonb *payload, const char *key);
static int	least_timeout_ms(TupleTableSlot *slot, int64 type_timeout_us);

void
jq_job_body_read(TupleTableSlot *slot, const pg_uuid_t *worker, Oid role,
				 MemoryContext context, JqHeld *held, JqBody *body)
{
	JqCurrentJob *current = &body->job;
	const JqJobType *type;
	MemoryContext old;
	JqJob		row;
	Datum		payload;
	bool		isnull;

	jq_job_read(slot, &row);
	type = jq_job_type(row.job_type);
	old = MemoryContextSwitchTo(context);
	held->job_id = row.id;
	held->worker = *worker;
	held->claim_no = row.claim_no;
	current->job_id = row.id;
	current->claim_no = row.claim_no;
	current->worker = *worker;
	current->job_type = pstrdup(row.job_type);
	current->stage = pstrdup(row.stage);
	current->attempt = row.attempts;
	current->max_attempts = row.max_attempts;
	current->scheduled_at = row.scheduled_at;
	current->deadline = DT_NOEND;
	current->correlation_id = row.has_correlation_id ?
		TextDatumGetCString(row.correlation_id) : NULL;
	current->cron_task_id =
		DatumGetInt64(slot_getattr(slot, JQ_JOB_CRON_TASK_ID, &isnull));
	if (isnull)
		current->cron_task_id = 0;
	current->cron_instant =
		DatumGetTimestampTz(slot_getattr(slot, JQ_JOB_CRON_INSTANT, &isnull));
	if (isnull)
		current->cron_instant = DT_NOEND;
	payload = slot_getattr(slot, JQ_JOB_PAYLOAD, &isnull);
	body->payload = PointerGetDatum(PG_DETOAST_DATUM_COPY(payload));
	body->crashes = row.crashes;
	body->timeout_ms = least_timeout_ms(slot, type->timeout_us);
	choose_command(body, &row, type, role);
	MemoryContextSwitchTo(old);
}

/* The command of a job type runs as the owner of the job type only. */
static void
choose_command(JqBody *body, const JqJob *row, const JqJobType *type, Oid role)
{
	body->mode = type->mode;
	if (type->command != NULL && type->owner == role)
		body->command = pstrdup(type->command);
	else if (type->command == NULL && row->owner == role &&
			 strcmp(row->job_type, JQ_SQL_JOB_TYPE) == 0)
		read_payload_command(body);
}

/*
 * Takes a payload of the built-in type apart: the command, none if there is
 * none, its mode, and the payload that the command gets.
 */
static void
read_payload_command(JqBody *body)
{
	Jsonb	   *payload = DatumGetJsonbP(body->payload);
	JsonbValue *command;
	JsonbValue *mode;
	JsonbValue *inner;

	if (!JsonContainerIsObject(&payload->root))
		return;
	command = payload_key(payload, "command");
	mode = payload_key(payload, "mode");
	inner = payload_key(payload, "payload");
	if (command == NULL || command->type != jbvString)
		return;
	body->command = pnstrdup(command->val.string.val, command->val.string.len);
	if (mode != NULL && mode->type == jbvString)
		(void) jq_mode_from_name(pnstrdup(mode->val.string.val,
										  mode->val.string.len), &body->mode);
	body->payload = inner != NULL ? JsonbPGetDatum(JsonbValueToJsonb(inner)) :
		DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
}

static JsonbValue *
payload_key(Jsonb *payload, const char *key)
{
	return getKeyJsonValueFromContainer(&payload->root, key, strlen(key), NULL);
}

/* The lesser of the job's and the type's limits; 0: none. */
static int
least_timeout_ms(TupleTableSlot *slot, int64 type_timeout_us)
{
	int64		least_ms = type_timeout_us > 0 ?
	Max(type_timeout_us / 1000, 1) : 0;
	bool		isnull;
	Datum		datum = slot_getattr(slot, JQ_JOB_TIMEOUT, &isnull);

	if (!isnull)
	{
		Interval   *interval = DatumGetIntervalP(datum);
		int64		job_ms = (int64) interval->month * DAYS_PER_MONTH * 86400000 +
		(int64) interval->day * 86400000 + interval->time / 1000;

		job_ms = Max(job_ms, 1);
		if (least_ms == 0 || job_ms < least_ms)
			least_ms = job_ms;
	}
	return (int) Min(least_ms, INT_MAX);
}

void
jq_job_body_outcome(const JqBodyEnd *end, JqOutcome *outcome)
{
	outcome->command_tag = end->command_tag;
	if (end->journal.is_skipped)
	{
		outcome->kind = JQ_OUTCOME_SKIPPED;
		outcome->error = end->journal.skip_reason;
		return;
	}
	outcome->kind = JQ_OUTCOME_COMPLETED;
	outcome->has_result = end->has_result;
	outcome->result = end->result;
}

char *
jq_job_error_text(const ErrorData *error)
{
	char	   *full = psprintf("%s (%s)", error->message,
								unpack_sql_state(error->sqlerrcode));

	if (error->detail != NULL)
		full = psprintf("%s\nDETAIL:  %s", full, error->detail);
	if (error->hint != NULL)
		full = psprintf("%s\nHINT:  %s", full, error->hint);
	return jq_job_clip_error(full);
}
