/*-------------------------------------------------------------------------
 *
 * target.c
 *	  What a request asks for: the path and the parameters of its target.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "http/target.h"

#define PATH_END "?"
#define NAME_END "=&"
#define VALUE_END "&"

static bool read_parameters(const char *position, JqHttpTarget *target);
static char *decode(const char **position, const char *ends, bool is_form);
static int	hex_value(char digit);

bool
jq_http_target_read(const char *string, JqHttpTarget *target)
{
	const char *position = string;

	memset(target, 0, sizeof(*target));
	if (string[0] != '/')
		return false;
	target->path = decode(&position, PATH_END, false);
	if (target->path == NULL)
		return false;
	return *position == '\0' || read_parameters(position + 1, target);
}

static bool
read_parameters(const char *position, JqHttpTarget *target)
{
	int			room = 1;

	for (const char *p = position; *p != '\0'; p++)
		room += *p == '&';
	target->parameters = palloc(sizeof(JqHttpParameter) * room);
	for (;;)
	{
		JqHttpParameter parameter;

		parameter.name = decode(&position, NAME_END, true);
		if (*position == '=')
		{
			position++;
			parameter.value = decode(&position, VALUE_END, true);
		}
		else
			parameter.value = pstrdup("");
		if (parameter.name == NULL || parameter.value == NULL)
			return false;
		if (parameter.name[0] != '\0')
			target->parameters[target->nparameters++] = parameter;
		if (*position == '\0')
			return true;
		position++;
	}
}

/*
 * Decodes up to one of the characters that end it, or the end of the text.
 * NULL: it is malformed; then the position does not matter.
 */
static char *
decode(const char **position, const char *ends, bool is_form)
{
	const char *p = *position;
	char	   *string = palloc(strlen(p) + 1);
	char	   *end = string;

	for (; *p != '\0' && strchr(ends, *p) == NULL; p++)
	{
		unsigned char byte = (unsigned char) *p;

		if (byte <= ' ' || byte >= 0x7f || byte == '#')
			return NULL;
		if (byte == '%')
		{
			int			high = hex_value(p[1]);
			int			low = high < 0 ? -1 : hex_value(p[2]);

			if (low < 0 || (high == 0 && low == 0))
				return NULL;
			byte = (unsigned char) (high << 4 | low);
			p += 2;
		}
		else if (byte == '+' && is_form)
			byte = ' ';
		*end++ = (char) byte;
	}
	*end = '\0';
	*position = p;
	return string;
}

static int
hex_value(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	if (digit >= 'A' && digit <= 'F')
		return digit - 'A' + 10;
	return -1;
}
