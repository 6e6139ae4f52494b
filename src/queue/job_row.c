/*-------------------------------------------------------------------------
 *
 * job_row.c
 *	  A row of jobs_queue in the hands of its trigger.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datum.h"

#include "queue/job_row.h"

void
jq_job_row_read(JqJobRow *row, HeapTuple tuple, TupleDesc desc)
{
	row->desc = desc;
	memset(row->replaced, 0, sizeof(row->replaced));
	for (int i = 0; i < JQ_JOB_NCOLUMNS; i++)
		row->values[i] = heap_getattr(tuple, i + 1, desc, &row->nulls[i]);
}

HeapTuple
jq_job_row_store(JqJobRow *row, HeapTuple tuple)
{
	int			columns[JQ_JOB_NCOLUMNS];
	Datum		values[JQ_JOB_NCOLUMNS];
	bool		nulls[JQ_JOB_NCOLUMNS];
	int			n = 0;

	for (int i = 0; i < JQ_JOB_NCOLUMNS; i++)
	{
		if (!row->replaced[i])
			continue;
		columns[n] = i + 1;
		values[n] = row->values[i];
		nulls[n++] = row->nulls[i];
	}
	return n == 0 ? tuple :
		heap_modify_tuple_by_cols(tuple, row->desc, n, columns, values, nulls);
}

void
jq_job_row_set(JqJobRow *row, int column, Datum value)
{
	row->values[column - 1] = value;
	row->nulls[column - 1] = false;
	row->replaced[column - 1] = true;
}

void
jq_job_row_clear(JqJobRow *row, int column)
{
	row->values[column - 1] = (Datum) 0;
	row->nulls[column - 1] = true;
	row->replaced[column - 1] = true;
}

void
jq_job_row_clear_claim(JqJobRow *row)
{
	static const int of_claim[] = {
		JQ_JOB_LOCKED_BY, JQ_JOB_LOCKED_AT, JQ_JOB_LEASE_EXPIRES_AT,
		JQ_JOB_CANCEL_REQUESTED_AT, JQ_JOB_HOLDER
	};

	for (int i = 0; i < (int) lengthof(of_claim); i++)
		if (!jq_job_row_is_null(row, of_claim[i]))
			jq_job_row_clear(row, of_claim[i]);
}

bool
jq_job_row_is_null(const JqJobRow *row, int column)
{
	return row->nulls[column - 1];
}

Datum
jq_job_row_value(const JqJobRow *row, int column)
{
	if (jq_job_row_is_null(row, column))
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("%s must not be null",
						NameStr(TupleDescAttr(row->desc, column - 1)->attname))));
	return row->values[column - 1];
}

char *
jq_job_row_text(const JqJobRow *row, int column)
{
	return TextDatumGetCString(jq_job_row_value(row, column));
}

int
jq_job_row_integer(const JqJobRow *row, int column)
{
	Datum		value = jq_job_row_value(row, column);

	return TupleDescAttr(row->desc, column - 1)->atttypid == INT2OID ?
		DatumGetInt16(value) : DatumGetInt32(value);
}

JqStatus
jq_job_row_status(const JqJobRow *row)
{
	return jq_job_status(jq_job_row_text(row, JQ_JOB_STATUS));
}

bool
jq_job_row_differs(const JqJobRow *was, const JqJobRow *is, int column)
{
	Form_pg_attribute attr = TupleDescAttr(was->desc, column - 1);

	if (jq_job_row_is_null(was, column) || jq_job_row_is_null(is, column))
		return jq_job_row_is_null(was, column) != jq_job_row_is_null(is, column);
	return !datum_image_eq(was->values[column - 1], is->values[column - 1],
						   attr->attbyval, attr->attlen);
}

bool
jq_job_row_has_owner(const JqJobRow *row)
{
	return !jq_job_row_is_null(row, JQ_JOB_OWNER) &&
		OidIsValid(DatumGetObjectId(jq_job_row_value(row, JQ_JOB_OWNER)));
}
