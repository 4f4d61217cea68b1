"""The control server's last answer, as the view holds it. Pure."""

import contextlib
from collections.abc import Iterable, Mapping

import msgspec

from tsmon.config import ControlSettings
from tsmon.source.control import TAILSCALE_URL
from tsmon.source.control.devices import Credential, Device

_EXIT_ROUTES = ("0.0.0.0/0", "::/0")


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What the control server knows, of its last good answer."""

    kind: str
    devices: Mapping[str, Device] = {}
    """By stable ID; those of the last run until the first answer."""
    as_of: float | None = None
    """When the last good answer came; None: there was none, ever."""
    error: str = ""
    """Why the newest question has no usable answer; then all this is frozen."""
    asked: bool = False
    """The newest question of this run has an answer, or an error."""
    unreadable: int = 0
    unreadable_named: tuple[str, ...] = ()
    credentials: tuple[Credential, ...] | None = None
    """None: not asked yet, or the server does not say."""
    routers: Mapping[str, tuple[str, ...]] = {}
    """Prefixes for which at least two machines are approved, exit routes aside -> their stable IDs."""
    down: frozenset[str] = frozenset()
    """Machines that two answers in a row called disconnected."""

    @property
    def is_fresh(self) -> bool:
        """The newest question was answered."""
        return self.asked and not self.error

    @property
    def knows_routes(self) -> bool:
        """The server says which routes are advertised and approved."""
        return any(device.routes_approved is not None for device in self.devices.values())


def routers_of(devices: Iterable[Device]) -> dict[str, tuple[str, ...]]:
    """Prefixes for which at least two of these are approved, exit routes aside -> their stable IDs."""
    found: dict[str, list[str]] = {}
    for device in devices:
        for prefix in device.routes_approved or ():
            if prefix not in _EXIT_ROUTES:
                found.setdefault(prefix, []).append(device.id)
    return {prefix: tuple(ids) for prefix, ids in found.items() if len(ids) > 1}


class StoredInventory(msgspec.Struct, frozen=True, kw_only=True):
    """What the next run needs beside the machines."""

    source: str
    """Which control server it was."""
    as_of: float | None = None


def source_of(settings: ControlSettings) -> str:
    """Names the control server: what one said is nothing to compare another one's word with."""
    return f"{settings.kind} {settings.url or TAILSCALE_URL}"


def read_stored(text: str | None) -> StoredInventory | None:
    """None when nothing was stored, or nothing that can be read."""
    with contextlib.suppress(msgspec.DecodeError, TypeError):
        return msgspec.json.decode(text or "", type=StoredInventory)
    return None


def restored(
    settings: ControlSettings, devices: Iterable[Device], stored: StoredInventory | None
) -> Inventory | None:
    """The inventory at the start: as the last run left it, if it asked the same server; None when none is to
    be asked."""
    if not settings.kind:
        return None
    if stored is None or stored.source != source_of(settings):
        return Inventory(kind=settings.kind)
    known = {device.id: device for device in devices}
    return Inventory(
        kind=settings.kind, devices=known, as_of=stored.as_of, routers=routers_of(known.values())
    )


def ephemeral_ids(devices: Iterable[Device]) -> frozenset[str]:
    """Of the machines that leave the tailnet when they go offline."""
    return frozenset(device.id for device in devices if device.ephemeral)
