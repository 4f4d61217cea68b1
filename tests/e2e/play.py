"""What a scene on a real tailnet is played with."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.e2e.patches import Patches
from tests.e2e.script import Script, Window
from tests.e2e.tailnet import RealTailnet
from tests.e2e.watching import POLL, Pair, Watching
from tsmon.monitor.state import Event


class Play(NamedTuple):
    """A tailnet, its monitors, and what was done so far."""

    tailnet: RealTailnet
    pair: Pair
    patches: Patches
    script: Script

    async def until(
        self,
        condition: Callable[[Watching], Any],
        seconds: float,
        what: str = "",
        since: float | None = None,
    ) -> Window:
        """From now until the last monitor said so (Unix seconds); the rest as `Pair.until`."""
        begun = time.time()
        found = await self.pair.until(condition, seconds, what, since)
        return Window(begun - 0.1, max(found.values()) + 0.1)

    async def sees_again(self, what: str) -> Window:
        """Both see the tailnet and their alert is over."""
        window = await self.until(lambda tsmon: tsmon.blind() is None, 60, what)
        await self.until(lambda tsmon: not blind_alert(tsmon), 40)
        return window

    async def goes_blind(self, reason: str, seconds: float, what: str) -> Window:
        """Both say so and their alert fires; the stretch begins at their last trusted document."""
        begun = time.time()
        await self.until(lambda tsmon: tsmon.blind() == reason, seconds, what)
        await self.until(blind_alert, 30)
        return Window(begun - POLL - 1, begun + 2)

    async def note_delay(self, what: str, name: str, number: str, *, online: bool, after: float) -> None:
        """The seconds from control's patch, as it came to the monitor's node, to the recorded event."""
        kind = "node_online" if online else "node_offline"
        patched = self.patches.first(number, online=online, after=after)
        for tsmon in self.pair.monitors:
            # The view is there before its step is stored and its events are told.
            async with asyncio.timeout(10):
                while (event := _find(tsmon, kind, name, after)) is None:  # noqa: ASYNC110 (tsmon's own work)
                    await asyncio.sleep(0.02)
            delay = event.recorded_at - patched
            self.pair.figures.setdefault(what, {})[tsmon.source] = delay
            # The bus tells at once (a read per second at most); the sidecar is asked every `POLL`.
            limit = 2.5 if tsmon.source == "localapi" else POLL + 2.5
            assert -0.1 <= delay <= limit, (tsmon.source, what, delay)


def _find(tsmon: Watching, kind: str, name: str, after: float) -> Event | None:
    found = (event for event in tsmon.events if (event.event_type, event.hostname) == (kind, name))
    return next((event for event in found if event.recorded_at >= after), None)


def blind_alert(tsmon: Watching) -> bool:
    return any(kind == "monitor_blind" for kind, _ in tsmon.alerts())


def alert(kind: str, *names: str) -> Callable[[Watching], bool]:
    """The alert of this kind fires for each of the nodes."""
    return lambda tsmon: {(kind, name) for name in names} <= tsmon.alerts()


def no_alert(*names: str) -> Callable[[Watching], bool]:
    return lambda tsmon: not any(name in names for _, name in tsmon.alerts())


def is_(name: str, state: str, reason: str | None = None) -> Callable[[Watching], bool]:
    return lambda tsmon: tsmon.state(name) == (state, reason)
