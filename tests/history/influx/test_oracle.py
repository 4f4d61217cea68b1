"""Debian's influxdb 1.6.7 as an independent judge: the samples of a scripted week, asked in InfluxQL, give
the uptime that the embedded history gives from spans.

A small translator lets the unmodified client write to it.
"""

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import web

from tests.support.influx2 import RealInflux
from tests.support.week import DARK, Week, written
from tsmon.base.clock import Clock
from tsmon.demo.servers import serving
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.store import Store
from tsmon.monitor.samples import Sample

_CONFIG = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
query-log-enabled = false
[http]
bind-address = "127.0.0.1:{port}"
log-enabled = false
[ifql]
enabled = false
"""


def old_influxd() -> str | None:
    for path in ("/usr/bin/influxd", shutil.which("influxd")):
        if path is not None and Path(path).exists():
            words = subprocess.run([path, "version"], capture_output=True, text=True, timeout=20, check=False)
            if " v1." in words.stdout or " 1." in words.stdout:
                return path
    return None


PROGRAM = old_influxd()
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        PROGRAM is None, reason="SKIPPED LOUDLY: no influxd 1.x (Debian: influxdb): no oracle"
    ),
]


class Oracle:
    """The old server, and a 2.x-like face of its writes."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def ask(self, influxql: str) -> list[dict[str, Any]]:
        """The series of one statement."""
        query = urlencode({"db": "analytics", "q": influxql, "epoch": "s"})
        async with self._session.post(f"{self.url}/query?{query}") as response:
            found: list[dict[str, Any]] = json.loads(await response.read())["results"][0].get("series", [])
            return found

    async def write(self, request: web.Request) -> web.Response:
        """`/api/v2/write` of 2.x as `/write` of 1.x; its answer as it is."""
        query = urlencode({"db": request.query["bucket"], "precision": request.query["precision"]})
        # A server of aiohttp has unpacked the body already.
        async with self._session.post(f"{self.url}/write?{query}", data=await request.read()) as answer:
            return web.Response(status=answer.status, body=await answer.read())


@pytest.fixture
async def oracle(tmp_path: Path) -> AsyncIterator[Oracle]:
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    config = tmp_path / "influxdb.conf"
    config.write_text(_CONFIG.format(folder=tmp_path / "influxdb", port=ports[0], rpc=ports[1]))
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM),
        "-config",
        str(config),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with aiohttp.ClientSession() as session:
            found = Oracle(f"http://127.0.0.1:{ports[0]}", session)
            async with asyncio.timeout(30):
                while True:
                    try:
                        await found.ask("CREATE DATABASE analytics")
                        break
                    except (aiohttp.ClientError, ValueError):
                        await asyncio.sleep(0.05)
            yield found
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture(scope="module")
def week() -> Week:
    return Week()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / "state")
    yield store
    await store.close()


async def put(store: Store, oracle: Oracle, samples: list[tuple[float, list[Sample]]]) -> None:
    app = web.Application(client_max_size=10**8)
    app.router.add_post("/api/v2/write", oracle.write)
    async with serving(app) as url:
        await written(store, RealInflux(url, "any", "any", "analytics"), samples)


async def test_the_server_counts_the_uptime_that_spans_give(store: Store, oracle: Oracle, week: Week) -> None:
    await week.fill(store)
    await put(store, oracle, week.samples())
    embedded = await EmbeddedHistory(store).uptime(week.start, week.end)
    series = await oracle.ask(
        "SELECT SUM(online), COUNT(online), MEAN(online) FROM tailscale_health GROUP BY hostname"
    )
    assert {row["tags"]["hostname"] for row in series} == set(week.nodes)
    for row in series:
        _, online, count, mean = row["values"][0]
        ours = embedded[week.nodes[row["tags"]["hostname"]].id]
        changes = 56 if row["tags"]["hostname"] == "flaps" else 4
        # Each change may be told one sample late.
        error = 100 * changes * 300 / ((ours.online_s + ours.offline_s) or 1)
        assert 100 * online / count == pytest.approx(ours.uptime_percentage, abs=error)
        assert mean == pytest.approx(online / count)
        assert count * 300 == pytest.approx(ours.online_s + ours.offline_s, abs=600)


async def test_what_was_dark_holds_no_sample(store: Store, oracle: Oracle, week: Week) -> None:
    await put(store, oracle, week.samples())
    begin, end = (int(week.hour(hour)) for hour in DARK)
    where = f"time >= {begin}s AND time < {end}s"
    assert await oracle.ask(f"SELECT COUNT(online) FROM tailscale_health WHERE {where}") == []


async def test_a_point_written_again_is_one_point(store: Store, oracle: Oracle) -> None:
    at = Clock().wall() // 300 * 300 - 600
    rows = [(at, [Sample("git", "git", "Linux", 1, "100.64.0.1", 7.5)])]
    await put(store, oracle, rows)
    await put(store, oracle, rows)
    (row,) = await oracle.ask("SELECT COUNT(online), COUNT(ip), COUNT(latency_ms) FROM tailscale_health")
    assert row["values"][0][1:] == [1, 1, 1]
    (row,) = await oracle.ask("SELECT online, ip, latency_ms, hostname, node_type, os FROM tailscale_health")
    assert row["values"] == [[int(at), 1, "100.64.0.1", 7.5, "git", "git", "Linux"]]
    kinds = await oracle.ask("SHOW FIELD KEYS FROM tailscale_health")
    assert dict(kinds[0]["values"]) == {"online": "integer", "ip": "string", "latency_ms": "float"}
