"""What the embedded history says of a period: each node's sums, outages, days and notes. Read in a thread."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from tsmon.config import MaintenanceSettings
from tsmon.config.windows import occurrences
from tsmon.history.embedded import observed_since
from tsmon.history.loading import find_nodes
from tsmon.history.notes import Note, notes_between
from tsmon.history.report import Period, Stretches, Sums, day_letters, is_planned, merged, node_sums
from tsmon.history.store import Store
from tsmon.history.uptime import ObservedTime, Outage, Span, outages
from tsmon.monitor.selection import selector_of
from tsmon.monitor.state import Node

_SECONDS = 60.0
"""How long reading may take: a year of a large tailnet."""


_OPEN = float("inf")
_LAST: tuple[int, Iterator[tuple[Any, ...]]] = (-1, iter(()))


class ReportedOutage(msgspec.Struct, frozen=True, gc=False):
    """One outage that touches the period, with its whole length; Unix seconds."""

    start: float
    end: float | None
    """None while it lasts."""
    reason: str | None
    """As the event says: `control`, `unreachable`, `stopped`, `key_expired`; None when it is not known."""
    planned: bool
    """All of it that lies in the period was planned."""
    notes: tuple[Note, ...]


class ReportedNode(NamedTuple):
    """One node in the period."""

    node: Node
    sums: Sums
    outages: tuple[ReportedOutage, ...]
    """In order, planned ones too."""
    days: str
    """One letter a day (`day_letters`)."""


async def read_report(
    store: Store,
    period: Period,
    windows: Sequence[MaintenanceSettings],
    present: Mapping[str, Node],
    wanted: Callable[[Node], bool] = lambda _: True,
) -> list[ReportedNode]:
    """The `wanted` ones of the nodes that were there in the period, removed ones too. `present` are those of
    the tailnet now, by ID. Raises StoreError."""
    return await store.read(lambda db: _read(db, period, windows, present, wanted), timeout=_SECONDS)


def _read(
    db: sqlite3.Connection,
    period: Period,
    windows: Sequence[MaintenanceSettings],
    present: Mapping[str, Node],
    wanted: Callable[[Node], bool],
) -> list[ReportedNode]:
    start, end, _ = period
    common, own = observed_since(db, start)
    rows = db.execute(
        "SELECT num, id, first_seen FROM nodes WHERE removed_at IS NULL OR removed_at > ? ORDER BY num",
        (start,),
    ).fetchall()
    known = _known(db, present, [id_ for _, id_, _ in rows])
    plans = Plans(windows, period, notes_between(db, start, end))
    reasons = _Reasons(db, start, end)
    bounds = period.days
    shared: dict[str, tuple[Sums, str]] = {}

    def figures(mine: list[Any], observed: ObservedTime, plan: Stretches, seen: float) -> tuple[Sums, str]:
        sums = node_sums(mine, observed, plan, start=start, end=end, first_seen=seen)
        return sums, day_letters(mine, observed, plan, bounds, seen)

    found = []
    # One node after the other: a month of all spans at once is what Python's search for cycles would go
    # through, again and again, and nothing else runs meanwhile.
    spans = groupby(_spans(db, start, end), key=itemgetter(0))
    numbered, some = next(spans, _LAST)
    for num, id_, first_seen in rows:
        mine = []
        if numbered == num:
            mine = [row[1:] for row in some]
            numbered, some = next(spans, _LAST)
        node = known.get(id_)
        if node is None or first_seen >= end or not wanted(node):
            continue
        # Most nodes were online throughout, and all of those are alike.
        quiet = len(mine) == 1 and mine[0][1] <= start and mine[0][2] >= end and first_seen <= start
        if quiet and mine[0][0] == "online" and id_ not in own:
            if "online" not in shared:
                shared["online"] = figures(mine, common, (), first_seen)
            found.append(ReportedNode(node, shared["online"][0], (), shared["online"][1]))
            continue
        plan = plans.of(node)
        sums, days = figures(mine, own.get(id_, common), plan, first_seen)
        down = _outages(db, num, mine, start, end)
        notes = plans.notes.get(id_, ())
        told = tuple(
            ReportedOutage(
                outage.start,
                outage.end,
                reasons.of(id_, outage.start),
                bool(plan) and is_planned(outage, plan, start, end),
                tuple(note for note in notes if _touches(note, outage)) if notes else (),
            )
            for outage in down
        )
        found.append(ReportedNode(node, sums, told, days))
    return found


class Plans:
    """When which node's outages are planned."""

    def __init__(
        self, windows: Sequence[MaintenanceSettings], period: Period, notes: Mapping[str, Sequence[Note]]
    ) -> None:
        self.notes = notes
        self._windows = [
            (selector_of(window), occurrences(window, period.start, period.end)) for window in windows
        ]
        self._merged: dict[tuple[int, ...], Stretches] = {}

    def of(self, node: Node) -> Stretches:
        """Of windows and notes, merged."""
        chosen = tuple(n for n, (selector, _) in enumerate(self._windows) if selector.selects(node))
        if chosen not in self._merged:
            self._merged[chosen] = merged(times for n in chosen for times in self._windows[n][1])
        noted = [(note.start, note.end) for note in self.notes.get(node.id, ()) if note.planned]
        return merged([*self._merged[chosen], *noted]) if noted else self._merged[chosen]


def _touches(note: Note, outage: Outage) -> bool:
    return note.end > outage.start and (outage.end is None or note.start < outage.end)


def _known(db: sqlite3.Connection, present: Mapping[str, Node], ids: list[str]) -> dict[str, Node]:
    """The nodes of these IDs."""
    gone = [id_ for id_ in ids if id_ not in present]
    return {**present, **{node.id: node for node in find_nodes(db, gone)}}


def _spans(db: sqlite3.Connection, start: float, end: float) -> Iterator[tuple[Any, ...]]:
    """(node, state, start, end) of the spans in the period, node by node and in order, each node's from the
    last one that began before it: one that also ended before it says that the node was removed."""
    return db.execute(
        "SELECT num, state, start, coalesce(end, 9e999) FROM nodes CROSS JOIN spans ON node = num"
        " AND start >= coalesce((SELECT max(start) FROM spans WHERE node = num AND start <= ?), -9e999)"
        " AND start < ? WHERE removed_at IS NULL OR removed_at > ? ORDER BY num, start",
        (start, end, start),
    )


def _outages(
    db: sqlite3.Connection, num: int, spans: Sequence[tuple[Any, ...]], start: float, end: float
) -> list[Outage]:
    """The outages of one node that touch the period, each with its whole length."""
    if all(state != "offline" for state, _, _ in spans):
        return []
    last_state, _, last_end = spans[-1]
    if spans[0][0] == "online" and (last_state == "online" or last_end == _OPEN):
        whole = spans
    else:
        # One may have begun before the period, or go on after it.
        whole = db.execute(
            "SELECT state, start, coalesce(end, 9e999) FROM spans WHERE node = ? ORDER BY start", (num,)
        ).fetchall()
    return outages([Span(*row) for row in whole], start, end, _OPEN)


class _Reasons:
    """Why nodes went offline, as the events of that moment say."""

    def __init__(self, db: sqlite3.Connection, start: float, end: float) -> None:
        self._db = db
        self._start = start
        self._known = self._read("timestamp BETWEEN ? AND ?", start, end)

    def of(self, node_id: str, at: float) -> str | None:
        """None when no event says it (any more)."""
        if at < self._start:
            found = self._read("node_id = ? AND timestamp = ?", node_id, at)
            return found.get((node_id, at))
        return self._known.get((node_id, at))

    def _read(self, condition: str, *values: object) -> dict[tuple[str, float], str | None]:
        rows = self._db.execute(
            "SELECT node_id, timestamp, CASE WHEN json_valid(details)"  # noqa: S608 (two conditions)
            " THEN json_extract(details, '$.reason') END FROM events"
            f" WHERE event_type = 'node_offline' AND {condition}",
            values,
        )
        return {(node_id, at): reason for node_id, at, reason in rows}
