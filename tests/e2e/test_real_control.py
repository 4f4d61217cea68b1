"""What a real headscale knows, asked by its API: a node that the policy hides, and what changes about nodes.

Needs headscale, tailscaled and tailscale on PATH or in `TSMON_E2E_BIN`; skipped loudly when absent.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.tailnet import MISSING, RealTailnet, real_tailnet
from tests.support.world import settings
from tsmon.cli.doctor.control_server import examine_control
from tsmon.daemon.daemon import Daemon
from tsmon.monitor.state import Event

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"SKIPPED LOUDLY: no {', '.join(MISSING)} on PATH or in TSMON_E2E_BIN"
    ),
]
MONITOR, GIT, VAULT = "monitor", "git", "vault"
HIDING = {
    "tagOwners": {"tag:server": ["alice@"], "tag:secret": ["alice@"], "tag:cold": ["alice@"]},
    "acls": [{"action": "accept", "src": ["alice@"], "dst": ["alice@:*", "tag:server:*"]}],
}
"""Nobody reaches what is tagged `tag:secret`, nor is reached by it."""


class Watched:
    """tsmon over a real tailnet and its control server's API."""

    def __init__(self, tailnet: RealTailnet, daemon: Daemon) -> None:
        self.tailnet = tailnet
        self.daemon = daemon
        self.events: list[Event] = []
        daemon.parts.ledger.subscribe(lambda published: self.events.extend(published.events))

    async def coverage(self) -> Any:
        url = f"{self.daemon.url}/health-monitoring/coverage"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return await response.json()

    def drift(self) -> list[str]:
        return [event.message for event in self.events if event.details.get("source") == "control"]

    def alerts(self) -> list[str]:
        return [alert.kind for alert in self.daemon.monitor.alerts.values() if alert.state == "firing"]

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (what, self.drift(), self.alerts(), await self.coverage())
            await asyncio.sleep(0.1)


@asynccontextmanager
async def watched(tailnet: RealTailnet, **values: Any) -> AsyncIterator[Watched]:
    made = await tailnet.headscale("apikeys", "create", "--expiration", "10d")
    chosen = settings(
        source=f"unix://{tailnet.socket(MONITOR)}",
        listen="127.0.0.1:0",
        poll_interval="2s",
        control__kind="headscale",
        control__url=tailnet.control_url,
        control__token=made.split()[-1],
        control__interval="1s",
        **values,
    )
    daemon = Daemon(chosen, tailnet.dir / "state")
    await daemon.start()
    try:
        yield Watched(tailnet, daemon)
    finally:
        await daemon.stop()


async def test_what_a_real_headscale_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every node here is younger than the minute in which one counts as new.
    monkeypatch.setattr("tsmon.monitor.control.coverage._JUST", 0.0)
    # A socket's path may have 108 bytes only: not pytest's long directory.
    with tempfile.TemporaryDirectory(prefix="ts-") as directory:
        async with real_tailnet(Path(directory), (MONITOR, GIT, VAULT)) as tailnet:
            numbers = await tailnet.numbers()
            policy = tailnet.dir / "policy.json"
            policy.write_text(json.dumps(HIDING))
            tailnet.kill("headscale")
            tailnet.boot_headscale()
            await tailnet.all_back(MONITOR, GIT, VAULT)
            await tailnet.headscale("nodes", "tag", "-i", numbers[VAULT], "-t", "tag:secret")
            async with watched(tailnet, control__device_joined="true") as tsmon:
                await hidden_nodes_are_known(tsmon)
                await changes_are_logged(tsmon, numbers)
                await a_new_node_is_known(tsmon)
                await the_doctor_finds_it_right(tsmon)
                await a_restart_says_nothing(tsmon)


async def hidden_nodes_are_known(tsmon: Watched) -> None:
    monitor = tsmon.daemon.monitor

    def sees_the_others_only() -> bool:
        return {node.hostname for node in monitor.view.nodes.values()} == {MONITOR, GIT}

    await tsmon.until(sees_the_others_only, "hidden")
    await tsmon.until(lambda: tsmon.daemon.parts.known.baseline, "a first answer")
    answer = await tsmon.coverage()
    assert (answer["known"], answer["seen"], answer["error"]) == (3, 2, None)
    (vault,) = answer["unseen"]
    assert (vault["hostname"], vault["because"], vault["tags"]) == (VAULT, "policy", ["tag:secret"])
    assert answer["local_only"] == []
    await tsmon.until(lambda: monitor.view.inventory.credentials, "its own key")  # type: ignore[union-attr]
    (own,) = monitor.view.inventory.credentials  # type: ignore[union-attr, misc]
    assert (own.kind, own.own) == ("API key", True)
    assert own.expires is not None
    assert 9 < (own.expires - time.time()) / 86400 < 10.1


async def changes_are_logged(tsmon: Watched, numbers: dict[str, str]) -> None:
    tailnet = tsmon.tailnet
    await tailnet.cli(GIT, "set", "--advertise-routes=192.0.2.0/24")
    await tsmon.until(lambda: "git: advertised routes +192.0.2.0/24" in tsmon.drift(), "a route")
    answer = await tsmon.coverage()
    assert answer["seen"] == 2
    await tailnet.headscale("nodes", "approve-routes", "-i", numbers[GIT], "-r", "192.0.2.0/24")
    await tsmon.until(lambda: "git: approved routes +192.0.2.0/24" in tsmon.drift(), "an approval")
    await tailnet.headscale("nodes", "tag", "-i", numbers[VAULT], "-t", "tag:secret,tag:cold")
    await tailnet.headscale("nodes", "expire", "-i", numbers[VAULT])
    await tsmon.until(lambda: any("its key expired" in words for words in tsmon.drift()), "an expired key")


async def a_new_node_is_known(tsmon: Watched) -> None:
    made = await tsmon.tailnet.headscale(
        "preauthkeys", "create", "--user", "1", "--tags", "tag:secret", "--ephemeral=false"
    )
    tsmon.tailnet.boot("safe")
    await asyncio.sleep(1)
    await tsmon.tailnet.up("safe", f"--auth-key={made.split()[-1]}", "--timeout=30s")
    joined = "safe joined the tailnet, says the control server; it is not seen from here"
    await tsmon.until(lambda: joined in tsmon.drift(), "a new node")
    await tsmon.until(lambda: "device_joined" in tsmon.alerts(), "its alert")


async def the_doctor_finds_it_right(tsmon: Watched) -> None:
    found = await examine_control(tsmon.daemon.settings, None)
    assert [(finding.what, finding.level) for finding in found] == [
        ("control", "ok"),
        ("credential", "warning"),
    ]
    assert "expires in 9 d" in found[1].says


async def a_restart_says_nothing(tsmon: Watched) -> None:
    """headscale calls everybody offline for seconds after its start."""
    before, alerts = tsmon.drift(), sorted(tsmon.alerts())
    tsmon.tailnet.kill("headscale")
    await tsmon.until(lambda: tsmon.daemon.monitor.view.inventory.error, "a failure")  # type: ignore[union-attr]
    known = (await tsmon.coverage())["known"]
    assert known == 4, "the inventory is frozen"
    tsmon.tailnet.boot_headscale()
    await tsmon.tailnet.all_back(MONITOR, GIT)
    await tsmon.until(lambda: not tsmon.daemon.monitor.view.inventory.error, "its return")  # type: ignore[union-attr]
    await asyncio.sleep(10)
    assert tsmon.drift() == before
    assert sorted(tsmon.alerts()) == alerts
