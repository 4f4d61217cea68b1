"""The sidecar: an HTTP proxy in front of the Tailscale CLI."""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from tsmon.config import Settings, redact_url
from tsmon.source.client import Client
from tsmon.source.errors import SourceError
from tsmon.source.over_http import HttpSource
from tsmon.source.pings import Ping, error_text, read_ping, read_text_ping, read_whois

SIDECAR_EXTRA = 5.0
"""Seconds that a ping through a sidecar may take beyond `ping_timeout`: a process starts for each."""
TEXT_PING = 30.0
"""Seconds for a ping through a sidecar that answers in the command line's own text."""


class Sidecar(HttpSource):
    """The HTTP proxy in front of the Tailscale CLI (contract in docs/sidecar.md), also its older, minimal
    form: no `/ping`, plain text for whois and ping, an error of the CLI behind status 200."""

    kind = "sidecar"
    _status_path = "/status"

    def __init__(self, url: str, settings: Settings) -> None:
        client = Client(redact_url(url), url.rstrip("/"), None, max_bytes=settings.source_max_bytes)
        super().__init__(client, settings)
        self._speaks_json: bool | None = None  # of /ping; None until it has answered once

    async def whois(self, address: str) -> dict[str, Any] | None:
        code, body, _ = await self._client.read("GET", f"/whois/{quote(address, safe=':[]')}", self._timeout)
        if code == 404:
            return None
        self._refuse(code, body)
        return read_whois(body)

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
        self._pings.answered(code, asyncio.get_running_loop().time())
        if code != 200:
            return Ping("unmeasured", error=f"{self.name}: answered {code}: {error_text(body)}")
        result = read_ping(body)
        self._speaks_json = result is not None
        return result or read_text_ping(body[:100_000].decode("utf-8", "replace"))

    async def watch(self, changed: Callable[[], None]) -> None:
        """A sidecar has no bus."""
