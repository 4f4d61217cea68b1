"""When a timed job is due next, under settings that may change while it waits."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable

from tsmon.base.clock import Clock, grid_floor
from tsmon.base.waits import happens

_LONGEST_SLEEP = 30.0

Interval = Callable[[], float]
"""The present interval, in seconds."""


class Pace:
    """Ticks and grid times of jobs whose intervals a reload changes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = asyncio.Event()

    def change(self) -> None:
        """The settings changed: whoever waits counts again, from its last tick."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def ticks(self, interval: Interval) -> AsyncIterator[None]:
        """Yield now, then once per interval. Ticks do not drift; those that were missed (a slow body, a
        sleeping machine) are skipped, never bunched."""
        tick = self._clock.mono()
        while True:
            yield
            ready = self._clock.mono()
            while True:
                every = interval()
                due = tick + (math.floor((ready - tick) / every + 1e-9) + 1) * every
                if not await self._woken(due - self._clock.mono()):
                    break
            tick = due

    async def grid(self, interval: Interval) -> AsyncIterator[float]:
        """Yield each grid time (a multiple of the interval, in Unix seconds) when the wall clock reaches it;
        after a change the first one is the next of the new interval.

        Sleeps are cut at 30 s, so that a step of the wall clock is noticed; a grid time is yielded once, and
        those that were slept through or stepped over are skipped."""
        every = interval()
        last = grid_floor(self._clock.wall(), every)
        while True:
            if every != interval():
                every = interval()
                last = grid_floor(self._clock.wall(), every)
            point = grid_floor(self._clock.wall(), every)
            if point > last:
                last = point
                yield point
            elif last - point > every:  # the clock was set back: start from where it is now
                last = point
            wall = self._clock.wall()
            await self._woken(min(_LONGEST_SLEEP, grid_floor(wall, every) + every - wall))

    async def _woken(self, seconds: float) -> bool:
        """Wait; true when the settings changed meanwhile."""
        if seconds <= 0:
            return False
        return await happens(self._changed, seconds)
