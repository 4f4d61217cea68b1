"""The timed jobs of one event loop: poll, ping, collect, check, report.

Three of them do the work that people know by name: `collect_health_metrics`, `check_critical_nodes` and
`log_health_status`. A document starts its way here: `poll` hands it to `Monitor.answer`.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import structlog

from tsmon.base.clock import Clock, rfc3339
from tsmon.base.pace import Pace
from tsmon.base.threads import off_loop
from tsmon.base.waits import happens
from tsmon.classify import Severity
from tsmon.config import Settings
from tsmon.monitor.batch import LatencyRow
from tsmon.monitor.monitor import Monitor, PingOutcome
from tsmon.monitor.samples import AnySample, samples_of, service_samples_of
from tsmon.monitor.sight import Failure
from tsmon.monitor.state import Health, Node, View
from tsmon.source import Source
from tsmon.source.errors import SourceError
from tsmon.source.status import BadDocument, Decoder, Snapshot

log = structlog.get_logger(__name__)

_PINGS_AT_ONCE = 32
_LOOKOUT = 5.0
"""Seconds between two looks at the age of the view."""
_SMALL_DOCUMENT = 200_000
"""Bytes below which a document is decoded in the loop: below 5 ms."""


class SampleSink(Protocol):
    """Where the samples of a grid time go."""

    async def put_samples(self, grid: float, samples: Sequence[AnySample]) -> None: ...


class Collector:
    """Reads the source on time and hands what it says to the monitor."""

    def __init__(
        self,
        clock: Clock,
        settings: Settings,
        source: Source,
        monitor: Monitor,
        *,
        last_grid: float = 0.0,
        sink: SampleSink,
        beat: Callable[[str], None],
    ) -> None:
        """`last_grid` is the last grid time that has its samples, `sink` takes further ones; `beat` gets the
        name of a job each time it goes round."""
        self.settings = settings
        self.polls = 0
        self.failures = 0
        self.poll_seconds = 0.0
        """How long the last poll took: fetch, decode, compare, store."""
        self.last_failure: Failure | None = None
        self.noise = ""
        self._clock = clock
        self._pace = Pace(clock)
        self._source = source
        self._monitor = monitor
        self._last_grid = last_grid
        self._sink = sink
        self._beat = beat
        self._decoder = Decoder(settings.exclude)
        self._answered = asyncio.Event()  # there was a first answer of the source
        self._read_wanted = asyncio.Event()
        self._asks: list[str] = []
        self._suspects: list[str] = []
        self._ping_wanted = asyncio.Event()

    def apply(self, settings: Settings) -> None:
        """New settings after a reload; running sleeps end and take the new intervals."""
        if settings.exclude != self.settings.exclude:
            self._decoder = Decoder(settings.exclude)
        self.settings = settings
        self._pace.change()
        self.want_read()
        self._ping_wanted.set()

    def want_read(self) -> None:
        """Something changed, says the bus or a ping: read the source soon."""
        self._read_wanted.set()

    # -- poll ------------------------------------------------------------------------------------------

    async def poll(self) -> None:
        """One read of the source: fetch, decode, hand it to the monitor."""
        begun = time.perf_counter()
        answer: Snapshot | Failure
        try:
            raw = await self._source.status()
            answer = await self._decode(raw)
            self._note_noise(answer)
        except SourceError as error:
            answer = Failure(error.reason, str(error))
        except BadDocument as error:
            answer = Failure("bad_document", f"{self._source.name}: {error}")
        except Exception as error:
            # Whatever a strange answer breaks, it is an untrusted answer (rule 1.2), never the end of this
            # loop: a view that nobody renews would stand as if it were true.
            words = f"{self._source.name}: reading it failed with an unforeseen {type(error).__name__}"
            answer = Failure("bad_document", words)
            if self.last_failure is None or self.last_failure.message != words:
                log.exception("source_broke_the_reader", source=self._source.name)
        self._note_failure(answer if isinstance(answer, Failure) else None)
        asks = await self._monitor.answer(answer, self._source.health_codes, can_ping=self._source.can_ping)
        self._suspects += asks.suspects
        if asks.due:
            self._asks = asks.due
        if asks.due or asks.suspects:
            self._ping_wanted.set()
        self.polls += 1
        self._answered.set()
        self.poll_seconds = time.perf_counter() - begun

    async def _decode(self, raw: bytes) -> Snapshot:
        return await off_loop(lambda: self._decoder.decode(raw), len(raw), _SMALL_DOCUMENT)

    def _note_failure(self, failure: Failure | None) -> None:
        """Log the change from good to bad and from bad to good, once each."""
        before, self.last_failure = self.last_failure, failure
        if failure is not None:
            self.failures += 1
            if before is None or before.reason != failure.reason:
                log.warning("source_failed", reason=failure.reason, message=failure.message)
        elif before is not None:
            log.info("source_answers", source=self._source.name)

    def _note_noise(self, snapshot: Snapshot) -> None:
        if snapshot.noise and snapshot.noise != self.noise:
            log.warning("source_noise", text=snapshot.noise)
        self.noise = snapshot.noise

    async def run_poll(self) -> None:
        """Poll every `poll_interval`, when the bus reports a change, and when something falls due."""
        start = self._clock.mono()
        while True:
            begun = self._clock.mono()
            self._beat("poll")
            self._read_wanted.clear()
            await self.poll()
            took = self._clock.mono() - begun
            interval = self.settings.poll_interval
            tick = start + (math.floor((self._clock.mono() - start) / interval + 1e-9) + 1) * interval
            await self._until_due(tick, begun + max(1.0, 10 * took))

    async def _until_due(self, tick: float, hinted_from: float) -> None:
        """Wait for `tick`, for what the monitor waits for, or for a hint (not before `hinted_from`)."""
        due = self._monitor.next_read(self._clock.now())
        wake = tick if due is None else min(tick, due)
        if not await happens(self._read_wanted, max(0.0, wake - self._clock.mono())):
            return
        await self._clock.sleep(min(hinted_from, wake) - self._clock.mono())

    async def run_lookout(self) -> None:
        """Notice that no answer is judged any more, whatever the reason (rule 1.12)."""
        before = self._clock.mono()
        async for now in self._clock.ticks(_LOOKOUT):
            # After a pause of the whole process the poll comes first: a machine that slept is not stale.
            if now.mono - before < 2 * _LOOKOUT:
                await self._monitor.look_at_age()
            before = now.mono

    async def run_watch(self) -> None:
        """Follow the source's own notices of changes, where it has any."""
        await self._source.watch(self.want_read)

    # -- ping ------------------------------------------------------------------------------------------

    async def run_ping(self) -> None:
        """A round every `ping_interval`; who missed is asked again every `poll_interval`."""
        round_due = self._clock.mono()
        while True:
            begun = self._clock.mono()
            self._beat("ping")
            everyone = self._monitor.sees and begun >= round_due - 1e-6
            while everyone and round_due <= begun + 1e-6:
                round_due += self.settings.ping_interval
            await self.ping(self._monitor.ping_targets(everyone=everyone))
            wake = begun + self.settings.poll_interval
            if round_due > begun:
                wake = min(wake, round_due)
            await self._answer_asks(wake)

    async def _answer_asks(self, wake: float) -> None:
        """Until `wake` (monotonic), ping at once the nodes whose outage fell due; those that fell due while a
        round took longer are pinged still. A ping that goes on is not cut off: its outcome is what the
        outage waits for, and the next try could be cut off alike."""
        while await happens(self._ping_wanted, max(0.0, wake - self._clock.mono())):
            self._ping_wanted.clear()
            asks, self._asks = self._asks, []
            suspects, self._suspects = self._suspects, []
            await asyncio.gather(self.ping(asks), self.ping_thrice(suspects))

    async def ping_thrice(self, suspects: Sequence[str]) -> None:
        """Ping nodes that lost a route to another three times, a second apart (rule 13.5): the third miss is
        judged as any other."""
        tries = []
        for _ in range(3 if suspects else 0):
            tries.append(asyncio.ensure_future(self._ping_all(suspects)))
            await self._clock.sleep(1.0)
        for outcomes in await asyncio.gather(*tries):
            await self._monitor.pinged(outcomes)
        if tries:
            await self.ping(())

    async def ping(self, targets: Iterable[str]) -> None:
        """Ping `targets`, then witnesses where one missed its third ping; news asks for a read."""
        if not self._monitor.sees or not self._source.can_ping:
            return
        await self._monitor.pinged(await self._ping_all(targets))
        witnesses = await self._monitor.witnesses()
        if witnesses:
            await self._monitor.pinged(await self._ping_all(witnesses))
            await self._monitor.conclude()
        if self._monitor.pings_tell():
            self.want_read()

    async def _ping_all(self, ids: Iterable[str]) -> list[PingOutcome]:
        limit = asyncio.Semaphore(_PINGS_AT_ONCE)
        nodes = self._monitor.view.nodes

        async def one(node: Node) -> PingOutcome:
            async with limit:
                sent = self._clock.now()
                ping = await self._source.ping(node.facts.ip or "")
                return PingOutcome(node.id, sent, ping)

        return list(await asyncio.gather(*(one(nodes[id_]) for id_ in ids if id_ in nodes)))

    # -- collect ---------------------------------------------------------------------------------------

    async def run_collect(self) -> None:
        async for grid in self._pace.grid(lambda: self.settings.collect_interval):
            self._beat("collect")
            await self.collect_health_metrics(grid)

    async def collect_health_metrics(self, grid: float) -> None:
        """One sample per known node, one latency row per pinged node, one `health_check` event."""
        view = self._monitor.view
        now = self._clock.wall()
        if grid > self._last_grid:
            self._last_grid = grid
            await self._sink.put_samples(grid, [*samples_of(view, now), *service_samples_of(view)])
        latency = [
            LatencyRow(f.node_id, grid, f.min_ms, f.mean_ms, f.max_ms, f.loss, f.path)
            for f in self._monitor.drain_pings()
        ]
        message, severity, details = health_check(view)
        event = self._monitor.event("health_check", severity, message, **details)
        await self._monitor.note(event, latency=latency, meta={"last_grid": repr(self._last_grid)})

    # -- check and report ------------------------------------------------------------------------------

    async def run_check(self) -> None:
        await self._answered.wait()
        async for _ in self._pace.ticks(lambda: self.settings.check_interval):
            self._beat("check")
            self.check_critical_nodes()

    def check_critical_nodes(self) -> None:
        """One ERROR line per production node that is down, one WARNING per other critical node that is."""
        view = self._monitor.view
        for node in critical_nodes(view):
            shown = view.shown(node)
            if shown.state != "offline":
                continue
            is_error = node.role.node_type == "production" and not node.detached
            (log.error if is_error else log.warning)(
                "critical_node_offline",
                hostname=node.hostname,
                node_type=node.role.node_type,
                since=rfc3339(shown.since),
                last_seen=rfc3339(view.last_seen(node)),
            )

    async def run_report(self) -> None:
        await self._answered.wait()
        async for _ in self._pace.ticks(lambda: self.settings.report_interval):
            self._beat("report")
            self.log_health_status()

    def log_health_status(self) -> None:
        """The aggregated health report: the figures, and one line per critical node."""
        view = self._monitor.view
        health = view.health()
        log.info("health_report", **report_of(view, health))
        for node in critical_nodes(view):
            shown = view.shown(node)
            log.info(
                "health_report_node",
                hostname=node.hostname,
                node_type=node.role.node_type,
                state=shown.state,
                since=rfc3339(shown.since),
                last_seen=rfc3339(view.last_seen(node)),
            )


def critical_nodes(view: View) -> list[Node]:
    return sorted(
        (node for node in view.nodes.values() if node.role.critical), key=lambda node: node.hostname
    )


def report_of(view: View, health: Health) -> dict[str, Any]:
    """The figures of the hourly report and of the `health_check` event."""
    return {
        "status": health.status,
        "online": health.online,
        "offline": health.offline,
        "unknown": health.unknown,
        "total": health.total,
        "critical_health_percentage": health.health_percentage,
        "blind": view.blind.reason if view.blind is not None else None,
    }


def health_check(view: View) -> tuple[str, Severity, dict[str, Any]]:
    """Message, severity and details of the `health_check` event."""
    health = view.health()
    severity: Severity = "warning"
    if health.status == "healthy":
        severity = "ok"
    elif health.status == "critical":
        severity = "critical"
    message = f"{health.online} of {health.total} nodes online, {health.offline} offline"
    if view.blind is not None:
        since = rfc3339(view.blind.since)
        message = f"blind ({view.blind.reason}) since {since}: the state of the nodes is unknown"
    return message, severity, report_of(view, health)
