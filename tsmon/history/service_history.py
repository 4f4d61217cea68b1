"""The history of checked ports answered: uptime, bars and outages, by the same rules as those of nodes."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

from tsmon.history.embedded import observed_since
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
from tsmon.monitor.services.service import ServiceKey

T = TypeVar("T")
_Row = tuple[str, float, str | None, float | None, float | None]


class ServiceHistory:
    """Reads the store in a thread; times in Unix seconds. Of services that are asked now."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def uptime(self, start: float, end: float, owner: str | None = None) -> dict[ServiceKey, Uptime]:
        """Uptime and coverage of each service of `owner` (of all) over the window. Raises StoreError."""

        def one(spans: list[Stretch], observed: ObservedTime, first_seen: float) -> Uptime:
            return calculate_uptime(spans, observed, start, end, first_seen)

        return await self._store.read(lambda db: _each(db, start, end, owner, one), reader="figures")

    async def bars(self, bounds: Sequence[float], owner: str | None = None) -> dict[ServiceKey, Bars]:
        """State bars of each service of `owner` (of all), a bucket between each two neighbouring bounds.
        Raises StoreError."""

        def one(spans: list[Stretch], observed: ObservedTime, first_seen: float) -> Bars:
            return make_bars(spans, observed, bounds, first_seen)

        return await self._store.read(lambda db: _each(db, bounds[0], bounds[-1], owner, one), reader="bars")

    async def outages(self, start: float, end: float, owner: str) -> dict[ServiceKey, list[Outage]]:
        """The outages of each service of `owner` that touch the window, each with its whole length. Raises
        StoreError."""

        def read(db: sqlite3.Connection) -> dict[ServiceKey, list[Outage]]:
            return {
                key: outages([Span(*span) for span in spans], start, end, float("inf"))
                for key, _, spans in services_between(db, float("-inf"), float("inf"), owner)
            }

        return await self._store.read(read)


def _each(
    db: sqlite3.Connection,
    start: float,
    end: float,
    owner: str | None,
    work: Callable[[list[Stretch], ObservedTime, float], T],
) -> dict[ServiceKey, T]:
    observed, _ = observed_since(db, start)
    return {
        key: work(spans, observed, first_seen)
        for key, first_seen, spans in services_between(db, start, end, owner)
    }


def services_between(
    db: sqlite3.Connection, start: float, end: float, owner: str | None
) -> Iterator[tuple[ServiceKey, float, list[Stretch]]]:
    """Key, first sight, and the spans that touch the window, in order (open ones end never), of the services
    of `owner` (of all) that are asked now."""
    mine = "" if owner is None else " AND s.id > ? AND s.id < ?"
    # A blank ends the owner's name, and "!" is the character after it.
    given = () if owner is None else (f"{owner} ", f"{owner}!")
    rows = db.execute(
        "SELECT s.id, s.first_seen, p.state, p.start, coalesce(p.end, 9e999) FROM services s"  # noqa: S608
        " LEFT JOIN service_spans p ON p.service = s.num AND p.start < ? AND (p.end IS NULL OR p.end > ?)"
        f" WHERE s.removed_at IS NULL{mine} ORDER BY s.num, p.start",
        (end, start, *given),
    )
    for id_, group in groupby(rows, key=itemgetter(0)):
        found = list(group)
        owner_of, check = id_.split(" ", 1)
        spans = [(row[2], row[3], row[4]) for row in found if row[2] is not None]
        yield ServiceKey(owner_of, check), found[0][1], spans
