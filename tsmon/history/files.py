"""The files of the state directory: nobody else reads them, and none is made or overwritten behind a link."""

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from tsmon.history.rescue import COMPANIONS


class FileError(Exception):
    """A file of the state directory cannot be used; the text says which, why, and the remedy."""


def open_to_others(state_dir: Path) -> str:
    """Why others could replace the files of `state_dir`, with the remedy; "" when they cannot."""
    try:
        mode = state_dir.stat().st_mode
    except OSError:
        return ""
    if mode & stat.S_IWOTH:
        return f"everybody on this machine may write in {state_dir}: chmod o-w {state_dir}"
    return ""


def make_private(database: Path) -> None:
    """The database and its companions belong to this user alone, before SQLite opens or makes them: it gives
    its log the mode of the database. Raises FileError."""
    for ending in COMPANIONS:
        path = database.with_name(database.name + ending)
        if path.is_symlink():
            raise _linked(path)
    try:
        # An existing one is not opened: closing it would drop the locks that SQLite may hold on it.
        os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except FileExistsError:
        for ending in COMPANIONS:
            with suppress(FileNotFoundError, PermissionError):  # SQLite says what cannot be written
                os.chmod(database.with_name(database.name + ending), 0o600)
    except OSError as error:
        raise FileError(f"{database}: cannot be made: {error.strerror} (see state_dir)") from None


def _linked(path: Path) -> FileError:
    return FileError(
        f"{path}: is a symbolic link, which is not followed: remove it, and let state_dir name the place"
    )


def lock(state_dir: Path) -> Any:
    """One process per database. Raises FileError saying who holds it."""
    path = state_dir / "tsmon.lock"
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600), "a+")
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _linked(path) from None
        raise FileError(f"{path}: cannot be opened: {error.strerror} (see state_dir)") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read(100).strip() or "another process"
        file.close()
        raise FileError(
            f"{path.parent}: is in use by {holder}: stop that tsmon, or give this one another state_dir"
        ) from None
    try:
        file.truncate(0)
        file.write(f"tsmon with process id {os.getpid()}")
        file.flush()
    except OSError as error:
        # What is still in its buffer fails again when it is closed.
        with suppress(OSError):
            file.close()
        raise FileError(f"{path}: cannot be written: {error.strerror} (see state_dir)") from None
    return file
