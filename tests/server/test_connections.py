"""Connections that idle, drip or do not read are given up; those that read slowly are not."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import structlog
from aiohttp import web

from tsmon.daemon.process import prepare
from tsmon.server.connections import Connections

LARGE = 16 * 1024 * 1024
"""More than the system takes off a sender's hands."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Door:
    def __init__(self, connections: Connections, server: web.Server, port: int) -> None:
        self.connections = connections
        self.server = server
        self.port = port

    async def ask(self, path: str) -> Streams:
        """A client that sends a request and reads only when it is told to."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=4096)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return reader, writer

    def waiting(self) -> int:
        return sum(
            handler.transport.get_write_buffer_size()
            for handler in self.server.connections
            if handler.transport is not None
        )

    async def until(self, done: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not done():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@asynccontextmanager
async def door(idle: float = 30.0, **limits: Any) -> AsyncIterator[Door]:
    async def large(_: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGE))

    async def small(_: web.Request) -> web.Response:
        return web.Response(text="here")

    connections = Connections(**limits)
    app = web.Application()
    app.router.add_get("/large", large)
    app.router.add_get("/small", small)
    app.on_response_prepare.append(connections.make_room)
    app.middlewares.append(connections.middleware)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=idle, shutdown_timeout=0.1)
    await runner.setup()
    assert runner.server is not None
    address = await connections.listen(runner.server, "127.0.0.1", 0)
    try:
        yield Door(connections, runner.server, address[1])
    finally:
        connections.close()
        await runner.cleanup()
        asyncio.get_running_loop().set_exception_handler(None)


async def close(*clients: Streams) -> None:
    for _, writer in clients:
        writer.transport.abort()


@pytest.mark.parametrize("sent", [b"", b"GET /sm", b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_who_sends_no_whole_request_is_closed(sent: bytes) -> None:
    """Nothing, a part, or one and then nothing more."""
    async with door(idle=0.2) as here:
        client = await asyncio.open_connection("127.0.0.1", here.port)
        client[1].write(sent)
        begun = asyncio.get_running_loop().time()
        async with asyncio.timeout(5):
            answer = await client[0].read()
        # A loop's timers may be early by what its clock resolves.
        assert asyncio.get_running_loop().time() - begun >= 0.19
        assert (b"here" in answer) is sent.endswith(b"\r\n\r\n")
        await close(client)


async def test_a_dripped_request_does_not_hold_a_connection() -> None:
    async with door(idle=0.3) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)

        async def drip() -> None:
            for letter in "GET /small HTTP/1.1":
                writer.write(letter.encode())
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        answer = b""
        async with asyncio.timeout(5):
            with suppress(ConnectionResetError):  # a letter crossed the closing
                answer = await reader.read()
        assert answer == b""
        await here.until(lambda: not here.server.connections)
        dripping.cancel()
        await close((reader, writer))


async def test_who_takes_nothing_is_cut_off_and_a_slow_reader_is_not() -> None:
    async with door(patience=30.0) as here:
        stalled, slow = await here.ask("/large"), await here.ask("/large")
        await here.until(lambda: here.waiting() > LARGE)
        for now in range(0, 40, 10):
            here.connections.sweep(1000.0 + now)
            before = here.waiting()
            while here.waiting() == before and here.waiting() > LARGE // 2:
                await slow[0].read(65536)
        await here.until(lambda: len(here.server.connections) == 1)
        async with asyncio.timeout(10):
            while here.waiting():
                await slow[0].read(1 << 20)
        here.connections.sweep(2000.0)
        assert len(here.server.connections) == 1
        await close(stalled, slow)


async def test_what_waits_is_bounded_and_the_largest_goes_first() -> None:
    async with door(most_buffered=3 * LARGE // 2) as here:
        first = await here.ask("/large")
        await here.until(lambda: here.waiting() > LARGE // 4)
        second = await here.ask("/large")
        await here.until(lambda: here.waiting() > LARGE)
        third = await here.ask("/small")
        await here.until(lambda: here.waiting() < LARGE)
        async with asyncio.timeout(5):
            assert b"200" in await third[0].readline()
        assert len(here.server.connections) == 2
        await close(first, second, third)


async def test_one_connection_too_many_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (132, 1000))  # 128 reserved; half of 4
    async with door() as here:
        with structlog.testing.capture_logs() as lines:
            held = [await here.ask("/small") for _ in range(2)]
            await here.until(lambda: len(here.server.connections) == 2)
            for _ in range(3):
                client = await here.ask("/small")
                async with asyncio.timeout(5):
                    answer = await client[0].read()
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b"too_many_connections" in answer
                await close(client)
            await close(*held)
            await here.until(lambda: not here.server.connections)
            after = await here.ask("/small")
            async with asyncio.timeout(5):
                assert b"200" in await after[0].readline()
            await close(after)
    assert [line["event"] for line in lines] == ["connections_full"]


async def test_a_burst_is_counted_while_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (148, 1000))  # half of 20
    async with door() as here:
        # Connected before any of them is accepted.
        clients = []
        for _ in range(50):
            one = socket.socket()
            one.connect(("127.0.0.1", here.port))
            clients.append(one)
        await here.until(lambda: len(here.server.connections) == 10)
        await asyncio.sleep(0.05)
        assert len(here.server.connections) == 10
        for one in clients:
            one.close()


async def test_a_failing_accept_is_one_line_and_another_fault_is_shown() -> None:
    loop = asyncio.get_running_loop()
    shown: list[dict[str, Any]] = []
    async with door():
        with structlog.testing.capture_logs() as lines, pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(loop), "default_exception_handler", lambda _, context: shown.append(context))
            for _ in range(200):
                words = "socket.accept() out of system resource"
                loop.call_exception_handler(
                    {"message": words, "exception": OSError(24, "Too many open files")}
                )
            loop.call_exception_handler({"message": "Task exception was never retrieved"})
    assert [line["event"] for line in lines] == ["descriptors_exhausted"]
    assert [context["message"] for context in shown] == ["Task exception was never retrieved"]


def test_the_limit_of_open_files_is_raised_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    set_: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_.append(limits))
    for limits in (
        (1024, 4096),
        (1024, 500_000),
        (1024, resource.RLIM_INFINITY),
        (8192, 8192),
        (20_000, 20_000),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limits=limits: limits)
        prepare()
    assert set_ == [(4096, 4096), (8192, 500_000), (8192, resource.RLIM_INFINITY)]


async def _whole_answer(here: Door, path: str) -> bytes:
    client = await here.ask(path)
    async with asyncio.timeout(5):
        answer = await client[0].read()
    await close(client)
    return answer


async def test_an_address_that_has_its_share_may_still_ask_whether_tsmon_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A probe of the machine itself, while something there holds connections."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (136, 1000))
    stuck: list[str] = []
    async with door(stuck=lambda: stuck[0] if stuck else None) as here:
        held = [await here.ask("/small") for _ in range(4)]
        await here.until(lambda: len(here.server.connections) == 4)
        silent = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(200)]
        assert b'{"status":"ok"}' in await _whole_answer(here, "/healthz")
        assert b'{"status":"ok"}' in await _whole_answer(here, "/tsmon/healthz")
        for path in ("/small", "/healthz/x", "/"):
            assert (await _whole_answer(here, path)).startswith(b"HTTP/1.1 503 "), path
        stuck.append("poll")
        assert (await _whole_answer(here, "/healthz")).startswith(b"HTTP/1.1 503 ")
        assert len(here.server.connections) == 4
        await close(*held, *silent)


async def test_another_address_than_a_proxys_takes_a_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsmon.server.connections._is_loopback", lambda _: False)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (136, 1000))
    for trusted, most in ((False, 2), (True, 4)):
        async with door(trusts=lambda _, trusted=trusted: trusted) as here:
            held = [await here.ask("/small") for _ in range(6)]
            firsts = await asyncio.gather(*(client[0].readline() for client in held))
            assert sum(b" 200 " in first for first in firsts) == most
            await close(*held)
            while here.server.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            again = await here.ask("/small")
            assert b"200" in await again[0].readline(), "places that were left are free again"
            await close(again)


async def test_a_silent_connection_is_closed_after_10_s_and_one_that_asked_is_not() -> None:
    async with door() as here:
        silent = await asyncio.open_connection("127.0.0.1", here.port)
        asked = await here.ask("/small")
        await asked[0].readuntil(b"here")
        now = asyncio.get_running_loop().time()
        here.connections.sweep(now + 9)
        assert len(here.server.connections) == 2
        here.connections.sweep(now + 11)
        await here.until(lambda: len(here.server.connections) == 1)
        await close(silent, asked)
