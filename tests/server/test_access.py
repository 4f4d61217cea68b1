"""Who may read: loopback, token, the tailnet's identities, trusted networks, and the Host header."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from aiohttp.test_utils import make_mocked_request

from tests.support.paths import PACKAGE
from tests.support.site import Site, site
from tests.support.world import settings
from tsmon.config import load
from tsmon.monitor.state import View
from tsmon.server.access import Access
from tsmon.server.waiting import WhoisLine
from tsmon.source.errors import SourceError

TOKEN = "a-token-that-is-long-enough"
SUMMARY = "/health-monitoring/summary"


def basic(password: str, user: str = "x") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def status(here: Site, path: str = SUMMARY, **headers: str) -> int:
    async with here.client.get(here.daemon.url + path, headers=headers) as response:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        return response.status


async def test_a_token_as_bearer_or_as_the_password(tmp_path: Path) -> None:
    async with site(tmp_path, auth__mode="token", auth__token=TOKEN) as here:
        assert await status(here) == 401
        async with here.client.get(here.daemon.url + SUMMARY) as response:
            assert response.headers["WWW-Authenticate"].startswith("Basic realm=")
            assert (await response.json())["error"]["code"] == "unauthorized"
        for wrong in ("Bearer nope", basic("nope"), "Basic !!!", "Digest x", "Bearer", "Basic //8="):
            assert await status(here, Authorization=wrong) == 401
        assert await status(here, Authorization=f"Bearer {TOKEN}") == 200
        assert await status(here, Authorization=basic(TOKEN)) == 200
        assert await status(here, "/vpn") == 401


async def test_wrong_tokens_are_logged_with_their_address_and_slowed(tmp_path: Path) -> None:
    async with site(tmp_path, auth__mode="token", auth__token=TOKEN) as here:
        with structlog.testing.capture_logs() as lines:
            begun = asyncio.get_running_loop().time()
            for _ in range(6):
                assert await status(here, Authorization="Bearer wrong") == 401
            assert asyncio.get_running_loop().time() - begun >= 1.5, "0 + 0.1 + … + 0.5 s"
            assert await status(here) == 401
            assert await status(here, Authorization=f"Bearer {TOKEN}") == 200
        (line,) = [line for line in lines if line["event"] == "wrong_token"]
        assert line["address"] == "127.0.0.1"
        assert TOKEN not in str(lines)
        assert "wrong" not in str(lines).replace("wrong_token", "")


@pytest.mark.parametrize(
    ("site_", "mode", "code"),
    [("cross-site", "no-cors", 403), ("cross-site", "navigate", 200), ("same-origin", "cors", 200)],
)
async def test_pages_of_other_sites_get_nothing(site_: str, mode: str, code: int, tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        headers = {"Sec-Fetch-Site": site_, "Sec-Fetch-Mode": mode}
        for path in (SUMMARY, "/health-monitoring/whois/100.64.0.1", "/health-monitoring/badge/git.svg"):
            if code == 403 or path == SUMMARY:
                assert await status(here, path, **headers) == code


async def test_bytes_that_are_no_text_are_a_wrong_token(tmp_path: Path) -> None:
    async with site(tmp_path, auth__mode="token", auth__token=TOKEN) as here:
        host, port = here.daemon.url.removeprefix("http://").split(":")
        for value in (b"Bearer \xff\xfe", b"Basic \xc3\xa9", b"Basic \xff", b"\xff x", b"Bearer \xc3\xa9"):
            reader, writer = await asyncio.open_connection(host, int(port))
            head = f"GET {SUMMARY} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n".encode()
            writer.write(head + b"Authorization: " + value + b"\r\n\r\n")
            assert (await asyncio.wait_for(reader.readline(), 5)).split()[1] == b"401", value
            writer.close()


async def test_what_is_free_of_auth(tmp_path: Path) -> None:
    async with site(tmp_path, auth__mode="token", auth__token=TOKEN) as here:
        assert await here.get("/healthz", Host="anything.example") == {"status": "ok"}
        async with here.client.get(here.daemon.url + "/readyz") as response:
            assert (response.status, await response.read()) == (200, b"")
        await here.get("/health-monitoring/healthz", 401)
        assert (await here.get("/readyz", Authorization=f"Bearer {TOKEN}"))["ready"]


async def test_liveness_is_free_below_a_path_prefix_too(tmp_path: Path) -> None:
    values = {"auth__mode": "token", "auth__token": TOKEN, "public_url": "https://proxy.example/tsmon"}
    async with site(tmp_path, **values) as here:
        assert await here.get("/tsmon/healthz", Host="anything.example") == {"status": "ok"}
        assert await status(here, "/tsmon/readyz") == 200
        assert await status(here, "/tsmon/vpn") == 401
        assert await status(here, "/other/healthz") == 401


async def test_trusted_networks_are_let_in(tmp_path: Path) -> None:
    networks = {"auth__mode": "token", "auth__token": TOKEN, "auth__trusted_networks": "127.0.0.1"}
    async with site(tmp_path, **networks) as here:
        assert await status(here) == 200
        here.tailnet.tun = False
        await here.poll()
        assert await status(here) == 401, "a userspace tailscaled opens loopback to the tailnet"


async def test_the_host_header(tmp_path: Path) -> None:
    values = {"allowed_hosts": "dash.example", "public_url": "https://public.example/"}
    async with site(tmp_path, **values) as here:
        own = here.tailnet.own
        for host in (
            "localhost",
            "127.0.0.1:1",
            "[::1]",
            "dash.example:8000",
            "public.example",
            "LOCALHOST.",
        ):
            assert await status(here, Host=host) == 200, host
        for host in (own.ips[0], f"[{own.ips[1]}]:8000", "monitor.tail.example", "Monitor.Tail.Example."):
            assert await status(here, Host=host) == 200, host
        for host in ("monitor", "Monitor:8000", "10.42.0.17:8000", "[fd00::17]:8000", "172.31.87.3"):
            assert await status(here, Host=host) == 200, host
        hostile = ("evil.example", "localhost.evil.example", "monitor.evil.example", "10.0.0.1.evil.example")
        odd = ("evil.example@localhost", "localhost/x", "localhost?", "localhost#", "local host")
        for host in (*hostile, *odd, "[", "", "tail", "tail.example", "0x7f.1", "1.2.3"):
            assert await status(here, Host=host) == 421, host


EMPTY = View(
    version=1,
    now=0,
    as_of=None,
    nodes={},
    removed={},
    blind=None,
    self_id="",
    self_stopped=False,
    tailnet=None,
    tun=True,
    excluded=0,
)


def access(view: View | None = None, whois: Any = None, **values: Any) -> Access:
    return Access(values.pop("settings", None) or settings(**values), lambda: view or EMPTY, WhoisLine(whois))


class Whois:
    """A scripted whois."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def __call__(self, address: str) -> Any:
        self.asked.append(address)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Transport:
    def __init__(self, peer: Any) -> None:
        self.peer = peer

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.peer if name == "peername" else default


def person(login: str, tags: Any = None) -> dict[str, Any]:
    return {"Node": {"Tags": tags}, "UserProfile": {"LoginName": login}}


@pytest.mark.parametrize(
    ("answer", "let_in"),
    [
        (person("alice@example.com"), True),
        (person("ALICE@example.com"), True),
        (person("mallory@example.com"), False),
        (person("tagged-devices", ["tag:ops"]), True),
        (person("tagged-devices", ["tag:other"]), False),
        (person("alice@example.com", ["tag:other"]), False),
        (person(""), False),
        (None, False),
        ({"text": "Machine: alice@example.com"}, False),
        ({"Node": 5, "UserProfile": []}, False),
        (SourceError("source_unreachable", "no"), False),
    ],
)
async def test_identities_of_the_tailnet(answer: Any, let_in: bool) -> None:
    whois = Whois(answer)
    guard = access(whois=whois, auth__mode="tailnet", auth__users="alice@example.com", auth__tags="tag:ops")
    request = make_mocked_request("GET", SUMMARY, transport=Transport(("100.64.0.9", 5123)))
    assert await guard._is_member(request) == let_in
    assert whois.asked == ["100.64.0.9:5123"]
    await guard._is_member(request)
    assert len(whois.asked) == (2 if isinstance(answer, Exception) else 1), "answers are kept for a while"


async def test_a_stream_asks_the_tailnet_again() -> None:
    """Who was taken off the list reads on for half a minute at most, not for that and the cache's time."""
    whois = Whois(person("alice@example.com"))
    guard = access(whois=whois, auth__mode="tailnet", auth__users="alice@example.com")
    request = make_mocked_request("GET", SUMMARY, transport=Transport(("100.64.0.9", 5123)))
    assert await guard.lets_in(request)
    whois.answer = person("mallory@example.com")
    assert not await guard.lets_in(request)
    assert not await guard._is_member(request), "requests of the same connection are refused, too"


async def test_ipv6_callers_and_callers_without_an_address() -> None:
    whois = Whois(person("alice@example.com"))
    guard = access(whois=whois, auth__mode="tailnet", auth__users="alice@example.com")
    request = make_mocked_request("GET", SUMMARY, transport=Transport(("fd7a::9", 5123, 0, 0)))
    assert await guard._is_member(request)
    request = make_mocked_request("GET", SUMMARY, transport=Transport(("::ffff:100.64.0.9", 1)))
    assert await guard._is_member(request)
    assert whois.asked == ["[fd7a::9]:5123", "100.64.0.9:1"]
    assert not await guard._is_member(make_mocked_request("GET", SUMMARY, transport=Transport(None)))


async def test_the_whois_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsmon.server.access._WHOIS_MOST", 3)
    guard = access(whois=Whois(person("x")), auth__mode="tailnet", auth__users="alice")
    for port in range(10):
        await guard._is_member(make_mocked_request("GET", "/", transport=Transport(("100.64.0.9", port))))
    assert len(guard._seen) <= 3


async def test_tailnet_mode_refuses_strangers(tmp_path: Path) -> None:
    async with site(tmp_path, auth__mode="tailnet", auth__users="alice@example.com") as here:
        assert await status(here) == 403


def test_identity_headers_of_a_proxy_are_never_believed(tmp_path: Path) -> None:
    """No such header is read anywhere."""
    sources = PACKAGE.rglob("*.py")
    texts = "".join(path.read_text() for path in sources)
    assert "Tailscale-User" not in texts
    assert "X-Forwarded-For" not in texts


def test_another_address_needs_an_explicit_mode() -> None:
    with pytest.raises(Exception, match="is not loopback"):
        load(None, {}, {"listen": "0.0.0.0:8000"})
    assert load(None, {}, {"listen": "0.0.0.0:8000", "auth.mode": "none"}).auth.mode == "none"


def test_odd_remotes_are_not_trusted() -> None:
    guard = access(auth__trusted_networks="127.0.0.1,10.0.0.0/8")
    assert guard.is_trusted("10.1.2.3")
    assert guard.is_trusted("::ffff:10.1.2.3")
    for remote in (None, "", "unix", "192.0.2.1"):
        assert not guard.is_trusted(remote)


def test_loopback_in_ipv6_clothes_is_loopback() -> None:
    view = msgspec.structs.replace(EMPTY, tun=False)
    for known, let_in in ((EMPTY, True), (view, False)):
        guard = access(known, auth__trusted_networks="127.0.0.1,::1,::/0")
        for remote in ("127.0.0.1", "::ffff:127.0.0.1", "::1"):
            assert guard.is_trusted(remote) is let_in, remote


@pytest.mark.parametrize(("tun", "let_in"), [(True, True), (False, False), (None, False)])
def test_trusted_loopback_needs_a_tailscaled_that_is_known_to_have_tun(
    tun: bool | None, let_in: bool
) -> None:
    """Before the first snapshot it is not known: loopback may be open to the tailnet."""
    view = msgspec.structs.replace(EMPTY, tun=tun)
    assert access(view, auth__trusted_networks="127.0.0.1").is_trusted("127.0.0.1") == let_in
