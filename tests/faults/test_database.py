"""The database under the running daemon: locked by another process, deleted, truncated, overwritten.

Every harm to every file, with and without a checkpoint before it, is in tests/test_rescue.py.
"""

import asyncio
import os
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.faults.whole import Whole, flips, spans, until, whole
from tsmon.config.loading import SOCKET

pytestmark = pytest.mark.slow
LOCK = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Another process holds the database for itself."""
    pipe = asyncio.subprocess.PIPE
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOCK, str(path), stdin=pipe, stdout=pipe
    )
    assert other.stdout is not None
    assert other.stdin is not None
    try:
        assert await other.stdout.readline() == b"locked\n"
        yield
    finally:
        other.stdin.close()
        await other.wait()


async def test_another_process_locks_it(tmp_path: Path) -> None:
    async with whole(tmp_path) as tsm:
        async with locked(tsm.database):
            tsm.tailnet.off("git")
            await tsm.shows("git", "offline")
            await tsm.says("another program holds it locked")
            assert (await tsm.get("/health-monitoring/logs"))["logs"], "what is stored can be read"
            tsm.tailnet.on("git")
            await tsm.shows("git", "online")
            await tsm.polls_go_on()
            assert len(tsm.logged("store_failing")) == 1
        await tsm.stores()
        tsm.assert_calm()
        tsm.tailnet.off("dev")
        await tsm.shows("dev", "offline")
        await tsm.stores()
        async with locked(tsm.database):
            assert await tsm.stop() < 3
        assert not tsm.logged("stopped_hard")
        assert flips(tsm.database, "git") == ["node_online", "node_offline", "node_online"]
        assert spans(tsm.database, "git") == ["online", "offline", "online"]


def _delete(tsm: Whole) -> None:
    for path in tsm.state.glob("tsmon.db*"):
        path.unlink()


def _clear(tsm: Whole) -> None:
    shutil.rmtree(tsm.state)


def _empty(tsm: Whole) -> None:
    os.truncate(tsm.database, 0)


def _half(tsm: Whole) -> None:
    os.truncate(tsm.database, tsm.database.stat().st_size // 2)


def _overwrite(tsm: Whole) -> None:
    size = tsm.database.stat().st_size
    with tsm.database.open("r+b") as file:
        file.write(b"\xaa" * size)


async def _harmed(tsm: Whole, harm: Callable[[Whole], None], *, checkpointed: bool) -> None:
    """A change before, one after; then a kill, and a life more."""
    tsm.tailnet.off("git")
    await tsm.shows("git", "offline")
    await tsm.polls_go_on(1)
    if checkpointed:
        with closing(sqlite3.connect(tsm.database)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    harm(tsm)
    tsm.tailnet.on("git")
    await tsm.shows("git", "online")
    await tsm.polls_go_on(1)
    await tsm.stores()
    assert (await tsm.get("/health-monitoring/logs"))["logs"]
    await until((tsm.state / SOCKET).exists)
    tsm.assert_calm()
    tsm.run.process.kill()
    await tsm.run.process.wait()


async def test_what_the_process_holds_is_saved(tmp_path: Path) -> None:
    """Four daemons at a time: each waits more than it works."""

    async def one(harm: Callable[[Whole], None]) -> None:
        own = tmp_path / harm.__name__
        own.mkdir()
        async with whole(own) as tsm:
            await _harmed(tsm, harm, checkpointed=False)
            assert len(tsm.logged("database_rescued")) == 1
        async with whole(own, tailnet=tsm.tailnet) as again:
            assert not again.logged("database_set_aside")
            await again.stop()
        assert flips(tsm.database, "git") == ["node_online", "node_offline", "node_online"]
        assert spans(tsm.database, "git") == ["online", "offline", "online"]

    async with asyncio.TaskGroup() as group:
        for harm in (_delete, _clear, _empty, _half):
            group.create_task(one(harm), name=harm.__name__)


async def test_what_only_the_file_held_is_lost_and_that_is_said(tmp_path: Path) -> None:
    async with whole(tmp_path) as tsm:
        await _harmed(tsm, _overwrite, checkpointed=True)
        assert len(tsm.logged("database_set_aside")) == 1
        assert len(tsm.logged("store_renewed")) == 1
    [kept] = [
        path
        for path in tsm.state.glob("tsmon.db.broken-*")
        if "-wal" not in path.name and "-shm" not in path.name
    ]
    assert kept.read_bytes()[:4] == b"\xaa" * 4
    async with whole(tmp_path, tailnet=tsm.tailnet) as again:
        assert not again.logged("database_set_aside")
        await again.stop()
    assert flips(tsm.database, "git") == ["node_online"]
    assert spans(tsm.database, "git")[-1] == "online"
