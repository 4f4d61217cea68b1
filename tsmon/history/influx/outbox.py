"""The durable outbox: requests are rows of the store until InfluxDB has said that it holds them.

A row with a grid time holds samples (second precision), one without holds events (nanosecond precision).
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import structlog

from tsmon.base.clock import Clock
from tsmon.config import InfluxSettings
from tsmon.history.influx.points import Packed, event_lines_of, lines_of, pack, unpack
from tsmon.history.rows import SELECT_EVENTS, read_events
from tsmon.history.store import Store, StoreError
from tsmon.monitor.samples import AnySample

log = structlog.get_logger(__name__)

MOST_QUARANTINED = 1000
"""Refused lines that are kept to be read; the oldest go first."""
_MOST_HELD = 32 * 1024 * 1024
"""Bytes kept in memory while the store cannot be written."""
_MOST_EVENTS = 1000
_ENOUGH = 20
"""Requests that wait: older samples do not come between while there are more, new ones must not wait long."""
_SLICE = 100
"""Points made at a time: a thread that makes 10,000 at once keeps the loop waiting for Python's lock."""
_MARK = "influx_last_event"
_SINCE = "influx_samples_since"


class WaitingRequest(NamedTuple):
    """One request that waits."""

    id: int
    created: float
    grid: float | None
    payload: bytes


class Refused(NamedTuple):
    """A line that InfluxDB did not take."""

    created: float
    line: str
    error: str


class Contents(NamedTuple):
    """What the outbox holds."""

    requests: int = 0
    lines: int = 0
    oldest: float | None = None
    """When the oldest request was put in."""
    quarantined: int = 0
    latest: tuple[Refused, ...] = ()
    """The last lines of the quarantine, newest first, cut."""


class _Held(NamedTuple):
    created: float
    grid: float
    packed: Packed


class Outbox:
    """Puts samples and events in, gives the oldest request out, sets bad lines aside."""

    def __init__(self, settings: InfluxSettings, store: Store, clock: Clock) -> None:
        self.dropped = 0
        """Lines lost because they were too old or too much."""
        self.quarantined = 0
        """Lines set aside since the start."""
        self._settings = settings
        self._store = store
        self._clock = clock
        self._held: deque[_Held] = deque()
        self.marks: dict[str, str] = {}
        """How far the events went in, and since when the samples, as the store has it."""

    async def put_samples(self, grid: float, samples: Sequence[AnySample]) -> None:
        """Commit the samples of one grid time. While the store cannot be written they are held in memory and
        go in with the next ones."""
        tags = self._settings.tags
        created = self._clock.wall()
        lines: list[str] = []
        for at in range(0, len(samples), _SLICE):
            lines += await asyncio.to_thread(lines_of, grid, samples[at : at + _SLICE], tags)
        parts = await asyncio.to_thread(lambda: list(pack(lines)))
        self._held.extend(_Held(created, grid, packed) for packed in parts)
        await self.flush()

    async def flush(self) -> None:
        """Write what is held. Never raises for a store that cannot be written."""
        if not self._held:
            return
        held = list(self._held)
        now = self._clock.wall()

        def add(db: sqlite3.Connection) -> tuple[int, str]:
            since = _note_first(db, self._settings, held[0].grid)
            for created, grid, packed in held:
                _insert(db, created, grid, packed)
            return self._trim(db, now), since

        try:
            dropped, self.marks[_SINCE] = await self._store.write(add)
            self._count_dropped(dropped)
        except StoreError as error:
            log.warning("samples_held", batches=len(held), error=str(error))
            self._shrink()
            return
        # Only what was written goes: samples may have come in while the write was under way.
        for _ in held:
            self._held.popleft()

    def _shrink(self) -> None:
        lost = 0
        while sum(len(held.packed.payload) for held in self._held) > _MOST_HELD:
            lost += self._held.popleft().packed.lines
        self._count_dropped(lost)

    def _count_dropped(self, lines: int) -> None:
        self.dropped += lines
        if lines:
            log.error("influx_outbox_overflow", lines_dropped=lines)

    async def put_lines(self, payload: bytes) -> bool:
        """Commit one request of older samples (gzipped lines, second precision); False while enough waits
        already. Raises ValueError for what is none, and StoreError."""
        if (await self.contents()).requests >= _ENOUGH:
            return False
        lines = await asyncio.to_thread(unpack, payload)
        try:
            grid = float(lines[-1].rsplit(" ", 1)[1])
        except (IndexError, ValueError):
            raise ValueError("the lines end in no time") from None
        now = self._clock.wall()
        await self._store.write(lambda db: _insert(db, now, grid, Packed(len(lines), payload)))
        return True

    async def take_events(self) -> bool:
        """Put the events in that were stored since the last time; True when there may be more. Those before
        the first time are left out. Raises StoreError."""
        mark, rows = await self._store.read(_new_events)
        if mark is None:
            # The first time, the log's end becomes the mark: events of years would flood a new bucket, and
            # the embedded log keeps them anyway.
            last = rows[-1][0] if rows else 0
            await self._store.write(lambda db: _set_mark(db, last))
            self.marks[_MARK] = str(last)
            return False
        self.marks[_MARK] = str(mark)
        if not rows:
            return False
        tags = self._settings.tags
        parts = await asyncio.to_thread(lambda: list(pack(event_lines_of(read_events(rows), tags))))
        now = self._clock.wall()

        def add(db: sqlite3.Connection) -> int:
            for packed in parts:
                _insert(db, now, None, packed)
            _set_mark(db, rows[-1][0])
            return self._trim(db, now)

        self._count_dropped(await self._store.write(add))
        self.marks[_MARK] = str(rows[-1][0])
        return len(rows) == _MOST_EVENTS

    async def oldest(self) -> WaitingRequest | None:
        """The request to be sent next. Raises StoreError."""
        sql = "SELECT id, created, grid, payload FROM influx_outbox ORDER BY id LIMIT 1"
        row = await self._store.read(lambda db: db.execute(sql).fetchone())
        return None if row is None else WaitingRequest(*row)

    async def remove(self, id_: int, refused: Mapping[str, str]) -> None:
        """A request is done; its `refused` lines (with the reasons) go into the quarantine. Raises
        StoreError."""
        now = self._clock.wall()

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM influx_outbox WHERE id = ?", (id_,))
            db.executemany(
                "INSERT INTO influx_quarantine (created, line, error) VALUES (?, ?, ?)",
                [(now, line, reason) for line, reason in refused.items()],
            )
            db.execute(
                "DELETE FROM influx_quarantine WHERE id <= (SELECT max(id) FROM influx_quarantine) - ?",
                (MOST_QUARANTINED,),
            )

        await self._store.write(work)
        self.quarantined += len(refused)
        for line, reason in list(refused.items())[:5]:
            log.error("influx_line_refused", line=line[:200], error=reason)

    async def contents(self) -> Contents:
        """What waits and what was set aside. Raises StoreError."""
        return await self._store.read(look)

    def _trim(self, db: sqlite3.Connection, now: float) -> int:
        """Drop what is too old or too much, oldest first; returns how many lines."""
        aged = (now - self._settings.outbox_age,)
        lost = db.execute(
            "SELECT coalesce(sum(lines), 0) FROM influx_outbox WHERE created < ?", aged
        ).fetchone()[0]
        db.execute("DELETE FROM influx_outbox WHERE created < ?", aged)
        size = db.execute("SELECT coalesce(sum(bytes), 0) FROM influx_outbox").fetchone()[0]
        while size > self._settings.outbox_bytes:
            id_, lines, freed = db.execute(
                "SELECT id, lines, bytes FROM influx_outbox ORDER BY id LIMIT 1"
            ).fetchone()
            db.execute("DELETE FROM influx_outbox WHERE id = ?", (id_,))
            lost, size = lost + lines, size - freed
        return int(lost)


def look(db: sqlite3.Connection) -> Contents:
    """What the outbox of a database holds."""
    waits = "SELECT count(*), coalesce(sum(lines), 0), min(created) FROM influx_outbox"
    refused = "SELECT created, substr(line, 1, 300), error FROM influx_quarantine ORDER BY id DESC LIMIT 3"
    requests, lines, oldest = db.execute(waits).fetchone()
    quarantined = db.execute("SELECT count(*) FROM influx_quarantine").fetchone()[0]
    return Contents(requests, lines, oldest, quarantined, tuple(Refused(*row) for row in db.execute(refused)))


def target(settings: InfluxSettings) -> str:
    """Which bucket of which server."""
    return f"{settings.url.rstrip('/')} {settings.org} {settings.bucket}"


def samples_since(db: sqlite3.Connection, settings: InfluxSettings) -> float | None:
    """The first grid time of which this bucket was sent the samples; None when it never was."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (_SINCE,)).fetchone()
    grid, _, bucket = (row[0] if row else "").partition(" ")
    return float(grid) if bucket == target(settings) else None


def _note_first(db: sqlite3.Connection, settings: InfluxSettings, grid: float) -> str:
    """Returns the value."""
    since = samples_since(db, settings)
    value = f"{grid if since is None else since!r} {target(settings)}"
    if since is None:
        db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_SINCE, value))
    return value


def _insert(db: sqlite3.Connection, created: float, grid: float | None, packed: Packed) -> None:
    db.execute(
        "INSERT INTO influx_outbox (created, grid, lines, bytes, payload) VALUES (?, ?, ?, ?, ?)",
        (created, grid, packed.lines, len(packed.payload), packed.payload),
    )


def _new_events(db: sqlite3.Connection) -> tuple[int | None, list[tuple]]:  # type: ignore[type-arg]
    """The mark and the events after it; without a mark the last event alone."""
    mark = db.execute("SELECT value FROM meta WHERE key = ?", (_MARK,)).fetchone()
    if mark is None:
        return None, db.execute(f"{SELECT_EVENTS} ORDER BY id DESC LIMIT 1").fetchall()
    rows = db.execute(
        f"{SELECT_EVENTS} WHERE id > ? ORDER BY id LIMIT ?", (int(mark[0]), _MOST_EVENTS)
    ).fetchall()
    return int(mark[0]), rows


def _set_mark(db: sqlite3.Connection, id_: int) -> None:
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_MARK, str(id_)))
