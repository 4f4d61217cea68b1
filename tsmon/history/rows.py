"""What the store holds: the batch of one step, and how it is written, read back and pruned."""

import sqlite3
from collections.abc import Iterable
from typing import Any

import msgspec
import structlog

from tsmon.monitor.alerts import Alert
from tsmon.monitor.batch import Batch, Loaded, SpanChange
from tsmon.monitor.state import Event, Node

log = structlog.get_logger(__name__)

_PRUNE_ROWS = 500


def apply_batch(db: sqlite3.Connection, batch: Batch, nums: dict[str, int]) -> None:
    """Write `batch` in the transaction that is open; `nums` are the row numbers of the nodes by stable ID."""
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


def load_all(db: sqlite3.Connection, flips_since: float) -> Loaded:
    """What the last run knew; `flips_since` in Unix seconds."""
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


def prune_step(db: sqlite3.Connection, oldest: float, oldest_latency: float) -> bool:
    """Delete some of what ended before `oldest` (Unix seconds); True when there may be more."""
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
