/*
 * zone.c
 *	  Time zones by the rules that are on disk now.
 *
 * The server reads the file of a zone once in the life of a process, and a
 * process inherits what the postmaster had read.  So the files may be newer
 * than what pg_tzset() returns.  Enumerating all zones reads them afresh, in
 * some 20 ms: the scheduler does so when it starts and when the configuration
 * is reloaded, compares digests, and raises a generation in shared memory.
 * Other processes compare that number, and enumerate, when they next want a
 * zone.  For a zone whose rules turn out to be others than pg_tzset()'s, a
 * copy of the enumerated one takes its place.
 *
 * There is one copy of a zone at most, which is overwritten when the rules
 * change again: callers hold on to pointers, and memory must not grow.
 */
#include "postgres.h"

#include "cron/zone.h"

#include "access/xact.h"
#include "base/config.h"
#include "base/protect.h"
#include "base/shared_state.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* 2100-01-01; where a rule without an end holds, it has shown by then. */
#define END_OF_DIGEST	INT64CONST(4102444800)

/* of a large allocation, whose size is known */
#define SAMPLE_SIZE		65536

/* bytes of a user's text that messages quote */
#define QUOTED_LENGTH	64

/* A zone that this process has used; in a scheduler, any zone. */
typedef struct Zone
{
	char		name[TZ_STRLEN_MAX + 1];	/* hash key, in upper case */
	pg_tz	   *rules;			/* the server's, or copy; NULL: not used */
	pg_tz	   *copy;			/* NULL: none was needed */
	uint64		digest;			/* of the file when it was last read */
	bool		is_checked;		/* rules are those of the file */
	bool		is_gone;		/* the file is */
	bool		has_changed;	/* the file has, since jq_zones_settle() */
	bool		was_logged;		/* that it has */
	char	   *file_name;		/* as it is spelled there */
} Zone;

/* What all files say together. */
typedef struct Summary
{
	uint64		digest;			/* whatever their order */
	bool		is_stale;		/* all processes inherit older rules */
} Summary;

static HTAB *zones = NULL;
static uint32 generation = 0;	/* that the zones were checked for */
static bool knows_all = false;	/* jq_zones_reload() has run */

static Zone *add_zone(const char *name, const char *key);
static Zone *enter_zone(const char *key, const char *name, bool *found);
static pg_tz *server_zone(const char *name);
static bool make_key(const char *name, char *key);
static bool has_no_file(const char *key);
static void uncheck_zones(void);
static void check_zones(void);
static void check_used(void *arg);
static void read_files(Summary *summary);
static void read_file(const pg_tzenum *files, pg_tz *file, Summary *summary);
static void copy_rules(Zone *zone, const pg_tzenum *files, const pg_tz *file);
static bool is_inherited_stale(const char *name, uint64 digest);
static void find_gone(void);
static void note_change(Zone *zone, bool is_gone);
static bool log_changes(void);
static uint64 digest_rules(pg_tz *zone);

pg_tz *
jq_zone_find(const char *name)
{
	char		key[TZ_STRLEN_MAX + 1];
	Zone	   *zone;

	if (!make_key(name, key))
		return NULL;
	if (generation != jq_shared_zone_generation())
	{
		generation = jq_shared_zone_generation();
		uncheck_zones();
	}
	zone = zones == NULL ? NULL : hash_search(zones, key, HASH_FIND, NULL);
	if (zone == NULL || zone->rules == NULL)
		zone = add_zone(name, key);
	if (zone == NULL)
		return NULL;
	if (!zone->is_checked)
		check_zones();
	return zone->is_gone ? NULL : zone->rules;
}

pg_tz *
jq_zone_find_or_error(const char *name)
{
	pg_tz	   *zone = jq_zone_find(name);

	if (zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%.*s\" not recognized",
						pg_mbcliplen(name, (int) strlen(name), QUOTED_LENGTH),
						name),
				 errhint("Use a name that pg_timezone_names lists.")));
	return zone;
}

/*
 * Begins to use a zone.  Before any file has changed, its rules are those of
 * the file, whoever read it.
 */
static Zone *
add_zone(const char *name, const char *key)
{
	pg_tz	   *rules = server_zone(name);
	uint64		digest;
	Zone	   *zone;
	bool		found;

	if (rules == NULL)
		return NULL;
	digest = digest_rules(rules);
	zone = enter_zone(key, pg_get_timezone_name(rules), &found);
	if (!found)
	{
		zone->digest = digest;
		zone->is_checked = generation == 0 || has_no_file(key);
	}
	else if (zone->digest != digest)
		zone->is_checked = false;
	zone->rules = rules;
	return zone;
}

static Zone *
enter_zone(const char *key, const char *name, bool *found)
{
	Zone	   *zone;

	if (zones == NULL)
	{
		HASHCTL		control = {0};

		control.keysize = TZ_STRLEN_MAX + 1;
		control.entrysize = sizeof(Zone);
		zones = hash_create("jobqueue time zones", 16, &control,
							HASH_ELEM | HASH_STRINGS);
	}
	zone = hash_search(zones, key, HASH_ENTER, found);
	if (!*found)
	{
		memset((char *) zone + sizeof(zone->name), 0,
			   sizeof(Zone) - sizeof(zone->name));
		zone->file_name = MemoryContextStrdup(TopMemoryContext, name);
	}
	return zone;
}

/*
 * pg_tzset() tries a name as a POSIX specification if the database has no such
 * zone.  It upper-cases these, and they all have a digit; zones that have one
 * also have a lower-case letter ("Etc/GMT+5"), or are POSIX specifications as
 * well.
 */
static pg_tz *
server_zone(const char *name)
{
	pg_tz	   *zone = pg_tzset(name);
	const char *known_as;

	if (zone == NULL || !pg_tz_acceptable(zone))
		return NULL;
	known_as = pg_get_timezone_name(zone);
	if (strpbrk(known_as, "0123456789") == NULL ||
		strpbrk(known_as, "abcdefghijklmnopqrstuvwxyz") != NULL)
		return zone;
	return NULL;
}

/* The name in upper case, as pg_tzset() does it.  False: it is too long. */
static bool
make_key(const char *name, char *key)
{
	if (strlen(name) > TZ_STRLEN_MAX)
		return false;
	do
		*key++ = pg_toupper((unsigned char) *name);
	while (*name++ != '\0');
	return true;
}

/* pg_tzset() knows this one by itself, whatever a file says. */
static bool
has_no_file(const char *key)
{
	return strcmp(key, "GMT") == 0;
}

static void
uncheck_zones(void)
{
	HASH_SEQ_STATUS scan;
	Zone	   *zone;

	if (zones == NULL)
		return;
	hash_seq_init(&scan, zones);
	while ((zone = hash_seq_search(&scan)) != NULL)
		zone->is_checked = has_no_file(zone->name);
}

/*
 * An enumeration fails of anything that is wrong in the directory, like a link
 * that leads nowhere.  Then the zones are used as they are.
 */
static void
check_zones(void)
{
	HASH_SEQ_STATUS scan;
	Zone	   *zone;
	ErrorData  *fault;

	if (IsInParallelMode())
	{
		check_used(NULL);		/* no subtransaction is possible */
		return;
	}
	fault = jq_attempt(check_used, NULL);
	if (fault == NULL)
		return;
	switch (ERRCODE_TO_CATEGORY(fault->sqlerrcode))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
			ReThrowError(fault);
			break;
		default:
			break;
	}
	ereport(LOG,
			(errmsg("could not look for new rules of time zones: %s",
					fault->message)));
	FreeErrorData(fault);
	hash_seq_init(&scan, zones);
	while ((zone = hash_seq_search(&scan)) != NULL)
		zone->is_checked = true;
}

static void
check_used(void *arg)
{
	read_files(NULL);
	find_gone();
}

/*
 * Compares the zones that are not checked with their files; with a summary,
 * enters all others, too.  An error leaves the rest for the next time.
 */
static void
read_files(Summary *summary)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "jobqueue time zone files",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	pg_tzenum  *files = pg_tzenumerate_start();
	pg_tz	   *file;

	while ((file = pg_tzenumerate_next(files)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		read_file(files, file, summary);
	}
	pg_tzenumerate_end(files);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

/* Makes the zone what its file is. */
static void
read_file(const pg_tzenum *files, pg_tz *file, Summary *summary)
{
	const char *name = pg_get_timezone_name(file);
	char		key[TZ_STRLEN_MAX + 1];
	Zone	   *zone;
	uint64		digest;
	bool		found = true;

	if (!make_key(name, key) || has_no_file(key))
		return;
	if (summary != NULL)
		zone = enter_zone(key, name, &found);
	else
		zone = hash_search(zones, key, HASH_FIND, NULL);
	if (zone == NULL || zone->is_checked)
		return;

	digest = digest_rules(file);
	if (found && (zone->is_gone || zone->digest != digest))
		note_change(zone, false);
	if (zone->rules != NULL && digest_rules(zone->rules) != digest)
		copy_rules(zone, files, file);
	zone->digest = digest;
	zone->is_checked = true;
	if (summary != NULL)
	{
		summary->digest += hash_bytes_extended((const unsigned char *) key,
											   (int) strlen(key), digest);
		summary->is_stale |= is_inherited_stale(name, digest);
	}
}

/*
 * A pg_tz is opaque, but it holds no pointers, and is the last thing in the
 * one allocation that pg_tzenumerate_start() makes.  How much that is, another
 * one of known size tells.
 */
static void
copy_rules(Zone *zone, const pg_tzenum *files, const pg_tz *file)
{
	void	   *sample = palloc(SAMPLE_SIZE);
	Size		size = GetMemoryChunkSpace(unconstify(pg_tzenum *, files));

	size -= GetMemoryChunkSpace(sample) - SAMPLE_SIZE;
	size -= (const char *) file - (const char *) files;
	pfree(sample);
	if (zone->copy == NULL)
		zone->copy = MemoryContextAlloc(TopMemoryContext, size);
	memcpy((void *) zone->copy, file, size);
	zone->rules = zone->copy;
	if (digest_rules(zone->copy) != digest_rules(unconstify(pg_tz *, file)))
		elog(ERROR, "could not copy time zone \"%s\"", zone->name);
}

/* Whether processes are born with other rules of this zone. */
static bool
is_inherited_stale(const char *name, uint64 digest)
{
	pg_tz	   *inherited[] = {session_timezone, log_timezone};

	for (int i = 0; i < (int) lengthof(inherited); i++)
		if (strcmp(pg_get_timezone_name(inherited[i]), name) == 0 &&
			digest_rules(inherited[i]) != digest)
			return true;
	return false;
}

/* What was not found has no file any more. */
static void
find_gone(void)
{
	HASH_SEQ_STATUS scan;
	Zone	   *zone;

	hash_seq_init(&scan, zones);
	while ((zone = hash_seq_search(&scan)) != NULL)
	{
		if (zone->is_checked)
			continue;
		if (!zone->is_gone)
			note_change(zone, true);
		zone->is_checked = true;
	}
}

/*
 * Also what nobody uses here is compared: other processes may, and a task in
 * that zone may come.
 */
bool
jq_zones_reload(void)
{
	Summary		summary = {0};

	uncheck_zones();
	read_files(&summary);
	find_gone();
	if (!knows_all)
		jq_zones_settle();
	knows_all = true;
	generation = jq_shared_note_zones(summary.digest, summary.is_stale);
	return log_changes();
}

static void
note_change(Zone *zone, bool is_gone)
{
	zone->is_gone = is_gone;
	zone->has_changed = true;
	zone->was_logged = false;
}

/* Whether there are any. */
static bool
log_changes(void)
{
	HASH_SEQ_STATUS scan;
	Zone	   *zone;
	bool		has_changes = false;

	hash_seq_init(&scan, zones);
	while ((zone = hash_seq_search(&scan)) != NULL)
	{
		if (!zone->has_changed)
			continue;
		has_changes = true;
		if (zone->was_logged || !jq_config_logs(LOG))
			continue;
		zone->was_logged = true;
		if (zone->is_gone)
			ereport(LOG,
					(errmsg("time zone \"%s\" has gone", zone->file_name)));
		else
			ereport(LOG,
					(errmsg("time zone \"%s\" has new rules",
							zone->file_name)));
	}
	return has_changes;
}

void
jq_zones_settle(void)
{
	HASH_SEQ_STATUS scan;
	Zone	   *zone;

	if (zones == NULL)
		return;
	hash_seq_init(&scan, zones);
	while ((zone = hash_seq_search(&scan)) != NULL)
		zone->has_changed = false;
}

/* Of the rules from 1970 on; a transition that moves no clock does not count. */
static uint64
digest_rules(pg_tz *zone)
{
	uint64		digest = 0;
	int64		segment[2] = {0, PG_INT64_MAX}; /* its start and offset */

	for (int64 instant = 0; instant < END_OF_DIGEST;)
	{
		int64		offset;
		int64		end = jq_zone_segment_end(instant, zone, &offset);

		if (offset != segment[1])
		{
			segment[0] = instant;
			segment[1] = offset;
			digest = hash_bytes_extended((const unsigned char *) segment,
										 sizeof(segment), digest);
		}
		instant = end;
	}
	return digest;
}

/*
 * At the very last transition of its table, pg_next_dst_boundary() claims that
 * there is none to come even if the zone goes on for ever; one second later it
 * knows better.
 */
int64
jq_zone_segment_end(int64 instant, pg_tz *zone, int64 *offset)
{
	long int	before_gmtoff = 0;
	long int	after_gmtoff;
	int			before_isdst;
	int			after_isdst;
	pg_time_t	boundary;

	for (int i = 0; i <= 1; i++)
	{
		pg_time_t	within = instant + i;
		int			found = pg_next_dst_boundary(&within,
												 &before_gmtoff,
												 &before_isdst,
												 &boundary,
												 &after_gmtoff,
												 &after_isdst,
												 zone);

		*offset = before_gmtoff;
		if (found > 0)
			return boundary;
	}
	return JQ_ZONE_FOREVER;
}
