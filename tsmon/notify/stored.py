"""What the channels and silences of the last run left in the database, and how it gets there."""

import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec
import structlog

from tsmon.history.rows import read_alerts
from tsmon.monitor.alerts import Alert, Silence
from tsmon.monitor.batch import Write
from tsmon.notify.alertmanager import Posted
from tsmon.notify.desk import Kept, Row
from tsmon.notify.line import load_rows, meta_key

log = structlog.get_logger(__name__)


_AT_ONCE = 500
"""Alerts that one statement names."""


class StoredChannels(msgspec.Struct):
    """What the last run left."""

    next_id: int
    """Of the next row of `notifications`."""
    waiting: dict[str, list[Row]]
    """By channel."""
    kept: dict[str, str]
    """What a desk knew, by channel."""
    silences: list[Silence]
    ended: dict[int, Alert]
    """Alerts that ended and of which something is still to be reported, by id."""


def load_channels(db: sqlite3.Connection) -> StoredChannels:
    next_id, waiting = load_rows(db)
    prefix = meta_key("")
    kept = {
        key[len(prefix) :]: value
        for key, value in db.execute(
            "SELECT key, value FROM meta WHERE substr(key, 1, ?) = ?", (len(prefix), prefix)
        )
    }
    silences = [
        msgspec.json.decode(body, type=Silence) for (body,) in db.execute("SELECT body FROM silences")
    ]
    named = {entry.alert for rows in waiting.values() for row in rows for entry in row.notice.entries}
    named = named.union(*(_named(text) for text in kept.values()))
    ended = _ended(db, sorted(named))
    return StoredChannels(next_id, waiting, kept, silences, {alert.id: alert for alert in ended})


def _named(text: str) -> set[int]:
    """The alerts that a channel knows."""
    desk, posted = decoded(text, Kept), decoded(text, Posted)
    found: set[int] = set(posted.alerts) if posted is not None else set()
    if desk is not None:
        found |= {*desk.notified, *desk.hushed, *desk.lost}
        found |= {id_ for g in desk.groups for id_ in (*g.waiting, *g.standing, *g.back)}
    return found


def _ended(db: sqlite3.Connection, ids: list[int]) -> Iterator[Alert]:
    for at in range(0, len(ids), _AT_ONCE):
        chunk = ids[at : at + _AT_ONCE]
        marks = ",".join("?" * len(chunk))
        yield from read_alerts(
            db.execute(
                f"SELECT body FROM alerts WHERE state = 'resolved' AND id IN ({marks})",  # noqa: S608
                chunk,
            )
        )


def decoded(text: str | None, kind: Any) -> Any:
    """What was kept as `kind`; None when there is nothing, or nothing readable: the channel is then new."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError:
        log.warning("stored_channel_unreadable")
        return None


def keep_silence(silence: Silence) -> Write:
    """Store it."""
    row = (silence.id, silence.created, silence.ends, msgspec.json.encode(silence).decode())

    def apply(db: sqlite3.Connection) -> None:
        db.execute("INSERT OR REPLACE INTO silences (id, created, ends, body) VALUES (?, ?, ?, ?)", row)

    return apply


def forget_silence(silence_id: int) -> Write:
    """Remove it from the store."""

    def apply(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM silences WHERE id = ?", (silence_id,))

    return apply
