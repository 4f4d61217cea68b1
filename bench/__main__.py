"""`make bench`: a whole tsmon over a simulated tailnet of 10, 1,000 and 10,000 nodes, in this process.

Each size runs the poll cycle (fetch, decode, compare, store) with a hundredth of the nodes changing in each
poll, makes the large answers anew, and watches the event loop: how long it was ever kept from running.
"""

import argparse
import asyncio
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from bench.page import measure_page
from bench.watch import LoopWatch, peak_mib
from tsmon.base.clock import Clock
from tsmon.config import load
from tsmon.daemon.daemon import Daemon
from tsmon.demo.source import SimSource
from tsmon.demo.tailnet import SimTailnet

SIZES = (10, 1000, 10_000)
SUMMARY = "/health-monitoring/summary"
LARGE = {
    "all nodes": "/health-monitoring/nodes?project_only=false",
    "bars 24 h": "/health-monitoring/history?window=24h&buckets=48",
    "bars 30 d": "/health-monitoring/history?window=30d&buckets=48",
    "metrics": "/metrics",
}


async def timed(call: Callable[[], Awaitable[Any]], times: int) -> list[float]:
    """Milliseconds of each call."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        await call()
        found.append(1000 * (time.perf_counter() - begun))
    return sorted(found)


async def measure(size: int, polls: int, directory: Path) -> dict[str, Any]:
    clock = Clock()
    tailnet = SimTailnet(clock)
    for name in ("git", "dev", "chocolate-factory"):
        tailnet.add(name)
    for n in range(size - 4):
        tailnet.add(f"node-{n:05d}", notify=False, tags=["tag:server"])
    settings = load(None, {}, {"listen": "127.0.0.1:0", "poll_interval": "1h"})
    begun = time.perf_counter()
    daemon = Daemon(settings, directory, clock=clock, source=SimSource(tailnet))
    await daemon.start()
    async with aiohttp.ClientSession() as client:

        async def get(url: str) -> bytes:
            async with client.get(url) as response:
                return await response.read()

        while not daemon.collector.polls:  # noqa: ASYNC110 (a benchmark may look)
            await asyncio.sleep(0.005)
        await get(daemon.url + SUMMARY)
        first = 1000 * (time.perf_counter() - begun)
        await asyncio.sleep(6)  # past the first look of the daemon
        watch = LoopWatch()
        changing = [f"node-{n:05d}" for n in range(0, size - 4, 100)][: max(1, size // 100)]

        async def poll() -> None:
            for name in changing:
                node = tailnet.find(name)
                (tailnet.off if node.online else tailnet.on)(name)
            tailnet.document()  # changing and rendering are the simulator's work, not tsmon's
            await asyncio.sleep(0.01)
            watch.blocks.clear()
            begun = time.perf_counter()
            await daemon.collector.poll()
            cycles.append(1000 * (time.perf_counter() - begun))
            await asyncio.sleep(0.01)
            blocks.extend(watch.blocks)

        cycles: list[float] = []
        blocks: list[float] = []
        for _ in range(polls):
            await poll()
        cycles.sort()
        watch.blocks = blocks
        poll_block = watch.take()
        answers: dict[str, Any] = {}
        for name, path in LARGE.items():
            times = []
            watch.take()
            for _ in range(5):
                # A node changes: nothing of what was made before serves.
                await asyncio.sleep(0.5)
                await poll()
                watch.take()
                times += await timed(partial(get, daemon.url + path), 1)
                answers.setdefault(name, []).append(watch.take()[1])
            answers[name] = {
                "made anew, median ms": round(statistics.median(times), 1),
                "loop block meanwhile, max ms": round(max(answers[name]), 1),
            }
        watch.stop()
    await daemon.stop()
    return {
        "nodes": size,
        "start_to_first_answer_ms": round(first),
        "poll_median_ms": round(statistics.median(cycles), 1),
        "poll_max_ms": round(cycles[-1], 1),
        "loop_block_p99_ms": round(poll_block[0], 1),
        "loop_block_max_ms": round(poll_block[1], 1),
        "peak_rss_mib": round(peak_mib()),
        "answers": answers,
    }


def show(results: list[dict[str, Any]]) -> None:
    print(f"{platform.python_version()} on {platform.machine()}, {platform.system()}; times in ms")
    keys = [key for key in results[0] if key not in ("answers", "nodes")]
    print(f"{'':46}" + "".join(f"{result['nodes']:>12,}" for result in results))
    for key in keys:
        print(f"{key:46}" + "".join(f"{result[key]:>12}" for result in results))
    for name in LARGE:
        for key in results[0]["answers"][name]:
            cells = "".join(f"{result['answers'][name][key]:>12}" for result in results)
            print(f"{f'{name}: {key}':46}{cells}")


def show_page(page: dict[str, dict[str, Any]]) -> None:
    """The dashboard's table."""
    for name in next(iter(page.values()), {}):
        cells = [f"{row[name]:>10}" for row in page.values()]
        print(f"{'dashboard: ' + name:<46}{''.join(cells)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--nodes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--polls", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    results = []
    for size in chosen.nodes:
        with tempfile.TemporaryDirectory() as directory:
            results.append(asyncio.run(measure(size, chosen.polls, Path(directory))))
    page = asyncio.run(measure_page())
    if chosen.json:
        json.dump({"daemon": results, "page": page}, sys.stdout, indent=1)
    else:
        show(results)
        show_page(page)
        print(json.dumps({"daemon": results, "page": page}))


main()
