"""Checked ports in the database: the rows of one step, and reading back what the last run knew."""

import sqlite3

import msgspec
import structlog

from tsmon.monitor.batch import Batch
from tsmon.monitor.services.service import Service, ServiceSpan

log = structlog.get_logger(__name__)


def put_services(db: sqlite3.Connection, batch: Batch) -> None:
    """Write what `batch` says of services, in the transaction that is open."""
    db.executemany(
        "INSERT INTO services (id, first_seen, removed_at, body) VALUES (?, ?, NULL, ?)"
        " ON CONFLICT (id) DO UPDATE SET removed_at = NULL, body = excluded.body",
        [(one.key.text, one.first_seen, msgspec.msgpack.encode(one)) for one in batch.services],
    )
    for span in batch.service_spans:
        _put_span(db, span)
    gone = {span.key: span.at for span in batch.service_spans if span.state is None}
    db.executemany(
        "UPDATE services SET removed_at = ? WHERE id = ?",
        [(gone.get(key), key.text) for key in batch.dropped_services],
    )


def _put_span(db: sqlite3.Connection, span: ServiceSpan) -> None:
    """Close the open span and begin the next; one dated before it leaves nothing of it."""
    found = db.execute("SELECT num FROM services WHERE id = ?", (span.key.text,)).fetchone()
    if found is None:
        return  # it was pruned meanwhile, and says no more
    num, at = found[0], span.at
    last = db.execute(
        "SELECT start, end FROM service_spans WHERE service = ? ORDER BY start DESC LIMIT 1", (num,)
    ).fetchone()
    if last is not None:
        start, end = last
        at = max(at, start if end is None else end)
        if end is None and at > start:
            db.execute("UPDATE service_spans SET end = ? WHERE service = ? AND start = ?", (at, num, start))
        elif end is None:
            db.execute("DELETE FROM service_spans WHERE service = ? AND start = ?", (num, start))
    if span.state is not None:
        db.execute(
            "INSERT OR REPLACE INTO service_spans (service, start, state, end) VALUES (?, ?, ?, NULL)",
            (num, at, span.state),
        )


def cut_services(db: sqlite3.Connection, now: float) -> None:
    """Nothing lies beyond `now`: closed spans end there, open ones that began later begin there."""
    db.execute("DELETE FROM service_spans WHERE start >= ? AND end IS NOT NULL", (now,))
    db.execute("UPDATE service_spans SET end = ? WHERE end > ?", (now, now))
    db.execute("UPDATE service_spans SET start = ? WHERE start > ? AND end IS NULL", (now, now))


def load_services(db: sqlite3.Connection) -> list[Service]:
    """Those that were asked when the last run ended."""
    found = []
    for id_, body in db.execute("SELECT id, body FROM services WHERE removed_at IS NULL ORDER BY num"):
        try:
            found.append(msgspec.msgpack.decode(body, type=Service))
        except msgspec.DecodeError:
            log.warning("stored_service_unreadable", id=id_)
    return found


def prune_services(db: sqlite3.Connection, oldest: float, most: int) -> bool:
    """Delete at most `most` spans and services that ended before `oldest` (Unix seconds). True when there may
    be more."""
    spans = db.execute(
        "DELETE FROM service_spans WHERE (service, start) IN"
        " (SELECT service, start FROM service_spans WHERE end < ? LIMIT ?)",
        (oldest, most),
    ).rowcount
    services = db.execute(
        "DELETE FROM services WHERE num IN (SELECT num FROM services WHERE removed_at < ?"
        " AND NOT EXISTS (SELECT 1 FROM service_spans WHERE service = num) LIMIT ?)",
        (oldest, most),
    ).rowcount
    return most in (spans, services)
