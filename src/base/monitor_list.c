/*-------------------------------------------------------------------------
 *
 * monitor_list.c
 *	  The setting jobqueue.monitor: which monitors there are.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "base/monitor_list.h"

#include "base/config.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "parser/scansup.h"

#define DEFAULT_ADDRESS "127.0.0.1"
#define MAX_HOST_LENGTH 253

static const char *read_list(const char *list, List **entries);
static const char *read_entry(const char **position, JqMonitorEntry *entry);
static const char *read_word(const char **position, char **key, char **value);
static const char *take_word(JqMonitorEntry *entry, const char *key,
							 char *value);
static const char *take_name(char **field, const char *key, char *value);
static const char *take_address(JqMonitorEntry *entry, char *value);
static const char *take_port(JqMonitorEntry *entry, const char *value);
static const char *take_host(JqMonitorEntry *entry, char *value);
static const char *finish_entry(JqMonitorEntry *entry, List *others);
static uint32 hash_entry(const JqMonitorEntry *entry);

const char *
jq_monitor_list_flaw(const char *list)
{
	List	   *entries;

	return read_list(list, &entries);
}

List *
jq_monitor_list_read(const char *list)
{
	List	   *entries;

	return read_list(list, &entries) == NULL ? entries : NIL;
}

JqMonitorEntry *
jq_monitor_list_find(uint32 key)
{
	ListCell   *cell;

	foreach(cell, jq_monitor_list_read(jq_config_monitor))
	{
		JqMonitorEntry *entry = (JqMonitorEntry *) lfirst(cell);

		if (entry->key == key)
			return entry;
	}
	return NULL;
}

/* Returns what is wrong, or NULL. */
static const char *
read_list(const char *list, List **entries)
{
	const char *position = list;

	*entries = NIL;
	while (scanner_isspace(*position))
		position++;
	while (*position != '\0')
	{
		JqMonitorEntry *entry = palloc0(sizeof(JqMonitorEntry));
		const char *flaw = read_entry(&position, entry);

		if (flaw == NULL)
			flaw = finish_entry(entry, *entries);
		if (flaw != NULL)
			return flaw;
		*entries = lappend(*entries, entry);
		if (*position == ',' && *++position == '\0')
			return "The list must not end with a comma.";
	}
	if (list_length(*entries) > JQ_MAX_MONITORS)
		return psprintf("It must have at most %d entries.", JQ_MAX_MONITORS);
	return NULL;
}

/* Reads up to the comma that ends the entry, or the end. */
static const char *
read_entry(const char **position, JqMonitorEntry *entry)
{
	for (;;)
	{
		const char *flaw;
		char	   *key;
		char	   *value;

		while (scanner_isspace(**position))
			(*position)++;
		if (**position == ',' || **position == '\0')
			return NULL;
		flaw = read_word(position, &key, &value);
		if (flaw == NULL)
			flaw = take_word(entry, key, value);
		if (flaw != NULL)
			return flaw;
	}
}

/* Reads one key=value. */
static const char *
read_word(const char **position, char **key, char **value)
{
	const char *start = *position;
	const char *p = start;
	StringInfoData string;

	while (*p >= 'a' && *p <= 'z')
		p++;
	if (p == start || *p != '=')
		return "Each entry must consist of words like port=9187.";
	*key = pnstrdup(start, p - start);
	p++;

	initStringInfo(&string);
	if (*p == '"')
	{
		for (p++; *p != '"' || p[1] == '"'; p++)
		{
			if (*p == '\0')
				return "A double quote is missing.";
			if (*p == '"')
				p++;
			appendStringInfoChar(&string, *p);
		}
		p++;
		if (*p != '\0' && *p != ',' && !scanner_isspace(*p))
			return "A quoted value must be followed by a blank or a comma.";
	}
	else
		for (; *p != '\0' && *p != ',' && !scanner_isspace(*p); p++)
		{
			if (*p == '"')
				return "A double quote must be the first character of a value.";
			appendStringInfoChar(&string, *p);
		}
	*position = p;
	*value = string.data;

	return NULL;
}

static const char *
take_word(JqMonitorEntry *entry, const char *key, char *value)
{
	if (strcmp(key, "database") == 0)
		return take_name(&entry->database, key, value);
	if (strcmp(key, "role") == 0)
		return take_name(&entry->role, key, value);
	if (strcmp(key, "address") == 0)
		return take_address(entry, value);
	if (strcmp(key, "port") == 0)
		return take_port(entry, value);
	if (strcmp(key, "host") == 0)
		return take_host(entry, value);
	return psprintf("Unrecognized key \"%s\"; the keys are database, role, port, address and host.",
					key);
}

static const char *
take_name(char **field, const char *key, char *value)
{
	if (*field != NULL)
		return psprintf("\"%s\" must not be given twice in an entry.", key);
	if (value[0] == '\0' || strlen(value) >= NAMEDATALEN)
		return psprintf("\"%s\" must have 1 to %d bytes.", key,
						NAMEDATALEN - 1);
	*field = value;
	return NULL;
}

static const char *
take_address(JqMonitorEntry *entry, char *value)
{
	unsigned char address[16];

	if (entry->address != NULL)
		return "\"address\" must not be given twice in an entry.";
	if (inet_pton(AF_INET, value, address) != 1 &&
		inet_pton(AF_INET6, value, address) != 1)
		return "\"address\" must be a numeric address, like 127.0.0.1, 0.0.0.0 or ::1.";
	entry->address = value;
	return NULL;
}

static const char *
take_port(JqMonitorEntry *entry, const char *value)
{
	if (entry->port != 0)
		return "\"port\" must not be given twice in an entry.";
	if (strlen(value) <= 5 && strspn(value, "0123456789") == strlen(value))
		entry->port = atoi(value);
	if (entry->port < 1 || entry->port > 65535)
		return "\"port\" must be between 1 and 65535.";
	return NULL;
}

/* A name; addresses need none. */
static const char *
take_host(JqMonitorEntry *entry, char *value)
{
	size_t		length = strlen(value);

	for (char *p = value; *p != '\0'; p++)
		*p = pg_ascii_tolower((unsigned char) *p);
	if (length == 0 || length > MAX_HOST_LENGTH ||
		strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != length)
		return "\"host\" must be a name of a host, without a port.";
	entry->hosts = lappend(entry->hosts, value);
	return NULL;
}

static const char *
finish_entry(JqMonitorEntry *entry, List *others)
{
	ListCell   *cell;

	if (entry->database == NULL || entry->role == NULL || entry->port == 0)
		return "Each entry must have database, role and port.";
	if (entry->address == NULL)
		entry->address = DEFAULT_ADDRESS;
	entry->key = hash_entry(entry);
	foreach(cell, others)
	{
		JqMonitorEntry *other = (JqMonitorEntry *) lfirst(cell);

		if (other->key == entry->key ||
			(other->port == entry->port &&
			 strcmp(other->address, entry->address) == 0))
			return psprintf("Two entries must not have the same address and port, %s and %d.",
							entry->address, entry->port);
	}
	return NULL;
}

/* Zeroes keep the fields apart. */
static uint32
hash_entry(const JqMonitorEntry *entry)
{
	StringInfoData string;
	uint32		hash;

	initStringInfo(&string);
	appendStringInfo(&string, "%s%c%s%c%s%c%d", entry->database, '\0',
					 entry->role, '\0', entry->address, '\0', entry->port);
	hash = hash_bytes((const unsigned char *) string.data, string.len);
	return hash == 0 ? 1 : hash;
}
