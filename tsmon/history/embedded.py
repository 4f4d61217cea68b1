"""The embedded history answered: uptime, bars, outages and latency from spans and observed time."""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain
from typing import Any, TypeVar

from tsmon.history.store import Store
from tsmon.history.uptime import (
    Bars,
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
_CHUNK = 500


class EmbeddedHistory:
    """Reads the store in a thread; times in Unix seconds, nodes by stable ID (all when none are named)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def kind(self, start: float) -> str:
        """It is the only one."""
        del start
        return "embedded"

    async def uptime(
        self, start: float, end: float, node_ids: Collection[str] | None = None
    ) -> dict[str, Uptime]:
        """Uptime and coverage of each node over the window. Raises StoreError."""

        def one(spans: list[Stretch], observed: ObservedTime, first_seen: float) -> Uptime:
            return calculate_uptime(spans, observed, start, end, first_seen)

        return await self._store.read(lambda db: _each(db, start, end, node_ids, one))

    async def bars(self, bounds: Sequence[float], node_ids: Collection[str] | None = None) -> dict[str, Bars]:
        """State bars of each node, a bucket between each two neighbouring bounds. Raises StoreError."""

        window = bounds[0], bounds[-1]

        def one(spans: list[Stretch], observed: ObservedTime, first_seen: float) -> Bars:
            return make_bars(spans, observed, bounds, first_seen)

        return await self._store.read(lambda db: _each(db, *window, node_ids, one), timeout=30.0)

    async def outages(self, node_id: str, start: float, end: float) -> list[Outage]:
        """The outages of one node that touch the window, each with its whole length. Raises StoreError."""

        def read(db: sqlite3.Connection) -> list[Outage]:
            rows = db.execute(
                "SELECT state, start, coalesce(end, 9e999) FROM spans"
                " WHERE node = (SELECT num FROM nodes WHERE id = ?) ORDER BY start",
                (node_id,),
            )
            return outages([Span(*row) for row in rows], start, end, _OPEN)

        return await self._store.read(read)

    async def latency(self, node_id: str, start: float, end: float) -> list[LatencyRow]:
        """The latency rows of one node, in order of time. Raises StoreError."""

        def read(db: sqlite3.Connection) -> list[LatencyRow]:
            rows = db.execute(
                "SELECT time, min_ms, mean_ms, max_ms, loss, path FROM latency"
                " WHERE node = (SELECT num FROM nodes WHERE id = ?) AND time BETWEEN ? AND ? ORDER BY time",
                (node_id, start, end),
            )
            return [LatencyRow(node_id, *row) for row in rows]

        return await self._store.read(read)


def _each(
    db: sqlite3.Connection,
    start: float,
    end: float,
    node_ids: Collection[str] | None,
    work: Callable[[list[Stretch], ObservedTime, float], T],
) -> dict[str, T]:
    """`work` for each node. Nodes that kept one state all through the window share one result."""
    observed, own = _observed(db, start)
    nodes = _nodes(db, node_ids)
    shared: dict[str, T] = {}
    found: dict[str, T] = {}
    by_node = _spans(db, start, end, nodes if node_ids is not None else None)
    for num in list(by_node):
        spans = by_node.pop(num)  # to free all of them at once would hold the interpreter for too long
        if num not in nodes:
            continue
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
    return found


def _nodes(db: sqlite3.Connection, node_ids: Collection[str] | None) -> dict[int, tuple[str, float]]:
    """ID and first sighting of the nodes, by number."""
    query, given = "SELECT num, id, first_seen FROM nodes", tuple(node_ids or ())
    if node_ids is not None and len(given) <= _CHUNK:
        rows = db.execute(f"{query} WHERE id IN ({','.join('?' * len(given))})", given)
    else:
        rows = db.execute(query)
    return {num: (id_, seen) for num, id_, seen in rows if node_ids is None or id_ in node_ids}


def _observed(db: sqlite3.Connection, start: float) -> tuple[ObservedTime, dict[str, ObservedTime]]:
    """Observed time from `start` on: for all nodes, and for those that have some of their own."""
    rows = db.execute("SELECT scope, start, end FROM observed WHERE end > ?", (start,)).fetchall()
    common = ObservedTime((begin, end) for scope, begin, end in rows if not scope)
    own: dict[str, list[tuple[float, float]]] = {}
    for scope, begin, end in rows:
        if scope:
            own.setdefault(scope, []).append((begin, end))
    return common, {scope: common.joined(stretches) for scope, stretches in own.items()}


def _spans(
    db: sqlite3.Connection, start: float, end: float, nums: Collection[int] | None
) -> dict[int, list[Stretch]]:
    """Each node's spans that touch the window, in order; open ones end never."""
    columns = "SELECT node, state, start, coalesce(end, 9e999) FROM spans WHERE start < ?"
    wanted = sorted(nums) if nums is not None else []
    if nums is not None and len(wanted) <= _CHUNK:
        marks = ",".join("?" * len(wanted))
        query = f"{columns} AND (end IS NULL OR end > ?) AND node IN ({marks}) ORDER BY node, start"
        rows: Iterable[tuple[Any, ...]] = db.execute(query, (end, start, *wanted))
    else:
        # By their ends, which have an index: what ended before the window is not even looked at. The spans
        # of a node do not overlap, so that this is their order, too; the open one is the last.
        rows = chain(
            db.execute(f"{columns} AND end > ? ORDER BY end", (end, start)),
            db.execute(f"{columns} AND end IS NULL", (end,)),
        )
    found: dict[int, list[Stretch]] = defaultdict(list)
    for row in rows:
        found[row[0]].append(row[1:])
    return found
