"""The database file under a running process: whether somebody else touched it, and saving what was in it.

SQLite notices none of it by itself: it goes on writing to a deleted file, and reading its cache of one that
was truncated. Nothing here opens the file but through SQLite: closing it would drop SQLite's locks.
"""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

COMPANIONS = ("", "-wal", "-shm")
_CHECKED = 64 * 1024 * 1024
"""Bytes up to which a database is checked page by page (0.2 s)."""
_CONTENT = (
    "SELECT (SELECT max(id) FROM events), (SELECT count(*) FROM nodes),"
    " (SELECT count(*) FROM spans WHERE node = (SELECT max(num) FROM nodes))"
)


class Mark(NamedTuple):
    """How a file looked: another inode is another file; another size or time means that it was written."""

    inode: int
    size: int
    modified: int


Marks = tuple[Mark | None, ...]
"""Of the database, its log and its shared memory; None: not there."""


def marks(path: Path) -> Marks:
    """How the three files look now. Raises OSError when the directory cannot be read."""
    return tuple(_mark(path.with_name(path.name + ending)) for ending in COMPANIONS)


def _mark(path: Path) -> Mark | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    if path.name.endswith("-shm"):  # mapped memory: its times say nothing
        return Mark(found.st_ino, 0, 0)
    return Mark(found.st_ino, found.st_size, found.st_mtime_ns)


def is_whole(db: sqlite3.Connection, path: Path, before: Marks, now: Marks) -> bool:
    """Somebody else wrote to the files (another program's checkpoint, or harm): does the disk still hold what
    the open connection `db` knows?"""
    if [mark and mark.inode for mark in before] != [mark and mark.inode for mark in now]:
        return False
    if before[0] is None or now[0] is None or now[0].size < before[0].size:
        return False
    if not _is_sound(db, path):
        return False
    # What lies in the log hides what is broken below it, until the log starts again.
    db.execute("PRAGMA wal_checkpoint")
    return _is_sound(db, path)


def _is_sound(db: sqlite3.Connection, path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as fresh:
            check_unless_large(fresh, path)
            known: tuple[object, ...] = db.execute(_CONTENT).fetchone()
            return known == tuple(fresh.execute(_CONTENT).fetchone())
    except sqlite3.DatabaseError:
        return False


def check(db: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError (SQLITE_CORRUPT) when a page is broken."""
    words = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if words != "ok":
        error = sqlite3.DatabaseError(words)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def check_unless_large(db: sqlite3.Connection, path: Path) -> None:
    """The same, of a database at `path` that is small enough for it to be quick."""
    if not is_large(path):
        check(db)


def is_large(path: Path) -> bool:
    """To look at all of the database would take more than a moment."""
    return path.stat().st_size >= _CHECKED


def copy_out(db: sqlite3.Connection, path: Path) -> Path:
    """All that the open connection still holds, in a new file beside `path`. Raises DatabaseError when
    that is not all, or cannot be written."""
    rescued = path.with_name(f"{path.name}.rescued")
    rescued.unlink(missing_ok=True)
    try:
        db.execute("VACUUM INTO ?", (str(rescued),))
        with closing(sqlite3.connect(rescued)) as copy:
            check(copy)
    except sqlite3.DatabaseError:
        rescued.unlink(missing_ok=True)
        raise
    return rescued


def set_aside(path: Path) -> str:
    """Rename a database with its companions, never delete it. Returns its new name, empty when nothing was
    there."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name, number = f"{path.name}.broken-{stamp}", 1
    while any(path.with_name(name + ending).exists() for ending in COMPANIONS):
        number += 1
        name = f"{path.name}.broken-{stamp}-{number}"
    found = [ending for ending in COMPANIONS if path.with_name(path.name + ending).exists()]
    for ending in found:
        path.with_name(path.name + ending).rename(path.with_name(name + ending))
    return name if found else ""
