"""The simulated tailnet: the demo a newcomer sees, and 10,000 nodes without being slow."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.paths import FIXTURES, ROOT
from tests.support.process import Process
from tests.support.virtual import VirtualClock, virtual
from tests.support.world import World
from tsmon.base.clock import Clock
from tsmon.config import ControlSettings, Secret, Settings
from tsmon.demo.show import (
    HISTORY_DAYS,
    DemoUrls,
    demo_settings,
    demo_tailnet,
    open_demo,
    seed_history,
    story,
)
from tsmon.demo.tailnet import SimTailnet
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.store import Store
from tsmon.source.localapi import LocalApi
from tsmon.source.status import Decoder


async def test_the_demo_runs_with_history_and_can_never_be_mistaken(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tsmon",
        "demo",
        "--listen",
        "127.0.0.1:0",
        "--log-format",
        "json",
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    demo = Process(process)
    try:
        started = await demo.line("started")
        assert started["demo"] is True
        assert not str(started["state_dir"]).startswith(str(Path.home() / ".local"))
        async with aiohttp.ClientSession() as client, asyncio.timeout(20):
            base = started["url"] + "/health-monitoring/"

            async def get(path: str) -> Any:
                async with client.get(base + path) as response:
                    return await response.json()

            while (summary := await get("summary"))["blind"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert summary["demo"] is True
            uptime = await get("uptime/git?hours=2160")
            assert uptime["outages"] >= 1
            assert uptime["coverage"] > 90
            coverage = await get("coverage")
            assert (coverage["known"] - coverage["seen"], coverage["error"]) == (4, None)
            logs = await get("logs?event_type=node_offline")
            assert logs["pagination"]["total_entries"] > 5
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0
    assert not Path(str(started["state_dir"])).exists()


def test_nothing_real_is_touched() -> None:
    control = ControlSettings(kind="headscale", url="https://hs.example", token=Secret("real"))
    real = Settings(influx=Settings().influx, public_url="https://x.example", control=control)
    chosen = demo_settings(real, DemoUrls("http://127.0.0.1:1"))
    assert (chosen.influx.url, chosen.notify, chosen.heartbeat.url) == ("", (), None)
    assert chosen.control == ControlSettings()
    asked = demo_settings(real, DemoUrls("http://127.0.0.1:1", "http://127.0.0.1:2")).control
    assert (asked.url, asked.token) == ("http://127.0.0.1:2", Secret("demo"))


async def test_the_invented_history_is_whole(tmp_path: Path) -> None:
    clock = Clock()
    tailnet = demo_tailnet(clock)
    now = clock.wall()
    await seed_history(tmp_path, tailnet, Settings(), now)
    store = await Store.open(tmp_path)
    history = EmbeddedHistory(store)
    found = await history.uptime(now - HISTORY_DAYS * 86400, now)
    assert len(found) == len(tailnet.nodes)
    assert all(uptime.coverage is not None and uptime.coverage > 90 for uptime in found.values())
    assert any(uptime.uptime_percentage != 100 for uptime in found.values())
    git = tailnet.find("git")
    assert len(await history.latency(git.id, now - 86400, now)) > 200
    await store.close()


@virtual
async def test_the_story_runs_through_every_feature_in_five_minutes(tmp_path: Path) -> None:
    world = World(tmp_path, "unused")
    world.tailnet = demo_tailnet(world.clock)
    world.settings = demo_settings(world.settings, DemoUrls("http://127.0.0.1:1"))
    await seed_history(tmp_path, world.tailnet, world.settings, world.clock.wall())
    await world.start()
    telling = asyncio.create_task(story(world.tailnet, world.clock))
    try:
        await world.run(300)
        kinds = {event.event_type for event in world.events}
        assert kinds >= {
            "monitor_started",
            "node_online",
            "node_offline",
            "node_added",
            "node_removed",
            "monitor_blind",
            "monitor_restored",
            "alert",
            "alert_resolved",
            "health_check",
        }
        told = {event.details["kind"] for event in world.events if event.event_type == "alert"}
        assert told >= {"node_offline", "node_flapping", "key_expiring", "monitor_blind"}
        reasons = {
            event.details.get("reason") for event in world.events if event.event_type == "node_offline"
        }
        assert reasons >= {"control", "unreachable"}
    finally:
        telling.cancel()
        await world.kill()


async def test_a_filled_up_demo(tmp_path: Path) -> None:
    async with open_demo(Clock(), tmp_path, 50) as urls:
        source = LocalApi(urls.source.removeprefix("unix://"), Settings())
        try:
            assert len(json.loads(await source.status())["Peer"]) == 49
        finally:
            await source.close()


def peers(tailnet: SimTailnet) -> dict[str, dict[str, Any]]:
    found = json.loads(tailnet.document())["Peer"]
    return {row["DNSName"].partition(".")[0]: row for row in found.values()}


def test_a_document_has_the_fields_of_a_real_one() -> None:
    tailnet = SimTailnet(VirtualClockOutside(), suffix="tail.example")
    for n in range(5):
        tailnet.add(f"node-{n}")
    simulated, real = json.loads(tailnet.document()), json.loads((FIXTURES / "all-online.json").read_bytes())
    assert set(simulated) == set(real)
    rows, real_rows = list(simulated["Peer"].values()), list(real["Peer"].values())
    for row in rows:
        assert set.intersection(*map(set, real_rows)) <= set(row) <= set.union(*map(set, real_rows))
        assert {key: type(value) for key, value in row.items()} == {
            key: type(value) for key, value in real_rows[0].items() if key in row
        }
    assert all(key == row["PublicKey"] and len(key) == 72 for key, row in simulated["Peer"].items())
    # Benchmarks say something about real tailnets only when the documents are as large.
    bytes_of_a_row = [sum(len(json.dumps(row)) for row in all_) / len(all_) for all_ in (rows, real_rows)]
    assert 0.9 < bytes_of_a_row[0] / bytes_of_a_row[1] < 1.1


@pytest.mark.parametrize(("first", "second"), [("lose_control", "stop"), ("stop", "lose_control")])
def test_a_monitor_without_control_learns_nothing(first: str, second: str) -> None:
    tailnet = SimTailnet(VirtualClockOutside())
    tailnet.add("a")
    undo = {"lose_control": tailnet.regain_control, "stop": tailnet.start}
    getattr(tailnet, first)()
    tailnet.off("a")
    assert peers(tailnet)["a"]["Online"]
    getattr(tailnet, second)()
    assert peers(tailnet)["a"]["Online"], "the second loss brings no news"
    undo[second]()
    assert peers(tailnet)["a"]["Online"], "the first loss still holds"
    undo[first]()
    assert not peers(tailnet)["a"]["Online"]


def test_ten_thousand_nodes_are_rendered_once() -> None:
    tailnet = SimTailnet(VirtualClockOutside())
    for n in range(10_000):
        tailnet.add(f"node-{n}", notify=False)
    first = tailnet.document()
    begun = time.perf_counter()
    again = tailnet.document()
    assert again == first
    assert len(Decoder().decode(first).nodes) == 10_001
    assert time.perf_counter() - begun < 30


class VirtualClockOutside(VirtualClock):
    """A clock for code that runs in no event loop."""

    def mono(self) -> float:
        return 0.0
