"""tsmon on a real tailnet on loopback, through the LocalAPI: what it says against what was done.

Needs headscale, tailscaled and tailscale on PATH or in `TSMON_E2E_BIN`; skipped loudly when absent.
"""

import asyncio
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.tailnet import MISSING, RealTailnet, real_tailnet
from tests.harness import settings
from tsmon.daemon import Daemon
from tsmon.state import Event

PROD = "chocolate-factory"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"SKIPPED LOUDLY: no {', '.join(MISSING)} on PATH or in TSMON_E2E_BIN",
    ),
]


class Watching:
    """A daemon on the monitor's socket, and the events it published."""

    def __init__(self, daemon: Daemon, tailnet: RealTailnet) -> None:
        self.daemon = daemon
        self.tailnet = tailnet
        self.events: list[Event] = []

    async def until(self, condition: Callable[[], Any], seconds: float) -> float:
        """Seconds until it was so."""
        begun = time.monotonic()
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 (the daemon's view is what is waited for)
                await asyncio.sleep(0.02)
        return time.monotonic() - begun

    def state(self, name: str) -> tuple[str, str | None]:
        view = self.daemon.monitor.view
        node = next(node for node in view.nodes.values() if node.hostname == name)
        shown = view.shown(node)
        return shown.state, shown.reason

    def told(self) -> list[tuple[str, str | None]]:
        return [(e.event_type, e.hostname) for e in self.events if e.event_type != "health_check"]


@asynccontextmanager
async def watching(tailnet: RealTailnet, directory: Path) -> AsyncIterator[Watching]:
    chosen = settings(
        source=f"unix://{tailnet.socket('monitor')}",
        listen="127.0.0.1:0",
        poll_interval="5s",
        ping_interval="10s",
        ping_timeout="1s",
        reconnect_grace="5s",
        offline_after="5s",
    )
    daemon = Daemon(chosen, directory)
    await daemon.start()
    found = Watching(daemon, tailnet)
    daemon.monitor.subscribe(lambda published: found.events.extend(published.events))
    try:
        yield found
    finally:
        await daemon.stop()


async def test_a_day_in_the_life_of_a_real_tailnet(capsys: pytest.CaptureFixture[str]) -> None:
    # A socket's path may have 108 bytes only: not pytest's long directory.
    with tempfile.TemporaryDirectory(prefix="ts-") as name:
        async with real_tailnet(Path(name)) as tailnet, watching(tailnet, Path(name) / "state") as tsmon:
            figures = await play(tsmon)
    with capsys.disabled():
        print("\n" + "\n".join(f"  {what:44} {seconds:6.1f} s" for what, seconds in figures.items()))


async def play(tsmon: Watching) -> dict[str, float]:
    tailnet = tsmon.tailnet
    figures: dict[str, float] = {}
    await tsmon.until(lambda: tsmon.daemon.monitor.view.health().online == 4, 30)
    view = tsmon.daemon.monitor.view
    assert view.health().status == "healthy"
    assert view.tun is False
    assert tsmon.daemon.readiness().parts["warnings"], "a userspace tailscaled is warned about"
    await tsmon.until(lambda: measured(tsmon, "git"), 30)

    tailnet.signal("git", signal.SIGKILL)
    offline = ("offline", "control")
    figures["killed -> recorded (control waits 10 s)"] = await tsmon.until(
        lambda: tsmon.state("git") == offline, 40
    )
    tailnet.boot("git")
    figures["started -> recorded"] = await tsmon.until(lambda: tsmon.state("git")[0] == "online", 40)

    tailnet.signal(PROD, signal.SIGSTOP)
    unreachable = ("offline", "unreachable")
    figures["suspended -> unreachable"] = await tsmon.until(lambda: tsmon.state(PROD) == unreachable, 90)
    tailnet.signal(PROD, signal.SIGCONT)
    figures["resumed -> online"] = await tsmon.until(lambda: tsmon.state(PROD)[0] == "online", 60)

    await tailnet.cli("monitor", "set", "--sync=false")
    tailnet.signal("chocolate-factory-dev", signal.SIGKILL)
    figures["control paused -> blind"] = await tsmon.until(lambda: reason(tsmon) == "control_lost", 40)
    assert tsmon.state("chocolate-factory-dev")[0] == "unknown"
    await tailnet.cli("monitor", "set", "--sync=true")
    figures["control back -> sight"] = await tsmon.until(lambda: reason(tsmon) is None, 40)
    await tsmon.until(lambda: tsmon.state("chocolate-factory-dev") == offline, 40)
    tailnet.boot("chocolate-factory-dev")
    await tsmon.until(lambda: tsmon.state("chocolate-factory-dev")[0] == "online", 40)

    await tailnet.cli("monitor", "down")
    figures["stopped -> blind"] = await tsmon.until(lambda: reason(tsmon) == "tailscale_stopped", 40)
    assert tsmon.state("monitor") == ("offline", "stopped")
    assert tsmon.state(PROD)[0] == "unknown"
    await tailnet.up("monitor")
    await tsmon.until(lambda: reason(tsmon) is None and tsmon.state("monitor")[0] == "online", 60)

    tailnet.signal("monitor", signal.SIGKILL)
    await tsmon.until(lambda: reason(tsmon) == "source_unreachable", 40)
    tailnet.boot("monitor")
    figures["daemon restarted -> sight"] = await tsmon.until(lambda: reason(tsmon) is None, 60)

    await tailnet.headscale("nodes", "expire", "-i", node_id(tsmon, "git"))
    await tsmon.until(lambda: tsmon.state("git") == ("offline", "key_expired"), 60)
    await tailnet.headscale("nodes", "delete", "--force", "-i", node_id(tsmon, PROD))
    await tsmon.until(lambda: ("node_removed", PROD) in tsmon.told(), 60)

    told = tsmon.told()
    for name in ("git", PROD, "chocolate-factory-dev"):
        changes = [
            kind for kind, hostname in told if hostname == name and kind in ("node_online", "node_offline")
        ]
        alternating = ["node_offline", "node_online"] * 2
        assert changes in (alternating[: len(changes)], ["node_online", *alternating][: len(changes)]), (
            changes
        )
    sight = [kind for kind, _ in told if kind in ("monitor_blind", "monitor_restored")]
    assert sight == ["monitor_blind", "monitor_restored"] * 3
    return figures


def reason(tsmon: Watching) -> str | None:
    blind = tsmon.daemon.monitor.view.blind
    return blind.reason if blind is not None else None


def measured(tsmon: Watching, name: str) -> bool:
    view = tsmon.daemon.monitor.view
    return any(n.hostname == name and n.reach.latency_ms is not None for n in view.nodes.values())


def node_id(tsmon: Watching, name: str) -> str:
    view = tsmon.daemon.monitor.view
    return next(node.id for node in view.nodes.values() if node.hostname == name)
