"""The inventory held against the view: "seeing 41 of 60", and why the others are not seen. Pure."""

from typing import Literal, NamedTuple

from tsmon.monitor.control.inventory import Inventory
from tsmon.monitor.state import Node, View
from tsmon.source.control.devices import Device

UnseenBecause = Literal["waits_for_approval", "locked_out", "new", "policy"]
LocalBecause = Literal["shared", "new"]
UNSEEN_WORDS: dict[UnseenBecause, str] = {
    "waits_for_approval": "waits for an administrator's approval",
    "locked_out": "the tailnet lock keeps it out",
    "new": "has just joined",
    "policy": "the tailnet's policy hides it from this monitor",
}
_JUST = 60.0
"""Seconds after its creation in which a machine may not be in the monitor's map yet."""


class Unseen(NamedTuple):
    device: Device
    because: UnseenBecause


class LocalOnly(NamedTuple):
    node: Node
    because: LocalBecause


class Coverage(NamedTuple):
    """What the control server has and this monitor sees."""

    known: int
    seen: int
    unseen: list[Unseen]
    """By hostname."""
    local_only: list[LocalOnly]
    """Nodes that the control server does not list, by hostname."""


def coverage(view: View, inventory: Inventory) -> Coverage:
    """Of the last snapshot and the last good answer."""
    devices, nodes = inventory.devices, view.nodes
    if inventory.as_of is None:
        return Coverage(0, 0, [], [])
    unseen = [
        Unseen(device, _because(device, inventory.as_of))
        for id_, device in devices.items()
        if id_ not in nodes
    ]
    local = [
        LocalOnly(node, "shared" if node.facts.shared else "new")
        for id_, node in nodes.items()
        if id_ not in devices
    ]
    return Coverage(
        len(devices),
        len(devices) - len(unseen),
        sorted(unseen, key=lambda row: (row.device.hostname, row.device.id)),
        sorted(local, key=lambda row: (row.node.hostname, row.node.id)),
    )


def _because(device: Device, as_of: float) -> UnseenBecause:
    """A control server sends a monitor whatever the policy lets it reach, or be reached by: what it knows and
    does not send has one of these reasons."""
    if device.approved is False:
        return "waits_for_approval"
    if device.locked_out:
        return "locked_out"
    if device.created is not None and as_of - device.created < _JUST:
        return "new"
    return "policy"
