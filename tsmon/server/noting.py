"""The notes that operators write on outages: what a command asks for becomes a note."""

import sqlite3
from typing import Any

import msgspec

from tsmon.base.clock import parse_rfc3339
from tsmon.base.text import clean_text
from tsmon.history.notes import Note
from tsmon.history.store import Store
from tsmon.monitor.alerts import Alert
from tsmon.monitor.monitor import Monitor
from tsmon.server.find_node import find_node
from tsmon.server.replies import ApiError

_LONGEST = 366 * 86400.0


async def wanted_note(
    data: dict[str, Any], author: str, monitor: Monitor, store: Store, now: float
) -> tuple[Note, str]:
    """The note, and the hostname it is about. `about` is the id of an alert, or a node's hostname or ID; an
    alert gives the times that are left out. Raises ApiError and StoreError."""
    about, text = str(data.get("about", "")), clean_text(str(data.get("text", "")), 300)
    if not about or not text or not author:
        raise ApiError(400, "bad_request", "note takes a node or an alert, an author and a text")
    start, end = _time(data, "from"), _time(data, "to")
    if about.isascii() and about.isdecimal() and len(about) < 19:
        alert = monitor.alerts.get(int(about)) or await _stored_alert(store, int(about))
        if alert is None or alert.node_id is None:
            raise ApiError(404, "not_found", f"no alert of a node has the id {about}")
        node_id, hostname = alert.node_id, alert.hostname or alert.node_id
        start = start if start is not None else alert.since if alert.since is not None else alert.pending_at
        end = end if end is not None else alert.resolved_at if alert.resolved_at is not None else now
    else:
        node = await find_node(about, monitor.view, store)
        node_id, hostname = node.id, node.hostname
    if start is None or end is None:
        raise ApiError(400, "bad_request", "note takes the times from and to, unless it is about an alert")
    if not start < end <= start + _LONGEST:
        raise ApiError(400, "bad_request", "to takes a time after from, a year later at most")
    planned = data.get("planned") is True
    note = Note(node_id=node_id, start=start, end=end, planned=planned, created=now, author=author, text=text)
    return note, hostname


def _time(data: dict[str, Any], name: str) -> float | None:
    if data.get(name) is None:
        return None
    try:
        return parse_rfc3339(str(data[name]))
    except (ValueError, OverflowError):
        raise ApiError(400, "bad_request", f"{name} takes a time as 2026-11-23T14:02:00Z") from None


async def _stored_alert(store: Store, alert_id: int) -> Alert | None:
    def read(db: sqlite3.Connection) -> Alert | None:
        row = db.execute("SELECT body FROM alerts WHERE id = ?", (alert_id,)).fetchone()
        return msgspec.msgpack.decode(row[0], type=Alert) if row is not None else None

    return await store.read(read)
