"""The API's connections: how many there may be, how long one may idle, and what one may hold that does not
read.

aiohttp closes what idles or drips its request. It neither leaves descriptors for the rest of the process nor
gives up a client that asks and then does not read.
"""

import asyncio
import resource
from typing import Any, NamedTuple

import structlog
from aiohttp import web

from tsmon.server.answers import ErrorAnswer, ErrorBody
from tsmon.server.replies import encode

log = structlog.get_logger(__name__)

IDLE_SECONDS = 30.0
"""A connection that has not sent a whole request for this long is closed."""
SEND_SECONDS = 30.0
"""A client that takes nothing of its answer for this long is cut off."""
MOST_BUFFERED = 64 * 1024 * 1024
"""Bytes of answers that may wait for slow clients, all together."""
RESERVED = 128
"""Descriptors kept for the source, the database, channels and commands."""
_BACKLOG = 512
"""Connections that may wait to be accepted: one more waits a second for its next try (asyncio says 100)."""
_SWEEP_INTERVAL = 5.0
_LOG_INTERVAL = 60.0


class _Stalled(NamedTuple):
    waiting: int
    since: float


class Connections:
    """Listens for an aiohttp server and looks after what it accepted."""

    def __init__(self, patience: float = SEND_SECONDS, most_buffered: int = MOST_BUFFERED) -> None:
        self._patience = patience
        self._most_buffered = most_buffered
        self._web: web.Server | None = None
        self._server: asyncio.Server | None = None
        self._stalled: dict[web.RequestHandler, _Stalled] = {}
        self._told = float("-inf")
        self._arriving = 0

    async def listen(self, server: web.Server, host: str, port: int) -> tuple[Any, ...]:
        """Accept connections; returns the address. Raises OSError when it cannot be used."""
        self._web = server
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._failed)
        self._server = await loop.create_server(self._accept, host, port, backlog=_BACKLOG)
        address: tuple[Any, ...] = self._server.sockets[0].getsockname()
        return address

    def close(self) -> None:
        """Accept no more."""
        if self._server is not None:
            self._server.close()

    def _accept(self) -> asyncio.BaseProtocol:
        assert self._web is not None  # noqa: S101 (set before anything is accepted)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        count = len(self._web.connections) + self._arriving
        if soft == resource.RLIM_INFINITY or count < max(soft - RESERVED, 1):
            # aiohttp counts it a moment later: of a burst each would be the first.
            self._arriving += 1
            asyncio.get_running_loop().call_soon(self._arrived)
            return self._web()
        self._tell("connections_full", connections=count, limit=soft)
        return _Refusal()

    def _arrived(self) -> None:
        self._arriving -= 1

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """asyncio tells of each failing accept with a traceback, a hundred times a second."""
        if "accept" in context.get("message", "") and isinstance(context.get("exception"), OSError):
            self._tell("descriptors_exhausted", error=str(context["exception"]))
        else:
            loop.default_exception_handler(context)

    def _tell(self, event: str, **fields: Any) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._told >= _LOG_INTERVAL:
            self._told = now
            log.error(event, remedy="see who connects, or raise the limit of open files", **fields)

    # -- clients that do not read ----------------------------------------------------------------------

    async def run(self) -> None:
        """Look every few seconds for clients that take nothing."""
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL)
            self.sweep(asyncio.get_running_loop().time())

    def sweep(self, now: float) -> None:
        """Cut off who has taken nothing for too long; `now` is monotonic."""
        stalled = {}
        for handler, waiting in self._waiting():
            before = self._stalled.get(handler)
            since = before.since if before is not None and before.waiting == waiting else now
            if now - since >= self._patience and handler.transport is not None:
                handler.transport.abort()
            else:
                stalled[handler] = _Stalled(waiting, since)
        self._stalled = stalled

    async def make_room(self, _: web.Request, __: web.StreamResponse) -> None:
        """A signal handler, before any answer: when too much waits, who holds most of it is cut off."""
        waiting = self._waiting()
        while waiting and sum(size for _, size in waiting) > self._most_buffered:
            largest = max(waiting, key=lambda pair: pair[1])
            waiting.remove(largest)
            if largest[0].transport is not None:
                largest[0].transport.abort()

    def _waiting(self) -> list[tuple[web.RequestHandler, int]]:
        """Who has not taken what was sent, and how many bytes of it."""
        if self._web is None:
            return []
        sizes = (
            (handler, handler.transport.get_write_buffer_size())
            for handler in self._web.connections
            if handler.transport is not None
        )
        return [(handler, size) for handler, size in sizes if size]


class _Refusal(asyncio.Protocol):
    """One connection too many: it is answered 503 and closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            words = "tsmon has as many connections as it has descriptors for; try again later"
            body = encode(ErrorAnswer(ErrorBody("too_many_connections", words)))
            transport.write(
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\n"
                b"Cache-Control: no-store\r\nRetry-After: 30\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
        transport.close()
