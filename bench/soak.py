"""`make soak`: a whole daemon over weeks of a busy tailnet in virtual time, or over real minutes.

The script keeps its own count of what it did; at the end tsmon's timers, its log, its observed time, its
retention and its memory are held against it.
"""

import argparse
import asyncio
import json
import math
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import structlog
from aiohttp import web

from bench.watch import give_back_memory, pss_mib
from tests.support.virtual import VirtualClock, VirtualLoop
from tsmon.base.clock import Clock
from tsmon.config import load
from tsmon.daemon import process
from tsmon.daemon.daemon import Daemon
from tsmon.demo.servers import serving
from tsmon.demo.source import SimSource
from tsmon.demo.tailnet import SimTailnet
from tsmon.history.store import Store
from tsmon.monitor.ledger import Published

DAY = 86400.0
NODES = 1000
POLL = 15.0
PRUNED_EVERY = 3600.0
PATHS = (
    "/health-monitoring/summary",
    "/health-monitoring/nodes?project_only=false",
    "/health-monitoring/history?window=2d&buckets=48",
    "/health-monitoring/logs",
    "/metrics",
)
_KEPT = 2 * DAY
"""Retention of the history, so that a run of three days sees it at work; of latency a day."""
_CONFIG = """
listen = "127.0.0.1:0"
retention = "2d"
latency_retention = "1d"
"""
_FLAT = 0.05
_EXPECTED = ("critical_node_offline", "source_failed", "monitor_blind", "open_to_the_tailnet")
"""Warnings that the script asks for."""


class Pace(NamedTuple):
    """How fast life goes; all in seconds."""

    length: float
    change_every: float
    """A machine goes off this often, and comes back after up to `away`."""
    away: float
    blind_every: float
    blind_for: float
    ask_every: float
    measure_every: float


def virtual_pace(days: float) -> Pace:
    """100 changes an hour; ten minutes of blindness a day."""
    return Pace(days * DAY, 72.0, 1800.0, DAY, 600.0, 3600.0, DAY / 2)


def real_pace(minutes: float) -> Pace:
    """A change each second. Blindness is longer than the grace that short failures have."""
    length = 60 * minutes
    return Pace(length, 2.0, 400.0, length / 3, 120.0, 5.0, length / 10)


class Played(NamedTuple):
    """What was done and what came of it; times in seconds."""

    length: float
    real: float
    offs: int
    ons: int
    offline_events: int
    online_events: int
    polls: int
    polls_due: int
    """By the clock alone; changes and blindness ask for more."""
    collects: int
    collects_due: int
    latest_collect: float
    """The largest distance of a collect from its grid time."""
    reports: int
    reports_due: int
    messages: int
    observed: float
    observed_due: float
    """Of the last day: what was not blind."""
    blinds: int
    """Stretches of blindness in the last day."""
    oldest_event: float
    """Its age at the end."""
    oldest_latency: float
    memory_mib: list[float]
    """PSS every half day (or tenth of a real run), simulator included."""
    database_mib: list[float]
    trouble: dict[str, int]
    """Log lines of level warning and above that are about tsmon itself, by event; tracebacks among them."""


class Life:
    """The tailnet's, with its own count."""

    def __init__(self, tailnet: SimTailnet, clock: Clock, pace: Pace) -> None:
        self.offs = self.ons = 0
        self.dark: list[tuple[float, float]] = []
        """Stretches (Unix seconds) in which the source was not there."""
        self._tailnet = tailnet
        self._clock = clock
        self._pace = pace
        self._chance = random.Random(11)
        self._standing = [node.name for node in tailnet.nodes.values() if node is not tailnet.own]

    async def run(self) -> None:
        """Machines come and go, never unseen: none within a poll of another change of its own."""
        async with asyncio.TaskGroup() as gone:
            while True:
                await self._clock.sleep(self._pace.change_every)
                name = self._standing.pop(self._chance.randrange((len(self._standing) + 1) // 2))
                self._tailnet.off(name)
                self.offs += 1
                gone.create_task(self._come_back(name))

    async def _come_back(self, name: str) -> None:
        # Longer than a blind stretch and a poll: each change is seen.
        await self._clock.sleep(self._chance.uniform(0.5, 1.0) * self._pace.away)
        self._tailnet.on(name)
        self.ons += 1
        self._standing.append(name)

    async def darken(self) -> None:
        """The source is not there now and then."""
        rest = (self._pace.blind_every - self._pace.blind_for) / 2
        while True:
            await self._clock.sleep(rest)
            begun = self._clock.wall()
            self._tailnet.fault = "refused"
            await self._clock.sleep(self._pace.blind_for)
            self._tailnet.fault = ""
            self.dark.append((begun, self._clock.wall()))
            await self._clock.sleep(rest)


class Ear:
    """What tsmon says: its log, its events, its messages. Only counts are kept."""

    def __init__(self) -> None:
        self.lines: Counter[str] = Counter()
        self.trouble: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.collects: list[float] = []
        self.messages = 0

    def line(self, _: Any, level: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """A structlog processor; nothing is printed."""
        self.lines[line["event"]] += 1
        if level not in ("debug", "info") and line["event"] not in _EXPECTED:
            self.trouble[line["event"]] += 1
        raise structlog.DropEvent

    def published(self, published: Published) -> None:
        for event in published.events:
            self.events[event.event_type] += 1
            if event.event_type == "health_check":
                self.collects.append(event.timestamp)

    async def message(self, request: web.Request) -> web.Response:
        await request.read()
        self.messages += 1
        return web.Response(status=204)


async def play(
    pace: Pace,
    clock: Clock,
    directory: Path,
    *,
    nodes: int = NODES,
    tags: Sequence[str] = ("tag:server",),
    config: str = _CONFIG,
) -> Played:
    """Run it to its end; `tags` are those of most nodes."""
    ear = Ear()
    structlog.configure(processors=[ear.line], cache_logger_on_first_use=False)
    tailnet = SimTailnet(clock)
    created = clock.wall() - DAY
    for name in ("git", "dev", "chocolate-factory"):
        tailnet.add(name, created=created)
    for n in range(nodes - 4):
        tailnet.add(f"node-{n:04}", notify=False, tags=list(tags), created=created)
    life = Life(tailnet, clock, pace)
    hook = web.Application()
    hook.router.add_post("/", ear.message)
    real = time.monotonic()
    async with serving(hook) as url:
        path = directory / "tsmon.toml"
        path.write_text(f'{config}[[notify]]\nname = "hook"\nurl = "webhook+{url}/"\n')
        settings = load(path, {}, {})
        daemon = Daemon(settings, directory, clock=clock, source=SimSource(tailnet))
        await daemon.start()
        begun = clock.now()
        while not daemon.collector.polls:
            await clock.sleep(0.01)
        daemon.parts.ledger.subscribe(ear.published)  # past the first sightings
        memory: list[float] = []
        size: list[float] = []
        jobs = (
            life.run(),
            life.darken(),
            _ask(daemon.url, clock, pace.ask_every),
            _measure(clock, pace.measure_every, daemon.store, memory, size),
        )
        try:
            await _for(clock, pace.length + 1.0, jobs)
            await clock.sleep(settings.poll_interval + 1.0)  # the last change is seen, too
            now = clock.now()
            length = now.mono - begun.mono
            lately = max(begun.wall, now.wall - DAY)
            observed, oldest_event, oldest_latency = await daemon.store.read(partial(_read, since=lately))
            polls = daemon.collector.polls
        finally:
            await daemon.stop()
    dark = [(max(start, lately), end) for start, end in life.dark if end > lately]
    step = settings.collect_interval
    return Played(
        length=length,
        real=time.monotonic() - real,
        offs=life.offs,
        ons=life.ons,
        offline_events=ear.events["node_offline"],
        online_events=ear.events["node_online"],
        polls=polls,
        polls_due=math.floor(length / settings.poll_interval) + 1,
        collects=len(ear.collects),
        collects_due=math.floor(now.wall / step) - math.floor(begun.wall / step),
        latest_collect=max((at - step * math.floor(at / step) for at in ear.collects), default=0.0),
        reports=ear.lines["health_report"],
        reports_due=math.floor(length / settings.report_interval) + 1,
        messages=ear.messages,
        observed=observed,
        observed_due=now.wall - lately - sum(end - start for start, end in dark),
        blinds=len(dark),
        oldest_event=now.wall - oldest_event,
        oldest_latency=now.wall - oldest_latency,
        memory_mib=memory,
        database_mib=size,
        trouble=dict(ear.trouble),
    )


async def _for(clock: Clock, seconds: float, jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """So long; a job that fails is a failure of all."""
    tasks = [asyncio.create_task(job) for job in jobs]
    await clock.sleep(seconds)
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


async def _ask(url: str, clock: Clock, every: float) -> None:
    async with aiohttp.ClientSession() as client:
        while True:
            for path in PATHS:
                async with client.get(url + path) as response:
                    assert response.status == 200, (path, await response.text())
                    await response.read()
            await clock.sleep(every)


async def _measure(clock: Clock, every: float, store: Store, memory: list[float], size: list[float]) -> None:
    await clock.sleep(0.01 * every)  # what was asked for meanwhile is answered
    async for _ in clock.ticks(every):
        give_back_memory()
        memory.append(round(pss_mib(), 1))
        pages, each = await store.read(lambda db: [_pragma(db, "page_count"), _pragma(db, "page_size")])
        size.append(round(pages * each / 2**20, 2))


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _read(db: sqlite3.Connection, since: float) -> tuple[float, float, float]:
    """Observed seconds since then, and when the oldest event and the oldest latency are from."""
    observed = db.execute(
        "SELECT sum(end - max(start, :since)) FROM observed WHERE scope = '' AND end > :since",
        {"since": since},
    ).fetchone()[0]
    events = db.execute("SELECT min(recorded_at) FROM events").fetchone()[0]
    latency = db.execute("SELECT min(time) FROM latency").fetchone()[0]
    return observed, events, latency


def faults(played: Played) -> list[str]:
    """What is not as it must be, a line each."""
    found = []
    expect = {
        "changes to offline": (played.offline_events, played.offs),
        "changes to online": (played.online_events, played.ons),
        "collects": (played.collects, played.collects_due),
        "hourly reports": (played.reports, played.reports_due),
    }
    found += [f"{name}: {is_} instead of {due}" for name, (is_, due) in expect.items() if is_ != due]
    if played.polls < played.polls_due:
        found.append(f"polls: {played.polls} instead of {played.polls_due} at least")
    if played.latest_collect > 1.0:
        found.append(f"a collect was {played.latest_collect:.1f} s after its grid time")
    # Blindness begins at the last trusted document and ends with the next one: two polls at most.
    slack = 2 * POLL * (played.blinds + 1)
    if not -1.0 <= played.observed_due - played.observed <= slack:
        found.append(f"observed {played.observed:.0f} s of {played.observed_due:.0f} s")
    if played.oldest_event > _KEPT + PRUNED_EVERY or played.oldest_latency > DAY + PRUNED_EVERY:
        found.append(
            f"retention: an event of {played.oldest_event:.0f} s, latency of {played.oldest_latency:.0f} s"
        )
    found += [f"log: {count} x {event}" for event, count in played.trouble.items()]
    # After two days all that is kept for a while was made once; the minutes of a real run are too few.
    settled, *rest = (played.memory_mib[4:] if played.length > 2 * DAY else []) or [0.0]
    found += [
        f"memory: {mib} MiB after {settled} MiB" for mib in rest if abs(mib - settled) > _FLAT * settled
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--days", type=float, default=30.0, help="of virtual time")
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--minutes", type=float, help="of real time instead")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    process.prepare()
    with tempfile.TemporaryDirectory() as directory:
        if chosen.minutes is not None:
            played = asyncio.run(
                play(real_pace(chosen.minutes), Clock(), Path(directory), nodes=chosen.nodes)
            )
        else:
            with asyncio.Runner(loop_factory=VirtualLoop) as runner:
                pace = virtual_pace(chosen.days)
                played = runner.run(play(pace, VirtualClock(), Path(directory), nodes=chosen.nodes))
    found = faults(played)
    if chosen.json:
        json.dump(played._asdict() | {"faults": found}, sys.stdout)
    else:
        for name, value in played._asdict().items():
            print(f"{name:20}{value}")
        print(*(found or ["nothing is amiss"]), sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
