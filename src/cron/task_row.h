/*-------------------------------------------------------------------------
 *
 * task_row.h
 *	  Rows of cron_tasks as the C code reads them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_TASK_ROW_H
#define JQ_TASK_ROW_H

#include "postgres.h"

#include "cron/plan.h"

typedef enum JqOverlap
{
	JQ_OVERLAP_ALLOW,
	JQ_OVERLAP_SKIP,
	JQ_OVERLAP_REPLACE
} JqOverlap;

/*
 * What a SELECT has to list for jq_task_row_read().  Nothing that is computed:
 * one row whose values do not fit would fail the statement, and all tasks.
 */
#define JQ_TASK_COLUMNS \
	"id, name, schedule, timezone, owner::pg_catalog.oid, next_run_at," \
	" payload, unique_key, catch_up, catch_up_limit," \
	" start_deadline, overlap, jitter, starts_at, ends_at, max_runs," \
	" run_count, decided_until"
#define JQ_TASK_NCOLUMNS 18

typedef struct JqTaskRow
{
	int64		id;
	char	   *name;
	char	   *schedule;
	char	   *timezone;
	Oid			owner;			/* InvalidOid: nobody */
	TimestampTz planned;		/* DT_NOEND: there is no plan */
	Datum		payload;		/* as it is stored: perhaps a TOAST pointer */
	char	   *unique_key;		/* or NULL */
	JqCatchUp	catch_up;
	int			catch_up_limit;
	int64		start_deadline_us;	/* -1: none */
	JqOverlap	overlap;
	int64		jitter_us;		/* 0: none */
	TimestampTz starts_at;		/* DT_NOBEGIN: none */
	TimestampTz ends_at;		/* DT_NOEND: none */
	int64		runs_left;		/* PG_INT64_MAX: no limit */
	TimestampTz decided_until;	/* DT_NOBEGIN: nothing was decided yet */
} JqTaskRow;

/*
 * Reads row "row" of SPI_tuptable into the current context.  Never raises, as
 * long as the NOT NULL constraints hold.
 */
extern void jq_task_row_read(JqTaskRow *task, uint64 row);

/*
 * Fills in the plan.  NULL, or what is wrong with the definition: it can go
 * stale, for its zone or its owner may be gone.
 */
extern const char *jq_task_row_plan(const JqTaskRow *task, JqCronPlan *plan);

/* The value of that name; false if there is none. */
extern bool jq_catch_up_by_name(const char *name, JqCatchUp *value);
extern bool jq_overlap_by_name(const char *name, JqOverlap *value);

#endif							/* JQ_TASK_ROW_H */
