"""How often samples were taken, and since when: a sample stands for one interval. Pure."""

from collections.abc import Iterator
from itertools import pairwise

import msgspec

INTERVALS = "collect_intervals"
"""Name of the value in the store."""
_MOST = 100


class Intervals(msgspec.Struct, frozen=True):
    """The collect intervals of the past."""

    changes: tuple[tuple[float, float], ...]
    """(since, seconds), in order, never empty; before the first one it counts too. Unix seconds."""

    def at(self, moment: float) -> float:
        """The interval, in seconds, of samples taken at `moment`."""
        found = self.changes[0][1]
        for since, seconds in self.changes:
            if since > moment:
                break
            found = seconds
        return found

    def pieces(self, start: float, stop: float) -> Iterator[tuple[float, float, float]]:
        """The stretches from `start` to `stop` that have one interval: (start, stop, seconds)."""
        bounds = [start, *(since for since, _ in self.changes if start < since < stop), stop]
        for begin, end in pairwise(bounds):
            yield begin, end, self.at(begin)

    def changed(self, now: float, seconds: float) -> "Intervals":
        """From `now` on samples are taken every `seconds`."""
        if self.changes[-1][1] == seconds:
            return self
        return Intervals((*self.changes, (now, seconds))[-_MOST:])

    def store(self) -> str:
        """As JSON."""
        return msgspec.json.encode(self).decode()


def load_intervals(text: str | None, now: float, seconds: float) -> Intervals:
    """Those of the last run, and the interval of `seconds` from `now` on if it is another one."""
    try:
        found = msgspec.json.decode(text or "", type=Intervals)
    except msgspec.DecodeError:
        found = None
    return found.changed(now, seconds) if found and found.changes else Intervals(((now, seconds),))
