"""Samples to a real server: Debian's victoria-metrics behind the unmodified InfluxDB client.

Also to a real InfluxDB 2.x (tests/influx2.py says which).
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync

from tests.e2e.influx_writer import HOSTS
from tests.e2e.tailnet import free_ports
from tests.support.influx2 import MISSING, RealInflux, call, real_influx
from tests.support.influx_server import FakeInflux
from tests.support.paths import ROOT
from tests.support.world import settings
from tsmon.base.clock import Clock, grid_floor
from tsmon.cli.doctor.everything import examine_influx
from tsmon.demo.servers import serving
from tsmon.history.influx import Influx
from tsmon.history.influx.points import compress
from tsmon.history.influx.verdicts import bad_lines
from tsmon.history.store import Store
from tsmon.monitor.batch import Batch
from tsmon.monitor.samples import Sample
from tsmon.monitor.state import Event

SERVER = shutil.which("victoria-metrics")

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


@pytest.mark.skipif(SERVER is None, reason="SKIPPED LOUDLY: no victoria-metrics: no real server took samples")
async def test_every_sample_is_there_although_tsmon_was_killed(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    server = spawn(port, tmp_path / "data")
    try:
        await up(port)
        where = RealInflux(f"http://127.0.0.1:{port}", "none", "home", "analytics")
        committed = await killed_twelve_times(tmp_path / "state", where)
        rows = await exported(port)
    finally:
        server.kill()
        server.wait()
    assert len(rows) == len(HOSTS)
    for row in rows:
        times = [stamp // 1000 for stamp in row["timestamps"]]
        # A request that was killed in flight comes twice; InfluxDB overwrites (below), this server appends.
        assert times == sorted(times)
        assert set(committed) <= set(times)
        assert len(times) <= len(committed) + 2 * 12
        assert set(row["values"]) == {1}


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


async def test_every_sample_is_in_influxdb_once_although_tsmon_was_killed(
    tmp_path: Path, real: RealInflux
) -> None:
    committed = await killed_twelve_times(tmp_path, real)
    query = (
        "from(bucket: _bucket) |> range(start: -31d) |> filter(fn: (r) => r._measurement == "
        '"tailscale_health" and r._field == "online" and r.hostname == _name) |> keep(columns: ["_time"])'
    )
    async with InfluxDBClientAsync(url=real.url, token=real.token, org=real.org) as client:
        for name in HOSTS[::10]:
            tables = await client.query_api().query(query, params={"_bucket": real.bucket, "_name": name})
            times = [int(record["_time"].timestamp()) for table in tables for record in table.records]
            assert len(times) == len(set(times))
            # One may be there that was committed and killed before it could say so.
            assert set(committed) <= set(times)
            assert len(times) <= len(committed) + 12


async def test_hostile_texts_arrive_as_they_are(store: Store, real: RealInflux) -> None:
    """A real parser takes every line, and what it read is what was meant."""
    texts = ["a\\", "a\\,b=c", "x=y,z w", "q\"uo'te", "ünï 中文 🙂", "a,hostname=evil", "${env}", "-", "\\n"]
    samples = [Sample(f"hostile-{n}", "other", text, 1, None, 1.0) for n, text in enumerate(texts)]
    now = Clock().wall()
    run = f"run-{os.getpid()}"
    influx = Influx(settings(**real.settings(), influx__tags=f"monitor={run}").influx, store, Clock())
    sending = asyncio.create_task(influx.run())
    await influx.put_samples(grid_floor(now, 300), samples)
    async with asyncio.timeout(30):
        await emptied(store)
        events = [make_event(n, now, text + "\n\r\u2028 end") for n, text in enumerate(texts, 1)]
        await store.commit(Batch(events=events))
        await influx.put_samples(grid_floor(now, 300), samples[:1])
        await taken(store, len(texts))
        await emptied(store)
    sending.cancel()
    assert influx.readiness()["lines_quarantined"] == 0
    async with InfluxDBClientAsync(url=real.url, token=real.token, org=real.org) as client:
        bound = {"_bucket": real.bucket, "_run": run}
        found = await client.query_api().query(HOSTILE, params=bound)
        told = await client.query_api().query(TOLD, params=bound)
    systems = {record["hostname"]: record["os"] for table in found for record in table.records}
    assert systems == {
        sample.hostname: text.replace("\\", "/") for sample, text in zip(samples, texts, strict=True)
    }
    messages = sorted(record["_value"] for table in told for record in table.records)
    assert messages == sorted(" ".join(event.message.splitlines()) for event in events)


async def taken(store: Store, last_event: int) -> None:
    """Until the events are in the outbox."""
    mark = "SELECT value FROM meta WHERE key = 'influx_last_event'"
    while await store.read(lambda db: db.execute(mark).fetchone()) != (str(last_event),):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


HOSTILE = (
    "from(bucket: _bucket) |> range(start: -1h) |> filter(fn: (r) => r._measurement == "
    '"tailscale_health" and r._field == "online" and r.monitor == _run)'
)
TOLD = (
    "from(bucket: _bucket) |> range(start: -1h, stop: 1h) |> filter(fn: (r) => r._measurement == "
    '"tailscale_event" and r._field == "message" and r.monitor == _run)'
)


def make_event(id_: int, now: float, message: str) -> Event:
    return Event(
        id=id_,
        timestamp=now,
        recorded_at=now,
        event_type="node_offline",
        severity="critical",
        hostname="git",
        message=message,
    )


async def test_a_bad_line_and_a_conflict_cost_nothing_else(store: Store, real: RealInflux) -> None:
    name = f"conflict-{os.getpid()}"
    begin = int(grid_floor(Clock().wall() - 7200, 300))
    lines = [
        f"tailscale_health,hostname={name},node_type=other,os=Linux online=1i {begin + 300 * n}"
        for n in range(12)
    ]
    influx = Influx(settings(**real.settings()).influx, store, Clock())
    sending = asyncio.create_task(influx.run())
    assert await influx.put_lines(compress([*lines[:3], lines[3].replace("=1i", "="), *lines[4:6]]))
    assert await influx.put_lines(compress([*lines[6:8], lines[8].replace("=1i", '="on"'), *lines[9:]]))
    async with asyncio.timeout(30):
        await emptied(store)
    sending.cancel()
    ready = influx.readiness()
    assert (ready["lines_quarantined"], ready["requests_partly_refused"]) == (1, 1)
    assert ready["quarantine"][0]["error"] == "missing field value"
    query = (
        "from(bucket: _bucket) |> range(start: -3h) |> filter(fn: (r) => r._measurement == "
        '"tailscale_health" and r._field == "online" and r.hostname == _name) |> keep(columns: ["_time"])'
    )
    async with InfluxDBClientAsync(url=real.url, token=real.token, org=real.org) as client:
        tables = await client.query_api().query(query, params={"_bucket": real.bucket, "_name": name})
    times = [int(record["_time"].timestamp()) for table in tables for record in table.records]
    assert times == [begin + 300 * n for n in range(12) if n not in (3, 8)]


def scoped_token(real: RealInflux, bucket: str, *actions: str) -> str:
    """A token that may do this with one bucket and nothing else."""
    buckets = call(real.url, f"/api/v2/buckets?name={bucket}", token=real.token)["buckets"]
    [org_id, bucket_id] = (buckets[0]["orgID"], buckets[0]["id"]) if buckets else new_bucket(real, bucket)
    resource = {"type": "buckets", "id": bucket_id, "orgID": org_id}
    wanted = {"orgID": org_id, "permissions": [{"action": name, "resource": resource} for name in actions]}
    return str(call(real.url, "/api/v2/authorizations", wanted, token=real.token)["token"])


def new_bucket(real: RealInflux, name: str) -> tuple[str, str]:
    org_id = call(real.url, f"/api/v2/orgs?org={real.org}", token=real.token)["orgs"][0]["id"]
    made = call(real.url, "/api/v2/buckets", {"orgID": org_id, "name": name}, token=real.token)
    return org_id, made["id"]


async def test_a_token_of_the_bucket_alone_is_enough(store: Store, real: RealInflux) -> None:
    """To write, and for the doctor, who says what a wrong one lacks."""
    own = real._replace(token=await asyncio.to_thread(scoped_token, real, real.bucket, "write"))
    other = real._replace(token=await asyncio.to_thread(scoped_token, real, "tsmon-test-other", "write"))
    reader = real._replace(token=await asyncio.to_thread(scoped_token, real, real.bucket, "read"))
    for where, level in ((own, "ok"), (other, "failed"), (reader, "failed")):
        [found, *_] = await examine_influx(settings(**where.settings()), Clock().wall())
        assert (found.level, found.says.count("insufficient permissions")) == (level, int(level == "failed"))
        assert where.token not in str(found)
    influx = Influx(settings(**own.settings()).influx, store, Clock())
    sending = asyncio.create_task(influx.run())
    await influx.put_samples(NOW, [Sample("scoped", "other", "Linux", 1, None, None)])
    async with asyncio.timeout(30):
        await emptied(store)
    sending.cancel()


NOW = int(grid_floor(Clock().wall(), 300))
FIRST = f"contract,hostname=a online=1i {NOW}"


@pytest.mark.parametrize(
    ("changed", "body", "status"),
    [
        ({}, FIRST, 204),
        ({"token": "wrong"}, FIRST, 401),
        ({"org": "wrong"}, FIRST, 404),
        ({"bucket": "wrong"}, FIRST, 404),
        ({"precision": "h"}, FIRST, 400),
        ({}, f"{FIRST}\ncontract,hostname=b online= {NOW}\n{FIRST}", 400),
        ({}, f"{FIRST}\ncontract,hostname=b {NOW}\ncontract,hostname= online=1i {NOW}", 400),
        ({}, f'{FIRST}\ncontract,hostname=c online="one" {NOW}', 422),
        ({}, f"contract,hostname=a\\,b\\=c\\ d online=1i {NOW}", 204),
    ],
)
async def test_the_fake_answers_as_a_real_influxdb(
    changed: dict[str, str], body: str, status: int, real: RealInflux
) -> None:
    """Status and code of the answer, and which lines it names: so the other tests may rely on the fake."""
    fake = FakeInflux()
    fake.token, fake.org, fake.bucket = real.token, real.org, real.bucket
    query = {"org": real.org, "bucket": real.bucket, "precision": "s"} | changed
    token = query.pop("token", real.token)
    answers = []
    async with serving(fake.application()) as url, aiohttp.ClientSession() as client:
        for server in (url, real.url):
            for text in (FIRST, body):
                headers = {"Authorization": f"Token {token}"}
                address = f"{server}/api/v2/write"
                async with client.post(address, params=query, headers=headers, data=text) as response:
                    answer = response.status, await response.text()
            answers.append(answer)
    assert answers[0][0] == answers[1][0] == status
    if status != 204:
        (fakes, reals) = (json.loads(text) for _, text in answers)
        assert fakes["code"] == reals["code"]
        named = [bad_lines(answer["message"], body.split("\n")) for answer in (fakes, reals)]
        assert list(named[0]) == list(named[1])


async def killed_twelve_times(directory: Path, where: RealInflux) -> list[int]:
    """The grid times that writers had committed who were killed (-9) one after the other in mid-flight; the
    last one sends what is left."""
    begin = int(grid_floor(Clock().wall() - 30 * 86400, 300))
    committed: list[int] = []
    for n in range(12):
        first = committed[-1] + 300 if committed else begin
        process = await writer(directory, where, first, 100_000)
        committed += await killed(process, after=3 + 11 * n % 17)
    last = await writer(directory, where, committed[-1] + 300, 5)
    said, _ = await asyncio.wait_for(last.communicate(), 60)
    *grids, sent = said.decode().split()
    assert sent == "sent"
    assert len(committed) > 12 * 3
    return committed + [int(grid) for grid in grids]


async def writer(directory: Path, where: RealInflux, begin: int, count: int) -> asyncio.subprocess.Process:
    arguments = (str(directory), *where, str(begin), str(count))
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.e2e.influx_writer", *arguments, stdout=subprocess.PIPE, cwd=ROOT
    )


async def killed(process: asyncio.subprocess.Process, *, after: int) -> list[int]:
    """Kill a writer once it has committed so many grid times; those that it had said by then."""
    assert process.stdout is not None
    said: list[int] = []
    async with asyncio.timeout(30):
        while len(said) < after:
            said.append(int(await process.stdout.readline()))
        process.kill()
        rest = (await process.stdout.read()).decode()
        await process.wait()
    return said + [int(line) for line in rest.split("\n")[:-1]]
