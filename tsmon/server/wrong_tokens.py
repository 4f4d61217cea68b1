"""Wrong tokens: whoever tries many waits longer each time, and the log says where they come from."""

import asyncio
import time

import structlog

log = structlog.get_logger(__name__)

_FORGET_SECONDS = 60.0
_STEP_SECONDS = 0.1
_MOST_SECONDS = 2.0
_MOST_ADDRESSES = 1000
_LOG_SECONDS = 60.0


class WrongTokens:
    """Counts them by address, and forgets an address that has sent none for a minute."""

    def __init__(self) -> None:
        self._count: dict[str, tuple[int, float]] = {}
        self._logged: dict[str, float] = {}

    async def slow_down(self, remote: str) -> None:
        """Wait as long as this address has earned, and log it, at most once a minute."""
        now = time.monotonic()
        count, last = self._count.pop(remote, (0, now))
        count = count + 1 if now - last < _FORGET_SECONDS else 1
        self._count[remote] = count, now
        for known in (self._count, self._logged):
            while len(known) > _MOST_ADDRESSES:
                del known[next(iter(known))]
        if now - self._logged.get(remote, float("-inf")) >= _LOG_SECONDS:
            self._logged.pop(remote, None)
            self._logged[remote] = now
            log.warning("wrong_token", address=remote, count=count)
        await asyncio.sleep(min(_MOST_SECONDS, _STEP_SECONDS * (count - 1)))
