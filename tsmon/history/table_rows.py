"""The tables as rows for people and programs, page by page in the order of their keys."""

import sqlite3
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec

from tsmon.base.clock import rfc3339
from tsmon.history.store import Store

_PAGE = 2000
_TIMES = ("timestamp", "recorded_at", "start", "end", "time")


class _Table(NamedTuple):
    select: str
    since: str
    """The column that must not lie before the moment asked for."""
    key: tuple[str, ...]


_TABLES = {
    "events": _Table(
        "SELECT id, timestamp, recorded_at, event_type, severity, node_id, hostname, node_type, message,"
        " details FROM events",
        "timestamp",
        ("id",),
    ),
    "spans": _Table(
        "SELECT nodes.id AS node_id, nodes.hostname, spans.state, spans.start, spans.end"
        " FROM spans JOIN nodes ON nodes.num = spans.node",
        "coalesce(spans.end, 9e999)",
        ("spans.node", "spans.start"),
    ),
    "service_spans": _Table(
        "SELECT services.id AS service, service_spans.state, service_spans.start, service_spans.end"
        " FROM service_spans JOIN services ON services.num = service_spans.service",
        "coalesce(service_spans.end, 9e999)",
        ("service_spans.service", "service_spans.start"),
    ),
    "observed": _Table("SELECT scope AS node_id, start, end FROM observed", "end", ("scope", "start")),
    "latency": _Table(
        "SELECT nodes.id AS node_id, nodes.hostname, time, min_ms, mean_ms, max_ms, loss, path"
        " FROM latency JOIN nodes ON nodes.num = latency.node",
        "time",
        ("latency.node", "time"),
    ),
}
TABLES = tuple(_TABLES)
"""What can be exported."""


async def export_rows(store: Store, table: str, since: float) -> AsyncIterator[list[dict[str, Any]]]:
    """The rows of one of `TABLES` that reach beyond `since` (Unix seconds), a page at a time; each page
    begins behind the last row of the one before, whatever was written meanwhile. Raises StoreError."""
    after: tuple[Any, ...] = ()
    while True:

        def read(
            db: sqlite3.Connection, after: tuple[Any, ...] = after
        ) -> tuple[list[dict[str, Any]], tuple[Any, ...]]:
            return _page(db, _TABLES[table], since, after)

        rows, after = await store.read(read, timeout=60.0)
        if not rows:
            return
        yield rows


def _page(
    db: sqlite3.Connection, table: _Table, since: float, after: tuple[Any, ...]
) -> tuple[list[dict[str, Any]], tuple[Any, ...]]:
    """The rows behind the key `after`, and the key of the last of them."""
    keys = ", ".join(table.key)
    select, source = table.select.split(" FROM ", 1)
    behind = f" AND ({keys}) > ({', '.join('?' * len(after))})" if after else ""
    cursor = db.execute(
        f"{select}, {keys} FROM {source} WHERE {table.since} >= ?{behind} ORDER BY {keys} LIMIT ?",
        (since, *after, _PAGE),
    )
    width = len(cursor.description) - len(table.key)
    names = [column[0] for column in cursor.description[:width]]
    found = cursor.fetchall()
    return [_row(dict(zip(names, row, strict=False))) for row in found], found[-1][width:] if found else after


def _row(row: dict[str, Any]) -> dict[str, Any]:
    for name in _TIMES:
        if name in row:
            row[name] = rfc3339(row[name])
    if "details" in row:
        row["details"] = msgspec.json.decode(row["details"])
    return row
