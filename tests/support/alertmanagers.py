"""A cluster of real Alertmanagers with the shipped configuration, and who is notified by it."""

import asyncio
import contextlib
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import yaml  # type: ignore[import-untyped]
from aiohttp import web

from tests.support.paths import ROOT
from tests.support.sidecar_proxy import free_port

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
EXAMPLE = ROOT / "packaging" / "alertmanager" / "alertmanager.yml"
PEER_TIMEOUT = 2.0
GROUP_WAIT = 3.0
GROUP_INTERVAL = 3.0
"""Seconds, in place of the example's 15 (Alertmanager's own), 10 and 300."""


class Phone:
    """What both Alertmanagers notify: counted by alert, host and what is said of it."""

    def __init__(self) -> None:
        self.heard: Counter[tuple[str, str, str]] = Counter()

    async def receive(self, request: web.Request) -> web.Response:
        for alert in (await request.json())["alerts"]:
            labels = alert["labels"]
            who = labels.get("hostname") or labels.get("monitor", "")
            self.heard[labels["alertname"], who, alert["status"]] += 1
        return web.Response()


class Alertmanager:
    """One process of the cluster."""

    def __init__(self, directory: Path, config: Path) -> None:
        self.port, self.gossip = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._config = config
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, peer: "Alertmanager") -> None:
        assert PROGRAM is not None
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM,
            f"--config.file={self._config}",
            f"--storage.path={self._directory}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            f"--cluster.listen-address=127.0.0.1:{self.gossip}",
            f"--cluster.peer=127.0.0.1:{peer.gossip}",
            f"--cluster.peer-timeout={PEER_TIMEOUT:.0f}s",
            "--cluster.settle-timeout=2s",
            "--cluster.reconnect-interval=1s",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def joined(self) -> bool:
        """It is ready and sees two members."""
        async with aiohttp.ClientSession() as client:
            with contextlib.suppress(aiohttp.ClientError):
                async with client.get(f"{self.url}/api/v2/status") as response:
                    cluster = (await response.json())["cluster"]
                    return cluster["status"] == "ready" and len(cluster["peers"]) == 2
        return False


@contextlib.asynccontextmanager
async def cluster(directory: Path, phone: str) -> AsyncIterator[list[Alertmanager]]:
    """Two Alertmanagers with the example's routes that know each other; `phone` is the webhook's URL."""
    chosen = yaml.safe_load(EXAMPLE.read_text())
    chosen["route"] |= {"group_wait": f"{GROUP_WAIT:.0f}s", "group_interval": f"{GROUP_INTERVAL:.0f}s"}
    chosen["receivers"][0]["webhook_configs"][0]["url"] = phone
    config = directory / "alertmanager.yml"
    config.write_text(yaml.safe_dump(chosen))
    both = [Alertmanager(directory / f"am{n}", config) for n in range(2)]
    try:
        await both[0].start(both[1])
        await both[1].start(both[0])
        async with asyncio.timeout(40):
            while not all([await one.joined() for one in both]):  # noqa: ASYNC110 (other processes)
                await asyncio.sleep(0.2)
        yield both
    finally:
        for one in both:
            await one.end()
