"""Reading back what the last run knew, and the removed nodes that only the database still knows."""

import sqlite3
from collections.abc import Collection, Iterator

import msgspec
import structlog

from tsmon.history.rows import SELECT_EVENTS, last_id, read_alerts, read_events
from tsmon.history.service_rows import load_services
from tsmon.monitor.batch import LastRun
from tsmon.monitor.state import Event, Node
from tsmon.source.control.devices import Device

log = structlog.get_logger(__name__)

_CHUNK = 500


def load_all(db: sqlite3.Connection, flips_since: float) -> LastRun:
    """What the last run knew; `flips_since` in Unix seconds."""
    alerts = list(read_alerts(db.execute("SELECT body FROM alerts WHERE state != 'resolved' ORDER BY id")))
    nodes = _decoded(db, "removed_at IS NULL")
    present = {node.id for node in nodes}
    alerted = {alert.node_id for alert in alerts if alert.node_id} - present
    return LastRun(
        nodes=[*nodes, *find_nodes(db, alerted)],
        alerts=alerts,
        devices=_devices(db),
        services=load_services(db),
        meta=dict(db.execute("SELECT key, value FROM meta")),
        flips=_flips(db, flips_since),
        next_event_id=last_id(db, "events") + 1,
        next_alert_id=last_id(db, "alerts") + 1,
        last_observed=db.execute("SELECT max(end) FROM observed WHERE scope = ''").fetchone()[0],
    )


def _devices(db: sqlite3.Connection) -> list[Device]:
    found = []
    for id_, body in db.execute("SELECT id, body FROM control_devices ORDER BY id"):
        try:
            found.append(msgspec.msgpack.decode(body, type=Device))
        except msgspec.DecodeError:
            log.warning("stored_device_unreadable", id=id_)
    return found


def _flips(db: sqlite3.Connection, since: float) -> list[Event]:
    settled: dict[str, int] = {}
    flips: list[Event] = []
    rows = db.execute(
        f"{SELECT_EVENTS} WHERE event_type IN ('node_online', 'node_offline', 'alert_resolved')"
        " AND recorded_at >= ? ORDER BY id",
        (since,),
    )
    for event in read_events(rows):
        if event.event_type != "alert_resolved":
            flips.append(event)
        elif event.details.get("cause") == "settled" and event.node_id:
            settled[event.node_id] = event.id
    return [event for event in flips if event.id > settled.get(event.node_id or "", 0)]


def find_nodes(db: sqlite3.Connection, ids: Collection[str]) -> list[Node]:
    """The stored nodes of these stable IDs, removed or not; unknown IDs are left out."""
    found: list[Node] = []
    for chunk in chunks(ids):
        found += _decoded(db, f"id IN ({','.join('?' * len(chunk))})", *chunk)
    return found


def find_removed(db: sqlite3.Connection, name: str) -> Node | None:
    """The removed node of that stable ID, else the one of that hostname that was removed last."""
    found = find_nodes(db, (name,)) or _decoded(
        db, "hostname = ? AND removed_at IS NOT NULL ORDER BY removed_at DESC LIMIT 1", name
    )
    return found[0] if found else None


def chunks(ids: Collection[str]) -> Iterator[tuple[str, ...]]:
    """In pieces of as many as one statement may name."""
    given = tuple(ids)
    for at in range(0, len(given), _CHUNK):
        yield given[at : at + _CHUNK]


def _decoded(db: sqlite3.Connection, where: str, *values: str) -> list[Node]:
    nodes = []
    for id_, body in db.execute(f"SELECT id, body FROM nodes WHERE {where}", values):  # noqa: S608
        try:
            nodes.append(msgspec.msgpack.decode(body, type=Node))
        except msgspec.DecodeError:
            log.warning("stored_node_unreadable", id=id_)
    return nodes
