"""Wall and monotonic time, and sleeping on a grid. The one thing that tests replace.

Inside tsmon a time is a float of Unix seconds (UTC) and a duration a float of seconds.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import NamedTuple


class Moment(NamedTuple):
    """One reading of both clocks: `wall` in Unix seconds, `mono` in seconds of running time."""

    wall: float
    mono: float


class Clock:
    """The clocks of the machine; monotonic time is the event loop's, so a virtual loop moves it."""

    def now(self) -> Moment:
        return Moment(self.wall(), self.mono())

    def wall(self) -> float:
        return time.time()

    def mono(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))

    async def ticks(self, interval: float) -> AsyncIterator[Moment]:
        """Yield now, then once per `interval` seconds from the start. Ticks do not drift; those that
        were missed (a slow body, a sleeping machine) are skipped, never bunched."""
        start = self.mono()
        count = 0
        while True:
            yield self.now()
            count = max(count + 1, math.ceil((self.mono() - start) / interval))
            await self.sleep(start + count * interval - self.mono())


def grid_floor(wall: float, interval: float) -> float:
    """The grid time at or before `wall`."""
    return math.floor(wall / interval) * interval


def rfc3339(wall: float | None) -> str | None:
    """`wall` as RFC 3339 in UTC, cut to whole seconds, or None."""
    if wall is None:
        return None
    return datetime.fromtimestamp(math.floor(wall), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_go_time(text: str) -> float | None:
    """Unix seconds of Go's RFC3339Nano; None for none and for Go's zero time (year 1, in any zone). Raises
    ValueError."""
    if not text or text.startswith(("0001-", "0000-")):
        return None
    try:
        return parse_rfc3339(text)
    except OverflowError as error:
        raise ValueError(str(error)) from None


def parse_rfc3339(text: str) -> float:
    """Unix seconds of an RFC 3339 time; without a zone it is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
