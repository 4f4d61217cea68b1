"""Which history answers: the embedded one, InfluxDB, or InfluxDB for what lies before the embedded one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol, TypeVar

import structlog

from tsmon.base.clock import Clock, grid_floor
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.intervals import Intervals
from tsmon.history.store import Store
from tsmon.history.uptime import Bars, ByNode, Outage, Uptime, percentage
from tsmon.monitor.state import Node

log = structlog.get_logger(__name__)

T = TypeVar("T")
U = TypeVar("U")
_LOOK = 60.0
"""Seconds for which the beginning of the embedded history is not looked up again."""
_LEAST_TRUSTED = 0.8
"""Share of the samples the embedded history expects that InfluxDB must hold to be believed."""
_FEWEST = 20
"""Expected samples below which that says nothing."""
_LAG = 3
"""The last intervals are not compared: their samples may be on their way."""


class SpanTally(Protocol):
    """What the samples of one name say."""

    @property
    def online(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def first(self) -> float | None: ...


class Reader(Protocol):
    """InfluxDB, as this module asks it; raises an exception of `failures`."""

    async def tallies(self, start: float, stop: float) -> Mapping[str, SpanTally]: ...
    async def windows(self, start: float, every: float, count: int) -> Mapping[str, Sequence[SpanTally]]: ...


class EarlierSums(NamedTuple):
    """Seconds of one node before the embedded history."""

    online: float
    offline: float
    first: float | None

    def __add__(self, later: object) -> "EarlierSums":
        if not isinstance(later, EarlierSums):
            return NotImplemented
        first = later.first if self.first is None else self.first
        return EarlierSums(self.online + later.online, self.offline + later.offline, first)


class ChosenHistory:
    """The `History` that the API asks."""

    def __init__(
        self, store: Store, clock: Clock, nodes: Callable[[], Iterable[Node]], failure: type[Exception]
    ) -> None:
        """`nodes` are those of the tailnet now; `failure` is what the reader raises."""
        self.doubt = ""
        """Why InfluxDB is not believed, "" when it is."""
        self._embedded = EmbeddedHistory(store)
        self._store = store
        self._clock = clock
        self._nodes = nodes
        self._failure = failure
        self._reader: Reader | None = None
        self._intervals = Intervals(((0.0, 300.0),))
        self._source: Literal["auto", "embedded", "influxdb"] = "auto"
        self._failed = False
        self._begin: float | None = None
        self._looked = float("-inf")

    def choose(
        self,
        source: Literal["auto", "embedded", "influxdb"],
        reader: Reader | None,
        intervals: Intervals,
    ) -> None:
        """The settings, and how often samples were taken when."""
        self._source, self._intervals = source, intervals
        self._reader = reader if source != "embedded" else None
        self.doubt, self._failed = "", False

    async def uptime(self, start: float, end: float, node_ids: set[str] | None = None) -> ByNode[Uptime]:
        """Uptime and coverage by node ID. Raises StoreError."""
        found = await self._embedded.uptime(start, end, node_ids)
        border = await self._border(start, end)
        if border is None or self._reader is None:
            return found
        try:
            await self._examine(self._reader, end)
            if self.doubt:
                return found
            sums = await self._earlier(self._reader, start, border)
        except self._failure as error:
            self._note(str(error))
            return found
        self._note("")
        later = await self._embedded.uptime(border, end, node_ids) if border < end else {}
        joined = dict(found)
        for node_id in found:
            if node_id in sums:
                joined[node_id] = _joined(sums[node_id], later.get(node_id), start, end)
            elif node_id in later:
                joined[node_id] = later[node_id]
        return ByNode(joined, sampled=not sums.keys().isdisjoint(found))

    async def _earlier(self, reader: Reader, start: float, border: float) -> dict[str, EarlierSums]:
        """Seconds before `border`, by node ID; each sample stands for the interval of its time."""
        earlier: dict[str, EarlierSums] = {}
        first = grid_floor(start, self._intervals.at(start))
        for begin, stop, interval in self._intervals.pieces(first, border):
            tallies = await reader.tallies(begin, stop)
            sums = self._by_node(tallies, partial(_sums, interval=interval, length=stop - max(start, begin)))
            for node_id, of_piece in sums.items():
                earlier[node_id] = earlier[node_id] + of_piece if node_id in earlier else of_piece
        return earlier

    async def bars(self, bounds: list[float], node_ids: set[str] | None = None) -> ByNode[Bars]:
        """State bars by node ID. Raises StoreError."""
        found = await self._embedded.bars(bounds, node_ids)
        border = await self._border(bounds[0], bounds[-1])
        if border is None or self._reader is None or self.doubt:
            return found
        reader, count = self._reader, len(bounds) - 1
        every = (bounds[-1] - bounds[0]) / count
        begin = grid_floor(bounds[0], self._intervals.at(bounds[0]))
        try:
            windows = await reader.windows(begin, every, count)
        except self._failure as error:
            self._note(str(error))
            return found
        self._note("")
        old = self._by_node(windows, lambda parts: [_together(row) for row in zip(*parts, strict=True)])
        merged = {
            node_id: _merged(bars, old[node_id], bounds, border, self._intervals)
            for node_id, bars in found.items()
            if node_id in old
        }
        return ByNode(found | merged, sampled=any(bars != found[node_id] for node_id, bars in merged.items()))

    async def outages(self, node_id: str, start: float, end: float) -> list[Outage]:
        """From the embedded history: samples every few minutes know no outage's beginning. Raises
        StoreError."""
        return await self._embedded.outages(node_id, start, end)

    def _note(self, error: str) -> None:
        """Say once that InfluxDB cannot be read, and once that it can again."""
        if error and not self._failed:
            log.warning("influx_not_read", error=error)
        elif self._failed and not error:
            log.info("influx_read_again")
        self._failed = bool(error)

    # -- parts -----------------------------------------------------------------------------------------

    async def _border(self, start: float, end: float) -> float | None:
        """Up to when InfluxDB is asked, None when it is not."""
        if self._reader is None:
            return None
        begin = await self._embedded_since()
        if self._source == "influxdb":
            return grid_floor(end, self._intervals.at(end))
        if begin is None:
            return end
        return min(begin, end) if start < begin - self._intervals.at(begin) else None

    async def _embedded_since(self) -> float | None:
        """When the embedded history begins; None while it is empty. Raises StoreError."""
        if self._clock.mono() - self._looked > _LOOK:
            oldest = "SELECT min(start) FROM observed WHERE scope = ''"
            self._begin = await self._store.read(lambda db: db.execute(oldest).fetchone()[0])
            self._looked = self._clock.mono()
        return self._begin

    async def _examine(self, reader: Reader, end: float) -> None:
        """Compare both histories where both should know: an answer with clearly fewer samples is no truth
        (fields of two types make all hosts of one type vanish without an error)."""
        if self._begin is None:
            return
        interval = self._intervals.at(end)
        first = grid_floor(self._begin, interval) + interval
        last = grid_floor(end, interval) - _LAG * interval
        start = max(first, last - 86400.0)
        if last - start < interval:
            return
        names = {node.hostname for node in self._nodes()}
        ids = {node.id for node in self._nodes()}
        expected = 0.0
        for begin, stop, seconds in self._intervals.pieces(start, last):
            known = await self._embedded.uptime(begin, stop)
            expected += sum((of.online_s + of.offline_s) / seconds for id_, of in known.items() if id_ in ids)
        if expected < _FEWEST:
            return
        tallies = await reader.tallies(start, last)
        counted = sum(tally.samples for name, tally in tallies.items() if name in names)
        doubt = ""
        if counted < _LEAST_TRUSTED * expected:
            doubt = (
                f"InfluxDB holds {counted} samples where about {round(expected)} are due, so its uptime is"
                " not shown (a field of two types, another bucket, or samples that were not sent)"
            )
        if doubt and not self.doubt:
            log.error("influx_history_doubted", samples=counted, expected=round(expected))
        self.doubt = doubt

    def _by_node(self, found: Mapping[str, T], join: Callable[[list[T]], U]) -> dict[str, U]:
        """What the names in InfluxDB say, by node ID: the machine's name, or where nobody else of the tailnet
        has it its OS hostname (an older monitor wrote that)."""
        nodes = list(self._nodes())
        folded: dict[str, list[T]] = {}
        for name, value in found.items():
            folded.setdefault(name.casefold(), []).append(value)
        taken: dict[str, int] = {}
        for node in nodes:
            for name in _names(node):
                taken[name] = taken.get(name, 0) + 1
        own = {node.hostname.casefold() for node in nodes}
        joined = {}
        for node in nodes:
            mine = [node.hostname.casefold()]
            mine += [name for name in _names(node) if name not in own and taken[name] == 1]
            parts = [part for name in mine for part in folded.get(name, ())]
            if parts:
                joined[node.id] = join(parts)
        return joined


def _names(node: Node) -> set[str]:
    return {node.hostname.casefold(), node.facts.os_hostname.casefold()} - {""}


def _sums(parts: Sequence[SpanTally], interval: float, length: float) -> EarlierSums:
    """Seconds, where each sample stands for one interval; never more than there are."""
    count = sum(part.samples for part in parts)
    online = sum(part.online for part in parts)
    seconds = min(count * interval, max(0.0, length))
    firsts = [part.first for part in parts if part.first is not None]
    share = online / count if count else 0.0
    return EarlierSums(seconds * share, seconds * (1 - share), min(firsts, default=None))


def _joined(before: EarlierSums, later: Uptime | None, start: float, end: float) -> Uptime:
    online = before.online + (later.online_s if later is not None else 0.0)
    offline = before.offline + (later.offline_s if later is not None else 0.0)
    known = online + offline
    begin = max(start, before.first) if before.first is not None else start
    there = max(end - begin, known)
    return Uptime(
        online_s=round(online, 3),
        offline_s=round(offline, 3),
        unknown_s=round(there - known, 3),
        uptime_percentage=percentage(online, known),
        coverage=percentage(known, there),
    )


def _together(row: Sequence[SpanTally]) -> tuple[int, int]:
    return sum(tally.online for tally in row), sum(tally.samples for tally in row)


def _merged(
    bars: Bars,
    old: Sequence[tuple[int, int]],
    bounds: Sequence[float],
    border: float,
    intervals: Intervals,
) -> Bars:
    """Buckets that begin before `border` come from the samples, as far as there are some."""
    letters = list(bars.states)
    uptimes = list(bars.uptime) if bars.uptime is not None else [_full(letter) for letter in letters]
    coverages = list(bars.coverage) if bars.coverage is not None else [100.0] * len(letters)
    for at, (begin, end) in enumerate(pairwise(bounds)):
        online, count = old[at]
        if begin >= border or not count:
            continue
        interval = intervals.at(begin)
        letter = "o" if online == count else "m" if online else "x"
        uptime, coverage = (
            percentage(online, count),
            percentage(min(count * interval, end - begin), end - begin),
        )
        if letters[at] in "u-":
            letters[at], uptimes[at], coverages[at] = letter, uptime, coverage or 0.0
        elif letters[at] != letter:
            letters[at] = "m"
            coverages[at] = max(coverages[at], coverage or 0.0)
    return Bars(
        "".join(letters),
        None if all(uptime == 100 for uptime in uptimes) else uptimes,
        None if all(coverage == 100 for coverage in coverages) else coverages,
    )


def _full(letter: str) -> float | None:
    return 100.0 if letter == "o" else None
