"""Which history answers: the embedded one, InfluxDB, or InfluxDB for what lies before the embedded one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol, TypeVar

import structlog

from tsmon.base.clock import Clock, grid_floor
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.store import Store
from tsmon.history.uptime import Bars, Outage, Uptime, percentage
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

    interval: float

    async def tallies(self, start: float, stop: float) -> Mapping[str, SpanTally]: ...
    async def windows(self, start: float, every: float, count: int) -> Mapping[str, Sequence[SpanTally]]: ...


class EarlierSums(NamedTuple):
    """Seconds of one node before the embedded history."""

    online: float
    offline: float
    first: float | None


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
        self._source: Literal["auto", "embedded", "influxdb"] = "auto"
        self._failed = False
        self._begin: float | None = None
        self._looked = float("-inf")

    def choose(self, source: Literal["auto", "embedded", "influxdb"], reader: Reader | None) -> None:
        """The settings."""
        self._source = source
        self._reader = reader if source != "embedded" else None
        self.doubt, self._failed = "", False

    def kind(self, start: float) -> str:
        """Which history the last answer to a window beginning at `start` came from: `influxdb` when any of
        it did."""
        if self._reader is None or self.doubt or self._failed:
            return "embedded"
        if self._source == "influxdb":
            return "influxdb"
        return (
            "influxdb" if self._begin is None or start < self._begin - self._reader.interval else "embedded"
        )

    async def uptime(self, start: float, end: float, node_ids: set[str] | None = None) -> dict[str, Uptime]:
        """Uptime and coverage by node ID. Raises StoreError."""
        found = await self._embedded.uptime(start, end, node_ids)
        border = await self._border(start, end)
        if border is None or self._reader is None:
            return found
        reader = self._reader
        try:
            await self._examine(end)
            if self.doubt:
                return found
            tallies = await reader.tallies(grid_floor(start, reader.interval), border)
        except self._failure as error:
            self._note(str(error))
            return found
        self._note("")
        later = await self._embedded.uptime(border, end, node_ids) if border < end else {}
        sums = self._by_node(tallies, lambda parts: _sums(parts, reader.interval, border - start))
        for node_id in found:
            if node_id in sums:
                found[node_id] = _joined(sums[node_id], later.get(node_id), start, end)
            elif node_id in later:
                found[node_id] = later[node_id]
        return found

    async def bars(self, bounds: list[float], node_ids: set[str] | None = None) -> dict[str, Bars]:
        """State bars by node ID. Raises StoreError."""
        found = await self._embedded.bars(bounds, node_ids)
        border = await self._border(bounds[0], bounds[-1])
        if border is None or self._reader is None or self.doubt:
            return found
        reader, count = self._reader, len(bounds) - 1
        every = (bounds[-1] - bounds[0]) / count
        try:
            windows = await reader.windows(grid_floor(bounds[0], reader.interval), every, count)
        except self._failure as error:
            self._note(str(error))
            return found
        self._note("")
        old = self._by_node(windows, lambda parts: [_together(row) for row in zip(*parts, strict=True)])
        for node_id, bars in found.items():
            if node_id in old:
                found[node_id] = _merged(bars, old[node_id], bounds, border, reader.interval)
        return found

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
            return grid_floor(end, self._reader.interval)
        if begin is None:
            return end
        return min(begin, end) if start < begin - self._reader.interval else None

    async def _embedded_since(self) -> float | None:
        """When the embedded history begins; None while it is empty. Raises StoreError."""
        if self._clock.mono() - self._looked > _LOOK:
            oldest = "SELECT min(start) FROM observed WHERE scope = ''"
            self._begin = await self._store.read(lambda db: db.execute(oldest).fetchone()[0])
            self._looked = self._clock.mono()
        return self._begin

    async def _examine(self, end: float) -> None:
        """Compare both histories where both should know: an answer with clearly fewer samples is no truth
        (fields of two types make all hosts of one type vanish without an error)."""
        if self._reader is None or self._begin is None:
            return
        interval = self._reader.interval
        first = grid_floor(self._begin, interval) + interval
        last = grid_floor(end, interval) - _LAG * interval
        start = max(first, last - 86400.0)
        if last - start < interval:
            return
        known = await self._embedded.uptime(start, last)
        names = {node.hostname for node in self._nodes()}
        ids = {node.id for node in self._nodes()}
        expected = sum(
            (uptime.online_s + uptime.offline_s) / interval for id_, uptime in known.items() if id_ in ids
        )
        if expected < _FEWEST:
            return
        tallies = await self._reader.tallies(start, last)
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
    bars: Bars, old: Sequence[tuple[int, int]], bounds: Sequence[float], border: float, interval: float
) -> Bars:
    """Buckets that begin before `border` come from the samples, as far as there are some."""
    letters = list(bars.states)
    uptimes = list(bars.uptime) if bars.uptime is not None else [_full(letter) for letter in letters]
    coverages = list(bars.coverage) if bars.coverage is not None else [100.0] * len(letters)
    for at, (begin, end) in enumerate(pairwise(bounds)):
        online, count = old[at]
        if begin >= border or not count:
            continue
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
