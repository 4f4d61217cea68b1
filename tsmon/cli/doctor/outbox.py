"""What the doctor reads of the outbox to InfluxDB: from the state directory, whether tsmon runs or not."""

import os
import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tsmon.base.text import length_words
from tsmon.cli.doctor.finding import Finding
from tsmon.cli.terminal import plain
from tsmon.config import Settings, state_dir

if TYPE_CHECKING:
    from tsmon.history.influx.outbox import Contents

_LATE = 900.0


def examine_outbox(settings: Settings, now: float) -> Iterator[Finding]:
    """What waits for InfluxDB, and what it refused."""
    from tsmon.history.influx.outbox import look  # noqa: PLC0415 (start-up time)

    path = state_dir(settings, os.environ) / "tsmon.db"
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            contents = look(database)
        finally:
            database.close()
    except sqlite3.DatabaseError:
        return  # what is wrong with the database is reported by its own examination
    if settings.influx.url or contents.requests:
        yield _waiting(contents, now)
    if contents.quarantined:
        yield _refused(contents)


def _waiting(contents: "Contents", now: float) -> Finding:
    if contents.oldest is None:
        return Finding("outbox", "ok", "nothing waits for InfluxDB")
    age = max(0.0, now - contents.oldest)
    says = f"{contents.lines} lines wait for InfluxDB, the oldest for {length_words(age)}"
    if age < _LATE:
        return Finding("outbox", "ok", says)
    return Finding("outbox", "warning", says, "does tsmon run, and can InfluxDB be written? (see influxdb)")


def _refused(contents: "Contents") -> Finding:
    last = contents.latest[0]
    words = f"last {plain(last.line, 160)!r}: {plain(last.error, 160)}"
    says = f"lines that InfluxDB refused: {contents.quarantined}, {words}"
    return Finding("quarantine", "warning", says, "the others were stored; a bug of tsmon: please report it")
