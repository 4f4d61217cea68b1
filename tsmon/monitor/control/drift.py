"""What changed at the control server since the last time it was noted. Pure.

A difference counts once two answers in a row show it: after a restart of the control server, or while its
replicas disagree, one answer alone says little. What the status document says itself (names, tags, owner,
keys of nodes that are seen) is left to it.
"""

from collections.abc import Container, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from tsmon.monitor.state import Event, Node
from tsmon.source.control.devices import Device

_LOCAL = ("hostname", "user", "tags", "expired")
"""Of a node that is seen the status document says these itself."""
_CONTROL = ("routes_advertised", "routes_approved", "expiry_disabled", "approved", "version")
WATCHED = (*_LOCAL, *_CONTROL)


class Drift(NamedTuple):
    """One machine that joined, left or changed."""

    kind: Literal["joined", "left", "changed"]
    device: Device
    """As it is now; as it was last if it left."""
    before: Device | None = None


class Settled(NamedTuple):
    """What two answers in a row say."""

    baseline: dict[str, Device]
    """All that is noted now."""
    drifts: list[Drift]
    is_waiting: bool
    """A difference was in one answer only: the next one says whether it counts."""


def settle(
    baseline: Mapping[str, Device], before: Mapping[str, Device] | None, now: Mapping[str, Device]
) -> Settled:
    """What `now` and the answer `before` it (None: there is none to count) agree on, against `baseline`."""
    noted: dict[str, Device] = {}
    drifts: list[Drift] = []
    is_waiting = False
    for id_, device in now.items():
        was, last = baseline.get(id_), before.get(id_) if before is not None else None
        if was is not None and not differs(was, device):
            noted[id_] = device
        elif last is not None and not differs(last, device):
            noted[id_] = device
            drifts.append(Drift("changed", device, was) if was is not None else Drift("joined", device))
        else:
            is_waiting = True
            if was is not None:
                noted[id_] = was
    for id_ in baseline.keys() - now.keys():
        if before is not None and id_ not in before:
            drifts.append(Drift("left", baseline[id_]))
        else:
            is_waiting = True
            noted[id_] = baseline[id_]
    return Settled(noted, drifts, is_waiting)


def differs(before: Device, after: Device) -> bool:
    """In anything that is watched. What one answer does not say (fields that a server leaves out) is no
    difference."""
    return before is not after and bool(_differences(before, after, WATCHED))


def _differences(before: Device, after: Device, names: tuple[str, ...]) -> dict[str, list[Any]]:
    pairs = ((name, getattr(before, name), getattr(after, name)) for name in names)
    return {
        name: [old, new] for name, old, new in pairs if old != new and old is not None and new is not None
    }


def remembered(before: Device, after: Device) -> Device:
    """`after`, with what it does not say as it was known before."""
    names = ("routes_advertised", "routes_approved", "expiry_disabled", "approved", "ephemeral")
    missing = {
        name: getattr(before, name)
        for name in names
        if getattr(after, name) is None and getattr(before, name) is not None
    }
    after = msgspec.structs.replace(after, **missing) if missing else after
    return before if before == after else after


def drift_event(drift: Drift, nodes: Mapping[str, Node], removed: Container[str], now: float) -> Event | None:
    """The event of a drift at `now` (Unix seconds); None for what the status document tells itself, and for
    the coming and going of ephemeral machines."""
    device = drift.device
    node = nodes.get(device.id)
    if drift.kind != "changed":
        if node is not None or device.id in removed or device.ephemeral:
            return None
        did = "joined" if drift.kind == "joined" else "left"
        words = f"{device.hostname} {did} the tailnet, says the control server; it is not seen from here"
        return _event(device, None, now, words, {"known": [did == "left", did == "joined"]})
    if drift.before is None:
        return None
    found = _differences(drift.before, device, WATCHED if node is None else _CONTROL)
    if not found:
        return None
    name = node.hostname if node is not None else device.hostname
    return _event(device, node, now, f"{name}: {_words(found)}", found)


def _event(device: Device, node: Node | None, now: float, words: str, changes: dict[str, list[Any]]) -> Event:
    return Event(
        id=0,
        timestamp=now,
        recorded_at=0.0,
        event_type="node_changed",
        severity="ok",
        node_id=device.id,
        hostname=node.hostname if node is not None else device.hostname,
        node_type=node.role.node_type if node is not None else None,
        message=words,
        details={"source": "control", "changes": changes},
    )


def _words(found: Mapping[str, list[Any]]) -> str:
    """What changed, for people."""
    return ", ".join(_clause(name, old, new) for name, (old, new) in found.items())


def _clause(name: str, old: Any, new: Any) -> str:
    if name == "expiry_disabled":
        return "its key no longer expires" if new else "its key expires again"
    if name == "approved":
        return "it was approved" if new else "it waits for approval"
    if name == "expired":
        return "its key expired" if new else "its key is valid again"
    if name == "version":
        return f"Tailscale {old or 'unknown'} became {new or 'unknown'}"
    label = {
        "hostname": "name",
        "user": "owner",
        "tags": "tags",
        "routes_advertised": "advertised routes",
        "routes_approved": "approved routes",
    }[name]
    if isinstance(new, tuple):
        added = [f"+{text}" for text in new if text not in old]
        gone = [f"-{text}" for text in old if text not in new]
        return f"{label} {' '.join(added + gone)}"
    return f"{label} {old or 'none'} became {new or 'none'}"
