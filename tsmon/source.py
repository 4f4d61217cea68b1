"""The sidecar and LocalAPI clients: the only place with time-outs, size limits and error translation.

Both answer one small protocol (`Source`), so nothing behind it knows which one is in use. Every request opens
a fresh connection, has a time and a size limit, follows no redirect and sends no Origin.
"""

import asyncio
import errno
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol
from urllib.parse import quote

import aiohttp
import msgspec
import structlog

from tsmon.config import Settings, redact_url
from tsmon.state import Path
from tsmon.status import clean_text

log = structlog.get_logger(__name__)

SIDECAR_URL = "http://localhost:8765"
SOCKETS = (
    "/var/run/tailscale/tailscaled.sock",
    "/var/run/tailscaled.socket",
    "/var/packages/Tailscale/var/tailscaled.sock",
    "/tmp/tailscale/tailscaled.sock",  # noqa: S108 (where QNAP's package puts it)
    "/tmp/tailscaled.sock",  # noqa: S108 (where the official container puts it)
)
"""Where tailscaled's socket is by default: Linux and BSD, macOS, Synology, QNAP, the container."""

SIDECAR_EXTRA = 5.0
"""Seconds that a ping through a sidecar may take beyond `ping_timeout`: a process starts for each."""
TEXT_PING = 30.0
"""Seconds for a ping through a sidecar that answers in the command line's own text."""
BUS_WAIT = 1.0
"""Seconds before a closed bus is opened again; doubled up to a minute while that fails."""
_SMALL_LINE = 1_000_000
"""Bytes of a bus line up to which it is decoded; a longer one is a hint all the same."""

SourceReason = Literal["source_unreachable", "source_timeout", "bad_document"]


class SourceError(Exception):
    """The source gave no answer that could be a status document; the text is one clean line."""

    def __init__(self, reason: SourceReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Ping(msgspec.Struct, frozen=True):
    """The outcome of one ping: answered, missed (no answer in time), or no measurement at all."""

    outcome: Literal["answered", "missed", "unmeasured"]
    latency_ms: float | None = None
    path: Path | None = None
    relay: str | None = None
    error: str | None = None


class Source(Protocol):
    """Where tsmon reads the tailnet."""

    @property
    def kind(self) -> str:
        """`sidecar`, `localapi`, or `auto` while none was found."""

    @property
    def name(self) -> str:
        """Scheme and host, or the socket's path: never a secret."""

    @property
    def can_ping(self) -> bool:
        """False once the source showed that it has no ping."""

    @property
    def health_codes(self) -> frozenset[str]:
        """Codes of health warnings told by the bus while it is open."""

    async def status(self) -> bytes:
        """The status document. Raises SourceError."""

    async def whois(self, address: str) -> dict[str, Any] | None:
        """Who an address (`ip`, `ip:port`) of the tailnet is; None when nobody has it. Raises SourceError."""

    async def ping(self, ip: str) -> Ping:
        """One disco ping, bounded in time; failures are outcomes."""

    async def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` when the source says that something changed; returns at once where it cannot."""

    async def close(self) -> None:
        """Free the connections."""


class _PingResult(msgspec.Struct, rename="pascal"):
    err: str = ""
    latency_seconds: float = 0.0
    endpoint: str = ""
    peer_relay: str = ""
    derp_region_id: int = msgspec.field(default=0, name="DERPRegionID")
    derp_region_code: str = msgspec.field(default="", name="DERPRegionCode")


# Nothing is compressed: the size limit is one of what is read.
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


class _Client:
    """One HTTP server with bounds on everything. `name` stands for it in messages."""

    def __init__(self, name: str, base: str, socket: str | None, *, max_bytes: int) -> None:
        self.name = name
        self._base = base
        self._socket = socket
        self._max_bytes = max_bytes
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def open(
        self, method: str, path: str, timeout: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An open answer; every failure is a SourceError. `timeout` None: only connecting is bounded."""
        if self._session is None:
            connector: aiohttp.BaseConnector = (
                aiohttp.UnixConnector(self._socket, force_close=True)
                if self._socket
                else aiohttp.TCPConnector(force_close=True, limit=0)
            )
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=timeout or 10.0)
        try:
            async with self._session.request(
                method,
                self._base + path,
                timeout=limits,
                allow_redirects=False,
                headers=_HEADERS,
            ) as response:
                yield response
        except TimeoutError:
            raise SourceError(
                "source_timeout", f"{self.name}: no answer within {timeout or 10.0:g} s"
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise SourceError("source_unreachable", f"{self.name}: {_os_words(error.os_error)}") from None
        except aiohttp.ClientResponseError as error:
            words = clean_text(error.message, 120)
            raise SourceError("bad_document", f"{self.name}: is no HTTP server: {words}") from None
        except aiohttp.ServerDisconnectedError:
            words = "the connection was closed without an answer"
            raise SourceError("source_unreachable", f"{self.name}: {words}") from None
        except (aiohttp.ClientError, OSError) as error:
            words = _os_words(error) if isinstance(error, OSError) else "the connection broke in mid-answer"
            raise SourceError("source_unreachable", f"{self.name}: {words}") from None

    async def read(self, method: str, path: str, timeout: float) -> tuple[int, bytes, str]:
        """Status code, body and daemon version of one answer. Raises SourceError."""
        async with self.open(method, path, timeout) as response:
            body = bytearray()
            async for chunk in response.content.iter_chunked(1 << 18):
                body += chunk
                if len(body) > self._max_bytes:
                    raise SourceError(
                        "bad_document",
                        f"{self.name}: the answer is larger than source_max_bytes ({self._max_bytes} bytes)",
                    )
            return response.status, bytes(body), response.headers.get("Tailscale-Version", "")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def _os_words(error: OSError) -> str:
    words = {
        errno.ENOENT: "there is no such socket (is tailscaled running here?)",
        errno.ECONNREFUSED: "connection refused (nobody listens there)",
        errno.EACCES: "permission denied (may this user open the socket?)",
        errno.EPERM: "permission denied (may this user open the socket?)",
        errno.ECONNRESET: "the connection was reset",
        errno.EPIPE: "the connection was closed",
        errno.EHOSTUNREACH: "no route to the host",
        errno.ENETUNREACH: "no route to the network",
        errno.EMFILE: "too many open files in this process",
    }
    number = error.errno or 0
    if number in words:
        return words[number]
    return clean_text(error.strerror or str(error) or "connecting failed", 120)


class _HttpSource:
    """What the sidecar and the LocalAPI have in common."""

    kind = ""
    _status_path: str

    def __init__(self, client: _Client, settings: Settings) -> None:
        self.name = client.name
        self.can_ping = True
        self.health_codes: frozenset[str] = frozenset()
        self._client = client
        self._timeout = settings.source_timeout
        self._ping_timeout = settings.ping_timeout
        self._version = ""

    async def status(self) -> bytes:
        code, body, self._version = await self._client.read("GET", self._status_path, self._timeout)
        self._refuse(code, body)
        return body

    def _refuse(self, code: int, body: bytes) -> None:
        """Raise the SourceError that a status code other than 200 means."""
        if code == 200:
            return
        words = _error_text(body)
        reasons: dict[int, SourceReason] = {
            401: "source_unreachable",
            403: "source_unreachable",
            502: "source_unreachable",
            503: "source_unreachable",
            504: "source_timeout",
        }
        message = f"{self.name}: answered {code}" + (f": {words}" if words else "")
        if 300 <= code < 400:
            message = f"{self.name}: answered {code}, a redirect, which is not followed: check `source`"
        raise SourceError(reasons.get(code, "bad_document"), message)

    async def close(self) -> None:
        await self._client.close()


def _error_text(body: bytes) -> str:
    """The words of an error body: `{"error": {"message": …}}`, `{"error": …}` or plain text."""
    text = body[:2000].decode("utf-8", "replace")
    try:
        document = msgspec.json.decode(body[:100_000])
        found = document["error"]
        text = found["message"] if isinstance(found, dict) else found
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        pass
    return clean_text(str(text), 160)


def _read_ping(body: bytes) -> Ping | None:
    """The outcome that a PingResult tells, None when the body is none."""
    try:
        result = msgspec.json.decode(body, type=_PingResult)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if result.err == "timeout":
        return Ping("missed")
    if result.err:
        return Ping("unmeasured", error=clean_text(result.err, 120))
    path: Path | None = None
    if result.peer_relay:
        path = "peer_relay"
    elif result.endpoint:
        path = "direct"
    elif result.derp_region_id:
        path = "relay"
    relay = clean_text(result.derp_region_code, 32) or None
    return Ping("answered", latency_ms=round(result.latency_seconds * 1000, 3), path=path, relay=relay)


_PONG = re.compile(
    r"^pong from .* via (?P<via>\S+) in (?P<time>[0-9.]+)(?P<unit>µs|us|ms|s)\s*$", re.MULTILINE
)


def _read_text_ping(text: str) -> Ping:
    """The outcome that the text of `tailscale ping` tells."""
    match = _PONG.search(text)
    if match is None:
        if "timed out" in text or "no reply" in text:
            return Ping("missed")
        return Ping("unmeasured", error=clean_text(text, 120))
    via = match["via"]
    path: Path = "direct"
    relay = None
    if via.startswith("DERP("):
        path, relay = "relay", clean_text(via[5:].rstrip(")"), 32)
    elif via.startswith("peer-relay"):
        path = "peer_relay"
    factor = {"µs": 0.001, "us": 0.001, "ms": 1.0, "s": 1000.0}[match["unit"]]
    try:
        latency = float(match["time"]) * factor
    except ValueError:
        latency = None
    return Ping("answered", latency_ms=latency, path=path, relay=relay)


class Sidecar(_HttpSource):
    """The HTTP proxy in front of the Tailscale CLI (contract in docs/sidecar.md), also its older, minimal
    form: no `/ping`, plain text for whois and ping, an error of the CLI behind status 200."""

    kind = "sidecar"
    _status_path = "/status"

    def __init__(self, url: str, settings: Settings) -> None:
        client = _Client(redact_url(url), url.rstrip("/"), None, max_bytes=settings.source_max_bytes)
        super().__init__(client, settings)
        self._speaks_json: bool | None = None  # of /ping; None until it has answered once

    async def whois(self, address: str) -> dict[str, Any] | None:
        code, body, _ = await self._client.read("GET", f"/whois/{quote(address, safe=':[]')}", self._timeout)
        if code == 404:
            return None
        self._refuse(code, body)
        return _read_whois(body)

    async def ping(self, ip: str) -> Ping:
        limit = (
            self._ping_timeout + SIDECAR_EXTRA if self._speaks_json else max(TEXT_PING, self._ping_timeout)
        )
        try:
            code, body, _ = await self._client.read("GET", f"/ping/{quote(ip, safe=':')}", limit)
        except SourceError as error:
            return (
                Ping("missed") if error.reason == "source_timeout" else Ping("unmeasured", error=str(error))
            )
        if code == 404:
            self.can_ping = False
        if code != 200:
            return Ping("unmeasured", error=f"{self.name}: answered {code}: {_error_text(body)}")
        result = _read_ping(body)
        self._speaks_json = result is not None
        return result or _read_text_ping(body[:100_000].decode("utf-8", "replace"))

    async def watch(self, changed: Callable[[], None]) -> None:
        """A sidecar has no bus."""


def _read_whois(body: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        document = None
    if isinstance(document, dict):
        return document
    lines = body[:20_000].decode("utf-8", "replace").splitlines()
    return {"text": "\n".join(clean_text(line, 400) for line in lines[:100])}


class LocalApi(_HttpSource):
    """tailscaled's own API on its unix socket: read calls, pings and the notification bus."""

    kind = "localapi"
    _status_path = "/status"

    def __init__(self, path: str, settings: Settings) -> None:
        # tailscaled refuses any other Host, and every Origin.
        base = "http://local-tailscaled.sock/localapi/v0"
        client = _Client(f"unix://{path}", base, path, max_bytes=settings.source_max_bytes)
        super().__init__(client, settings)

    async def whois(self, address: str) -> dict[str, Any] | None:
        code, body, _ = await self._client.read(
            "GET", f"/whois?addr={quote(address, safe=':[]')}", self._timeout
        )
        if code == 404:
            return None
        self._refuse(code, body)
        return _read_whois(body)

    async def ping(self, ip: str) -> Ping:
        try:
            # Without a reply the daemon never answers: the time-out is the miss.
            path = f"/ping?ip={quote(ip, safe=':')}&type=disco"
            code, body, _ = await self._client.read("POST", path, self._ping_timeout)
        except SourceError as error:
            return (
                Ping("missed") if error.reason == "source_timeout" else Ping("unmeasured", error=str(error))
            )
        if code == 404:
            self.can_ping = False
        result = _read_ping(body) if code == 200 else None
        return result or Ping("unmeasured", error=f"{self.name}: answered {code}: {_error_text(body)}")

    async def watch(self, changed: Callable[[], None]) -> None:
        """Follow the bus for ever, reconnecting with growing waits; refused or omitted: try again rarely."""
        wait = BUS_WAIT
        complained = False
        while True:
            try:
                async for line in self._bus_lines():
                    if complained:
                        log.info("bus_open", source=self.name)
                    wait, complained = BUS_WAIT, False
                    self._heed(line, changed)
                reason = "closed by the daemon"
            except SourceError as error:
                reason = str(error)
            finally:
                self.health_codes = frozenset()
            if not complained:
                complained = True
                log.info("bus_closed", source=self.name, reason=reason, remedy="polling goes on without it")
            await asyncio.sleep(wait)
            wait = min(wait * 2, 60.0)

    async def _bus_lines(self) -> AsyncIterator[bytes]:
        async with self._client.open(
            "GET", f"/watch-ipn-bus?mask={bus_mask(self._version)}", None
        ) as response:
            if response.status != 200:
                self._refuse(response.status, await response.content.read(2000))
            rest = bytearray()
            async for chunk in response.content.iter_any():
                *lines, tail = chunk.split(b"\n")
                for line in lines:
                    yield bytes(rest + line)
                    rest.clear()
                # A line may hold every peer of the tailnet: beyond the limit only that it came matters.
                if len(rest) <= _SMALL_LINE:
                    rest += tail

    def _heed(self, line: bytes, changed: Callable[[], None]) -> None:
        if not line.strip():
            return
        try:
            notice = msgspec.json.decode(line) if len(line) <= _SMALL_LINE else {"PeersChanged": True}
        except (msgspec.DecodeError, UnicodeDecodeError):
            notice = {"PeersChanged": True}
        if not isinstance(notice, dict):
            return
        health = notice.get("Health")
        if isinstance(health, dict):
            warnings = health.get("Warnings")
            codes = frozenset(map(str, warnings)) if isinstance(warnings, dict) else frozenset()
            if codes != self.health_codes:
                self.health_codes = codes
                changed()
        if any(notice.get(key) for key in _NEWS) or notice.get("State") is not None:
            changed()


_NEWS = ("NetMap", "PeersChanged", "PeersRemoved", "PeerChanges", "PeerChangedPatch", "LoginFinished")


def bus_mask(version: str) -> int:
    """The mask of `watch-ipn-bus` that makes a daemon of this version tell of peers, without private keys and
    without the network map where that can be had (masks per version: docs/sources.md)."""
    match = re.match(r"(\d+)\.(\d+)", version)
    release = (int(match[1]), int(match[2])) if match else (1, 102)
    initial_state, no_private_keys, initial_health, rate_limit = 2, 16, 128, 256
    peer_changes, peer_patches = 4096, 32768
    if release >= (1, 100):
        return initial_state + no_private_keys + initial_health + peer_changes + peer_patches
    if release >= (1, 98):
        return initial_state + no_private_keys + initial_health + peer_changes
    return initial_state + no_private_keys + initial_health + rate_limit


class Auto:
    """A sidecar on localhost:8765 that answers with a status document, else the local socket; looked for
    until one is found, then kept until restart."""

    def __init__(
        self, settings: Settings, sidecar_url: str = SIDECAR_URL, sockets: tuple[str, ...] = SOCKETS
    ) -> None:
        self._candidates: list[Sidecar | LocalApi] = [
            Sidecar(sidecar_url, settings),
            *(LocalApi(path, settings) for path in sockets),
        ]
        self._found: Sidecar | LocalApi | None = None
        self._was_found = asyncio.Event()

    @property
    def kind(self) -> str:
        return self._found.kind if self._found else "auto"

    @property
    def name(self) -> str:
        return self._found.name if self._found else "auto"

    @property
    def can_ping(self) -> bool:
        return self._found.can_ping if self._found else True

    @property
    def health_codes(self) -> frozenset[str]:
        return self._found.health_codes if self._found else frozenset()

    async def status(self) -> bytes:
        if self._found is not None:
            return await self._found.status()
        looked: list[str] = []
        for candidate in self._candidates:
            try:
                body = await candidate.status()
                if b'"BackendState"' not in body:
                    raise SourceError("bad_document", f"{candidate.name}: the answer is no status document")
            except SourceError as error:
                looked.append(str(error))
                continue
            self._found = candidate
            self._was_found.set()
            log.info("source_found", source=candidate.name)
            return body
        # Sockets of other systems that are not there say nothing.
        told = looked[:2] + [text for text in looked[2:] if "no such socket" not in text]
        raise SourceError("source_unreachable", "no source found; looked for " + "; ".join(told))

    async def whois(self, address: str) -> dict[str, Any] | None:
        if self._found is None:
            raise SourceError("source_unreachable", "no source found yet")
        return await self._found.whois(address)

    async def ping(self, ip: str) -> Ping:
        return await self._found.ping(ip) if self._found else Ping("unmeasured", error="no source found yet")

    async def watch(self, changed: Callable[[], None]) -> None:
        await self._was_found.wait()
        if self._found is not None:
            await self._found.watch(changed)

    async def close(self) -> None:
        for candidate in self._candidates:
            await candidate.close()


def make_source(settings: Settings) -> Source:
    """The source that the settings name."""
    url = settings.source.reveal()
    if url == "auto":
        return Auto(settings)
    if url.startswith("unix://"):
        return LocalApi(url.removeprefix("unix://"), settings)
    return Sidecar(url, settings)
