/*
 * expression.c
 *	  Parser of schedules: cron fields, macros and intervals.
 *
 * A schedule is at most 256 bytes of printable ASCII.  It is split into words
 * first; its first word tells which of three grammars the others follow:
 *
 *	macro		@daily, ... stand for fields, @reboot for itself
 *	interval	"every [N] seconds|minutes|hours|days", "@every 1h30m"
 *	fields		[second] minute hour day-of-month month day-of-week
 *
 *	field		item {"," item}, or "?" for a day
 *	item		("*" | value ["-" value]) ["/" step]
 *				"L" | "LW" | value "W"				day of month
 *				value "L" | value "#" number		day of week
 *
 * Nothing here raises errors, allocates or looks at a clock, so that the
 * parser can be fuzzed without a server.
 */
#include "postgres.h"

#include <ctype.h>

#include "cron/calendar.h"
#include "cron/expression.h"

#include "datatype/timestamp.h"

#define MAX_INTERVAL_S	(INT64CONST(366) * SECS_PER_DAY)
#define NUMBER_LIMIT	1000000000	/* larger numbers are read as this */
#define MAX_WORDS		(JQ_CRON_NFIELDS + 1)	/* one more than is legal */

#define BIT(n)			(UINT64CONST(1) << (n))

typedef struct FieldSpec
{
	const char *name;
	int			min;
	int			max;			/* largest value that may be written */
	int			last;			/* where "*" and "n/step" end */
	const char *const *names;	/* of min, min + 1, ..., or NULL */
} FieldSpec;

typedef struct Word
{
	int			start;
	int			end;			/* one past its last byte */
} Word;

/* The word being read, and where results and errors go. */
typedef struct Cursor
{
	const char *source;
	int			pos;			/* next byte to read */
	int			end;			/* one past the last byte of the word */
	JqCronField field;			/* meaningful inside the fields only */
	const FieldSpec *spec;		/* NULL outside fields and intervals */
	JqCronExpr *expr;
	JqCronError *error;
} Cursor;

typedef struct Unit
{
	const char *name;
	int			seconds;
} Unit;

typedef struct Macro
{
	const char *name;
	const char *fields;
} Macro;

static const char *const month_names[] = {
	"jan", "feb", "mar", "apr", "may", "jun",
	"jul", "aug", "sep", "oct", "nov", "dec", NULL
};

static const char *const weekday_names[] = {
	"sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL
};

static const FieldSpec field_specs[JQ_CRON_NFIELDS] = {
	[JQ_CRON_SECOND] = {"second", 0, 59, 59, NULL},
	[JQ_CRON_MINUTE] = {"minute", 0, 59, 59, NULL},
	[JQ_CRON_HOUR] = {"hour", 0, 23, 23, NULL},
	[JQ_CRON_DAY] = {"day of month", 1, 31, 31, NULL},
	[JQ_CRON_MONTH] = {"month", 1, 12, 12, month_names},
	[JQ_CRON_WEEKDAY] = {"day of week", 0, 7, 6, weekday_names},
};

static const FieldSpec interval_spec = {"interval", 0, 0, 0, NULL};

/* longest first; "@every" knows them by their first letter */
static const Unit units[] = {
	{"day", SECS_PER_DAY},
	{"hour", SECS_PER_HOUR},
	{"minute", SECS_PER_MINUTE},
	{"second", 1},
};

static const Macro macros[] = {
	{"@yearly", "0 0 1 1 *"},
	{"@annually", "0 0 1 1 *"},
	{"@monthly", "0 0 1 * *"},
	{"@weekly", "0 0 * * 0"},
	{"@daily", "0 0 * * *"},
	{"@midnight", "0 0 * * *"},
	{"@hourly", "0 * * * *"},
};

static bool check_bytes(Cursor *cursor, size_t len);
static int	split_words(const char *schedule, int len, Word *words);
static bool parse_macro(Cursor *cursor, const Word *words, int nwords);
static bool parse_every(Cursor *cursor, const Word *words, int nwords);
static bool parse_duration(Cursor *cursor, const Word *words, int nwords);
static bool parse_fields(Cursor *cursor, const Word *words, int nwords);
static int64 read_units(Cursor *cursor);
static const Unit *find_unit(const Cursor *cursor, const Word *word);
static bool set_interval(Cursor *cursor, int pos, int64 seconds);
static bool parse_field(Cursor *cursor, const Word *word);
static bool read_item(Cursor *cursor);
static bool read_range(Cursor *cursor, int low);
static bool add_range(Cursor *cursor, int low, int high);
static bool read_nth_weekday(Cursor *cursor, int weekday);
static bool read_value(Cursor *cursor, int *value);
static bool read_name(Cursor *cursor, int *value);
static bool read_number(Cursor *cursor, int *value);
static bool word_is(const Cursor *cursor, const Word *word, const char *name);
static char peek(const Cursor *cursor);
static bool accept_char(Cursor *cursor, char expected);
static bool fail_expected(Cursor *cursor, const char *expected);
static bool fail(Cursor *cursor, int pos, const char *reason,...)
			pg_attribute_printf(3, 4);

bool
jq_cron_parse(const char *schedule, size_t len, JqCronExpr *expr,
			  JqCronError *error)
{
	Cursor		cursor = {0};
	Word		words[MAX_WORDS];
	int			nwords;

	memset(expr, 0, sizeof(*expr));
	memset(error, 0, sizeof(*error));
	cursor.source = schedule;
	cursor.expr = expr;
	cursor.error = error;

	if (!check_bytes(&cursor, len))
		return false;
	nwords = split_words(schedule, (int) len, words);
	if (nwords == 0)
		return fail(&cursor, 0, "the expression is empty");

	if (word_is(&cursor, &words[0], "every"))
		return parse_every(&cursor, words, nwords);
	if (word_is(&cursor, &words[0], "@every"))
		return parse_duration(&cursor, words, nwords);
	if (schedule[words[0].start] == '@')
		return parse_macro(&cursor, words, nwords);
	return parse_fields(&cursor, words, nwords);
}

/*
 * Refuse what no schedule holds.  Afterwards the text is short, has no NUL and
 * can be quoted in messages in any encoding.
 */
static bool
check_bytes(Cursor *cursor, size_t len)
{
	if (len > JQ_CRON_MAX_LENGTH)
		return fail(cursor, JQ_CRON_MAX_LENGTH,
					"the expression is longer than %d bytes",
					JQ_CRON_MAX_LENGTH);

	for (int i = 0; i < (int) len; i++)
	{
		unsigned char byte = (unsigned char) cursor->source[i];

		if (byte != '\t' && (byte < ' ' || byte > '~'))
			return fail(cursor, i, "byte 0x%02X is not allowed", byte);
	}
	return true;
}

/* Find the words between blanks and tabs: their number, at most MAX_WORDS. */
static int
split_words(const char *schedule, int len, Word *words)
{
	int			nwords = 0;
	bool		in_word = false;

	for (int i = 0; i < len; i++)
	{
		bool		is_blank = (schedule[i] == ' ' || schedule[i] == '\t');

		if (!is_blank && !in_word)
		{
			if (nwords == MAX_WORDS)
				break;
			words[nwords++].start = i;
		}
		if (!is_blank)
			words[nwords - 1].end = i + 1;
		in_word = !is_blank;
	}
	return nwords;
}

/* Read a macro by reading the fields that it stands for. */
static bool
parse_macro(Cursor *cursor, const Word *words, int nwords)
{
	Word		fields[MAX_WORDS];

	if (word_is(cursor, &words[0], "@reboot"))
	{
		if (nwords > 1)
			return fail(cursor, words[1].start, "nothing may follow @reboot");
		cursor->expr->kind = JQ_CRON_REBOOT;
		return true;
	}

	for (size_t i = 0; i < lengthof(macros); i++)
	{
		if (!word_is(cursor, &words[0], macros[i].name))
			continue;
		if (nwords > 1)
			return fail(cursor, words[1].start,
						"nothing may follow %s", macros[i].name);
		cursor->source = macros[i].fields;
		return parse_fields(cursor, fields,
							split_words(cursor->source,
										(int) strlen(cursor->source), fields));
	}
	return fail(cursor, words[0].start,
				"only @yearly, @annually, @monthly, @weekly, @daily, "
				"@midnight, @hourly, @reboot and @every may start with \"@\"");
}

/* Read "every [N] unit"; words[0] is "every". */
static bool
parse_every(Cursor *cursor, const Word *words, int nwords)
{
	const Word *last = &words[nwords - 1];
	const Unit *unit;
	int			count = 1;

	cursor->spec = &interval_spec;
	if (nwords == 1)
		return fail(cursor, words[0].end, "a number or a unit is missing");
	if (nwords > 3)
		return fail(cursor, words[3].start,
					"nothing may follow the unit of an interval");
	if (nwords == 3)
	{
		cursor->pos = words[1].start;
		cursor->end = words[1].end;
		if (!read_number(cursor, &count))
			return false;
		if (cursor->pos < cursor->end)
			return fail_expected(cursor, "a digit");
	}

	unit = find_unit(cursor, last);
	if (unit == NULL)
		return fail(cursor, last->start,
					"the unit must be seconds, minutes, hours or days");
	return set_interval(cursor, words[1].start,
						(int64) count * unit->seconds);
}

/* Read "@every 1h30m"; words[0] is "@every". */
static bool
parse_duration(Cursor *cursor, const Word *words, int nwords)
{
	int64		seconds;

	cursor->spec = &interval_spec;
	if (nwords == 1)
		return fail(cursor, words[0].end,
					"a length such as 1h30m is missing");
	if (nwords > 2)
		return fail(cursor, words[2].start,
					"nothing may follow the length of an interval");

	cursor->pos = words[1].start;
	cursor->end = words[1].end;
	seconds = read_units(cursor);
	return seconds >= 0 && set_interval(cursor, words[1].start, seconds);
}

/* Read five fields, or six with the seconds first. */
static bool
parse_fields(Cursor *cursor, const Word *words, int nwords)
{
	JqCronExpr *expr = cursor->expr;
	int			first = JQ_CRON_NFIELDS - nwords;

	if (nwords > JQ_CRON_NFIELDS)
		return fail(cursor, words[JQ_CRON_NFIELDS].start,
					"there must be five or six fields, not more");
	if (nwords < JQ_CRON_NFIELDS - 1)
		return fail(cursor, words[nwords - 1].end,
					"there must be five or six fields, not %d", nwords);

	expr->kind = JQ_CRON_FIELDS;
	expr->values[JQ_CRON_SECOND] = BIT(0);	/* unless the text says more */
	for (int i = 0; i < nwords; i++)
	{
		cursor->field = first + i;
		cursor->spec = &field_specs[cursor->field];
		if (!parse_field(cursor, &words[i]))
			return false;
	}
	if (jq_cron_has_date(expr))
		return true;

	cursor->spec = &field_specs[JQ_CRON_DAY];
	return fail(cursor, words[JQ_CRON_DAY - first].start,
				"no date of the given months ever matches");
}

/*
 * Read a sum such as "1h30m", longest unit first, each at most once.  Returns
 * its seconds, or -1 after an error.
 */
static int64
read_units(Cursor *cursor)
{
	int64		seconds = 0;
	size_t		next_unit = 0;

	while (cursor->pos < cursor->end)
	{
		int			count;

		if (!read_number(cursor, &count))
			return -1;
		while (next_unit < lengthof(units) &&
			   peek(cursor) != units[next_unit].name[0])
			next_unit++;
		if (next_unit == lengthof(units))
		{
			fail(cursor, cursor->pos,
				 "each number must be followed by d, h, m or s, in this order");
			return -1;
		}
		seconds += (int64) count * units[next_unit++].seconds;
		cursor->pos++;
	}
	return seconds;
}

/* Unit that the word names, in the singular or plural; NULL if none. */
static const Unit *
find_unit(const Cursor *cursor, const Word *word)
{
	Word		singular = *word;

	if (pg_ascii_tolower(cursor->source[word->end - 1]) == 's')
		singular.end--;
	for (size_t i = 0; i < lengthof(units); i++)
	{
		if (word_is(cursor, &singular, units[i].name))
			return &units[i];
	}
	return NULL;
}

/* Make the schedule an interval, whose length was read at pos. */
static bool
set_interval(Cursor *cursor, int pos, int64 seconds)
{
	if (seconds < 1 || seconds > MAX_INTERVAL_S)
		return fail(cursor, pos,
					"the interval must be between 1 second and 366 days");
	cursor->expr->kind = JQ_CRON_INTERVAL;
	cursor->expr->interval_s = seconds;
	return true;
}

/* Read one field, all of word. */
static bool
parse_field(Cursor *cursor, const Word *word)
{
	JqCronField field = cursor->field;
	uint64	   *values = &cursor->expr->values[field];

	*values = 0;
	cursor->pos = word->start;
	cursor->end = word->end;
	cursor->expr->is_star[field] = (peek(cursor) == '*');

	if ((field == JQ_CRON_DAY || field == JQ_CRON_WEEKDAY) &&
		word_is(cursor, word, "?"))
	{
		cursor->expr->is_star[field] = true;
		cursor->pos = cursor->end;
		return add_range(cursor, cursor->spec->min, cursor->spec->last);
	}

	do
	{
		if (!read_item(cursor))
			return false;
	} while (accept_char(cursor, ','));
	if (cursor->pos < cursor->end)
		return fail(cursor, cursor->pos, "unexpected \"%c\"",
					cursor->source[cursor->pos]);

	if (field == JQ_CRON_WEEKDAY && (*values & BIT(7)))
		*values = (*values | BIT(0)) & ~BIT(7);
	return true;
}

/* Read one item of a list and add what it stands for to the schedule. */
static bool
read_item(Cursor *cursor)
{
	JqCronExpr *expr = cursor->expr;
	int			value;

	if (accept_char(cursor, '*'))
		return add_range(cursor, cursor->spec->min, cursor->spec->last);
	if (cursor->field == JQ_CRON_DAY && accept_char(cursor, 'l'))
	{
		if (accept_char(cursor, 'w'))
			expr->last_workday = true;
		else
			expr->last_day = true;
		return true;
	}

	if (!read_value(cursor, &value))
		return false;
	if (cursor->field == JQ_CRON_DAY && accept_char(cursor, 'w'))
	{
		expr->nearest_days |= BIT(value);
		return true;
	}
	if (cursor->field == JQ_CRON_WEEKDAY && accept_char(cursor, 'l'))
	{
		expr->last_weekdays |= BIT(value % 7);
		return true;
	}
	if (cursor->field == JQ_CRON_WEEKDAY && accept_char(cursor, '#'))
		return read_nth_weekday(cursor, value % 7);
	return read_range(cursor, value);
}

/* Read what may follow the first value of a range, and add the range. */
static bool
read_range(Cursor *cursor, int low)
{
	int			high = low;

	if (accept_char(cursor, '-'))
	{
		int			pos = cursor->pos;

		if (!read_value(cursor, &high))
			return false;
		if (high < low)
			return fail(cursor, pos, "the range ends before it starts");
	}
	else if (peek(cursor) == '/')
		high = Max(low, cursor->spec->last);
	return add_range(cursor, low, high);
}

/* Read the step that may follow a range, and add every step-th value of it. */
static bool
add_range(Cursor *cursor, int low, int high)
{
	const FieldSpec *spec = cursor->spec;
	int			max_step = spec->last - spec->min + 1;
	int			step = 1;

	if (accept_char(cursor, '/'))
	{
		int			pos = cursor->pos;

		if (!read_number(cursor, &step))
			return false;
		if (step < 1 || step > max_step)
			return fail(cursor, pos, "the step must be between 1 and %d",
						max_step);
	}
	for (int value = low; value <= high; value += step)
		cursor->expr->values[cursor->field] |= BIT(value);
	return true;
}

/* Read the k of "n#k", the k-th such weekday of the month. */
static bool
read_nth_weekday(Cursor *cursor, int weekday)
{
	int			pos = cursor->pos;
	int			nth;

	if (!read_number(cursor, &nth))
		return false;
	if (nth < 1 || nth > 5)
		return fail(cursor, pos,
					"the number after \"#\" must be between 1 and 5");
	cursor->expr->nth_weekdays[nth] |= BIT(weekday);
	return true;
}

/* Read a number or a name that is legal in the field. */
static bool
read_value(Cursor *cursor, int *value)
{
	const FieldSpec *spec = cursor->spec;
	int			pos = cursor->pos;

	if (spec->names != NULL && isalpha((unsigned char) peek(cursor)))
		return read_name(cursor, value);
	if (!read_number(cursor, value))
		return false;
	if (*value < spec->min || *value > spec->max)
		return fail(cursor, pos, "the value must be between %d and %d",
					spec->min, spec->max);
	return true;
}

/* Read one of the field's names; more letters may follow, as in "friL". */
static bool
read_name(Cursor *cursor, int *value)
{
	const FieldSpec *spec = cursor->spec;
	int			start = cursor->pos;
	int			len = Min(3, cursor->end - start);

	for (int i = 0; spec->names[i] != NULL; i++)
	{
		Word		name = {start, start + len};

		if (word_is(cursor, &name, spec->names[i]))
		{
			*value = spec->min + i;
			cursor->pos += len;
			return true;
		}
	}
	return fail(cursor, start, "\"%.*s\" is not a name of a %s",
				len, cursor->source + start,
				cursor->field == JQ_CRON_MONTH ? "month" : "weekday");
}

/* Read digits; what is larger than NUMBER_LIMIT becomes NUMBER_LIMIT. */
static bool
read_number(Cursor *cursor, int *value)
{
	int64		number = 0;

	if (!isdigit((unsigned char) peek(cursor)))
		return fail_expected(cursor, "a number");
	while (isdigit((unsigned char) peek(cursor)))
	{
		number = number * 10 + (peek(cursor) - '0');
		number = Min(number, NUMBER_LIMIT);
		cursor->pos++;
	}
	*value = (int) number;
	return true;
}

/* Is the word that name, in whatever case? */
static bool
word_is(const Cursor *cursor, const Word *word, const char *name)
{
	size_t		len = word->end - word->start;

	return len == strlen(name) &&
		pg_strncasecmp(cursor->source + word->start, name, len) == 0;
}

/* Next character of the word in lower case, NUL at its end. */
static char
peek(const Cursor *cursor)
{
	if (cursor->pos >= cursor->end)
		return '\0';
	return (char) pg_ascii_tolower(cursor->source[cursor->pos]);
}

/* Step over the next character if it is that one, given in lower case. */
static bool
accept_char(Cursor *cursor, char expected)
{
	if (peek(cursor) != expected)
		return false;
	cursor->pos++;
	return true;
}

/* Refuse what stands at the cursor, where something else must. */
static bool
fail_expected(Cursor *cursor, const char *expected)
{
	if (cursor->pos >= cursor->end)
		return fail(cursor, cursor->pos, "%s is missing", expected);
	return fail(cursor, cursor->pos, "expected %s, not \"%c\"",
				expected, cursor->source[cursor->pos]);
}

/*
 * Fill the error: reason is a clause without its period, pos counts from 0.
 * Returns false, so that callers can pass that on.
 */
static bool
fail(Cursor *cursor, int pos, const char *reason,...)
{
	JqCronError *error = cursor->error;
	char		clause[128];
	va_list		args;

	va_start(args, reason);
	vsnprintf(clause, sizeof(clause), reason, args);
	va_end(args);

	error->position = pos + 1;
	if (cursor->spec == NULL)
		snprintf(error->message, sizeof(error->message),
				 "Position %d: %s.", error->position, clause);
	else
	{
		error->field = cursor->spec->name;
		snprintf(error->message, sizeof(error->message),
				 "Field \"%s\", position %d: %s.",
				 error->field, error->position, clause);
	}
	return false;
}
