"""Bounded work: so many at a time, so many who wait for it, and whoever comes then is asked to come again."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

Whois = Callable[[str], Awaitable[dict[str, Any] | None]]


class BusyError(Exception):
    """Too much of this kind is asked already: 503 with Retry-After."""


class WaitingLine:
    """A line before work that is expensive."""

    def __init__(self, at_work: int = 2, waiting: int = 32) -> None:
        self._places = asyncio.Semaphore(at_work)
        self._most = at_work + waiting
        self._here = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a place and hold it. Raises BusyError when too many wait already."""
        if self._here >= self._most:
            raise BusyError("many other questions of this kind are being answered; ask again")
        self._here += 1
        try:
            async with self._places:
                yield
        finally:
            self._here -= 1


class WhoisLine:
    """Whois for whoever connects: few at a time, so that the status read of the same source never waits for
    strangers, and of each remote address one."""

    def __init__(self, whois: Whois, at_work: int = 8, waiting: int = 64, of_one: int = 8) -> None:
        """`of_one`: how many of one address may wait (a browser opens six connections)."""
        self._whois = whois
        self._line = WaitingLine(at_work, waiting)
        self._of_one = of_one
        self._asked: Counter[str] = Counter()
        self._locks: dict[str, asyncio.Lock] = {}

    async def ask(self, address: str, remote: str) -> dict[str, Any] | None:
        """Who `address` is, asked for `remote`. Raises BusyError and what the source raises."""
        if self._asked[remote] > self._of_one:
            raise BusyError("this address asks for many names at once; ask again")
        self._asked[remote] += 1
        try:
            async with self._locks.setdefault(remote, asyncio.Lock()), self._line.turn():
                return await self._whois(address)
        finally:
            self._asked[remote] -= 1
            if not self._asked[remote]:
                del self._asked[remote], self._locks[remote]
