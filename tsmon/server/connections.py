"""The API's connections: how many there may be, how long one may idle, and what one may hold that does not
read.

aiohttp closes what idles or drips its request. It neither leaves descriptors for the rest of the process nor
gives up a client that asks and then does not read.
"""

import asyncio
import resource
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
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
FIRST_SECONDS = 10.0
"""A new connection that has not sent the head of a request for this long is closed."""
DOOR_SECONDS = 2.0
"""One too many may ask for /healthz for this long."""
_MOST_DOORS = 64
_LONGEST_LINE = 4096
_SWEEP_INTERVAL = 2.0
_LOG_INTERVAL = 60.0


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Stalled(NamedTuple):
    waiting: int
    since: float


class Connections:
    """Listens for an aiohttp server and looks after what it accepted."""

    def __init__(
        self,
        patience: float = SEND_SECONDS,
        most_buffered: int = MOST_BUFFERED,
        stuck: Callable[[], str | None] = lambda: None,
        trusts: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`stuck` names a loop that hangs (for /healthz); `trusts` says whose address may be a proxy's."""
        self._patience = patience
        self._most_buffered = most_buffered
        self._stuck = stuck
        self._trusts = trusts
        self._silent: dict[web.RequestHandler, float] = {}  # have not sent a request yet, since when
        self._doors: dict[_LastDoor, None] = {}  # in the order of their coming
        self._web: web.Server | None = None
        self._server: asyncio.Server | None = None
        self._stalled: dict[web.RequestHandler, _Stalled] = {}
        self._told = float("-inf")
        self._of: Counter[str] = Counter()  # connections by remote address; those that ended are in it

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
        return _Entrance(self)

    def enter(self, transport: asyncio.Transport) -> None:
        """A connection came: it is served, or, one too many, may still ask whether tsmon lives."""
        assert self._web is not None  # noqa: S101 (set before anything is accepted)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = sys.maxsize if soft == resource.RLIM_INFINITY else max(soft - RESERVED, 1)
        remote = str((transport.get_extra_info("peername") or ("",))[0])
        count = len(self._web.connections)
        if count < most and self._has_room(remote, most):
            self._of[remote] += 1
            handler = self._web()
            self._silent[handler] = asyncio.get_running_loop().time()
            transport.set_protocol(handler)
            handler.connection_made(transport)
            return
        self._tell("connections_full", connections=count, limit=soft, address=remote)
        while len(self._doors) >= _MOST_DOORS:
            next(iter(self._doors)).leave()
        door = _LastDoor(transport, self._stuck, self._doors)
        transport.set_protocol(door)

    def _has_room(self, remote: str, most: int) -> bool:
        """One address takes at most a quarter of the connections; one that may be a proxy's takes half."""
        own = most // 2 if _is_loopback(remote) or self._trusts(remote) else most // 4
        if self._of[remote] >= max(own, 1):
            self._of = Counter(
                str((handler.transport.get_extra_info("peername") or ("",))[0])
                for handler in (self._web.connections if self._web is not None else ())
                if handler.transport is not None
            )
        return self._of[remote] < max(own, 1)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The first of all: a connection that has sent a request is no silent one."""
        self._silent.pop(request.protocol, None)
        return await handler(request)

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
        """Cut off who has taken nothing, or never sent a request, for too long; `now` is monotonic."""
        for silent, since in list(self._silent.items()):
            if silent.transport is None or now - since >= FIRST_SECONDS:
                del self._silent[silent]
                if silent.transport is not None:
                    silent.transport.abort()
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


class _Entrance(asyncio.Protocol):
    """Where a connection comes in: only there is it known from where."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._connections.enter(transport)


class _LastDoor(asyncio.Protocol):
    """One connection too many: a probe learns that tsmon lives, everybody else to come later."""

    def __init__(
        self, transport: asyncio.Transport, stuck: Callable[[], str | None], doors: dict["_LastDoor", None]
    ) -> None:
        self._transport = transport
        self._stuck = stuck
        self._doors = doors
        self._head = b""
        doors[self] = None
        self._timer = asyncio.get_running_loop().call_later(DOOR_SECONDS, self.leave)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if b"\n" in self._head or len(self._head) > _LONGEST_LINE:
            self._answer()

    def eof_received(self) -> None:
        self.leave()

    def connection_lost(self, _: Exception | None) -> None:
        self._timer.cancel()
        self._doors.pop(self, None)

    def leave(self) -> None:
        """Nothing was asked in time, or others wait at the door: it closes."""
        if self in self._doors:
            self._answer()

    def _answer(self) -> None:
        self._doors.pop(self, None)
        self._timer.cancel()
        method, _, rest = self._head.partition(b" ")
        path = rest.partition(b" ")[0]
        if method in (b"GET", b"HEAD") and path.rpartition(b"/")[2] == b"healthz":
            stuck = self._stuck()
            body = encode({"status": "ok"} if stuck is None else {"status": "stuck", "loop": stuck})
            status = b"200 OK" if stuck is None else b"503 Service Unavailable"
        else:
            method = b""
            words = "tsmon has as many connections as it may have, or this address has; try again later"
            body = encode(ErrorAnswer(ErrorBody("too_many_connections", words)))
            status = b"503 Service Unavailable"
        self._transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json; charset=utf-8\r\n"
            b"Cache-Control: no-store\r\nRetry-After: 30\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (status, len(body), b"" if method == b"HEAD" else body)
        )
        self._transport.close()


def _is_loopback(remote: str) -> bool:
    return remote.startswith(("127.", "::ffff:127.")) or remote in ("::1", "")
