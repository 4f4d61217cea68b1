"""Rows that nobody can read: found when the database is opened, moved to the table `bad_rows`, counted.

What everybody else reads is therefore readable: every column holds the type that the schema says, texts are
UTF-8, bodies decode. A bad row is never a reason not to start.
"""

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import msgspec
import structlog

from tsmon.base.text import clean_text
from tsmon.monitor.alerts import Alert, Silence
from tsmon.monitor.routes import RouteTable
from tsmon.monitor.services.service import Service
from tsmon.monitor.state import Node, State
from tsmon.source.control.devices import Device
from tsmon.source.extras import LockedOut

log = structlog.get_logger(__name__)

Row = dict[str, Any]
Check = Callable[[Row], object]
"""Raises ValueError (msgspec's errors are some) for a row that cannot be read."""

_STORAGE = {"INTEGER": "'integer'", "REAL": "'real','integer'", "TEXT": "'text'", "BLOB": "'blob'"}


class Column(NamedTuple):
    """One column as the schema declares it."""

    name: str
    kind: str
    required: bool
    key: int


class Found(NamedTuple):
    """A bad row of `table`, by its key, and why."""

    table: str
    row: Row
    reason: str


def move_aside(db: sqlite3.Connection, checks: Mapping[str, Check], *, large: bool) -> None:
    """Find and move every bad row, in a transaction of its own. Of a `large` database only tables that are
    read at start are looked at whole: the others take seconds, and their readers skip what they cannot read.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        found = [bad for table in _tables(db) for bad in _bad_rows(db, table, checks, large=large)]
        for bad in found:
            _move(db, bad)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    for bad in found[:10]:
        log.warning("bad_row_set_aside", table=bad.table, reason=bad.reason, in_all=len(found))


def count_aside(db: sqlite3.Connection) -> dict[str, int]:
    """How many rows of which table lie aside."""
    rows = db.execute("SELECT hex(origin), count(*) FROM bad_rows GROUP BY origin ORDER BY origin")
    return {bytes.fromhex(origin).decode("utf-8", "replace"): count for origin, count in rows}


def words_aside(counts: Mapping[str, int]) -> str:
    """The counts as a warning with the remedy; "" when there are none."""
    if not counts:
        return ""
    each = ", ".join(f"{count} of {clean_text(table, 40)}" for table, count in counts.items())
    return (
        f"rows of the database could not be read and lie aside in its table bad_rows: {each}; look for what"
        " writes to the file, or for a failing disk (they go after the retention)"
    )


def _tables(db: sqlite3.Connection) -> list[str]:
    names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    return [name for (name,) in db.execute(names)]


def _columns(db: sqlite3.Connection, table: str) -> list[Column]:
    return [
        Column(name, kind, bool(required), key)
        for _, name, kind, required, _, key in db.execute(f"PRAGMA table_info({table})")
    ]


def _bad_rows(
    db: sqlite3.Connection, table: str, checks: Mapping[str, Check], *, large: bool
) -> Iterator[Found]:
    columns = _columns(db, table)
    check = checks.get(table) or _CHECKS.get(table)
    suspects = _SUSPECTS.get(table, "1" if check is not None else "0")
    if large and table in _GROWING:
        where = _GROWING[table]
    else:
        where = " OR ".join([suspects, *map(_is_odd, columns)])
    # Texts come as bytes: one that is no UTF-8 could not be read at all.
    shown = ", ".join(
        f"CASE typeof({c.name}) WHEN 'text' THEN CAST({c.name} AS BLOB) ELSE {c.name} END, typeof({c.name})"
        for c in columns
    )
    for values in db.execute(f"SELECT {shown} FROM {table} WHERE {where}").fetchall():  # noqa: S608 (the schema's names)
        row = {c.name: values[2 * n] for n, c in enumerate(columns)}
        kinds = {c.name: values[2 * n + 1] for n, c in enumerate(columns)}
        reason = _reason(row, kinds, columns, check)
        if reason:
            key = {c.name: _bound(row[c.name], kinds[c.name]) for c in columns if c.key}
            yield Found(table, {"key": key, "row": row, "kinds": kinds}, reason)


def _is_odd(column: Column) -> str:
    """SQL: the value may be none that this column holds. What is not ASCII is looked at more closely."""
    name = column.name
    allowed = _STORAGE[column.kind] + ("" if column.required or column.key else ",'null'")
    odd = f"typeof({name}) NOT IN ({allowed})"
    return f"{odd} OR {name} GLOB '*[^ -~]*'" if column.kind == "TEXT" else odd


def _reason(row: Row, kinds: Row, columns: Sequence[Column], check: Check | None) -> str:
    """Why the row cannot be read, "" when it can."""
    decoded: Row = {}
    for column in columns:
        value, kind = row[column.name], kinds[column.name]
        if kind == "null" and not column.required and not column.key:
            decoded[column.name] = None
        elif f"'{kind}'" not in _STORAGE[column.kind]:
            return f"{column.name} holds {kind}"
        else:
            try:
                decoded[column.name] = value.decode("utf-8") if kind == "text" else value
            except UnicodeDecodeError:
                return f"{column.name} is no UTF-8"
    try:
        if check is not None:
            check(decoded)
    except (ValueError, RecursionError) as error:
        return str(error)[:200] or "its content cannot be read"
    return ""


def _bound(value: Any, kind: str) -> tuple[str, Any]:
    """How the very same value is named in a statement."""
    return ("CAST(? AS TEXT)" if kind == "text" else "?"), value


def _move(db: sqlite3.Connection, bad: Found) -> None:
    key, row = bad.row["key"], bad.row["row"]
    kept = {
        name: value.decode("utf-8", "backslashreplace")
        if bad.row["kinds"][name] == "text"
        else {"hex": value.hex()}
        if isinstance(value, bytes)
        else value
        for name, value in row.items()
    }
    db.execute(
        "INSERT INTO bad_rows (found, origin, reason, body) VALUES (?, ?, ?, ?)",
        (time.time(), bad.table, bad.reason, json.dumps(kept)),
    )
    where = " AND ".join(f"{name} IS {mark}" for name, (mark, _) in key.items())
    values = [value for _, value in key.values()]
    if bad.table == "nodes" and _is_named(row):
        # Its history goes on under the same number once the tailnet lists it again.
        db.execute(
            "UPDATE nodes SET hostname = CAST(id AS TEXT), first_seen = ?, removed_at = NULL, body = x'',"  # noqa: S608
            " predecessor = NULL, joined = NULL, family = NULL"
            f" WHERE {where}",
            (time.time(), *values),
        )
        return
    db.execute(f"DELETE FROM {bad.table} WHERE {where}", values)  # noqa: S608 (the schema's names)


def _is_named(row: Row) -> bool:
    """The stable ID of a bad node can be read."""
    return isinstance(row["id"], bytes) and row["id"].isascii() and row["id"].decode().isprintable()


# -- what is in the columns --------------------------------------------------------------------------------


def _same(row: Row, decoded: Any, *names: str) -> None:
    """The columns repeat what the body says."""
    for name in names:
        if row[name] != getattr(decoded, name):
            raise ValueError(f"{name} is not what the body says")


def _check_node(row: Row) -> None:
    _same(row, msgspec.msgpack.decode(row["body"], type=Node), "id", "hostname", "removed_at")


def _check_alert(row: Row) -> None:
    _same(row, msgspec.msgpack.decode(row["body"], type=Alert), "id", "kind", "severity", "state")


def _check_silence(row: Row) -> None:
    _same(row, msgspec.json.decode(row["body"], type=Silence), "id", "created", "ends")


def _check_device(row: Row) -> None:
    _same(row, msgspec.msgpack.decode(row["body"], type=Device), "id")


def _check_service(row: Row) -> None:
    service = msgspec.msgpack.decode(row["body"], type=Service)
    if row["id"] != service.key.text:
        raise ValueError("id is not what the body says")


def _check_event(row: Row) -> None:
    msgspec.json.decode(row["details"], type=dict[str, Any])


def _check_span(row: Row) -> None:
    if row["state"] not in get_args(State):
        raise ValueError(f"state {row['state']!r} is none")


_NUMBERS = ("last_grid", "blind_since", "last_events_id", "last_alerts_id", "influx_last_event")
_JSON: Mapping[str, Any] = {
    "roles_missing": dict[str, Node],
    "tailnet": dict[str, Any],
    "control": dict[str, Any],
    "control_redundant": list[str],
    "routes": RouteTable,
    "locked_out": list[LockedOut],
}


def _check_meta(row: Row) -> None:
    key, value = row["key"], row["value"]
    if key in _NUMBERS and not math.isfinite(float(value)):
        raise ValueError(f"{key} is no number")
    if key in _JSON and value:
        msgspec.json.decode(value, type=_JSON[key])


_CHECKS: Mapping[str, Check] = {
    "nodes": _check_node,
    "alerts": _check_alert,
    "silences": _check_silence,
    "control_devices": _check_device,
    "services": _check_service,
    "service_spans": _check_span,
    "events": _check_event,
    "spans": _check_span,
    "meta": _check_meta,
}
_SUSPECTS = {
    "nodes": "length(body) > 0",
    "events": "NOT json_valid(details)",
    "spans": "state NOT IN (" + ", ".join(f"'{state}'" for state in get_args(State)) + ")",
}
"""SQL: rows that may fail their check; without an entry every row of a table that has one is checked."""
_GROWING = {
    "nodes": "removed_at IS NULL AND length(body) > 0",
    "alerts": "state <> 'resolved'",
    "events": "0",
    "spans": "0",
    "service_spans": "0",
    "observed": "0",
    "latency": "0",
    "notifications": "delivered_at IS NULL AND failed IS NULL",
}
"""SQL: what of a large database's growing tables is looked at when it is opened."""
