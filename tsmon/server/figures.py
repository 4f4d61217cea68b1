"""Uptime figures of all nodes for the lists: computed off the loop, kept for a short while."""

import asyncio
from typing import Protocol

import structlog

from tsmon.base.clock import Clock
from tsmon.history.store import StoreError
from tsmon.history.uptime import Bars, ByNode, Outage, Uptime
from tsmon.server.render import WINDOWS, Figures

log = structlog.get_logger(__name__)

FRESH = 30.0
"""Seconds for which figures serve unless a node's state changed: uptime over a day moves by 0.03 % in it."""
_RETRY = 5.0
"""Seconds after which a history that could not be read is asked again."""
_SHARE = 10.0
"""However often nodes change, at most a tenth of the time goes into figures."""


class History(Protocol):
    """Where uptime and bars come from: the embedded store, or InfluxDB. Raises StoreError when it cannot be
    read."""

    async def uptime(self, start: float, end: float, node_ids: set[str] | None = None) -> ByNode[Uptime]: ...

    async def bars(self, bounds: list[float], node_ids: set[str] | None = None) -> ByNode[Bars]: ...

    async def outages(self, node_id: str, start: float, end: float) -> list[Outage]: ...


class FigureCache:
    """The figures of all nodes, at most `FRESH` seconds old; several callers share one computation."""

    def __init__(self, history: History, clock: Clock) -> None:
        self._history = history
        self._clock = clock
        self._figures: Figures = {}
        self._fresh_until = float("-inf")
        self._earliest = float("-inf")
        self._failed = False
        self._changes = 0
        self._lock = asyncio.Lock()
        self.version = 0
        """Grows with every computation."""

    def expire(self) -> None:
        """A node changed: the next caller gets new figures, as soon as they may be made again."""
        self._changes += 1
        self._fresh_until = min(self._fresh_until, self._earliest)

    async def get(self) -> Figures:
        """The figures; none (every figure null) while the history cannot be read: the states
        are known without it."""
        async with self._lock:
            if self._clock.mono() >= self._fresh_until:
                await self._renew()
            return self._figures

    async def _renew(self) -> None:
        begun, changes = self._clock.mono(), self._changes
        try:
            self._figures = await self._compute()
        except StoreError as error:
            if not self._failed:
                log.error("figures_failing", error=str(error))
            self._figures, self._failed = {}, True
            self._fresh_until = self._earliest = begun + _RETRY
        else:
            if self._failed:
                log.info("figures_recovered")
            self._failed = False
            self._earliest = begun + min(FRESH, _SHARE * (self._clock.mono() - begun))
            self._fresh_until = begun + FRESH if changes == self._changes else self._earliest
        self.version += 1

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
