"""A whole API over a scripted tailnet, asked over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.world import settings
from tsmon.base.clock import Clock
from tsmon.daemon.daemon import Daemon
from tsmon.demo.servers import FakeLocalApi, FakeSidecar, serving
from tsmon.demo.tailnet import SimTailnet

PROD = "chocolate-factory"


class Site:
    """A running daemon and a client of it."""

    def __init__(self, daemon: Daemon, tailnet: SimTailnet, client: aiohttp.ClientSession) -> None:
        self.daemon = daemon
        self.tailnet = tailnet
        self.client = client

    async def get(self, path: str, status: int = 200, **headers: str) -> Any:
        async with self.client.get(self.daemon.url + path, headers=headers) as response:
            text = await response.text()
            assert response.status == status, text
            return json.loads(text) if text and response.content_type == "application/json" else text

    async def until(self, condition: Callable[[], Any], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 (the conditions are of the daemon)
                await asyncio.sleep(0.01)

    async def poll(self) -> None:
        """One read of the source, now."""
        polls = self.daemon.collector.polls
        self.daemon.collector.want_read()
        await self.until(lambda: self.daemon.collector.polls > polls)


@asynccontextmanager
async def site(tmp_path: Path, *names: str, **values: Any) -> AsyncIterator[Site]:
    """Among the values, which are settings, `furnish` adds to the tailnet; it is read through a sidecar, with
    `over_socket` from tailscaled's own."""
    tailnet = SimTailnet(Clock())
    values.pop("furnish", lambda _: None)(tailnet)
    over_socket = values.pop("over_socket", False)
    tailnet.fault = values.pop("fault", "")
    for name in names or ("git", "dev", PROD, "alices-laptop"):
        tailnet.add(name)
    # On the grid a health check is an event, which a test of other events would meet once in a while.
    values.setdefault("collect_interval", "23h")
    server = FakeLocalApi(tailnet) if over_socket else FakeSidecar(tailnet, ping_timeout=0.2)
    async with serving(server.application(), tmp_path / "tailscaled.sock" if over_socket else 0) as url:
        chosen = settings(source=url, listen="127.0.0.1:0", poll_interval="1s", **values)
        daemon = Daemon(chosen, tmp_path / "state")
        await daemon.start()
        async with aiohttp.ClientSession(auto_decompress=True) as client:
            found = Site(daemon, tailnet, client)
            await found.until(lambda: daemon.collector.polls)
            try:
                yield found
            finally:
                await daemon.stop()
