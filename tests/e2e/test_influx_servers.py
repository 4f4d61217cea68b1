"""Samples to a real server: Debian's victoria-metrics behind the unmodified InfluxDB client.

Also to a real InfluxDB 2.x (tests/influx2.py says which).
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync

from tests.e2e.tailnet import free_ports
from tests.harness import settings
from tests.influx2 import MISSING, RealInflux, real_influx
from tsmon.clock import Clock, grid_floor
from tsmon.collector import Sample
from tsmon.influx import Influx
from tsmon.store import Store

SERVER = shutil.which("victoria-metrics")
HOSTS = [f"host-{n}" for n in range(50)]

pytestmark = pytest.mark.server


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / "state")
    yield store
    await store.close()


async def up(port: int) -> None:
    async with asyncio.timeout(20), aiohttp.ClientSession() as client:
        while True:
            try:
                async with client.get(f"http://127.0.0.1:{port}/health") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)


async def emptied(store: Store) -> None:
    """Until everything was sent."""
    count = "SELECT count(*) FROM influx_outbox"
    while await store.read(lambda db: db.execute(count).fetchone()[0]):  # noqa: ASYNC110 (a server's work)
        await asyncio.sleep(0.05)


def spawn(port: int, directory: Path) -> subprocess.Popen[bytes]:
    assert SERVER is not None
    arguments = [
        f"-httpListenAddr=127.0.0.1:{port}",
        f"-storageDataPath={directory}",
        "-retentionPeriod=100y",
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([SERVER, *arguments], **quiet)  # type: ignore[call-overload,no-any-return]


async def exported(port: int) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as client:
        async with client.get(f"http://127.0.0.1:{port}/internal/force_flush") as response:
            await response.read()
        url = f"http://127.0.0.1:{port}/api/v1/export"
        async with client.get(url, params={"match[]": "tailscale_health_online"}) as response:
            return [json.loads(line) for line in (await response.text()).splitlines()]


@pytest.mark.skipif(SERVER is None, reason="SKIPPED LOUDLY: no victoria-metrics: no real server took samples")
async def test_every_sample_is_there_once_although_the_server_was_killed(
    tmp_path: Path, store: Store
) -> None:
    port = free_ports(1)[0]
    chosen = settings(influx__url=f"http://127.0.0.1:{port}", influx__token="none", influx__org="x").influx
    influx = Influx(chosen, store, Clock())
    sending = asyncio.create_task(influx.run())
    begin = grid_floor(Clock().wall() - 86400, 300)
    grids = [begin + 300 * n for n in range(40)]
    server = spawn(port, tmp_path / "data")
    try:
        for n, grid in enumerate(grids):
            await influx.put_samples(grid, [Sample(name, "other", "Linux", 1, None, None) for name in HOSTS])
            if n == 10:
                await up(port)
            if n == 20:
                server.kill()
                server.wait()
                server = spawn(port, tmp_path / "data")
        await up(port)
        async with asyncio.timeout(60):
            await emptied(store)
        rows = await exported(port)
    finally:
        sending.cancel()
        server.kill()
        server.wait()
    assert len(rows) == len(HOSTS)
    for row in rows:
        # The last second before a kill -9 is the server's to lose; what it keeps is there once, in order.
        times = [stamp / 1000 for stamp in row["timestamps"]]
        assert times == sorted(set(times))
        assert set(times) <= set(grids)
        assert set(grids[21:]) <= set(times)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealInflux]:
    with real_influx(tmp_path_factory.mktemp("influx")) as found:
        if found is None:
            pytest.skip(MISSING)
        yield found


async def test_mean_of_online_is_the_uptime(store: Store, real: RealInflux) -> None:
    influx = Influx(settings(**real.settings()).influx, store, Clock())
    sending = asyncio.create_task(influx.run())
    name = f"tsmon-test-{os.getpid()}"
    begin = grid_floor(Clock().wall() - 3600, 300)
    for n in range(10):
        await influx.put_samples(
            begin + 300 * n, [Sample(name, "other", "Linux", int(n % 5 != 0), None, None)]
        )
    async with asyncio.timeout(60):
        await emptied(store)
    sending.cancel()
    query = (
        "from(bucket: _bucket) |> range(start: -2h) |> filter(fn: (r) => r._measurement == "
        '"tailscale_health" and r._field == "online" and r.hostname == _name) |> group() |> mean()'
    )
    async with InfluxDBClientAsync(url=real.url, token=real.token, org=real.org) as client:
        tables = await client.query_api().query(query, params={"_bucket": real.bucket, "_name": name})
    assert tables[0].records[0]["_value"] == pytest.approx(0.8)
