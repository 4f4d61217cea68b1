"""What sidecar and LocalAPI answer, read: pings as JSON or as the command line's text, whois, errors."""

import re
from typing import Any, Literal

import msgspec

from tsmon.base.text import clean_text
from tsmon.source.errors import NOT_JSON

Path = Literal["direct", "relay", "peer_relay"]


_LONGEST_MS = 3_600_000.0


class Ping(msgspec.Struct, frozen=True):
    """The outcome of one ping: answered, missed (no answer in time), or no measurement at all."""

    outcome: Literal["answered", "missed", "unmeasured"]
    latency_ms: float | None = None
    path: Path | None = None
    relay: str | None = None
    error: str | None = None


class _PingResult(msgspec.Struct, rename="pascal"):
    err: str = ""
    latency_seconds: float = 0.0
    endpoint: str = ""
    peer_relay: str = ""
    derp_region_id: int = msgspec.field(default=0, name="DERPRegionID")
    derp_region_code: str = msgspec.field(default="", name="DERPRegionCode")


def read_ping(body: bytes) -> Ping | None:
    """The outcome that a PingResult tells, None when the body is none."""
    try:
        result = msgspec.json.decode(body, type=_PingResult)
    except NOT_JSON:
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
    return _answered(result.latency_seconds * 1000, path, relay)


def _answered(latency_ms: float | None, path: Path | None, relay: str | None) -> Ping:
    """An answer whose latency may be anything: what no ping can take is none."""
    if latency_ms is None or not 0 <= latency_ms <= _LONGEST_MS:
        return Ping("answered", path=path, relay=relay)
    return Ping("answered", latency_ms=round(latency_ms, 3), path=path, relay=relay)


_PONG = re.compile(
    r"^pong from .* via (?P<via>\S+) in (?P<time>[0-9.]+)(?P<unit>µs|us|ms|s)\s*$", re.MULTILINE
)


def read_text_ping(text: str) -> Ping:
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
    return _answered(latency, path, relay)


def read_whois(body: bytes) -> dict[str, Any]:
    """The JSON of a whois; the plain text of an old sidecar stands under `text`."""
    try:
        document = msgspec.json.decode(body)
    except NOT_JSON:
        document = None
    if isinstance(document, dict):
        return document
    lines = body[:20_000].decode("utf-8", "replace").splitlines()
    return {"text": "\n".join(clean_text(line, 400) for line in lines[:100])}


def error_text(body: bytes) -> str:
    """The words of an error body: `{"error": {"message": …}}`, `{"error": …}` or plain text."""
    text = body[:2000].decode("utf-8", "replace")
    try:
        document = msgspec.json.decode(body[:100_000])
        found = document["error"]
        text = found["message"] if isinstance(found, dict) else found
    except (*NOT_JSON, KeyError, TypeError):
        pass
    return clean_text(str(text), 160)


class PingRoute:
    """Whether the source sends pings at all. A server that answers 404 for a few seconds (a proxy that is
    started again) has not lost the route: that would end every outage that only pings know of."""

    ROUNDS = 3
    """So many rounds of 404 in a row, …"""
    SPREAD = 60.0
    """… over at least so many seconds, mean that there is no such route."""
    RETRY = 3600.0
    """Seconds after which it is tried again."""
    _ROUND = 5.0  # answers within this belong to one round

    def __init__(self) -> None:
        self._first: float | None = None  # of the 404s in a row
        self._last = 0.0
        self._rounds = 0
        self._closed: float | None = None

    def answered(self, code: int, mono: float) -> None:
        """A ping was answered with this status code at `mono` (monotonic seconds)."""
        if code != 404:
            self.forget()
            return
        if self._first is None:
            self._first = self._last = mono
            self._rounds = 1
        elif mono - self._last > self._ROUND:
            self._last = mono
            self._rounds += 1
        if self._closed is not None or (self._rounds >= self.ROUNDS and mono - self._first >= self.SPREAD):
            self._closed = mono

    def forget(self) -> None:
        """The source failed as a whole, or answered: what was is of no account."""
        self._first = self._closed = None

    def is_open(self, mono: float) -> bool:
        """Pings may be sent at `mono`."""
        return self._closed is None or mono - self._closed >= self.RETRY
