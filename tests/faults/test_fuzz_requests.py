"""Hostile requests by the thousand to the API and to the admin socket: no 500, no fault in the log, no
descriptor left. `TSMON_TEST_REQUESTS` says how many of the API (a tenth of it to the admin socket)."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import structlog

from tests.support.site import Site, site

pytestmark = pytest.mark.slow
Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
REQUESTS = int(os.environ.get("TSMON_TEST_REQUESTS", "5000"))
WORDS = [
    *(
        "",
        "x",
        "git",
        "%00",
        "%ff",
        "..",
        "%2e%2e%2f",
        "'",
        '"',
        "<b>",
        "\\",
        "é",
        "x" * 300,
        "9" * 5000,
        "-1",
        "NaN",
    ),
    *(
        "1e999",
        "inf",
        "true",
        "null",
        "[" * 2000,
        "{}",
        "1970-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "d" * 8000,
    ),
]
PATHS = [
    *(
        "summary",
        "nodes",
        "nodes/",
        "critical",
        "alerts",
        "incidents",
        "logs",
        "uptime/",
        "history",
        "latency/",
    ),
    *(
        "whois/",
        "badge/",
        "../vpn",
        "../web/",
        "../readyz",
        "../openapi.json",
        "../metrics",
        "../docs",
        "report",
    ),
]
NAMES = [
    "limit",
    "offset",
    "window",
    "hours",
    "buckets",
    "since",
    "until",
    "q",
    "page",
    "state",
    "fields",
    "sort",
    "x",
]
HEADERS = [
    "Accept",
    "Last-Event-ID",
    "If-None-Match",
    "Authorization",
    "Accept-Encoding",
    "Range",
    "Cookie",
    "X",
]
COMMANDS = [
    "ack",
    "silence",
    "unsilence",
    "notify/test",
    "notify/enable",
    "influx/lines",
    "import",
    "export",
    "x",
]
KEYS = [
    "id",
    "author",
    "reason",
    "seconds",
    "alert",
    "all",
    "hosts",
    "channel",
    "lines",
    "samples",
    "interval",
]
BODIES = ["", "[]", "{", "[" * 5000, "\x00", "null", '{"id":' + "9" * 5000 + "}", '{"a":' * 2000]


def api_request(chance: random.Random) -> bytes:
    path = "/health-monitoring/" + chance.choice(PATHS) + chance.choice(WORDS)
    query = "&".join(
        f"{chance.choice(NAMES)}={chance.choice(WORDS)}" for _ in range(chance.choice([0, 0, 1, 2, 3]))
    )
    method = chance.choice(["GET"] * 9 + ["HEAD", "POST", "PUT", "X" * 40])
    lines = [f"{method} {path}?{query} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{chance.choice(HEADERS)}: {chance.choice(WORDS)}" for _ in range(chance.choice([0, 1, 2]))]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


def admin_request(chance: random.Random) -> bytes:
    pairs = ",".join(f'"{chance.choice(KEYS)}":{chance.choice(VALUES)}' for _ in range(chance.randint(0, 5)))
    body = chance.choice([*BODIES, *["{" + pairs + "}"] * 8]).encode()
    method = chance.choice(["POST"] * 5 + ["GET", "PUT"])
    head = f"{method} /{chance.choice(COMMANDS)}?table={chance.choice(WORDS)} HTTP/1.1\r\nHost: x\r\n"
    return (head + f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


VALUES = [
    "1",
    "-1",
    "0",
    "1e308",
    "9" * 400,
    "true",
    "null",
    '""',
    '"git"',
    '"\\u0000"',
    '["*"]',
    "[[]]",
    "{}",
    '"é"',
]


async def attack(requests: list[bytes], connect: Connect) -> set[int]:
    """The status codes that were seen; 0 stands for a connection that was closed without one."""
    seen: set[int] = set()
    work = iter(requests)

    async def client() -> None:
        for request in work:
            async with asyncio.timeout(30):
                reader, writer = await connect()
                try:
                    writer.write(request)
                    line = await reader.readline()
                    await reader.read()
                except ConnectionError:
                    line = b""
                finally:
                    writer.close()
            status = int(line.split()[1]) if line else 0
            assert status != 500, request[:500]
            seen.add(status)

    async with asyncio.TaskGroup() as clients:
        for _ in range(8):
            clients.create_task(client())
    return seen


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def _harmless(here: Site, requests: list[bytes], connect: Connect, wanted: set[int]) -> None:
    await attack(requests[:50], connect)
    before = descriptors()
    with structlog.testing.capture_logs() as lines:
        seen = await attack(requests, connect)
    assert wanted <= seen, "the fuzz must reach every kind of answer"
    assert [line for line in lines if line["event"] == "request_failed"] == []
    await here.until(lambda: descriptors() <= before + 4)
    assert await here.get("/healthz") == {"status": "ok"}


async def test_hostile_requests_to_the_api(tmp_path: Path) -> None:
    chance = random.Random(15)
    async with site(tmp_path) as here:
        host, port = here.daemon.url.removeprefix("http://").split(":")
        requests = [api_request(chance) for _ in range(REQUESTS)]
        await _harmless(
            here, requests, lambda: asyncio.open_connection(host, int(port)), {200, 400, 404, 405}
        )


async def test_hostile_requests_to_the_admin_socket(tmp_path: Path) -> None:
    chance = random.Random(16)
    async with site(tmp_path) as here:
        path = str(tmp_path / "state" / "admin.sock")
        requests = [admin_request(chance) for _ in range(max(500, REQUESTS // 10))]
        await _harmless(here, requests, lambda: asyncio.open_unix_connection(path), {400, 404, 405})
