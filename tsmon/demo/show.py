"""The demo: a small company's tailnet, 90 days of history, and a story that shows all in five minutes."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tsmon.base.clock import Clock, grid_floor
from tsmon.classify import Classifier
from tsmon.config import (
    AuthSettings,
    ControlSettings,
    FlappingSettings,
    HeartbeatSettings,
    InfluxSettings,
    RoleSettings,
    Secret,
    Settings,
)
from tsmon.demo.control_server import TOKEN, FakeControl
from tsmon.demo.servers import FakeLocalApi, serving
from tsmon.demo.tailnet import SimService, SimTailnet
from tsmon.history.store import Store
from tsmon.monitor.batch import Batch, LatencyRow, Observed, SpanChange
from tsmon.monitor.state import Event, Node, Reach
from tsmon.source.status import Decoder

DAY = 86400.0
HISTORY_DAYS = 90
_FLAWS = {"chocolate-factory": 3, "git": 2, "chocolate-factory-dev": 9, "backup": 6, "media": 14}
"""How many outages the invented history of some machines has."""


_DB = RoleSettings(
    name="db", tags=("tag:db",), ping=True, checks=("tcp:5432", "http:8080/healthz"), offline_after=10.0
)


class DemoUrls(NamedTuple):
    """Where the demo's own servers answer."""

    source: str
    control: str = ""
    """The control server's API; "": there is none."""


def demo_settings(settings: Settings, urls: DemoUrls) -> Settings:
    """Short delays, nothing real touched: no InfluxDB, no channel, no heartbeat; listens as configured."""
    control = ControlSettings(kind="tailscale", url=urls.control, token=Secret(TOKEN), interval=10.0)
    return msgspec.structs.replace(
        settings,
        source=Secret(urls.source),
        poll_interval=2.0,
        ping_interval=10.0,
        collect_interval=10.0,
        check_interval=30.0,
        report_interval=120.0,
        offline_after=10.0,
        blind_after=20.0,
        reconnect_grace=5.0,
        service_interval=5.0,
        services=True,
        diagnose=False,
        roles=(*settings.roles, _DB),
        flapping=FlappingSettings(changes=6, window=120.0, settle=30.0),
        ping_timeout=1.0,
        influx=InfluxSettings(),
        notify=(),
        heartbeat=HeartbeatSettings(),
        control=control if urls.control else ControlSettings(),
        auth=AuthSettings(mode="none") if settings.auth.mode in ("", "none") else settings.auth,
    )


def demo_tailnet(clock: Clock, nodes: int = 0) -> SimTailnet:
    """Three critical nodes, servers, people's devices, a shared-in machine, an exit node;
    filled up with more servers to `nodes`."""
    tailnet = SimTailnet(clock, name="factory.example", suffix="tail1234.ts.example")
    now = clock.wall()
    created = now - HISTORY_DAYS * DAY
    tailnet.own.created = created
    server: dict[str, Any] = {"tags": ["tag:server"], "created": created}
    tailnet.services["svc:wiki"] = SimService("100.100.0.10", ["tcp:443"], "git")
    tailnet.lock = []
    tailnet.add("chocolate-factory", latency_ms=11.4, **server)
    tailnet.add("chocolate-factory-dev", latency_ms=18.2, **server)
    tailnet.add("git", latency_ms=7.9, ports={443: "open"}, **server)
    database: dict[str, Any] = {"ports": {5432: "open", 8080: "open"}, "latency_ms": 6.1}
    tailnet.add("db", tags=["tag:server", "tag:db"], created=created, **database)
    tailnet.add("backup", latency_ms=31.0, os="freebsd", key_expiry=now + 2.5 * DAY, **server)
    tailnet.add("media", path="relay", latency_ms=64.0, **server)
    tailnet.add("exit-fra", exit_node_option=True, routes=["192.0.2.0/24"], **server)
    people: dict[str, Any] = {"created": created, "key_expiry": now + 120 * DAY}
    tailnet.add("alices-laptop", os="macOS", user=1, **people)
    tailnet.add("alices-phone", os="iOS", user=1, os_hostname="localhost", **people)
    tailnet.add("bobs-desktop", os="windows", user=2, **people)
    tailnet.add("bobs-phone", os="android", user=2, online=False, alive=False, last_seen=now - 9000, **people)
    tailnet.add(
        "digital-frame", os="linux", user=2, online=False, alive=False, last_seen=now - 40 * DAY, **people
    )
    tailnet.add("partner-box.tail9876.ts.example", shared=True, user=3, created=created)
    for n in range(len(tailnet.nodes), nodes):
        tailnet.add(f"node-{n:05d}", notify=False, latency_ms=5 + n % 40, **server)
    return tailnet


async def story(tailnet: SimTailnet, clock: Clock, nap: Callable[[float], float] = float) -> None:
    """Everything happens within five minutes, then again; `nap` may stretch or shrink the seconds."""

    async def wait(seconds: float) -> None:
        await clock.sleep(nap(seconds))

    while True:
        await wait(20)
        tailnet.change("media", path="direct", latency_ms=22.0)
        tailnet.off("chocolate-factory-dev")
        await wait(30)
        tailnet.on("chocolate-factory-dev")
        tailnet.change("db", ports={5432: "refused", 8080: "open"})
        await wait(10)
        tailnet.hang("git")
        await wait(45)
        tailnet.on("git")
        tailnet.change("db", ports={5432: "open", 8080: "open"})
        tailnet.change("exit-fra", routes=[])
        tailnet.change("media", routes=["192.0.2.0/24"])
        await wait(10)
        for _ in range(4):
            tailnet.off("backup")
            await wait(5)
            tailnet.on("backup")
            await wait(5)
        tailnet.lose_control()
        await wait(40)
        tailnet.regain_control()
        await wait(10)
        tailnet.off("chocolate-factory")
        await wait(40)
        tailnet.on("chocolate-factory")
        tailnet.change("media", path="relay", latency_ms=64.0)
        tailnet.change("media", routes=[])
        tailnet.change("exit-fra", routes=["192.0.2.0/24"])
        tailnet.lock = ["bobs-new-laptop"]
        visitor = "ci-runner"
        tailnet.add(visitor, tags=["tag:ci"])
        await wait(30)
        tailnet.remove(visitor)
        tailnet.lock = []


async def seed_history(state_dir: Path, tailnet: SimTailnet, settings: Settings, now: float) -> None:
    """Write 90 days of invented history, the same for the same tailnet."""
    chance = random.Random(7)  # noqa: S311 (an invented history, not a secret)
    snapshot = Decoder(settings.exclude).decode(tailnet.document())
    classifier = Classifier(settings)
    begin = now - HISTORY_DAYS * DAY
    batch = Batch(meta={"self_id": snapshot.self_id})
    batch.observed = _observed(begin, now, chance)
    for facts in snapshot.nodes.values():
        online = facts.online
        node = Node(
            facts=facts,
            role=classifier.role(facts),
            first_seen=begin,
            state="online" if online else "offline",
            reason=None if online else "control",
            since=begin if online else facts.last_seen,
            last_online=begin if online else facts.last_seen,
            seen_online=True,
            reach=Reach(),
        )
        batch.spans.append(SpanChange(node.id, begin, "online"))
        since = begin
        for start, length in _outages(node, begin, now, chance):
            batch.spans += [
                SpanChange(node.id, start, "offline"),
                SpanChange(node.id, start + length, "online"),
            ]
            batch.events += _told(node, start, length)
            since = start + length
        if not online:
            batch.spans.append(SpanChange(node.id, facts.last_seen or begin, "offline"))
        else:
            node = msgspec.structs.replace(node, since=since, last_online=since)
        batch.nodes.append(node)
        if node.role.ping:
            batch.latency += _latency(node, now, tailnet.nodes[node.id].latency_ms, chance)
    batch.events.sort(key=lambda event: event.timestamp)
    batch.events = [msgspec.structs.replace(event, id=n + 1) for n, event in enumerate(batch.events)]
    store = await Store.open(state_dir)
    try:
        await store.commit(batch)
    finally:
        await store.close()


def _observed(begin: float, now: float, chance: random.Random) -> list[Observed]:
    """The whole time but for a few stretches in which the monitor could not see."""
    gaps = sorted(chance.uniform(begin, now - DAY) for _ in range(4))
    stretches, start = [], begin
    for gap in gaps:
        stretches.append(Observed(start, gap))
        start = gap + chance.uniform(600, 7200)
    stretches.append(Observed(start, now - 5))
    return stretches


def _outages(node: Node, begin: float, now: float, chance: random.Random) -> list[tuple[float, float]]:
    """(start, seconds) of each outage: servers a few short ones, people's devices sleep at night."""
    if node.role.name == "device" and node.facts.online and not node.facts.is_self:
        nights = range(1, HISTORY_DAYS - 1)
        return [(begin + day * DAY + chance.uniform(0, 3600), chance.uniform(6, 9) * 3600) for day in nights]
    count = _FLAWS.get(node.hostname, 0)
    starts = sorted(
        begin + DAY * (0.5 + (HISTORY_DAYS - 1) * (n + chance.random()) / count) for n in range(count)
    )
    return [(start, chance.choice((180, 600, 2400, 9000))) for start in starts if start < now - 12_000]


def _told(node: Node, start: float, length: float) -> list[Event]:
    if node.role.name == "device":
        return []
    common: dict[str, Any] = {"node_id": node.id, "hostname": node.hostname, "node_type": node.role.node_type}
    severity = "ok" if node.role.alert == "none" else node.role.alert
    return [
        Event(
            id=0,
            timestamp=start,
            recorded_at=start,
            event_type="node_offline",
            severity=severity,
            message=f"{node.hostname} is offline: the control server says so",
            details={"reason": "control"},
            **common,
        ),
        Event(
            id=0,
            timestamp=start + length,
            recorded_at=start + length,
            event_type="node_online",
            severity="ok",
            message=f"{node.hostname} is online",
            **common,
        ),
    ]


def _latency(node: Node, now: float, usual: float, chance: random.Random) -> list[LatencyRow]:
    """Two days of latency rows."""
    rows = []
    grid = grid_floor(now - 2 * DAY, 300)
    while grid < now - 300:
        mean = usual * chance.lognormvariate(0, 0.12)
        path = "relay" if chance.random() < 0.02 else "direct"
        mean = mean * 2.5 if path == "relay" else mean
        rows.append(LatencyRow(node.id, grid, mean * 0.8, mean, mean * 1.6, 0.0, path))
        grid += 300
    return rows


@asynccontextmanager
async def open_demo(clock: Clock, state_dir: Path, nodes: int = 0) -> AsyncIterator[DemoUrls]:
    """The simulated tailnet with its history behind tailscaled's socket and a control server's API."""
    tailnet = demo_tailnet(clock, nodes)
    await seed_history(state_dir, tailnet, Settings(), clock.wall())
    async with (
        serving(FakeLocalApi(tailnet).application(), state_dir / "tailscaled.sock") as source,
        serving(FakeControl(tailnet).application()) as control,
    ):
        telling = asyncio.create_task(story(tailnet, clock))
        try:
            yield DemoUrls(source, control)
        finally:
            telling.cancel()
