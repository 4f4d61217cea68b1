"""Asks the control server, at its own pace: nothing else waits for it."""

import structlog

from tsmon.base.clock import Clock
from tsmon.config import ControlSettings
from tsmon.monitor.control.keeper import InventoryKeeper
from tsmon.source.control import ControlApi
from tsmon.source.control.fault import ControlError

log = structlog.get_logger(__name__)

CONFIRM = 30.0
"""Seconds until the answer that decides whether what changed counts."""
_RETRIES = (60.0, 120.0)
"""Seconds until a failed question is repeated; then `control.interval` again."""
_CREDENTIALS_EVERY = 6 * 3600.0


class Asking:
    """The job of one control server."""

    def __init__(
        self,
        settings: ControlSettings,
        clock: Clock,
        api: ControlApi,
        keeper: InventoryKeeper,
    ) -> None:
        self.api = api
        self.error = ""
        """Why the newest question has no usable answer."""
        self.credentials_error = ""
        self._settings = settings
        self._clock = clock
        self._keeper = keeper
        self._failures = 0
        self._confirmed = False
        self._credentials_due = float("-inf")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(await self.ask())

    async def ask(self) -> float:
        """One question; returns the seconds until the next one."""
        interval = self._settings.interval
        try:
            soon = await self._keeper.answered(await self.api.devices())
            self._note("")
        except ControlError as error:
            await self._fail(str(error))
            steps = _RETRIES if error.fault not in ("unauthorized", "forbidden") else ()
            wait = steps[self._failures - 1] if self._failures <= len(steps) else interval
            return max(min(wait, interval), error.wait)
        except Exception as error:
            # Whatever a strange answer breaks must not end this job, nor be more than a failed question.
            log.exception("control_broke_the_reader", server=self.api.name)
            await self._fail(f"{self.api.name}: reading it failed with an unforeseen {type(error).__name__}")
            return interval
        await self._look_at_credentials()
        # Once between two ticks: whatever changes all the time doubles the requests, and no more.
        self._confirmed = soon and not self._confirmed
        return min(CONFIRM, interval) if self._confirmed else interval

    async def _fail(self, words: str) -> None:
        self._failures += 1
        self._note(words)
        await self._keeper.failed(words)

    def _note(self, words: str) -> None:
        """Log the change from good to bad and from bad to good, once each."""
        if words and not self.error:
            log.warning("control_api_failed", server=self.api.name, error=words)
        elif not words and self.error:
            log.info("control_api_answers", server=self.api.name)
        if not words:
            self._failures = 0
        self.error = words

    async def _look_at_credentials(self) -> None:
        now = self._clock.mono()
        if now < self._credentials_due:
            return
        self._credentials_due = now + _CREDENTIALS_EVERY
        try:
            found = await self.api.credentials(everyone=self._settings.keys)
        except ControlError as error:
            if str(error) != self.credentials_error:
                log.warning("control_credentials_failed", server=self.api.name, error=str(error))
            self.credentials_error = str(error)
            return
        self.credentials_error = ""
        await self._keeper.note_credentials(found)
