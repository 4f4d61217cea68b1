"""tailscaled's own API on its unix socket, with the notification bus."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
import structlog

from tsmon.config import Settings
from tsmon.source.client import Client
from tsmon.source.dial import Dial, dial_direct, dial_through, is_ours
from tsmon.source.errors import NOT_JSON, SourceError
from tsmon.source.extras import LockedOut, TailscaleService, read_lock, read_services
from tsmon.source.over_http import HttpSource
from tsmon.source.pings import Ping, error_text, read_ping, read_whois

log = structlog.get_logger(__name__)

BUS_WAIT = 1.0
"""Seconds before a closed bus is opened again; doubled while that fails, up to …"""
_RARELY, _SOON = 60.0, 5.0
"""… a minute when the daemon refuses it, 5 s when no daemon is there."""
_SMALL_LINE = 1_000_000
"""Bytes of a bus line up to which it is decoded; a longer one is a hint all the same."""


class _Prefs(msgspec.Struct):
    control_url: str = msgspec.field(default="", name="ControlURL")


class LocalApi(HttpSource):
    """tailscaled's own API on its unix socket: read calls, pings and the notification bus."""

    kind = "localapi"
    _status_path = "/status"

    def __init__(self, path: str, settings: Settings) -> None:
        # tailscaled refuses any other Host, and every Origin.
        base = "http://local-tailscaled.sock/localapi/v0"
        client = Client(f"unix://{path}", base, path, max_bytes=settings.source_max_bytes)
        super().__init__(client, settings)
        self._path = path

    async def whois(self, address: str) -> dict[str, Any] | None:
        code, body, _ = await self._client.read(
            "GET", f"/whois?addr={quote(address, safe=':[]')}", self._timeout
        )
        if code == 404:
            return None
        self._refuse(code, body)
        return read_whois(body)

    async def ping(self, ip: str) -> Ping:
        try:
            # Without a reply the daemon never answers: the time-out is the miss.
            path = f"/ping?ip={quote(ip, safe=':')}&type=disco"
            code, body, _ = await self._client.read("POST", path, self._ping_timeout)
        except SourceError as error:
            return (
                Ping("missed") if error.reason == "source_timeout" else Ping("unmeasured", error=str(error))
            )
        self._pings.answered(code, asyncio.get_running_loop().time())
        result = read_ping(body) if code == 200 else None
        return result or Ping("unmeasured", error=f"{self.name}: answered {code}: {error_text(body)}")

    def _dial(self, own_ips: Sequence[str]) -> Dial:
        return dial_direct if is_ours(own_ips) else dial_through(self._path)

    async def services(self) -> tuple[TailscaleService, ...] | None:
        """Daemons before 1.98 have no such answer."""
        code, body, _ = await self._client.read("GET", "/services", self._timeout)
        return read_services(body) if code == 200 else None

    async def locked_out(self) -> tuple[LockedOut, ...] | None:
        code, body, _ = await self._client.read("GET", "/tka/status", self._timeout)
        return read_lock(body) if code == 200 else None

    async def control_url(self) -> str | None:
        code, body, _ = await self._client.read("GET", "/prefs", self._timeout)
        try:
            return (msgspec.json.decode(body, type=_Prefs).control_url or None) if code == 200 else None
        except NOT_JSON:
            return None

    async def watch(self, changed: Callable[[], None]) -> None:
        """Follow the bus until cancelled. It reconnects with growing waits, rarely when refused.
        A daemon that is gone may be back any moment."""
        wait, longest = BUS_WAIT, _RARELY
        complained = False
        while True:
            try:
                async for line in self._bus_lines():
                    if complained:
                        log.info("bus_open", source=self.name)
                    wait, complained, self.bus_open = BUS_WAIT, False, True
                    self._heed(line, changed)
                reason, longest = "closed by the daemon", _RARELY
            except SourceError as error:
                reason = str(error)
                longest = _SOON if error.reason == "source_unreachable" else _RARELY
            finally:
                self.health_codes, self.bus_open = frozenset(), False
            if not complained:
                complained = True
                log.info("bus_closed", source=self.name, reason=reason, remedy="polling goes on without it")
            await asyncio.sleep(wait)
            wait = min(wait * 2, longest)

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
        except NOT_JSON:
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
