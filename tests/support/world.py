"""A whole monitor over a scripted tailnet in virtual time: what the behaviour tests play with."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from tests.support.sim_control import SimControl
from tests.support.virtual import VirtualClock
from tsmon.base.clock import Moment
from tsmon.collector import Collector
from tsmon.config import Settings, load
from tsmon.daemon.jobs import jobs_of
from tsmon.daemon.parts import Parts, build
from tsmon.daemon.reload import Reload
from tsmon.demo.source import SimSource
from tsmon.demo.tailnet import SimTailnet
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.influx import Influx
from tsmon.history.store import Store, StoreError
from tsmon.history.uptime import Outage, Uptime
from tsmon.monitor.alerts import Alert
from tsmon.monitor.batch import Batch
from tsmon.monitor.ledger import Published
from tsmon.monitor.monitor import Monitor
from tsmon.monitor.samples import AnySample, Sample, ServiceSample
from tsmon.monitor.state import Event, Node
from tsmon.notify.notifier import Notifier
from tsmon.notify.outcome import DELIVERED, Outcome
from tsmon.notify.texts import Message
from tsmon.source import Source
from tsmon.source.diagnosis import Finding


def settings(toml: Path | None = None, **values: Any) -> Settings:
    """Default settings, those of a file, and some changed; nested ones with a dot."""
    return load(toml, {}, {key.replace("__", "."): str(value) for key, value in values.items()})


TEAM = """
[[notify]]
name = "team"
url = "webhook+http://127.0.0.1:1/"
"""


class Recorder:
    """A channel that keeps what it is sent."""

    service = "recorder"

    def __init__(self, name: str, world: "World") -> None:
        self._name = name
        self._world = world

    async def send(self, message: Message) -> Outcome:
        await asyncio.sleep(0.2)
        outcome = self._world.outcomes.get(self._name, DELIVERED)
        if outcome.delivered:
            self._world.told_to.setdefault(self._name, []).append(message)
        return outcome

    async def close(self) -> None:
        return


class World:
    """A tailnet, a state directory, and tsmon when it runs."""

    def __init__(
        self,
        state_dir: Path,
        *names: str,
        bus: bool = False,
        toml: str = TEAM,
        clock: VirtualClock | None = None,
        **values: Any,
    ) -> None:
        """`toml` is the configuration file; its only channel is `team`, which records."""
        self.clock = clock or VirtualClock()
        self.tailnet = SimTailnet(self.clock)
        for name in names or ("git", "dev", "chocolate-factory", "alices-laptop"):
            self.tailnet.add(name)
        state_dir.mkdir(exist_ok=True)
        (state_dir / "tsmon.toml").write_text(toml)
        self.settings = settings(state_dir / "tsmon.toml", **values)
        self.state_dir = state_dir
        self.bus = bus
        self.told_to: dict[str, list[Message]] = {}
        """Every message delivered, by channel, over restarts."""
        self.outcomes: dict[str, Outcome] = {}
        """What a channel answers; one that is not in here takes everything."""
        self.samples: list[tuple[float, list[Sample]]] = []
        self.service_samples: list[tuple[float, list[ServiceSample]]] = []
        self.diagnosed: list[str | None] = []
        """The control servers that a diagnosis was made for."""
        self.finding: Finding = "unknown"
        """What a diagnosis of lost control finds."""
        self.lines: list[dict[str, Any]] = []
        """Every log line."""
        self.events: list[Event] = []
        """Every event published, over restarts."""
        self.watchers: list[Callable[[Published], None]] = []
        """Called after every step, over restarts."""
        self.control: SimControl | None = None
        """Takes the place of the control server that the settings name."""
        self.store: Store
        self.parts: Parts
        self.monitor: Monitor
        self.collector: Collector
        self.source: SimSource
        self.over: Callable[[], Source] | None = None
        """What reads the tailnet in place of `source`: over a socket."""
        self.notifier: Notifier
        self._failure: BaseException | None = None  # of a job of tsmon
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start tsmon; returns once the first answer was looked at."""
        structlog.configure(processors=[self._take_line], cache_logger_on_first_use=False)
        self.source = SimSource(self.tailnet, bus=self.bus)
        self.parts = await build(
            self.settings,
            self.state_dir,
            clock=self.clock,
            source=self.over() if self.over is not None else self.source,
            control=self.control,
            diagnosis=self._diagnose,
            make_sender=lambda channel, *_: Recorder(channel.name, self),
            witness=self,
        )
        self.store, self.monitor = self.parts.store, self.parts.monitor
        self.collector, self.notifier = self.parts.collector, self.parts.notifier
        self.parts.ledger.subscribe(lambda published: self.events.extend(published.events))
        for watcher in self.watchers:
            self.parts.ledger.subscribe(watcher)
        for job in jobs_of(self.parts):
            self.parts.loops.start(*job)
        await asyncio.sleep(0.001)

    async def _diagnose(self, control_url: str | None) -> Finding:
        self.diagnosed.append(control_url)
        return self.finding

    def messages(self, channel: str = "team") -> list[str]:
        """The titles of the messages that a channel got."""
        return [message.title for message in self.told_to.get(channel, [])]

    @property
    def influx(self) -> Influx:
        """What sends samples and events to the InfluxDB of the settings."""
        assert self.parts.outlet.influx is not None
        return self.parts.outlet.influx

    def background(self, *jobs: Coroutine[Any, Any, None]) -> None:
        """Run these as well until tsmon ends."""
        self._tasks += [asyncio.create_task(job) for job in jobs]

    async def kill(self) -> None:
        """tsmon dies without a word."""
        await self.parts.loops.stop()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []
        await self.store.close()

    async def stop(self) -> None:
        """tsmon is stopped in order."""
        await self.monitor.stop()
        await self.kill()

    async def restart(self, after: float = 0.0) -> None:
        await self.kill()
        await asyncio.sleep(after)
        await self.start()

    async def run(self, seconds: float) -> None:
        """Let time pass; failures of a job are failures of the test."""
        await asyncio.sleep(seconds)
        if self._failure is not None:
            raise self._failure
        for task in self._tasks:
            if task.done() and task.exception() is not None:
                raise task.exception()  # type: ignore[misc]

    async def put_samples(self, grid: float, samples: Sequence[AnySample]) -> None:
        """Every sample passes here, whether InfluxDB is configured or not."""
        self.samples.append((grid, [one for one in samples if isinstance(one, Sample)]))
        self.service_samples.append((grid, [one for one in samples if isinstance(one, ServiceSample)]))

    def _take_line(self, _: Any, level: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        self.lines.append({"level": level, **line})
        if line["event"] == "loop_failed":
            self._failure = sys.exception()
        raise structlog.DropEvent

    async def reload_roles(self, toml: str) -> None:
        """Reload the configuration with these `[[roles]]`."""
        await self.reload(TEAM + toml)

    async def reload(self, toml: str) -> None:
        """Reload the configuration with this file."""
        (self.state_dir / "tsmon.toml").write_text(toml)
        await self.reload_file()

    def settings_of_file(self) -> Settings:
        """As the configuration file is now; without the values that the world was made with."""
        return load(self.state_dir / "tsmon.toml", {}, {})

    async def reload_file(self) -> None:
        """Reload the configuration from the file."""
        self.settings = self.settings_of_file()
        await Reload(self.parts, None).apply(self.settings)

    def break_store(self, why: str) -> None:
        """From now on nothing can be written."""

        async def refuse(_: Batch) -> None:
            raise StoreError(why)

        self.parts.backlog._commit = refuse

    def mend_store(self) -> None:
        self.parts.backlog._commit = self.store.commit

    @property
    def errors(self) -> list[tuple[str, str | None]]:
        """(event, hostname) of the lines logged as errors."""
        return [(line["event"], line.get("hostname")) for line in self.lines if line["level"] == "error"]

    # -- what came out ---------------------------------------------------------------------------------

    def node(self, name: str) -> Node:
        return next(node for node in self.monitor.view.nodes.values() if node.hostname == name)

    def state(self, name: str) -> str:
        return self.monitor.view.shown(self.node(name)).state

    def told(self, *types: str) -> list[tuple[str, str | None]]:
        """(type, hostname) of the events of some types, or of all but the periodic health checks."""
        return [
            (event.event_type, event.hostname)
            for event in self.events
            if (event.event_type in types if types else event.event_type != "health_check")
        ]

    def alerts(self, *, state: str = "firing") -> list[tuple[str, str | None]]:
        return [(a.kind, a.hostname) for a in self.monitor.alerts.values() if a.state == state]

    def alert(self, kind: str) -> Alert:
        return next(alert for alert in self.monitor.alerts.values() if alert.kind == kind)

    def since_start(self, wall: float) -> float:
        return wall - self.clock.start

    async def uptime(self, name: str, start: float, end: float) -> Uptime:
        """Of the window in seconds since the start of the test."""
        return await self.uptime_of(self.tailnet.find(name).id, start, end)

    async def uptime_of(self, id_: str, start: float, end: float) -> Uptime:
        base = self.clock.start
        found = await EmbeddedHistory(self.store).uptime(base + start, base + end, [id_])
        return found[id_]

    async def outages(self, name: str) -> list[Outage]:
        id_ = self.tailnet.find(name).id
        return await EmbeddedHistory(self.store).outages(id_, self.clock.start - 1e9, self.clock.start + 1e9)

    def now(self) -> Moment:
        return self.clock.now()


@contextlib.asynccontextmanager
async def running(
    state_dir: Path, *names: str, bus: bool = False, toml: str = TEAM, **values: Any
) -> AsyncIterator[World]:
    """A world in which tsmon runs."""
    world = World(state_dir, *names, bus=bus, toml=toml, **values)
    await world.start()
    try:
        yield world
    finally:
        await world.kill()
