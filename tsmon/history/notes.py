"""What operators noted of an outage afterwards: who, why, and whether it was planned. Rows are only added."""

import sqlite3
from collections.abc import Iterable

import msgspec


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """A note on a stretch of one node; times in Unix seconds."""

    id: int = 0
    """0 while it is not stored."""
    node_id: str
    start: float
    end: float
    planned: bool
    """The node's offline time in the stretch counts as planned."""
    created: float
    author: str
    text: str


_COLUMNS = Note.__struct_fields__[1:]


def add_note(db: sqlite3.Connection, note: Note) -> None:
    """Store it in the transaction that is open."""
    marks = ",".join("?" * len(_COLUMNS))
    statement = f"INSERT INTO notes ({', '.join(_COLUMNS)}) VALUES ({marks})"  # noqa: S608 (names of Note)
    db.execute(statement, [getattr(note, name) for name in _COLUMNS])


def notes_between(db: sqlite3.Connection, start: float, end: float) -> dict[str, list[Note]]:
    """The notes that touch the stretch, by node ID, in order of their begin."""
    rows: Iterable[tuple[object, ...]] = db.execute(
        f"SELECT id, {', '.join(_COLUMNS)} FROM notes"  # noqa: S608 (names of Note)
        " WHERE end > ? AND start < ? ORDER BY start, id",
        (start, end),
    )
    found: dict[str, list[Note]] = {}
    for row in rows:
        note = msgspec.convert(dict(zip(Note.__struct_fields__, row, strict=True)), Note, strict=False)
        found.setdefault(note.node_id, []).append(note)
    return found
