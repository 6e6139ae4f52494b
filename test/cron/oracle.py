"""When a schedule fires, by the rules of docs/reference.md, without cleverness.

The oracle walks over the minutes of the zone and asks of each whether its local
time matches. It shares nothing with src/cron but the rules: local times are
Python's, dates are looked at one by one. Instants are seconds since 1970, local
times as if they were UTC. Offsets must be whole minutes, as all are since 1972.

    Oracle('30 2 * * *', 'Europe/Berlin').next_run(after)

As a program it reads cases with their runs and prints those that are wrong.
"""
import bisect
import calendar
import datetime
import multiprocessing
import re
import sys
from zoneinfo import ZoneInfo

MINUTE = 60
HOUR = 3600
DAY = 86400
YEAR = 365 * DAY
LIMITS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
NAMES = {name: number for names in (calendar.month_abbr, ('sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'))
         for number, name in enumerate(name.lower() for name in names) if name}
EPOCH = datetime.date(1970, 1, 1)


class Clock:
    """The local clock of a zone."""

    def __init__(self, zone):
        self.zone = ZoneInfo(zone)
        self.years = {}

    def offset(self, instant):
        """Seconds that local time is ahead of UTC."""
        starts, offsets = self.year(instant // YEAR)
        return offsets[bisect.bisect(starts, instant) - 1]

    def year(self, number):
        """The starts of the stretches of constant offset in some 365 days, and their offsets."""
        if number not in self.years:
            starts = [number * YEAR]
            for low in range(number * YEAR, (number + 1) * YEAR, 2 * DAY):
                if self.look_up(low) != self.look_up(low + 2 * DAY):
                    starts.append(self.change(low, low + 2 * DAY))
            self.years[number] = starts, [self.look_up(start) for start in starts]
        return self.years[number]

    def change(self, low, high):
        """The minute of a change between low and high. Changes are more than two days apart."""
        while high - low > MINUTE:
            middle = (low + high) // 2 // MINUTE * MINUTE
            if self.look_up(middle) == self.look_up(low):
                low = middle
            else:
                high = middle
        return high

    def local(self, instant):
        return datetime.datetime.fromtimestamp(instant, self.zone)

    def look_up(self, instant):
        offset = self.local(instant).utcoffset()
        return offset.days * DAY + offset.seconds

    def is_steady(self, start, end):
        """Does the clock run evenly from start to end, which are days apart at most?"""
        return self.offset(start) == self.offset(end)


CLOCKS = {}


def clock(zone):
    """The clock of that zone; it remembers what it was asked."""
    if zone not in CLOCKS:
        CLOCKS[zone] = Clock(zone)
    return CLOCKS[zone]


class Field:
    """The values of a field, and what only dates can tell: L, LW, 3W, 5L, 2#1."""

    def __init__(self, text, low, high):
        self.star = text.startswith('*') or text == '?'
        self.values = set()
        self.special = []
        for item in text.lower().split(','):
            self.add(re.sub('[a-z]{3}', lambda name: str(NAMES[name[0]]), item), low, high)

    def add(self, item, low, high):
        plain = re.fullmatch(r'(?:([*?])|(\d+)(?:-(\d+))?)(?:/(\d+))?', item)
        if not plain:
            self.special.append(item)
            return
        star, first, last, step = plain.groups()
        if star:
            first, last = low, high
        else:
            first = int(first)
            last = int(last) if last else max(first, high) if step else first
        self.values.update(range(first, last + 1, int(step or 1)))


class Oracle:
    def __init__(self, schedule, zone):
        fields = schedule.split()
        if len(fields) == 5:
            fields.insert(0, '0')
        self.fields = [Field(text, *limits) for text, limits in zip(fields, LIMITS)]
        self.seconds, self.minutes, self.hours, self.days, self.months, self.weekdays = self.fields
        self.weekdays.values = {value % 7 for value in self.weekdays.values}
        self.is_fixed = not (self.minutes.star or self.hours.star)
        self.clock = clock(zone)
        self.dates = {}

    def next_run(self, after, years=60):
        """The first instant after that one, or None if none is found in that many years."""
        instant = after // MINUTE * MINUTE
        if not self.clock.is_steady(instant - 2 * DAY, instant):
            instant -= 2 * DAY
        shown = instant - MINUTE + self.clock.offset(instant - MINUTE)
        end = after + years * 366 * DAY
        while instant < end:
            step = self.idle_time(instant)
            if step == 0:
                step = MINUTE
                for run in self.runs_in_minute(instant, shown):
                    if run > after:
                        return run
            instant += step
            shown = max(shown, instant - MINUTE + self.clock.offset(instant - MINUTE))
        return None

    def idle_time(self, start):
        """A day or an hour if it is plain that nothing fires in it."""
        local = start + self.clock.offset(start)
        for span, matches in ((DAY, self.date_matches), (HOUR, self.hour_matches)):
            if (start % span == 0 and not matches(local) and not matches(local + span)
                    and self.clock.is_steady(start - span, start + span)):
                return span
        return 0

    def runs_in_minute(self, instant, shown):
        """Its runs in order; shown is the latest local minute that the clock has shown before it."""
        local = instant + self.clock.offset(instant)
        if self.is_fixed:
            if local <= shown:
                return
            # what the clock skips fires as the gap ends
            if any(self.minute_matches(skipped) for skipped in range(shown + MINUTE, local, MINUTE)):
                yield instant
        if self.minute_matches(local):
            for second in sorted(self.seconds.values):
                yield instant + second

    def minute_matches(self, local):
        return local // MINUTE % 60 in self.minutes.values and self.hour_matches(local) and self.date_matches(local)

    def hour_matches(self, local):
        return local // HOUR % 24 in self.hours.values

    def date_matches(self, local):
        day_number = local // DAY
        if day_number not in self.dates:
            self.dates[day_number] = self.look_at(EPOCH + datetime.timedelta(days=day_number))
        return self.dates[day_number]

    def look_at(self, date):
        if date.month not in self.months.values:
            return False
        weekday = date.isoweekday() % 7
        last = calendar.monthrange(date.year, date.month)[1]
        by_day = date.day in self.days.values or any(
            date.day == special_day(item, date, last) for item in self.days.special)
        by_weekday = weekday in self.weekdays.values or any(
            weekday == int(item[0]) % 7
            and (date.day > last - 7 if item[1:] == 'l' else (date.day + 6) // 7 == int(item[2:]))
            for item in self.weekdays.special)
        if self.days.star or self.weekdays.star:
            return by_day and by_weekday
        return by_day or by_weekday


def special_day(item, date, last):
    """The day of the date's month that L, LW or 15W means, None if it has none."""
    if item == 'l':
        return last
    wanted = last if item == 'lw' else int(item[:-1])
    workdays = [day for day in range(1, last + 1) if date.replace(day=day).isoweekday() <= 5]
    return min(workdays, key=lambda day: abs(day - wanted)) if wanted <= last else None


def problem(line):
    """What is wrong with a line: number, schedule, zone, instant, and the next runs, separated by commas."""
    number, schedule, zone, after, runs = line.rstrip('\n').split('\t')
    oracle = Oracle(schedule, zone)
    after = int(after)
    for run in runs.split(','):
        expected = oracle.next_run(after)
        if run != str(expected):
            return f'{number}: {schedule} in {zone}: after {after} comes {expected}, not {run}'
        after = expected
    return None


if __name__ == '__main__':
    with multiprocessing.Pool() as pool:
        for found in pool.imap(problem, sys.stdin, 50):
            if found:
                print(found)
