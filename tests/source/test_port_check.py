"""Ports asked over real connections: what answers, refuses, hangs, lies or floods."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tsmon.config.service_checks import read_checks
from tsmon.source.check_answer import CannotAskError, CheckAnswer
from tsmon.source.dial import NoWayError, RefusedError, dial_direct, dial_through, is_ours
from tsmon.source.port_check import ask

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 204 No Content\r\n\r\n"
LOCAL = "127.0.0.1"


@contextlib.asynccontextmanager
async def listening(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on loopback; yields its port. Its connections end with it."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, LOCAL, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()


def answering(raw: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()

    return talk


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def asked(check: str, name: str = "db.tail.example", timeout: float = 2.0) -> CheckAnswer:
    return await ask(dial_direct, read_checks([check], "checks")[0], LOCAL, name, timeout)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        port: int = probe.getsockname()[1]
        return port


async def test_an_open_port_is_ok_with_its_milliseconds() -> None:
    async with listening(silent) as port:
        answer = await asked(f"tcp:{port}")
    assert answer.outcome == "ok"
    assert answer.latency_ms is not None
    assert 0 < answer.latency_ms < 2000


async def test_a_closed_port_refuses() -> None:
    assert (await asked(f"tcp:{free_port()}")).outcome == "refused"
    assert (await asked(f"http:{free_port()}/")).outcome == "refused"


@pytest.mark.parametrize(
    ("raw", "outcome", "detail"),
    [
        (OK, "ok", ""),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "ok", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 100_000, "ok", ""),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "bad_answer", "answered 503"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "bad_answer", "answered 404"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "bad_answer", "is no web server"),
        (b"", "bad_answer", "closed the connection without an answer"),
    ],
)
async def test_a_web_server_is_judged_by_the_head_it_answers(raw: bytes, outcome: str, detail: str) -> None:
    async with listening(answering(raw)) as port:
        answer = await asked(f"http:{port}/healthz")
    assert answer.outcome == outcome, answer
    assert answer.detail.startswith(detail)


async def test_the_path_and_the_machine_s_name_are_asked_for() -> None:
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        await writer.drain()

    async with listening(talk) as port:
        await asked(f"http:{port}/healthz?deep=1")
    assert heads[0].startswith(b"GET /healthz?deep=1 HTTP/1.1\r\n")
    assert f"Host: db.tail.example:{port}\r\n".encode() in heads[0]


async def test_a_server_that_accepts_and_says_nothing_gives_no_answer() -> None:
    async with listening(silent) as port:
        answer = await asked(f"http:{port}/", timeout=0.3)
    assert answer == CheckAnswer("no_answer", detail="connected, but no answer within 0.3 s", lives=True)


async def test_a_flood_of_headers_is_bad_and_soon_over() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            block = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(100))
            writer.write(block)
            sent += len(block)
            await writer.drain()

    async with listening(flood) as port:
        answer = await asked(f"http:{port}/", timeout=1.0)
    assert answer.outcome in ("bad_answer", "no_answer")
    assert sent < 64_000_000


async def test_one_endless_header_is_bad() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            writer.write(b"y" * 65536)
            await writer.drain()

    async with listening(flood) as port:
        answer = await asked(f"http:{port}/", timeout=1.0)
    assert answer.outcome in ("bad_answer", "no_answer")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for db.tail.example that signed itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("SKIPPED LOUDLY: openssl is not installed")
    place = tmp_path_factory.mktemp("tls")
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=db"
    named = ("-addext", "subjectAltName=DNS:db.tail.example")
    where = ("-keyout", str(place / "key"), "-out", str(place / "cert"))
    subprocess.run([openssl, *made.split(), *named, *where], check=True, capture_output=True)
    return place / "cert", place / "key"


def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


async def test_a_certificate_must_be_trusted_and_for_the_machine_s_name(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(answering(OK), server_tls(certificate)) as port:
        stranger = await asked(f"https:{port}/")
        assert stranger.outcome == "bad_answer"
        assert stranger.detail.startswith("TLS: self"), stranger
        trusting = ssl.create_default_context(cafile=str(certificate[0]))
        monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
        assert (await asked(f"https:{port}/")).outcome == "ok"
        other = await asked(f"https:{port}/", name="git.tail.example")
        assert other.outcome == "bad_answer"
        assert "git.tail.example" in other.detail


async def test_tls_spoken_with_a_server_that_speaks_none_is_bad() -> None:
    async with listening(answering(OK)) as port:
        answer = await asked(f"https:{port}/", timeout=0.5)
    assert answer.outcome in ("bad_answer", "no_answer")

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(5)
        writer.write(b"this is not TLS\r\n")
        await writer.drain()

    async with listening(nonsense) as port:
        answer = await asked(f"https:{port}/")
    assert answer.outcome == "bad_answer"
    assert answer.detail.startswith("TLS: ")


async def test_no_socket_is_left_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    async with listening(answering(OK)) as port:
        for check in (f"tcp:{port}", f"http:{port}/", f"tcp:{free_port()}"):
            for _ in range(5):
                await asked(check)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


def test_an_address_is_ours_when_this_machine_has_it() -> None:
    assert is_ours([LOCAL])
    assert not is_ours(["100.127.254.253"])


# -- through tailscaled ------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def tailscaled(path: Path, head: bytes, then: bytes = b"") -> AsyncIterator[list[bytes]]:
    """A socket that answers an upgrade with `head`; after it speaks `then` once more was asked."""
    heads: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(head)
            await writer.drain()
            if then:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(then)
                await writer.drain()
            await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield heads
    finally:
        server.close()
        for task in tasks:
            task.cancel()


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ts-dial\r\n\r\n"


def refusal(words: bytes) -> bytes:
    return b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: %d\r\n\r\n%s" % (len(words), words)


async def through(path: Path, check: str, timeout: float = 1.0) -> CheckAnswer:
    one = read_checks([check], "checks")[0]
    return await ask(dial_through(str(path)), one, "100.64.0.7", "db.tail.example", timeout)


async def test_tailscaled_dials_where_the_machine_has_no_tun(tmp_path: Path) -> None:
    async with tailscaled(tmp_path / "s", SWITCH, OK) as heads:
        assert (await through(tmp_path / "s", "tcp:22")).outcome == "ok"
        assert b"Dial-Host: 100.64.0.7\r\nDial-Port: 22\r\n" in heads[0]
        assert (await through(tmp_path / "s", "http:80/")).outcome == "ok"
        assert heads[2].startswith(b"GET / HTTP/1.1\r\nHost: db.tail.example\r\n")


@pytest.mark.parametrize(
    ("head", "outcome", "detail"),
    [
        (
            refusal(b"dial failure: connect tcp 100.64.0.7:22: connection was refused\n"),
            "refused",
            "the port",
        ),
        (refusal(b"dial failure: i/o timeout\n"), "no_answer", "dial failure: i/o timeout"),
        (b"HTTP/1.1 200 OK\r\nDial-Self: true\r\n\r\n", "unknown", "tailscaled does not reach 100.64.0.7"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\ndenied", "unknown", "tailscaled answered 403: denied"),
        (b"nonsense", "no_answer", "no answer within"),
        (b"x" * 9000, "unknown", "tailscaled answered nothing"),
    ],
)
async def test_what_tailscaled_says_of_a_dial_is_told_apart(
    tmp_path: Path, head: bytes, outcome: str, detail: str
) -> None:
    async with tailscaled(tmp_path / "s", head):
        answer = await through(tmp_path / "s", "tcp:22", timeout=0.3)
    assert answer.outcome == outcome, answer
    assert answer.detail.startswith(detail)


async def test_without_tailscaled_nothing_is_known_of_the_port(tmp_path: Path) -> None:
    answer = await through(tmp_path / "s", "tcp:22")
    assert answer.outcome == "unknown"
    assert answer.detail.startswith("tailscaled's socket: ")


async def test_the_errors_of_a_dial_have_their_kinds(tmp_path: Path) -> None:
    with pytest.raises(RefusedError):
        await dial_direct(LOCAL, free_port())
    with pytest.raises(CannotAskError):
        await dial_through(str(tmp_path / "none"))("100.64.0.7", 22)
    with pytest.raises(NoWayError):
        await dial_direct("255.255.255.255", 9)
