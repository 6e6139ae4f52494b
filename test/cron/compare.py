"""What croniter, another implementation of cron, makes of random cases.

    compare.py answers SEED COUNT   cases with croniter's answers, as COPY reads them
    compare.py explain              of cases with two answers, the classes of difference

A case is a line: number, schedule, zone, instant, croniter's answer; for explain
also the server's. Instants are seconds since 1970; no answer is \\N.
"""
import calendar
import collections
import copy
import datetime
import multiprocessing
import random
import re
import sys

from cases import Cases
from oracle import DAY, MINUTE, Oracle, ZoneInfo

CHUNK = 2500
SHIFTED_WALKED = 8               # of the largest class, one in so many is walked


def ask_croniter(schedule, zone, after):
    """croniter's next run, None if it finds none.

    It is asked in its words: ? is *, 5L is L5, Sunday is 0, weekdays end with 6, the
    seconds come last, and whether both fields of days must match is said beside them."""
    from croniter import croniter, CroniterBadDateError

    *seconds, minute, hour, day, month, weekday = schedule.split()
    day_or = not (day[0] in '*?' or weekday[0] in '*?')
    weekday = re.sub(r'(?<![-/#])\b7\b', '0', weekday.replace('?', '*'))
    weekday = re.sub(r'(?<![-\w])(\w+)/', r'\1-6/', re.sub(r'(\d)L', r'L\1', weekday).replace('L7', 'L0'))
    start = datetime.datetime.fromtimestamp(after, ZoneInfo(zone))
    words = ' '.join([minute, hour, day.replace('?', '*'), month, weekday, *seconds])
    try:
        return int(croniter(words, start, day_or=day_or).get_next(float))
    except CroniterBadDateError:
        return None


def answer_chunk(task):
    seed, chunk, count = task
    cases = Cases(random.Random(f'{seed} {chunk}'), 'croniter')
    lines = []
    for number in range(count):
        case = cases.case()
        answer = ask_croniter(*case)
        lines.append('\t'.join(map(str, (chunk * CHUNK + number, *case, '\\N' if answer is None else answer))))
    return '\n'.join(lines)


def answers(seed, count):
    tasks = [(seed, chunk, min(CHUNK, count - chunk * CHUNK)) for chunk in range((count + CHUNK - 1) // CHUNK)]
    with multiprocessing.Pool() as pool:
        for lines in pool.imap(answer_chunk, tasks):
            print(lines)


# ---- differences ----

class Difference:
    """A case for which croniter and the server, or an oracle for another schedule, give two answers."""

    def __init__(self, oracle, after, croniter, server):
        self.oracle = oracle
        self.after = after
        self.croniter = croniter
        self.server = server
        self.local = oracle.clock.local(server)

    def jump(self, start, end):
        """Seconds by which the clock has been set forward, or back, from start to end."""
        return self.oracle.clock.offset(end) - self.oracle.clock.offset(start)

    def is_missed(self):
        """Is the server's answer one that croniter does not find?"""
        return self.croniter is None or self.croniter > self.server

    def has_answer(self, condition):
        return any(answer is not None and condition(answer) for answer in (self.croniter, self.server))

    def is_after_gap(self, instant):
        jump = self.jump(instant - DAY, instant)
        return jump > 0 and self.jump(instant - jump, instant) > 0

    def is_ambiguous(self, instant):
        local = self.oracle.clock.local(instant)
        return local.replace(fold=1 - local.fold).utcoffset() != local.utcoffset()

    def days_lacking(self, date):
        """By how many the largest listed day is beyond the end of the date's month."""
        return max(self.oracle.days.values, default=0) - calendar.monthrange(date.year, date.month)[1]


def is_shifted(case):
    """croniter's answer is off, on the clock, by what the clock was changed since "after"."""
    return case.croniter is not None and 0 != case.jump(case.after, case.server) == (
        case.server - case.croniter + case.jump(case.croniter, case.server))


def ends_gap(case):
    """A fixed time in a gap fires where the gap ends; croniter lets it fire later."""
    return case.oracle.is_fixed and case.jump(case.server - MINUTE, case.server) > 0 and case.is_missed()


def follows_gap(case):
    """An answer is where the clock shows what follows a gap, as long as the gap was: there croniter puts the
    times of the gap, also those that do not fire, and misses others."""
    return case.has_answer(case.is_after_gap) or (
        case.croniter is not None and case.is_after_gap(case.croniter + case.jump(case.after, case.croniter)))


def is_shown_twice(case):
    """The local time of "after" or of an answer comes twice: croniter takes one time for the other."""
    return case.is_ambiguous(case.after) or case.has_answer(case.is_ambiguous)


def is_written_out(case):
    """All days, or all weekdays, are written without a star; croniter takes that for a star."""
    days, weekdays = case.oracle.days, case.oracle.weekdays
    if days.star or weekdays.star or len(days.values) != 31 and len(weekdays.values) != 7:
        return False
    starred = copy.copy(case.oracle)
    starred.days = copy.copy(days)
    starred.days.star = True
    starred.dates = {}
    server = starred.next_run(case.after)
    return case.croniter == server or server is not None and class_of(Difference(starred, case.after, case.croniter, server)) is not None


def follows_short_month(case):
    """croniter counts a day that a month lacks into the next, and misses the first days there."""
    return case.is_missed() and (
        case.local.day <= case.days_lacking(case.local.replace(day=1) - datetime.timedelta(days=1)))


def is_last_day_of_short_month(case):
    """L beside a number, in a month that lacks that day: croniter misses it."""
    return case.is_missed() and 'l' in case.oracle.days.special and (
        (case.local + datetime.timedelta(days=1)).day == 1 and case.days_lacking(case.local) > 0)


def has_no_such_day(case):
    """No month has the days; the weekdays alone fire, but croniter gives up."""
    return case.croniter is None and not case.oracle.days.star and (
        min(case.oracle.days.values, default=0) > max(calendar.monthrange(2000, month)[1] for month in case.oracle.months.values))


# The first that fits explains a difference.
CLASSES = (is_shifted, ends_gap, follows_gap, is_shown_twice, is_written_out, follows_short_month,
           is_last_day_of_short_month, has_no_such_day)
NAMES = {explains.__name__ for explains in CLASSES}


def class_of(case):
    return next((explains.__name__ for explains in CLASSES if explains(case)), None)


def explain(task):
    """The name of the case's class, or what is wrong with it."""
    number, line = task
    _, schedule, zone, after, *answers = line.rstrip('\n').split('\t')
    after = int(after)
    croniter, server = (None if answer == '\\N' else int(answer) for answer in answers)
    oracle = Oracle(schedule, zone)
    name = None if server is None else class_of(Difference(oracle, after, croniter, server))
    if name != 'is_shifted' or number % SHIFTED_WALKED == 0:
        walked = oracle.next_run(after)
        if walked != server:
            return f'after {after} comes {walked}: {line}'
    return name or f'unexplained: {line}'


def explain_all():
    with multiprocessing.Pool() as pool:
        found = collections.Counter(pool.imap_unordered(explain, enumerate(sys.stdin), 200))
    for name, count in found.most_common():
        print(count if name in NAMES else 'problem:', name.rstrip())


if __name__ == '__main__':
    if sys.argv[1] == 'answers':
        answers(sys.argv[2], int(sys.argv[3]))
    else:
        explain_all()
