"""What tailscaled says beside nodes: Tailscale Services, and who is locked out. Pure.

The formats are Go's `tailcfg.ServiceDetails` (Services, since 1.98; the same in `Self.CapMap` of the status
document) and `ipnstate.TailnetLockStatus`. Everything in them is hostile.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tsmon.base.text import clean_text
from tsmon.source.errors import NOT_JSON

MOST_SERVICES = 500
MOST_PORTS = 20
"""Ports of one Service that are read: a range may name all of them, and each is asked."""
MOST_LOCKED_OUT = 10_000
_NAME = re.compile(r"svc:[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_PORTS = re.compile(r"(?:tcp:|6:)?(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?\Z")
_CAPABILITY = "services/"


class TailscaleService(msgspec.Struct, frozen=True):
    """A Tailscale Service that this machine may see: a name and an address that any of its hosts answers."""

    name: str
    """`svc:web`."""
    ips: tuple[str, ...]
    ports: tuple[int, ...]
    """TCP ports, at most `MOST_PORTS`; none where it takes any."""

    @property
    def ip(self) -> str | None:
        """The first IPv4 address, else the first IPv6 one, else None."""
        return next((ip for ip in self.ips if ":" not in ip), self.ips[0] if self.ips else None)


class LockedOut(msgspec.Struct, frozen=True):
    """A machine whose key waits for a signature: the tailnet lock keeps it out."""

    id: str
    """Stable ID."""
    hostname: str


class _Details(msgspec.Struct, rename="pascal"):
    name: str = ""
    addrs: list[str] | None = None
    ports: list[str] | None = None


class _Filtered(msgspec.Struct, rename="pascal"):
    name: str = ""
    stable_id: str = msgspec.field(default="", name="StableID")


class _Lock(msgspec.Struct, rename="pascal"):
    enabled: bool = False
    filtered_peers: list[_Filtered] | None = None


def services_of(capabilities: Mapping[str, Any] | None) -> tuple[TailscaleService, ...]:
    """The Services in `Self.CapMap`, by name; entries that are none are left out."""
    found: list[_Details] = []
    for key, values in (capabilities or {}).items():
        if key.startswith(_CAPABILITY) and isinstance(values, list):
            for value in values[:MOST_SERVICES]:
                try:
                    found.append(msgspec.convert(value, _Details))
                except msgspec.ValidationError:
                    continue
    return _services(found)


def read_services(body: bytes) -> tuple[TailscaleService, ...] | None:
    """What the LocalAPI's `services` answered, by name; None when it is no such answer."""
    try:
        return _services(msgspec.json.decode(body, type=dict[str, _Details]).values())
    except NOT_JSON:
        return None


def read_lock(body: bytes) -> tuple[LockedOut, ...] | None:
    """Whom the LocalAPI's `tka/status` calls locked out, by name; None when it is no such answer, or the
    tailnet has no lock."""
    try:
        lock = msgspec.json.decode(body, type=_Lock)
    except NOT_JSON:
        return None
    if not lock.enabled:
        return None
    rows = (lock.filtered_peers or [])[:MOST_LOCKED_OUT]
    found = {
        clean_text(row.stable_id, 64): clean_text(row.name.strip(".").split(".", 1)[0], 63)
        for row in rows
        if row.stable_id
    }
    named = [LockedOut(id_, hostname or id_) for id_, hostname in found.items()]
    return tuple(sorted(named, key=lambda row: (row.hostname, row.id)))


def _services(details: Iterable[_Details]) -> tuple[TailscaleService, ...]:
    found = {row.name: service for row in details if (service := _service(row)) is not None}
    return tuple(found[name] for name in sorted(found)[:MOST_SERVICES])


def _service(row: _Details) -> TailscaleService | None:
    if _NAME.match(row.name) is None:
        return None
    try:
        ips = tuple(str(ipaddress.ip_address(text)) for text in (row.addrs or [])[:8])
    except ValueError:
        return None
    return TailscaleService(row.name, ips, tuple(_ports(row.ports or [])))


def _ports(texts: Iterable[str]) -> list[int]:
    found: dict[int, None] = {}
    for text in texts:
        match = _PORTS.match(text)
        if match is not None:
            first, last = int(match["first"]), int(match["last"] or match["first"])
            found |= dict.fromkeys(range(max(first, 1), min(last, first + MOST_PORTS, 65535) + 1))
    return list(found)[:MOST_PORTS]
