"""The whole daemon as a process over a scripted tailnet, and what every fault test asks of it."""

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.process import Process, tsmon
from tsmon.base.clock import Clock
from tsmon.demo.servers import FakeLocalApi, serving
from tsmon.demo.tailnet import SimTailnet

NAMES = ("git", "dev", "db")
LONGEST = 60.0
"""Seconds that a daemon lives in these tests, whatever hangs."""
SETTINGS = (
    'listen = "127.0.0.1:0"\npoll_interval = "1s"\noffline_after = "0s"\ngroup_wait = "0s"\n'
    'reconnect_grace = "0s"\nflapping.changes = 1000\n'
)


class RefusedError(Exception):
    """The API answered with an error."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Whole:
    """A running tsmon, the tailnet it watches, its log and its database."""

    def __init__(self, run: Process, tailnet: SimTailnet, state: Path) -> None:
        self.run = run
        self.tailnet = tailnet
        self.state = state
        self.database = state / "tsmon.db"
        self.url = ""

    @property
    def pid(self) -> int:
        return self.run.process.pid

    async def drain(self) -> None:
        """Read the log until the process ends: a full pipe would hold it up."""
        assert self.run.process.stderr is not None
        while raw := await self.run.process.stderr.readline():
            line: dict[str, Any] = {"event": raw.decode()}
            with suppress(ValueError):
                line = json.loads(raw)
            self.run.lines.append(line)

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.run.lines if line["event"] == event]

    def assert_calm(self, most: int = 60) -> None:
        """It lives, and its log has no traceback, no line that is not ours, and is no flood."""
        assert self.run.process.returncode is None
        raw = [line for line in self.run.lines if set(line) == {"event"}]
        assert not raw, "".join(line["event"] for line in raw)
        assert not [line for line in self.run.lines if "exception" in line]
        assert len(self.run.lines) <= most, [line["event"] for line in self.run.lines]

    async def get(self, path: str, timeout: float = 20.0) -> Any:
        limit = aiohttp.ClientTimeout(total=timeout)
        async with aiohttp.ClientSession(timeout=limit) as client, client.get(self.url + path) as response:
            answer = await response.json()
        if isinstance(answer, dict) and "error" in answer:
            raise RefusedError(answer["error"]["code"])
        return answer

    async def states(self) -> dict[str, str]:
        nodes = await self.get("/health-monitoring/nodes?project_only=false")
        return {node["hostname"]: node["state"] for node in nodes}

    async def shows(self, name: str, state: str) -> None:
        """Wait until the API gives the node this state."""
        async with asyncio.timeout(20):
            while (await self.states()).get(name) != state:  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.05)

    async def ready(self) -> dict[str, Any]:
        answer: dict[str, Any] = await self.get("/readyz")
        return answer

    async def says(self, words: str) -> None:
        """Wait until /readyz is not ready for this reason."""
        async with asyncio.timeout(20):
            while words not in ((await self.ready())["storage"]["error"] or ""):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert not (await self.ready())["ready"]

    async def stores(self) -> None:
        """Wait until nothing waits to be written and the store writes."""
        async with asyncio.timeout(20):
            while not (await self.ready())["ready"] or (await self.ready())["storage"]["waiting"]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def polls_go_on(self, count: int = 2) -> None:
        """Wait for further polls; none of them fails."""
        before = (await self.ready())["source"]
        async with asyncio.timeout(20):
            while (now := (await self.ready())["source"])["polls"] < before["polls"] + count:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert now["failures"] == before["failures"]

    async def stop(self) -> float:
        """Seconds that SIGTERM took."""
        begun = time.monotonic()
        self.run.process.terminate()
        assert await asyncio.wait_for(self.run.process.wait(), 10) == 0
        return time.monotonic() - begun

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return rows(self.database, query)


def rows(path: Path, query: str, timeout: float = 5) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=timeout)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def flips(path: Path, name: str) -> list[str]:
    """What the stored log says of a node, oldest first; events without a gap, times in order."""
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    found = rows(path, "SELECT id, recorded_at, event_type, hostname FROM events ORDER BY id")
    assert [row[0] for row in found] == list(range(found[0][0], found[0][0] + len(found)))
    assert [row[1] for row in found] == sorted(row[1] for row in found)
    return [kind for _, _, kind, host in found if host == name and kind.startswith("node_o")]


def spans(path: Path, name: str) -> list[str]:
    """The states of a node in turn: each span begins where the one before ended, only the last is open."""
    found = rows(
        path,
        "SELECT state, start, end FROM spans JOIN nodes ON nodes.num = spans.node"
        f" WHERE hostname = '{name}' ORDER BY start",
    )
    ends = [end for _, _, end in found]
    assert ends[:-1] == [start for _, start, _ in found[1:]]
    assert ends[-1] is None
    return [state for state, _, _ in found]


@asynccontextmanager
async def whole(
    tmp_path: Path, *, state: Path | None = None, tailnet: SimTailnet | None = None, **environ: str
) -> AsyncIterator[Whole]:
    """A tsmon that has had its first look; a second one in the same directory finds what the first left."""
    state = state or tmp_path / "state"
    if tailnet is None:
        tailnet = SimTailnet(Clock())
        for name in NAMES:
            tailnet.add(name, tags=["tag:server"])
    config = tmp_path / "tsmon.toml"
    socket = tmp_path / f"s{os.urandom(3).hex()}"
    async with serving(FakeLocalApi(tailnet).application(), socket) as source:
        config.write_text(f'{SETTINGS}source = "{source}"\n')
        command = ("run", "--config", str(config), "--state-dir", str(state))
        async with asyncio.timeout(LONGEST), tsmon(*command, **environ) as run:
            found = Whole(run, tailnet, state)
            found.url = (await run.line("started"))["url"]
            draining = asyncio.create_task(found.drain())
            try:
                await found.stores()
                await found.shows(NAMES[0], "online" if tailnet.find(NAMES[0]).online else "offline")
                yield found
            finally:
                if run.process.returncode is None:
                    run.process.kill()
                await draining


async def until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not done():  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.05)
