"""The disk under the running daemon: full, failing, read-only, and back again."""

import asyncio
import errno
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import aiohttp
import pytest

from tests.faults.whole import Whole, flips, spans, whole
from tests.support.process import tsmon

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes writing fail."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("NO C COMPILER (cc): a disk that fails is not tested")
    library = tmp_path_factory.mktemp("preload") / "failing_disk.so"
    source = str(HERE / "failing_disk.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), source, "-ldl"],
        check=True,
        timeout=60,
    )
    return library


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(where)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("THIS USER MAY NOT MOUNT A tmpfs (root may): a full disk is tested by LD_PRELOAD only")
    yield where
    subprocess.run(["umount", "--lazy", str(where)], check=True, timeout=20)


@asynccontextmanager
async def failing(tmp_path: Path, preload: Path) -> AsyncIterator[tuple[Whole, Path]]:
    """A daemon whose writing fails while the control file exists."""
    control = tmp_path / "control"
    async with whole(
        tmp_path,
        LD_PRELOAD=str(preload),
        FAULT_DIR=str(tmp_path / "state"),
        FAULT_CONTROL=str(control),
    ) as tsm:
        yield tsm, control


async def _lives_through(tsm: Whole, words: str) -> None:
    """While nothing can be written: it goes on, right and calm, and says so."""
    tsm.tailnet.off("git")
    await tsm.shows("git", "offline")
    await tsm.says(words)
    tsm.tailnet.off("dev")
    tsm.tailnet.on("git")
    await tsm.shows("dev", "offline")
    await tsm.shows("git", "online")
    await tsm.polls_go_on()
    alerts = (await tsm.get("/health-monitoring/alerts?state=firing"))["alerts"]
    assert "storage_failing" in {alert["kind"] for alert in alerts}
    assert "tsmon_store_failing 1" in await _metrics(tsm)
    assert len(tsm.logged("store_failing")) == 1
    assert words in tsm.logged("store_failing")[0]["error"]
    tsm.assert_calm()


async def _healed(tsm: Whole) -> None:
    """What was held back is stored once, in order; the end too."""
    await tsm.stores()
    assert len(tsm.logged("store_recovered")) == 1
    assert tsm.logged("store_recovered")[0]["batches_lost"] == 0
    tsm.tailnet.on("dev")
    await tsm.shows("dev", "online")
    tsm.assert_calm()
    assert await tsm.stop() < 3
    assert flips(tsm.database, "git") == ["node_online", "node_offline", "node_online"]
    assert flips(tsm.database, "dev") == ["node_online", "node_offline", "node_online"]
    assert spans(tsm.database, "git") == spans(tsm.database, "dev") == ["online", "offline", "online"]
    kinds = tsm.rows("SELECT kind, state FROM alerts ORDER BY id")
    assert ("storage_failing", "resolved") in kinds


async def _metrics(tsm: Whole) -> str:
    async with aiohttp.ClientSession() as client, client.get(tsm.url + "/metrics") as response:
        return await response.text()


FAULTS = {
    errno.ENOSPC: "the disk is full",
    errno.EIO: "the disk reports an I/O error",
    errno.EROFS: "the disk reports an I/O error",
}


async def test_writing_fails(preload: Path, tmp_path: Path) -> None:
    """Three daemons at a time: each waits more than it works."""

    async def one(number: int, words: str) -> None:
        own = tmp_path / errno.errorcode[number]
        own.mkdir()
        async with failing(own, preload) as (tsm, control):
            control.write_text(str(number))
            await _lives_through(tsm, words)
            control.unlink()
            await _healed(tsm)

    async with asyncio.TaskGroup() as group:
        for number, words in FAULTS.items():
            group.create_task(one(number, words), name=errno.errorcode[number])


async def test_the_disk_is_full(small_disk: Path, tmp_path: Path) -> None:
    async with whole(tmp_path, state=small_disk / "state") as tsm:
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file:
            await _fill(file)
            tsm.tailnet.off("git")
            await tsm.shows("git", "offline")
            # What the database has room for it may still take.
            for n in range(100):
                tsm.tailnet.add(f"newcomer-{n}", notify=n == 99)
            await tsm.shows("newcomer-99", "online")
            await _fill(file)
        await _lives_through(tsm, "the disk")
        filler.unlink()
        await _healed(tsm)


async def _fill(file: BinaryIO) -> None:
    for size in (65536, 4096, 1):
        with suppress(OSError):
            while True:
                file.write(b"x" * size)


async def _does_not_start(state: Path) -> str:
    """The one line that it ends with."""
    arguments = ("run", "--source", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--state-dir")
    async with tsmon(*arguments, str(state)) as run:
        _, raw = await asyncio.wait_for(run.process.communicate(), 15)
        assert run.process.returncode == 1
        [line] = raw.decode().splitlines()
        assert line.startswith(f"tsmon: {state}")
        return line


@pytest.mark.parametrize("there_before", [False, True])
async def test_a_read_only_directory_at_the_start_is_one_line(small_disk: Path, there_before: bool) -> None:
    if there_before:
        (small_disk / "state").mkdir()
        sqlite3.connect(small_disk / "state" / "tsmon.db").close()
    _remount(small_disk, "ro")
    line = await _does_not_start(small_disk / "state")
    assert "Read-only file system" in line
    assert "state_dir" in line


@pytest.mark.parametrize("there_before", [False, True])
async def test_a_full_disk_at_the_start_is_one_line(
    small_disk: Path, there_before: bool, tmp_path: Path
) -> None:
    if there_before:
        async with whole(tmp_path, state=small_disk / "state") as tsm:
            await tsm.stop()
    with (small_disk / "filler").open("wb", buffering=0) as file:
        await _fill(file)
    line = await _does_not_start(small_disk / "state")
    assert "the disk is full" in line or "No space left on device" in line


async def test_a_path_too_long_for_a_socket_is_one_line(tmp_path: Path) -> None:
    arguments = ("run", "--source", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--state-dir")
    async with tsmon(*arguments, str(tmp_path / ("x" * 120))) as run:
        _, raw = await asyncio.wait_for(run.process.communicate(), 15)
        assert run.process.returncode == 1
        [line] = raw.decode().splitlines()
        assert line.startswith("tsmon: state_dir: no socket for commands can be made in ")
        assert line.endswith(": AF_UNIX path too long")


def _remount(where: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(where)], check=True, timeout=20)
