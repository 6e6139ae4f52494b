/*-------------------------------------------------------------------------
 *
 * rate.c
 *	  How many jobs may begin in a window of time: pure arithmetic.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "queue/rate.h"

static JqRatePlace *place_at(JqRateLog *log, int number);
static void forget_old(JqRateLog *log, const JqRate *rate, TimestampTz now);
static int64 token_us(const JqRate *rate);

void
jq_rate_reset(JqRateLog *log, int nplaces)
{
	memset(log, 0, JQ_RATE_LOG_SIZE(nplaces));
	log->nplaces = nplaces;
	log->latest = DT_NOBEGIN;
	log->full_at = DT_NOBEGIN;
}

TimestampTz
jq_rate_now(JqRateLog *log, TimestampTz now)
{
	int64		jump;

	if (log->latest <= now)		/* DT_NOBEGIN: it is empty */
		return log->latest = now;
	jump = log->latest - now;
	/* Processes read the clock in any order; only more than that is a jump. */
	if (jump <= USECS_PER_SEC)
		return log->latest;
	for (int i = 0; i < log->used; i++)
	{
		place_at(log, i)->from -= jump;
		place_at(log, i)->until -= jump;
	}
	if (log->full_at != DT_NOBEGIN)
		log->full_at -= jump;
	return log->latest = now;
}

int
jq_rate_available(JqRateLog *log, const JqRate *rate, TimestampTz now,
				  TimestampTz *next_at)
{
	int			begun = 0;

	*next_at = now;
	if (rate->max == 0)
		return PG_INT32_MAX;
	if (rate->burst > 0)
	{
		int64		missing = Max(log->full_at - now, 0);
		int64		full = token_us(rate) * rate->burst;

		if (log->full_at == DT_NOBEGIN || missing == 0)
			return rate->burst;
		if (missing + token_us(rate) > full)
			*next_at = now + missing + token_us(rate) - full;
		return (int) Max((full - missing) / token_us(rate), 0);
	}
	forget_old(log, rate, now);
	for (int i = 0; i < log->used; i++)
		begun += place_at(log, i)->count;
	if (begun >= rate->max)
	{
		/* When enough of the oldest have left the window. */
		for (int i = 0, left = begun; i < log->used && left >= rate->max; i++)
		{
			const JqRatePlace *place = place_at(log, i);

			left -= place->count;
			*next_at = place->until + rate->window_us + 1;
		}
		return 0;
	}
	return rate->max - begun;
}

void
jq_rate_take(JqRateLog *log, const JqRate *rate, TimestampTz now)
{
	JqRatePlace *last;
	int64		width = rate->max <= log->nplaces ? 0 :
	rate->window_us / (log->nplaces - 2);

	if (rate->max == 0)
		return;
	if (rate->burst > 0)
	{
		if (log->full_at == DT_NOBEGIN)
			log->full_at = now;
		log->full_at = Max(log->full_at, now) + token_us(rate);
		return;
	}
	forget_old(log, rate, now);
	last = place_at(log, log->used - 1 + (log->used == 0));
	/* A log without room may come from other settings: then wait longer. */
	if (log->used > 0 &&
		(now - last->from <= width || log->used == log->nplaces))
	{
		last->until = now;
		last->count++;
		return;
	}
	last = place_at(log, log->used++);
	last->from = now;
	last->until = now;
	last->count = 1;
}

void
jq_rate_give_back(JqRateLog *log, const JqRate *rate, TimestampTz at)
{
	if (rate->burst > 0 && log->full_at != DT_NOBEGIN)
	{
		log->full_at -= token_us(rate);
		return;
	}
	for (int i = log->used - 1; i >= 0; i--)
	{
		JqRatePlace *place = place_at(log, i);

		if (at < place->from || at > place->until ||
			place->count == 0)
			continue;
		place->count--;
		return;
	}
}

static JqRatePlace *
place_at(JqRateLog *log, int number)
{
	return &log->places[(log->first + number) % log->nplaces];
}

static void
forget_old(JqRateLog *log, const JqRate *rate, TimestampTz now)
{
	while (log->used > 0)
	{
		const JqRatePlace *oldest = place_at(log, 0);

		if (oldest->until + rate->window_us >= now &&
			oldest->count > 0)
			break;
		log->first = (log->first + 1) % log->nplaces;
		log->used--;
	}
}

static int64
token_us(const JqRate *rate)
{
	return Max(rate->window_us / rate->max, 1);
}
