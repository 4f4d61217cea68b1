"""SQLite: one connection on one thread writes, others only read; schema and migrations are in schema.py.

WAL with synchronous=NORMAL: what was committed survives a kill at any moment; a power loss may take the last
commits, never the file.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import structlog

from tsmon.history.bad_rows import Check, count_aside, move_aside
from tsmon.history.files import FileError, lock, make_private
from tsmon.history.lineage import removed_of
from tsmon.history.loading import find_nodes, find_removed, load_all
from tsmon.history.pruning import Pruning
from tsmon.history.readers import ReaderName, Readers
from tsmon.history.rescue import Marks, check_unless_large, copy_out, is_large, is_whole, marks, set_aside
from tsmon.history.rows import apply_batch
from tsmon.history.schema import APPLICATION_ID, MIGRATIONS
from tsmon.monitor.batch import Batch, LastRun
from tsmon.monitor.state import Node

log = structlog.get_logger(__name__)

T = TypeVar("T")

READ_SECONDS = 10.0
"""How long one reading query may run."""
BUSY_SECONDS = 5.0
"""For how long a write waits for another program's lock."""
_BUSY_STEP = 0.2
_LAST_SECONDS = 1.0
"""The same once tsmon stops, for all writes together."""
_TOUCHED = "deleted, replaced or written by somebody else while tsmon was running"
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class StoreError(Exception):
    """The store cannot be opened, read or written; the text says which file, why, and the remedy."""


class StoreRenewedError(StoreError):
    """The database was broken, was set aside, and an empty one was made: write everything that is known."""


class Store:
    """The database of one tsmon. Made by `open`."""

    def __init__(self, path: Path, lock: Any, checks: Mapping[str, Check]) -> None:
        self.path = path
        self._checks = checks
        self.bad_rows: Mapping[str, int] = {}
        """Rows that could not be read and lie aside in the table `bad_rows`, by table."""
        self.report = ""
        """What a reader of /readyz must know: a broken file that was set aside."""
        self._lock_file = lock
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        self._readers = Readers(self.path)
        self._db: sqlite3.Connection | None = None
        self._marks: Marks = ()
        self._locked = False
        self._stop_by = float("inf")
        self._begun_anew = ""  # why, until a commit has said so

    @classmethod
    async def open(cls, state_dir: Path, checks: Mapping[str, Check] | None = None) -> "Store":
        """Open the database in `state_dir` (made when missing), bring it up to date and move bad rows aside;
        `checks` read rows of tables that others fill. Raises StoreError."""
        store = cls(state_dir / "tsmon.db", await asyncio.to_thread(_locked, state_dir), checks or {})
        try:
            await store._on_writer(store._connect)
        except StoreError:
            await store.close()
            raise
        store._begun_anew = ""
        return store

    async def commit(self, batch: Batch) -> None:
        """Write `batch` in one transaction. Raises StoreError when it cannot be written, and
        StoreRenewedError when everything that is known must be written again."""
        await self._on_writer(lambda: self._commit(batch))

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction on the write thread. Raises StoreError."""
        return await self._on_writer(lambda: self._guarded(work))

    async def read(
        self,
        work: Callable[[sqlite3.Connection], T],
        timeout: float = READ_SECONDS,
        reader: ReaderName = "log",
    ) -> T:
        """Run `work` on a query-only connection in a reader thread, at most `timeout` seconds. Raises
        StoreError."""
        try:
            return await self._readers.read(work, timeout, reader)
        except sqlite3.DatabaseError as error:
            raise StoreError(self._words(error)) from None

    async def load(self, flips_since: float) -> LastRun:
        """What the last run knew. Raises StoreError."""
        return await self.read(lambda db: load_all(db, flips_since), timeout=120.0)

    async def removed_of(self, families: Collection[str]) -> list[Node]:
        """The last removed nodes of these families that may be followed (rule 4.7). Raises StoreError."""
        return await self.read(lambda db: removed_of(db, families))

    async def find_nodes(self, ids: Collection[str]) -> list[Node]:
        """The stored nodes of these stable IDs, removed ones too. Raises StoreError."""
        return await self.read(lambda db: find_nodes(db, ids))

    async def find_removed(self, name: str) -> Node | None:
        """The removed node of that stable ID or hostname, the latest. Raises StoreError."""
        return await self.read(lambda db: find_removed(db, name))

    async def prune(self, pruning: Pruning) -> bool:
        """One small step of retention. True when there is more to do. Raises StoreError."""
        return await self.write(pruning.step)

    def hurry(self) -> None:
        """tsmon stops: nothing waits long for another program's lock any more."""
        self._stop_by = time.monotonic() + _LAST_SECONDS

    async def close(self) -> None:
        """Finish the queue of writes and close the file: the last connection that closes it must be one that
        writes, then all of it is in one file."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._readers.close)
        await loop.run_in_executor(self._writer, self._disconnect)
        await loop.run_in_executor(None, self._shut)

    def _shut(self) -> None:
        self._writer.shutdown()
        self._lock_file.close()

    async def _on_writer(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    # -- on the write thread ---------------------------------------------------------------------------

    def _commit(self, batch: Batch) -> None:
        """Whoever noticed that the database had to be begun again, only a commit can fill it."""
        if not self._begun_anew:
            try:
                self._guarded(lambda db: apply_batch(db, batch))
            except StoreRenewedError:
                pass
            else:
                return
        words, self._begun_anew = self._begun_anew, ""
        raise StoreRenewedError(words)

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
        try:
            make_private(self.path)
        except FileError as error:
            raise StoreError(str(error)) from None
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
            check_unless_large(db, self.path)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            _migrate(db, version)
            move_aside(db, self._checks, large=is_large(self.path))
            self.bad_rows = count_aside(db)
            self._marks = marks(self.path)
            db.execute(f"PRAGMA busy_timeout = {_BUSY_STEP * 1000:.0f}")
            self._readers.renew()
        except (StoreError, sqlite3.DatabaseError):
            db.close()
            raise
        return db

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _guarded(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`work` in a transaction; every failure is a StoreError and changes nothing."""
        try:
            before = self._begun_anew
            self._look_after_file()
            if self._db is None:
                self._connect()
            assert self._db is not None  # noqa: S101 (_connect sets it or raises)
            if self._begun_anew != before:
                raise StoreRenewedError(self._begun_anew)
            try:
                self._begin(self._db)
                return _ended(self._db, work)
            finally:
                self._marks = marks(self.path)
        except sqlite3.DatabaseError as error:
            if self._db is not None and self._db.in_transaction:
                # The rollback failed, too. The connection would refuse every further transaction.
                self._disconnect()
            emptied = self.path.exists() and self.path.stat().st_size == 0
            if _code(error) in _CORRUPT or (emptied and _code(error) == sqlite3.SQLITE_IOERR):
                self._begin_anew(str(error))
            raise StoreError(self._words(error)) from None
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}") from None

    def _begin(self, db: sqlite3.Connection) -> None:
        """SQLite's own waiting cannot be cut short: it is done in pieces. After one wait in vain there is
        none until it goes again: batches wait in memory, and each step would take that long."""
        give_up = min(time.monotonic() + (0.0 if self._locked else BUSY_SECONDS), self._stop_by)
        while True:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                self._locked = _code(error) == sqlite3.SQLITE_BUSY and time.monotonic() > give_up
                if self._locked or _code(error) != sqlite3.SQLITE_BUSY:
                    raise
            else:
                self._locked = False
                return

    def _look_after_file(self) -> None:
        """The files were deleted, replaced or written under the running process: what the open connection
        still holds goes into a new one."""
        if self._db is None:
            return
        now = marks(self.path)
        if now == self._marks:
            return
        if is_whole(self._db, self.path, self._marks, now):
            self._marks = marks(self.path)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            rescued = copy_out(self._db, self.path)
        except sqlite3.DatabaseError as error:
            if _code(error) not in _CORRUPT and error.sqlite_errorcode != sqlite3.SQLITE_IOERR_SHORT_READ:
                raise
            self._begin_anew(f"it was {_TOUCHED}, and not all could be saved: {error}")
        self._disconnect()
        kept = set_aside(self.path)
        rescued.rename(self.path)
        self._connect()
        words = f"; what lay there is kept as {kept}*" if kept else ""
        self.report = f"{self.path} was {_TOUCHED}: it was written again, nothing was lost{words}"
        log.error("database_rescued", path=str(self.path), kept_as=kept)

    def _begin_anew(self, why: str) -> NoReturn:
        self._disconnect()
        self._set_aside(why)
        self._connect()
        raise StoreRenewedError(self._begun_anew)

    def _set_aside(self, why: str) -> None:
        kept = set_aside(self.path)
        words = f"it is kept as {kept}" if kept else "nothing of it is left"
        self.report = f"{self.path} was broken ({why}): {words}, and a new history was begun"
        self._begun_anew = self.report
        log.error("database_set_aside", path=str(self.path), kept_as=kept, reason=why)

    def _words(self, error: sqlite3.Error) -> str:
        remedies = {
            sqlite3.SQLITE_FULL: "the disk is full",
            sqlite3.SQLITE_READONLY: "it is read-only",
            sqlite3.SQLITE_CANTOPEN: "it cannot be opened (may this user write in the directory?)",
            sqlite3.SQLITE_BUSY: "another program holds it locked",
            sqlite3.SQLITE_IOERR: "the disk reports an I/O error",
            sqlite3.SQLITE_INTERRUPT: "the query took too long",
        }
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHMSIZE:
            return f"{self.path}: {remedies[sqlite3.SQLITE_FULL]}"
        return f"{self.path}: {remedies.get(_code(error), error)}"


def _locked(state_dir: Path) -> Any:
    try:
        return lock(state_dir)
    except FileError as error:
        raise StoreError(str(error)) from None


def _code(error: BaseException) -> int:
    """The primary result code of SQLite."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _ended(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """`work` in the transaction that was begun."""
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

        db.execute("BEGIN IMMEDIATE")
        _ended(db, run)
