"""The source that is found by itself."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from tsmon.config import Settings
from tsmon.source.check_answer import Asker, CannotAskError
from tsmon.source.errors import SourceError
from tsmon.source.extras import LockedOut, TailscaleService
from tsmon.source.localapi import LocalApi
from tsmon.source.pings import Ping
from tsmon.source.sidecar import Sidecar

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
    def bus_open(self) -> bool:
        return self._found.bus_open if self._found else False

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
        shown = looked[:2] + [text for text in looked[2:] if "no such socket" not in text]
        raise SourceError("source_unreachable", "no source found; looked for " + "; ".join(shown))

    async def whois(self, address: str) -> dict[str, Any] | None:
        if self._found is None:
            raise SourceError("source_unreachable", "no source found yet")
        return await self._found.whois(address)

    async def ping(self, ip: str) -> Ping:
        return await self._found.ping(ip) if self._found else Ping("unmeasured", error="no source found yet")

    def asker(self, own_ips: Sequence[str]) -> Asker:
        if self._found is None:
            raise CannotAskError("no source found yet")
        return self._found.asker(own_ips)

    async def services(self) -> tuple[TailscaleService, ...] | None:
        return await self._found.services() if self._found else None

    async def locked_out(self) -> tuple[LockedOut, ...] | None:
        return await self._found.locked_out() if self._found else None

    async def control_url(self) -> str | None:
        return await self._found.control_url() if self._found else None

    async def watch(self, changed: Callable[[], None]) -> None:
        await self._was_found.wait()
        if self._found is not None:
            await self._found.watch(changed)

    async def close(self) -> None:
        for candidate in self._candidates:
            await candidate.close()
