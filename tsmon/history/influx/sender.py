"""Sends what the outbox holds: in order, one request in flight, for as long as it takes."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from tsmon.base.clock import Clock, rfc3339
from tsmon.base.waits import happens
from tsmon.config import ConfigError, InfluxSettings, redact_url
from tsmon.history.influx.delivery import Delivery
from tsmon.history.influx.outbox import Contents, Outbox, WaitingRequest
from tsmon.history.influx.points import library
from tsmon.history.influx.verdicts import Action, WriteVerdict
from tsmon.history.store import Store, StoreError
from tsmon.monitor.samples import AnySample

log = structlog.get_logger(__name__)

LAG_LIMIT = 900.0
"""Seconds of lag after which `storage_failing` fires."""
_TIMEOUT_MS = 20_000  # the server's own limit is 10 s
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0
_LOOK = 10.0
"""Seconds between two looks for new events."""
_TRIES = 10
"""So many failures (500) on one request, and it is sent in halves; so many more, in quarters."""


class Influx:
    """The sink of samples, and the loop that sends them and the events."""

    def __init__(
        self,
        settings: InfluxSettings,
        store: Store,
        clock: Clock,
        fresh: Callable[[], InfluxSettings] | None = None,
    ) -> None:
        """`fresh` reads the settings again (it may block, and raise ConfigError): a refused token may have
        been rotated."""
        self.error = ""
        """Why the last write failed, "" when it did not."""
        self.last_success: float | None = None
        self.partly_refused = 0
        """Requests of which InfluxDB stored a part only (422) since the start."""
        self._settings = settings
        self._clock = clock
        self._fresh = fresh
        self._token = settings.token
        self._outbox = Outbox(settings, store, clock)
        self._news = asyncio.Event()
        self._contents = Contents()
        self._failed_row, self._failures = 0, 0

    async def look(self) -> None:
        """Count what waits; a store that cannot be read leaves the count as it was."""
        try:
            self._contents = await self._outbox.contents()
        except StoreError as error:
            log.warning("influx_outbox_unread", error=str(error))

    async def put_samples(self, grid: float, samples: Sequence[AnySample]) -> None:
        """Commit the samples of one grid time to the outbox; sending is another's job."""
        await self._outbox.put_samples(grid, samples)
        self._news.set()

    async def put_lines(self, payload: bytes) -> bool:
        """Older samples, as `Outbox.put_lines` takes them; False while enough waits already."""
        taken = await self._outbox.put_lines(payload)
        self._news.set()
        return taken

    @property
    def lag_error(self) -> str:
        """Why InfluxDB lags longer than its limit, "" when it does not."""
        oldest = self._contents.oldest
        if oldest is None or self._clock.wall() - oldest < LAG_LIMIT:
            return ""
        minutes = round((self._clock.wall() - oldest) / 60)
        return f"InfluxDB at {self._name} lags {minutes} min behind: {self.error or 'slow'}"

    def readiness(self) -> dict[str, Any]:
        """For /readyz."""
        contents = self._contents
        return {
            "url": self._name,
            "error": self.error or None,
            "last_success": rfc3339(self.last_success),
            "requests_waiting": contents.requests,
            "lines_waiting": contents.lines,
            "oldest_waiting": rfc3339(contents.oldest),
            "lines_dropped": self._outbox.dropped,
            "lines_quarantined": self._outbox.quarantined,
            "quarantine": [
                {"time": rfc3339(row.created), "line": row.line, "error": row.error}
                for row in contents.latest
            ],
            "requests_partly_refused": self.partly_refused,
        }

    @property
    def marks(self) -> dict[str, str]:
        """How far the events went in, and since when the samples: values of the store."""
        return self._outbox.marks

    @property
    def contents(self) -> Contents:
        """What waits."""
        return self._contents

    @property
    def dropped(self) -> int:
        """Lines dropped since the start."""
        return self._outbox.dropped

    @property
    def quarantined(self) -> int:
        """Lines refused since the start."""
        return self._outbox.quarantined

    @property
    def _name(self) -> str:
        return redact_url(self._settings.url)

    async def run(self) -> None:
        """Send until cancelled; what fails is kept and tried again with growing waits."""
        client_library = await asyncio.to_thread(library)
        while True:
            async with client_library.client.influxdb_client_async.InfluxDBClientAsync(
                url=self._settings.url,
                token=self._token.reveal() if self._token is not None else "",
                org=self._settings.org,
                timeout=_TIMEOUT_MS,
                allow_redirects=False,
            ) as client:
                await self._send_while_token_serves(client)

    async def _send_while_token_serves(self, client: Any) -> None:
        """Returns when another token is to be used."""
        wait = _FIRST_WAIT
        while True:
            self._news.clear()
            try:
                row = await self._next()
                verdict = await self._send(client, row) if row is not None else None
            except StoreError as error:
                verdict = WriteVerdict(Action.RETRY, f"the outbox cannot be read or written: {error}")
            if verdict is None:
                await self._rest()
                continue
            self._note(verdict.words)
            if verdict.action is Action.DONE:
                wait = _FIRST_WAIT
                continue
            if verdict.token and await self._token_changed():
                return
            pause = max(verdict.wait, _LONGEST_WAIT if verdict.action is Action.FIX else wait)
            await self._clock.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 (jitter)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _next(self) -> WaitingRequest | None:
        """The request to be sent; new events go into the outbox before. Raises StoreError."""
        while await self._outbox.take_events():
            pass
        row = await self._outbox.oldest()
        # Counted after: what is being sent is among what waits.
        self._contents = await self._outbox.contents()
        return row

    async def _rest(self) -> None:
        """Until there are samples, or it is time to look for events."""
        await happens(self._news, _LOOK)

    def _note(self, words: str) -> None:
        """Log the change from good to bad and from bad to good, once each."""
        if words and words != self.error:
            log.warning("influx_refuses", url=self._name, error=words)
        elif self.error and not words:
            log.info("influx_accepts", url=self._name)
        self.error = words
        if not words:
            self.last_success = self._clock.wall()

    async def _token_changed(self) -> bool:
        if self._fresh is None:
            return False
        try:
            token = (await asyncio.to_thread(self._fresh)).token
        except ConfigError:
            return False
        changed = (token.reveal() if token else "") != (self._token.reveal() if self._token else "")
        self._token = token
        return changed

    async def _send(self, client: Any, row: WaitingRequest) -> WriteVerdict:
        """Send a request until each of its lines is stored or set aside. Raises StoreError."""
        delivery = Delivery(
            client,
            org=self._settings.org,
            bucket=self._settings.bucket,
            precision="s" if row.grid is not None else "ns",
            now=self._clock.wall,
        )
        failures = self._failures if self._failed_row == row.id else 0
        verdict = await delivery.send(row.payload, 2 ** (failures // _TRIES))
        self.partly_refused += delivery.partly
        if verdict.action is Action.DONE:
            await self._outbox.remove(row.id, delivery.refused)
        self._failed_row, self._failures = row.id, failures + int(verdict.unsure)
        return verdict
