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
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from tsmon.alerts import Alert
from tsmon.schema import APPLICATION_ID, MIGRATIONS
from tsmon.state import Event, Node

log = structlog.get_logger(__name__)

T = TypeVar("T")

READ_SECONDS = 10.0
"""How long one reading query may run."""
_PRUNE_ROWS = 500
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class StoreError(Exception):
    """The store cannot be opened, read or written; the text says which file, why, and the remedy."""


class StoreRenewedError(StoreError):
    """The database was broken, was set aside, and an empty one was begun: write everything anew."""


@dataclass(frozen=True, slots=True)
class SpanChange:
    """From `at` on the node is in `state`; None: it is gone (removed). The open span is closed at `at`."""

    node_id: str
    at: float
    state: str | None


@dataclass(frozen=True, slots=True)
class Observed:
    """Time from `start` to `end` was observed: for every node, or (a stopped Self) for `node_id` alone.
    A second one with the same `start` and `node_id` moves the end."""

    start: float
    end: float
    node_id: str = ""


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One collect interval of one pinged node: milliseconds, and the share of lost pings (0 to 1)."""

    node_id: str
    time: float
    min_ms: float | None
    mean_ms: float | None
    max_ms: float | None
    loss: float
    path: str | None


@dataclass(slots=True)
class Batch:
    """What one step of the monitor changes: committed in one transaction, or not at all."""

    cut_at: float | None = None
    """The clock went back: spans, observed time and latency beyond this moment are cut first."""
    observed: list[Observed] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    spans: list[SpanChange] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    dropped_alerts: list[int] = field(default_factory=list)
    latency: list[LatencyRow] = field(default_factory=list)
    meta: dict[str, str | None] = field(default_factory=dict)
    """Values to keep; None removes one."""
    also: list[Callable[[sqlite3.Connection], None]] = field(default_factory=list)
    """Further writes of the same transaction (outboxes)."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the last run knew."""

    nodes: list[Node] = field(default_factory=list)
    """Removed ones too."""
    alerts: list[Alert] = field(default_factory=list)
    """The open ones."""
    meta: Mapping[str, str] = field(default_factory=dict)
    flips: list[Event] = field(default_factory=list)
    """node_online and node_offline events since `flips_since`, each node's after its last settling."""
    next_event_id: int = 1
    next_alert_id: int = 1
    last_observed: float | None = None
    """End of the last observed stretch."""


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
        await self._on_writer(lambda: self._guarded(lambda db: _apply(db, batch, self._nums)))

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction on the write thread. Raises StoreError."""
        return await self._on_writer(lambda: self._guarded(work))

    async def read(self, work: Callable[[sqlite3.Connection], T], timeout: float = READ_SECONDS) -> T:
        """Run `work` on a query-only connection in a reader thread, at most `timeout` seconds. Raises
        StoreError."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work, timeout)

    async def load(self, flips_since: float) -> Loaded:
        """What the last run knew. Raises StoreError."""
        return await self.read(lambda db: _load(db, flips_since), timeout=120.0)

    async def prune(self, oldest: float, oldest_latency: float) -> bool:
        """One small step of retention: what ended before `oldest` (Unix seconds) goes. True when there is
        more to do."""
        return await self.write(lambda db: _prune(db, oldest, oldest_latency))

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


def _apply(db: sqlite3.Connection, batch: Batch, nums: dict[str, int]) -> None:
    if batch.cut_at is not None:
        _cut(db, batch.cut_at)
    if batch.observed:
        db.executemany(
            "INSERT INTO observed (scope, start, end) VALUES (?, ?, ?)"
            " ON CONFLICT (scope, start) DO UPDATE SET end = excluded.end",
            [(row.node_id, row.start, row.end) for row in batch.observed],
        )
    for node in batch.nodes:
        _put_node(db, node, nums)
    for change in batch.spans:
        _put_span(db, nums[change.node_id], change)
    db.executemany(
        "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                e.id,
                e.timestamp,
                e.recorded_at,
                e.event_type,
                e.severity,
                e.node_id,
                e.hostname,
                e.node_type,
                e.message,
                msgspec.json.encode(e.details).decode(),
            )
            for e in batch.events
        ],
    )
    db.executemany(
        "INSERT OR REPLACE INTO alerts VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (a.id, a.kind, a.severity, a.state, a.hostname, a.resolved_at, msgspec.msgpack.encode(a))
            for a in batch.alerts
        ],
    )
    db.executemany("DELETE FROM alerts WHERE id = ?", [(id_,) for id_ in batch.dropped_alerts])
    db.executemany(
        "INSERT OR REPLACE INTO latency VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (nums[row.node_id], row.time, row.min_ms, row.mean_ms, row.max_ms, row.loss, row.path)
            for row in batch.latency
            if row.node_id in nums
        ],
    )
    for key, value in batch.meta.items():
        if value is None:
            db.execute("DELETE FROM meta WHERE key = ?", (key,))
        else:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
    for also in batch.also:
        also(db)


def _put_node(db: sqlite3.Connection, node: Node, nums: dict[str, int]) -> None:
    row = (node.hostname, node.first_seen, node.removed_at, msgspec.msgpack.encode(node))
    if node.id in nums:
        db.execute(
            "UPDATE nodes SET hostname = ?, first_seen = ?, removed_at = ?, body = ? WHERE num = ?",
            (*row, nums[node.id]),
        )
        return
    cursor = db.execute(
        "INSERT INTO nodes (hostname, first_seen, removed_at, body, id) VALUES (?, ?, ?, ?, ?)",
        (*row, node.id),
    )
    nums[node.id] = int(cursor.lastrowid or 0)


def _put_span(db: sqlite3.Connection, num: int, change: SpanChange) -> None:
    """Close the open span at the change and begin the next; a change dated before it leaves nothing of it."""
    at = change.at
    last = db.execute(
        "SELECT rowid, start, end FROM spans WHERE node = ? ORDER BY start DESC, rowid DESC LIMIT 1", (num,)
    ).fetchone()
    if last is not None:
        rowid, start, end = last
        at = max(at, start)
        if end is None and at > start:
            db.execute("UPDATE spans SET end = ? WHERE rowid = ?", (at, rowid))
        elif end is None:
            db.execute("DELETE FROM spans WHERE rowid = ?", (rowid,))
        else:
            at = max(at, end)
    if change.state is not None:
        db.execute("INSERT INTO spans VALUES (?, ?, ?, NULL)", (num, change.state, at))


def _cut(db: sqlite3.Connection, now: float) -> None:
    """Nothing lies beyond `now`: closed stretches end there, open ones that began later begin there."""
    db.execute("DELETE FROM observed WHERE start >= ?", (now,))
    db.execute("UPDATE observed SET end = ? WHERE end > ?", (now, now))
    db.execute("DELETE FROM spans WHERE start >= ? AND end IS NOT NULL", (now,))
    db.execute("UPDATE spans SET end = ? WHERE end > ?", (now, now))
    db.execute("UPDATE spans SET start = ? WHERE start > ? AND end IS NULL", (now, now))
    db.execute("DELETE FROM latency WHERE time > ?", (now,))


def _load(db: sqlite3.Connection, flips_since: float) -> Loaded:
    nodes = []
    for id_, body in db.execute("SELECT id, body FROM nodes"):
        try:
            nodes.append(msgspec.msgpack.decode(body, type=Node))
        except msgspec.DecodeError:
            log.warning("stored_node_unreadable", id=id_)
    alerts = [
        msgspec.msgpack.decode(body, type=Alert)
        for (body,) in db.execute("SELECT body FROM alerts WHERE state != 'resolved' ORDER BY id")
    ]
    return Loaded(
        nodes=nodes,
        alerts=alerts,
        meta=dict(db.execute("SELECT key, value FROM meta")),
        flips=_flips(db, flips_since),
        next_event_id=db.execute("SELECT coalesce(max(id), 0) + 1 FROM events").fetchone()[0],
        next_alert_id=db.execute("SELECT coalesce(max(id), 0) + 1 FROM alerts").fetchone()[0],
        last_observed=db.execute("SELECT max(end) FROM observed WHERE scope = ''").fetchone()[0],
    )


def _flips(db: sqlite3.Connection, since: float) -> list[Event]:
    settled: dict[str, int] = {}
    flips: list[Event] = []
    rows = db.execute(
        "SELECT * FROM events WHERE event_type IN ('node_online', 'node_offline', 'alert_resolved')"
        " AND recorded_at >= ? ORDER BY id",
        (since,),
    )
    for event in read_events(rows):
        if event.event_type != "alert_resolved":
            flips.append(event)
        elif event.details.get("cause") == "settled" and event.node_id:
            settled[event.node_id] = event.id
    return [event for event in flips if event.id > settled.get(event.node_id or "", 0)]


def read_events(rows: Iterable[tuple[Any, ...]]) -> Iterable[Event]:
    """Events of rows of the events table."""
    for id_, timestamp, recorded_at, kind, severity, node_id, hostname, node_type, message, details in rows:
        yield Event(
            id=id_,
            timestamp=timestamp,
            recorded_at=recorded_at,
            event_type=kind,
            severity=severity,
            node_id=node_id,
            hostname=hostname,
            node_type=node_type,
            message=message,
            details=msgspec.json.decode(details),
        )


def _prune(db: sqlite3.Connection, oldest: float, oldest_latency: float) -> bool:
    steps = (
        ("spans", "rowid", "end < ?", oldest),
        ("alerts", "id", "state = 'resolved' AND resolved_at < ?", oldest),
        ("observed", "scope, start", "end < ?", oldest),
        ("latency", "node, time", "time < ?", oldest_latency),
        # Ids grow with recording: the oldest events are the first.
        ("events", "id", "id < (SELECT min(id) FROM events) + 500 AND recorded_at < ?", oldest),
    )
    more = False
    for table, key, ended, limit in steps:
        some = f"SELECT {key} FROM {table} WHERE {ended} LIMIT ?"  # noqa: S608 (all of it stands above)
        statement = f"DELETE FROM {table} WHERE ({key}) IN ({some})"  # noqa: S608
        more |= db.execute(statement, (limit, _PRUNE_ROWS)).rowcount >= _PRUNE_ROWS
    return more
