"""The notes that operators write on outages: what a command asks for becomes a note."""

import sqlite3

import msgspec

from tsmon.base.clock import parse_rfc3339
from tsmon.base.text import clean_text
from tsmon.history.notes import Note
from tsmon.history.store import Store
from tsmon.monitor.alerts import Alert
from tsmon.monitor.monitor import Monitor
from tsmon.server.commands import WriteNote, bad_request, read_id
from tsmon.server.find_node import find_node
from tsmon.server.replies import ApiError

_LONGEST = 366 * 86400.0


async def wanted_note(
    command: WriteNote, author: str, monitor: Monitor, store: Store, now: float
) -> tuple[Note, str]:
    """The note, and the hostname it is about. The command is about the id of an alert, or a node's
    hostname or ID; an alert gives the times that are left out. Raises ApiError and StoreError."""
    about, text = str(command.about), clean_text(command.text, 300)
    if not about or not text or not author:
        raise bad_request("note takes a node or an alert, an author and a text")
    start, end = _time("from", command.start), _time("to", command.end)
    if (alert_id := read_id(about)) is not None:
        alert = monitor.alerts.get(alert_id) or await _stored_alert(store, alert_id)
        if alert is None or alert.node_id is None:
            raise ApiError(404, "not_found", f"no alert of a node has the id {about}")
        node_id, hostname = alert.node_id, alert.hostname or alert.node_id
        start = start if start is not None else alert.since if alert.since is not None else alert.pending_at
        end = end if end is not None else alert.resolved_at if alert.resolved_at is not None else now
    else:
        node = await find_node(about, monitor.view, store)
        node_id, hostname = node.id, node.hostname
    if start is None or end is None:
        raise bad_request("note takes the times from and to, unless it is about an alert")
    if not start < end <= start + _LONGEST:
        raise bad_request("to takes a time after from, a year later at most")
    note = Note(
        node_id=node_id,
        start=start,
        end=end,
        planned=command.planned,
        created=now,
        author=author,
        text=text,
    )
    return note, hostname


def _time(name: str, text: str | None) -> float | None:
    try:
        return None if text is None else parse_rfc3339(text)
    except (ValueError, OverflowError):
        raise bad_request(f"{name} takes a time as 2026-11-23T14:02:00Z") from None


async def _stored_alert(store: Store, alert_id: int) -> Alert | None:
    def read(db: sqlite3.Connection) -> Alert | None:
        row = db.execute("SELECT body FROM alerts WHERE id = ?", (alert_id,)).fetchone()
        return msgspec.msgpack.decode(row[0], type=Alert) if row is not None else None

    return await store.read(read)
