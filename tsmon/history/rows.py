"""Writing the batch of one step. What is known of a row is asked from the database each time: whatever a
transaction that failed has changed is gone with it."""

import sqlite3
from collections.abc import Iterable
from typing import Any, Literal

import msgspec
import structlog

from tsmon.history.lineage import link_of
from tsmon.history.service_rows import cut_services, put_services
from tsmon.monitor.alerts import Alert
from tsmon.monitor.batch import Batch, SpanChange, last_id_key
from tsmon.monitor.state import Event, Node

log = structlog.get_logger(__name__)

_EVENT_COLUMNS = (
    "id, timestamp, recorded_at, event_type, severity, node_id, hostname, node_type, message, details"
)
SELECT_EVENTS = f"SELECT {_EVENT_COLUMNS} FROM events"  # noqa: S608 (the names above)
"""As `read_events` wants them; conditions and order are appended."""


def apply_batch(db: sqlite3.Connection, batch: Batch) -> None:
    """Write `batch` in the transaction that is open."""
    if batch.cut_at is not None:
        _cut(db, batch.cut_at)
    if batch.observed:
        db.executemany(
            "INSERT INTO observed (scope, start, end) VALUES (?, ?, ?)"
            " ON CONFLICT (scope, start) DO UPDATE SET end = excluded.end",
            [(row.node_id, row.start, row.end) for row in batch.observed],
        )
    for node in batch.nodes:
        _put_node(db, node)
    for change in batch.spans:
        _put_span(db, change)
    db.executemany(
        f"INSERT OR REPLACE INTO events ({_EVENT_COLUMNS})"  # noqa: S608 (the names above)
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
        "INSERT OR REPLACE INTO alerts (id, kind, severity, state, hostname, resolved_at, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (a.id, a.kind, a.severity, a.state, a.hostname, a.resolved_at, msgspec.msgpack.encode(a))
            for a in batch.alerts
        ],
    )
    if batch.dropped_alerts:
        keep_last_id(db, "alerts")
        db.executemany("DELETE FROM alerts WHERE id = ?", [(id_,) for id_ in batch.dropped_alerts])
    # A node that was pruned meanwhile has no number: its row is left out.
    db.executemany(
        "INSERT OR REPLACE INTO latency (node, time, min_ms, mean_ms, max_ms, loss, path)"
        " SELECT num, ?, ?, ?, ?, ?, ? FROM nodes WHERE id = ?",
        [
            (row.time, row.min_ms, row.mean_ms, row.max_ms, row.loss, row.path, row.node_id)
            for row in batch.latency
        ],
    )
    db.executemany(
        "INSERT OR REPLACE INTO control_devices (id, body) VALUES (?, ?)",
        [(device.id, msgspec.msgpack.encode(device)) for device in batch.devices],
    )
    db.executemany("DELETE FROM control_devices WHERE id = ?", [(id_,) for id_ in batch.dropped_devices])
    put_services(db, batch)
    for key, value in batch.meta.items():
        if value is None:
            db.execute("DELETE FROM meta WHERE key = ?", (key,))
        else:
            put_meta(db, key, value)
    for also in batch.also:
        also(db)


def _put_node(db: sqlite3.Connection, node: Node) -> None:
    body = msgspec.msgpack.encode(node)
    row = (node.hostname, node.first_seen, node.removed_at, *link_of(node), body, node.id)
    changed = db.execute(
        "UPDATE nodes SET hostname = ?, first_seen = ?, removed_at = ?, predecessor = ?, joined = ?,"
        " family = ?, body = ? WHERE id = ?",
        row,
    )
    if not changed.rowcount:
        db.execute(
            "INSERT INTO nodes (hostname, first_seen, removed_at, predecessor, joined, family, body, id)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )


def _put_span(db: sqlite3.Connection, change: SpanChange) -> None:
    """Close the open span at the change and begin the next; a change dated before it leaves nothing of it."""
    at = change.at
    num = db.execute("SELECT num FROM nodes WHERE id = ?", (change.node_id,)).fetchone()[0]
    last = db.execute(
        "SELECT start, end FROM spans WHERE node = ? ORDER BY start DESC LIMIT 1", (num,)
    ).fetchone()
    if last is not None:
        start, end = last
        at = max(at, start)
        if end is None and at > start:
            db.execute("UPDATE spans SET end = ? WHERE node = ? AND start = ?", (at, num, start))
        elif end is None:
            db.execute("DELETE FROM spans WHERE node = ? AND start = ?", (num, start))
        else:
            at = max(at, end)
    if change.state is not None:
        db.execute(
            "INSERT INTO spans (node, start, state, end) VALUES (?, ?, ?, NULL)", (num, at, change.state)
        )


def _cut(db: sqlite3.Connection, now: float) -> None:
    """Nothing lies beyond `now`: closed stretches end there, open ones that began later begin there."""
    db.execute("DELETE FROM observed WHERE start >= ?", (now,))
    db.execute("UPDATE observed SET end = ? WHERE end > ?", (now, now))
    db.execute("DELETE FROM spans WHERE start >= ? AND end IS NOT NULL", (now,))
    db.execute("UPDATE spans SET end = ? WHERE end > ?", (now, now))
    db.execute("UPDATE spans SET start = ? WHERE start > ? AND end IS NULL", (now, now))
    db.execute("DELETE FROM latency WHERE time > ?", (now,))
    cut_services(db, now)


def put_meta(db: sqlite3.Connection, key: str, value: str) -> None:
    """Keep one value."""
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


def keep_last_id(db: sqlite3.Connection, table: Literal["events", "alerts"]) -> None:
    """Before rows of `events` or `alerts` go: an id that was given out is never used again, since messages,
    silences and streams name it."""
    last = last_id(db, table)
    if last:
        put_meta(db, last_id_key(table), str(last))


def last_id(db: sqlite3.Connection, table: Literal["events", "alerts"]) -> int:
    """The highest id that `events` or `alerts` ever had; 0 when none."""
    highest: int = db.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0]  # noqa: S608 (two names)
    kept = db.execute("SELECT value FROM meta WHERE key = ?", (last_id_key(table),)).fetchone()
    return max(highest, int(kept[0]) if kept else 0)


def read_events(rows: Iterable[tuple[Any, ...]]) -> Iterable[Event]:
    """Events of rows of the events table, but for those that cannot be read (bad_rows.py)."""
    for id_, timestamp, recorded_at, kind, severity, node_id, hostname, node_type, message, details in rows:
        try:
            decoded = msgspec.json.decode(details, type=dict[str, Any])
        except (msgspec.DecodeError, TypeError):
            log.warning("stored_event_unreadable", id=id_)
            continue
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
            details=decoded,
        )


def read_alerts(rows: Iterable[tuple[bytes]]) -> Iterable[Alert]:
    """Alerts of the column `body`, but for those that cannot be read (bad_rows.py)."""
    for (body,) in rows:
        try:
            yield msgspec.msgpack.decode(body, type=Alert)
        except (msgspec.DecodeError, TypeError):
            log.warning("stored_alert_unreadable")
