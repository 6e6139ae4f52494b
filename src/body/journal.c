/*-------------------------------------------------------------------------
 *
 * journal.c
 *	  What a job says while it runs.
 *
 * A worker has no client, so the server would drop a NOTICE before any hook
 * could see it.  While a body runs, log_min_messages is therefore low enough
 * for the log hook to be called, which keeps from the log what it did not ask
 * for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "body/journal.h"

#include "base/config.h"
#include "mb/pg_wchar.h"
#include "utils/elog.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define MAX_MESSAGE_LENGTH 8192
#define FIRST_ROOM 8

static const char *const level_names[] = {
	"debug", "info", "notice", "warning", "error"
};

static emit_log_hook_type next_log_hook = NULL;
static bool is_hooked = false;
static JqJournal *journal = NULL;	/* of the running body */
static int	server_level = 0;	/* log_min_messages outside the body */
static bool is_busy = false;

static void keep_message(ErrorData *edata);
static bool is_for_server_log(int elevel);

const char *
jq_journal_level(const char *name)
{
	for (int i = 0; i < (int) lengthof(level_names); i++)
		if (strcmp(name, level_names[i]) == 0)
			return level_names[i];
	return NULL;
}

JqJournal *
jq_journal_begin(JqJournal *new_journal, MemoryContext context)
{
	JqJournal  *before = journal;

	if (!is_hooked)
	{
		next_log_hook = emit_log_hook;
		emit_log_hook = keep_message;
		is_hooked = true;
	}
	is_busy = false;
	new_journal->context = context;
	journal = new_journal;
	if (before != NULL)
		return before;
	server_level = log_min_messages;
	if (!is_for_server_log(NOTICE))
		log_min_messages = NOTICE;
	return NULL;
}

/* Unless the body has changed the setting, which ends with the body. */
void
jq_journal_end(JqJournal *before)
{
	if (before == NULL && journal != NULL && log_min_messages == NOTICE)
		log_min_messages = server_level;
	journal = before;
}

void
jq_journal_add(const char *level, const char *message, const char *data)
{
	int			length = (int) strlen(message);
	MemoryContext old;
	JqLogLine  *line;

	if (journal == NULL)
		return;
	if (journal->nlines >= jq_config_max_log_lines)
	{
		journal->dropped++;
		return;
	}
	old = MemoryContextSwitchTo(journal->context);
	if (journal->nlines == journal->max_lines)
	{
		journal->max_lines = Max(journal->max_lines * 2, FIRST_ROOM);
		journal->lines = journal->lines == NULL ?
			palloc(sizeof(JqLogLine) * journal->max_lines) :
			repalloc(journal->lines, sizeof(JqLogLine) * journal->max_lines);
	}
	line = &journal->lines[journal->nlines++];
	line->logged_at = GetCurrentTimestamp();
	line->level = level;
	line->message = pnstrdup(message, pg_mbcliplen(message, length,
												   MAX_MESSAGE_LENGTH));
	line->data = data == NULL ? NULL : pstrdup(data);
	MemoryContextSwitchTo(old);
}

void
jq_journal_skip(const char *reason)
{
	if (journal == NULL)
		return;
	journal->is_skipped = true;
	journal->skip_reason = reason == NULL ? NULL :
		MemoryContextStrdup(journal->context, reason);
}

/* The log hook.  Should it run out of memory, it is not called again for that. */
static void
keep_message(ErrorData *edata)
{
	if (next_log_hook)
		next_log_hook(edata);
	if (journal == NULL || is_busy)
		return;
	is_busy = true;
	if (edata->elevel >= INFO && edata->elevel <= WARNING &&
		edata->message != NULL &&
		(edata->elevel == INFO || edata->elevel >= client_min_messages))
		jq_journal_add(edata->elevel >= WARNING ? "warning" :
					   edata->elevel == INFO ? "info" : "notice",
					   edata->message, NULL);
	is_busy = false;
	if (!is_for_server_log(edata->elevel))
		edata->output_to_server = false;
}

/* What the server itself would decide, with its own log_min_messages. */
static bool
is_for_server_log(int elevel)
{
	if (elevel == LOG || elevel == LOG_SERVER_ONLY)
		return server_level == LOG || server_level <= ERROR;
	if (server_level == LOG)
		return elevel >= FATAL;
	return elevel >= server_level;
}
