"""The embedded history answered: uptime, bars, outages and latency from spans and observed time."""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

from tsmon.history.lineage import ancestors, joined_since
from tsmon.history.loading import chunks
from tsmon.history.store import Store
from tsmon.history.uptime import (
    Bars,
    ByNode,
    ObservedTime,
    Outage,
    Span,
    Stretch,
    Uptime,
    calculate_uptime,
    make_bars,
    outages,
)
from tsmon.monitor.batch import LatencyRow

T = TypeVar("T")
_OPEN = float("inf")
_AT_ONCE = 500
"""Nodes that one statement names."""


class EmbeddedHistory:
    """Reads the store in a thread; times in Unix seconds, nodes by stable ID (all when none are named)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def uptime(
        self, start: float, end: float, node_ids: Collection[str] | None = None
    ) -> ByNode[Uptime]:
        """Uptime and coverage of each node over the window. Raises StoreError."""

        def one(spans: list[Stretch], observed: ObservedTime, first_seen: float) -> Uptime:
            return calculate_uptime(spans, observed, start, end, first_seen)

        found = await self._store.read(lambda db: _each(db, start, end, node_ids, one), reader="figures")
        return ByNode(found)

    async def bars(self, bounds: Sequence[float], node_ids: Collection[str] | None = None) -> ByNode[Bars]:
        """State bars of each node, a bucket between each two neighbouring bounds. Raises StoreError."""

        window = bounds[0], bounds[-1]

        def one(spans: list[Stretch], observed: ObservedTime, first_seen: float) -> Bars:
            return make_bars(spans, observed, bounds, first_seen)

        return ByNode(
            await self._store.read(lambda db: _each(db, *window, node_ids, one), timeout=30.0, reader="bars")
        )

    async def outages(self, node_id: str, start: float, end: float) -> list[Outage]:
        """The outages of one node that touch the window, each with its whole length. Raises StoreError."""

        def read(db: sqlite3.Connection) -> list[Outage]:
            found = db.execute("SELECT num FROM nodes WHERE id = ?", (node_id,)).fetchone()
            spans = [row for line in _line(db, found[0]) for row in _spans_until(db, *line)] if found else []
            return outages([Span(*row) for row in spans], start, end, _OPEN)

        return await self._store.read(read)

    async def latency(self, node_id: str, start: float, end: float) -> list[LatencyRow]:
        """The latency rows of one node, in order of time. Raises StoreError."""

        def read(db: sqlite3.Connection) -> list[LatencyRow]:
            found = db.execute("SELECT num FROM nodes WHERE id = ?", (node_id,)).fetchone()
            return [
                LatencyRow(node_id, *row)
                for num, last in (_line(db, found[0]) if found else ())
                for row in db.execute(
                    "SELECT time, min_ms, mean_ms, max_ms, loss, path FROM latency"
                    " WHERE node = ? AND time BETWEEN ? AND ? AND time < ? ORDER BY time",
                    (num, start, end, last),
                )
            ]

        return await self._store.read(read)

    async def latency_lines(
        self, node_ids: Sequence[str], start: float, end: float, step: float
    ) -> dict[str, list[tuple[float, float | None]]]:
        """The mean latency of each node per `step` seconds, None where every ping was lost. Raises
        StoreError."""

        def read(db: sqlite3.Connection) -> dict[str, list[tuple[float, float | None]]]:
            means = (
                "SELECT n.id, cast(l.time / ? AS INTEGER) * ? AS t, avg(l.mean_ms)"
                " FROM latency l JOIN nodes n ON n.num = l.node"
            )
            found: dict[str, list[tuple[float, float | None]]] = {}
            for at in range(0, len(node_ids), _AT_ONCE):
                part = node_ids[at : at + _AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = db.execute(
                    f"{means} WHERE n.id IN ({marks}) AND l.time BETWEEN ? AND ? GROUP BY n.id, t ORDER BY t",
                    (step, step, *part, start, end),
                )
                for id_, time, mean in rows:
                    found.setdefault(id_, []).append((time, mean))
            return found

        return await self._store.read(read)


def _each(
    db: sqlite3.Connection,
    start: float,
    end: float,
    node_ids: Collection[str] | None,
    work: Callable[[list[Stretch], ObservedTime, float], T],
) -> dict[str, T]:
    """`work` for each node. Nodes that kept one state all through the window share one result."""
    observed, own = observed_since(db, start)
    nodes = _nodes(db, node_ids)
    shared: dict[str, T] = {}
    found: dict[str, T] = {}
    for num, rows in groupby(_spans(db, start, end, node_ids), key=itemgetter(0)):
        spans = [row[1:] for row in rows]
        id_, first_seen = nodes[num]
        state, begin, until = spans[0]
        quiet = len(spans) == 1 and begin <= start and until >= end and first_seen <= start
        if not quiet or id_ in own:
            found[id_] = work(spans, own.get(id_, observed), first_seen)
            continue
        if state not in shared:
            shared[state] = work(spans, observed, first_seen)
        found[id_] = shared[state]
    for id_, first_seen in nodes.values():
        if id_ not in found:
            found[id_] = work([], observed, first_seen)
    for num in joined_since(db, start, nodes):
        # Before it took the place of another node, that one's time counts (rule 4.7).
        id_, first_seen = nodes[num]
        whole = [row for line in _line(db, num) for row in _spans_until(db, *line) if row[2] > start]
        first = min([first_seen, *(one.first_seen for one in ancestors(db, num))])
        found[id_] = work([row for row in whole if row[1] < end], own.get(id_, observed), first)
    return found


def _line(db: sqlite3.Connection, num: int) -> list[tuple[int, float]]:
    """The node's predecessors, the oldest first, and itself; each until another took its place."""
    return [*((one.num, one.until) for one in ancestors(db, num)), (num, _OPEN)]


def _spans_until(db: sqlite3.Connection, num: int, end: float) -> list[Stretch]:
    rows = db.execute(
        "SELECT state, start, coalesce(end, 9e999) FROM spans WHERE node = ? AND start < ? ORDER BY start",
        (num, end),
    )
    return [(state, begin, min(stop, end)) for state, begin, stop in rows]


def _which(node_ids: Collection[str] | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Conditions on `nodes` that together give the nodes of these IDs, or all that are present."""
    if node_ids is None:
        yield "removed_at IS NULL", ()
    else:
        for chunk in chunks(node_ids):
            yield f"id IN ({','.join('?' * len(chunk))})", chunk


def _nodes(db: sqlite3.Connection, node_ids: Collection[str] | None) -> dict[int, tuple[str, float]]:
    """ID and first sighting of the nodes, by number."""
    return {
        num: (id_, seen)
        for where, given in _which(node_ids)
        for num, id_, seen in db.execute(f"SELECT num, id, first_seen FROM nodes WHERE {where}", given)  # noqa: S608
    }


def observed_since(db: sqlite3.Connection, start: float) -> tuple[ObservedTime, dict[str, ObservedTime]]:
    """Observed time from `start` on: for all nodes, and for those that have some of their own."""
    rows = db.execute("SELECT scope, start, end FROM observed WHERE end > ?", (start,)).fetchall()
    common = ObservedTime((begin, end) for scope, begin, end in rows if not scope)
    own: dict[str, list[tuple[float, float]]] = {}
    for scope, begin, end in rows:
        if scope:
            own.setdefault(scope, []).append((begin, end))
    return common, {scope: common.joined(stretches) for scope, stretches in own.items()}


def _spans(
    db: sqlite3.Connection, start: float, end: float, node_ids: Collection[str] | None
) -> Iterator[tuple[Any, ...]]:
    """(node, state, start, end) of each node's spans that touch the window, node by node and in order;
    open ones end never. A node's spans do not overlap: the first to read is the last that began before the
    window."""
    for where, given in _which(node_ids):
        yield from db.execute(
            "SELECT num, state, start, coalesce(end, 9e999) FROM nodes CROSS JOIN spans ON node = num"  # noqa: S608
            " AND start >= coalesce((SELECT max(start) FROM spans WHERE node = num AND start <= ?), -9e999)"
            f" AND start < ? WHERE {where} AND (end IS NULL OR end > ?)",
            (start, end, *given, start),
        )
