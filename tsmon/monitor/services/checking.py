"""Asks the checked ports, spread over the interval, and takes what they answer into what is known."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol
from zlib import crc32

import structlog

from tsmon.base.clock import Clock
from tsmon.config import Settings
from tsmon.monitor.known import Known
from tsmon.monitor.ledger import Ledger
from tsmon.monitor.services.service import ServiceKey, Target
from tsmon.source import Source
from tsmon.source.check_answer import Asker, CannotAskError, CheckAnswer
from tsmon.source.errors import SourceError

log = structlog.get_logger(__name__)

AT_ONCE = 32
"""Checks that are under way at a time."""
_TICK = 1.0
_FIRST = 0.25
"""Seconds per check over which the first ones are spread, at most the interval."""


class Lives(Protocol):
    """Whoever takes the word that a node lives: as good as an answered ping."""

    def __call__(self, node_id: str, age: float) -> Awaitable[None]:
        """The node answered something that was sent `age` seconds ago."""


class Checking:
    """The job of the checks: nothing else waits for it, and it asks nobody while tsmon does not see."""

    def __init__(
        self,
        clock: Clock,
        settings: Settings,
        source: Source,
        known: Known,
        ledger: Ledger,
        *,
        lives: Lives,
        beat: Callable[[str], None],
        news: Callable[[], None],
    ) -> None:
        """`beat` gets "checks" each time the job goes round; `news` is called when a state changed."""
        self.asked = 0
        """How many checks had an outcome."""
        self._clock = clock
        self._settings = settings
        self._source = source
        self._known = known
        self._ledger = ledger
        self._lives = lives
        self._beat = beat
        self._news = news
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._due: dict[ServiceKey, float] = {}  # monotonic time
        self._asked_at: dict[ServiceKey, float] = {}
        self._under_way: set[ServiceKey] = set()
        self._listed_due = float("-inf")

    def apply(self, settings: Settings) -> None:
        """New settings after a reload."""
        self._settings = settings
        self._due.clear()
        self._listed_due = float("-inf")

    async def run(self) -> None:
        """Until cancelled."""
        self._under_way = set()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._beat("checks")
                await self._list_services()
                for target in self._take():
                    self._under_way.add(target.key)
                    tasks.create_task(self._ask(target))
                await self._clock.sleep(_TICK if self._due else self._settings.poll_interval)

    # -- who is asked ----------------------------------------------------------------------------------

    async def _list_services(self) -> None:
        """The Tailscale Services that this machine may see, as often as they are asked."""
        beyond, now = self._known.beyond, self._clock.mono()
        if not self._settings.services or now < self._listed_due or not self._known.sees_at(now):
            return
        self._listed_due = now + self._settings.service_interval
        with contextlib.suppress(SourceError):
            listed = await self._source.services()
            if listed is not None and listed != beyond.listed:
                beyond.listed = listed
                self._news()

    def _take(self) -> list[Target]:
        """Whose turn it is."""
        now = self._clock.mono()
        beyond = self._known.beyond
        found = beyond.services.targets
        spread = min(self._settings.service_interval, _FIRST * len(found))
        # A key's own share of the interval: no two runs, and no two checks, come together.
        self._due = {
            key: self._due.get(key, now + spread * (crc32(key.text.encode()) % 1000) / 1000) for key in found
        }
        self._asked_at = {key: at for key, at in self._asked_at.items() if key in found}
        if not found or not self._known.sees_at(now) or self._asker() is None:
            return []
        self._hurry(now)
        due = [key for key, at in self._due.items() if at <= now and key not in self._under_way]
        for key in due:
            self._asked_at[key] = now
            self._due[key] = now + self._settings.service_interval
        return [found[key] for key in due]

    def _hurry(self, now: float) -> None:
        """Of a node that missed its last ping the ports are asked as often as it is pinged: whichever answers
        proves that it lives before the third miss."""
        missing = self._known.pings.missing
        for key, due in self._due.items() if missing else ():
            if key.owner in missing:
                self._due[key] = min(due, self._asked_at.get(key, now) + self._settings.poll_interval)

    def _asker(self) -> Asker | None:
        """What asks; None, and why, where nobody can be asked."""
        beyond, view = self._known.beyond, self._known.view
        own = view.nodes.get(view.self_id)
        why, asker = "", None
        try:
            asker = self._source.asker(own.facts.ips if own is not None else ())
        except CannotAskError as error:
            why = str(error)
        if why != beyond.cannot_ask:
            beyond.cannot_ask = why
            if why:
                log.warning("checks_cannot_be_asked", reason=why)
            self._news()
        return asker

    # -- one check -------------------------------------------------------------------------------------

    async def _ask(self, target: Target) -> None:
        try:
            async with self._gate:
                asker = self._asker()
                if asker is None:
                    return
                sent = self._clock.now()
                answer = await asker(target.check, target.ip, target.name)
            self.asked += 1
            if await self._record(target, sent.mono, answer):
                self._news()
        except Exception:
            # Whatever one strange server breaks must not end the checks of all others.
            log.exception("check_broke", check=target.key.check, owner=target.key.owner)
        finally:
            self._under_way.discard(target.key)

    async def _record(self, target: Target, sent: float, answer: CheckAnswer) -> bool:
        """Into what is known; one that missed is asked again soon. True when its state changed."""
        known, services = self._known, self._known.beyond.services
        is_node = not target.key.owner.startswith("svc:")
        if answer.lives and is_node:
            await self._lives(target.key.owner, self._clock.mono() - sent)
        async with self._ledger.lock:
            now = self._clock.now()
            if not known.sees_at(now.mono):
                return False
            began = now._replace(mono=sent, wall=now.wall - (now.mono - sent))
            changed = services.record(target.key, began, answer)
            if services.misses(target.key):
                again = now.mono + min(self._settings.poll_interval, self._settings.service_interval)
                self._due[target.key] = min(self._due.get(target.key, again), again)
        return changed
