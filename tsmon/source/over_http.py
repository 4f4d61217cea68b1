"""What the sidecar and the LocalAPI have in common."""

import asyncio

from tsmon.config import Settings
from tsmon.source.client import Client
from tsmon.source.errors import SourceError, SourceReason
from tsmon.source.pings import PingRoute, error_text


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
