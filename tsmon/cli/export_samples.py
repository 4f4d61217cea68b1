"""`tsmon export --line-protocol` and `--to-influxdb`: the history as the samples that InfluxDB stores.

Read from the database itself, so that the tsmon that runs has nothing to do but to pass them on.
"""

import asyncio
import os
import sqlite3
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from tsmon.base.clock import rfc3339
from tsmon.cli.admin import exchange, socket_of
from tsmon.cli.terminal import CliError, os_words, plain
from tsmon.config import Settings, state_dir
from tsmon.history.influx.backfill import grid_samples, oldest_span
from tsmon.history.influx.outbox import samples_since
from tsmon.history.influx.points import MOST_LINES, lines_of, pack
from tsmon.history.schema import APPLICATION_ID, MIGRATIONS

_PAUSE = 0.5
PATIENCE = 60.0
"""Seconds in which the outbox may take nothing."""


def write_lines(settings: Settings, since: float | None, write: Callable[[bytes], object]) -> None:
    """Hand the samples since a time (Unix seconds; None: all) to `write`, as line protocol. Raises
    CliError."""
    with _database(settings) as db:
        for lines in _batches(db, settings, since, time.time()):
            write("".join(f"{line}\n" for line in lines).encode())


def send_lines(settings: Settings, since: float | None) -> None:
    """Hand those from before the first sample that went to InfluxDB over to the running tsmon. Raises
    CliError."""
    if not settings.influx.url:
        raise CliError("InfluxDB is not configured: set influx.url")
    with _database(settings) as db:
        until = samples_since(db, settings.influx) or time.time()
        asyncio.run(_send(socket_of(settings), db, settings, since, until))


async def _send(
    socket: Path, db: sqlite3.Connection, settings: Settings, since: float | None, until: float
) -> None:
    sent = 0
    for lines in _batches(db, settings, since, until):
        for packed in pack(lines):
            await _hand_over(socket, packed.payload)
            sent += packed.lines
    if not sent:
        raise CliError(
            f"the history holds no sample from before {rfc3339(until)}, when InfluxDB got its first"
        )
    click.echo(f"{sent} samples from before {rfc3339(until)} wait in the outbox, or are sent already")


async def _hand_over(socket: Path, payload: bytes) -> None:
    """One request, as soon as the outbox can take it. Raises CliError."""
    body = {"lines": b64encode(payload).decode()}
    end = time.monotonic() + PATIENCE
    while not (await exchange(socket, "/influx/lines", body)).get("taken"):
        if time.monotonic() > end:
            raise CliError("InfluxDB takes nothing (see tsmon doctor); begin again later: nothing doubles")
        await asyncio.sleep(_PAUSE)


def _batches(
    db: sqlite3.Connection, settings: Settings, since: float | None, until: float
) -> Iterator[list[str]]:
    """Lines of whole grid times, at least as many as fill a request. Raises sqlite3.DatabaseError."""
    oldest = oldest_span(db)
    if oldest is None:
        return
    begin = oldest if since is None else max(since, oldest)
    lines: list[str] = []
    for grid, samples in grid_samples(db, begin, until, settings.collect_interval):
        lines += lines_of(grid, samples, settings.influx.tags)
        if len(lines) >= MOST_LINES:
            yield lines
            lines = []
    if lines:
        yield lines


@contextmanager
def _database(settings: Settings) -> Iterator[sqlite3.Connection]:
    """The history, read-only, whether tsmon runs or not. Raises CliError."""
    path = state_dir(settings, os.environ) / "tsmon.db"
    try:
        path.stat()
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            _check(db, path)
            yield db
    except FileNotFoundError:
        raise CliError(f"{path}: no tsmon has run with this state directory (--state-dir)") from None
    except OSError as error:
        raise CliError(f"{path}: {os_words(error)} (is this the user that tsmon runs as?)") from None
    except sqlite3.DatabaseError as error:
        raise CliError(f"{path}: cannot be read: {plain(error)} (see tsmon doctor)") from None


def _check(db: sqlite3.Connection, path: Path) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID or version != len(MIGRATIONS):
        raise CliError(f"{path}: is not of this version of tsmon (see tsmon doctor)")
