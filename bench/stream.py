"""How soon a change is known and told, and what it costs to tell 500 clients of the stream."""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.watch import LoopWatch
from tsmon.base.clock import Clock
from tsmon.config import load
from tsmon.daemon.daemon import Daemon
from tsmon.demo.source import SimSource
from tsmon.demo.tailnet import SimTailnet

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
        daemon.parts.ledger.subscribe(lambda published: stored.set() if published.events else None)
        clients = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "bench.listeners",
                f"{daemon.url}/health-monitoring/stream",
                str(CLIENTS),
            ),
            stdout=asyncio.subprocess.PIPE,
        )
        assert clients.stdout is not None
        await clients.stdout.readline()
        await asyncio.sleep(6)  # past the first look of the daemon
        known, fanned = [], []
        watch = LoopWatch()
        for n in range(ROUNDS):
            # Two changes within a second are one read.
            await asyncio.sleep(1.2)
            stored.clear()
            begun = time.monotonic()
            (tailnet.off if n % 2 == 0 else tailnet.on)("node-00000")
            await stored.wait()
            known.append(1000 * (time.monotonic() - begun))
            while (at := float(await clients.stdout.readline())) < begun:
                pass  # of what they had when they connected
            fanned.append(1000 * (at - begun))
        watch.stop()
        _, block = watch.take()
        clients.kill()
        await clients.wait()
    finally:
        await daemon.stop()
    return {
        "change -> stored, median ms": round(statistics.median(known), 1),
        "change -> stored, max ms": round(max(known), 1),
        f"change -> {CLIENTS} clients, median ms": round(statistics.median(fanned), 1),
        "loop block meanwhile, max ms": round(block, 1),
    }


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
