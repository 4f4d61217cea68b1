"""Connections that only read, one a thread, each query bounded in time."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar, get_args

T = TypeVar("T")
ReaderName = Literal["log", "figures", "bars"]
"""Each kind of question has a reader of its own, so that none waits for another kind: the log with all that
is short, the uptime, the bars."""


class Readers:
    """Over the database at `path`, which another connection made and writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = {
            name: ThreadPoolExecutor(1, thread_name_prefix=f"store-{name}") for name in get_args(ReaderName)
        }
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._generation = 0
        self._closing = False

    def renew(self) -> None:
        """Another file is at `path` now: later reads open it."""
        self._generation += 1

    async def read(self, work: Callable[[sqlite3.Connection], T], timeout: float, name: ReaderName) -> T:
        """Run `work`, at most `timeout` seconds; cancelled, it ends at its next row. Raises
        sqlite3.DatabaseError."""
        given_up = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads[name], self._read, work, timeout, given_up)
        except asyncio.CancelledError:
            given_up.set()
            raise

    def close(self) -> None:
        """End what is being read, and close the connections."""
        self._closing = True
        for threads in self._threads.values():
            threads.shutdown()
        for db in self._open:
            db.close()

    # -- on a thread of its own ------------------------------------------------------------------------

    def _read(self, work: Callable[[sqlite3.Connection], T], timeout: float, given_up: threading.Event) -> T:
        deadline = time.monotonic() + timeout
        try:
            db = self._connection()
            db.set_progress_handler(
                lambda: self._closing or given_up.is_set() or time.monotonic() > deadline, 10_000
            )
            return work(db)
        except sqlite3.DatabaseError:
            # The next connection may do better; this one must not stay among the open files.
            self._forget()
            raise

    def _connection(self) -> sqlite3.Connection:
        if getattr(self._local, "db", None) is None or self._local.generation != self._generation:
            self._forget()
            db = sqlite3.connect(
                f"file:{self._path}?mode=ro",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=2.0,
            )
            self._open.append(db)
            self._local.db, self._local.generation = db, self._generation
            db.execute("PRAGMA query_only=1")
        return self._local.db  # type: ignore[no-any-return]

    def _forget(self) -> None:
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        self._local.db = None
        if db is not None:
            self._open.remove(db)
            db.close()
