"""Reading the event log and the alerts from the store: filters, pages, what came after an event."""

import sqlite3
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec

from tsmon.history.rows import SELECT_EVENTS, read_alerts, read_events
from tsmon.history.store import Store
from tsmon.monitor.alerts import Alert
from tsmon.monitor.state import Event

_CHUNK = 500


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events; None and "" filter nothing. `since` and `until` are of `timestamp`, Unix seconds."""

    severity: str = ""
    event_type: str = ""
    hostname: str = ""
    node_id: str = ""
    since: float | None = None
    until: float | None = None
    q: str = ""
    checks: bool = True
    """False leaves the periodic health checks out."""
    before: int | None = None
    """Only events with a smaller id: keeps pages stable while new ones arrive."""


def _where(chosen: EventFilter, *, any_severity: bool = False) -> tuple[str, list[Any]]:
    conditions = {
        "severity = ?": "" if any_severity else chosen.severity,
        "event_type = ?": chosen.event_type,
        "hostname = ?": chosen.hostname,
        "node_id = ?": chosen.node_id,
        "timestamp >= ?": chosen.since,
        "timestamp <= ?": chosen.until,
        "id < ?": chosen.before,
    }
    used = {text: value for text, value in conditions.items() if value not in ("", None)}
    values = list(used.values())
    texts = list(used)
    if not chosen.checks:
        texts.append("event_type <> 'health_check'")
    if chosen.q:
        pattern = "%" + chosen.q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        texts.append("(message LIKE ? ESCAPE '\\' OR hostname LIKE ? ESCAPE '\\')")
        values += [pattern, pattern]
    return (" WHERE " + " AND ".join(texts) if texts else ""), values


async def page_of_events(
    store: Store, chosen: EventFilter, limit: int, offset: int
) -> tuple[list[Event], int, dict[str, int]]:
    """Events newest first, how many there are in all, and the counts per severity of what the filters but
    `severity` choose. Raises StoreError."""

    def read(db: sqlite3.Connection) -> tuple[list[Event], int, dict[str, int]]:
        where, values = _where(chosen)
        # Only texts of this module are put together; every value is bound.
        newest = f"{SELECT_EVENTS}{where} ORDER BY id DESC LIMIT ? OFFSET ?"
        events = list(read_events(db.execute(newest, (*values, limit, offset))))
        where, values = _where(chosen, any_severity=True)
        per_severity = f"SELECT severity, count(*) FROM events{where} GROUP BY severity"  # noqa: S608
        counts = dict(db.execute(per_severity, values))
        total = sum(counts.values()) if not chosen.severity else counts.get(chosen.severity, 0)
        return events, total, counts

    return await store.read(read)


async def route_moves(store: Store, since: float) -> dict[str, int]:
    """How often each prefix went to another router since then (Unix seconds). Raises StoreError."""
    moves = (
        "SELECT json_extract(details, '$.prefix'), count(*) FROM events"
        " WHERE event_type = 'route_moved' AND timestamp >= ? GROUP BY 1"
    )
    return await store.read(lambda db: dict(db.execute(moves, (since,))))


async def all_events(store: Store, chosen: EventFilter) -> AsyncIterator[list[Event]]:
    """The whole filtered log, newest first, in chunks. Raises StoreError."""
    before = chosen.before
    while True:
        part = msgspec.structs.replace(chosen, before=before)

        def read(db: sqlite3.Connection, part: EventFilter = part) -> list[Event]:
            where, values = _where(part)
            rows = db.execute(f"{SELECT_EVENTS}{where} ORDER BY id DESC LIMIT ?", (*values, _CHUNK))
            return list(read_events(rows))

        events = await store.read(read)
        if not events:
            return
        yield events
        before = events[-1].id


async def events_after(store: Store, last_id: int, limit: int) -> list[Event]:
    """Events with a larger id than `last_id`, oldest first. Raises StoreError."""

    def read(db: sqlite3.Connection) -> list[Event]:
        return list(
            read_events(db.execute(f"{SELECT_EVENTS} WHERE id > ? ORDER BY id LIMIT ?", (last_id, limit)))
        )

    return await store.read(read)


async def resolved_alerts(store: Store) -> list[Alert]:
    """The last 10,000 resolved alerts, newest first. Raises StoreError."""

    def read(db: sqlite3.Connection) -> list[Alert]:
        rows = db.execute("SELECT body FROM alerts WHERE state = 'resolved' ORDER BY id DESC LIMIT 10000")
        return list(read_alerts(rows))

    return await store.read(read)


async def alerts_of(store: Store, events: Iterable[Event]) -> dict[str, Alert]:
    """The alerts that `events` tell of, as they are now, by id. Raises StoreError."""
    ids = sorted({event.details["alert_id"] for event in events if "alert_id" in event.details})

    def read(db: sqlite3.Connection) -> dict[str, Alert]:
        found = {}
        for id_ in ids:
            for alert in read_alerts(db.execute("SELECT body FROM alerts WHERE id = ?", (id_,))):
                found[id_] = alert
        return found

    return await store.read(read) if ids else {}


async def log_mark(store: Store) -> tuple[int, int]:
    """The first and the last id of the log: rows never change, so that these two tell one log from another.
    Raises StoreError."""

    def read(db: sqlite3.Connection) -> tuple[int, int]:
        first, last = db.execute("SELECT min(id), max(id) FROM events").fetchone()
        return first or 0, last or 0

    return await store.read(read)
