"""How soon a change is known and told, and what it costs to tell 500 clients of the stream."""

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from bench.watch import LoopWatch
from tsmon.clock import Clock
from tsmon.config import load
from tsmon.daemon import Daemon
from tsmon.demo.tailnet import SimSource, SimTailnet

SIZES = (1_000, 10_000)
CLIENTS = 500
ROUNDS = 15


async def measure_stream(size: int, directory: Path) -> dict[str, Any]:
    """An isolated change through the LocalAPI's bus: until it is stored, and until 500 clients have it."""
    clock = Clock()
    tailnet = SimTailnet(clock)
    for n in range(size - 1):
        tailnet.add(f"node-{n:05d}", notify=False, tags=["tag:server"])
    settings = load(None, {}, {"listen": "127.0.0.1:0", "poll_interval": "1h", "offline_after": "1h"})
    daemon = Daemon(settings, directory, clock=clock, source=SimSource(tailnet, bus=True))
    await daemon.start()
    try:
        while not daemon.collector.polls:  # noqa: ASYNC110 (the daemon's own work)
            await asyncio.sleep(0.01)
        stored = asyncio.Event()
        daemon.monitor.subscribe(lambda published: stored.set() if published.events else None)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            heard = [asyncio.Event() for _ in range(CLIENTS)]
            readers = [asyncio.create_task(_listen(session, daemon.url, event)) for event in heard]
            while daemon.api.live.clients < CLIENTS:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await asyncio.sleep(1)
            known, fanned = [], []
            watch = LoopWatch()
            for n in range(ROUNDS):
                # Two changes within a second are one read.
                await asyncio.sleep(1.2)
                stored.clear()
                for event in heard:
                    event.clear()
                begun = time.perf_counter()
                (tailnet.off if n % 2 == 0 else tailnet.on)("node-00000")
                await stored.wait()
                known.append(1000 * (time.perf_counter() - begun))
                await asyncio.gather(*(event.wait() for event in heard))
                fanned.append(1000 * (time.perf_counter() - begun))
            watch.stop()
            _, block = watch.take()
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
    finally:
        await daemon.stop()
    return {
        "change -> stored, median ms": round(statistics.median(known), 1),
        "change -> stored, max ms": round(max(known), 1),
        f"change -> {CLIENTS} clients, median ms": round(statistics.median(fanned), 1),
        "loop block (clients included), max ms": round(block, 1),
    }


async def _listen(session: aiohttp.ClientSession, url: str, heard: asyncio.Event) -> None:
    timeout = aiohttp.ClientTimeout(total=None)
    async with session.get(f"{url}/health-monitoring/stream", timeout=timeout) as response:
        async for line in response.content:
            if line.startswith(b"event: event"):
                heard.set()


def main() -> None:
    results = {}
    for size in SIZES:
        with tempfile.TemporaryDirectory() as directory:
            results[size] = asyncio.run(measure_stream(size, Path(directory)))
    for name in results[SIZES[0]]:
        print(f"{'stream: ' + name:<46}" + "".join(f"{row[name]:>10}" for row in results.values()))
    print(json.dumps({"stream": results}))


if __name__ == "__main__":
    main()
