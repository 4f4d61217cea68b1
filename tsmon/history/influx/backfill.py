"""The embedded history as samples: what tsmon would have written had InfluxDB been there all the time.

State and observed time are those of their moment. Role, system and address are today's: the history does not
keep what they were.
"""

import math
import sqlite3
from bisect import bisect_right
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import msgspec

from tsmon.history.uptime import ObservedTime, Span
from tsmon.monitor.samples import Sample
from tsmon.monitor.state import Node

_STEP = 12
"""Grid times that are made at a time."""


class _Host(NamedTuple):
    id: str
    hostname: str
    node_type: str
    os: str
    ip: str | None


def grid_samples(
    db: sqlite3.Connection, start: float, end: float, interval: float
) -> Iterator[tuple[float, list[Sample]]]:
    """Each grid time from `start` to before `end` (Unix seconds; the grid is the multiples of `interval`), in
    order, with the samples of all nodes whose state is known then; one without any is left out."""
    hosts = dict(_hosts(db))
    pinged = [int(num) for (num,) in db.execute("SELECT DISTINCT node FROM latency")]
    first, last = math.ceil(start / interval), math.ceil(end / interval)
    for at in range(first, last, _STEP):
        grids = [number * interval for number in range(at, min(at + _STEP, last))]
        for grid, samples in zip(grids, _samples(db, grids, hosts, pinged), strict=True):
            if samples:
                yield grid, samples


def oldest_span(db: sqlite3.Connection) -> float | None:
    """When the history begins, in Unix seconds."""
    found: float | None = db.execute("SELECT min(start) FROM spans").fetchone()[0]
    return found


def _hosts(db: sqlite3.Connection) -> Iterator[tuple[int, _Host]]:
    for num, body in db.execute("SELECT num, body FROM nodes"):
        try:
            node = msgspec.msgpack.decode(body, type=Node)
        except msgspec.DecodeError:
            continue  # the daemon says so at its start
        facts = node.facts
        yield num, _Host(node.id, node.hostname, node.role.node_type, facts.os, facts.ip)


def _samples(
    db: sqlite3.Connection, grids: list[float], hosts: dict[int, _Host], pinged: list[int]
) -> list[list[Sample]]:
    """The samples of each of some neighbouring grid times."""
    start, end = grids[0], grids[-1]
    common, own = _observed(db, start, end)
    seen = [_covers(common, grid) for grid in grids]
    latency = {
        (num, time): mean_ms
        for num in pinged
        for time, mean_ms in db.execute(
            "SELECT time, mean_ms FROM latency WHERE node = ? AND time BETWEEN ? AND ?", (num, start, end)
        )
    }
    rows = db.execute(
        "SELECT node, state, start, coalesce(end, 9e999) FROM spans"
        " WHERE (end IS NULL OR end > ?) AND start <= ? ORDER BY node, start",
        (start, end),
    )
    found: list[list[Sample]] = [[] for _ in grids]
    for num, group in groupby(rows, key=lambda row: int(row[0])):
        if num not in hosts:
            continue
        host = hosts[num]
        mine = [_covers(own[host.id], grid) for grid in grids] if host.id in own else seen
        for span in (Span(*row[1:]) for row in group):
            if span.state == "unknown":
                continue
            online = span.state == "online"
            for at, grid in enumerate(grids):
                if mine[at] and span.start <= grid < span.end:
                    found[at].append(_sample(host, online, latency.get((num, grid)) if online else None))
    return found


def _sample(host: _Host, online: bool, latency_ms: float | None) -> Sample:
    return Sample(host.hostname, host.node_type, host.os, int(online), host.ip, latency_ms)


def _observed(
    db: sqlite3.Connection, start: float, end: float
) -> tuple[ObservedTime, dict[str, ObservedTime]]:
    """Observed time of all nodes, and of those that have some of their own (a stopped Self)."""
    rows = db.execute(
        "SELECT scope, start, end FROM observed WHERE end >= ? AND start <= ?", (start, end)
    ).fetchall()
    common = ObservedTime((begin, until) for scope, begin, until in rows if not scope)
    own: dict[str, list[tuple[float, float]]] = {}
    for scope, begin, until in rows:
        if scope:
            own.setdefault(scope, []).append((begin, until))
    return common, {scope: common.joined(stretches) for scope, stretches in own.items()}


def _covers(observed: ObservedTime, time: float) -> bool:
    at = bisect_right(observed.starts, time) - 1
    return at >= 0 and time <= observed.ends[at]
