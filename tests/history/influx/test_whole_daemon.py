"""A whole tsmon whose InfluxDB does not do what it should: nobody notices but those who look."""

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support.influx_server import HANG, RESET, TOKEN, Answer, FakeInflux
from tsmon.base.clock import Clock
from tsmon.config import InfluxSettings
from tsmon.demo.servers import FakeSidecar, serving
from tsmon.demo.tailnet import SimTailnet
from tsmon.history.influx.outbox import Outbox
from tsmon.history.store import Store
from tsmon.monitor.samples import Sample

SAMPLE = Sample("git", "git", "Linux", 1, None, None)


pytestmark = pytest.mark.slow


@asynccontextmanager
async def daemon(
    state: Path, influx: str, **environ: str
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """`tsmon run` against a simulated tailnet; its URL."""
    tailnet = SimTailnet(Clock())
    tailnet.add("git")
    async with serving(FakeSidecar(tailnet).application()) as sidecar:
        own = {name: value for name, value in os.environ.items() if not name.startswith("TSMON_")}
        chosen = {
            "TSMON_STATE_DIR": str(state),
            "TSMON_SOURCE": sidecar,
            "TSMON_LISTEN": "127.0.0.1:0",
            "TSMON_LOG_FORMAT": "json",
            "TSMON_INFLUX_URL": influx,
            "TSMON_INFLUX_ORG": "home",
            "TSMON_INFLUX_TOKEN": TOKEN,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tsmon", "run", env=own | chosen | environ, stderr=asyncio.subprocess.PIPE
        )
        try:
            yield await started(process), process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def fill(state: Path) -> None:
    """A sample of the last run that waits."""
    store = await Store.open(state)
    await Outbox(InfluxSettings(), store, Clock()).put_samples(300.0, [SAMPLE])
    await store.close()


async def started(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(20):
        while raw := await process.stderr.readline():
            line = json.loads(raw)
            if line["event"] == "started":
                return str(line["url"])
    raise AssertionError("it did not start")


async def ready(url: str, client: aiohttp.ClientSession) -> dict[str, Any]:
    async with client.get(f"{url}/readyz") as response:
        found: dict[str, Any] = await response.json()
        return found


@pytest.mark.parametrize(
    "answer",
    [Answer(HANG), Answer(RESET), Answer(200, "<!doctype html>"), Answer(503), None],
    ids=["hangs", "resets", "HTML", "503", "refuses"],
)
async def test_nothing_waits_for_influxdb(answer: Answer | None, tmp_path: Path) -> None:
    """Start, polls, API and the end are as without one; the events that wait are in the outbox."""
    fake = FakeInflux()
    fake.refusing = answer
    await fill(tmp_path)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refusing = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with serving(fake.application()) as url:
            begun = time.monotonic()
            where = url if answer is not None else refusing
            async with daemon(tmp_path, where, TSMON_POLL_INTERVAL="1s") as (own, process):
                assert time.monotonic() - begun < 10
                await watched(own, fake if answer is not None else None)
                process.terminate()
                begun = time.monotonic()
                assert await asyncio.wait_for(process.wait(), 5) == 0
                assert time.monotonic() - begun < 3


async def watched(url: str, fake: FakeInflux | None) -> None:
    """Until some polls went by while InfluxDB was asked in vain."""
    async with aiohttp.ClientSession() as client, asyncio.timeout(20):
        while True:
            begun = time.monotonic()
            found = await ready(url, client)
            assert time.monotonic() - begun < 1
            tried = fake.writes if fake is not None else found["influxdb"]["error"]
            if found["source"]["polls"] >= 3 and tried:
                break
            await asyncio.sleep(0.1)
    assert found["ready"] is True
    assert found["influxdb"]["last_success"] is None
    assert found["influxdb"]["requests_waiting"] >= 1


class Rotating(FakeInflux):
    """The token is changed in its file while the first write is refused."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.token = "rotated"
        self._file = file

    async def _answer(self, request: web.Request, raw: bytes) -> Answer:
        self._file.write_text("rotated")
        return await super()._answer(request, raw)


async def test_a_rotated_token_is_read_from_its_file(tmp_path: Path) -> None:
    await fill(tmp_path / "state")
    file = tmp_path / "token"
    file.write_text("old")
    fake = Rotating(file)
    own = {"TSMON_INFLUX_TOKEN": "", "TSMON_INFLUX_TOKEN_FILE": str(file)}
    async with serving(fake.application()) as url, daemon(tmp_path / "state", url, **own):
        async with asyncio.timeout(20):
            while not fake.stored:  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.05)
    assert [write.headers["Authorization"] for write in fake.writes[:2]] == ["Token old", "Token rotated"]
