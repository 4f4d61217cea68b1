"""tsmon in a process of its own, the tailnet in this one: memory, processor time, how soon a change is told.

The child reads a real socket as it would tailscaled's. It polls a thousand times, says what it holds of
memory, lives on at the default intervals, and says what that took of a processor. An outage is told when a
last ping was not answered, which takes a second of the time that is printed.
"""

import argparse
import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from aiohttp import web

from bench.watch import pss_mib
from tsmon.base.clock import Clock
from tsmon.config import load
from tsmon.daemon import process
from tsmon.daemon.daemon import Daemon
from tsmon.demo.servers import FakeLocalApi, serving
from tsmon.demo.tailnet import SimTailnet

SIZES = (10, 1000, 10_000)
POLLS = 1000
STEADY = 300.0
"""Seconds at the default intervals: one collect, five rounds of pings, twenty polls."""
ROUNDS = 8


# -- the child -----------------------------------------------------------------------------------------------


async def live(config: Path, polls: int, steady: float) -> None:
    """A whole tsmon; prints a line of JSON after each phase, then runs until it is killed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    process.prepare()
    daemon = Daemon(load(config, {}, {}), config.parent / "state")
    await daemon.start()
    while not daemon.collector.polls:  # noqa: ASYNC110 (the daemon's own work)
        await asyncio.sleep(0.01)
    _say(url=daemon.url)
    await asyncio.sleep(6)  # past the first look of the daemon
    while daemon.collector.polls < polls:
        await daemon.collector.poll()
    _say(polls=daemon.collector.polls, pss_mib=round(pss_mib(), 1))
    await _next_phase()
    begun, used = time.monotonic(), _cpu_seconds()
    await asyncio.sleep(steady)
    _say(cpu_percent=round(100 * (_cpu_seconds() - used) / (time.monotonic() - begun), 2))
    await asyncio.Event().wait()


def _say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


async def _next_phase() -> None:
    """The parent says when: nothing else may run while processor time is counted."""
    await asyncio.to_thread(sys.stdin.readline)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# -- the parent ----------------------------------------------------------------------------------------------


class Outside:
    """The tailnet, the channel and the child of one size."""

    def __init__(self, size: int, directory: Path) -> None:
        self.size = size
        self.found: dict[str, Any] = {}
        self._directory = directory
        self._clock = Clock()
        self._tailnet = SimTailnet(self._clock)
        for name in ("git", "dev", "chocolate-factory"):
            self._tailnet.add(name)
        for n in range(size - 4):
            self._tailnet.add(f"node-{n:05d}", notify=False, tags=["tag:server"])
        self._arrivals: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
        self._child: asyncio.subprocess.Process

    @asynccontextmanager
    async def running(self, polls: int, steady: float) -> AsyncIterator[str]:
        """The child's URL."""
        hook = web.Application()
        hook.router.add_post("/", self._take)
        config = self._directory / "tsmon.toml"
        socket = self._directory / "s"
        async with serving(FakeLocalApi(self._tailnet).application(), socket) as source, serving(hook) as url:
            config.write_text(
                f'listen = "127.0.0.1:0"\nsource = "{source}"\noffline_after = "0s"\ngroup_wait = "0s"\n'
                'ping_timeout = "1s"\n'
                "flapping.changes = 1000\n"  # one machine goes again and again
                f'[[notify]]\nname = "hook"\nurl = "webhook+{url}/"\n'
            )
            self._child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.resident", str(config), str(polls), str(steady)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                yield (await self._heard())["url"]
            finally:
                self._child.kill()
                await self._child.wait()

    async def _take(self, request: web.Request) -> web.Response:
        title = json.loads(await request.read())["title"]
        self._arrivals.put_nowait((title, time.perf_counter()))
        return web.Response(status=204)

    async def _heard(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = await self._child.stdout.readline()
        assert line, "the child died"
        return json.loads(line)  # type: ignore[no-any-return]

    async def polled(self) -> None:
        """Its thousand polls, a change every 50 ms meanwhile."""
        changing = asyncio.create_task(self._change(0.05, range(0, self.size - 4, 7)))
        self.found |= await self._heard()
        changing.cancel()
        for node in list(self._tailnet.nodes.values()):
            if not node.online:
                self._tailnet.on(node.name)

    async def lived(self) -> None:
        """Its time at the default intervals, with 100 changes an hour."""
        assert self._child.stdin is not None
        changing = asyncio.create_task(self._change(36.0, range(self.size - 4)))
        self._child.stdin.write(b"go\n")
        self.found |= await self._heard()
        changing.cancel()

    async def _change(self, every: float, numbers: Iterable[int]) -> None:
        for number in numbers:
            await asyncio.sleep(every)
            self._tailnet.off(f"node-{number:05d}")
            await asyncio.sleep(every)
            self._tailnet.on(f"node-{number:05d}")

    async def _message(self, words: str) -> float:
        """When the next message with these words came."""
        while True:
            title, at = await self._arrivals.get()
            if words in title:
                return at

    async def told(self, url: str) -> None:
        """One machine goes: until a client of the stream has the event, and the channel the message."""
        stored: list[float] = []
        handed: list[float] = []
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.get(f"{url}/health-monitoring/stream") as stream,
            asyncio.timeout(30 * ROUNDS),
        ):
            events = _events(stream)
            for _ in range(ROUNDS):
                await asyncio.sleep(2.0)  # two changes within a second are one read
                begun = time.perf_counter()
                self._tailnet.off("git")
                stored.append(1000 * (await _first(events, "node_offline") - begun))
                handed.append(1000 * (await self._message("git is offline") - begun))
                await asyncio.sleep(1.5)
                self._tailnet.on("git")
                await _first(events, "node_online")
                await self._message("git is back")
        self.found |= {
            "change -> event told, median ms": round(statistics.median(stored)),
            "change -> event told, max ms": round(max(stored)),
            "change -> message handed over, median ms": round(statistics.median(handed)),
            "change -> message handed over, max ms": round(max(handed)),
        }


async def _events(stream: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, float]]:
    """The data of each event of the stream, and when it came."""
    async for line in stream.content:
        if line.startswith(b"data:"):
            yield line.decode(), time.perf_counter()


async def _first(events: AsyncIterator[tuple[str, float]], kind: str) -> float:
    async for data, at in events:
        if f'"event_type":"{kind}"' in data:
            return at
    raise AssertionError("the stream ended")


async def measure(sizes: Sequence[int], polls: int, steady: float) -> dict[int, dict[str, Any]]:
    """One after the other, but for the time at the default intervals, which all spend together."""
    async with AsyncExitStack() as stack:
        running = []
        for size in sizes:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            outside = Outside(size, directory)
            running.append((outside, await stack.enter_async_context(outside.running(polls, steady))))
            await outside.polled()
        await asyncio.gather(*(outside.lived() for outside, _ in running))
        for outside, url in running:
            await outside.told(url)
        return {outside.size: outside.found for outside, _ in running}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.resident")
    parser.add_argument("--nodes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--polls", type=int, default=POLLS)
    parser.add_argument("--steady", type=float, default=STEADY)
    chosen = parser.parse_args()
    results = asyncio.run(measure(chosen.nodes, chosen.polls, chosen.steady))
    print(f"{'tsmon in a process of its own':<46}" + "".join(f"{size:>10,}" for size in results))
    for name in next(iter(results.values()), {}):
        print(f"{name:<46}" + "".join(f"{row[name]:>10}" for row in results.values()))
    print(json.dumps({"resident": results}))


if __name__ == "__main__":
    if len(sys.argv) == 4 and not sys.argv[1].startswith("-"):
        asyncio.run(live(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
    else:
        main()
