/*-------------------------------------------------------------------------
 *
 * journal.h
 *	  What a job says while it runs: job_log() and the NOTICEs of its body.
 *
 *	  Lines are kept in memory until the claim ends, so that a rollback of the
 *	  body does not lose them, and only up to a cap.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_JOURNAL_H
#define JQ_JOURNAL_H

#include "postgres.h"

#include "datatype/timestamp.h"

typedef struct JqLogLine
{
	TimestampTz logged_at;
	const char *level;			/* debug, info, notice, warning or error */
	char	   *message;
	char	   *data;			/* jsonb as text, or NULL */
} JqLogLine;

typedef struct JqJournal
{
	MemoryContext context;		/* of the lines */
	JqLogLine  *lines;
	int			nlines;
	int			max_lines;		/* room */
	int64		dropped;		/* lines over the cap */
	bool		is_skipped;		/* the job asked to be called skipped */
	char	   *skip_reason;	/* or NULL */
} JqJournal;

/* The name of a level as it is stored; NULL when there is no such level. */
extern const char *jq_journal_level(const char *name);

/* Adds a line to the journal of the running body, if one runs. */
extern void jq_journal_add(const char *level, const char *message,
						   const char *data);

/* The running body calls its job skipped, which counts if it succeeds. */
extern void jq_journal_skip(const char *reason);

/*
 * Between these two, messages of NOTICE, INFO and WARNING become lines of a
 * journal, which must be zeroed before its first use and whose lines are kept
 * in "context".  Bodies nest: the first returns the journal so far, which the
 * second, also after an error, makes the current one again.
 */
extern JqJournal *jq_journal_begin(JqJournal *journal, MemoryContext context);
extern void jq_journal_end(JqJournal *before);

#endif							/* JQ_JOURNAL_H */
