"""`make bench`: samples to a local server (Debian's victoria-metrics), in a process of its own.

How many a second, how many bytes, how long the loop is blocked at 10,000 nodes, and what the replay of an
outage of three days takes: 1,000 nodes, 864 grid times, 864,000 samples.
"""

import asyncio
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from bench.watch import LoopWatch, peak_mib
from tsmon.base.clock import Clock
from tsmon.config import InfluxSettings, load
from tsmon.history.influx import Influx
from tsmon.history.influx.outbox import Outbox
from tsmon.history.influx.points import lines_of
from tsmon.history.store import Store
from tsmon.monitor.samples import Sample

SERVER = shutil.which("victoria-metrics")
BEGIN = 1_790_000_100.0
"""A grid time of the past."""
OUTAGE = 864


def samples(count: int) -> list[Sample]:
    """A third of them pinged, a tenth of them down."""
    return [
        Sample(
            hostname=f"node-{n:05d}",
            node_type="other",
            os="Linux",
            online=int(n % 10 != 0),
            ip=f"100.64.{n // 250}.{n % 250}",
            latency_ms=n * 0.37 % 40 if n % 3 == 0 and n % 10 else None,
        )
        for n in range(count)
    ]


@contextmanager
def server(directory: Path) -> Iterator[str]:
    """The URL of one that runs."""
    assert SERVER is not None
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{found.getsockname()[1]}"
    arguments = [
        f"-httpListenAddr={url}",
        f"-storageDataPath={directory}",
        "-retentionPeriod=100y",
        "-loggerLevel=ERROR",
    ]
    process = subprocess.Popen([SERVER, *arguments], stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://{url}/health", timeout=1)
                break
            except urllib.error.URLError:
                time.sleep(0.05)
        yield f"http://{url}"
    finally:
        process.kill()
        process.wait()


async def measure_block(store: Store) -> dict[str, Any]:
    """Putting the samples of 10,000 nodes into the outbox."""
    outbox = Outbox(InfluxSettings(), store, Clock())
    fleet = samples(10_000)
    await outbox.put_samples(BEGIN, fleet[:1])  # the import of the client
    watch = LoopWatch()
    await asyncio.sleep(0.1)
    watch.take()
    begun = time.perf_counter()
    for n in range(1, 11):
        await outbox.put_samples(BEGIN + 300 * n, fleet)
    seconds = (time.perf_counter() - begun) / 10
    p99, most = watch.take()
    watch.stop()
    while (row := await outbox.oldest()) is not None:
        await outbox.remove(row.id, {})
    return {
        "10,000 nodes: outbox ms": round(1000 * seconds),
        "10,000 nodes: loop block p99 ms": round(p99, 1),
        "10,000 nodes: loop block max ms": round(most, 1),
    }


async def measure_replay(store: Store, chosen: InfluxSettings) -> dict[str, Any]:
    """An outage of three days ends."""
    influx = Influx(chosen, store, Clock())
    fleet = samples(1000)
    for n in range(OUTAGE):
        await influx.put_samples(BEGIN + 300 * n, fleet)
    held = "SELECT avg(bytes), sum(lines) FROM influx_outbox"
    size, lines = await store.read(lambda db: db.execute(held).fetchone())
    order: list[int] = []
    remove = influx._outbox.remove

    async def noting(id_: int, refused: dict[str, str]) -> None:
        order.append(id_)
        await remove(id_, refused)

    influx._outbox.remove = noting  # type: ignore[method-assign, assignment]
    before = peak_mib()
    watch = LoopWatch()
    begun = time.perf_counter()
    sending = asyncio.create_task(influx.run())
    while len(order) < OUTAGE:  # noqa: ASYNC110 (a benchmark may look)
        await asyncio.sleep(0.01)
    seconds = time.perf_counter() - begun
    p99, most = watch.take()
    watch.stop()
    sending.cancel()
    raw = sum(len(line) + 1 for line in lines_of(BEGIN, fleet, {}))
    return {
        "1,000 nodes: bytes on the wire": round(size),
        "1,000 nodes: bytes before gzip": raw,
        "replay: samples": lines,
        "replay: seconds": round(seconds, 2),
        "replay: samples/s": round(lines / seconds),
        "replay: in order": order == sorted(order),
        "replay: more memory MiB": round(peak_mib() - before, 1),
        "replay: loop block p99 ms": round(p99, 1),
        "replay: loop block max ms": round(most, 1),
    }


async def measure(directory: Path) -> dict[str, Any]:
    store = await Store.open(directory / "state")
    found = await measure_block(store)
    with server(directory / "data") as url:
        chosen = load(None, {}, {"influx.url": url, "influx.token": "none", "influx.org": "x"}).influx
        found |= await measure_replay(store, chosen)
    await store.close()
    return found


def main() -> None:
    if SERVER is None:
        print("no victoria-metrics: InfluxDB was not measured")
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(measure(Path(directory)))
    for name, value in found.items():
        print(f"{'InfluxDB: ' + name:<46}{value:>12,}")
    print(json.dumps({"influxdb": found}))


main()
