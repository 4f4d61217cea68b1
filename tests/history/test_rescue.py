"""The files of the database harmed under the running process: all is saved that the process still holds."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import structlog

from tests.support.rows import count, event, nodes
from tsmon.history.backlog import Backlog
from tsmon.history.rescue import set_aside
from tsmon.history.store import Store, StoreError
from tsmon.monitor.batch import Batch

EVENTS = 300


def _overwrite(path: Path, begin: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(b"\xaa" * (path.stat().st_size - begin))


def _delete(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def _empty(*paths: Path) -> None:
    for path in paths:
        os.truncate(path, 0)


def _replace(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"another file")


HARMS: dict[str, Callable[[Path, Path, Path], None]] = {
    "deleted": lambda db, wal, shm: _delete(db),
    "all deleted": _delete,
    "directory deleted": lambda db, wal, shm: shutil.rmtree(db.parent),
    "emptied": lambda db, wal, shm: _empty(db),
    "all emptied": lambda db, wal, shm: _empty(db, wal),
    "cut in half": lambda db, wal, shm: os.truncate(db, db.stat().st_size // 2),
    "garbage": lambda db, wal, shm: _overwrite(db),
    "garbage behind the first page": lambda db, wal, shm: _overwrite(db, 4096),
    "log deleted": lambda db, wal, shm: _delete(wal),
    "log emptied": lambda db, wal, shm: _empty(wal),
    "log garbage": lambda db, wal, shm: _overwrite(wal),
    "shared memory deleted": lambda db, wal, shm: _delete(shm),
    "replaced": lambda db, wal, shm: _replace(db),
}


def known() -> Batch:
    """What the monitor knows, whatever the database lost."""
    return Batch(nodes=nodes(), events=[event(EVENTS)])


async def _harmed(tmp_path: Path, harm: str, *, checkpointed: bool) -> tuple[Store, Backlog]:
    store = await Store.open(tmp_path / "state")
    backlog = Backlog(store.commit, store.find_nodes)
    await backlog.commit(Batch(nodes=nodes(), events=[event(n) for n in range(1, EVENTS + 1)]))
    if checkpointed:
        with closing(sqlite3.connect(store.path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        await backlog.commit(Batch(), known)
    path = store.path
    HARMS[harm](path, path.with_name("tsmon.db-wal"), path.with_name("tsmon.db-shm"))
    return store, backlog


def _stored(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(db.execute("SELECT count(*) FROM events").fetchone()[0])


def _image(store: Store, where: Path) -> Path:
    """What a kill at this moment would leave."""
    shutil.copytree(store.path.parent, where)
    return where / "tsmon.db"


@pytest.mark.parametrize("harm", HARMS)
async def test_what_is_not_in_the_file_alone_is_saved(harm: str, tmp_path: Path) -> None:
    """The log and the cache still hold all of it: not one event is lost, not even by a kill just after."""
    store, backlog = await _harmed(tmp_path, harm, checkpointed=False)
    await backlog.commit(Batch(events=[event(EVENTS + 1)]), known)
    await backlog.commit(Batch(events=[event(EVENTS + 2)]), known)
    assert backlog.error == ""
    assert await count(store, "events") == EVENTS + 2
    assert _stored(_image(store, tmp_path / "image")) == EVENTS + 2
    await store.close()
    assert _stored(tmp_path / "state" / "tsmon.db") == EVENTS + 2


@pytest.mark.parametrize("harm", HARMS)
async def test_after_any_harm_the_database_is_sound_and_goes_on(harm: str, tmp_path: Path) -> None:
    """Where nothing but the file held it, the history begins anew, with what is known now; both are said."""
    with structlog.testing.capture_logs() as lines:
        store, backlog = await _harmed(tmp_path, harm, checkpointed=True)
        for n in (1, 2, 3):
            await backlog.commit(Batch(events=[event(EVENTS + n)]), known)
    assert backlog.error == ""
    found = await count(store, "events")
    assert await count(store, "nodes") == len(nodes())
    assert _stored(_image(store, tmp_path / "image")) == found
    told = {line["event"] for line in lines}
    if found == EVENTS + 3:
        assert "database_set_aside" not in told
        assert ("nothing was lost" in store.report) is ("database_rescued" in told)
    else:
        assert found >= 3, "what came after it, at least"
        assert told == {"database_set_aside", "store_renewed"}
        assert "a new history was begun" in store.report
        assert list(store.path.parent.glob("tsmon.db.broken-*"))
    await store.close()


async def test_another_programs_checkpoint_or_touch_is_no_harm(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    await store.commit(Batch(events=[event(1)]))
    with closing(sqlite3.connect(store.path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    await store.commit(Batch(events=[event(2)]))
    os.utime(store.path)
    await store.commit(Batch(events=[event(3)]))
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("DELETE FROM events WHERE id = 2")
    await store.commit(Batch(events=[event(4)]))
    assert await count(store, "events") == 3
    assert store.report == ""
    assert not list(tmp_path.glob("*.broken-*"))
    await store.close()


async def test_without_room_for_the_copy_nothing_is_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Path:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    store, backlog = await _harmed(tmp_path, "deleted", checkpointed=False)
    with monkeypatch.context() as patch:
        patch.setattr("tsmon.history.store.copy_out", full)
        await backlog.commit(Batch(events=[event(EVENTS + 1)]), known)
        assert "the disk is full" in backlog.error
    await backlog.commit(Batch(events=[event(EVENTS + 2)]), known)
    assert (backlog.error, await count(store, "events")) == ("", EVENTS + 2)
    await store.close()


def test_two_in_one_second_are_both_kept(tmp_path: Path) -> None:
    names = []
    for text in ("first", "second"):
        (tmp_path / "tsmon.db").write_text(text)
        names.append(set_aside(tmp_path / "tsmon.db"))
    assert [(tmp_path / name).read_text() for name in names] == ["first", "second"]


async def test_reads_that_fail_do_not_add_up_to_open_files(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)

    def fail(_: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with pytest.raises(StoreError):
            await store.read(fail)
    assert len(os.listdir("/proc/self/fd")) <= before + 8
    await store.close()


async def test_a_closed_store_is_one_file(tmp_path: Path) -> None:
    """Whoever copies tsmon.db of a stopped tsmon has all of it."""
    store = await Store.open(tmp_path)
    await store.commit(Batch(events=[event(1)]))
    await count(store, "events")
    await store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tsmon.db", "tsmon.lock"]
