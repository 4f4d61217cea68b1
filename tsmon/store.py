"""SQLite: one connection on one thread writes, others only read; schema and migrations are in schema.py.

WAL with synchronous=NORMAL: what was committed survives a kill at any moment; a power loss may take the last
commits, never the file.
"""

import asyncio
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import structlog

from tsmon.batch import Batch, Loaded, apply_batch, load_all, prune_step
from tsmon.schema import APPLICATION_ID, MIGRATIONS

log = structlog.get_logger(__name__)

T = TypeVar("T")

READ_SECONDS = 10.0
"""How long one reading query may run."""
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class StoreError(Exception):
    """The store cannot be opened, read or written; the text says which file, why, and the remedy."""


class StoreRenewedError(StoreError):
    """The database was broken, was set aside, and an empty one was begun: write everything anew."""


class Store:
    """The database of one tsmon. Made by `open`."""

    def __init__(self, path: Path, lock: Any) -> None:
        self.path = path
        self.report = ""
        """What a reader of /readyz must know: a broken file that was set aside."""
        self._lock_file = lock
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="store-read")
        self._local = threading.local()
        self._open_readers: list[sqlite3.Connection] = []
        self._generation = 0
        self._db: sqlite3.Connection | None = None
        self._inode = 0
        self._nums: dict[str, int] = {}

    @classmethod
    async def open(cls, state_dir: Path) -> "Store":
        """Open the database in `state_dir` (made when missing) and bring it up to date. Raises StoreError."""
        store = cls(state_dir / "tsmon.db", await asyncio.to_thread(_lock, state_dir))
        try:
            await store._on_writer(store._connect)
        except StoreError:
            await store.close()
            raise
        return store

    async def commit(self, batch: Batch) -> None:
        """Write `batch` in one transaction. Raises StoreError when it cannot be written, and
        StoreRenewedError when everything is to be written anew."""
        await self._on_writer(lambda: self._guarded(lambda db: apply_batch(db, batch, self._nums)))

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction on the write thread. Raises StoreError."""
        return await self._on_writer(lambda: self._guarded(work))

    async def read(self, work: Callable[[sqlite3.Connection], T], timeout: float = READ_SECONDS) -> T:
        """Run `work` on a query-only connection in a reader thread, at most `timeout` seconds. Raises
        StoreError."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work, timeout)

    async def load(self, flips_since: float) -> Loaded:
        """What the last run knew. Raises StoreError."""
        return await self.read(lambda db: load_all(db, flips_since), timeout=120.0)

    async def prune(self, oldest: float, oldest_latency: float) -> bool:
        """One small step of retention: what ended before `oldest` (Unix seconds) goes. True when there is
        more to do."""
        return await self.write(lambda db: prune_step(db, oldest, oldest_latency))

    async def close(self) -> None:
        """Finish the queue of writes and close the file."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._writer, self._disconnect)
        await loop.run_in_executor(None, self._shut)

    def _shut(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        for db in self._open_readers:
            db.close()
        self._lock_file.close()

    async def _on_writer(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    # -- on the write thread ---------------------------------------------------------------------------

    def _connect(self) -> None:
        try:
            self._db = self._opened()
        except StoreError:
            raise
        except sqlite3.DatabaseError as error:
            if _code(error) not in _CORRUPT:
                raise StoreError(self._words(error)) from None
            self._set_aside(str(error))
            self._db = self._opened()

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            application = db.execute("PRAGMA application_id").fetchone()[0]
            tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables and application != APPLICATION_ID:
                raise StoreError(f"{self.path}: is another program's database; give tsmon another state_dir")
            if version > len(MIGRATIONS):
                raise StoreError(
                    f"{self.path}: was written by a newer tsmon (schema {version}, this one knows "
                    f"{len(MIGRATIONS)}): update tsmon, or give it another state_dir"
                )
            if self.path.stat().st_size < 64 * 1024 * 1024:
                found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
                if found != "ok":
                    raise _corrupt(found)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            _migrate(db, version)
            self._inode = self.path.stat().st_ino
            self._nums = dict(db.execute("SELECT id, num FROM nodes"))
            self._generation += 1
        except (StoreError, sqlite3.DatabaseError):
            db.close()
            raise
        os.chmod(self.path, 0o600)
        return db

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _guarded(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`work` in a transaction; every failure is a StoreError and changes nothing."""
        try:
            self._look_after_file()
            if self._db is None:
                self._connect()
            assert self._db is not None  # noqa: S101 (_connect sets it or raises)
            return _transaction(self._db, work)
        except sqlite3.DatabaseError as error:
            emptied = self.path.exists() and self.path.stat().st_size == 0
            if _code(error) in _CORRUPT or (emptied and _code(error) == sqlite3.SQLITE_IOERR):
                self._disconnect()
                self._set_aside(str(error))
                self._connect()
                raise StoreRenewedError(self.report) from None
            raise StoreError(self._words(error)) from None
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}") from None

    def _look_after_file(self) -> None:
        """The file was deleted or replaced under the running process: what the open connection still holds is
        written to a new file, so that nothing is lost."""
        if self._db is None:
            return
        try:
            if self.path.stat().st_ino == self._inode:
                return
        except FileNotFoundError:
            pass
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.path.exists():
            self._set_aside("it was replaced while tsmon was running")
        rescued = self.path.with_name(f"{self.path.name}.rescued")
        rescued.unlink(missing_ok=True)
        try:
            self._db.execute("VACUUM INTO ?", (str(rescued),))
        except sqlite3.DatabaseError as error:
            self._disconnect()
            self._connect()
            self.report = f"{self.path} was deleted under tsmon and could not be rescued: {error}"
            raise StoreRenewedError(self.report) from None
        self._disconnect()
        for ending in ("-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        rescued.rename(self.path)
        self._connect()
        self.report = (
            f"{self.path} was deleted or replaced under tsmon: it was written anew, nothing was lost"
        )
        log.error("database_rescued", path=str(self.path))

    def _set_aside(self, why: str) -> None:
        """Rename a broken database with its companions; never delete it."""
        name = f"{self.path.name}.broken-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        for ending in ("", "-wal", "-shm"):
            companion = self.path.with_name(self.path.name + ending)
            if companion.exists():
                companion.rename(self.path.with_name(name + ending))
        self.report = f"{self.path} was broken ({why}): it is kept as {name}, and a new history was begun"
        log.error("database_set_aside", path=str(self.path), kept_as=name, reason=why)

    def _words(self, error: sqlite3.Error) -> str:
        remedies = {
            sqlite3.SQLITE_FULL: "the disk is full",
            sqlite3.SQLITE_READONLY: "it is read-only",
            sqlite3.SQLITE_CANTOPEN: "it cannot be opened (may this user write in the directory?)",
            sqlite3.SQLITE_BUSY: "another program holds it locked",
            sqlite3.SQLITE_IOERR: "the disk reports an I/O error",
            sqlite3.SQLITE_INTERRUPT: "the query took too long",
        }
        return f"{self.path}: {remedies.get(_code(error), error)}"

    # -- on a reader thread ----------------------------------------------------------------------------

    def _read(self, work: Callable[[sqlite3.Connection], T], timeout: float) -> T:
        deadline = time.monotonic() + timeout
        try:
            db = self._reader()
            db.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
            return work(db)
        except sqlite3.DatabaseError as error:
            self._local.db = None
            raise StoreError(self._words(error)) from None

    def _reader(self) -> sqlite3.Connection:
        if getattr(self._local, "db", None) is None or self._local.generation != self._generation:
            db = sqlite3.connect(
                f"file:{self.path}?mode=ro",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=2.0,
            )
            db.execute("PRAGMA query_only=1")
            self._open_readers.append(db)
            self._local.db, self._local.generation = db, self._generation
        return self._local.db  # type: ignore[no-any-return]


def _lock(state_dir: Path) -> Any:
    """One process per database. Raises StoreError saying who holds it."""
    path = state_dir / "tsmon.lock"
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = path.open("a+")
    except OSError as error:
        raise StoreError(f"{path}: cannot be opened: {error.strerror} (see state_dir)") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read(100).strip() or "another process"
        file.close()
        raise StoreError(
            f"{path.parent}: is in use by {holder}: stop that tsmon, or give this one another state_dir"
        ) from None
    file.truncate(0)
    file.write(f"tsmon with process id {os.getpid()}")
    file.flush()
    return file


def _code(error: BaseException) -> int:
    """The primary result code of SQLite."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _corrupt(words: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(words)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _transaction(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    db.execute("BEGIN IMMEDIATE")
    try:
        result = work(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return result


def _migrate(db: sqlite3.Connection, version: int) -> None:
    for number, script in enumerate(MIGRATIONS[version:], version + 1):

        def run(db: sqlite3.Connection, script: str = script, number: int = number) -> None:
            for statement in script.split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")

        _transaction(db, run)
