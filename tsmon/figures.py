"""Uptime figures of all nodes for the lists: computed off the loop, kept for a short while."""

import asyncio
from typing import Protocol

from tsmon.clock import Clock
from tsmon.render import WINDOWS, Figures
from tsmon.uptime import Bars, Outage, Uptime

FRESH = 30.0
"""Seconds for which figures serve unless a node's state changed: uptime over a day moves by 0.03 % in it."""


class History(Protocol):
    """Where uptime and bars come from: the embedded store, or InfluxDB."""

    @property
    def kind(self) -> str:
        """`embedded` or `influxdb`."""

    async def uptime(
        self, start: float, end: float, node_ids: set[str] | None = None
    ) -> dict[str, Uptime]: ...

    async def bars(self, bounds: list[float], node_ids: set[str] | None = None) -> dict[str, Bars]: ...

    async def outages(self, node_id: str, start: float, end: float) -> list[Outage]: ...


class FigureCache:
    """The figures of all nodes, at most `FRESH` seconds old; several callers share one computation."""

    def __init__(self, history: History, clock: Clock) -> None:
        self._history = history
        self._clock = clock
        self._figures: Figures = {}
        self._made = float("-inf")
        self._lock = asyncio.Lock()
        self.version = 0
        """Grows with every computation."""

    def expire(self) -> None:
        """A node changed: the next caller gets new figures."""
        self._made = float("-inf")

    async def get(self) -> Figures:
        """Raises StoreError when the history cannot be read."""
        async with self._lock:
            if self._clock.mono() - self._made >= FRESH:
                made = self._clock.mono()
                self._figures = await self._compute()
                self._made = made
                self.version += 1
            return self._figures

    async def _compute(self) -> Figures:
        now = self._clock.wall()
        day, week, month = [await self._history.uptime(now - w, now) for w in WINDOWS.values()]
        return {
            id_: (
                uptime.uptime_percentage,
                week[id_].uptime_percentage if id_ in week else None,
                month[id_].uptime_percentage if id_ in month else None,
                uptime.coverage,
            )
            for id_, uptime in day.items()
        }
