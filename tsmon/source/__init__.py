"""The sidecar and LocalAPI clients.

Both answer one small protocol (`Source`), so nothing behind it knows which one is in use. Every request opens
a fresh connection, has a time and a size limit, follows no redirect and sends no Origin.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tsmon.config import Settings
from tsmon.source.check_answer import Asker
from tsmon.source.extras import LockedOut, TailscaleService
from tsmon.source.pings import Ping


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
    def bus_open(self) -> bool:
        """The source tells at once when something changes."""

    @property
    def health_codes(self) -> frozenset[str]:
        """Codes of health warnings that the bus reports while it is open."""

    async def status(self) -> bytes:
        """The status document. Raises SourceError."""

    async def whois(self, address: str) -> dict[str, Any] | None:
        """Who an address (`ip`, `ip:port`) of the tailnet is; None when nobody has it. Raises SourceError."""

    async def ping(self, ip: str) -> Ping:
        """One disco ping, bounded in time; failures are outcomes."""

    def asker(self, own_ips: Sequence[str]) -> Asker:
        """What asks ports of nodes; `own_ips` are the monitor's own addresses in the tailnet. Raises
        CannotAskError where none can be asked."""

    async def services(self) -> tuple[TailscaleService, ...] | None:
        """The Tailscale Services that this machine may see; None where only the status document says."""

    async def locked_out(self) -> tuple[LockedOut, ...] | None:
        """Machines that wait for a signature; None: the tailnet has no lock, or nobody can be asked."""

    async def control_url(self) -> str | None:
        """The control server that tailscaled is set to; None where nobody can be asked."""

    async def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` when the source says that something changed; returns at once where it cannot."""

    async def close(self) -> None:
        """Free the connections."""


def make_source(settings: Settings) -> Source:
    """The source that the settings name."""
    from tsmon.source.auto import Auto  # noqa: PLC0415 (start-up time: aiohttp)
    from tsmon.source.localapi import LocalApi  # noqa: PLC0415
    from tsmon.source.sidecar import Sidecar  # noqa: PLC0415

    url = settings.source.reveal()
    if url == "auto":
        return Auto(settings)
    if url.startswith("unix://"):
        return LocalApi(url.removeprefix("unix://"), settings)
    return Sidecar(url, settings)
