"""The sums of a report: what each second of a period was; pure. Times in Unix seconds.

Each second of the period is one of five: online, offline, planned (offline, while a maintenance window or a
note said so beforehand or afterwards), unknown (not observed), absent (the node was not in the tailnet).
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tsmon.history.uptime import ObservedTime, Outage, Stretch, make_bars, percentage

ENOUGH = 50.0
"""Coverage in per cent below which no uptime is given: too little was seen."""

Stretches = Sequence[tuple[float, float]]


class Sums(NamedTuple):
    """Seconds of a period; together they are the period."""

    online: float
    offline: float
    planned: float
    unknown: float
    absent: float

    @property
    def coverage(self) -> float | None:
        """Observed share of the time in which the node was there, 0 to 100; None when it was not there."""
        seen = self.online + self.offline + self.planned
        return percentage(seen, seen + self.unknown)

    @property
    def uptime_percentage(self) -> float | None:
        """Online of online and offline, planned time apart; None when too little was seen."""
        coverage = self.coverage
        if coverage is None or coverage < ENOUGH:
            return None
        return percentage(self.online, self.online + self.offline)

    def budget_left(self, target: float, period: float) -> float | None:
        """Seconds that the node may still be offline in a period of so many seconds for `target` (0 to 100)
        to hold, negative when it does not; None when too little was seen."""
        coverage = self.coverage
        if coverage is None or coverage < ENOUGH:
            return None
        counted = max(0.0, period - self.absent - self.planned)
        return counted * (100.0 - target) / 100.0 - self.offline

    def whole(self) -> "Sums":
        """In whole seconds that still add up: the largest fractions are rounded up."""
        floors = [int(part) for part in self]
        missing = round(sum(self)) - sum(floors)
        order = sorted(range(len(self)), key=lambda at: floors[at] - self[at])
        for at in order[:missing]:
            floors[at] += 1
        return Sums(*floors)


def add_up(parts: Iterable[Sums]) -> Sums:
    """The sums of several nodes."""
    found = [0.0] * 5
    for part in parts:
        for at, seconds in enumerate(part):
            found[at] += seconds
    return Sums(*found)


def merged(stretches: Iterable[tuple[float, float]]) -> Stretches:
    """In order, what overlaps joined."""
    found: list[tuple[float, float]] = []
    for start, end in sorted(stretches):
        if end <= start:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def node_sums(
    spans: Sequence[Stretch],
    observed: ObservedTime,
    planned: Stretches,
    *,
    start: float,
    end: float,
    first_seen: float,
) -> Sums:
    """What the seconds from `start` to `end` were for one node.

    `spans` are in order and do not overlap; an open one ends at infinity. A gap between two of them, and what
    follows a last one that ended, is a removal. Before the first one the node was there from `first_seen` on,
    but what it did is not known (any more). `planned` is merged.
    """
    online = offline = under_plan = 0.0
    until = observed.until
    at, seen = start, until(start)  # `seen` is what was observed until `at`
    for state, begin, ended in spans:
        last = ended if ended < end else end
        if last <= at or begin >= end:
            continue
        if begin > at:
            at, seen = begin, until(begin)
        before, at, seen = seen, last, until(last)
        if state == "online":
            online += seen - before
        elif state == "offline":
            first = begin if begin > start else start
            by_plan = 0.0
            for a, b in planned:
                by_plan += observed.between(max(a, first), min(b, last))
            offline += seen - before - by_plan
            under_plan += by_plan
    absent = absent_seconds(spans, start, end, first_seen)
    rest = end - start - online - offline - under_plan - absent
    return Sums(online, max(0.0, offline), under_plan, max(0.0, rest), absent)


def absent_seconds(spans: Sequence[Stretch], start: float, end: float, first_seen: float) -> float:
    """Seconds in which the node was not in the tailnet."""
    arrived = min(first_seen, spans[0][1]) if spans else first_seen
    absent = min(max(arrived - start, 0.0), end - start)
    left = None
    for _, begin, until in spans:
        if left is not None and begin > left:
            absent += max(0.0, min(begin, end) - max(left, start))
        left = until
    if left is not None and left < end:
        absent += end - max(left, start)
    return absent


def day_letters(
    spans: Sequence[Stretch],
    observed: ObservedTime,
    planned: Stretches,
    bounds: Sequence[float],
    first_seen: float,
) -> str:
    """One letter for each day between two of `bounds`: those of the state bars, and `p` for a day whose
    offline time was all planned."""
    letters = []
    for at, letter in enumerate(make_bars(spans, observed, bounds, first_seen).states):
        start, end = bounds[at], bounds[at + 1]
        if letter == "u" and absent_seconds(spans, start, end, first_seen) >= end - start:
            letters.append("-")
        elif letter in "xm" and planned:
            sums = node_sums(spans, observed, planned, start=start, end=end, first_seen=first_seen)
            letters.append("p" if sums.offline < 0.001 <= sums.planned else letter)
        else:
            letters.append(letter)
    return "".join(letters)


def is_planned(outage: Outage, planned: Stretches, start: float, end: float) -> bool:
    """The part of the outage that lies between `start` and `end` was planned from its begin to its end."""
    first = max(outage.start, start)
    last = end if outage.end is None else min(outage.end, end)
    return any(a <= first and last <= b for a, b in planned)


class Period(NamedTuple):
    """What a report is about; Unix seconds."""

    start: float
    end: float
    """Whole: a month that is under way ends at its last midnight."""
    time_zone: str

    @property
    def days(self) -> list[float]:
        """Its bounds and the midnights between them: days of 23, 24 and 25 hours."""
        zone = ZoneInfo(self.time_zone)
        day = datetime.fromtimestamp(self.start, zone).date()
        bounds = [self.start]
        while (bound := midnight(day := day + timedelta(days=1), zone)) < self.end:
            if bound > bounds[-1]:
                bounds.append(bound)
        return [*bounds, self.end]


def midnight(day: date, zone: ZoneInfo) -> float:
    """When the day begins there. Where the clock skips midnight, the first moment after it."""
    return datetime.combine(day, time(), zone).timestamp()


def month_period(text: str, time_zone: str) -> Period:
    """The calendar month `2026-10` there. Raises ValueError."""
    zone = ZoneInfo(time_zone)
    first = datetime.strptime(text, "%Y-%m").date()  # noqa: DTZ007 (a month has no time zone)
    if not 1970 <= first.year <= 9998:
        raise ValueError(text)
    following = (first + timedelta(days=32)).replace(day=1)
    return Period(midnight(first, zone), midnight(following, zone), time_zone)


def month_of(moment: float, time_zone: str) -> str:
    """The calendar month there at `moment`, as `2026-10`."""
    return datetime.fromtimestamp(moment, ZoneInfo(time_zone)).strftime("%Y-%m")
