"""What the sidecar and the LocalAPI have in common."""

import asyncio
from collections.abc import Sequence
from functools import partial

from tsmon.config import Settings
from tsmon.source.check_answer import Asker, CannotAskError
from tsmon.source.client import Client
from tsmon.source.dial import Dial, dial_direct, is_ours
from tsmon.source.errors import SourceError, SourceReason
from tsmon.source.extras import LockedOut, TailscaleService
from tsmon.source.pings import PingRoute, error_text
from tsmon.source.port_check import ask


class HttpSource:
    """What the sidecar and the LocalAPI have in common."""

    kind = ""
    _status_path: str

    def __init__(self, client: Client, settings: Settings) -> None:
        self.name = client.name
        self.bus_open = False
        self.health_codes: frozenset[str] = frozenset()
        self._client = client
        self._timeout = settings.source_timeout
        self._ping_timeout = settings.ping_timeout
        self._version = ""
        self._pings = PingRoute()

    @property
    def can_ping(self) -> bool:
        """The source sends pings (rule 3.11)."""
        return self._pings.is_open(asyncio.get_running_loop().time())

    async def status(self) -> bytes:
        try:
            code, body, self._version = await self._client.read("GET", self._status_path, self._timeout)
            self._refuse(code, body)
        except SourceError:
            self._pings.forget()
            raise
        return body

    def asker(self, own_ips: Sequence[str]) -> Asker:
        return partial(ask, self._dial(own_ips))

    def _dial(self, own_ips: Sequence[str]) -> Dial:
        """How connections to nodes are made. Raises CannotAskError."""
        if is_ours(own_ips):
            return dial_direct
        raise CannotAskError(
            "this machine has no way into the tailnet (tailscaled runs in userspace mode, or elsewhere), and"
            " the sidecar dials for nobody: let the source be tailscaled's own socket, or run tailscaled with"
            " a TUN here"
        )

    async def services(self) -> tuple[TailscaleService, ...] | None:
        return None

    async def locked_out(self) -> tuple[LockedOut, ...] | None:
        return None

    async def control_url(self) -> str | None:
        return None

    def _refuse(self, code: int, body: bytes) -> None:
        """Raise the SourceError that a status code other than 200 means."""
        if code == 200:
            return
        words = error_text(body)
        reasons: dict[int, SourceReason] = {
            401: "source_unreachable",
            403: "source_unreachable",
            502: "source_unreachable",
            503: "source_unreachable",
            408: "source_timeout",
            504: "source_timeout",
        }
        message = f"{self.name}: answered {code}" + (f": {words}" if words else "")
        if 300 <= code < 400:
            message = f"{self.name}: answered {code}, a redirect, which is not followed: check `source`"
        raise SourceError(reasons.get(code, "bad_document"), message)

    async def close(self) -> None:
        await self._client.close()
