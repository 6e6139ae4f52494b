/*-------------------------------------------------------------------------
 *
 * histogram.c
 *	  SQL functions that read histograms: _histogram_lines,
 *	  _histogram_quantile, _histogram_sum.
 *
 * A histogram is an array of counts, one for each bound and one for what
 * exceeds them all; the bounds ascend. SQL over single buckets takes several
 * times as long, and a scrape has tens of thousands of them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/int.h"
#include "common/shortest_dec.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/float.h"

PG_FUNCTION_INFO_V1(jobqueue_histogram_lines);
PG_FUNCTION_INFO_V1(jobqueue_histogram_quantile);
PG_FUNCTION_INFO_V1(jobqueue_histogram_sum);

typedef struct Histogram
{
	const int64 *counts;		/* nbounds + 1 of them */
	const float8 *bounds;
	int			nbounds;
} Histogram;

static void read_histogram(FunctionCallInfo fcinfo, int n, Histogram *histogram);
static void *plain_array(ArrayType *array, Oid type, int dimensions,
						 const char *name);
static int64 add_counts(int64 a, int64 b);
static void append_number(StringInfo lines, float8 number);
static void append_count(StringInfo lines, int64 count);

/*
 * The lines of one series of a Prometheus histogram: cumulative buckets, sum
 * and count. Arguments: name, labels (rendered; may be empty), counts, bounds,
 * sum.
 */
Datum
jobqueue_histogram_lines(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *labels = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *start = psprintf("%s_bucket{%s%sle=\"", name, labels,
								 labels[0] == '\0' ? "" : ",");
	int			start_length = strlen(start);
	int64		total = 0;
	Histogram	histogram;
	StringInfoData lines;

	read_histogram(fcinfo, 2, &histogram);
	initStringInfo(&lines);
	for (int i = 0; i <= histogram.nbounds; i++)
	{
		total = add_counts(total, histogram.counts[i]);
		appendBinaryStringInfo(&lines, start, start_length);
		append_number(&lines, i < histogram.nbounds ? histogram.bounds[i] :
					  get_float8_infinity());
		appendStringInfoString(&lines, "\"} ");
		append_count(&lines, total);
	}
	appendStringInfo(&lines, "%s_sum{%s} ", name, labels);
	append_number(&lines, PG_GETARG_FLOAT8(4));
	appendStringInfo(&lines, "\n%s_count{%s} ", name, labels);
	append_count(&lines, total);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(lines.data, lines.len));
}

/*
 * Where so great a part of the values lies below, as Prometheus estimates it:
 * evenly spread inside a bucket. Null: no values. Above all bounds: the last.
 */
Datum
jobqueue_histogram_quantile(PG_FUNCTION_ARGS)
{
	float8		fraction = PG_GETARG_FLOAT8(2);
	int64		total = 0;
	float8		rank;
	Histogram	histogram;

	read_histogram(fcinfo, 0, &histogram);
	if (!(fraction >= 0 && fraction <= 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("fraction must be between 0 and 1")));
	for (int i = 0; i <= histogram.nbounds; i++)
		total = add_counts(total, histogram.counts[i]);
	if (total == 0 || histogram.nbounds == 0)
		PG_RETURN_NULL();

	rank = fraction * total;
	for (int i = 0; i < histogram.nbounds; i++)
	{
		float8		lower = i == 0 ? 0 : histogram.bounds[i - 1];
		int64		count = histogram.counts[i];

		if (count > 0 && rank <= count)
			PG_RETURN_FLOAT8(lower +
							 (histogram.bounds[i] - lower) * rank / count);
		rank -= count;
	}
	PG_RETURN_FLOAT8(histogram.bounds[histogram.nbounds - 1]);
}

/* The sum of histograms with the same bounds, the rows of a bigint[][]. */
Datum
jobqueue_histogram_sum(PG_FUNCTION_ARGS)
{
	ArrayType  *rows = PG_GETARG_ARRAYTYPE_P(0);
	const int64 *counts = plain_array(rows, INT8OID, 2, "histograms");
	int			nrows = ARR_DIMS(rows)[0];
	int			ncounts = ARR_DIMS(rows)[1];
	Datum	   *sums = palloc0(sizeof(Datum) * ncounts);

	for (int column = 0; column < ncounts; column++)
	{
		int64		sum = 0;

		for (int row = 0; row < nrows; row++)
			sum = add_counts(sum, counts[row * ncounts + column]);
		sums[column] = Int64GetDatum(sum);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(sums, ncounts, INT8OID, sizeof(int64),
										  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* Arguments n and n + 1: counts and bounds. */
static void
read_histogram(FunctionCallInfo fcinfo, int n, Histogram *histogram)
{
	ArrayType  *counts = PG_GETARG_ARRAYTYPE_P(n);
	ArrayType  *bounds = PG_GETARG_ARRAYTYPE_P(n + 1);

	histogram->counts = plain_array(counts, INT8OID, 1, "counts");
	histogram->bounds = plain_array(bounds, FLOAT8OID, 1, "bounds");
	histogram->nbounds = ARR_DIMS(bounds)[0];
	if (ARR_DIMS(counts)[0] != histogram->nbounds + 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("a histogram must have one count more than bounds"),
				 errdetail("There are %d counts and %d bounds.",
						   ARR_DIMS(counts)[0], histogram->nbounds)));
}

/* The elements, which lie one after another. */
static void *
plain_array(ArrayType *array, Oid type, int dimensions, const char *name)
{
	if (ARR_ELEMTYPE(array) != type)
		elog(ERROR, "unexpected element type %u", ARR_ELEMTYPE(array));
	if (ARR_NDIM(array) != dimensions || ARR_HASNULL(array))
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must have %d dimension(s) and no nulls",
						name, dimensions)));
	return (char *) array + ARR_OVERHEAD_NONULLS(dimensions);
}

static int64
add_counts(int64 a, int64 b)
{
	int64		sum;

	if (pg_add_s64_overflow(a, b, &sum))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("bigint out of range")));
	return sum;
}

/* A number as Prometheus and OpenMetrics read it; whole ones end in ".0". */
static void
append_number(StringInfo lines, float8 number)
{
	char		digits[DOUBLE_SHORTEST_DECIMAL_LEN];

	if (isnan(number))
		appendStringInfoString(lines, "NaN");
	else if (isinf(number))
		appendStringInfoString(lines, number > 0 ? "+Inf" : "-Inf");
	else
	{
		double_to_shortest_decimal_buf(number, digits);
		appendStringInfoString(lines, digits);
		if (strpbrk(digits, ".e") == NULL)
			appendStringInfoString(lines, ".0");
	}
}

/* The end of a line. */
static void
append_count(StringInfo lines, int64 count)
{
	char		digits[32];

	appendBinaryStringInfo(lines, digits, pg_lltoa(count, digits));
	appendStringInfoChar(lines, '\n');
}
