/*-------------------------------------------------------------------------
 *
 * job_row.h
 *	  A row of jobs_queue in the hands of its trigger.
 *
 *	  Columns are numbered by enum JqJobColumn.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_JOB_ROW_H
#define JQ_JOB_ROW_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "base/catalog.h"
#include "queue/job.h"

/* The values of a row, which point into its tuple, and what has changed. */
typedef struct JqJobRow
{
	TupleDesc	desc;
	Datum		values[JQ_JOB_NCOLUMNS];
	bool		nulls[JQ_JOB_NCOLUMNS];
	bool		replaced[JQ_JOB_NCOLUMNS];
} JqJobRow;

extern void jq_job_row_read(JqJobRow *row, HeapTuple tuple, TupleDesc desc);

/* The tuple with the changes; itself when there are none. */
extern HeapTuple jq_job_row_store(JqJobRow *row, HeapTuple tuple);

extern void jq_job_row_set(JqJobRow *row, int column, Datum value);
extern void jq_job_row_clear(JqJobRow *row, int column);

/* What only a running job has. */
extern void jq_job_row_clear_claim(JqJobRow *row);

extern bool jq_job_row_is_null(const JqJobRow *row, int column);

/* These raise 23502, naming the column, when the value is null. */
extern Datum jq_job_row_value(const JqJobRow *row, int column);
extern char *jq_job_row_text(const JqJobRow *row, int column);
extern int	jq_job_row_integer(const JqJobRow *row, int column);

/* Raises 23514 when the text is no status. */
extern JqStatus jq_job_row_status(const JqJobRow *row);

/* Whether the column differs between two versions of a row. */
extern bool jq_job_row_differs(const JqJobRow *was, const JqJobRow *is,
							   int column);

/* Role "-" is nobody, as null is. */
extern bool jq_job_row_has_owner(const JqJobRow *row);

#endif							/* JQ_JOB_ROW_H */
