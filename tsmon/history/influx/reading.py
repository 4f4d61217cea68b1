"""Reading samples back: two fleet queries at once at most, answers kept for one collect interval."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp

from tsmon.base.clock import Clock
from tsmon.config import InfluxSettings
from tsmon.history.influx.points import library
from tsmon.history.influx.queries import (
    TALLIES,
    WINDOWS,
    AnswerError,
    Tally,
    bound,
    bound_windows,
    read_tallies,
    read_windows,
)

T = TypeVar("T")
_AT_ONCE = 2
_TIMEOUT_MS = 30_000
_MOST_KEPT = 32
_RETRY = 30.0
"""Seconds after a failure in which InfluxDB is not asked again: pages must not wait for it."""


class ReadError(Exception):
    """InfluxDB could not be asked; the text is one clean line."""


class InfluxReader:
    """What InfluxDB holds of the samples, by hostname tag."""

    def __init__(self, settings: InfluxSettings, clock: Clock, interval: float) -> None:
        """`interval` is that of the samples, in seconds."""
        self.interval = interval
        self.error = ""
        """Why the last query failed, "" when it did not."""
        self._settings = settings
        self._clock = clock
        self._limit = asyncio.Semaphore(_AT_ONCE)
        self._kept: OrderedDict[tuple[Any, ...], tuple[float, asyncio.Future[Any]]] = OrderedDict()
        self._not_before = float("-inf")

    async def tallies(self, start: float, stop: float) -> dict[str, Tally]:
        """Of the samples from `start` up to but not at `stop`. Raises ReadError."""
        if stop - start < 1:
            return {}

        async def ask() -> dict[str, Tally]:
            values = bound(self._settings.bucket, start, stop)
            return await self._ask(TALLIES, values, read_tallies)

        return await self._once(("tallies", int(start), int(stop)), ask)

    async def windows(self, start: float, every: float, count: int) -> dict[str, list[Tally]]:
        """The same for `count` windows of `every` seconds (rounded to whole ones). Raises ReadError."""

        async def ask() -> dict[str, list[Tally]]:
            values = bound_windows(self._settings.bucket, start, every, count)
            return await self._ask(WINDOWS, values, lambda text: read_windows(text, start, every, count))

        return await self._once(("windows", int(start), round(every), count), ask)

    async def _once(self, key: tuple[Any, ...], ask: Callable[[], Awaitable[T]]) -> T:
        """One question at a time for the same thing; its answer serves for one interval."""
        now = self._clock.mono()
        kept = self._kept.get(key)
        if kept is None or now - kept[0] > self.interval:
            kept = (now, asyncio.ensure_future(ask()))
            self._kept[key] = kept
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        try:
            found: T = await asyncio.shield(kept[1])
        except ReadError:
            if self._kept.get(key) is kept:
                del self._kept[key]
            raise
        return found

    async def _ask(self, flux: str, values: dict[str, Any], read: Callable[[str], T]) -> T:
        if self._clock.mono() < self._not_before:
            raise ReadError(self.error)
        async with self._limit:
            try:
                text = await self._fetch(flux, values)
                answer = await asyncio.to_thread(read, text)
            except AnswerError as error:
                raise self._failed(str(error)) from None
        self.error = ""
        return answer

    async def _fetch(self, flux: str, values: dict[str, Any]) -> str:
        influxdb = await asyncio.to_thread(library)
        token = self._settings.token
        try:
            async with influxdb.client.influxdb_client_async.InfluxDBClientAsync(
                url=self._settings.url,
                token=token.reveal() if token is not None else "",
                org=self._settings.org,
                timeout=_TIMEOUT_MS,
                allow_redirects=False,
                enable_gzip=True,
            ) as client:
                # Annotations leave the column `result` blank, and there is more than one result.
                text: str = await client.query_api().query_raw(
                    flux, dialect=influxdb.Dialect(header=True, annotations=[]), params=values
                )
                return text
        except influxdb.rest.ApiException as error:
            raise self._failed(f"answered {error.status} {error.reason or ''}".strip()) from None
        except TimeoutError:
            raise self._failed("no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failed(f"asking failed: {type(error).__name__}") from None

    def _failed(self, words: str) -> ReadError:
        self.error = words
        self._not_before = self._clock.mono() + _RETRY
        return ReadError(words)
