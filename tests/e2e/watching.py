"""Two monitors of one tailnet side by side: through the LocalAPI's socket, and through the real sidecar."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.e2e.tailnet import RealTailnet, program
from tests.support.sidecar_proxy import sidecar
from tests.support.world import settings
from tsmon.daemon.daemon import Daemon
from tsmon.monitor.state import Event

POLL = 5.0
PING = 10.0
OFFLINE_AFTER = 5.0
BLIND_AFTER = 6.0
SHELL = "busybox" if shutil.which("busybox") else "dash"
"""What runs the handler; the official image's shell is busybox."""


class Watching:
    """A running tsmon, and the events it published."""

    def __init__(self, daemon: Daemon, source: str) -> None:
        self.daemon = daemon
        self.source = source
        self.events: list[Event] = []
        daemon.parts.ledger.subscribe(lambda published: self.events.extend(published.events))

    def state(self, name: str) -> tuple[str, str | None]:
        """State and reason as shown; the name is the present one."""
        view = self.daemon.monitor.view
        node = next((node for node in view.nodes.values() if node.hostname == name), None)
        if node is None:
            return "absent", None
        shown = view.shown(node)
        return shown.state, shown.reason

    def blind(self) -> str | None:
        """Why tsmon sees nothing, None while it sees."""
        blind = self.daemon.monitor.view.blind
        return blind.reason if blind is not None else None

    def alerts(self) -> set[tuple[str, str | None]]:
        """Kind and hostname of the alerts that fire."""
        alerts = self.daemon.monitor.alerts.values()
        return {(alert.kind, alert.hostname) for alert in alerts if alert.state == "firing"}

    def measured(self, name: str) -> bool:
        """A ping of the node was answered."""
        nodes = self.daemon.monitor.view.nodes.values()
        return any(node.hostname == name and node.reach.latency_ms is not None for node in nodes)

    async def api(self, path: str) -> Any:
        """What the HTTP API says at `/health-monitoring/…`."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.daemon.url}/health-monitoring/{path}") as response,
        ):
            assert response.status == 200, await response.text()
            return await response.json()


class Pair:
    """Both monitors: what is waited for must come to be in each."""

    def __init__(self, *monitors: Watching) -> None:
        self.monitors = monitors
        self.figures: dict[str, dict[str, float]] = {}
        """Seconds that things took, by what and by source."""

    async def until(
        self,
        condition: Callable[[Watching], Any],
        seconds: float,
        what: str = "",
        since: float | None = None,
    ) -> Mapping[str, float]:
        """Wall times at which it was so, by source; `what` notes how long it took (since then, or now)."""
        begun = since or time.time()

        async def one(tsmon: Watching) -> float:
            try:
                async with asyncio.timeout(seconds):
                    while not condition(tsmon):  # noqa: ASYNC110 (the daemon's view is what is waited for)
                        await asyncio.sleep(0.02)
            except TimeoutError:
                view = tsmon.daemon.monitor.view
                states = {node.hostname: tsmon.state(node.hostname) for node in view.nodes.values()}
                raise AssertionError(
                    f"{tsmon.source}: not within {seconds:g} s: {what or condition}; "
                    f"blind {view.blind}, {states}, alerts {tsmon.alerts()}"
                ) from None
            if what:
                self.figures.setdefault(what, {})[tsmon.source] = time.time() - begun
            return time.time()

        found = await asyncio.gather(*(one(tsmon) for tsmon in self.monitors))
        return {tsmon.source: at for tsmon, at in zip(self.monitors, found, strict=True)}

    def table(self) -> str:
        """The figures as lines of text."""
        sources = [tsmon.source for tsmon in self.monitors]
        lines = [f"  {'':44}" + "".join(f"{source:>12}" for source in sources)]
        for what, seconds in self.figures.items():
            cells = "".join(
                f"{seconds[source]:10.1f} s" if source in seconds else f"{'':12}" for source in sources
            )
            lines.append(f"  {what:44}{cells}")
        return "\n".join(lines)


@asynccontextmanager
async def watching(tailnet: RealTailnet, name: str) -> AsyncIterator[Pair]:
    """Both monitors at work on the node `name`."""
    async with AsyncExitStack() as stack:
        directory = tailnet.dir / "proxy"
        directory.mkdir()
        proxy = await stack.enter_async_context(
            sidecar(
                SHELL,
                directory,
                HOME=os.environ.get("HOME", "/"),
                TAILSCALE_BIN=program("tailscale"),
                TS_SOCKET=str(tailnet.socket(name)),
            )
        )
        monitors = []
        for source, url in (("localapi", f"unix://{tailnet.socket(name)}"), ("sidecar", proxy.url)):
            monitors.append(
                await stack.enter_async_context(_daemon(source, url, tailnet.dir / f"tsmon-{source}"))
            )
        yield Pair(*monitors)


@asynccontextmanager
async def _daemon(source: str, url: str, directory: Path) -> AsyncIterator[Watching]:
    daemon = Daemon(
        settings(
            source=url,
            listen="127.0.0.1:0",
            poll_interval=f"{POLL:g}s",
            ping_interval=f"{PING:g}s",
            ping_timeout="1s",
            reconnect_grace="5s",
            offline_after=f"{OFFLINE_AFTER:g}s",
            blind_after=f"{BLIND_AFTER:g}s",
        ),
        directory,
    )
    await daemon.start()
    try:
        yield Watching(daemon, source)
    finally:
        await daemon.stop()
