"""Arithmetic on spans and observed time; pure. Times in Unix seconds, percentages 0 to 100 or None.

A node's time in a state counts only where it was observed: uptime = online / (online + offline), both cut
with the observed stretches. Everything else is unknown, neither for nor against (rules 10.2 to 10.5).
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

import msgspec

T = TypeVar("T")
HistoryKind = Literal["embedded", "influxdb"]


class Span(NamedTuple):
    """A stretch in which a node kept one state (`online`, `offline`, `unknown`); an open one ends now."""

    state: str
    start: float
    end: float


Stretch = tuple[str, float, float]
"""What a Span holds; a month of all nodes has so many that their class would cost a third of the time."""


class ByNode(dict[str, T]):
    """Figures by node ID, and which history they come from."""

    def __init__(self, found: Mapping[str, T], *, sampled: bool = False) -> None:
        """`sampled`: some of it comes from InfluxDB's samples."""
        super().__init__(found)
        self.kind: HistoryKind = "influxdb" if sampled else "embedded"


class Uptime(msgspec.Struct, frozen=True):
    """What a window says of one node; seconds."""

    online_s: float
    offline_s: float
    unknown_s: float
    """The rest of the window since the node was first seen."""
    uptime_percentage: float | None
    coverage: float | None
    """Observed share of the window since the node was first seen; None when it was not there yet."""


class Outage(NamedTuple):
    """Offline from `start` to `end` (None while it lasts)."""

    start: float
    end: float | None


class Bars(NamedTuple):
    """One letter per bucket: `o` online, `x` offline, `m` mixed, `u` unknown, `-` not there."""

    states: str
    uptime: list[float | None] | None
    """Per bucket; None when all are 100."""
    coverage: list[float] | None


class ObservedTime:
    """Observed stretches, merged; answers how much of any stretch was observed in O(log n)."""

    def __init__(self, stretches: Iterable[tuple[float, float]]) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []
        for start, end in sorted(stretches):
            if self.ends and start <= self.ends[-1]:
                self.ends[-1] = max(self.ends[-1], end)
            else:
                self.starts.append(start)
                self.ends.append(end)
        self._asked: Sequence[float] = ()
        self._answered: list[float] = []
        self._before = [0.0]
        for start, end in zip(self.starts, self.ends, strict=True):
            self._before.append(self._before[-1] + end - start)

    def until(self, time: float) -> float:
        """Observed seconds before `time`."""
        at = bisect_right(self.starts, time) - 1
        if at < 0:
            return 0.0
        end = self.ends[at]
        return self._before[at] + (time if time < end else end) - self.starts[at]

    def until_each(self, times: Sequence[float]) -> list[float]:
        """Observed seconds before each of `times`; kept, since one node after the other asks for the same."""
        if self._asked != times:
            self._asked, self._answered = times, [self.until(time) for time in times]
        return self._answered

    def between(self, start: float, end: float) -> float:
        """Observed seconds of the stretch."""
        return self.until(end) - self.until(start) if end > start else 0.0

    def joined(self, stretches: Iterable[tuple[float, float]]) -> "ObservedTime":
        """With further stretches: those of a stopped Self."""
        return ObservedTime([*zip(self.starts, self.ends, strict=True), *stretches])


def calculate_uptime(
    spans: Sequence[Stretch], observed: ObservedTime, start: float, end: float, first_seen: float | None
) -> Uptime:
    """Uptime and coverage of one node in the window from `start` to `end`."""
    online = offline = 0.0
    for state, begin, until in spans:
        if state == "online":
            online += observed.between(max(begin, start), min(until, end))
        elif state == "offline":
            offline += observed.between(max(begin, start), min(until, end))
    known = online + offline
    begin = end if first_seen is None else max(start, first_seen)
    there = max(end - begin, known, 0.0)
    return Uptime(
        online_s=round(online, 3),
        offline_s=round(offline, 3),
        unknown_s=round(there - known, 3),
        uptime_percentage=percentage(online, known),
        coverage=percentage(known, there),
    )


def percentage(part: float, whole: float) -> float | None:
    """0 to 100 with two decimals; None of nothing. Only a whole is 100, only nothing is 0."""
    if whole <= 0:
        return None
    exact = 100.0 * part / whole
    if 0.01 <= exact <= 99.99:
        return int(100.0 * exact + 0.5) / 100.0  # as `round(exact, 2)`, in a third of the time
    if 0 < exact < 0.01:
        return 0.01
    if 99.99 < exact < 100 and whole - part >= 0.001:
        return 99.99
    return round(min(exact, 100.0), 2)


def outages(spans: Sequence[Span], start: float, end: float, now: float) -> list[Outage]:
    """The outages that touch the window, in order. Unknown time between two offline spans parts nothing: the
    node is not known to have been up; a removal does. One that reaches `now` has no end yet."""
    found: list[list[float]] = []
    joined = False
    before = start
    for span in spans:
        joined = joined and span.start <= before
        before = span.end
        if span.state == "offline":
            if joined:
                found[-1][1] = span.end
            else:
                found.append([span.start, span.end])
            joined = True
        elif span.state == "online":
            joined = False
    return [Outage(a, None if b >= now else b) for a, b in found if b > start and a < end]


def make_bars(
    spans: Sequence[Stretch], observed: ObservedTime, bounds: Sequence[float], first_seen: float | None
) -> Bars:
    """One bucket between each two neighbouring `bounds`; `spans` are in order."""
    marks, count, until = observed.until_each(bounds), len(bounds) - 1, observed.until
    online, offline = [0.0] * count, [0.0] * count
    at, last, seen = 0, bounds[0], marks[0]  # `seen` is what was observed until `last`
    for state, start, end in spans:
        if state == "unknown" or end <= last:
            continue
        sums = online if state == "online" else offline
        if start > last:
            last, seen = start, until(start)
            while at < count and bounds[at + 1] <= last:
                at += 1
        while at < count and bounds[at + 1] < end:
            sums[at] += marks[at + 1] - seen
            at, seen = at + 1, marks[at + 1]
        if at == count:
            break
        before, last, seen = seen, end, until(end)
        sums[at] += seen - before
    return _bars(online, offline, bounds, first_seen)


def _bars(
    online: Sequence[float], offline: Sequence[float], bounds: Sequence[float], first_seen: float | None
) -> Bars:
    letters: list[str] = []
    uptimes: list[float | None] = []
    coverages: list[float] = []
    for up, down, start, end in zip(online, offline, bounds[:-1], bounds[1:], strict=True):
        known = up + down
        there = end - start
        if first_seen is None or first_seen > start:
            there = 0.0 if first_seen is None else max(0.0, end - first_seen)
        if down:
            letters.append("m" if up else "x")
            uptimes.append(percentage(up, known))
        elif up:
            letters.append("o")
            uptimes.append(100.0)
        else:
            letters.append("u" if there else "-")
            uptimes.append(None)
        coverages.append(100.0 if 0 < there <= known else percentage(known, max(there, known)) or 0.0)
    return Bars(
        "".join(letters),
        None if all(uptime == 100 for uptime in uptimes) else uptimes,
        None if all(coverage == 100 for coverage in coverages) else coverages,
    )
