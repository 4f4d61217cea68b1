"""No descriptor left: the API's connections took them all, or the limit is below what is open."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.faults.whole import RefusedError, Whole, flips, spans, whole

pytestmark = pytest.mark.slow
TICKS = os.sysconf("SC_CLK_TCK")


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def limit_files(pid: int, most: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))


@asynccontextmanager
async def connected(url: str, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Connections that say nothing."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    pairs = [await asyncio.open_connection(host, port) for _ in range(count)]
    try:
        yield [reader for reader, _ in pairs]
    finally:
        for _, writer in pairs:
            writer.close()


async def _polls(tsm: Whole) -> int:
    polls = (await tsm.ready())["source"]["polls"]
    assert isinstance(polls, int)
    return polls


async def _lets_in(tsm: Whole) -> None:
    """Wait until the connections that went have made room."""
    async with asyncio.timeout(5):
        while True:
            with suppress(RefusedError):
                await tsm.ready()
                return
            await asyncio.sleep(0.05)


async def test_connections_never_take_the_last_descriptors(tmp_path: Path) -> None:
    """More come than there are descriptors: those too many are refused, and tsmon goes on seeing."""
    async with whole(tmp_path) as tsm:
        limit_files(tsm.pid, 256)
        before = await _polls(tsm)
        async with connected(tsm.url, 400):
            begun = cpu_seconds(tsm.pid)
            await asyncio.sleep(1)
            tsm.tailnet.off("git")
            await asyncio.sleep(3)
            assert cpu_seconds(tsm.pid) - begun < 1.0, "it spins"
            assert open_files(tsm.pid) < 256
            with pytest.raises(RefusedError) as refused:
                await tsm.get("/health-monitoring/summary")
            assert refused.value.code == "too_many_connections"
        await _lets_in(tsm)
        await tsm.shows("git", "offline")
        source = (await tsm.ready())["source"]
        assert source["polls"] >= before + 3
        assert source["failures"] == 0
        assert not tsm.logged("source_failed")
        tsm.assert_calm()
        await tsm.stop()
        assert flips(tsm.database, "git") == ["node_online", "node_offline"]
        assert spans(tsm.database, "git") == ["online", "offline"]


async def test_no_descriptor_at_all(tmp_path: Path) -> None:
    """Blind and calm until there are some again: no node goes down, no loop spins, the log is no flood."""
    async with whole(tmp_path) as tsm:
        most = resource.prlimit(tsm.pid, resource.RLIMIT_NOFILE)[0]
        async with connected(tsm.url, 20):
            limit_files(tsm.pid, 3)
            begun = cpu_seconds(tsm.pid)
            async with connected(tsm.url, 50):
                await asyncio.sleep(2.5)
            assert cpu_seconds(tsm.pid) - begun < 0.7, "it spins"
        limit_files(tsm.pid, most)
        await _lets_in(tsm)
        await tsm.shows("git", "online")
        await tsm.polls_go_on()
        assert len(tsm.logged("source_failed")) == 1
        assert "too many open files" in tsm.logged("source_failed")[0]["message"]
        assert len(tsm.logged("source_answers")) == 1
        tsm.tailnet.off("git")
        await tsm.shows("git", "offline")
        tsm.assert_calm()
        await tsm.stop()
        assert flips(tsm.database, "git") == ["node_online", "node_offline"]
        assert [row for row in flips(tsm.database, "db") if row == "node_offline"] == []
