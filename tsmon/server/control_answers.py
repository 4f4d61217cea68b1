"""What the API answers of the control server's word: per node, and what is not seen from here."""

from typing import Literal

import msgspec

from tsmon.base.clock import rfc3339
from tsmon.monitor.control.coverage import UNSEEN_WORDS, LocalOnly, Unseen
from tsmon.source.control.devices import Device


class ControlFacts(msgspec.Struct, kw_only=True, gc=False):  # made by the ten thousand; holds no cycles
    """What the control server says of a machine; null is what it does not say."""

    online: bool | None
    """Connected to the control server; states and alerts go by the status document and the pings."""
    last_seen: str | None
    version: str | None
    update_available: bool | None
    approved: bool | None
    """False: it waits for an administrator."""
    ephemeral: bool | None
    created: str | None
    key_expiry: str | None
    key_expiry_disabled: bool | None
    routes_advertised: tuple[str, ...] | None
    routes_approved: tuple[str, ...] | None
    routes_pending: tuple[str, ...]
    """Advertised, and waiting for an approval."""


class UnseenAnswer(msgspec.Struct, kw_only=True):
    id: str
    hostname: str
    dns_name: str
    ips: tuple[str, ...]
    os: str | None
    user: str
    tags: tuple[str, ...]
    because: Literal["waits_for_approval", "locked_out", "new", "policy"]
    why: str
    """The same for people."""
    control: ControlFacts


class LocalOnlyAnswer(msgspec.Struct, kw_only=True):
    id: str
    hostname: str
    because: Literal["shared", "new"]


class CoverageAnswer(msgspec.Struct, kw_only=True):
    kind: str
    known: int
    seen: int
    unseen: list[UnseenAnswer]
    local_only: list[LocalOnlyAnswer]
    as_of: str | None
    error: str | None
    """Why the newest question has no answer: then all this is of `as_of`."""


class ControlReady(msgspec.Struct, kw_only=True):
    kind: str
    url: str
    requests: int
    last_success: str | None
    error: str | None
    credentials_error: str | None
    unreadable_rows: int
    unreadable: list[str]


def control_facts(device: Device) -> ControlFacts:
    return ControlFacts(
        online=device.online,
        last_seen=rfc3339(device.last_seen),
        version=device.version or None,
        update_available=device.update_available,
        approved=device.approved,
        ephemeral=device.ephemeral,
        created=rfc3339(device.created),
        key_expiry=rfc3339(device.expires),
        key_expiry_disabled=device.expiry_disabled,
        routes_advertised=device.routes_advertised,
        routes_approved=device.routes_approved,
        routes_pending=device.routes_pending,
    )


def unseen_answer(unseen: Unseen) -> UnseenAnswer:
    device = unseen.device
    return UnseenAnswer(
        id=device.id,
        hostname=device.hostname,
        dns_name=device.dns_name,
        ips=device.ips,
        os=device.os or None,
        user=device.user,
        tags=device.tags,
        because=unseen.because,
        why=UNSEEN_WORDS[unseen.because],
        control=control_facts(device),
    )


def local_only_answer(local: LocalOnly) -> LocalOnlyAnswer:
    return LocalOnlyAnswer(id=local.node.id, hostname=local.node.hostname, because=local.because)
