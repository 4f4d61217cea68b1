"""Sidecar and LocalAPI clients against real servers on loopback and unix sockets, and every way to fail."""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aioresponses import aioresponses

from tests.support.paths import FIXTURES
from tests.support.sources import expect_answers, failure, wait_for
from tests.support.world import settings
from tsmon.base.clock import Clock
from tsmon.demo.servers import FakeLocalApi, FakeSidecar, serving
from tsmon.demo.tailnet import SimTailnet
from tsmon.source import Source, make_source
from tsmon.source.auto import Auto
from tsmon.source.localapi import LocalApi, bus_mask
from tsmon.source.pings import Ping, PingRoute, error_text, read_ping, read_text_ping, read_whois
from tsmon.source.sidecar import Sidecar
from tsmon.source.status import BadDocument, Decoder


@pytest.fixture
async def tailnet() -> SimTailnet:
    tailnet = SimTailnet(Clock())
    for name in ("git", "dev"):
        tailnet.add(name)
    return tailnet


async def raw_server(answer: bytes, *, linger: float = 0.0) -> asyncio.Server:
    """A server that reads one request and says `answer`, byte for byte."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            await asyncio.wait_for(reader.read(), linger) if linger else None
        except (TimeoutError, ConnectionError):
            pass
        finally:
            writer.close()

    return await asyncio.start_server(talk, "127.0.0.1", 0)


def url_of(server: asyncio.Server) -> str:
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
async def local(tailnet: SimTailnet, tmp_path: Path) -> AsyncIterator[tuple[FakeLocalApi, LocalApi]]:
    api = FakeLocalApi(tailnet)
    path = tmp_path / "s"
    async with serving(api.application(), path):
        source = LocalApi(str(path), settings(ping_timeout="1s"))
        yield api, source
        await source.close()


@pytest.fixture
async def sidecar(tailnet: SimTailnet) -> AsyncIterator[tuple[FakeSidecar, Sidecar]]:
    fake = FakeSidecar(tailnet, ping_timeout=0.05)
    async with serving(fake.application()) as url:
        source = Sidecar(url, settings())
        yield fake, source
        await source.close()


# -- both sources ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["local", "sidecar"])
async def test_both_answer_the_same(
    kind: str, tailnet: SimTailnet, local: tuple[Any, LocalApi], sidecar: tuple[Any, Sidecar]
) -> None:
    await expect_answers(local[1] if kind == "local" else sidecar[1], tailnet)


async def test_localapi_speaks_as_tailscaled_wants(local: tuple[FakeLocalApi, LocalApi]) -> None:
    """No Origin, its Host, POST for ping: the double refuses everything else as the daemon does."""
    api, source = local
    await source.status()
    await source.ping("100.64.0.2")
    assert api.requests == ["GET /localapi/v0/status", "POST /localapi/v0/ping?ip=100.64.0.2&type=disco"]


async def test_a_fresh_connection_for_each_request(sidecar: tuple[FakeSidecar, Sidecar]) -> None:
    fake, source = sidecar
    fake.tailnet.fault = "refused"
    assert (await failure(source.status())).reason == "source_unreachable"
    fake.tailnet.fault = ""
    assert await source.status()


# -- failures ----------------------------------------------------------------------------------------------


async def test_calls_that_hang_do_not_keep_a_read_waiting(tailnet: SimTailnet, tmp_path: Path) -> None:
    fake = FakeLocalApi(tailnet)
    tailnet.hang("git")
    ip = tailnet.find("git").ips[0]
    async with serving(fake.application(), tmp_path / "s"):
        # The pings outlast the read's bound: none ends in time to make room for it.
        source = LocalApi(str(tmp_path / "s"), settings(ping_timeout="30s"))
        hanging = [asyncio.create_task(source.ping(ip)) for _ in range(120)]
        try:
            await wait_for(lambda: len(fake.requests) >= 100)
            async with asyncio.timeout(5):
                assert json.loads(await source.status())["BackendState"] == "Running"
        finally:
            for task in hanging:
                task.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)
            await source.close()


async def test_socket_failures_are_told_apart(tmp_path: Path) -> None:
    gone = LocalApi(str(tmp_path / "none"), settings())
    assert "no such socket" in str(await failure(gone.status()))
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    refused = LocalApi(str(path), settings())
    assert "refused" in str(await failure(refused.status()))
    assert (await refused.ping("100.64.0.1")).outcome == "unmeasured"
    for source in (gone, refused):
        await source.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every socket: run as another user to see this")
async def test_a_socket_that_may_not_be_opened(tmp_path: Path) -> None:  # pragma: no cover
    path = tmp_path / "s"
    async with serving(web.Application(), path):
        path.chmod(0)
        source = LocalApi(str(path), settings())
        assert "permission denied" in str(await failure(source.status()))
        await source.close()


async def test_a_refused_port_and_a_name_that_is_none() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = Sidecar(f"http://127.0.0.1:{port}", settings())
    error = await failure(source.status())
    assert (error.reason, "refused" in str(error)) == ("source_unreachable", True)
    await source.close()


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\nno daemon", "source_unreachable", "502: no daemon"),
        (b"HTTP/1.1 503 Unavailable\r\n\r\n", "source_unreachable", "503"),
        (b"HTTP/1.1 504 Timeout\r\n\r\n", "source_timeout", "504"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\ninvalid localapi request", "source_unreachable", "403"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "bad_document", "404"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "bad_document", "redirect"),
        (
            b'HTTP/1.1 502 X\r\n\r\n{"error": {"code": "c", "message": "its words"}}',
            "source_unreachable",
            "its words",
        ),
        (b'HTTP/1.1 500 X\r\n\r\n{"error": "plain"}', "bad_document", "plain"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "bad_document", "no HTTP server"),
        (b"", "source_unreachable", "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "source_unreachable", "broke"),
    ],
)
async def test_bad_answers(answer: bytes, reason: str, words: str) -> None:
    async with await raw_server(answer) as server:
        source = Sidecar(url_of(server), settings())
        error = await failure(source.status())
        assert error.reason == reason
        assert words in str(error)
        assert (await source.ping("100.64.0.1")).outcome == "unmeasured"
        await source.close()


@pytest.mark.parametrize("read", [error_text, read_ping, read_whois, Decoder().decode])
def test_a_nested_answer_breaks_no_reader(read: Callable[[bytes], object]) -> None:
    """A body of ten thousand brackets is as much of an answer as any other nonsense."""
    for nested in (b"[" * 10_000, b'{"error":' + b"[" * 10_000, b'{"a":' * 10_000):
        with contextlib.suppress(BadDocument):
            assert read(nested) is None or read(nested)


async def test_nobody_waits_for_ever() -> None:
    async with await raw_server(b"", linger=30) as server:
        source = Sidecar(url_of(server), settings(source_timeout="1s"))
        error = await failure(source.status())
        assert (error.reason, "within 1 s" in str(error)) == ("source_timeout", True)
        await source.close()


async def test_an_answer_may_not_be_larger_than_the_limit() -> None:
    body = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 50_000
    async with await raw_server(body) as server:
        source = Sidecar(url_of(server), settings(source_max_bytes=20_000))
        error = await failure(source.status())
        assert (error.reason, "source_max_bytes" in str(error)) == ("bad_document", True)
        await source.close()


def patched() -> aioresponses:
    """aioresponses with the shim that its last release needs on aiohttp 3.14."""
    return aioresponses()


async def test_rare_failures_of_the_network() -> None:
    source = Sidecar("http://sidecar.example:8765", settings())
    failures: list[tuple[Exception, str, str]] = [
        (ConnectionResetError(104, "x"), "source_unreachable", "reset"),
        (aiohttp.ClientPayloadError("cut"), "source_unreachable", "broke"),
        (aiohttp.ServerDisconnectedError(), "source_unreachable", "without an answer"),
        (TimeoutError(), "source_timeout", "no answer"),
        (OSError(24, "x"), "source_unreachable", "too many open files"),
    ]
    for raised, reason, words in failures:
        with patched() as mocked:
            mocked.get("http://sidecar.example:8765/status", exception=raised)
            error = await failure(source.status())
        assert error.reason == reason
        assert words in str(error)
    await source.close()


async def test_secrets_of_the_url_stay_out_of_messages() -> None:
    source = Sidecar("http://user:hunter2@127.0.0.1:1/secret", settings())
    assert "hunter2" not in str(await failure(source.status())) + source.name
    assert "secret" not in source.name
    await source.close()


# -- the minimal sidecar -----------------------------------------------------------------------------------


async def test_the_minimal_sidecar() -> None:
    """LF-only header lines, no length, connection closed at the end."""
    document = (FIXTURES / "all-online.cli.json").read_bytes()
    async with await raw_server(b"HTTP/1.1 200 OK\nContent-Type: application/json\n\n" + document) as server:
        source = Sidecar(url_of(server), settings())
        assert await source.status() == document
        await source.close()


async def test_plain_text_whois() -> None:
    text = (FIXTURES / "whois-git.cli.txt").read_bytes()
    async with await raw_server(b"HTTP/1.1 200 OK\n\n" + text) as server:
        source = Sidecar(url_of(server), settings())
        answer = await source.whois("100.64.0.2")
        assert answer is not None
        assert "git" in answer["text"]
        await source.close()


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("pong from git (100.64.0.2) via 192.0.2.2:41641 in 3ms\n", Ping("answered", 3.0, "direct")),
        (
            "pong from git (100.64.0.2) via DERP(fra) in 1.5s\nno direct connection",
            Ping("answered", 1500.0, "relay", "fra"),
        ),
        (
            "pong from git (100.64.0.2) via peer-relay(1.2.3.4:5:vni:1) in 0s\n",
            Ping("answered", 0.0, "peer_relay"),
        ),
        ('ping "100.64.0.2" timed out\nno reply\n', Ping("missed")),
        ("Tailscale is stopped.\n", Ping("unmeasured", error="Tailscale is stopped.")),
    ],
)
async def test_plain_text_pings(text: str, outcome: Ping) -> None:
    async with await raw_server(b"HTTP/1.1 200 OK\n\n" + text.encode()) as server:
        source = Sidecar(url_of(server), settings())
        assert await source.ping("100.64.0.2") == outcome
        await source.close()


def test_the_recorded_texts_of_real_pings() -> None:
    assert read_text_ping((FIXTURES / "ping.cli.txt").read_text()).outcome == "answered"
    assert read_text_ping((FIXTURES / "ping-dead.cli.txt").read_text()).outcome == "missed"
    real = read_ping((FIXTURES / "ping-disco-ok.json").read_bytes())
    assert real is not None
    assert (real.outcome, real.path) == ("answered", "direct")
    unknown = read_ping((FIXTURES / "ping-unknown.json").read_bytes())
    assert unknown == Ping("unmeasured", error="no matching peer")


@pytest.mark.parametrize("kind", ["sidecar", "local"])
async def test_a_source_without_ping(kind: str, tmp_path: Path) -> None:
    app = web.Application()
    where: Path | int = 0 if kind == "sidecar" else tmp_path / "s"
    async with serving(app, where) as url:
        source: Source = make_source(settings(source=url))
        assert source.can_ping
        assert (await source.ping("100.64.0.1")).outcome == "unmeasured"
        assert source.can_ping, "one 404 may be a proxy that is started again"
        await source.close()


def route(*answers: tuple[float, int]) -> PingRoute:
    """After answers at these seconds with these status codes."""
    found = PingRoute()
    for at, code in answers:
        found.answered(code, at)
    return found


def test_404_for_a_few_seconds_is_no_missing_route() -> None:
    assert route((0, 404), (1, 404), (2, 404), (3, 404), (70, 404)).is_open(71), "two rounds"
    assert route((0, 404), (20, 404), (40, 404)).is_open(41), "not yet a minute"
    assert route((0, 404), (30, 404), (45, 200), (65, 404)).is_open(66), "an answer between"


def test_404_in_three_rounds_over_a_minute_is_one() -> None:
    closed = route((0, 404), (30, 404), (60, 404))
    assert not closed.is_open(61)
    assert not closed.is_open(3600)
    assert closed.is_open(60 + 3600), "tried again after an hour"
    closed.answered(404, 3661)
    assert not closed.is_open(3662), "one further 404 is enough"
    closed.forget()
    assert closed.is_open(3663), "the source was away: another server may be there"


# -- the bus -----------------------------------------------------------------------------------------------


async def test_the_bus_asks_for_a_read_within_100_ms(local: tuple[FakeLocalApi, LocalApi]) -> None:
    api, source = local
    loop = asyncio.get_running_loop()
    heard: list[float] = []
    watching = asyncio.create_task(source.watch(lambda: heard.append(loop.time())))
    await wait_for(lambda: heard)
    heard.clear()
    begun = loop.time()
    api.tailnet.off("git")
    await wait_for(lambda: heard)
    assert heard[0] - begun < 0.1
    watching.cancel()


async def test_the_bus_is_opened_again(
    local: tuple[FakeLocalApi, LocalApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    api, source = local
    monkeypatch.setattr("tsmon.source.localapi.BUS_WAIT", 0.01)
    heard: list[int] = []
    watching = asyncio.create_task(source.watch(lambda: heard.append(1)))
    for opened in range(1, 4):
        await wait_for(lambda: len(api.requests) == opened and api.buses)  # noqa: B023 (called in this turn only)
        api.close_buses()
        await wait_for(lambda: not api.buses)
    await wait_for(lambda: len(heard) >= 3)
    watching.cancel()


async def test_health_codes_hold_while_the_bus_is_open(local: tuple[FakeLocalApi, LocalApi]) -> None:
    api, source = local
    api.health = {"Warnings": {"not-in-map-poll": {"Severity": "high"}}}
    heard: list[int] = []
    watching = asyncio.create_task(source.watch(lambda: heard.append(1)))
    await wait_for(lambda: source.health_codes)
    assert source.health_codes == {"not-in-map-poll"}
    assert heard
    api.say({"Health": {"Warnings": {}}})
    await wait_for(lambda: not source.health_codes)
    api.say({"Health": {"Warnings": {"not-in-map-poll": {}}}})
    await wait_for(lambda: source.health_codes)
    api.bus_status = 403
    api.close_buses()
    await wait_for(lambda: not source.health_codes)
    watching.cancel()


@pytest.mark.parametrize("status", [400, 403, 404, 500])
async def test_a_refused_bus_leaves_polling(status: int, local: tuple[FakeLocalApi, LocalApi]) -> None:
    api, source = local
    api.bus_status = status
    watching = asyncio.create_task(source.watch(lambda: None))
    await wait_for(lambda: any("watch-ipn-bus" in request for request in api.requests))
    assert await source.status()
    assert not watching.done()
    watching.cancel()


@pytest.mark.parametrize(
    ("line", "heard"),
    [
        (b"", False),
        (b"not json", True),
        (b"[1]", False),
        (b'{"State": null, "NetMap": null, "Engine": {"RBytes": 1}}', False),
        (b'{"State": 6}', True),
        (b'{"NetMap": {"x": 1}}', True),
        (b'{"PeersChanged": [{}]}', True),
        (b'{"PeersRemoved": [5]}', True),
        (b'{"PeerChangedPatch": [{"NodeID": 1}]}', True),
        (b'{"PeerChanges": [{}]}', True),
        (b'{"Health": {"Warnings": null}}', False),
        (b'{"Health": "x"}', False),
        (b'{"PeersChanged": [' + b'"' + b"x" * 1_100_000 + b'"]}', True),
    ],
)
def test_which_notices_are_news(line: bytes, heard: bool) -> None:
    source = LocalApi("/nowhere", settings())
    news: list[int] = []
    source._heed(line, lambda: news.append(1))
    assert bool(news) == heard


def test_the_recorded_bus_of_a_real_daemon() -> None:
    """Every change of a peer in the recording is news; codes of health are read."""
    source = LocalApi("/nowhere", settings())
    news = 0
    for text in (FIXTURES / "watch-ipn-bus-37010.ndjson").read_text().splitlines():
        notice = json.loads(text)["notify"]
        heard: list[int] = []
        source._heed(json.dumps(notice).encode(), lambda heard=heard: heard.append(1))  # type: ignore[misc]
        if notice.get("PeerChangedPatch") or notice.get("PeersChanged"):
            assert heard
        news += bool(heard)
    assert news > 10


@pytest.mark.parametrize(
    ("version", "mask"),
    [
        ("1.80.1", 402),
        ("1.96.5-tabc", 402),
        ("1.98.0", 4242),
        ("1.100.2", 37010),
        ("1.102.3-ERR-BuildInfo", 37010),
        ("", 37010),
    ],
)
def test_masks_of_the_bus(version: str, mask: int) -> None:
    assert bus_mask(version) == mask


# -- auto --------------------------------------------------------------------------------------------------


async def test_auto_takes_a_sidecar_first_and_keeps_it(tailnet: SimTailnet, tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving(FakeLocalApi(tailnet).application(), path):
        fake = FakeSidecar(tailnet)
        async with serving(fake.application()) as url:
            source = Auto(settings(), url, (str(path),))
            assert source.kind == "auto"
            await source.status()
            assert (source.kind, source.name) == ("sidecar", url)
            assert await source.whois(tailnet.find("git").ips[0])
            assert (await source.ping(tailnet.find("git").ips[0])).outcome == "answered"
            await source.watch(lambda: None)
            assert source.can_ping
            assert source.health_codes == frozenset()
        assert "refused" in str(await failure(source.status()))
        await source.close()


async def test_auto_waits_until_a_source_appears(tailnet: SimTailnet, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    source = Auto(settings(), nowhere, (str(path),))
    error = await failure(source.status())
    assert error.reason == "source_unreachable"
    assert nowhere in str(error)
    assert str(path) in str(error)
    assert (await source.ping("100.64.0.1")).outcome == "unmeasured"
    assert source.can_ping
    await failure(source.whois("100.64.0.1"))
    news: list[int] = []
    watching = asyncio.create_task(source.watch(lambda: news.append(1)))
    async with serving(FakeLocalApi(tailnet).application(), path):
        assert await source.status()
        assert source.kind == "localapi"
        await wait_for(lambda: news)
        watching.cancel()
    await source.close()


async def test_auto_does_not_take_any_server_for_a_sidecar(tmp_path: Path) -> None:
    app = web.Application()
    app.router.add_get("/status", _hello)
    async with serving(app) as url:
        source = Auto(settings(), url, (str(tmp_path / "s"),))
        assert "no status document" in str(await failure(source.status()))
        await source.close()


async def _hello(_: web.Request) -> web.Response:
    return web.json_response({"hello": "world"})


def test_the_setting_chooses() -> None:
    assert isinstance(make_source(settings(source="http://127.0.0.1:8765")), Sidecar)
    assert isinstance(make_source(settings(source="unix:///run/x")), LocalApi)


async def test_the_default_is_auto() -> None:
    source = make_source(settings())
    assert isinstance(source, Auto)
    await source.close()
