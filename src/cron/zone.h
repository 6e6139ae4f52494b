/*
 * zone.h
 *	  Time zones by the rules that are on disk now.
 */
#ifndef JQ_CRON_ZONE_H
#define JQ_CRON_ZONE_H

#include "postgres.h"

#include "pgtime.h"

/* Where a segment ends that never ends: after the year 9999 everywhere. */
#define JQ_ZONE_FOREVER		INT64CONST(253402387200)

/*
 * Time zone of that name, or NULL.  Names are those of the time zone database
 * in any case; POSIX specifications are refused, also those that the database
 * lists as names on some systems ("EST5EDT"), and so are zones that count leap
 * seconds.  What is returned stays valid for ever, and is given new rules in
 * place once they are noticed: here, or by jq_zones_reload().
 */
extern pg_tz *jq_zone_find(const char *name);

/* The same, or error 22023. */
extern pg_tz *jq_zone_find_or_error(const char *name);

/*
 * End of the segment of constant offset that holds the instant, and that
 * offset from UTC.  In seconds since 1970; JQ_ZONE_FOREVER if there is none.
 */
extern int64 jq_zone_segment_end(int64 instant, pg_tz *zone, int64 *offset);

/*
 * Reads all zones from disk, for a scheduler.  True: some have changed since
 * it first did so, and nobody has called jq_zones_settle(); each was logged
 * once.  Sessions of the whole server notice at their next jq_zone_find().
 * May raise an error, and must be called again then.
 */
extern bool jq_zones_reload(void);

/* What follows from the changes was done. */
extern void jq_zones_settle(void);

#endif							/* JQ_CRON_ZONE_H */
