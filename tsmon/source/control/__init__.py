"""The control server's own API, read with a credential: what it knows of machines and credentials.

Optional, and never believed over the status document and the pings: it says what the policy hides from here.
"""

from typing import Protocol

from tsmon.base.clock import Clock
from tsmon.config import ControlSettings
from tsmon.source.control.devices import Credential, Listing

TAILSCALE_URL = "https://api.tailscale.com"


class ControlApi(Protocol):
    """One control server's API. Every method raises ControlError."""

    @property
    def kind(self) -> str:
        """`tailscale` or `headscale`."""

    @property
    def name(self) -> str:
        """Scheme and host: never a secret."""

    @property
    def requests(self) -> int:
        """How many requests were sent so far."""

    @property
    def scopes(self) -> tuple[str, ...] | None:
        """What the credential may do, where the server said it with an answer."""

    async def devices(self) -> Listing:
        """Every machine of the tailnet."""

    async def credentials(self, *, everyone: bool) -> tuple[Credential, ...]:
        """The credential that tsmon itself uses, as far as the server knows it; with `everyone` those of
        the whole tailnet too."""

    async def close(self) -> None:
        """Free the connections."""


def make_control(settings: ControlSettings, clock: Clock) -> ControlApi:
    """The API that the settings name; `settings.kind` is not ""."""
    from tsmon.source.control.headscale import Headscale  # noqa: PLC0415 (start-up time: aiohttp)
    from tsmon.source.control.tailscale import Tailscale  # noqa: PLC0415

    return Headscale(settings, clock) if settings.kind == "headscale" else Tailscale(settings, clock)
