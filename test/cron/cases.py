"""Random schedules, zones and instants: cases.py SEED COUNT

Many instants lie near a change of the zone's clock, where mistakes are, and half
of the schedules there have their time of day near it, too.
"""
import calendar
import random
import sys

from oracle import DAY, LIMITS, YEAR, clock

ZONES = '''
    UTC Etc/GMT+5 Africa/Cairo Africa/Casablanca Africa/El_Aaiun Africa/Johannesburg Africa/Lagos Africa/Monrovia
    Africa/Windhoek America/Adak America/Anchorage America/Argentina/Buenos_Aires America/Asuncion America/Bogota
    America/Caracas America/Chicago America/Denver America/Goose_Bay America/Havana America/Los_Angeles
    America/Mexico_City America/New_York America/Nuuk America/Phoenix America/Port-au-Prince America/Santiago
    America/Sao_Paulo America/Scoresbysund America/St_Johns Antarctica/Casey Antarctica/Macquarie Antarctica/Troll
    Asia/Amman Asia/Beirut Asia/Dhaka Asia/Gaza Asia/Hebron Asia/Hong_Kong Asia/Jerusalem Asia/Kathmandu Asia/Kolkata
    Asia/Pyongyang Asia/Riyadh Asia/Shanghai Asia/Singapore Asia/Tehran Asia/Tokyo Asia/Ulaanbaatar Asia/Vladivostok
    Atlantic/Azores Australia/Adelaide Australia/Brisbane Australia/Eucla Australia/Lord_Howe Australia/Sydney
    Europe/Berlin Europe/Chisinau Europe/Dublin Europe/Istanbul Europe/Kyiv Europe/Lisbon Europe/London Europe/Moscow
    Europe/Samara Pacific/Apia Pacific/Auckland Pacific/Bougainville Pacific/Chatham Pacific/Fakaofo Pacific/Fiji
    Pacific/Honolulu Pacific/Kiritimati Pacific/Kwajalein Pacific/Norfolk Pacific/Tongatapu
'''.split()

FIRST, LAST = 1973, 2101
WEEKDAYS = 'sun mon tue wed thu fri sat'.split()
MONTHS = [name.lower() for name in calendar.month_abbr]


def start_of(year):
    return calendar.timegm((year, 1, 1, 0, 0, 0))


class Cases:
    """An endless supply, the same for the same random.Random and dialect.

    dialect 'croniter' leaves out what that library does not know: W and LW, names and
    lists with L and #, and these beside days of the month; and ranges of one value,
    which some of its versions take for everything."""

    def __init__(self, rng, dialect=None):
        self.rng = rng
        self.croniter = dialect == 'croniter'

    def case(self):
        """A schedule, a zone, and an instant in seconds since 1970."""
        zone = self.rng.choice(ZONES)
        anywhen = self.rng.randrange(start_of(FIRST), start_of(LAST))
        starts, offsets = clock(zone).year(anywhen // YEAR)
        if len(starts) == 1 or self.rng.random() < 0.3:
            return self.schedule(), zone, anywhen
        which = self.rng.randrange(1, len(starts))
        after = starts[which] + self.rng.randrange(-2 * DAY, 2 * DAY)
        if self.rng.random() < 0.5:
            return self.schedule(), zone, after
        # as the clock shows it around the change, if nothing changed
        jump = abs(offsets[which] - offsets[which - 1])
        local = starts[which] + offsets[which - 1] + self.rng.randrange(-2 * jump, 2 * jump + 1)
        return self.schedule(minute=local // 60 % 60, hour=local // 3600 % 24), zone, after

    def schedule(self, minute=None, hour=None):
        day = self.day_field()
        fields = [
            self.field(1, wild=0.2) if minute is None else self.around(minute, 1),
            self.field(2, wild=0.3) if hour is None else self.around(hour, 2),
            day,
            self.field(4, wild=0.7, names=MONTHS),
            self.weekday_field(plain=self.croniter and day != '*')]
        if self.rng.random() < 0.2:
            fields.insert(0, self.field(0, wild=0.2))
        return ' '.join(fields)

    def around(self, value, index):
        """A field that has this value, and perhaps others."""
        low, high = LIMITS[index]
        return self.rng.choice([str(value), str(value), f'{value},{self.rng.randint(low, high)}', '*',
                                self.span(low, value), self.span(value, high),
                                self.span(value, high, f'{value}/{self.rng.randint(1, 9)}')])

    def field(self, index, wild, names=None):
        low, high = LIMITS[index]
        if self.rng.random() < wild:
            return self.rng.choice(['*', '*', f'*/{self.rng.randint(1, high - low + 1)}'])
        items = [self.item(low, high, names) for _ in range(self.rng.choice([1, 1, 1, 2, 3]))]
        return ','.join(items)

    def item(self, low, high, names):
        first, last = sorted((self.rng.randint(low, high), self.rng.randint(low, high)))
        step = self.rng.randint(1, high - low + 1)
        if names and self.rng.random() < 0.3:
            first, last, high = names[first], names[last], names[high]
        return self.rng.choice([f'{first}', f'{first}', f'{first}', self.span(first, last),
                                self.span(first, last, f'{first}-{last}/{step}'),
                                self.span(first, high, f'{first}/{step}')])

    def span(self, first, last, text=None):
        """A range, or this text for it."""
        if self.croniter and first == last:
            return f'{first}'
        return text or f'{first}-{last}'

    def day_field(self):
        number = self.rng.randint(1, 31)
        special = ['?', 'L', f'{number},L']
        if not self.croniter:
            special += ['LW', f'{number}W', f'{number}w,{self.rng.randint(1, 31)},L']
        if self.rng.random() < 0.15:
            return self.rng.choice(special)
        return self.field(3, wild=0.6)

    def weekday_field(self, plain):
        number, name = self.rng.randint(0, 7), self.rng.choice(WEEKDAYS)
        special = ['?', '7', f'{number}L', f'{number}#{self.rng.randint(1, 5)}', f'{number}#1,{number}#3']
        if not self.croniter:
            special += [f'{name}L', f'{name}#5', f'{number},{name}L,Sun#2']
        if not plain and self.rng.random() < 0.2:
            return self.rng.choice(special)
        return self.field(5, wild=0.7, names=WEEKDAYS)


if __name__ == '__main__':
    cases = Cases(random.Random(sys.argv[1]))
    for number in range(int(sys.argv[2])):
        print(number, *cases.case(), sep='\t')
