"""Asks, at a slow pace, what no status document says: whom the tailnet lock keeps out, and why control is
lost."""

from collections.abc import Awaitable, Callable

import structlog

from tsmon.base.clock import Clock
from tsmon.config import Settings
from tsmon.monitor.batch import Batch
from tsmon.monitor.known import Known
from tsmon.monitor.ledger import Ledger
from tsmon.monitor.state import Event
from tsmon.source import Source
from tsmon.source.diagnosis import TAILSCALE, WORDS, Finding
from tsmon.source.errors import SourceError
from tsmon.source.extras import LockedOut

log = structlog.get_logger(__name__)

_LOCKED_EVERY, _UNLOCKED_EVERY = 60.0, 300.0
"""Seconds from one look to the next in a tailnet with a lock, and in one without."""
_DIAGNOSE_EVERY = 300.0
_LOOK = 5.0

Diagnose = Callable[[str | None], Awaitable[Finding]]


class Lookout:
    """Two jobs; both ask only while their answer means something."""

    def __init__(
        self,
        clock: Clock,
        settings: Settings,
        source: Source,
        known: Known,
        ledger: Ledger,
        *,
        diagnose: Diagnose,
        news: Callable[[], None],
    ) -> None:
        """`diagnose` gets the URL of the control server; `news` is called when something changed."""
        self._clock = clock
        self._settings = settings
        self._source = source
        self._known = known
        self._ledger = ledger
        self._diagnose = diagnose
        self._news = news
        self.control_url: str | None = None

    def apply(self, settings: Settings) -> None:
        """New settings after a reload."""
        self._settings = settings

    # -- the tailnet lock ------------------------------------------------------------------------------

    async def run_lock(self) -> None:
        """Until cancelled."""
        while True:
            wait = _LOOK
            if self._known.sees_at(self._clock.mono()):
                wait = await self.look_at_lock()
            await self._clock.sleep(wait)

    async def look_at_lock(self) -> float:
        """One look; returns the seconds until the next one."""
        try:
            found = await self._source.locked_out()
            self.control_url = await self._source.control_url()
        except SourceError:
            return _LOCKED_EVERY
        async with self._ledger.lock:
            if self._known.sees_at(self._clock.mono()):
                await self._note(found or ())
        return _UNLOCKED_EVERY if found is None else _LOCKED_EVERY

    async def _note(self, found: tuple[LockedOut, ...]) -> None:
        beyond = self._known.beyond
        if found == beyond.locked_out:
            return
        known = {machine.id for machine in beyond.locked_out}
        beyond.locked_out = found
        self._known.renew(**beyond.fields())
        now = self._clock.wall()
        await self._ledger.commit(Batch(), [_event(one, now) for one in found if one.id not in known])
        self._news()

    # -- why blind -------------------------------------------------------------------------------------

    async def run_diagnosis(self) -> None:
        """Until cancelled: while control is lost, find out why."""
        asked = float("-inf")
        while True:
            blind = self._known.view.blind
            now = self._clock.mono()
            if blind is None or blind.reason != "control_lost":
                asked = float("-inf")
            elif self._settings.diagnose and now - asked >= _DIAGNOSE_EVERY:
                asked = now
                await self._explain()
            await self._clock.sleep(_LOOK)

    async def _explain(self) -> None:
        words = WORDS[await self._diagnose(self._control())]
        log.info("control_lost_because", finding=words or "unknown")
        async with self._ledger.lock:
            self._known.sight.explain(words)
        self._news()

    def _control(self) -> str | None:
        """The control server's URL; None where nobody knows it: a sidecar does not say, but Tailscale's own
        tailnets have names of its own."""
        tailnet = self._known.view.tailnet
        suffix = tailnet.suffix if tailnet is not None else ""
        if self.control_url:
            return self.control_url
        if self._settings.control.kind == "headscale":
            return self._settings.control.url
        return TAILSCALE if self._settings.control.kind or suffix.endswith(".ts.net") else None


def _event(machine: LockedOut, now: float) -> Event:
    return Event(
        id=0,
        timestamp=now,
        recorded_at=0.0,
        event_type="node_locked_out",
        severity="warning",
        node_id=machine.id,
        hostname=machine.hostname,
        message=f"{machine.hostname} waits for a signature: the tailnet lock keeps it out",
    )
